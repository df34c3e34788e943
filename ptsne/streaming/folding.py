"""A map of reduced rows as a map of the rows themselves."""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from ptsne.networks import (
    Decoder,
    MapNetwork,
    SkipNetwork,
    Standardize,
    with_standardisation,
)


@torch.no_grad()
def unfold_network(network: MapNetwork, axes: Tensor, standardize: Standardize) -> MapNetwork:
    r"""Let a network of rows along r axes take rows in data units.

    ``A (U s(x)) = (A U) s(x)`` for the first layers of the encoder, and ``U^T`` goes into the last
    layers of the decoder; both products are taken in float64.

    Parameters
    ----------
    network : MapNetwork
        Of rows ``U s(x)`` (B, r), with the autoencoder's encoder; taken apart.
    axes : Tensor of shape (r, D)
        U, orthonormal rows.
    standardize : Standardize
        s, of rows in data units.

    Returns
    -------
    MapNetwork
        Of rows (B, D) in data units, in float64.
    """
    network = network.double()
    encoder = cast(SkipNetwork, cast(nn.Sequential, network.encoder)[1])
    decoder = cast(Decoder, network.decoder)
    for layer in _ends(encoder, 0):
        layer.weight = nn.Parameter(layer.weight @ axes.double())
        layer.in_features = axes.shape[1]
    for layer in _ends(cast(SkipNetwork, decoder.network), -1):
        layer.weight = nn.Parameter(axes.T.double() @ layer.weight)
        layer.bias = nn.Parameter(axes.T.double() @ layer.bias)
        layer.out_features = axes.shape[1]
    network.encoder = with_standardisation(standardize, encoder)
    decoder.standardize = copy.deepcopy(standardize)
    return network.eval()


def _ends(network: SkipNetwork, end: int) -> list[nn.Linear]:
    """The linear path and the first or the last layer of the branch."""
    layers = [network.linear]
    if network.branch is not None:
        layers.append(cast(nn.Linear, network.branch[end]))
    return layers
