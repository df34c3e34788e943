"""Whether distances are in order in the map: what each score compares, and the formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.utils import check_random_state

from ptsne.affinities.scan import Indices, as_rows, candidate_distances
from ptsne.metrics.arguments import check_pairing

if TYPE_CHECKING:
    from numpy.random import RandomState


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
    check_pairing(X, Y, None, None)
    first, second = _draw_pairs(len(np.asarray(Y)), n_pairs, random_state)
    in_data = rankdata(_pair_distances(X, first, second[:, None], metric))
    in_map = rankdata(_pair_distances(np.asarray(Y), first, second[:, None], "euclidean"))
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
    check_pairing(X, Y, None, None)
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
    in_map = np.sign(np.diff(_pair_distances(np.asarray(Y), first, others, "euclidean")))
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
