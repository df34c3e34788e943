"""Exact integrated gradients of many ways at once.

`ptsne.regions.integrated_gradients` walks one way after the other. Here the pieces of all ways
stand in one batch: each round asks the middles of the pieces that are not yet known.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptsne.linearize import CompletenessError, LinearizationError
from ptsne.linearize.running import exact_arithmetic
from ptsne.regions.running import MEMORY_BUDGET, Runner
from ptsne.regions.segment import MAX_REGIONS
from ptsne.regions.switches import SwitchGraph

_SHORTEST = 1e-13  # of a way: what remains between regions is rounding
_TIE = 1e-13  # of the largest margin of the layer: a difference that is rounding
_TOLERANCE = 1e-9  # of the values at the ends


def attribute_ways(model: nn.Module, starts: Tensor, ends: Tensor) -> Tensor:
    r"""Attribute the change of a one-output network on straight ways, column by column.

    .. math:: A_f = (e_f - s_f) \int_0^1 \partial_f F(s + t (e - s)) \, dt, \quad
        \sum_f A_f = F(e) - F(s)

    Every linear region on a way is found, and the gradient is constant in each, so that the
    integral is a sum.

    Parameters
    ----------
    model : nn.Module
        Piecewise linear, in eval mode and float64, with one output.
    starts, ends : Tensor of shape (P, D), float64
        Ends of the ways.

    Returns
    -------
    Tensor of shape (P, D)
        Attributions.

    Raises
    ------
    LinearizationError
        If the ways cross more than `MAX_REGIONS` regions on average.

    Notes
    -----
    `CompletenessError` where the network jumps; `UnsupportedOperation` where it is not piecewise
    linear.

    References
    ----------
    Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, eq. 1.
    """
    steps = ends - starts
    average = torch.zeros_like(starts)
    pieces = _Pieces(
        torch.arange(len(starts), device=starts.device),
        steps.new_zeros(len(steps)),
        steps.new_ones(len(steps)),
    )
    n_asked = 0
    with exact_arithmetic(starts.device):
        run = Runner(model, torch.cat([starts[:1], ends[:1]]), MEMORY_BUDGET)
        while len(pieces.way):
            graph = run(_middles(pieces.part(0, run.size), starts, steps))
            asked, waiting = pieces.part(0, len(graph.x)), pieces.part(len(graph.x))
            n_asked += len(asked.way)
            if n_asked > MAX_REGIONS * len(starts):
                raise LinearizationError(
                    f"the ways cross more than {MAX_REGIONS} linear regions each; use "
                    'method="paired"'
                )
            region = _region(graph, steps[asked.way], asked)
            gradient = graph.output_gradient(torch.zeros_like(region.way))
            average.index_add_(0, region.way, (region.high - region.low)[:, None] * gradient)
            pieces = _remaining(waiting, asked, region)
    parts = average * steps
    _check_complete(model, starts, ends, parts)
    return parts


class _Pieces(NamedTuple):
    """Pieces of ways: number of the way, and ends as parts of it, (n,) each."""

    way: Tensor
    low: Tensor
    high: Tensor

    def part(self, start: int, stop: int | None = None) -> "_Pieces":
        """Some of the pieces."""
        return _Pieces(*(values[start:stop] for values in self))


def _middles(pieces: _Pieces, starts: Tensor, steps: Tensor) -> Tensor:
    """Middle rows of pieces, (n, D)."""
    time = (pieces.low + pieces.high) / 2
    return starts[pieces.way] + time[:, None] * steps[pieces.way]


def _region(graph: SwitchGraph, step: Tensor, pieces: _Pieces) -> _Pieces:
    """Of each piece what lies in the region of its middle: up to the first zeros of margins."""
    _, low, high = pieces
    slope = graph.push(graph.groups)(step)  # (n, switches)
    margin, tie = graph.margin, _TIE * _largest(graph)
    is_rounding = (margin.abs() <= tie) & ((slope * (high - low)[:, None]).abs() <= tie)
    moves = (slope != 0) & ~is_rounding & margin.isfinite()
    time = torch.where(moves, -margin / torch.where(moves, slope, 1.0), torch.inf)
    time = torch.cat([time, torch.full_like(low[:, None], torch.inf)], 1)
    before = torch.where(time <= 0, -time, torch.inf).amin(1)
    after = torch.where(time >= 0, time, torch.inf).amin(1)
    middle = (low + high) / 2
    first, last = torch.maximum(low, middle - before), torch.minimum(high, middle + after)
    first = torch.where(first - low <= _SHORTEST, low, first)
    return _Pieces(pieces.way, first, torch.where(high - last <= _SHORTEST, high, last))


def _largest(graph: SwitchGraph) -> Tensor:
    """Largest finite margin of each switch's layer, (n, switches)."""
    layers = [
        group.margin.detach().abs().nan_to_num(posinf=0.0).amax(1, keepdim=True).expand(-1, group.n)
        for group in graph.groups
    ]
    return torch.cat([graph.margin[:, :0], *layers], 1)


def _remaining(waiting: _Pieces, asked: _Pieces, region: _Pieces) -> _Pieces:
    """Pieces still unknown: those not asked yet, and what is left on both sides of regions."""
    way = torch.cat([waiting.way, asked.way, asked.way])
    low = torch.cat([waiting.low, asked.low, region.high])
    high = torch.cat([waiting.high, region.low, asked.high])
    is_long = high - low > _SHORTEST
    return _Pieces(way[is_long], low[is_long], high[is_long])


def _check_complete(model: nn.Module, starts: Tensor, ends: Tensor, parts: Tensor) -> None:
    with torch.no_grad():
        at_start, at_end = model(starts).flatten(), model(ends).flatten()
    gap = (at_end - at_start - parts.sum(1)).abs()
    scale = at_start.abs() + at_end.abs() + parts.abs().sum(1)
    if not bool((gap <= _TOLERANCE * scale).all()):
        raise CompletenessError(
            f"integrated gradients miss the way by {float(gap.max()):.3g} map units: the network "
            "jumps between the rows, and no integral of gradients tells by how much"
        )
