"""Neighbours found elsewhere: by scikit-learn, another library, or the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ptsne.affinities.scan import Indices, Neighbors
from ptsne.lazy import give_back_pages

ROWS_AT_ONCE = 4096


class _Entries(NamedTuple):
    """Entries of some neighbouring rows, in the order of the rows."""

    n_samples: int
    span: slice
    row: Indices
    column: Indices
    distance: NDArray[np.float64]


def neighbors_from_graph(graph: Any, n_samples: int) -> Neighbors:
    """Take neighbours that somebody else has found.

    Parameters
    ----------
    graph : sparse matrix of shape (N, N), or pair of arrays of shape (N, k)
        Distances, as ``KNeighborsTransformer(mode="distance")`` makes them, or
        ``(indices, distances)`` of anything that is sliced, such as a memmap. Read twice, some rows
        at a time. Entries of a row with itself are dropped, and so is the farthest
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
    counts = np.concatenate([_n_others(part) for part in _entries(graph, n_samples)])
    fewest, most = int(counts.min()), int(counts.max())
    if fewest == 0 or most - fewest > 1:
        raise ValueError(
            f"every row of the graph needs the same number of neighbours, found {fewest} to "
            f"{most}; build it with a fixed number of neighbours, not with a radius"
        )
    shape = n_samples, fewest
    found = Neighbors(np.empty(shape, np.int64), np.empty(shape, np.float64))
    for part in _entries(graph, n_samples):
        _fill(found, part)
    return found


def graph_width(graph: Any, n_samples: int) -> int:
    """Most entries that a row has in a graph.

    Parameters
    ----------
    graph : sparse matrix of shape (N, N), or pair of arrays of shape (N, k)
        As `neighbors_from_graph` takes it.
    n_samples : int
        Rows N that the graph must be about.

    Returns
    -------
    int
        k; ValueError if the graph is of another kind or shape.
    """
    if sparse.issparse(graph):
        _require_square(graph, n_samples)
        return -(-_size(graph) // n_samples)
    return int(_pair(graph, n_samples)[0].shape[1])


def _n_others(entries: _Entries) -> Indices:
    """Checked entries of each row that are not itself."""
    _check_entries(entries)
    first, stop = entries.span.start, entries.span.stop
    return np.bincount(entries.row[entries.row != entries.column] - first, minlength=stop - first)


def _fill(found: Neighbors, entries: _Entries) -> None:
    """The nearest others of each row, in place."""
    is_other = entries.row != entries.column
    row, column, distance = (values[is_other] for values in entries[2:])
    order = np.lexsort((column, distance, row))
    counts = np.bincount(row - entries.span.start)
    starts = np.cumsum(counts) - counts
    kept = order[starts[:, None] + np.arange(found.indices.shape[1])]  # (B, k)
    found.indices[entries.span], found.distances[entries.span] = column[kept], distance[kept]


def _entries(graph: Any, n_samples: int) -> Iterator[_Entries]:
    """Entries of some rows at a time; a stored 0 is a distance, not a gap."""
    if sparse.issparse(graph):
        yield from _sparse_entries(graph, n_samples)
        return
    indices, distances = _pair(graph, n_samples)
    for span in _spans(n_samples):
        column = np.asarray(indices[span]).astype(np.int64)
        row = np.repeat(np.arange(span.start, span.stop), column.shape[1])
        distance = np.asarray(distances[span]).astype(np.float64)
        yield _Entries(n_samples, span, row, column.ravel(), distance.ravel())
        give_back_pages(indices)
        give_back_pages(distances)


def _pair(graph: Any, n_samples: int) -> tuple[Any, Any]:
    """Indices and distances, not read yet."""
    if not isinstance(graph, (tuple, list)) or len(graph) != 2:
        raise ValueError(
            "neighbors must be a sparse matrix of distances or a pair (indices, distances), "
            f"got {type(graph).__name__}"
        )
    indices, distances = (part if hasattr(part, "shape") else np.asarray(part) for part in graph)
    shapes = tuple(indices.shape), tuple(distances.shape)
    if len(shapes[0]) != 2 or shapes[0] != shapes[1] or shapes[0][0] != n_samples:
        raise ValueError(
            f"indices and distances must both have shape ({n_samples}, k), "
            f"got {shapes[0]} and {shapes[1]}"
        )
    return indices, distances


def _sparse_entries(graph: Any, n_samples: int) -> Iterator[_Entries]:
    _require_square(graph, n_samples)
    starts, columns, distances = _by_rows(graph)
    for span in _spans(n_samples):
        count = np.diff(starts[span.start : span.stop + 1])
        row = np.repeat(np.arange(span.start, span.stop), count)
        part = slice(starts[span.start], starts[span.stop])
        column, distance = columns[part].astype(np.int64), distances[part].astype(np.float64)
        yield _Entries(n_samples, span, row, column, distance)
        give_back_pages(columns)
        give_back_pages(distances)


def _by_rows(graph: Any) -> tuple[Any, Any, Any]:
    """Starts of the rows, columns and data, without adding up entries that are there twice."""
    if graph.format == "csr":
        return graph.indptr, graph.indices, graph.data
    entries = graph.tocoo()
    order = np.argsort(entries.row, kind="stable")
    starts = np.concatenate([[0], np.bincount(entries.row, minlength=graph.shape[0]).cumsum()])
    return starts, entries.col[order], entries.data[order]


def _size(graph: Any) -> int:
    return int(graph.nnz)


def _require_square(graph: Any, n_samples: int) -> None:
    if graph.shape != (n_samples, n_samples):
        raise ValueError(
            f"the neighbour graph must have shape {(n_samples, n_samples)}, one row and one column "
            f"per row of X, got {graph.shape}"
        )


def _spans(n_rows: int) -> Iterator[slice]:
    return (slice(i, min(i + ROWS_AT_ONCE, n_rows)) for i in range(0, n_rows, ROWS_AT_ONCE))


def _check_entries(entries: _Entries) -> None:
    n_samples, _, row, column, distance = entries
    if not (np.isfinite(distance).all() and (distance >= 0).all()):
        raise ValueError("the distances of the neighbour graph must be finite and not negative")
    if ((column < 0) | (column >= n_samples)).any():
        raise ValueError(
            f"the indices of the neighbour graph must lie between 0 and {n_samples - 1}, "
            f"got {column.min()} to {column.max()}; -1 usually marks a neighbour not found"
        )
    if np.unique(row * n_samples + column).size < row.size:
        raise ValueError("the neighbour graph names a neighbour twice in the same row")
    if _is_apart_from_itself(row - entries.span.start, row == column, distance):
        raise ValueError(
            "a row of the neighbour graph is as far from itself as from others; pass distances, "
            'such as KNeighborsTransformer(mode="distance") makes, not connectivities'
        )


def _is_apart_from_itself(row: Indices, own: NDArray[np.bool_], distance: NDArray[Any]) -> bool:
    """Whether a row is at half the mean distance of its others or more: not by rounding alone."""
    # |x|^2 + |y|^2 - 2 xy, taken in float32, leaves some rows a little off themselves
    n_rows = int(row.max(initial=-1)) + 1
    total = np.bincount(row[~own], distance[~own], minlength=n_rows)
    mean = total / np.maximum(np.bincount(row[~own], minlength=n_rows), 1)
    found = distance[own]
    return bool(((found > 0) & (found >= mean[row[own]] / 2)).any())
