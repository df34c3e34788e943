"""t-SNE on the places of the landmarks: every row rides on the landmarks that hold it, Y = S V."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ptsne.training.checkpoint import State
from ptsne.training.objective import Task

RECORD_EVERY = 10
STEP_LIMIT = 5.0


@dataclass(frozen=True)
class Attention:
    """Fixed attention S (N, m) of the rows to the landmarks, with equal rows of S taken together.

    Rows on one landmark alone stand at its place; only rows between landmarks have places of their
    own. So N rows have ``n = m + (rows between landmarks)`` places, an order of magnitude fewer.

    Parameters
    ----------
    group : int Tensor of shape (N,)
        Place of each row: the number of its landmark, or m and up between landmarks.
    place, landmark : int Tensor of shape (R,)
        Where the entries of the rows between landmarks stand in S.
    weight : Tensor of shape (R, 1)
        Their values; each row of S sums to 1.
    mass : Tensor of shape (m, 1)
        Column sums of S, at least 1e-3.
    n_places : int
        n.
    """

    group: Tensor
    place: Tensor
    landmark: Tensor
    weight: Tensor
    mass: Tensor
    n_places: int

    @classmethod
    def from_slots(cls, index: Tensor, weights: Tensor, n_landmarks: int) -> "Attention":
        """Build S from padded slots.

        Parameters
        ----------
        index : int Tensor of shape (N, k)
            Landmark of each slot.
        weights : Tensor of shape (N, k)
            Weight of each slot, 0 for padding.
        n_landmarks : int
            m.

        Returns
        -------
        Attention
            On the device of `weights`.
        """
        mass = weights.new_zeros(n_landmarks).index_add_(0, index.flatten(), weights.flatten())
        main = index.gather(1, weights.argmax(1, keepdim=True)).squeeze(1)
        is_between = (weights > 0).sum(1) > 1
        own = n_landmarks + is_between.cumsum(0) - 1
        group = torch.where(is_between, own, main)
        row, slot = (weights * is_between.unsqueeze(1)).nonzero(as_tuple=True)
        return cls(
            group,
            group[row],
            index[row, slot],
            weights[row, slot].unsqueeze(1),
            mass.clamp(min=1e-3).unsqueeze(1),
            n_landmarks + int(is_between.sum()),
        )

    def spread(self, V: Tensor) -> Tensor:
        """All places (n, K): V (m, K), then ``S V`` of the rows between landmarks."""
        terms = self.weight * V.index_select(0, self.landmark)
        between = V.new_zeros(self.n_places, V.shape[1]).index_add_(0, self.place, terms)
        return torch.cat([V, between[len(V) :]])

    def gather(self, G: Tensor) -> Tensor:
        """``(S^T 1)^-1 S^T G`` (m, K): mean over each landmark of a sum `G` (n, K) over places."""
        terms = self.weight * G.index_select(0, self.place)
        return G[: len(self.mass)].index_add(0, self.landmark, terms) / self.mass


@dataclass(frozen=True)
class Schedule:
    """Iterations of one call: early exaggeration first, then the map proper.

    Parameters
    ----------
    early, late : int
        Number of iterations.
    early_exaggeration, exaggeration : float
        Factor on P in each.
    learning_rate : float
        For exaggeration 1; divided by the exaggeration (Belkina et al. 2019).
    """

    early: int
    late: int
    early_exaggeration: float
    exaggeration: float
    learning_rate: float

    def __len__(self) -> int:
        return self.early + self.late

    def factor(self, iteration: int) -> float:
        """Exaggeration at `iteration` (from 0)."""
        return self.early_exaggeration if iteration < self.early else self.exaggeration


class Walk:
    """Places on their way: momentum, gains, and the best so far.

    Parameters
    ----------
    places : Tensor of shape (m, K)
        Start.

    References
    ----------
    van der Maaten and Hinton 2008, section 3.4; Jacobs 1988 (gains).
    """

    def __init__(self, places: Tensor) -> None:
        self.V = places
        self._velocity, self._gains = torch.zeros_like(places), torch.ones_like(places)
        self._best, self._best_kl = places.clone(), float("inf")

    def note(self, kl: float) -> None:
        """Keep these places if none had a lower KL."""
        if kl < self._best_kl:
            self._best, self._best_kl = self.V.clone(), kl

    def move(self, step: Tensor, rate: float) -> None:
        """One step against `step` (m, K)."""
        gains = torch.where(step * self._velocity > 0, self._gains * 0.8, self._gains + 0.2)
        self._gains = gains.clamp_(min=0.01)
        velocity = 0.8 * self._velocity - rate * self._gains * step
        self._velocity = velocity.clamp_(-STEP_LIMIT, STEP_LIMIT)
        self.V = self.V + self._velocity

    @property
    def result(self) -> Tensor:
        """The best places, or the last where none were noted."""
        return self._best if self._best_kl < float("inf") else self.V

    def state_dict(self) -> State:
        """Everything that the next step depends on."""
        return vars(self)

    def load_state_dict(self, state: State, /) -> None:
        """Go on from there."""
        device = self.V.device
        for name, value in state.items():
            setattr(self, name, value.to(device) if isinstance(value, Tensor) else value)


def optimise_places(
    places: Tensor, attention: Attention | None, schedule: Schedule, task: Task
) -> Tensor:
    r"""Gradient descent with momentum and gains on the places V of the landmarks.

    .. math:: V \leftarrow V - \eta\, (S^T 1)^{-1} S^T\, dKL/dY, \qquad Y = S V

    The division by the landmark mass makes t-SNE's usual step valid for V.

    Parameters
    ----------
    places : Tensor of shape (m, K)
        Start, in map units; overwritten.
    attention : Attention or None
        S; None means that every row is its own landmark (ordinary t-SNE).
    schedule : Schedule
        Exaggeration and step.
    task : Task
        Gives dKL/dY and receives a record every ten iterations.

    Returns
    -------
    Tensor of shape (m, K)
        The best places found (lowest KL after the exaggeration).
    """
    walk, n_iterations = Walk(places), len(schedule)
    objective = task.objective
    if attention is not None:
        objective = objective.grouped(attention.group, attention.n_places)
    with task.journal.interruptible():
        for iteration in task.journal.steps("places", n_iterations, walk):
            exaggeration = schedule.factor(iteration)
            Y = walk.V if attention is None else attention.spread(walk.V)
            recorded = (iteration + 1) % RECORD_EVERY == 0 or iteration + 1 == n_iterations
            gradient, kl = objective.gradient(Y, exaggeration=exaggeration, with_kl=recorded)
            step = gradient if attention is None else attention.gather(gradient)
            if recorded:
                value = float(kl)
                if iteration >= schedule.early:
                    walk.note(value)
                rows = Y if attention is None else Y.index_select(0, attention.group)
                now = partial(torch.mul, rows, objective.unit)
                task.journal.record(
                    "places", iteration + 1, n_iterations, loss=value, kl=value, places=now
                )
            walk.move(step, schedule.learning_rate / exaggeration)
            walk.V -= walk.V.mean(0)
    return walk.result
