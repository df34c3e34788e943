"""``F(x) - F(r) = M (x - r)``: the exact map of a difference; all biases cancel."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .differences import hold_difference, keep
from .errors import CompletenessError
from .graph import HeldGraph, Plan
from .operation import Held, Operation
from .outputs import (
    MEMORY_BUDGET,
    Outputs,
    empty_weight,
    one_hot,
    output_columns,
    target_columns,
)
from .running import RandomState, check_arguments, exact_arithmetic
from .settings import WRITTEN_OUT_ATTENTION

_ADVICE = "or ask for outputs='predicted'"


def paired_linearization(
    model: nn.Module,
    x: Tensor,
    reference: Tensor,
    *,
    memory_budget: int = MEMORY_BUDGET,
    progress: bool = False,
) -> "PairedLinearization":
    """Write the difference from a reference as ``F(x) - F(r) = M (x - r)``, exactly.

    Linear operations keep their derivative, an activation gets the slope of its chord
    ``(act(z) - act(z0)) / (z - z0)``, a product the mean of each factor, a maximum the mixture of
    its winners at x and at r, and normalisations and softmax their own exact differences.

    Parameters
    ----------
    model : nn.Module
        Any network in evaluation mode; it is never moved, cast, switched or changed.
    x : Tensor of shape (N, ...), float32 or float64
        Rows.
    reference : Tensor of shape (N, ...), (1, ...) or (...)
        One reference per row, or one for all.
    memory_budget : int
        Bytes that M may take, and that the graphs of one chunk of rows may take.
    progress : bool
        Show a bar over chunks and outputs.

    Returns
    -------
    PairedLinearization
        M and what follows from it.

    Raises
    ------
    ValueError
        If the reference does not have the shape of a row.

    Notes
    -----
    `UnsupportedOperation` where the network takes another branch at the reference than at the row
    (masks, indices and orders computed from x), or an operation has no exact difference.

    References
    ----------
    Shrikumar, Greenside and Kundaje 2017, Learning important features through propagating
    activation differences (the rescale rule for scalar functions).

    Examples
    --------
    >>> import torch
    >>> from ptsne.linearize import paired_linearization
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    >>> net = net.double().eval()
    >>> x, r = torch.ones(4, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    >>> M = paired_linearization(net, x, r).weight()
    >>> torch.allclose((M * (x - r)[:, None]).sum(2), net(x) - net(r), atol=1e-14)
    True
    """
    check_arguments(model, x)
    if reference.shape not in (x.shape, (1, *x.shape[1:]), x.shape[1:]):
        raise ValueError(
            f"reference must have shape {tuple(x.shape)} or {tuple(x.shape[1:])}; "
            f"got {tuple(reference.shape)}"
        )
    reference = reference.to(x).expand_as(x)
    return PairedLinearization(model, x, reference, memory_budget=memory_budget, progress=progress)


class PairedLinearization:
    """Exact maps of differences from a reference. Made by `paired_linearization`.

    Attributes
    ----------
    output, reference_output : Tensor of shape (N, ...)
        ``F(x)`` and ``F(r)``.

    Examples
    --------
    >>> import torch
    >>> from ptsne import paired_linearization
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... ).eval()
    >>> x, reference = torch.ones(2, 4), torch.zeros(2, 4)
    >>> pair = paired_linearization(net, x, reference)
    >>> difference = pair.output - pair.reference_output
    >>> torch.allclose(
    ...     (pair.weight() @ (x - reference)[:, :, None])[:, :, 0], difference, atol=1e-5
    ... )
    True
    >>> parts = pair.attribution(0)  # of output 0, column by column
    >>> torch.allclose(parts.sum(1), difference[:, 0], atol=1e-5)
    True
    >>> bool(pair.residual().max() < 1e-5)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        reference: Tensor,
        *,
        memory_budget: int,
        progress: bool,
    ) -> None:
        self._model = model
        self._x = x.detach()
        self._reference = reference.detach()
        self._budget = memory_budget
        self._progress = progress
        self._random = RandomState(x.device)
        self._kept: tuple[HeldGraph, Tensor] | None = None
        self._chunk = self._chunk_size()
        outputs = [(graph.output, at) for _, graph, at in self._graphs()]
        self.output, self.reference_output = (
            torch.cat(part) for part in zip(*outputs, strict=True)
        )

    def weight(self, outputs: Outputs = None) -> Tensor:
        """Rows of M.

        Parameters
        ----------
        outputs : int, sequence of int, Tensor, "predicted" or None
            Which outputs, counted in the flattened output of a row: the same for every row, a
            tensor (N, m) with a choice per row, the largest of each row at x, or all.

        Returns
        -------
        Tensor of shape (N, m, *input shape)
            dtype and device of x.

        Notes
        -----
        `MemoryError` if M is larger than the memory budget; `CompletenessError` if ``M (x - r)``
        is not the difference of the outputs.

        Examples
        --------
        >>> import torch
        >>> from ptsne import paired_linearization
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x, reference = torch.ones(2, 4), torch.zeros(2, 4)
        >>> pair = paired_linearization(net, x, reference)
        >>> pair.weight().shape, pair.weight("predicted").shape
        (torch.Size([2, 3, 4]), torch.Size([2, 1, 4]))
        """
        columns = output_columns(self.output, outputs)
        weight = empty_weight(self._x, columns.shape[1], self._budget, what="M", advice=_ADVICE)
        for rows, graph, at_reference, j in self._steps(columns.shape[1]):
            cotangent = one_hot(graph.output, columns[rows, j])
            with exact_arithmetic(self._x.device):
                weight[rows, j] = graph.pull_back(cotangent)
            ends = (_rows(y * cotangent).sum(1) for y in (graph.output, at_reference))
            self._check(weight[rows, j], rows, *ends)
        return weight

    def attribution(self, target: Outputs) -> Tensor:
        """``M_target * (x - r)``: what each input adds to the difference of the target output.

        Parameters
        ----------
        target : int, Tensor of shape (N,) or "predicted"
            Output of all rows, or of each.

        Returns
        -------
        Tensor of the shape of x
            Sums to ``F_target(x) - F_target(r)``.

        Examples
        --------
        >>> import torch
        >>> from ptsne import paired_linearization
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x, reference = torch.ones(2, 4), torch.zeros(2, 4)
        >>> pair = paired_linearization(net, x, reference)
        >>> difference = net(x)[:, 0] - net(reference)[:, 0]
        >>> torch.allclose(pair.attribution(0).sum(1), difference, atol=1e-5)
        True
        """
        weight = self.weight(target_columns(self.output, target))
        return weight[:, 0] * (self._x - self._reference)

    def residual(self) -> Tensor:
        """Relative completeness error, the largest over the outputs.

        Returns
        -------
        Tensor of shape (N,)
            ``|F(x) - F(r) - M (x - r)| / (|F(x)| + |F(r)|)``.

        Examples
        --------
        >>> import torch
        >>> from ptsne import paired_linearization
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x, reference = torch.ones(2, 4), torch.zeros(2, 4)
        >>> pair = paired_linearization(net, x, reference)
        >>> bool(pair.residual().max() < 1e-5)
        True
        """
        step = _rows(self._x - self._reference)
        y, y0 = _rows(self.output), _rows(self.reference_output)
        moved = torch.einsum("nmi,ni->nm", self.weight().flatten(2), step)
        gap, scale = (y - y0 - moved).abs(), y.abs() + y0.abs()
        return torch.where(gap == 0, gap, gap / scale).amax(1)

    def _check(self, weight: Tensor, rows: slice, value: Tensor, at_reference: Tensor) -> None:
        parts = _rows(weight * (self._x[rows] - self._reference[rows]))
        gap = (value - at_reference - parts.sum(1)).abs()
        scale = value.abs() + at_reference.abs() + parts.abs().sum(1)
        tolerance = 1e4 * torch.finfo(value.dtype).eps
        if not bool((gap <= tolerance * scale).all()):
            worst = int((gap / scale).nan_to_num(torch.inf).argmax())
            raise CompletenessError(
                f"M (x - r) misses the difference of the outputs of instance {worst} by "
                f"{float(gap[worst]):.3g}: part of the network escaped the graph"
            )

    # ---- running ----

    def _record(self, rows: slice) -> tuple[HeldGraph, Tensor]:
        context = exact_arithmetic(self._x.device), self._random
        with context[0], WRITTEN_OUT_ATTENTION.on():  # fused attention has no difference rule
            with context[1].held():
                plan = Plan(keep, _no_rule, keeps_calls=True)
                reference = HeldGraph(self._model, self._reference[rows], plan=plan)
            with context[1].held():
                plan = Plan(keep, partial(hold_difference, references=reference.calls))
                return HeldGraph(self._model, self._x[rows], plan=plan), reference.output

    def _chunk_size(self) -> int:
        n_rows = min(2, len(self._x))
        per_row = 4 * self._record(slice(0, n_rows))[0].n_bytes / n_rows
        return max(1, min(len(self._x), int(self._budget / per_row)))

    def _steps(self, n_outputs: int) -> Iterator[tuple[slice, HeldGraph, Tensor, int]]:
        total = math.ceil(len(self._x) / self._chunk) * n_outputs
        with tqdm(total=total, desc="linearize pairs", disable=not self._progress) as bar:
            for rows, graph, at_reference in self._graphs():
                for j in range(n_outputs):
                    yield rows, graph, at_reference, j
                    bar.update()

    def _graphs(self) -> Iterator[tuple[slice, HeldGraph, Tensor]]:
        n = len(self._x)
        for start in range(0, n, self._chunk):
            rows = slice(start, min(start + self._chunk, n))
            if self._chunk < n:
                yield rows, *self._record(rows)
                continue
            self._kept = self._kept or self._record(rows)
            yield rows, *self._kept


def _rows(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1)


def _no_rule(_operation: Operation) -> Held:
    return Held()
