r"""How far a row may be trusted: how unlike the training rows it is.

Two numbers say that a row is not like the data. It lies far from every landmark, so that the map
has seen nothing there; or its code does not bring it back, so that the map does not see what is
particular about it. Both are compared with the training rows, each as if the map had not been
trained on it: the plain numbers of training rows are smaller than those of any new row.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptsne.lazy import LazyRows
from ptsne.networks import (
    LATENT_RADIUS,
    AtlasProjection,
    Decoder,
    MapNetwork,
    apply_by_rows,
    score_blocks,
)

Numbers = NDArray[np.float64]

N_QUANTILES = 1001
"""Of the training rows that are stored for each number: steps of a tenth of a percent."""
NEGLIGIBLE = 1e-3
"""Reconstruction error below which a row counts as reconstructed: the rest is rounding."""
SINGULAR = 1e-12
"""Of the largest variance of codes: directions with less are not read."""
ROWS_PER_BLOCK = 4096
CODE_BYTES = 2**23
"""That the codes of known rows may take: 20,971 rows of 50 numbers."""


class Trust(NamedTuple):
    """How unlike the training rows each row is; 0 is the most alike.

    Attributes
    ----------
    distance : ndarray of shape (N,)
        From the row's code to the nearest landmark, in latent units (a typical row has length 7
        from the mean); NaN where the projection has no landmarks.
    reconstruction_error : ndarray of shape (N,)
        Distance of the row from its best linear reconstruction from the code, over the root mean
        square distance of training rows from their mean: 1 is the error of the mean.
    distance_percentile, reconstruction_percentile : ndarray of shape (N,)
        Share of the training rows with a smaller number, 0 to 100. For a new row of the same kind
        all percentiles are about equally likely; a training row itself has lower ones.
    percentile : ndarray of shape (N,)
        The larger of the two: a row is as strange as its stranger side. Since it may be strange in
        two ways, about 9 % of ordinary rows are beyond 95, and 2 % beyond 99.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> X = load_iris().data
    >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
    >>> map_.explain(10 * X[:1]).trust.percentile  # no iris is so large
    array([100.])
    """

    distance: Numbers
    reconstruction_error: Numbers
    distance_percentile: Numbers
    reconstruction_percentile: Numbers
    percentile: Numbers


class Calibration(NamedTuple):
    """What new rows are compared with.

    Attributes
    ----------
    quantiles : ndarray of shape (2, 1001)
        Of distance and reconstruction error of the training rows, in steps of a tenth of a percent.
    readout : ndarray of shape (L + 1, D)
        Best linear reconstruction of a row from its code and 1; without rows where the code is as
        wide as a row, and so is taken to hold all of it: then the error is 0.
    """

    quantiles: Numbers
    readout: Numbers


def calibrate(network: MapNetwork, X: NDArray[np.floating] | LazyRows) -> Calibration:
    r"""Measure the training rows, each as if it were new.

    - A landmark is about the mean of the n training rows nearest to it. Without one of them it
      would be :math:`n / (n - 1)` times as far from that row (Hartigan); the distance taken is
      this, or that to the second landmark where it is less. Fine-tuning moves landmarks on, so
      that this is approximate.
    - Without one row, the least squares reconstruction from codes misses that row by
      :math:`1 / (1 - h)` times as much (Allen), with its leverage
      :math:`h = z^T (Z^T Z)^{-1} z`. This is exact for given codes. The trained decoder has no
      such formula, and knows the training rows too well to compare others with them.

    Parameters
    ----------
    network : MapNetwork
        The trained network.
    X : ndarray or LazyRows of shape (N, D)
        Training rows; read three times, block by block.

    Returns
    -------
    Calibration
        For `measure_trust`.

    References
    ----------
    Hartigan 1975, Clustering algorithms, chapter 4.
    Allen 1974, The relationship between variable selection and data augmentation and a method for
    prediction.
    """
    return calibrate_with_codes(network, X)[0]


def calibrate_with_codes(
    network: MapNetwork, X: NDArray[np.floating] | LazyRows
) -> tuple[Calibration, Numbers]:
    """`calibrate`, and codes (n, L) of evenly spread rows, as many as 8 MiB hold."""
    codes, *numbers, readout = measure_training_rows(network, X)
    levels = np.linspace(0, 1, N_QUANTILES)
    quantiles = np.stack([np.quantile(values, levels) for values in numbers])
    return Calibration(quantiles, readout), spread_codes(codes)


def spread_codes(codes: Numbers) -> Numbers:
    """Evenly spread rows of codes (N, L), as many as 8 MiB hold; in float64."""
    n_kept = max(1, CODE_BYTES // (8 * max(1, codes.shape[1])))
    return codes[:: -(-max(1, len(codes)) // n_kept)].astype(np.float64)


def measure_training_rows(
    network: MapNetwork, X: NDArray[np.floating] | LazyRows
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Distance and reconstruction error of training rows, each as if it were new.

    Parameters
    ----------
    network : MapNetwork
        The trained network.
    X : ndarray or LazyRows of shape (N, D)
        Training rows.

    Returns
    -------
    codes : ndarray of shape (N, L)
        Their codes.
    distance, error : ndarray of shape (N,)
        As `calibrate` describes them.
    readout : ndarray of shape (L + 1, D), or (0, D)
        That of `Calibration`.
    """
    codes = np.concatenate([apply_by_rows(network.encoder, rows) for _, rows in _blocks(X)])
    readout, error = _reconstruction(network, X, codes)
    return codes, _distance_without_itself(network, codes), error, readout


