"""Neighbours in the data and in the map, and their ranks on the other side, found together.

Every score of neighbourhoods asks for one of four tables, and the distances of all pairs, which
each would need again, are what they cost.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import KDTree

from ptsne.affinities import nearest_neighbors, query_neighbors
from ptsne.affinities.scan import (
    Indices,
    Neighbors,
    Plane,
    Rows,
    Scan,
    Score,
    as_csr,
    as_rows,
    blocks,
    candidate_distances,
    exact_score,
)

TREE_COLUMNS = 3  # a tree finds neighbours of so few columns faster than all pairs do
SORTED_BELOW = 4096  # values: to sort fewer takes less time than to look at them for each limit
WIDEST_BAND = 256  # rows that may be nearer, or not: for more, float64 scores of all are cheaper


class Neighborhoods(NamedTuple):
    """Neighbours of rows, nearest first.

    Attributes
    ----------
    in_data : Neighbors
        Of the data, (N, n_graph) each, in its metric.
    in_map : ndarray of shape (N, k)
        Nearest rows of the map.
    ranks_in_data, ranks_in_map : ndarray of shape (N, k)
        Ranks of the rows ``in_map`` in the data, and of the k first of ``in_data`` in the map; 1
        is the nearest.
    n_available : int
        Rows among which the neighbours of one are chosen.
    """

    in_data: Neighbors
    in_map: Indices
    ranks_in_data: Indices
    ranks_in_map: Indices
    n_available: int


class Pairs(NamedTuple):
    """All pairs of rows and of the rows that they are compared with."""

    query: Rows
    train: Rows
    order: int
    exclude_self: bool

    @classmethod
    def of(cls, X: Any, X_train: Any, metric: str) -> Pairs:
        """Rows as the metric wants them; without ``X_train`` among themselves."""
        query = as_rows(X, metric)
        train = query if X_train is None else as_rows(X_train, metric)
        if sparse.issparse(train) != sparse.issparse(query):
            query, train = as_csr(query), as_csr(train)
        if train.shape[1] != query.shape[1]:
            raise ValueError(
                f"X has {query.shape[1]} columns but X_train has {train.shape[1]}; "
                "pass the same features in both"
            )
        return cls(query, train, 1 if metric == "manhattan" else 2, X_train is None)

    @property
    def n_available(self) -> int:
        """Rows that one can be compared with."""
        return int(self.train.shape[0]) - self.exclude_self

    @property
    def has_product(self) -> bool:
        """Whether a matrix product in float32 ranks the pairs, but for errors that are known."""
        is_wide = self.train.shape[1] > TREE_COLUMNS  # else float64 costs little
        return self.order == 2 and is_wide and not sparse.issparse(self.train)

    def exact_score(self) -> Score:
        """Ranks of all pairs in float64."""
        return exact_score(self.query, self.train, self.order, "cpu")

    def distances(self, rows: Indices, others: Indices) -> NDArray[np.float64]:
        """Distances (n, c) of some rows (n,) to others (n, c)."""
        return candidate_distances(self.query, self.train, rows, others, self.order)


# --- ranks ----------------------------------------------------------------------------------------


class Limits(NamedTuple):
    """Scores of the chosen rows, (N, c): rows below ``low`` are nearer, above ``high`` farther.

    Which of those between them are nearer is decided by their ``distance``.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    distance: NDArray[np.float64]


