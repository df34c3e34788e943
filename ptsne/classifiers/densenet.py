"""DenseNet for 32 x 32 pictures."""

import torch
from torch import Tensor, nn

from ptsne.classifiers.scaling import initialize, norm


class DenseLayer(nn.Module):
    """Add `growth` channels, computed from all that came before, to the stack.

    Parameters
    ----------
    n_in : int
        Channels that come in.
    growth : int
        Channels that are added.
    bias : bool
        Whether the normalisations shift.
    """

    def __init__(self, n_in: int, growth: int, *, bias: bool) -> None:
        super().__init__()
        self.new = nn.Sequential(
            norm(n_in, bias=bias),
            nn.ReLU(),
            nn.Conv2d(n_in, 4 * growth, 1, bias=False),
            norm(4 * growth, bias=bias),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) -> (N, n_in + growth, H, W)."""
        return torch.cat([x, self.new(x)], 1)


class DenseNet(nn.Sequential):
    """Four dense blocks, halved in size and in channels between them.

    Parameters
    ----------
    depths : sequence of four int
        Dense layers of each block.
    n_classes : int
        Logits.
    growth : int
        Channels that each layer adds.
    bias : bool
        Whether normalisations shift; the last layer always has a bias.

    References
    ----------
    Huang, Liu, van der Maaten and Weinberger 2017, Densely Connected Convolutional Networks,
    Table 1 (stem of 3 x 3 without stride for 32 x 32 pictures, as is usual).

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import DenseNet
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = DenseNet((2, 2, 2, 2))
    >>> sum(p.numel() for p in network.parameters())
    408778
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        n_classes: int = 10,
        *,
        growth: int = 32,
        bias: bool = True,
    ) -> None:
        n = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(3, n, 3, padding=1, bias=False)]
        for number, depth in enumerate(depths):
            if number:
                layers += _transition(n, n // 2, bias=bias)
                n //= 2
            layers += [DenseLayer(n + i * growth, growth, bias=bias) for i in range(depth)]
            n += depth * growth
        super().__init__(
            *layers,
            norm(n, bias=bias),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(n, n_classes),
        )
        initialize(self)


def _transition(n_in: int, n_out: int, *, bias: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(n_in, n_out, 1, bias=False)
    return [norm(n_in, bias=bias), nn.ReLU(), convolution, nn.AvgPool2d(2)]


def densenet121(n_classes: int = 10, *, bias: bool = True) -> DenseNet:
    """`DenseNet` with 6, 12, 24 and 16 dense layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `DenseNet`.

    Returns
    -------
    DenseNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import densenet121
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = densenet121()
    >>> sum(p.numel() for p in network.parameters())
    6956298
    """
    return DenseNet((6, 12, 24, 16), n_classes, bias=bias)
