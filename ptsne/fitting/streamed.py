"""Fitting within a memory budget: rows are read block by block."""

import tempfile
import warnings
from typing import Any

from sklearn.utils import check_random_state

from ptsne.devices import advice_on_memory, give_back_memory, resolve_device
from ptsne.fitting.learned import Learned, Model, store
from ptsne.fitting.perplexity import lower_perplexity
from ptsne.lazy import LazyRows
from ptsne.streaming import prepare
from ptsne.training import Journal, train_map


def fit_streamed(
    model: Model, rows: LazyRows, neighbors: Any, budget: int, *, journal: Journal
) -> None:
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
    """
    try:
        with advice_on_memory(rows.shape):
            _fit(model, rows, neighbors, budget, journal)
            return
    except MemoryError as error:
        message = f"{error}; training again with a memory_budget of {budget // 2} bytes"
    # outside of `except`, where the error would keep what that attempt had in memory
    warnings.warn(message, UserWarning, stacklevel=4)
    with advice_on_memory(rows.shape):
        _fit(model, rows, neighbors, budget // 2, Journal(journal.callbacks))


def _fit(model: Model, rows: LazyRows, neighbors: Any, budget: int, journal: Journal) -> None:
    stored = model.get_params(deep=False)
    model.perplexity_ = lower_perplexity(stored["perplexity"], len(rows))
    with tempfile.TemporaryDirectory(prefix="ptsne-", ignore_cleanup_errors=True) as folder:
        prepared = prepare(
            rows,
            budget,
            {**stored, "perplexity": model.perplexity_},
            neighbors,
            journal=journal,
            folder=folder,
            random_state=check_random_state(stored["random_state"]),
            device=resolve_device(stored["device"]),
        )
        network, landmark_rows = train_map(prepared.task, prepared.settings)
        model._mean, rows = prepared.mean, prepared.rows
        network, objective = prepared.unfold(network.cpu()), prepared.task.objective
        del prepared  # the reduced rows
        give_back_memory()
        store(model, rows, Learned(network, landmark_rows, journal, objective))
