// The map itself: z = A x + a,  y = D z + sum_k p_k V_k + clip(B_k (z - K_k), -c p_k, c p_k),
// with p = sparsemax of the scores (2 z.K_k - |K_k|^2) / T. It is piecewise linear, so that the way
// between two rows is a chain of linear regions: all of them are visited, none is sampled.
class Atlas {
  constructor(arrays) {
    [this.m, this.K, this.L] = arrays.charts.shape;
    this.D = arrays.encoder.shape[1];
    this.encoder = arrays.encoder.data; // (L, D)
    this.bias = arrays.bias.data; // (L,)
    this.landmarks = arrays.landmarks.data; // (m, L)
    this.places = arrays.places.data; // (m, K)
    this.charts = arrays.charts.data; // (m, K, L)
    this.tilt = arrays.tilt.data; // (K, L)
    [this.temperature, this.clip] = arrays.constants.data;
    this.squares = new Float64Array(this.m);
    for (let k = 0; k < this.m; k++) {
      for (let l = 0; l < this.L; l++) this.squares[k] += this.landmarks[k * this.L + l] ** 2;
    }
    this.everyone = Int32Array.from({ length: this.m }, (_, k) => k);
    this.baseline = arrays.baseline.data;
    this.atBaseline = this.startAt(this.baseline);
  }

  code(x) {
    const z = Float64Array.from(this.bias);
    for (let l = 0; l < this.L; l++) {
      let sum = 0;
      for (let f = 0, at = l * this.D; f < this.D; f++) sum += this.encoder[at + f] * x[f];
      z[l] += sum;
    }
    return z;
  }

  scores(z) {
    const scores = new Float64Array(this.m);
    for (let k = 0, at = 0; k < this.m; k++) {
      let dot = 0;
      for (let l = 0; l < this.L; l++) dot += z[l] * this.landmarks[at++];
      scores[k] = (2 * dot - this.squares[k]) / this.temperature;
    }
    return scores;
  }

  startAt(x) {
    const z = this.code(x);
    return { x, z, scores: this.scores(z) };
  }

  // Landmarks that hold a code, with weights: the support of sparsemax.
  support(value, near) {
    let best = -Infinity;
    for (const k of near) best = Math.max(best, value(k));
    const held = Array.from(near).filter((k) => value(k) > best - 1);
    held.sort((j, k) => value(k) - value(j));
    let sum = 0, size = 0, total = 0;
    for (const k of held) {
      sum += value(k);
      if (1 + (size + 1) * value(k) <= sum) break;
      size += 1;
      total = sum;
    }
    const threshold = (total - 1) / size;
    return { held: held.slice(0, size), threshold };
  }

  holders(x) {
    const { scores } = this.startAt(x);
    const { held, threshold } = this.support((k) => scores[k], this.everyone);
    return held.map((k) => ({ landmark: k, weight: scores[k] - threshold }));
  }

  place(x) {
    const { z, scores } = this.startAt(x);
    const { held, threshold } = this.support((k) => scores[k], this.everyone);
    return Float64Array.from({ length: this.K }, (_, d) => {
      let y = dot(this.tilt, d * this.L, z);
      for (const k of held) {
        const p = scores[k] - threshold;
        const reach = this.clip * p;
        y += p * this.places[k * this.K + d];
        y += Math.min(reach, Math.max(-reach, this.chart(k, d, z)));
      }
      return y;
    });
  }

  // B_k (z - K_k), coordinate d
  chart(k, d, z) {
    let sum = 0;
    const at = (k * this.K + d) * this.L;
    for (let l = 0; l < this.L; l++) {
      sum += this.charts[at + l] * (z[l] - this.landmarks[k * this.L + l]);
    }
    return sum;
  }

  // Displacement (K, D) that each feature adds on the straight way from one row to another.
  way(start, end) {
    const jacobian = this.averageJacobian(start, end); // (K, L)
    const phi = new Float64Array(this.K * this.D);
    for (let d = 0; d < this.K; d++) {
      for (let l = 0; l < this.L; l++) {
        const slope = jacobian[d * this.L + l];
        for (let f = 0; f < this.D; f++) phi[d * this.D + f] += slope * this.encoder[l * this.D + f];
      }
      for (let f = 0; f < this.D; f++) phi[d * this.D + f] *= end.x[f] - start.x[f];
    }
    return phi;
  }

