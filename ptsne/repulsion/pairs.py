"""Repulsion as exact sums over pairs, in blocks of bounded memory."""

import math

import torch
from torch import Tensor

from ptsne.repulsion.arithmetic import per_device

# Bytes of one pairwise temporary: it should stay in the cache of a CPU, and fill a GPU.
BLOCK_BYTES = {"cpu": 2**19, "cuda": 2**24}


def all_pairs(Y: Tensor, dof: float, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum the force (N, K) and Z over all pairs of a map; `count` (N,) rows stand at each point."""
    own = torch.arange(len(Y), device=Y.device)
    if count is None:
        return between_pairs(Y, Y, dof, own=own)
    force, Z = between_pairs(Y, Y, dof, own=own, counts=(count, count))
    return force, Z + (count * (count - 1)).sum()


def between_pairs(
    targets: Tensor,
    sources: Tensor,
    dof: float,
    *,
    own: Tensor | None = None,
    counts: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum k2 (y_i - y_j) and k1 over all sources, where source ``own[i]`` is target i itself."""
    # counts: rows at each target and at each source, which then act as often
    unit = math.sqrt(dof)  # in which u = 1 + d2 / a needs no division
    rows, columns = targets.T / unit, (sources.T / unit).contiguous()  # (K, M)
    row_bytes = max(1, len(sources)) * targets.element_size()
    step = max(1, per_device(BLOCK_BYTES, targets) // row_bytes)
    starts = range(0, len(targets), step)
    # in one piece of memory: a tensor for each sum would lie between the blocks that are freed, and
    # of 60,000 points the holes, too small for the next block, have taken 20 GB
    force, total = torch.zeros_like(targets), targets.new_zeros(1 + len(starts))
    for number, start in enumerate(starts, 1):
        block = slice(start, start + step)
        difference = [y[block, None] - x for y, x in zip(rows, columns, strict=True)]  # (B, M)
        k1, k2 = _kernels(difference, dof)
        if own is not None:
            k1.scatter_(1, own[block, None], 0.0)
        if counts is None:
            total[number] = k1.sum()
        else:
            total[number] = counts[0][block] @ (k1 @ counts[1])
            k2 = k2 * counts[1]
        force[block] = torch.stack([d.mul_(k2).sum(1) for d in difference], 1) * unit
    return force, total.sum()


def _kernels(difference: list[Tensor], dof: float) -> tuple[Tensor, Tensor]:
    u = torch.addcmul(difference[0].new_ones(()), difference[0], difference[0])
    for d in difference[1:]:
        u.addcmul_(d, d)
    if dof == 1.0:
        k1 = u.reciprocal_()
        return k1, k1.square()
    k1 = u.pow(-(dof + 1) / 2)
    return k1, k1 / u
