"""The switches of each operation: how far each branch is from being left.

A margin is an affine function of the operation's inputs while no branch changes, and is zero where
one does. A branch is the whole number that says which piece was taken.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Arguments = Mapping[str, Any]
"""Arguments of an ATen call by name, and its results as ``"results"``."""


class Margins(NamedTuple):
    """Switches of one operation.

    Attributes
    ----------
    margin : Tensor of shape (*layout, n)
        Zero where the branch ends; 0 with a zero gradient where there is no switch.
    branch : int Tensor of shape (*layout, u)
        What was taken.
    """

    margin: Tensor
    branch: Tensor


MarginRule = Callable[[Arguments], Margins]

MARGINS: dict[str, MarginRule] = {}


def margins_of(names: str) -> Callable[[MarginRule], MarginRule]:
    """Enter a rule under several names of operations, separated by blanks."""

    def enter(rule: MarginRule) -> MarginRule:
        MARGINS.update(dict.fromkeys(names.split(), rule))
        return rule

    return enter


# ---- elementwise: the input passes knots ----


def _knots(z: Tensor, *knots: Any) -> Margins:
    margin = torch.stack([z - knot for knot in knots if knot is not None], -1)
    return Margins(margin, (margin > 0).sum(-1, dtype=torch.int32, keepdim=True))


@margins_of("relu leakyrelu prelukernel rreluwithnoise abs sign sgn heaviside")
def _at_zero(arguments: Arguments) -> Margins:
    return _knots(arguments["self"], 0.0)


@margins_of("copysign")
def _copysign(arguments: Arguments) -> Margins:
    z = arguments["self"]
    other = torch.as_tensor(arguments["other"], dtype=z.dtype, device=z.device)
    shape = arguments["results"][0].shape
    margin = torch.stack([z.expand(shape), other.expand(shape)], -1)
    return Margins(margin, (margin > 0).int())


@margins_of("threshold")
def _threshold(arguments: Arguments) -> Margins:
    return _knots(arguments["self"], arguments["threshold"])


@margins_of("hardshrink softshrink")
def _shrink(arguments: Arguments) -> Margins:
    return _knots(arguments["self"], -arguments["lambd"], arguments["lambd"])


@margins_of("hardsigmoid")
def _hardsigmoid(arguments: Arguments) -> Margins:
    return _knots(arguments["self"], -3.0, 3.0)


@margins_of("hardtanh")
def _hardtanh(arguments: Arguments) -> Margins:
    return _knots(arguments["self"], arguments["min_val"], arguments["max_val"])


@margins_of("clamp clampmin clampmax")
def _clamp(arguments: Arguments) -> Margins:
    return _knots(arguments["self"], arguments.get("min"), arguments.get("max"))


@margins_of("maximum minimum fmax fmin")
def _larger(arguments: Arguments) -> Margins:
    return _knots(arguments["self"], arguments["other"])


@margins_of("gt lt ge le eq ne")
def _compare(arguments: Arguments) -> Margins:
    margin, above = _knots(arguments["self"], arguments["other"])
    return Margins(margin, above + (margin >= 0))  # equality is a branch of its own


def _steps(z: Tensor) -> Margins:
    floor = z.detach().floor()
    return Margins(torch.stack([z - floor, floor + 1 - z], -1), floor.int().unsqueeze(-1))


@margins_of("floor ceil trunc frac")
def _at_whole_numbers(arguments: Arguments) -> Margins:
    return _steps(arguments["self"])


@margins_of("round")
def _at_halves(arguments: Arguments) -> Margins:
    scale: float = 10 ** arguments.get("decimals", 0)
    return _steps(arguments["self"] * scale + 0.5)


@margins_of("fmod remainder")
def _at_multiples(arguments: Arguments) -> Margins:
    return _steps(arguments["self"] / arguments["other"])


# ---- along dimensions: one element wins ----


def _gaps_to(winner: Tensor, h: Tensor) -> Margins:
    """Distance of all elements of the last dimension from the winner's, (..., n)."""
    return Margins(h.gather(-1, winner.long()) - h, winner.int())


def _winner(h: Tensor) -> Margins:
    return _gaps_to(h.argmax(-1, keepdim=True), h)


def _dims_last(h: Tensor, dims: Any) -> Tensor:
    """Flatten the reduced dimensions into a last one; None and () are all of them."""
    dims = [dims] if isinstance(dims, int) else list(dims or range(h.dim()))
    h = h.movedim(dims, list(range(-len(dims), 0)))
    return h.flatten(h.dim() - len(dims))


@margins_of("max amax argmax")
def _maximum(arguments: Arguments) -> Margins:
    return _winner(_dims_last(arguments["self"], arguments.get("dim")))


@margins_of("min amin argmin")
def _minimum(arguments: Arguments) -> Margins:
    return _winner(-_dims_last(arguments["self"], arguments.get("dim")))


@margins_of("aminmax")
def _extremes(arguments: Arguments) -> Margins:
    h = _dims_last(arguments["self"], arguments["dim"])
    largest, least = _winner(h), _winner(-h)
    return Margins(*(torch.cat(parts, -1) for parts in zip(largest, least, strict=True)))


