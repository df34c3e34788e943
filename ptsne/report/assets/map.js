// The points on the screen: drawn by Bokeh, found by a grid of our own.
const REACH = 14; // pixels from the pointer to a point

class PointMap {
  constructor(Y, K) {
    const n = Y.length / K;
    this.n = n;
    this.x = Float32Array.from({ length: n }, (_, i) => Y[i * K]);
    // one dimension: spread over a band; three: the third is not drawn
    const spread = (i) => (((i * 0.6180339887) % 1) - 0.5) * 0.2 * extent(this.x);
    this.y = Float32Array.from({ length: n }, (_, i) => (K > 1 ? Y[i * K + 1] : spread(i)));
    this.grid = new Grid(this.x, this.y);
  }

  async show(item) {
    await Bokeh.embed.embed_item(item, "map");
    hideFrame(document.getElementById("map"));
    const model = (name) => Bokeh.documents[Bokeh.documents.length - 1].get_model_by_name(name);
    this.plot = model("map");
    this.points = model("points");
    this.marks = model("marks");
    this.names = model("names");
    const Colours = this.points.data.color.constructor; // Bokeh's own array type: no parsing
    this.colours = new Colours(new Uint32Array(this.n).fill(0x0072b2ff).buffer, [this.n]);
    model("dots").glyph.size = { value: this.n > 15000 ? 3 : this.n > 3000 ? 4 : this.n > 500 ? 6 : 8 };
    this.points.data = { x: this.x, y: this.y, color: this.colours };
  }

  paint(colourOf) {
    for (let i = 0; i < this.n; i++) this.colours[i] = colourOf(i);
    this.points.change.emit();
  }

  mark(marks) {
    this.marks.data = {
      x: marks.map((m) => m.x), y: marks.map((m) => m.y), name: marks.map((m) => m.name),
    };
  }

  name(labels) {
    this.names.data = {
      x: labels.map((l) => l.x), y: labels.map((l) => l.y), name: labels.map((l) => l.name),
    };
  }

  // Name of each class in the middle of the fullest cell of a coarse grid: on the larger of two
  // islands, not between them.
  densest(code, names) {
    const width = extent(this.x) / 6, height = extent(this.y) / 6;
    return names.map((name, k) => {
      const cells = new Map();
      for (let i = 0; i < this.n; i++) {
        if (code[i] !== k) continue;
        const key = `${Math.floor(this.x[i] / width)} ${Math.floor(this.y[i] / height)}`;
        if (!cells.has(key)) cells.set(key, []);
        cells.get(key).push(i);
      }
      const fullest = [...cells.values()].reduce((a, b) => (b.length > a.length ? b : a), []);
      const middle = (values) => quantile(Float32Array.from(fullest, (i) => values[i]).sort(), 0.5);
      return { name, x: middle(this.x), y: middle(this.y) };
    });
  }

  place(i) {
    return { x: this.x[i], y: this.y[i] };
  }

  nearest({ x, y }) {
    const { x_range, y_range, inner_width, inner_height } = this.plot;
    const unitX = Math.abs(x_range.end - x_range.start) / inner_width;
    const unitY = Math.abs(y_range.end - y_range.start) / inner_height;
    return this.grid.nearest(x, y, REACH * unitX, REACH * unitY);
  }

  inside({ x, y }) {
    const found = [];
    for (let i = 0; i < this.n; i++) if (isInside(this.x[i], this.y[i], x, y)) found.push(i);
    return found;
  }

  use(toolType) {
    for (const tool of this.plot.toolbar.tools) {
      if (["PanTool", "LassoSelectTool"].includes(tool.type)) tool.active = tool.type === toolType;
    }
  }
}

// Bokeh draws a frame round the plot after each click.
function hideFrame(root) {
  for (const node of root.querySelectorAll("*")) {
    if (node.classList.contains("bk-events")) node.style.outline = "none";
    if (node.shadowRoot) hideFrame(node.shadowRoot);
  }
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  return high - low || 1;
}

// Points by cell.
class Grid {
  constructor(x, y) {
    [this.x, this.y] = [x, y];
    this.size = Math.max(1, Math.ceil(Math.sqrt(x.length / 3)));
    this.left = x.reduce((a, b) => Math.min(a, b), Infinity);
    this.bottom = y.reduce((a, b) => Math.min(a, b), Infinity);
    this.cellX = extent(x) / this.size;
    this.cellY = extent(y) / this.size;
    this.cells = new Map();
    for (let i = 0; i < x.length; i++) {
      const key = this.column(x[i]) * (this.size + 1) + this.row(y[i]);
      if (!this.cells.has(key)) this.cells.set(key, []);
      this.cells.get(key).push(i);
    }
  }

  column(x) {
    return Math.min(this.size, Math.max(0, Math.floor((x - this.left) / this.cellX)));
  }

  row(y) {
    return Math.min(this.size, Math.max(0, Math.floor((y - this.bottom) / this.cellY)));
  }

  // Point nearest to a place within an ellipse, or null.
  nearest(x, y, reachX, reachY) {
    let best = null, least = 1;
    for (let c = this.column(x - reachX); c <= this.column(x + reachX); c++) {
      for (let r = this.row(y - reachY); r <= this.row(y + reachY); r++) {
        for (const i of this.cells.get(c * (this.size + 1) + r) ?? []) {
          const distance = ((this.x[i] - x) / reachX) ** 2 + ((this.y[i] - y) / reachY) ** 2;
          if (distance < least) [best, least] = [i, distance];
        }
      }
    }
    return best;
  }
}

// Whether a point lies inside a polygon: a ray crosses its border an odd number of times.
function isInside(px, py, x, y) {
  let odd = false;
  for (let k = 0, j = x.length - 1; k < x.length; j = k++) {
    const crosses = y[k] > py !== y[j] > py;
    if (crosses && px < ((x[j] - x[k]) * (py - y[k])) / (y[j] - y[k]) + x[k]) odd = !odd;
  }
  return odd;
}
