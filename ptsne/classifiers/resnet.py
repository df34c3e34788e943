"""Residual networks for 32 x 32 pictures: the wide ImageNet family and the slim CIFAR one."""

from torch import Tensor, nn
from torch.nn import functional as F

from ptsne.classifiers.scaling import initialize, norm


def _convolution(n_in: int, n_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Without a bias: a normalisation follows."""
    return nn.Conv2d(n_in, n_out, size, stride, padding=size // 2, bias=False)


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zeros for the channels that are new. No parameters.

    Parameters
    ----------
    n_new : int
        Channels to add, half of them before and half after the old ones.

    References
    ----------
    He, Zhang, Ren and Sun 2016, Deep Residual Learning for Image Recognition, section 4.2.
    """

    def __init__(self, n_new: int) -> None:
        super().__init__()
        self.n_new = n_new

    def forward(self, x: Tensor) -> Tensor:
        """Halve `x` (N, C, H, W) and widen it to (N, C + n_new, H / 2, W / 2)."""
        half = self.n_new // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.n_new - half))


def _shortcut(
    n_in: int, n_out: int, stride: int, *, bias: bool, is_padded: bool = False
) -> nn.Module:
    """Nothing where the shapes agree, else option A (padded) or B (a 1 x 1 convolution)."""
    if stride == 1 and n_in == n_out:
        return nn.Identity()
    if is_padded:
        return PaddedShortcut(n_out - n_in)
    return nn.Sequential(_convolution(n_in, n_out, 1, stride), norm(n_out, bias=bias))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut.

    Parameters
    ----------
    n_in, width : int
        Channels that come in, and that go out.
    stride : int
        Of the first convolution.
    bias : bool
        Whether the normalisations shift.
    is_padded : bool
        Whether a shortcut that widens is a `PaddedShortcut`, else a convolution.
    """

    expansion = 1

    def __init__(
        self, n_in: int, width: int, stride: int, *, bias: bool, is_padded: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(n_in, width, 3, stride)
        self.bn1 = norm(width, bias=bias)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = norm(width, bias=bias)
        self.shortcut = _shortcut(n_in, width, stride, bias=bias, is_padded=is_padded)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) -> (N, width, H / stride, W / stride)."""
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1, around a projected shortcut.

    Parameters
    ----------
    n_in, width : int
        Channels that come in, and a quarter of those that go out.
    stride : int
        Of the 3 x 3 convolution.
    bias : bool
        Whether the normalisations shift.
    """

    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int, *, bias: bool) -> None:
        super().__init__()
        n_out = self.expansion * width
        self.conv1 = _convolution(n_in, width, 1)
        self.bn1 = norm(width, bias=bias)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn2 = norm(width, bias=bias)
        self.conv3 = _convolution(width, n_out, 1)
        self.bn3 = norm(n_out, bias=bias)
        self.shortcut = _shortcut(n_in, n_out, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) -> (N, 4 width, H / stride, W / stride)."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return F.relu(self.bn3(self.conv3(h)) + self.shortcut(x))


class ResNet(nn.Module):
    """The ImageNet family behind a 3 x 3 stem without pooling; 64 to 512 channels.

    Parameters
    ----------
    block : type
        `BasicBlock` or `Bottleneck`.
    depths : sequence of four int
        Blocks of each stage.
    n_classes : int
        Logits.
    bias : bool
        Whether normalisations shift; the last layer always has a bias.

    References
    ----------
    He, Zhang, Ren and Sun 2016, Deep Residual Learning for Image Recognition, Table 1 (stem
    without stride for 32 x 32 pictures, as is usual).

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet18
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet18(10)
    >>> network(torch.empty(2, 3, 32, 32, device="meta")).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        n_classes: int = 10,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(3, 64, 3)
        self.bn1 = norm(64, bias=bias)
        stages, n_in = [], 64
        for number, depth in enumerate(depths):
            width, stride = 64 * 2**number, 2 if number else 1
            stages.append(_stage(block, (n_in, width, stride), depth, bias=bias))
            n_in = block.expansion * width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(n_in, n_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of pictures.

        Parameters
        ----------
        x : Tensor of shape (N, 3, H, W)
            Pictures.

        Returns
        -------
        Tensor of shape (N, n_classes)
            Logits.

        Examples
        --------
        >>> import torch
        >>> from ptsne.classifiers import resnet18
        >>> with torch.device("meta"):  # shapes without numbers
        ...     network = resnet18(10)
        >>> network(torch.empty(2, 3, 64, 48, device="meta")).shape  # pictures of any size
        torch.Size([2, 10])
        """
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        logits: Tensor = self.linear(h.mean((2, 3)))
        return logits


class SmallResNet(nn.Module):
    """The family made for CIFAR: 16, 32 and 64 channels, shortcuts without parameters.

    Parameters
    ----------
    depth : int
        Basic blocks of each of the three stages; 6 depth + 2 layers in all.
    n_classes : int
        Logits.
    bias : bool
        Whether normalisations shift; the last layer always has a bias.

    References
    ----------
    He, Zhang, Ren and Sun 2016, Deep Residual Learning for Image Recognition, section 4.2.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import SmallResNet
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = SmallResNet(3)
    >>> sum(p.numel() for p in network.parameters())
    269722
    """

    def __init__(self, depth: int, n_classes: int = 10, *, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = _convolution(3, 16, 3)
        self.bn1 = norm(16, bias=bias)
        options = {"bias": bias, "is_padded": True}
        self.layer1 = _stage(BasicBlock, (16, 16, 1), depth, **options)
        self.layer2 = _stage(BasicBlock, (16, 32, 2), depth, **options)
        self.layer3 = _stage(BasicBlock, (32, 64, 2), depth, **options)
        self.linear = nn.Linear(64, n_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of pictures.

        Parameters
        ----------
        x : Tensor of shape (N, 3, H, W)
            Pictures.

        Returns
        -------
        Tensor of shape (N, n_classes)
            Logits.

        Examples
        --------
        >>> import torch
        >>> from ptsne.classifiers import SmallResNet
        >>> with torch.device("meta"):  # shapes without numbers
        ...     network = SmallResNet(3)
        >>> network(torch.empty(2, 3, 32, 32, device="meta")).shape
        torch.Size([2, 10])
        """
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.layer3(self.layer2(self.layer1(h)))
        logits: Tensor = self.linear(h.mean((2, 3)))
        return logits


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    first: tuple[int, int, int],
    depth: int,
    **options: bool,
) -> nn.Sequential:
    """`depth` blocks, the first of ``(n_in, width, stride)``."""
    width = first[1]
    rest = [(block.expansion * width, width, 1)] * (depth - 1)
    return nn.Sequential(*[block(*sizes, **options) for sizes in (first, *rest)])


def resnet18(n_classes: int = 10, *, bias: bool = True) -> ResNet:
    """`ResNet` with 18 layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `ResNet`.

    Returns
    -------
    ResNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet18
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet18()
    >>> sum(p.numel() for p in network.parameters())
    11173962
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), n_classes, bias=bias)


def resnet50(n_classes: int = 10, *, bias: bool = True) -> ResNet:
    """`ResNet` with 50 layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `ResNet`.

    Returns
    -------
    ResNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet50
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet50()
    >>> sum(p.numel() for p in network.parameters())
    23520842
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), n_classes, bias=bias)


