"""Fine-tuning of charts, landmarks, places and encoder on the full-data KL."""

from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ptsne.losses import reconstruction_loss
from ptsne.networks import (
    AtlasProjection,
    Decoder,
    MapNetwork,
    SkipNetwork,
    score_blocks,
)
from ptsne.training.blending import (
    REFRESH,
    Blend,
    Candidates,
    Pairs,
    blend_pairs,
    directional_derivative,
    in_blocks,
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
RECORD_EVERY = 10


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
        self.batches = _batches(task.X, settings.batch_size, task.generator)
        self.candidates = Candidates(settings.n_iterations)
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
            blend_pairs(self.atlas, *block) for block in zip(in_blocks(z), pairs, strict=True)
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
        blocks = zip(blends, pairs, in_blocks(u), strict=True)
        predicted = torch.cat([directional_derivative(self.atlas, *block) for block in blocks])
        error = self.all_y[j] - self.y[index] - predicted
        return (error.square().sum(1) / FIDELITY_SCALE**2).log1p().sum()


@torch.no_grad()
def embed(network: MapNetwork, X: Tensor) -> tuple[Tensor, Tensor]:
    """Codes z (N, L) and map y (N, K) of all rows."""
    z = torch.cat([network.encoder(x) for x in torch.split(X, 4096)])
    blocks = score_blocks(z, len(cast(AtlasProjection, network.projection).landmarks))
    return z, torch.cat([network.projection(part) for part in blocks])


def _batches(X: Tensor, batch_size: int, generator: torch.Generator) -> IndexStream | None:
    """Random batches of rows; None where all rows are one."""
    if len(X) <= batch_size:
        return None
    return IndexStream(len(X), batch_size, generator, X.device)


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
