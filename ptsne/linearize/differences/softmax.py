"""Softmax: ``y - y0 = L (dz - <L, dz> / <L, 1>)``, L the logarithmic mean of y and y0."""

from functools import partial
from typing import cast

import torch
from torch import Tensor

from ptsne.linearize import gains
from ptsne.linearize.operation import Gradients, Held
from ptsne.linearize.rule import send

from .pair import DifferenceBook, Pair, summed

DIFFERENCES = DifferenceBook()


@DIFFERENCES.rule("softmax safesoftmax")
def _softmax(pair: Pair) -> Held:
    y, y0 = pair.outputs
    return _softmax_held(pair, _logarithmic_mean(y, y0), is_logarithm=False)


@DIFFERENCES.rule("logsoftmax")
def _log_softmax(pair: Pair) -> Held:
    y, y0 = pair.outputs
    return _softmax_held(pair, _logarithmic_mean(y.exp(), y0.exp()), is_logarithm=True)


@DIFFERENCES.rule("logsumexp")
def _logsumexp(pair: Pair) -> Held:
    operation = pair.operation
    dims = operation.argument("dim")
    p, p0 = ((z - torch.logsumexp(z, dims, keepdim=True)).exp() for z in pair.input)
    mean = _logarithmic_mean(p, p0)
    slope = mean / mean.sum(dims, keepdim=True)
    return summed(slope, dims, keepdim=operation.argument("keepdim"))


def _logarithmic_mean(p: Tensor, p0: Tensor) -> Tensor:
    """``(p - p0) / (log p - log p0)``, p itself where they agree, 0 where one is 0."""
    t = (torch.log(p) - torch.log(p0)) / 2
    mean = (p * p0).sqrt() * gains.ratio(torch.sinh(t), t, 1.0)
    return torch.where((p > 0) & (p0 > 0), mean, torch.zeros_like(p))


def _softmax_held(pair: Pair, mean: Tensor, *, is_logarithm: bool) -> Held:
    dim = pair.operation.argument("dim")
    share = mean / mean.sum(dim, keepdim=True)
    return Held(partial(_pull_softmax, mean=mean, share=share, dim=dim, is_logarithm=is_logarithm))


def _pull_softmax(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    mean: Tensor,
    share: Tensor,
    dim: int,
    is_logarithm: bool,
) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    weighted = gradient if is_logarithm else gradient * mean
    return send(incoming, {0: weighted - share * weighted.sum(dim, keepdim=True)})
