"""Choices: a mixture of the two winners."""

from functools import partial
from typing import cast

import torch
from torch import Tensor

from ptsne.linearize import gains
from ptsne.linearize.operation import Gradients, Held
from ptsne.linearize.rule import send

from .pair import DifferenceBook, Pair
from .scalars import scalar

DIFFERENCES = DifferenceBook()


@DIFFERENCES.rule(
    """max min amax amin cummax cummin maxpool2dwithindices maxpool3dwithindices maxpool2d
    adaptivemaxpool2d adaptivemaxpool3d maximum minimum fmax fmin"""
)
def _selection(pair: Pair) -> Held:
    if len(pair.operation.edges) == 1 and pair.operation.name in ("maximum", "minimum"):
        return scalar(pair)
    return _mixture(pair, is_bounded=True)


@DIFFERENCES.rule(
    "sort topk kthvalue median nanmedian mode fractionalmaxpool2d fractionalmaxpool3d"
)
def _order(pair: Pair) -> Held:
    return _mixture(pair, is_bounded=False)


def _mixture(pair: Pair, *, is_bounded: bool) -> Held:
    inputs, references = (list(z) for z in zip(*pair.inputs, strict=True))
    y, y0 = pair.outputs
    steps = [z - z0 for z, z0 in pair.inputs]
    here, there = (_jvp(pair, at, steps) for at in (inputs, references))
    share = gains.ratio(y - y0 - there, here - there, 0.5)
    if not is_bounded and not torch.allclose(here, y - y0, rtol=1e-6, atol=1e-9):
        raise pair.operation.unsupported("the reference has another order")
    share = share.clamp(0, 1) if is_bounded else torch.ones_like(share)
    pull = partial(_pull_mixture, pair=pair, at=(inputs, references), share=share)
    return Held(pull)


def _jvp(pair: Pair, inputs: list[Tensor], steps: list[Tensor]) -> Tensor:
    """Derivative at `inputs` along `steps`, as the transpose of the vector product."""
    with torch.enable_grad():
        leaves = [z.detach().requires_grad_(True) for z in inputs]
        y = pair.run(leaves)
        u = torch.zeros_like(y, requires_grad=True)
        gradients = torch.autograd.grad(y, leaves, u, create_graph=True)
        total = torch.stack([(g * s).sum() for g, s in zip(gradients, steps, strict=True)]).sum()
        return torch.autograd.grad(total, u)[0]


def _pull_mixture(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    pair: Pair,
    at: tuple[list[Tensor], list[Tensor]],
    share: Tensor,
) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    here, there = pair.vjp(at[0], gradient * share), pair.vjp(at[1], gradient * (1 - share))
    sent = {e: h + t for e, h, t in zip(pair.operation.edges, here, there, strict=True)}
    return send(incoming, cast(dict[int, Tensor | None], sent))
