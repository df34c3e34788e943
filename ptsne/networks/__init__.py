"""The networks of the map: x -> z (encoder) -> y (projection), and z -> x (decoder).

Every block here is piecewise linear, so that at each row the whole map is `y = W x + b`.
"""

from ptsne.networks.atlas import (
    TILT,
    AtlasProjection,
    candidates_within,
    in_slots,
    score_blocks,
    sparsemax_support,
    sparsemax_threshold,
)
from ptsne.networks.layers import (
    LATENT_RADIUS,
    Decoder,
    Scale,
    SkipNetwork,
    Standardize,
    fit_standardize,
    identity_standardize,
    relu_network,
    standardized_float32,
    with_standardisation,
)
from ptsne.networks.network import MapNetwork, scale_output
from ptsne.networks.placing import best_scores
from ptsne.networks.rows import ROWS_PER_BLOCK, apply_by_rows, rows_per_block, tensor_of

__all__ = [
    "LATENT_RADIUS",
    "ROWS_PER_BLOCK",
    "TILT",
    "AtlasProjection",
    "Decoder",
    "MapNetwork",
    "Scale",
    "SkipNetwork",
    "Standardize",
    "apply_by_rows",
    "best_scores",
    "candidates_within",
    "fit_standardize",
    "identity_standardize",
    "in_slots",
    "relu_network",
    "rows_per_block",
    "scale_output",
    "score_blocks",
    "sparsemax_support",
    "sparsemax_threshold",
    "standardized_float32",
    "tensor_of",
    "with_standardisation",
]
