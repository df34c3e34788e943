"""The map cut into cells: what many rows say together where each of them stands."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Cells(NamedTuple):
    """A honeycomb over the map.

    Attributes
    ----------
    cell : int ndarray of shape (N,)
        Number of the cell of each row, from 0.
    place : ndarray of shape (C, 2)
        Mean place of the rows of each cell.
    size : int ndarray of shape (C,)
        Rows in each cell.
    width : float
        Distance between two neighbouring cells, in map units.
    """

    cell: NDArray[np.int64]
    place: Array
    size: NDArray[np.int64]
    width: float

    def mean(self, values: Array) -> Array:
        """Mean (C, ...) of a quantity (N, ...) of the rows over each cell."""
        total = np.zeros((len(self.size), *values.shape[1:]))
        np.add.at(total, self.cell, values)
        return total / self.size.reshape(-1, *[1] * (values.ndim - 1))


def honeycomb(Y: Array, n_across: int) -> Cells:
    """Sort places into hexagons.

    Parameters
    ----------
    Y : ndarray of shape (N, 2)
        Places.
    n_across : int
        Cells along the longer side of the map.

    Returns
    -------
    Cells
        Those that hold a row.
    """
    width = float(np.ptp(Y, axis=0).max()) / n_across or 1.0
    unit = (Y - Y.min(0)) / (width * np.array([1, np.sqrt(3)]))
    corner, centre = np.rint(unit), np.floor(unit) + 0.5  # two lattices make a honeycomb
    is_corner = _distance(unit, corner) <= _distance(unit, centre)
    lattice = np.where(is_corner[:, None], 2 * corner, 2 * centre)
    _, cell, size = np.unique(lattice, axis=0, return_inverse=True, return_counts=True)
    cells = Cells(cell.ravel(), np.empty((0, 2)), size, width)
    return cells._replace(place=cells.mean(Y))


def _distance(unit: Array, other: Array) -> Array:
    """Squared distance (N,) where the second axis has longer steps."""
    return np.asarray(((unit - other) ** 2) @ np.array([1.0, 3.0]))
