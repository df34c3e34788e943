"""The same search and calibration on a GPU: rows stay there from the first product to P."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptsne.affinities.calibration import require_perplexities
from ptsne.affinities.scan import SPARE, Indices, Neighbors, Scan, Score

_BLOCK_BYTES = 2**30  # one block of scores: fills a GPU
_GATHER_BYTES = 2**28
_ROWS = 2**18  # calibrated at once
_TOLERANCE = 1e-12  # of the entropy, and of log β
_STEPS_AT_ONCE = 8  # between two looks, each of which waits for the GPU
_MAX_STEPS = 200
_LOG_LIMIT = 350.0


class TensorScan(NamedTuple):
    """`scan.Scan` of dense rows under the Euclidean metric, with every block on one device."""

    scan: Scan
    device: str | torch.device

    def run(self, score: Score, rows: Indices) -> tuple[Neighbors, NDArray[np.float64]]:
        """Neighbours of some query rows, and the score of their last candidate, (len(rows),)."""
        train = torch.tensor(self.scan.train, device=self.device)  # from_numpy warns: read-only
        same = self.scan.query is self.scan.train
        query = train if same else torch.tensor(self.scan.query, device=self.device)
        n_available = len(train) - self.scan.exclude_self
        n_candidates = min(self.scan.n_neighbors + SPARE, n_available)
        step = max(1, _BLOCK_BYTES // (4 * len(train)))
        parts = []
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            best = self._best(score, part, n_candidates)
            last = best.values.amax(1).double()
            if n_candidates == n_available:
                last = torch.full_like(last, math.inf)
            own = query[torch.from_numpy(part).to(train.device)]
            found = nearest_candidates(own, train, best.indices, self.scan.n_neighbors)
            parts.append([t.cpu().numpy() for t in (*found, last)])
        indices, distances, cutoff = (np.concatenate(p) for p in zip(*parts, strict=True))
        return Neighbors(indices, distances), cutoff

    def _best(self, score: Score, rows: Indices, n: int) -> torch.return_types.topk:
        scores = score(rows)  # (b, N)
        if self.scan.exclude_self:
            own = torch.from_numpy(rows).to(scores.device)
            scores.scatter_(1, own[:, None], torch.inf)
        return torch.topk(scores, n, dim=1, largest=False, sorted=False)


def nearest_candidates(
    query: Tensor, train: Tensor, candidates: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k nearest of candidates, by distances taken in float64 from differences.

    Parameters
    ----------
    query : Tensor of shape (b, D)
        Rows.
    train : Tensor of shape (N, D)
        Rows searched.
    candidates : int Tensor of shape (b, c)
        Rows of `train`.
    k : int
        At most c.

    Returns
    -------
    indices : int Tensor of shape (b, k)
        Nearest first; of equals the lower.
    distances : Tensor of shape (b, k), float64
    """
    candidates = candidates.sort(1).values
    step = max(1, _GATHER_BYTES // (8 * candidates.shape[1] * train.shape[1]))
    distance = torch.cat([
        (train[near].double() - x.double()[:, None]).square_().sum(2).sqrt_()
        for x, near in zip(torch.split(query, step), torch.split(candidates, step), strict=True)
    ])
    order = distance.argsort(dim=1, stable=True)[:, :k]
    return candidates.gather(1, order), distance.gather(1, order)


class TensorPairs(NamedTuple):
    """Joint probabilities of neighbouring rows, each pair once.

    Attributes
    ----------
    row, column : int Tensor of shape (E,)
        ``row < column``, in order.
    probability : Tensor of shape (E,), float64
        ``p_ij = p_ji``; both directions together sum to 1.
    n_rows : int
        N.
    """

    row: Tensor
    column: Tensor
    probability: Tensor
    n_rows: int


def tensor_pairs(
    neighbors: Neighbors, perplexity: float | Sequence[float], *, device: str | torch.device
) -> TensorPairs:
    """`joint_probabilities` as tensors, calibrated and made symmetric on the device.

    Parameters
    ----------
    neighbors : Neighbors
        Neighbours of all N rows, the rows themselves excluded.
    perplexity : float or sequence of float
        From 1 to the number of neighbours; of several, the probabilities are averaged.
    device : str or torch.device
        Where the tensors are made and stay.

    Returns
    -------
    TensorPairs
        Equal to the sparse matrix but for rounding in float64.
    """
    n_rows, k = neighbors.indices.shape
    near = torch.from_numpy(neighbors.indices).to(device)
    blocks = (
        conditional_tensors(torch.from_numpy(part).to(device), perplexity)[0]
        for part in np.array_split(neighbors.distances, -(-n_rows // _ROWS))
    )
    p = torch.cat(list(blocks)).flatten()
    own = torch.arange(n_rows, device=near.device)[:, None].expand(-1, k)
    key, order = (torch.minimum(own, near) * n_rows + torch.maximum(own, near)).flatten().sort()
    key, which = torch.unique_consecutive(key, return_inverse=True)
    total = p.new_zeros(len(key)).index_add_(0, which, p[order])  # of two at most: in any order
    kept = total > 0
    key, total = key[kept], total[kept]
    return TensorPairs(key // n_rows, key % n_rows, total / (2 * total.sum()), n_rows)


def conditional_tensors(
    distances: Tensor, perplexity: float | Sequence[float]
) -> tuple[Tensor, Tensor]:
    """`conditional_probabilities` on the device of the distances.

    Parameters
    ----------
    distances : Tensor of shape (N, k), float64
        Distances to the neighbours of each row, ascending.
    perplexity : float or sequence of float
        Effective number of neighbours.

    Returns
    -------
    probabilities : Tensor of shape (N, k)
        Rows sum to 1.
    sigma : Tensor of shape (N,)
        Width of each Gaussian; of several perplexities, of the last.
    """
    perplexities = require_perplexities(perplexity, distances.shape[1])
    scale = distances.amax(1, keepdim=True)
    scale = torch.where(scale == 0, 1.0, scale)
    square = (distances / scale).square()
    excess = square - square.amin(1, keepdim=True)
    mean = torch.zeros_like(excess)
    for value in perplexities:
        log_beta = _calibrate(excess, math.log(value))
        weight = torch.exp(-log_beta.exp()[:, None] * excess)
        mean += weight / weight.sum(1, keepdim=True) / len(perplexities)
    return mean, scale[:, 0] / (2 * log_beta.exp()).sqrt()


def _calibrate(excess: Tensor, entropy: float) -> Tensor:
    """Solve ``H(β) = entropy`` for ``log β`` in all rows: Newton steps, bisection as the guard."""
    low, high = _bracket(excess)
    if entropy >= math.log(excess.shape[1]):  # every neighbour counts the same
        return low
    log_beta = torch.minimum(torch.maximum(-excess.mean(1).clamp(min=1e-300).log(), low), high)
    is_done = high <= low
    for step in range(_MAX_STEPS):
        if step % _STEPS_AT_ONCE == 0 and bool(is_done.all()):
            break
        gap, slope = _entropy_gap(excess, log_beta, entropy)
        low = torch.where(gap > 0, log_beta, low)
        high = torch.where(gap > 0, high, log_beta)
        newton = log_beta - gap / torch.where(slope < 0, slope, -1e-300)
        is_inside = (newton > low) & (newton < high)
        is_done |= (gap.abs() <= _TOLERANCE) | (high - low <= _TOLERANCE)
        following = torch.where(is_inside, newton, (low + high) / 2)
        log_beta = torch.where(is_done, log_beta, following)
    return log_beta


def _bracket(excess: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of ``log β``: p is uniform at the first, on the nearest at the second."""
    largest = excess.amax(1)
    smallest = torch.where(excess > 0, excess, torch.inf).amin(1)
    is_flat = largest == 0
    low = math.log(1e-9) - torch.where(is_flat, 1.0, largest).log()
    high = (math.log(60) - torch.where(is_flat, 1.0, smallest).log()).clamp(max=_LOG_LIMIT)
    return torch.where(is_flat, 0.0, low), torch.where(is_flat, 0.0, high)


def _entropy_gap(excess: Tensor, log_beta: Tensor, entropy: float) -> tuple[Tensor, Tensor]:
    """``H(β) - entropy`` and its derivative in ``log β``."""
    beta = log_beta.exp()
    weight = torch.exp(-beta[:, None] * excess)
    total = weight.sum(1)
    mean = (weight * excess).sum(1) / total
    spread = excess - mean[:, None]
    variance = (weight * spread.square()).sum(1) / total
    return total.log() + beta * mean - entropy, -beta.square() * variance
