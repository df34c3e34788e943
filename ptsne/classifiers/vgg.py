"""VGG for 32 x 32 pictures."""

from itertools import pairwise

from torch import nn

from ptsne.classifiers.scaling import initialize, norm

_WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Sequential):
    """Five stages of 3 x 3 convolutions, each halved by max pooling, and one linear layer.

    Parameters
    ----------
    depths : sequence of five int
        Convolutions of each stage.
    n_classes : int
        Logits.
    batch_norm : bool
        Whether a normalisation follows each convolution.
    bias : bool
        Whether the layers before the last have constants; the last one always has a bias.

    References
    ----------
    Simonyan and Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image
    Recognition (for CIFAR with one fully connected layer instead of three, as is usual).

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import VGG
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = VGG((1, 1, 2, 2, 2))
    >>> sum(p.numel() for p in network.parameters())
    9231114
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int, int],
        n_classes: int = 10,
        *,
        batch_norm: bool = True,
        bias: bool = True,
    ) -> None:
        layers: list[nn.Module] = []
        for depth, (n_in, n_out) in zip(depths, pairwise((3, *_WIDTHS)), strict=True):
            for n_before, n_after in pairwise((n_in, *[n_out] * depth)):
                layers.append(nn.Conv2d(n_before, n_after, 3, padding=1, bias=bias))
                layers += [norm(n_after, bias=bias)] if batch_norm else []
                layers.append(nn.ReLU())
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.Flatten(), nn.Linear(_WIDTHS[-1], n_classes))
        initialize(self)


def vgg16(n_classes: int = 10, *, batch_norm: bool = True, bias: bool = True) -> VGG:
    """`VGG` with 13 convolutions (configuration D).

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    batch_norm : bool, default=True
        Whether convolutions are normalised.
    bias : bool, default=True
        As for `VGG`.

    Returns
    -------
    VGG
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import vgg16
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = vgg16()
    >>> sum(p.numel() for p in network.parameters())
    14728266
    """
    return VGG((2, 2, 3, 3, 3), n_classes, batch_norm=batch_norm, bias=bias)


def vgg19(n_classes: int = 10, *, batch_norm: bool = True, bias: bool = True) -> VGG:
    """`VGG` with 16 convolutions (configuration E).

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    batch_norm : bool, default=True
        Whether convolutions are normalised.
    bias : bool, default=True
        As for `VGG`.

    Returns
    -------
    VGG
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import vgg19
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = vgg19()
    >>> sum(p.numel() for p in network.parameters())
    20040522
    """
    return VGG((2, 2, 4, 4, 4), n_classes, batch_norm=batch_norm, bias=bias)
