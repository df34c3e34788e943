"""The whole map: encoder, projection and decoder."""

import torch
from torch import Tensor, nn

from ptsne.networks.atlas import AtlasProjection
from ptsne.networks.layers import Scale


class MapNetwork(nn.Module):
    """``y = projection(encoder(x))``, with a decoder ``x_hat = decoder(z)``.

    Parameters
    ----------
    encoder, projection : nn.Module
        x (B, D) -> z (B, L) and z -> y (B, K).
    decoder : nn.Module or None
        z -> x (B, D).
    """

    def __init__(
        self, encoder: nn.Module, projection: nn.Module, decoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = projection
        self.decoder = decoder

    @property
    def autoencoder(self) -> nn.Sequential:
        """``decoder(encoder(x))``."""
        if self.decoder is None:
            raise ValueError("this network has no decoder")
        return nn.Sequential(self.encoder, self.decoder)

    def forward(self, x: Tensor) -> Tensor:
        """Place rows `x` (B, D) on the map (B, K)."""
        y: Tensor = self.projection(self.encoder(x))
        return y


@torch.no_grad()
def scale_output(network: MapNetwork, factor: float) -> MapNetwork:
    """Multiply the map by a number, inside the projection.

    Parameters
    ----------
    network : MapNetwork
        Changed in place; its projection is an atlas, or ends in `Scale`.
    factor : float
        Positive.

    Returns
    -------
    MapNetwork
        The network.
    """
    for layer in network.projection.modules():
        if isinstance(layer, AtlasProjection):
            for name in ("places", "charts", "shared_chart", "tilt", "clip"):
                getattr(layer, name).mul_(factor)
        elif isinstance(layer, Scale):
            layer.scale.mul_(factor)
    return network
