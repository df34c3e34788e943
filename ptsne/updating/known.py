"""What a map remembers of the rows it knows."""

from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ptsne.lazy import LazyRows
from ptsne.networks import MapNetwork
from ptsne.rows import Rows, SparseRows, as_matrix
from ptsne.updating.stream import stack

REMEMBERED = 20_000
"""Rows that are kept in memory from update to update."""

Array = NDArray[Any]


class Model(Protocol):
    """What an update needs of an estimator, and what it replaces."""

    network_: MapNetwork
    embedding_: Array
    landmark_indices_: NDArray[np.int64]
    history_: list[dict[str, object]]
    perplexity_: Any
    _inverse: Any
    _known_codes: Array | None
    _landmark_rows: Array
    _n_distant_codes: int
    _training_rows: Rows | None
    _training_numbers: NDArray[np.int64] | None
    _trust_quantiles: Array
    _trust_readout: Array

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name."""

    def _network(self, dtype: Any) -> MapNetwork:
        """The network in the precision that rows of this dtype ask for."""


class Known(NamedTuple):
    """Known rows that an update watches.

    Attributes
    ----------
    rows : array or csr_array of shape (W, D), or None
        Rows at hand, else those of the landmarks; None where a file kept none.
    witnesses : str
        What is watched, in words.
    numbers : ndarray of shape (n,)
        Training numbers of the first n of `rows`; the others have none.
    is_complete : bool
        Whether they are all rows that the map was ever given.
    codes : ndarray of shape (n, L) or None
        Codes of rows that are not at hand.
    n_unwatched : int
        Rows that the map was given, and of which there is nothing.
    """

    rows: Any
    witnesses: str
    numbers: NDArray[np.int64]
    is_complete: bool
    codes: Array | None = None
    n_unwatched: int = 0

    @classmethod
    def of(cls, model: Model) -> "Known":
        """What `model` has at hand, and the rows of its landmarks where that is not everything."""
        at_hand = model._training_rows
        if at_hand is not None and model._training_numbers is None:
            rows = as_matrix(at_hand)
            return cls(rows, "training rows", np.arange(rows.shape[0]), is_complete=True)
        kept = model._landmark_rows
        is_there = ~np.isnan(kept).any(1)
        kept, numbers = kept[is_there], model.landmark_indices_[is_there]
        if at_hand is not None:
            numbers = np.concatenate([cast(Array, model._training_numbers), numbers])
        codes = distant_codes(model)
        at_hand_too = [] if at_hand is None else [as_matrix(at_hand)]
        n_seen = sum(len(rows) for rows in (at_hand, codes) if rows is not None)
        words = ["rows at hand"] * len(at_hand_too) + ["landmark rows"]
        return cls(
            stack([*at_hand_too, kept]) if at_hand_too or len(kept) else None,
            " and ".join([*words, "codes of known rows"] if codes is not None else words),
            numbers,
            is_complete=False,
            codes=codes,
            n_unwatched=max(0, number_of_rows(model) - n_seen),
        )

    def beside(self, keep: Rows | None) -> "Known":
        """These rows and others."""
        if keep is None:
            return self
        extra = as_matrix(keep)
        rows = extra if self.rows is None else stack([self.rows, extra])
        return self._replace(rows=rows, n_unwatched=max(0, self.n_unwatched - extra.shape[0]))


def as_rows(matrix: Any) -> Rows:
    """A matrix as rows that become dense where they are sliced."""
    return matrix if isinstance(matrix, np.ndarray) else SparseRows(matrix)


def distant_codes(model: Model) -> Array | None:
    """Codes of known rows that are not at hand, where the map has any."""
    codes = model._known_codes
    if codes is None or model._training_rows is None:
        return codes
    return codes[: model._n_distant_codes] if model._n_distant_codes else None


def bring_to_hand(model: Model, rng: np.random.Generator) -> None:
    """Read rows that are not in memory: all, or a random sample where they are too many."""
    rows = model._training_rows
    if not isinstance(rows, LazyRows):
        return
    chosen = np.arange(len(rows))
    if len(rows) > REMEMBERED:
        chosen = np.sort(rng.choice(len(rows), REMEMBERED, replace=False))
        model._training_numbers = chosen
    model._training_rows = rows[chosen]


def number_of_rows(model: Model) -> int:
    """Rows that the map was given so far; what landmarks tell where the places are not kept."""
    places = getattr(model, "embedding_", None)
    return int(model.landmark_indices_.max()) + 1 if places is None else len(places)


def remember(model: Model, X: Rows, n_before: int, rng: np.random.Generator) -> None:
    """Keep new rows beside those at hand, up to the limit: then a random sample of all.

    Parameters
    ----------
    model : Model
        Changed in place.
    X : ndarray or SparseRows of shape (M, D)
        New rows.
    n_before : int
        Rows that the map was given before.
    rng : numpy Generator
        Draws the sample.
    """
    old, numbers = model._training_rows, model._training_numbers
    fresh = n_before + np.arange(len(X))
    if old is None:
        parts, known = [as_matrix(X)], np.empty(0, dtype=np.int64)
    else:
        parts = [as_matrix(old), as_matrix(X)]
        known = np.arange(len(old)) if numbers is None else numbers
    every = np.concatenate([known, fresh])
    is_all = len(every) == n_before + len(X)
    if len(every) > REMEMBERED:
        n_new = round(REMEMBERED * len(X) / (n_before + len(X)))
        n_new = max(n_new, REMEMBERED - len(known))
        chosen = rng.choice(len(known), REMEMBERED - n_new, replace=False)
        chosen = np.concatenate([chosen, len(known) + rng.choice(len(X), n_new, replace=False)])
        chosen.sort()
        parts, every, is_all = [stack(parts)[chosen]], every[chosen], False
    model._training_rows = as_rows(stack(parts))
    model._training_numbers = None if is_all else every
