"""Explanations of a map: exactness, chain, baselines, landmarks, table."""

import random
import time

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris

from ptsne import ParametricTSNE
from ptsne.metrics import rank_deficient
from ptsne.regions import region_radius


def jacobian(network, X):
    x = torch.from_numpy(X)
    return torch.func.vmap(torch.func.jacrev(lambda r: network(r[None])[0]))(x).numpy()


@pytest.fixture(scope="module")
def X():
    return load_iris().data


@pytest.fixture(scope="module")
def map_(X):
    return ParametricTSNE(perplexity=15, max_iter=200, random_state=0).fit(X)


@pytest.fixture(scope="module", params=["atlas", "mlp", "encoder"])
def digits(request):
    parameters = {"atlas": {}, "mlp": {"projection": (64, 64)}, "encoder": {"encoder": (32,)}}
    X = load_digits().data
    map_ = ParametricTSNE(max_iter=80, random_state=0, **parameters[request.param]).fit(X[:600])
    return map_, X


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_wx_plus_b_is_the_place_of_every_row(digits, dtype, tolerance):
    map_, X = digits
    why = map_.explain(X.astype(dtype))
    assert why.weight.dtype == why.intercept.dtype == dtype
    assert why.residual.max() < tolerance
    y = np.einsum("nkd,nd->nk", why.weight, why.X) + why.intercept
    scale = np.abs(why.intercept).max()
    np.testing.assert_allclose(y, map_.transform(X.astype(dtype)), atol=tolerance * scale)


def test_w_is_the_jacobian(digits):
    map_, X = digits
    expected = []
    network = map_._network(np.float64)
    for row in torch.from_numpy(X[:40]):
        jac = torch.autograd.functional.jacobian(lambda r: network(r[None])[0], row)
        expected.append(jac.numpy())
    np.testing.assert_allclose(map_.explain(X[:40]).weight, expected, atol=1e-10)


QUESTIONS = {
    "displacement": lambda why: why.displacement([0, 1]),
    "contrast": lambda why: why.contrast(0, 1, method="path"),
    "clusters": lambda why: why.contrast_clusters([0, 0, 1, 1], 0, 1),
    "loadings": lambda why: why.loadings([0, 0, 1, 1]),
    "radius": lambda why: why.radius(),
    "counterfactual": lambda why: why.counterfactual(0, why.Y[1]),
    "trust": lambda why: why.trust,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_draws_from_the_callers_generators(map_, X, question):
    why = map_.explain(X[::40])
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    QUESTIONS[question](why)
    assert (torch.get_rng_state() == before[0]).all()
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_chain_of_encoder_and_projection(digits):
    map_, X = digits
    why = map_.explain(X[:200])
    W_e, b_e = why.encoder
    W_p, b_p = why.projection
    scale = np.abs(why.intercept).max()
    np.testing.assert_allclose(W_p @ W_e, why.weight, atol=1e-12 * scale)
    b = np.einsum("nkl,nl->nk", W_p, b_e) + b_p
    np.testing.assert_allclose(b, why.intercept, atol=1e-12 * scale)


@pytest.mark.parametrize("baseline", ["mean", "zero", "landmark", "row", "rows"])
def test_contributions_and_offset_sum_to_the_place(map_, X, baseline):
    given = {"row": X[0], "rows": X[::-1]}.get(baseline, baseline)
    why = map_.explain(X, baseline=given)
    np.testing.assert_allclose(why.contributions.sum(2) + why.offset, why.Y, atol=1e-10)
    if baseline == "mean":
        np.testing.assert_allclose(why.baseline[0], X.mean(0), atol=1e-12)


@pytest.mark.parametrize("baseline", ["mean", "zero", "landmark", "row", "rows"])
def test_another_baseline_is_as_if_explained_from_there(map_, X, baseline):
    given = {"row": X[0], "rows": X[::-1]}.get(baseline, baseline)
    expected, why = map_.explain(X, baseline=given), map_.explain(X, baseline=X[7])
    moved = why.with_baseline(given)
    np.testing.assert_array_equal(moved.baseline, expected.baseline)
    np.testing.assert_array_equal(moved.contributions, expected.contributions)
    np.testing.assert_allclose(moved.contributions.sum(2) + moved.offset, why.Y, atol=1e-10)
    np.testing.assert_array_equal(why.baseline, np.tile(X[7], (150, 1)))  # and stays


def test_a_row_may_be_measured_from_the_mean_of_its_cluster(map_, X):
    labels = np.array(["a", "b", "c"])[load_iris().target]
    why = map_.explain(X).with_baseline("cluster", labels)
    means = {name: X[labels == name].mean(0) for name in "abc"}
    np.testing.assert_allclose(why.baseline, [means[name] for name in labels], atol=1e-12)
    np.testing.assert_allclose(why.contributions.sum(2) + why.offset, why.Y, atol=1e-10)


@pytest.mark.parametrize(
    ("baseline", "labels", "message"),
    [
        ("cluster", None, "needs the cluster of each row"),
        ("cluster", [0, 1], r"one a row, shape \(3,\)"),
        ("cluster", [0, -1, 0], "1 rows are in no cluster .the first is row 1."),
        ("mean", [0, 0, 0], "labels are for"),
        ("median", None, "baseline must be"),
        (np.zeros(3), None, "one row of shape"),
        (np.full(4, np.nan), None, "must be finite"),
    ],
)
def test_bad_baselines_get_advice(map_, X, baseline, labels, message):
    with pytest.raises(ValueError, match=message):
        map_.explain(X[:3]).with_baseline(baseline, labels)


@pytest.mark.parametrize("method", ["path", "paired"])
@pytest.mark.parametrize("baseline", ["mean", "row"])
def test_displacements_sum_to_the_whole_way_from_the_baseline(map_, X, baseline, method):
    why = map_.explain(X, baseline=X[7] if baseline == "row" else baseline)
    way = why.Y - map_.transform(why.baseline)
    ways = why.displacement(method=method)
    np.testing.assert_allclose(ways.sum(2), way, atol=1e-10)
    np.testing.assert_allclose(why.displacement([5, 3], method=method), ways[[5, 3]], atol=1e-12)
    with pytest.raises(ValueError, match='"path" or "paired"'):
        why.displacement(method="local")


def test_within_the_linear_region_of_the_baseline_contributions_are_the_displacement(map_, X):
    radius = map_.explain(X).radius()
    nearby = X + 0.4 * radius[:, None]  # half a radius away in four columns is 0.8 radii
    why = map_.explain(X, baseline=nearby)
    np.testing.assert_allclose(why.contributions, why.displacement(), atol=1e-9)


def test_importance_does_not_depend_on_the_axes(map_, X):
    why = map_.explain(X[:10])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = np.einsum("jk,nkd->njd", turn, why.contributions)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), why.importance(), atol=1e-12)
    with pytest.raises(ValueError, match="l2"):
        why.importance("max")


