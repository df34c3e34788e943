"""The nearest rows of every row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state

from ptsne.affinities.cells import search_cells
from ptsne.affinities.scan import (
    Indices,
    Neighbors,
    Plane,
    Rows,
    Scan,
    as_csr,
    as_rows,
    candidate_distances,
    exact_score,
)
from ptsne.affinities.tensors import TensorScan

if TYPE_CHECKING:
    from numpy.random import RandomState

METHODS = ("auto", "exact", "cells", "pynndescent")

EXACT_LIMIT = 20_000
"""Rows up to which all pairs are compared on a CPU: 5 seconds of two cores with 784 columns."""
N_AXES = 128
"""Principal components that rank rows of twice as many columns or more, on a CPU."""
SPARE_SHARE = 1 / 2
"""Candidates that are measured in float64 beyond k, in units of k, on a CPU."""
# On a GPU all pairs of 1.3 million rows are some 10^12 scores, of 10 million 10^14: beyond this
# many rows cells of rows are compared.
GPU_EXACT_LIMIT = 2_000_000


def nearest_neighbors(
    X: Any,
    n_neighbors: int,
    *,
    metric: str = "euclidean",
    method: str = "auto",
    random_state: int | RandomState | None = None,
    device: str | torch.device = "cpu",
) -> Neighbors:
    """Find the nearest other rows of every row.

    The exact search ranks all pairs in float32 by blocks, recomputes the distances of the best
    candidates in float64, and repeats in float64 the rows whose ranking the rounding error could
    have changed. So distances are those of float64, whatever the input's precision; which of
    several rows at the same distance are taken is arbitrary.

    Parameters
    ----------
    X : array or sparse matrix of shape (N, D)
        Rows; a sparse matrix is never made dense as a whole.
    n_neighbors : int
        Neighbours per row, the row itself not counted; from 1 to N - 1.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        ``"cosine"`` is 1 - cos; a zero row is at distance 1 from every other, 0 from zero rows.
    method : {"auto", "exact", "cells", "pynndescent"}, default="auto"
        ``"auto"`` is exact up to 20,000 rows, and up to 2 million on a GPU. Above, neighbours are
        approximate, their distances are not (those by cells on a GPU are float32): ``"cells"``
        compares a row with the rows of near cells (dense rows; not for "manhattan"), on a CPU by
        the first 128 principal components where there are 256 columns or more, and measures the
        best in all columns; else pynndescent searches a graph.
    random_state : int, RandomState or None, default=None
        Seed of the graph search and of the components; the exact search draws nothing.
    device : str or torch.device, default="cpu"
        Where pairs of dense rows are compared: on a CUDA device, else on the CPU.

    Returns
    -------
    Neighbors
        ``indices`` (N, k) and ``distances`` (N, k), nearest first.

    Raises
    ------
    ValueError
        If ``metric`` or ``method`` is unknown, or ``n_neighbors`` is not between 1 and N - 1.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.affinities import nearest_neighbors
    >>> nearest_neighbors(np.array([[0.0], [1.0], [3.0]]), 1).indices.ravel()
    array([1, 0, 1])
    """
    rows = as_rows(X, metric)
    if not 1 <= n_neighbors < rows.shape[0]:
        raise ValueError(_too_many(n_neighbors, rows.shape[0] - 1))
    chosen = _resolve_method(method, rows, metric, device)
    if chosen == "exact":
        found = _search(rows, rows, n_neighbors, metric, device, exclude_self=True)
    elif chosen == "cells":
        found = _search_in_cells(rows, n_neighbors, random_state, device)
    else:
        found = _descend(rows, n_neighbors, metric, random_state)
    return _from_chords(found) if metric == "cosine" else found


def query_neighbors(
    X_train: Any,
    X_query: Any,
    n_neighbors: int,
    *,
    metric: str = "euclidean",
    device: str | torch.device = "cpu",
) -> Neighbors:
    """Find the nearest training rows of every query row, exactly.

    Parameters
    ----------
    X_train : array or sparse matrix of shape (N, D)
        Rows searched.
    X_query : array or sparse matrix of shape (M, D)
        Rows whose neighbours are wanted; an equal training row counts as a neighbour.
    n_neighbors : int
        Neighbours per query row, from 1 to N.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        As in `nearest_neighbors`.
    device : str or torch.device, default="cpu"
        Where the search of dense rows computes: on a CUDA device, else on the CPU.

    Returns
    -------
    Neighbors
        ``indices`` (M, k) into the training rows and ``distances`` (M, k), nearest first.

    Raises
    ------
    ValueError
        If ``metric`` is unknown, ``n_neighbors`` is not between 1 and N, or the columns differ.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.affinities import query_neighbors
    >>> query_neighbors(np.array([[0.0], [1.0], [5.0]]), np.array([[4.0]]), 2).indices
    array([[2, 1]])
    """
    train, query = as_rows(X_train, metric), as_rows(X_query, metric)
    if sparse.issparse(train) != sparse.issparse(query):
        train, query = as_csr(train), as_csr(query)
    if train.shape[1] != query.shape[1]:
        raise ValueError(
            f"X_query has {query.shape[1]} columns but X_train has {train.shape[1]}; "
            "pass the same features in both"
        )
    if not 1 <= n_neighbors <= train.shape[0]:
        raise ValueError(_too_many(n_neighbors, train.shape[0]))
    found = _search(query, train, n_neighbors, metric, device, exclude_self=False)
    return _from_chords(found) if metric == "cosine" else found


def _from_chords(found: Neighbors) -> Neighbors:
    """Cosine distances from distances of unit vectors: 1 - cos = d²/2."""
    return Neighbors(found.indices, found.distances**2 / 2)


def _too_many(n_neighbors: int, n_available: int) -> str:
    return (
        f"n_neighbors must be between 1 and {n_available}, the rows there are to choose from, "
        f"got {n_neighbors}; lower n_neighbors or pass more rows"
    )


def _resolve_method(method: str, rows: Rows, metric: str, device: str | torch.device) -> str:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    has_product = metric != "manhattan" and not sparse.issparse(rows)
    if method == "cells" and not has_product:
        raise ValueError(
            'method="cells" needs dense rows and the metric "euclidean" or "cosine"; '
            'use method="pynndescent"'
        )
    if method != "auto":
        return method
    if rows.shape[0] <= (GPU_EXACT_LIMIT if _has_cuda(device) else EXACT_LIMIT):
        return "exact"
    return "cells" if has_product else "pynndescent"


def is_searched_exactly(X: Any, *, metric: str, device: str | torch.device) -> bool:
    """Whether `nearest_neighbors` compares all pairs of these rows with ``method="auto"``."""
    return _resolve_method("auto", X, metric, device) == "exact"


def _has_tf32() -> bool:
    """Whether a GPU may round factors; the older flag raises where only the newer setting is."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        return bool(matmul.fp32_precision == "tf32")
    return bool(matmul.allow_tf32)


