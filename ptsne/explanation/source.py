"""What an explanation asks of the fitted map: linear maps, paths, landmarks."""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptsne.explanation.paired import paired_maps
from ptsne.explanation.trust import Calibration, Trust, measure_trust
from ptsne.linearize import UnsupportedOperation, linearize
from ptsne.networks import AtlasProjection, MapNetwork, apply_by_rows, tensor_of
from ptsne.regions import integrated_gradients, region_radius
from ptsne.regions.running import in_double

Array = NDArray[Any]

MEMORY_BUDGET = 2**32
"""Bytes that the W of all rows may take (4 GiB)."""
ROWS_PER_BLOCK = {"cpu": 1024, "cuda": 16_384}


class AffineMap(NamedTuple):
    """One affine map per row, ``output = weight @ input + intercept``.

    Attributes
    ----------
    weight : ndarray of shape (N, n_out, n_in)
        W.
    intercept : ndarray of shape (N, n_out)
        b, summed from the constants of the layers, not taken from the output.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> X = load_iris().data
    >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[:5])
    >>> why.encoder.weight.shape, why.projection.weight.shape  # row by column of the stage
    ((5, 4, 4), (5, 2, 4))
    """

    weight: Array
    intercept: Array


class Landmarks(NamedTuple):
    """Training rows that hold each point, heaviest first.

    Attributes
    ----------
    indices : int ndarray of shape (N, k)
        Row number in the training data of the row nearest to the landmark; -1 is padding.
    weights : ndarray of shape (N, k)
        Sparsemax weights; each row sums to 1, padding is 0.
    rows : ndarray of shape (N, k, D)
        Those training rows, in the columns' units; NaN for padding.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> X = load_iris().data
    >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[:5])
    >>> held = why.landmarks
    >>> held.indices.shape == held.weights.shape
    True
    >>> bool(abs(held.weights.sum(1) - 1).max() < 1e-6)
    True
    """

    indices: NDArray[np.int64]
    weights: Array
    rows: Array


class _Along(nn.Module):
    """``way @ y`` (B, 1): an `nn.Linear` would first draw weights from the caller's generator."""

    way: Tensor

    def __init__(self, way: Array) -> None:
        super().__init__()
        self.register_buffer("way", torch.from_numpy(way)[None])

    def forward(self, y: Tensor) -> Tensor:
        return nn.functional.linear(y, self.way)


