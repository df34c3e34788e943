"""One recorded forward pass whose autograd graph is held at x: rows of W by vector products."""

import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .calls import Keep, Role, operation_name, where
from .collector import Collector, Mode, Site, digits
from .errors import CompletenessError, LinearizationError
from .escape import EscapeGuard
from .hooks import Remainder, finite, on_backward
from .kernels import NativeKernels, WrittenOutLstm
from .modules import (
    Activation,
    call_model,
    check_output,
    detached_state,
    private_twin,
    refuse_what_torch_cannot,
    storage_of,
    watch,
)
from .operation import Held, Operation
from .recorder import Recorder
from .table import hold, needs
from .walk import depends_on, gate_rank, pure_gates, upstream_first


class Row(NamedTuple):
    """One row of the held map, for every instance of a graph.

    Attributes
    ----------
    weight : Tensor of shape (N, *input shape)
        Gradient of the held map.
    terms : dict of str to Tensor of shape (N,)
        Bias terms by name.
    value : Tensor of shape (N,)
        The network's own output.
    weight_x : Tensor of shape (N,)
        ``W x``.
    gap, scale : Tensor of shape (N,)
        ``|F - W x - sum(terms)|`` and what it is compared with, ``|F| + |W x| + sum |terms|``.
    """

    weight: Tensor
    terms: dict[str, Tensor]
    value: Tensor
    weight_x: Tensor
    gap: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Plan:
    """Which held map is made: what the recorder keeps, and the form of each operation.

    Attributes
    ----------
    keep : callable
        From the name of an operation to what its rule needs.
    hold : callable
        From an `Operation` to its `Held` form.
    is_tangent : bool
        Whether derivatives are wanted instead of gains.
    keeps_calls : bool
        Whether the recorded calls are wanted afterwards.
    """

    keep: Callable[[str], Keep]
    hold: Callable[[Operation], Held]
    is_tangent: bool = False
    keeps_calls: bool = False


SECANT = Plan(partial(needs, tangent=False), hold)
TANGENT = Plan(partial(needs, tangent=True), hold, is_tangent=True)


