"""How good a map is, on its training rows and on rows that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from ptsne import metrics
from ptsne.affinities import joint_probabilities, nearest_neighbors
from ptsne.losses import Edges, kl_divergence

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MEASURES", "Quality", "evaluate"]

MEASURES = {
    "kl_divergence": "KL(P || Q) in nats; training rows only; lower is better",
    "recall_15": "the 15 nearest rows in the data that are also nearest in the map",
    "trustworthiness_5": "the 5 nearest rows in the map are near in the data, by rank",
    "trustworthiness_15": "the 15 nearest rows in the map are near in the data, by rank",
    "continuity_5": "the 5 nearest rows in the data are near in the map, by rank",
    "continuity_15": "the 15 nearest rows in the data are near in the map, by rank",
    "accuracy_1": "classes that the nearest row of the map has",
    "accuracy_10": "classes for which the 10 nearest rows of the map vote",
    "distance_correlation": "Spearman's correlation of the distances in data and map",
    "triplet_accuracy": "random triplets whose order of distances the map keeps",
    "fidelity_r2": "W predicts where the 5 nearest rows lie; 0 is no better than no prediction",
    "rank_deficient": "rows whose W loses a direction of the map; lower is better",
}
"""What `evaluate` measures. Where not said otherwise 1 is perfect and higher is better."""

NEIGHBORS_PER_PERPLEXITY = 3


@dataclass(frozen=True)
class Quality:
    """Measures of one map.

    Attributes
    ----------
    training : dict of str to float
        All of `MEASURES` on the training rows, each left out in turn; NaN where one cannot be had:
        without classes, without W, with too few rows.
    held_out : dict of str to float
        The same on held-out rows against the training rows; empty without held-out rows.
    perplexity : float
        Perplexity of the KL: the one asked, or a third of the other rows where that is less.
    seconds : dict of str to float
        Wall time of "transform" (held-out rows) and of "explain" (all rows measured), as far as
        they were called.
    """

    training: dict[str, float]
    held_out: dict[str, float]
    perplexity: float
    seconds: dict[str, float]

    def to_frame(self) -> pd.DataFrame:
        """Table with a line per measure and the columns "training" and "held_out".

        Returns
        -------
        DataFrame
            NaN where a measure could not be had.
        """
        import pandas as pd  # noqa: PLC0415 - importing ptsne must not import pandas

        columns = {"training": self.training, "held_out": self.held_out}
        return pd.DataFrame(columns, index=pd.Index(MEASURES, name="measure"), dtype=float)


class _Rows(NamedTuple):
    """One set of rows and what is known of them."""

    X: Any
    Y: NDArray[Any]
    labels: NDArray[Any] | None
    W: NDArray[Any] | None

    def take(self, index: NDArray[np.int64]) -> _Rows:
        """Some of the rows."""
        X = self.X.iloc[index] if hasattr(self.X, "iloc") else self.X[index]
        labels, W = (None if part is None else part[index] for part in (self.labels, self.W))
        return _Rows(X, self.Y[index], labels, W)


def evaluate(  # noqa: PLR0913 - two sets of rows, each with classes and linear maps
    map_: Any,
    X_train: Any,
    X_test: Any = None,
    y_train: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    *,
    W_train: ArrayLike | None = None,
    W_test: ArrayLike | None = None,
    metric: str = "euclidean",
    perplexity: float = 30.0,
    max_rows: int | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> Quality:
    """Measure a map on its training rows and on held-out rows.

    Held-out rows are compared with the training rows, in the data and in the map alike. Neighbours
    and KL are exact, so that the cost grows with the square of the rows.

    Parameters
    ----------
    map_ : fitted estimator, array of shape (N, K), or tuple of arrays (N, K) and (M, K)
        An estimator gives the places of the training rows as `embedding_`, or by `transform` where
        it has none, those of held-out rows by `transform`, and W by `explain` where it has one.
        Arrays are the places themselves, of a map of any kind.
    X_train : array, DataFrame or sparse matrix of shape (N, D)
        Rows that the map was fitted on.
    X_test : array, DataFrame or sparse matrix of shape (M, D), optional
        Rows that it was not fitted on.
    y_train, y_test : array-like of shape (N,) and (M,), optional
        Classes.
    W_train, W_test : array-like of shape (N, K, D) and (M, K, D), optional
        Linear map of each row, where an estimator does not give them.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows of the data.
    perplexity : float, default=30.0
        Perplexity of the KL, lowered to (N - 1) / 3 where there are fewer rows.
    max_rows : int, optional
        Where there are more training (or held-out) rows, so many are drawn and only they are
        measured and compared with. Neighbours are then farther: compare figures of equal size.
    random_state : int, RandomState or None, default=0
        Seed of the draws: pairs, triplets, rows.

    Returns
    -------
    Quality
        ``training``, ``held_out``, ``perplexity``, ``seconds``, and a table by ``to_frame()``.

    Raises
    ------
    ValueError
        If held-out rows come without places or places without rows, if rows, places, classes or
        linear maps are not as many, or if a place is not finite.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from ptsne.evaluation import evaluate
    >>> X, y = load_iris(return_X_y=True)
    >>> quality = evaluate(PCA(2).fit(X[::2]), X[::2], X[1::2], y[::2], y[1::2])
    >>> print(f"{quality.held_out['trustworthiness_15']:.2f}")
    0.99
    """
    if not hasattr(map_, "transform") and isinstance(map_, tuple) == (X_test is None):
        raise ValueError(
            "held-out rows need their places, and places their rows: pass X_test and the tuple "
            "(Y_train, Y_test), or neither"
        )
    seconds: dict[str, float] = {}
    draw = check_random_state(random_state)
    Y_train, Y_test = _places(map_, X_train, X_test, seconds)
    train = _sample(_checked("training", X_train, Y_train, y_train, W_train), max_rows, draw)
    train = _explained(map_, train, seconds)
    seed = int(draw.randint(2**31 - 1))
    lowered, kl = _kl_divergence(train, perplexity, metric)
    training = {"kl_divergence": kl, **_measures(train, None, metric, seed)}
    held_out = {}
    if Y_test is not None:
        test = _sample(_checked("held-out", X_test, Y_test, y_test, W_test), max_rows, draw)
        held_out = _measures(_explained(map_, test, seconds), train, metric, seed)
    return Quality(training, held_out, lowered, seconds)


# --- what is measured: rows, places, linear maps --------------------------------------------------


def _places(map_: Any, X_train: Any, X_test: Any, seconds: dict[str, float]) -> tuple[Any, Any]:
    """Places of the training rows, and of the held-out rows or None."""
    if not hasattr(map_, "transform"):
        return map_ if isinstance(map_, tuple) else (map_, None)
    Y_train = getattr(map_, "embedding_", None)
    Y_train = map_.transform(X_train) if Y_train is None else Y_train
    is_lone = X_test is None
    return Y_train, None if is_lone else _timed(seconds, "transform", map_.transform, X_test)


def _timed(
    seconds: dict[str, float], name: str, function: Callable[[Any], Any], argument: Any
) -> Any:
    start = perf_counter()
    result = function(argument)
    seconds[name] = seconds.get(name, 0.0) + perf_counter() - start
    return result


def _checked(kind: str, X: Any, Y: Any, labels: ArrayLike | None, W: ArrayLike | None) -> _Rows:
    """Rows whose parts are as many."""
    X = X if hasattr(X, "shape") else np.asarray(X)
    places = np.asarray(Y)
    classes, linear = (None if part is None else np.asarray(part) for part in (labels, W))
    for name, part in (("places", places), ("classes", classes), ("linear maps", linear)):
        if part is not None and len(part) != X.shape[0]:
            raise ValueError(
                f"there are {X.shape[0]} {kind} rows but {len(part)} {name}; pass one for each row"
            )
    n_bad = int(np.sum(~np.isfinite(places).all(axis=1)))
    if n_bad:
        raise ValueError(
            f"{n_bad} of {len(places)} {kind} rows have a place that is NaN or infinite; "
            "the map cannot be measured"
        )
    return _Rows(X, places, classes, linear)


def _sample(rows: _Rows, max_rows: int | None, draw: np.random.RandomState) -> _Rows:
    """At most `max_rows` of the rows, in their order."""
    if max_rows is None or len(rows.Y) <= max_rows:
        return rows
    return rows.take(np.sort(draw.permutation(len(rows.Y))[:max_rows]))


def _explained(map_: Any, rows: _Rows, seconds: dict[str, float]) -> _Rows:
    """Rows with their linear maps, where the estimator gives them."""
    if rows.W is not None or not hasattr(map_, "explain"):
        return rows
    return rows._replace(W=_timed(seconds, "explain", map_.explain, rows.X).weight)


# --- measures -------------------------------------------------------------------------------------


def _kl_divergence(rows: _Rows, perplexity: float, metric: str) -> tuple[float, float]:
    """The perplexity that the rows allow, and the KL at it."""
    others = len(rows.Y) - 1
    lowered = min(float(perplexity), max(1.0, others / NEIGHBORS_PER_PERPLEXITY))
    k = max(1, min(others, int(NEIGHBORS_PER_PERPLEXITY * lowered)))
    graph = nearest_neighbors(rows.X, k, metric=metric, method="exact")
    edges = Edges.from_sparse(joint_probabilities(graph, lowered), dtype=torch.float64)
    return lowered, float(kl_divergence(edges, torch.from_numpy(rows.Y.astype(np.float64))))


def _measures(rows: _Rows, train: _Rows | None, metric: str, seed: int) -> dict[str, float]:
    """All measures but the KL; of the rows among themselves where `train` is None."""
    return {
        **_neighborhoods(rows, train, metric),
        **_accuracies(rows, train),
        **_distances(rows, metric, seed),
        **_linear_maps(rows, train, metric),
    }


def _n_available(rows: _Rows, train: _Rows | None) -> int:
    """Rows among which the neighbours of one are sought."""
    return len(rows.Y) - 1 if train is None else len(train.Y)


def _among(train: _Rows | None) -> dict[str, Any]:
    return {} if train is None else {"X_train": train.X, "Y_train": train.Y}


def _neighborhoods(rows: _Rows, train: _Rows | None, metric: str) -> dict[str, float]:
    available = _n_available(rows, train)
    score = _Score(rows, {"metric": metric, **_among(train)})
    values = {"recall_15": score(metrics.neighbor_recall, 15) if available >= 15 else math.nan}
    for function in (metrics.trustworthiness, metrics.continuity):
        for k in (5, 15):  # ranks beyond half of the rows are no neighbourhood
            value = score(function, k) if available >= 2 * k else math.nan
            values[f"{function.__name__}_{k}"] = value
    return values


class _Score(NamedTuple):
    """Calls a metric on rows."""

    rows: _Rows
    options: dict[str, Any]

    def __call__(self, function: Callable[..., float], k: int) -> float:
        return function(self.rows.X, self.rows.Y, n_neighbors=k, **self.options)


def _accuracies(rows: _Rows, train: _Rows | None) -> dict[str, float]:
    labels_train = rows.labels if train is None else train.labels
    if rows.labels is None or labels_train is None:
        return dict.fromkeys(("accuracy_1", "accuracy_10"), math.nan)
    among = {} if train is None else {"Y_train": train.Y, "labels_train": train.labels}
    available = _n_available(rows, train)
    return {
        f"accuracy_{k}": metrics.knn_accuracy(rows.Y, rows.labels, n_neighbors=k, **among)
        if available >= k
        else math.nan
        for k in (1, 10)
    }


def _distances(rows: _Rows, metric: str, seed: int) -> dict[str, float]:
    functions = (metrics.distance_correlation, metrics.triplet_accuracy)
    if len(rows.Y) < 3:
        return {function.__name__: math.nan for function in functions}
    return {f.__name__: f(rows.X, rows.Y, metric=metric, random_state=seed) for f in functions}


def _linear_maps(rows: _Rows, train: _Rows | None, metric: str) -> dict[str, float]:
    if rows.W is None or _n_available(rows, train) < 5:
        fidelity = math.nan
    else:
        options = {"n_neighbors": 5, "metric": metric, **_among(train)}
        fidelity = metrics.local_fidelity(rows.W, rows.X, rows.Y, **options).r2
    n_deficient = math.nan if rows.W is None else float(metrics.rank_deficient(rows.W))
    return {"fidelity_r2": fidelity, "rank_deficient": n_deficient}
