"""Fine-tuning of charts, landmarks, places and encoder on the full-data KL."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ptsne.losses import reconstruction_loss
from ptsne.networks import (
    AtlasProjection,
    Decoder,
    MapNetwork,
    SkipNetwork,
    best_scores,
    in_slots,
    score_blocks,
    sparsemax_threshold,
)
from ptsne.training.checkpoint import State
from ptsne.training.descent import Adam, Best, Group, IndexStream, learning, linear
from ptsne.training.dropout import DroppedRows, ReducedRows, Window, dropout_rate
from ptsne.training.objective import Task
from ptsne.training.pretraining import principal_axes

FIDELITY_SCALE = 0.3
"""Map units beyond which a wrongly predicted displacement counts logarithmically."""
FIDELITY_SHARE = 0.5
"""Share of the steps, the last ones, that ask for fidelity: there it counts for all of them."""
RANK = 128
"""Principal directions in which a linear encoder of many columns is fine-tuned."""
REFRESH = 10
"""Steps between two searches for landmarks among all; in the second half, at low rates, twice."""
RECORD_EVERY = 10
ROWS_BLENDED = 8192
"""Rows of a CPU's batch that are blended at once: fresh memory costs more than the arithmetic."""
CANDIDATE_MARGIN = 3.0
MOST_CANDIDATES = 8


@dataclass(frozen=True)
class FineTuning:
    """Settings of `finetune_atlas`.

    Parameters
    ----------
    n_iterations : int
        Adam steps.
    exaggeration : float
        Factor on P.
    fidelity_weight : float
        Weight of the fidelity loss.
    reconstruction_weight : float
        Weight of the rows' squared reconstruction error, in standardised units.
    dropout : float
        Energy of the input dropout: its mean squared displacement of a row, in units of the squared
        distance to the tenth neighbour.
    noise : float
        Standard deviation of the noise on z, in units of ``sqrt(T / L)``.
    learning_rate : float
        Factor on all learning rates.
    batch_size : int
        Rows pushed through the network in one step.
    """

    n_iterations: int = 400
    exaggeration: float = 1.0
    fidelity_weight: float = 0.12
    reconstruction_weight: float = 0.0
    dropout: float = 0.7
    noise: float = 2.0
    learning_rate: float = 1.0
    batch_size: int = 65_536


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


def finetune_atlas(network: MapNetwork, task: Task, settings: FineTuning) -> None:
    r"""Push the cached full gradient dKL/dY through the network, in batches of rows.

    .. math::
        L = N \langle dKL/dY, y \rangle
          + w \sum_i \log(1 + |\Delta y - J_i \Delta z|^2 / 0.3^2)

    where the second sum asks the analytic derivative J_i of the projection to predict the
    displacement to a random neighbour.

    Parameters
    ----------
    network : MapNetwork
        With an `AtlasProjection`; trained in place.
    task : Task
        Rows, neighbours, dKL/dY, journal and randomness.
    settings : FineTuning
        Numbers of this phase.
    """
    world = task.world
    rate = dropout_rate(task, settings.dropout)
    task = replace(task, generator=world.own_generator(task.generator))
    settings = replace(settings, batch_size=world.share(settings.batch_size))
    how = rate, settings.batch_size, task.generator
    if not _is_reducible(network.encoder, task, settings):
        _descend(network, task, settings, DroppedRows(task.X, *how))
        return
    encoder = cast(SkipNetwork, network.encoder)
    seed = int(torch.randint(2**31 - 1, (1,), generator=task.generator))
    find = partial(principal_axes, task.X, _rank(encoder), seed=seed, world=world)
    axes = task.journal.checkpoint.once("fine-tuning axes", find).to(task.X)
    rows = ReducedRows(task.X, axes, *how)
    small = _seen_through(encoder, axes)
    reduced = MapNetwork(small, network.projection, network.decoder)
    _descend(reduced, replace(task, X=rows.X), settings, rows)
    with torch.no_grad():
        encoder.linear.weight.copy_(small.linear.weight @ axes)
        encoder.linear.bias.copy_(small.linear.bias)


def _rank(encoder: SkipNetwork) -> int:
    return max(RANK, 2 * len(encoder.linear.weight))


