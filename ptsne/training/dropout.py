"""Input dropout of training rows, in all columns or in their leading principal directions."""

import torch
from torch import Tensor

from ptsne.training.checkpoint import State
from ptsne.training.objective import Task

PARTS = 10
"""Steps in which the dropout of a batch of reduced rows is drawn anew, a part in each."""


def dropout_rate(task: Task, energy: float, *, n_rows: int = 2000) -> float:
    r"""Share of entries to drop so that rows move a given part of the way to a neighbour.

    Dropping with rate r and scaling the rest moves a row by ``r / (1 - r) |x|^2`` in the mean
    square, whatever the number and scale of the columns.

    Parameters
    ----------
    task : Task
        Rows and their neighbours.
    energy : float
        That mean square, in units of the squared distance to the tenth neighbour.
    n_rows : int
        Rows looked at.

    Returns
    -------
    float
        r, below 1/2.
    """
    rows = slice(None, None, max(1, len(task.X) // n_rows))
    x = task.X[rows]
    near = task.world.fetch(task.X, task.neighbors[rows, :10][:, -1])
    length = float(task.world.mean(x.square().sum(1)))
    distance = float(task.world.mean((x - near).square().sum(1)))
    odds = energy * distance / length if length else 0.0
    return min(0.5, odds / (1 + odds))


class Window:
    """Random numbers from one stored draw, read at a random offset.

    Drawing as many numbers as a batch has entries costs as much as the network; one draw a little
    longer than a batch, read from a random position, is as good.

    Parameters
    ----------
    drawn : Tensor of shape (n + slack,)
        The numbers; up to n are read at a time.
    n : int
        Largest number of entries.
    generator : torch.Generator
        Source of the offsets.
    """

    def __init__(self, drawn: Tensor, n: int, generator: torch.Generator) -> None:
        self._drawn, self._slack, self._generator = drawn, len(drawn) - n, generator

    @classmethod
    def of_normals(cls, n: int, like: Tensor, generator: torch.Generator) -> "Window":
        """Standard normal numbers, of the type and on the device of `like`."""
        return cls(torch.randn(_stored(n), generator=generator).to(like), n, generator)

    @classmethod
    def of_dropout(cls, n: int, rate: float, like: Tensor, generator: torch.Generator) -> "Window":
        """0 where an entry is dropped, ``1 / (1 - rate)`` where it is kept."""
        keep = torch.rand(_stored(n), generator=generator) >= rate
        return cls((keep / (1 - rate)).to(like), n, generator)

    def __call__(self, shape: torch.Size) -> Tensor:
        """As many numbers as a tensor of this shape has entries."""
        return self.at(self.offset(), shape)

    def offset(self) -> int:
        """Draw where to read."""
        return int(torch.randint(self._slack, (1,), generator=self._generator))

    def at(self, start: int, shape: torch.Size) -> Tensor:
        """As many numbers as a tensor of this shape has entries, from an offset on."""
        return self._drawn[start : start + shape.numel()].view(shape)


def _stored(n: int) -> int:
    return n + max(1, n // 4)


class DroppedRows:
    """Rows with entries set to zero, the others scaled up.

    Parameters
    ----------
    X : Tensor of shape (N, D)
        Training rows.
    rate : float
        Share of entries dropped.
    batch_size : int
        Largest batch.
    generator : torch.Generator
        Source of randomness.
    """

    def __init__(self, X: Tensor, rate: float, batch_size: int, generator: torch.Generator) -> None:
        self._X, self._rate = X, rate
        if rate:
            n = min(len(X), batch_size) * X.shape[1]
            self._mask = Window.of_dropout(n, rate, X, generator)

    def __call__(self, index: slice | Tensor) -> Tensor:
        """Rows of the batch, (B, D)."""
        x = self._X[index]
        return x * self._mask(x.shape) if self._rate else x

    def state_dict(self) -> State:
        """Nothing: each batch is drawn anew."""
        return {}

    def load_state_dict(self, state: State, /) -> None:
        """Nothing to do."""


class ReducedRows:
    """Rows in r principal directions, after dropout in all D columns.

    A linear encoder that starts at PCA needs no more: each step costs r / D of the arithmetic. The
    dropout of a tenth of a batch is drawn anew in each step, since its product with the axes is
    what the reduction saves.

    Parameters
    ----------
    X : Tensor of shape (N, D)
        Training rows.
    axes : Tensor of shape (r, D)
        Orthonormal directions.
    rate : float
        Share of entries dropped.
    batch_size : int
        Largest batch.
    generator : torch.Generator
        Source of randomness.

    Attributes
    ----------
    X : Tensor of shape (N, r)
        The rows without dropout.
    """

    def __init__(
        self, X: Tensor, axes: Tensor, rate: float, batch_size: int, generator: torch.Generator
    ) -> None:
        self._all_columns, self._axes, self._rate = X, axes, rate
        self._part = -(-min(len(X), batch_size) // PARTS)
        self._next = 0
        self._offsets: dict[int, int] = {}  # where each part was last read: its dropout in a number
        self.X = torch.cat([x @ axes.T for x in torch.split(X, self._part)])
        self._dropped = self.X.clone()
        if not rate:
            return
        self._mask = Window.of_dropout(self._part * X.shape[1], rate, X, generator)
        for _ in range(-(-len(X) // self._part)):
            self._draw()

    def __call__(self, index: slice | Tensor) -> Tensor:
        """Rows of the batch, (B, r)."""
        self._draw()
        return self._dropped[index]

    def _draw(self) -> None:
        if not self._rate:
            return
        stop = self._next + self._part
        self._offsets[self._next] = self._mask.offset()
        self._drop(self._next)
        self._next = stop if stop < len(self._all_columns) else 0

    def _drop(self, first: int) -> None:
        """Drop entries of the part that begins at row `first`."""
        rows = slice(first, first + self._part)
        x = self._all_columns[rows]
        mask = self._mask.at(self._offsets[first], x.shape)
        self._dropped[rows] = (x * mask) @ self._axes.T

    def state_dict(self) -> State:
        """What each part's dropout is, and which part is next."""
        return {"offsets": [*self._offsets.items()], "next": self._next}

    def load_state_dict(self, state: State, /) -> None:
        """Drop the same entries again."""
        self._offsets, self._next = dict(state["offsets"]), state["next"]
        for first in self._offsets:
            self._drop(first)
