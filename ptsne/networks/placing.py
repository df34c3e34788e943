"""Places of rows on an atlas: what `AtlasProjection.forward` gives, faster, without derivatives.

A row's place depends on that row alone, to the bit. Products of matrices, whose rounding depends on
their shape, only tell which landmarks are worth a look; everything that enters the place is
computed pair by pair of a row and a landmark.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ptsne.networks.aligned import aligned_linear
from ptsne.networks.atlas import SCORES_AT_ONCE, AtlasProjection, in_slots, sparsemax_threshold

ROWS_ALIKE = 32
"""Multiple of rows of which a product rounds all alike."""
SLOTS_AT_ONCE = 2**14
"""Charts blended at a time."""
SCORE_ERROR = 0.25
"""Error up to which a score tells most landmarks apart: those of the support lie within 1."""


@torch.no_grad()
def place(atlas: AtlasProjection, z: Tensor, *, block: int) -> Tensor:
    """Place codes on the map.

    Parameters
    ----------
    atlas : AtlasProjection
        The projection.
    z : Tensor of shape (B, L)
        Latent codes, in its precision.
    block : int
        Most rows scored at a time.

    Returns
    -------
    Tensor of shape (B, n_components)
        Places; NaN where a code is not finite.
    """
    row, landmark = candidates(atlas, z, block=block)
    count = torch.bincount(row, minlength=len(z))
    y = (z.unsqueeze(1) * atlas.tilt).sum(-1)
    y[count == 0] = torch.nan
    is_alone = (count == 1)[row]
    for rows, k in _parts(row[is_alone], landmark[is_alone, None]):
        y[rows] += _on_one_chart(atlas, z[rows], k)
    shared = (count > 1).nonzero().squeeze(1)
    number = (count > 1).cumsum(0)[row[~is_alone]] - 1
    for rows, index, valid in _parts(shared, *in_slots(number, landmark[~is_alone], len(shared))):
        y[rows] += atlas.blended(z[rows], index, _support(atlas, z[rows], index, valid))
    return y


def _parts(rows: Tensor, *slots: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows (n,) and their slots (n, k), few enough at a time for a cache."""
    size = max(1, SLOTS_AT_ONCE // slots[0].shape[1])
    return zip(*(torch.split(t, size) for t in (rows, *slots)), strict=True)


def _on_one_chart(atlas: AtlasProjection, z: Tensor, k: Tensor) -> Tensor:
    """``V_k + clip((B_k + C)(z - K_k), -c, c)`` for landmarks k (B, 1): `blended` where p = 1."""
    offset = atlas.offset(z, k).clamp(-atlas.clip, atlas.clip)
    return (atlas.places[k] + offset).squeeze(1)


def _support(atlas: AtlasProjection, z: Tensor, index: Tensor, valid: Tensor) -> Tensor:
    """Which candidates `index`, `valid` (B, k) hold the rows `z` (B, L)."""
    K = atlas.landmarks[index]  # (B, k, L)
    scores = ((2 * z.unsqueeze(1) - K) * K).sum(-1) / atlas.temperature
    scores = scores.masked_fill(~valid, -torch.inf)
    is_best = scores == scores.amax(1, keepdim=True)  # where 1 is less than a last digit
    return is_best | (scores > sparsemax_threshold(scores).unsqueeze(1))


@torch.no_grad()
def candidates(atlas: AtlasProjection, z: Tensor, *, block: int) -> tuple[Tensor, Tensor]:
    """Landmarks that may hold each row: all that do, and few others.

    Scores are float32 wherever their rounding cannot hide a landmark, else in the precision of the
    codes and in blocks of one shape, so that even then no row depends on the others.

    Parameters
    ----------
    atlas : AtlasProjection
        The projection.
    z : Tensor of shape (B, L)
        Latent codes.
    block : int
        Most rows scored at a time.

    Returns
    -------
    row, landmark : int Tensor of shape (n,)
        Pairs, in order.
    """
    slope = 2 * atlas.landmarks / atlas.temperature
    level = -(slope * atlas.landmarks).sum(1) / 2  # score = slope . z + level
    error = _float32_error(z, slope, level)
    slope32, level32 = slope.float().T, level.float()
    if z.device.type == "cpu":  # pragma: no branch - a GPU takes what it is given
        block = min(block, max(1, SCORES_AT_ONCE["cpu"] // len(level) // ROWS_ALIKE) * ROWS_ALIKE)
    buffer = level32.new_empty(block, len(level))
    found = []
    for start in range(0, max(1, len(z)), block):
        part, bound = z[start : start + block], error[start : start + block, None]
        if bool((bound <= SCORE_ERROR).all()):
            scores = torch.addmm(level32, part.float(), slope32, out=buffer[: len(part)])
        else:
            padded = F.pad(part, (0, 0, 0, block - len(part)))
            scores = aligned_linear(padded, slope, level)[: len(part)]
        lowest = scores.amax(1, keepdim=True) - 1 - 2 * bound.clamp(max=SCORE_ERROR)
        row, landmark = best_scores(scores, lowest.to(scores.dtype))
        found.append((row + start, landmark))
    rows, landmarks = (torch.cat(parts) for parts in zip(*found, strict=True))
    return rows, landmarks


def _float32_error(z: Tensor, slope: Tensor, level: Tensor) -> Tensor:
    """Bound (B,) of the rounding of ``slope . z + level`` in float32 (Higham 2002, eq. 3.5)."""
    if z.device.type != "cpu" or not _is_float32_plain():
        return z.new_full((len(z),), torch.inf)
    unit = torch.finfo(torch.float32).eps / 2
    length = torch.linalg.vector_norm(z, dim=1) * torch.linalg.vector_norm(slope, dim=1).max()
    error: Tensor = 1.01 * (slope.shape[1] + 4) * unit * (length + level.abs().max()) + 1e-6
    return error


def _is_float32_plain() -> bool:
    """Whether products of float32 matrices keep all their bits."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # pragma: no cover - set for each backend of a GPU on its own
        return False


def best_scores(scores: Tensor, lowest: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and landmarks of the scores (B, m) from `lowest` (B, 1) on, in order: (n,) each."""
    is_near = scores >= lowest
    if scores.device.type != "cpu":  # pragma: no cover - needs a GPU
        row, landmark = is_near.nonzero(as_tuple=True)
        return row, landmark
    flat = np.flatnonzero(is_near.numpy())  # finds few in many 7 times as fast
    row, landmark = (torch.from_numpy(part) for part in np.divmod(flat, scores.shape[1]))
    return row, landmark
