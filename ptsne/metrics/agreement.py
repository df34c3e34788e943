"""Whether neighbours agree in data and map: what each score compares, and the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ptsne.affinities.scan import Indices
from ptsne.metrics.arguments import check_pairing, data_neighbors
from ptsne.metrics.neighborhoods import Pairs, map_neighbors, ranks_of


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
    check_pairing(X, Y, X_train, Y_train)
    in_data = data_neighbors(X, X_train, n_neighbors, metric)
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
    check_pairing(X, Y, X_train, Y_train)
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
    check_pairing(X, Y, X_train, Y_train)
    pairs = Pairs.of(np.asarray(Y), _as_map(Y_train), "euclidean")
    _check_half(n_neighbors, pairs.n_available)
    in_data = data_neighbors(X, X_train, n_neighbors, metric)
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


def _as_map(Y: ArrayLike | None) -> Any:
    return None if Y is None else np.asarray(Y)


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
    check_pairing(Y, labels, Y_train, labels_train)
    voters = map_neighbors(np.asarray(Y), _as_map(Y_train), n_neighbors)
    return vote_accuracy(voters, labels, labels if labels_train is None else labels_train)


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
