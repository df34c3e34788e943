"""Landmarks in latent space: where they stand, and how many of them hold a row."""

import math

import torch
from torch import Tensor

from ptsne.networks import score_blocks, sparsemax_threshold
from ptsne.training.distributed import ALONE, World

LLOYD_STEPS = 5
SOFTENING = 8.0
"""Temperature of the fine-tuning over that of the places."""
SHARPENING = 80.0
"""Temperature of the fine-tuning over that of the finished map."""
MANY_DIMENSIONS = 50
HELD_OUT_SHARE = 0.1
HELD_OUT_LIMIT = 2000
MOST_HELD = 32
"""Landmarks of a row that are looked at where few of them shall hold it."""


def regularisation(latent_dim: int) -> float:
    """How much noise, dropout and wide seams codes of so many dimensions take, 0 to 1."""
    # few dimensions have no directions off the data: there these only blur (measured on iris, wine,
    # breast cancer and digits)
    return min(1.0, latent_dim / MANY_DIMENSIONS) ** 2


def seam_widths(latent_dim: int) -> tuple[float, float]:
    """Temperatures of the fine-tuning and of the finished map, over that of the places."""
    amount = regularisation(latent_dim)
    return SOFTENING**amount, (SOFTENING / SHARPENING) ** amount


def choose_landmarks(
    z: Tensor, n_landmarks: int, generator: torch.Generator, world: World = ALONE
) -> tuple[Tensor, Tensor, Tensor]:
    """Random rows refined by five Lloyd steps, on all rows but a few kept for calibration.

    Parameters
    ----------
    z : Tensor of shape (N, L)
        Codes of the training rows, of several processes one's own.
    n_landmarks : int
        m; lowered where fewer rows are left.
    generator : torch.Generator
        Picks the rows.
    world : World
        The processes.

    Returns
    -------
    landmarks : Tensor of shape (m, L)
        K.
    nearest : int Tensor of shape (m,)
        Training row nearest to each landmark.
    kept_out : Tensor of shape (n, L)
        Codes of rows that no landmark was fitted to.

    References
    ----------
    Lloyd 1982, Least squares quantization in PCM.
    """
    N = world.count(z)
    order = torch.randperm(N, generator=generator).to(z.device)
    n_out = max(1, min(int(HELD_OUT_SHARE * N), HELD_OUT_LIMIT))
    kept_out, rest = order[:n_out], order[n_out:]
    K = torch.unique(world.fetch(z, rest[:n_landmarks]), dim=0)  # equal landmarks would only tie
    if len(K) < len(rest):
        own = z[world.mine(rest)]
        for _ in range(LLOYD_STEPS):
            K = _lloyd_step(own, K, world)
    return K, _nearest_of_all(K, z, world), world.fetch(z, kept_out)


def _nearest_of_all(K: Tensor, z: Tensor, world: World) -> Tensor:
    """Index (m,) of the row nearest to each landmark, over all processes."""
    own = nearest_rows(K, z)
    if world.size == 1:
        return own
    distance = (z[own] - K).double().square().sum(1)
    nearest = -world.largest(-distance)
    first = world.rows(world.count(z)).start
    index = torch.where(distance == nearest, first + own, world.count(z))
    return -world.largest(-index)  # of equals the first


def _lloyd_step(z: Tensor, K: Tensor, world: World) -> Tensor:
    """Mean of the rows nearest to each landmark; a landmark without rows stays."""
    label = nearest_rows(z, K)
    total = world.sum(torch.zeros_like(K).index_add_(0, label, z))
    count = world.sum(torch.bincount(label, minlength=len(K))).unsqueeze(1).to(z.dtype)
    return torch.where(count > 0, total / count.clamp(min=1), K)


def nearest_rows(z: Tensor, K: Tensor) -> Tensor:
    """Index (B,) of the row of `K` (m, L) nearest to each row of `z` (B, L)."""
    squares = K.square().sum(1)
    return torch.cat([
        torch.addmm(-squares, part, K.T, alpha=2).argmax(1) for part in score_blocks(z, len(K))
    ])


def calibrate_temperature(z: Tensor, landmarks: Tensor, n_active: float) -> float:
    """Temperature at which `n_active` landmarks hold a row on average, by bisection.

    Parameters
    ----------
    z : Tensor of shape (B, L)
        Rows that the landmarks were not fitted to.
    landmarks : Tensor of shape (m, L)
        K.
    n_active : float
        Wanted mean size of the support, above 1 and far below 32.

    Returns
    -------
    float
        T, in squared latent units.
    """
    squares = landmarks.square().sum(1)
    k = min(MOST_HELD, len(landmarks))
    best = torch.cat([
        torch.addmm(-squares, part, landmarks.T, alpha=2).topk(k).values
        for part in score_blocks(z, len(landmarks))
    ])
    scale = float(z.square().sum(1).mean()) or 1.0
    low, high = 1e-5 * scale, scale
    for _ in range(30):
        middle = math.sqrt(low * high)
        scores = best / middle
        active = scores > sparsemax_threshold(scores).unsqueeze(1)
        if float(active.sum(1).double().mean()) < n_active:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)
