"""Which new rows the map has never seen the like of.

Kinds of rows differ in how widely they vary, so that a row is compared with the known rows around
it where these are at hand, and with all of them otherwise. Measured on MNIST without the fours
(2,700 known rows, then 300 fours, which lie between nines): 85 % of the fours are found so, against
17 % by comparison with all; of the other digits at most 2 % are taken for novel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptsne.affinities import query_neighbors

GROUP = 10
"""Rows that are looked at together."""
AROUND = 30
"""Known rows with which a new one is compared."""
DEVIATIONS = 3.8
"""Of the mean percentile of a group from 50: by chance once in ten thousand groups."""
SPREAD = 100 / np.sqrt(12)
"""Standard deviation of a percentile of an ordinary row."""


def local_percentiles(
    known: tuple[NDArray[Any], NDArray[Any]], new: tuple[NDArray[Any], NDArray[Any]]
) -> NDArray[np.float64]:
    """Share of the nearest known rows that are less strange than each new row.

    Parameters
    ----------
    known : (ndarray of shape (N, L), ndarray of shape (N,))
        Codes of known rows, and how strange each would be if it were new.
    new : (ndarray of shape (M, L), ndarray of shape (M,))
        The same of new rows.

    Returns
    -------
    ndarray of shape (M,)
        0 to 100.
    """
    n = min(AROUND, len(known[0]))
    around = query_neighbors(known[0], new[0], n).indices
    share: NDArray[np.float64] = 100 * (known[1][around] < new[1][:, None]).mean(1)
    return share


def group_level(
    X: Any, percentile: NDArray[np.floating], *, metric: str = "euclidean"
) -> NDArray[np.bool_]:
    """Whether each row stands in a group of rows that are stranger than chance allows.

    A single strange row may be an accident; that ten neighbours are all strange is not. Percentiles
    of ordinary rows are uniform, so that the mean of n of them is ``50 ± 28.9 / √n``. Fewer than
    five rows are never enough.

    Parameters
    ----------
    X : array or sparse matrix of shape (M, D)
        New rows.
    percentile : ndarray of shape (M,)
        Share of the training rows that are less strange, 0 to 100; NaN is never strange.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance that tells which rows stand together.

    Returns
    -------
    bool ndarray of shape (M,)
        Whether the mean of the row and its nine nearest is beyond that.
    """
    n = min(GROUP, X.shape[0])
    mean = percentile[query_neighbors(X, X, n, metric=metric).indices].mean(1)
    is_beyond: NDArray[np.bool_] = mean > 50 + DEVIATIONS * SPREAD / np.sqrt(n)
    return is_beyond
