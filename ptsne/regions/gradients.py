"""Integrated gradients: exact for piecewise linear networks, by quadrature for all others."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ptsne.linearize import CompletenessError
from ptsne.linearize.outputs import Outputs, target_columns
from ptsne.linearize.running import check_arguments, exact_arithmetic

from .running import MEMORY_BUDGET, in_double
from .segment import MAX_REGIONS, walk

_TOLERANCE = 1e-9


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    baseline: Tensor,
    target: Outputs = "predicted",
    *,
    method: str = "exact",
    n_points: int = 50,
    max_regions: int = MAX_REGIONS,
    progress: bool = False,
) -> Tensor:
    r"""Average gradient on the way from a baseline, times the way.

    .. math:: A_i = (x_i - r_i) \int_0^1 \partial_i F_c(r + t (x - r)) \, dt

    ``method="exact"`` finds every linear region on the way; the gradient is constant in each, so
    that the integral is a sum of (length times gradient), and :math:`\sum_i A_i = F_c(x) - F_c(r)`
    to rounding, which is checked. ``method="quadrature"`` is Gauss-Legendre's, for any network.

    Parameters
    ----------
    model : nn.Module
        A network in evaluation mode; for the exact method piecewise linear, as in
        `region_radius`.
    x : Tensor of shape (N, ...), float32 or float64
        Rows; all is computed in float64.
    baseline : Tensor of shape (N, ...), (1, ...) or (...)
        Where the way begins: one baseline per row, or one for all.
    target : int, Tensor of shape (N,) or "predicted"
        Output, counted in the flattened output of a row: of all rows, of each, or the largest at x.
    method : {"exact", "quadrature"}
        How to integrate.
    n_points : int
        Points of the quadrature.
    max_regions : int
        Give up beyond so many regions on one way.
    progress : bool
        Show a bar over rows.

    Returns
    -------
    Tensor of the shape and dtype of x
        Attributions.

    Raises
    ------
    ValueError
        If `method` is none of the two or `baseline` does not fit.

    Notes
    -----
    `UnsupportedOperation` as in `region_radius`; `CompletenessError` where the network jumps, so
    that gradients do not tell its values; `LinearizationError` beyond `max_regions`.

    References
    ----------
    Sundararajan, Taly and Yan 2017, Axiomatic Attribution for Deep Networks, eq. 1.

    Examples
    --------
    >>> import torch
    >>> from ptsne.regions import integrated_gradients
    >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten()).eval()
    >>> integrated_gradients(net, torch.tensor([[3.0, -1.0]]), torch.tensor([-1.0, -1.0]), 0)
    tensor([[3., 0.]])
    """
    check_arguments(model, x)
    if method not in {"exact", "quadrature"}:
        raise ValueError(f"method must be 'exact' or 'quadrature'; got {method!r}")
    if baseline.shape not in {x.shape, x.shape[1:], (1, *x.shape[1:])}:
        raise ValueError(
            f"baseline must have shape {tuple(x.shape)}, or that of one row; got "
            f"{tuple(baseline.shape)}"
        )
    with exact_arithmetic(x.device):
        model, ends = in_double(model), x.detach().double()
        starts = baseline.detach().to(ends).expand_as(ends)
        with torch.no_grad():
            targets = target_columns(model(ends), target)[:, 0]
        with tqdm(total=len(x), desc="integrated gradients", disable=not progress) as bar:
            if method == "exact":
                average = _exact(model, Ways(starts, ends, targets), max_regions, bar)
            else:
                average = _by_quadrature(model, Ways(starts, ends, targets), n_points, bar)
        return ((ends - starts) * average).to(x.dtype)


class Ways(NamedTuple):
    """Straight ways and the output that is asked on each: (P, ...), (P, ...) and (P,)."""

    starts: Tensor
    ends: Tensor
    targets: Tensor


def _exact(model: nn.Module, ways: Ways, max_regions: int, bar: "tqdm[Any]") -> Tensor:
    """Average gradient on each way: the sum over its regions of length times gradient."""
    starts, ends, targets = ways
    total = torch.zeros_like(starts)
    largest = torch.maximum(starts.abs(), ends.abs())
    rounded = starts.new_zeros(len(starts))  # what gradients make of rounding in x
    covered = 0.0
    for graph, (way, start, end) in walk(
        model, starts, ends, max_regions=max_regions, memory_budget=MEMORY_BUDGET
    ):
        length = (end - start).reshape(-1, *(1,) * (starts.dim() - 1))
        gradient = graph.output_gradient(targets[way])
        total.index_add_(0, way, length * gradient)
        rounded.index_add_(0, way, (gradient * largest[way]).abs().flatten(1).sum(1))
        covered += float((end - start).sum())
        bar.update(min(len(starts), round(covered)) - bar.n)
    _check_complete(model, ways, total, 2 * torch.finfo(total.dtype).eps * rounded)
    return total


def _check_complete(model: nn.Module, ways: Ways, average: Tensor, rounding: Tensor) -> None:
    starts, ends, targets = ways
    with torch.no_grad():
        before, after = (
            model(rows).flatten(1).gather(1, targets[:, None])[:, 0] for rows in (starts, ends)
        )
    parts = (average * (ends - starts)).flatten(1)
    gap = (after - before - parts.sum(1)).abs()
    scale = before.abs() + after.abs() + parts.abs().sum(1)
    is_complete = gap <= _TOLERANCE * scale + rounding
    if not bool(is_complete.all()):
        worst = int(torch.where(is_complete, 0.0, gap).nan_to_num(torch.inf).argmax())
        raise CompletenessError(
            f"integrated gradients of output {int(targets[worst])} miss its change by "
            f"{float(gap[worst]):.3g}: the network jumps on the way (a threshold, a comparison, "
            "rounding), and no integral of gradients tells by how much"
        )


def _by_quadrature(model: nn.Module, ways: Ways, n_points: int, bar: "tqdm[Any]") -> Tensor:
    """Average gradient on each way by Gauss and Legendre's rule."""
    nodes, weights = np.polynomial.legendre.leggauss(n_points)
    time, weight = (torch.from_numpy(v).to(ways.starts) for v in ((nodes + 1) / 2, weights / 2))
    averages = []
    for a, b, column in zip(ways.starts, ways.ends, ways.targets.tolist(), strict=True):
        points = a + time.reshape(-1, *(1,) * a.dim()) * (b - a)
        with torch.enable_grad():
            points = points.clone().requires_grad_(True)
            output = model(points).reshape(n_points, -1)[:, column]
            (gradient,) = torch.autograd.grad(output.sum(), points)
        averages.append(torch.einsum("n,n...->...", weight, gradient))
        bar.update()
    return torch.stack(averages)
