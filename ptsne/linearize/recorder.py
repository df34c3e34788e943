"""What ran: every ATen call of a forward pass, filed under the autograd node it made.

Autograd keeps what *its* derivative needs. The linearizer also needs constants that were added
(they make up b), the inputs of tanh and sigmoid (autograd keeps their outputs), and to know which
values were computed from x outside autograd. A dispatch mode sees all of these.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .calls import Call, Keep, Leaf, Role, View, bind, call_name, geometry, where
from .errors import UnsupportedOperation


class _Policy(NamedTuple):
    """What the recorder does about a function."""

    keep: Keep
    in_place: bool
    is_empty: bool


class BudgetExceeded(Exception):
    """More was computed from x than the memory budget allows."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Files each call under the sequence number of its autograd node.

    Parameters
    ----------
    x : Tensor
        What "computed from x" refers to.
    keep : callable
        From the name of an operation to what its rule needs.
    limit : float
        Bytes that may be computed from x before `BudgetExceeded` is raised.

    Attributes
    ----------
    n_bytes : int
        Size of all that was computed from x so far.
    eps : float
        Of the least precise type that was used on the way.
    """

    def __init__(self, x: Tensor, keep: Callable[[str], Keep], limit: float = math.inf) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._moves: list[tuple[int, str]] = []
        self.path = ""
        self.n_bytes = 0
        self.eps = 0.0
        self._keep = keep
        self._n_filed = 0
        self._limit = limit
        self._policies: dict[Any, _Policy] = {}
        self._calls: dict[int, Call] = {}
        self._last_clone = (-1, -1)  # number of its node, storage that was cloned
        self._held: dict[int, list[Leaf]] = {}
        self._from_x: dict[int, StorageWeakRef] = {}
        self._mark(x)

    def call(self, name: str, number: int) -> Call | None:
        """Find the call that made the node of this name and sequence number, if it was seen."""
        if name == "copyslices":  # made right after the in-place call on a view
            before = (self._calls.get(number - 1), self._calls.get(number - 2))
            return next((call for call in before if call and call.view), None)
        call = self._calls.get(number)
        return call if call and _matches(name, call) else None

    @property
    def calls(self) -> dict[int, Call]:
        """Recorded calls by the order in which they ran."""
        return {call.order: call for call in self._calls.values()}

    @property
    def path(self) -> str:
        """Name of the module that is running."""
        return self._moves[-1][1]

    @path.setter
    def path(self, name: str) -> None:
        self._moves.append((_get_sequence_nr(), name))

    def path_of(self, number: int) -> str:
        """Name of the module in which the node of this sequence number was made."""
        place = bisect_right(self._moves, number, key=itemgetter(0))
        return self._moves[max(place, 1) - 1][1]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        from_x = not _takes_shape_only(func) and any(map(self._is_from_x, tensors))
        if func is torch.ops.aten._local_scalar_dense.default:
            self.refuse_escape(tensors[0])
        policy = self._policy(func)
        if policy.in_place:
            self._copy_before_write(args[0])
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            self._file(func, args, kwargs, policy.keep, policy.in_place)
        result = func(*args, **kwargs)
        if policy.is_empty:
            result.zero_()  # what is not written may be anything: let it be no NaN, and no constant
        if func in _UNSAFE_SPLITS:  # parts share memory, but one may be written and the other not
            result = [part.clone() for part in result]
        if from_x:
            for tensor in _tensors(result if isinstance(result, (tuple, list)) else (result,)):
                self._mark(tensor)
        return result

    def _file(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        keep: Keep,
        in_place: bool,
    ) -> None:
        number = _get_sequence_nr() - 1
        storage = _storage(args[0]) if args and isinstance(args[0], Tensor) else -1
        if func is torch.ops.aten.clone.default:
            self._last_clone = (number, storage)
        elif in_place and self._last_clone == (number, storage):
            number -= 1  # autograd cloned what it is about to overwrite, after making the node
            self._calls.pop(number, None)
        if number not in self._calls:
            self._n_filed += 1
            view = self._view(args[0]) if in_place and args[0]._is_view() else None
            keep = Keep.CONSTANTS if view and keep is Keep.NOTHING else keep
            self._calls[number] = self._describe(func, args, kwargs, keep, in_place)
            self._calls[number].view = view

    def _view(self, part: Tensor) -> View:
        base = cast(Tensor, part._base)
        is_constant = self._role(base) is Role.CONSTANT
        return geometry(part, base.detach().clone() if is_constant else None)

    def _describe(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        keep: Keep,
        in_place: bool,
    ) -> Call:
        if keep is Keep.NOTHING:
            return Call(func, {}, self.path, self._n_filed)
        named = bind(func, args, kwargs)
        arguments = {name: self._file_argument(value, keep) for name, value in named.items()}
        call = Call(func, arguments, self.path, self._n_filed)
        if in_place:
            _clone_first(call)
        return call

    def _policy(self, func: Any) -> _Policy:
        if func not in self._policies:
            keep, is_empty = self._keep(call_name(func)), func._schema.name in _EMPTY
            self._policies[func] = _Policy(keep, _writes_first(func), is_empty)
        return self._policies[func]

    def _file_argument(self, value: Any, keep: Keep) -> Any:
        if isinstance(value, Tensor):
            return self._leaf(value, keep)
        if isinstance(value, (tuple, list)) and any(isinstance(v, Tensor) for v in value):
            return [self._file_argument(v, keep) for v in value]
        return value

    def _leaf(self, tensor: Tensor, keep: Keep) -> Leaf:
        role = self._role(tensor)
        needed = keep is Keep.INPUTS or role is Role.CONSTANT
        leaf = Leaf(
            role, tensor.shape, tensor.dtype, tensor.device, tensor.detach() if needed else None
        )
        if needed:
            self._held.setdefault(_storage(tensor), []).append(leaf)
        return leaf

    def _role(self, tensor: Tensor) -> Role:
        if not self._is_from_x(tensor):
            return Role.CONSTANT
        return Role.ACTIVE if tensor.requires_grad else Role.SEVERED

    def _copy_before_write(self, target: Tensor) -> None:
        for leaf in self._held.pop(_storage(target), ()):
            leaf.value = cast(Tensor, leaf.value).clone()

    def _mark(self, tensor: Tensor) -> None:
        # whole numbers and booleans are branches taken: constants of the held map
        if tensor.is_floating_point() or tensor.is_complex():
            self._note_precision(tensor.dtype)
            self._refuse_sparse(tensor)
            storage = tensor.untyped_storage()
            if storage._cdata not in self._from_x:
                # a weak reference also keeps the address from being used again
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._from_x[storage._cdata] = reference
                self.n_bytes += storage.nbytes()
                if self.n_bytes > self._limit:
                    raise BudgetExceeded

    def _refuse_sparse(self, tensor: Tensor) -> None:
        if tensor.layout is not torch.strided:
            raise UnsupportedOperation(
                f"{where(self.path)} makes a sparse tensor of x; what becomes of it cannot be "
                "followed. Use .to_dense(), or torch.where on a dense tensor."
            )

    def _note_precision(self, dtype: torch.dtype) -> None:
        if dtype in (torch.float16, torch.bfloat16):
            raise UnsupportedOperation(
                f"{where(self.path)} computes in {dtype}, whose rounding hides what is missing; "
                "run it in float32 or float64, without autocast"
            )
        self.eps = max(self.eps, torch.finfo(dtype).eps)

    def _is_from_x(self, tensor: Tensor) -> bool:
        return _storage(tensor) in self._from_x and (
            tensor.is_floating_point() or tensor.is_complex()
        )

    def refuse_escape(self, tensor: Tensor) -> None:
        """Refuse that the numbers of a tensor are read, if they were computed from x.

        Parameters
        ----------
        tensor : Tensor
            What is read.

        Raises
        ------
        UnsupportedOperation
            If it depends on x; whole numbers and booleans are branches taken, and may be read.
        """
        if self._is_from_x(tensor):
            raise UnsupportedOperation(
                f"{where(self.path)} reads numbers that were computed from x (.item(), float(), "
                ".tolist() or .numpy()); what becomes of them cannot be seen. Keep them tensors."
            )


_EMPTY = frozenset((
    *("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::empty_permuted"),
    *("aten::new_empty", "aten::new_empty_strided"),
))

_UNSAFE_SPLITS = frozenset((
    torch.ops.aten.unsafe_split.Tensor,
    torch.ops.aten.unsafe_split_with_sizes.default,
))


def _takes_shape_only(func: Any) -> bool:
    name = func._schema.name.removeprefix("aten::")
    return bool(name.startswith("new_") or name.endswith("_like"))


def _matches(name: str, call: Call) -> bool:
    return name == call_name(call.function)


def _writes_first(func: Any) -> bool:
    arguments = func._schema.arguments
    alias = arguments[0].alias_info if arguments else None
    return alias is not None and bool(alias.is_write)


def _clone_first(call: Call) -> None:
    leaf = next(call.leaves())
    if leaf.value is not None:
        leaf.value = leaf.value.clone()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else -1
