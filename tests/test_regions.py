"""The radius of a row's linear region, and what has no region."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import SMOOTH, Case, apply, ids
from ptsne.linearize import CompletenessError, UnsupportedOperation, linearize
from ptsne.regions import (
    Unit,
    activation_pattern,
    distances,
    integrated_gradients,
    region_radius,
    segment_regions,
)
from reference_regions import lands_by_bisection, radius_by_rows, relu_pattern, unit_directions
from region_cases import CASES, SWITCHING, atlas_map, mlp, named, normal, region_switches

NORMS = [1, 2, math.inf]


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


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_the_pattern_changes_at_the_radius_and_not_before(case):
    model, x = case.model(), case.x()
    for p in NORMS if region_switches(case) else [2]:
        check_boundary(model, x, p)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_the_network_is_affine_in_the_ball(case):
    """Looked at from outside: a switch that is not known of would show as a kink or a jump."""
    model, x = case.model(), case.x()
    reach = 0.999 * spread(region_radius(model, x).radius.clamp_max(10.0), x)
    for direction in unit_directions(case.shape, 8, 2, torch.Generator().manual_seed(0)):
        with torch.no_grad():
            ahead, here, behind = (model(x + f * reach * direction) for f in (1, 0, -1))
        torch.testing.assert_close(ahead + behind, 2 * here, rtol=1e-9, atol=1e-9)


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


def _shrink_positive(m, x):
    """Runs as many units as a row has positive columns."""
    row, column = (x > 0).nonzero(as_tuple=True)
    return torch.zeros_like(x).index_put((row, column), torch.relu(x[row, column] - 0.3))


@pytest.mark.parametrize("n", [2, 3])
def test_rows_that_run_different_numbers_of_units(n):
    x = torch.tensor([[0.2, 0.7, -0.4], [0.5, -0.1, -0.6], [1.0, 0.8, -0.9]]).double()[:n]
    result = region_radius(apply(_shrink_positive, (3,)), x)
    torch.testing.assert_close(result.radius, torch.tensor([0.1, 0.1, 0.5]).double()[:n])
    with pytest.raises(ValueError, match=r"runs 4 to 5 units, depending on the row; ask"):
        activation_pattern(apply(_shrink_positive, (3,)), x)


# ---- modules that announce their switches ----


class Gate(nn.Module):
    """A ReLU whose gate autograd does not see."""

    def forward(self, z):
        return z * _without_gradient(lambda: (z > 0).to(z.dtype))

    def switches(self, z):
        return {"gate": (z, torch.arange(z.shape[1]), z.shape[1])}


class Gated(nn.Module):
    """Announces what a module inside announces too."""

    def __init__(self):
        super().__init__()
        self.gate = Gate()

    def forward(self, z):
        return self.gate(z) + 1

    def switches(self, z):
        return self.gate.switches(z)


class Learnt(Gate):
    """Its gate is a parameter, which x does not move."""

    def __init__(self, n, *, is_frozen):
        super().__init__()
        self.level = nn.Parameter(torch.linspace(-1, 1, n), requires_grad=not is_frozen)

    def forward(self, z):
        return z * (self.level > 0)

    def switches(self, z):
        return super().switches(self.level.expand_as(z))


@pytest.mark.parametrize("module", [Gate, Gated])
def test_announced_switches_count_once(module):
    layer, x = Case("", lambda: nn.Linear(5, 30)).model(), normal(4, 5)
    ours = region_radius(nn.Sequential(layer, module()).eval(), x)
    theirs = region_radius(nn.Sequential(layer, nn.ReLU()).eval(), x)
    torch.testing.assert_close(ours.radius, theirs.radius)
    assert [u.index for u in ours.unit] == [u.index for u in theirs.unit]
    assert {(u.layer, u.operation) for u in ours.unit} == {("1", "gate")}
    assert activation_pattern(nn.Sequential(layer, module()).eval(), x).shape == (4, 30)


def test_a_module_that_announces_but_does_not_see_x_has_no_switches():
    model = apply(lambda m, x: x @ m.A + m.gate(m.w[None]))
    model.gate = Gate().eval()
    assert region_radius(model, normal(3, 8)).unit == [None] * 3
    assert activation_pattern(model, normal(3, 8)).shape == (3, 0)


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("n", [8, 40])
def test_announced_switches_that_x_does_not_move_are_no_boundary(n, is_frozen):
    model = nn.Sequential(nn.Linear(3, n), Learnt(n, is_frozen=is_frozen)).double().eval()
    a, b = normal(2, 3)
    result = region_radius(model, a[None])
    assert result.radius.tolist() == [math.inf]
    assert not result.direction.any()
    assert segment_regions(model, a, b).breakpoints.tolist() == [0.0, 1.0]


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


def test_maxima_over_scattered_groups_are_refused():
    case = named("scatter_reduce")
    with pytest.raises(UnsupportedOperation, match=r"ScatterReduce.*next branch.*amax"):
        region_radius(case.model(), case.x())


@pytest.mark.parametrize("name", ["fmod", "remainder", "prelu"])
def test_steps_and_slopes_that_depend_on_x_are_refused(name):
    by_x = {"prelu": lambda m, x: F.prelu(x @ m.A, x.abs().mean(0))}
    function = by_x.get(name, lambda m, x: getattr(torch, name)(x @ m.A, x.abs() + 1))
    with pytest.raises(UnsupportedOperation, match="its first input depend on x"):
        region_radius(apply(function), normal(1, 8))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="p must be 1, 2 or inf; got 3"):
        region_radius(nn.Linear(3, 2).eval(), torch.ones(1, 3), 3)
    with pytest.raises(UnsupportedOperation, match="training mode"):
        region_radius(nn.Sequential(nn.Dropout()), torch.ones(1, 3))
    with pytest.raises(TypeError, match="float32 or float64"):
        activation_pattern(nn.Linear(3, 2).eval(), torch.ones(1, 3, dtype=torch.int64))
