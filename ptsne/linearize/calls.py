"""One ATen call: which function, with what, where each tensor came from, in which module."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import torch
from torch import Tensor


class Role(Enum):
    """Where a tensor that enters a call comes from."""

    ACTIVE = "computed from x, known to autograd"
    CONSTANT = "parameter, buffer, number, or branch taken"
    SEVERED = "computed from x outside autograd: .detach() or no_grad"


class Keep(Enum):
    """What a rule needs of a call, beside its name."""

    NOTHING = 0
    CONSTANTS = 1
    INPUTS = 2


@dataclass(eq=False, slots=True)
class Leaf:
    """One tensor that entered a call; `value` is None where no rule asks for it."""

    role: Role
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    value: Tensor | None

    def zero(self) -> Tensor:
        """Zeros of this shape."""
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class View:
    """Where a view lies in the tensor that it is a part of, and that tensor if it is constant."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    base_size: torch.Size
    base_stride: tuple[int, ...]
    constant: Tensor | None


@dataclass(eq=False, slots=True)
class Call:
    """One ATen call: which function, with what, in which module."""

    function: Any  # torch._ops.OpOverload
    arguments: dict[str, Any]
    path: str
    order: int
    view: View | None = None

    def leaves(self) -> Iterator[Leaf]:
        """Tensor arguments in the order of the function's schema."""
        yield from _leaves(self.arguments.values())

    def run(self, value: Callable[[Leaf], Tensor]) -> Any:
        """Call the function again with each tensor argument replaced by ``value(leaf)``."""
        return _call(self.function, {k: _replace(a, value) for k, a in self.arguments.items()})

    def embed(self, part: Tensor) -> Tensor:
        """The whole constant, or zeros, with `part` at the view that was written."""
        view = cast(View, self.view)
        whole = part.new_empty(()).new_empty_strided(view.base_size, view.base_stride)
        whole.copy_(part.new_zeros(()) if view.constant is None else view.constant)
        whole.as_strided(view.size, view.stride, view.offset).copy_(part)
        return whole


def operation_name(name: str) -> str:
    """Spell an operation the same for ATen, autograd and users.

    Parameters
    ----------
    name : str
        ``"GeluBackward0"``, ``"aten::gelu_"``, ``"gelu"``, ...

    Returns
    -------
    str
        ``"gelu"``: lower case, no underscores, no namespace, no ``Backward`` and its number.

    Examples
    --------
    >>> operation_name("MaxPool2DWithIndicesBackward0"), operation_name("aten::elu_")
    ('maxpool2dwithindices', 'elu')
    """
    stem = name.rsplit("::", 1)[-1]
    return re.sub(r"Backwards?\d*$", "", stem).replace("_", "").lower()


def call_name(func: Any) -> str:
    """Name of an ATen function, as `operation_name` spells that of its node."""
    return operation_name(func._schema.name).removesuffix("forward")  # log_sigmoid_forward


def where(path: str) -> str:
    """How messages name a module."""
    return f"module {path!r}" if path else "the model"


def bind(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by their names in the function's schema, defaults included."""
    schema = func._schema.arguments
    named = {a.name: a.default_value for a in schema if a.has_default_value()}
    named.update(zip((a.name for a in schema), args, strict=False))
    named.update(kwargs)
    return {a.name: named[a.name] for a in schema if a.name in named}


def geometry(view: Tensor, constant: Tensor | None) -> View:
    """Where a view lies in its base, and what the base was if it is constant."""
    base = cast(Tensor, view._base)
    offset = int(view.storage_offset() - base.storage_offset())
    return View(view.size(), view.stride(), offset, base.size(), base.stride(), constant)


def _call(func: Any, arguments: dict[str, Any]) -> Any:
    keyword_only = {a.name for a in func._schema.arguments if a.kwarg_only}
    positional = [v for name, v in arguments.items() if name not in keyword_only]
    return func(*positional, **{n: v for n, v in arguments.items() if n in keyword_only})


def _replace(argument: Any, value: Callable[[Leaf], Tensor]) -> Any:
    if isinstance(argument, Leaf):
        return value(argument)
    if isinstance(argument, list):
        return [_replace(item, value) for item in argument]
    return argument


def _leaves(arguments: Iterable[Any]) -> Iterator[Leaf]:
    for argument in arguments:
        if isinstance(argument, Leaf):
            yield argument
        elif isinstance(argument, list):
            yield from _leaves(argument)
