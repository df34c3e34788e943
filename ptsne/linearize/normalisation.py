"""Rules of normalisations: the scale 1 / std is held, the mean stays linear."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor

from .activations import times
from .calls import Keep
from .operation import Gradients, Held, Operation
from .rule import RuleBook, bias_part, per_channel, send

RULES = RuleBook()

_NORM = {"keep": Keep.INPUTS, "keep_tangent": Keep.INPUTS}


@RULES.rule(
    """nativebatchnorm cudnnbatchnorm miopenbatchnorm batchnormwithupdate batchnormnoupdate
    nativebatchnormlegit nativebatchnormlegitnotraining""",
    **_NORM,
)
def _batch_norm(operation: Operation) -> Held:
    refuse_adaptive(operation)
    if operation.edges != (0,):
        return Held(remainder=True)
    z = operation.input
    n_dims = z.dim() - 2
    gamma, bias = operation.argument("weight"), bias_part(operation, n_dims)
    if operation.argument("training"):
        return _instance_norm(operation, z, gamma, bias)
    mean, variance = (operation.argument(f"running_{name}") for name in ("mean", "var"))
    shift = -mean * torch.rsqrt(variance + _epsilon(operation))
    shift = shift if gamma is None else gamma * shift
    label = operation.named("running_mean", f"{operation.label}.mean")
    return Held(constants={**bias, label: per_channel(shift, n_dims)})


def _instance_norm(
    operation: Operation, z: Tensor, gamma: Tensor | None, bias: dict[str, Tensor | float]
) -> Held:
    if len(z) != 1:
        raise operation.unsupported(
            "it normalises by the statistics of the batch, which mix instances",
            "Give it running statistics, or linearize one instance at a time",
        )
    if operation.tangent:
        return Held(remainder=True)
    gamma = None if gamma is None else per_channel(gamma, z.dim() - 2)
    dims = (0, *range(2, z.dim()))
    return Held(_norm_pull(z, dims, gamma, _epsilon(operation)), bias)


@RULES.rule("nativelayernorm", **_NORM)
def _layer_norm(operation: Operation) -> Held:
    refuse_adaptive(operation)
    if operation.tangent:
        return Held(remainder=True)
    n_dims = len(operation.argument("normalized_shape"))
    bias = operation.constant("bias")
    constants = {} if bias is None else {operation.named("bias", operation.label): bias}
    gamma = operation.argument("weight")
    dims = tuple(range(-n_dims, 0))
    return Held(_norm_pull(operation.input, dims, gamma, _epsilon(operation)), constants)


@RULES.rule("nativegroupnorm", **_NORM)
def _group_norm(operation: Operation) -> Held:
    refuse_adaptive(operation)
    if operation.tangent:
        return Held(remainder=True)
    z = operation.input
    gamma = operation.argument("weight")
    gamma = None if gamma is None else per_channel(gamma, z.dim() - 2)
    n_groups = operation.argument("group")
    pull = _norm_pull(z, (2,), gamma, _epsilon(operation), (len(z), n_groups, -1))
    return Held(pull, bias_part(operation, z.dim() - 2))


@RULES.rule("fusedrmsnorm rmsnorm", **_NORM)
def _rms_norm(operation: Operation) -> Held:  # pragma: no cover - made on GPUs only
    refuse_adaptive(operation)
    if operation.tangent:
        return Held(remainder=True)
    z = operation.input
    dims = tuple(range(-len(operation.argument("normalized_shape")), 0))
    epsilon = operation.argument("eps")
    epsilon = torch.finfo(z.dtype).eps if epsilon is None else epsilon
    scale = torch.rsqrt(z.square().mean(dims, keepdim=True) + epsilon)
    gamma = operation.argument("weight")
    return Held(times(operation, scale if gamma is None else scale * gamma))


def _epsilon(operation: Operation) -> float:
    arguments = operation.recorded.arguments
    return float(arguments["eps"] if "eps" in arguments else arguments["epsilon"])


def refuse_adaptive(operation: Operation) -> None:
    """Refuse a scale or shift that depends on x; the tangent is right all the same."""
    if operation.edges != (0,) and not operation.tangent:
        raise operation.unsupported(
            "its scale or shift depends on x", "Multiply and add them outside the normalisation"
        )


def _norm_pull(
    z: Tensor,
    dims: tuple[int, ...],
    gamma: Tensor | None,
    epsilon: float,
    groups: tuple[int, ...] | None = None,
) -> Callable[[Gradients, Gradients], Gradients]:
    grouped = z.reshape(groups or z.shape)
    variance = grouped.var(dims, correction=0, keepdim=True)
    rate = torch.rsqrt(variance + epsilon)
    return partial(_pull_norm, rate=rate, gamma=gamma, dims=dims, groups=groups)


def _pull_norm(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    rate: Tensor,
    gamma: Tensor | None,
    dims: tuple[int, ...],
    groups: tuple[int, ...] | None,
) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    scaled = gradient if gamma is None else gradient * gamma
    grouped = scaled.reshape(groups or scaled.shape)
    centred = rate * (grouped - grouped.mean(dims, keepdim=True))
    return send(incoming, {0: centred.reshape(gradient.shape)})
