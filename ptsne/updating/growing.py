r"""New landmarks for novel rows: t-SNE of their places, with all that is known held fast.

.. math:: Y_i = \sum_{k\, \text{old}} p_k V_k + \sum_{k\, \text{new}} p_k V_k + \text{charts}

Only rows that a new landmark holds can move, and only places and charts of new landmarks are
learned. Every known row stands in the repulsion, so that the newcomers need room of their own;
known rows among the neighbours of a newcomer draw it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy import sparse
from torch import Tensor

from ptsne.affinities.calibration import symmetric
from ptsne.losses import Edges, kl_gradient
from ptsne.networks import AtlasProjection
from ptsne.repulsion import RepulsionEngine
from ptsne.training import Journal
from ptsne.training.blending import Blend, Pairs, blend_pairs, directional_derivative
from ptsne.training.descent import Adam, Group
from ptsne.training.finetuning import FIDELITY_SCALE
from ptsne.training.landmarks import nearest_rows, seam_widths
from ptsne.training.places import Walk
from ptsne.updating.room import free_spot

RECORD_EVERY = 10

Gradient = Callable[[Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Growth:
    """Numbers of `settle`.

    Parameters
    ----------
    dof : float
        Degrees of freedom of the similarity.
    exaggeration : float
        Factor on P.
    fidelity_weight : float
        Weight of the fidelity loss of the charts.
    early, alone, joined, charts : int
        Iterations: of the group alone, exaggerated by 12 and not; on the map; of the charts.
    noise : float
        Standard deviation of the noise on codes, in units of ``sqrt(T / L)``, T of the
        places of a whole map.
    """

    dof: float = 1.0
    exaggeration: float = 1.0
    fidelity_weight: float = 0.12
    early: int = 60
    alone: int = 140
    joined: int = 200
    charts: int = 150
    noise: float = 1.5


class Newcomers(NamedTuple):
    """Rows that new landmarks hold, and what is around them.

    Attributes
    ----------
    z : Tensor of shape (n, L)
        Their codes.
    attraction : csr_array of shape (n, n + F)
        ``p_{j|i}``: their neighbours among themselves, then among the fixed rows.
    group : int Tensor of shape (n,)
        Group of each: groups share no near neighbours.
    near : int Tensor of shape (n, 10 at most)
        Nearest newcomers of each.
    fixed : Tensor of shape (F, K)
        Places of the fixed rows, those that may attract first.
    """

    z: Tensor
    attraction: sparse.csr_array
    group: Tensor
    near: Tensor
    fixed: Tensor


def widened_atlas(atlas: AtlasProjection, K: Tensor) -> AtlasProjection:
    """A copy with more landmarks `K` (m', L), at place 0 and with no chart of their own."""
    landmarks = torch.cat([atlas.landmarks, K.to(atlas.landmarks)])
    grown = AtlasProjection(landmarks, atlas.places.shape[1]).to(landmarks)
    with torch.no_grad():
        for name in ("places", "charts"):
            getattr(grown, name)[: len(atlas.landmarks)] = getattr(atlas, name)
        for name in ("shared_chart", "tilt", "temperature", "clip"):
            getattr(grown, name).copy_(getattr(atlas, name))
    return grown.requires_grad_(False).eval()


@torch.no_grad()
def without(atlas: AtlasProjection, dropped: Tensor) -> AtlasProjection:
    """A copy without some landmarks, given by number."""
    kept = torch.ones(len(atlas.landmarks), dtype=torch.bool)
    kept[dropped] = False
    smaller = copy.deepcopy(atlas)
    for name in ("landmarks", "places", "charts"):
        setattr(smaller, name, torch.nn.Parameter(getattr(atlas, name)[kept], requires_grad=False))
    return smaller


def held_by_new(atlas: AtlasProjection, z: Tensor, n_old: int) -> Tensor:
    """Whether landmarks from number `n_old` on hold each of the rows `z` (B, L): (B,) bool."""
    index, weights = atlas.landmark_weights(z)
    return ((index >= n_old) & (weights > 0)).any(1)


def settle(
    atlas: AtlasProjection,
    n_old: int,
    newcomers: Newcomers,
    settings: Growth,
    *,
    journal: Journal,
    generator: torch.Generator,
) -> None:
    """Find places and charts of the landmarks from number `n_old` on, in place.

    Parameters
    ----------
    atlas : AtlasProjection
        From `widened_atlas`.
    n_old : int
        Landmarks that stay as they are.
    newcomers : Newcomers
        Rows that learn.
    settings : Growth
        Numbers.
    journal : Journal
        Receives records of the phases "update" and "update charts".
    generator : torch.Generator
        Noise and choice of neighbours.
    """
    V = _start(atlas, n_old, newcomers, settings)
    index, weights = atlas.landmark_weights(newcomers.z)
    row, slot = weights.nonzero(as_tuple=True)
    landmark, weight = index[row, slot], weights[row, slot].unsqueeze(1)
    fixed = atlas.places.index_select(0, landmark) * weight  # new landmarks are still at place 0
    base = (newcomers.z @ atlas.tilt.T).index_add(0, row, fixed)
    is_new = landmark >= n_old
    row, own, weight = row[is_new], landmark[is_new] - n_old, weight[is_new]
    mass = torch.zeros_like(V[:, :1]).index_add_(0, own, weight).clamp_(min=1e-3)
    gradient = _among_all(newcomers, settings)

    def pull(V: Tensor, exaggeration: float) -> tuple[Tensor, Tensor]:
        G, kl = gradient(base.index_add(0, row, weight * V[own]), exaggeration)
        return torch.zeros_like(V).index_add_(0, own, weight * G[row]) / mass, kl

    rate = _rate(len(newcomers.z) + len(newcomers.fixed), settings.dof)
    factors = [settings.exaggeration] * settings.joined
    atlas.places[n_old:] = _descend(V, pull, factors, rate, journal)
    _fit_charts(
        atlas, n_old, newcomers, settings, gradient=gradient, journal=journal, generator=generator
    )


def _rate(n_points: int, dof: float) -> float:
    return n_points * dof / (2 * (dof + 1))


def _among_all(newcomers: Newcomers, settings: Growth) -> Gradient:
    """dKL/dY (n, K) of the newcomers, with the fixed rows around them."""
    n, total = len(newcomers.z), len(newcomers.z) + len(newcomers.fixed)
    C = newcomers.attraction.tocoo()
    one_way = sparse.csr_array((C.data, (C.row, C.col)), shape=(total, total))
    P = sparse.csr_array((one_way + one_way.T) / (2 * total))
    # pairs of two fixed rows are left out, which pull at no newcomer; Q is that of all rows
    edges = Edges.from_sparse(P, dtype=newcomers.z.dtype, device=newcomers.z.device)
    edges, engine = edges._replace(mass=1.0), RepulsionEngine(dof=settings.dof)

    def gradient(Y: Tensor, exaggeration: float) -> tuple[Tensor, Tensor]:
        points = torch.cat([Y, newcomers.fixed])
        G, kl = kl_gradient(
            edges, points, exaggeration=exaggeration, dof=settings.dof, engine=engine
        )
        return G[:n], kl

    return gradient


# ---- where to start ----


def _start(atlas: AtlasProjection, n_old: int, newcomers: Newcomers, settings: Growth) -> Tensor:
    """Places (m', K) of the new landmarks: each group as t-SNE alone lays it out, on free room."""
    K = atlas.landmarks[n_old:]
    V = torch.zeros_like(atlas.places[n_old:])
    nearest = nearest_rows(newcomers.z, K)
    owner = _owners(K, newcomers)
    occupied = newcomers.fixed
    for group in torch.unique(owner).tolist():
        mine = (owner == group).nonzero()[:, 0]
        rows = (owner[nearest] == group).nonzero()[:, 0]
        layout = _alone(K[mine], newcomers, rows, settings)
        layout = layout * _scale(layout, atlas.places[:n_old])
        radius = float(layout.norm(dim=1).max())
        anchors, weights = _anchors(atlas, n_old, newcomers, rows)
        V[mine] = layout + free_spot(radius, occupied, anchors, weights)
        occupied = torch.cat([occupied, V[mine]])
    return V


def _owners(K: Tensor, newcomers: Newcomers) -> Tensor:
    """Group of each new landmark: that of the row nearest to it."""
    return newcomers.group[nearest_rows(K, newcomers.z)]


def _alone(K: Tensor, newcomers: Newcomers, rows: Tensor, settings: Growth) -> Tensor:
    """Layout (m', K) of one group around 0, by t-SNE of its landmarks without the map."""
    n_components = newcomers.fixed.shape[1]
    z = newcomers.z[rows]
    Y = _principal(K, n_components)
    if len(K) < 3 or len(rows) < 5:
        return Y
    chosen = rows.cpu().numpy()
    inner = newcomers.attraction[chosen][:, chosen]
    if not inner.nnz:
        return Y
    edges = Edges.from_sparse(symmetric(inner), dtype=z.dtype, device=z.device)
    label = nearest_rows(z, K)
    mass = torch.bincount(label, minlength=len(K)).clamp(min=1).unsqueeze(1).to(z)

    def pull(V: Tensor, exaggeration: float) -> tuple[Tensor, Tensor]:
        G, kl = kl_gradient(edges, V[label], exaggeration=exaggeration, dof=settings.dof)
        return torch.zeros_like(V).index_add_(0, label, G) / mass, kl

    start = Y * (1e-4 / max(float(Y.std()), 1e-12))
    factors = [12.0] * settings.early + [settings.exaggeration] * settings.alone
    V = _descend(start, pull, factors, _rate(len(rows), settings.dof))
    return V - V.mean(0)


def _principal(K: Tensor, n_components: int) -> Tensor:
    """First principal coordinates (m', n_components) of landmarks."""
    centred = K - K.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:n_components]
    y = centred @ axes.T
    return torch.nn.functional.pad(y, (0, n_components - y.shape[1]))


