"""What is unlike the training rows is seen, percentiles are honest, W predicts neighbours."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits, load_iris
from sklearn.metrics import roc_auc_score
from torch import nn

import ptsne
from ptsne import ParametricTSNE, persistence
from ptsne.explanation import Source, explain_rows
from ptsne.metrics import local_fidelity
from ptsne.networks import MapNetwork


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))[:1100]
    return X[order], y[order]


@pytest.fixture(scope="module")
def map_(digits):
    return ParametricTSNE(max_iter=200, random_state=0).fit(digits[0][:600])


@pytest.fixture(scope="module")
def held_out(digits):
    return digits[0][600:]


@pytest.fixture(scope="module")
def iris():
    return load_iris().data


@pytest.fixture(scope="module")
def flowers(iris):
    return ParametricTSNE(perplexity=15, max_iter=200, random_state=0).fit(iris)


# --- trust ----------------------------------------------------------------------------------------


def slow_distances(map_, X):
    """Distances of each row's code to the landmarks, sorted, and which they are."""
    codes = map_.network_.encoder(torch.from_numpy(X)).numpy()
    landmarks = map_.network_.projection.landmarks.numpy()
    distances = np.array([[np.linalg.norm(z - k) for k in landmarks] for z in codes])
    return np.sort(distances, 1), distances.argmin(1)


def slow_errors(map_, X, training):
    """Errors of a linear reconstruction from codes, fitted on the training rows."""
    z, z_new = (
        np.column_stack([map_.network_.encoder(torch.from_numpy(rows)).numpy(), np.ones(len(rows))])
        for rows in (training, X)
    )
    found = z_new @ np.linalg.lstsq(z, training)[0]
    return np.linalg.norm(found - X, axis=1) / np.sqrt(training.var(0).sum())


def test_trust_is_as_written(map_, digits, held_out):
    training, rows = digits[0][:600], held_out[:50]
    trust = map_.explain(rows).trust
    np.testing.assert_allclose(trust.distance, slow_distances(map_, rows)[0][:, 0], rtol=1e-9)
    errors = slow_errors(map_, rows, training)
    np.testing.assert_allclose(trust.reconstruction_error, errors, rtol=1e-6)
    larger = np.maximum(trust.distance_percentile, trust.reconstruction_percentile)
    np.testing.assert_array_equal(trust.percentile, larger)


def test_training_rows_are_compared_as_if_they_were_new(map_, digits, held_out):
    X, rows = digits[0][:600], held_out[:50]
    trust = map_.explain(rows).trust
    (distances, landmark), distance = slow_distances(map_, X), []
    for (first, second, *_), k in zip(distances, landmark, strict=True):
        n = (landmark == k).sum()
        distance.append(min(first * n / (n - 1), second) if n > 1 else second)
    below = [100 * np.mean(distance < found) for found in trust.distance]
    np.testing.assert_allclose(trust.distance_percentile, below, atol=0.3)
    lost = [slow_errors(map_, X[[i]], np.delete(X, i, 0))[0] for i in range(600)]
    below = [100 * np.mean(lost < found) for found in trust.reconstruction_error]
    np.testing.assert_allclose(trust.reconstruction_percentile, below, atol=0.5)


def test_percentiles_of_held_out_rows_are_honest(map_, held_out):
    trust = map_.explain(held_out).trust
    assert 35 < np.median(trust.distance_percentile) < 65
    assert 35 < np.median(trust.reconstruction_percentile) < 65
    assert (trust.percentile > 95).mean() < 0.15
    assert (trust.percentile > 99).mean() < 0.04


def test_what_is_no_digit_is_seen(map_, held_out):
    rng = np.random.default_rng(0)
    strange = {
        "noise": rng.uniform(0, 16, held_out.shape),
        "shuffled pixels": rng.permuted(held_out, axis=1),
        "shuffled columns": rng.permuted(held_out, axis=0),
        "far away": held_out + 100,
    }
    known = map_.explain(held_out).trust.percentile
    for name, rows in strange.items():
        seen = map_.explain(rows).trust.percentile
        truth = np.repeat([0, 1], len(rows))
        assert roc_auc_score(truth, np.r_[known, seen]) > 0.95, name


def test_a_class_left_out_is_seen(digits):
    X, y = digits
    map_ = ParametricTSNE(max_iter=200, random_state=0).fit(X[:600][y[:600] != 0])
    rows, is_new = X[600:], y[600:] == 0
    trust = map_.explain(rows).trust
    assert roc_auc_score(is_new, trust.percentile) > 0.9
    assert roc_auc_score(is_new, trust.distance) > 0.95


def test_without_landmarks_only_reconstruction_counts(iris):
    parameters = {"projection": (8,), "latent_dim": 2, "perplexity": 15, "max_iter": 20}
    map_ = ParametricTSNE(random_state=0, **parameters).fit(iris)
    trust = map_.explain(iris).trust
    assert np.isnan(trust.distance).all()
    assert np.isnan(trust.distance_percentile).all()
    np.testing.assert_array_equal(trust.percentile, trust.reconstruction_percentile)
    assert trust.percentile.max() > 90


def test_without_an_encoder_only_distance_counts(iris):
    map_ = ParametricTSNE(encoder=None, perplexity=15, max_iter=20, random_state=0).fit(iris)
    trust = map_.explain(iris + np.array([0, 0, 0, 50])).trust
    assert (trust.reconstruction_error == 0).all()
    assert (trust.reconstruction_percentile == 0).all()
    assert (trust.percentile == 100).all()


