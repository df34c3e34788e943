"""The table of rules: what each operation becomes when its gates are held at x.

What is not in it is refused by name.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import activations, normalisation, piecewise, products
from .calls import Keep, operation_name
from .operation import Held, Operation
from .rule import Rule, RuleBook

RULES = RuleBook({
    **piecewise.RULES,
    **activations.RULES,
    **normalisation.RULES,
    **products.RULES,
})
MODULE_RULES: dict[type[nn.Module], Callable[..., Tensor]] = {}

PURE_GATE = 3
"""Rank of what has no other use: functions of these alone have it too."""

GATE_RANK = {
    **dict.fromkeys(("softmax", "safesoftmax", "rsqrt", "reciprocal"), PURE_GATE),
    **dict.fromkeys(("sigmoid", "hardsigmoid", "logsigmoid", "sign", "heaviside"), 2),
    **dict.fromkeys(
        ("tanh", "atan", "erf", "erfc", "hardtanh", "clamp", "clampmin", "clampmax"), 1
    ),
}
"""How much the result of an operation is a gate, when it multiplies another function of x."""

ADVICE = {
    "softmax": "Linearize the logits, or use activation='tangent'",
    "logsoftmax": "Linearize the logits, or use activation='tangent'",
    "logsumexp": "Linearize what enters it, or use activation='tangent'",
    "checkpointfunction": "Turn checkpointing off, or give it use_reentrant=False",
    "copyslices": piecewise.IN_PLACE_ADVICE,
}


def needs(name: str, *, tangent: bool) -> Keep:
    """What the recorder has to keep of an operation.

    Parameters
    ----------
    name : str
        Operation, as `operation_name` spells it.
    tangent : bool
        Whether the Jacobian is asked for.

    Returns
    -------
    Keep
        Nothing, its constants, or also its inputs.
    """
    rule = RULES.get(name)
    if not tangent:
        return rule.keep if rule else Keep.NOTHING
    return rule.keep_tangent if rule and rule.is_same_tangent else Keep.INPUTS


def hold(operation: Operation) -> Held:
    """Hold the gates of one operation by its rule.

    Parameters
    ----------
    operation : Operation
        One node of the graph.

    Returns
    -------
    Held
        Its held form. `UnsupportedOperation` if there is no rule, or the rule refuses.
    """
    rule = RULES.get(operation.name)
    if operation.tangent and not (rule and rule.is_same_tangent):
        return _derivative(operation)
    if rule is None:
        raise operation.unsupported("there is no rule", _advice(operation))
    return rule.apply(operation)


def _derivative(operation: Operation) -> Held:
    if operation.call is None:
        raise operation.unsupported(
            "the constant of its tangent takes its input, which torch does not show",
            "Write it in operations of torch, or register a rule and use activation='secant'",
        )
    return Held(remainder=True)


def _advice(operation: Operation) -> str:
    register = "Register one with linearization_rule"
    other = register if operation.call is None else f"{register}, or use activation='tangent'"
    return ADVICE.get(operation.name, other)


Registered = TypeVar("Registered", bound=Callable[..., Any])


def linearization_rule(
    *targets: str | type[nn.Module] | type[torch.autograd.Function],
) -> Callable[[Registered], Registered]:
    """Register a rule for an operation or for a module of your own.

    For an operation (its autograd name such as ``"GeluBackward0"`` or ``"gelu"``, or a subclass of
    ``torch.autograd.Function``) the rule gets an `Operation` and returns its `Held` form; `gain`
    writes the elementwise case. For a subclass of ``nn.Module`` the rule is its forward written
    with the gates held: it gets the module and the module's inputs, holds gates by ``.detach()``
    and x-dependent shifts by `as_constant`, and must return what the module returns (checked).

    Parameters
    ----------
    *targets : str, subclass of nn.Module or of torch.autograd.Function
        What the rule is for. A later rule replaces an earlier one.

    Returns
    -------
    callable
        The decorator; it returns the rule unchanged.

    Examples
    --------
    >>> import torch
    >>> from ptsne.linearize import linearization_rule, linearize
    >>> class Swish(torch.nn.Module):
    ...     def forward(self, z):
    ...         return z / (1 + torch.exp(-z))
    >>> @linearization_rule(Swish)
    ... def swish(module, z):
    ...     return z * torch.sigmoid(z).detach()
    >>> linearize(Swish().eval(), torch.tensor([[2.0]])).weight()
    tensor([[[0.8808]]])
    """

    def register(rule: Registered) -> Registered:
        for target in targets:
            if isinstance(target, type) and issubclass(target, nn.Module):
                MODULE_RULES[target] = rule
                continue
            name = target if isinstance(target, str) else target.__name__
            RULES[operation_name(name)] = Rule(rule, Keep.INPUTS, Keep.INPUTS, False)
        return rule

    return register


def as_constant(value: Tensor) -> Tensor:
    """Hold a tensor that was computed from x as a constant, so that it counts into b.

    Parameters
    ----------
    value : Tensor of float32 or float64
        Any shape.

    Returns
    -------
    Tensor
        A copy that no longer depends on x.

    Examples
    --------
    >>> import torch
    >>> from ptsne.linearize import as_constant, linearization_rule, linearize
    >>> class Shift(torch.nn.Module):
    ...     def forward(self, z):
    ...         return z + 0.1 * z.detach().mean()
    >>> @linearization_rule(Shift)
    ... def shift(module, z):
    ...     return z + as_constant(0.1 * z.mean())
    >>> lin = linearize(Shift().eval(), torch.tensor([[1.0, 3.0]]))
    >>> lin.weight(0), lin.bias(0)
    (tensor([[[1., 0.]]]), tensor([[0.2000]]))
    """
    bits = torch.int64 if value.dtype == torch.float64 else torch.int32
    # the recorder takes whole numbers for branches taken, hence constants
    return value.detach().clone().view(bits).clone().view(value.dtype)
