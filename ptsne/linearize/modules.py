"""One run of the model under the recorder: its state, its modules, its output."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.checkpoint import CheckpointError

from .errors import CompletenessError, LinearizationError, UnsupportedOperation
from .recorder import Recorder
from .table import MODULE_RULES


@dataclass(frozen=True)
class Activation:
    """What a module returned: its place in the graph and its value, which later writes spare."""

    edge: GradientEdge
    value: Tensor


def detached_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters without gradients, and copies of buffers: the caller's are never written."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    copies: dict[Tensor, Tensor] = {p: p.detach() for p in parameters.values()}
    copies.update({b: b.detach().clone() for b in buffers.values()})
    # by the tensor, not by the name: tied weights stay one tensor under several names
    return {name: copies[t] for name, t in {**parameters, **buffers}.items()}


def private_twin(model: nn.Module) -> nn.Module:
    """The same modules again, with dictionaries of their own around the same tensors.

    Hooks on it, and tensors put in place of its parameters for a run, are seen by nobody else: not
    by the caller, and not by another thread that runs the same network at the same time.

    Parameters
    ----------
    model : nn.Module
        Left as it is.

    Returns
    -------
    nn.Module
        Shares parameters, buffers and all other attributes; a module that occurs twice is one.
    """
    twins: dict[nn.Module, nn.Module] = {}

    def twin(module: nn.Module) -> nn.Module:
        if isinstance(module, torch.jit.ScriptModule):  # keeps its parts elsewhere; is refused
            return module
        if module not in twins:
            twins[module] = copied = object.__new__(type(module))
            copied.__dict__ = {
                name: value.copy() if isinstance(value, dict) else value
                for name, value in vars(module).copy().items()
            }
            children = copied.__dict__["_modules"]
            children.update({n: twin(m) for n, m in children.items() if m is not None})
        return twins[module]

    return twin(model)


def storage_of(tensor: Tensor) -> int:
    """Identity of a tensor's memory, shared by its views; -1 for sparse ones, which have none."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else -1


def call_model(model: nn.Module, state: dict[str, Tensor], x: Tensor) -> Any:
    """Run the model on its detached state."""
    try:
        return torch.func.functional_call(model, state, (x,))
    except RuntimeError as error:
        refuse_what_torch_cannot(error)
        raise


def check_output(output: Any, n_instances: int) -> None:
    """Refuse outputs that are not one tensor, with a row per instance, that depends on x.

    Parameters
    ----------
    output : object
        What the model returned.
    n_instances : int
        N.

    Raises
    ------
    UnsupportedOperation
        If it is no tensor or does not lead with N.
    CompletenessError
        If x left the graph before it.
    """
    if not isinstance(output, Tensor):
        raise UnsupportedOperation(
            f"the model must return one tensor, not {type(output).__name__}; wrap it in a module "
            "that returns the part to explain"
        )
    if output.dim() == 0 or len(output) != n_instances:
        raise UnsupportedOperation(
            f"the model must return one row per instance; {n_instances} rows gave an output of "
            f"shape {tuple(output.shape)}"
        )
    if not output.requires_grad:
        raise CompletenessError(
            "the output does not depend on x through autograd: the model detaches it, or runs "
            "under no_grad"
        )


@contextmanager
def watch(
    model: nn.Module, recorder: Recorder, layers: dict[str, list[Activation]]
) -> Iterator[None]:
    """Tell the recorder which module runs, catch asked outputs, apply rules of modules."""
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown:
        known = ", ".join(repr(name) for name in modules if name)
        raise ValueError(f"layers {unknown} are not modules of the model; it has {known}")
    watch = _Watch(recorder, layers)
    with ExitStack() as stack:
        for name, module in modules.items():
            pre = module.register_forward_pre_hook(partial(watch.enter, name=name))
            post = module.register_forward_hook(partial(watch.leave, name=name), with_kwargs=True)
            stack.callback(pre.remove)
            stack.callback(post.remove)
        yield


class _Watch:
    def __init__(self, recorder: Recorder, layers: dict[str, list[Activation]]) -> None:
        self._recorder = recorder
        self._layers = layers
        self._outer: list[str] = []
        self._by_rule: set[nn.Module] = set()

    def enter(self, module: nn.Module, args: Any, *, name: str) -> None:  # noqa: ARG002
        self._outer.append(self._recorder.path)
        self._recorder.path = name

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any, *, name: str) -> Any:
        rule = MODULE_RULES.get(type(module)) if module not in self._by_rule else None
        if rule is not None:
            self._by_rule.add(module)  # a rule may run its module
            output = _by_rule(rule, module, args, kwargs, output)
            self._by_rule.remove(module)
        self._recorder.path = self._outer.pop()
        if name in self._layers:
            first = output if isinstance(output, Tensor) else output[0]
            self._layers[name].append(Activation(get_gradient_edge(first), first.detach().clone()))
        return output if rule is not None else None


def _by_rule(rule: Any, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
    held = rule(module, *args, **kwargs)
    tolerance = torch.finfo(output.dtype).eps ** 0.5
    if held.shape != output.shape or not torch.allclose(held, output, tolerance, tolerance):
        raise LinearizationError(
            f"the rule registered for {type(module).__name__} must return what the module returns, "
            f"a tensor of shape {tuple(output.shape)} to {tolerance:.0e}"
        )
    return held


def refuse_what_torch_cannot(error: RuntimeError) -> None:
    """Say what to do about operations that torch itself cannot differentiate."""
    if isinstance(error, CheckpointError):
        raise UnsupportedOperation(
            "the network is checkpointed, and what it computes again for the gradient is not what "
            "ran. Turn checkpointing off, or freeze the parameters of the checkpointed part."
        ) from error
    if re.search("in-?place operation", str(error)):
        raise UnsupportedOperation(
            f"torch cannot differentiate an in-place operation of this network: {error}. Use its "
            "out-of-place form."
        ) from error
    if re.search("derivative for .* is not implemented", str(error)):
        raise UnsupportedOperation(
            "all outputs at once need a second derivative, and an operation of this network has "
            f"none ({error}). weight() and bias_terms() do without."
        ) from error
