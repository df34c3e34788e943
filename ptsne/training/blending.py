"""The landmarks that hold each row, and the blend of their charts over these pairs alone."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptsne.networks import (
    AtlasProjection,
    best_scores,
    in_slots,
    score_blocks,
    sparsemax_threshold,
)

REFRESH = 10
"""Steps between two searches for landmarks among all; in the second half, at low rates, twice."""
ROWS_BLENDED = 8192
"""Rows of a CPU's batch that are blended at once: fresh memory costs more than the arithmetic."""
CANDIDATE_MARGIN = 3.0
MOST_CANDIDATES = 8


class Pairs(NamedTuple):
    """The active (row, landmark) pairs of some rows, sorted by row: shape (R,) each."""

    row: Tensor
    landmark: Tensor
    size: Tensor  # (B,) landmarks active at each row

    def of_reference(self, values: Tensor) -> Tensor:
        """For each pair the value (R, ...) of the first landmark of its row."""
        first = (self.size.cumsum(0) - self.size).long()
        reference = self.landmark[first].index_select(0, self.row)
        return values.index_select(0, reference)


class Blend(NamedTuple):
    """What the atlas computes for each active pair, kept for the directional derivative."""

    p: Tensor  # (R,)
    rise: Tensor  # (R, L), 2 (K - K_r) / T: gradient of the score over that of the reference
    offset: Tensor  # (R, K), before the clip
    chart: Tensor  # (R, K, L)


def blend_pairs(atlas: AtlasProjection, z: Tensor, pairs: Pairs) -> tuple[Tensor, Blend]:
    """`AtlasProjection.blend` over the active pairs only: no padding, a tenth of the work.

    Parameters
    ----------
    atlas : AtlasProjection
        The projection.
    z : Tensor of shape (B, L)
        Codes.
    pairs : Pairs
        Active pairs of the B rows.

    Returns
    -------
    y : Tensor of shape (B, K)
        The map.
    blend : Blend
        Intermediate values of the pairs.
    """
    K = atlas.landmarks.index_select(0, pairs.landmark)
    z_pair = z.index_select(0, pairs.row)
    K_r = pairs.of_reference(atlas.landmarks)
    rise = 2 * (K - K_r) / atlas.temperature
    d = ((z_pair - (K + K_r) / 2) * rise).sum(1)
    p = d - _mean_over_support(d, pairs).index_select(0, pairs.row)
    p = p + (1 / pairs.size).index_select(0, pairs.row)
    chart = atlas.charts.index_select(0, pairs.landmark) + atlas.shared_chart
    offset = torch.linalg.vecdot(chart, (z_pair - K).unsqueeze(1))  # bmm: ten times slower backward
    reach = (atlas.clip * p).unsqueeze(1)
    clipped = torch.minimum(torch.maximum(offset, -reach), reach)
    terms = p.unsqueeze(1) * atlas.places.index_select(0, pairs.landmark) + clipped
    y = (z @ atlas.tilt.T).index_add(0, pairs.row, terms)
    return y, Blend(p, rise, offset, chart)


def directional_derivative(atlas: AtlasProjection, blend: Blend, pairs: Pairs, u: Tensor) -> Tensor:
    r"""Derivative of the atlas along `u`, in closed form.

    .. math::
        J u = D u + \sum_{k} p'_k V_k + \begin{cases} (B_k + C) u & \text{inside the clip}\\
              \pm c\, p'_k & \text{outside}\end{cases},
        \quad p'_k = d'_k - \operatorname{mean}_S d', \; d'_k = 2 u \cdot (K_k - K_r) / T

    Parameters
    ----------
    atlas : AtlasProjection
        The projection.
    blend : Blend
        Values of `blend_pairs` at the same rows.
    pairs : Pairs
        Active pairs of the rows.
    u : Tensor of shape (B, L)
        Directions in latent space.

    Returns
    -------
    Tensor of shape (B, K)
        ``J u`` for every row.
    """
    u_pair = u.index_select(0, pairs.row)
    d = (u_pair * blend.rise).sum(1)
    dp = (d - _mean_over_support(d, pairs).index_select(0, pairs.row)).unsqueeze(1)
    reach = (atlas.clip * blend.p).unsqueeze(1)
    inside = blend.offset.abs() <= reach
    slope = torch.linalg.vecdot(blend.chart, u_pair.unsqueeze(1))
    change = torch.where(inside, slope, blend.offset.sign() * atlas.clip * dp)
    terms = dp * atlas.places.index_select(0, pairs.landmark) + change
    return (u @ atlas.tilt.T).index_add(0, pairs.row, terms)


