"""``F(x) = W x + b``, taken apart: what each part predicts alone, over any number of rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ptsne.linearize import linearize

BATCH_SIZE = 64
"""Rows linearized at a time; the linearizer divides them further where memory asks for it."""


@dataclass(frozen=True, eq=False)
class SplitPrediction:
    """A network's outputs and the two parts they are made of.

    Parameters
    ----------
    wx : Tensor of shape (N, *output shape)
        ``W x``, the part that the input multiplies.
    b : Tensor of shape (N, *output shape)
        What the biases, shifts and plateaus add; summed from its terms, not taken as a difference.
    output : Tensor of shape (N, *output shape)
        ``F(x)``, equal to ``wx + b`` up to rounding.

    Examples
    --------
    >>> import torch
    >>> from ptsne import split_prediction
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... ).eval()
    >>> parts = split_prediction(net, torch.rand(5, 4))
    >>> torch.allclose(parts.wx + parts.b, parts.output, atol=1e-5)
    True
    """

    wx: Tensor
    b: Tensor
    output: Tensor


@dataclass(frozen=True)
class LabelFlipRate:
    """What a classifier keeps if only one part of its logits decides.

    Parameters
    ----------
    accuracy, accuracy_wx, accuracy_b : float
        Share of rows whose largest logit, largest entry of ``W x``, largest entry of b is that of
        the label.
    flip_rate_wx, flip_rate_b : float
        Share of rows for which the part alone predicts another class than the network.
    n : int
        Rows counted.

    Examples
    --------
    >>> import torch
    >>> from ptsne import label_flip_rate
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... ).eval()
    >>> _ = net[2].weight.data.zero_()  # then only b is left
    >>> label_flip_rate(net, torch.rand(20, 4), torch.arange(20) % 3).flip_rate_b
    0.0
    """

    accuracy: float
    accuracy_wx: float
    accuracy_b: float
    flip_rate_wx: float
    flip_rate_b: float
    n: int


def split_prediction(
    model: nn.Module,
    X: Any,
    *,
    activation: str = "secant",
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> SplitPrediction:
    r"""Split every output of a network into ``W x`` and b, without forming W.

    ``W x`` of all outputs is the transpose of one vector-Jacobian product: two passes through the
    held graph instead of one per output. b comes out of the same passes.

    Parameters
    ----------
    model : nn.Module
        Any network that `linearize` takes, in evaluation mode; never moved, cast or changed.
    X : array or Tensor of shape (N, ...), or DataLoader
        Rows. Batches are copied to the model's device and precision. Of batches that are tuples,
        the first entry is taken.
    activation : {"secant", "tangent"}
        As in `linearize`.
    batch_size : int
        Rows at a time; a DataLoader has its own.
    progress : bool
        Show a bar over rows.

    Returns
    -------
    SplitPrediction
        ``wx``, ``b`` and ``output``, on the model's device.

    Raises
    ------
    ValueError
        If there are no rows.

    Notes
    -----
    `UnsupportedOperation` and `CompletenessError` as in `linearize`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from ptsne import split_prediction
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    >>> parts = split_prediction(net, torch.ones(5, 4).double())
    >>> torch.allclose(parts.wx + parts.b, parts.output, rtol=1e-12)
    True
    """
    batches = _batches(X, None, batch_size, is_labelled=False)
    parts = [_split(model, batch.x, activation) for batch in _shown(batches, X, progress)]
    if not parts:
        raise ValueError("X has no rows; pass at least one")
    columns = zip(*((part.wx, part.b, part.output) for part in parts), strict=True)
    return SplitPrediction(*(torch.cat(column) for column in columns))


def label_flip_rate(
    model: nn.Module,
    X: Any,
    y: Any = None,
    *,
    activation: str = "secant",
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> LabelFlipRate:
    r"""Accuracy of ``W x`` alone and of b alone, and how often each flips the predicted label.

    The label flip rate of a part p is ``mean(argmax p(x) != argmax F(x))``. Only counts are kept,
    so that data sets of any size stream through.

    Parameters
    ----------
    model : nn.Module
        A classifier with logits (N, classes), in evaluation mode; never moved, cast or changed.
    X : array or Tensor of shape (N, ...), or DataLoader
        Rows, prepared as for the model: how the input is normalised moves weight between ``W x``
        and b. Batches are copied to the model's device and precision.
    y : array or Tensor of shape (N,), whole numbers
        Classes. Leave it out where X is a DataLoader of (rows, classes).
    activation : {"secant", "tangent"}
        As in `linearize`.
    batch_size : int
        Rows at a time; a DataLoader has its own.
    progress : bool
        Show a bar over rows.

    Returns
    -------
    LabelFlipRate
        Shares between 0 and 1.

    Raises
    ------
    ValueError
        If there are no rows, or rows, labels and logits do not fit together.

    Notes
    -----
    `UnsupportedOperation` and `CompletenessError` as in `linearize`.

    References
    ----------
    Li, Liu, Bhavya, Bremer and Pascucci 2023, Instance-wise Linearization of Neural Network for
    Model Interpretation, Tables 1 to 4.

    Examples
    --------
    >>> import torch
    >>> from ptsne import label_flip_rate
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... ).eval()
    >>> _ = [part.bias.data.zero_() for part in (net[0], net[2])]
    >>> rates = label_flip_rate(net, torch.rand(20, 4), torch.arange(20) % 3)
    >>> rates.flip_rate_wx, rates.n  # without biases, W x decides
    (0.0, 20)
    """
    total = torch.zeros(len(_COUNTS), dtype=torch.int64)
    n = 0
    for batch in _shown(_batches(X, y, batch_size, is_labelled=True), X, progress):
        total += _count(_split(model, batch.x, activation), batch.y)
        n += len(batch.x)
    if n == 0:
        raise ValueError("X has no rows; pass at least one")
    shares = {name: int(count) / n for name, count in zip(_COUNTS, total, strict=True)}
    return LabelFlipRate(**shares, n=n)


_COUNTS = ("accuracy", "accuracy_wx", "accuracy_b", "flip_rate_wx", "flip_rate_b")


def _count(parts: SplitPrediction, y: Tensor) -> Tensor:
    """Rows of a batch that count for each of `_COUNTS`."""
    if parts.output.dim() != 2 or parts.output.shape[1] < 2:
        raise ValueError(
            "label flips need logits of shape (N, classes) with two or more classes; the model "
            f"gives {tuple(parts.output.shape)}"
        )
    label, label_wx, label_b = (t.argmax(1) for t in (parts.output, parts.wx, parts.b))
    y = y.to(label.device)
    hits = label == y, label_wx == y, label_b == y, label_wx != label, label_b != label
    return torch.stack([hit.sum() for hit in hits]).cpu()


def _split(model: nn.Module, x: Tensor, activation: str) -> SplitPrediction:
    lin = linearize(model, _as_for(model, x), activation=activation)
    wx = lin.linear_part()
    return SplitPrediction(wx, lin.bias().reshape(wx.shape), lin.output)


def _as_for(model: nn.Module, x: Tensor) -> Tensor:
    """Rows on the model's device, in its precision; as they are if the model has none."""
    state = (*model.parameters(), *model.buffers())
    like = next((t for t in state if t.is_floating_point()), None)
    return x if like is None else x.to(device=like.device, dtype=like.dtype)


