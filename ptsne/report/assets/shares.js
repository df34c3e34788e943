// What moves rows: displacement from the mean, and the share of each feature in the way between
// two rows or two groups. All of it is told along the way, so that no turn of the map changes it.
const MAX_PAIRS = 200;

class Explainer {
  constructor(facts, arrays, rows) {
    this.rows = rows;
    this.K = facts.n_components;
    this.D = rows.D;
    this.Y = arrays.Y.data;
    this.isPortable = facts.engine === "atlas";
    this.engine = this.isPortable ? new Atlas(arrays) : new Table(arrays);
    this.origin = arrays.origin.data; // place of the mean row
    this.jacobians = null; // of the rows that isKnown marks
    this.isKnown = null;
  }

  // A row as an end of a way; null where the page has no details of it.
  row(i) {
    const slot = this.rows.slotOf(i);
    if (slot < 0) return null;
    const x = this.rows.at(slot);
    const y = this.Y.slice(i * this.K, (i + 1) * this.K);
    return { row: i, slot, x, y, state: this.isPortable ? this.engine.startAt(x) : null };
  }

  // A row that is not in the page.
  fromValues(x) {
    return { row: null, slot: null, x, y: this.engine.place(x), state: this.engine.startAt(x) };
  }

  // Displacement (K, D) that each feature adds between two rows, or from the mean row to one.
  displacements(start, end) {
    const { engine } = this;
    if (this.isPortable) return engine.way(start ? start.state : engine.atBaseline, end.state);
    return start ? engine.between(start.slot, end.slot) : engine.fromMean(end.slot);
  }

  // Signed length (D,) of each feature's displacement from the mean row, in map units: they sum
  // to the distance.
  lengths(end) {
    const phi = this.displacements(null, end);
    const way = sums(phi, this.K);
    const distance = Math.hypot(...way);
    return { values: along(phi, way.map((w) => (distance ? w / distance : 0))), distance };
  }

  // Share (D,) of each feature in the way from one row to another; together they are 1.
  shares(start, end) {
    const phi = this.displacements(start, end);
    const way = sums(phi, this.K);
    const square = dot(way, 0, way);
    return square ? { values: along(phi, way.map((w) => w / square)) } : null;
  }

  // Shares of the way between the centres of two groups, pair by pair of their members: mean,
  // standard deviation, 5 and 95 %.
  async contrast(A, B, isStale) {
    const [from, to] = [this.centre(A), this.centre(B)];
    const way = to.map((v, d) => v - from[d]);
    const parts = [];
    let rest = performance.now() + 30;
    for (const [i, j] of choosePairs(A.length, B.length)) {
      parts.push(along(this.displacements(this.end(A[i]), this.end(B[j])), way));
      if (performance.now() > rest) {
        await nextFrame();
        if (isStale()) return null;
        rest = performance.now() + 30;
      }
    }
    const total = mean(parts.map((part) => part.reduce((sum, v) => sum + v, 0)));
    return total > 0 ? summary(parts.map((part) => part.map((v) => v / total)), this.D) : null;
  }

  // A member of a group: a row by its number, or the end of a way.
  end(member) {
    return typeof member === "number" ? this.row(member) : member;
  }

  centre(members) {
    const centre = new Float64Array(this.K);
    for (const member of members) {
      for (let d = 0; d < this.K; d++) {
        const y = typeof member === "number" ? this.Y[member * this.K + d] : member.y[d];
        centre[d] += y / members.length;
      }
    }
    return centre;
  }

  // Signed length of one feature's displacement for every row; NaN where it is not known (yet).
  contributions(f) {
    const { rows, K } = this;
    const result = new Float32Array(this.Y.length / K).fill(NaN);
    for (let slot = 0; slot < rows.nDetailed; slot++) {
      if (this.isPortable && !this.isKnown[slot]) continue;
      const i = rows.detailed ? rows.detailed[slot] : slot;
      const shift = this.isPortable ? this.displacement(slot, f) : this.stored(slot, f);
      const way = Float64Array.from({ length: K }, (_, d) => this.Y[i * K + d] - this.origin[d]);
      result[i] = dot(way, 0, shift) / (Math.hypot(...way) || 1);
    }
    return result;
  }

  stored(slot, f) {
    const { codes, step } = this.engine;
    const at = slot * this.K * this.D + f;
    return Float64Array.from({ length: this.K }, (_, d) => codes[at + d * this.D] * step[slot]);
  }

  displacement(slot, f) {
    const { encoder, L, baseline } = this.engine;
    const change = this.rows.value(slot, f) - baseline[f];
    return Float64Array.from({ length: this.K }, (_, d) => {
      let slope = 0;
      const at = (slot * this.K + d) * L;
      for (let l = 0; l < L; l++) slope += this.jacobians[at + l] * encoder[l * this.D + f];
      return slope * change;
    });
  }

  // Average Jacobians from the mean to all rows, once; in an order that soon shows the whole map.
  async walkToAll(onProgress, isStale) {
    if (!this.isPortable) return;
    const { engine, rows } = this, n = rows.nDetailed, size = this.K * engine.L;
    this.isKnown ??= new Uint8Array(n);
    this.jacobians ??= new Float32Array(n * size); // for colours, seven digits are enough
    const stride = n % 7919 ? 7919 : 7907; // primes: every row has its turn
    let rest = performance.now() + 30;
    for (let k = 0; k < n && !isStale(); k++) {
      const slot = (k * stride) % n;
      if (this.isKnown[slot]) continue;
      const state = engine.startAt(rows.at(slot));
      this.jacobians.set(engine.averageJacobian(engine.atBaseline, state), slot * size);
      this.isKnown[slot] = 1;
      if (performance.now() < rest) continue;
      onProgress((k + 1) / n);
      await nextFrame();
      rest = performance.now() + 30;
    }
  }
}

const nextFrame = () => new Promise((resolve) => setTimeout(resolve, 0));

// Sum over features of each coordinate, (K,).
function sums(phi, K) {
  const D = phi.length / K;
  return Float64Array.from({ length: K }, (_, d) => {
    let sum = 0;
    for (let f = 0; f < D; f++) sum += phi[d * D + f];
    return sum;
  });
}

// Each feature's displacement along a direction, (D,).
function along(phi, direction) {
  const K = direction.length, D = phi.length / K;
  const result = new Float64Array(D);
  for (let d = 0; d < K; d++) {
    for (let f = 0; f < D; f++) result[f] += direction[d] * phi[d * D + f];
  }
  return result;
}

// All pairs, or 200 different ones: always the same for groups of the same size.
function choosePairs(n, m) {
  if (n * m <= MAX_PAIRS) {
    return Array.from({ length: n * m }, (_, k) => [Math.floor(k / m), k % m]);
  }
  let state = 1;
  const draw = (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const chosen = new Map();
  while (chosen.size < MAX_PAIRS) {
    const pair = [draw(n), draw(m)];
    chosen.set(pair.join(), pair);
  }
  return [...chosen.values()];
}

function summary(shares, D) {
  const result = { nPairs: shares.length };
  for (const key of ["values", "spread", "low", "high"]) result[key] = new Float64Array(D);
  for (let f = 0; f < D; f++) {
    const ordered = Float64Array.from(shares, (share) => share[f]).sort();
    const centre = mean(ordered);
    result.values[f] = centre;
    result.spread[f] = Math.sqrt(mean(ordered.map((s) => (s - centre) ** 2)));
    result.low[f] = quantile(ordered, 0.05);
    result.high[f] = quantile(ordered, 0.95);
  }
  return result;
}

const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

function quantile(sorted, q) {
  const at = q * (sorted.length - 1), low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}
