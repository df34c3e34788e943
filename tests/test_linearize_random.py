"""Random networks: graphs of layers, activations, gates, skips, products and reused modules.

`MANY_GRAPHS` in the environment sets how many the slow test draws.
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cases import Case
from ptsne.linearize import linearize
from reference_linearize import jacobian


class Parameters(nn.Module):
    """What the operations below draw on; any of it may be used many times, or not at all."""

    def __init__(self, run):
        super().__init__()
        self.w, self.A = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8, 8))
        self.kernel = nn.Parameter(torch.randn(2, 1, 3))
        self.layer = nn.Linear(8, 8)
        self.conv = nn.Conv1d(2, 4, 3, padding=1, groups=2)
        self.norm, self.batch_norm = nn.LayerNorm(8), nn.BatchNorm1d(8)
        self.relu = nn.ReLU(inplace=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def attend(q, k, v):
    return (torch.softmax(q @ k.mT, -1) @ v).flatten(1)


def pairs(h):
    """(N, 8) -> (N, 4, 2)."""
    return h.unflatten(1, (4, 2))


def assigned(m, h):
    h = h * 1
    h[:, :2] = m.w[:2]
    h[:, 2] += h[:, 5]
    h[:, 6:].relu_()
    return h


def overwritten(m, h):
    t = F.gelu(h * 1)
    return t.mul_(m.w).add_(0.3)


def sparsemax(m, h):
    ordered = h.sort(1, descending=True).values
    total, rank = ordered.cumsum(1), torch.arange(1, 9, dtype=h.dtype)
    size = (1 + rank * ordered > total).sum(1, keepdim=True)
    return torch.clamp(h - (total.gather(1, size - 1) - 1) / size, min=0)


UNARY = {
    "linear": lambda m, h: h @ m.A,
    "layer": lambda m, h: m.layer(h),
    "shift": lambda m, h: h + m.w,
    "scale": lambda m, h: 0.5 - h * m.w / 3,
    "conv": lambda m, h: m.conv(h.reshape(-1, 2, 4)).mean(1).repeat(1, 2),
    "filter": lambda m, h: F.conv1d(h[:, None], m.kernel, padding=2, dilation=2).sum(1),
    "deconv": lambda m, h: F.conv_transpose1d(h[:, None, ::2], m.kernel[:1], m.w[:1], 2)[:, 0, 1:],
    "relu": lambda m, h: F.relu(h),
    "relu_": lambda m, h: m.relu(h * 1),
    "crelu": lambda m, h: torch.cat([F.relu(h[:, :4]), F.relu(-h[:, :4])], 1),
    "leaky": lambda m, h: F.leaky_relu(h, 0.2),
    "hardtanh": lambda m, h: F.hardtanh(h, -0.3, 0.6),
    "softshrink": lambda m, h: F.softshrink(h, 0.2),
    "gelu": lambda m, h: F.gelu(h),
    "gelu_tanh": lambda m, h: F.gelu(h, approximate="tanh"),
    "silu": lambda m, h: F.silu(h),
    "mish": lambda m, h: F.mish(h),
    "hardswish": lambda m, h: F.hardswish(h),
    "elu_": lambda m, h: F.elu_(h * 1),
    "selu": lambda m, h: F.selu(h),
    "tanh_": lambda m, h: (h - 0.5).tanh_(),
    "sigmoid": lambda m, h: torch.sigmoid(h),
    "softplus": lambda m, h: F.softplus(h),
    "softsign": lambda m, h: F.softsign(h),
    "log_sigmoid": lambda m, h: F.logsigmoid(h),
    "sin": lambda m, h: torch.sin(h),
    "norm": lambda m, h: F.layer_norm(h, (8,), m.w, m.w),
    "norm_": lambda m, h: m.norm(h),
    "batch_norm": lambda m, h: m.batch_norm(h),
    "group_norm": lambda m, h: F.group_norm(h, 2, m.w, m.w),
    "rms_norm": lambda m, h: F.rms_norm(h, (8,), m.w, 1e-3),
    "length": lambda m, h: h / (h.norm(dim=1, keepdim=True) + 1),
    "sort": lambda m, h: h.sort(1).values,
    "topk": lambda m, h: torch.where(h >= h.topk(3, 1).values[:, -1:], h, m.w * 0),
    "cummax": lambda m, h: h.cummax(1).values,
    "sparsemax": sparsemax,
    "clamp": lambda m, h: h.clamp(min=-0.8).clamp(max=m.w.abs()),
    "roll": lambda m, h: h.roll(1, 1).flip(1),
    "sum": lambda m, h: h.cumsum(1) / 8,
    "abs": lambda m, h: h.abs() - 1,
    "max_pool": lambda m, h: F.max_pool1d(h[:, None], 3, 1, 1)[:, 0],
    "avg_pool": lambda m, h: F.avg_pool1d(h[:, None], 3, 1, 1)[:, 0],
    "upsample": lambda m, h: F.interpolate(h[:, None, ::2], scale_factor=2, mode="linear")[:, 0],
    "pad": lambda m, h: F.pad(h[:, 1:7], (1, 1), value=0.4),
    "gate": lambda m, h: h * torch.softmax(h, 1),
    "excite": lambda m, h: h * torch.sigmoid(F.relu(h @ m.A[:, :2]) @ m.A[:2] + m.w),
    "glu": lambda m, h: F.glu(torch.cat([h, h @ m.A], 1)),
    "attention": lambda m, h: attend(pairs(h), pairs(h @ m.A), pairs(h)),
    "fused": lambda m, h: F.scaled_dot_product_attention(*(pairs(h)[:, None],) * 3).flatten(1),
    "multihead": lambda m, h: m.attention(*(h.unflatten(1, (2, 4)),) * 3)[0].flatten(1),
    "index": lambda m, h: h[:, [3, 3, 1, 0, 7, 6, 5, 4]],
    "mask": lambda m, h: torch.where(h > 0.2, h, 0.1),
    "square": lambda m, h: h**2,
    "assigned": assigned,
    "overwritten": overwritten,
}  # fmt: skip
BINARY = {
    "add": lambda m, h, k: h + k,
    "sub": lambda m, h, k: 2 * h - k,
    "add_": lambda m, h, k: (h * 1).add_(k, alpha=0.5),
    "mul": lambda m, h, k: h * k,
    "max": lambda m, h, k: torch.maximum(h, k),
    "where": lambda m, h, k: torch.where(h > 0, h, k),
    "cat": lambda m, h, k: torch.cat([h, k], 1) @ torch.cat([m.A, m.A.T]) / 4,
    "mean": lambda m, h, k: torch.stack([h, k, m.w.expand_as(h)]).mean(0),
    "gated": lambda m, h, k: h * torch.sigmoid(k),
    "gated_tanh": lambda m, h, k: torch.tanh(h) * torch.sigmoid(k),
    "chosen": lambda m, h, k: torch.lerp(h, k, torch.sigmoid(h - k)),
    "geglu": lambda m, h, k: h * F.gelu(k),
    "mixture": lambda m, h, k: torch.einsum(
        "ndc,nc->nd", torch.stack([h, k], 2), torch.softmax(k[:, :2], 1)
    ),
    "quotient": lambda m, h, k: h / (1 + k.square()),
    "cross": lambda m, h, k: attend(pairs(h), pairs(k), pairs(k)),
    "outer": lambda m, h, k: (h[:, :, None] * k[:, None]).sum(2),
    "matrix": lambda m, h, k: (pairs(h) @ pairs(k).mT @ pairs(h)).flatten(1) / 8,
}  # fmt: skip


def random_graph(steps):
    def run(m, x):
        values = [x]
        for name, i, j in steps:
            h, k = values[i % len(values)], values[j % len(values)]
            h = UNARY[name](m, h) if name in UNARY else BINARY[name](m, h, k)
            values.append(h / (1 + 0.1 * len(values)))
        return values[-1] + values[len(values) // 2]

    return Case("", lambda: Parameters(run))


STEPS = st.lists(
    st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 12), st.integers(0, 12)),
    min_size=1,
    max_size=12,
)
QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def gap(lin, x, outputs=None):
    """``|F - W x - sum of terms|`` against the sum of what they are made of."""
    weight, terms = lin.weight(outputs), lin.bias_terms(outputs)
    y = lin.output if outputs is None else lin.output[:, outputs]
    products = weight * x[:, None]
    parts = torch.stack([products.sum(2), *terms.values()])
    scale = y.abs() + parts.abs().sum(0) + products.abs().sum(2) + torch.finfo(x.dtype).tiny
    return float(((y - parts.sum(0)).abs() / scale).max())


def check(steps):
    case = random_graph(steps)
    model, x = case.model(), case.x()
    lin = linearize(model, x)
    torch.testing.assert_close(lin.output, model(x), rtol=1e-12, atol=1e-12)
    assert gap(lin, x) < 1e-11
    tangent = linearize(model, x, activation="tangent")
    assert gap(tangent, x, [0, 3]) < 1e-11
    slope, size = jacobian(model, x)[:, [0, 3]], tangent.weight().abs().max()
    torch.testing.assert_close(tangent.weight([0, 3]), slope, rtol=1e-8, atol=float(1e-10 * size))
    return model, x, lin


@settings(max_examples=50, derandomize=True, **QUIET)
@given(steps=STEPS)
def test_random_graphs(steps):
    check(steps)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("MANY_GRAPHS", "300")), **QUIET)
@given(steps=STEPS)
def test_many_random_graphs(steps):
    model, x, lin = check(steps)
    moved = (lin.weight() * x[:, None]).sum(2)
    size = float((lin.weight() * x[:, None]).abs().sum(2).max())
    torch.testing.assert_close(lin.linear_part(), moved, rtol=1e-8, atol=1e-10 * size)
    alone = linearize(model, x[1:2]).weight()
    torch.testing.assert_close(lin.weight()[1:2], alone, rtol=1e-8, atol=1e-10 * size)
    single = random_graph(steps).model(torch.float32)
    for activation in ("secant", "tangent"):
        assert gap(linearize(single, x.float(), activation=activation), x.float()) < 1e-4
