"""Labels in P: what they raise, what they lower, what they leave, and what they may be."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from ptsne import ParametricTSNE
from ptsne.affinities import (
    class_numbers,
    conditional_probabilities,
    joint_probabilities,
    nearest_neighbors,
    supervised_probabilities,
)
from ptsne.metrics import knn_accuracy, neighbor_recall

PERPLEXITY = 4.0


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(60, 3))


@pytest.fixture(scope="module")
def classes():
    return np.random.default_rng(1).integers(-1, 3, size=60)


def supervised(rows, classes, weight, **options):
    found = nearest_neighbors(rows, 12)
    return supervised_probabilities(rows, found, PERPLEXITY, classes, weight, **options)


def by_hand(rows, classes, weight):
    """Dense P', row by row, as the formula has it."""
    n = len(rows)
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2)

    def gaussian(i, among, k, perplexity):
        near = among[np.argsort(distance[i, among], kind="stable")][:k]
        p = np.zeros(n)
        p[near] = conditional_probabilities(distance[i, near][None], perplexity).probabilities[0]
        return p

    P = np.zeros((n, n))
    for i in range(n):
        others = np.delete(np.arange(n), i)
        p = gaussian(i, others, 12, PERPLEXITY)
        mates = others[classes[others] == classes[i]]
        if classes[i] >= 0 and len(mates):
            known = classes >= 0
            mass = p[known].sum()
            perplexity = max(1, min(PERPLEXITY, len(mates) / 3))
            g = gaussian(i, mates, min(12, len(mates)), perplexity)
            p = np.where(known, (1 - weight) * p + weight * mass * g, p)
        P[i] = p
    P += P.T
    return P / P.sum()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_is_the_formula(rows, classes, weight):
    P = supervised(rows, classes, weight)
    np.testing.assert_allclose(P.toarray(), by_hand(rows, classes, weight), atol=1e-12)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_is_a_joint_distribution(rows, classes, weight):
    P = supervised(rows, classes, weight)
    assert P.data.min() >= 0
    assert abs(P.sum() - 1) < 1e-12
    assert abs(P - P.T).max() < 1e-15
    assert not P.diagonal().any()
    assert P.has_sorted_indices


def test_no_weight_is_no_supervision(rows, classes):
    plain = joint_probabilities(nearest_neighbors(rows, 12), PERPLEXITY)
    assert abs(supervised(rows, classes, 0.0) - plain).max() < 1e-16


def test_own_class_gains_others_lose_unknown_stays(rows, classes):
    before, after = (supervised(rows, classes, w).toarray() for w in (0.0, 0.6))
    known = (classes >= 0)[:, None] & (classes >= 0)[None]
    same = known & (classes[:, None] == classes[None])
    assert after[same].sum() > before[same].sum()
    np.testing.assert_allclose(after[known & ~same], 0.4 * before[known & ~same], atol=1e-15)
    np.testing.assert_allclose(after[~known], before[~known], atol=1e-15)


def test_full_weight_parts_the_classes(rows):
    classes = np.arange(60) % 3
    P = supervised(rows, classes, 1.0)
    n, _ = sparse.csgraph.connected_components(P > 0)
    assert n == 3


def test_a_row_alone_in_its_class_keeps_its_neighbours(rows):
    classes = np.zeros(60, dtype=int)
    classes[7] = 1
    P = supervised(rows, classes, 1.0)
    assert P[[7]].sum() == pytest.approx(0.5 / 60)  # its own half: the others have left it


