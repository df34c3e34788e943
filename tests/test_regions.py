import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from cases import PIECEWISE, SMOOTH, Apply, Case, ids
from ptsne.linearize import (
    CompletenessError,
    LinearizationError,
    UnsupportedOperation,
    linearize,
)
from ptsne.networks import AtlasProjection, MapNetwork, SkipNetwork, Standardize
from ptsne.regions import (
    Unit,
    activation_pattern,
    distances,
    integrated_gradients,
    region_radius,
    segment_regions,
)
from reference_regions import (
    breakpoints_by_sampling,
    lands_by_bisection,
    radius_by_rows,
    relu_pattern,
    unit_directions,
)

NORMS = [1, 2, math.inf]
REFUSED = {"fractional_max_pool2d", "fractional_max_pool3d", "atlas"}
CASES = [case for case in PIECEWISE if case.name not in REFUSED]


def named(name):
    return next(case for case in PIECEWISE + SMOOTH if case.name == name)


def apply(function, shape=(8,)):
    return Case("", lambda: Apply(function), shape).model()


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def mlp(*sizes, activation=nn.ReLU):
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), activation())]
    return Case("", lambda: nn.Sequential(*layers[:-1]), (sizes[0],)).model()


def atlas_map(d=10, latent=4, m=30, *, temperature=4.0, clip=1.0, widths=()):
    """An untrained map with its landmarks among the rows, and rows."""
    rows = normal(m, d)
    encoder = nn.Sequential(
        Standardize(normal(d, seed=1), torch.tensor(1.5, dtype=torch.float64)),
        SkipNetwork(normal(latent, d, seed=2) / d**0.5, widths),
    ).double()
    if widths:
        encoder[1].branch[-1].weight.data = normal(latent, widths[-1], seed=6) / 5
    head = AtlasProjection(encoder(rows).detach(), 2, temperature=temperature, clip=clip).double()
    with torch.no_grad():
        head.places.copy_(5 * normal(m, 2, seed=3))
        head.charts.copy_(normal(m, 2, latent, seed=4))
    return MapNetwork(encoder, head).eval(), rows[:20] + 0.5 * normal(20, d, seed=5)


def spread(radius, x):
    return radius.reshape(-1, *(1,) * (x.dim() - 1))


def check_boundary(model, x, p):
    """The pattern holds up to the radius along the direction, and no further."""
    result, here = region_radius(model, x, p), activation_pattern(model, x)
    bounded = result.radius.isfinite()
    step = spread(result.radius.masked_fill(~bounded, 1.0), x) * result.direction
    before, after = (activation_pattern(model, x + f * step) for f in (0.999, 1.001))
    assert torch.equal(before, here)
    assert bool(((after != here).any(1) | ~bounded).all())
    norm = torch.linalg.vector_norm(result.direction.flatten(1), p, 1)
    torch.testing.assert_close(norm, bounded.to(norm), rtol=1e-12, atol=1e-12)
    return result


# ---- radius ----


def region_switches(case):
    """How many switches a case has."""
    return activation_pattern(case.model(), case.x(1)).shape[1]


SWITCHING = [case for case in CASES if region_switches(case)]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_the_pattern_changes_at_the_radius_and_not_before(case):
    model, x = case.model(), case.x()
    for p in NORMS if region_switches(case) else [2]:
        check_boundary(model, x, p)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("widths", [(), (6,)])
def test_the_pattern_of_a_map_changes_at_its_radius(widths, p):
    network, x = atlas_map(widths=widths)
    result = check_boundary(network, x, p)
    assert len({unit.operation for unit in result.unit}) > 1


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("name", ["lenet", "residual", "dense", "median", "sparsemax", "clip_by_x"])
def test_no_point_of_the_ball_has_another_pattern(name, p):
    case = named(name)
    model, x = case.model(), case.x()
    radius, here = region_radius(model, x, p).radius, activation_pattern(model, x)
    for i in range(len(x)):
        directions = unit_directions(case.shape, 300, p, torch.Generator().manual_seed(i))
        around = activation_pattern(model, x[i] + (1 - 1e-9) * radius[i] * directions)
        assert torch.equal(around, here[i].expand_as(around))


@pytest.mark.parametrize("p", NORMS)
def test_no_direction_leaves_earlier(p):
    model = mlp(5, 12, 9, 2)
    x = normal(3, 5)
    result = region_radius(model, x, p)
    for i in range(len(x)):
        directions = unit_directions((5,), 15, p, torch.Generator().manual_seed(i))
        ends = [
            lands_by_bisection(lambda v: relu_pattern(model, v), x[i], v, 10.0)
            for v in [*directions, result.direction[i]]
        ]
        assert min(ends) == ends[-1] == pytest.approx(float(result.radius[i]), rel=1e-9)


