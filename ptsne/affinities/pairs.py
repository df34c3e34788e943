"""The joint P of many rows as its pairs, with little memory beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import xlogy

from ptsne.affinities.calibration import conditional_probabilities
from ptsne.affinities.scan import Neighbors

ROWS_AT_ONCE = 4096


class JointPairs(NamedTuple):
    """Pairs of rows with a joint probability, each pair once.

    Attributes
    ----------
    row, column : ndarray of shape (E,), int64
        The pairs, ``row < column``.
    weight : ndarray of shape (E,), float32
        ``p_ij + p_ji``; their sum is 1.
    row_mass : ndarray of shape (N,), float64
        ``sum_j p_ij``.
    negative_entropy : float
        ``sum_ij p_ij log p_ij``, nats.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    weight: NDArray[np.float32]
    row_mass: NDArray[np.float64]
    negative_entropy: float


def calibrate_by_blocks(
    neighbors: Neighbors, perplexity: float | Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """`conditional_probabilities` of some rows at a time.

    Parameters
    ----------
    neighbors : Neighbors
        Of all N rows.
    perplexity : float or sequence of float
        From 1 to k.

    Returns
    -------
    probabilities : ndarray of shape (N, k), float32
        ``p_{j|i}``.
    sigma : ndarray of shape (N,), float64
        Widths, in the unit of the distances.
    """
    shape = neighbors.distances.shape
    probabilities, sigma = np.empty(shape, np.float32), np.empty(shape[0])
    for rows in _stretches(shape[0]):
        found = conditional_probabilities(neighbors.distances[rows], perplexity)
        probabilities[rows], sigma[rows] = found
    return probabilities, sigma


def joint_pairs(indices: NDArray[np.int64], probabilities: NDArray[np.float32]) -> JointPairs:
    """Pairs of the P that `joint_probabilities` makes, to float32.

    Parameters
    ----------
    indices : ndarray of shape (N, k), int64
        Neighbours of each row.
    probabilities : ndarray of shape (N, k), float32
        ``p_{j|i}``.

    Returns
    -------
    JointPairs
        In the order of their rank among the pairs of their row: the first of each row, then the
        second of each ...
    """
    n_rows, k = indices.shape
    starts = np.arange(0, n_rows * k + 1, k)
    one_way = sparse.csr_array(
        (probabilities.ravel(), indices.ravel().astype(np.int32), starts), shape=(n_rows, n_rows)
    )
    other_way = sparse.csr_array(one_way.T)
    parts = [_upper(one_way, other_way, rows) for rows in _stretches(n_rows)]
    del one_way, other_way
    row, column, weight, rank = (np.concatenate(part) for part in zip(*parts, strict=True))
    del parts
    order = np.argsort(rank, kind="stable")
    del rank
    weight = weight[order]
    total = weight.sum(dtype=np.float64)
    weight /= total
    row, column = row[order].astype(np.int64), column[order].astype(np.int64)
    mass = np.bincount(row, weight, n_rows) + np.bincount(column, weight, n_rows)
    wide = weight.astype(np.float64)
    return JointPairs(row, column, weight, mass / 2, float(xlogy(wide, wide / 2).sum()))


def _stretches(n_rows: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, n_rows, ROWS_AT_ONCE))


def _upper(
    one_way: sparse.csr_array, other_way: sparse.csr_array, rows: slice
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Row, column, sum of both directions and rank in its row of the pairs of some rows."""
    both = sparse.coo_array(one_way[rows] + other_way[rows])
    row, column = both.row + np.int32(rows.start), both.col
    is_upper = (row < column) & (both.data > 0)
    row, column, weight = row[is_upper], column[is_upper], both.data[is_upper]
    first = np.flatnonzero(np.diff(row, prepend=-1))
    rank = np.arange(len(row)) - np.repeat(first, np.diff(first, append=len(row)))
    return (
        row.astype(np.int32, copy=False),
        column.astype(np.int32, copy=False),
        weight,
        rank.astype(np.int32),
    )
