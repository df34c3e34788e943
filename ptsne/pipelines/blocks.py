"""What preprocessing is made of, as torch modules that can be undone: scale, select, project, join.

Every block computes in float64, in the form that keeps digits: ``(x - centre) * factor + offset``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module, ABC):
    """A map of rows (B, n_in) to rows (B, n_out), with a right inverse."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """Rows that this block takes to `z` (B, n_out); NaN in columns that leave no trace."""

    @property
    def is_lossy(self) -> bool:
        """Whether rows that differ can become equal, columns left out aside."""
        return False

    def fill_gaps(self, x: Tensor) -> Tensor:
        """Pass `x` (B, n_in) where values may be missing."""
        z: Tensor = self(x)
        return z

    def imputations(self, _before: "Chain") -> Iterator[tuple["Chain", "Impute"]]:
        """Blocks that fill missing values, each with what comes before it."""
        yield from ()


class Elementwise(Block):
    """``(x - centre) * factor + offset``, column by column.

    Parameters
    ----------
    centre, factor, offset : array-like of shape (n,) or ()
        Finite.
    """

    centre: Tensor
    factor: Tensor
    offset: Tensor

    def __init__(self, centre: ArrayLike, factor: ArrayLike, offset: ArrayLike = 0.0) -> None:
        super().__init__()
        self.register_buffer("centre", tensor(centre))
        self.register_buffer("factor", tensor(factor))
        self.register_buffer("offset", tensor(offset))

    def forward(self, x: Tensor) -> Tensor:
        """Scale `x` (B, n)."""
        return (x - self.centre) * self.factor + self.offset

    def inverse(self, z: Tensor) -> Tensor:
        """Undo the scaling of `z` (B, n); NaN where the factor is 0."""
        factor = torch.where(self.factor == 0, torch.nan, self.factor)
        return (z - self.offset) / factor + self.centre


class Clip(Block):
    """``min(max(x, low), high)``.

    Parameters
    ----------
    low, high : float
        Bounds.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """Clip `x` (B, n)."""
        return x.clamp(self.low, self.high)

    def inverse(self, z: Tensor) -> Tensor:
        """Return `z` (B, n): a clipped value stands for itself."""
        return z


class Select(Block):
    """Columns by number, in any order, also more than once.

    Parameters
    ----------
    index : array-like of int
        Columns that stay.
    n_in : int
        Columns there are.
    """

    index: Tensor

    def __init__(self, index: ArrayLike, n_in: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.from_numpy(np.array(index, dtype=np.int64)))
        self.n_in = n_in

    def forward(self, x: Tensor) -> Tensor:
        """Select from `x` (B, n_in)."""
        return x.index_select(1, self.index)

    def inverse(self, z: Tensor) -> Tensor:
        """Put `z` back; NaN in the columns that were left out."""
        x = z.new_full((len(z), self.n_in), torch.nan)
        x[:, self.index] = z
        return x


class Embed(Block):
    """The columns that are numbers, back among all columns: zeros stand for the others.

    Parameters
    ----------
    index : array-like of int
        Columns that are numbers.
    n_out : int
        All columns.
    """

    index: Tensor
    source: Tensor

    def __init__(self, index: ArrayLike, n_out: int) -> None:
        super().__init__()
        numbers = np.array(index, dtype=np.int64)
        source = np.full(n_out, len(numbers))
        source[numbers] = np.arange(len(numbers))
        self.register_buffer("index", torch.from_numpy(numbers))
        self.register_buffer("source", torch.from_numpy(source))

    def forward(self, x: Tensor) -> Tensor:
        """Spread `x` (B, n) over n_out columns."""
        return torch.cat([x, x.new_zeros(len(x), 1)], 1).index_select(1, self.source)

    def inverse(self, z: Tensor) -> Tensor:
        """Take the numbers out again."""
        return z.index_select(1, self.index)