def test_sparse_rows_and_other_metrics(rows, classes):
    dense = supervised(rows, classes, 0.5, metric="cosine")
    thin = sparse.csr_array(rows)
    found = nearest_neighbors(rows, 12)
    again = supervised_probabilities(thin, found, PERPLEXITY, classes, 0.5, metric="cosine")
    assert abs(dense - again).max() < 1e-9


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b", "a", None, "b"],
        [1, 0, 1, -1, 0],
        [1.0, 0.0, 1.0, np.nan, 0.0],
        [True, False, True, None, False],
        [("x", 1), ("x", 2), ("x", 1), None, ("x", 2)],
        np.array([[5], [6], [5], [-1], [6]]),
        np.array(["a", "b", "a", None, "b"], dtype=object),
        pd.Series(["a", "b", "a", None, "b"]),
        pd.Series(["a", "b", "a", None, "b"], dtype="category"),
        pd.Series([5, 6, 5, None, 6], dtype="Int64"),
        pd.DataFrame({"kind": [5, 6, 5, -1, 6]}),
        torch.tensor([5, 6, 5, -1, 6]),
    ],
    ids=lambda y: type(y).__name__,
)
def test_labels_of_any_kind(y):
    assert class_numbers(y, 5).tolist() == [0, 1, 0, -1, 1]


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "needs labels"),
        ([0, 1], "one label a row: got 2 for 4"),
        ([-1, None, np.nan, -1], "names no class"),
        ([1, 2, 3, 4], "4 classes of one row each"),
        ([0.5, 1.5, 0.5, 2.5], "measurements such as 0.5"),
        ([[0, 1], [1, 0], [0, 1], [1, 0]], "several columns"),
        (np.zeros((4, 2)), "several columns"),
    ],
)
def test_what_is_no_label_is_refused(y, words):
    with pytest.raises(ValueError, match=words):
        class_numbers(y, 4)


# ---- the map ----


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    is_new = np.arange(len(X)) % 3 == 0
    return X[~is_new], y[~is_new], X[is_new], y[is_new]


def quality(wine, weight, labels):
    X, y, X_new, y_new = wine
    found = []
    for seed in range(3):
        map_ = ParametricTSNE(target_weight=weight, max_iter=500, random_state=seed).fit(X, labels)
        Y, Y_new = map_.embedding_, map_.transform(X_new)
        accuracy = knn_accuracy(Y_new, y_new, Y_train=Y, labels_train=y)
        found.append((accuracy, neighbor_recall(X_new, Y_new, X_train=X, Y_train=Y)))
    return np.mean(found, axis=0)


def test_new_rows_gain_accuracy_and_lose_neighbours(wine):
    y = wine[1]
    half = np.where(np.arange(len(y)) % 2, y, -1)
    plain, full, partly = (quality(wine, *how) for how in [(0.0, y), (0.75, y), (1.0, half)])
    assert full[0] > plain[0]
    assert full[1] < plain[1]
    assert partly[0] >= plain[0]


def quick(**parameters):
    return ParametricTSNE(perplexity=10, max_iter=20, random_state=0, **parameters)


def test_without_weight_labels_change_no_bit(wine):
    X, y, *_ = wine
    assert (quick().fit(X, y).embedding_ == quick().fit(X).embedding_).all()
    quick().fit(X, np.linspace(0, 1, len(X)))  # any step of a pipeline gets y


def test_weight_needs_labels(wine):
    with pytest.raises(ValueError, match="target_weight above 0 needs labels"):
        quick(target_weight=0.5).fit(wine[0])
    with pytest.raises(ValueError, match="target_weight"):
        quick(target_weight=1.5).fit(wine[0], wine[1])
    assert not quick(target_weight=0.5).__sklearn_tags__().target_tags.required


def test_in_a_pipeline_cloned_and_saved(wine, tmp_path):
    X, y, X_new, y_new = wine
    map_ = clone(quick(target_weight=0.5))
    model = make_pipeline(map_, KNeighborsClassifier(5)).fit(X, y)
    assert model.score(X_new, y_new) > 0.5
    map_.save(tmp_path / "map")
    again = ParametricTSNE.load(tmp_path / "map")
    assert again.target_weight == 0.5
    assert (again.transform(X_new) == map_.transform(X_new)).all()


def test_with_a_graph_of_ones_own(wine):
    X, y, *_ = wine
    graph = nearest_neighbors(X, 30)
    given = quick(target_weight=0.5).fit(X, y, neighbors=(graph.indices, graph.distances))
    own = quick(target_weight=0.5).fit(X, y)
    assert (given.embedding_ == own.embedding_).all()