class HeldGraph:
    """The network at the rows x, run once, with its gates held.

    Parameters
    ----------
    model : nn.Module
        Any network in evaluation mode.
    x : Tensor of shape (N, ...)
        Rows.
    layers : sequence of str
        Modules whose outputs are wanted.
    plan : Plan
        Which held map: `SECANT`, `TANGENT`, or that of differences from a reference.
    limit : float
        Bytes that may be computed from x before `BudgetExceeded` is raised.

    Attributes
    ----------
    output : Tensor of shape (N, ...)
        ``F(x)``, as the network computed it.
    root : GradientEdge
        Its place in the graph.
    n_bytes : int
        Size of all that was computed from x on the way.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        *,
        layers: Sequence[str] = (),
        plan: Plan = SECANT,
        limit: float = math.inf,
    ) -> None:
        self.x = x.detach().clone().requires_grad_(True)
        self.layers: dict[str, list[Activation]] = {name: [] for name in layers}
        self._plan = plan
        self._state = detached_state(model)
        self._names = {storage_of(t): name for name, t in reversed(self._state.items())}
        self._recorder = Recorder(self.x, plan.keep, limit)
        self.output, self.root = self._run(model)
        self._collector = Collector(len(x))
        self._severed: list[str] = []
        self._handles: list[Any] = []
        self._kernels = NativeKernels()
        # a hook refers to its node and the node to its hook: only removing the hook frees them
        weakref.finalize(self, _remove, self._handles)
        self.n_bytes = self._recorder.n_bytes
        self._tolerance = 1e3 * self._recorder.eps
        self._hold()
        self.calls = self._recorder.calls if plan.keeps_calls else {}
        del self._recorder  # and all inputs that no rule took

    def _run(self, model: nn.Module) -> tuple[Tensor, GradientEdge]:
        model = private_twin(model)
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(watch(model, self._recorder, self.layers))
            stack.enter_context(EscapeGuard(self._recorder))
            stack.enter_context(WrittenOutLstm())
            stack.enter_context(self._recorder)
            output = call_model(model, self._state, self.x.clone())
        check_output(output, len(self.x))
        self._alive = output  # before torch 2.9 the edge does not keep an autograd.Function's node
        return output.detach().clone(), get_gradient_edge(output)

    # ---- the walk ----

    def _hold(self) -> None:
        activations = [a for calls in self.layers.values() for a in calls]
        roots = [self.root.node, *(a.edge.node for a in activations)]
        order = upstream_first(roots)
        depends = depends_on(order, self.x)
        gates = pure_gates(order, depends)
        live = {node for node in roots if node in depends}
        for node in reversed(order):
            if node in live and node.next_functions:
                held = self._hold_node(node, depends, gates)
                live.update(
                    child
                    for position, (child, _) in enumerate(node.next_functions)
                    if child in depends and position not in held.blocked
                )

    def _hold_node(self, node: Any, depends: set[Any], gates: set[Any]) -> Held:
        operation = self._operation(node, depends, gates)
        self._note_severed(operation)
        held = self._plan.hold(operation)
        self._handles += self._kernels.take(node, operation)
        self._hook(node, operation, held)
        return held

    def _operation(self, node: Any, depends: set[Any], gates: set[Any]) -> Operation:
        name = operation_name(node.name())
        functions = node.next_functions
        edges = tuple(i for i, (child, _) in enumerate(functions) if child in depends)
        ranks = tuple(gate_rank(functions[i][0], depends, gates) for i in edges)
        number = node._sequence_nr()
        call, path = self._recorder.call(name, number), self._recorder.path_of(number)
        return Operation(name, node, edges, ranks, path, call, self._plan.is_tangent, self._name)

    def _name(self, tensor: Tensor) -> str | None:
        return self._names.get(storage_of(tensor))

    def _note_severed(self, operation: Operation) -> None:
        leaves = operation.call.leaves() if operation.call else ()
        if any(leaf.role is Role.SEVERED for leaf in leaves):
            self._severed.append(f"{operation.name} in {where(operation.path)}")

    def _hook(self, node: Any, operation: Operation, held: Held) -> None:
        if held.pull is None and not held.constants and not held.remainder:
            return
        remainder = Remainder(operation) if held.remainder else None
        hook = partial(
            on_backward,
            held=held,
            constants=finite(held.constants),
            remainder=remainder,
            label=operation.label,
            site=len(self._handles),
            collector=self._collector,
        )
        self._handles.append(node.register_hook(hook))

    # ---- products with the held map ----

    def row(self, root: GradientEdge, cotangent: Tensor, value: Tensor) -> Row:
        """Pull one cotangent back: a row of W and the terms of b, compared with the output.

        Parameters
        ----------
        root : GradientEdge
            Output of the network or of a layer.
        cotangent : Tensor
            Of the shape of that output.
        value : Tensor of shape (N,)
            ``<cotangent, output>`` per instance.

        Returns
        -------
        Row
            W, terms and completeness gap.

        Raises
        ------
        LayoutError
            If the terms are right in total, but could not be told apart by instance.
        CompletenessError
            If ``F - W x`` is not the sum of the terms.
        """
        row = self._pull(root, cotangent, value)
        if _is_complete(row, self.x.detach(), self._tolerance):
            return row
        if len(self.x) > 1 and _is_complete_in_total(row, self._tolerance):
            self._learn_layout(root, cotangent)
            row = self._pull(root, cotangent, value)
            if _is_complete(row, self.x.detach(), self._tolerance):
                return row
            raise LayoutError
        raise CompletenessError(self._incomplete(row.gap, row.scale, row.value))

    def output_row(self, cotangent: Tensor) -> Row:
        """`row` of the network's output."""
        value = (self.output * cotangent).reshape(len(self.x), -1).sum(1)
        return self.row(self.root, cotangent, value)

    def gradient(self, cotangent: Tensor, edge: GradientEdge) -> Tensor | None:
        """Pull a cotangent of the output back to a layer."""
        self._collector.start(Mode.TERMS)
        return self._pull_back(self.root, edge, cotangent)

    def all_outputs(self) -> tuple[Tensor, Tensor]:
        """``W x`` and b of every output, without W: the transpose of the vector product.

        Returns
        -------
        linear, bias : Tensor of the shape of the output
            The two parts of the output.

        Notes
        -----
        `CompletenessError` if they do not add up to it.
        """
        with torch.enable_grad():
            u = torch.zeros_like(self.output, requires_grad=True)
            self._collector.start(Mode.TOTAL)
            gradient = self._pull_back(self.root, self.x, u, create_graph=True)
            gradient = torch.zeros_like(self.x) if gradient is None else gradient
            linear = _transposed((gradient * self.x.detach()).sum(), u)
            bias = _transposed(self._collector.total, u)
        self._check_parts(linear, bias)
        self._check_instances(bias)
        return linear, bias

    def _check_instances(self, bias: Tensor) -> None:
        """The transpose cannot see one instance in another's output; a mixture of rows can."""
        cotangent = self._mixture()
        value, constant = ((t * cotangent).reshape(len(t), -1).sum(1) for t in (self.output, bias))
        row = _row(self.pull_back(cotangent), self.x.detach(), {"": constant}, value)
        if not _is_complete(row, self.x.detach(), self._tolerance):
            raise CompletenessError(self._incomplete(row.gap, row.scale, row.value))

    def _mixture(self) -> Tensor:
        """A cotangent that reaches all that any output reaches."""
        generator = torch.Generator().manual_seed(0)
        weights = torch.rand(self.output.shape, generator=generator, dtype=torch.float64) + 0.5
        return weights.to(self.output)

    def _check_parts(self, linear: Tensor, bias: Tensor) -> None:
        value, linear, bias = (t.reshape(len(t), -1) for t in (self.output, linear, bias))
        gap = (value - linear - bias).abs()
        scale = value.abs() + linear.abs() + bias.abs()
        # sums of signed parts: rows in which they cancel need the room that `row` gets from terms
        worst = gap.amax(1), scale.amax(1)
        if not bool((worst[0] <= self._tolerance * worst[1]).all()):
            at = (torch.arange(len(gap)), gap.nan_to_num(torch.inf).argmax(1))
            raise CompletenessError(self._incomplete(worst[0], worst[1], value[at]))

    def pull_back(self, cotangent: Tensor) -> Tensor:
        """Product of a cotangent of the output with the held map, (N, *input shape)."""
        self._collector.start(Mode.TERMS)
        return self._gradient(self.root, cotangent)

    def _pull(self, root: GradientEdge, cotangent: Tensor, value: Tensor) -> Row:
        self._collector.start(Mode.TERMS)
        weight = self._gradient(root, cotangent)
        return _row(weight, self.x.detach(), self._collector.terms, value)

    def _gradient(self, root: GradientEdge, cotangent: Tensor) -> Tensor:
        gradient = self._pull_back(root, self.x, cotangent)
        return torch.zeros_like(self.x) if gradient is None else gradient

    def _pull_back(
        self, root: GradientEdge, target: Any, cotangent: Tensor, *, create_graph: bool = False
    ) -> Tensor | None:
        try:
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                root,
                target,
                cotangent,
                retain_graph=True,
                allow_unused=True,
                create_graph=create_graph,
            )
        except RuntimeError as error:
            refuse_what_torch_cannot(error)
            raise
        finally:
            self._kernels.restore()
        return gradients[0]

    def _learn_layout(self, root: GradientEdge, cotangent: Tensor) -> None:
        n, device = len(self.x), self.x.device
        cotangent = self._mixture() if root == self.root else cotangent
        passes: list[dict[Site, Tensor]] = []
        for digit in [torch.zeros(n, device=device), *digits(n, device)]:
            factor = torch.exp2(digit.to(cotangent.dtype))
            self._collector.start(Mode.PROBE)
            self._gradient(root, cotangent * factor.reshape(-1, *(1,) * (cotangent.dim() - 1)))
            passes.append(self._collector.gradients)
        self._collector.learn_layout(passes[0], passes[1:])

    def _incomplete(self, gap: Tensor, scale: Tensor, value: Tensor) -> str:
        worst = int((gap / scale).nan_to_num(torch.inf, torch.inf).argmax())
        cause = (
            f"Suspects: {', '.join(dict.fromkeys(self._severed))} used a value that was "
            f"{Role.SEVERED.value}"
            if self._severed
            else "Likely causes: NaN or infinite values, a value that left torch (.numpy()), or "
            "instances that influence each other"
        )
        return (
            f"W x + b misses the output of instance {worst} by {float(gap[worst]):.3g} "
            f"(output {float(value[worst]):.6g}): part of the network escaped the graph. {cause}"
        )


