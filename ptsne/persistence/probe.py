"""One place that a map must find again: a file without it may hold another map."""

import copy

import torch
from torch import Tensor

from ptsne.networks import MapNetwork

TOLERANCE = 1e-4
"""Of the largest number compared; other processors round differently, in float32 at worst."""


@torch.no_grad()
def probe(network: MapNetwork, mean: Tensor, precision: torch.dtype = torch.float64) -> Tensor:
    """Place (1, K) of the mean of the training rows.

    Parameters
    ----------
    network : MapNetwork
        On the CPU, in float64.
    mean : Tensor of shape (D,)
        Mean of the training rows.
    precision : dtype
        What to compute in: modules of the user's own may need the precision of the rows.

    Returns
    -------
    Tensor
        The place, in that precision.
    """
    if precision != torch.float64:
        network = copy.deepcopy(network).to(precision)
    place: Tensor = network(mean[None].to(precision))
    return place


def is_found_again(place: Tensor, expected: Tensor) -> bool:
    """Whether two places (1, K) are the same but for rounding."""
    if place.shape != expected.shape:
        return False
    scale = max(1.0, float(expected.nan_to_num(0.0).abs().max()))
    place, expected = place.double(), expected.double()
    return torch.allclose(place, expected, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
