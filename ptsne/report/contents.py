"""What a page says about a map: places, rows, colours, what explains them, and how exact it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ptsne.estimator import ParametricTSNE
from ptsne.explanation import Explanation
from ptsne.explanation.source import Source
from ptsne.metrics import local_fidelity
from ptsne.networks import AtlasProjection
from ptsne.report.atlas import atlas_arrays, is_portable
from ptsne.report.packing import Array, encode_steps, encode_table, packed_size

MAX_CLASSES = 50
"""Whole numbers with more different values than this are a quantity, not classes."""
CHECKED_ROWS = 2000
"""Rows, at most, on which residual and local fidelity are measured."""
CHECKED_CELLS = 10_000_000
"""Cells of these rows, at most: their W takes K times the memory."""
FIDELITY_NEIGHBORS = 5
ROWS_PER_BLOCK = 4096
PAIRS_PER_BLOCK = 512


@dataclass(frozen=True)
class Contents:
    """Numbers and words of a page.

    Attributes
    ----------
    facts : dict
        What is small: names, counts, sentences. JSON.
    arrays : dict of ndarray
        What is large.
    """

    facts: dict[str, Any]
    arrays: dict[str, Array]


class Words(NamedTuple):
    """What the user calls things.

    Attributes
    ----------
    title : str
        Heading of the page.
    row_names : sequence or None
        Name of each row.
    image_shape : tuple of int or None
        Shape of a row that is a picture.
    """

    title: str
    row_names: Sequence[object] | None
    image_shape: tuple[int, ...] | None


def contents(
    model: ParametricTSNE,
    X: Array,
    y: ArrayLike | None,
    words: Words,
    *,
    max_bytes: int,
    rng: np.random.Generator,
) -> Contents:
    """Gather what a page needs.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    X : ndarray of shape (N, D)
        Rows, checked.
    y : array-like of shape (N,) or None
        Classes or a quantity.
    words : Words
        Names.
    max_bytes : int
        Bytes that the rows, and what explains them, may take in the page.
    rng : Generator
        Chooses rows where not all fit.

    Returns
    -------
    Contents
        Complete.
    """
    why = model.explain(named(model, X[:1].astype(np.float64)))
    asked, mean = why.source, why.baseline[:1]
    facts = {
        "title": words.title,
        "n_rows": len(X),
        "n_components": why.Y.shape[1],
        "features": why.feature_names,
        "row_names": None if words.row_names is None else [str(name) for name in words.row_names],
        "image_shape": words.image_shape,
    }
    arrays = {"baseline": mean[0], "origin": asked.places(mean)[0], **_measures(asked, X)}
    checks = _checks(model, X, arrays, rng)
    label_facts, label_arrays = _labels(y, len(X))
    engine = _engine(asked, X, mean[0], max_bytes, rng)
    facts |= label_facts | engine.facts
    facts["checks"] = [*checks, *engine.facts["checks"]]
    return Contents(facts, arrays | label_arrays | engine.arrays)


def named(model: ParametricTSNE, X: Array) -> Any:
    """Rows under the names that the map was fitted with, so that it need not warn."""
    names = getattr(model, "feature_names_in_", None)
    return X if names is None else pd.DataFrame(X, columns=names)


def _measures(asked: Source, X: Array) -> dict[str, Array]:
    """Place of each row, and where the map has such: landmarks that hold it, and trust."""
    parts: dict[str, list[Array]] = {}
    for start in range(0, len(X), ROWS_PER_BLOCK):
        block = X[start : start + ROWS_PER_BLOCK].astype(np.float64)
        for name, values in _measures_of_block(asked, block).items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _measures_of_block(asked: Source, X: Array) -> dict[str, Array]:
    measures: dict[str, Array] = {"Y": asked.places(X)}
    if isinstance(asked.network.projection, AtlasProjection):
        measures["n_active"] = asked.n_active(X).clip(max=255).astype(np.uint8)
    if asked.calibration is not None:
        measures["trust"] = asked.trust(X).percentile.astype(np.float32)
    return measures


# ------------------------------------------------------------------------------------- colours


def _labels(y: ArrayLike | None, n_rows: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """Classes as codes (-1 where missing), or a quantity as numbers."""
    if y is None:
        return {"classes": None}, {}
    labels = np.asarray(y)
    if labels.shape != (n_rows,):
        raise ValueError(f"y must have one value for each of the {n_rows} rows; got {labels.shape}")
    is_missing = np.array([v is None or v != v for v in labels.tolist()], dtype=bool)
    known = np.array(labels[~is_missing].tolist())
    values, code = np.unique(known, return_inverse=True)
    if np.issubdtype(values.dtype, np.number) and (
        len(values) > MAX_CLASSES or bool(np.any(values % 1))
    ):
        quantity = np.full(n_rows, np.nan, dtype=np.float32)
        quantity[~is_missing] = known
        return {"classes": None}, {"quantity": quantity}
    codes = np.full(n_rows, -1, dtype=np.int32)
    codes[~is_missing] = code
    return {"classes": _class_names(values)}, {"label": codes}


def _class_names(values: Array) -> list[str]:
    is_whole = np.issubdtype(values.dtype, np.floating)
    return [str(int(v)) if is_whole else str(v) for v in values.tolist()]


# ---------------------------------------------------------------------------- what explains rows


def _engine(
    asked: Source, X: Array, mean: Array, max_bytes: int, rng: np.random.Generator
) -> Contents:
    """The map itself where a page can hold it, otherwise what moves each of its rows."""
    if is_portable(asked.network):
        return _portable(asked, X, max_bytes, rng)
    return _tabulated(asked, X, mean, max_bytes, rng)


def _portable(asked: Source, X: Array, max_bytes: int, rng: np.random.Generator) -> Contents:
    """The map, and the rows that fit."""
    row_bytes = packed_size(encode_table(X[:CHECKED_ROWS]).codes) / min(CHECKED_ROWS, len(X))
    rows = _fitting_rows(len(X), row_bytes, max_bytes, rng)
    facts, arrays = _rows(X, rows)
    checks = [*facts["checks"], "Contrasts walk every linear region between two rows: no sampling."]
    map_arrays: dict[str, Array] = dict(atlas_arrays(asked.network, X[0]))
    map_arrays["landmark_rows"] = asked.landmark_indices.astype(np.int32)
    return Contents(facts | {"engine": "atlas", "checks": checks}, arrays | map_arrays)


def _tabulated(
    asked: Source, X: Array, mean: Array, max_bytes: int, rng: np.random.Generator
) -> Contents:
    """Displacement of each feature from the mean row to the rows that fit, in steps."""
    n_components = asked.places(X[:1].astype(np.float64)).shape[1]
    row_bytes = X.shape[1] * (2 * n_components + X.itemsize) * 4 / 3
    rows = _fitting_rows(len(X), row_bytes, max_bytes, rng)
    facts, arrays = _rows(X, rows)
    displacements = _displacements(asked, mean, X[rows])
    steps = encode_steps(displacements)
    error = float(np.abs(steps.decoded() - displacements).max())
    checks = [
        *facts["checks"],
        "Displacements from the mean row are those of the paired map; they are stored in steps, "
        f"at most {error:.0e} map units off each.",
    ]
    arrays |= {"displacements": steps.codes, "step": steps.step}
    return Contents(facts | {"engine": "table", "checks": checks}, arrays)


def _displacements(asked: Source, mean: Array, X: Array) -> NDArray[np.float64]:
    """Displacement (N, K, D) that each feature adds from the mean row's place to each row's."""
    starts = np.broadcast_to(mean, X.shape)
    blocks = [slice(k, k + PAIRS_PER_BLOCK) for k in range(0, len(X), PAIRS_PER_BLOCK)]
    ends = (X[block].astype(np.float64) for block in blocks)
    return np.concatenate([asked.paired_ways(starts[: len(end)], end) for end in ends])


def _fitting_rows(
    n_rows: int, row_bytes: float, max_bytes: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows whose details fit the page: all, or a random choice in order."""
    n = min(n_rows, max(1, int(max_bytes / row_bytes)))
    return np.arange(n_rows) if n == n_rows else np.sort(rng.choice(n_rows, n, replace=False))


