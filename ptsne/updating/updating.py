"""One update, from new rows to a report."""

import copy
import warnings
from numbers import Real
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from ptsne.affinities import class_numbers, nearest_neighbors
from ptsne.explanation.trust import (
    Calibration,
    Trust,
    calibrate,
    measure_training_rows,
    measure_trust,
    spread_codes,
)
from ptsne.networks import AtlasProjection, MapNetwork, apply_by_rows
from ptsne.rows import Rows, as_matrix
from ptsne.training import Journal
from ptsne.training.landmarks import choose_landmarks, nearest_rows
from ptsne.updating.drift import Drift, Movement, Qualities, judged
from ptsne.updating.growing import (
    Growth,
    Newcomers,
    held_by_new,
    settle,
    widened_atlas,
    without,
)
from ptsne.updating.guarding import guarded, guards_of, harmless
from ptsne.updating.known import Known, Model, as_rows, bring_to_hand, number_of_rows, remember
from ptsne.updating.neighborhood import groups, nearest_newcomers, newcomers_neighbors, weakened
from ptsne.updating.novelty import AROUND, group_level, local_percentiles
from ptsne.updating.stream import stack
from ptsne.updating.widening import widen

TOLERANCE = 0.01
"""Of the map's spread: how far a known row may move."""
FEW_LANDMARKS = 200
"""Up to so many landmarks, every third novel row gets one: fine ones disturb fewer known rows."""
LEAST_DENSITY = 1 / 8
"""Landmarks for a novel row beyond: known regions of a long stream have ever fewer."""
ANCHORS = 20_000
"""Known rows among which neighbours of the newcomers are sought."""

Array = NDArray[Any]


class _Lesson(NamedTuple):
    """What is to be learned, and under which conditions."""

    X: Rows
    novel: NDArray[np.bool_]
    classes: NDArray[np.int64] | None
    allowed: float
    generator: torch.Generator
    journal: Journal


class _Grown(NamedTuple):
    """A network that has learned, and how."""

    network: MapNetwork
    rows: Array  # row nearest to each new landmark
    numbers: NDArray[np.int64]  # their training numbers
    n_guards: int = 0  # the first of them, at known rows
    n_vetoed: int = 0


def update_map(
    model: Model,
    X: Rows,
    y: Any = None,
    *,
    tolerance: float | str = "auto",
    keep: Rows | None = None,
    journal: Journal,
) -> Drift:
    """Teach a fitted map new rows.

    Parameters
    ----------
    model : Model
        Fitted; its attributes are replaced, never changed in place.
    X : ndarray or SparseRows of shape (M, D)
        New rows.
    y : array-like of shape (M,), optional
        Their classes, used where ``target_weight`` is above 0.
    tolerance : float or "auto"
        Map units that a known row may move; "auto" is a hundredth of the map's spread.
    keep : ndarray or SparseRows, optional
        Rows that must stay besides those the map remembers.
    journal : Journal
        Receives records.

    Returns
    -------
    Drift
        Report.
    """
    parameters = model.get_params(deep=False)
    _require_atlas(model, parameters)
    allowed = _tolerance(model, tolerance)
    seed = int(check_random_state(parameters["random_state"]).randint(2**31 - 1))
    bring_to_hand(model, np.random.default_rng(seed))
    before, known = model.network_, Known.of(model).beside(keep)
    _warn_of_unwatched(known, keep)
    calibration = _calibration(model)
    far, lost = _novelty(model, X, calibration)
    wide, wider_calibration, is_wider = before, calibration, False
    if known.codes is None:  # what a wider code says of rows is not known from their codes
        wide, wider_calibration, is_wider = widen(before, X, lost, calibration)
    labels = y if parameters["target_weight"] else None
    lesson = _Lesson(
        X,
        far | lost if is_wider else far,
        None if labels is None else class_numbers(labels, len(X)),
        allowed,
        torch.Generator().manual_seed(seed),
        journal,
    )
    grown = _grow(model, wide, lesson, known)
    m, n_new = len(_atlas(before).landmarks), len(grown.numbers)
    after = grown.network if n_new else before
    held = held_by_new(_atlas(after), _codes(after, X), m + grown.n_guards).numpy()
    drift = Drift(
        known.witnesses,
        *_effect(before, after, known, allowed),
        n_new=len(X),
        n_novel=int((far | lost).sum()),
        n_held=int(held.sum()),
        n_landmarks=m + n_new,
        n_new_landmarks=n_new,
        n_vetoed=grown.n_vetoed,
        n_new_directions=_width(after) - _width(before),
        n_unseen=int((lost & ~far & ~held).sum()),
        before=_qualities(before, X, known, parameters["metric"]),
        after=_qualities(after, X, known, parameters["metric"]),
        n_unwatched=known.n_unwatched,
        n_guards=grown.n_guards,
    )
    calibration = wider_calibration if n_new else calibration
    _store(model, after, X, grown, calibration=calibration, seed=seed)
    _store_codes(model, known.codes)
    model.history_ = [*model.history_, *journal.history()]
    return drift


