"""Slow twins of the linearizer, by other means.

`Replay` runs a network again with every gate held at what it was for x, and shares nothing with
the library: it rewrites torch *functions*, not autograd nodes. `jacobian` is torch's.
"""

import math

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def jacobian(model, x):
    """dF/dx row by row, (N, m, *input shape)."""

    def one(row):
        return model(row[None])[0].reshape(-1)

    rows = [torch.autograd.functional.jacobian(one, row) for row in x]
    return torch.stack([rows[i].reshape(-1, *x.shape[1:]) for i in range(len(x))])


def relative_gap(lin, x, weight, bias):
    """How far W x + b is from the output, of the size of what was added."""
    y = lin.output.reshape(len(x), -1)
    moved = torch.einsum("nmi,ni->nm", weight.flatten(2), x.flatten(1))
    scale = (y.abs() + moved.abs() + bias.abs()).clamp_min(1e-12)
    return float(((y - moved - bias).abs() / scale).max())


def secant_gain(name, z):
    """``(act(z) - act(0)) / z`` in plain Python, one number at a time, and ``act(0)``."""
    act = SCALARS[name]
    at_zero = act(0.0)
    # at the kink of ReLU torch's derivative is that from below
    gains = [(act(v) - at_zero) / v for v in (u or -1e-200 for u in z.flatten().tolist())]
    return torch.tensor(gains, dtype=z.dtype).reshape(z.shape), at_zero


SCALARS = {
    "relu": lambda z: max(z, 0.0),
    "gelu": lambda z: z * 0.5 * math.erfc(-z / math.sqrt(2)),
    "silu": lambda z: z * (1 + math.tanh(z / 2)) / 2,
    "hardswish": lambda z: z * min(max(z + 3, 0), 6) / 6,
    "tanh": math.tanh,
    "sigmoid": lambda z: (1 + math.tanh(z / 2)) / 2,
    "softplus": lambda z: math.log1p(math.exp(z)),
    "elu": lambda z: z if z > 0 else math.expm1(z),
}


class Replay(TorchFunctionMode):
    """Runs of one network in which gates are recorded, then held.

    Use ``with Replay() as replay: model(x); replay.hold(); model(x_other)``. `gates` are functions
    that only multiply other functions of x: their whole result is held.
    """

    def __init__(self, gates=("softmax",)):
        super().__init__()
        self.is_held = gates
        self.gates = []
        self.position = None

    def hold(self):
        self.position = 0

    def gate(self, compute):
        if self.position is None:
            self.gates.append(compute())
            return self.gates[-1]
        self.position += 1
        return self.gates[self.position - 1]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.__name__.rstrip("_")
        name = "max_pool" if name in ("boolean_dispatch", "max_pool2d") else name
        if name in self.is_held:
            return self.gate(lambda: func(*args, **kwargs).detach())
        if name in SCALARS:
            z = args[0]
            gain, at_zero = self.gate(lambda: secant_gain(name, z.detach()))
            return gain * z + at_zero
        twin = getattr(self, f"_{name}", None)
        return (twin or func)(*args, **kwargs)

    def _layer_norm(self, z, shape, weight=None, bias=None, eps=1e-5):
        centred = z - z.mean(-1, keepdim=True)
        rate = self.gate((centred.detach().square().mean(-1, keepdim=True) + eps).rsqrt)
        return centred * rate * weight + bias

    def _max_pool(self, z, size, stride=None, padding=0, dilation=1, ceil_mode=False, **_):
        def winners():
            options = (size, stride, padding, dilation, ceil_mode)
            return F.max_pool2d(z.detach(), *options, return_indices=True)[1]

        winners = self.gate(winners)
        return z.flatten(2).gather(2, winners.flatten(2)).reshape(winners.shape)

    def _hardtanh(self, z, min_val=-1.0, max_val=1.0, inplace=False):
        passes, plateau = self.gate(
            lambda: ((z > min_val) & (z < max_val), z.detach().clamp(min_val, max_val))
        )
        return torch.where(passes, z, plateau)

    def _relu6(self, z, inplace=False):
        return self._hardtanh(z, 0.0, 6.0)

    def _scaled_dot_product_attention(self, q, k, v, attn_mask=None, **_):
        scores = (q @ k.mT).detach() / math.sqrt(q.shape[-1])
        scores = scores if attn_mask is None else scores + attn_mask
        return self.gate(lambda: torch.softmax(scores, -1)) @ v

    def _multi_head_attention_forward(
        self, x, key, value, width, n_heads, weight, bias, *rest, **_
    ):
        out_weight, out_bias = rest[4:6]
        split = F.linear(x, weight, bias).unflatten(2, (3, n_heads, -1))
        q, k, v = split.permute(2, 1, 3, 0, 4)  # each (N, heads, T, width of a head)
        h = self._scaled_dot_product_attention(q, k, v)
        return F.linear(h.permute(2, 0, 1, 3).flatten(2), out_weight, out_bias), None


def difference_of(function, x, reference):
    """``F(x) - F(r)``, in extended steps along the segment, with its average Jacobian as M."""
    nodes, weights = gauss_legendre(64)
    M = 0
    for t, w in zip(nodes, weights, strict=True):
        M = M + w * jacobian(function, reference + t * (x - reference))
    return M


def gauss_legendre(n):
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2
