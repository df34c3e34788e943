"""The two LeNets."""

from collections import OrderedDict

from torch import nn


class LeNet300100(nn.Sequential):
    """Fully connected: pixels -> 300 -> 100 -> classes, with ReLU.

    Parameters
    ----------
    n_classes : int
        Logits.
    n_pixels : int
        Values of a picture; rows of any shape with that many are flattened.
    bias : bool
        Whether the hidden layers have a bias; the last one always has.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document
    Recognition, section III.C.4 (there with tanh).

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import LeNet300100
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = LeNet300100()
    >>> sum(p.numel() for p in network.parameters())
    266610
    """

    def __init__(self, n_classes: int = 10, *, n_pixels: int = 784, bias: bool = True) -> None:
        super().__init__(
            OrderedDict(
                flatten=nn.Flatten(),
                fc1=nn.Linear(n_pixels, 300, bias=bias),
                relu1=nn.ReLU(),
                fc2=nn.Linear(300, 100, bias=bias),
                relu2=nn.ReLU(),
                fc3=nn.Linear(100, n_classes),
            )
        )


class LeNet5(nn.Sequential):
    """Two convolutions with max pooling, then 400 -> 120 -> 84 -> classes, with ReLU.

    Parameters
    ----------
    n_classes : int
        Logits.
    n_channels : int
        Channels C of pictures (N, C, `image_size`, `image_size`).
    image_size : int
        28 pixels are padded to 32, 32 are taken as they are.
    bias : bool
        Whether the layers before the last have a bias; the last one always has.

    Raises
    ------
    ValueError
        If the image size is neither 28 nor 32.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document
    Recognition, section II.B (there with tanh, average pooling and radial basis functions at the
    end; ReLU, max pooling and a linear layer have taken their place since).

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import LeNet5
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = LeNet5()
    >>> sum(p.numel() for p in network.parameters())
    61706
    """

    def __init__(
        self,
        n_classes: int = 10,
        *,
        n_channels: int = 1,
        image_size: int = 28,
        bias: bool = True,
    ) -> None:
        if image_size not in (28, 32):
            raise ValueError(f"image_size must be 28 or 32; got {image_size}")
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(n_channels, 6, 5, padding=(32 - image_size) // 2, bias=bias),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, 5, bias=bias),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(400, 120, bias=bias),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84, bias=bias),
                relu4=nn.ReLU(),
                fc3=nn.Linear(84, n_classes),
            )
        )
