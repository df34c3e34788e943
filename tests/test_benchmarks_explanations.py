"""The benchmark of explanations: tasks, measures, resuming, page. No figure of it is checked."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_iris

from benchmark_scripts import script
from ptsne import ParametricTSNE
from ptsne.networks import MapNetwork, Standardize


@pytest.fixture(scope="module", autouse=True)
def _imported(beside_the_benchmarks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap changes colour maps when it is imported
        script("attribution.methods")


@pytest.fixture(scope="module", params=["atlas", (16,)])
def iris(request):
    X = load_iris().data
    model = ParametricTSNE(projection=request.param, perplexity=15, max_iter=60, random_state=0)
    network = model.fit(X).network_.double()
    rows = torch.from_numpy(X)
    return SimpleNamespace(model=model, network=network, X_train=rows, baseline=rows.mean(0))


@pytest.fixture
def linear():
    """A map of 5 columns that is linear everywhere."""
    generator = torch.Generator().manual_seed(0)
    units = Standardize(torch.ones(5), torch.tensor(2.0))
    encoder = torch.nn.Sequential(units, torch.nn.Linear(5, 4))
    network = MapNetwork(encoder, torch.nn.Linear(4, 2)).double().eval()
    rows = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    return SimpleNamespace(network=network, X_train=rows, baseline=rows.mean(0))


# --- methods --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["path", "paired"])
def test_shares_are_those_of_contrast(iris, method):
    methods = script("attribution.methods")
    x, r = iris.X_train[[0, 60, 120]], iris.X_train[[70, 140, 20]]
    way = iris.network(x) - iris.network(r)
    found = methods.shares(methods.OURS[method](iris, x, r), way.detach())
    why = iris.model.explain(x.numpy())
    for i in range(3):
        expected = why.contrast(r[i].numpy(), i, method=method)
        np.testing.assert_allclose(found[i], expected, atol=1e-9)


def test_local_parts_are_the_contributions(iris):
    methods = script("attribution.methods")
    x = iris.X_train[::30]
    why = iris.model.explain(x.numpy())
    np.testing.assert_allclose(methods.local(iris, x).values, why.contributions, atol=1e-9)


def test_every_method_is_right_about_a_linear_map(linear):
    methods, measures = script("attribution.methods"), script("attribution.measures")
    x = linear.X_train[:4]
    peers = {name: methods.PEERS[name] for name in methods.PEERS if "InputX" not in name}
    r = linear.baseline.expand_as(x)
    W = (linear.network.projection.weight @ linear.network.encoder[1].weight).detach() / 2
    expected = W * (x - r)[:, None]
    for name, attribute in {"path": methods.path, "paired": methods.paired, **peers}.items():
        found = attribute(linear, x, r)
        np.testing.assert_allclose(found.values, expected, atol=1e-5, err_msg=name)
        assert measures.completeness(linear, x, found).max() < 1e-5, name


def test_a_background_is_explained_from_its_mean_place(linear):
    methods, measures = script("attribution.methods"), script("attribution.measures")
    found = methods.shap_deep(linear, linear.X_train[:4])
    assert measures.completeness(linear, linear.X_train[:4], found).max() < 1e-6


def test_many_columns_leave_out_what_cannot_be_afforded():
    names_for = script("attribution.methods").names_for
    assert set(names_for(4)) - set(names_for(64)) == {"SHAP Kernel"}


# --- measures -------------------------------------------------------------------------------------


def test_a_true_slope_has_no_infidelity_and_zeros_have_one(linear):
    methods, measures = script("attribution.methods"), script("attribution.measures")
    x = linear.X_train[:5]
    right = methods.local(linear, x)
    nothing = right._replace(values=0 * right.values, slope=0 * right.slope)
    for measure in (measures.infidelity_to_baseline, measures.infidelity_to_noise):
        assert measure(linear, x, right, np.random.default_rng(0)).max() < 1e-20
        found = measure(linear, x, nothing, np.random.default_rng(0))
        np.testing.assert_allclose(found, 1.0)
    assert measures.slope_fidelity(linear, x, right) > 1 - 1e-12
    assert measures.infidelity_to_noise(linear, x, right._replace(slope=None), None) is None


def test_areas_of_a_linear_map_on_a_line():
    """Parts 6, 4, 2, -2 of a way of 10: what is left is 10, 4, 0, -2, 0."""
    measures = script("attribution.measures")
    network = torch.nn.Linear(4, 2, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[-2.0, 6.0, 2.0, 4.0], [0, 0, 0, 0]]))
    map_ = SimpleNamespace(network=network, baseline=torch.zeros(4, dtype=torch.float64))
    x = torch.ones(1, 4, dtype=torch.float64)
    found = measures.deletion_insertion(map_, x, network.weight[:1].detach())
    for name in ("deletion", "insertion"):
        assert float(found[name]) == pytest.approx((0.5 * 10 + 4 + 0 + 0) / 4 / 10)
        assert float(found[f"{name}_distance"]) == pytest.approx((0.5 * 10 + 4 + 0 + 2) / 4 / 10)


def test_sensitivity_of_a_linear_map_is_the_change_of_the_row(linear):
    methods, measures = script("attribution.methods"), script("attribution.measures")
    found = measures.max_sensitivity(linear, linear.X_train[:3], methods.local, rng(0))
    assert ((found > 0) & (found < 0.5)).all()


def rng(seed):
    return np.random.default_rng(seed)


# --- tasks ----------------------------------------------------------------------------------------


def test_three_features_of_each_row_are_shifted():
    perturbation = script("attribution.perturbation")
    X = rng(1).normal(size=(50, 8))
    moved, changed = perturbation.shifted(X, 5.0, 0.0, rng(0))
    assert ((moved - X != 0).sum(1) == 3).all()
    np.testing.assert_allclose(np.take_along_axis(moved - X, changed, 1), 5.0)
    assert len({tuple(sorted(row)) for row in changed}) > 20
    jittered, _ = perturbation.shifted(X, 5.0, 0.1, rng(0))
    assert (jittered != X).all()


def test_recall_counts_named_features_and_draws_ties():
    recall = script("attribution.perturbation").recall_at_3
    changed = np.array([[0, 1, 2]])
    assert recall(np.array([[-9.0, 5, 3, 1, 0]]), changed, rng(0)) == 1
    assert recall(np.array([[0.0, 5, 3, 4, 0]]), changed, rng(0)) == pytest.approx(2 / 3)
    ties = [recall(np.zeros((1, 30)), changed, rng(seed)) for seed in range(200)]
    assert np.mean(ties) == pytest.approx(0.1, abs=0.04)


def test_made_clusters_differ_in_the_answer_alone():
    clusters = script("attribution.clusters")
    X, labels, answer = clusters.made(clusters.Design(3, 20, 0.5), rng(0))
    means = np.array([X[labels == label].mean(0) for label in (0, 1)])
    differs = np.abs(means[1] - means[0]) > 3
    assert set(np.flatnonzero(differs)) == set(answer)
    assert clusters.precision(means[1] - means[0], answer) == 1


def test_the_answer_for_made_clusters_is_found():
    clusters, problems = script("attribution.clusters"), script("attribution.problems")
    X, labels, answer = clusters.made(clusters.Design(3, 10, 0.5), rng(0))
    map_ = problems.fitted(X[:300], "atlas", 0, max_iter=60)
    found = clusters.cluster_shares(map_, X[:300], labels[:300], 0, 1)
    assert clusters.precision(found["ours: path"], answer) == 1
    assert set(clusters.CLUSTER_PEERS) < set(found)


def test_rank_sum_is_scipys():
    clusters = script("attribution.clusters")
    X = rng(0).poisson(1.5, size=(60, 4)) + np.array([0, 0, 1, 3]) * (np.arange(60) < 25)[:, None]
    labels = (np.arange(60) >= 25).astype(int)
    z = clusters.rank_sum(X, labels, 0, 1)
    p = stats.mannwhitneyu(X[:25], X[25:], method="asymptotic", use_continuity=False, axis=0).pvalue
    np.testing.assert_allclose(2 * stats.norm.sf(z), p, rtol=1e-9)
    assert clusters.overlap(z, p - 1, n_features=2) == 2


def test_a_log_normalised_cell_has_the_median_total():
    counts = rng(0).poisson(3.0, size=(11, 30))
    X = script("attribution.clusters").log_normalised(counts)
    np.testing.assert_allclose(np.expm1(X).sum(1), np.median(counts.sum(1)))


@pytest.mark.parametrize(
    ("name", "shape"), [("toy", (10,)), ("diabetes", (10,)), ("breast_cancer", (30,))]
)
def test_columns_are_standardised_by_the_training_rows(name, shape):
    rows = script("attribution.problems").problem(name)
    assert rows.X_train.shape[1:] == rows.X_test.shape[1:] == shape
    np.testing.assert_allclose(rows.X_train.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(rows.X_train.std(0), 1)
    assert len(rows.X_test) <= 200


# --- command and page -----------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Runs of a part that costs nothing."""
    parts = script("attribution.parts")
    calls = []

    def measure(dataset, projection, seed):
        calls.append((dataset, projection, seed))
        return {"ours: path": {"seconds_per_1000": 2.0 + seed}, "slow": {"seconds_per_1000": 30.0}}

    part = parts.PARTS["timing"]._replace(measure=measure, datasets=("iris",), largest_seed=1)
    monkeypatch.setitem(parts.PARTS, "timing", part)
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- timing -->\nold\n<!-- /timing -->\nbelow\n")
    command = ["--only", "timing", "--output", str(tmp_path), "--into", str(page)]
    return SimpleNamespace(calls=calls, command=command, page=page, folder=tmp_path)


