"""The autoencoder before the map: PCA start, then reconstruction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ptsne.losses import reconstruction_loss
from ptsne.networks import LATENT_RADIUS, Decoder
from ptsne.training.descent import Adam, Group, IndexStream, cosine, learning
from ptsne.training.distributed import ALONE, World
from ptsne.training.objective import Task
from ptsne.training.progress import Journal

LARGEST_COVARIANCE = 8192
"""Columns up to which a GPU takes all axes of the covariance rather than some of the rows."""


def principal_axes(X: Tensor, n_components: int, *, seed: int, world: World = ALONE) -> Tensor:
    """Principal axes (n_components, D) of standardised rows, orthonormal, sign-fixed.

    Parameters
    ----------
    X : Tensor of shape (N, D)
        Centred rows, of several processes one's own.
    n_components : int
        At most D; axes beyond the rank of the data are completed to an orthonormal set.
    seed : int
        For the randomised solver on wide data.
    world : World
        The processes; of several, each adds its part of the covariance.

    Returns
    -------
    Tensor of shape (n_components, D)
        Rows are axes.
    """
    rank = min(n_components, world.count(X), X.shape[1])
    if not bool(world.largest(X.abs().max())):
        return torch.eye(n_components, X.shape[1]).to(X)  # all rows are equal
    if world.size == 1 and (X.device.type == "cpu" or X.shape[1] > LARGEST_COVARIANCE):
        axes = PCA(rank, random_state=seed).fit(X.cpu().numpy()).components_
    else:
        axes = _axes_of_covariance(X, world)[:rank]
    if rank < n_components:
        axes = _complete_basis(axes, n_components)
    return torch.from_numpy(np.ascontiguousarray(axes)).to(X)


def _axes_of_covariance(X: Tensor, world: World) -> NDArray[np.floating]:
    """All principal axes (D, D), the widest first, from the covariance of all processes' rows."""
    mean = world.sum(X.double().sum(0)) / world.count(X)
    parts = (part.double() - mean for part in torch.split(X, 4096))
    _, axes = torch.linalg.eigh(world.sum(sum((part.T @ part for part in parts), 0 * mean)))
    axes = axes.flip(1).T
    found: NDArray[np.floating] = (
        (axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()).cpu().numpy()
    )
    return found


def _complete_basis(axes: NDArray[np.floating], n: int) -> NDArray[np.floating]:
    """Append orthonormal rows until there are `n`."""
    basis, _ = np.linalg.qr(np.vstack([axes, np.eye(axes.shape[1])]).T)
    return np.vstack([axes, basis.T[len(axes) : n]])


@dataclass(frozen=True)
class PreTraining:
    """Settings of the reconstruction training.

    Parameters
    ----------
    widths : sequence of int
        ReLU widths of the encoder's branch; empty for a linear encoder.
    decoder_widths : sequence of int
        ReLU widths of the decoder's branch.
    rows : int
        Rows seen in all; a number of epochs follows.
    largest_epochs : int
        Bound on that number.
    batch_size : int
        Rows of a step.
    learning_rate : float
        Adam's, warm-up and cosine decay.
    noise : float
        Standard deviation of the denoising noise, in units of the rows' own.
    """

    widths: Sequence[int] = ()
    decoder_widths: Sequence[int] = (256,)
    rows: int = 60_000
    largest_epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-3
    noise: float = 0.3


def pretrain_autoencoder(
    autoencoder: tuple[nn.Module, Decoder], settings: PreTraining, task: Task
) -> None:
    """Train encoder and decoder to reconstruct rows from noisy rows.

    Parameters
    ----------
    autoencoder : (nn.Module, Decoder)
        x -> z and z -> x, trained in place.
    settings : PreTraining
        Sizes and rates.
    task : Task
        Rows, journal and randomness.

    References
    ----------
    Vincent et al. 2010, Stacked denoising autoencoders.
    """
    X = task.X
    encoder, decoder = autoencoder
    noise = settings.noise * decoder.standardize.scale * LATENT_RADIUS / X.shape[1] ** 0.5

    def loss(rows: Tensor) -> Tensor:
        x = X[rows]
        normal = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        code = encoder(x + noise * normal)
        return reconstruction_loss(decoder.standardize(x), decoder.network(code))

    generator = task.world.own_generator(task.generator)
    regression = _Regression("pre-training", len(X), settings, task.journal, generator)
    regression.run(loss, [encoder, decoder.network])


def fit_decoder(
    rows: tuple[Tensor, Tensor],
    decoder: Decoder,
    settings: PreTraining,
    journal: Journal,
    generator: torch.Generator,
    *,
    phase: str = "decoder",
) -> None:
    """Train a decoder on fixed codes.

    Parameters
    ----------
    rows : (Tensor of shape (N, L), Tensor of shape (N, D))
        Codes, and the rows to reconstruct from them, in data units.
    decoder : Decoder
        Trained in place.
    settings : PreTraining
        Rates.
    journal : Journal
        Receives about a hundred records.
    generator : torch.Generator
        Order of rows.
    phase : str
        Name in the records.
    """
    codes, X = rows

    def loss(rows: Tensor) -> Tensor:
        return reconstruction_loss(decoder.standardize(X[rows]), decoder.network(codes[rows]))

    generator = journal.world.own_generator(generator)
    _Regression(phase, len(X), settings, journal, generator).run(loss, [decoder.network])


@dataclass(frozen=True)
class _Regression:
    """Adam on random batches of rows."""

    phase: str
    n_rows: int
    settings: PreTraining
    journal: Journal
    generator: torch.Generator

    def run(self, loss_of: Callable[[Tensor], Tensor], parts: Sequence[nn.Module]) -> None:
        settings, world = self.settings, self.journal.world
        n_rows = world.count(range(self.n_rows))
        batch = min(settings.batch_size, n_rows)
        seen = min(settings.rows, settings.largest_epochs * n_rows)
        n_steps = max(1, seen // batch)
        learned = nn.ModuleList(parts)
        adam = Adam([Group(learning(learned), settings.learning_rate)])
        loss_of = world.parallel(loss_of, parts)
        device = next(learned.parameters()).device
        stream = IndexStream(self.n_rows, world.share(batch), self.generator, device)
        every = max(1, n_steps // 100)
        with self.journal.interruptible():
            for step in self.journal.steps(self.phase, n_steps, learned, adam, stream):
                loss = loss_of(next(stream))
                adam.descend(loss, cosine(step, n_steps))
                if (step + 1) % every == 0 or step + 1 == n_steps:
                    value = float(world.mean(loss.detach()[None]))
                    self.journal.record(self.phase, step + 1, n_steps, loss=value)
