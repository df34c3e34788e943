"""Repulsion as the slope of a potential, interpolated by quintic splines on a regular grid.

Points put their spline weights on the nodes, an FFT convolves those with k1, and each point reads
the potential ``phi_i = sum_j k1_ij`` and its slope back: ``Z = sum_i phi_i``, and
``dk1_ij/dy_i = -(a + 1) / a k2_ij (y_i - y_j)`` gives the force.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from ptsne.repulsion.arithmetic import add_in_order

# Distance of the grid's nodes, in widths of the kernel k2. On a final map of 10,000 points (span
# 160) the force is within .6 % of the exact one; .7 would make that .25 %, for 1.3 times the time.
SPACING = 0.8
# Padded grid nodes at most. 2^23 hold a square map of 550 units at a = 1, in some 200 MiB.
MAX_NODES = 2**23
# Intervals along the longer side of a small map, whose grid is finer than the kernel needs.
MIN_INTERVALS = 48
# The periodic image of the kernel has a kink half a period away. The inverse of the spline filter
# smears it out, falling by .43 a node, so some unused nodes keep it from the map.
MARGIN = 16
# Nodes that a quintic spline reaches on each axis, and 120 times the polynomial it is at each: in
# powers of the distance t from the third node, 0 to 1.
ORDER = 6
QUINTIC = (
    (1, -5, 10, -10, 5, -1),
    (26, -50, 20, 20, -20, 5),
    (66, 0, -60, 0, 30, -10),
    (26, 50, 20, -20, -20, 10),
    (1, 5, 10, 10, 5, -5),
    (0, 0, 0, 0, 0, 1),
)


class Grid(NamedTuple):
    """Nodes at ``low + spacing * (node - 2)`` on each axis; the shape counts the FFT's padding."""

    low: tuple[float, ...]
    spacing: float
    shape: tuple[int, ...]

    @classmethod
    def around(cls, low: list[float], high: list[float], dof: float) -> Grid:
        """Cover a map."""
        sides = [upper - lower for lower, upper in zip(low, high, strict=True)]
        spacing = _spacing(max(sides), dof)
        return cls(tuple(low), spacing, tuple(_padded_size(side / spacing) for side in sides))

    @property
    def n_nodes(self) -> int:
        """Number of nodes, padding included."""
        return math.prod(self.shape)

    @property
    def is_bounded(self) -> bool:
        """Whether it has no more nodes than memory is set aside for."""
        return self.n_nodes <= MAX_NODES


def _widest_spacing(dof: float) -> float:
    return SPACING * math.sqrt(dof / (dof + 3))  # k2 = 1 - (d / width)^2 / 2 + ...


def _spacing(side: float, dof: float) -> float:
    """Give the node distance, in steps of 2^(1/8) so that neighbouring maps share a kernel."""
    widest = _widest_spacing(dof)
    refinement = max(side, 1e-15) / (MIN_INTERVALS * widest)
    return widest * math.pow(2.0, min(0, math.floor(8 * math.log2(refinement))) / 8)


def _padded_size(intervals: float) -> int:
    nodes = math.floor(intervals) + ORDER
    return _fast_size(2 * nodes + MARGIN)