def _transposed(total: Tensor | None, u: Tensor) -> Tensor:
    if total is None or not total.requires_grad:
        return torch.zeros_like(u)
    try:
        (result,) = torch.autograd.grad(total, u, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        refuse_what_torch_cannot(error)
        raise  # pragma: no cover - what the caller's own derivative raises
    return torch.zeros_like(u) if result is None else result.detach()


class LayoutError(LinearizationError):
    """Terms of b are right in total; which instance they belong to is unknown."""


def _is_complete(row: Row, x: Tensor, tolerance: float) -> bool:
    """Whether ``F = W x + sum(terms)`` to rounding, in each instance; NaN and infinity are not."""
    if not bool(row.gap.isfinite().all()):
        return False
    if bool((row.gap <= tolerance * row.scale).all()):
        return True
    # where the parts of W x cancel, rounding is relative to the parts
    parts = (row.weight * x).reshape(len(x), -1).abs().sum(1)
    return bool((row.gap <= tolerance * (row.scale + parts)).all())


def _is_complete_in_total(row: Row, tolerance: float) -> bool:
    missing = row.value - (row.weight_x + sum(row.terms.values()))
    return bool(missing.sum().abs() <= tolerance * row.scale.sum())


def _row(weight: Tensor, x: Tensor, terms: dict[str, Tensor], value: Tensor) -> Row:
    weight_x = torch.linalg.vecdot(weight.reshape(len(x), -1), x.reshape(len(x), -1))
    parts = torch.stack([weight_x, *terms.values()])
    scale = value.abs() + parts.abs().sum(0)
    return Row(weight, terms, value, weight_x, (value - parts.sum(0)).abs(), scale)


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()
