"""Which outputs are asked for, and room for their rows of W."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Outputs = int | Sequence[int] | Tensor | Literal["predicted"] | None

MEMORY_BUDGET = 2**30
"""Bytes that W may take, and that the graph of one chunk of rows may take."""


def output_columns(output: Tensor, outputs: Outputs) -> Tensor:
    """Indices into the flattened output of each row.

    Parameters
    ----------
    output : Tensor of shape (N, ...)
        The network's output.
    outputs : int, sequence of int, Tensor, "predicted" or None
        The same for every row, a tensor (N, m) with a choice per row, the largest, or all.

    Returns
    -------
    int Tensor of shape (N, m)
        On the output's device.

    Raises
    ------
    ValueError
        If `outputs` is another string.
    """
    flat = output.reshape(len(output), -1)
    if outputs is None:
        outputs = torch.arange(flat.shape[1])
    if isinstance(outputs, str):
        if outputs != "predicted":
            raise ValueError(f"outputs must be indices, 'predicted' or None; got {outputs!r}")
        return flat.argmax(1, keepdim=True)
    return _indices(outputs, *flat.shape).to(output.device)


def target_columns(output: Tensor, target: Outputs) -> Tensor:
    """Index of one output for each row: `target` is an int, (N,) ints, or "predicted"."""
    if isinstance(target, Tensor) and target.dim() == 1:
        target = target.reshape(-1, 1).expand(len(output), 1)
    columns = output_columns(output, target)
    if columns.shape[1] != 1:
        raise ValueError(f"target must be one output per row; got {columns.shape[1]}")
    return columns


def one_hot(output: Tensor, chosen: Tensor) -> Tensor:
    """Cotangent of one output per row."""
    flat = torch.zeros_like(output).reshape(len(output), -1)
    return flat.scatter_(1, chosen[:, None], 1.0).reshape(output.shape)


FEWER_OUTPUTS = "ask for outputs='predicted', or use linear_part()"


def empty_weight(
    x: Tensor, n_outputs: int, budget: int, *, what: str = "W", advice: str = FEWER_OUTPUTS
) -> Tensor:
    """Room for W, within the memory budget.

    Parameters
    ----------
    x : Tensor of shape (N, ...)
        Input.
    n_outputs : int
        Rows of W per instance.
    budget : int
        Bytes.
    what, advice : str
        How the message calls it, and what else it says to do.

    Returns
    -------
    Tensor of shape (N, n_outputs, *input shape)
        Not initialised.

    Raises
    ------
    MemoryError
        If it does not fit.
    """
    shape = (len(x), n_outputs, *x.shape[1:])
    size = math.prod(shape) * x.element_size()
    if size > budget:
        raise MemoryError(
            f"{what} of shape {shape} takes {size / 2**20:,.1f} MiB, more than memory_budget "
            f"({budget / 2**20:,.1f} MiB); pass fewer rows or a larger budget, {advice}"
        )
    with torch.inference_mode(False):  # rows are written outside the caller's inference mode
        return torch.empty(shape, dtype=x.dtype, device=x.device)


def _indices(outputs: int | Sequence[int] | Tensor, n: int, m: int) -> Tensor:
    index = torch.as_tensor(outputs)
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise TypeError(f"outputs must be whole numbers; got {index.dtype}")
    index = index.reshape(-1) if index.dim() < 2 else index
    if index.dim() == 2 and len(index) != n:
        raise IndexError(f"outputs per row must have shape ({n}, m); got {tuple(index.shape)}")
    if index.numel() and not (-m <= int(index.min()) and int(index.max()) < m):
        raise IndexError(f"outputs must lie between 0 and {m - 1}; got {index.tolist()}")
    return (index.long() % m).expand(n, index.shape[-1])
