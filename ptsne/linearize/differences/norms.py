"""Norms and normalisations."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor

from ptsne.linearize.normalisation import refuse_adaptive
from ptsne.linearize.operation import Gradients, Held, Operation
from ptsne.linearize.rule import send

from .pair import DifferenceBook, Pair, summed

DIFFERENCES = DifferenceBook()


@DIFFERENCES.rule("linalgvectornorm norm")
def _vector_norm(pair: Pair) -> Held:
    operation = pair.operation
    arguments = operation.recorded.arguments
    if arguments.get("ord", arguments.get("p")) not in (2, None):
        raise operation.unsupported("only the 2-norm has an exact difference")
    z, z0 = pair.input
    dims = operation.argument("dim") or tuple(range(z.dim()))
    lengths = [torch.linalg.vector_norm(v, 2, dims, keepdim=True) for v in (z, z0)]
    total = lengths[0] + lengths[1]
    slope = (z + z0) / total.masked_fill(total == 0, 1.0)
    return summed(slope, dims, keepdim=bool(operation.argument("keepdim")))


@DIFFERENCES.rule("std")
def _deviation(pair: Pair) -> Held:
    # s - s0 = (s^2 - s0^2) / (s + s0), and of the variance the slope at the middle is the mean one
    y, y0 = pair.outputs
    z, z0 = pair.input
    return Held(partial(_pull_deviation, pair=pair, middle=(z + z0) / 2, total=y + y0))


def _pull_deviation(
    incoming: Gradients, outgoing: Gradients, *, pair: Pair, middle: Tensor, total: Tensor
) -> Gradients:
    share = cast(Tensor, outgoing[0]) / total
    cotangent = 2 * pair.run([middle]) * share
    return send(incoming, {0: pair.vjp([middle], cotangent)[0]})


@DIFFERENCES.rule(
    """nativebatchnorm cudnnbatchnorm miopenbatchnorm batchnormwithupdate batchnormnoupdate
    nativebatchnormlegit nativebatchnormlegitnotraining"""
)
def _batch_norm(pair: Pair) -> Held:
    operation = pair.operation
    refuse_adaptive(operation)
    if not operation.argument("training"):
        return Held()
    z = operation.input
    if len(z) != 1:
        raise operation.unsupported("it normalises by the statistics of the batch")
    return _normalisation(pair, (0, *range(2, z.dim())), _channels(operation, z))


@DIFFERENCES.rule("nativelayernorm")
def _layer_norm(pair: Pair) -> Held:
    refuse_adaptive(pair.operation)
    n_dims = len(pair.operation.argument("normalized_shape"))
    return _normalisation(pair, tuple(range(-n_dims, 0)), pair.operation.argument("weight"))


@DIFFERENCES.rule("nativegroupnorm")
def _group_norm(pair: Pair) -> Held:
    refuse_adaptive(pair.operation)
    z = pair.operation.input
    groups = (len(z), pair.operation.argument("group"), -1)
    return _normalisation(pair, (2,), _channels(pair.operation, z), groups=groups)


@DIFFERENCES.rule("fusedrmsnorm rmsnorm")
def _rms_norm(pair: Pair) -> Held:  # pragma: no cover - made on GPUs only
    refuse_adaptive(pair.operation)
    n_dims = len(pair.operation.argument("normalized_shape"))
    gamma = pair.operation.argument("weight")
    return _normalisation(pair, tuple(range(-n_dims, 0)), gamma, is_centred=False)


def _channels(operation: Operation, z: Tensor) -> Tensor | None:
    gamma = operation.argument("weight")
    return None if gamma is None else gamma.reshape(-1, *(1,) * (z.dim() - 2))


def _epsilon(operation: Operation) -> float:
    arguments = operation.recorded.arguments
    epsilon = arguments["eps"] if "eps" in arguments else arguments["epsilon"]
    return torch.finfo(operation.input.dtype).eps if epsilon is None else float(epsilon)


def _normalisation(
    pair: Pair,
    dims: tuple[int, ...],
    gamma: Tensor | None,
    *,
    groups: tuple[int, ...] | None = None,
    is_centred: bool = True,
) -> Held:
    centred, rates = [], []
    for z in pair.input:
        c = z.reshape(groups or z.shape)
        c = c - c.mean(dims, keepdim=True) if is_centred else c
        centred.append(c)
        rates.append(torch.rsqrt(c.square().mean(dims, keepdim=True) + _epsilon(pair.operation)))
    middle, rate = (centred[0] + centred[1]) / 2, (rates[0] + rates[1]) / 2
    # r - r0 = -(v - v0) r^2 r0^2 / (r + r0), with v - v0 = 2 mean(middle * difference)
    fall = -2 * (rates[0] * rates[1]) ** 2 / (rates[0] + rates[1])
    pull = partial(_pull_normalisation, middle=middle, rate=rate, fall=fall, dims=dims)
    return Held(partial(_regrouped, pull=pull, groups=groups, is_centred=is_centred, gamma=gamma))


def _regrouped(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    pull: Callable[..., Tensor],
    groups: tuple[int, ...] | None,
    is_centred: bool,
    gamma: Tensor | None,
) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    scaled = gradient if gamma is None else gradient * gamma
    sent = pull(scaled.reshape(groups or scaled.shape), is_centred=is_centred)
    return send(incoming, {0: sent.reshape(gradient.shape)})


def _pull_normalisation(
    gradient: Tensor,
    *,
    middle: Tensor,
    rate: Tensor,
    fall: Tensor,
    dims: tuple[int, ...],
    is_centred: bool,
) -> Tensor:
    size = middle.numel() // rate.numel()
    along = (gradient * middle).sum(dims, keepdim=True) * fall / size
    sent = rate * gradient + along * middle
    return sent - sent.mean(dims, keepdim=True) if is_centred else sent
