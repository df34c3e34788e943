"""All switches of a network at some rows, with their derivatives by x."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from ptsne.linearize import Held, Operation
from ptsne.linearize.calls import Keep, operation_name
from ptsne.linearize.graph import HeldGraph, Plan
from ptsne.linearize.modules import private_twin
from ptsne.linearize.table import RULES, needs
from ptsne.linearize.walk import upstream_first

from .margins import MARGINS
from .recording import Site, Slot, SwitchRecorder

ADVICE = (
    "Regions exist where a network is piecewise linear. For smooth activations use the tangent "
    "map, linearize(model, x, activation='tangent'), or "
    "integrated_gradients(..., method='quadrature')"
)
_CHOICE_ADVICE = "Choose by torch.amax, torch.amin or a pooling of torch.nn"

_NOT_LINEAR = {"linalgvectornorm", "norm", "mode"}
_RANDOM = {"fractionalmaxpool2d", "fractionalmaxpool3d"}
_BY_CONSTANTS = {"fmod", "remainder", "prelukernel"}
_WITHOUT_MARGIN = {"maxpool2d", "mpsmaxpool2d", "scatterreduce", "indexreduce"}


def _keep(name: str) -> Keep:
    return Keep.NOTHING if name in MARGINS and name != "hardsigmoid" else needs(name, tangent=False)


def _hold_linear(operation: Operation) -> Held:
    """Refuse what is not piecewise linear; keep autograd's derivative of the rest."""
    name, rule = operation.name, RULES.get(operation.name)
    if name == "hardsigmoid" and rule is not None:
        return Held(rule.apply(operation).pull)  # torch rounds its 1/6
    if name in MARGINS:
        return _hold_choice(operation)
    if name in _RANDOM:
        raise operation.unsupported("its windows are drawn at random", "Use another pooling")
    if name in _WITHOUT_MARGIN and operation.argument("reduce") not in ("sum", "mean"):
        raise operation.unsupported("how near its next branch is, is not known", _CHOICE_ADVICE)
    if rule is None or not rule.is_same_tangent or name in _NOT_LINEAR:
        raise operation.unsupported("it is not piecewise linear", ADVICE)
    held = rule.apply(operation)
    if held.pull is not None or held.blocked:
        raise operation.unsupported("two of its inputs depend on x", ADVICE)
    return Held()


def _hold_choice(operation: Operation) -> Held:
    if operation.name in _BY_CONSTANTS and operation.edges != (0,):
        raise operation.unsupported("more than its first input depend on x", ADVICE)
    return Held()


@dataclass
class Group:
    """The switches of one site.

    Attributes
    ----------
    path, operation : str
        Module and operation.
    leaves : list of Tensor
        Copies of the tensors that the site branches on.
    edges : list of GradientEdge
        Where those stand in the graph of x.
    margin : Tensor of shape (N, n)
        Differentiable by the leaves.
    branch : int Tensor of shape (N, u)
        What was taken.
    unit : int Tensor of shape (N, n) or None
        Numbers of the switches, where they are not 0 to n - 1.
    """

    path: str
    operation: str
    leaves: list[Tensor]
    edges: list[GradientEdge]
    margin: Tensor
    branch: Tensor
    unit: Tensor | None = None

    @property
    def n(self) -> int:
        """Number of switches."""
        return self.margin.shape[1]


class LayoutUnknown(Exception):
    """Switches that cannot be told apart by row: pass rows one by one.

    Attributes
    ----------
    output : Tensor of shape (N, ...)
        The network's, for all rows together.
    """

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


