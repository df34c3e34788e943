"""How far W means something: whether it predicts where neighbours lie, and is theirs too."""

import numpy as np
from numpy.typing import NDArray

from ptsne.affinities import nearest_neighbors
from ptsne.explanation.source import Array

ROWS_PER_BLOCK = 256


def row_fidelity(weight: Array, X: Array, Y: Array, n_neighbors: int) -> NDArray[np.float64]:
    """How well each row's W predicts the ways to its neighbours.

    Parameters
    ----------
    weight : ndarray of shape (N, K, D)
        W.
    X, Y : ndarray of shape (N, D) and (N, K)
        Rows and places.
    n_neighbors : int
        Neighbours of each row.

    Returns
    -------
    ndarray of shape (N,)
        1 is perfect.
    """
    near = nearest_neighbors(X, n_neighbors, method="exact").indices
    actual = Y[near].astype(np.float64) - Y[:, None]  # (N, k, K)
    predicted = np.stack([_predicted(weight, X, column) for column in near.T], 1)
    lost = np.median(np.square(actual - predicted).sum(2), 1)
    total = np.median(np.square(actual).sum(2), 1)
    at_one_place = np.where(lost > 0, -np.inf, 1.0)
    return np.where(total > 0, 1 - lost / np.where(total > 0, total, 1), at_one_place)


def relative_variance(weight: Array, X: Array, n_neighbors: int) -> NDArray[np.float64]:
    """How much W differs between a row and its neighbours.

    Parameters
    ----------
    weight : ndarray of shape (N, K, D)
        W.
    X : ndarray of shape (N, D)
        Rows.
    n_neighbors : int
        Neighbours of each row.

    Returns
    -------
    ndarray of shape (N,)
        From 0, the same W, to 1.
    """
    near = nearest_neighbors(X, n_neighbors, method="exact").indices
    group = np.column_stack([np.arange(len(X)), near])  # (N, 1 + k)
    size = np.einsum("nkd,nkd->n", weight, weight, dtype=np.float64)[group].mean(1)
    starts = range(0, len(X), ROWS_PER_BLOCK)
    spread = np.concatenate([_spread(weight, group[i : i + ROWS_PER_BLOCK]) for i in starts])
    relative: NDArray[np.float64] = spread / np.where(size > 0, size, 1)
    return relative


def _predicted(weight: Array, X: Array, neighbor: NDArray[np.int64]) -> NDArray[np.float64]:
    """``W_i (x_j - x_i)``, (N, K)."""
    step = X[neighbor].astype(np.float64) - X
    ways: NDArray[np.float64] = np.einsum("nkd,nd->nk", weight, step, dtype=np.float64)
    return ways


def _spread(weight: Array, group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean squared distance of the W of each group (n, g) from their mean, (n,)."""
    members = [weight[member].astype(np.float64) for member in group.T]
    mean = np.mean(members, 0)  # (n, K, D)
    away: NDArray[np.float64] = np.mean([np.square(W - mean).sum((1, 2)) for W in members], 0)
    return away
