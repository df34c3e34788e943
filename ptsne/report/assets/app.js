// The page: what is chosen, and what is said about it.
const N_BARS = 10;

class App {
  constructor(facts, arrays) {
    this.facts = facts;
    this.arrays = arrays;
    this.rows = new Rows(arrays, facts.n_rows);
    this.explainer = new Explainer(facts, arrays, this.rows);
    this.map = new PointMap(arrays.Y.data, facts.n_components);
    this.picture = facts.image_shape ? new Picture(facts.image_shape, this.rows) : null;
    this.slots = { A: null, B: null };
    this.next = "A";
    this.pinned = null;
    this.newRow = null;
    this.colourOf = () => 0x0072b2ff;
    this.ticket = 0; // of the contrast asked last
    this.paintTicket = 0;
  }

  async start(item) {
    await this.map.show(item);
    this.writeHeading();
    this.fillColours();
    this.connectMap();
    this.connectPanel();
    await this.recolour();
  }

  writeHeading() {
    const { facts } = this;
    const parts = [
      `${facts.n_rows.toLocaleString("en")} rows`, `${facts.features.length.toLocaleString("en")} features`,
    ];
    if (facts.n_components === 1) parts.push("one dimension, spread upwards for the eye");
    if (facts.n_components > 2) parts.push(`the first two of ${facts.n_components} dimensions`);
    parts.push(facts.live ? "live: the model answers" : "self-contained: nothing leaves this page");
    byId("subtitle").textContent = parts.join(" \u00b7 ");
    byId("checks").replaceChildren(
      element("strong", {}, "How exact "), ...facts.checks.map((line) => element("span", {}, `${line} `)),
    );
    byId("new-card").hidden = !(facts.live || this.explainer.isPortable);
    const some = facts.features.slice(0, 3).map((name) => `${name}=\u2026`).join(", ");
    byId("new-text").placeholder = `${facts.features.length} values, or ${some}`;
  }

  // ------------------------------------------------------------------------------------ colours

  fillColours() {
    const { facts, arrays } = this;
    const options = [];
    if (arrays.label || arrays.quantity) options.push(["label", "label"]);
    options.push(["value", "value of a feature"], ["contribution", "contribution of a feature"]);
    if (arrays.trust) options.push(["trust", "trust: how unlike the training rows"]);
    if (arrays.n_active) options.push(["n_active", "landmarks that hold the row"]);
    options.push(["none", "nothing"]);
    const select = byId("colour");
    for (const [value, text] of options) select.append(element("option", { value }, text));
    const order = facts.features.slice(0, 2000);
    byId("features").append(...order.map((name) => element("option", { value: name })));
    byId("feature").value = facts.features[this.liveliestFeature()];
    select.addEventListener("change", () => this.recolour());
    byId("feature").addEventListener("change", () => this.recolour());
  }

  // The feature that differs most over the rows, as a first choice.
  liveliestFeature() {
    const n = Math.min(200, this.rows.nDetailed), D = this.rows.D;
    let best = 0, most = -1;
    for (let f = 0; f < D; f++) {
      let low = 0, square = 0;
      for (let s = 0; s < n; s++) {
        const v = this.rows.value(s, f);
        low += v / n;
        square += (v * v) / n;
      }
      if (square - low * low > most) [best, most] = [f, square - low * low];
    }
    return best;
  }

  chosenFeature() {
    return this.facts.features.indexOf(byId("feature").value);
  }

  async recolour() {
    const mode = byId("colour").value, ticket = ++this.paintTicket;
    const needsFeature = mode === "value" || mode === "contribution";
    byId("feature-choice").hidden = !needsFeature;
    byId("progress").textContent = "";
    if (needsFeature && this.chosenFeature() < 0) {
      byId("progress").textContent = "There is no such feature.";
      return;
    }
    if (mode === "label" && this.arrays.label) return this.colourByClass();
    this.map.name([]);
    if (mode === "none") return this.colourPlainly();
    const values = await this.valuesFor(mode, ticket);
    if (values && ticket === this.paintTicket) this.colourByNumber(values, mode);
  }

