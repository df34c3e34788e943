import math

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA

import reference
import reference_losses
from ptsne import metrics
from ptsne.affinities import nearest_neighbors
from ptsne.evaluation import MEASURES, evaluate


class LinearMap:
    """y = W x, with the interface of our estimator."""

    def __init__(self, W):
        self.W = W

    def transform(self, X):
        return np.asarray(X) @ self.W.T

    def explain(self, X):
        return Explained(np.broadcast_to(self.W, (len(X), *self.W.shape)))


class Explained:
    def __init__(self, weight):
        self.weight = weight


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order], y[order]
    return X[:100], X[100:], y[:100], y[100:]


@pytest.fixture(scope="module")
def linear():
    return LinearMap(np.random.default_rng(0).normal(size=(2, 4)))


@pytest.fixture(scope="module")
def quality(iris, linear):
    return evaluate(linear, *iris)


def test_every_measure_is_there_once_and_in_order(quality):
    assert list(quality.training) == list(MEASURES)
    assert list(quality.held_out) == list(MEASURES)[1:]  # the KL is of the training rows


def test_measures_are_those_of_the_metrics(iris, linear, quality):
    X, X_test, y, y_test = iris
    Y, Y_test = linear.transform(X), linear.transform(X_test)
    among = {"X_train": X, "Y_train": Y}
    for figures, rows, places, others in (
        (quality.training, X, Y, {}),
        (quality.held_out, X_test, Y_test, among),
    ):
        for name in ("trustworthiness", "continuity"):
            for k in (5, 15):
                expected = getattr(metrics, name)(rows, places, n_neighbors=k, **others)
                assert figures[f"{name}_{k}"] == expected
        assert figures["recall_15"] == metrics.neighbor_recall(rows, places, **others)
        W = linear.explain(rows).weight
        assert figures["fidelity_r2"] == metrics.local_fidelity(W, rows, places, **others).r2
    for k in (1, 10):
        expected = metrics.knn_accuracy(Y_test, y_test, n_neighbors=k, Y_train=Y, labels_train=y)
        assert quality.held_out[f"accuracy_{k}"] == expected
        assert quality.training[f"accuracy_{k}"] == metrics.knn_accuracy(Y, y, n_neighbors=k)


def test_kl_equals_the_sum_over_all_pairs(iris, linear):
    X = iris[0][:40]
    measured = evaluate(linear, X, perplexity=10)
    graph = nearest_neighbors(X, 30)
    P = reference.joint_matrix(graph.indices, graph.distances, 10)
    expected = reference_losses.kl(P, reference_losses.student_q(linear.transform(X)))
    assert measured.training["kl_divergence"] == pytest.approx(expected, rel=1e-9)
    assert measured.perplexity == 10


def test_a_perfect_map_scores_one():
    X = np.random.default_rng(1).normal(size=(60, 2))
    y = (X[:, 0] > 0).astype(int)
    perfect = evaluate(LinearMap(np.eye(2)), X[:40], X[40:], y[:40], y[40:])
    for figures in (perfect.training, perfect.held_out):
        for name in MEASURES:
            if name not in {"kl_divergence", "rank_deficient", "accuracy_1", "accuracy_10"}:
                assert figures[name] == pytest.approx(1), name
        assert figures["rank_deficient"] == 0


def test_a_flat_map_is_rank_deficient_everywhere(iris):
    flat = evaluate(LinearMap(np.ones((2, 4))), *iris)
    assert flat.training["rank_deficient"] == 100
    assert flat.held_out["rank_deficient"] == 50


def test_arrays_measure_like_the_estimator(iris, linear, quality):
    X, X_test, _, _ = iris
    places = (linear.transform(X), linear.transform(X_test))
    W = {"W_train": linear.explain(X).weight, "W_test": linear.explain(X_test).weight}
    bare = evaluate(places, *iris, **W)
    assert bare.training == quality.training
    assert bare.held_out == quality.held_out
    assert bare.seconds == {}
    assert set(quality.seconds) == {"transform", "explain"}
    assert all(seconds > 0 for seconds in quality.seconds.values())


def test_the_embedding_of_a_fitted_map_is_what_counts(iris, linear):
    class Fitted(LinearMap):
        embedding_ = np.random.default_rng(2).normal(size=(100, 2))

    fitted = evaluate(Fitted(linear.W), iris[0])
    assert fitted.training["recall_15"] == metrics.neighbor_recall(iris[0], Fitted.embedding_)


