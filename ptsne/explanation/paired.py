"""Exact maps of differences ``y_1 - y_0 = M (x_1 - x_0)`` of a whole map, atlas included."""

from typing import NamedTuple

import torch
from torch import Tensor

from ptsne.linearize import paired_linearization
from ptsne.networks import AtlasProjection, MapNetwork

PAIRS_PER_BLOCK = 128


def paired_maps(network: MapNetwork, starts: Tensor, ends: Tensor) -> Tensor:
    """M of each pair: all constants cancel, and M is the same from either end.

    Parameters
    ----------
    network : MapNetwork
        In eval mode, in the precision of the rows.
    starts, ends : Tensor of shape (P, D)
        Rows.

    Returns
    -------
    Tensor of shape (P, K, D)
        ``M (ends - starts)`` is the way from start to end.
    """
    blocks = zip(*(torch.split(x, PAIRS_PER_BLOCK) for x in (starts, ends)), strict=True)
    atlas = network.projection
    if not isinstance(atlas, AtlasProjection):
        return torch.cat([paired_linearization(network, b, a).weight() for a, b in blocks])
    maps = []
    for a, b in blocks:
        with torch.no_grad():
            last = paired_atlas(atlas, network.encoder(a), network.encoder(b))
        maps.append(last @ paired_linearization(network.encoder, b, a).weight())
    return torch.cat(maps)


class _Slots(NamedTuple):
    """Landmarks of both ends of each pair, and what is the same at both ends."""

    landmark: Tensor  # (P, s), each landmark of a pair once
    at_start: Tensor  # (P, s): which hold the start
    at_end: Tensor
    K: Tensor  # (P, s, L)
    slope: Tensor  # (P, s, L): of the score, less that of one landmark which holds the end
    chart: Tensor  # (P, s, K, L)


class _End(NamedTuple):
    """What an atlas computes at one end, for the slots of both."""

    excess: Tensor  # (P, s): score less the threshold of sparsemax; p is its positive part
    reach: Tensor  # (P, s, 1)
    offset: Tensor  # (P, s, K): of the charts, before the clip


@torch.no_grad()
def paired_atlas(atlas: AtlasProjection, starts: Tensor, ends: Tensor) -> Tensor:
    r"""M of an atlas for pairs of codes.

    .. math::
        \Delta p_k &= g_k (a_k - \bar a) \cdot \Delta z, \quad
        \bar a = \textstyle\sum_k g_k a_k / \sum_k g_k \\
        \Delta \operatorname{clip}(h, \pm r) &=
        \tfrac12 (\alpha - \beta) \Delta h + \tfrac12 (\alpha + \beta) \Delta r

    with the scores' slopes :math:`a_k = 2 K_k / T`, the chord :math:`g_k` of the positive part of
    score less threshold, and the chords of :math:`|\cdot|` at :math:`h + r` and at :math:`h - r`.
    The middle line holds because the weights sum to one at both ends.

    Parameters
    ----------
    atlas : AtlasProjection
        The projection.
    starts, ends : Tensor of shape (P, L)
        Codes.

    Returns
    -------
    Tensor of shape (P, K, L)
        Exact: ``M (ends - starts)`` is the way on the map.
    """
    slots = _slots(atlas, starts, ends)
    a = _end(atlas, slots, starts, slots.at_start)
    b = _end(atlas, slots, ends, slots.at_end)
    held = (slots.at_start | slots.at_end).to(starts.dtype)
    gain = chord_of_positive_part(a.excess, b.excess) * held
    mean = torch.einsum("ps,psl->pl", gain / gain.sum(1, keepdim=True), slots.slope)
    weights = gain[:, :, None] * (slots.slope - mean[:, None])  # (P, s, L): of p
    above = chord_of_length(a.offset + a.reach, b.offset + b.reach) * held[:, :, None]
    below = chord_of_length(a.offset - a.reach, b.offset - b.reach) * held[:, :, None]
    by_weight = atlas.places[slots.landmark] + atlas.clip * (above + below) / 2
    maps = torch.einsum("psk,psl->pkl", by_weight, weights)
    return atlas.tilt + maps + torch.einsum("psk,pskl->pkl", (above - below) / 2, slots.chart)


def _slots(atlas: AtlasProjection, starts: Tensor, ends: Tensor) -> _Slots:
    """Landmarks of both ends of codes (P, L)."""
    index_a, active_a = atlas.support(starts)
    index_b, active_b = atlas.support(ends)
    is_same = (index_a[:, :, None] == index_b[:, None, :]) & active_a[:, :, None]
    is_same &= active_b[:, None, :]
    index = torch.cat([index_a, index_b], 1)
    at_start = torch.cat([active_a, torch.zeros_like(active_b)], 1)
    at_end = torch.cat([is_same.any(2), active_b & ~is_same.any(1)], 1)
    K = atlas.landmarks[index]
    one = at_end.to(torch.int8).argmax(1)[:, None, None].expand(-1, 1, K.shape[2])
    slope = 2 * (K - K.gather(1, one)) / atlas.temperature
    return _Slots(index, at_start, at_end, K, slope, atlas.charts[index] + atlas.shared_chart)


def _end(atlas: AtlasProjection, slots: _Slots, z: Tensor, active: Tensor) -> _End:
    """Excess, reach and offset at one end z (P, L); scores are less that of one landmark."""
    halfway = slots.K - slots.slope * atlas.temperature / 4  # to that landmark
    score = ((z[:, None] - halfway) * slots.slope).sum(2)  # (P, s)
    held = active.to(z.dtype)
    threshold = ((score * held).sum(1, keepdim=True) - 1) / held.sum(1, keepdim=True)
    excess = score - threshold
    offset = torch.einsum("pskl,psl->psk", slots.chart, z[:, None] - slots.K)
    return _End(excess, (atlas.clip * excess.clamp(min=0))[:, :, None], offset)


def chord_of_positive_part(a: Tensor, b: Tensor) -> Tensor:
    """``(max(b, 0) - max(a, 0)) / (b - a)`` without cancellation; 0 where both are 0."""
    total = a.abs() + b.abs()
    return (a.clamp(min=0) + b.clamp(min=0)) / torch.where(total > 0, total, 1)


def chord_of_length(a: Tensor, b: Tensor) -> Tensor:
    """``(|b| - |a|) / (b - a)`` without cancellation; 0 where both are 0."""
    total = a.abs() + b.abs()
    positive = a.clamp(min=0) + b.clamp(min=0)
    negative = a.clamp(max=0) + b.clamp(max=0)
    return (positive + negative) / torch.where(total > 0, total, 1)