# ---- what may be updated ----


def _require_atlas(model: Model, parameters: dict[str, Any]) -> None:
    if not isinstance(model.network_.projection, AtlasProjection):
        raise ValueError(
            f"update adds landmarks, and projection={parameters['projection']!r} has none: a "
            "network without landmarks changes everywhere when it learns. Fit with "
            'projection="atlas"; or fit again on old and new rows, and lay the new map over the '
            "old one with ptsne.register"
        )
    if parameters["similarity"] != "student":
        raise ValueError(
            'update knows the Student-t similarity only; fit with similarity="student", or fit '
            "again on old and new rows and lay the new map over the old one with ptsne.register"
        )


def _warn_of_unwatched(known: Known, keep: Rows | None) -> None:
    """Say so where a file has kept nothing of the rows that should stay."""
    if known.n_unwatched and keep is None and known.witnesses == "landmark rows":
        message = (
            f"this map has neither its training rows nor their codes: {known.n_unwatched} known "
            "rows may move farther than the tolerance where no landmark's row stands near them; "
            "pass them as keep=, or save maps with codes=True"
        )
        warnings.warn(message, UserWarning, stacklevel=4)


def _tolerance(model: Model, tolerance: float | str) -> float:
    if isinstance(tolerance, str) and tolerance == "auto":
        return TOLERANCE * _spread(_atlas(model.network_))
    if not isinstance(tolerance, Real) or isinstance(tolerance, bool) or not tolerance >= 0:
        raise ValueError(
            f'tolerance must be "auto" or a number of map units from 0 on; got {tolerance!r}'
        )
    return float(tolerance)


def _calibration(model: Model) -> Calibration:
    if getattr(model, "_trust_quantiles", None) is None:
        raise ValueError(
            "this map was saved before training rows were measured, so that nothing tells which "
            "new rows are novel; fit it again"
        )
    return Calibration(model._trust_quantiles, model._trust_readout)


def _atlas(network: MapNetwork) -> AtlasProjection:
    return cast(AtlasProjection, network.projection)  # `_require_atlas` has looked


def _spread(atlas: AtlasProjection) -> float:
    places = atlas.places
    return float((places - places.mean(0)).square().sum(1).mean().sqrt())


def _codes(network: MapNetwork, X: Rows) -> Tensor:
    return torch.from_numpy(apply_by_rows(network.encoder, X)).double()


def _width(network: MapNetwork) -> int:
    return int(_atlas(network).landmarks.shape[1])


# ---- growing ----


