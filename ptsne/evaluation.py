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
from ptsne.affinities import Neighbors, joint_probabilities
from ptsne.losses import Edges, kl_divergence
from ptsne.metrics.agreement import rank_score, shared, vote_accuracy
from ptsne.metrics.fidelity import displacements
from ptsne.metrics.neighborhoods import Neighborhoods, neighborhoods

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
LARGEST_K = 15  # of the measures of neighbourhoods


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

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from ptsne.evaluation import evaluate
    >>> X, y = load_iris(return_X_y=True)
    >>> quality = evaluate(PCA(2).fit(X[::2]), X[::2], X[1::2], y[::2], y[1::2])
    >>> print(f"{quality.held_out['accuracy_10']:.2f} of {quality.training['accuracy_10']:.2f}")
    0.97 of 0.93
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

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.decomposition import PCA
        >>> from ptsne.evaluation import evaluate
        >>> X, y = load_iris(return_X_y=True)
        >>> quality = evaluate(PCA(2).fit(X[::2]), X[::2], X[1::2], y[::2], y[1::2])
        >>> print(quality.to_frame().loc[["trustworthiness_15", "accuracy_10"]].round(2))
                            training  held_out
        measure
        trustworthiness_15      0.99      0.99
        accuracy_10             0.93      0.97
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
    lowered, n_graph = _graph_of(len(train.Y) - 1, perplexity)
    hoods = _neighborhoods(train, None, metric, n_graph)
    graph = Neighbors(hoods.in_data.indices[:, :n_graph], hoods.in_data.distances[:, :n_graph])
    kl = _kl_divergence(train, graph, lowered)
    training = {"kl_divergence": kl, **_measures(train, None, metric, seed, hoods)}
    held_out = {}
    if Y_test is not None:
        test = _sample(_checked("held-out", X_test, Y_test, y_test, W_test), max_rows, draw)
        test = _explained(map_, test, seconds)
        hoods = _neighborhoods(test, train, metric)
        held_out = _measures(test, train, metric, seed, hoods)
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


def _graph_of(others: int, perplexity: float) -> tuple[float, int]:
    """The perplexity that so many other rows allow, and the neighbours that it takes."""
    lowered = min(float(perplexity), max(1.0, others / NEIGHBORS_PER_PERPLEXITY))
    return lowered, max(1, min(others, int(NEIGHBORS_PER_PERPLEXITY * lowered)))


def _kl_divergence(rows: _Rows, graph: Neighbors, perplexity: float) -> float:
    edges = Edges.from_sparse(joint_probabilities(graph, perplexity), dtype=torch.float64)
    return float(kl_divergence(edges, torch.from_numpy(rows.Y.astype(np.float64))))


def _neighborhoods(
    rows: _Rows, train: _Rows | None, metric: str, n_graph: int = LARGEST_K
) -> Neighborhoods:
    """Neighbours and ranks for all measures: of the rows among themselves without `train`."""
    available = len(rows.Y) - 1 if train is None else len(train.Y)
    k = min(LARGEST_K, available)
    X_train, Y_train = (None, None) if train is None else (train.X, train.Y)
    sizes = {"n_neighbors": k, "n_graph": min(available, max(k, n_graph))}
    return neighborhoods(rows.X, rows.Y, X_train, Y_train, metric=metric, **sizes)


def _measures(
    rows: _Rows, train: _Rows | None, metric: str, seed: int, hoods: Neighborhoods
) -> dict[str, float]:
    """All measures but the KL; of the rows among themselves where `train` is None."""
    return {
        **_neighbor_scores(hoods),
        **_accuracies(rows, train or rows, hoods),
        **_distances(rows, metric, seed),
        **_linear_maps(rows, train or rows, hoods),
    }


def _neighbor_scores(hoods: Neighborhoods) -> dict[str, float]:
    available, in_data = hoods.n_available, hoods.in_data.indices
    recall = shared(in_data[:, :15], hoods.in_map[:, :15]) if available >= 15 else math.nan
    values = {"recall_15": recall}
    ranks = {"trustworthiness": hoods.ranks_in_data, "continuity": hoods.ranks_in_map}
    for name, table in ranks.items():
        for k in (5, 15):  # ranks beyond half of the rows are no neighbourhood
            score = rank_score(table[:, :k], available) if available >= 2 * k else math.nan
            values[f"{name}_{k}"] = score
    return values


def _accuracies(rows: _Rows, train: _Rows, hoods: Neighborhoods) -> dict[str, float]:
    if rows.labels is None or train.labels is None:
        return dict.fromkeys(("accuracy_1", "accuracy_10"), math.nan)
    return {
        f"accuracy_{k}": vote_accuracy(hoods.in_map[:, :k], rows.labels, train.labels)
        if hoods.n_available >= k
        else math.nan
        for k in (1, 10)
    }


def _distances(rows: _Rows, metric: str, seed: int) -> dict[str, float]:
    functions = (metrics.distance_correlation, metrics.triplet_accuracy)
    if len(rows.Y) < 3:
        return {function.__name__: math.nan for function in functions}
    return {f.__name__: f(rows.X, rows.Y, metric=metric, random_state=seed) for f in functions}


def _linear_maps(rows: _Rows, train: _Rows, hoods: Neighborhoods) -> dict[str, float]:
    if rows.W is None:
        return dict.fromkeys(("fidelity_r2", "rank_deficient"), math.nan)
    fidelity = math.nan
    if hoods.n_available >= 5:
        chosen = hoods.in_data.indices[:, :5]
        fidelity = displacements(rows.W, rows.X, rows.Y, train.X, train.Y, chosen).r2
    return {"fidelity_r2": fidelity, "rank_deficient": float(metrics.rank_deficient(rows.W))}
