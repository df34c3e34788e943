"""Counterfactuals: the smallest change that moves a row somewhere else on the map."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import train_test_split

from ptsne import ParametricTSNE
from ptsne.explanation import Source, explain_rows
from ptsne.explanation.arrival import Disc, cluster, spacing
from ptsne.explanation.smallest import Limits, smallest_change
from ptsne.networks import MapNetwork, Standardize


def explained(load, **parameters):
    """Explanation of held-out rows, their labels and the map."""
    data = load(as_frame=True)
    X = data.data if load is load_iris else (data.data - data.data.mean()) / data.data.std()
    X, X_new, _, y_new = train_test_split(
        X, data.target, test_size=0.34, stratify=data.target, random_state=0
    )
    map_ = ParametricTSNE(max_iter=60, random_state=0, **parameters).fit(X)
    return map_.explain(X_new), y_new.to_numpy(), map_


@pytest.fixture(scope="module")
def iris():
    return explained(load_iris)


@pytest.fixture(scope="module")
def wine():
    return explained(load_wine)


@pytest.fixture(scope="module")
def layered():
    """A map without landmarks."""
    return explained(load_wine, projection=(32, 32))


def place_of(map_, row):
    names = map_.feature_names_in_
    return map_.transform(pd.DataFrame(row[None], columns=names))[0]


def spread(why):
    return np.vstack([why.X, why._source.landmark_rows]).std(0)


# ---- the change ----


@pytest.mark.parametrize("data", ["wine", "layered"])
def test_a_row_moves_into_another_cluster_by_a_change_the_network_confirms(data, request):
    why, y, map_ = request.getfixturevalue(data)
    short = []
    for i in (0, 1, 2):
        label = (y[i] + 1) % 3
        found = why.counterfactual(i, label, labels=y)
        assert found.reached
        assert_allclose(found.row, why.X[i] + found.change, atol=1e-12)
        assert_allclose(found.place, place_of(map_, found.row), atol=1e-12)
        others = np.arange(len(y)) != i
        near = np.argsort(np.linalg.norm(why.Y[others] - found.place, axis=1))[:5]
        assert (y[others][near] == label).all()
        nearest_member = np.abs((why.X[y == label] - why.X[i]) / spread(why)).sum(1).min()
        assert_allclose(found.norm, np.abs(found.change / spread(why)).sum(), rtol=0.1)
        short.append(found.norm / nearest_member)
    assert np.mean(short) < 0.6  # taking over the nearest member's values is much dearer


def test_no_pair_of_columns_does_it_by_much_less(iris):
    why, y, map_ = iris
    i = int(np.flatnonzero(y == 1)[0])
    found = why.counterfactual(i, 2, labels=y, max_features=2)
    others = np.arange(len(y)) != i
    target = cluster(why.Y[others], y[others], 2, None)
    known = np.vstack([why.X, why._source.landmark_rows])
    shortest = np.inf
    for pair in combinations(range(4), 2):
        grid = np.meshgrid(*(np.linspace(known[:, f].min(), known[:, f].max(), 80) for f in pair))
        rows = np.repeat(why.X[[i]], grid[0].size, axis=0)
        rows[:, pair] = np.stack(grid, -1).reshape(-1, 2)
        arrives = target.margin(map_.transform(pd.DataFrame(rows, columns=why.feature_names))) >= 0
        length = np.abs((rows[arrives] - why.X[i]) / known.std(0)).sum(1)
        shortest = min([shortest, *length])
    assert found.reached
    assert found.norm < 1.05 * shortest


def test_a_row_moves_beside_another_row(wine):
    why, y, map_ = wine
    for norm in ("l1", "l2"):
        found = why.counterfactual(0, 5, norm=norm)
        assert found.reached
        assert found.distance <= spacing(why.Y)
        assert_allclose(found.distance, np.linalg.norm(found.place - why.Y[5]))
        assert found.norm < np.linalg.norm((why.X[5] - why.X[0]) / spread(why), int(norm[1]))


def test_within_one_region_the_change_is_the_closed_form(iris):
    why, _, _ = iris
    i = int(np.argmax(np.where(why.n_active == 1, why.radius(), 0)))
    W = why.weight[i] * spread(why)
    step = np.linalg.svd(W)[2][0] * 0.3 * why.radius()[i] / spread(why).max()
    place, reach = why.Y[i] + W @ step, 0.2 * np.linalg.norm(W @ step)
    found = why.counterfactual(i, place, norm="l2", tolerance=reach, bounds=(-np.inf, np.inf))
    expected = minimize(
        lambda d: d @ d,
        step,
        constraints={"type": "ineq", "fun": lambda d: reach**2 - ((W @ (step - d)) ** 2).sum()},
        options={"ftol": 1e-14},
    )
    assert found.reached
    assert_allclose(found.norm, np.sqrt(expected.fun), rtol=2e-3)


def test_a_row_of_ones_own_and_one_that_is_there_already(iris):
    why, y, _ = iris
    i = int(np.flatnonzero(y == 1)[0])
    own = why.counterfactual(why.X[i], 2, labels=y)
    assert own.reached
    assert own.features
    assert_allclose(own.original, why.X[i])
    there = why.counterfactual(i, why.Y[i])
    assert there.reached
    assert there.features == []
    assert there.norm == there.n_regions == 0
    assert not there.change.any()
    assert list(there.to_frame().columns) == ["feature", "before", "after", "change"]


def test_table_lists_what_changes_largest_first(layered):
    why, y, _ = layered
    found = why.counterfactual(0, (y[0] + 1) % 3, labels=y)
    table = found.to_frame()
    columns = [why.feature_names.index(name) for name in found.features]
    assert set(columns) == set(np.flatnonzero(found.change))
    assert list(table.feature) == found.features
    assert (np.diff(np.abs(found.change / spread(why))[columns]) <= 0).all()
    assert_allclose(table.before + table.change, table.after, atol=1e-12)
    assert_allclose(table.before, why.X[0][columns])


# ---- limits ----


def test_limits_are_kept(wine):
    why, y, _ = wine
    i, label = 0, (y[0] + 1) % 3
    free = why.counterfactual(i, label, labels=y)
    known = np.vstack([why.X, why._source.landmark_rows])
    assert (free.row >= known.min(0) - 1e-9).all()
    assert (free.row <= known.max(0) + 1e-9).all()

    few = why.counterfactual(i, label, labels=y, max_features=3, bounds=(-9, 9))
    assert few.reached
    assert len(few.features) <= 3

    held = free.features[0]
    named = [name for name in why.feature_names if name != held]
    other = why.counterfactual(i, label, labels=y, features=named)
    assert other.reached
    assert held not in other.features
    column = why.feature_names.index(held)
    assert other.row[column] == why.X[i, column]

    middle = why.X[i, column] + free.change[column] / 2
    box = {held: sorted((why.X[i, column], middle))}
    boxed = why.counterfactual(i, label, labels=y, bounds=box)
    assert boxed.reached
    assert abs(boxed.change[column]) <= abs(middle - why.X[i, column]) * (1 + 1e-9)


def test_raw_units_and_a_scale_of_ones_own(iris):
    why, y, _ = iris
    i = int(np.flatnonzero(y == 1)[0])
    raw = why.counterfactual(i, 2, labels=y, scale=None)
    ones = why.counterfactual(i, 2, labels=y, scale=np.ones(4))
    assert_allclose(raw.norm, np.abs(raw.change).sum())
    np.testing.assert_array_equal(raw.row, ones.row)
    column = why.feature_names.index(raw.features[0])
    dear = why.counterfactual(i, 2, labels=y, scale=np.where(np.arange(4) == column, 0.01, 1))
    assert abs(dear.change[column]) < 0.8 * abs(raw.change[column])


def test_what_is_out_of_reach_comes_with_advice(iris):
    why, y, _ = iris
    far = why.Y.mean(0) + 100 * np.ptp(why.Y)
    with pytest.warns(UserWarning, match="raise tolerance"):
        found = why.counterfactual(0, far)
    assert not found.reached
    assert_allclose(found.distance, np.linalg.norm(far - found.place))
    i = int(np.flatnonzero(y == 0)[0])
    with pytest.warns(UserWarning, match="name more features"):
        stuck = why.counterfactual(i, 2, labels=y, features=["sepal width (cm)"])
    assert stuck.features in ([], ["sepal width (cm)"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": np.ones(3)}, "must have shape"),
        ({"x": 50_000}, "no row 50000"),
        ({"target": np.ones(3)}, "target must be a place"),
        ({"target": 50_000}, "target 50000"),
        ({"target": np.full(2, np.nan)}, "target contains NaN"),
        ({"target": "virginica"}, "label with labels="),
        ({"target": 7, "labels": True}, "none of the labels"),
        ({"labels": [0, 1]}, "labels must have shape"),
        ({"features": ["petals"]}, "features must be some of"),
        ({"features": []}, "features must be some of"),
        ({"max_features": 0}, "max_features must be at least 1"),
        ({"norm": "l3"}, "norm must be"),
        ({"bounds": (2, 1)}, "are empty"),
        ({"bounds": (np.zeros(3), 1)}, "bounds must be"),
        ({"bounds": {"petals": (0, 1)}}, "must be some of"),
        ({"bounds": {"petal width (cm)": (1, 0)}}, "are empty"),
        ({"scale": "range"}, "scale must be"),
        ({"scale": np.zeros(4)}, "positive"),
        ({"scale": np.ones(3)}, "scale must be"),
        ({"tolerance": 0}, "tolerance must be positive"),
        ({"n_starts": 0}, "n_starts"),
    ],
)
def test_errors_say_what_was_expected(iris, options, message):
    why, y, _ = iris
    asked = {"x": 0, "target": 1, **options}
    if asked.get("labels") is True:
        asked["labels"] = y
    with pytest.raises(ValueError, match=message):
        why.counterfactual(**asked)


# ---- what it does not depend on ----


class Turned(torch.nn.Module):
    """A projection, and after it a rotation, a mirror image, a scale and a shift of the map."""

    def __init__(self, projection):
        super().__init__()
        self.projection = projection
        turn = torch.tensor([[0.6, -0.8], [-0.8, -0.6]], dtype=torch.float64)
        self.register_buffer("turn", 7 * turn)

    def forward(self, z):
        return self.projection(z) @ self.turn.T + 30


def test_rotating_shifting_and_scaling_the_map_changes_nothing(iris):
    why, y, map_ = iris
    network = type(map_.network_)(map_.network_.encoder, Turned(map_.network_.projection)).eval()
    source = Source(
        network, "secant", why._source.landmark_indices, why._source.landmark_rows, None
    )
    turned = explain_rows(
        source, why.X, baseline="zero", mean=why.X.mean(0), feature_names=why.feature_names
    )
    for i, target, options in ((0, (y[0] + 1) % 3, {"labels": y}), (3, 10, {"norm": "l2"})):
        before = why.counterfactual(i, target, **options)
        after = turned.counterfactual(i, target, **options)
        assert_allclose(after.row, before.row, atol=1e-5)
        assert_allclose(after.distance, 7 * before.distance, rtol=1e-4)


def test_same_call_same_bits_and_nothing_of_the_caller_changes(iris):
    why, y, _ = iris
    state, X, Y = torch.get_rng_state(), why.X.copy(), why.Y.copy()
    first, second = (why.counterfactual(0, (y[0] + 1) % 3, labels=y) for _ in range(2))
    np.testing.assert_array_equal(first.row, second.row)
    np.testing.assert_array_equal(first.place, second.place)
    assert first.n_regions == second.n_regions > 1
    with torch.inference_mode():
        third = why.counterfactual(0, (y[0] + 1) % 3, labels=y)
    np.testing.assert_array_equal(first.row, third.row)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(X, why.X)
    np.testing.assert_array_equal(Y, why.Y)


def test_single_precision_and_labels_of_any_kind(iris):
    why, y, map_ = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    X = pd.DataFrame(why.X, columns=why.feature_names)
    single = map_.explain(X.astype(np.float32))
    i = int(np.flatnonzero(y == 1)[0])
    found = single.counterfactual(i, "virginica", labels=names)
    assert found.reached
    assert found.row.dtype == np.float32
    np.testing.assert_array_equal(found.place, place_of(map_, found.row))
    exact = why.counterfactual(i, "virginica", labels=list(names))
    assert_allclose(found.norm, exact.norm, rtol=1e-2)
    with pytest.raises(ValueError, match="none of the labels"):
        why.counterfactual(i, "nosuch", labels=names)


# ---- the parts ----


def box(D, norm="l1", most=None, size=np.inf):
    return Limits(np.full(D, -size), np.full(D, size), norm, D if most is None else most)


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")  # told by older scipy
@pytest.mark.parametrize("seed", range(5))
def test_smallest_change_under_cuts_is_optimal(seed):
    rng = np.random.default_rng(seed)
    G, h = rng.normal(size=(4, 6)), rng.random(4)
    for norm, power in (("l1", 1), ("l2", 2)):
        limits = box(6, norm, size=1.5)
        found = smallest_change(G, h, limits)
        assert (G @ found >= h - 1e-8).all()
        assert limits.allows(found)
        best = min(
            np.linalg.norm(minimize_norm(G, h, power, start), power)
            for start in rng.normal(size=(4, 6))
        )
        assert np.linalg.norm(found, power) <= best * (1 + 1e-4)


def minimize_norm(G, h, power, start):
    """Slow twin: sequential quadratic programming on a change's rises and falls."""
    if power == 2:
        cuts = {"type": "ineq", "fun": lambda d: G @ d - h}
        found = minimize(
            lambda d: d @ d, start, bounds=[(-1.5, 1.5)] * len(start), constraints=cuts
        )
        return found.x
    parts = np.concatenate([np.maximum(start, 0), np.maximum(-start, 0)])
    cuts = {"type": "ineq", "fun": lambda d: G @ (d[: len(start)] - d[len(start) :]) - h}
    found = minimize(np.sum, parts, bounds=[(0, 1.5)] * len(parts), constraints=cuts)
    return found.x[: len(start)] - found.x[len(start) :]


