"""The t-SNE problem as the optimisers see it: rows, neighbours, and the full-data objective."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ptsne.losses import Edges, gaussian_kl_gradient, kl_gradient
from ptsne.networks import Standardize
from ptsne.repulsion import RepulsionEngine
from ptsne.training.distributed import ALONE, World
from ptsne.training.progress import Journal


@dataclass(frozen=True)
class Objective:
    """dKL/dY of the full data for the chosen similarity.

    Parameters
    ----------
    edges : Edges
        The joint probabilities P.
    dof : float
        Degrees of freedom of the Student-t similarity.
    sigma : Tensor of shape (N,) or None
        High-dimensional bandwidths; given, the similarity is the Gaussian of Li et al. 2023, eq. 7.
    unit : float
        Map units per unit in which the map is trained: a Gaussian map has the size of its
        bandwidths, and step sizes are stated for bandwidths near 1.
    world : World
        Of several processes, each holds the edges of its own rows; for the Gaussian, all edges.
    count : Tensor of shape (N,) or None
        Rows that stand at each of N places, where `edges` are of places.
    group : int Tensor of shape (N,) or None
        Place of each row, where `edges` are of rows all the same (Gaussian similarity).
    """

    edges: Edges
    dof: float = 1.0
    sigma: Tensor | None = None
    unit: float = 1.0
    world: World = ALONE
    count: Tensor | None = None
    group: Tensor | None = None

    def grouped(self, group: Tensor, n_groups: int) -> "Objective":
        """The same objective for rows that stand together: exact, of fewer places and pairs.

        Parameters
        ----------
        group : int Tensor of shape (N,)
            Number of the place of each row.
        n_groups : int
            Places.

        Returns
        -------
        Objective
            Its gradient is the sum over the rows of each place.
        """
        if self.sigma is not None:  # rows at one place differ in their bandwidths
            return replace(self, group=group)
        count = torch.bincount(group, minlength=n_groups).to(self.edges.weight)
        return replace(self, edges=self.edges.grouped(group, n_groups), count=count)

    @cached_property
    def _engine(self) -> RepulsionEngine:
        """Keeps the transform of the kernel from step to step."""
        return RepulsionEngine(dof=self.dof)

    def gradient(
        self, Y: Tensor, *, exaggeration: float = 1.0, with_kl: bool = True
    ) -> tuple[Tensor, Tensor]:
        """dKL/dY (N, K) with exaggerated P, and the KL with P as it is.

        Parameters
        ----------
        Y : Tensor of shape (N, K)
            The map.
        exaggeration : float
            Factor on P in the gradient.
        with_kl : bool
            Whether the KL is needed; it may be NaN otherwise.

        Returns
        -------
        gradient : Tensor of shape (N, K)
            In nats per map unit.
        kl : Tensor of shape ()
            KL(P || Q) in nats.
        """
        if self.sigma is not None:
            return self._gaussian_gradient(Y, self.sigma, exaggeration)
        gradient, kl = kl_gradient(
            self.edges,
            Y,
            exaggeration=exaggeration,
            dof=self.dof,
            engine=self._engine,
            with_kl=with_kl,
            count=self.count,
        )
        return self.world.sum(gradient), self.world.sum(kl)

    def _gaussian_gradient(
        self, Y: Tensor, sigma: Tensor, exaggeration: float
    ) -> tuple[Tensor, Tensor]:
        places, Y = Y, Y if self.group is None else Y.index_select(0, self.group)
        gradient, kl = gaussian_kl_gradient(self.edges, Y, sigma, exaggeration=exaggeration)
        if self.group is not None:
            gradient = torch.zeros_like(places).index_add_(0, self.group, gradient)
        return gradient, kl + math.log(len(Y))  # Q has mass 1 in each row, P in all


@dataclass(frozen=True)
class Task:
    """Training rows, what their map is asked to do, and the company of the training.

    Parameters
    ----------
    X : Tensor of shape (N, D)
        Training rows, of several processes one's own; standardised, except for a user's encoder.
    standardize : Standardize
        From data units to standardised units.
    neighbors : int Tensor of shape (N, k)
        Nearest neighbours of these, nearest first, numbered over all rows.
    objective : Objective
        Gives dKL/dY.
    journal : Journal
        Receives records.
    generator : torch.Generator
        Source of all randomness.
    world : World
        The processes that train.
    """

    X: Tensor
    standardize: Standardize
    neighbors: Tensor
    objective: Objective
    journal: Journal
    generator: torch.Generator
    world: World = ALONE