# ---- batches ----


class _Batch(NamedTuple):
    x: Tensor
    y: Tensor


def _batches(X: Any, y: Any, batch_size: int, *, is_labelled: bool) -> Iterator[_Batch]:
    if isinstance(X, DataLoader):
        if y is not None:
            raise ValueError("a DataLoader brings its own labels; leave out y")
        return _loaded(X, is_labelled)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    if not is_labelled:
        return (_Batch(x, _NO_LABELS) for x in _slices(X, batch_size))
    return _labelled(X, _labels(y, len(X)), batch_size)


_NO_LABELS = torch.empty(0, dtype=torch.int64)


def _labelled(X: Any, y: Tensor, batch_size: int) -> Iterator[_Batch]:
    rows = _slices(X, batch_size)
    for start, x in zip(range(0, len(X), batch_size), rows, strict=True):
        yield _Batch(x, y[start : start + batch_size])


def _slices(X: Any, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(X), batch_size):
        part = X[start : start + batch_size]
        # a copy: torch refuses read-only arrays, such as memory maps
        yield part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))


def _loaded(loader: Iterable[Any], is_labelled: bool) -> Iterator[_Batch]:
    for batch in loader:
        is_pair = isinstance(batch, (tuple, list))
        x = batch[0] if is_pair else batch
        if is_labelled and not (is_pair and len(batch) > 1):
            raise ValueError("the DataLoader must give (rows, classes); it gives rows alone")
        yield _Batch(x, _labels(batch[1], len(x)) if is_labelled else _NO_LABELS)


def _labels(y: Any, n: int) -> Tensor:
    labels = torch.as_tensor(y if y is not None else _NO_LABELS)
    if labels.is_floating_point() or labels.is_complex() or labels.shape != (n,):
        raise ValueError(
            f"y must be {n} whole numbers, the class of each row; got shape {tuple(labels.shape)} "
            f"and {labels.dtype}"
        )
    return labels.long()


def _shown(batches: Iterator[_Batch], X: Any, progress: bool) -> Iterator[_Batch]:
    n = _n_rows(X)
    with tqdm(total=n, desc="split", unit="row", disable=not progress) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.x))


def _n_rows(X: Any) -> int | None:
    """Rows to come, if that can be known."""
    rows = X.dataset if isinstance(X, DataLoader) else X
    return len(rows) if hasattr(rows, "__len__") else None
