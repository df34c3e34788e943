"""Networks made of networks: their maps are made of the parts' maps, whatever the spelling."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import CASES, Case
from ptsne import Ensemble
from ptsne.linearize import linearize

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def perceptron(activation, n_in=8, n_out=3):
    return nn.Sequential(
        *(nn.Linear(n_in, 9), activation(), nn.LayerNorm(9)),
        *(nn.Linear(9, 7), activation(), nn.Linear(7, n_out)),
    )


@pytest.mark.parametrize("mode", ["secant", "tangent"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ensemble_is_the_sum_of_its_members(name, mode):
    shares = (0.5, -1.5, 2.0)
    case = Case("", lambda: Ensemble([perceptron(ACTIVATIONS[name]) for _ in shares], shares))
    model, x = case.model(), case.x()
    whole = linearize(model, x, activation=mode)
    parts = [linearize(member, x, activation=mode) for member in model.members]
    for quantity in ("weight", "bias", "linear_part"):
        mixed = sum(a * getattr(p, quantity)() for a, p in zip(shares, parts, strict=True))
        torch.testing.assert_close(getattr(whole, quantity)(), mixed, rtol=1e-12, atol=1e-14)
    for i, (a, part) in enumerate(zip(shares, parts, strict=True)):
        for term, value in part.bias_terms().items():
            ours = whole.bias_terms()[f"members.{i}.{term}"]
            torch.testing.assert_close(ours, a * value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode", ["secant", "tangent"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_composition_is_the_product_of_its_stages(name, mode):
    stages = (perceptron(ACTIVATIONS[name], 8, 5), perceptron(ACTIVATIONS[name], 5, 2))
    case = Case("", lambda: nn.Sequential(*stages))
    model, x = case.model(), case.x()
    whole = linearize(model, x, activation=mode, layers=["0"])
    first = linearize(model[0], x, activation=mode)
    second = linearize(model[1], first.output, activation=mode)
    weight = torch.einsum("nkj,nji->nki", second.weight(), first.weight())
    bias = torch.einsum("nkj,nj->nk", second.weight(), first.bias()) + second.bias()
    torch.testing.assert_close(whole.weight(), weight, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(whole.bias(), bias, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(whole.layer("0").weight(), first.weight(), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(whole.layer("0").effect(1), second.weight(1)[:, 0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_without_constants_b_is_zero(name):
    layers = [nn.Linear(8, 9, bias=False), ACTIVATIONS[name](), nn.Linear(9, 3, bias=False)]
    case = Case("", lambda: nn.Sequential(*layers))
    lin = linearize(case.model(), case.x())
    assert lin.bias_terms() == {}
    assert not lin.bias().any()
    torch.testing.assert_close(lin.linear_part(), lin.output, rtol=1e-13, atol=1e-14)


# ---- one network, spelled in several ways: the same numbers, to the last bit ----


class Modules(nn.Module):
    """relu - norm - gelu - skip - relu, as modules of their own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.relu1, self.gelu, self.relu2 = nn.ReLU(), nn.GELU(), nn.ReLU()

    def forward(self, x):
        h = self.relu1(self.first(x))
        return self.relu2(self.gelu(self.second(self.norm(h))) + h)


class Functions(Modules):
    def forward(self, x):
        h = F.relu(F.linear(x, self.first.weight, self.first.bias))
        h2 = F.layer_norm(h, (8,), self.norm.weight, self.norm.bias)
        return torch.relu(F.gelu(F.linear(h2, self.second.weight, self.second.bias)) + h)


class InPlace(Modules):
    def forward(self, x):
        h = F.relu_(self.first(x))
        total = F.gelu(self.second(self.norm(h)))
        total += h
        return total.relu_()


class OneRelu(Modules):
    def forward(self, x):
        h = self.relu1(self.first(x))
        return self.relu1(self.gelu(self.second(self.norm(h))) + h)


@pytest.mark.parametrize("spelling", [Functions, InPlace, OneRelu])
@pytest.mark.parametrize("mode", ["secant", "tangent"])
def test_spelling_does_not_matter(spelling, mode):
    x = Case("", Modules).x(5)
    one, other = (
        linearize(Case("", build).model(), x, activation=mode) for build in (Modules, spelling)
    )
    assert torch.equal(one.weight(), other.weight())
    assert torch.equal(one.bias(), other.bias())


def test_composition_multiplies_the_maps():
    case = next(c for c in CASES if c.name == "gelu")
    first, x = case.model(), case.x()
    second = nn.Sequential(nn.Linear(3, 4), nn.Softplus()).double().eval()
    whole = linearize(nn.Sequential(first, second).eval(), x)
    inner = linearize(first, x)
    outer = linearize(second, inner.output)
    weight = torch.einsum("nkj,nji->nki", outer.weight(), inner.weight())
    bias = torch.einsum("nkj,nj->nk", outer.weight(), inner.bias()) + outer.bias()
    torch.testing.assert_close(whole.weight(), weight, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(whole.bias(), bias, rtol=1e-12, atol=1e-13)


def test_ensemble_averages_the_maps():
    case = next(c for c in CASES if c.name == "ensemble")
    model, x = case.model(), case.x()
    members = [linearize(m, x).weight() for m in model.members]
    mean = torch.stack(members).mean(0)
    torch.testing.assert_close(linearize(model, x).weight(), mean, rtol=1e-13, atol=1e-15)


def test_terms_are_named_by_parameters():
    model = Case("", lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2),
        nn.Sigmoid(),
    )).model()  # fmt: skip
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    names = {"0.bias", "1.bias", "1.running_mean", "4.bias", "5.sigmoid"}
    assert set(linearize(model, x).bias_terms()) == names