def test_fewer_features_and_none_that_could():
    G, h = np.array([[3.0, 2, 1], [0, 1, 0]]), np.array([6.0, 1])
    assert_allclose(smallest_change(G, h, box(3)), [4 / 3, 1, 0], atol=1e-9)
    assert_allclose(smallest_change(G, h, box(3, most=1)), [0, 3, 0], atol=1e-9)
    assert_allclose(smallest_change(G, h, box(3, "l2", most=1)), [0, 3, 0], atol=1e-9)
    for norm in ("l1", "l2"):
        assert smallest_change(G, h, box(3, norm, size=0.5)) is None
        assert smallest_change(np.array([[1.0], [-1]]), np.ones(2), box(1, norm)) is None
        assert not smallest_change(np.zeros((0, 3)), np.zeros(0), box(3, norm)).any()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_where_too_few_features_may_change_there_is_no_change(norm):
    assert smallest_change(np.eye(2), np.ones(2), box(2, norm, most=1)) is None
    assert smallest_change(np.eye(2), np.ones(2), box(2, norm, size=0)) is None


def test_a_solver_that_does_not_converge_has_no_solution(monkeypatch):
    def endless(*_, **__):
        raise RuntimeError("too many iterations")

    monkeypatch.setattr("ptsne.explanation.smallest.nnls", endless)
    assert smallest_change(np.eye(2), np.ones(2), box(2, "l2")) is None


