"""Training of a whole map: autoencoder, places, fine-tuning, decoder."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ptsne.networks import (
    AtlasProjection,
    Decoder,
    MapNetwork,
    Scale,
    SkipNetwork,
    Standardize,
    identity_standardize,
    relu_network,
    scale_output,
    with_standardisation,
)
from ptsne.training.descent import learning, private_randomness
from ptsne.training.distillation import Distillation, distil_map
from ptsne.training.distributed import World
from ptsne.training.finetuning import FineTuning, finetune_atlas
from ptsne.training.landmarks import calibrate_temperature, choose_landmarks, seam_widths
from ptsne.training.objective import Task
from ptsne.training.places import Attention, Schedule, optimise_places
from ptsne.training.pretraining import (
    PreTraining,
    fit_decoder,
    pretrain_autoencoder,
    principal_axes,
)

N_ACTIVE = 1.1
"""Landmarks that hold a new row on average: charts, not interpolation, carry the position."""
START_SPREAD = 1e-4
"""Standard deviation of the PCA start, in map units (Kobak and Berens 2019)."""


@dataclass(frozen=True)
class MapSettings:
    """Everything `train_map` needs to know, resolved to numbers.

    Parameters
    ----------
    n_components, latent_dim, n_landmarks : int
        Sizes K, L and m.
    encoder : sequence of int, nn.Module or None
        ReLU widths of the autoencoder's branch (empty: linear), a network, or raw columns.
    projection : "atlas", sequence of int or nn.Module
        The atlas, ReLU widths, or a network.
    schedule : Schedule
        Iterations of the places.
    finetuning : FineTuning
        Adam steps on an atlas.
    distillation : Distillation
        AdamW steps on any other projection.
    pretraining : PreTraining
        The autoencoder.
    clip : float
        Reach of a chart, in map units.
    """

    n_components: int
    latent_dim: int
    n_landmarks: int
    encoder: Sequence[int] | nn.Module | None
    projection: str | Sequence[int] | nn.Module
    schedule: Schedule
    finetuning: FineTuning
    distillation: Distillation
    pretraining: PreTraining
    clip: float = 8.0


def train_map(task: Task, settings: MapSettings) -> tuple[MapNetwork, Tensor]:
    """Train encoder, projection and decoder on the full-data KL.

    Parameters
    ----------
    task : Task
        Rows, neighbours, objective, journal and randomness; torch's global generators are left as
        they were.
    settings : MapSettings
        Sizes and numbers.

    Returns
    -------
    network : MapNetwork
        Trained, in eval mode.
    landmark_rows : int Tensor of shape (m,)
        Training row nearest to each landmark; empty without an atlas.
    """
    with private_randomness(task.generator, task.X.device), ExitStack() as watched:
        encoder, decoder, axes = _autoencoder(task, settings, watched)
        network = MapNetwork(encoder, nn.Identity(), decoder)
        z = _codes(encoder, task.X)
        if settings.projection == "atlas":
            rows = _train_atlas(network, task, z, settings)
        else:
            rows = torch.empty(0, dtype=torch.long)
            pca = _blocks(decoder.standardize, task.X) @ axes.T
            _train_other(network, task, z, pca, settings)
        if not task.journal.stopped:
            rows_and_codes = (_codes(encoder, task.X), task.X)
            fit_decoder(rows_and_codes, decoder, settings.pretraining, task.journal, task.generator)
    if not isinstance(settings.encoder, nn.Module):
        network.encoder = with_standardisation(task.standardize, encoder)
        decoder.standardize = copy.deepcopy(task.standardize)
    if task.objective.unit != 1:
        scale_output(network, task.objective.unit)
    task.world.align(network)
    return network.eval(), rows.cpu()


@torch.no_grad()
def _blocks(layer: nn.Module, X: Tensor) -> Tensor:
    """Apply a layer to all rows."""
    return torch.cat([layer(x) for x in torch.split(X, 4096)])


def _codes(encoder: nn.Module, X: Tensor) -> Tensor:
    z = _blocks(encoder, X)
    _require_codes(z, X)
    return z


def _autoencoder(
    task: Task, settings: MapSettings, watched: ExitStack
) -> tuple[nn.Module, Decoder, Tensor]:
    """Encoder and decoder, pre-trained where there is anything to learn, and principal axes."""
    X, encoder = task.X, settings.encoder
    is_own = not isinstance(encoder, nn.Module)
    standardize = identity_standardize(X) if is_own else copy.deepcopy(task.standardize).to(X.dtype)
    seed = int(torch.randint(2**31 - 1, (1,), generator=task.generator))
    n_axes = min(settings.latent_dim, X.shape[1])
    rows = _blocks(standardize, X)
    find = partial(principal_axes, rows, n_axes, seed=seed, world=task.world)
    axes = task.journal.checkpoint.once("axes", find).to(X)
    network: nn.Module
    if isinstance(encoder, nn.Module):
        network = copy.deepcopy(encoder).to(X.device, X.dtype)
        task.journal.checkpoint.start("encoder", network)
        linear = _first_decoder(network, X, standardize, task.world)
        watched.enter_context(_same_width(network, "encoder", linear.shape[1]))
    elif encoder is None:
        network, linear = nn.Identity(), torch.eye(X.shape[1]).to(X)
    else:
        network, linear = SkipNetwork(axes, encoder).to(X.device), axes.T
    decoder = Decoder(SkipNetwork(linear, settings.pretraining.decoder_widths), standardize)
    decoder.to(X.device)
    if learning(network) and (not is_own or encoder):
        network.train()
        pretrain_autoencoder((network, decoder), settings.pretraining, task)
    return network.eval(), decoder, axes


def _first_decoder(encoder: nn.Module, X: Tensor, standardize: Standardize, world: World) -> Tensor:
    """Least-squares start (D, L) of the linear decoder of a user's encoder."""
    with torch.no_grad():
        sample = X[:: max(1, len(X) // 2000)]
        z = _try(encoder, sample)
        _require_codes(z, sample)
        ridge = 1e-3 * z.square().mean() * torch.eye(z.shape[1]).to(z)
        squares, products = z.T @ z / len(z) + ridge, z.T @ standardize(sample) / len(z)
        start: Tensor = torch.linalg.solve(world.sum(squares), world.sum(products)).T
    return start


def _try(encoder: nn.Module, X: Tensor) -> Tensor:
    """Codes of rows from a user's encoder, or a ValueError that says what it was given."""
    try:
        z: Tensor = encoder.eval()(X)
    except RuntimeError as error:
        raise ValueError(
            f"the encoder does not accept rows of {X.shape[1]} columns ({error}); it is called "
            "with (B, D): start it with nn.Unflatten for images, or change its first layer"
        ) from error
    return z


def _require_codes(z: Tensor, X: Tensor) -> None:
    """Raise ValueError unless z is one finite vector a row."""
    if z.ndim != 2 or len(z) != len(X):
        raise ValueError(
            f"the encoder must map rows (B, {X.shape[1]}) to codes (B, L); for {len(X)} rows it "
            f"returned shape {tuple(z.shape)}; end it with nn.Flatten() or a linear layer"
        )
    if not bool(torch.isfinite(z).all()):
        raise ValueError("the encoder returned NaN or infinite codes; check its weights")


@contextmanager
def _same_width(module: nn.Module, role: str, width: int) -> Iterator[None]:
    """Raise ValueError where a module returns other than (B, width) while it is trained."""

    def hold(module: nn.Module, rows: tuple[Any, ...], returned: Tensor) -> None:
        wanted = (len(rows[0]), width)
        if returned.shape != wanted:
            raise ValueError(
                f"the {role} {type(module).__name__} changed its shape during fit: it returned "
                f"{tuple(returned.shape)} where it returned {wanted} before; it must give each row "
                f"{width} numbers, in training mode as in evaluation mode"
            )

    handle = module.register_forward_hook(hold)
    try:
        yield
    finally:
        handle.remove()


def _train_atlas(network: MapNetwork, task: Task, z: Tensor, settings: MapSettings) -> Tensor:
    """Landmarks, their places, then charts and encoder; returns the landmarks' rows."""
    K, rows, kept_out = choose_landmarks(z, settings.n_landmarks, task.generator, task.world)
    temperature = calibrate_temperature(kept_out, K, N_ACTIVE)
    atlas = AtlasProjection(K, settings.n_components, temperature=temperature, clip=settings.clip)
    network.projection = atlas
    index, weights = _all_slots(atlas, z, task.world)
    attention = Attention.from_slots(index, weights, len(K))
    places = pca_start(K, settings.n_components)
    if not task.journal.stopped:
        places = optimise_places(places, attention, settings.schedule, task)
    with torch.no_grad():
        atlas.places.copy_(places)
    if not task.journal.stopped:
        wide, narrow = seam_widths(z.shape[1])
        atlas.temperature.fill_(wide * temperature)  # teaches the charts on both sides of a seam
        finetune_atlas(network, task, settings.finetuning)
        atlas.temperature.fill_(narrow * temperature)  # places new rows, and tells their W
    return rows


def _all_slots(atlas: AtlasProjection, z: Tensor, world: World) -> list[Tensor]:
    """Landmarks of all processes' rows, and how heavily they hold these: (N, k) each."""
    slots = atlas.landmark_weights(z)
    width = int(world.largest(z.new_tensor(slots[0].shape[1])))
    return [world.gather(nn.functional.pad(t, (0, width - t.shape[1]))) for t in slots]


def _train_other(
    network: MapNetwork, task: Task, z: Tensor, pca: Tensor, settings: MapSettings
) -> None:
    """Ordinary t-SNE of the rows, then a network that learns it.

    Of several processes each sees all rows and takes the same steps, for the network's batches are
    small; they share the work of dKL/dY.
    """
    z, pca, X, neighbors = (task.world.gather(t) for t in (z, pca, task.X, task.neighbors))
    task = replace(task, X=X, neighbors=neighbors)
    projection = _projection(settings, z)
    task.journal.checkpoint.start("projection", projection)
    _require_places(projection, z, settings.n_components)
    Y = pca_start(z, settings.n_components)
    if not task.journal.stopped:
        Y = optimise_places(Y, None, settings.schedule, task)
    network.projection = nn.Sequential(projection, Scale(float(Y.std()) / 3.6)).to(z.device)
    if not task.journal.stopped:
        network.projection.train()
        with _same_width(projection, "projection", settings.n_components):
            distil_map(network, task, pca, Y, settings.distillation)


def _projection(settings: MapSettings, z: Tensor) -> nn.Module:
    """The ReLU network asked for, or a copy of the user's."""
    if isinstance(settings.projection, nn.Module):
        return copy.deepcopy(settings.projection).to(z.device, z.dtype)
    widths = cast(Sequence[int], settings.projection)
    return relu_network((z.shape[1], *widths, settings.n_components)).to(z.device, z.dtype)


def _require_places(projection: nn.Module, z: Tensor, n_components: int) -> None:
    """Raise ValueError unless the projection takes codes and ends in the map's dimension."""
    try:
        with torch.no_grad():
            shape = tuple(projection.eval()(z[:2]).shape)
    except RuntimeError as error:
        raise ValueError(
            f"the projection does not accept codes of {z.shape[1]} columns ({error}); "
            "change its first layer, or latent_dim"
        ) from error
    if shape != (len(z[:2]), n_components):
        raise ValueError(
            f"the projection must map codes (B, {z.shape[1]}) to (B, {n_components}); for 2 rows "
            f"it returned shape {shape}; change its last layer or n_components"
        )


def pca_start(z: Tensor, n_components: int) -> Tensor:
    """First principal components (B, n_components) of codes, shrunk to a small start."""
    centred = z - z.mean(0)
    _, _, axes = torch.linalg.svd(centred.double(), full_matrices=False)
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    y = centred @ axes[:n_components].T.to(z.dtype)
    y = nn.functional.pad(y, (0, n_components - y.shape[1]))
    spread = y.std(0, correction=0).max()
    return y * (START_SPREAD / spread) if spread > 0 else y
