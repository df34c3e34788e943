"""Who attracts the newcomers: probabilities over other newcomers and over fixed rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ptsne.affinities import conditional_probabilities, query_neighbors

NEIGHBORS_PER_PERPLEXITY = 3
LINKS = 5
"""Nearest newcomers that make two rows one group."""


def newcomers_neighbors(
    rows: Any, n: int, perplexity: float | Sequence[float], metric: str
) -> tuple[NDArray[np.int64], sparse.csr_array]:
    """Neighbours of the first `n` of some rows among all of them.

    Parameters
    ----------
    rows : array or sparse matrix of shape (n + F, D)
        Newcomers, then fixed rows.
    n : int
        Newcomers.
    perplexity : float or sequence of float
        Of the map; lowered to what the number of rows allows.
    metric : str
        Of the map.

    Returns
    -------
    indices : int ndarray of shape (n, k)
        Nearest first, the row itself left out.
    attraction : csr_array of shape (n, n + F)
        ``p_{j|i}``; rows sum to 1.
    """
    n_rows = rows.shape[0]
    k = max(1, min(n_rows - 1, int(NEIGHBORS_PER_PERPLEXITY * float(np.max(perplexity)))))
    found = query_neighbors(rows, rows[:n], min(n_rows, k + 1), metric=metric)
    is_other = found.indices != np.arange(n)[:, None]
    is_other[is_other.all(1), -1] = False  # an equal row stands for the row itself
    indices = found.indices[is_other].reshape(n, -1)
    distances = found.distances[is_other].reshape(n, -1)
    k = indices.shape[1]
    allowed = np.clip(np.atleast_1d(perplexity), 1, max(1, k / NEIGHBORS_PER_PERPLEXITY))
    p = conditional_probabilities(distances, allowed.tolist()).probabilities
    starts = np.arange(0, n * k + 1, k)
    return indices, sparse.csr_array((p.ravel(), indices.ravel(), starts), shape=(n, n_rows))


def weakened(attraction: sparse.csr_array, classes: NDArray[np.int64], weight: float) -> Any:
    """Attraction with pairs of two known classes times ``1 - weight``; rows sum to 1 again.

    Parameters
    ----------
    attraction : csr_array of shape (n, n + F)
        ``p_{j|i}``.
    classes : int ndarray of shape (n,)
        Classes of the newcomers; negative where not known.
    weight : float
        0 to 1.

    Returns
    -------
    csr_array of shape (n, n + F)
        A row that would lose all its neighbours keeps them.
    """
    entries = attraction.tocoo()
    everyone = np.full(attraction.shape[1], -1)
    everyone[: len(classes)] = classes
    a, b = everyone[entries.row], everyone[entries.col]
    p = entries.data * np.where((a >= 0) & (b >= 0) & (a != b), 1 - weight, 1.0)
    total = np.bincount(entries.row, p, minlength=len(classes))[entries.row]
    p = np.where(total > 0, p / np.where(total > 0, total, 1), entries.data)
    return sparse.csr_array((p, (entries.row, entries.col)), shape=attraction.shape)


def nearest_newcomers(indices: NDArray[np.int64], n: int, width: int) -> NDArray[np.int64]:
    """The nearest newcomers (n, width) among neighbours `indices`, the row itself as padding."""
    order = np.argsort(indices >= n, axis=1, kind="stable")[:, :width]
    chosen = np.take_along_axis(indices, order, axis=1)
    return np.where(chosen < n, chosen, np.arange(n)[:, None])


def groups(near: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group (n,) of each newcomer: those that near neighbours link."""
    links = near[:, :LINKS]
    n, k = links.shape
    shape = (n, n)
    starts = np.arange(0, n * k + 1, k)
    graph = sparse.csr_array((np.ones(links.size), links.ravel(), starts), shape=shape)
    label: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return label
