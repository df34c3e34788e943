"""Rules of products and quotients: one factor carries x, the other is its gate.

Where no factor is more of a gate than the other, each carries its share (Shapley's: a half).
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .calls import Keep
from .operation import Gradients, Held, Operation
from .piecewise import affine
from .rule import RuleBook, bias_part, constant_part, send

RULES = RuleBook()


def _product(operation: Operation, factors: Iterable[int], constants: Any = None) -> Held:
    constants = constants or {}
    active = [edge for edge in operation.edges if edge in set(factors)]
    if len(active) < 2:
        return Held(constants=constants)
    if operation.tangent:
        return Held(remainder=True)
    ranks = dict(zip(operation.edges, operation.ranks, strict=True))
    highest = max(ranks[edge] for edge in active)
    carriers = [edge for edge in active if ranks[edge] < highest] or active
    gates = tuple(edge for edge in active if edge not in carriers)
    pull = partial(_pull_product, share=1 / len(carriers), carriers=carriers, gates=gates)
    return Held(pull, constants, gates)


def _pull_product(
    incoming: Gradients,
    _outgoing: Gradients,
    *,
    share: float,
    carriers: list[int],
    gates: tuple[int, ...],
) -> Gradients:
    def part(position: int, gradient: Tensor | None) -> Tensor | None:
        if gradient is None or position in gates:
            return None
        return gradient * share if position in carriers else gradient

    return tuple(part(i, gradient) for i, gradient in enumerate(incoming))


@RULES.rule("mul mm bmm mv dot linalgcross", keep_tangent=Keep.INPUTS)
def _factors(operation: Operation) -> Held:
    return _product(operation, (0, 1))


@RULES.rule("trilinear", keep_tangent=Keep.INPUTS)
def _trilinear(operation: Operation) -> Held:
    return _product(operation, (0, 1, 2))


@RULES.rule("div", keep=Keep.CONSTANTS, keep_tangent=Keep.INPUTS)
def _divide(operation: Operation) -> Held:
    if operation.argument("rounding_mode") is None:
        return _gated(operation, carrier=0)
    if operation.tangent:
        return Held(remainder=True)
    raise operation.unsupported("division with rounding")


@RULES.rule("lerp addcdiv", keep=Keep.INPUTS, keep_tangent=Keep.INPUTS)
def _third_is_gate(operation: Operation) -> Held:
    """``a + w (b - a)`` with w held, and ``a + v b / c`` with c held."""
    if 2 not in operation.edges:
        return affine(operation)
    if operation.tangent:
        return Held(remainder=True)
    if operation.edges == (2,):
        if operation.name == "lerp":
            return affine(operation)
        raise operation.unsupported("its gate depends on x, and nothing that passes it does")
    gate = operation.inputs[-1]
    zeros = [torch.zeros_like(z) for z in operation.inputs[:-1]]
    constants = constant_part(operation.label, operation.run([*zeros, gate])).constants
    return Held(partial(_pull_all_but, blocked=2), constants, blocked=(2,))


def _pull_all_but(
    incoming: Gradients,
    _outgoing: Gradients,
    *,
    blocked: int,
) -> Gradients:
    return tuple(None if i == blocked else gradient for i, gradient in enumerate(incoming))


def _gated(operation: Operation, *, carrier: int) -> Held:
    """Hold all inputs but one."""
    if operation.edges == (carrier,):
        return Held()
    if operation.tangent:
        return Held(remainder=True)
    if carrier not in operation.edges:
        raise operation.unsupported("its gate depends on x, and nothing that passes it does")
    blocked = tuple(edge for edge in operation.edges if edge != carrier)
    return Held(partial(_pull_carrier, carrier=carrier), blocked=blocked)


def _pull_carrier(
    incoming: Gradients,
    _outgoing: Gradients,
    *,
    carrier: int,
) -> Gradients:
    return send(incoming, {carrier: incoming[carrier]})


@RULES.rule(
    """scaleddotproductflashattentionforcpu scaleddotproductflashattention
    scaleddotproductefficientattention scaleddotproductcudnnattention
    scaleddotproductfusedattentionoverrideable""",
    keep_tangent=Keep.INPUTS,
)
def _attention(operation: Operation) -> Held:
    return _gated(operation, carrier=2)


@RULES.rule("gridsampler2d gridsampler3d", keep_tangent=Keep.INPUTS)
def _sample(operation: Operation) -> Held:
    return _gated(operation, carrier=0)


@RULES.rule("linear", keep=Keep.CONSTANTS, keep_tangent=Keep.INPUTS)
def _linear(operation: Operation) -> Held:  # pragma: no cover - made on Apple's GPUs only
    return _product(operation, (0, 1), bias_part(operation))


@RULES.rule("convolution convolutionoverrideable", keep=Keep.CONSTANTS, keep_tangent=Keep.INPUTS)
def _convolution(operation: Operation) -> Held:
    n_dims = len(operation.argument("stride"))
    return _product(operation, (0, 1), bias_part(operation, n_dims))


@RULES.rule(
    "addmm sparseaddmm baddbmm addbmm addmv addr", keep=Keep.CONSTANTS, keep_tangent=Keep.INPUTS
)
def _add_product(operation: Operation) -> Held:
    if not set(operation.edges) & {1, 2}:
        return affine(operation)
    added, beta = operation.constant("self"), operation.argument("beta")
    label = operation.named("self", operation.label)
    return _product(operation, (1, 2), {} if added is None else {label: added * beta})


@RULES.rule("addcmul", keep=Keep.CONSTANTS, keep_tangent=Keep.INPUTS)
def _addcmul(operation: Operation) -> Held:
    return _product(operation, (1, 2), affine(operation).constants)
