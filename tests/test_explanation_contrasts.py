"""Shares of a way: complete, the same on a map that was changed, and what is asked for."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris, load_wine
from torch import nn

from ptsne import ParametricTSNE
from ptsne.explanation import Source, explain_rows
from ptsne.explanation.paired import chord_of_length, chord_of_positive_part, paired_maps
from ptsne.linearize import UnsupportedOperation
from ptsne.networks import MapNetwork, Standardize, scale_output
from ptsne.regions import integrated_gradients

METHODS = ["path", "paired", "local"]
TURN = np.array([[0.6, -0.8], [0.8, 0.6]])
MIRROR = np.diag([-1.0, 1.0])


@pytest.fixture(scope="module")
def X():
    return load_iris().data


@pytest.fixture(scope="module")
def y():
    return load_iris().target


@pytest.fixture(scope="module")
def atlas(X):
    return ParametricTSNE(perplexity=15, max_iter=120, random_state=0).fit(X)


@pytest.fixture(scope="module")
def branch(X):
    """An atlas behind an encoder with ReLUs."""
    parameters = {"encoder": (8,), "perplexity": 15, "max_iter": 120, "random_state": 2}
    return ParametricTSNE(**parameters).fit(X)


@pytest.fixture(scope="module")
def mlp(X):
    parameters = {"projection": (16, 16), "perplexity": 15, "max_iter": 120, "random_state": 0}
    return ParametricTSNE(**parameters).fit(X)


@pytest.fixture(scope="module", params=["atlas", "branch", "mlp"])
def map_(request):
    return request.getfixturevalue(request.param)


def explained(network, X):
    """Explanation by a network of one's own."""
    no_landmarks = np.zeros(0, int), np.zeros((0, X.shape[1]))
    source = Source(network.eval(), "secant", *no_landmarks, None)
    return explain_rows(source, X, baseline="mean", mean=X.mean(0))


def turned(network, matrix, shift=0.0):
    """The network with its map turned, mirrored, scaled, shifted."""
    layer = nn.Linear(2, 2).double()
    layer.weight.data = torch.from_numpy(matrix)
    layer.bias.data = torch.full((2,), shift, dtype=torch.float64)
    return MapNetwork(network.encoder, nn.Sequential(network.projection, layer), network.decoder)


def rescaled(network, factor, shift, sign):
    """An atlas with its own parameters scaled, shifted and mirrored."""
    network = scale_output(copy.deepcopy(network), factor)
    atlas = network.projection
    with torch.no_grad():
        for values in (atlas.places.T, atlas.charts.movedim(1, 0), atlas.shared_chart, atlas.tilt):
            values[0] *= sign
        atlas.places += shift
    return network