@dataclass(frozen=True)
class Source:
    """What an explanation needs of the fitted map.

    Attributes
    ----------
    network : MapNetwork
        In eval mode; its precision is that of the computation.
    method : {"secant", "tangent"}
        Which linear map.
    landmark_indices : int ndarray of shape (m,)
        Training row nearest to each landmark.
    landmark_rows : ndarray of shape (m, D)
        Those rows.
    calibration : Calibration or None
        What `trust` compares with; None where the training rows were not measured.
    """

    network: MapNetwork
    method: str
    landmark_indices: NDArray[np.int64]
    landmark_rows: Array
    calibration: Calibration | None

    def stage(self, network: nn.Module, X: Array) -> AffineMap:
        """Linear maps of one network at given inputs."""
        n_out = apply_by_rows(network, X[:1]).shape[1]
        _require_memory(len(X), n_out * X.shape[1] * X.itemsize)
        weight = np.empty((len(X), n_out, X.shape[1]), X.dtype)
        intercept = np.empty((len(X), n_out), X.dtype)
        size = ROWS_PER_BLOCK[as_tensor(X[:0], network).device.type]
        for start in range(0, len(X), size):
            block = slice(start, start + size)
            linear = linearize(network, as_tensor(X[block], network), activation=self.method)
            weight[block] = linear.weight().cpu().numpy()
            intercept[block] = linear.bias().cpu().numpy()
        return AffineMap(weight, intercept)

    def radius(self, X: Array, p: float) -> Array:
        """Radius (N,) of the linear region of each row."""
        radii: Array = (
            region_radius(self.network, as_tensor(X, self.network), p).radius.cpu().numpy()
        )
        return radii.astype(X.dtype, copy=False)

    def places(self, X: Array) -> Array:
        """Places (N, K) of rows."""
        return apply_by_rows(self.network, X)

    def path_parts(self, starts: Array, ends: Array, way: Array) -> Array:
        """Exact integrated gradients (P, D) of ``way @ y``: sum ``way @ (y_end - y_start)``."""
        device = as_tensor(way, self.network).device
        model = nn.Sequential(in_double(self.network), _Along(way).to(device)).eval()
        a, b = (torch.from_numpy(rows).to(device, torch.float64) for rows in (starts, ends))
        try:
            parts: Array = integrated_gradients(model, b, a, 0).cpu().numpy()
        except UnsupportedOperation as error:
            raise UnsupportedOperation(f'{error}. For contrasts use method="paired"') from error
        return parts

    def paired_ways(self, starts: Array, ends: Array) -> Array:
        """Displacement (P, K, D) of each feature by ``y_end - y_start = M (end - start)``."""
        network = cast(MapNetwork, in_double(self.network))
        maps = paired_maps(network, as_tensor(starts, network), as_tensor(ends, network))
        ways: Array = maps.cpu().numpy() * (ends - starts)[:, None]
        return ways

    def local_ways(self, starts: Array, ends: Array) -> Array:
        """Displacement (P, K, D) that the mean of both ends' W predicts for each feature."""
        at_start, at_end = (self.stage(self.network, rows).weight for rows in (starts, ends))
        ways: Array = (at_start + at_end) / 2 * (ends - starts)[:, None]
        return ways

    def codes(self, X: Array) -> Array:
        """Latent codes z (N, L)."""
        return apply_by_rows(self.network.encoder, X)

    def entering(self, X: Array) -> Array:
        """Rows as they enter the map's own encoder: others where steps stand in front of it."""
        return X

    def trust(self, X: Array) -> Trust:
        """How unlike the training rows each row is."""
        if self.calibration is None:
            raise ValueError(
                "this map was saved before training rows were measured for comparison; fit it again"
            )
        rows = X.astype(np.float64)
        return measure_trust(self.network, self.entering(rows), self.codes(rows), self.calibration)

    def n_active(self, X: Array) -> NDArray[np.int64]:
        """Landmarks that hold each row; 0 without an atlas."""
        atlas = self.network.projection
        if not isinstance(atlas, AtlasProjection):
            return np.zeros(len(X), dtype=np.int64)
        _, weights = atlas.landmark_weights(as_tensor(self.codes(X), atlas))
        return (weights > 0).sum(1).cpu().numpy()

    def landmarks(self, X: Array) -> Landmarks:
        """Landmarks of rows, heaviest first."""
        atlas = self.network.projection
        if not isinstance(atlas, AtlasProjection):
            raise ValueError(
                'only an atlas has landmarks; fit with projection="atlas" to see which training '
                "rows hold a point"
            )
        slots = atlas.landmark_weights(as_tensor(self.codes(X), atlas))
        index, weights = (slot.cpu().numpy() for slot in slots)
        order = np.argsort(-weights, axis=1, kind="stable")
        weights, index = np.take_along_axis(weights, order, 1), np.take_along_axis(index, order, 1)
        held = weights > 0
        rows = np.where(held[:, :, None], self.landmark_rows[index], np.nan)
        return Landmarks(np.where(held, self.landmark_indices[index], -1), weights, rows)


def as_tensor(X: Array, network: nn.Module) -> Tensor:
    """Rows on the device and in the precision of the network."""
    return torch.from_numpy(np.array(X)).to(tensor_of(network, X.dtype))


def _require_memory(n_rows: int, row_bytes: int) -> None:
    """Raise MemoryError where W would not fit the budget."""
    if n_rows * row_bytes > MEMORY_BUDGET:
        raise MemoryError(
            f"W of {n_rows} rows takes {n_rows * row_bytes / 2**30:.1f} GiB, more than the budget "
            f"of {MEMORY_BUDGET / 2**30:.0f} GiB; explain at most "
            f"{MEMORY_BUDGET // row_bytes} rows at a time, as ptsne.streaming.explain_blocks does"
        )
