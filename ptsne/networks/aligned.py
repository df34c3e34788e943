"""Products of matrices whose rows start alike in memory, so that no row is rounded in its own way.

Kernels sum from the first address on that fills a vector register, and what lies before it apart.
Of rows of five float64 numbers, every other one starts between two such addresses: its sum has
another order than that of its neighbour, and its last bit depends on where in a block it stands.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ALIGNMENT = 64
"""Bytes; blocks of memory start at multiples of it, and no vector register is longer."""


def spare_columns(n_columns: int, like: Tensor) -> int:
    """Columns to add to rows of as many numbers, so that each starts at a multiple of 64 bytes."""
    return -n_columns % (ALIGNMENT // like.element_size())


def aligned_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T + b`` of rows (..., D), with columns of zeros after those that there are."""
    spare = spare_columns(x.shape[-1], x)
    if spare:
        x, weight = F.pad(x, (0, spare)), F.pad(weight, (0, spare))
    return F.linear(x, weight, bias)


class AlignedLayers(TorchFunctionMode):
    """Inside, the linear layers of any network are `aligned_linear`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch."""
        call = aligned_linear if func is F.linear and args else func
        return call(*args, **(kwargs or {}))