  async valuesFor(mode, ticket) {
    const f = this.chosenFeature();
    if (mode === "label") return this.arrays.quantity.data;
    if (mode === "trust" || mode === "n_active") return Float32Array.from(this.arrays[mode].data);
    if (mode === "contribution") return this.contributions(f, ticket);
    const values = new Float32Array(this.facts.n_rows).fill(NaN);
    for (let slot = 0; slot < this.rows.nDetailed; slot++) {
      values[this.rows.detailed ? this.rows.detailed[slot] : slot] = this.rows.value(slot, f);
    }
    return values;
  }

  // The map fills with colour while the walks to its rows go on.
  async contributions(f, ticket) {
    const isStale = () => ticket !== this.paintTicket;
    let paintAt = performance.now() + 1000;
    const onProgress = (part) => {
      byId("progress").textContent = `walking: ${Math.round(100 * part)} %`;
      const now = performance.now();
      if (now < paintAt) return;
      this.colourByNumber(this.explainer.contributions(f), "contribution");
      paintAt = Infinity;
      afterPaint(() => (paintAt = performance.now() + 1000 + 5 * (performance.now() - now)));
    };
    await this.explainer.walkToAll(onProgress, isStale);
    if (isStale()) return null;
    byId("progress").textContent = "";
    return this.explainer.contributions(f);
  }

  colourPlainly() {
    this.colourOf = () => 0x0072b2ff;
    byId("legend").replaceChildren();
    this.paint();
  }

  colourByClass() {
    const code = this.arrays.label.data, names = this.facts.classes;
    this.colourOf = (i) => (code[i] < 0 ? GRAY : classColour(code[i]));
    const chips = names.map((name, k) => {
      const chip = element(
        "button", { type: "button", class: "chip", title: `Take all of \u201c${name}\u201d as a group` },
        element("i", { style: { background: css(classColour(k)) } }), name,
      );
      chip.addEventListener("click", () => this.chooseGroup(rowsWhere(code, k), name));
      return chip;
    });
    if (code.includes(-1)) chips.push(element("span", { class: "chip" }, element("i", { style: { background: css(GRAY) } }), "no label"));
    byId("legend").replaceChildren(...chips);
    this.map.name(names.length <= 20 ? this.map.densest(code, names) : []);
    this.paint();
  }

  colourByNumber(values, mode) {
    const scale = scaleFor(values, mode === "contribution");
    this.colourOf = (i) => scale.colour(values[i]);
    const stops = scale.ramp.map((rgb) => css(opaque(rgb))).join(", ");
    const words = {
      contribution: `map units that \u201c${byId("feature").value}\u201d takes a row further on its way from the mean row`,
      value: byId("feature").value,
      label: "label",
      trust: "percentile of strangeness among the training rows: near 100 a place is an extrapolation",
      n_active: "landmarks that hold the row; at more than one it stands on a boundary between charts",
    };
    byId("legend").replaceChildren(
      element("span", {}, number(scale.low)),
      element("span", { class: "ramp", style: { background: `linear-gradient(to right, ${stops})` } }),
      element("span", {}, number(scale.high)),
      element("span", { class: "what" }, words[mode]),
    );
    this.paint();
  }

  paint() {
    const { A, B } = this.slots;
    const member = new Map();
    for (const [name, slot] of Object.entries({ A, B })) {
      if (slot && slot.rows.length > 1) slot.rows.forEach((i) => member.set(i, GROUP_COLOURS[name]));
    }
    this.map.paint(member.size ? (i) => member.get(i) ?? FAINT : this.colourOf);
    const marks = ["A", "B"].filter((s) => this.slots[s]?.place).map((name) => ({ ...this.slots[name].place, name }));
    const isNewShown = this.newRow && !marks.some((m) => m.x === this.newRow.place.x && m.y === this.newRow.place.y);
    if (isNewShown) marks.push({ ...this.newRow.place, name: "new" });
    if (this.pinned !== null && !marks.length) marks.push({ ...this.map.place(this.pinned), name: "" });
    this.map.mark(marks);
  }

