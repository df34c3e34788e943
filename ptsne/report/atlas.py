"""A map that fits into a page: an affine encoder and an atlas, exact wherever it is evaluated."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ptsne.linearize import linearize
from ptsne.networks import AtlasProjection, MapNetwork, SkipNetwork, Standardize

_AFFINE = (nn.Sequential, nn.Linear, nn.Identity, Standardize, SkipNetwork)


def is_portable(network: MapNetwork) -> bool:
    """Whether a page can hold the map itself: an affine encoder, then an atlas."""
    modules = list(network.encoder.modules())  # a ReLU branch shows as a module of its own
    return isinstance(network.projection, AtlasProjection) and all(
        isinstance(module, _AFFINE) for module in modules
    )


def atlas_arrays(network: MapNetwork, x: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    r"""Numbers of the map :math:`z = A x + a`, :math:`y = D z + \sum_k p_k V_k + \ldots`.

    Parameters
    ----------
    network : MapNetwork
        Portable, in float64.
    x : ndarray of shape (D,)
        Any row; the encoder's A and a are the same at each.

    Returns
    -------
    dict of float64 ndarray
        encoder (L, D), bias (L,), landmarks (m, L), places (m, K), charts (m, K, L) with the shared
        chart in each, tilt (K, L), and constants (2,): temperature and clip.
    """
    atlas = cast(AtlasProjection, network.projection)
    row = next(network.buffers()).new_tensor(x[None])
    encoder = linearize(network.encoder, row)
    tensors = {
        "encoder": encoder.weight()[0],
        "bias": encoder.bias()[0],
        "landmarks": atlas.landmarks,
        "places": atlas.places,
        "charts": atlas.charts + atlas.shared_chart,
        "tilt": atlas.tilt,
    }
    arrays = {name: np.asarray(t.detach().cpu(), np.float64) for name, t in tensors.items()}
    return arrays | {"constants": np.array([atlas.temperature.item(), atlas.clip.item()])}
