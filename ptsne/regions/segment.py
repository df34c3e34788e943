"""The exact way through the linear regions of a segment.

The region of a point is convex, so that it meets the segment in an interval, whose ends are the
first zeros of the margins: they are affine within. So the middle of a piece that is not yet known
tells the interval around it, and leaves at most two shorter pieces to be asked in the same way, all
pieces of all segments at once. Each region costs one forward pass and two products, and nothing is
sampled.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptsne.linearize import LinearizationError
from ptsne.linearize.running import check_arguments, exact_arithmetic

from .running import MEMORY_BUDGET, Runner
from .switches import SwitchGraph

MAX_REGIONS = 100_000
"""Regions of one segment after which the walk is given up."""

_SHORTEST = 1e-13  # of the segment: what remains between regions is rounding
_TIE = 1e-13  # of the largest margin of the layer: a difference that is rounding


class SegmentRegions(NamedTuple):
    """The linear regions that a segment crosses, in order.

    Attributes
    ----------
    breakpoints : Tensor of shape (R + 1,), float64
        From 0 at the start to 1 at the end; region r lies between breakpoints r and r + 1.
    patterns : int32 Tensor of shape (R, switches)
        Activation pattern of each region.

    Examples
    --------
    >>> import torch
    >>> from ptsne import segment_regions
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU()).eval()
    >>> _ = net[0].weight.data.fill_(1.0), net[0].bias.data.zero_()
    >>> way = segment_regions(net, torch.tensor([-1.0]), torch.tensor([3.0]))
    >>> way.breakpoints, way.patterns.shape  # where the unit switches, as a share of the way
    (tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64), torch.Size([2, 1]))
    """

    breakpoints: Tensor
    patterns: Tensor


class Pieces(NamedTuple):
    """Pieces of segments.

    Attributes
    ----------
    segment : int Tensor of shape (n,)
        Which segment each lies on.
    start, end : Tensor of shape (n,)
        Its ends, as parts of the segment.
    """

    segment: Tensor
    start: Tensor
    end: Tensor

    def part(self, start: int, stop: int | None = None) -> "Pieces":
        """Some of the pieces."""
        return Pieces(*(values[start:stop] for values in self))


class Found(NamedTuple):
    """Linear regions found together.

    Attributes
    ----------
    graph : SwitchGraph
        At one point of each region.
    regions : Pieces
        What each region covers of its segment.
    """

    graph: SwitchGraph
    regions: Pieces


def segment_regions(
    model: nn.Module,
    a: Tensor,
    b: Tensor,
    *,
    max_regions: int = MAX_REGIONS,
    memory_budget: int = MEMORY_BUDGET,
) -> SegmentRegions:
    """Linear regions on the way from one input to another: every breakpoint, exactly.

    Parameters
    ----------
    model : nn.Module
        A piecewise linear network in evaluation mode, as in `region_radius`.
    a, b : Tensor of one input's shape, without rows; float32 or float64
        Ends of the segment; all is computed in float64.
    max_regions : int
        Give up beyond so many.
    memory_budget : int
        Bytes that one chunk of points may take.

    Returns
    -------
    SegmentRegions
        Breakpoints and patterns; neighbours differ.

    Notes
    -----
    `UnsupportedOperation` as in `region_radius`; `LinearizationError` beyond `max_regions`.

    References
    ----------
    Sotoudeh and Thakur 2019, Computing Linear Restrictions of Neural Networks, walks the segment
    layer by layer; here all layers are asked at once.

    Examples
    --------
    >>> import torch
    >>> from ptsne.regions import segment_regions
    >>> clip = torch.nn.Hardtanh().eval()
    >>> segment_regions(clip, torch.tensor([-3.0]), torch.tensor([1.0])).breakpoints
    tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    check_arguments(model, a[None])
    options = {"max_regions": max_regions, "memory_budget": memory_budget}
    with exact_arithmetic(a.device):
        found = walk(model, a[None], b[None], **options)
        parts = [(f.regions.start, f.regions.end, f.graph.branch) for f in found]
    start, end, pattern = (torch.cat(part) for part in zip(*parts, strict=True))
    order = start.argsort()
    order = order[end[order] > start[order]]
    start, end, pattern = start[order], end[order], pattern[order]
    is_new = (pattern[1:] != pattern[:-1]).any(1)  # equal neighbours were parted by rounding
    between = ((start[1:] + end[:-1]) / 2)[is_new]
    breakpoints = torch.cat([start.new_zeros(1), between, start.new_ones(1)])
    return SegmentRegions(breakpoints, torch.cat([pattern[:1], pattern[1:][is_new]]))


