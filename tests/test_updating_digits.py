"""At length: digits that a map has never seen, and a stream in which classes come late."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ptsne import ParametricTSNE, metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)


@pytest.mark.parametrize("left_out", [1, 8])
def test_a_digit_that_was_never_seen_finds_room(digits, left_out):
    X, X_new, y, y_new = digits
    is_old = y != left_out
    map_ = ParametricTSNE(random_state=0).fit(X[is_old])
    before = map_.transform(X)
    map_.update(X[~is_old])
    after, Y_new = map_.transform(X), map_.transform(X_new)
    way = np.linalg.norm(after - before, axis=1)[is_old]
    assert way.max() <= map_.drift_.tolerance
    asked = y_new == left_out
    votes = {"Y_train": after, "labels_train": y}
    assert metrics.knn_accuracy(Y_new[asked], y_new[asked], **votes) > 0.9
    assert metrics.knn_accuracy(Y_new, y_new, **votes) > 0.95


def test_a_stream_of_digits_with_late_classes(digits):
    X, X_new, y, y_new = digits
    batch = np.random.default_rng(0).integers(0, 6, len(y))
    batch = np.maximum(batch, np.maximum(0, y - 4))  # 5 to 9 arrive one after the other
    map_ = ParametricTSNE(random_state=0)
    for i in range(6):
        map_.partial_fit(X[batch == i])
    order = np.argsort(batch, kind="stable")
    votes = {"Y_train": map_.transform(X[order]), "labels_train": y[order]}
    assert metrics.knn_accuracy(map_.transform(X_new), y_new, **votes) > 0.9
