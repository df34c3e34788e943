// Arrays of the page: base64 of gzip of the bytes.
const ARRAY_TYPES = {
  uint8: Uint8Array, uint16: Uint16Array, int16: Int16Array, int32: Int32Array,
  float32: Float32Array, float64: Float64Array,
};

async function decodeArray(element) {
  const { dtype, shape } = element.dataset;
  const stream = new Blob([bytesOf(element.textContent)]).stream();
  const plain = stream.pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(plain).arrayBuffer();
  element.remove(); // the text is no longer needed
  return { shape: shape.split(" ").map(Number), data: new ARRAY_TYPES[dtype](buffer) };
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function decodeArrays() {
  const elements = [...document.querySelectorAll("script[data-name]")];
  const entries = elements.map(async (e) => [e.dataset.name, await decodeArray(e)]);
  return Object.fromEntries(await Promise.all(entries));
}

// Values of the rows that have details.
class Rows {
  constructor(arrays, nRows) {
    this.D = arrays.codes.shape[1];
    this.codes = arrays.codes.data;
    this.values = arrays.values.data;
    this.nDetailed = arrays.codes.shape[0];
    this.slot = null; // all rows have details
    this.detailed = arrays.detailed ? arrays.detailed.data : null;
    if (this.detailed) {
      this.slot = new Int32Array(nRows).fill(-1);
      this.detailed.forEach((row, slot) => (this.slot[row] = slot));
    }
  }

  slotOf(i) {
    return this.slot ? this.slot[i] : i;
  }

  value(slot, f) {
    const code = this.codes[slot * this.D + f];
    return this.values.length ? this.values[code] : code;
  }

  at(slot) {
    const x = new Float64Array(this.D);
    for (let f = 0; f < this.D; f++) x[f] = this.value(slot, f);
    return x;
  }
}