  // ------------------------------------------------------------------------------------ pointer

  connectMap() {
    const { plot } = this.map;
    plot.on_event("mousemove", (e) => this.hover(this.map.nearest(e), e));
    plot.on_event("mouseleave", () => this.hover(null));
    const choose = (e) => {
      const i = this.map.nearest(e);
      if (i !== null) this.chooseRow(i);
    };
    plot.on_event("tap", choose);
    plot.on_event("doubletap", choose); // two quick clicks, often on two points
    plot.on_event("selectiongeometry", ({ geometry, final }) => {
      if (!final || geometry.type !== "poly") return;
      const rows = this.map.inside(geometry);
      if (rows.length) this.chooseGroup(rows, `${rows.length.toLocaleString("en")} rows`);
    });
  }

  hover(i, event) {
    const tooltip = byId("tooltip");
    if (i === null) {
      tooltip.hidden = true;
      this.hovered = null;
      return;
    }
    if (i !== this.hovered) {
      this.hovered = i;
      tooltip.replaceChildren(...this.tooltipParts(i));
      tooltip.hidden = false;
    }
    const stage = byId("stage"), box = byId("map");
    const left = box.offsetLeft + event.sx + 18, top = box.offsetTop + event.sy + 12;
    const isRight = left + tooltip.offsetWidth > stage.clientWidth;
    const isLow = top + tooltip.offsetHeight > stage.clientHeight;
    tooltip.style.left = `${Math.max(0, isRight ? left - tooltip.offsetWidth - 36 : left)}px`;
    tooltip.style.top = `${Math.max(0, isLow ? top - tooltip.offsetHeight - 24 : top)}px`;
  }

  tooltipParts(i) {
    const parts = [element("strong", {}, this.rowName(i))];
    const end = this.explainer.row(i);
    if (!end) return [...parts, element("p", { class: "hint" }, "The page keeps no details of this row.")];
    const { values, distance } = this.explainer.lengths(end);
    if (this.picture) parts.push(this.picture.draw(end.x, values, 112, this.rowName(i)));
    parts.push(this.lengthBars(end.x, values, this.picture ? 3 : 5, false));
    return [...parts, element("p", { class: "hint" }, `${number(distance)} map units from the mean row`)];
  }

  rowName(i) {
    const { facts, arrays } = this;
    const given = facts.row_names ? facts.row_names[i] : String(i);
    const name = /^\d+$/.test(given) ? `Row ${given}` : given;
    const label = arrays.label && arrays.label.data[i] >= 0 ? facts.classes[arrays.label.data[i]] : null;
    const quantity = arrays.quantity ? number(arrays.quantity.data[i]) : null;
    return [name, label ?? quantity].filter((part) => part !== null).join(" \u00b7 ");
  }

  // ------------------------------------------------------------------------------------ choosing

  chooseRow(i) {
    this.pinned = i;
    this.showRow(i);
    const isThere = Object.values(this.slots).some((slot) => slot?.rows.length === 1 && slot.rows[0] === i);
    if (isThere) return;
    const slot = { rows: [i], name: this.rowName(i), place: this.map.place(i) };
    this.fill(slot);
  }

  chooseGroup(rows, name) {
    if (rows.length === 1) return this.chooseRow(rows[0]);
    this.fill({ rows, name: /rows$/.test(name) ? name : `${name} (${rows.length.toLocaleString("en")})`, place: null });
  }

