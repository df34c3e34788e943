"""The scores: what each compares, and the formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.utils import check_random_state

from ptsne.affinities import nearest_neighbors, query_neighbors
from ptsne.affinities.scan import Indices, as_rows, candidate_distances
from ptsne.metrics.neighborhoods import Pairs, map_neighbors, ranks_of

if TYPE_CHECKING:
    from numpy.random import RandomState


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


# --- neighbourhoods -------------------------------------------------------------------------------


def neighbor_recall(
    X: Any,
    Y: ArrayLike,
    *,
    n_neighbors: int = 15,
    X_train: Any = None,
    Y_train: ArrayLike | None = None,
    metric: str = "euclidean",
) -> float:
    """Share of the nearest rows in the data that are also nearest in the map.

    Parameters
    ----------
    X : array or sparse matrix of shape (N, D)
        Rows.
    Y : array-like of shape (N, K)
        Their places in the map.
    n_neighbors : int, default=15
        Neighbours per row, k.
    X_train : array or sparse matrix of shape (M, D), optional
        Rows among which the neighbours are sought; by default the other rows of ``X``.
    Y_train : array-like of shape (M, K), optional
        Places of the training rows.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows of ``X``.

    Returns
    -------
    float
        From 0 to 1; a random map scores about ``k / M``.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import neighbor_recall
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> neighbor_recall(X, 3 * X)  # the shape is kept
    1.0
    """
    _check_pairing(X, Y, X_train, Y_train)
    in_data = _neighbors(X, X_train, n_neighbors, metric)
    return shared(in_data, map_neighbors(np.asarray(Y), _as_map(Y_train), n_neighbors))


def shared(in_data: Indices, in_map: Indices) -> float:
    """Mean share of the neighbours that data and map have in common.

    Parameters
    ----------
    in_data, in_map : ndarray of shape (N, k)
        Neighbours of each row.

    Returns
    -------
    float
        From 0 to 1.
    """
    both = np.sort(np.hstack([in_data, in_map]), axis=1)  # what is in both stands there twice
    return float(np.mean(np.sum(both[:, 1:] == both[:, :-1], axis=1)) / in_data.shape[1])


def trustworthiness(
    X: Any,
    Y: ArrayLike,
    *,
    n_neighbors: int = 15,
    X_train: Any = None,
    Y_train: ArrayLike | None = None,
    metric: str = "euclidean",
) -> float:
    """Penalise neighbours in the map that are far in the data, by their rank there.

    ``1 - 2 / (N k (2M - 3k + 1)) Σ_i Σ_{j in U_i} (r_ij - k)``: ``U_i`` are the k nearest training
    rows of i in the map and ``r_ij`` is j's rank in the data, k or less for the k nearest [1]_.
    Among the rows themselves M = N - 1, and the value is that of `sklearn.manifold`.

    Parameters
    ----------
    X : array or sparse matrix of shape (N, D)
        Rows.
    Y : array-like of shape (N, K)
        Their places in the map.
    n_neighbors : int, default=15
        Neighbours per row, at most M / 2.
    X_train : array or sparse matrix of shape (M, D), optional
        Rows among which the neighbours are sought; by default the other rows of ``X``.
    Y_train : array-like of shape (M, K), optional
        Places of the training rows.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows of ``X``.

    Returns
    -------
    float
        From 0 to 1. Rows at the same distance share the best rank among them.

    References
    ----------
    .. [1] J. Venna and S. Kaski (2001). Neighborhood preservation in nonlinear projection methods:
       an experimental study. ICANN 2001, 485-491.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import trustworthiness
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> trustworthiness(X, X[:, :2]) < trustworthiness(X, X)
    True
    """
    _check_pairing(X, Y, X_train, Y_train)
    pairs = Pairs.of(X, X_train, metric)
    _check_half(n_neighbors, pairs.n_available)
    in_map = map_neighbors(np.asarray(Y), _as_map(Y_train), n_neighbors)
    return rank_score(ranks_of(pairs, in_map), pairs.n_available)


def continuity(
    X: Any,
    Y: ArrayLike,
    *,
    n_neighbors: int = 15,
    X_train: Any = None,
    Y_train: ArrayLike | None = None,
    metric: str = "euclidean",
) -> float:
    """Penalise neighbours in the data that are far in the map, by their rank there.

    `trustworthiness` with data and map exchanged [1]_.

    Parameters
    ----------
    X : array or sparse matrix of shape (N, D)
        Rows.
    Y : array-like of shape (N, K)
        Their places in the map.
    n_neighbors : int, default=15
        Neighbours per row, at most M / 2.
    X_train : array or sparse matrix of shape (M, D), optional
        Rows among which the neighbours are sought; by default the other rows of ``X``.
    Y_train : array-like of shape (M, K), optional
        Places of the training rows.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows of ``X``.

    Returns
    -------
    float
        From 0 to 1.

    References
    ----------
    .. [1] J. Venna and S. Kaski (2001). Neighborhood preservation in nonlinear projection methods:
       an experimental study. ICANN 2001, 485-491.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import continuity
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> continuity(X, X[:, :2]) < continuity(X, X)
    True
    """
    _check_pairing(X, Y, X_train, Y_train)
    pairs = Pairs.of(np.asarray(Y), _as_map(Y_train), "euclidean")
    _check_half(n_neighbors, pairs.n_available)
    in_data = _neighbors(X, X_train, n_neighbors, metric)
    return rank_score(ranks_of(pairs, in_data), pairs.n_available)


def rank_score(ranks: Indices, n_available: int) -> float:
    """``1 - 2 / (N k (2M - 3k + 1)) Σ max(0, r - k)``: 1 where all ranks r are k or less.

    Parameters
    ----------
    ranks : ndarray of shape (N, k)
        Ranks of the k neighbours on the other side, from 1.
    n_available : int
        Rows that are ranked, M.

    Returns
    -------
    float
        From 0 to 1.
    """
    n_rows, n_neighbors = ranks.shape
    excess = int(np.maximum(ranks - n_neighbors, 0).sum())
    largest = n_rows * n_neighbors * (2 * n_available - 3 * n_neighbors + 1) / 2
    return float(1 - excess / largest)


def _check_half(n_neighbors: int, n_available: int) -> None:
    if 2 * n_neighbors > n_available:
        raise ValueError(
            f"n_neighbors ({n_neighbors}) must be at most half of the {n_available} rows there are "
            "to choose from; lower n_neighbors or pass more rows"
        )


def knn_accuracy(
    Y: ArrayLike,
    labels: ArrayLike,
    *,
    n_neighbors: int = 10,
    Y_train: ArrayLike | None = None,
    labels_train: ArrayLike | None = None,
) -> float:
    """Accuracy of a vote among the nearest rows of the map.

    Parameters
    ----------
    Y : array-like of shape (N, K)
        Places in the map.
    labels : array-like of shape (N,)
        Classes of the rows; numbers or strings.
    n_neighbors : int, default=10
        Voters per row; between classes with as many votes the smaller label wins.
    Y_train : array-like of shape (M, K), optional
        Places of the voters; by default the other rows vote.
    labels_train : array-like of shape (M,), optional
        Classes of the voters.

    Returns
    -------
    float
        Share of rows whose class the vote finds.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import knn_accuracy
    >>> Y = np.vstack([np.zeros((20, 2)), np.ones((20, 2))])
    >>> knn_accuracy(Y, np.repeat(["left", "right"], 20))
    1.0
    """
    _check_pairing(Y, labels, Y_train, labels_train)
    voters = map_neighbors(np.asarray(Y), _as_map(Y_train), n_neighbors)
    return vote_accuracy(voters, labels, _or(labels_train, labels))


def vote_accuracy(voters: Indices, labels: ArrayLike, labels_train: ArrayLike) -> float:
    """Accuracy of a vote.

    Parameters
    ----------
    voters : ndarray of shape (N, k)
        Rows that vote on each row.
    labels : array-like of shape (N,)
        Classes of the rows.
    labels_train : array-like of shape (M,)
        Classes of the voters.

    Returns
    -------
    float
        Share of rows whose class the vote finds.
    """
    classes, voted = np.unique(np.asarray(labels_train), return_inverse=True)
    votes = voted[voters]  # (N, k)
    counts = np.zeros((len(votes), len(classes)))
    np.add.at(counts, (np.arange(len(votes))[:, None], votes), 1)
    return float(np.mean(classes[counts.argmax(axis=1)] == np.asarray(labels)))


def _neighbors(X: Any, X_train: Any, n_neighbors: int, metric: str) -> Indices:
    if X_train is None:
        return nearest_neighbors(X, n_neighbors, metric=metric, method="exact").indices
    return query_neighbors(X_train, X, n_neighbors, metric=metric).indices


# --- distances ------------------------------------------------------------------------------------


def distance_correlation(
    X: Any,
    Y: ArrayLike,
    *,
    n_pairs: int = 60_000,
    metric: str = "euclidean",
    random_state: int | RandomState | None = None,
) -> float:
    """Spearman's rank correlation of the distances of pairs of rows, in the data and in the map.

    Parameters
    ----------
    X : array or sparse matrix of shape (N, D)
        Rows.
    Y : array-like of shape (N, K)
        Their places in the map.
    n_pairs : int, default=60_000
        Pairs drawn at random; all pairs are taken where there are not more.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows of ``X``.
    random_state : int, RandomState or None, default=None
        Seed of the draw.

    Returns
    -------
    float
        From -1 to 1; not a number where all distances are equal in one of the two.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import distance_correlation
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> round(distance_correlation(X, -2 * X, random_state=0), 6)
    1.0
    """
    _check_pairing(X, Y, None, None)
    first, second = _draw_pairs(len(np.asarray(Y)), n_pairs, random_state)
    in_data = rankdata(_pair_distances(X, first, second[:, None], metric))
    in_map = rankdata(_pair_distances(_as_map(Y), first, second[:, None], "euclidean"))
    if min(np.ptp(in_data), np.ptp(in_map)) == 0:
        return float("nan")
    return float(np.corrcoef(in_data, in_map)[0, 1])


def triplet_accuracy(
    X: Any,
    Y: ArrayLike,
    *,
    n_triplets: int = 60_000,
    metric: str = "euclidean",
    random_state: int | RandomState | None = None,
) -> float:
    """Share of random triplets (i, j, l) in which data and map agree which of j, l is nearer to i.

    Parameters
    ----------
    X : array or sparse matrix of shape (N, D)
        Rows, at least three.
    Y : array-like of shape (N, K)
        Their places in the map.
    n_triplets : int, default=60_000
        Triplets drawn.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows of ``X``.
    random_state : int, RandomState or None, default=None
        Seed of the draw.

    Returns
    -------
    float
        From 0 to 1; .5 is chance. A tie in only one of data and map counts a half.

    Raises
    ------
    ValueError
        If there are fewer than three rows.

    References
    ----------
    .. [1] Y. Wang, H. Huang, C. Rudin and Y. Shaposhnik (2021). Understanding how dimension
       reduction tools work. Journal of Machine Learning Research 22, 1-73.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.metrics import triplet_accuracy
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> triplet_accuracy(X, X, random_state=0)
    1.0
    """
    _check_pairing(X, Y, None, None)
    n_rows = len(np.asarray(Y))
    if n_rows < 3:
        raise ValueError(f"triplets need at least 3 rows, got {n_rows}")
    draw = check_random_state(random_state)
    first = draw.randint(n_rows, size=n_triplets)
    shift = draw.randint(1, n_rows, size=n_triplets)
    other = draw.randint(1, n_rows - 1, size=n_triplets)
    other += other >= shift  # so that i, j, l differ
    others = (first[:, None] + np.stack([shift, other], axis=1)) % n_rows  # (n_triplets, 2)
    in_data = np.sign(np.diff(_pair_distances(X, first, others, metric)))
    in_map = np.sign(np.diff(_pair_distances(_as_map(Y), first, others, "euclidean")))
    return float(1 - np.mean(np.abs(in_data - in_map)) / 2)


def _draw_pairs(
    n_rows: int, n_pairs: int, random_state: int | RandomState | None
) -> tuple[Indices, Indices]:
    """Two different rows per pair; every pair once where there are at most ``n_pairs``."""
    if n_rows * (n_rows - 1) // 2 <= n_pairs:
        first, second = np.triu_indices(n_rows, 1)
        return first, second
    draw = check_random_state(random_state)
    first = draw.randint(n_rows, size=n_pairs)
    return first, (first + draw.randint(1, n_rows, size=n_pairs)) % n_rows


def _pair_distances(X: Any, first: Indices, others: Indices, metric: str) -> NDArray[np.float64]:
    """Distances (n, c) of rows ``first`` (n,) to rows ``others`` (n, c)."""
    rows = as_rows(X, metric)
    return candidate_distances(rows, rows, first, others, 1 if metric == "manhattan" else 2)


# --- linear maps ----------------------------------------------------------------------------------


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
    _check_pairing(X, Y, X_train, Y_train)
    chosen = _neighbors(X, X_train, n_neighbors, metric)
    return displacements(W, X, Y, X if X_train is None else X_train, _or(Y_train, Y), chosen)


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


# --- checks ---------------------------------------------------------------------------------------


def _check_pairing(X: Any, Y: Any, X_train: Any, Y_train: Any) -> None:
    if (X_train is None) != (Y_train is None):
        raise ValueError(
            "training rows need their places, and places their rows: pass both or none"
        )
    for rows, places in ((X, Y), (X_train, Y_train)):
        if rows is not None and _n_rows(rows) != _n_rows(places):
            raise ValueError(
                f"rows and places must be as many, got {_n_rows(rows)} and {_n_rows(places)}"
            )


def _n_rows(rows: Any) -> int:
    return int(rows.shape[0]) if hasattr(rows, "shape") else len(rows)


def _as_map(Y: ArrayLike | None) -> Any:
    return None if Y is None else np.asarray(Y)


def _or(first: ArrayLike | None, second: ArrayLike) -> NDArray[Any]:
    return np.asarray(second if first is None else first)