# --- contrast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:the local maps predict:UserWarning")
def test_shares_sum_to_one_and_are_the_same_from_either_end(map_, X, method):
    why = map_.explain(X)
    for i, j in [(0, 120), (60, 130)]:
        shares = why.contrast(i, j, method=method)
        assert shares.shape == (4,)
        assert shares.dtype == np.float64
        assert shares.sum() == pytest.approx(1, abs=1e-10)
        np.testing.assert_allclose(why.contrast(j, i, method=method), shares, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("matrix", [TURN, MIRROR, 3 * TURN @ MIRROR], ids=["turn", "mirror", "all"])
@pytest.mark.filterwarnings("ignore:the local maps predict:UserWarning")
def test_shares_ignore_what_is_arbitrary_about_a_map(mlp, X, matrix, method):
    network = mlp.network_
    other = explained(turned(network, matrix, shift=5.0), X)
    assert np.abs(other.Y - mlp.transform(X)).max() > 1
    expected = mlp.explain(X).contrast(0, 120, method=method)
    np.testing.assert_allclose(other.contrast(0, 120, method=method), expected, atol=1e-9)


@pytest.mark.parametrize("method", ["path", "local"])
@pytest.mark.filterwarnings("ignore:the local maps predict:UserWarning")
def test_shares_of_an_atlas_ignore_its_rotation(atlas, X, method):
    other = explained(turned(atlas.network_, 2 * TURN, shift=-3.0), X)
    expected = atlas.explain(X).contrast(0, 120, method=method)
    np.testing.assert_allclose(other.contrast(0, 120, method=method), expected, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:the local maps predict:UserWarning")
def test_shares_of_an_atlas_ignore_its_scale_place_and_mirror(atlas, X, method):
    other = explained(rescaled(atlas.network_, factor=3.0, shift=5.0, sign=-1), X)
    expected = atlas.explain(X).contrast(0, 120, method=method)
    np.testing.assert_allclose(other.contrast(0, 120, method=method), expected, atol=1e-9)


def test_shares_of_a_linear_map_are_those_of_w(X):
    linear = nn.Linear(4, 2).double()
    start = Standardize(torch.from_numpy(X.mean(0)), torch.tensor(2.0, dtype=torch.float64))
    why = explained(MapNetwork(start, linear), X)
    displacement = linear.weight.detach().numpy() / 2 * (X[120] - X[0])
    way = displacement.sum(1)
    for method in METHODS:
        shares = why.contrast(0, 120, method=method)
        np.testing.assert_allclose(shares, way @ displacement / (way @ way), atol=1e-12)


def test_a_row_of_ones_own_is_as_good_as_a_number(atlas, X):
    why = atlas.explain(X)
    expected = why.contrast(0, 120)
    np.testing.assert_allclose(why.contrast(X[0], X[120]), expected, atol=1e-12)
    np.testing.assert_allclose(why.contrast(X[0].tolist(), -30), expected, atol=1e-12)
    np.testing.assert_allclose(why.contrast(pd.Series(X[0]), np.int64(120)), expected, atol=1e-12)


def test_float32_rows_have_shares_that_sum_to_one(atlas, X):
    shares = atlas.explain(X.astype(np.float32)).contrast(0, 120)
    assert shares.sum() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("question", ["contrast", "contrast_clusters", "loadings"])
def test_local_shares_warn_where_w_does_not_reach(atlas, X, question):
    labels = np.arange(150) > 74
    asked = {"contrast": (0, 120), "contrast_clusters": (labels, False, True)}
    ask = getattr(atlas.explain(X), question)
    with pytest.warns(UserWarning, match='use method="path"') as seen:
        ask(*asked.get(question, (labels,)), method="local")
    assert {warning.filename for warning in seen} == {__file__}


def test_local_shares_of_neighbours_do_not_warn(atlas, X):
    near = int(np.linalg.norm(X - X[0], axis=1).argsort()[1])
    assert atlas.explain(X).contrast(0, near, method="local").sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("i", "j", "options", "message"),
    [
        (0, 0, {}, "share one place"),
        (0, 1, {"method": "lime"}, '"path", "paired" or "local"'),
        (0, 150, {}, "rows 0 to 149"),
        (-151, 0, {}, "rows 0 to 149"),
        (0, 1.5, {}, "by its number or as 4 values"),
        (0, np.zeros(3), {}, r"must have shape \(4,\)"),
        (np.full(4, np.nan), 0, {}, "must be finite"),
    ],
)
def test_bad_contrasts_get_advice(atlas, X, i, j, options, message):
    with pytest.raises(ValueError, match=message):
        atlas.explain(X).contrast(i, j, **options)


def test_local_maps_that_predict_no_way_get_advice():
    """Flat around both rows, a step in between: y = relu(x - 1) - relu(x - 2) of their sum."""
    first, last = nn.Linear(2, 2).double(), nn.Linear(2, 1).double()
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.copy_(torch.tensor([-1.0, -2.0]))
        last.weight.copy_(torch.tensor([[1.0, -1.0]]))
    start = Standardize(torch.zeros(2).double(), torch.ones(()).double())
    rows = np.array([[0.0, 0.0], [0.1, 0.0], [3.0, 1.0], [3.0, 2.0]])
    why = explained(MapNetwork(start, nn.Sequential(first, nn.ReLU(), last)), rows)
    assert why.contrast(0, 2).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match='predict no way; use method="path"'):
        why.contrast(0, 2, method="local")
    with (
        pytest.warns(UserWarning, match="0 times as long"),
        pytest.raises(ValueError, match="does not, on average, lead"),
    ):
        why.contrast_clusters([0, 0, 1, 1], 0, 1, method="local")


