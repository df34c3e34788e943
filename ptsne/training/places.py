"""t-SNE on the places of the landmarks: every row rides on the landmarks that hold it, Y = S V."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ptsne.training.objective import Task

RECORD_EVERY = 10
STEP_LIMIT = 5.0


@dataclass(frozen=True)
class Attention:
    """Fixed attention S (N, m) of the rows to the landmarks, as its non-zero entries.

    Parameters
    ----------
    row, landmark : int Tensor of shape (R,)
        Where the entries stand.
    weight : Tensor of shape (R,)
        Their values; each row of S sums to 1.
    mass : Tensor of shape (m, 1)
        Column sums of S, at least 1e-3.
    """

    row: Tensor
    landmark: Tensor
    weight: Tensor
    mass: Tensor

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
        row, slot = weights.nonzero(as_tuple=True)
        landmark, weight = index[row, slot], weights[row, slot]
        mass = weight.new_zeros(n_landmarks).index_add_(0, landmark, weight)
        return cls(row, landmark, weight.unsqueeze(1), mass.clamp(min=1e-3).unsqueeze(1))

    def spread(self, V: Tensor, n_rows: int) -> Tensor:
        """``S V`` (N, K): where the places `V` (m, K) put the rows."""
        terms = self.weight * V.index_select(0, self.landmark)
        return V.new_zeros(n_rows, V.shape[1]).index_add_(0, self.row, terms)

    def gather(self, G: Tensor) -> Tensor:
        """``(S^T 1)^-1 S^T G`` (m, K): mean of a row quantity `G` (N, K) over each landmark."""
        terms = self.weight * G.index_select(0, self.row)
        return (
            G.new_zeros(len(self.mass), G.shape[1]).index_add_(0, self.landmark, terms) / self.mass
        )


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

    References
    ----------
    van der Maaten and Hinton 2008, section 3.4; Jacobs 1988 (gains).
    """
    V, n_iterations = places, len(schedule)
    velocity, gains = torch.zeros_like(V), torch.ones_like(V)
    best, best_kl = V.clone(), float("inf")
    with task.journal.interruptible():
        for iteration in range(n_iterations):
            exaggeration = schedule.factor(iteration)
            Y = V if attention is None else attention.spread(V, task.world.count(task.X))
            recorded = (iteration + 1) % RECORD_EVERY == 0 or iteration + 1 == n_iterations
            gradient, kl = task.objective.gradient(Y, exaggeration=exaggeration, with_kl=recorded)
            step = gradient if attention is None else attention.gather(gradient)
            gains = torch.where(step * velocity > 0, gains * 0.8, gains + 0.2).clamp_(min=0.01)
            rate = schedule.learning_rate / exaggeration
            velocity = 0.8 * velocity - rate * gains * step
            velocity = velocity.clamp_(-STEP_LIMIT, STEP_LIMIT)
            if recorded:
                value = float(kl)
                if iteration >= schedule.early and value < best_kl:
                    best, best_kl = V.clone(), value
                now = partial(torch.mul, Y, task.objective.unit)
                task.journal.record(
                    "places", iteration + 1, n_iterations, loss=value, kl=value, places=now
                )
            V = V + velocity
            V -= V.mean(0)
    return best if best_kl < float("inf") else V
