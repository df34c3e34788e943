"""What a fit may take of the memory, and how it is shared out."""

import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

MIB = 2**20
UNITS = {"": 1, "k": 2**10, "m": MIB, "g": 2**30, "t": 2**40}
TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)

LARGEST_RANK = 256
"""Principal directions kept where there is room: on MNIST they hold 96 % of the 15 neighbours."""
SMALLEST_RANK = 64
LARGEST_BATCH = 65_536
SMALLEST_BATCH = 1024
NEAR = 30
"""Neighbours of a row that the training looks at."""
FIXED = 48 * MIB
"""Work space of the libraries, of the grid of the repulsion and of blocks of scores."""
PAIR = 44
"""Bytes for each neighbour of each row while P is made."""
ROW = 1400
"""Bytes for each row while the map is trained, beside its codes."""


@dataclass(frozen=True)
class Plan:
    """How a budget is shared out.

    Parameters
    ----------
    rank : int
        Directions r in which rows are kept.
    block_bytes : int
        For a block of rows.
    batch_size : int
        Rows of a training step.
    n_landmarks : int
        Landmarks that fit.
    in_file : bool
        Whether the reduced rows are kept in a temporary file.
    """

    rank: int
    block_bytes: int
    batch_size: int
    n_landmarks: int
    in_file: bool


def budget_bytes(value: int | float | str) -> int:
    """Bytes of a budget.

    Parameters
    ----------
    value : int, float or str
        Bytes, or a text such as "512MiB" or "2 GB"; units are powers of 1024.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If it is no such text, or not positive.
    """
    size = float("nan")
    if isinstance(value, str):
        match = TEXT.fullmatch(value)
        size = float(match[1]) * UNITS[match[2].lower()] if match else size
    elif isinstance(value, (Integral, Real)):
        size = float(value)
    if not 1 <= size < float("inf"):
        raise ValueError(
            'memory_budget must be a number of bytes or a text such as "512MiB" or "2GiB"; '
            f"got {value!r}"
        )
    return int(size)


def plan_memory(
    budget: int, shape: tuple[int, int], n_neighbors: int, latent_dim: int, n_landmarks: int
) -> Plan:
    """Share out a budget.

    What grows with the number of rows comes first: the neighbour graph, P, codes and places. The
    rest is for reduced rows, blocks, batches and landmarks, which can be made smaller.

    Parameters
    ----------
    budget : int
        Bytes.
    shape : (int, int)
        N and D.
    n_neighbors : int
        k.
    latent_dim : int
        L.
    n_landmarks : int
        Landmarks wanted.

    Returns
    -------
    Plan
        Sizes that keep to the budget.

    Raises
    ------
    ValueError
        If the graph and the map alone take more.
    """
    n_rows, n_columns = shape
    fixed = FIXED + n_rows * max(PAIR * n_neighbors, 20 * n_neighbors + 16 * latent_dim + ROW)
    least = fixed + 16 * MIB + _landmark_bytes(1, n_columns)
    if budget < least:
        raise ValueError(
            f"the graph and the map of {n_rows} rows with {n_neighbors} neighbours each take about "
            f"{least / MIB:.0f} MiB, over the memory_budget of {budget / MIB:.0f} MiB; raise it, "
            "lower perplexity, or fit fewer rows and transform the others"
        )
    room = budget - fixed
    rank = max(latent_dim, SMALLEST_RANK, min(LARGEST_RANK, room // (12 * n_rows)))
    rank = min(n_columns, rank)
    batch = room // (4 * _batch_row(rank, latent_dim))
    landmarks = room // (4 * _landmark_bytes(1, n_columns))
    return Plan(
        rank=rank,
        block_bytes=max(MIB, room // 8),
        batch_size=min(LARGEST_BATCH, max(SMALLEST_BATCH, batch)),
        n_landmarks=max(1, min(n_landmarks, landmarks)),
        in_file=4 * n_rows * rank > room // 3,
    )


def _batch_row(rank: int, latent_dim: int) -> int:
    """Bytes of a row of a batch: itself with dropout, and its charts, with gradients."""
    return 24 * rank + 64 * latent_dim


def _landmark_bytes(n: int, n_columns: int) -> int:
    """Bytes of landmarks: their rows, and scores of a block of rows."""
    return n * (8 * n_columns + 3 * 4 * 4096)


def number_of_neighbors(perplexity: Any, n_rows: int) -> int:
    """Neighbours of each row: three times the perplexity."""
    largest = max(perplexity) if isinstance(perplexity, (list, tuple)) else perplexity
    return max(1, min(n_rows - 1, int(3 * largest)))
