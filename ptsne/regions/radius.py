"""How far each row is from the boundary of its linear region, and which switch bounds it.

Lemma: inside a region all margins are affine, so that the largest p-ball around x in the region of
its activation pattern has radius ``min_k |s_k(x)| / ||grad s_k(x)||_q`` with ``1/p + 1/q = 1``.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ptsne.linearize.running import check_arguments, exact_arithmetic

from .distances import Distances
from .running import MEMORY_BUDGET, Runner
from .switches import SwitchGraph

DUAL = {1: math.inf, 2: 2.0, math.inf: 1.0}


@dataclass(frozen=True)
class Unit:
    """A switch: one unit of one operation.

    Attributes
    ----------
    layer : str
        Path of the module in ``model.named_modules()``.
    operation : str
        What branches there, such as ``"relu"``, or the name under which a module announces it.
    index : int
        Which of the operation's switches, counted within a row.

    Examples
    --------
    >>> from ptsne.regions import Unit
    >>> Unit(layer="features.1", operation="relu", index=12)
    Unit(layer='features.1', operation='relu', index=12)
    """

    layer: str
    operation: str
    index: int


class RegionRadius(NamedTuple):
    """Distance of each row from the boundary of its linear region.

    Attributes
    ----------
    radius : Tensor of shape (N,)
        In units of x, measured by the p-norm; infinite where nothing branches. 0 where a row
        stands on a boundary, such as equal pixels under a max pool.
    direction : Tensor of shape (N, *input shape)
        Of unit p-norm, towards the nearest boundary; 0 where nothing branches.
    unit : list of Unit or None
        The switch that bounds each row.

    Examples
    --------
    >>> import torch
    >>> from ptsne import region_radius
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... ).eval()
    >>> x = torch.rand(5, 4)
    >>> nearest = region_radius(net, x)
    >>> nearest.radius.shape, nearest.direction.shape, len(nearest.unit)
    (torch.Size([5]), torch.Size([5, 4]), 5)
    """

    radius: Tensor
    direction: Tensor
    unit: list[Unit | None]


def region_radius(
    model: nn.Module,
    x: Tensor,
    p: float = 2,
    *,
    memory_budget: int = MEMORY_BUDGET,
    progress: bool = False,
) -> RegionRadius:
    r"""Radius of the largest p-ball around each row in which no branch of the network changes.

    .. math:: r_p(x) = \min_k |s_k(x)| / \|\nabla s_k(x)\|_q, \quad 1/p + 1/q = 1

    over all switches s: inputs of ReLU and its kin, distances from the bounds of a clamp, gaps
    between the elements of a max pool's window, of a sort, of a comparison. Inside the ball W and b
    are constant. It is the region of the activation pattern: where two patterns share one W, that
    W holds further.

    Parameters
    ----------
    model : nn.Module
        A piecewise linear network in evaluation mode; it is never changed. A module that branches
        where autograd does not see it must have a method ``switches(z)`` that returns, by name,
        margins (N, n) differentiable by its input z, infinite where there is none; the whole
        numbers that name them, (n,) or (N, n); and how many such numbers there are.
    x : Tensor of shape (N, ...), float32 or float64
        Rows; all is computed in float64.
    p : {1, 2, inf}
        Norm of the ball.
    memory_budget : int
        Bytes that one chunk may take.
    progress : bool
        Show a bar over rows.

    Returns
    -------
    RegionRadius
        Radius, direction and unit; radius and direction in the dtype of x.

    Raises
    ------
    ValueError
        If `p` is none of the three.

    Notes
    -----
    `UnsupportedOperation` if an operation is smooth, or branches in a way that cannot be known: the
    message names it and its module.

    Examples
    --------
    >>> import torch
    >>> from ptsne.regions import region_radius
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU()).eval()
    >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 4.0]])), net[0].bias.data.zero_()
    >>> nearest = region_radius(net, torch.tensor([[1.0, 1.0]]))
    >>> nearest.radius, nearest.direction
    (tensor([1.4000]), tensor([[-0.6000, -0.8000]]))
    >>> nearest.unit
    [Unit(layer='1', operation='relu', index=0)]
    """
    if p not in DUAL:
        raise ValueError(f"p must be 1, 2 or inf; got {p!r}")
    check_arguments(model, x)
    parts = []
    with (
        exact_arithmetic(x.device),
        tqdm(total=len(x), desc="region radius", disable=not progress) as bar,
    ):
        run = Runner(model, x, memory_budget)
        distances = Distances(run.first, DUAL[p], memory_budget)
        for graph in run.chunks(x):
            parts.append(_nearest(graph, distances, p))
            bar.update(len(graph.x))
    radius = torch.cat([part.radius for part in parts]).to(x.dtype)
    direction = torch.cat([part.direction for part in parts]).to(x.dtype)
    return RegionRadius(radius, direction, [unit for part in parts for unit in part.unit])


def activation_pattern(
    model: nn.Module, x: Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> Tensor:
    """Which branch each unit of the network takes.

    Parameters
    ----------
    model : nn.Module
        A piecewise linear network in evaluation mode, as in `region_radius`.
    x : Tensor of shape (N, ...), float32 or float64
        Rows; all is computed in float64.
    memory_budget : int
        Bytes that one chunk may take.

    Returns
    -------
    int32 Tensor of shape (N, switches)
        How many knots lie below a unit's input (ReLU: 0 or 1; clamp: 0, 1 or 2), which element wins
        a window, which order a sort found; rows of one pattern have one W and one b.

    Raises
    ------
    ValueError
        If rows have different numbers of units.

    Notes
    -----
    `UnsupportedOperation` as in `region_radius`.

    Examples
    --------
    >>> import torch
    >>> from ptsne import activation_pattern
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... ).eval()
    >>> activation_pattern(net, torch.rand(5, 4)).shape  # 5 rows, 8 switches
    torch.Size([5, 8])
    """
    check_arguments(model, x)
    with exact_arithmetic(x.device):
        parts = [graph.branch for graph in Runner(model, x, memory_budget).chunks(x)]
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(
            f"this network runs {min(widths)} to {max(widths)} units, depending on the row; ask "
            "for the patterns of single rows"
        )
    return torch.cat(parts)


# ---- the nearest switch ----


def _nearest(graph: SwitchGraph, distances: Distances, p: float) -> RegionRadius:
    n_rows, shape = len(graph.x), graph.x.shape
    if not graph.margin.shape[1]:
        nowhere = graph.margin.new_zeros(shape)
        return RegionRadius(graph.margin.new_full((n_rows,), math.inf), nowhere, [None] * n_rows)
    chosen = distances(graph).argmin(1)
    gradient = graph.gradient(chosen).detach()
    margin = graph.margin.gather(1, chosen[:, None])[:, 0]
    norm = torch.linalg.vector_norm(gradient.reshape(n_rows, -1), DUAL[p], 1)
    radius = torch.where(norm > 0, margin.abs() / norm, math.inf)
    direction = _towards(gradient, margin, p)
    units = [
        _unit(graph, row, k) if math.isfinite(r) else None
        for row, (k, r) in enumerate(zip(chosen.tolist(), radius.tolist(), strict=True))
    ]
    return RegionRadius(radius, direction, units)


def _towards(gradient: Tensor, margin: Tensor, p: float) -> Tensor:
    """Direction of unit p-norm in which the margin falls to zero fastest."""
    flat = gradient.reshape(len(gradient), -1)
    if p == math.inf:
        step = flat.sign()
    elif p == 1:
        largest = flat.abs().argmax(1, keepdim=True)
        step = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
    else:
        norm = flat.norm(dim=1, keepdim=True)
        step = flat / torch.where(norm > 0, norm, 1.0)
    side = torch.where(margin >= 0, -1.0, 1.0).to(step)
    return (step * side[:, None]).reshape(gradient.shape)


def _unit(graph: SwitchGraph, row: int, k: int) -> Unit:
    ends = list(accumulate(group.n for group in graph.groups))
    at = bisect_right(ends, k)
    group = graph.groups[at]
    k -= ends[at] - group.n
    number = k if group.unit is None else int(group.unit.expand_as(group.margin)[row, k])
    return Unit(group.path, group.operation, number)