@margins_of("median nanmedian kthvalue")
def _order_statistic(arguments: Arguments) -> Margins:
    h = _dims_last(arguments["self"], arguments.get("dim"))
    k = arguments.get("k", (h.shape[-1] + 1) // 2)
    winner = h.kthvalue(k, -1, keepdim=True).indices
    margin, branch = _gaps_to(winner, h)
    return Margins(margin, torch.cat([branch, (margin > 0).int()], -1))


def _ordered(h: Tensor, descending: Any) -> tuple[Tensor, Tensor]:
    ordered, order = torch.sort(h, dim=-1, stable=True, descending=bool(descending))
    return ordered, order


@margins_of("sort argsort")
def _sort(arguments: Arguments) -> Margins:
    h = _dims_last(arguments["self"], arguments.get("dim", -1))
    ordered, order = _ordered(h, arguments.get("descending"))
    return Margins(ordered.diff(dim=-1), order.int())


@margins_of("topk")
def _topk(arguments: Arguments) -> Margins:
    h, k = _dims_last(arguments["self"], arguments["dim"]), arguments["k"]
    ordered, order = _ordered(h, arguments["largest"])
    among, against_rest = ordered[..., :k].diff(dim=-1), ordered[..., k - 1 : k] - ordered[..., k:]
    return Margins(torch.cat([among, against_rest], -1), order[..., :k].int())


def _running(h: Tensor, is_max: bool) -> Margins:
    """Each element against the best before it."""
    best = h.detach().cummax(-1) if is_max else h.detach().cummin(-1)
    return Margins(h[..., 1:] - h.gather(-1, best.indices[..., :-1]), best.indices.int())


@margins_of("cummax")
def _cummax(arguments: Arguments) -> Margins:
    return _running(_dims_last(arguments["self"], arguments["dim"]), True)


@margins_of("cummin")
def _cummin(arguments: Arguments) -> Margins:
    return _running(_dims_last(arguments["self"], arguments["dim"]), False)


# ---- max pooling: one element of each window wins ----


def _windows(
    size: int, n_out: int, *, width: int, stride: int, padding: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """Positions of one dimension that each window sees, (n_out, width), and which exist."""
    first = torch.arange(n_out)[:, None] * stride - padding
    position = first + torch.arange(width) * dilation
    return position, (position >= 0) & (position < size)


def _adaptive_windows(size: int, n_out: int) -> tuple[Tensor, Tensor]:
    o = torch.arange(n_out)[:, None]
    first, last = o * size // n_out, -(-(o + 1) * size // n_out)
    position = first + torch.arange(int((last - first).max()))
    return position, position < last


def _pooled(arguments: Arguments, per_dim: list[tuple[Tensor, Tensor]]) -> Margins:
    h, winner = arguments["self"], arguments["results"][1]
    n = len(per_dim)
    position, exists = _flat_windows(per_dim, h.shape[-n:])
    h = h.flatten(-n)  # (..., H W)
    best = h.gather(-1, winner.flatten(-n)).unsqueeze(-1)  # (..., windows, 1)
    seen = h.index_select(-1, position.flatten().to(h.device)).unflatten(-1, position.shape)
    margin = (best - seen) * exists.to(h)  # 0 with gradient 0 outside the picture
    return Margins(margin, winner.flatten(-n).int().unsqueeze(-1))


def _flat_windows(per_dim: list[tuple[Tensor, Tensor]], sizes: torch.Size) -> tuple[Tensor, Tensor]:
    """Flat positions (windows, elements of a window) from those of each dimension."""
    flat, exists = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
    for (position, valid), size in zip(per_dim, sizes, strict=True):
        inside = torch.where(valid, position, 0)
        flat = flat[:, None, :, None] * size + inside[None, :, None, :]
        flat = flat.flatten(2).flatten(0, 1)
        exists = exists[:, None, :, None] & valid[None, :, None, :]
        exists = exists.flatten(2).flatten(0, 1)
    return flat, exists


def _per_dim(value: Any, n: int, default: Any = None) -> list[int]:
    value = value or default
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * n if len(values) == 1 else values


@margins_of("maxpool2dwithindices maxpool3dwithindices")
def _max_pool(arguments: Arguments) -> Margins:
    n = 3 if arguments["results"][0].dim() > 4 else 2
    kernel = arguments["kernel_size"]
    options = {
        "width": _per_dim(kernel, n),
        "stride": _per_dim(arguments["stride"], n, kernel),
        "padding": _per_dim(arguments["padding"], n),
        "dilation": _per_dim(arguments["dilation"], n),
    }
    shapes = zip(arguments["self"].shape[-n:], arguments["results"][0].shape[-n:], strict=True)
    per_dim = [
        _windows(size, n_out, **{name: values[d] for name, values in options.items()})
        for d, (size, n_out) in enumerate(shapes)
    ]
    return _pooled(arguments, per_dim)


@margins_of("adaptivemaxpool2d")
def _adaptive_max_pool2d(arguments: Arguments) -> Margins:
    return _adaptive(arguments, 2)


@margins_of("adaptivemaxpool3d")
def _adaptive_max_pool3d(arguments: Arguments) -> Margins:
    return _adaptive(arguments, 3)


def _adaptive(arguments: Arguments, n: int) -> Margins:
    shapes = zip(arguments["self"].shape[-n:], arguments["results"][0].shape[-n:], strict=True)
    return _pooled(arguments, [_adaptive_windows(size, n_out) for size, n_out in shapes])