def test_few_steps_and_cuts_still_arrive(iris, monkeypatch):
    why, y, _ = iris
    i = int(np.flatnonzero(y == 1)[0])
    wanted = why.counterfactual(i, 2, labels=y)
    monkeypatch.setattr("ptsne.explanation.walks.MAX_CUTS", 1)
    monkeypatch.setattr("ptsne.explanation.walks._CLIMBS", 1)
    found = why.counterfactual(i, 2, labels=y)
    assert found.reached
    assert found.norm > 0.99 * wanted.norm


def test_a_map_that_bends_away_does_not_hide_the_nearer_way_in():
    """y leaves the target at x = 12 by a step, comes back below, and leaves it for good at 2.7."""
    slow, fast = 0.49 / 9, 1.5 + 0.49 / 9
    slopes = torch.tensor([1e9 * 0.99 - slow, -1e9 * 0.99, fast], dtype=torch.float64)
    first, last = torch.nn.Linear(1, 3).double(), torch.nn.Linear(3, 1).double()
    with torch.no_grad():
        first.weight.fill_(-1.0)
        first.bias.copy_(torch.tensor([12.0, 12.0 - 1e-9, 3.0], dtype=torch.float64))
        last.weight.copy_(slopes[None])
        last.bias.zero_()
    start = Standardize(torch.zeros(1).double(), torch.ones(()).double())
    network = MapNetwork(start, torch.nn.Sequential(first, torch.nn.ReLU(), last)).eval()
    rows = np.array([[0.0], [20.0]])
    source = Source(network, "secant", np.zeros(0, int), np.zeros((0, 1)), None)
    why = explain_rows(source, rows, baseline="mean", mean=rows.mean(0))
    found = why.counterfactual(0, [0.0], tolerance=1.0)
    assert found.reached
    assert found.row[0] == pytest.approx(3 - 0.5 / 1.5, abs=0.03)