class Project(Block):
    """``(x - centre) @ A.T``: PCA and its kin.

    Parameters
    ----------
    A : array-like of shape (n_out, n_in)
        One row a component.
    centre : array-like of shape (n_in,) or ()
        Subtracted first.
    """

    A: Tensor
    centre: Tensor

    def __init__(self, A: ArrayLike, centre: ArrayLike = 0.0) -> None:
        super().__init__()
        self.register_buffer("A", tensor(A))
        self.register_buffer("centre", tensor(centre))

    def forward(self, x: Tensor) -> Tensor:
        """Project `x` (B, n_in)."""
        return F.linear(x - self.centre, self.A)

    def inverse(self, z: Tensor) -> Tensor:
        """Nearest row to the centre that is projected to `z`; components may be NaN, not all."""
        x = F.linear(z.nan_to_num(), torch.linalg.pinv(self.A)) + self.centre
        return torch.where(z.isnan().all(1, keepdim=True), torch.nan, x)

    @property
    def is_lossy(self) -> bool:
        """Whether there are fewer components than columns."""
        return self.A.shape[0] < self.A.shape[1]


class Impute(Block):
    """Constants for missing values, which are filled before a row enters: ``x -> x`` after that.

    Parameters
    ----------
    fill : array-like of shape (n,)
        Constant of each column.
    missing : float
        What marks a missing value; NaN for NaN.
    """

    fill: Tensor

    def __init__(self, fill: ArrayLike, missing: float) -> None:
        super().__init__()
        self.register_buffer("fill", tensor(fill))
        self.missing = missing

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, n), which is filled already."""
        return x

    def inverse(self, z: Tensor) -> Tensor:
        """Return `z` (B, n)."""
        return z

    def fill_gaps(self, x: Tensor) -> Tensor:
        """Put the constants where values of `x` (B, n) are missing."""
        return torch.where(self.is_missing(x), self.fill, x)

    def is_missing(self, x: Tensor) -> Tensor:
        """Which values of `x` (B, n) are missing."""
        return x.isnan() if np.isnan(self.missing) else x == self.missing

    def imputations(self, before: "Chain") -> Iterator[tuple["Chain", "Impute"]]:
        """Itself."""
        yield before, self


class Chain(Block):
    """Blocks one after the other; none is the identity.

    Parameters
    ----------
    *blocks : Block
        In the order in which rows pass them.
    """

    def __init__(self, *blocks: Block) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Pass `x` (B, n_in) through all blocks."""
        for block in self:
            x = block(x)
        return x

    def fill_gaps(self, x: Tensor) -> Tensor:
        """Pass `x` (B, n_in), filling what is missing on the way."""
        for block in self:
            x = block.fill_gaps(x)
        return x

    def inverse(self, z: Tensor) -> Tensor:
        """Undo the blocks, the last one first."""
        for block in reversed([*self]):
            z = block.inverse(z)
        return z

    @property
    def is_lossy(self) -> bool:
        """Whether one of the blocks is."""
        return any(block.is_lossy for block in self)

    def imputations(self, before: "Chain") -> Iterator[tuple["Chain", "Impute"]]:
        """Those of all blocks, in order."""
        for block in self:
            yield from block.imputations(before)
            before = Chain(*before, block)


class Join(Block):
    """Blocks side by side on the same columns; their results stand next to each other.

    Parameters
    ----------
    branches : sequence of Block
        At least one.
    widths : sequence of int
        Columns that each branch gives.
    """

    def __init__(self, branches: Sequence[Block], widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.widths = list(widths)

    def forward(self, x: Tensor) -> Tensor:
        """Pass `x` (B, n_in) through every branch."""
        return torch.cat([branch(x) for branch in self.branches], 1)

    def fill_gaps(self, x: Tensor) -> Tensor:
        """Pass `x` (B, n_in), each branch filling what is missing."""
        return torch.cat([branch.fill_gaps(x) for branch in self._blocks()], 1)

    def inverse(self, z: Tensor) -> Tensor:
        """What the branches know of the columns; one that keeps everything is asked first."""
        parts = zip(self._blocks(), torch.split(z, self.widths, 1), strict=True)
        known = [b.inverse(part) for b, part in sorted(parts, key=lambda pair: pair[0].is_lossy)]
        x: Tensor = reduce(lambda x, other: torch.where(x.isnan(), other, x), known)
        return x

    @property
    def is_lossy(self) -> bool:
        """Whether one of the branches is."""
        return any(branch.is_lossy for branch in self._blocks())

    def imputations(self, before: Chain) -> Iterator[tuple[Chain, Impute]]:
        """Those of all branches."""
        for branch in self._blocks():
            yield from branch.imputations(before)

    def _blocks(self) -> list[Any]:
        return [*self.branches]


def tensor(values: ArrayLike) -> Tensor:
    """A float64 copy."""
    return torch.from_numpy(np.array(values, dtype=np.float64))
