"""Networks of straight pieces, whose regions the tests walk through."""

from itertools import pairwise

import torch
from torch import nn

from cases import PIECEWISE, SMOOTH, Case
from ptsne.networks import AtlasProjection, MapNetwork, SkipNetwork, Standardize
from ptsne.regions import activation_pattern

REFUSED = {"fractional_max_pool2d", "fractional_max_pool3d", "atlas", "scatter_reduce"}
CASES = [case for case in PIECEWISE if case.name not in REFUSED]


def named(name):
    return next(case for case in PIECEWISE + SMOOTH if case.name == name)


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


def region_switches(case):
    """How many switches a case has."""
    return activation_pattern(case.model(), case.x(1)).shape[1]


SWITCHING = [case for case in CASES if region_switches(case)]

JUMPS = (
    "hardshrink",
    "threshold",
    "where",
    "gate_by_mask",
    "round",
    "ragged",
    "max_unpool",
    "sign",
)
CONTINUOUS = [case for case in SWITCHING if not case.name.startswith(JUMPS)]
