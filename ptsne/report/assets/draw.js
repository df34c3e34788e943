// Bars, pictures and colours. Text goes in as text, never as HTML.
const PLUS = "#b2182b", MINUS = "#2166ac", GRAY = 0xc4c8ccff, FAINT = 0xc4c8cc60;
const TEN = [
  0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0x56b4e9, 0xe69f00, 0x882255, 0x999933, 0x332288, 0x7f7f7f,
];
const GROUP_COLOURS = { A: 0x0072b2ff, B: 0xd55e00ff };
const VIRIDIS = [0x440154, 0x414487, 0x2a788e, 0x22a884, 0x7ad151, 0xfde725];
const DIVERGING = [0x2166ac, 0x67a9cf, 0xd5d9dd, 0xef8a62, 0xb2182b];

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(node.style, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const byId = (id) => document.getElementById(id);
const number = (v) => (v === 0 ? "0" : String(Number(v.toPrecision(3)))).replace("-", "\u2212");
const signed = (v) => (v > 0 ? "+" : "") + number(v);
const percent = (v) => {
  const whole = Math.abs(v) >= 0.0995 ? Math.round(100 * v) : Math.round(1000 * v) / 10;
  return `${whole > 0 ? "+" : ""}${whole} %`.replace("-", "\u2212");
};

// ------------------------------------------------------------------------------------- colours

const opaque = (rgb) => ((rgb << 8) | 0xff) >>> 0;
const css = (rgba) => `#${(rgba >>> 0).toString(16).padStart(8, "0")}`;

function mix(a, b, t) {
  const channel = (shift) => {
    const from = (a >> shift) & 255, to = (b >> shift) & 255;
    return Math.round(from + t * (to - from)) << shift;
  };
  return channel(16) | channel(8) | channel(0);
}

// Ten colours that everyone can tell apart, then lighter and darker ones of the same.
function classColour(k) {
  const colour = TEN[k % 10], round = Math.floor(k / 10) % 3;
  return opaque(round === 0 ? colour : mix(colour, round === 1 ? 0xffffff : 0x000000, 0.45));
}

function rampColour(ramp, t) {
  const at = Math.min(1, Math.max(0, t)) * (ramp.length - 1);
  const low = Math.min(Math.floor(at), ramp.length - 2);
  return opaque(mix(ramp[low], ramp[low + 1], at - low));
}

// Colours of numbers between their 1 and 99 %; numbers with a sign are centred at zero.
function scaleFor(values, isSigned) {
  const finite = values.filter(Number.isFinite).sort();
  if (!finite.length) return { low: 0, high: 1, ramp: VIRIDIS, colour: () => FAINT };
  let low = quantile(finite, 0.01), high = quantile(finite, 0.99);
  if (low === high) [low, high] = [finite[0], finite[finite.length - 1]];
  if (isSigned) {
    high = Math.max(Math.abs(low), Math.abs(high));
    low = -high;
  }
  const ramp = isSigned ? DIVERGING : VIRIDIS, width = high - low || 1;
  const colour = (v) => (Number.isFinite(v) ? rampColour(ramp, (v - low) / width) : FAINT);
  return { low, high, ramp, colour };
}

// ---------------------------------------------------------------------------------------- bars

const NEGLIGIBLE = 0.002; // of the largest: no bar of its own

// Features by size, largest first, and what all others add.
function ranked(values, n) {
  const order = Array.from(values.keys()).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
  const least = NEGLIGIBLE * Math.abs(values[order[0]]);
  const shown = order.slice(0, n).filter((f) => Math.abs(values[f]) > least);
  let rest = 0;
  for (const f of order.slice(shown.length)) rest += values[f];
  return { shown, rest, nRest: values.length - shown.length };
}

// lines: {label, title, value, low, high, text, kind}; low and high are optional
function bars(lines) {
  const drawn = lines.filter((line) => line.kind !== "rest"); // the sum of the others is no bar
  const ends = drawn.flatMap((l) => [l.value, l.low ?? l.value, l.high ?? l.value]);
  const low = Math.min(0, ...ends), high = Math.max(0, ...ends), width = high - low || 1;
  const at = (v) => `${(100 * (v - low)) / width}%`;
  const list = element("div", { class: "bars", role: "list" });
  for (const line of lines) {
    const from = Math.min(0, line.value), to = Math.max(0, line.value);
    const track = element("div", { class: "track" });
    const background = line.value > 0 ? PLUS : MINUS;
    const style = { left: at(from), width: `${(100 * (to - from)) / width}%`, background };
    if (line.kind !== "rest") track.append(element("div", { class: "bar", style }));
    if (line.low !== undefined && line.high > line.low) {
      const span = `${(100 * (line.high - line.low)) / width}%`;
      track.append(element("div", { class: "whisker", style: { left: at(line.low), width: span } }));
    }
    track.append(element("div", { class: "zero", style: { left: at(0) } }));
    list.append(element(
      "div", { class: "line", role: "listitem", title: line.title ?? line.label },
      element("span", { class: "name" }, line.label), track,
      element("span", { class: "number" }, line.text),
    ));
  }
  return list;
}

// ------------------------------------------------------------------------------------ pictures

class Picture {
  constructor(shape, rows) {
    [this.height, this.width, this.channels] = [shape[0], shape[1], shape[2] ?? 1];
    const values = rows.values.length ? rows.values : rows.codes.subarray(0, 200 * rows.D);
    this.low = values.reduce((a, b) => Math.min(a, b), Infinity);
    this.high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  }

  // The picture, gray where it is not in colour, and a square on every pixel whose area is the
  // size of its value: red for +, blue for -.
  draw(x, values, side, label) {
    const scale = Math.max(1, Math.floor((2 * side) / this.width));
    const canvas = element("canvas", { role: "img", "aria-label": label, class: "picture" });
    canvas.width = this.width * scale;
    canvas.height = this.height * scale;
    canvas.style.width = `${side}px`;
    const context = canvas.getContext("2d");
    for (let p = 0; p < this.height * this.width; p++) {
      context.fillStyle = this.shade(x, p, values ? 0.35 : 1);
      context.fillRect((p % this.width) * scale, Math.floor(p / this.width) * scale, scale, scale);
    }
    if (values) this.squares(context, values, scale);
    return canvas;
  }

  shade(x, p, strength) {
    const light = Array.from({ length: this.channels }, (_, c) => {
      const t = (x[p * this.channels + c] - this.low) / (this.high - this.low || 1);
      return Math.min(1, Math.max(0, t));
    });
    if (this.channels === 3) return `rgb(${light.map((t) => 255 * (1 - strength * (1 - t)))})`;
    return `rgb(${Array(3).fill(255 * (1 - strength * mean(light)))})`;
  }

  squares(context, values, scale) {
    const sizes = Array.from({ length: this.height * this.width }, (_, p) => {
      return values.slice(p * this.channels, (p + 1) * this.channels).reduce((a, b) => a + b, 0);
    });
    const largest = sizes.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
    sizes.forEach((size, p) => {
      const side = scale * Math.sqrt(Math.abs(size) / largest);
      const left = ((p % this.width) + 0.5) * scale - side / 2;
      const top = (Math.floor(p / this.width) + 0.5) * scale - side / 2;
      context.fillStyle = size > 0 ? PLUS : MINUS;
      context.fillRect(left, top, side, side);
    });
  }
}