def measure_trust(
    network: MapNetwork, X: NDArray[np.floating], codes: Numbers, calibration: Calibration
) -> Trust:
    """Compare rows with the training rows.

    Parameters
    ----------
    network : MapNetwork
        The trained network.
    X : ndarray of shape (N, D)
        Rows as they enter the map's own encoder.
    codes : ndarray of shape (N, L)
        Their codes.
    calibration : Calibration
        From `calibrate`.

    Returns
    -------
    Trust
        Of each row.
    """
    distance = _nearest(network, codes)[:, 0]
    error = _error(network, X, codes, calibration.readout)
    far, lost = (
        _percentile(*pair) for pair in zip(calibration.quantiles, (distance, error), strict=True)
    )
    return Trust(distance, error, far, lost, np.fmax(far, lost))


def _blocks(X: NDArray[np.floating] | LazyRows) -> Iterator[tuple[slice, Numbers]]:
    """Some rows at a time in float64, and which they are."""
    if isinstance(X, LazyRows):
        yield from X.parts()
        return
    for start in range(0, len(X), ROWS_PER_BLOCK):
        where = slice(start, start + ROWS_PER_BLOCK)
        yield where, X[where].astype(np.float64)


def _with_one(codes: Numbers) -> Numbers:
    return np.column_stack([codes, np.ones(len(codes))])


def _distance_without_itself(network: MapNetwork, codes: Numbers) -> Numbers:
    """Distance (N,) of each training row to the landmarks of the others."""
    nearest = _nearest(network, codes)
    if np.isnan(nearest).any():
        return nearest[:, 0]
    landmark = nearest[:, 2].astype(np.int64)
    n = np.bincount(landmark)[landmark]
    factor = np.divide(n, n - 1, where=n > 1, out=np.ones(len(n)))
    without = np.where(n > 1, nearest[:, 0] * factor, np.inf)
    distance: Numbers = np.minimum(without, nearest[:, 1])
    return np.where(np.isinf(distance), nearest[:, 0], distance)  # the only row of all landmarks


def _reconstruction(
    network: MapNetwork, X: NDArray[np.floating] | LazyRows, codes: Numbers
) -> tuple[Numbers, Numbers]:
    """Readout (L + 1, D), and the error (N,) of each training row by that of the others."""
    if codes.shape[1] >= X.shape[1]:
        return np.empty((0, X.shape[1])), np.zeros(len(X))
    z = _with_one(codes)  # (N, L + 1)
    inverse = np.linalg.pinv(z.T @ z, rcond=SINGULAR, hermitian=True)
    targets = sum(z[where].T @ rows for where, rows in _blocks(X))
    readout = inverse @ targets
    error = _error(network, X, codes, readout)
    room = 1 - np.einsum("nl,nl->n", z @ inverse, z)
    return readout, error / np.where(room > NEGLIGIBLE, room, 1)


def _nearest(network: MapNetwork, codes: Numbers) -> Numbers:
    """Distances (N,) to the nearest and to the second landmark, and which it is: (N, 3)."""
    atlas = network.projection
    if not isinstance(atlas, AtlasProjection):
        return np.full((len(codes), 3), np.nan)
    parts = score_blocks(torch.from_numpy(codes).to(atlas.landmarks), len(atlas.landmarks))
    return np.concatenate([_nearest_landmarks(atlas, part).cpu().numpy() for part in parts])


@torch.no_grad()
def _nearest_landmarks(atlas: AtlasProjection, z: Tensor) -> Tensor:
    index = atlas.scores(z).topk(min(2, len(atlas.landmarks)), dim=1).indices
    distance = (z[:, None] - atlas.landmarks[index]).norm(dim=2).double()  # (N, 2), or (N, 1)
    second = distance[:, 1:] if index.shape[1] > 1 else torch.full_like(distance, torch.inf)
    return torch.cat([distance[:, :1], second, index[:, :1]], 1)


def _error(
    network: MapNetwork, X: NDArray[np.floating] | LazyRows, codes: Numbers, readout: Numbers
) -> Numbers:
    """Reconstruction error (N,)."""
    decoder = network.decoder
    if not len(readout) or not isinstance(decoder, Decoder):
        return np.zeros(len(X))
    typical = float(decoder.standardize.scale) * LATENT_RADIUS
    z = _with_one(codes)
    parts = [np.linalg.norm(z[where] @ readout - rows, axis=1) for where, rows in _blocks(X)]
    error = np.concatenate(parts)
    return np.where(error < NEGLIGIBLE * typical, 0.0, error / typical)


def _percentile(quantiles: Numbers, values: Numbers) -> Numbers:
    """Share of the training rows below, 0 to 100."""
    share: Numbers = 100 * np.searchsorted(quantiles, values) / len(quantiles)
    return np.where(np.isnan(quantiles[0]) | np.isnan(values), np.nan, share)
