"""Layers that scale: convolutions' start, and batch normalisation with and without a shift."""

import torch
from torch import Tensor, nn


class ScaleNorm2d(nn.Module):
    r"""Batch normalisation without a constant: ``x -> gamma x / sqrt(mean(x^2) + eps)``.

    Nothing is subtracted and nothing added, so that a network with it stays bias-free. The mean
    square of each channel is that of the batch in training, and a running average afterwards.

    Parameters
    ----------
    n_channels : int
        Channels C of inputs (N, C, H, W).
    eps : float
        Keeps the root away from zero.
    momentum : float
        Weight of the newest batch in the running average.

    References
    ----------
    Mohan, Kadkhodaie, Simoncelli and Fernandez-Granda 2020, Robust and Interpretable Blind Image
    Denoising via Bias-Free Convolutional Neural Networks (there with the standard deviation).

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import ScaleNorm2d
    >>> ScaleNorm2d(3)(torch.rand(4, 3, 8, 8)).shape
    torch.Size([4, 3, 8, 8])
    """

    mean_square: Tensor

    def __init__(self, n_channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.register_buffer("mean_square", torch.ones(n_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels.

        Parameters
        ----------
        x : Tensor of shape (N, C, H, W)
            Activations.

        Returns
        -------
        Tensor of shape (N, C, H, W)
            Of mean square `weight` squared, in training over this batch.

        Examples
        --------
        >>> import torch
        >>> from ptsne.classifiers import ScaleNorm2d
        >>> y = ScaleNorm2d(3)(5 * torch.rand(4, 3, 8, 8))
        >>> y.square().mean((0, 2, 3)).round(decimals=2).tolist()  # each channel of a batch
        [1.0, 1.0, 1.0]
        """
        gain = self.weight * torch.rsqrt(self._mean_square(x) + self.eps)
        return x * gain[:, None, None]

    def _mean_square(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.mean_square
        mean_square = x.square().mean((0, 2, 3))
        with torch.no_grad():
            self.mean_square.lerp_(mean_square, self.momentum)
        return mean_square


def norm(n_channels: int, *, bias: bool) -> nn.Module:
    """Batch normalisation, or what replaces it in a bias-free network."""
    return nn.BatchNorm2d(n_channels) if bias else ScaleNorm2d(n_channels)


def initialize(network: nn.Module) -> None:
    """Start convolutions at He's normal law for ReLU networks, and their biases at zero.

    Parameters
    ----------
    network : nn.Module
        Changed in place.

    References
    ----------
    He, Zhang, Ren and Sun 2015, Delving Deep into Rectifiers, eq. 14.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
