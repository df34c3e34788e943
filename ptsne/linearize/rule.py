"""What a rule is, a book of rules, and the parts that many rules share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .calls import Keep
from .operation import Gradients, Held, Operation

Apply = Callable[[Operation], Held]


@dataclass(frozen=True)
class Rule:
    """A rule and what it asks of the recorder.

    Attributes
    ----------
    apply : callable
        From an `Operation` to its `Held` form.
    keep, keep_tangent : Keep
        What the recorder stores of the call, for the secant and for the tangent.
    is_same_tangent : bool
        Whether the rule also serves the tangent; else the derivative and its remainder do.
    """

    apply: Apply
    keep: Keep = Keep.NOTHING
    keep_tangent: Keep = Keep.NOTHING
    is_same_tangent: bool = True


class RuleBook(dict[str, Rule]):
    """Rules by the name of their operation."""

    def enter(self, names: str, rule: Rule) -> None:
        """Enter one rule under several names, separated by blanks."""
        self.update(dict.fromkeys(names.split(), rule))

    def rule(self, names: str, **options: Any) -> Callable[[Apply], Apply]:
        """Enter the decorated function under several names; `options` are those of `Rule`."""

        def enter(apply: Apply) -> Apply:
            self.enter(names, Rule(apply, **options))
            return apply

        return enter


def send(incoming: Gradients, kept: dict[int, Tensor | None]) -> Gradients:
    """Gradients for a node's inputs, by position; none for the others."""
    return tuple(kept.get(i) for i in range(len(incoming)))


def constant_part(label: str, value: Tensor | float) -> Held:
    """Held form with autograd's derivative and one constant, left out where it is zero."""
    is_zero = not value.any() if isinstance(value, Tensor) else value == 0
    return Held() if is_zero else Held(constants={label: value})


def per_channel(value: Tensor, n_dims: int) -> Tensor:
    """One value a channel, (C,), against `n_dims` dimensions of pixels: (C, 1, ...)."""
    return value.reshape(-1, *(1,) * n_dims)


def bias_part(operation: Operation, n_dims: int = 0) -> dict[str, Tensor | float]:
    """Term of the argument called bias, if there is one."""
    bias = operation.constant("bias")
    if bias is None:
        return {}
    return {operation.named("bias", operation.label): per_channel(bias, n_dims)}
