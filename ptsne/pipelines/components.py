"""Principal components that were computed elsewhere, as a step in front of a map."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from ptsne.rows import read_rows

TOLERANCE = 1e-3
"""Of the largest component: what differs by more is no rounding of float32."""


class Components(TransformerMixin, BaseEstimator):
    """Known loadings as a transformer: ``z = (x - mean) @ loadings + offset``.

    The constant is learned from rows whose components are known, and so is whether there is one:
    whatever was subtracted before the loadings were applied, exactly these rows go to exactly these
    components.

    Parameters
    ----------
    loadings : array-like of shape (D, L)
        One column a component, such as ``adata.varm["PCs"]``; a row of zeros where a column has no
        part in them.

    Attributes
    ----------
    mean_ : ndarray of shape (D,)
        Mean of the rows of `fit`.
    offset_ : ndarray of shape (L,)
        Mean of their components.
    n_features_in_ : int
        D.
    feature_names_in_ : ndarray of str
        Column names, when the rows have them.
    """

    mean_: NDArray[np.float64]
    offset_: NDArray[np.float64]

    def __init__(self, loadings: ArrayLike) -> None:
        self.loadings = loadings

    def fit(self, X: Any, y: ArrayLike) -> "Components":
        """Learn the constant of the affine map from rows to their components.

        Parameters
        ----------
        X : array-like, DataFrame, sparse matrix or AnnData of shape (N, D)
            Rows, read block by block: sparse ones never become dense as a whole.
        y : array-like of shape (N, L)
            Their components.

        Returns
        -------
        Components
            Itself.

        Raises
        ------
        ValueError
            If the components are no affine function of the rows by these loadings.
        """
        rows = read_rows(self, X, reset=True, streamed=True)
        A, known = np.asarray(self.loadings, np.float64), np.asarray(y, np.float64)
        if A.shape != (rows.shape[1], *known.shape[1:]) or len(known) != len(rows):
            raise ValueError(
                f"rows {rows.shape}, loadings {A.shape} and components {known.shape} do not go "
                "together: (N, D), (D, L) and (N, L) do"
            )
        total, constant = np.zeros(len(A)), known.copy()
        for where, part in rows.parts():
            total += part.sum(0)
            constant[where] -= part @ A
        self.mean_, self.offset_ = total / len(rows), known.mean(0)
        _require_constant(constant, known)
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Components of rows.

        Parameters
        ----------
        X : array-like, DataFrame, sparse matrix or AnnData of shape (N, D)
            Rows, read block by block.

        Returns
        -------
        ndarray of shape (N, L), float64
            ``(x - mean) @ loadings + offset``.
        """
        rows = read_rows(self, X, streamed=True)
        A = np.asarray(self.loadings, np.float64)
        z = np.empty((len(rows), A.shape[1]))
        for where, part in rows.parts():
            z[where] = (part - self.mean_) @ A + self.offset_
        return z

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "mean_")


def _require_constant(constant: NDArray[np.float64], known: NDArray[np.float64]) -> None:
    """Refuse rows (N, L) of what should be one constant, if they are more."""
    error = np.abs(constant - constant.mean(0)).max(1, initial=0)
    largest = np.abs(known).max(initial=0)
    row = int(error.argmax())
    if not error[row] <= TOLERANCE * largest:  # not finite counts as wrong
        raise ValueError(
            "the components are not (x - constant) @ loadings of these rows: row "
            f"{row} is off by {error[row]:.2g}, where the largest component is {largest:.2g}; pass "
            "the rows that the components were computed from, before they were scaled, corrected "
            "or integrated otherwise"
        )
