"""Linear maps of whole networks: exactness, replay, equal forms, instances, manners."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import (
    CASES,
    PIECEWISE,
    SMOOTH,
    Attention,
    Case,
    Patches,
    apply,
    ids,
    samples_grids_twice,
)
from ptsne.linearize import UnsupportedOperation, collector, linearize
from reference_linearize import SCALARS, Replay, jacobian, relative_gap, secant_gain

ROUNDED_SLOPE = ("hardsigmoid", "hardsigmoid_inplace", "squeeze_excite_hard")
RANDOM = ("fractional_max_pool2d", "fractional_max_pool3d")


# ---- exactness, over the market ----


@pytest.mark.parametrize("activation", ["secant", "tangent"])
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_output_is_weight_times_x_plus_terms(case, activation):
    model, x = case.model(), case.x()
    lin = linearize(model, x, activation=activation)
    weight, terms = lin.weight(), lin.bias_terms()
    zero = lin.output.new_zeros(weight.shape[:2])
    assert relative_gap(lin, x, weight, sum(terms.values(), zero)) < 1e-12
    assert torch.equal(lin.bias(), sum(terms.values(), zero)) or torch.allclose(
        lin.bias(), sum(terms.values(), zero), rtol=1e-13, atol=1e-14
    )
    if case.name not in RANDOM:
        torch.testing.assert_close(lin.output, model(x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("case", PIECEWISE, ids=ids)
def test_weight_of_piecewise_linear_networks_is_the_jacobian(case):
    if case.name in RANDOM:
        pytest.skip("the pooling regions are drawn anew")
    model, x = case.model(), case.x()
    tolerance = 1e-7 if case.name in ROUNDED_SLOPE else 1e-12
    weight = linearize(model, x).weight()
    torch.testing.assert_close(weight, jacobian(model, x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", SMOOTH, ids=ids)
def test_tangent_is_the_jacobian(case):
    model, x = case.model(), case.x()
    tolerance = 1e-7 if case.name in ROUNDED_SLOPE else 1e-11
    weight = linearize(model, x, activation="tangent").weight()
    torch.testing.assert_close(weight, jacobian(model, x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if "norm1d" not in c.name], ids=ids)
def test_all_outputs_at_once_agree_with_the_rows(case):
    x = case.x()
    lin = linearize(case.model(), x)
    if case.name == "grid_sample" and not samples_grids_twice():
        with pytest.raises(UnsupportedOperation, match="weight"):
            lin.linear_part()
        return
    moved = torch.einsum("nmi,ni->nm", lin.weight().flatten(2), x.flatten(1))
    linear = lin.linear_part()
    assert linear.shape == lin.output.shape
    torch.testing.assert_close(linear.reshape(len(x), -1), moved, rtol=1e-11, atol=1e-12)
    assert float(lin.residual().max()) < 1e-12


@pytest.mark.parametrize("case", CASES[::4], ids=ids)
def test_a_row_does_not_depend_on_its_batch(case):
    model, x = case.model(), case.x(4)
    if case.name in RANDOM:
        pytest.skip("the pooling regions are drawn per batch")
    whole, alone = linearize(model, x), linearize(model, x[2:3])
    torch.testing.assert_close(whole.weight()[2:3], alone.weight(), rtol=1e-11, atol=1e-12)
    ours, theirs = whole.bias_terms(), alone.bias_terms()
    for name in ours.keys() | theirs.keys():
        zero = torch.zeros(4, ours[next(iter(ours))].shape[1], dtype=x.dtype)
        one = ours.get(name, zero)[2:3]
        torch.testing.assert_close(one, theirs.get(name, zero[2:3]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", [*CASES[::7], *CASES[-12:]], ids=ids)
def test_single_precision(case):
    x = case.x(dtype=torch.float32)
    lin = linearize(case.model(torch.float32), x)
    weight, bias = lin.weight(), lin.bias()
    assert weight.dtype == bias.dtype == torch.float32
    assert relative_gap(lin, x, weight, bias) < 1e-5


# ---- the held map is a map: it can be followed to other rows ----


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 12), nn.Linear(4, 4)
        self.mlp = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = x.reshape(-1, 2, 4)
        q, k, v = self.inner(self.norm(x)).reshape(-1, 2, 3, 2, 2).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)
        x = x + self.outer(h.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


REPLAYED = {
    "relu": lambda: nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 5), nn.ReLU()),
    "gelu": lambda: nn.Sequential(nn.Linear(8, 9), nn.GELU(), nn.Linear(9, 5), nn.GELU()),
    "mixed": lambda: nn.Sequential(
        nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 5), nn.ELU(),
        nn.LayerNorm(5), nn.SiLU(), nn.Linear(5, 4), nn.Softplus(),
    ),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 3, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12, 3),
    ),
    "transformer": Block,
}  # fmt: skip


@pytest.mark.parametrize("name", REPLAYED)
def test_replay_with_held_gates_follows_the_map(name):
    case = Case(name, REPLAYED[name])
    model, x, other = case.model(), case.x(), case.x(seed=9)
    lin = linearize(model, x)
    model.requires_grad_(True)  # keeps torch off its fused inference path
    with Replay() as replay:
        model(x)
        replay.hold()
        held = model(other).detach().reshape(len(x), -1)
    moved = torch.einsum("nmi,ni->nm", lin.weight().flatten(2), other.flatten(1))
    torch.testing.assert_close(held, moved + lin.bias(), rtol=1e-11, atol=1e-12)
    assert float((held - model(other).detach().reshape(len(x), -1)).abs().max()) > 1e-3


@pytest.mark.parametrize("name", SCALARS)
def test_gain_of_a_scalar_activation(name):
    function = getattr(F, name)
    z = torch.linspace(-5, 5, 40, dtype=torch.float64)[:, None]
    gains, at_zero = secant_gain(name, z)
    lin = linearize(apply(lambda m, x: function(x)), z)
    torch.testing.assert_close(lin.weight()[:, 0], gains, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(lin.bias(), torch.full_like(z, at_zero), rtol=1e-14, atol=1e-16)


EQUAL_FORMS = [
    ("silu", F.silu, lambda z: z * torch.sigmoid(z)),
    ("silu_in_place", F.silu, lambda z: F.silu(z * 1, inplace=True)),
    ("gelu", F.gelu, lambda z: 0.5 * z * (1 + torch.erf(z * 0.5**0.5))),
    ("gelu_tanh", lambda z: F.gelu(z, approximate="tanh"), lambda z: 0.5 * z * (
        1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))),
    ("mish", F.mish, lambda z: z * torch.tanh(F.softplus(z))),
    ("hardswish", F.hardswish, lambda z: z * F.relu6(z + 3) / 6),
    ("relu", F.relu, lambda z: z * (z > 0)),
    ("relu_max", F.relu, lambda z: torch.maximum(z, torch.zeros_like(z))),
    ("elu_in_place", F.elu, lambda z: F.elu_(z * 1)),
    ("tanh_in_place", torch.tanh, lambda z: (z * 1).tanh_()),
    ("glu", F.glu, lambda z: z[:, :4] * torch.sigmoid(z[:, 4:])),
    ("normalize", F.normalize, lambda z: z / z.norm(dim=1, keepdim=True)),
    ("layer_norm", lambda z: F.layer_norm(z, (8,)), lambda z: (z - z.mean(1, keepdim=True)) / (
        z.var(1, correction=0, keepdim=True) + 1e-5).sqrt()),
    ("rms_norm", lambda z: F.rms_norm(z, (8,), eps=1e-5), lambda z: z / (
        z.square().mean(1, keepdim=True) + 1e-5).sqrt()),
    ("square", lambda z: z**2, lambda z: z * z),
    ("inverse_root", lambda z: z / (1 + z * z).sqrt(), lambda z: z * (1 + z * z) ** -0.5),
    ("by_a_deviation", lambda z: z / z.std(1, keepdim=True), lambda z: z * (
        1 / z.std(1, keepdim=True))),
    ("softmax_by_logarithm", lambda z: z * torch.softmax(z, 1), lambda z: z * (
        torch.log_softmax(z, 1).exp())),
    ("mixed_maps", lambda z: (0.3 * torch.softmax(z, 1) + 0.7) * z, lambda z: (
        0.3 * torch.softmax(z, 1) * z + 0.7 * z)),
    ("lerp", lambda z: torch.lerp(z, -z, torch.sigmoid(z)), lambda z: (
        z + torch.sigmoid(z) * (-z - z))),
    ("softsign", F.softsign, lambda z: z / (1 + z.abs())),
    ("attention", lambda z: F.scaled_dot_product_attention(*[z.reshape(-1, 1, 2, 4)] * 3)[:, 0],
     lambda z: (lambda h: torch.softmax(h @ h.mT / 2, -1) @ h)(z.reshape(-1, 2, 4))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "one", "other"), EQUAL_FORMS, ids=[f[0] for f in EQUAL_FORMS])
def test_equal_functions_have_equal_maps(name, one, other):
    x = Case("", nn.Identity).x()
    maps = [linearize(apply(lambda m, x, f=f: f(x @ m.A + m.w)), x).weight() for f in (one, other)]
    torch.testing.assert_close(*maps, rtol=1e-11, atol=1e-12)


def test_square_of_x_is_held_as_x_times_x():
    x = Case("", nn.Identity).x()
    weight = linearize(apply(lambda m, x: x * x), x).weight()
    torch.testing.assert_close(weight, torch.diag_embed(x))


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "sigmoid", "softplus", "elu"])
def test_zero_input_is_finite_and_continuous(activation):
    function = getattr(F, activation)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    at, near = (linearize(apply(lambda m, x: function(x)), z).weight() for z in (zero, zero + 1e-9))
    torch.testing.assert_close(at, near, rtol=1e-8, atol=1e-9)


def test_products_with_a_sparse_constant():
    def both(m, x):
        sparse = F.hardshrink(m.A.detach(), 0.3).to_sparse()
        return torch.sparse.mm(sparse, x.T).T + (sparse @ x.T).T + m.w

    model, x = apply(both), Case("", nn.Identity).x()
    lin = linearize(model, x)
    torch.testing.assert_close(lin.weight(), jacobian(model, x), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(lin.bias(), model.w.detach().expand(3, 8))


# ---- instances ----


def test_layout_of_any_kind_is_learnt(monkeypatch):
    """Time-major and ragged layouts: terms are told apart by one graph, not one per instance."""
    for name in ("multihead_time_major", "ragged", "time_major"):
        case = next(c for c in CASES if c.name == name)
        model, x = case.model(), case.x(70)  # more than one digit of the instance code
        lin = linearize(model, x)
        monkeypatch.setattr(lin, "_split_instances", lambda: pytest.fail("ran one by one"))
        terms = lin.bias_terms(0)
        for i in (0, 33, 69):
            alone = linearize(model, x[i : i + 1]).bias_terms(0)
            for term, value in alone.items():
                torch.testing.assert_close(terms[term][i : i + 1], value, rtol=1e-11, atol=1e-12)


def test_instances_one_by_one_as_a_last_resort(monkeypatch):
    case = next(c for c in CASES if c.name == "ragged")
    model, x = case.model(), case.x(5)
    expected = linearize(model, x).bias()
    monkeypatch.setattr(collector, "_owner", lambda *_: None)
    torch.testing.assert_close(linearize(model, x).bias(), expected)


# ---- manners ----


def test_model_and_caller_are_untouched():
    model = Case(
        "",
        lambda: nn.Sequential(
            nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 2)
        ),
    ).model()
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    x = Case("", nn.Identity).x()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    identities = [id(p) for p in model.parameters()]
    before, random = x.clone(), torch.get_rng_state()
    with torch.no_grad():
        lin = linearize(model, x, layers=["1"])
        lin.weight(), lin.bias_terms(), lin.linear_part(), lin.layer("1").weight()
        assert not torch.is_grad_enabled()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [id(p) for p in model.parameters()] == identities
    assert torch.equal(model[3].weight.grad, torch.ones_like(model[3].weight))
    assert all(p.grad is None for p in list(model.parameters())[:-2])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), random)


def test_buffers_written_by_the_model_stay_the_callers():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("n", torch.zeros(()))

        def forward(self, x):
            self.n += 1
            return x * 2

    model = Counter().eval()
    linearize(model, torch.ones(1, 3)).weight()
    assert float(model.n) == 0


def test_random_pooling_agrees_with_the_callers_next_run():
    case = next(c for c in CASES if c.name == "fractional_max_pool2d")
    model, x = case.model(), case.x()
    torch.manual_seed(5)
    lin = linearize(model, x)
    torch.testing.assert_close(lin.output, model(x), rtol=1e-14, atol=1e-14)


def test_inference_mode_of_the_caller():
    model = Case("", lambda: nn.Linear(8, 2)).model()
    with torch.inference_mode():
        x = torch.ones(2, 8, dtype=torch.float64)
        torch.testing.assert_close(linearize(model, x).weight()[0], model.weight.detach())


def test_graphs_are_freed():
    case = next(c for c in CASES if c.name == "vision_transformer")
    lin = linearize(case.model(), case.x())
    lin.weight(0)
    saved = weakref.ref(lin._graph._collector)
    del lin
    gc.collect()
    assert saved() is None


# ---- an outside judge ----


def test_captum_input_times_gradient_on_a_relu_network():
    captum = pytest.importorskip("captum.attr")
    case = next(c for c in CASES if c.name == "lenet")
    model, x = case.model(), case.x()
    theirs = captum.InputXGradient(model).attribute(x.clone().requires_grad_(True), target=1)
    torch.testing.assert_close(linearize(model, x).attribution(1), theirs.detach())


def test_attention_module_is_left_alone():
    model = Case("", Attention).model()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    assert linearize(model, x).weight("predicted").shape == (2, 1, 3, 8)
    assert Case("", Patches).model()(torch.zeros(1, 3, 4, 4, dtype=torch.float64)).shape == (1, 3)