def test_landmarks_are_training_rows(map_, X):
    held = map_.explain(X).landmarks
    np.testing.assert_allclose(held.weights.sum(1), 1, atol=1e-12)
    assert (np.diff(held.weights, axis=1) <= 1e-12).all()
    real = held.indices >= 0
    np.testing.assert_array_equal(held.rows[real], X[held.indices[real]])
    assert np.isnan(held.rows[~real]).all()
    assert (real.sum(1) == map_.explain(X).n_active).all()


def test_rank_of_w_is_that_of_the_map(map_, X):
    assert rank_deficient(map_.explain(X).weight) == 0


def test_to_frame_is_tidy(map_, X):
    why = map_.explain(X[:3])
    frame = why.to_frame()
    assert len(frame) == 3 * 4
    assert list(frame.columns[:5]) == ["row", "feature", "value", "baseline", "importance"]
    total = frame.groupby("row")[["contribution_1", "contribution_2"]].sum().to_numpy()
    np.testing.assert_allclose(total + why.offset, why.Y, atol=1e-10)


def test_tangent_equals_secant_on_piecewise_linear_maps(map_, X):
    secant, tangent = map_.explain(X), map_.explain(X, method="tangent")
    np.testing.assert_allclose(tangent.weight, secant.weight, atol=1e-10)


def test_bad_questions_get_advice(map_, X):
    with pytest.raises(ValueError, match='"secant" or "tangent"'):
        map_.explain(X, method="lime")
    with pytest.raises(ValueError, match="baseline must be"):
        map_.explain(X, baseline="median")
    with pytest.raises(ValueError, match="one row of shape"):
        map_.explain(X, baseline=np.zeros(3))
    with pytest.raises(ValueError, match="with_baseline"):
        map_.explain(X, baseline="cluster")
    mlp = ParametricTSNE(perplexity=5, projection=(8,), max_iter=20, random_state=0).fit(X)
    with pytest.raises(ValueError, match="only an atlas has landmarks"):
        _ = mlp.explain(X).landmarks


def test_too_large_an_explanation_is_refused_with_its_size(map_, X, monkeypatch):
    monkeypatch.setattr("ptsne.explanation.source.MEMORY_BUDGET", 1000)
    with pytest.raises(MemoryError, match=r"at most 15 rows at a time, as \S+explain_blocks"):
        map_.explain(X)


def test_explaining_keeps_no_graph(map_, X):
    start = time.perf_counter()
    map_.explain(np.tile(X, (20, 1)))
    assert time.perf_counter() - start < 30


def test_w_holds_up_to_the_radius_and_no_further(map_, X):
    why = map_.explain(X[::10])
    found = region_radius(map_._network(np.float64), torch.from_numpy(X[::10]))
    np.testing.assert_allclose(why.radius(), found.radius.numpy())
    way = found.radius.unsqueeze(1).numpy() * found.direction.numpy()
    inside, outside = (map_.explain(X[::10] + f * way).weight for f in (0.999, 1.001))
    change = [np.abs(W - why.weight).max((1, 2)) for W in (inside, outside)]
    assert change[0].max() < 1e-9
    assert (
        change[1] > 1e-9
    ).mean() > 0.9  # neighbours may share one W, as where a clip binds twice