def test_a_part_is_measured_once_and_written_into_the_page(measured):
    explanations = script("explanations")
    assert explanations.main(measured.command) == 0
    assert explanations.main(measured.command) == 0
    assert measured.calls == [("iris", p, seed) for p in ("atlas", "mlp") for seed in (0, 1)]
    record = json.loads((measured.folder / "explanations-timing-iris.json").read_text())
    assert record["conditions"]["threads"] >= 1
    assert record["conditions"]["versions"]["captum"]
    text = measured.page.read_text()
    assert text.startswith("above\n<!-- timing -->\nProcessor seconds")
    assert "| ours: path | 2.50 / 2.50 |" in text
    assert "old" not in text
    assert text.endswith("<!-- /timing -->\nbelow\n")
    assert explanations.main([*measured.command, "--force", "--seeds", "0"]) == 0
    assert len(measured.calls) == 6


def test_the_best_is_bold_and_controls_take_no_part():
    page = script("attribution.page")
    cells = page.bold([".10 ±.01", ".20", ".10"], [0.1, 0.2, None], higher_wins=False)
    assert cells == ["**.10 ±.01**", ".20", ".10"]
    assert page.median([0.1, 0.3, 0.2]) == ".200 ±.100"
    assert page.median([]) == "–"
    assert page.median([1e-16]) == "<.001"


def test_the_page_shows_the_committed_figures():
    page, records = script("attribution.page"), script("records")
    text = page.PAGE.read_text("utf-8")
    parts = page.read_parts(records.RESULTS)
    assert set(parts) == set(page.SECTIONS)
    assert page.filled(text, parts) == text
