"""One fit: checked, and sent to where there is room for its rows."""

from collections.abc import Callable, Sequence
from typing import Any

from scipy import sparse

from ptsne.devices import advice_on_memory, resolve_device
from ptsne.fitting.learned import Model
from ptsne.fitting.streamed import fit_streamed
from ptsne.fitting.whole import fit_rows
from ptsne.rows import as_matrix, in_memory, read_rows, require_room
from ptsne.streaming import budget_bytes
from ptsne.training import Callback, Journal, ProgressBar, joined

FLOAT32_BYTES = 4
TRUTH_VALUES = {"verbose", "distributed"}
"""Parameters that may be truth values."""


def fit_map(model: Model, X: Any, y: Any, neighbors: Any) -> Callable[[], None]:
    """Everything that fitting does.

    Parameters
    ----------
    model : Model
        Receives the learned attributes.
    X, y, neighbors
        As in `ParametricTSNE.fit`.

    Returns
    -------
    callable
        Deletes the checkpoint of a complete fit: to be called once the map is safe.
    """
    _check_parameters(model)
    parameters = model.get_params(deep=False)
    is_streamed = parameters["memory_budget"] is not None
    budget = budget_bytes(parameters["memory_budget"]) if is_streamed else 0
    rows = read_rows(model, X, reset=True, min_rows=2, streamed=is_streamed)
    with ProgressBar(enabled=parameters["verbose"] > 0) as bar:
        callbacks: list[Callback] = [*callbacks_of(parameters["callbacks"]), bar]
        if is_streamed:
            return fit_streamed(model, rows, neighbors, budget, journal=Journal(callbacks))
        if sparse.issparse(as_matrix(rows)):
            require_room(rows.shape, FLOAT32_BYTES, "fit fewer rows")
        device = resolve_device(parameters["device"])
        is_distributed = parameters["distributed"]
        with advice_on_memory(rows.shape), joined(is_distributed, rows.shape, device) as world:
            journal = Journal(callbacks, world=world)
            return fit_rows(model, in_memory(rows), y, neighbors, journal=journal, device=device)


def callbacks_of(given: Callback | Sequence[Callback] | None) -> Sequence[Callback]:
    """The parameter `callbacks` as a sequence."""
    if given is None:
        return ()
    return [given] if callable(given) else list(given)


def _check_parameters(model: Model) -> None:
    """What scikit-learn's constraints let pass."""
    model._validate_params()
    parameters = model.get_params(deep=False)
    for name, value in parameters.items():
        held = value if isinstance(value, (list, tuple)) else [value]
        if name not in TRUTH_VALUES and any(isinstance(v, bool) for v in held):
            raise ValueError(f"{name} must be made of numbers, not truth values; got {value!r}")
    wrong = [c for c in callbacks_of(parameters["callbacks"]) if not callable(c)]
    if wrong:
        raise ValueError(f"callbacks must be callables; got {wrong[0]!r}")
    if parameters["memory_budget"] is not None:
        if parameters["target_weight"]:
            raise ValueError("target_weight needs all rows in memory; set memory_budget=None")
        if parameters["distributed"]:
            raise ValueError("memory_budget is for one process; set distributed=False")