def _is_reducible(encoder: nn.Module, task: Task, settings: FineTuning) -> bool:
    """Whether the encoder is one matrix of many columns, and nothing else looks at them."""
    return (
        isinstance(encoder, SkipNetwork)
        and encoder.branch is None
        and not settings.reconstruction_weight
        and bool(learning(encoder))
        and min(task.world.count(task.X), task.X.shape[1]) > 2 * _rank(encoder)
    )


def _seen_through(encoder: SkipNetwork, axes: Tensor) -> SkipNetwork:
    """The linear encoder of rows that are given along the axes (r, D)."""
    small = SkipNetwork(encoder.linear.weight.detach() @ axes.T).to(axes.device)
    with torch.no_grad():
        small.linear.bias.copy_(encoder.linear.bias)
    return small


def _descend(
    network: MapNetwork, task: Task, settings: FineTuning, inputs: DroppedRows | ReducedRows
) -> None:
    n_steps = settings.n_iterations
    adam = Adam(_parameter_groups(network, settings))
    step = _Step(network, task, settings, inputs)
    trained = [network.encoder, network.projection, *_reconstructing(network, settings)]
    loss_of = task.world.parallel(step, trained, total=True)
    best = Best(network, every=1)

    def now() -> Tensor:
        # the other processes do not take part in a callback: what they told last
        y = step.all_y if task.world.size > 1 else embed(network, task.X)[1]
        return y * task.objective.unit

    with task.journal.interruptible():
        parts = network, adam, best, step
        for iteration in task.journal.steps("fine-tuning", n_steps, *parts, stride=2 * REFRESH):
            recorded = (iteration + 1) % RECORD_EVERY == 0 or iteration + 1 == n_steps
            loss, kl = loss_of(iteration, recorded)
            adam.descend(loss, linear(iteration, n_steps))
            if recorded:
                value = float(kl)
                best.update(value)
                task.journal.record(
                    "fine-tuning", iteration + 1, n_steps, loss=value, kl=value, places=now
                )
    if task.journal.stopped:
        best.restore()


class _Step:
    """Loss of one step, with the codes and places of all rows from their last visit."""

    def __init__(
        self,
        network: MapNetwork,
        task: Task,
        settings: FineTuning,
        inputs: DroppedRows | ReducedRows,
    ) -> None:
        self.network, self.atlas = network, cast(AtlasProjection, network.projection)
        self.task, self.settings = task, settings
        self.inputs = inputs
        self.batches = _batches(len(task.X), settings.batch_size, task.generator)
        self.candidates = _Candidates(settings.n_iterations)
        self.z, self.y = embed(network, task.X)
        self.all_y, self.own = self.y, task.world.rows(task.world.count(self.y))
        n = min(len(self.z), settings.batch_size) * self.z.shape[1]
        self.normals = Window.of_normals(n, self.z, task.generator)

    def __call__(self, iteration: int, with_kl: bool) -> tuple[Tensor, Tensor]:
        """Loss and, if asked for, KL at the next batch."""
        rows = None if self.batches is None else next(self.batches)
        index = slice(None) if rows is None else rows
        code = self.network.encoder(self.inputs(index))
        self.z[index] = code.detach()
        z = code + self._noise(code)
        pairs = self.candidates(self.atlas, z.detach(), iteration, is_fresh=rows is not None)
        y, blends = self._blend(z, pairs)
        self.y[index] = y.detach()
        self.all_y = self.task.world.gather(self.y)
        gradient, kl = self.task.objective.gradient(
            self.all_y, exaggeration=self.settings.exaggeration, with_kl=with_kl
        )
        loss = len(self.all_y) * (gradient[self.own][index] * y).sum()
        is_late = iteration >= (1 - FIDELITY_SHARE) * self.settings.n_iterations
        if self.settings.fidelity_weight and is_late:
            weight = self.settings.fidelity_weight / FIDELITY_SHARE
            loss = loss + weight * self._infidelity(index, pairs, blends)
        if self.settings.reconstruction_weight:
            loss = loss + self.settings.reconstruction_weight * self._misfit(index, code)
        return loss, kl

    def state_dict(self) -> State:
        """What the next step needs if it scores all landmarks; a full batch forgets its codes."""
        state: State = {
            "inputs": self.inputs.state_dict(),
            "generator": self.task.generator.get_state(),
        }
        if self.batches is not None:
            state |= {"batches": self.batches.state_dict(), "z": self.z, "y": self.y}
        return state

    def load_state_dict(self, state: State, /) -> None:
        """Go on from there."""
        self.inputs.load_state_dict(state["inputs"])
        self.task.generator.set_state(state["generator"])
        if self.batches is not None:
            self.batches.load_state_dict(state["batches"])
            self.z.copy_(state["z"])
            self.y.copy_(state["y"])

    def _noise(self, z: Tensor) -> Tensor:
        scale = (self.atlas.temperature / z.shape[1]).sqrt()
        return self.settings.noise * scale * self.normals(z.shape)

    def _blend(self, z: Tensor, pairs: list[Pairs]) -> tuple[Tensor, list[Blend]]:
        blended = [
            blend_pairs(self.atlas, *block) for block in zip(_in_blocks(z), pairs, strict=True)
        ]
        return torch.cat([y for y, _ in blended]), [blend for _, blend in blended]

    def _misfit(self, index: slice | Tensor, z: Tensor) -> Tensor:
        """Squared reconstruction error of the batch."""
        decoder = cast(Decoder, self.network.decoder)
        target = decoder.standardize(self.task.X[index])
        return len(z) * reconstruction_loss(target, decoder.network(z))

    def _infidelity(self, index: slice | Tensor, pairs: list[Pairs], blends: list[Blend]) -> Tensor:
        """Heavy-tailed error of the predicted displacement to one random near neighbour."""
        near = self.task.neighbors[index, :10]
        choice = torch.randint(near.shape[1], (len(near), 1), generator=self.task.generator)
        j = near.gather(1, choice.to(near.device)).squeeze(1)
        u = self.task.world.fetch(self.z, j) - self.z[index]
        blocks = zip(blends, pairs, _in_blocks(u), strict=True)
        predicted = torch.cat([directional_derivative(self.atlas, *block) for block in blocks])
        error = self.all_y[j] - self.y[index] - predicted
        return (error.square().sum(1) / FIDELITY_SCALE**2).log1p().sum()