def _mean_over_support(values: Tensor, pairs: Pairs) -> Tensor:
    """Mean (B,) of pair values (R,) over the landmarks of each row."""
    return values.new_zeros(len(pairs.size)).index_add(0, pairs.row, values) / pairs.size


class Candidates:
    """Active pairs of each block of rows; all landmarks are scored every few steps only."""

    _index: Tensor
    _valid: Tensor

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    @torch.no_grad()
    def __call__(
        self, atlas: AtlasProjection, z: Tensor, iteration: int, *, is_fresh: bool
    ) -> list[Pairs]:
        """Pairs of the rows with codes `z`; fresh rows are not those of the last step."""
        every = REFRESH if iteration < self.n_steps / 2 else 2 * REFRESH
        if is_fresh or iteration % every == 0:
            self._index, self._valid = _all_candidates(atlas, z)
        blocks = zip(*map(in_blocks, (z, self._index, self._valid)), strict=True)
        return [_active_pairs(atlas, *block) for block in blocks]


def in_blocks(batch: Tensor) -> tuple[Tensor, ...]:
    """Parts of a batch that are blended one after the other."""
    return torch.split(batch, ROWS_BLENDED) if batch.device.type == "cpu" else (batch,)


def _active_pairs(atlas: AtlasProjection, z: Tensor, index: Tensor, valid: Tensor) -> Pairs:
    """The support of sparsemax over the candidates (B, k) of each row."""
    scores = _candidate_scores(atlas, z, index, valid)
    active = scores > sparsemax_threshold(scores).unsqueeze(1)
    row, slot = active.nonzero(as_tuple=True)
    return Pairs(row, index[row, slot], active.sum(1).to(z.dtype))


def _all_candidates(atlas: AtlasProjection, z: Tensor) -> tuple[Tensor, Tensor]:
    """The best landmarks within the margin for all rows."""
    parts = score_blocks(z, len(atlas.landmarks))
    blocks = [_best_candidates(atlas.scores(part)) for part in parts]
    width = max(index.shape[1] for index, _ in blocks)
    index, valid = zip(*blocks, strict=True)
    return _stack(index, width), _stack(valid, width)


def _best_candidates(scores: Tensor) -> tuple[Tensor, Tensor]:
    """At most eight landmarks within the margin of the best: a few rows have many more."""
    pairs = best_scores(scores, scores.amax(1, keepdim=True) - CANDIDATE_MARGIN)
    index, valid = in_slots(*pairs, len(scores))
    if index.shape[1] <= MOST_CANDIDATES:
        return index, valid
    best = scores.gather(1, index).masked_fill(~valid, -torch.inf).topk(MOST_CANDIDATES).indices
    return index.gather(1, best), valid.gather(1, best)


def _stack(parts: Sequence[Tensor], width: int) -> Tensor:
    """Rows of all parts, padded to one width."""
    return torch.cat([nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])


def _candidate_scores(atlas: AtlasProjection, z: Tensor, index: Tensor, valid: Tensor) -> Tensor:
    """Scores (B, k) of candidate landmarks, -inf where invalid."""
    row, slot = valid.nonzero(as_tuple=True)
    K = atlas.landmarks.index_select(0, index[row, slot])
    s = (2 * (z.index_select(0, row) * K).sum(1) - K.square().sum(1)) / atlas.temperature
    scores = z.new_full(valid.shape, -torch.inf)
    scores[row, slot] = s
    return scores