def _scale(layout: Tensor, places: Tensor) -> float:
    """Factor that makes landmarks of a layout as dense as those of the map."""
    if len(layout) < 2 or len(places) < 2:
        return 1.0
    own, wanted = (_nearest_distance(points) for points in (layout, places))
    return wanted / own if own > 0 and wanted > 0 else 1.0


def _nearest_distance(points: Tensor) -> float:
    distance = torch.cdist(points, points)
    return float(distance.fill_diagonal_(torch.inf).amin(1).median())


def _anchors(
    atlas: AtlasProjection, n_old: int, newcomers: Newcomers, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Places that draw a group, and how strongly: known neighbours, or the nearest landmarks."""
    n = len(newcomers.z)
    outer = newcomers.attraction[rows.cpu().numpy()][:, n:].sum(axis=0)
    weights = torch.as_tensor(outer).to(newcomers.z)
    drawn = weights.nonzero()[:, 0]
    if len(drawn):
        return newcomers.fixed[drawn], weights[drawn]
    nearest = nearest_rows(newcomers.z[rows], atlas.landmarks[:n_old])
    return atlas.places[nearest], newcomers.z.new_ones(len(nearest))


# ---- descent ----


def _descend(
    V: Tensor,
    pull: Gradient,
    factors: list[float],
    learning_rate: float,
    journal: Journal | None = None,
) -> Tensor:
    """Gradient descent with momentum and gains, as for the places of a whole map."""
    walk = Walk(V)
    for i, exaggeration in enumerate(factors):
        step, kl = pull(walk.V, exaggeration)
        walk.move(step, learning_rate / exaggeration)
        if journal is not None and (i + 1) % RECORD_EVERY == 0:
            journal.record("update", i + 1, len(factors), loss=float(kl))
    return walk.V


def _fit_charts(
    atlas: AtlasProjection,
    n_old: int,
    newcomers: Newcomers,
    settings: Growth,
    *,
    gradient: Gradient,
    journal: Journal,
    generator: torch.Generator,
) -> None:
    """Adam on places and charts of the new landmarks, with the fidelity loss of a whole map."""
    n_total = len(newcomers.z) + len(newcomers.fixed)
    is_new = torch.arange(len(atlas.landmarks), device=newcomers.z.device) >= n_old
    trained = {"places": 0.3, "charts": 0.003}
    groups = []
    for name, rate in trained.items():
        parameter = getattr(atlas, name).requires_grad_(True)
        mask = is_new.reshape(-1, *[1] * (parameter.ndim - 1)).to(parameter)
        parameter.register_hook(lambda g, mask=mask: g * mask)
        groups.append(Group([parameter], rate, (0.8, 0.999) if name == "places" else (0.9, 0.999)))
    adam, near = Adam(groups), newcomers.near
    z, (_, narrow) = newcomers.z, seam_widths(newcomers.z.shape[1])
    scale = settings.noise * (atlas.temperature / narrow / z.shape[1]).sqrt()
    for i in range(settings.charts):
        noisy = z + scale * torch.randn(z.shape, generator=generator).to(z)
        y, blend, pairs = _blend(atlas, noisy)
        G, kl = gradient(y.detach(), settings.exaggeration)
        loss = n_total * (G * y).sum()
        choice = torch.randint(near.shape[1], (len(z), 1), generator=generator).to(near.device)
        j = near.gather(1, choice).squeeze(1)
        predicted = directional_derivative(atlas, blend, pairs, z[j] - z)
        error = (y[j] - y).detach() - predicted
        infidelity = (error.square().sum(1) / FIDELITY_SCALE**2).log1p().sum()
        adam.descend(loss + settings.fidelity_weight * infidelity, 1 - i / settings.charts)
        if (i + 1) % RECORD_EVERY == 0:
            journal.record("update charts", i + 1, settings.charts, loss=float(kl))
    atlas.requires_grad_(False)


def _blend(atlas: AtlasProjection, z: Tensor) -> tuple[Tensor, Blend, Pairs]:
    """Places of codes, and what the directional derivative needs."""
    index, active = atlas.support(z)
    row, slot = active.nonzero(as_tuple=True)
    pairs = Pairs(row, index[row, slot], active.sum(1).to(z.dtype))
    return *blend_pairs(atlas, z, pairs), pairs