def test_a_smooth_network_has_paired_shares_only(X):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    start = Standardize(torch.zeros(4).double(), torch.ones(()).double())
    why = explained(MapNetwork(start, network), X)
    assert why.contrast(0, 120, method="paired").sum() == pytest.approx(1, abs=1e-10)
    with pytest.raises(UnsupportedOperation, match=r'not piecewise linear.*use method="paired"'):
        why.contrast(0, 120)
    frame = why.loadings([0] * 50 + [1] * 100, method="paired", n_rows=10)
    assert frame.groupby("cluster").share.sum().to_numpy() == pytest.approx(1, abs=1e-10)


# --- ways -----------------------------------------------------------------------------------------


def test_the_paired_map_of_an_atlas_is_exact(map_, X):
    a, b = torch.from_numpy(X), torch.from_numpy(X[::-1].copy())
    network = map_.network_
    M = paired_maps(network, a, b)
    way = torch.einsum("pkd,pd->pk", M, b - a)
    np.testing.assert_allclose(way, network(b) - network(a), atol=1e-10)
    np.testing.assert_allclose(paired_maps(network, b, a), M, atol=1e-10)


def test_the_paired_map_within_a_region_is_w(map_, X):
    why = map_.explain(X[::10])
    way = np.ones(4) / 2 * 0.5 * why.radius()[:, None]
    inside = torch.from_numpy(X[::10] + way)
    M = paired_maps(map_.network_, torch.from_numpy(X[::10]), inside)
    np.testing.assert_allclose(M, why.weight, atol=1e-7)


def test_chords():
    a, b = torch.tensor([3.0, -1.0, -2.0, 0.0]), torch.tensor([5.0, 3.0, -1.0, 0.0])
    assert chord_of_positive_part(a, b).tolist() == [1, 0.75, 0, 0]
    assert chord_of_length(a, b).tolist() == [1, 0.5, -1, 0]


def test_wine_has_names(X):
    data = load_wine(as_frame=True)
    map_ = ParametricTSNE(perplexity=15, max_iter=20, random_state=0).fit(data.data)
    why = map_.explain(data.data)
    assert why.contrast(0, data.data.iloc[100]).sum() == pytest.approx(1, abs=1e-10)
    assert why.feature_names == list(data.data.columns)


# --- clusters -------------------------------------------------------------------------------------


def displacement(network, start, end):
    """Displacement (K, D) by the library's integrated gradients, one output at a time."""
    a, b = torch.from_numpy(start), torch.from_numpy(end)[None]
    return np.stack([integrated_gradients(network, b, a, k)[0].numpy() for k in range(2)])


def slow_shares(network, ways, centres):
    way = centres[1] - centres[0]
    along = np.array([way @ displacement(network, start, end) for start, end in ways])
    return along / along.sum(1).mean()


def test_clusters_are_contrasted_as_written(atlas, X):
    rows = X[[0, 1, 2, 100, 101]]
    why = atlas.explain(rows)
    frame = why.contrast_clusters([7, 7, 7, 2, 2], 7, 2)
    places = atlas.transform(rows)
    centres = places[:3].mean(0), places[3:].mean(0)
    pairs = [(rows[i], rows[j]) for i in range(3) for j in (3, 4)]
    shares = slow_shares(atlas.network_, pairs, centres)
    assert (frame.n_pairs == 6).all()
    frame = frame.set_index("feature").loc[why.feature_names]
    np.testing.assert_allclose(frame.share, shares.mean(0), atol=1e-9)
    np.testing.assert_allclose(frame.spread, shares.std(0), atol=1e-9)
    np.testing.assert_allclose(frame.low, np.quantile(shares, 0.05, axis=0), atol=1e-9)
    np.testing.assert_allclose(frame.high, np.quantile(shares, 0.95, axis=0), atol=1e-9)