def resnet101(n_classes: int = 10, *, bias: bool = True) -> ResNet:
    """`ResNet` with 101 layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `ResNet`.

    Returns
    -------
    ResNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet101
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet101()
    >>> sum(p.numel() for p in network.parameters())
    42512970
    """
    return ResNet(Bottleneck, (3, 4, 23, 3), n_classes, bias=bias)


def resnet152(n_classes: int = 10, *, bias: bool = True) -> ResNet:
    """`ResNet` with 152 layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `ResNet`.

    Returns
    -------
    ResNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet152
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet152()
    >>> sum(p.numel() for p in network.parameters())
    58156618
    """
    return ResNet(Bottleneck, (3, 8, 36, 3), n_classes, bias=bias)


def resnet20(n_classes: int = 10, *, bias: bool = True) -> SmallResNet:
    """`SmallResNet` with 20 layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `SmallResNet`.

    Returns
    -------
    SmallResNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet20
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet20()
    >>> sum(p.numel() for p in network.parameters())
    269722
    """
    return SmallResNet(3, n_classes, bias=bias)


def resnet32(n_classes: int = 10, *, bias: bool = True) -> SmallResNet:
    """`SmallResNet` with 32 layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `SmallResNet`.

    Returns
    -------
    SmallResNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet32
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet32()
    >>> sum(p.numel() for p in network.parameters())
    464154
    """
    return SmallResNet(5, n_classes, bias=bias)


def resnet44(n_classes: int = 10, *, bias: bool = True) -> SmallResNet:
    """`SmallResNet` with 44 layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `SmallResNet`.

    Returns
    -------
    SmallResNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet44
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet44()
    >>> sum(p.numel() for p in network.parameters())
    658586
    """
    return SmallResNet(7, n_classes, bias=bias)


def resnet56(n_classes: int = 10, *, bias: bool = True) -> SmallResNet:
    """`SmallResNet` with 56 layers.

    Parameters
    ----------
    n_classes : int, default=10
        Logits.
    bias : bool, default=True
        As for `SmallResNet`.

    Returns
    -------
    SmallResNet
        Not trained.

    Examples
    --------
    >>> import torch
    >>> from ptsne.classifiers import resnet56
    >>> with torch.device("meta"):  # shapes without numbers
    ...     network = resnet56()
    >>> sum(p.numel() for p in network.parameters())
    853018
    """
    return SmallResNet(9, n_classes, bias=bias)
