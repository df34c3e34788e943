"""Training of an ordinary network as projection: learn a t-SNE map, then lower the KL itself."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ptsne.networks import MapNetwork
from ptsne.training.checkpoint import Tensors
from ptsne.training.descent import Adam, Best, Group, IndexStream, cosine, learning
from ptsne.training.objective import Task

RECORD_EVERY = 10
N_PLACED = 10
MODE_STEPS = 12
LARGEST_POOL = 400_000
# Where the heavy tail begins. From the start a row far from its place has to feel it: after 1,500
# steps on 60,000 MNIST rows the KL is .1 lower than from 2.75 map units; on 10,000 it is the same.
FIRST_SCALE = 0.3  # of the map's standard deviation
LAST_SCALE = 1.1  # map units


@dataclass(frozen=True)
class Distillation:
    """Settings of `distil_map`.

    Parameters
    ----------
    n_iterations : int
        Adam steps on the positions of real and synthetic rows.
    n_kl_iterations : int
        Adam steps on the KL that follow.
    exaggeration : float
        Factor on P in those.
    n_synthetic : int
        Synthetic rows for each training row.
    learning_rate : float
        Highest rate; warm-up and cosine decay.
    """

    n_iterations: int = 2000
    n_kl_iterations: int = 400
    exaggeration: float = 1.0
    n_synthetic: int = 20
    learning_rate: float = 4e-3


class SyntheticRows(NamedTuple):
    """Recipes of synthetic rows ``x_i + a (x_j - x_i) + s (x_p - x_q)``, and their positions."""

    rows: Tensor  # (n, 4) int: i, j, p, q
    mix: Tensor  # (n, 2): a, s
    y: Tensor  # (n, K)

    def materialise(self, X: Tensor, index: Tensor) -> Tensor:
        """Rows (B, D) of the recipes `index` (B,)."""
        return _combine(X, self.rows[index], self.mix[index])


def _combine(X: Tensor, rows: Tensor, mix: Tensor) -> Tensor:
    i, j, p, q = (X[r] for r in rows.unbind(1))
    a, s = mix[:, :1], mix[:, 1:]
    mixed: Tensor = i + a * (j - i) + s * (p - q)
    return mixed


def synthetic_rows(
    z: Tensor, Y: Tensor, neighbors: Tensor, n: int, generator: torch.Generator
) -> SyntheticRows:
    """Mix neighbours into new rows, and place each at the mode of its neighbours' positions.

    Parameters
    ----------
    z : Tensor of shape (N, L)
        Coordinates that are linear in the rows (PCA), in which neighbours are searched.
    Y : Tensor of shape (N, K)
        The map to be learned.
    neighbors : int Tensor of shape (N, k)
        Nearest training rows of each row.
    n : int
        Number of synthetic rows.
    generator : torch.Generator
        Draws the recipes.

    Returns
    -------
    SyntheticRows
        Recipes and positions.
    """
    N, k = neighbors.shape
    i = torch.randint(N, (n,), generator=generator).to(z.device)
    pick = torch.randint(min(10, k), (n, 3), generator=generator).to(z.device)
    j, p, q = neighbors[i].gather(1, pick).unbind(1)
    a, s = torch.rand(2, n, generator=generator, dtype=z.dtype).to(z.device)
    half = torch.arange(n, device=z.device) < n // 2
    mix = torch.stack([torch.where(half, 0.0, a), torch.where(half, s, 0.7)], 1).to(z.dtype)
    rows = torch.stack([i, j, p, q], 1)
    scale = 0.8 * map_unit(Y)
    placed = [
        student_mode(Y[_nearest(_combine(z, r, m), r, z, neighbors)], scale)
        for r, m in zip(torch.split(rows, 8192), torch.split(mix, 8192), strict=True)
    ]
    return SyntheticRows(rows, mix, torch.cat(placed))


def _nearest(z: Tensor, rows: Tensor, z_train: Tensor, neighbors: Tensor) -> Tensor:
    """Training rows (B, n) nearest to new codes, among neighbours of the rows they are mixed of."""
    i, j, p, _ = rows.unbind(1)
    near = [i.unsqueeze(1), neighbors[i][:, :30], neighbors[j][:, :15], neighbors[p][:, :15]]
    candidates = torch.cat(near, 1).sort(1).values  # (B, 61)
    distance = (z_train[candidates] - z.unsqueeze(1)).square().sum(2)
    repeated = torch.zeros_like(distance, dtype=torch.bool)
    repeated[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
    distance = distance.masked_fill(repeated, torch.inf)
    n = min(N_PLACED, len(z_train))
    return candidates.gather(1, distance.topk(n, largest=False).indices)


def student_mode(Y: Tensor, scale: float) -> Tensor:
    """Mode of a Student-t kernel density: the position most of the points agree on.

    Parameters
    ----------
    Y : Tensor of shape (B, n, K)
        Points.
    scale : float
        Width of the kernel, in map units.

    Returns
    -------
    Tensor of shape (B, K)
        The mode that twelve reweighting steps reach from the coordinatewise median. A mean would
        lie between islands.
    """
    y = Y.median(1).values
    for _ in range(MODE_STEPS):
        w = 1 / (1 + (Y - y.unsqueeze(1)).square().sum(2, keepdim=True) / scale**2)
        y = (w * Y).sum(1) / w.sum(1)
    return y


def map_unit(Y: Tensor, *, n_rows: int = 1000) -> float:
    """Median distance of a row to its tenth neighbour on the map: the map's own unit of length."""
    step = max(1, len(Y) // n_rows)
    distance = torch.cdist(Y[::step], Y)
    tenth = distance.kthvalue(min(11, len(Y)), dim=1).values
    return float(tenth.median()) or 1.0


def distil_map(
    network: MapNetwork, task: Task, z: Tensor, Y: Tensor, settings: Distillation
) -> None:
    r"""Regress the network on the map `Y` with a heavy-tailed loss, then minimise the KL.

    .. math:: L = \operatorname{mean} \log(1 + |f(x) - y|^2 / c^2)

    which is the attraction of t-SNE to the target as only neighbour. A squared error would put
    rows between islands.

    Parameters
    ----------
    network : MapNetwork
        Trained in place.
    task : Task
        Rows, neighbours, dKL/dY, journal and randomness.
    z : Tensor of shape (N, L)
        Principal components of the rows.
    Y : Tensor of shape (N, K)
        A t-SNE map of the rows.
    settings : Distillation
        Numbers of this phase.
    """
    n = min(settings.n_synthetic * len(z), LARGEST_POOL)
    pool = synthetic_rows(z, Y, task.neighbors, n, task.generator)
    with task.journal.interruptible():
        _regress(network, task, Y, pool, settings)
    if not task.journal.stopped:
        _minimise_kl(network, task, settings)


def _regress(
    network: MapNetwork, task: Task, Y: Tensor, pool: SyntheticRows, settings: Distillation
) -> None:
    """Steps of the heavy-tailed loss on 64 real and 192 synthetic rows each."""
    X, n_steps = task.X, settings.n_iterations
    last = LAST_SCALE * map_unit(Y)
    first = max(FIRST_SCALE * float(Y.std()), last)
    adam = Adam([Group(learning(network), settings.learning_rate)])
    real = IndexStream(len(X), min(64, len(X)), task.generator, X.device)
    synthetic = IndexStream(len(pool.y), 192, task.generator, X.device)
    parts = network, adam, real, synthetic
    for step in task.journal.steps("distillation", n_steps, *parts):
        r, s = next(real), next(synthetic)
        x = torch.cat([X[r], pool.materialise(X, s)])
        y = torch.cat([Y[r], pool.y[s]])
        c = first * (last / first) ** (step / n_steps)
        loss = ((network(x) - y).square().sum(1) / c**2).log1p().mean()
        adam.descend(loss, cosine(step, n_steps))
        if (step + 1) % RECORD_EVERY == 0 or step + 1 == n_steps:
            task.journal.record("distillation", step + 1, n_steps, loss=float(loss.detach()))


def _minimise_kl(network: MapNetwork, task: Task, settings: Distillation) -> None:
    """Exact gradient rows of a batch against the table of all positions."""
    X, n_steps = task.X, settings.n_kl_iterations
    adam = Adam([Group(learning(network), settings.learning_rate / 8)])
    batches = IndexStream(len(X), min(512, len(X)), task.generator, X.device)
    best = Best(network)
    with torch.no_grad():
        table = torch.cat([network(x) for x in torch.split(X, 4096)])
    now = partial(torch.mul, table, task.objective.unit)
    parts = network, adam, best, batches, Tensors(table=table)
    with task.journal.interruptible():
        for step in task.journal.steps("fine-tuning", n_steps, *parts):
            rows = next(batches)
            y = network(X[rows])
            table[rows] = y.detach()
            gradient, kl = task.objective.gradient(table, exaggeration=settings.exaggeration)
            loss = len(X) / len(rows) * (gradient[rows] * y).sum()
            adam.descend(loss, cosine(step, n_steps))
            best.update(float(kl))
            if (step + 1) % RECORD_EVERY == 0 or step + 1 == n_steps:
                value = float(kl)
                task.journal.record(
                    "fine-tuning", step + 1, n_steps, loss=value, kl=value, places=now
                )
    if task.journal.stopped:
        best.restore()
