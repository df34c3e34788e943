// Maps that a page cannot hold: the displacement that each feature adds from the mean row to each
// row. Their differences are the displacements between two rows, and sum to the way between them.
class Table {
  constructor(arrays) {
    [this.n, this.K, this.D] = arrays.displacements.shape;
    this.codes = arrays.displacements.data;
    this.step = arrays.step.data;
  }

  fromMean(slot) {
    const at = slot * this.K * this.D, step = this.step[slot];
    return Float64Array.from({ length: this.K * this.D }, (_, c) => this.codes[at + c] * step);
  }

  between(i, j) {
    const start = this.fromMean(i);
    return this.fromMean(j).map((shift, c) => shift - start[c]);
  }
}