def _fast_size(n: int) -> int:
    """Give the smallest even 2^i 3^j 5^k of at least n."""
    odd = [three * five for five in _powers(5, n) for three in _powers(3, n)]
    return min(factor << max(1, (-(-n // factor) - 1).bit_length()) for factor in odd)


def _powers(base: int, limit: int) -> list[int]:
    return list(takewhile(lambda power: power <= limit, (base**i for i in range(limit))))


def largest_side(n_components: int, dof: float) -> float:
    """Give the side of a square map whose grid is just inside the memory bound."""
    padded = 0.93 * math.pow(MAX_NODES, 1 / n_components)  # fast sizes are at most 7 % apart
    return ((padded - MARGIN) / 2 - ORDER) * _widest_spacing(dof)


class Kernel(NamedTuple):
    """Transform of k1 - floor between spline coefficients, and the same within one stencil.

    The floor, k1 at half a period, moves no point. Without it float32 could not tell the points of
    a small map apart, where k1 is nearly 1 everywhere.
    """

    spacing: float
    shape: tuple[int, ...]
    floor: float
    transform: Tensor
    within_stencil: Tensor

    @classmethod
    def on(cls, grid: Grid, dof: float, like: Tensor) -> Kernel:
        """Sample k1 on the nodes and divide by the spline filter: the splines meet k1 there."""
        steps = [_steps_around(size, like) for size in grid.shape]
        d2 = _outer_sum([(step * grid.spacing).square() for step in steps])
        farthest = sum((size // 2 * grid.spacing) ** 2 for size in grid.shape)
        exponent, log_u = (dof + 1) / 2, math.log1p(farthest / dof)
        floor = math.exp(-exponent * log_u)
        above_floor = floor * torch.expm1(exponent * (log_u - torch.log1p(d2 / dof)))
        filters = [_spline_filter(step) for step in steps]
        filters[-1] = filters[-1][: grid.shape[-1] // 2 + 1]
        # once for the sources and once for the targets
        transform = torch.fft.rfftn(above_floor).real / _outer_product(filters).square()
        values = torch.fft.irfftn(transform, s=grid.shape)
        return cls(grid.spacing, grid.shape, floor, transform, _within_stencil(values))

    def fits(self, grid: Grid, like: Tensor) -> bool:
        """Whether this is the kernel for a grid, in the dtype and on the device of ``like``."""
        is_alike = self.transform.dtype == like.dtype and self.transform.device == like.device
        return is_alike and self.spacing == grid.spacing and self.shape == grid.shape


def _spline_filter(step: Tensor) -> Tensor:
    """Transform the quintic spline, sampled at the nodes: (1, 26, 66, 26, 1) / 120."""
    angle = 2 * math.pi * step / len(step)
    return (66 + 52 * torch.cos(angle) + 2 * torch.cos(2 * angle)) / 120


def _within_stencil(values: Tensor) -> Tensor:
    """Pick the kernel between any two nodes of a stencil, (6^K, 6^K)."""
    arm = torch.arange(ORDER, device=values.device)
    apart = [(arm[:, None] - arm).abs() * stride for stride in _strides(values.shape, arm.device)]
    pairs = reduce(lambda a, b: (a[:, None, :, None] + b[:, None]).flatten(2).flatten(0, 1), apart)
    return values.flatten()[pairs]


def _steps_around(size: int, like: Tensor) -> Tensor:
    steps = torch.arange(size, device=like.device)
    return torch.minimum(steps, size - steps).to(like.dtype)


def _outer_sum(vectors: list[Tensor]) -> Tensor:
    return reduce(lambda a, b: a[..., None] + b, vectors)


def _outer_product(vectors: list[Tensor]) -> Tensor:
    return reduce(lambda a, b: a[..., None] * b, vectors)


class Stencil(NamedTuple):
    """Nodes around each point, and for each axis the splines there and their slopes."""

    nodes: Tensor  # (6^K, N), their flat numbers
    weight: Tensor  # (6^K, N), product of the splines
    splines: Tensor  # (6, K, N)
    slopes: Tensor  # (6, K, N), per interval

    @classmethod
    def around(cls, Y: Tensor, grid: Grid) -> Stencil:
        """Find the nodes around each point."""
        position = ((Y - Y.new_tensor(grid.low)) / grid.spacing).T.contiguous()  # (K, N)
        first = position.floor()
        strides = _strides(grid.shape, Y.device)
        corner = (first.long() * strides[:, None]).sum(0)
        arm = torch.arange(ORDER, device=Y.device)
        offset = _outer_sum([arm * stride for stride in strides]).flatten()
        splines, slopes = _quintic_splines(position - first)
        weight = reduce(lambda a, b: (a[:, None] * b).flatten(0, 1), splines.unbind(1))
        return cls(corner + offset[:, None], weight, splines, slopes)


def _strides(shape: Sequence[int], device: torch.device) -> Tensor:
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return torch.tensor(strides, device=device)


def _quintic_splines(t: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate the splines of the six nodes around a point and their slopes, by Horner's rule."""
    coefficients = t.new_tensor(QUINTIC).T.view(ORDER, -1, *[1] * t.ndim) / 120
    value, slope = coefficients[-1], torch.zeros_like(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        slope = torch.addcmul(value, slope, t)
        value = torch.addcmul(coefficient, value, t)
    return value, slope  # (6, K, N)


def grid_repulsion(
    Y: Tensor, grid: Grid, kernel: Kernel, dof: float, count: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Interpolate the force (N, K) and Z; `count` (N,) rows stand at each point."""
    n_points, n_components = Y.shape
    stencil = Stencil.around(Y, grid)
    at_points = stencil.nodes.flatten()
    charge = Y.new_zeros(1, grid.n_nodes)
    own = stencil.weight if count is None else stencil.weight * count
    add_in_order(charge, at_points, own.view(1, -1))
    field = _convolve(charge.view(grid.shape), kernel).index_select(0, at_points)
    # what the rows of a point put on its nodes is taken away again
    others = field.view_as(own).sub_(kernel.within_stencil @ own)
    others = others.view(*[ORDER] * n_components, n_points)
    value, slope = stencil.splines.unbind(1), stencil.slopes.unbind(1)
    potential = _interpolate(others, value)
    slopes = [
        _interpolate(others, [*value[:axis], slope[axis], *value[axis + 1 :]])
        for axis in range(n_components)
    ]
    force = torch.stack(slopes, 1) * (-dof / (dof + 1) / grid.spacing)
    # forces balance, but for the grid
    if count is None:
        Z = potential.sum() + kernel.floor * n_points * (n_points - 1)
        return force - force.mean(0), Z
    n_rows, n_together = count.sum(), (count * (count - 1)).sum()  # together: pairs, k1 = 1
    Z = count @ potential + kernel.floor * n_rows * (n_rows - 1) + (1 - kernel.floor) * n_together
    return force - (count @ force) / n_rows, Z


def _interpolate(field: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Weight the nodes (6, ..., 6, N) by one factor (6, N) for each axis, and add up."""
    return reduce(lambda values, factor: (values * factor).sum(-2), reversed(factors), field)


def _convolve(nodes: Tensor, kernel: Kernel) -> Tensor:
    transform = torch.fft.rfftn(nodes) * kernel.transform
    for axis in range(nodes.ndim - 1):  # one by one, and only the rows that hold points
        transform = torch.fft.ifft(transform, dim=axis).narrow(axis, 0, kernel.shape[axis] // 2)
    potential: Tensor = torch.fft.irfft(transform, n=kernel.shape[-1])
    return potential.flatten()