def test_margins_of_a_cluster_and_where_they_grow():
    rng = np.random.default_rng(0)
    Y = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 4])
    labels = np.repeat(["a", "b"], 30)
    for target in (
        cluster(Y, labels, "b", None),
        Disc(Y[3], 0.7),
        cluster(Y, ["a"] * 60, "a", 1.0),
    ):
        places = rng.normal(size=(200, 2)) * 2 + 2
        margin = target.margin(places)
        step = 1e-6
        for y, before in zip(places, margin, strict=True):
            gradient = target.gradient(y)
            numeric = [
                (target.margin(np.array([y + step * e]))[0] - before) / step for e in np.eye(2)
            ]
            assert_allclose(gradient, numeric, atol=1e-4)
    target = cluster(Y, labels, "b", None)
    for y, m in zip(places, target.margin(places), strict=True):
        distance = np.linalg.norm(Y - y, axis=1)
        nearest = np.argsort(distance)[:5]
        is_in = (labels[nearest] == "b").all() and distance[nearest[-1]] <= target.reach
        assert is_in == (m >= 0)


def test_spacing_is_the_fifth_neighbour():
    line = np.arange(20.0)[:, None]
    assert spacing(line) == 3.0
    assert spacing(line[:1]) == 0.0
    assert spacing(line[:2]) == 1.0