class Ranks:
    """Ranks of chosen rows, counted while the scores of all pairs pass by.

    Rank r is 1 + the number of rows that are nearer, so that rows at one distance share the best.
    """

    def __init__(self, pairs: Pairs, chosen: Indices) -> None:
        self.pairs, self.chosen = pairs, chosen
        self.ranks = np.zeros(chosen.shape, dtype=np.int64)

    def counted(self, score: Score, limits: Limits | None = None) -> Score:
        """The same scores, counted when they are asked for; they are exact without `limits`."""

        def counted_score(rows: Indices) -> torch.Tensor:
            scores = score(rows)  # (b, M)
            if self.pairs.exclude_self:
                scores[torch.arange(len(rows)), torch.from_numpy(rows)] = torch.inf
            if limits is None:
                self._count(rows, scores.numpy())
            else:
                self._count_surely(rows, scores.numpy(), limits)
            return scores

        return counted_score

    def limits(self, plane: Plane) -> Limits:
        """Scores of the chosen rows in a plane, less and plus the error that a score may have."""
        distance = self.pairs.distances(np.arange(len(self.chosen)), self.chosen)  # (N, c)
        near = distance / plane.scale
        middle = near**2 - plane.query_square.double().numpy()[:, None]
        slack = plane.slack(near)
        low, high = (side.astype(np.float32) for side in (middle - slack, middle + slack))
        return Limits(low, high, distance)

    def _count(self, rows: Indices, scores: NDArray[np.float64]) -> None:
        for i, row in zip(rows, scores, strict=True):  # one row fits a cache
            limit = row[self.chosen[i]]  # (c,)
            self.ranks[i] = 1 + _n_below(row[row < limit.max()], limit)

    def _count_surely(self, rows: Indices, scores: NDArray[np.float32], limits: Limits) -> None:
        """Count by scores in float32; what these leave open is settled in float64."""
        bands: list[tuple[int, int, Indices]] = []  # row, which of its limits, rows beside it
        wide: list[int] = []
        for i, row in zip(rows.tolist(), scores, strict=True):
            low, high = limits.low[i], limits.high[i]  # (c,)
            near = row[row <= high.max()]
            n_nearer = _n_below(near, low)
            n_open = _n_below(near, np.nextafter(high, np.inf)) - n_nearer  # one is the chosen row
            self.ranks[i] = 1 + n_nearer
            if n_open.sum() > WIDEST_BAND:
                wide.append(i)
                continue
            for c in np.flatnonzero(n_open > 1).tolist():
                bands.append((i, c, np.flatnonzero((row >= low[c]) & (row <= high[c]))))
        if bands:
            self._settle(bands, limits.distance)
        if wide:
            self.counted(self.exact_score)(np.array(wide))

    def _settle(self, bands: list[tuple[int, int, Indices]], limit: NDArray[np.float64]) -> None:
        """Add the rows of each band that are nearer than the chosen one."""
        sizes = [len(band) for *_, band in bands]
        i, c = (np.repeat([band[part] for band in bands], sizes) for part in (0, 1))
        others = np.concatenate([band for *_, band in bands])
        is_nearer = self.pairs.distances(i, others[:, None])[:, 0] < limit[i, c]
        is_nearer &= others != self.chosen[i, c]
        np.add.at(self.ranks, (i[is_nearer], c[is_nearer]), 1)

    @cached_property
    def exact_score(self) -> Score:
        """Scores in float64."""
        return self.pairs.exact_score()


def _n_below(values: NDArray[Any], limits: NDArray[Any]) -> Indices:
    """How many values are below each limit."""
    if len(values) > SORTED_BELOW:
        return np.array([np.count_nonzero(values < limit) for limit in limits])
    return np.searchsorted(np.sort(values), limits)


def ranks_of(pairs: Pairs, chosen: Indices) -> Indices:
    """Ranks of chosen rows by their distance.

    Parameters
    ----------
    pairs : Pairs
        Rows, and the rows that they are compared with.
    chosen : ndarray of shape (N, c)
        For each row some of the others.

    Returns
    -------
    ndarray of shape (N, c)
        1 + the number of rows that are nearer.
    """
    ranks = Ranks(pairs, chosen)
    score = ranks.counted(*_single_or_exact(ranks)[:2])
    everything = np.arange(len(chosen))
    for part in blocks(len(chosen), pairs.train.shape[0]):
        score(everything[part])
    return ranks.ranks


def neighbors_and_ranks(
    pairs: Pairs, n_neighbors: int, chosen: Indices
) -> tuple[Neighbors, Indices]:
    """The nearest rows, and ranks of chosen rows, from one look at all pairs.

    Parameters
    ----------
    pairs : Pairs
        Rows, and the rows that they are compared with.
    n_neighbors : int
        Nearest rows per row.
    chosen : ndarray of shape (N, c)
        For each row some of the others.

    Returns
    -------
    neighbors : Neighbors
        Exact.
    ranks : ndarray of shape (N, c)
        1 + the number of rows that are nearer.
    """
    ranks = Ranks(pairs, chosen)
    score, limits, plane = _single_or_exact(ranks)
    scan = Scan(pairs.query, pairs.train, n_neighbors, pairs.order, pairs.exclude_self)
    everything = np.arange(len(chosen))
    found, cutoff = scan.run(ranks.counted(score, limits), everything)
    if plane is not None:
        doubtful = everything[~plane.is_certain(found.distances[:, -1], cutoff)]
        if doubtful.size:
            again, _ = scan.run(ranks.exact_score, doubtful)
            found.indices[doubtful], found.distances[doubtful] = again
    return found, ranks.ranks


