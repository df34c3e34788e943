"""All pairs of rows, by blocks: rank in one precision, measure the best in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics.pairwise import manhattan_distances
from torch import Tensor

Rows: TypeAlias = Any  # NDArray or csr_array, float32 or float64
Indices: TypeAlias = NDArray[np.int64]
Score: TypeAlias = Callable[[Indices], Tensor]  # query rows (b,) -> ranks them all (b, N)

METRICS = ("euclidean", "cosine", "manhattan")

_BLOCK_BYTES = 64 * 2**20  # one block of scores
_GATHER_BYTES = 2 * 2**20  # rows fetched at once to measure distances: about one core's cache
SPARE = 8  # candidates beyond k: the certificate of the float32 ranking then nearly always holds


class Neighbors(NamedTuple):
    """Neighbours of each row, nearest first.

    Attributes
    ----------
    indices : ndarray of shape (N, k), int64
        Row numbers of the neighbours; a row is never its own neighbour.
    distances : ndarray of shape (N, k), float64
        Their distances, ascending along each row.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.affinities import nearest_neighbors
    >>> nearest_neighbors(np.array([[0.0], [1.0], [3.0]]), 2)
    Neighbors(indices=array([[1, 2],
           [0, 2],
           [1, 0]]), distances=array([[1., 3.],
           [1., 2.],
           [2., 3.]]))
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float64]


