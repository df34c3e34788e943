r"""A code that sees more: new directions for what the known rows never varied in.

A group of rows may differ from everything known in a direction that the code leaves out; then its
codes are those of rows it is not like. Directions u of such a group, orthogonal to all that the
code already reconstructs, become new coordinates ``u (x - mean) / scale``. The old landmarks have
coordinate 0 there and their charts do not look at it, so that the scores of the old landmarks
differ among each other by what they did before: every place and every W of the old map stays.
"""

import copy
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptsne.explanation.trust import Calibration
from ptsne.networks import (
    AtlasProjection,
    Decoder,
    MapNetwork,
    SkipNetwork,
    Standardize,
    apply_by_rows,
)
from ptsne.rows import Rows, as_dense

Array = NDArray[Any]

ENERGY = 0.8
"""Share of what the code misses of the group that the new directions hold."""
MOST_DIRECTIONS = 10
ROWS = 2000


def widen(
    network: MapNetwork, X: Rows, lost: NDArray[np.bool_], calibration: Calibration
) -> tuple[MapNetwork, Calibration, bool]:
    """Add coordinates to the code in which the `lost` rows differ from what it reconstructs.

    Parameters
    ----------
    network : MapNetwork
        With an atlas.
    X : ndarray or SparseRows of shape (M, D)
        New rows.
    lost : bool ndarray of shape (M,)
        Rows that the code does not bring back.
    calibration : Calibration
        Of the network.

    Returns
    -------
    network : MapNetwork
        A wider copy; the same where there is nothing to widen for, or the encoder is a module of
        the user's own.
    calibration : Calibration
        That fits it.
    is_wider : bool
        Whether it was widened.
    """
    parts = _own_parts(network)
    if parts is None or not lost.any() or not len(calibration.readout):
        return network, calibration, False
    rows = as_dense(X[np.flatnonzero(lost)[:ROWS]]).astype(np.float64)
    directions = _directions(rows, network, calibration.readout)
    wider = copy.deepcopy(network)
    standardize, encoder, decoder, atlas = _own_parts(wider) or parts
    u = torch.from_numpy(directions).to(atlas.landmarks)
    with torch.no_grad():
        _widen_encoder(encoder, u)
        _widen_decoder(decoder, u)
        _widen_atlas(atlas, len(u))
    mean, scale = standardize.mean.cpu().numpy(), float(standardize.scale)
    readout = _wider_readout(calibration.readout, directions, mean, scale)
    return wider.requires_grad_(False), Calibration(calibration.quantiles, readout), True


def _own_parts(
    network: MapNetwork,
) -> tuple[Standardize, SkipNetwork, SkipNetwork, AtlasProjection] | None:
    """The layers that are widened, where all of them are ours."""
    encoder, decoder, atlas = network.encoder, network.decoder, network.projection
    if not (isinstance(encoder, nn.Sequential) and isinstance(decoder, Decoder)):
        return None
    if len(encoder) != 2 or not isinstance(atlas, AtlasProjection):
        return None
    standardize, skip, back = encoder[0], encoder[1], decoder.network
    if not (isinstance(standardize, Standardize) and isinstance(skip, SkipNetwork)):
        return None
    return (standardize, skip, back, atlas) if isinstance(back, SkipNetwork) else None


def _directions(rows: Array, network: MapNetwork, readout: Array) -> Array:
    """Orthonormal directions (r, D) of what the code misses of the rows."""
    codes = apply_by_rows(network.encoder, rows)
    missed = rows - np.column_stack([codes, np.ones(len(codes))]) @ readout
    seen = np.linalg.svd(readout[:-1], full_matrices=False)
    basis = seen.Vh[1e-10 * seen.S[0] < seen.S]
    missed = missed - missed @ basis.T @ basis
    _, strength, axes = np.linalg.svd(missed, full_matrices=False)
    share = np.cumsum(strength**2) / max(float((strength**2).sum()), 1e-300)
    n = min(MOST_DIRECTIONS, int(np.searchsorted(share, ENERGY)) + 1)
    directions: Array = axes[:n]
    return directions


def _widen_encoder(encoder: SkipNetwork, u: Tensor) -> None:
    encoder.linear = _linear(
        torch.cat([encoder.linear.weight, u]),
        torch.cat([encoder.linear.bias, u.new_zeros(len(u))]),
    )
    if encoder.branch is not None:
        last = cast(nn.Linear, encoder.branch[-1])
        none = u.new_zeros(len(u), last.weight.shape[1])
        bias = torch.cat([last.bias, u.new_zeros(len(u))])
        encoder.branch[-1] = _linear(torch.cat([last.weight, none]), bias)


def _widen_decoder(decoder: SkipNetwork, u: Tensor) -> None:
    decoder.linear = _linear(torch.cat([decoder.linear.weight, u.T], 1), decoder.linear.bias)
    if decoder.branch is not None:
        first = cast(nn.Linear, decoder.branch[0])
        blind = u.new_zeros(len(first.weight), len(u))
        decoder.branch[0] = _linear(torch.cat([first.weight, blind], 1), first.bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    # first weights would be drawn from the caller's generator
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _widen_atlas(atlas: AtlasProjection, n: int) -> None:
    """Old landmarks at 0 in the new coordinates, which no old chart looks at."""
    for name in ("landmarks", "charts", "shared_chart"):
        wider = nn.functional.pad(getattr(atlas, name), (0, n))
        setattr(atlas, name, nn.Parameter(wider, requires_grad=False))
    atlas.tilt = nn.functional.pad(atlas.tilt, (0, n))


def _wider_readout(readout: Array, u: Array, mean: Array, scale: float) -> Array:
    """Best reconstruction (L + r + 1, D), with all of a row's part along the new directions."""
    constant = readout[-1] - (readout[-1] - mean) @ u.T @ u
    return np.vstack([readout[:-1], scale * u, constant])
