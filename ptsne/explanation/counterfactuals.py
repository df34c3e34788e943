"""What would move a row: the smallest change that puts it somewhere else on the map."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptsne.explanation.arrival import Arrival, Disc, cluster, spacing
from ptsne.explanation.contrasts import row_of
from ptsne.explanation.smallest import Limits
from ptsne.explanation.walks import Quest, search

if TYPE_CHECKING:
    import pandas as pd

    from ptsne.explanation.explanation import Explanation

Array = NDArray[Any]
Bounds = tuple[ArrayLike, ArrayLike] | Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Counterfactual:
    """A row that was moved by changing few of its values.

    Attributes
    ----------
    original, row : ndarray of shape (D,)
        The row as it was, and as it would have to be.
    feature_names : list of str
        Names of the columns.
    place : ndarray of shape (K,)
        Where the network puts the changed row.
    distance : float
        From the target: from its place, or from the nearest row of the label; in map units.
    reached : bool
        Whether the place lies in the target.
    n_regions : int
        Linear regions whose exact maps the search has taken.
    norm : float
        Length of the change, in units of each column's scale.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> X, y = load_iris(return_X_y=True)
    >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X)
    >>> change = why.counterfactual(60, 2, labels=y)
    >>> change.reached, change.row.shape, change.place.shape
    (True, (4,), (2,))
    """

    original: Array
    row: Array
    feature_names: list[str]
    place: Array
    distance: float
    reached: bool
    n_regions: int
    norm: float
    _scale: Array

    @property
    def change(self) -> Array:
        """``row - original``, (D,), in the columns' units; 0 where nothing changes."""
        difference: Array = self.row - self.original
        return difference

    @property
    def features(self) -> list[str]:
        """Names of the changed columns, the largest change first (in units of their scale)."""
        return [self.feature_names[i] for i in self._ranked()]

    def to_frame(self) -> "pd.DataFrame":
        """Table of the changed columns, the largest change first.

        Returns
        -------
        DataFrame
            Columns feature, before, after and change.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X)
        >>> table = why.counterfactual(77, 2, labels=y, max_features=1).to_frame()
        >>> table["feature"].tolist(), table["before"].tolist(), bool(table["change"][0] > 0)
        (['petal length (cm)'], [5.0], True)
        """
        import pandas as pd  # noqa: PLC0415 - importing ptsne must not import pandas

        ranked = self._ranked()
        columns = {"before": self.original, "after": self.row, "change": self.change}
        values = {name: column[ranked] for name, column in columns.items()}
        return pd.DataFrame({"feature": self.features, **values})

    def _ranked(self) -> NDArray[np.intp]:
        size = np.abs(self.change / self._scale)
        ranked = np.argsort(-size, kind="stable")
        return ranked[size[ranked] > 0]


@dataclass(frozen=True)
class Allowed:
    """What may change, and by which measure little; see `Explanation.counterfactual`.

    Attributes
    ----------
    max_features : int or None
        How many features may change.
    features : sequence of str or None
        Which ones.
    norm : {"l1", "l2"}
        What is made small.
    bounds : (low, high), dict or None
        Values that a changed feature may have.
    scale : "spread", None or array-like of shape (D,)
        What counts as one unit of each column.
    """

    max_features: int | None
    features: Sequence[str] | None
    norm: str
    bounds: Bounds | None
    scale: str | ArrayLike | None


def find_counterfactual(
    why: "Explanation",
    x: int | ArrayLike,
    target: Any,
    *,
    labels: ArrayLike | Sequence[Hashable] | None,
    allowed: Allowed,
    tolerance: float | None,
    n_starts: int,
) -> Counterfactual:
    """Find the smallest change; the parameters are those of `Explanation.counterfactual`.

    Parameters
    ----------
    why : Explanation
        Rows whose places and values are known.
    x, target, labels, tolerance, n_starts
        As there.
    allowed : Allowed
        The other parameters.

    Returns
    -------
    Counterfactual
        The shortest one found; if none reaches the target, the one that comes nearest.

    Raises
    ------
    ValueError
        If a parameter has another shape or value than it may have, or names nothing that is known.
    """
    if n_starts < 1:
        raise ValueError(f"n_starts must be at least 1; got {n_starts!r}")
    origin = row_of(why.X, x)
    is_other = np.ones(len(why.X), bool)
    if np.ndim(x) == 0:
        is_other[int(np.asarray(x))] = False
    arrival = _arrival(why, target, labels, tolerance, is_other)
    known = np.concatenate([why.X, why._source.landmark_rows]).astype(np.float64)
    known = known[np.isfinite(known).all(1)]
    scale = _scale(allowed.scale, known)
    rows = np.concatenate([known, origin[None]])
    limits = _limits(allowed, origin, scale, rows, why.feature_names)
    quest = Quest(why._source.network, origin, scale, why.X.dtype, arrival, limits, set())
    found = _record(quest, search(quest, (rows - origin) / scale, n_starts), why.feature_names)
    if not found.reached:
        warnings.warn(_advice(found, allowed), UserWarning, stacklevel=3)
    return found


def _record(quest: Quest, change: Array, feature_names: list[str]) -> Counterfactual:
    """What was found, as the network sees it."""
    place = quest.places(change[None])[0]
    return Counterfactual(
        original=quest.origin.astype(quest.dtype),
        row=quest.rows(change),
        feature_names=feature_names,
        place=place,
        distance=quest.arrival.distance(place),
        reached=quest.arrives(change),
        n_regions=len(quest.maps),
        norm=float(quest.limits.length(change)),
        _scale=quest.scale,
    )


