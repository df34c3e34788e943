"""Displacements as one number each: how far they take a point along its whole way."""

import numpy as np
from numpy.typing import NDArray

from ptsne.explanation import Explanation


def displacements(explanation: Explanation, i: int, method: str) -> NDArray[np.float64]:
    """What each feature adds to the way of row i, (K, D).

    Parameters
    ----------
    explanation : Explanation
        Of the rows.
    i : int
        Row.
    method : {"path", "paired", "local"}
        From the baseline's place along the map, or by the row's local map.

    Returns
    -------
    ndarray of shape (K, D)
        In map units.
    """
    if method == "local":
        return np.asarray(explanation.contributions[i])
    return np.asarray(explanation.displacement([i], method=method)[0])


def signed_lengths(displacements: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of each displacement (K, D) along their sum: (D,), summing to |sum|."""
    return np.asarray(direction(displacements) @ displacements)


def direction(displacements: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vector (K,) along the sum of displacements (K, D); 0 where they cancel."""
    way = displacements.sum(1)
    distance = np.linalg.norm(way)
    return np.asarray(way / distance if distance > 0 else 0 * way)
