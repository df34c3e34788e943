"""What devices and precisions ask of the sums."""

import torch
from torch import Tensor


def working_precision(Y: Tensor) -> Tensor:
    """Widen half precision to float32, in which alone sums over all pairs make sense."""
    return Y if Y.dtype in (torch.float32, torch.float64) else Y.float()


def per_device(table: dict[str, int], Y: Tensor) -> int:
    """Look a size up for the device of Y; what is not a CPU counts as CUDA."""
    return table.get(Y.device.type, table["cuda"])


def add_in_order(total: Tensor, index: Tensor, value: Tensor) -> None:
    """Add value[:, e] to total[:, index[e]] in an order that is always the same.

    Equal input then gives equal bits.

    Parameters
    ----------
    total : Tensor, (C, M)
        Changed in place.
    index : Tensor, (E,), int64
    value : Tensor, (C, E)
    """
    if total.device.type == "cpu":
        total.scatter_add_(1, index.expand(len(total), -1), value)
        return
    # on a GPU scatter_add_ adds in any order, while an accumulating index_put_ sorts first
    for row, v in zip(total, value, strict=True):  # pragma: no cover - needs a GPU
        row.index_put_((index,), v, accumulate=True)