def test_what_cannot_be_had_is_nan(iris):
    places = (PCA(2).fit_transform(iris[0][:12]), np.zeros((2, 2)))
    few = evaluate(places, iris[0][:12], iris[1][:2])
    absent = {name for name, value in few.training.items() if math.isnan(value)}
    assert absent == {
        *("recall_15", "trustworthiness_15", "continuity_15", "accuracy_1", "accuracy_10"),
        *("fidelity_r2", "rank_deficient"),
    }
    assert math.isnan(few.held_out["distance_correlation"])  # two rows have one distance
    assert few.perplexity == pytest.approx(11 / 3)
    assert math.isfinite(few.training["kl_divergence"])


def test_local_maps_of_few_rows_have_a_rank_and_no_fidelity(iris, linear):
    few = evaluate(linear, iris[0][:5])
    assert math.isnan(few.training["fidelity_r2"])
    assert few.training["rank_deficient"] == 0


def test_two_rows_can_be_measured():
    tiny = evaluate(np.eye(2), np.eye(2))
    assert tiny.held_out == {}
    assert tiny.perplexity == 1
    assert tiny.training["kl_divergence"] == pytest.approx(0, abs=1e-12)


def test_drawn_rows_are_measured_among_themselves(iris, linear):
    X, X_test, y, y_test = iris
    drawn = evaluate(linear, *iris, max_rows=30, random_state=3)
    draw = np.random.RandomState(3)
    rows = np.sort(draw.permutation(100)[:30])
    draw.randint(2**31 - 1)
    test_rows = np.sort(draw.permutation(50)[:30])
    alone = evaluate(linear, X[rows], X_test[test_rows], y[rows], y_test[test_rows])
    for name in ("recall_15", "trustworthiness_5", "accuracy_10", "fidelity_r2"):
        assert drawn.training[name] == alone.training[name]
        assert drawn.held_out[name] == alone.held_out[name]
    assert drawn.training["kl_divergence"] == alone.training["kl_divergence"]
    whole = evaluate(linear, *iris, max_rows=100)
    assert whole.training == evaluate(linear, *iris).training


def test_tables_and_sparse_rows_measure_like_arrays(iris, quality, linear):
    X, X_test, y, y_test = iris
    frames = [pd.DataFrame(X), pd.DataFrame(X_test), pd.Series(y), pd.Series(y_test)]
    assert evaluate(linear, *frames).held_out == quality.held_out
    drawn = evaluate(linear, *frames, max_rows=30)
    assert drawn.training == evaluate(linear, *iris, max_rows=30).training
    places = (linear.transform(X), linear.transform(X_test))
    rows = evaluate(places, sparse.csr_array(X), sparse.csr_array(X_test), y, y_test)
    assert rows.held_out["recall_15"] == quality.held_out["recall_15"]


def test_the_metric_is_that_of_the_data(iris, linear):
    cosine = evaluate(linear, iris[0], metric="cosine")
    expected = metrics.continuity(iris[0], linear.transform(iris[0]), metric="cosine")
    assert cosine.training["continuity_15"] == expected


def test_the_same_seed_gives_the_same_figures(iris, linear):
    first, again, other = (evaluate(linear, iris[0], random_state=s).training for s in (5, 5, 6))
    assert first == again
    assert first["triplet_accuracy"] != other["triplet_accuracy"]


def test_frame_has_a_line_per_measure(quality):
    frame = quality.to_frame()
    assert list(frame.index) == list(MEASURES)
    assert list(frame.columns) == ["training", "held_out"]
    assert frame.loc["recall_15", "held_out"] == quality.held_out["recall_15"]
    assert math.isnan(frame.loc["kl_divergence", "held_out"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((5, 2)), np.zeros((6, 3))), "6 training rows but 5 places"),
        ((np.zeros((6, 2)), np.zeros((6, 3)), None, [0, 1]), "2 classes"),
        ((np.zeros((6, 2)), np.zeros((6, 3)), np.zeros((2, 3))), "need their places"),
        (((np.zeros((6, 2)), np.zeros((2, 2))), np.zeros((6, 3))), "need their places"),
        ((np.full((6, 2), np.nan), np.zeros((6, 3))), "6 of 6 training rows"),
    ],
)
def test_what_does_not_belong_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*arguments)