def _single_or_exact(ranks: Ranks) -> tuple[Score, Limits | None, Plane | None]:
    """Scores in float32 with what their errors leave open, or exact scores."""
    pairs = ranks.pairs
    if not pairs.has_product:
        return ranks.exact_score, None, None
    plane = Plane.of(pairs.query, pairs.train, torch.float32, "cpu")
    return plane.score, ranks.limits(plane), plane


# --- neighbours -----------------------------------------------------------------------------------


def map_neighbors(Y: Any, Y_train: Any, n_neighbors: int) -> Indices:
    """Nearest rows of a map.

    Parameters
    ----------
    Y : array of shape (N, K)
        Places.
    Y_train : array of shape (M, K) or None
        Places among which the neighbours are sought; None: the other rows of `Y`.
    n_neighbors : int
        Neighbours per row.

    Returns
    -------
    ndarray of shape (N, n_neighbors)
        Row numbers, nearest first.
    """
    train = Y if Y_train is None else Y_train
    is_tree = Y.ndim == 2 and Y.shape[1] == train.shape[1] <= TREE_COLUMNS
    if not (is_tree and 1 <= n_neighbors <= len(train) - (Y_train is None)):
        return _searched(Y, Y_train, n_neighbors)
    tree = KDTree(train)
    if Y_train is not None:
        return _nearest(tree, Y, n_neighbors)
    found = _nearest(tree, Y, n_neighbors + 1)
    # a row is its own nearest, but not always the first of several at one place
    is_self = found == np.arange(len(found))[:, None]
    order = np.argsort(is_self, axis=1, kind="stable")[:, :n_neighbors]
    return np.take_along_axis(found, order, axis=1)


def _nearest(tree: KDTree, Y: Any, n_neighbors: int) -> Indices:
    found = tree.query(Y, list(range(1, n_neighbors + 1)))[1]  # a list: (N, k) for k = 1 too
    return np.asarray(found, dtype=np.int64)


def _searched(Y: Any, Y_train: Any, n_neighbors: int) -> Indices:
    if Y_train is None:
        return nearest_neighbors(Y, n_neighbors, method="exact").indices
    return query_neighbors(Y_train, Y, n_neighbors).indices


def neighborhoods(
    X: Any,
    Y: NDArray[Any],
    X_train: Any = None,
    Y_train: NDArray[Any] | None = None,
    *,
    n_neighbors: int,
    n_graph: int,
    metric: str,
) -> Neighborhoods:
    """Find what all scores of neighbourhoods need.

    Parameters
    ----------
    X, Y : array of shape (N, D) and (N, K)
        Rows and their places.
    X_train, Y_train : array of shape (M, D) and (M, K), optional
        Rows among which the neighbours are sought, and their places; by default the other rows.
    n_neighbors : int
        Neighbours in the map, k, and those whose ranks are counted on the other side.
    n_graph : int
        Neighbours in the data, `n_neighbors` or more.
    metric : {"euclidean", "cosine", "manhattan"}
        Distance between rows of `X`.

    Returns
    -------
    Neighborhoods
        Neighbours and ranks.
    """
    in_map = map_neighbors(Y, Y_train, n_neighbors)
    data = Pairs.of(X, X_train, metric)
    in_data, ranks_in_data = neighbors_and_ranks(data, n_graph, in_map)
    chosen = in_data.indices[:, :n_neighbors]
    ranks_in_map = ranks_of(Pairs.of(Y, Y_train, "euclidean"), chosen)
    if metric == "cosine":  # distances of unit vectors: 1 - cos = d²/2
        in_data = Neighbors(in_data.indices, in_data.distances**2 / 2)
    return Neighborhoods(in_data, in_map, ranks_in_data, ranks_in_map, data.n_available)
