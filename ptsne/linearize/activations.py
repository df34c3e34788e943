"""Rules of smooth activations: the derivative is replaced by the held gain."""

import math
from functools import partial
from typing import cast

import torch
from torch import Tensor

from . import gains
from .calls import Keep
from .operation import Gradients, Held, Operation, Pull
from .rule import RuleBook, constant_part, send

RULES = RuleBook()


def times(operation: Operation, slope: Tensor) -> Pull:
    """Send the gradient, times a held slope, to the only input that depends on x."""
    return partial(_pull_gain, position=operation.edges[0], slope=slope)


def _pull_gain(
    incoming: Gradients, outgoing: Gradients, *, position: int, slope: Tensor
) -> Gradients:
    gradient = cast(Tensor, outgoing[0])  # hooks are not called without a gradient
    return send(incoming, {position: gradient * slope})


def gain(operation: Operation, slope: Tensor, at_zero: float | Tensor = 0.0) -> Held:
    """Held form ``y = slope * z + at_zero`` of an elementwise operation.

    Parameters
    ----------
    operation : Operation
        With one input z that depends on x.
    slope : Tensor
        The held gain, of the shape of z.
    at_zero : float or Tensor
        The constant.

    Returns
    -------
    Held
        To be returned by a rule.

    Examples
    --------
    >>> import torch
    >>> from ptsne.linearize import gain, linearization_rule, linearize
    >>> class Cubed(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, z):
    ...         ctx.save_for_backward(z)
    ...         return z**3
    ...
    ...     @staticmethod
    ...     def backward(ctx, gradient):
    ...         return 3 * ctx.saved_tensors[0] ** 2 * gradient
    >>> class Net(torch.nn.Module):
    ...     def forward(self, x):
    ...         return Cubed.apply(x)
    >>> @linearization_rule(Cubed)
    ... def cubed(operation):
    ...     (z,) = operation.node.saved_tensors
    ...     return gain(operation, z**2)  # z ** 2 is held, z carries x
    >>> linearize(Net().eval(), torch.tensor([[2.0]])).weight(0)
    tensor([[[4.]]])
    """
    held = constant_part(operation.label, at_zero)
    return Held(times(operation, slope), held.constants)


_SMOOTH = {"keep": Keep.INPUTS, "is_same_tangent": False}


@RULES.rule("gelu", **_SMOOTH)
def _gelu(operation: Operation) -> Held:
    z = operation.input
    slope = gains.gelu(z, operation.argument("approximate"))
    if (z < -3).any():  # there torch's own result has lost digits, and F is what torch computed
        slope = torch.where(z < -3, operation.run() / z, slope)
    return gain(operation, slope)


@RULES.rule("silu", **_SMOOTH)
def _silu(operation: Operation) -> Held:
    return gain(operation, gains.silu(operation.input))


@RULES.rule("mish", **_SMOOTH)
def _mish(operation: Operation) -> Held:
    return gain(operation, gains.mish(operation.input))


@RULES.rule("hardswish", **_SMOOTH)
def _hardswish(operation: Operation) -> Held:
    return gain(operation, gains.hardswish(operation.input))


@RULES.rule("tanh", **_SMOOTH)
def _tanh(operation: Operation) -> Held:
    return gain(operation, gains.tanh(operation.input))


@RULES.rule("sigmoid", **_SMOOTH)
def _sigmoid(operation: Operation) -> Held:
    return gain(operation, gains.sigmoid(operation.input), 0.5)


@RULES.rule("elu", **_SMOOTH)
def _elu(operation: Operation) -> Held:
    shape = (operation.argument(name) for name in ("alpha", "scale", "input_scale"))
    return gain(operation, gains.elu(operation.input, *shape))


@RULES.rule("celu", **_SMOOTH)
def _celu(operation: Operation) -> Held:
    alpha = operation.argument("alpha")
    return gain(operation, gains.elu(operation.input, alpha, 1.0, 1 / alpha))


@RULES.rule("softplus", **_SMOOTH)
def _softplus(operation: Operation) -> Held:
    beta, threshold = operation.argument("beta"), operation.argument("threshold")
    slope = gains.softplus(operation.input, beta, threshold)
    return gain(operation, slope, math.log(2) / beta)


@RULES.rule("logsigmoid", **_SMOOTH)
def _logsigmoid(operation: Operation) -> Held:
    slope = gains.softplus(-operation.input, 1.0, math.inf)
    return gain(operation, slope, -math.log(2))


@RULES.rule(
    """exp exp2 expm1 sin cos tan sinh cosh asinh asin acos atan atanh erf erfc erfinv log1p sinc
    i0 i0e i1 i1e specialentr""",
    **_SMOOTH,
)
def _scalar(operation: Operation) -> Held:
    def function(z: Tensor) -> Tensor:
        result = operation.run([z])
        return result if isinstance(result, Tensor) else result[0]

    z = operation.input
    return gain(operation, gains.quotient(function, z), function(z.new_zeros(())))


@RULES.rule("pow", **_SMOOTH)
def _pow(operation: Operation) -> Held:
    exponent = operation.argument("exponent")
    if not isinstance(exponent, (int, float)):
        return _scalar(operation)  # a number to the power z
    if exponent <= 0:
        raise operation.unsupported(f"division by a function of x (exponent {exponent})")
    z = operation.input
    if exponent >= 1:
        return gain(operation, z ** (exponent - 1))
    return gain(operation, gains.ratio(z**exponent, z, 0.0))


@RULES.rule("sqrt", **_SMOOTH)
def _sqrt(operation: Operation) -> Held:
    z = operation.input
    return gain(operation, gains.ratio(z.sqrt(), z, 0.0))


@RULES.rule("glu", **_SMOOTH)
def _glu(operation: Operation) -> Held:
    dim = operation.argument("dim")
    gate = torch.sigmoid(operation.input.chunk(2, dim)[1])
    slope = torch.cat([gate, torch.zeros_like(gate)], dim)
    return Held(partial(_pull_glu, slope=slope, dim=dim))


def _pull_glu(incoming: Gradients, outgoing: Gradients, *, slope: Tensor, dim: int) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    return send(incoming, {0: torch.cat([gradient, gradient], dim) * slope})


@RULES.rule("hardsigmoid", keep=Keep.INPUTS, keep_tangent=Keep.INPUTS)
def _hardsigmoid(operation: Operation) -> Held:
    return Held(times(operation, gains.hardsigmoid_slope(operation.input)), remainder=True)
