"""Operations that are refused, that escape the graph, and rules of one's own."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import Case, apply
from ptsne.linearize import (
    CompletenessError,
    Held,
    LinearizationError,
    UnsupportedOperation,
    as_constant,
    gain,
    linearization_rule,
    linearize,
    modules,
    table,
)
from ptsne.linearize.rule import RuleBook
from reference_linearize import jacobian, relative_gap

# ---- refusals ----

SPREAD = torch.linspace(0.5, 2, 8, dtype=torch.float64)
HALVES = torch.tensor([[0, 1] * 4])
MIXED = ("CopySlices", "NativeBatchNorm")
REFUSED = {
    "Softmax": (lambda m, x: torch.softmax(x @ m.A, 1), "logits"),
    "LogSoftmax": (lambda m, x: torch.log_softmax(x @ m.A, 1), "logits"),
    "Logsumexp": (lambda m, x: torch.logsumexp(x, 1), "tangent"),
    "Prod": (lambda m, x: x.prod(1), "linearization_rule"),
    "Div": (lambda m, x: m.w / (x.square() + 1), "gate depends on x"),
    "DivBackward": (lambda m, x: torch.div(x, m.w, rounding_mode="floor"), "with rounding"),
    "Addcdiv": (lambda m, x: torch.addcdiv(m.w, m.w, x.square() + 1), "gate depends on x"),
    "ScatterReduce": (lambda m, x: x.scatter_reduce(1, HALVES, x @ m.A, "prod"), "a product"),
    "NativeLayerNorm": (lambda m, x: F.layer_norm(x, (8,), x.mean(0)), "outside the norm"),
    "NativeGroupNorm": (lambda m, x: F.group_norm(x, 2, m.w, x.sum(0)), "outside the norm"),
    "BatchNorm": (lambda m, x: F.batch_norm(x, 0 * SPREAD, SPREAD, x.sum(0)), "outside the norm"),
    "Reciprocal": (lambda m, x: x.reciprocal(), "no rule"),
    "Std": (lambda m, x: x.std(1), "no rule"),
    "Pow": (lambda m, x: x.abs() ** -1.0, "division"),
    "Log": (lambda m, x: x.abs().log(), "no rule"),
    "Cdist": (lambda m, x: torch.cdist(x, m.A), "no rule"),
    "CopySlices": (lambda m, x: _sigmoid_slice(x), "part of a tensor"),
    "NativeBatchNorm": (lambda m, x: F.batch_norm(x, None, None, training=True), "batch"),
}


def _sigmoid_slice(x):
    x = x * 1
    x[:, :4].sigmoid_()
    return x


@pytest.mark.parametrize("name", REFUSED)
def test_refused_operations_are_named_with_their_module_and_advice(name):
    function, advice = REFUSED[name]
    inner = apply(function)
    model = nn.Sequential(nn.Identity(), inner).eval()
    with pytest.raises(UnsupportedOperation, match=rf"{name}.*module '1'.*{advice}"):
        linearize(model, Case("", nn.Identity).x(3 if name in MIXED else 1))


@pytest.mark.parametrize("name", [n for n in REFUSED if n not in MIXED])
def test_the_tangent_needs_no_rule(name):
    model, x = apply(REFUSED[name][0]), Case("", nn.Identity).x(1)
    lin = linearize(model, x, activation="tangent")
    weight = lin.weight()
    assert relative_gap(lin, x, weight, lin.bias()) < 1e-12
    torch.testing.assert_close(weight, jacobian(model, x), rtol=1e-10, atol=1e-11)


def test_what_is_only_a_gate_needs_no_rule():
    model = apply(lambda m, x: x * torch.softmax(x.prod(1, keepdim=True) * x, 1))
    x = Case("", nn.Identity).x()
    lin = linearize(model, x)
    assert relative_gap(lin, x, lin.weight(), lin.bias()) < 1e-12


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="'secant' or 'tangent'; got 'chord'"):
        linearize(nn.Linear(8, 3).eval(), torch.zeros(1, 8), activation="chord")
    with pytest.raises(ValueError, match=r"at least one row; got shape \(0, 8\)"):
        linearize(nn.Linear(8, 3).eval(), torch.zeros(0, 8))


def test_training_mode_is_refused():
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout())
    with pytest.raises(UnsupportedOperation, match=r"training mode; call model.eval\(\)"):
        linearize(model, torch.zeros(1, 8))


def test_half_precision_and_whole_numbers_are_refused():
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        with pytest.raises(TypeError, match="float32 or float64"):
            linearize(nn.Linear(8, 3).eval(), torch.zeros(1, 8, dtype=dtype))


READS = {
    "float": lambda m, x: x + float(x.detach().sum()),
    "item": lambda m, x: x * x.max().item(),
    "tolist": lambda m, x: x + torch.tensor(x.detach().tolist(), dtype=x.dtype),
    "numpy": lambda m, x: x + torch.from_numpy(x.detach().numpy()),
    "array": lambda m, x: x + torch.from_numpy(np.asarray(x.detach())),
}


@pytest.mark.parametrize("name", READS)
def test_numbers_read_from_x_are_refused(name):
    with pytest.raises(UnsupportedOperation, match="reads numbers"):
        linearize(apply(READS[name]), torch.ones(1, 8, dtype=torch.float64))


def test_branches_may_be_read():
    model = apply(lambda m, x: x * 2 if bool((x > 0).any()) else x[:, : int((x > 9).sum())])
    weight = linearize(model, torch.ones(1, 8, dtype=torch.float64)).weight()
    torch.testing.assert_close(weight[0], 2 * torch.eye(8, dtype=torch.float64))


def test_less_precise_types_on_the_way():
    x = Case("", nn.Identity).x()
    lin = linearize(apply(lambda m, x: (x.float() @ m.A.float()).double() + 1), x)
    assert 1e-14 < relative_gap(lin, x, lin.weight(), lin.bias()) < 1e-5
    with pytest.raises(UnsupportedOperation, match=r"computes in torch\.bfloat16"):
        linearize(apply(lambda m, x: x.bfloat16() + 1), x)


def test_a_tuple_output_is_refused():
    with pytest.raises(UnsupportedOperation, match="one tensor, not tuple"):
        linearize(apply(lambda m, x: (x, x)), torch.ones(1, 8, dtype=torch.float64))


def test_in_place_operations_that_torch_cannot_differentiate():
    with pytest.raises(UnsupportedOperation, match="out-of-place"):
        linearize(apply(lambda m, x: F.relu(x @ m.A).add_(x)), Case("", nn.Identity).x()).weight()


# ---- never silent ----


def _no_grad(m, x):
    with torch.no_grad():
        h = x.sin()
    return x @ m.A + h


def _overwrite(m, x):
    h = x * m.w
    with torch.no_grad():
        h[:, 0] = x[:, 1] * 2
    return h


ESCAPES = {
    "detach": lambda m, x: x @ m.A + x.detach(),
    "detached_shift": lambda m, x: x - x.mean(1, keepdim=True).detach(),
    "no_grad": _no_grad,
    "overwrite": _overwrite,
    "data": lambda m, x: x + (x.data * m.w),
    "detached_whole": lambda m, x: x.detach() * m.w,
    "joined": lambda m, x: torch.cat([x, x.detach()], 1),
    "chosen": lambda m, x: torch.where(x > 0, x, x.detach()),
    "written": lambda m, x: torch.zeros_like(x).index_copy(1, torch.arange(8), x.detach()) + x,
    "nan": lambda m, x: x + torch.nan,
    "infinite": lambda m, x: x / (x[:, :1] * 0).abs(),
    "mixed": lambda m, x: x + x.flip(0),
    "batch_mean": lambda m, x: x - x.mean(0),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_what_escapes_the_graph_is_an_error(name):
    x = Case("", nn.Identity).x()
    with pytest.raises((CompletenessError, UnsupportedOperation)):
        linearize(apply(ESCAPES[name]), x).weight()
    with pytest.raises((CompletenessError, UnsupportedOperation)):
        linearize(apply(ESCAPES[name]), x).linear_part()


@pytest.mark.parametrize("name", ["detach", "no_grad", "nan"])
def test_the_error_is_about_completeness_and_names_suspects(name):
    said = "Likely causes: NaN" if name == "nan" else "add in the model"
    with pytest.raises(CompletenessError, match=said):
        linearize(apply(ESCAPES[name]), Case("", nn.Identity).x()).weight()


def test_a_detached_factor_is_a_gate_of_the_users_choice():
    x = Case("", nn.Identity).x()
    weight = linearize(apply(lambda m, x: x * x.detach()), x).weight()
    torch.testing.assert_close(weight, torch.diag_embed(x))


# ---- extension ----


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx, gradient):
        (z,) = ctx.saved_tensors
        return 3 * z**2 * gradient


def test_rule_for_a_function_of_ones_own(monkeypatch):
    monkeypatch.setattr(table, "RULES", RuleBook(table.RULES))
    model, x = apply(lambda m, x: Cube.apply(x @ m.A)), Case("", nn.Identity).x()
    with pytest.raises(UnsupportedOperation, match="CubeBackward"):
        linearize(model, x)

    @linearization_rule(Cube)
    def cube(operation):
        (z,) = operation.node.saved_tensors
        return gain(operation, z**2)

    lin = linearize(model, x)
    assert relative_gap(lin, x, lin.weight(), lin.bias()) < 1e-12

    @linearization_rule("CubeBackward")
    def wrong(operation):
        return Held()

    with pytest.raises(CompletenessError):
        linearize(model, x).weight()


def test_all_outputs_at_once_need_a_second_derivative():
    x = Case("", nn.Identity).x()
    lin = linearize(apply(lambda m, x: torch.cdist(x, m.A, p=1)), x, activation="tangent")
    assert lin.weight().shape == (3, 8, 8)
    with pytest.raises(UnsupportedOperation, match=r"second derivative.*weight\(\)"):
        lin.linear_part()


class Temperature(nn.Module):
    def forward(self, z):
        return torch.softmax(z, 1) + z.logsumexp(1, keepdim=True)


def test_rule_for_a_module_of_ones_own(monkeypatch):
    rules = {}
    monkeypatch.setattr(table, "MODULE_RULES", rules)
    monkeypatch.setattr(modules, "MODULE_RULES", rules)
    model = nn.Sequential(nn.Linear(8, 3), Temperature()).double().eval()
    x = Case("", nn.Identity).x()
    with pytest.raises(UnsupportedOperation):
        linearize(model, x)

    @linearization_rule(Temperature)
    def temperature(module, z):
        y = module(z)
        slope = (torch.softmax(z, 1) / z).detach()
        return slope * z + as_constant(y - slope * z)

    lin = linearize(model, x)
    assert relative_gap(lin, x, lin.weight(), lin.bias()) < 1e-12
    rules[Temperature] = lambda module, z: z
    with pytest.raises(LinearizationError, match="must return what the module returns"):
        linearize(model, x)
