import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import CASES, Case, apply, ids
from ptsne.linearize import CompletenessError, UnsupportedOperation, paired_linearization
from reference_linearize import difference_of

PAIRED = [case for case in CASES if case.is_paired]


def rows(shape=(8,)):
    case = Case("", nn.Identity, shape)
    return case.x(), case.x(seed=7)


@pytest.mark.parametrize("case", PAIRED, ids=ids)
def test_difference_is_complete(case):
    model, x, reference = case.model(), case.x(), case.x(seed=7)
    paired = paired_linearization(model, x, reference)
    step = (x - reference).flatten(1)
    moved = torch.einsum("nmi,ni->nm", paired.weight().flatten(2), step)
    y, y0 = (model(z).detach().reshape(len(x), -1) for z in (x, reference))
    torch.testing.assert_close(moved, y - y0, rtol=1e-10, atol=1e-12)
    assert float(paired.residual().max()) < 1e-11


@pytest.mark.parametrize("case", PAIRED[::6], ids=ids)
def test_close_reference(case):
    model, x = case.model(), case.x()
    paired = paired_linearization(model, x, x + 1e-9 * case.x(seed=3))
    assert torch.isfinite(paired.weight()).all()
    assert float(paired.residual().max()) < 1e-12


@pytest.mark.parametrize("name", ["linear", "conv2d", "batch_norm2d", "square_by_product"])
def test_of_quadratic_networks_it_is_the_mean_jacobian(name):
    case = next(c for c in CASES if c.name == name)
    model, x, reference = case.model(), case.x(), case.x(seed=7)
    if name == "conv2d":
        model = model[0]
    weight = paired_linearization(model, x, reference).weight()
    torch.testing.assert_close(weight, difference_of(model, x, reference), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("function", [torch.tanh, F.gelu, torch.exp, F.relu, F.softplus])
def test_of_one_scalar_function_it_is_the_chord(function):
    x, reference = rows()
    weight = paired_linearization(apply(lambda m, x: function(x)), x, reference).weight()
    chord = (function(x) - function(reference)) / (x - reference)
    torch.testing.assert_close(weight, torch.diag_embed(chord), rtol=1e-12, atol=1e-13)


def test_shares_of_a_maximum_lie_between_zero_and_one():
    x, reference = rows()
    weight = paired_linearization(apply(lambda m, x: x.amax(1)), x, reference).weight()
    assert float(weight.min()) >= 0
    torch.testing.assert_close(weight.sum(2), torch.ones(3, 1, dtype=x.dtype))


def test_reference_on_another_branch_is_refused():
    x, reference = rows()
    with pytest.raises(UnsupportedOperation, match="another branch"):
        paired_linearization(apply(lambda m, x: x * (x > 0)), x, reference)
    with pytest.raises(UnsupportedOperation, match="another order"):
        paired_linearization(apply(lambda m, x: x.sort(1).values), x, reference)
    with pytest.raises(UnsupportedOperation, match="exact difference"):
        paired_linearization(apply(lambda m, x: x.prod(1)), x, reference)


def _tanh_of_part(m, x):
    h = x * m.w
    h[:, :3].tanh_()
    return h


def _angle_of_part(m, x):
    h = x * m.w
    h[:, :3].atan2_(x[:, :3].detach())
    return h


def _warped(m, x):
    x = x.reshape(len(x), 1, 2, 4)
    return F.grid_sample(x, x.mT, align_corners=False).flatten(1)


SPREAD = torch.linspace(0.5, 2, 8, dtype=torch.float64)
NO_DIFFERENCE = {
    "LinalgVectorNorm": (lambda m, x: x.norm(p=1, dim=1), "only the 2-norm"),
    "NativeBatchNorm": (lambda m, x: F.batch_norm(x, None, None, training=True), "the batch"),
    "NativeLayerNorm": (lambda m, x: F.layer_norm(x, (8,), x.mean(0)), "outside the norm"),
    "NativeGroupNorm": (lambda m, x: F.group_norm(x, 2, x.sum(0), m.w), "outside the norm"),
    "BatchNorm": (lambda m, x: F.batch_norm(x, 0 * SPREAD, SPREAD, x.sum(0)), "outside the norm"),
    "Trilinear": (lambda m, x: F.bilinear(x, x, x.sum(0) * m.A[None]), "all three factors"),
    "Div": (lambda m, x: torch.div(x, m.w, rounding_mode="trunc"), "with rounding"),
    "Fmod": (lambda m, x: torch.fmod(x @ m.A, x.abs() + 1), "more than one input"),
    "GridSampler2D": (_warped, "more than its first input"),
    "CopySlices": (_tanh_of_part, "tanh_ on part of a tensor"),
}


@pytest.mark.parametrize("name", NO_DIFFERENCE)
def test_what_has_no_exact_difference_is_refused_with_its_reason(name):
    function, reason = NO_DIFFERENCE[name]
    x, reference = rows()
    with pytest.raises(UnsupportedOperation, match=rf"{name}.*{reason}"):
        paired_linearization(apply(function), x, reference)


BRANCHES = {
    "number": lambda m, x: x.roll(int((x > 0).sum()), 1),
    "size": lambda m, x: x[:, : 2 + int((x > 0).sum())].sum(1),
    "list": lambda m, x: torch.cat([x] * (1 + int((x > 0).sum())), 1).sum(1),
    "value": _angle_of_part,
}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_show_in_every_kind_of_argument(name):
    x, reference = torch.ones(1, 8).double(), torch.tensor([[1.0] * 5 + [-1.0] * 3]).double()
    if name == "value":
        reference = x / 2
    with pytest.raises(UnsupportedOperation, match="another branch"):
        paired_linearization(apply(BRANCHES[name]), x, reference)


def test_numbers_that_are_none_are_an_error():
    x, reference = rows()
    with pytest.raises(CompletenessError, match="instance 0 by nan"):
        paired_linearization(apply(lambda m, x: x + torch.nan), x, reference).weight()


def test_what_escapes_the_graph_is_an_error():
    x, reference = rows()
    with pytest.raises((CompletenessError, UnsupportedOperation)):
        paired_linearization(apply(lambda m, x: x + x.detach()), x, reference).weight()


def test_one_reference_for_all_rows_and_chunks():
    case = next(c for c in CASES if c.name == "vision_transformer")
    model, x = case.model(), case.x(5)
    reference = case.x(seed=7)[0]
    whole = paired_linearization(model, x, reference)
    small = paired_linearization(model, x, reference[None], memory_budget=2**16)
    assert small._chunk < 5
    torch.testing.assert_close(small.weight("predicted"), whole.weight("predicted"))
    total = whole.attribution("predicted").flatten(1).sum(1)
    rows, best = torch.arange(5), whole.output.argmax(1)
    torch.testing.assert_close(total, (whole.output - whole.reference_output)[rows, best])


def test_reference_of_another_shape():
    with pytest.raises(ValueError, match="reference must have shape"):
        paired_linearization(nn.Linear(3, 2).eval(), torch.zeros(2, 3), torch.zeros(2))
