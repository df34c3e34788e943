"""Scalar functions: the slope of the chord."""

import torch
from torch import Tensor

from ptsne.linearize import gains
from ptsne.linearize.operation import Held

from .pair import DifferenceBook, Pair, times

DIFFERENCES = DifferenceBook()


@DIFFERENCES.rule(
    """relu leakyrelu prelukernel rreluwithnoise abs hardshrink hardtanh clamp clampmin
    clampmax softshrink threshold nantonum copysign sign sgn floor ceil round trunc frac fmod
    remainder hardsigmoid gelu silu mish hardswish elu celu tanh sigmoid softplus logsigmoid exp
    exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh asinh asin acos atan atanh erf erfc sinc
    i0 pow sqrt rsqrt reciprocal square"""
)
def scalar(pair: Pair) -> Held:
    """Slope of the chord from the reference to the row."""
    z, z0 = pair.input
    y, y0 = pair.outputs
    return times(pair, _chord(pair, z, z0, y - y0))


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
