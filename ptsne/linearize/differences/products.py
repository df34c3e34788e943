"""Products and quotients: the mean of each factor; exact for whatever is quadratic."""

from functools import partial
from typing import cast

import torch
from torch import Tensor

from ptsne.linearize import gains
from ptsne.linearize.operation import Gradients, Held
from ptsne.linearize.rule import send

from .pair import DifferenceBook, Pair

DIFFERENCES = DifferenceBook()


@DIFFERENCES.rule(
    """mul mm bmm mv dot linalgcross lerp linear convolution
    convolutionoverrideable addmm sparseaddmm baddbmm addbmm addmv addr addcmul"""
)
def _product(pair: Pair) -> Held:
    if len(pair.operation.edges) < 2:
        return Held()
    return _at_middle(pair)


@DIFFERENCES.rule("trilinear")
def _trilinear(pair: Pair) -> Held:
    if len(pair.operation.edges) > 2:
        raise pair.operation.unsupported("all three factors depend on x")
    return _product(pair)


@DIFFERENCES.rule("var")
def _at_middle(pair: Pair) -> Held:
    middles = [(z + z0) / 2 for z, z0 in pair.inputs]
    return Held(partial(_pull_at, pair=pair, inputs=middles, edges=pair.operation.edges))


def _pull_at(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    pair: Pair,
    inputs: list[Tensor],
    edges: tuple[int, ...],
) -> Gradients:
    gradients = pair.vjp(inputs, cast(Tensor, outgoing[0]))
    return send(incoming, dict(zip(edges, gradients, strict=True)))


@DIFFERENCES.rule("div")
def _quotient(pair: Pair) -> Held:
    operation = pair.operation
    if operation.argument("rounding_mode") is not None:
        raise operation.unsupported("division with rounding")
    if operation.edges == (0,):
        return Held()
    if operation.edges == (1,):
        ((b, b0),) = pair.inputs
        numerator = operation.argument("self")
        return Held(partial(_pull_quotient, slopes=(None, -numerator / (b * b0)), shapes=(b, b)))
    (a, a0), (b, b0) = pair.inputs
    slopes = (1 / b + 1 / b0) / 2, -(a + a0) / (2 * b * b0)
    return Held(partial(_pull_quotient, slopes=slopes, shapes=(a, b)))


def _pull_quotient(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    slopes: tuple[Tensor | None, Tensor],
    shapes: tuple[Tensor, Tensor],
) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    parts = {
        i: (gradient * slope).sum_to_size(z.shape)
        for i, (slope, z) in enumerate(zip(slopes, shapes, strict=True))
        if slope is not None
    }
    return send(incoming, cast(dict[int, Tensor | None], parts))


@DIFFERENCES.rule("glu")
def _glu(pair: Pair) -> Held:
    z, z0 = pair.input
    dim = pair.operation.argument("dim")
    (a, b), (a0, b0) = z.chunk(2, dim), z0.chunk(2, dim)
    gate, gate0 = torch.sigmoid(b), torch.sigmoid(b0)
    # sigma(b) - sigma(b0) = tanh-like in b - b0, without cancelling where they are close
    middle = gate * (1 - gate0) + gate0 * (1 - gate)
    chord = middle / 2 * gains.ratio(torch.tanh((b - b0) / 2), (b - b0) / 2, 1.0)
    slope = torch.cat([(gate + gate0) / 2, (a + a0) / 2 * _sigmoid_chord(b, b0, chord)], dim)
    return Held(partial(_pull_glu, slope=slope, dim=dim))


def _sigmoid_chord(b: Tensor, b0: Tensor, fallback: Tensor) -> Tensor:
    near = (b - b0).abs() < 1e-3
    return torch.where(near, fallback, gains.ratio(torch.sigmoid(b) - torch.sigmoid(b0), b - b0, 0))


def _pull_glu(incoming: Gradients, outgoing: Gradients, *, slope: Tensor, dim: int) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    return send(incoming, {0: torch.cat([gradient, gradient], dim) * slope})