def test_loadings_are_as_written(atlas, X):
    rows = X[[0, 1, 2, 100, 101]]
    why = atlas.explain(rows)
    frame = why.loadings([7, 7, 7, 2, 2])
    assert frame.cluster.tolist() == [2] * 4 + [7] * 4
    places, mean = atlas.transform(rows), X.mean(0)
    centres = atlas.transform(mean[None])[0], places[:3].mean(0)
    shares = slow_shares(atlas.network_, [(mean, row) for row in rows[:3]], centres)
    frame = frame[frame.cluster == 7].set_index("feature").loc[why.feature_names]
    np.testing.assert_allclose(frame.share, shares.mean(0), atol=1e-9)
    np.testing.assert_allclose(frame.spread, shares.std(0), atol=1e-9)
    assert (frame.n_rows == 3).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:the local maps predict:UserWarning")
def test_shares_of_clusters_sum_to_one_largest_first(map_, X, y, method):
    frame = map_.explain(X).contrast_clusters(y, 0, 2, method=method, n_pairs=40)
    assert frame.columns.tolist() == ["feature", "share", "spread", "low", "high", "n_pairs"]
    assert frame.share.sum() == pytest.approx(1, abs=1e-10)
    assert frame.share.abs().is_monotonic_decreasing
    assert (frame.low <= frame.high).all()
    assert (frame.n_pairs == 40).all()
    loads = map_.explain(X).loadings(y, method=method, n_rows=10)
    assert loads.groupby("cluster").share.sum().to_numpy() == pytest.approx(1, abs=1e-10)


def test_shares_of_clusters_ignore_what_is_arbitrary_about_a_map(atlas, X, y):
    other = explained(turned(atlas.network_, 3 * TURN @ MIRROR, shift=5.0), X)
    why = atlas.explain(X)
    for tables in (
        [e.contrast_clusters(y, 0, 2, n_pairs=30) for e in (why, other)],
        [e.loadings(y, n_rows=20) for e in (why, other)],
    ):
        pd.testing.assert_frame_equal(*tables, rtol=1e-8)


def test_shares_of_swapped_clusters_are_the_same(atlas, X, y):
    rows = X[::10]
    tables = [atlas.explain(rows).contrast_clusters(y[::10], *ab) for ab in ((0, 2), (2, 0))]
    pd.testing.assert_frame_equal(*tables)  # all pairs


def test_left_out_features_are_one_line(atlas, X, y):
    why = atlas.explain(X)
    whole, short = (why.contrast_clusters(y, 0, 2, n, n_pairs=30) for n in (None, 2))
    assert short.feature.tolist() == [*whole.feature[:2], "other features"]
    assert short.share.sum() == pytest.approx(1, abs=1e-10)
    assert short.share[2] == pytest.approx(whole.share[2:].sum())
    assert len(why.contrast_clusters(y, 0, 2, 4, n_pairs=30)) == 4  # nothing is left out
    loads = why.loadings(y, 1, n_rows=10)
    assert loads.groupby("cluster").share.sum().to_numpy() == pytest.approx(1, abs=1e-10)
    assert loads.groupby("cluster").size().tolist() == [2, 2, 2]