# ---- what comes in ----


def _arrival(
    why: "Explanation",
    target: Any,
    labels: ArrayLike | Sequence[Hashable] | None,
    tolerance: float | None,
    is_other: NDArray[np.bool_],
) -> Arrival:
    """The target, by what `target` is."""
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, in map units; got {tolerance!r}")
    if labels is not None:
        named = np.asarray(labels)
        if named.shape != is_other.shape:
            raise ValueError(
                f"labels must have shape {is_other.shape}, one per explained row; "
                f"got shape {named.shape}"
            )
        return cluster(why.Y[is_other], named[is_other], target, tolerance)
    if np.ndim(target) == 0:
        place = why.Y[_row_number(target, len(why.Y))].astype(np.float64)
    else:
        place = np.asarray(target, np.float64)
    _require_row("target", place, why.Y.shape[1], "a place, a row number, or a label with labels=")
    return Disc(place, spacing(why.Y) if tolerance is None else tolerance)


def _row_number(target: Any, n_rows: int) -> int:
    """Number of a row, checked."""
    if isinstance(target, str) or not np.issubdtype(np.asarray(target).dtype, np.integer):
        raise ValueError(
            f"target must be a place, a row number, or a label with labels=; got {target!r}"
        )
    if not -n_rows <= int(target) < n_rows:
        raise ValueError(f"target {target} is no row of this explanation, which has {n_rows}")
    return int(target)


def _limits(
    allowed: Allowed, origin: Array, scale: Array, rows: Array, feature_names: list[str]
) -> Limits:
    """What the change may be, checked, in units of scale."""
    if allowed.norm not in {"l1", "l2"}:
        raise ValueError(f'norm must be "l1" or "l2"; got {allowed.norm!r}')
    most = len(origin) if allowed.max_features is None else allowed.max_features
    if most < 1:
        raise ValueError(f"max_features must be at least 1; got {most!r}")
    low, high = _box(allowed.bounds, rows, feature_names)
    is_free = np.ones(len(origin), bool)
    if allowed.features is not None:
        is_free[:] = False
        is_free[_columns(allowed.features, feature_names)] = True
    low = np.where(is_free, np.minimum(low - origin, 0) / scale, 0)
    high = np.where(is_free, np.maximum(high - origin, 0) / scale, 0)
    return Limits(low, high, allowed.norm, most)


def _scale(scale: str | ArrayLike | None, rows: Array) -> Array:
    """What counts as one unit of each column, (D,)."""
    if scale is None:
        return np.ones(rows.shape[1])
    if isinstance(scale, str):
        if scale != "spread":
            raise ValueError(f'scale must be "spread", None or an array; got {scale!r}')
        spread = rows.std(0)
        return np.where(spread > 0, spread, 1.0)
    given = np.asarray(scale, np.float64)
    _require_row("scale", given, rows.shape[1], '"spread", None or a number per column')
    if not (given > 0).all():
        raise ValueError("scale must be positive in every column")
    return given


def _box(bounds: Bounds | None, rows: Array, feature_names: list[str]) -> tuple[Array, Array]:
    """Lowest and highest value of each column, (D,)."""
    low, high = rows.min(0), rows.max(0)
    if isinstance(bounds, Mapping):
        columns = _columns(list(bounds), feature_names)
        low[columns], high[columns] = np.array(list(bounds.values()), np.float64).reshape(-1, 2).T
    elif bounds is not None:
        try:
            low, high = (np.broadcast_to(np.asarray(b, np.float64), low.shape) for b in bounds)
        except ValueError as error:
            raise ValueError(
                "bounds must be (low, high), each a number or one number per column "
                f"({len(rows[0])}), or a dict name -> (low, high)"
            ) from error
    if not (low <= high).all():
        column = int(np.argmin(low <= high))
        raise ValueError(
            f"bounds of {feature_names[column]!r} are empty: low {low[column]:g} is not below "
            f"high {high[column]:g}"
        )
    return low, high


def _columns(features: Sequence[str], feature_names: list[str]) -> list[int]:
    """Numbers of named columns."""
    features = [features] if isinstance(features, str) else list(features)
    unknown = [name for name in features if name not in feature_names]
    if unknown or not features:
        raise ValueError(
            f"features must be some of {feature_names[:10]}; got {unknown or features}"
        )
    return [feature_names.index(name) for name in features]


def _require_row(name: str, values: Array, n: int, expected: str) -> None:
    if values.shape != (n,):
        raise ValueError(f"{name} must be {expected} of shape ({n},); got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} contains NaN or infinity")


def _advice(found: Counterfactual, allowed: Allowed) -> str:
    """What to relax where the target was not reached."""
    relax = [
        (allowed.max_features is not None, "allow more max_features"),
        (allowed.features is not None, "name more features"),
        (allowed.bounds is not None, "widen the bounds"),
        (allowed.bounds is None, "pass bounds beyond the range of the known rows"),
        (True, "raise tolerance"),
        (True, "raise n_starts"),
    ]
    advice = " or ".join(text for applies, text in relax if applies)
    return (
        "no change was found that reaches the target within the limits; the best one ends "
        f"{found.distance:.3g} map units from it: {advice}"
    )