def _novelty(
    model: Model, X: Rows, calibration: Calibration
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows in groups that are far from every landmark, and in groups that codes do not hold."""
    metric, network = model.get_params(deep=False)["metric"], model.network_
    known, codes = model._training_rows, _codes(network, X).numpy()
    if known is None or len(known) < AROUND:
        trust: Trust = measure_trust(network, X, codes, calibration)
        percentiles = [trust.distance_percentile, trust.reconstruction_percentile]
    else:
        known_codes, *strange, readout = measure_training_rows(network, known)
        trust = measure_trust(network, X, codes, Calibration(calibration.quantiles, readout))
        numbers = trust.distance, trust.reconstruction_error
        percentiles = [
            local_percentiles((known_codes, old), (codes, new))
            for old, new in zip(strange, numbers, strict=True)
        ]
    far, lost = (group_level(as_matrix(X), values, metric=metric) for values in percentiles)
    return far, lost


def _grow(model: Model, network: MapNetwork, lesson: _Lesson, known: Known) -> _Grown:
    """New landmarks for novel rows, and guards at the known rows that they would move."""
    atlas, parameters = _atlas(network), model.get_params(deep=False)
    z, m = _codes(network, lesson.X), len(atlas.landmarks)
    novel = torch.from_numpy(np.flatnonzero(lesson.novel))
    none = network, lesson.X[novel[:0].numpy()], novel[:0].numpy()
    if not len(novel):
        return _Grown(*none)
    density = max(LEAST_DENSITY, m / max(m, number_of_rows(model)))
    n_new = max(1, min(len(novel) // 3, FEW_LANDMARKS), round(len(novel) * density))
    K, _, _ = choose_landmarks(z[novel], n_new, lesson.generator)
    guards = guards_of(atlas, K, _rows_at_hand(network, known), lesson.allowed)
    base = guarded(atlas, guards.z)
    n_fixed = len(base.landmarks)
    larger = widened_atlas(base, K)
    is_held = held_by_new(larger, z, n_fixed)
    if not bool(is_held.any()):
        return _Grown(*none, n_vetoed=len(K))
    newcomers = _newcomers(model, network, lesson, is_held.numpy(), known)
    growth = Growth(*(parameters[name] for name in ("dof", "exaggeration", "fidelity_weight")))
    settle(larger, n_fixed, newcomers, growth, journal=lesson.journal, generator=lesson.generator)
    left = harmless(atlas, larger, _watched_codes(network, known), lesson.allowed)
    if not bool((left >= n_fixed).any()):
        return _Grown(*none, n_vetoed=len(K))
    is_left = torch.isin(torch.arange(len(larger.landmarks)), left)
    grown = copy.deepcopy(network)
    grown.projection = without(larger, (~is_left).nonzero()[:, 0]).eval()
    nearest = novel[nearest_rows(larger.landmarks[left[left >= n_fixed]], z[novel])].numpy()
    rows, numbers = lesson.X[nearest], number_of_rows(model) + nearest
    stand = guards.row[is_left[m:n_fixed]].numpy()
    if len(stand):
        rows = np.concatenate([as_rows(known.rows)[stand].astype(rows.dtype), rows])
        numbers = np.concatenate([known.numbers[stand], numbers])
    return _Grown(grown.eval(), rows, numbers, len(stand), len(K) - len(nearest))


def _newcomers(
    model: Model,
    network: MapNetwork,
    lesson: _Lesson,
    held: NDArray[np.bool_],
    known: Known,
) -> Newcomers:
    """Rows that new landmarks hold, their neighbours, and the places of everything else."""
    parameters, X, n = model.get_params(deep=False), as_matrix(lesson.X), int(held.sum())
    moving, others = X[np.flatnonzero(held)], [X[np.flatnonzero(~held)]]
    if known.rows is not None:
        others.append(known.rows[:: -(-known.rows.shape[0] // ANCHORS)])
    fixed = stack(others)
    rows = stack([moving, fixed])
    indices, attraction = newcomers_neighbors(rows, n, model.perplexity_, parameters["metric"])
    if lesson.classes is not None:
        attraction = weakened(attraction, lesson.classes[held], parameters["target_weight"])
    near = nearest_newcomers(indices, n, 10)
    places = [_places(network, as_rows(fixed)), *_distant_places(model, network, known)]
    return Newcomers(
        _codes(network, as_rows(moving)),
        attraction,
        torch.from_numpy(groups(near)),
        torch.from_numpy(near),
        torch.cat([torch.as_tensor(part, dtype=torch.float64) for part in places]),
    )


def _distant_places(model: Model, network: MapNetwork, known: Known) -> list[Array]:
    """Places of rows that are not at hand, or of the landmarks: they need their room too."""
    if known.is_complete and known.rows is not None and known.rows.shape[0] <= ANCHORS:
        return []
    everything = getattr(model, "embedding_", None)
    if everything is None:
        atlas = _atlas(network)
        everything = apply_by_rows(atlas, atlas.landmarks.detach().numpy())
    return [everything]


def _places(network: MapNetwork, X: Rows) -> Array:
    return apply_by_rows(network, X)


def _watched_codes(network: MapNetwork, known: Known) -> Tensor:
    """Codes of the watched rows and of the landmarks themselves."""
    parts: list[Tensor] = [_atlas(network).landmarks]
    if known.rows is not None:
        parts.append(_codes(network, as_rows(known.rows)))
    if known.codes is not None:
        parts.append(torch.from_numpy(known.codes).to(parts[0]))
    return torch.cat(parts)


def _rows_at_hand(network: MapNetwork, known: Known) -> Tensor:
    """Codes of the known rows whose training numbers are known too."""
    if known.rows is None:
        return _atlas(network).landmarks[:0]
    return _codes(network, as_rows(known.rows[: len(known.numbers)]))


# ---- afterwards ----


def _effect(
    before: MapNetwork, after: MapNetwork, known: Known, allowed: float
) -> tuple[Movement, float, float, float]:
    """Movement of the watched rows, and what to compare it with."""
    old, new = (_watched_places(network, known) for network in (before, after))
    part = old[judged(len(old))]
    near = nearest_neighbors(part, 1).distances if len(part) > 1 else np.zeros(1)
    return Movement.between(old, new), allowed, _spread(_atlas(before)), float(np.median(near))


def _watched_places(network: MapNetwork, known: Known) -> Array:
    """Places (W, K) of the watched rows, and of those that only their codes stand for."""
    atlas = _atlas(network)
    parts = [np.empty((0, atlas.places.shape[1]))]
    if known.rows is not None:
        parts.append(_places(network, as_rows(known.rows)).astype(np.float64))
    if known.codes is not None:
        parts.append(apply_by_rows(atlas, known.codes))
    return np.concatenate(parts)


def _qualities(network: MapNetwork, X: Rows, known: Known, metric: str) -> Qualities:
    new = as_matrix(X)
    old = new[:0] if known.rows is None else known.rows
    places = [_places(network, as_rows(rows)) for rows in (old, new)]
    return Qualities.of(old, places[0], new, places[1], metric)


def _store(
    model: Model,
    network: MapNetwork,
    X: Rows,
    grown: _Grown,
    *,
    calibration: Calibration,
    seed: int,
) -> None:
    """Replace what the model has learned."""
    n_before = number_of_rows(model)
    if model._training_rows is not None:
        model._inverse = None
    remember(model, X, n_before, np.random.default_rng(seed))
    model.network_ = network
    kept = model._landmark_rows
    fresh = grown.rows.astype(kept.dtype)
    if kept.size and np.isnan(kept).all():  # the file kept no rows, and those of today stay out too
        fresh = np.full_like(fresh, np.nan)
    model._landmark_rows = np.concatenate([kept, fresh])
    model.landmark_indices_ = np.concatenate([model.landmark_indices_, grown.numbers])
    _store_places(model, X)
    _store_calibration(model, X, calibration, n_before)


def _store_places(model: Model, X: Rows) -> None:
    """Places of all rows: anew for those at hand, as they were for the others."""
    old, network = getattr(model, "embedding_", None), model._network(X.dtype)
    if old is None:
        return
    places = np.concatenate([old, _places(network, X).astype(old.dtype)])
    numbers = model._training_numbers
    places[slice(None) if numbers is None else numbers] = _places(network, model._training_rows)
    model.embedding_ = places


def _store_codes(model: Model, distant: Array | None) -> None:
    """Codes of known rows: of those that are not at hand as they were, of the others anew."""
    near = _codes(model.network_, as_rows(as_matrix(model._training_rows))).numpy()
    parts = [spread_codes(codes) for codes in (distant, near) if codes is not None]
    model._known_codes = np.concatenate(parts)
    model._n_distant_codes = len(model._known_codes) - len(parts[-1])


def _store_calibration(model: Model, X: Rows, calibration: Calibration, n_before: int) -> None:
    """What counts as strange from now on."""
    network = model.network_
    if model._training_numbers is None and model._training_rows is not None:
        calibration = calibrate(network, model._training_rows)
    else:
        # rows that are not at hand cannot be measured again: their quantiles stand for them
        codes = _codes(network, X).numpy()
        error = measure_trust(network, X, codes, calibration).reconstruction_error
        pairs = zip(calibration.quantiles, (calibrate(network, X).quantiles[0], error), strict=True)
        mixed = [_mixed(old, n_before, new, len(X)) for old, new in pairs]
        calibration = Calibration(np.stack(mixed), calibration.readout)
    model._trust_quantiles, model._trust_readout = calibration


def _mixed(old: Array, n_old: int, new: Array, n_new: int) -> Array:
    """Quantiles (1001,) of a mixture of two samples that stand for so many rows each."""
    values: Array = np.concatenate([old, new])
    weights = np.repeat([n_old / len(old), n_new / len(new)], [len(old), len(new)])
    order = np.argsort(values, kind="stable")
    level = np.cumsum(weights[order])
    quantiles: Array = np.interp(np.linspace(0, 1, len(old)), level / level[-1], values[order])
    return quantiles
