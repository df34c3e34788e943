"""Whether W says what the map does around a row: the scores, and the formula."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptsne.affinities.scan import Indices, as_rows
from ptsne.metrics.arguments import check_pairing, data_neighbors


class LocalFidelity(NamedTuple):
    """Whether W predicts where the neighbours of a point lie in the map.

    Attributes
    ----------
    r2 : float
        ``1 - median |dy - W dx|² / median |dy|²``; 1 is perfect, 0 no better than predicting 0.
    cosine : float
        Mean cosine between ``dy`` and ``W dx``.
    p50 : float
        Share of pairs with ``|dy - W dx| <= |dy| / 2``.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import local_fidelity
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> W = np.zeros((100, 2, 5))
    >>> round(local_fidelity(W, X, X[:, :2]).r2, 6)  # W says that nothing moves
    0.0
    """

    r2: float
    cosine: float
    p50: float


def local_fidelity(
    W: ArrayLike,
    X: Any,
    Y: ArrayLike,
    *,
    X_train: Any = None,
    Y_train: ArrayLike | None = None,
    n_neighbors: int = 5,
    metric: str = "euclidean",
) -> LocalFidelity:
    """Compare where the true neighbours of a point lie with where its linear map puts them.

    ``dy`` is the way in the map from a row to one of its nearest training rows in the data and
    ``W dx`` what the row's own W predicts of it. The tenth of the pairs with the longest ``dy`` is
    left out: neighbours that the map has torn apart.

    Parameters
    ----------
    W : array-like of shape (N, K, D)
        Linear map of each row; another shape is refused.
    X : array or sparse matrix of shape (N, D)
        Rows.
    Y : array-like of shape (N, K)
        Their places in the map.
    X_train : array or sparse matrix of shape (M, D), optional
        Rows among which the neighbours are sought; by default the other rows of ``X``.
    Y_train : array-like of shape (M, K), optional
        Places of the training rows.
    n_neighbors : int, default=5
        Neighbours per row.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance by which the neighbours are chosen.

    Returns
    -------
    LocalFidelity
        ``r2``, ``cosine`` and ``p50`` over all pairs that are kept.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import local_fidelity
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> W = np.random.default_rng(1).normal(size=(2, 5))
    >>> fidelity = local_fidelity(np.repeat(W[None], 100, axis=0), X, X @ W.T)
    >>> round(fidelity.r2, 6)  # W is the map
    1.0
    """
    check_pairing(X, Y, X_train, Y_train)
    chosen = data_neighbors(X, X_train, n_neighbors, metric)
    if X_train is None or Y_train is None:
        X_train, Y_train = X, Y
    return displacements(W, X, Y, X_train, Y_train, chosen)


def displacements(  # noqa: PLR0917 - two sets of rows with their places
    W: ArrayLike, X: Any, Y: ArrayLike, X_train: Any, Y_train: ArrayLike, chosen: Indices
) -> LocalFidelity:
    """Fidelity of linear maps to the ways to chosen rows.

    Parameters
    ----------
    W : array-like of shape (N, K, D)
        Linear map of each row.
    X : array or sparse matrix of shape (N, D)
        Rows.
    Y : array-like of shape (N, K)
        Their places in the map.
    X_train : array or sparse matrix of shape (M, D)
        Rows that are chosen from.
    Y_train : array-like of shape (M, K)
        Their places.
    chosen : ndarray of shape (N, n)
        Rows to which the ways lead.

    Returns
    -------
    LocalFidelity
        Without the tenth of the ways that are longest in the map.

    Raises
    ------
    ValueError
        If the shapes of W, X and Y do not belong together.
    """
    is_lone = X_train is X
    W, X, Y = np.asarray(W), as_rows(X, "euclidean"), np.asarray(Y, dtype=np.float64)
    X_train = X if is_lone else as_rows(X_train, "euclidean")
    if W.shape != (Y.shape[0], Y.shape[1], X.shape[1]):
        raise ValueError(
            f"W must have shape {(Y.shape[0], Y.shape[1], X.shape[1])}, one (K, D) matrix per row, "
            f"got {W.shape}"
        )
    targets = np.asarray(Y_train, dtype=np.float64)
    actual = targets[chosen] - Y[:, None]  # (N, n, K)
    predicted = _predict(W, X, X_train, chosen)
    length = np.linalg.norm(actual, axis=2)
    is_kept = length <= np.quantile(length, 0.9)
    return _fidelity(actual[is_kept], predicted[is_kept])


def _predict(W: NDArray[Any], X: Any, X_train: Any, chosen: Indices) -> NDArray[np.float64]:
    """``W_i (x_j - x_i)`` for the chosen rows j of each row i: (N, n, K)."""
    columns = []
    for neighbor in chosen.T:  # (N,)
        dx = _dense_difference(X_train[neighbor], X)
        columns.append(np.einsum("nkd,nd->nk", W, dx, dtype=np.float64))
    return np.stack(columns, axis=1)


def _dense_difference(a: Any, b: Any) -> NDArray[np.float64]:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.subtract(a, b, dtype=np.float64)
    difference = a.astype(np.float64) - b.astype(np.float64)
    return np.asarray(difference.toarray())


def _fidelity(actual: NDArray[np.float64], predicted: NDArray[np.float64]) -> LocalFidelity:
    """The three numbers over pairs of displacements, (n_pairs, K) each."""
    error = np.linalg.norm(actual - predicted, axis=1)
    length = np.linalg.norm(actual, axis=1)
    lengths = length * np.linalg.norm(predicted, axis=1)
    product = np.einsum("pk,pk->p", actual, predicted)
    cosine = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    lost, total = float(np.median(error**2)), float(np.median(length**2))
    r2 = 1 - lost / total if total > 0 else (1.0 if lost == 0 else -np.inf)
    return LocalFidelity(r2, float(cosine.mean()), float(np.mean(2 * error <= length)))


def rank_deficient(W: ArrayLike, *, rtol: float = 1e-6) -> int:
    """Count the rows whose linear map loses a direction of the map.

    Parameters
    ----------
    W : array-like of shape (N, K, D)
        Linear map of each row.
    rtol : float, default=1e-6
        A singular value of W counts as zero when it is at most ``rtol`` times the largest.

    Returns
    -------
    int
        Number of rows whose W has a rank below ``min(K, D)``.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import rank_deficient
    >>> rank_deficient(np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 4.0]]]))
    1
    """
    values = np.linalg.svd(np.asarray(W, dtype=np.float64), compute_uv=False)  # (N, min(K, D))
    return int(np.sum(values[:, -1] <= rtol * values[:, 0]))
