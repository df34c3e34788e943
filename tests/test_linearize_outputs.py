"""Layers on the way, and the choice of outputs."""

import pytest
import torch
from torch import nn

from cases import CASES, Case, apply
from ptsne.linearize import collector, linearize

# ---- layers ----


def test_layer_maps_meet_in_the_middle():
    case = next(c for c in CASES if c.name == "lenet")
    model, x = case.model(), case.x()
    lin = linearize(model, x, layers=["5", "8"])
    layer = lin.layer("8")
    weight, effect = layer.weight(), torch.stack([layer.effect(k) for k in range(3)], 1)
    torch.testing.assert_close(torch.einsum("nkj,nj...->nk...", effect, weight), lin.weight())
    h = torch.einsum("nji,ni->nj", weight.flatten(2), x.flatten(1)) + layer.bias()
    torch.testing.assert_close(h, layer.activation, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(layer.activation, model[:9](x))
    total = layer.contribution("predicted").sum(1) + model[9].bias[lin.output.argmax(1)]
    torch.testing.assert_close(total, lin.output.amax(1), rtol=1e-12, atol=1e-13)
    pooled = lin.layer("5")
    assert pooled.activation.shape == pooled.contribution(1).shape == (3, 4, 1, 1)
    torch.testing.assert_close(pooled.weight([1, 3]), pooled.weight()[:, [1, 3]])


def test_layer_before_an_in_place_activation():
    case = next(c for c in CASES if c.name == "residual")
    model, x = case.model(), case.x()
    layer = linearize(model, x, layers=["bn1"]).layer("bn1")
    torch.testing.assert_close(layer.activation, model.bn1(model.conv1(x)), rtol=1e-13, atol=1e-13)


def test_layer_that_runs_more_than_once():
    case = next(c for c in CASES if c.name == "reused")
    model, x = case.model(), case.x()
    lin = linearize(model, x, layers=["layer"])
    torch.testing.assert_close(lin.layer("layer").activation, model.layer(x))
    assert not torch.equal(lin.layer("layer", call=2).activation, model.layer(x))
    with pytest.raises(KeyError, match="ran 3 times"):
        lin.layer("layer", call=3)


@pytest.mark.parametrize("activation", ["secant", "tangent"])
def test_layer_of_a_gate(activation):
    """Gates need no rules, but a layer inside one does: the map of the whole stays what it was."""
    case = next(c for c in CASES if c.name == "squeeze_excite")
    model, x = case.model(), case.x()
    lin = linearize(model, x, activation=activation, layers=["fc1", "fc2"])
    plain = linearize(model, x, activation=activation)
    assert torch.equal(lin.weight(), plain.weight())
    assert torch.equal(lin.linear_part(), plain.linear_part())
    layer = lin.layer("fc2")
    h = (layer.weight() * x[:, None]).flatten(2).sum(2) + layer.bias()
    torch.testing.assert_close(h, layer.activation, rtol=1e-12, atol=1e-13)
    assert bool(layer.effect(0).any()) == (activation == "tangent")


def test_effect_of_one_of_two_factors():
    model, x = apply(lambda m, x: m.layer(x) * x.sin()), Case("", nn.Identity).x()
    model.layer = nn.Linear(8, 8).double().eval()
    layer = linearize(model, x, activation="tangent", layers=["layer"]).layer("layer")
    expected = torch.zeros_like(x).index_copy(1, torch.tensor([3]), x[:, 3:4].sin())
    torch.testing.assert_close(layer.effect(3), expected)


def test_layers_in_any_layout(monkeypatch):
    """Terms of a layer that cannot be told apart are asked for one row at a time."""
    model = nn.Sequential(next(c for c in CASES if c.name == "ragged").model(), nn.Linear(2, 3))
    model, x = model.double().eval(), Case("", nn.Identity).x(5)
    expected = linearize(model, x, layers=["0"]).layer("0").bias()
    monkeypatch.setattr(collector, "_owner", lambda *_: None)
    layer = linearize(model, x, layers=["0"]).layer("0")
    torch.testing.assert_close(layer.bias(), expected)
    moved = torch.einsum("nji,ni->nj", layer.weight(), x) + expected
    torch.testing.assert_close(moved, layer.activation, rtol=1e-12, atol=1e-13)


def test_layer_that_gives_no_row_per_instance():
    model = nn.Sequential(nn.Flatten(0), nn.ReLU(), nn.Unflatten(0, (3, 8))).eval()
    lin = linearize(model, Case("", nn.Identity).x(), layers=["1"])
    with pytest.raises(KeyError, match=r"one row per instance: its output has shape \(24,\)"):
        lin.layer("1")


def test_layers_are_checked():
    case = next(c for c in CASES if c.name == "reused")
    with pytest.raises(ValueError, match="'layr'"):
        linearize(case.model(), case.x(), layers=["layr"])
    with pytest.raises(KeyError, match="was not recorded"):
        linearize(case.model(), case.x()).layer("layer")


# ---- choice of outputs ----


def test_outputs():
    case = next(c for c in CASES if c.name == "gelu")
    x = case.x(5)
    lin = linearize(case.model(), x)
    whole, predicted = lin.weight(), lin.output.argmax(1)
    rows = torch.arange(5)
    torch.testing.assert_close(lin.weight("predicted")[:, 0], whole[rows, predicted])
    torch.testing.assert_close(lin.weight([2, -3]), whole[:, [2, 0]])
    torch.testing.assert_close(lin.weight(1), whole[:, 1:2])
    per_row = torch.tensor([[0, 1], [1, 2], [2, 2], [0, 0], [1, 0]])
    torch.testing.assert_close(lin.weight(per_row)[3], whole[3, [0, 0]])
    torch.testing.assert_close(lin.bias("predicted")[:, 0], lin.bias()[rows, predicted])
    torch.testing.assert_close(lin.attribution(predicted), whole[rows, predicted] * x)
    torch.testing.assert_close(lin.attribution("predicted"), lin.attribution(predicted))
    with pytest.raises(IndexError, match="between 0 and 2"):
        lin.weight(3)
    with pytest.raises(TypeError, match="whole numbers"):
        lin.weight([0.5])
    with pytest.raises(ValueError, match="'predicted'"):
        lin.weight("best")
    with pytest.raises(ValueError, match="one output per row; got 2"):
        lin.attribution([0, 1])
    with pytest.raises(IndexError, match=r"shape \(5, m\); got \(2, 1\)"):
        lin.weight(torch.zeros(2, 1, dtype=torch.long))


def test_many_outputs_take_bias_from_the_transpose():
    model = Case("", lambda: nn.Sequential(nn.Linear(8, 20), nn.GELU(), nn.Linear(20, 30))).model()
    x = Case("", nn.Identity).x()
    bias = linearize(model, x).bias()
    terms = linearize(model, x).bias_terms()
    torch.testing.assert_close(bias, sum(terms.values()), rtol=1e-12, atol=1e-13)
