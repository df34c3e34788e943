"""Rules of the paired map: each operation's exact difference ``y - y0 = A (z - z0)``.

z and z0 are what entered the operation at the row and at its reference. Linear operations keep
their derivative. A scalar function gets the slope of its chord, a product the mean of each factor,
a maximum the mixture of its two winners whose sum is exact, and softmax the logarithmic mean of
its two results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from . import gains
from .operation import Gradients, Held, Operation
from .piecewise import as_autograd
from .recorder import Call, Keep, Leaf, Role, operation_name
from .rule import send
from .table import RULES

Difference = Callable[["Pair"], Held]

DIFFERENCES: dict[str, Difference] = {}


@dataclass(frozen=True)
class Pair:
    """An operation at a row and at its reference."""

    operation: Operation
    at_reference: Operation

    @property
    def inputs(self) -> list[tuple[Tensor, Tensor]]:
        """``(z, z0)`` of each input that depends on x."""
        inputs, references = self.operation.inputs, self.at_reference.inputs
        return list(zip(inputs, references, strict=True))

    @property
    def input(self) -> tuple[Tensor, Tensor]:
        """``(z, z0)`` of the only input that depends on x."""
        return self.operation.input, self.at_reference.inputs[0]

    @property
    def outputs(self) -> tuple[Tensor, Tensor]:
        """``(y, y0)``, of the first output."""
        return self._first(self.operation.run()), self._first(self.at_reference.run())

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """First output at other inputs."""
        return self._first(self.operation.run(inputs))

    @staticmethod
    def _first(result: Any) -> Tensor:
        return result if isinstance(result, Tensor) else cast(Tensor, result[0])


def keep(name: str) -> Keep:
    """What the recorder has to keep: inputs, but of operations that are linear in any case."""
    return Keep.INPUTS if name in DIFFERENCES else Keep.CONSTANTS


def hold_difference(operation: Operation, references: dict[int, Call]) -> Held:
    """Held form of one operation for differences from a reference.

    Parameters
    ----------
    operation : Operation
        At the row.
    references : dict of int to Call
        What ran at the reference, by its order.

    Returns
    -------
    Held
        Without constants. `UnsupportedOperation` if the reference took another branch, or the
        operation has no exact difference.
    """
    call = operation.recorded
    other = references.get(call.order)
    if other is None or other.function is not call.function or not _same_constants(call, other):
        raise operation.unsupported("the reference takes another branch of the network here")
    at_reference = Operation(**{**operation.__dict__, "call": other})
    difference = DIFFERENCES.get(operation.name)
    if difference is None:
        raise operation.unsupported("it has no exact difference between a row and its reference")
    return difference(Pair(operation, at_reference))


def _same_constants(call: Call, other: Call) -> bool:
    # what is overwritten, and the noise of training, may hold anything
    unread = {"self"} if call.function._schema.name == "aten::copy_" else {"noise"}
    leaves = zip(call.leaves(unread), other.leaves(unread), strict=False)
    return all(_same(leaf, reference) for leaf, reference in leaves)


def _same(leaf: Leaf, reference: Leaf) -> bool:
    if leaf.role is not reference.role or leaf.shape != reference.shape:
        return False
    if leaf.role is Role.ACTIVE:
        return True
    if leaf.value is None or reference.value is None:
        return False  # computed from x outside autograd
    return leaf.value is reference.value or torch.equal(leaf.value, reference.value)


def _difference(names: str) -> Callable[[Difference], Difference]:
    def enter(difference: Difference) -> Difference:
        DIFFERENCES.update(dict.fromkeys(names.split(), difference))
        return difference

    return enter


_SELECTIONS = """max min amax amin cummax cummin maxpool2dwithindices maxpool3dwithindices maxpool2d
    adaptivemaxpool2d adaptivemaxpool3d maximum minimum fmax fmin"""

_ORDERS = "sort topk kthvalue median nanmedian mode fractionalmaxpool2d fractionalmaxpool3d"

_SCALARS = """relu leakyrelu prelukernel rreluwithnoise abs hardshrink hardtanh clamp clampmin
    clampmax softshrink threshold nantonum copysign sign sgn floor ceil round trunc frac fmod
    remainder hardsigmoid gelu silu mish hardswish elu celu tanh sigmoid softplus logsigmoid exp
    exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh asinh asin acos atan atanh erf erfc sinc
    i0 pow sqrt rsqrt reciprocal square"""

_PRODUCTS = """mul mm bmm mv dot linalgcross lerp linear convolution
    convolutionoverrideable addmm baddbmm addbmm addmv addr addcmul"""

_NOT_LINEAR = {"aminmax", "linalgvectornorm", "norm", "maxunpool2d", "maxunpool3d", "mpsmaxpool2d"}

_LINEAR = """stack constantpadnd maskedfill maskedscatter indexput indexputimpl indexcopy indexadd
    indexfill scatter scatteradd selectscatter slicescatter diagonalscatter asstridedscatter
    blockdiag fill cat where add sub rsub"""


def _enter_linear() -> None:
    other = {*_SELECTIONS.split(), *_ORDERS.split(), *_SCALARS.split()} | _NOT_LINEAR
    linear = {name for name, rule in RULES.items() if rule.apply is as_autograd}
    DIFFERENCES.update(dict.fromkeys((linear - other) | set(_LINEAR.split()), _linear))


def _linear(pair: Pair) -> Held:  # noqa: ARG001
    return Held()


_enter_linear()


@_difference("copyslices")
def _assign(pair: Pair) -> Held:
    inner = operation_name(pair.operation.recorded.function._schema.name)
    is_linear = DIFFERENCES.get(inner) is _linear
    if not is_linear and not (inner == "mul" and len(pair.operation.edges) == 1):
        raise pair.operation.unsupported(f"{inner}_ on part of a tensor")
    return Held()


@_difference("gridsampler2d gridsampler3d addcdiv")
def _linear_in_first(pair: Pair) -> Held:
    if pair.operation.edges != (0,):
        raise pair.operation.unsupported("more than its first input depends on x")
    return Held()


# ---- scalar functions: the slope of the chord ----


@_difference(_SCALARS)
def _scalar(pair: Pair) -> Held:
    z, z0 = pair.input
    y, y0 = pair.outputs
    return _gain(pair, _chord(pair, z, z0, y - y0))


def _chord(pair: Pair, z: Tensor, z0: Tensor, rise: Tensor) -> Tensor:
    run = z - z0
    near = run.abs() < torch.finfo(z.dtype).eps ** (1 / 3) * (1 + z.abs())
    chord = gains.ratio(rise, run, 0.0)
    if not near.any():
        return chord
    middle = gains.derivative(lambda v: pair.run([v]), (z + z0) / 2)
    # across a kink the chord is exact and the derivative is not
    step = (rise - middle * run).abs() <= 4 * torch.finfo(z.dtype).eps * (1 + rise.abs())
    return torch.where(near & step, middle, chord)


def _gain(pair: Pair, slope: Tensor) -> Held:
    return Held(partial(_pull_gain, position=pair.operation.edges[0], slope=slope))


def _pull_gain(
    incoming: Gradients, outgoing: Gradients, *, position: int, slope: Tensor
) -> Gradients:
    return send(incoming, {position: cast(Tensor, outgoing[0]) * slope})


# ---- products: the mean of each factor; exact for whatever is quadratic ----


@_difference(_PRODUCTS)
def _product(pair: Pair) -> Held:
    if len(pair.operation.edges) < 2:
        return Held()
    return _at_middle(pair)


@_difference("trilinear")
def _trilinear(pair: Pair) -> Held:
    if len(pair.operation.edges) > 2:
        raise pair.operation.unsupported("all three factors depend on x")
    return _product(pair)


@_difference("var")
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
    gradients = _vjp(pair, inputs, cast(Tensor, outgoing[0]))
    return send(incoming, dict(zip(edges, gradients, strict=True)))


def _vjp(pair: Pair, inputs: list[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves = [z.detach().requires_grad_(True) for z in inputs]
        return torch.autograd.grad(pair.run(leaves), leaves, cotangent)


@_difference("div")
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


@_difference("glu")
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


# ---- choices: a mixture of the two winners ----


@_difference(_SELECTIONS)
def _selection(pair: Pair) -> Held:
    if len(pair.operation.edges) == 1 and pair.operation.name in ("maximum", "minimum"):
        return _scalar(pair)
    return _mixture(pair, is_bounded=True)


@_difference(_ORDERS)
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
    here, there = _vjp(pair, at[0], gradient * share), _vjp(pair, at[1], gradient * (1 - share))
    sent = {e: h + t for e, h, t in zip(pair.operation.edges, here, there, strict=True)}
    return send(incoming, cast(dict[int, Tensor | None], sent))


# ---- norms ----


@_difference("linalgvectornorm")
def _vector_norm(pair: Pair) -> Held:
    operation = pair.operation
    if operation.argument("ord") != 2:
        raise operation.unsupported("only the 2-norm has an exact difference")
    z, z0 = pair.input
    dims = operation.argument("dim") or tuple(range(z.dim()))
    lengths = [torch.linalg.vector_norm(v, 2, dims, keepdim=True) for v in (z, z0)]
    total = lengths[0] + lengths[1]
    slope = (z + z0) / total.masked_fill(total == 0, 1.0)
    pull = partial(_pull_reduced, slope=slope, dims=dims, keepdim=operation.argument("keepdim"))
    return Held(pull)


def _pull_reduced(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    slope: Tensor,
    dims: tuple[int, ...],
    keepdim: bool,
) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    if not keepdim:
        for dim in sorted(d % slope.dim() for d in dims):
            gradient = gradient.unsqueeze(dim)
    return send(incoming, {0: gradient * slope})


@_difference(
    """nativebatchnorm cudnnbatchnorm miopenbatchnorm batchnormwithupdate batchnormnoupdate
    nativebatchnormlegit nativebatchnormlegitnotraining"""
)
def _batch_norm(pair: Pair) -> Held:
    operation = pair.operation
    if not operation.argument("training"):
        return Held()
    z = operation.input
    if len(z) != 1:
        raise operation.unsupported("it normalises by the statistics of the batch")
    return _normalisation(pair, (0, *range(2, z.dim())), _channels(operation, z))


@_difference("nativelayernorm")
def _layer_norm(pair: Pair) -> Held:
    n_dims = len(pair.operation.argument("normalized_shape"))
    return _normalisation(pair, tuple(range(-n_dims, 0)), pair.operation.argument("weight"))


@_difference("nativegroupnorm")
def _group_norm(pair: Pair) -> Held:
    z = pair.operation.input
    groups = (len(z), pair.operation.argument("group"), -1)
    return _normalisation(pair, (2,), _channels(pair.operation, z), groups=groups)


@_difference("fusedrmsnorm rmsnorm")
def _rms_norm(pair: Pair) -> Held:
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
    if pair.operation.edges != (0,):
        raise pair.operation.unsupported("its scale or shift depends on x")
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


# ---- softmax: y - y0 = L (dz - <L, dz> / <L, 1>), L the logarithmic mean of y and y0 ----


@_difference("softmax safesoftmax")
def _softmax(pair: Pair) -> Held:
    y, y0 = pair.outputs
    return _softmax_held(pair, _logarithmic_mean(y, y0), is_logarithm=False)


@_difference("logsoftmax")
def _log_softmax(pair: Pair) -> Held:
    y, y0 = pair.outputs
    return _softmax_held(pair, _logarithmic_mean(y.exp(), y0.exp()), is_logarithm=True)


@_difference("logsumexp")
def _logsumexp(pair: Pair) -> Held:
    operation = pair.operation
    dims = operation.argument("dim")
    p, p0 = ((z - torch.logsumexp(z, dims, keepdim=True)).exp() for z in pair.input)
    mean = _logarithmic_mean(p, p0)
    slope = mean / mean.sum(dims, keepdim=True)
    keepdim = operation.argument("keepdim")
    return Held(partial(_pull_reduced, slope=slope, dims=dims, keepdim=keepdim))


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