def test_the_draw_follows_its_seed(atlas, X, y):
    why = atlas.explain(X)
    first, again, other = (
        why.contrast_clusters(y, 0, 2, n_pairs=20, random_state=seed) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.share.equals(other.share)


def test_planted_features_come_first():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 8))
    labels = np.repeat(["left", "right"], 100)
    X[100:, [2, 5]] += 8
    loads = []
    for seed in range(3):
        why = ParametricTSNE(perplexity=20, max_iter=100, random_state=seed).fit(X).explain(X)
        frame = why.contrast_clusters(labels, "left", "right", n_pairs=50)
        assert set(frame.feature[:2]) == {"x2", "x5"}
        assert frame.share[:2].sum() > 0.8
        assert (frame.share[:2] > frame.spread[:2]).all()
        loads.append(why.loadings(labels, n_rows=30))
    # the mean row, from which loadings start, lies between the islands: one map alone says little
    shares = pd.concat(loads).groupby(["cluster", "feature"]).share.mean()
    for cluster in ("left", "right"):
        assert set(shares[cluster].nlargest(2).index) == {"x2", "x5"}


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["a", "a", "b", "b", "c", "c"]),
        ["a", "a", "b", "b", None, None],
        pd.Series(["a", "a", "b", "b", "c", "c"], index=list("uvwxyz")),
        pd.Categorical(["a", "a", "b", "b", None, "d"], categories=["d", "b", "a", "unused"]),
        np.array(["a", "a", "b", "b", np.nan, np.nan], dtype=object),
        ["a", "a", "b", "b", -1, -1],
    ],
    ids=["strings", "list", "series", "categories", "missing", "minus one"],
)
def test_labels_of_any_kind(atlas, X, labels):
    why = atlas.explain(X[[0, 1, 100, 101, 60, 61]])
    expected = atlas.explain(X[[0, 1, 100, 101]]).contrast_clusters([0, 0, 1, 1], 0, 1)
    pd.testing.assert_frame_equal(why.contrast_clusters(labels, "a", "b"), expected)


def test_rows_of_no_cluster_have_no_loadings(atlas, X):
    why = atlas.explain(X[[0, 1, 100, 101, 60, 61]])
    numbers = why.loadings([5, 5, 3, 3, -1, -1])
    assert numbers.cluster.unique().tolist() == [3, 5]
    missing = why.loadings([5.0, 5.0, 3.0, 3.0, np.nan, np.nan])
    assert missing.cluster.unique().tolist() == [3.0, 5.0]
    np.testing.assert_allclose(missing.share, numbers.share)
    truth = why.loadings([True, True, False, False, True, True])
    assert truth.cluster.unique().tolist() == [False, True]
    kinds = pd.Categorical(list("bbaaab"), categories=["b", "unused", "a"])
    assert why.loadings(kinds).cluster.unique().tolist() == ["b", "a"]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1], {}, r"one a row, shape \(4,\); got shape \(2,\)"),
        (np.zeros((4, 1)), {}, r"got shape \(4, 1\)"),
        ([0, 0, 2, 2], {}, "no row has the label 1; the labels are 0, 2"),
        ([-1, -1, np.nan, -1], {}, "no row is in a cluster"),
        ([0, 0, 1, 1], {"n_pairs": 0}, "n_pairs must be at least 1"),
        ([0, 0, 1, 1], {"n_features": 0}, "n_features must be at least 1"),
        ([0, 0, 1, 1], {"method": "lime"}, '"path", "paired" or "local"'),
        ([0, 0, 1, 1], {"b": 0}, "contrasted with another one"),
    ],
)
def test_bad_contrasts_of_clusters_get_advice(atlas, X, labels, options, message):
    with pytest.raises(ValueError, match=message):
        atlas.explain(X[:4]).contrast_clusters(labels, **{"a": 0, "b": 1, **options})


def test_clusters_at_one_place_get_advice(atlas, X):
    why = atlas.explain(X[[0, 50, 0, 50]])
    with pytest.raises(ValueError, match="centres of the two clusters share one place"):
        why.contrast_clusters([0, 0, 1, 1], 0, 1)
    why = atlas.explain(X[:2], baseline=X[:2])
    with pytest.raises(ValueError, match="centre and its baseline share one place"):
        why.loadings([0, 0])
    with pytest.raises(ValueError, match="n_rows must be at least 1"):
        why.loadings([0, 0], n_rows=0)
