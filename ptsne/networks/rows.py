"""A network applied to rows, so that no row depends on the others."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROWS_PER_BLOCK = {"cpu": 256, "cuda": 8192}
FEWEST_ROWS_PER_BLOCK = 64
WIDE = 4096
"""Columns above which a block holds fewer rows, so that it does not become larger."""


def rows_per_block(n_columns: int, device_type: str) -> int:
    """Rows that go through a network together."""
    size = most = ROWS_PER_BLOCK[device_type]
    while size > FEWEST_ROWS_PER_BLOCK and size * n_columns > most * WIDE:
        size //= 2
    return size


@torch.no_grad()
def apply_by_rows(network: nn.Module, X: NDArray[Any]) -> NDArray[Any]:
    """Apply a network to rows so that each row's result does not depend on the other rows.

    Matrix products may round differently for other shapes and other positions of a row. So all
    rows go through blocks of one shape, the last one padded; and where a float64 network gives
    float32 results, what difference is left is rounded away.

    Parameters
    ----------
    network : nn.Module
        In eval mode; its own precision is used, or that of the rows where it holds no numbers.
    X : ndarray of shape (N, D)
        Rows.

    Returns
    -------
    ndarray of shape (N, ...)
        Results, in the precision of `X`.
    """
    like = tensor_of(network, X.dtype)
    size = rows_per_block(X.shape[1], like.device.type)
    block = like.new_zeros(size, X.shape[1])
    results = []
    for start in range(0, max(1, len(X)), size):
        part = np.array(X[start : start + size])  # a copy: torch refuses read-only arrays
        block[: len(part)] = torch.from_numpy(part)
        results.append(network(block)[: len(part)].cpu().numpy().astype(X.dtype, copy=False))
    return np.concatenate(results)


def tensor_of(network: nn.Module, dtype: Any) -> Tensor:
    """A tensor on the device and in the precision of a network; one that holds none has `dtype`."""
    none = torch.from_numpy(np.empty(0, dtype))
    return next(iter((*network.parameters(), *network.buffers())), none)
