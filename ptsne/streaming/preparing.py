"""From lazy rows to the task that the training works on."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import nn

from ptsne import affinities
from ptsne.devices import give_back_memory
from ptsne.lazy import LazyRows
from ptsne.losses import Edges
from ptsne.networks import MapNetwork, identity_standardize
from ptsne.streaming.budget import NEAR, Plan, Sizes, number_of_neighbors, plan_memory
from ptsne.streaming.folding import unfold_network
from ptsne.streaming.reduction import Reduced, reduce_rows
from ptsne.training import Journal, MapSettings, Objective, Task, map_settings


@dataclass(frozen=True)
class Prepared:
    """A task on reduced rows, and the way back.

    Attributes
    ----------
    task : Task
        Reduced rows, neighbours and objective.
    settings : MapSettings
        Within the budget.
    rows : LazyRows
        All columns, in blocks that keep to the budget.
    reduced : Reduced
        How the rows were reduced.
    """

    task: Task
    settings: MapSettings
    rows: LazyRows
    reduced: Reduced

    @property
    def mean(self) -> NDArray[np.float64]:
        """Column means (D,)."""
        return self.reduced.standardize.mean.numpy()

    def unfold(self, network: MapNetwork) -> MapNetwork:
        """The trained network as one of rows in data units."""
        axes, standardize = self.reduced.axes, self.reduced.standardize
        return network if axes is None else unfold_network(network, axes, standardize)


def prepare(
    rows: LazyRows,
    budget: int,
    parameters: Mapping[str, Any],
    neighbors: Any,
    *,
    journal: Journal,
    folder: str,
    random_state: RandomState,
    device: torch.device,
) -> Prepared:
    """Read rows block by block, and set up the training on what is kept of them.

    Parameters
    ----------
    rows : LazyRows
        N rows of D columns.
    budget : int
        Bytes that everything may take.
    parameters : mapping
        Parameters of `ParametricTSNE` by name, with the perplexity that is used.
    neighbors : sparse matrix, (indices, distances), callable or None
        The user's graph, or None to search; a callable is given the search, and gives what that
        finds, or found in an earlier fit.
    journal : Journal
        Receives the records of the training.
    folder : str
        For reduced rows that take too much of the budget.
    random_state : RandomState
        Source of randomness.
    device : torch.device
        Where the training computes.

    Returns
    -------
    Prepared
        What `train_map` needs, and the way back.
    """
    settings = map_settings(rows.shape, parameters)
    given, remember = (None, neighbors) if callable(neighbors) else (neighbors, _found)
    k = _number_of_neighbors(given, parameters["perplexity"], len(rows))
    plan = plan_memory(budget, _sizes(rows, k, settings))
    _warn_of_fewer_landmarks(plan, settings)
    _require_columns(plan, rows.shape[1], parameters, is_given=given is not None)
    file = Path(folder, "rows.float32") if plan.in_file else None
    rows = rows.with_blocks(plan.block_bytes)
    reduced = reduce_rows(rows, plan.rank, file=file, random_state=random_state)
    give_back_memory()
    graph = remember(
        lambda: _graph(
            reduced, given, k, parameters["metric"], random_state=random_state, device=device
        )
    )
    give_back_memory()
    objective = _objective(graph, parameters, device)
    standardize = reduced.standardize
    if reduced.axes is not None:
        standardize = identity_standardize(reduced.X[:1].double())
    generator = torch.Generator().manual_seed(int(random_state.randint(2**31 - 1)))
    near = torch.from_numpy(np.ascontiguousarray(graph.indices[:, :NEAR])).to(device)
    del graph
    give_back_memory()
    standardize = copy.deepcopy(standardize).to(device)  # that of `reduced` stays with the rows
    task = Task(reduced.X.to(device), standardize, near, objective, journal, generator)
    return Prepared(task, _within(settings, plan), rows, reduced)


def _number_of_neighbors(given: Any, perplexity: Any, n_rows: int) -> int:
    """Of each row, at most."""
    if given is None:
        return number_of_neighbors(perplexity, n_rows)
    return affinities.graph_width(given, n_rows)


def _sizes(rows: LazyRows, n_neighbors: int, settings: MapSettings) -> Sizes:
    """What has to be held."""
    return Sizes(
        *rows.shape,
        n_neighbors,
        settings.latent_dim,
        settings.n_landmarks,
        [0, *settings.pretraining.decoder_widths][-1],
        row_bytes=rows.row_bytes,
        chunk_bytes=rows.source.chunk_bytes,
        stored_bytes=rows.dtype.itemsize,
    )


def _found(search: Callable[[], affinities.Neighbors]) -> affinities.Neighbors:
    """What a search finds, or the user has found."""
    return search()


def _within(settings: MapSettings, plan: Plan) -> MapSettings:
    finetuning = replace(settings.finetuning, batch_size=plan.batch_size)
    return replace(settings, finetuning=finetuning, n_landmarks=plan.n_landmarks)


def _warn_of_fewer_landmarks(plan: Plan, settings: MapSettings) -> None:
    if settings.projection == "atlas" and plan.n_landmarks < settings.n_landmarks:
        message = (
            f"the memory_budget holds {plan.n_landmarks} landmarks instead of "
            f"{settings.n_landmarks}: the map will be coarser; raise it, or lower perplexity"
        )
        warnings.warn(message, UserWarning, stacklevel=8)


def _require_columns(
    plan: Plan, n_columns: int, parameters: Mapping[str, Any], *, is_given: bool
) -> None:
    """Refuse what needs all columns of the rows where only some directions are kept."""
    if plan.rank >= n_columns:
        return
    kept = f"the memory_budget keeps {plan.rank} principal directions of {n_columns} columns"
    encoder = parameters["encoder"]
    if encoder is None or isinstance(encoder, nn.Module):
        raise ValueError(
            f"{kept}, and encoder={'None' if encoder is None else 'a module'} takes all columns; "
            'use encoder="autoencoder", or fit without memory_budget'
        )
    if parameters["metric"] == "manhattan" and not is_given:
        raise ValueError(
            f'{kept}, which do not preserve metric="manhattan"; pass neighbors=(indices, '
            'distances) of your own, or use metric="euclidean"'
        )


def _graph(
    reduced: Reduced,
    given: Any,
    k: int,
    metric: str,
    *,
    random_state: RandomState,
    device: torch.device,
) -> affinities.Neighbors:
    """Neighbours: the user's, or those of the reduced rows; distances in data units."""
    if given is not None:
        return affinities.neighbors_from_graph(given, len(reduced.X))
    X = reduced.X.numpy()
    if metric == "cosine":
        found = affinities.search_cells(_directions(reduced), k, random_state=random_state)
        return affinities.Neighbors(found.indices, found.distances**2 / 2)
    if metric == "manhattan" or device.type == "cuda":
        found = affinities.nearest_neighbors(
            X, k, metric=metric, random_state=random_state, device=device
        )
    else:
        found = affinities.search_cells(X, k, random_state=random_state)
    np.multiply(found.distances, float(reduced.standardize.scale), out=found.distances)
    return found