def blocks(n_query: int, n_train: int) -> Iterator[slice]:
    """Spans of query rows whose scores against all training rows fill one block each."""
    step = max(1, _BLOCK_BYTES // (4 * n_train))
    return (slice(start, start + step) for start in range(0, n_query, step))


def as_rows(X: Any, metric: str) -> Rows:
    """Rows in float32 or float64; for the cosine metric float64 unit vectors, d²/2 = 1 - cos."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    rows: Rows = as_csr(X) if sparse.issparse(X) else np.ascontiguousarray(X)
    rows = rows.astype(np.result_type(rows.dtype, np.float32), copy=False)
    return _unit_rows(rows) if metric == "cosine" else rows


def as_csr(rows: Any) -> sparse.csr_array[Any, tuple[int, int]]:
    """Compressed sparse rows of any sparse or dense matrix."""
    return sparse.csr_array(rows)


def _unit_rows(rows: Rows) -> Rows:
    """Unit vectors with one more column, which alone is 1 in a zero row: orthogonal to the rest."""
    wide = rows.astype(np.float64)
    if sparse.issparse(rows):
        norm = sparse.linalg.norm(wide, axis=1)[:, None]  # (N, 1)
        unit = wide.multiply(1 / np.where(norm == 0, 1.0, norm))
        return sparse.csr_array(sparse.hstack([unit, sparse.csr_array(norm == 0)]))
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.hstack([wide / np.where(norm == 0, 1.0, norm), norm == 0])


class Scan(NamedTuple):
    """A search over all pairs: rank blocks by score, then measure the best exactly."""

    query: Rows
    train: Rows
    n_neighbors: int
    order: int
    exclude_self: bool

    def run(self, score: Score, rows: Indices) -> tuple[Neighbors, NDArray[np.float64]]:
        """Neighbours of some query rows, and the score of their last candidate, (len(rows),)."""
        # the score of the last candidate is infinite where every training row was a candidate
        n_available = self.train.shape[0] - self.exclude_self
        n_candidates = min(self.n_neighbors + SPARE, n_available)
        found = Neighbors(
            np.empty((len(rows), self.n_neighbors), dtype=np.int64),
            np.empty((len(rows), self.n_neighbors)),
        )
        cutoff = np.full(len(rows), np.inf)
        for part in blocks(len(rows), self.train.shape[0]):
            best = self._best(score, rows[part], n_candidates)
            candidates = (
                best.indices.sort(dim=1).values.cpu().numpy()
            )  # of equals, lower rows first
            found.indices[part], found.distances[part] = self.nearest(rows[part], candidates)
            if n_candidates < n_available:
                cutoff[part] = best.values.amax(dim=1).double().cpu().numpy()
        return found, cutoff

    def _best(self, score: Score, rows: Indices, n_candidates: int) -> torch.return_types.topk:
        scores = score(rows)  # (b, N)
        if self.exclude_self:
            scores[torch.arange(len(rows)), torch.from_numpy(rows)] = torch.inf
        return torch.topk(scores, n_candidates, dim=1, largest=False, sorted=False)

    def nearest(self, rows: Indices, candidates: Indices) -> Neighbors:
        """The nearest of the candidates (b, c) of some query rows, measured: (b, k)."""
        distances = candidate_distances(self.query, self.train, rows, candidates, self.order)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, : self.n_neighbors]
        return Neighbors(
            np.take_along_axis(candidates, nearest, axis=1),
            np.take_along_axis(distances, nearest, axis=1),
        )


class Plane(NamedTuple):
    """Rows centred and scaled to at most 1, so that float32 products neither overflow nor cancel.

    ``query`` (M, D), ``train`` (N, D), their squared norms, and the scale that was divided by.
    """

    query: Tensor
    train: Tensor
    query_square: Tensor
    train_square: Tensor
    scale: float

    @classmethod
    def of(
        cls,
        query: NDArray[Any],
        train: NDArray[Any],
        dtype: torch.dtype,
        device: str | torch.device,
    ) -> Plane:
        """Centre on the mean of the training rows and cast."""
        mean = train.mean(axis=0)
        centred = [rows - mean for rows in ((train,) if query is train else (train, query))]
        scale = max(max(-rows.min(), rows.max()) for rows in centred) or 1.0
        parts = [torch.from_numpy(rows).div_(scale).to(device, dtype) for rows in centred]
        norms = [torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in parts]
        squares = [norm.square().to(dtype) for norm in norms]
        return cls(parts[-1], parts[0], squares[-1], squares[0], float(scale))

    def score(self, rows: Indices) -> Tensor:
        """Squared distances but for ``|x_i|²``, which does not change the order: (b, N)."""
        x = self.query[torch.from_numpy(rows)]  # (b, D)
        return torch.addmm(self.train_square, x, self.train.T, alpha=-2)

    def slack(self, near: NDArray[np.float64]) -> NDArray[np.float64]:
        """Error of a score at a distance of ``near``, in units of the plane, (M,) or (M, c)."""
        # A product of D terms carries a rounding error of about λ √D u |x||y|, u the unit roundoff
        # and λ = 4 for safety: N. Higham and T. Mary (2019), A new approach to probabilistic
        # rounding error analysis, SIAM J. Sci. Comput. 41, A2815-A2835. And only training rows with
        # |y| <= |x| + distance can be nearer.
        square = self.query_square.double().cpu().numpy()  # (M,)
        square = square.reshape(-1, *(1,) * (near.ndim - 1))
        reach = square + (np.sqrt(square) + near) ** 2  # >= 2 |x||y|
        unit = torch.finfo(self.train.dtype).eps
        error: NDArray[np.float64] = (4 * np.sqrt(self.train.shape[1]) + 8) * unit * reach
        return error

    def is_certain(
        self, distance: NDArray[np.float64], cutoff: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether no row that scored above ``cutoff`` can be nearer than ``distance``: (M,)."""
        square = self.query_square.double().cpu().numpy()
        near = distance / self.scale
        is_nearest: NDArray[np.bool_] = near**2 <= cutoff + square - self.slack(near)
        return is_nearest


def exact_score(query: Rows, train: Rows, order: int, device: str | torch.device) -> Score:
    """Rank all pairs in float64 by their distance of order 1 or 2."""
    if sparse.issparse(train):
        return _sparse_score(query, train, order)
    if order == 1:
        return _manhattan_score(query, train, device)
    return Plane.of(query, train, torch.float64, device).score


def _manhattan_score(query: Rows, train: Rows, device: str | torch.device) -> Score:
    a, b = _as_tensor(query, device), _as_tensor(train, device)
    return lambda rows: torch.cdist(a[torch.from_numpy(rows)], b, p=1)


def _as_tensor(rows: NDArray[Any], device: str | torch.device) -> Tensor:
    return torch.from_numpy(rows.astype(np.float64)).to(device)


def _sparse_score(query: Rows, train: Rows, order: int) -> Score:
    if order == 1:
        return lambda rows: torch.from_numpy(manhattan_distances(query[rows], train))
    columns = train.astype(np.float64).T.tocsr()  # (D, N)
    square = columns.power(2).sum(axis=0)  # (N,)

    def score(rows: Indices) -> Tensor:
        product = (query[rows].astype(np.float64) @ columns).toarray()
        return torch.from_numpy(square - 2 * product)

    return score


def candidate_distances(
    query: Rows, train: Rows, rows: Indices, candidates: Indices, order: int
) -> NDArray[np.float64]:
    """Distances (b, c) from differences taken in float64: nothing cancels, equal rows are at 0."""
    # One thread per span of rows. A parallel region inside each small operation costs more in
    # synchronisation than in arithmetic: 60 times more where other programs share the cores.
    measure = _sparse_distances if sparse.issparse(train) else _dense_distances
    n_threads = min(torch.get_num_threads(), len(rows))
    spans = np.array_split(np.arange(len(rows)), n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        parts = pool.map(
            lambda span: measure(query, train, rows[span], candidates[span], order), spans
        )
        return np.vstack(list(parts))


def _dense_distances(
    query: NDArray[Any], train: NDArray[Any], rows: Indices, candidates: Indices, order: int
) -> NDArray[np.float64]:
    (n_rows, n_candidates), n_features = candidates.shape, train.shape[1]
    step = max(1, _GATHER_BYTES // (8 * n_candidates * n_features))
    far = np.empty((step * n_candidates, n_features), dtype=train.dtype)
    gap = np.empty((step, n_candidates, n_features))  # reused: fresh pages cost more than the sums
    result = np.empty(candidates.shape)
    for start in range(0, n_rows, step):
        index = candidates[start : start + step]  # (s, c)
        fetched, difference = far[: index.size], gap[: len(index)]
        np.take(train, index.ravel(), axis=0, out=fetched, mode="clip")
        difference[...] = fetched.reshape(difference.shape)
        difference -= query[rows[start : start + step], None].astype(np.float64)
        result[start : start + step] = _norm(difference, order)
    return result


def _norm(gap: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Length of the last axis, which is overwritten: (b, c, D) -> (b, c)."""
    if order == 1:
        length: NDArray[np.float64] = np.abs(gap, out=gap).sum(axis=-1)
    else:
        length = np.sqrt((gap[..., None, :] @ gap[..., :, None])[..., 0, 0])
    return length


def _sparse_distances(
    query: Rows, train: Rows, rows: Indices, candidates: Indices, order: int
) -> NDArray[np.float64]:
    row_bytes = 24 * (train.nnz // train.shape[0] + 8)
    step = max(1, _GATHER_BYTES // (row_bytes * candidates.shape[1]))
    result = np.empty(candidates.shape)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        near = query[np.repeat(rows[part], candidates.shape[1])].astype(np.float64)
        gap = train[candidates[part].ravel()].astype(np.float64) - near  # (b * c, D)
        result[part] = sparse.linalg.norm(gap, ord=order, axis=1).reshape(-1, candidates.shape[1])
    return result
