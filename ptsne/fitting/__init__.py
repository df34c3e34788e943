"""Everything that `fit` does: check, find neighbours, train, and store what was learned.

`fit_map` reads the parameters of an estimator and leaves the learned attributes on it, with all
rows in memory (`whole`) or within a memory budget (`streamed`).
"""

from ptsne.fitting.fitting import callbacks_of, fit_map
from ptsne.fitting.inverse import fit_inverse
from ptsne.fitting.perplexity import NEIGHBORS_PER_PERPLEXITY

__all__ = ["NEIGHBORS_PER_PERPLEXITY", "callbacks_of", "fit_inverse", "fit_map"]