def _directions(reduced: Reduced) -> NDArray[np.float32]:
    """Unit vectors of the rows from zero, not from their mean: (N, r + 1)."""
    standardize, axes = reduced.standardize, reduced.axes
    mean = (standardize.mean / standardize.scale).numpy()
    along = mean if axes is None else axes.numpy() @ mean
    across = np.sqrt(max(0.0, float(mean @ mean - along @ along)))  # the same in all rows
    unit = np.empty((len(reduced.X), len(along) + 1), np.float32)
    for start in range(0, len(unit), 4096):
        part = reduced.X[start : start + 4096].double().numpy() + along
        part = np.column_stack([part, np.full(len(part), across)])
        length = np.linalg.norm(part, axis=1, keepdims=True)
        unit[start : start + 4096] = part / np.where(length > 0, length, 1.0)
    return unit


def _objective(
    graph: affinities.Neighbors, parameters: Mapping[str, Any], device: torch.device
) -> Objective:
    """P as pairs, and the bandwidths that a Gaussian similarity needs."""
    probabilities, widths = affinities.calibrate_by_blocks(graph, parameters["perplexity"])
    pairs = affinities.joint_pairs(graph.indices, probabilities)
    del probabilities
    weight = torch.from_numpy(pairs.weight).to(device)
    edges = Edges(
        torch.from_numpy(pairs.row).to(device),
        torch.from_numpy(pairs.column).to(device),
        weight,
        weight / 2,
        torch.from_numpy(pairs.row_mass).to(device, torch.float32),
        1.0,
        pairs.negative_entropy,
    )
    sigma, unit = None, 1.0
    if parameters["similarity"] == "gaussian":
        unit = float(np.median(widths)) or 1.0
        sigma = torch.from_numpy(widths / unit).to(device, torch.float32)
    return Objective(edges, parameters["dof"], sigma, unit)
