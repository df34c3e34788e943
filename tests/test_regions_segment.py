"""The way through the regions, and integrated gradients along it."""

import pytest
import torch
from torch import nn

from cases import ids
from ptsne.linearize import CompletenessError, LinearizationError, UnsupportedOperation
from ptsne.networks import Standardize
from ptsne.regions import activation_pattern, integrated_gradients, segment_regions
from reference_regions import breakpoints_by_sampling
from region_cases import CONTINUOUS, SWITCHING, atlas_map, mlp, named, normal

# ---- the way through the regions ----


def at(a, b, t):
    return a + t.reshape(-1, *(1,) * a.dim()) * (b - a)


@pytest.mark.parametrize("case", SWITCHING, ids=ids)
def test_patterns_of_a_segment_hold_between_its_breakpoints_and_differ_across(case):
    model, (a, b) = case.model(), case.x(2)
    t, patterns = segment_regions(model, a, b)
    assert float(t[0]) == 0.0
    assert float(t[-1]) == 1.0
    for f in (1e-6, 0.3, 0.5, 1 - 1e-6):
        assert torch.equal(activation_pattern(model, at(a, b, t[:-1] + f * t.diff())), patterns)
    assert bool((patterns[1:] != patterns[:-1]).any(1).all())


@pytest.mark.parametrize("name", ["lenet", "residual", "atlas_map"])
def test_dense_sampling_finds_no_other_region(name):
    case = named(name) if name != "atlas_map" else None
    model, x = (case.model(), case.x(2)) if case else atlas_map(widths=(6,))
    t, patterns = segment_regions(model, x[0], x[1])
    found = breakpoints_by_sampling(lambda v: activation_pattern(model, v), x[0], x[1], 8_000)
    where = torch.bucketize(found, t[1:-1])
    assert len(patterns) > 5
    assert bool((t[1:-1][:, None] - found).abs().amin(0).max() < 1 / 8_000)
    assert len(where) <= len(patterns) - 1
    resolved = t.diff() > 2 / 8_000  # what the samples can see
    is_edge = resolved[1:] & resolved[:-1]
    assert bool((t[1:-1][is_edge][:, None] - found).abs().amin(1).max() < 1 / 8_000)


def test_segment_through_a_clip_by_hand():
    a, b = torch.tensor([-3.0, 0.5]), torch.tensor([1.5, 0.5])
    t, patterns = segment_regions(nn.Hardtanh().eval(), a, b)
    torch.testing.assert_close(t, torch.tensor([0, 2 / 4.5, 4 / 4.5, 1], dtype=torch.float64))
    assert patterns.tolist() == [[0, 1], [1, 1], [2, 1]]


def test_segment_of_no_length_and_of_no_switches():
    model, x = mlp(4, 6, 2), normal(2, 4)
    t, patterns = segment_regions(model, x[0], x[0])
    assert t.tolist() == [0.0, 1.0]
    assert torch.equal(patterns, activation_pattern(model, x[:1]))
    assert segment_regions(nn.Linear(4, 2).double().eval(), *x).patterns.shape == (1, 0)


