"""The autograd graph: its order, what depends on x, and where the gates are."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .calls import operation_name
from .table import GATE_RANK, PURE_GATE, RULES

PASSES_RANK = frozenset((
    *("view", "unsafeview", "reshapealias", "t", "transpose", "permute", "expand"),
    *("squeeze", "unsqueeze", "slice", "select", "alias", "clone", "tocopy"),
    *("split", "unsafesplit", "unbind", "repeat", "copy", "add", "sub"),
    *("rsub", "mul", "div", "neg", "index", "gather"),
))
"""Through these a product looks for the gate behind one of its factors."""


def upstream_first(roots: Sequence[Any]) -> list[Any]:
    """Nodes of the graph, each after those it depends on."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions if child is not None)
    return order


def depends_on(order: Sequence[Any], x: Tensor) -> set[Any]:
    """Nodes whose result depends on the leaf `x`."""
    depends: set[Any] = set()
    for node in order:
        is_x = getattr(node, "variable", None) is x
        if is_x or any(child in depends for child, _ in node.next_functions):
            depends.add(node)
    return depends


def pure_gates(order: Sequence[Any], depends: set[Any]) -> set[Any]:
    """Nodes that are functions of nothing but gates, such as a linear map of a softmax."""
    gates: set[Any] = set()
    for node in order:
        active = [child for child, _ in node.next_functions if child in depends]
        if active and (_is_pure_gate(node, depends) or gates.issuperset(active)):
            gates.add(node)
    return gates


def _is_pure_gate(node: Any, depends: set[Any]) -> bool:
    """Whether a node's result can be nothing but a gate: no rule carries x through it."""
    name = operation_name(node.name())
    if name == "div":
        return node.next_functions[0][0] not in depends
    exponent = getattr(node, "_saved_exponent", None) if name == "pow" else None
    is_quotient = isinstance(exponent, (int, float)) and exponent <= 0
    return is_quotient or name not in RULES or GATE_RANK.get(name) == PURE_GATE


def gate_rank(node: Any, depends: set[Any], gates: set[Any]) -> int:
    """How much the producer of a factor is a gate, seen through views and constants."""
    while node not in gates:
        name = operation_name(node.name())
        if name in GATE_RANK:
            return GATE_RANK[name]
        active = [child for child, _ in node.next_functions if child in depends]
        if name not in PASSES_RANK or len(active) != 1:
            return 0
        node = active[0]
    return PURE_GATE
