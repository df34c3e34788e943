"""Free room on a map: where a group that it has never seen may stand."""

import torch
from torch import Tensor

GRID = {1: 512, 2: 64, 3: 20}
"""Candidate spots along each axis, by the dimension of the map."""
GAP = 0.08
"""Distance that is kept from everything, in units of the spread of the map."""


def free_spot(radius: float, occupied: Tensor, anchors: Tensor, weights: Tensor) -> Tensor:
    r"""Free spot that is nearest to where the group is drawn.

    Of all spots of a grid, on the map and around it, that keep their distance from everything that
    is there, the one with the least :math:`\sum_j w_j \log(1 + |s - y_j|^2)`: t-SNE's attraction.

    Parameters
    ----------
    radius : float
        Of the group, in map units.
    occupied : Tensor of shape (F, K)
        Everything that stands on the map.
    anchors : Tensor of shape (A, K)
        Places that draw the group.
    weights : Tensor of shape (A,)
        How strongly each draws.

    Returns
    -------
    Tensor of shape (K,)
        The spot.
    """
    spread = float((occupied - occupied.mean(0)).square().sum(1).mean().sqrt())
    margin = radius + GAP * spread
    spots = _grid(occupied.amin(0) - 1.5 * margin, occupied.amax(0) + 1.5 * margin)
    room = torch.cat([torch.cdist(part, occupied).amin(1) for part in torch.split(spots, 256)])
    free = spots[room >= margin]  # the corners of the grid at least
    energy = torch.cdist(free, anchors).square().log1p() @ weights
    return free[energy.argmin()]


def _grid(low: Tensor, high: Tensor) -> Tensor:
    """Spots (G, K) of a regular grid."""
    n = GRID[len(low)]
    axes = [torch.linspace(float(a), float(b), n) for a, b in zip(low, high, strict=True)]
    return torch.cartesian_prod(*axes).reshape(-1, len(low)).to(low)
