"""AlexNet for 32 x 32 pictures."""

from torch import nn

from ptsne.classifiers.scaling import initialize, norm


class AlexNet(nn.Sequential):
    """Five convolutions of 64-192-384-256-256 channels and three fully connected layers.

    Parameters
    ----------
    n_classes : int
        Logits.
    batch_norm : bool
        Whether a normalisation follows each convolution; the original has none.
    bias : bool
        Whether the layers before the last have constants; the last one always has a bias.

    References
    ----------
    Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional Neural
    Networks (kernels and strides shrunk for 32 x 32 pictures, as is usual).

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import AlexNet
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = AlexNet()
    >>> sum(p.numel() for p in network.parameters())
    23272266
    """

    def __init__(self, n_classes: int = 10, *, batch_norm: bool = False, bias: bool = True) -> None:
        def convolution(n_in: int, n_out: int, stride: int = 1) -> list[nn.Module]:
            layer = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=bias and not batch_norm)
            return [layer, *([norm(n_out, bias=bias)] if batch_norm else []), nn.ReLU()]

        super().__init__(
            *convolution(3, 64, stride=2),
            nn.MaxPool2d(2),
            *convolution(64, 192),
            nn.MaxPool2d(2),
            *convolution(192, 384),
            *convolution(384, 256),
            *convolution(256, 256),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(256 * 2 * 2, 4096, bias=bias),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096, bias=bias),
            nn.ReLU(),
            nn.Linear(4096, n_classes),
        )
        initialize(self)
