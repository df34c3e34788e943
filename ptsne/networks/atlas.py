"""The projection z -> y of landmarks with local affine charts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILT = 0.02
"""Slope of an atlas where its charts are clipped, in map units per latent unit."""
SCORES_AT_ONCE = {"cpu": 2**20, "cuda": 2**26}
"""Scores computed at a time: on a CPU what a cache holds."""


class AtlasProjection(nn.Module):
    r"""Landmarks with local affine charts, blended by sparsemax.

    .. math::
        p &= \operatorname{sparsemax}\big((2 z \cdot K_k - |K_k|^2)_k / T\big) \\
        y &= D z + \sum_{k: p_k > 0} p_k V_k + \operatorname{clip}((B_k + C)(z - K_k), \pm c p_k)

    Continuous and piecewise linear in z. Where one landmark is active, ``y = D z + V_k +
    clip((B_k + C)(z - K_k), -c, c)`` is the chart of that landmark alone. The tilt D is small and
    the same everywhere: it keeps W of full rank where a chart is clipped.

    Parameters
    ----------
    landmarks : Tensor of shape (m, L)
        The landmarks K in latent space.
    n_components : int
        Dimension of the map.
    temperature : float
        T, in squared latent units; larger blends more landmarks.
    clip : float
        c, in map units: how far a chart reaches from its place.

    References
    ----------
    Martins and Astudillo 2016, From Softmax to Sparsemax, Algorithm 1.
    """

    tilt: Tensor
    temperature: Tensor
    clip: Tensor

    def __init__(
        self, landmarks: Tensor, n_components: int, *, temperature: float = 1.0, clip: float = 8.0
    ) -> None:
        super().__init__()
        m, latent_dim = landmarks.shape
        self.landmarks = nn.Parameter(landmarks.clone())
        self.places = nn.Parameter(landmarks.new_zeros(m, n_components))
        self.charts = nn.Parameter(landmarks.new_zeros(m, n_components, latent_dim))
        self.shared_chart = nn.Parameter(landmarks.new_zeros(n_components, latent_dim))
        self.register_buffer("tilt", TILT * torch.eye(n_components, latent_dim).to(landmarks))
        self.register_buffer("temperature", landmarks.new_tensor(temperature))
        self.register_buffer("clip", landmarks.new_tensor(clip))

    def scores(self, z: Tensor) -> Tensor:
        """``(2 z.K - |K|^2) / T`` for all landmarks, (B, m); the largest is the nearest one."""
        scaled = self.landmarks / self.temperature
        return torch.addmm(-(scaled * self.landmarks).sum(1), z, scaled.T, alpha=2)

    @torch.no_grad()
    def support(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks that hold each row: ``p_k > 0``.

        Parameters
        ----------
        z : Tensor of shape (B, L)
            Latent codes.

        Returns
        -------
        index : Tensor of shape (B, k)
            Landmark of each slot; k is the largest number of candidates of a row.
        active : bool Tensor of shape (B, k)
            Which slots are in the support of sparsemax; the others are padding.
        """
        return sparsemax_support(self.scores(z))

    def forward(self, z: Tensor) -> Tensor:
        """Place the codes `z` (B, L) on the map (B, K)."""
        index, active = self.support(z)
        return self.blend(z, index, active)

    def blend(self, z: Tensor, index: Tensor, active: Tensor) -> Tensor:
        """Blend the charts of the slots `index`, `active` (B, k) at `z` (B, L)."""
        return z @ self.tilt.T + self.blended(z, index, active)

    def blended(self, z: Tensor, index: Tensor, active: Tensor) -> Tensor:
        """The sum over the landmarks, (B, n_components): `blend` without the tilt."""
        p = self.weights(z, index, active)  # (B, k)
        reach = (self.clip * p).unsqueeze(-1)
        offset = torch.minimum(torch.maximum(self.offset(z, index), -reach), reach)
        return _sum_slots(p.unsqueeze(-1) * self.places[index] + offset)

    def offset(self, z: Tensor, index: Tensor) -> Tensor:
        """``(B_k + C)(z - K_k)`` of the landmarks `index` (B, k), (B, k, n_components)."""
        K = self.landmarks[index]  # (B, k, L)
        chart = self.charts[index] + self.shared_chart  # (B, k, n_components, L)
        return (chart * (z.unsqueeze(1) - K).unsqueeze(2)).sum(-1)

    def switches(self, z: Tensor) -> dict[str, tuple[Tensor, Tensor, int]]:
        """Where the pieces of this map end: a landmark enters or leaves, a clip binds or frees.

        Parameters
        ----------
        z : Tensor of shape (B, L)
            Latent codes.

        Returns
        -------
        dict of str to (margin, unit, n_units)
            Margins (B, n), differentiable by `z`, zero where the piece ends, infinite where there
            is no such end; the numbers (n,) or (B, n) of these switches; how many there are.
            ``"landmarks"``: score less the threshold of sparsemax, positive for the landmarks that
            hold the row. ``"clip"``: room of each chart above and below, in map units; number
            ``2 (K k + component) + side``.
        """
        scores = self.scores(z)
        index, active = self.support(z)
        held = active.to(z.dtype)
        chosen = (scores.gather(1, index) * held).sum(1, keepdim=True)
        threshold = (chosen - 1) / held.sum(1, keepdim=True)
        margin = scores - threshold
        room, unit = self._room(z, index, active)
        landmarks = torch.arange(len(self.landmarks), device=z.device)
        return {
            "landmarks": (margin, landmarks, len(landmarks)),
            "clip": (room, unit, 2 * self.places.numel()),
        }

    def _room(self, z: Tensor, index: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Room of the charts of the slots above and below, (B, n), and its numbers (B, n)."""
        offset = self.offset(z, index)
        reach = (self.clip * self.weights(z, index, active)).unsqueeze(-1)
        room = torch.stack([reach - offset, reach + offset], -1)  # (B, k, n_components, 2)
        room = room.masked_fill(~active[:, :, None, None], torch.inf)
        n = room[0, 0].numel()
        unit = n * index.unsqueeze(-1) + torch.arange(n, device=z.device)
        return room.flatten(1), unit.flatten(1)

    @torch.no_grad()
    def landmark_weights(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks that hold each row, and how heavily.

        Parameters
        ----------
        z : Tensor of shape (N, L)
            Codes.

        Returns
        -------
        index : int Tensor of shape (N, k)
            Landmarks, padded by 0.
        weights : Tensor of shape (N, k)
            Sparsemax weights p; padding is 0.
        """
        indices, weights = [], []
        for part in score_blocks(z, len(self.landmarks)):
            index, active = self.support(part)
            indices.append(index)
            weights.append(self.weights(part, index, active))
        width = max(index.shape[1] for index in indices)
        padded = ([F.pad(t, (0, width - t.shape[1])) for t in ts] for ts in (indices, weights))
        index, weight = (torch.cat(ts) for ts in padded)
        return index, weight

    def weights(self, z: Tensor, index: Tensor, active: Tensor) -> Tensor:
        """Sparsemax weights p (B, k) given its support: affine in z, zero outside the support."""
        # p_k = d_k - mean_S d + 1 / |S| with d_k = 2 (z - (K_k + K_r) / 2) . (K_k - K_r) / T, the
        # score over that of one landmark r of the support: differences of scores lose digits
        held = active.to(z.dtype)
        K = self.landmarks[index]
        r = index.gather(1, active.to(torch.int8).argmax(1, keepdim=True))
        K_r = self.landmarks[r]  # (B, 1, L)
        d = 2 * ((z.unsqueeze(1) - (K + K_r) / 2) * (K - K_r)).sum(-1) / self.temperature * held
        count = held.sum(1, keepdim=True)
        return (d - _sum_slots(d).unsqueeze(1) / count + 1 / count) * held


def score_blocks(z: Tensor, n_landmarks: int) -> tuple[Tensor, ...]:
    """Codes z (N, L) in parts, few enough rows for the scores of so many landmarks."""
    at_once = SCORES_AT_ONCE["cpu" if z.device.type == "cpu" else "cuda"]
    return torch.split(z, max(1, at_once // n_landmarks))


def sparsemax_support(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Support of ``sparsemax(scores)`` without sorting all of it.

    Every landmark of the support scores more than ``max - 1``, so that only these few candidates
    are sorted.

    Parameters
    ----------
    scores : Tensor of shape (B, m)
        One score a landmark.

    Returns
    -------
    index : Tensor of shape (B, k)
        Candidate landmarks, padded by 0 to the largest number of candidates of a row.
    active : bool Tensor of shape (B, k)
        Which candidates are in the support.

    References
    ----------
    Martins and Astudillo 2016, From Softmax to Sparsemax, Algorithm 1.
    """
    index, valid = candidates_within(scores, 1.0)
    candidates = scores.gather(1, index).masked_fill(~valid, -torch.inf)
    return index, candidates > sparsemax_threshold(candidates).unsqueeze(1)


def candidates_within(scores: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Landmarks that score within `margin` of the best one.

    Parameters
    ----------
    scores : Tensor of shape (B, m)
        One score a landmark.
    margin : float
        Positive.

    Returns
    -------
    index : int Tensor of shape (B, k)
        Landmarks in order, padded by 0; k is the largest number of a row.
    valid : bool Tensor of shape (B, k)
        Which slots are not padding.
    """
    row, landmark = (scores > scores.amax(1, keepdim=True) - margin).nonzero(as_tuple=True)
    return in_slots(row, landmark, len(scores))


def in_slots(row: Tensor, landmark: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Landmarks of each row side by side.

    Parameters
    ----------
    row, landmark : int Tensor of shape (n,)
        Pairs, rows in order.
    n_rows : int
        How many rows there are.

    Returns
    -------
    index : int Tensor of shape (n_rows, k)
        Landmarks in the order of the pairs, padded by 0; k is the largest number of a row.
    valid : bool Tensor of shape (n_rows, k)
        Which slots are not padding.
    """
    count = torch.bincount(row, minlength=n_rows)
    slot = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    width = int(count.max()) if n_rows else 1
    index = landmark.new_zeros(n_rows, width)
    index[row, slot] = landmark
    return index, torch.arange(width, device=row.device) < count.unsqueeze(1)


def sparsemax_threshold(scores: Tensor) -> Tensor:
    """Threshold tau (B,) with ``sum_k max(scores_k - tau, 0) = 1``; ``-inf`` scores are ignored."""
    ordered = scores.sort(1, descending=True).values.double()
    total = ordered.nan_to_num(neginf=0.0).cumsum(1)
    rank = torch.arange(1, scores.shape[1] + 1, dtype=torch.float64, device=scores.device)
    size = (1 + rank * ordered > total).sum(1, keepdim=True)
    return ((total.gather(1, size - 1) - 1) / size).squeeze(1).to(scores.dtype)


def _sum_slots(terms: Tensor) -> Tensor:
    """Sum over dim 1, one slot after the other: padding cannot change a row's rounding."""
    return terms.cumsum(1)[:, -1]
