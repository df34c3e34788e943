"""The table of differences, and what of it is linear in any case."""

from typing import Any

import torch

from ptsne.linearize.calls import Call, Keep, Leaf, Role, operation_name
from ptsne.linearize.operation import Held, Operation
from ptsne.linearize.piecewise import as_autograd
from ptsne.linearize.table import RULES

from . import choices, norms, products, scalars, softmax
from .pair import DifferenceBook, Pair

_NOT_LINEAR = {"aminmax", "linalgvectornorm", "norm", "maxunpool2d", "maxunpool3d", "mpsmaxpool2d"}

_AFFINE = """stack constantpadnd maskedfill maskedscatter indexput indexputimpl indexcopy indexadd
    indexfill scatter scatteradd selectscatter slicescatter diagonalscatter asstridedscatter
    blockdiag fill cat where add sub rsub"""


def _linear(_pair: Pair) -> Held:
    return Held()


def _linear_operations() -> set[str]:
    other = {*choices.DIFFERENCES, *scalars.DIFFERENCES} | _NOT_LINEAR
    linear = {name for name, rule in RULES.items() if rule.apply is as_autograd}
    return (linear - other) | set(_AFFINE.split())


DIFFERENCES = DifferenceBook({
    **dict.fromkeys(_linear_operations(), _linear),
    **scalars.DIFFERENCES,
    **products.DIFFERENCES,
    **choices.DIFFERENCES,
    **norms.DIFFERENCES,
    **softmax.DIFFERENCES,
})


@DIFFERENCES.rule("copyslices")
def _assign(pair: Pair) -> Held:
    inner = operation_name(pair.operation.recorded.function._schema.name)
    is_linear = DIFFERENCES.get(inner) is _linear
    if not is_linear and not (inner == "mul" and len(pair.operation.edges) == 1):
        raise pair.operation.unsupported(f"{inner}_ on part of a tensor")
    return Held()


@DIFFERENCES.rule("gridsampler2d gridsampler3d addcdiv")
def _linear_in_first(pair: Pair) -> Held:
    if pair.operation.edges != (0,):
        raise pair.operation.unsupported("more than its first input depends on x")
    return Held()


def keep(name: str) -> Keep:
    """What the recorder has to keep: inputs, but of operations that are linear in any case."""
    return Keep.INPUTS if name in DIFFERENCES else Keep.CONSTANTS


def hold_difference(operation: Operation, references: dict[int, Call]) -> Held:
    """Held form of one operation for differences from a reference.

    Parameters
    ----------
    operation : Operation
        At the row.
    references : dict of int to Call
        What ran at the reference, by its order.

    Returns
    -------
    Held
        Without constants. `UnsupportedOperation` if the reference took another branch, or the
        operation has no exact difference.
    """
    difference = DIFFERENCES.get(operation.name)
    if difference is None:
        raise operation.unsupported("it has no exact difference between a row and its reference")
    if operation.call is None and difference is _linear:
        return Held()  # a view that autograd made anew, because its base was written into
    call = operation.recorded
    other = references.get(call.order)
    if other is None or other.function is not call.function or not _same_constants(call, other):
        raise operation.unsupported("the reference takes another branch of the network here")
    at_reference = Operation(**{**operation.__dict__, "call": other})
    return difference(Pair(operation, at_reference))


def _same_constants(call: Call, other: Call) -> bool:
    # what is overwritten, and the noise of training, may hold anything
    unread = {"self"} if call.function._schema.name == "aten::copy_" else {"noise"}
    read = call.arguments.keys() - unread
    return all(_same(call.arguments[name], other.arguments.get(name)) for name in read)


def _same(value: Any, reference: Any) -> bool:
    if isinstance(value, Leaf) and isinstance(reference, Leaf):
        return _same_leaf(value, reference)
    if isinstance(value, list) and isinstance(reference, list):
        return len(value) == len(reference) and all(map(_same, value, reference))
    return repr(value) == repr(reference)  # NaN is NaN


def _same_leaf(leaf: Leaf, reference: Leaf) -> bool:
    if leaf.role is not reference.role or leaf.shape != reference.shape:
        return False
    if leaf.role is Role.ACTIVE:
        return True
    if leaf.value is None or reference.value is None:
        return False  # computed from x outside autograd
    return leaf.value is reference.value or torch.equal(leaf.value, reference.value)