def test_ties_along_the_whole_way_are_no_breakpoints():
    """Black pixels under a pool, before and after: their gap is zero all the way."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)).double().eval()
    image = torch.zeros(1, 12, 12, dtype=torch.float64)
    image[:, 6:9, 6:9] = normal(3, 3).abs()
    t, patterns = segment_regions(model, torch.zeros_like(image), image)
    assert len(patterns) < 40
    assert float(t.diff().min()) > 1e-12


def test_the_walk_gives_up_beyond_max_regions():
    model, x = mlp(20, 100, 100, 2), normal(2, 20)
    with pytest.raises(LinearizationError, match="more than 10 linear regions"):
        segment_regions(model, x[0], x[1], max_regions=10)
    with pytest.raises(ValueError, match="one shape"):
        segment_regions(model, x[0], x[1, :10])


# ---- integrated gradients ----


@pytest.mark.parametrize("case", CONTINUOUS, ids=ids)
def test_exact_integrated_gradients_are_complete(case):
    model, x, baseline = case.model(), case.x(2), case.x(2, seed=2)
    with torch.no_grad():
        change = (model(x) - model(baseline)).reshape(len(x), -1)[:, 0]
    parts = integrated_gradients(model, x, baseline, 0)
    torch.testing.assert_close(parts.flatten(1).sum(1), change, rtol=1e-12, atol=1e-12)


def test_integrated_gradients_of_a_map_are_complete():
    network, x = atlas_map(widths=(6,))
    for target in (0, 1):
        parts = integrated_gradients(network, x[:3], x.mean(0), target)
        with torch.no_grad():
            change = (network(x[:3]) - network(x.mean(0)[None]))[:, target]
        torch.testing.assert_close(parts.sum(1), change, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["lenet", "residual"])
def test_exact_integrated_gradients_are_where_captum_goes_to(name):
    captum = pytest.importorskip("captum.attr")
    case = named(name)
    model, x, baseline = case.model(), case.x(2), case.x(2, seed=2)
    flat = nn.Sequential(model, nn.Flatten()).eval()
    target = torch.tensor([0, 1])
    ours = integrated_gradients(flat, x, baseline, target)
    errors = []
    for n in (50, 1000):
        theirs = captum.IntegratedGradients(flat).attribute(
            x, baseline, target=target, n_steps=n, internal_batch_size=500
        )
        errors.append(float((ours - theirs).abs().max() / ours.abs().max()))
    assert errors[1] < 5e-3
    assert errors[1] < errors[0]


def test_quadrature_agrees_with_captum_and_serves_smooth_networks():
    captum = pytest.importorskip("captum.attr")
    case = named("gelu")
    model, x, baseline = case.model(), case.x(), case.x(1, seed=2)
    ours = integrated_gradients(model, x, baseline, 1, method="quadrature", n_points=40)
    theirs = captum.IntegratedGradients(model).attribute(x, baseline, target=1, n_steps=40)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)  # captum's nodes are rounded
    change = (model(x) - model(baseline)).detach()[:, 1]
    torch.testing.assert_close(ours.sum(1), change, rtol=1e-8, atol=1e-8)
    with pytest.raises(UnsupportedOperation, match="quadrature"):
        integrated_gradients(model, x, baseline, 1)


def test_targets_and_baselines():
    model, x = mlp(5, 20, 4), normal(3, 5)
    predicted = model(x).argmax(1)
    by_name = integrated_gradients(model, x, torch.zeros(5))
    assert torch.equal(by_name, integrated_gradients(model, x, torch.zeros(1, 5), predicted))
    single = integrated_gradients(model.float(), x.float(), torch.zeros(5), "predicted")
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), by_name, rtol=1e-5, atol=1e-6)


def test_many_ways_are_integrated_as_one_by_one():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3))
    net = net.double().eval()
    a, b = torch.randn(2, 700, 5, dtype=torch.float64)  # more than are asked at once
    target = torch.arange(700) % 3
    together = integrated_gradients(net, b, a, target)
    for i in (0, 1, 511, 512, 699):
        alone = integrated_gradients(net, b[i : i + 1], a[i], int(target[i]))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-12, rtol=0)


def test_rows_far_from_zero_have_fewer_digits_and_no_jumps():
    standardize = Standardize(torch.full((5,), 1e8), torch.tensor(0.01))
    model = nn.Sequential(standardize, mlp(5, 30, 2)).double().eval()
    x, baseline = 1e8 + normal(2, 20, 5)
    parts = integrated_gradients(model, x, baseline, 0)
    with torch.no_grad():
        gap = (model(x) - model(baseline))[:, 0] - parts.sum(1)
    assert 1e-9 < float(gap.abs().max()) < 1e-5


def test_a_network_that_jumps_is_refused():
    case = named("threshold")
    with pytest.raises(CompletenessError, match="jumps"):
        integrated_gradients(case.model(), case.x(), case.x(seed=2), 0)


def test_arguments_of_integrated_gradients_are_checked():
    model, x = mlp(5, 20, 4), normal(3, 5)
    with pytest.raises(ValueError, match="method must be 'exact' or 'quadrature'; got 'riemann'"):
        integrated_gradients(model, x, x, 0, method="riemann")
    with pytest.raises(ValueError, match=r"baseline must have shape \(3, 5\)"):
        integrated_gradients(model, x, x[:2], 0)
