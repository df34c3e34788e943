"""Neighbours of more rows than fit into a search: near cells of rows, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptsne.affinities.scan import Indices, Neighbors

if TYPE_CHECKING:
    from numpy.random import RandomState

EXACT_LIMIT = 20_000
"""Rows up to which all pairs are compared."""
ROWS_PER_CELL = 256
PROBED_SHARE = 0.3
"""Part of all cells that a row is compared with, up to `MOST_PROBED`."""
FEWEST_PROBED, MOST_PROBED = 48, 192
LARGEST = 16
"""Size of a cell, in units of the wanted one, beyond which its rows are taken to be equal."""
LLOYD_STEPS = 8
SAMPLE_PER_CELL = 40
SCORE_BYTES = 2**22
"""Bytes of one block of scores: a cache of a CPU."""
GPU_ROWS_PER_CELL = 1024
GPU_SCORE_BYTES = 2**30


class _Cells(NamedTuple):
    """Rows grouped by their nearest centre."""

    centres: Tensor  # (C, r)
    order: Indices  # (N,) rows, cell by cell
    starts: Indices  # (C + 1,) where each cell begins in that order
    largest: int  # rows of a cell that are compared at once

    def parts(self, cell: int) -> list[Indices]:
        """Rows of a cell; in parts where they are so many that they must be equal."""
        rows = self.order[self.starts[cell] : self.starts[cell + 1]]
        return np.array_split(rows, math.ceil(len(rows) / self.largest))


@dataclass(frozen=True)
class _Rows:
    """Rows that stay where they are, in memory or mapped, or go to a device as a whole."""

    X: NDArray[np.float32]
    squares: NDArray[np.float32] | None
    device: torch.device
    resident: Tensor | None
    per_cell: int
    score_bytes: int

    @classmethod
    def of(
        cls, X: NDArray[np.float32], squares: NDArray[np.float32] | None, device: torch.device
    ) -> _Rows:
        if device.type == "cpu":
            return cls(X, squares, device, None, ROWS_PER_CELL, SCORE_BYTES)
        resident = torch.from_numpy(X).to(device)
        return cls(X, squares, device, resident, GPU_ROWS_PER_CELL, GPU_SCORE_BYTES)

    def __len__(self) -> int:
        return len(self.X)

    def take(self, rows: Indices) -> Tensor:
        """Some rows (B, r) by their sorted numbers, on the device."""
        if self.resident is None:
            return torch.from_numpy(self.X if len(rows) == len(self.X) else self.X[rows])
        return self.resident[torch.from_numpy(rows).to(self.device)]

    def squared_norms(self, rows: Indices, x: Tensor) -> Tensor:
        """Squared norms (B,) of the rows `x` with these numbers."""
        if self.squares is None:
            return x.square().sum(1)
        return torch.from_numpy(self.squares[rows]).to(self.device)

    def blocks(self, x: Tensor, n_columns: int) -> Iterator[Tensor]:
        """Parts of `x` whose scores with so many columns fit into a block."""
        yield from torch.split(x, max(1, self.score_bytes // (4 * n_columns)))


def search_cells(
    X: NDArray[np.float32],
    n_neighbors: int,
    *,
    random_state: RandomState,
    squares: NDArray[np.float32] | None = None,
    exact_limit: int | None = None,
    device: str | torch.device = "cpu",
) -> Neighbors:
    """Find near rows of every row, with little memory beside the rows and the result.

    Rows are grouped around centres; a row is compared with the rows of the cells whose centres are
    nearest to its own (an inverted file, as in Jégou, Douze and Schmid 2011). Up to `exact_limit`
    rows all pairs are compared.

    Parameters
    ----------
    X : ndarray of shape (N, r), float32
        Rows around zero, in memory or mapped.
    n_neighbors : int
        k, from 1 to N - 1.
    random_state : RandomState
        Draws the rows that the centres start at.
    squares : ndarray of shape (N,), float32, optional
        Squared norms of the rows in all columns, where X holds their first principal components:
        rows are compared as if what is left of two of them were orthogonal.
    exact_limit : int, optional
        Most rows for an exact search; 20,000 by default.
    device : str or torch.device
        Where rows are compared; on a GPU they must fit there, and cells are larger.

    Returns
    -------
    Neighbors
        Indices (N, k) and Euclidean distances (N, k) in the columns of X, nearest first.
    """
    rows = _Rows.of(X, squares, torch.device(device))
    limit = EXACT_LIMIT if exact_limit is None else exact_limit
    cells = _one_cell(X) if len(X) <= limit else _group(rows, random_state)
    n_probed = min(MOST_PROBED, max(FEWEST_PROBED, int(PROBED_SHARE * len(cells.centres))))
    found = Neighbors(
        np.empty((len(X), n_neighbors), np.int64), np.empty((len(X), n_neighbors), np.float64)
    )
    nearest = _nearest_cells(rows, cells.centres, min(n_probed, len(cells.centres)))
    for cell in range(len(cells.centres)):
        others = np.setdiff1d(nearest[cell], cell)
        for part in cells.parts(cell):
            _search_cell(rows, part, _candidates(cells, part, others, n_neighbors), found)
    return found


def _one_cell(X: NDArray[np.float32]) -> _Cells:
    return _Cells(torch.zeros(1, X.shape[1]), np.arange(len(X)), np.array([0, len(X)]), len(X))


def _group(rows: _Rows, random_state: RandomState) -> _Cells:
    """Centres from a sample by Lloyd's steps, and the rows nearest to each."""
    n_rows = len(rows)
    n_cells = max(1, n_rows // rows.per_cell)
    size = min(n_rows, SAMPLE_PER_CELL * n_cells)
    sample = rows.take(np.sort(random_state.choice(n_rows, size, replace=False)))
    start = torch.from_numpy(random_state.permutation(size)[:n_cells])
    centres = sample[start.to(rows.device)]
    for _ in range(LLOYD_STEPS):
        label = _nearest_centre(rows, sample, centres)
        count = torch.bincount(label, minlength=n_cells).unsqueeze(1)
        total = torch.zeros_like(centres).index_add_(0, label, sample)
        centres = torch.where(count > 0, total / count.clamp(min=1), centres)
    labels = np.concatenate([
        _nearest_centre(rows, rows.take(part), centres).cpu().numpy()
        for part in np.split(np.arange(n_rows), range(4096, n_rows, 4096))
    ])
    filled, sizes = np.unique(labels, return_counts=True)  # of equal centres one has all rows
    starts = np.concatenate([[0], sizes.cumsum()])
    order = np.argsort(labels, kind="stable")
    largest = LARGEST * rows.per_cell
    return _Cells(centres[torch.from_numpy(filled).to(rows.device)], order, starts, largest)


def _nearest_centre(rows: _Rows, x: Tensor, centres: Tensor) -> Tensor:
    squares = centres.square().sum(1)
    return torch.cat([
        torch.addmm(squares, part, centres.T, alpha=-2).argmin(1)
        for part in rows.blocks(x, len(centres))
    ])


def _nearest_cells(rows: _Rows, centres: Tensor, n: int) -> Indices:
    """The n cells nearest to each cell: (C, n)."""
    parts = [
        torch.cdist(part, centres).topk(n, largest=False).indices
        for part in rows.blocks(centres, len(centres))
    ]
    return torch.cat(parts).cpu().numpy()


def _candidates(cells: _Cells, own: Indices, others: Indices, n_neighbors: int) -> Indices:
    """Own rows and those of near cells; more cells than asked for where these are too few."""
    parts = [own, *(cells.parts(cell)[0] for cell in others)]
    if sum(map(len, parts)) <= n_neighbors:
        return np.sort(cells.order)
    return np.sort(np.concatenate(parts))


def _search_cell(rows: _Rows, members: Indices, candidates: Indices, found: Neighbors) -> None:
    """Neighbours of the rows of a cell among the candidates, in place."""
    near = rows.take(candidates)
    squares = rows.squared_norms(candidates, near)
    place = torch.from_numpy(candidates).to(rows.device)
    own = torch.from_numpy(np.searchsorted(candidates, members)).to(rows.device)
    start = 0
    for itself in rows.blocks(own, len(candidates)):
        part = members[start : start + len(itself)]
        x = near[itself]
        scores = torch.addmm(squares, x, near.T, alpha=-2)
        scores.scatter_(1, itself.unsqueeze(1), torch.inf)
        best = scores.topk(found.indices.shape[1], dim=1, largest=False, sorted=False).indices
        distance = _distances(x, near, best, rows.score_bytes)
        distance, order = distance.sort(dim=1, stable=True)
        found.indices[part] = place[best.gather(1, order)].cpu().numpy()
        found.distances[part] = distance.cpu().numpy()
        start += len(itself)


def _distances(x: Tensor, near: Tensor, best: Tensor, block_bytes: int) -> Tensor:
    """Distances (B, k) from differences: nothing cancels."""
    step = max(1, block_bytes // (8 * best.shape[1] * x.shape[1]))
    parts = []
    for row, index in zip(torch.split(x, step), torch.split(best, step), strict=True):
        gap = near.index_select(0, index.flatten()).view(*index.shape, -1).sub_(row.unsqueeze(1))
        parts.append(torch.linalg.vecdot(gap, gap).double().sqrt())
    return torch.cat(parts)
