"""What all scores of rows and places ask for."""

from __future__ import annotations

from typing import Any

from ptsne.affinities import nearest_neighbors, query_neighbors
from ptsne.affinities.scan import Indices


def check_pairing(X: Any, Y: Any, X_train: Any, Y_train: Any) -> None:
    """Hold rows and places against each other.

    Parameters
    ----------
    X, X_train : array-like or sparse matrix
        Rows (N, D), and training rows or None.
    Y, Y_train : array-like
        Places of both.

    Raises
    ------
    ValueError
        If one of the training's two is missing, or rows and places are not as many.
    """
    if (X_train is None) != (Y_train is None):
        raise ValueError(
            "training rows need their places, and places their rows: pass both or none"
        )
    for rows, places in ((X, Y), (X_train, Y_train)):
        if rows is not None and _n_rows(rows) != _n_rows(places):
            raise ValueError(
                f"rows and places must be as many, got {_n_rows(rows)} and {_n_rows(places)}"
            )


def data_neighbors(X: Any, X_train: Any, n_neighbors: int, metric: str) -> Indices:
    """Neighbours in the data.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (N, D)
        Rows.
    X_train : array-like or sparse matrix of shape (M, D), or None
        Rows to look among; None for `X` without the row itself.
    n_neighbors : int
        k.
    metric : str
        As in `ptsne.affinities.nearest_neighbors`.

    Returns
    -------
    ndarray of shape (N, k)
        The nearest first.
    """
    if X_train is None:
        return nearest_neighbors(X, n_neighbors, metric=metric, method="exact").indices
    return query_neighbors(X_train, X, n_neighbors, metric=metric).indices


def _n_rows(rows: Any) -> int:
    return int(rows.shape[0]) if hasattr(rows, "shape") else len(rows)