def _has_cuda(device: str | torch.device) -> bool:
    return torch.device(device).type == "cuda"


def _search(
    query: Rows,
    train: Rows,
    n_neighbors: int,
    metric: str,
    device: str | torch.device,
    *,
    exclude_self: bool,
) -> Neighbors:
    """Rank all pairs by the Manhattan distance, else by the Euclidean one."""
    order = 1 if metric == "manhattan" else 2
    scan = Scan(query, train, n_neighbors, order, exclude_self)
    everything = np.arange(query.shape[0])
    where = device if _has_cuda(device) else "cpu"
    if sparse.issparse(train) or order == 1:
        return scan.run(exact_score(query, train, order, where), everything)[0]
    run = TensorScan(scan, where).run if _has_cuda(device) else scan.run
    if _has_cuda(device) and _has_tf32():  # ten bits certify nothing
        return run(exact_score(query, train, order, where), everything)[0]
    plane = Plane.of(query, train, torch.float32, where)
    found, cutoff = run(plane.score, everything)
    doubtful = everything[~plane.is_certain(found.distances[:, -1], cutoff)]
    if doubtful.size:
        again, _ = run(exact_score(query, train, order, where), doubtful)
        found.indices[doubtful], found.distances[doubtful] = again
    return found


def _search_in_cells(
    rows: Rows,
    n_neighbors: int,
    random_state: int | RandomState | None,
    device: str | torch.device,
) -> Neighbors:
    """Compare rows of near cells, centred and scaled to at most 1, so that float32 holds them."""
    rng = check_random_state(random_state)
    centred = rows - rows.mean(axis=0)
    scale = max(-centred.min(), centred.max()) or 1.0
    centred = np.divide(centred, scale, out=centred).astype(np.float32, copy=False)
    if _has_cuda(device):
        found = search_cells(centred, n_neighbors, random_state=rng, device=device)
        return Neighbors(found.indices, found.distances * float(scale))
    squares = None
    if rows.shape[1] >= 2 * N_AXES:
        squares = np.linalg.vector_norm(centred, axis=1) ** 2
        centred = PCA(min(N_AXES, len(rows)), random_state=rng).fit_transform(centred)
    n_candidates = min(n_neighbors + math.ceil(SPARE_SHARE * n_neighbors), len(rows) - 1)
    found = search_cells(centred, n_candidates, random_state=rng, squares=squares)
    scan = Scan(rows, rows, n_neighbors, 2, exclude_self=True)
    return scan.nearest(np.arange(len(rows)), found.indices)


def _descend(
    rows: Rows, n_neighbors: int, metric: str, random_state: int | RandomState | None
) -> Neighbors:
    """Neighbours by nearest-neighbour descent; rows that get too few are searched exactly."""
    from pynndescent import NNDescent  # noqa: PLC0415 - compiles for a second, and few need it

    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    name = "manhattan" if metric == "manhattan" else "euclidean"
    single = rows.astype(np.float32)
    if not isinstance(single, np.ndarray):
        single = sparse.csr_matrix(single)  # pynndescent does not know sparse arrays
    index = NNDescent(single, name, n_neighbors=n_neighbors + 1, random_state=seed, verbose=False)
    candidates = np.asarray(index.neighbor_graph[0], dtype=np.int64)  # (N, k + 1), -1: not found
    is_other = (candidates >= 0) & (candidates != np.arange(len(candidates))[:, None])
    order = 1 if metric == "manhattan" else 2
    everything = np.arange(rows.shape[0])
    distances = candidate_distances(rows, rows, everything, np.maximum(candidates, 0), order)
    nearest = np.argsort(np.where(is_other, distances, np.inf), axis=1, kind="stable")
    found = Neighbors(
        np.take_along_axis(candidates, nearest, axis=1)[:, :n_neighbors],
        np.take_along_axis(distances, nearest, axis=1)[:, :n_neighbors],
    )
    _complete(found, rows, np.flatnonzero(is_other.sum(axis=1) < n_neighbors), order)
    return found


def _complete(found: Neighbors, rows: Rows, missing: Indices, order: int) -> None:
    """Search the ``missing`` rows among all others, in place."""
    if missing.size == 0:
        return
    scan = Scan(rows, rows, found.indices.shape[1], order, exclude_self=True)
    score = exact_score(rows, rows, order, "cpu")
    found.indices[missing], found.distances[missing] = scan.run(score, missing)[0]
