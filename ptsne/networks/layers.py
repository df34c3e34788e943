"""Layers of the encoder and the decoder, and the standardisation in front of them."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LATENT_RADIUS = 7.0
"""Root mean square length of a latent code; learning rates are stated for this scale."""


class Standardize(nn.Module):
    r"""``x -> (x - mean) / scale``, the first layer of the map.

    `scale` is one number, not one per column: t-SNE's neighbours are defined by the user's metric,
    and a scale per column would change it.

    Parameters
    ----------
    mean : Tensor of shape (D,)
        Column means, in data units.
    scale : Tensor of shape ()
        Data units per latent unit, positive.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Centre and scale `x` (B, D)."""
        return (x - self.mean) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """Undo the standardisation of `x` (B, D)."""
        return x * self.scale + self.mean


def relu_network(sizes: Sequence[int], *, zero_last: bool = False) -> nn.Sequential:
    """Fully connected ReLU network ``sizes[0] -> ... -> sizes[-1]``, linear at the end.

    Parameters
    ----------
    sizes : sequence of int
        Widths, input and output included.
    zero_last : bool
        Start the last layer at zero, so that the network starts as the zero function.

    Returns
    -------
    nn.Sequential
        Linear, ReLU, ..., Linear.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    if zero_last:
        last = cast(nn.Linear, network[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return network


def fit_standardize(X: NDArray[Any], *, radius: float = LATENT_RADIUS) -> Standardize:
    """Centre the columns, and scale so that rows have root mean square length `radius`.

    Parameters
    ----------
    X : ndarray of shape (N, D)
        Rows.
    radius : float
        Length after scaling.

    Returns
    -------
    Standardize
        In float64; with scale 1 where all rows are equal.
    """
    mean = X.mean(0, dtype=np.float64)
    length = np.sqrt(X.var(0, dtype=np.float64).sum())
    scale = length / radius if length > 0 else 1.0
    return Standardize(torch.from_numpy(mean), torch.tensor(scale, dtype=torch.float64))


def identity_standardize(X: Tensor) -> Standardize:
    """``x -> x`` for rows (N, D) that are standardised already."""
    return Standardize(torch.zeros_like(X[0]), X.new_ones(()))


def with_standardisation(standardize: Standardize, encoder: nn.Module) -> nn.Module:
    """An encoder of standardised rows as one of rows in data units."""
    standardize = copy.deepcopy(standardize)
    return standardize if isinstance(encoder, nn.Identity) else nn.Sequential(standardize, encoder)


class Scale(nn.Module):
    """``y -> scale * y``: lets a network work at unit scale whatever the size of the map.

    Parameters
    ----------
    scale : float
        Map units per output unit.
    """

    scale: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, y: Tensor) -> Tensor:
        """Scale `y` (B, K)."""
        return y * self.scale


class SkipNetwork(nn.Module):
    r"""``A x + a + net(x)``: a linear path beside a ReLU branch of any width.

    The linear path starts at PCA and the branch at zero, so that the network starts as PCA, which
    is the best linear autoencoder (Bourlard and Kamp 1988), and can only improve on it.

    Parameters
    ----------
    weight : Tensor of shape (n_out, n_in)
        Start of the linear path A.
    widths : sequence of int
        Hidden ReLU widths of the branch; empty for a purely linear network.
    """

    def __init__(self, weight: Tensor, widths: Sequence[int] = ()) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        self.linear = nn.Linear(n_in, n_out)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.zero_()
        self.branch = relu_network((n_in, *widths, n_out), zero_last=True) if widths else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, n_in) to (B, n_out)."""
        linear: Tensor = self.linear(x)
        return linear if self.branch is None else linear + self.branch(x)


class Decoder(nn.Module):
    """``z -> x``: a skip network in standardised units, then back to the user's units.

    Parameters
    ----------
    network : nn.Module
        From the code (B, L) to standardised rows (B, D).
    standardize : Standardize
        The encoder's standardisation, which is undone.
    """

    def __init__(self, network: nn.Module, standardize: Standardize) -> None:
        super().__init__()
        self.network = network
        self.standardize = standardize

    def forward(self, z: Tensor) -> Tensor:
        """Reconstruct rows (B, D) in the user's units from codes `z` (B, L)."""
        return self.standardize.inverse(self.network(z))


def standardized_float32(standardize: Standardize, X: NDArray[Any]) -> NDArray[np.float32]:
    """Standardise rows (N, D) in float64 by blocks, and round to float32."""
    mean, scale = standardize.mean.numpy(), float(standardize.scale)
    result = np.empty(X.shape, dtype=np.float32)
    for start in range(0, len(X), 4096):
        block = slice(start, start + 4096)
        result[block] = (X[block] - mean) / scale
    return result
