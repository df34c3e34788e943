"""Displacements as one number each: how far they take a point along its whole way."""

import numpy as np
from numpy.typing import NDArray


def signed_lengths(displacements: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of each displacement (K, D) along their sum: (D,), summing to |sum|."""
    return np.asarray(direction(displacements) @ displacements)


def direction(displacements: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vector (K,) along the sum of displacements (K, D); 0 where they cancel."""
    way = displacements.sum(1)
    distance = np.linalg.norm(way)
    return np.asarray(way / distance if distance > 0 else 0 * way)