class SwitchGraph:
    """A network run at the rows x, and all its switches.

    Parameters
    ----------
    model : nn.Module
        A piecewise linear network in evaluation mode, in float64.
    x : Tensor of shape (N, ...)
        Rows, float64.

    Raises
    ------
    LayoutUnknown
        If the switches cannot be told apart by row.

    Attributes
    ----------
    groups : list of Group
        In the order in which they ran.
    output : Tensor of shape (N, ...)
        The network's.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        recorder, model = SwitchRecorder(), private_twin(model)
        with recorder.watch(model), recorder:
            self._held = HeldGraph(model, x, plan=_plan(recorder))
        self.x = self._held.x
        self.output = self._held.output
        self.n_bytes = self._held.n_bytes
        with torch.enable_grad():
            groups = [_groups(site, len(x)) for site in recorder.sites]
        if None in groups:
            raise LayoutUnknown(self.output)
        self.groups = [group for of_site in groups for group in of_site or ()]
        if not self._are_rows_apart():
            raise LayoutUnknown(self.output)

    def _are_rows_apart(self) -> bool:
        """Whether each row's switches depend on that row alone."""
        if len(self.x) == 1 or not self.groups:
            return True
        generator = torch.Generator().manual_seed(0)
        plain = [_random(group.margin, generator) for group in self.groups]
        factor = _random(self.x.new_empty(len(self.x)), generator).abs() + 1
        gradient = _as_rows(self.pull(self.groups, plain))
        scaled = _as_rows(self.pull(self.groups, [c * factor[:, None] for c in plain]))
        gap = (scaled - gradient * factor[:, None]).abs().amax(1)
        return bool((gap <= 1e-9 * scaled.abs().amax(1)).all())

    @cached_property
    def margin(self) -> Tensor:
        """Margins of all groups, (N, n), detached."""
        parts = [group.margin.detach() for group in self.groups]
        return torch.cat([self.x.new_zeros(len(self.x), 0).detach(), *parts], 1)

    @property
    def branch(self) -> Tensor:
        """Branches of all groups, (N, u) int32."""
        none = torch.zeros(len(self.x), 0, dtype=torch.int32, device=self.x.device)
        return torch.cat([none, *(group.branch for group in self.groups)], 1)

    def gradient(self, chosen: Tensor) -> Tensor:
        """Gradient of one switch per row: `chosen` (N,) counts through all groups."""
        groups, cotangents, first = [], [], 0
        for group in self.groups:
            here = (chosen >= first) & (chosen < first + group.n)
            if bool(here.any()):
                cotangent = torch.zeros_like(group.margin)
                cotangent[here, chosen[here] - first] = 1.0
                groups.append(group)
                cotangents.append(cotangent)
            first += group.n
        return self.pull(groups, cotangents)

    def pull(
        self, groups: Sequence[Group], cotangents: Sequence[Tensor], *, create_graph: bool = False
    ) -> Tensor:
        """Pull cotangents of the margins back to x, (N, *input shape)."""
        moved = [p for p in zip(groups, cotangents, strict=True) if p[0].margin.requires_grad]
        margins, sent = [group.margin for group, _ in moved], [cotangent for _, cotangent in moved]
        pairs = [pair for g, _ in moved for pair in zip(g.leaves, g.edges, strict=True)]
        edges = dict(pairs)  # groups of one module have their leaf in common
        leaves = list(edges)
        options = {"retain_graph": True, "create_graph": create_graph, "allow_unused": True}
        if not leaves:
            return torch.zeros_like(self.x)
        gradients = torch.autograd.grad(margins, leaves, sent, **options)
        used = [(e, g) for e, g in zip(edges.values(), gradients, strict=True) if g is not None]
        if not used:
            return torch.zeros_like(self.x)
        outputs, pulled = zip(*used, strict=True)
        (gradient,) = torch.autograd.grad(outputs, self.x, pulled, **options)
        return torch.zeros_like(self.x) if gradient is None else gradient

    @staticmethod
    def is_upstream_linear(group: Group) -> bool:
        """Whether no recorded operation that branches comes before a group."""
        nodes = upstream_first([edge.node for edge in group.edges])
        return not any(operation_name(node.name()) in MARGINS for node in nodes)

    def push(self, groups: Sequence[Group]) -> "Push":
        """Prepare derivatives of margins along directions of x."""
        return Push(self, groups)

    def output_gradient(self, target: Tensor) -> Tensor:
        """Gradient of one output per row: `target` (N,) counts in the flattened output."""
        cotangent = torch.zeros_like(self.output).reshape(len(self.x), -1)
        cotangent[torch.arange(len(self.x)), target] = 1.0
        return self._held.pull_back(cotangent.reshape(self.output.shape))


