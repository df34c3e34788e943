"""``F(x) = W x + b``, exact at each row: the public face of the linearizer."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .errors import CompletenessError
from .graph import SECANT, TANGENT, HeldGraph, LayoutError, Plan
from .layers import LayerLinearization
from .outputs import (
    MEMORY_BUDGET,
    Outputs,
    empty_weight,
    one_hot,
    output_columns,
    target_columns,
)
from .recorder import BudgetExceeded
from .running import RandomState, check_arguments, exact_arithmetic
from .settings import WRITTEN_OUT_ATTENTION
from .sweep import Sweep

PLANS = {"secant": SECANT, "tangent": TANGENT}

_GRAPH_AND_GRADIENTS = 3  # peak, in sizes of what a run computes from x (ResNet-50, measured)
_MANY_OUTPUTS = 8  # from here on, b of all outputs at once is cheaper than one sweep per output


def linearize(
    model: nn.Module,
    x: Tensor,
    *,
    activation: str = "secant",
    layers: Sequence[str] = (),
    memory_budget: int = MEMORY_BUDGET,
    progress: bool = False,
) -> "Linearization":
    r"""Write a network as ``F(x) = W x + b``, exactly, at each row of `x`.

    The network runs once, untouched; each nonlinear operation of its autograd graph is then held
    at what it did to this row, and W is pulled back through the held graph. b is summed from what
    each bias, shift and plateau sends to the output, and ``F - W x - b`` is checked.

    Parameters
    ----------
    model : nn.Module
        Any network in evaluation mode; it is never moved, cast, switched or changed.
    x : Tensor of shape (N, ...), float32 or float64
        Rows, on the model's device. float64 is exact to 1e-12, float32 to 1e-5.
    activation : {"secant", "tangent"}
        Gain of an activation: ``(act(z) - act(0)) / z`` (how this input was processed), or
        ``act'(z)`` (W is the Jacobian). The two agree for piecewise linear networks without
        products of functions of x.
    layers : sequence of str
        Modules, by their name in ``model.named_modules()``, whose maps will be asked for.
    memory_budget : int
        Bytes that W may take, and that the graph of one chunk of rows may take.
    progress : bool
        Show a bar over chunks and outputs.

    Returns
    -------
    Linearization
        W, b, its terms, and maps of layers.

    Raises
    ------
    ValueError
        If `activation` is none of the two.

    Notes
    -----
    `UnsupportedOperation` if the model is in training mode or an operation has no rule: the
    message names the operation and its module. `TypeError` if `model` is not a module or `x` is
    not a float tensor.

    Threads may share a network, each with its own `Linearization`: they get the bits of one thread
    alone. Where torch has two kernels and one switch for all threads (fused attention; convolutions
    and LSTMs in float32), they agree to rounding.

    Examples
    --------
    >>> import torch
    >>> from ptsne.linearize import linearize
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.GELU(), torch.nn.Linear(5, 2))
    >>> x = torch.ones(4, 3, dtype=torch.float64)
    >>> lin = linearize(net.double().eval(), x)
    >>> W, b = lin.weight(), lin.bias()
    >>> W.shape, b.shape, torch.allclose(net(x), (W * x[:, None]).sum(2) + b, atol=1e-14)
    (torch.Size([4, 2, 3]), torch.Size([4, 2]), True)
    """
    check_arguments(model, x)
    if activation not in PLANS:
        raise ValueError(f"activation must be 'secant' or 'tangent'; got {activation!r}")
    return Linearization(
        model,
        x,
        plan=PLANS[activation],
        layers=tuple(layers),
        memory_budget=memory_budget,
        progress=progress,
    )


class Linearization:
    """Exact linear maps of a network at N rows. Made by `linearize`; keep it short-lived.

    One thread at a time may ask it.

    It holds the autograd graph of its rows, or, where they exceed the memory budget, runs the
    network again, chunk by chunk, for each call.

    Attributes
    ----------
    output : Tensor of shape (N, ...)
        ``F(x)``, bit for bit what ``model(x)`` returns on the same rows.

    Examples
    --------
    >>> import torch
    >>> from ptsne import linearize
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... ).eval()
    >>> lin = linearize(net, torch.ones(2, 4))
    >>> lin.weight().shape, lin.bias().shape
    (torch.Size([2, 3, 4]), torch.Size([2, 3]))
    >>> sorted(lin.bias_terms())
    ['0.bias', '2.bias']
    >>> bool(lin.residual().max() < 1e-5)
    True
    >>> lin.linear_part().shape, lin.attribution("predicted").shape  # W x; W * x of one output
    (torch.Size([2, 3]), torch.Size([2, 4]))
    >>> linearize(net, torch.ones(2, 4), layers=["1"]).layer("1").weight().shape  # of 8 neurons
    torch.Size([2, 8, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        *,
        plan: Plan,
        layers: tuple[str, ...],
        memory_budget: int,
        progress: bool,
    ) -> None:
        self._model = model
        self._x = x.detach()
        self._plan = plan
        self._layers = layers
        self._budget = memory_budget
        self._progress = progress
        self._random = RandomState(x.device)
        self._graph = self._record_all()
        self._chunk = len(x) if self._graph else self._chunk_size()
        self._is_split = False
        self._sweep: Sweep | None = None
        self._parts: tuple[Tensor, Tensor] | None = None
        self.output = torch.cat([graph.output for _, graph in self._graphs()])

    # ---- running ----

    def _record(self, rows: slice, limit: float = math.inf) -> HeldGraph:
        with exact_arithmetic(self._x.device), self._random.held():
            return HeldGraph(
                self._model,
                self._x[rows],
                layers=self._layers,
                plan=self._plan,
                limit=limit,
            )

    def _record_all(self) -> HeldGraph | None:
        """All rows in one graph, if the budget has room for it and for its gradients."""
        try:
            return self._record(slice(0, len(self._x)), self._budget / _GRAPH_AND_GRADIENTS)
        except BudgetExceeded:
            return None

    def _chunk_size(self) -> int:
        n_rows = min(2, len(self._x))
        per_row = _GRAPH_AND_GRADIENTS * self._record(slice(0, n_rows)).n_bytes / n_rows
        return max(1, min(len(self._x), int(self._budget / per_row)))

    def _graphs(self) -> Iterator[tuple[slice, HeldGraph]]:
        n, size = len(self._x), self._chunk
        if self._graph is not None:
            yield slice(0, n), self._graph
            return
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            graph = self._record(rows)
            if self._is_split:
                self._check_alone(graph.output, self.output[rows])
            yield rows, graph

    def _split_instances(self) -> None:
        """One graph per instance: then there is nothing to tell apart."""
        self._chunk, self._graph, self._is_split = 1, None, True

    @staticmethod
    def _check_alone(alone: Tensor, among_others: Tensor) -> None:
        tolerance = 1e4 * torch.finfo(alone.dtype).eps
        if not torch.allclose(alone, among_others, rtol=tolerance, atol=tolerance):
            raise CompletenessError(
                "the output of an instance depends on the others in its batch; linearize one "
                "instance at a time"
            )

    # ---- the maps ----

    def weight(self, outputs: Outputs = None) -> Tensor:
        """Rows of W.

        Parameters
        ----------
        outputs : int, sequence of int, Tensor, "predicted" or None
            Which outputs, counted in the flattened output of a row: the same for every row, a
            tensor (N, m) with a choice per row, the largest of each row, or all.

        Returns
        -------
        Tensor of shape (N, m, *input shape)
            dtype and device of x.

        Notes
        -----
        `MemoryError` if W is larger than the memory budget.
        `IndexError` if there is no such output.
        `CompletenessError` if ``F - W x`` is not the sum of the bias terms.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> lin = linearize(net, x)
        >>> lin.weight().shape, lin.weight("predicted").shape, lin.weight([0, 2]).shape
        (torch.Size([2, 3, 4]), torch.Size([2, 1, 4]), torch.Size([2, 2, 4]))
        """
        sweep = self._swept(output_columns(self.output, outputs), with_weight=True)
        weight, sweep.weight = sweep.weight, None
        assert weight is not None
        return weight

    def bias(self, outputs: Outputs = None) -> Tensor:
        """The sum of `bias_terms`.

        Parameters
        ----------
        outputs : int, sequence of int, Tensor, "predicted" or None
            As in `weight`.

        Returns
        -------
        Tensor of shape (N, m)
            b, from its terms; never from the output.

        Notes
        -----
        `IndexError` if there is no such output.
        `CompletenessError` if ``F - W x`` is not the sum of the bias terms.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> lin = linearize(net, x)
        >>> y = (lin.weight() @ x[:, :, None])[:, :, 0] + lin.bias()
        >>> torch.allclose(y, net(x), atol=1e-5)
        True
        """
        columns = output_columns(self.output, outputs)
        if columns.shape[1] > _MANY_OUTPUTS and not self._is_swept(columns):
            return self._all_outputs()[1].reshape(len(self._x), -1).gather(1, columns)
        return self._swept(columns).bias()

    def bias_terms(self, outputs: Outputs = None) -> dict[str, Tensor]:
        """What each bias, shift and plateau sends to the output.

        Parameters
        ----------
        outputs : int, sequence of int, Tensor, "predicted" or None
            As in `weight`.

        Returns
        -------
        dict of str to Tensor of shape (N, m)
            By the name of the parameter or buffer, or of the module and operation; sums to b.

        Notes
        -----
        `IndexError` if there is no such output.
        `CompletenessError` if ``F - W x`` is not the sum of the bias terms.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> lin = linearize(net, x)
        >>> terms = lin.bias_terms()
        >>> sorted(terms), torch.allclose(sum(terms.values()), lin.bias())
        (['0.bias', '2.bias'], True)
        """
        return dict(self._swept(output_columns(self.output, outputs)).terms)

    def linear_part(self) -> Tensor:
        """``W x`` of every output, without forming W.

        Returns
        -------
        Tensor of the shape of the output
            At the cost of about three forward passes, however many outputs there are.

        Notes
        -----
        `CompletenessError` if ``F - W x`` is not b, which is summed in the same passes.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> lin = linearize(net, x)
        >>> torch.allclose(lin.linear_part() + lin.bias(), net(x), atol=1e-5)
        True
        """
        return self._all_outputs()[0].clone()

    def residual(self) -> Tensor:
        """Relative completeness error, the largest over the outputs.

        Returns
        -------
        Tensor of shape (N,)
            ``|F - W x - b| / (|F| + |W x| + |b|)``.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> (
        ...     bool(linearize(net, x).residual().max() < 1e-5),
        ...     bool(linearize(net.double(), x.double()).residual().max() < 1e-12),
        ... )
        (True, True)
        """
        linear, bias = self._all_outputs()
        gap = (self.output - linear - bias).abs().reshape(len(self._x), -1)
        scale = (self.output.abs() + linear.abs() + bias.abs()).reshape(len(self._x), -1)
        return torch.where(gap == 0, gap, gap / scale).amax(1)

    def attribution(self, target: Outputs) -> Tensor:
        """``W_target * x``: what each input adds to the target output.

        Parameters
        ----------
        target : int, Tensor of shape (N,) or "predicted"
            Output of all rows, or of each.

        Returns
        -------
        Tensor of the shape of x
            Sums, with b, to the target output.

        Notes
        -----
        `IndexError` if there is no such output.
        `CompletenessError` if ``F - W x`` is not the sum of the bias terms.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> lin = linearize(net, x)
        >>> parts = lin.attribution("predicted")
        >>> torch.allclose(parts.sum(1) + lin.bias("predicted")[:, 0], net(x).amax(1), atol=1e-5)
        True
        """
        return self.weight(target_columns(self.output, target))[:, 0] * self._x

    def layer(self, name: str, *, call: int = 0) -> LayerLinearization:
        """Maps into and out of a module's output.

        Parameters
        ----------
        name : str
            One of the names given as `layers`.
        call : int
            Which run of the module, where it is used more than once.

        Returns
        -------
        LayerLinearization
            Its maps.

        Raises
        ------
        KeyError
            If the layer was not asked for, or did not run that often.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> linearize(net, x, layers=["1"]).layer("1").activation.shape
        torch.Size([2, 8])
        """
        if name not in self._layers:
            raise KeyError(f"layer {name!r} was not recorded; pass layers=[{name!r}] to linearize")
        return LayerLinearization(self, name, call)

    # ---- sweeps ----

    def _swept(self, columns: Tensor, *, with_weight: bool = False) -> Sweep:
        if with_weight or not self._is_swept(columns):
            weight = empty_weight(self._x, columns.shape[1], self._budget) if with_weight else None
            try:
                self._sweep = self._sweep_outputs(Sweep(columns, weight, self.output))
            except LayoutError:
                self._split_instances()
                self._sweep = self._sweep_outputs(Sweep(columns, weight, self.output))
        assert self._sweep is not None
        return self._sweep

    def _is_swept(self, columns: Tensor) -> bool:
        return self._sweep is not None and torch.equal(self._sweep.columns, columns)

    def _sweep_outputs(self, sweep: Sweep) -> Sweep:
        with exact_arithmetic(self._x.device):
            for rows, graph, j in self._steps(sweep.columns.shape[1]):
                row = graph.output_row(one_hot(graph.output, sweep.columns[rows, j]))
                sweep.add(rows, j, row)
        return sweep

    def _steps(self, n_outputs: int) -> Iterator[tuple[slice, HeldGraph, int]]:
        total = math.ceil(len(self._x) / self._chunk) * n_outputs
        with tqdm(total=total, desc="linearize", disable=not self._progress) as bar:
            for rows, graph in self._graphs():
                for j in range(n_outputs):
                    yield rows, graph, j
                    bar.update()

    def _all_outputs(self) -> tuple[Tensor, Tensor]:
        if self._parts is None:
            with exact_arithmetic(self._x.device):
                pairs = [self._parts_of(rows, graph) for rows, graph, _ in self._steps(1)]
            linear, bias = (torch.cat(part) for part in zip(*pairs, strict=True))
            self._parts = linear, bias
        return self._parts

    def _parts_of(self, rows: slice, graph: HeldGraph) -> tuple[Tensor, Tensor]:
        try:
            return graph.all_outputs()
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
        # fused attention has no second derivative; written out, it has
        with WRITTEN_OUT_ATTENTION.on():
            return self._record(rows).all_outputs()
