"""A network applied to rows, so that no row depends on the others."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ptsne.networks.aligned import AlignedLayers, spare_columns
from ptsne.networks.atlas import AtlasProjection
from ptsne.networks.layers import SkipNetwork, Standardize
from ptsne.networks.network import MapNetwork
from ptsne.networks.placing import place

ROWS_PER_BLOCK = {"cpu": 256, "cuda": 8192}
FEWEST_ROWS_PER_BLOCK = 64
WIDE = 4096
"""Columns above which a block holds fewer rows, so that it does not become larger."""
ROWS_PER_PRODUCT = 32
ROWS_PER_LINEAR_BLOCK = 1024
NUMBERS_PER_LINEAR_BLOCK = 2**20
"""What a linear encoder gets at once at most, so that the calls cost little beside it."""
ROWS_AT_ONCE = 8192
"""Rows whose codes are held between encoder and projection."""
TURNS = 4
"""Spans of rows that each thread takes in turn, so that all end at about the same time."""
FEWEST_ROWS_PER_TURN = 4096
"""Rows of a span at least: torch's own threads, which wait awake, hinder ours for some time."""


def rows_per_block(n_columns: int, device_type: str) -> int:
    """Rows that go through a network together."""
    size = most = ROWS_PER_BLOCK[device_type]
    while size > FEWEST_ROWS_PER_BLOCK and size * n_columns > most * WIDE:
        size //= 2
    return size


def apply_by_rows(network: nn.Module, X: NDArray[Any]) -> NDArray[Any]:
    """Apply a network to rows so that each row's result does not depend on the other rows.

    Matrix products round differently for other numbers of rows, and for rows at other addresses.
    So all rows go through blocks of one shape, the last one padded, and rows of a product start
    at multiples of 64 bytes. Where a float64 network gives float32 results, what difference some
    processor may make nonetheless is rounded away.

    Parameters
    ----------
    network : nn.Module
        In eval mode; its own precision is used, or that of the rows where it holds no numbers.
    X : ndarray of shape (N, D)
        Rows.

    Returns
    -------
    ndarray of shape (N, ...)
        Results, in the precision of `X`.
    """
    like = tensor_of(network, X.dtype)
    n_threads = torch.get_num_threads() if _runs_in_threads(network, like) else 1
    turns = min(TURNS, len(X) // (FEWEST_ROWS_PER_TURN * n_threads))
    size = min(ROWS_AT_ONCE, -(-len(X) // max(1, turns * n_threads))) or 1
    parts = [slice(start, start + size) for start in range(0, max(1, len(X)), size)]
    apply = partial(_part, network, X, like)
    if n_threads == 1 or turns == 0:
        return np.concatenate([*map(apply, parts)])
    # A thread for each span of rows: a parallel region inside each small product, and all that
    # stands between them, would leave the other cores waiting.
    try:
        with ThreadPoolExecutor(n_threads, "", torch.set_num_threads, (1,)) as pool:
            return np.concatenate([*pool.map(apply, parts)])
    finally:
        torch.set_num_threads(n_threads)  # of threads that begin later


@torch.no_grad()
def _part(network: nn.Module, X: NDArray[Any], like: Tensor, where: slice) -> NDArray[Any]:
    return _outputs(network, X, where, like).cpu().numpy().astype(X.dtype, copy=False)


def _runs_in_threads(network: nn.Module, like: Tensor) -> bool:
    """Whether several threads may run it at once: our default network, not a user's module."""
    layers = [network]
    if isinstance(network, MapNetwork):
        layers = [network.encoder, network.projection]
    ours = all(isinstance(layer, AtlasProjection) or _is_linear(layer) for layer in layers)
    return ours and like.device.type == "cpu"


def _outputs(network: nn.Module, X: NDArray[Any], where: slice, like: Tensor) -> Tensor:
    """What the network makes of some of the rows, in the precision and on the device of `like`."""
    if isinstance(network, AtlasProjection):
        return place(network, torch.from_numpy(np.array(X[where])).to(like), block=ROWS_AT_ONCE)
    if isinstance(network, MapNetwork) and isinstance(network.projection, AtlasProjection):
        z = _outputs(network.encoder, X, where, like)
        return place(network.projection, z, block=ROWS_AT_ONCE)
    n_columns, n_rows = X.shape[1], min(where.stop, len(X)) - where.start
    is_linear = _is_linear(network) and like.device.type == "cpu"
    apply: Callable[[Tensor], Tensor] = network
    size = multiple = fewest = rows_per_block(n_columns, like.device.type)
    if is_linear:
        apply = _linear(network)
        multiple, fewest = ROWS_PER_PRODUCT, 2 * ROWS_PER_PRODUCT
        most = min(ROWS_PER_LINEAR_BLOCK, NUMBERS_PER_LINEAR_BLOCK // n_columns)
        size = max(fewest, min(-(-n_rows // multiple), most // multiple) * multiple)
    spare = spare_columns(n_columns, like) if is_linear else 0
    block = like.new_zeros(size, n_columns + spare)
    is_aligned = is_linear or like.device.type != "cpu"
    results = []
    for start in range(where.start, max(1, min(where.stop, len(X))), size):
        part = X[start : min(start + size, where.stop)]
        _fill(block, part)
        used = max(fewest, -(-len(part) // multiple) * multiple)
        with nullcontext() if is_aligned else AlignedLayers():
            results.append(apply(block[:used])[: len(part)])
    return torch.cat(results)


def _fill(block: Tensor, part: NDArray[Any]) -> None:
    """Copy rows to the corner of a block; they may be read-only, which torch would refuse."""
    n, d = part.shape
    if block.device.type == "cpu" and not (part.flags.writeable and min(part.strides) >= 0):
        block.numpy()[:n, :d] = part
        return
    given = part if block.device.type == "cpu" else np.array(part)
    block[:n, :d] = torch.from_numpy(given)  # each core the rows that it multiplies next


def _linear(encoder: Any) -> Callable[[Tensor], Tensor]:
    """A linear encoder as ``(x - mean) (A / scale)^T + a`` of a block that it overwrites."""
    # Products of 32 rows stand side by side, at least two: of a single one, two threads or more
    # would cut the sums in pieces, and the last bit would depend on their number.
    standardize, layer = encoder[0], encoder[1].linear
    spare = 0, spare_columns(layer.in_features, layer.weight)
    mean = F.pad(standardize.mean, spare)
    weight = F.pad(layer.weight / standardize.scale, spare).T

    def encode(block: Tensor) -> Tensor:
        stacked = block.sub_(mean).view(-1, ROWS_PER_PRODUCT, block.shape[1])
        z = torch.bmm(stacked, weight.expand(len(stacked), -1, -1))
        return z.flatten(0, 1).add_(layer.bias)

    return encode


def _is_linear(encoder: nn.Module) -> bool:
    return (
        isinstance(encoder, nn.Sequential)
        and [type(part) for part in encoder] == [Standardize, SkipNetwork]
        and encoder[1].branch is None
    )


def tensor_of(network: nn.Module, dtype: Any) -> Tensor:
    """A tensor on the device and in the precision of a network; one that holds none has `dtype`."""
    none = torch.from_numpy(np.empty(0, dtype))
    return next(iter((*network.parameters(), *network.buffers())), none)
