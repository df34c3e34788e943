"""Neighbours found elsewhere: by scikit-learn, another library, or the user."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ptsne.affinities.scan import Indices, Neighbors


def neighbors_from_graph(graph: Any, n_samples: int) -> Neighbors:
    """Take neighbours that somebody else has found.

    Parameters
    ----------
    graph : sparse matrix of shape (N, N), or pair of arrays of shape (N, k)
        Distances, as ``KNeighborsTransformer(mode="distance")`` makes them, or
        ``(indices, distances)``. Entries of a row with itself are dropped, and so is the farthest
        neighbour of the rows that lack one, so that all rows keep the same number.
    n_samples : int
        Rows N that the graph must be about.

    Returns
    -------
    Neighbors
        ``indices`` (N, k) and ``distances`` (N, k), nearest first.

    Raises
    ------
    ValueError
        If the shape is not that of N rows, a distance is negative or not finite, an index is out
        of range or repeated in its row, or the rows differ by more than one neighbour.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KNeighborsTransformer
    >>> from ptsne.affinities import neighbors_from_graph
    >>> graph = KNeighborsTransformer(n_neighbors=10).fit_transform(load_iris().data)
    >>> neighbors_from_graph(graph, 150).indices.shape
    (150, 10)
    """
    rows, columns, distances = _graph_entries(graph, n_samples)
    _check_entries(rows, columns, distances, n_samples)
    is_other = rows != columns
    rows, columns, distances = rows[is_other], columns[is_other], distances[is_other]
    order = np.lexsort((columns, distances, rows))
    counts = np.bincount(rows, minlength=n_samples)
    fewest, most = int(counts.min()), int(counts.max())
    if fewest == 0 or most - fewest > 1:
        raise ValueError(
            f"every row of the graph needs the same number of neighbours, found {fewest} to "
            f"{most}; build it with a fixed number of neighbours, not with a radius"
        )
    starts = np.cumsum(counts) - counts
    kept = order[starts[:, None] + np.arange(fewest)]  # (N, k)
    return Neighbors(columns[kept], distances[kept])


def _graph_entries(graph: Any, n_samples: int) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """Row, column and distance of each stored entry; a stored 0 is a distance, not a gap."""
    if sparse.issparse(graph):
        return _sparse_entries(graph, n_samples)
    if not isinstance(graph, (tuple, list)) or len(graph) != 2:
        raise ValueError(
            "neighbors must be a sparse matrix of distances or a pair (indices, distances), "
            f"got {type(graph).__name__}"
        )
    indices, distances = (np.asarray(part) for part in graph)
    if indices.ndim != 2 or indices.shape != distances.shape or len(indices) != n_samples:
        raise ValueError(
            f"indices and distances must both have shape ({n_samples}, k), "
            f"got {indices.shape} and {distances.shape}"
        )
    rows = np.repeat(np.arange(n_samples), indices.shape[1])
    return rows, indices.astype(np.int64).ravel(), distances.astype(np.float64).ravel()


def _sparse_entries(graph: Any, n_samples: int) -> tuple[Indices, Indices, NDArray[np.float64]]:
    if graph.shape != (n_samples, n_samples):
        raise ValueError(
            f"the neighbour graph must have shape {(n_samples, n_samples)}, one row and one column "
            f"per row of X, got {graph.shape}"
        )
    entries = graph.tocoo()
    rows, columns = entries.row.astype(np.int64), entries.col.astype(np.int64)
    return rows, columns, entries.data.astype(np.float64)


def _check_entries(
    rows: Indices,
    columns: Indices,
    distances: NDArray[np.float64],
    n_samples: int,
) -> None:
    if not (np.isfinite(distances).all() and (distances >= 0).all()):
        raise ValueError("the distances of the neighbour graph must be finite and not negative")
    if ((columns < 0) | (columns >= n_samples)).any():
        raise ValueError(
            f"the indices of the neighbour graph must lie between 0 and {n_samples - 1}, "
            f"got {columns.min()} to {columns.max()}; -1 usually marks a neighbour not found"
        )
    if np.unique(rows * n_samples + columns).size < rows.size:
        raise ValueError("the neighbour graph names a neighbour twice in the same row")
    if _is_apart_from_itself(rows, columns, distances):
        raise ValueError(
            "a row of the neighbour graph is as far from itself as from others; pass distances, "
            'such as KNeighborsTransformer(mode="distance") makes, not connectivities'
        )


def _is_apart_from_itself(rows: Indices, columns: Indices, distances: NDArray[np.float64]) -> bool:
    """Whether a row is at half the mean distance of its others or more: not by rounding alone."""
    # |x|^2 + |y|^2 - 2 xy, taken in float32, leaves some rows a little off themselves
    own = rows == columns
    n_rows = int(rows.max(initial=-1)) + 1
    total = np.bincount(rows[~own], distances[~own], minlength=n_rows)
    count = np.bincount(rows[~own], minlength=n_rows)
    mean = total / np.maximum(count, 1)
    found = distances[own]
    return bool(((found > 0) & (found >= mean[rows[own]] / 2)).any())