  fill(slot) {
    if (this.slots.A && this.slots.B && this.next === "A") this.slots.B = null; // begin anew
    this.slots[this.next] = slot;
    this.next = this.next === "A" ? "B" : "A";
    this.showSlots();
    this.paint();
    this.compare();
  }

  showSlots() {
    for (const name of ["A", "B"]) {
      const button = byId(`slot-${name.toLowerCase()}`);
      button.querySelector("span").textContent = this.slots[name]?.name ?? "choose";
      button.setAttribute("aria-pressed", String(this.next === name));
    }
    byId("clear").disabled = !this.slots.A && !this.slots.B;
  }

  clear() {
    this.slots = { A: null, B: null };
    this.next = "A";
    this.ticket += 1;
    byId("contrast-body").replaceChildren();
    byId("contrast-hint").hidden = false;
    this.showSlots();
    this.paint();
  }

  connectPanel() {
    for (const name of ["A", "B"]) {
      byId(`slot-${name.toLowerCase()}`).addEventListener("click", () => {
        this.next = name;
        this.showSlots();
      });
    }
    byId("clear").addEventListener("click", () => this.clear());
    for (const [id, tool] of [["move", "PanTool"], ["lasso", "LassoSelectTool"]]) {
      byId(id).addEventListener("click", () => this.useTool(id, tool));
    }
    byId("whole").addEventListener("click", () => this.map.plot.reset.emit());
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(byId("query").value.trim());
    });
    byId("new-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.placeNew(byId("new-text").value);
    });
    this.showSlots();
  }

  useTool(id, tool) {
    this.map.use(tool);
    for (const other of ["move", "lasso"]) byId(other).setAttribute("aria-pressed", String(other === id));
  }

  // ------------------------------------------------------------------------------------- search

  // The row of this number or name, or the next one whose name or label contains the words.
  search(words) {
    const found = byId("found");
    if (!words) return (found.textContent = "");
    const hits = this.matches(words);
    if (!hits.length) return (found.textContent = "no such row");
    const isSame = this.query === words;
    this.query = words;
    this.hit = isSame ? (this.hit + 1) % hits.length : 0;
    found.textContent = hits.length > 1 ? `${this.hit + 1} of ${hits.length.toLocaleString("en")}` : "found";
    this.pinned = hits[this.hit];
    this.showRow(this.pinned);
    this.paint();
    this.map.mark([{ ...this.map.place(this.pinned), name: this.rowName(this.pinned) }]);
    return found.textContent;
  }

  matches(words) {
    const { n_rows, row_names, classes } = this.facts;
    const wanted = words.toLowerCase();
    const all = Array.from({ length: n_rows }, (_, i) => i);
    const byName = row_names ? all.filter((i) => row_names[i].toLowerCase() === wanted) : [];
    if (byName.length) return byName;
    if (!row_names && /^\d+$/.test(words)) return Number(words) < n_rows ? [Number(words)] : [];
    const label = this.arrays.label?.data;
    return all.filter((i) => {
      const isNamed = row_names && row_names[i].toLowerCase().includes(wanted);
      return isNamed || (label && label[i] >= 0 && classes[label[i]].toLowerCase().includes(wanted));
    });
  }

  // --------------------------------------------------------------------------------------- rows

  showRow(i) {
    byId("row-title").textContent = this.rowName(i);
    byId("row-hint").hidden = true;
    const end = this.explainer.row(i);
    if (!end) {
      byId("row-body").replaceChildren(element("p", { class: "hint" }, "The page keeps no details of this row."));
      return;
    }
    const { values, distance } = this.explainer.lengths(end);
    const parts = this.storyOf(end.x, values, distance);
    if (this.explainer.isPortable) parts.push(this.holdersNote(end.x));
    if (this.arrays.trust) parts.push(this.trustNote(this.arrays.trust.data[i]));
    byId("row-body").replaceChildren(...parts);
  }

  // What took a row from the place of the mean row to its own.
  storyOf(x, values, distance) {
    const parts = [];
    if (this.picture) {
      parts.push(element(
        "div", { class: "pictures" }, this.picture.draw(x, null, 120, "the row"),
        this.picture.draw(x, values, 120, "the row and what its pixels do"),
      ));
    }
    parts.push(
      element("p", { class: "lead" }, `${number(distance)} map units from the place of the mean row:`),
      this.lengthBars(x, values, N_BARS, true),
      element("p", { class: "hint" }, "Map units. Red takes it further on its way, blue holds it back."),
    );
    return parts;
  }

  lengthBars(x, values, n, withRest) {
    const { features } = this.facts;
    const { shown, rest, nRest } = ranked(values, n);
    const lines = shown.map((f) => ({
      label: `${features[f]} = ${number(x[f])}`, value: values[f], text: signed(values[f]),
    }));
    if (withRest && nRest) lines.push({ label: `${nRest} others together`, value: rest, text: signed(rest), kind: "rest" });
    return bars(lines);
  }

  // The training rows that hold a row, by their landmarks.
  holdersNote(x) {
    const holders = this.explainer.engine.holders(x).sort((a, b) => b.weight - a.weight);
    const rows = holders.map(({ landmark, weight }) => {
      return `${this.arrays.landmark_rows.data[landmark]} (${Math.round(100 * weight)} %)`;
    });
    const where = rows.length > 1
      ? "It stands on a boundary between charts of the map." : "It stands inside one chart of the map.";
    const word = rows.length > 1 ? "rows" : "row";
    return element("p", { class: "hint" }, `Held by training ${word} ${rows.join(", ")}, counted from 0. ${where}`);
  }

  trustNote(percentile) {
    return element("p", { class: "hint" }, `Stranger than ${Math.round(percentile)} % of the training rows.`);
  }

  // ----------------------------------------------------------------------------------- contrasts

  async compare() {
    const { A, B } = this.slots, ticket = ++this.ticket;
    byId("contrast-hint").hidden = Boolean(A && B);
    if (!A || !B) {
      byId("contrast-body").replaceChildren();
      return;
    }
    const body = byId("contrast-body");
    const [starts, ends] = [A, B].map((slot) => this.members(slot));
    if (!starts.length || !ends.length) {
      body.replaceChildren(element("p", { class: "hint" }, "The page keeps no details of these rows."));
      return;
    }
    body.replaceChildren(element("p", { class: "hint", role: "status" }, "walking between them \u2026"));
    try {
      const isPair = starts.length === 1 && ends.length === 1;
      const result = isPair
        ? await this.pairShares(this.explainer.end(starts[0]), this.explainer.end(ends[0]))
        : await this.explainer.contrast(starts, ends, () => ticket !== this.ticket);
      if (ticket === this.ticket) this.showContrast(starts, ends, result);
    } catch (error) {
      body.replaceChildren(element("p", { class: "error" }, error.message));
    }
  }

  // Numbers of the rows with details, or the new row.
  members(slot) {
    return slot.end ? [slot.end] : slot.rows.filter((i) => this.rows.slotOf(i) >= 0);
  }

  async pairShares(start, end) {
    if (!this.facts.live) return this.explainer.shares(start, end);
    const reference = (e) => (e.row === null ? { values: Array.from(e.x) } : { row: e.row });
    const answer = await ask("contrast", { a: reference(start), b: reference(end) });
    return answer.shares && { values: Float64Array.from(answer.shares) };
  }

  showContrast(starts, ends, result) {
    const body = byId("contrast-body");
    if (!result) return body.replaceChildren(element("p", { class: "hint" }, "On the map nothing separates them."));
    const { shown, rest, nRest } = ranked(result.values, N_BARS);
    const { features } = this.facts;
    const lines = shown.map((f) => this.shareLine(features[f], f, result));
    if (nRest) lines.push({ label: `${nRest} others together`, value: rest, text: percent(rest), kind: "rest" });
    const parts = [];
    if (this.picture) parts.push(this.contrastPictures(starts, ends, result.values));
    const spread = result.nPairs
      ? `Mean over ${result.nPairs} pairs of members; the line spans 5 to 95 % of them. ` : "";
    parts.push(
      element("p", { class: "lead" }, "Share of each feature in the way from A to B:"), bars(lines),
      element("p", { class: "hint" }, `${spread}Shares sum to 100 %. Red leads towards B, blue back towards A.`),
    );
    return body.replaceChildren(...parts);
  }

  shareLine(label, f, result) {
    const line = { label, value: result.values[f], text: percent(result.values[f]) };
    if (!result.nPairs) return line;
    const spread = Math.round(100 * result.spread[f]);
    const title = `${label}: ${percent(result.values[f])}, standard deviation ${spread} %`;
    return { ...line, title, low: result.low[f], high: result.high[f], text: `${line.text} \u00b1${spread}` };
  }

  contrastPictures(starts, ends, shares) {
    const [a, b] = [starts, ends].map((group) => {
      return average(thinned(group, MAX_PAIRS).map((member) => this.explainer.end(member).x));
    });
    const figure = (picture, text) => element("figure", {}, picture, element("figcaption", {}, text));
    return element(
      "div", { class: "pictures" }, figure(this.picture.draw(a, null, 92, "A"), "A"),
      figure(this.picture.draw(b, shares, 132, "B with the share of every pixel"), "from A to B"),
      figure(this.picture.draw(b, null, 92, "B"), "B"),
    );
  }

  // ------------------------------------------------------------------------------------ new rows

  async placeNew(text) {
    byId("new-error").textContent = "";
    try {
      const { x, note } = parseRow(text, this.facts.features, this.arrays.baseline.data);
      const found = this.facts.live ? await this.askForRow(x) : this.walkToRow(x);
      const place = { x: found.end.y[0], y: found.end.y[1] ?? 0 };
      this.newRow = { end: found.end, place };
      const parts = this.storyOf(x, found.values, found.distance);
      if (note) parts.unshift(element("p", { class: "hint" }, note));
      byId("new-body").replaceChildren(...parts, ...found.notes);
      this.next = "A";
      this.fill({ rows: [], end: found.end, name: "the new row", place });
    } catch (error) {
      byId("new-error").textContent = error.message;
    }
  }

  walkToRow(x) {
    const end = this.explainer.fromValues(x);
    const notes = [this.holdersNote(x)];
    return { end, notes, ...this.explainer.lengths(end) };
  }

  async askForRow(x) {
    const answer = await ask("explain", { values: Array.from(x) });
    const end = { row: null, slot: null, x, y: Float64Array.from(answer.place) };
    const notes = answer.notes.map((line) => element("p", { class: "hint" }, line));
    return { end, notes, values: Float64Array.from(answer.lengths), distance: answer.distance };
  }
}

const afterPaint = (then) => requestAnimationFrame(() => requestAnimationFrame(then));

async function ask(question, body) {
  let response;
  try {
    response = await fetch(question, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The model does not answer: is \u201cptsne serve\u201d still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const rowsWhere = (code, k) => Array.from(code.keys()).filter((i) => code[i] === k);

// At most n entries, evenly spread.
function thinned(list, n) {
  if (list.length <= n) return list;
  return Array.from({ length: n }, (_, k) => list[Math.floor((k * list.length) / n)]);
}

function average(rows) {
  return rows[0].map((_, f) => mean(rows.map((x) => x[f])));
}

async function main() {
  const read = (id) => JSON.parse(byId(id).textContent);
  try {
    const app = new App(read("facts"), await decodeArrays());
    await app.start(read("plot"));
    window.ptsnePage = app;
    document.body.dataset.ready = "true";
  } catch (error) {
    byId("subtitle").textContent = `This page could not start: ${error.message}`;
    throw error;
  }
}

main();