class Push:
    """Derivatives of margins along directions: the transpose of `SwitchGraph.pull`."""

    def __init__(self, graph: SwitchGraph, groups: Sequence[Group]) -> None:
        self._x = graph.x
        self._u = [torch.zeros_like(group.margin, requires_grad=True) for group in groups]
        with torch.enable_grad():
            self._pulled = graph.pull(groups, self._u, create_graph=True)

    def __call__(self, direction: Tensor) -> Tensor:
        """Derivative along one direction per row (N, *input shape): (N, n)."""
        if not self._u:
            return self._x.detach().new_zeros(len(self._x), 0)
        if not self._pulled.requires_grad:
            return torch.cat([torch.zeros_like(u) for u in self._u], 1)
        return self._transpose(direction, is_batched=False)

    def many(self, directions: Tensor) -> Tensor:
        """Derivatives along C directions, the same for all rows (C, *input shape): (C, N, n)."""
        n_directions = len(directions)
        if not self._pulled.requires_grad:
            return torch.cat([torch.zeros_like(u).expand(n_directions, -1, -1) for u in self._u], 2)
        cotangents = directions[:, None].expand(-1, *self._x.shape)
        return self._transpose(cotangents, is_batched=True)

    def _transpose(self, cotangent: Tensor, *, is_batched: bool) -> Tensor:
        parts = torch.autograd.grad(
            self._pulled,
            self._u,
            cotangent,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=is_batched,
        )
        shape = cotangent.shape[:1] if is_batched else ()
        whole = [
            u.new_zeros(*shape, *u.shape) if part is None else part
            for part, u in zip(parts, self._u, strict=True)
        ]
        return torch.cat(whole, -1).detach()


def _plan(recorder: SwitchRecorder) -> Plan:
    def hold(operation: Operation) -> Held:
        path = operation.path
        if any(not p or path == p or path.startswith(f"{p}.") for p in recorder.announced):
            return Held()  # the module vouches for what it announces
        return _hold_linear(operation)

    return Plan(_keep, hold)


def _groups(site: Site, n_rows: int) -> list[Group] | None:
    """Switches of a site; None where they cannot be dealt out to the rows."""
    leaves = [value.requires_grad_(True) for value in site.values]
    if site.module is not None:
        return _announced(site, site.module, leaves)
    given = site.arguments.items()
    arguments = {k: leaves[a.position] if isinstance(a, Slot) else a for k, a in given}
    margin, branch = MARGINS[site.name](arguments)
    if margin.numel() % n_rows or branch.numel() % n_rows:
        return None
    parts = margin.reshape(n_rows, -1), branch.reshape(n_rows, -1)
    return [Group(site.path, site.name, leaves, site.edges, *parts)]


def _announced(site: Site, module: nn.Module, leaves: list[Tensor]) -> list[Group]:
    announced: dict[str, tuple[Tensor, Tensor, int]] = cast(Any, module).switches(leaves[0])
    return [
        Group(site.path, name, leaves, site.edges, margin, _signs(margin, unit, n_units), unit)
        for name, (margin, unit, n_units) in announced.items()
    ]


def _signs(margin: Tensor, unit: Tensor, n_units: int) -> Tensor:
    """Side of each switch by its number, (N, n_units): 1 or -1, and 0 where there is none."""
    signs = margin.new_zeros(len(margin), n_units, dtype=torch.int32)
    side = torch.where(margin.detach() > 0, 1, -1).to(torch.int32)
    side = side.masked_fill(margin.detach().isinf(), 0)
    return signs.scatter_add_(1, unit.expand_as(margin), side)


def _as_rows(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1)


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    values = torch.rand(like.shape, generator=generator, dtype=torch.float64) - 0.5
    return values.to(like)
