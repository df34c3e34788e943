"""Where a network branches: every call that takes a branch on x, and branches that stay hidden.

The walk over the autograd graph sees what is differentiated. A comparison, an argmax or a mask is
not, and yet the pieces of the function end where they change. A dispatch mode sees these too.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ptsne.linearize import UnsupportedOperation
from ptsne.linearize.calls import operation_name, where

from .margins import MARGINS


@dataclass(frozen=True)
class Slot:
    """Stands for the tensor at this position among those that depend on x."""

    position: int


@dataclass
class Site:
    """One call, or one announcing module, that branches on x.

    Attributes
    ----------
    path : str
        Module in which it ran.
    name : str
        Operation, or "" for a module that announces its switches.
    arguments : dict
        By name; a `Slot` for what depends on x.
    edges : list of GradientEdge
        Of those tensors.
    values : list of Tensor
        Their values.
    module : nn.Module or None
        The announcing module.
    """

    path: str
    name: str
    arguments: dict[str, Any]
    edges: list[GradientEdge]
    values: list[Tensor]
    module: nn.Module | None = None


class _Status(Enum):
    KNOWN = "branch whose switches are recorded"
    HIDDEN = "computed from x outside autograd"


class SwitchRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each call that branches on x; refuses branches whose switches cannot be known.

    Only what depends on x may require gradients. Run the network inside the mode and inside
    `watch`.

    Attributes
    ----------
    sites : list of Site
        In the order in which they ran.
    announced : list of str
        Paths of the modules that announce their switches.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sites: list[Site] = []
        self.announced: list[str] = []
        self._path: list[str] = []
        self._n_inside = 0  # announcing modules
        self._status: dict[int, tuple[StorageWeakRef, _Status]] = {}

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Follow which module runs."""
        with ExitStack() as stack:
            for path, module in model.named_modules():
                enter = module.register_forward_pre_hook(partial(self._enter, path=path))
                leave = module.register_forward_hook(self._leave)
                stack.callback(enter.remove)
                stack.callback(leave.remove)
            yield

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...], *, path: str) -> None:
        self._path.append(path)
        if not hasattr(module, "switches"):
            return
        if not self._n_inside:
            self.announced.append(path)
            z = inputs[0]
            if isinstance(z, Tensor) and z.requires_grad:
                edges, values = [_edge(z)], [z.detach().clone()]
                self.sites.append(Site(path, "", {"z": Slot(0)}, edges, values, module))
        self._n_inside += 1

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002
        self._path.pop()
        self._n_inside -= hasattr(module, "switches")

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self._path:  # not the network, but who prepares its run or looks at it
            return func(*args, **kwargs)
        inputs = list(_tensors([*args, *kwargs.values()]))
        is_active = any(tensor.requires_grad for tensor in inputs)
        if not self._n_inside:
            self._refuse_hidden(func, inputs, is_active)
        rule = MARGINS.get(operation_name(func._schema.name)) if is_active else None
        is_site = rule is not None and not self._n_inside
        site = self._site(func, args, kwargs) if is_site else None
        results = func(*args, **kwargs)
        if site is not None:
            site.arguments["results"] = _detached(results)
            self.sites.append(site)
        self._mark_results(func, results, inputs, is_recorded=site is not None)
        return results

    def _site(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Site:
        name = operation_name(func._schema.name)
        site = Site(self._path[-1], name, {}, [], [])
        named = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        named.update(zip((a.name for a in func._schema.arguments), args, strict=False))
        named.update(kwargs)
        for key, value in named.items():
            site.arguments[key] = self._argument(value, site)
        return site

    @staticmethod
    def _argument(value: Any, site: Site) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not value.requires_grad:
            return value.detach().clone()
        site.edges.append(_edge(value))
        site.values.append(value.detach().clone())  # later calls may write into it
        return Slot(len(site.edges) - 1)

    # ---- what becomes of branches ----

    def _mark_results(
        self, func: Any, results: Any, inputs: list[Tensor], *, is_recorded: bool
    ) -> None:
        name = func._schema.name.removeprefix("aten::")
        if name.startswith("new_") or name.endswith("_like"):
            return  # takes the shape only
        statuses = {_Status.HIDDEN if t.requires_grad else self._status_of(t) for t in inputs}
        for result in _tensors([results]):
            if _Status.HIDDEN in statuses:
                is_branch = is_recorded and not result.is_floating_point()
                self._mark(result, _Status.KNOWN if is_branch else _Status.HIDDEN)
            elif _Status.KNOWN in statuses:
                self._mark(result, _Status.KNOWN)

    def _mark(self, tensor: Tensor, status: _Status) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._status:
            # a weak reference also keeps the address from being used again
            reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            self._status[storage._cdata] = reference, status

    def _status_of(self, tensor: Tensor) -> _Status | None:
        """What a tensor is unless it requires a gradient; then autograd knows it."""
        found = self._status.get(tensor.untyped_storage()._cdata)
        return found[1] if found else None

    def _refuse_hidden(self, func: Any, inputs: list[Tensor], is_active: bool) -> None:
        is_read = func is torch.ops.aten._local_scalar_dense.default
        if not is_active and not is_read:
            return
        for tensor in inputs:
            if not tensor.requires_grad and self._status_of(tensor) is _Status.HIDDEN:
                raise UnsupportedOperation(
                    f"{operation_name(func._schema.name)} in {where(self._path[-1])} uses a branch "
                    "or a value that was computed from x where autograd does not see it (no_grad, "
                    ".detach(), a cast to whole numbers), so that the region in which it holds is "
                    "unknown. Compute it with gradients, or give the module a method switches(z)."
                )


def _edge(tensor: Tensor) -> GradientEdge:
    assert tensor.grad_fn is not None  # the model runs on a copy of the leaf
    return GradientEdge(tensor.grad_fn, tensor.output_nr)


def _detached(results: Any) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in _tensors([results])]


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
