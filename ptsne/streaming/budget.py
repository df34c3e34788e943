"""What a fit may take of the memory, and how it is shared out."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from ptsne.networks import rows_per_block

MIB = 2**20
UNITS = {"": 1, "k": 2**10, "m": MIB, "g": 2**30, "t": 2**40}
TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)

LARGEST_RANK = 256
"""Principal directions kept where there is room: on MNIST they hold 96 % of the 15 neighbours."""
SMALLEST_RANK = 64
LARGEST_BATCH = 65_536
SMALLEST_BATCH = 1024
LARGEST_BLOCK = 32 * MIB
FEWEST_LANDMARKS = 50
ROWS_TOGETHER = 128
"""Fewest rows of a block: each block costs a pass over a basis of directions."""
NEAR = 30
"""Neighbours of a row that the training looks at."""

FIXED = 56 * MIB
"""Bytes for the work space of libraries, the grid of the repulsion and blocks of scores."""
SEARCHED, PAIRED, KEPT = 16, 40, 20
"""Bytes for each neighbour of each row: while it is searched, while P is made, and afterwards."""
PLACED = 1100
"""Bytes for each row while the map is trained, beside codes and batch."""
BASIS = 20
"""Bytes for each number of a basis of directions while they are searched."""
SCORED = 3 * 4 * 4096
"""Bytes for each landmark while rows are compared with all: the most it was, kept as a reserve."""


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


@dataclass(frozen=True)
class Sizes:
    """What has to be held.

    Parameters
    ----------
    n_rows, n_columns, n_neighbors : int
        N, D and k.
    latent_dim, n_landmarks : int
        L, and landmarks wanted.
    decoder_width : int
        Width of the last hidden layer of the decoder.
    row_bytes : int
        For a row while its block is read.
    chunk_bytes : int
        Of memory that reading takes at once, however few rows are asked for.
    stored_bytes : int
        Of a number as the rows of the landmarks are kept: 4 or 8.
    """

    n_rows: int
    n_columns: int
    n_neighbors: int
    latent_dim: int
    n_landmarks: int
    decoder_width: int
    row_bytes: int
    chunk_bytes: int = 0
    stored_bytes: int = 8

    @property
    def smallest_block(self) -> int:
        """Bytes of the fewest rows that are read at once."""
        return max(MIB, ROWS_TOGETHER * self.row_bytes)

    def model(self, n_landmarks: int) -> int:
        """Bytes of the fitted map, and of the rows that are placed by it at once."""
        layers = 8 * self.n_columns * (4 * self.latent_dim + self.decoder_width + 16)
        placed = 4 * 8 * rows_per_block(self.n_columns, "cpu")
        return layers + (placed + self.stored_bytes * n_landmarks) * self.n_columns

    def peak(self, plan: "Plan") -> int:
        """Bytes of the phase that takes the most."""
        n, k, d, dim = self.n_rows, self.n_neighbors, self.n_columns, self.latent_dim
        is_whole = plan.rank >= d
        rows = 0 if plan.in_file else 4 * n * plan.rank
        axes = 0 if is_whole else 4 * d * plan.rank
        block = plan.block_bytes + self.chunk_bytes
        batch = plan.batch_size * (24 * plan.rank + 64 * dim)
        training = n * (KEPT * k + PLACED + 24 * dim)
        phases = (
            rows + block + (0 if is_whole else BASIS * d * (plan.rank + 16)),
            rows + axes + n * max(SEARCHED, PAIRED) * k,
            rows + axes + training + batch + SCORED * plan.n_landmarks,
            n * (KEPT * k + 24 * dim) + block + self.model(plan.n_landmarks),
        )
        return FIXED + max(phases)


def plan_memory(budget: int, sizes: Sizes) -> Plan:
    """Share out a budget.

    What grows with the number of rows comes first: the neighbour graph, P, codes and places. The
    rest is made smaller until all keeps to the budget: first blocks and batches, then reduced rows
    go into a file, then directions or landmarks become fewer, whatever saves more.

    Parameters
    ----------
    budget : int
        Bytes.
    sizes : Sizes
        What has to be held.

    Returns
    -------
    Plan
        Sizes that keep to the budget.

    Raises
    ------
    ValueError
        If even the smallest sizes take more.
    """
    plan = _largest(sizes)
    while sizes.peak(plan) > budget:
        smaller = [p for p in _smaller(plan, sizes) if sizes.peak(p) < sizes.peak(plan)]
        if not smaller:
            raise ValueError(
                f"a map of {sizes.n_rows} rows of {sizes.n_columns} columns with "
                f"{sizes.n_neighbors} neighbours each needs a memory_budget of at least "
                f"{math.ceil(sizes.peak(plan) / MIB)} MiB, got {budget / MIB:.4g} MiB; raise it, "
                f"{_advice(sizes)}"
            )
        plan = smaller[0]
    return plan


def _advice(sizes: Sizes) -> str:
    """What makes the least budget smaller, beside fewer rows."""
    if sizes.chunk_bytes > LARGEST_BLOCK:
        return f"or store the rows in chunks of less than {sizes.chunk_bytes / 2 / MIB:.0f} MiB"
    return "lower perplexity, or fit fewer rows and transform the others"


def _largest(sizes: Sizes) -> Plan:
    """What is taken where there is room."""
    rank = min(sizes.n_columns, max(LARGEST_RANK, sizes.latent_dim))
    block = max(LARGEST_BLOCK, sizes.smallest_block)
    return Plan(rank, block, LARGEST_BATCH, sizes.n_landmarks, in_file=False)


def _smaller(plan: Plan, sizes: Sizes) -> Iterator[Plan]:
    """Ways to take less, those that cost the least quality first."""
    least_landmarks = min(FEWEST_LANDMARKS, plan.n_landmarks)
    least_rank = min(sizes.n_columns, max(SMALLEST_RANK, sizes.latent_dim))
    yield replace(plan, block_bytes=max(sizes.smallest_block, plan.block_bytes // 2))
    yield replace(plan, batch_size=max(SMALLEST_BATCH, plan.batch_size // 2))
    yield replace(plan, in_file=True)
    fewer = (
        replace(plan, rank=max(least_rank, plan.rank * 3 // 4)),
        replace(plan, n_landmarks=max(least_landmarks, plan.n_landmarks * 3 // 4)),
    )
    yield from sorted(fewer, key=sizes.peak)


def number_of_neighbors(perplexity: Any, n_rows: int) -> int:
    """Neighbours of each row: three times the perplexity."""
    largest = max(perplexity) if isinstance(perplexity, (list, tuple)) else perplexity
    return max(1, min(n_rows - 1, int(3 * largest)))