def test_trust_depends_on_the_row_alone(map_, held_out):
    whole = np.array(map_.explain(held_out[:20]).trust)
    alone = [np.array(map_.explain(row[None]).trust)[:, 0] for row in held_out[:20]]
    np.testing.assert_allclose(np.transpose(alone), whole, rtol=1e-12)
    single = np.array(map_.explain(held_out[:20].astype(np.float32)).trust)
    np.testing.assert_allclose(single, whole, rtol=1e-5)


def test_trust_is_saved(flowers, iris, tmp_path):
    flowers.save(tmp_path / "model")
    again = ptsne.load(tmp_path / "model").explain(iris[::7]).trust
    np.testing.assert_array_equal(again, flowers.explain(iris[::7]).trust)


def test_a_file_without_quantiles_loads_and_asks_for_another_fit(flowers, iris, tmp_path):
    flowers.save(tmp_path / "model")
    tensors = load_file(tmp_path / "model")
    del tensors["_trust_quantiles"], tensors["_trust_readout"]
    header = persistence.read(tmp_path / "model").header
    header["checksum"] = persistence.checksum(tensors)
    save_file(tensors, tmp_path / "old", {"ptsne": json.dumps(header)})
    old = ptsne.load(tmp_path / "old")
    np.testing.assert_array_equal(old.transform(iris), flowers.transform(iris))
    why = old.explain(iris)
    with pytest.raises(ValueError, match="fit it again"):
        _ = why.trust
    old.save(tmp_path / "again")
    assert "_trust_readout" not in load_file(tmp_path / "again")


def test_two_rows_can_be_trusted():
    map_ = ParametricTSNE(perplexity=1, max_iter=10, random_state=0).fit([[0.0, 0], [1, 1]])
    percentile = map_.explain([[0.0, 0], [50, 50]]).trust.percentile
    assert percentile[0] < 60
    assert percentile[1] == 100


# --- W among neighbours ---------------------------------------------------------------------------


def neighbors(X, i, k):
    order = np.linalg.norm(X - X[i], axis=1).argsort(kind="stable")
    return order[order != i][:k]


def test_local_fidelity_is_as_written(flowers, iris):
    X = iris[::3] + np.random.default_rng(0).normal(0, 1e-3, (50, 4))  # no ties
    why = flowers.explain(X)
    fidelity = why.local_fidelity(n_neighbors=3)
    assert fidelity.shape == (50,)
    for i in range(50):
        near = neighbors(X, i, 3)
        actual = why.Y[near] - why.Y[i]
        lost = ((X[near] - X[i]) @ why.weight[i].T - actual) ** 2
        expected = 1 - np.median(lost.sum(1)) / np.median((actual**2).sum(1))
        assert fidelity[i] == pytest.approx(expected, abs=1e-9)


def test_local_fidelity_agrees_with_the_metric(digits, held_out):
    # of many landmarks, so that neighbours stand on other charts and neither figure is 1
    crowded = ParametricTSNE(n_landmarks=240, max_iter=200, random_state=0).fit(digits[0][:600])
    why = crowded.explain(held_out)
    whole = local_fidelity(why.weight, why.X, why.Y).r2
    assert whole < 0.9
    assert abs(np.median(why.local_fidelity()) - whole) < 0.15


def test_weight_variance_is_as_written(flowers, iris):
    X = iris[::3] + np.random.default_rng(0).normal(0, 1e-3, (50, 4))
    why = flowers.explain(X)
    variance = why.weight_variance(n_neighbors=4)
    for i in range(50):
        W = why.weight[[i, *neighbors(X, i, 4)]]
        expected = ((W - W.mean(0)) ** 2).sum((1, 2)).mean() / (W**2).sum((1, 2)).mean()
        assert variance[i] == pytest.approx(expected, abs=1e-12)
    assert (variance >= 0).all()
    assert (variance <= 1).all()


def explained(network, X):
    no_landmarks = np.zeros(0, int), np.zeros((0, X.shape[1]))
    source = Source(network.eval(), "secant", *no_landmarks, None)
    return explain_rows(source, X, baseline="mean", mean=X.mean(0))


def test_neither_depends_on_what_is_arbitrary_about_a_map(flowers, iris):
    layer = nn.Linear(2, 2).double()
    layer.weight.data = 3 * torch.tensor([[0.6, 0.8], [0.8, -0.6]]).double()
    network = flowers.network_
    changed = MapNetwork(network.encoder, nn.Sequential(network.projection, layer))
    why, other = flowers.explain(iris), explained(changed, iris)
    np.testing.assert_allclose(other.local_fidelity(), why.local_fidelity(), rtol=1e-6)
    np.testing.assert_allclose(other.weight_variance(), why.weight_variance(), atol=1e-6)


def test_a_linear_map_is_perfect(iris):
    why = explained(MapNetwork(nn.Linear(4, 3).double(), nn.Linear(3, 2).double()), iris)
    np.testing.assert_allclose(why.local_fidelity(), 1, atol=1e-9)
    np.testing.assert_allclose(why.weight_variance(), 0, atol=1e-12)


def test_equal_rows_predict_each_other(flowers, iris):
    why = flowers.explain(np.repeat(iris[:2], 7, axis=0))
    np.testing.assert_array_equal(why.local_fidelity(), 1)
    np.testing.assert_allclose(why.weight_variance(), 0, atol=1e-12)


def test_too_few_rows_get_advice(flowers, iris):
    why = flowers.explain(iris[:5])
    for question in (why.local_fidelity, why.weight_variance):
        with pytest.raises(ValueError, match="n_neighbors must be between 1 and 4"):
            question()