def walk(
    model: nn.Module, a: Tensor, b: Tensor, *, max_regions: int, memory_budget: int
) -> Iterator[Found]:
    """Find the regions on many segments, some at a time and in no order.

    Parameters
    ----------
    model : nn.Module
        The network.
    a, b : Tensor of shape (P, ...)
        Ends of the segments.
    max_regions : int
        Give up beyond so many a segment, on average.
    memory_budget : int
        Bytes of one chunk.

    Yields
    ------
    Found
        Regions; together they cover the segments.

    Raises
    ------
    ValueError
        If the ends differ in shape.
    LinearizationError
        If there are more regions than `max_regions`.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"a and b must have one shape; got {tuple(a.shape[1:])}, {tuple(b.shape[1:])}"
        )
    a, b = a.detach().double(), b.detach().double()
    run, step = Runner(model, torch.cat([a[:1], b[:1]]), memory_budget), b - a
    n_segments, width = len(a), (-1, *(1,) * (a.dim() - 1))
    pieces = Pieces(
        torch.arange(n_segments, device=a.device), a.new_zeros(n_segments), a.new_ones(n_segments)
    )
    n_asked = 0
    while len(pieces.segment):
        segment, start, end = pieces.part(0, run.size)
        middle = ((start + end) / 2).reshape(width)
        graph = run(a[segment] + middle * step[segment])
        asked, waiting = pieces.part(0, len(graph.x)), pieces.part(len(graph.x))
        n_asked += len(graph.x)
        if n_asked > max_regions * n_segments:
            raise LinearizationError(
                f"the segment crosses more than {max_regions} linear regions; raise max_regions, "
                "or integrate gradients with method='quadrature'"
            )
        regions = _around(graph, step[asked.segment], asked)
        yield Found(graph, regions)
        pieces = _remaining(waiting, asked, regions)


def _around(graph: SwitchGraph, step: Tensor, pieces: Pieces) -> Pieces:
    """Of each piece what lies in the region of its middle: up to the first zeros of margins."""
    segment, start, end = pieces
    slope = graph.push(graph.groups)(step)  # (n, switches)
    margin, tie = graph.margin, _TIE * _largest_of_group(graph)
    is_rounding = (margin.abs() <= tie) & ((slope * (end - start)[:, None]).abs() <= tie)
    moves = (slope != 0) & ~is_rounding & margin.isfinite()
    time = torch.where(moves, -margin / torch.where(moves, slope, 1.0), torch.inf)
    after = time.masked_fill(time < 0, torch.inf)
    before = (-time).masked_fill((time > 0) | ~moves, torch.inf)
    none = torch.full_like(start[:, None], torch.inf)
    middle = (start + end) / 2
    low = torch.maximum(start, middle - torch.cat([before, none], 1).amin(1))
    high = torch.minimum(end, middle + torch.cat([after, none], 1).amin(1))
    low = torch.where(low - start <= _SHORTEST, start, low)
    return Pieces(segment, low, torch.where(end - high <= _SHORTEST, end, high))


def _largest_of_group(graph: SwitchGraph) -> Tensor:
    """Largest finite margin of each switch's group, (N, n)."""
    parts = [
        group.margin.detach().abs().nan_to_num(posinf=0.0).amax(1, keepdim=True).expand(-1, group.n)
        for group in graph.groups
    ]
    return torch.cat([graph.margin[:, :0], *parts], 1)


def _remaining(waiting: Pieces, asked: Pieces, regions: Pieces) -> Pieces:
    """Pieces still unknown: those not asked yet, and what is left on both sides of regions."""
    segment = torch.cat([waiting.segment, asked.segment, asked.segment])
    start = torch.cat([waiting.start, asked.start, regions.end])
    end = torch.cat([waiting.end, regions.start, asked.end])
    is_long = end - start > _SHORTEST
    return Pieces(segment[is_long], start[is_long], end[is_long])