@torch.no_grad()
def embed(network: MapNetwork, X: Tensor, *, block: int = 4096) -> tuple[Tensor, Tensor]:
    """Codes z (N, L) and map y (N, K) of all rows."""
    z = torch.cat([network.encoder(x) for x in torch.split(X, block)])
    blocks = score_blocks(z, len(cast(AtlasProjection, network.projection).landmarks))
    return z, torch.cat([network.projection(part) for part in blocks])


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


class _Candidates:
    """Active pairs of each block of rows; all landmarks are scored every few steps only."""

    _index: Tensor
    _valid: Tensor

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    @torch.no_grad()
    def __call__(
        self, atlas: AtlasProjection, z: Tensor, iteration: int, *, is_fresh: bool
    ) -> list[Pairs]:
        every = REFRESH if iteration < self.n_steps / 2 else 2 * REFRESH
        if is_fresh or iteration % every == 0:
            self._index, self._valid = _all_candidates(atlas, z)
        blocks = zip(*map(_in_blocks, (z, self._index, self._valid)), strict=True)
        return [_active_pairs(atlas, *block) for block in blocks]


def _in_blocks(batch: Tensor) -> tuple[Tensor, ...]:
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


def _batches(n_rows: int, batch_size: int, generator: torch.Generator) -> IndexStream | None:
    """Random batches of rows; None where all rows are one."""
    return IndexStream(n_rows, batch_size, generator) if n_rows > batch_size else None


def _reconstructing(network: MapNetwork, settings: FineTuning) -> list[nn.Module]:
    """The decoder's network, where it is trained with the map."""
    return [cast(Decoder, network.decoder).network] if settings.reconstruction_weight else []


def _parameter_groups(network: MapNetwork, settings: FineTuning) -> list[Group]:
    """Learning rates: places in map units, landmarks in latent units, charts, encoder."""
    atlas, factor = cast(AtlasProjection, network.projection), settings.learning_rate
    others = learning(network.encoder, *_reconstructing(network, settings))
    return [
        Group([atlas.places], 0.75 * factor, (0.8, 0.999)),
        Group([atlas.landmarks], 0.0375 * float(atlas.temperature.sqrt()) * factor),
        Group([atlas.charts, atlas.shared_chart], 0.0056 * factor),
        Group(others, 2.5e-3 * factor),
    ]
