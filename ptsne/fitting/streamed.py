"""Fitting within a memory budget: rows are read block by block."""

import tempfile
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

from sklearn.utils import check_random_state

from ptsne import affinities
from ptsne.devices import advice_on_memory, give_back_memory, resolve_device
from ptsne.fitting.learned import Learned, Model, keep, store
from ptsne.fitting.perplexity import lower_perplexity
from ptsne.lazy import LazyRows
from ptsne.persistence.checkpoint import CheckpointFile, NoCheckpoint
from ptsne.persistence.opening import open_own_checkpoint
from ptsne.streaming import prepare
from ptsne.training import INTERRUPTED, Checkpoint, Journal, Randomness, train_map

File: TypeAlias = CheckpointFile | NoCheckpoint


def fit_streamed(
    model: Model, rows: LazyRows, neighbors: Any, budget: int, *, journal: Journal
) -> Callable[[], None]:
    """Train within a memory budget; within half of it where memory is not enough.

    Parameters
    ----------
    model : Model
        Receives the learned attributes.
    rows : LazyRows
        Training rows (N, D).
    neighbors : sparse matrix, (indices, distances) or None
        The user's graph, or None to search.
    budget : int
        Bytes that the fit may take.
    journal : Journal
        Receives the records.

    Returns
    -------
    callable
        Deletes the checkpoint of a complete fit.
    """
    file = _checkpoint(model.get_params(deep=False), rows, neighbors)
    budget = file.recall("budget", budget)
    try:
        with advice_on_memory(rows.shape):
            return _fit(model, (rows, neighbors), budget, journal, file)
    except MemoryError as error:
        message = f"{error}; training again with a memory_budget of {budget // 2} bytes"
    # outside of `except`, where the error would keep what that attempt had in memory
    warnings.warn(message, UserWarning, stacklevel=4)
    file.restart(budget=budget // 2)
    with advice_on_memory(rows.shape):
        return _fit(model, (rows, neighbors), budget // 2, Journal(journal.callbacks), file)


def _checkpoint(parameters: dict[str, Any], rows: LazyRows, neighbors: Any) -> File:
    """The file of this fit; the seed of the training is drawn later, from the same source."""
    given = None
    if neighbors is not None and parameters["checkpoint"] is not None:
        given = affinities.neighbors_from_graph(neighbors, len(rows))
    rng, device = (
        check_random_state(parameters["random_state"]),
        resolve_device(parameters["device"]),
    )
    return open_own_checkpoint(parameters, (rows, given, None), device, (0, rng))


def _fit(
    model: Model, data: tuple[LazyRows, Any], budget: int, journal: Journal, file: File
) -> Callable[[], None]:
    rows, neighbors = data
    stored = model.get_params(deep=False)
    model.perplexity_ = lower_perplexity(stored["perplexity"], len(rows))
    device = resolve_device(stored["device"])
    with tempfile.TemporaryDirectory(prefix="ptsne-", ignore_cleanup_errors=True) as folder:
        prepared = prepare(
            rows,
            budget,
            {**stored, "perplexity": model.perplexity_},
            file.neighbors if neighbors is None else neighbors,
            journal=journal,
            folder=folder,
            random_state=file.rng,
            device=device,
        )
        file.require_same("the mean of X", [prepared.mean])
        random = Randomness(prepared.task.generator, device)
        journal.checkpoint = Checkpoint(file.store, journal, random)
        network, landmark_rows = train_map(prepared.task, prepared.settings)
        model._mean, rows = prepared.mean, prepared.rows
        network, objective = prepared.unfold(network.cpu()), prepared.task.objective
        del prepared  # the reduced rows
        give_back_memory()
        store(model, rows, Learned(network, landmark_rows, journal, objective))
    return keep if journal.stopped == INTERRUPTED else file.remove
