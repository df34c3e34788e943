// A row that somebody types or pastes: values in the order of the features, name=value pairs, or a
// line of names above a line of values.
function parseRow(text, features, baseline) {
  const lines = text.trim().split(/\r?\n/).filter((line) => line.trim());
  if (!lines.length) throw new Error("Paste the values of a row, or name=value pairs.");
  if (text.includes("=")) return named(lines.flatMap(cells).map(pair), features, baseline);
  const rows = lines.map(cells);
  if (rows.length === 2 && rows[0].some((cell) => !isNumber(cell))) {
    if (rows[0].length !== rows[1].length) {
      throw new Error(`${rows[0].length} names stand above ${rows[1].length} values.`);
    }
    return named(rows[0].map((name, k) => [name, rows[1][k]]), features, baseline);
  }
  if (rows.length > 1) throw new Error("Paste one row at a time.");
  const values = rows[0].map((cell, k) => toNumber(cell, features[k] ?? `value ${k + 1}`));
  if (values.length !== features.length) {
    throw new Error(
      `A row of this map has ${features.length} values; these are ${values.length}. ` +
      `They go in this order: ${listed(features)}.`,
    );
  }
  return { x: Float64Array.from(values), note: "" };
}

function named(pairs, features, baseline) {
  const x = Float64Array.from(baseline), seen = new Set();
  for (const [name, cell] of pairs) {
    const f = features.indexOf(name);
    if (f < 0) throw new Error(`There is no feature "${name}"; the features are ${listed(features)}.`);
    if (seen.has(f)) throw new Error(`The feature "${name}" is given twice.`);
    seen.add(f);
    x[f] = toNumber(cell, name);
  }
  const missing = features.filter((_, f) => !seen.has(f));
  const note = missing.length ? `Not given, so at their mean: ${listed(missing)}.` : "";
  return { x, note };
}

// Tabs, semicolons or commas part cells; blanks only where there is none of these.
function cells(line) {
  const separator = ["\t", ";", ","].find((s) => line.includes(s));
  const isPairs = line.includes("=");
  const parts = separator ? line.split(separator) : isPairs ? [line] : line.trim().split(/\s+/);
  return parts.map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
}

function pair(cell) {
  const at = cell.lastIndexOf("=");
  if (at < 1) throw new Error(`Expected name=value, found "${cell}".`);
  return [cell.slice(0, at).trim(), cell.slice(at + 1).trim()];
}

const isNumber = (cell) => cell !== "" && Number.isFinite(Number(cell));

function toNumber(cell, name) {
  if (isNumber(cell)) return Number(cell);
  const found = cell === "" ? "an empty cell" : `"${cell}"`;
  throw new Error(`${name}: expected a number, found ${found}.`);
}

function listed(names) {
  const more = names.length > 8 ? ` and ${names.length - 8} more` : "";
  return names.slice(0, 8).join(", ") + more;
}
