"""Fitting with all rows in memory, in one process or in several."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_random_state
from torch import nn

from ptsne import affinities, persistence
from ptsne.devices import is_gpu
from ptsne.fitting.learned import Learned, Model, keep, store
from ptsne.fitting.perplexity import NEIGHBORS_PER_PERPLEXITY, lower_perplexity
from ptsne.losses import Edges
from ptsne.networks import fit_standardize, standardized_float32
from ptsne.rows import Rows, as_matrix, float32_copy, part_of
from ptsne.training import (
    INTERRUPTED,
    Checkpoint,
    Journal,
    Objective,
    Randomness,
    Task,
    World,
    map_settings,
    own_entries,
    shared_neighbors,
    train_map,
)

NEAR = 30
"""Neighbours of a row that the training looks at beside P."""


class Setting(NamedTuple):
    """What a fit is about.

    Attributes
    ----------
    rows : ndarray or SparseRows of shape (N, D)
        Training rows.
    parameters : dict
        Of the estimator, with the perplexity that is used.
    device : torch.device
        Where this process computes.
    world : World
        The processes.
    """

    rows: Rows
    parameters: dict[str, Any]
    device: torch.device
    world: World


def fit_rows(
    model: Model,
    rows: Rows,
    y: Any,
    neighbors: Any,
    *,
    journal: Journal,
    device: torch.device,
) -> Callable[[], None]:
    """Train on rows that are in memory.

    Parameters
    ----------
    model : Model
        Receives the learned attributes.
    rows : ndarray or SparseRows of shape (N, D)
        Training rows, the same in every process.
    y : array-like of shape (N,) or None
        Classes, used where ``target_weight`` is above 0.
    neighbors : sparse matrix, (indices, distances) or None
        The user's graph, or None to search.
    journal : Journal
        Receives the records, and knows the processes.
    device : torch.device
        Where to train.

    Returns
    -------
    callable
        Deletes the checkpoint of a complete fit.
    """
    world, n_rows = journal.world, len(rows)
    stored = model.get_params(deep=False)
    classes = affinities.class_numbers(y, n_rows) if stored["target_weight"] else None
    rng = check_random_state(stored["random_state"])
    seed = world.same(int(rng.randint(2**31 - 1)))
    model._mean = rows.mean(0, dtype=np.float64)
    model.perplexity_ = lower_perplexity(stored["perplexity"], n_rows)
    setting = Setting(rows, {**stored, "perplexity": model.perplexity_}, device, world)
    settings = map_settings(rows.shape, stored)
    given = None if neighbors is None else affinities.neighbors_from_graph(neighbors, n_rows)
    file = persistence.open_checkpoint(
        stored, (as_matrix(rows), given, classes), device, (seed, rng), world
    )
    generator = torch.Generator().manual_seed(file.seed)
    graph = given or file.neighbors(partial(_neighbors, setting, file.rng))
    journal.checkpoint = Checkpoint(file.store, journal, Randomness(generator, device), world)
    P = world.once(lambda: _probabilities(setting, graph, classes, file.rng))
    task = _task(setting, graph, P, journal, generator)
    network, landmark_rows = train_map(task, settings)
    store(model, rows, Learned(network.cpu(), landmark_rows, journal, task.objective))
    return keep if journal.stopped == INTERRUPTED else file.remove


def _neighbors(setting: Setting, rng: RandomState) -> affinities.Neighbors:
    """Neighbours of the training rows."""
    rows, parameters, device, world = setting
    X, metric = as_matrix(rows), parameters["metric"]
    largest = float(np.max(parameters["perplexity"]))
    k = max(1, min(len(rows) - 1, int(NEIGHBORS_PER_PERPLEXITY * largest)))
    if world.size > 1 and affinities.is_searched_exactly(X, metric=metric, device=device):
        return shared_neighbors(X, k, metric, device, world)
    return world.once(
        lambda: affinities.nearest_neighbors(X, k, metric=metric, random_state=rng, device=device)
    )


def _probabilities(
    setting: Setting,
    graph: affinities.Neighbors,
    classes: NDArray[np.int64] | None,
    rng: RandomState,
) -> sparse.csr_array | affinities.TensorPairs:
    """Joint probabilities P (N, N), of neighbours alone or of classes too."""
    rows, parameters, device, _ = setting
    perplexity = parameters["perplexity"]
    if is_gpu(device) and classes is None and not parameters["distributed"]:
        return affinities.tensor_pairs(graph, perplexity, device=device)
    if classes is None:
        return affinities.joint_probabilities(graph, perplexity)
    return affinities.supervised_probabilities(
        as_matrix(rows),
        graph,
        perplexity,
        classes,
        parameters["target_weight"],
        metric=parameters["metric"],
        random_state=rng,
        device=device,
    )


def _task(
    setting: Setting,
    graph: affinities.Neighbors,
    P: sparse.csr_array | affinities.TensorPairs,
    journal: Journal,
    generator: torch.Generator,
) -> Task:
    """Data and objective on the device."""
    rows, parameters, device, world = setting
    own = world.rows(len(rows))
    standardize = fit_standardize(rows)
    if isinstance(parameters["encoder"], nn.Module):
        x = float32_copy(part_of(rows, own))
    else:  # in float64, so that rows far from zero keep their digits
        x = standardized_float32(standardize, part_of(rows, own))
    neighbors = torch.from_numpy(graph.indices[own, :NEAR]).to(device)
    return Task(
        torch.from_numpy(x).to(device),
        standardize.to(device),
        neighbors,
        _objective(setting, graph, P),
        journal,
        generator,
        world,
    )


def _objective(
    setting: Setting, graph: affinities.Neighbors, P: sparse.csr_array | affinities.TensorPairs
) -> Objective:
    """KL(P || Q) on the device; of several processes, each has its rows of P."""
    rows, parameters, device, world = setting
    sigma, unit = None, 1.0
    if parameters["similarity"] == "gaussian":
        widths = affinities.conditional_probabilities(graph.distances, parameters["perplexity"])
        unit = float(np.median(widths.sigma)) or 1.0
        sigma = torch.from_numpy(widths.sigma / unit).to(device, torch.float32)
    elif world.size > 1 and sparse.issparse(P):
        P = own_entries(P, world.rows(len(rows)))
    if isinstance(P, affinities.TensorPairs):
        edges = Edges.from_pairs(*P)
    else:
        edges = Edges.from_sparse(P, dtype=torch.float32, device=device)
    return Objective(edges, parameters["dof"], sigma, unit, world)
