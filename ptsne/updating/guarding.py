"""Known rows stay: guards where new landmarks would take them along, and a veto as last resort."""

from typing import NamedTuple

import torch
from torch import Tensor

from ptsne.networks import AtlasProjection, score_blocks
from ptsne.updating.growing import held_by_new, widened_atlas, without

GUARD_ROUNDS = 20
"""Times that known rows are sought which the landmarks of others would move."""


class Guards(NamedTuple):
    """Known rows that get a landmark of their own."""

    row: Tensor  # (g,)
    z: Tensor  # (g, L)


@torch.no_grad()
def guards_of(atlas: AtlasProjection, K: Tensor, z: Tensor, allowed: float) -> Guards:
    """Rows of `z` that new landmarks `K` would hold, and those that their own guards would move."""
    places = in_blocks(atlas, z)
    chosen = held_by_new(widened_atlas(atlas, K), z, len(atlas.landmarks))
    for _ in range(GUARD_ROUNDS if len(z) else 0):
        way = (in_blocks(guarded(atlas, z[chosen]), z) - places).norm(dim=1)
        moved = (way > allowed) & ~chosen
        if not bool(moved.any()):
            break
        chosen |= moved
    return Guards(chosen.nonzero()[:, 0], z[chosen])


@torch.no_grad()
def guarded(atlas: AtlasProjection, z: Tensor) -> AtlasProjection:
    """A copy with a landmark at each code `z` (g, L): the same map where it alone holds a row."""
    larger, m = widened_atlas(atlas, z), len(atlas.landmarks)
    index, weights = atlas.landmark_weights(z)
    nearest = index.gather(1, weights.argmax(1, keepdim=True)).squeeze(1)
    larger.places[m:] = atlas(z) - z @ atlas.tilt.T
    larger.charts[m:] = atlas.charts[nearest]
    return larger


@torch.no_grad()
def harmless(atlas: AtlasProjection, larger: AtlasProjection, z: Tensor, allowed: float) -> Tensor:
    """Numbers of the larger atlas's landmarks, less new ones that move a code of `z` too far."""
    m, left = len(atlas.landmarks), torch.arange(len(larger.landmarks))
    places = in_blocks(atlas, z)
    while True:
        way = (in_blocks(larger, z) - places).norm(dim=1)
        too_far = z[way > allowed]
        if not len(too_far) or len(larger.landmarks) == m:
            return left
        index, weights = larger.landmark_weights(too_far)
        guilty = torch.unique(index[(weights > 0) & (index >= m)])
        larger = without(larger, guilty)
        left = left[~torch.isin(torch.arange(len(left)), guilty)]


def in_blocks(atlas: AtlasProjection, z: Tensor) -> Tensor:
    """Places (W, K) of the codes `z` (W, L)."""
    return torch.cat([atlas(part) for part in score_blocks(z, len(atlas.landmarks))])