def hidden_inputs(model):
    """Inputs of the ReLUs of a sequential network."""

    def margins(x):
        parts = []
        for layer in model:
            if isinstance(layer, (nn.ReLU, nn.LeakyReLU)):
                parts.append(x.flatten(1))
            x = layer(x)
        return torch.cat(parts, 1)

    return margins


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("sizes", [(6, 30, 20, 3), (40, 30, 60, 3), (3, 50, 2)])
def test_radius_equals_the_least_distance_of_all_switches(sizes, p):
    model, x = mlp(*sizes, activation=nn.LeakyReLU), normal(7, sizes[0])
    expected = radius_by_rows(hidden_inputs(model), x, p)
    torch.testing.assert_close(region_radius(model, x, p).radius, expected, rtol=1e-12, atol=0)


def test_radius_of_two_pixels_by_hand():
    model = apply(lambda m, x: torch.maximum(x[:, :1], x[:, 1:]), (2,))
    result = region_radius(model, torch.tensor([[1.0, 3.0]]), 2)
    assert float(result.radius) == pytest.approx(math.sqrt(2))
    torch.testing.assert_close(result.direction, torch.tensor([[1.0, -1.0]]) / math.sqrt(2))
    assert result.unit == [Unit("", "maximum", 0)]


def test_weights_are_constant_in_the_ball():
    network, x = atlas_map()
    radius, directions = region_radius(network, x).radius, normal(len(x), 10, seed=9)
    moved = x + 0.99 * radius[:, None] * directions / directions.norm(dim=1, keepdim=True)
    ours, theirs = linearize(network, x), linearize(network, moved)
    torch.testing.assert_close(ours.weight(), theirs.weight(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.bias(), theirs.bias(), rtol=1e-9, atol=1e-9)


def test_the_unit_is_the_one_that_flips():
    model, x = mlp(6, 15, 10, 2), normal(5, 6)
    result = region_radius(model, x)
    for i, unit in enumerate(result.unit):
        inside, outside = (
            relu_pattern(model, (x[i] + f * result.radius[i] * result.direction[i])[None])[0]
            for f in (1 - 1e-9, 1 + 1e-9)
        )
        flipped = (inside != outside).nonzero().flatten().tolist()
        assert flipped == [unit.index + {"1": 0, "3": 15}[unit.layer]]


def test_linear_networks_have_no_boundary():
    result = region_radius(nn.Linear(3, 2).eval(), torch.ones(4, 3))
    assert result.radius.tolist() == [math.inf] * 4
    assert result.unit == [None] * 4
    assert not result.direction.any()
    assert activation_pattern(nn.Linear(3, 2).eval(), torch.ones(4, 3)).shape == (4, 0)


def test_ties_among_dead_units_are_no_boundary():
    pool = nn.Sequential(nn.ReLU(), nn.MaxPool1d(2)).eval()
    x = torch.tensor([[[-1.0, -2.0, 5.0, 3.0]]])
    assert float(region_radius(pool, x).radius) == 1.0


def test_a_row_on_a_boundary_has_radius_zero():
    result = region_radius(nn.MaxPool1d(2).eval(), torch.tensor([[[2.0, 2.0, 5.0, 3.0]]]))
    assert float(result.radius) == 0.0
    assert result.unit == [Unit("", "maxpool2dwithindices", 1)]


@pytest.mark.parametrize("case", SWITCHING, ids=ids)
def test_rows_columns_and_closed_forms_agree(case, monkeypatch):
    model, x = case.model(), case.x()
    for p in (1, 2):
        by_rows = region_radius(model, x, p)
        monkeypatch.setattr(distances, "_FEW", 0)
        monkeypatch.setattr(distances, "_COLUMNS", 3)
        torch.testing.assert_close(region_radius(model, x, p).radius, by_rows.radius)
        monkeypatch.undo()


# ---- precision, memory, layout ----


def test_single_precision_is_computed_in_double():
    case = named("lenet")
    x = case.x(dtype=torch.float32)
    model = case.model(torch.float32)
    before = [p.clone() for p in model.parameters()]
    result = region_radius(model, x)
    double = region_radius(model.double(), x.double())
    assert result.radius.dtype == result.direction.dtype == torch.float32
    assert torch.equal(result.radius, double.radius.float())
    assert torch.equal(result.direction, double.direction.float())
    assert all(torch.equal(p, q.double()) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(("budget", "p"), [(1, 2), (60_000, 2), (60_000, 1)])
def test_chunks_agree_with_the_whole(budget, p):
    for model, rows in (atlas_map(), (named("lenet").model(), named("lenet").x(3))):
        x = rows[:7]
        whole, parts = region_radius(model, x, p), region_radius(model, x, p, memory_budget=budget)
        torch.testing.assert_close(parts.radius, whole.radius, rtol=1e-10, atol=0)
        assert parts.unit == whole.unit
        pattern = activation_pattern(model, x, memory_budget=budget)
        assert torch.equal(pattern, activation_pattern(model, x))


@pytest.mark.parametrize("name", ["time_major", "ragged"])
def test_rows_in_any_layout(name):
    model, x = named(name).model(), named(name).x(4)
    alone = [region_radius(model, x[i : i + 1]) for i in range(4)]
    whole = region_radius(model, x)
    torch.testing.assert_close(whole.radius, torch.cat([a.radius for a in alone]))
    assert whole.unit == [a.unit[0] for a in alone]


def test_rows_that_depend_on_others_are_refused():
    model = apply(lambda m, x: torch.relu(x - x.mean(0)))
    with pytest.raises(CompletenessError, match="others in its batch"):
        region_radius(model, normal(3, 8))


def test_the_caller_is_untouched():
    case = named("lenet")
    model, x = case.model(), case.x()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    region_radius(model, x)
    after = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert hooks == after
    assert torch.equal(state, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_makes_no_difference(mode):
    model, x = mlp(6, 15, 10, 2), normal(3, 6)

    def all_of_it():
        gradients = integrated_gradients(model, x, x[0] / 2, 0)
        smooth = integrated_gradients(model, x, x[0] / 2, 0, method="quadrature")
        walked = segment_regions(model, x[0], x[1])
        return [
            *region_radius(model, x)[:2],
            activation_pattern(model, x),
            *walked,
            gradients,
            smooth,
        ]

    expected = all_of_it()
    with mode():
        found = all_of_it()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


# ---- what is refused ----


@pytest.mark.parametrize("name", ["gelu", "tanh", "sigmoid", "softplus", "layer_norm", "attention"])
def test_smooth_operations_are_refused_by_name_with_advice(name):
    case = named(name)
    with pytest.raises(UnsupportedOperation, match=r"Backward.*(tangent).*quadrature"):
        region_radius(case.model(), case.x())


def test_no_smooth_case_passes():
    exempt = {"sqrt"}  # nothing: each of them has a smooth operation somewhere
    for case in SMOOTH:
        if case.name not in exempt:
            with pytest.raises(UnsupportedOperation):
                region_radius(case.model(), case.x())


HIDDEN = {
    "no_grad": lambda m, x: x * _without_gradient(lambda: (x @ m.A > 0).to(x.dtype)),
    "detach": lambda m, x: torch.where(x.detach() > 0, x, 2 * x),
    "cast": lambda m, x: x * m.w[x.long().clamp(0, 7)],
    "value": lambda m, x: x * x.detach(),
    "read": lambda m, x: x if bool((x.detach() > 0).all()) else 2 * x,
}


def _without_gradient(function):
    with torch.no_grad():
        return function()


@pytest.mark.parametrize("name", HIDDEN)
def test_branches_that_cannot_be_known_are_refused(name):
    with pytest.raises(UnsupportedOperation, match="switches"):
        region_radius(apply(HIDDEN[name]), normal(3, 8))


def test_fractional_pooling_is_refused():
    case = named("fractional_max_pool2d")
    with pytest.raises(UnsupportedOperation, match="at random"):
        region_radius(case.model(), case.x())


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="p must be 1, 2 or inf; got 3"):
        region_radius(nn.Linear(3, 2).eval(), torch.ones(1, 3), 3)
    with pytest.raises(UnsupportedOperation, match="training mode"):
        region_radius(nn.Sequential(nn.Dropout()), torch.ones(1, 3))
    with pytest.raises(TypeError, match="float32 or float64"):
        activation_pattern(nn.Linear(3, 2).eval(), torch.ones(1, 3, dtype=torch.int64))


# ---- the way through the regions ----

JUMPS = ("hardshrink", "threshold", "where", "gate_by_mask", "round", "ragged", "max_unpool")
CONTINUOUS = [case for case in SWITCHING if not case.name.startswith(JUMPS)]


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