  // Average of dy/dz on the straight way between two codes, (K, L).
  averageJacobian(start, end) {
    const line = {
      origin: start.scores,
      slope: end.scores.map((s, k) => s - start.scores[k]),
      z: start.z,
      dz: end.z.map((v, l) => v - start.z[l]),
    };
    const jacobian = new Float64Array(this.K * this.L);
    const pieces = [{ low: 0, high: 1, near: this.everyone }];
    while (pieces.length) {
      const piece = pieces.pop();
      const near = nearLandmarks(line, piece);
      const region = this.regionAround(line, { ...piece, near });
      this.addGradient(jacobian, region);
      if (region.low - piece.low > SHORTEST) {
        pieces.push({ low: piece.low, high: region.low, near });
      }
      if (piece.high - region.high > SHORTEST) {
        pieces.push({ low: region.high, high: piece.high, near });
      }
    }
    return jacobian;
  }

  // The linear region of the middle of a piece: the margins are affine in it, and its ends are
  // the first of their zeros.
  regionAround(line, piece) {
    const middle = (piece.low + piece.high) / 2;
    const value = (k) => line.origin[k] + middle * line.slope[k];
    const { held, threshold } = this.support(value, piece.near);
    let thresholdSlope = 0;
    for (const k of held) thresholdSlope += line.slope[k] / held.length;
    const region = { low: piece.low, high: piece.high, held, side: [] };
    const limit = (margin, slope) => {
      if (slope === 0 || margin === 0) return;
      const zero = middle - margin / slope;
      if (zero > middle) region.high = Math.min(region.high, zero);
      else region.low = Math.max(region.low, zero);
    };
    for (const k of piece.near) limit(value(k) - threshold, line.slope[k] - thresholdSlope);
    const z = line.z.map((v, l) => v + middle * line.dz[l]);
    for (const k of held) {
      const reach = this.clip * (value(k) - threshold);
      const reachSlope = this.clip * (line.slope[k] - thresholdSlope);
      for (let d = 0; d < this.K; d++) {
        const offset = this.chart(k, d, z);
        const slope = dot(this.charts, (k * this.K + d) * this.L, line.dz);
        region.side.push(offset > reach ? 1 : offset < -reach ? -1 : 0);
        limit(offset - reach, slope - reachSlope);
        limit(offset + reach, slope + reachSlope);
      }
    }
    return region;
  }

  addGradient(jacobian, { low, high, held, side }) {
    const { K, L, landmarks } = this;
    const length = high - low;
    const centre = new Float64Array(L);
    for (const k of held) {
      for (let l = 0; l < L; l++) centre[l] += landmarks[k * L + l] / held.length;
    }
    for (let d = 0; d < K; d++) {
      for (let l = 0; l < L; l++) jacobian[d * L + l] += length * this.tilt[d * L + l];
    }
    held.forEach((k, slot) => {
      for (let d = 0; d < K; d++) {
        const state = side[slot * K + d];
        const pull = ((this.places[k * K + d] + state * this.clip) * 2) / this.temperature;
        for (let l = 0; l < L; l++) {
          let slope = pull * (landmarks[k * L + l] - centre[l]);
          if (state === 0) slope += this.charts[(k * K + d) * L + l];
          jacobian[d * L + l] += length * slope;
        }
      }
    });
  }
}

const SHORTEST = 1e-13; // of the way: what remains between regions is rounding

function dot(matrix, at, vector) {
  let sum = 0;
  for (let l = 0; l < vector.length; l++) sum += matrix[at + l] * vector[l];
  return sum;
}

// Landmarks that come within 1 of the highest score anywhere in the piece: no others can hold a
// point of it. The highest score is at least that of the winners at both ends.
function nearLandmarks({ origin, slope }, { low, high, near }) {
  const winner = (t) => {
    let best = near[0];
    for (const k of near) if (origin[k] + t * slope[k] > origin[best] + t * slope[best]) best = k;
    return best;
  };
  const a = winner(low), b = winner(high);
  const crossing = slope[a] === slope[b] ? low : (origin[a] - origin[b]) / (slope[b] - slope[a]);
  const kink = Math.min(high, Math.max(low, crossing));
  const at = (k, t) => origin[k] + t * slope[k];
  const limits = [at(a, low) - 1, at(b, high) - 1, Math.max(at(a, kink), at(b, kink)) - 1];
  return near.filter(
    (k) => at(k, low) > limits[0] || at(k, high) > limits[1] || at(k, kink) > limits[2],
  );
}