def _rows(X: Array, rows: NDArray[np.int64]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Values of the rows with details, and which rows these are."""
    coded = encode_table(X[rows])
    checks = []
    if coded.error:
        checks.append(f"Values are stored in single precision, at most {coded.error:.0e} off.")
    arrays = {"codes": coded.codes, "values": coded.values}
    if len(rows) < len(X):
        checks.append(
            f"Details of {len(rows):,} of {len(X):,} rows, chosen at random, keep the file small."
        )
        arrays["detailed"] = rows.astype(np.int32)
    return {"checks": checks}, arrays


# ---------------------------------------------------------------------------------- how exact


def _checks(
    model: ParametricTSNE, X: Array, arrays: dict[str, Array], rng: np.random.Generator
) -> list[str]:
    """Sentences on how exact the page is, and what the map is worth locally."""
    chosen = np.arange(len(X))
    n_checked = max(1, min(CHECKED_ROWS, CHECKED_CELLS // X.shape[1]))
    if len(X) > n_checked:
        chosen = np.sort(rng.choice(len(X), n_checked, replace=False))
    why = model.explain(named(model, X[chosen].astype(np.float64)))
    sentences = [f"y = W x + b holds to {why.residual.max():.0e} of its terms."]
    if "n_active" in arrays:
        share = float((arrays["n_active"] > 1).mean())
        sentences.append(f"{share:.1%} of the rows stand on a boundary between charts.")
    if len(chosen) > FIDELITY_NEIGHBORS:
        r2 = _fidelity(why, X, arrays["Y"], chosen, model.metric)
        sentences.append(
            f"Local fidelity {r2:.2f}: how well W predicts where neighbours lie, 1 at best."
        )
    return sentences


def _fidelity(
    why: Explanation, X: Array, Y: Array, chosen: NDArray[np.int64], metric: str
) -> float:
    """Local fidelity of the chosen rows: their neighbours are among the others, if there are."""
    others = np.setdiff1d(np.arange(len(X)), chosen)
    pool: dict[str, Any] = {"X_train": X[others], "Y_train": Y[others]} if len(others) else {}
    options = {"n_neighbors": FIDELITY_NEIGHBORS, "metric": metric, **pool}
    return float(local_fidelity(why.weight, why.X, why.Y, **options).r2)
