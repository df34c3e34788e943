r"""What separates places of the map: each feature's share of a way.

A way on the map is attributed to the columns, :math:`y_j - y_i = \sum_f d_f` with a displacement
:math:`d_f` a feature, and the share of a feature is the part of it in the way's direction,

.. math:: s_f = d_f \cdot (y_j - y_i) / |y_j - y_i|^2, \quad \sum_f s_f = 1.

A rotation, mirror, shift or scale of the map changes neither.
"""

import operator
import warnings
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.random import sample_without_replacement

from ptsne.explanation.source import Array, Source

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("path", "paired", "local")
LEAST_COSINE = 0.5
"""Below this the way that local maps predict counts as another one than the actual way."""
LARGEST_RATIO = 2.0
"""Beyond this factor the length that local maps predict counts as another one."""
SAME_PLACE = 1e-12
"""Of the places' size: a way that is shorter is rounding."""
OTHERS = "other features"


def row_of(X: Array, at: Any) -> Array:
    """Row of an explanation by its number, or a row of one's own.

    Parameters
    ----------
    X : ndarray of shape (N, D)
        Rows of the explanation.
    at : int or array-like of shape (D,)
        Number of a row, or a row in the columns' units.

    Returns
    -------
    ndarray of shape (D,), float64
        The row.

    Raises
    ------
    ValueError
        If there is no such row, or the row has another shape or holds NaN.
    """
    values = np.asarray(at)
    if values.ndim == 0 and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"a row is given by its number or as {X.shape[1]} values; got {at!r}")
    if values.ndim == 0:
        number = operator.index(values[()])
        if not -len(X) <= number < len(X):
            raise ValueError(
                f"there is no row {number}; this explanation has rows 0 to {len(X) - 1}"
            )
        numbered: Array = X[number].astype(np.float64)
        return numbered
    if values.shape != X.shape[1:]:
        raise ValueError(
            f"a row of one's own must have shape {X.shape[1:]}; got shape {values.shape}"
        )
    row: Array = values.astype(np.float64)
    if not np.isfinite(row).all():
        raise ValueError("a row of one's own must be finite; this one holds NaN or infinity")
    return row


def contrast_rows(source: Source, start: Array, end: Array, method: str) -> Array:
    """Shares of the way between two rows.

    Parameters
    ----------
    source : Source
        The fitted map.
    start, end : ndarray of shape (D,)
        Rows.
    method : {"path", "paired", "local"}
        How the way is attributed.

    Returns
    -------
    ndarray of shape (D,)
        Shares.

    Raises
    ------
    ValueError
        If the rows share one place, or the local maps predict no way.
    """
    _check(method)
    starts, ends = start[None], end[None]
    places = source.places(np.stack([start, end]))
    way = _way(places[0], places[1], "the two rows")
    if method == "local":
        displacement = source.local_ways(starts, ends)
        predicted: Array = displacement[0].sum(1)
        if not predicted.any():
            raise ValueError('the local maps of the two rows predict no way; use method="path"')
        _warn_of_local(predicted, way, stacklevel=4)
        way = predicted
        parts = np.einsum("k,pkd->pd", way, displacement)
    else:
        parts = _along(source, starts, ends, way, method)
    shares: Array = parts[0] / parts.sum()
    return shares


def contrast_members(
    source: Source,
    X: Array,
    Y: Array,
    members: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    method: str,
    n_pairs: int,
    random_state: int | np.random.RandomState | None,
) -> Array:
    """Shares of the way between two clusters' centres, pair by pair of random members.

    Parameters
    ----------
    source : Source
        The fitted map.
    X, Y : ndarray of shape (N, D) and (N, K)
        Rows and places.
    members : pair of int ndarrays
        Rows of each cluster.
    method : {"path", "paired", "local"}
        How each way is attributed.
    n_pairs : int
        Different pairs drawn; all where there are no more.
    random_state : int, RandomState or None
        Of the draw.

    Returns
    -------
    ndarray of shape (P, D)
        Part of each pair's displacements in the direction of the way, over that of the mean pair:
        the mean over pairs sums to 1.
    """
    _check(method)
    start, end = (Y[rows].mean(0, dtype=np.float64) for rows in members)
    way = _way(start, end, "the centres of the two clusters")
    first, second = _pairs(members, n_pairs, random_state)
    starts, ends = X[first].astype(np.float64), X[second].astype(np.float64)
    return _relative(_along(source, starts, ends, way, method))


def load_members(
    source: Source,
    X: Array,
    baseline: Array,
    members: NDArray[np.int64],
    *,
    method: str,
    n_rows: int,
    random_state: np.random.RandomState,
) -> Array:
    """Shares of the way from the baseline's place to a cluster's centre, row by row.

    Parameters
    ----------
    source : Source
        The fitted map.
    X, baseline : ndarray of shape (N, D)
        Rows, and where their ways begin.
    members : int ndarray
        Rows of the cluster.
    method : {"path", "paired", "local"}
        How each way is attributed.
    n_rows : int
        Members drawn; all where there are no more.
    random_state : RandomState
        Of the draw.

    Returns
    -------
    ndarray of shape (n, D)
        As in `contrast_members`.

    Raises
    ------
    ValueError
        If no rows are asked for.
    """
    _check(method)
    if n_rows < 1:
        raise ValueError(f"n_rows must be at least 1; got {n_rows}")
    at, begin = (source.places(rows[members].astype(np.float64)) for rows in (X, baseline))
    way = _way(begin.mean(0), at.mean(0), "a cluster's centre and its baseline")
    n_drawn = min(n_rows, len(members))
    rows = members[sample_without_replacement(len(members), n_drawn, random_state=random_state)]
    starts, ends = baseline[rows].astype(np.float64), X[rows].astype(np.float64)
    return _relative(_along(source, starts, ends, way, method))


def share_table(
    shares: Array, names: list[str], n_features: int | None, **count: int
) -> "pd.DataFrame":
    """Mean and variation of shares, largest first.

    Parameters
    ----------
    shares : ndarray of shape (P, D)
        Of each pair or row.
    names : list of str
        Of the features.
    n_features : int or None
        Features to keep; what the others add together becomes one more line.
    **count : int
        Last column.

    Returns
    -------
    DataFrame
        feature, share, spread, low, high and the count.

    Raises
    ------
    ValueError
        If `n_features` is not positive.
    """
    import pandas as pd  # noqa: PLC0415 - importing ptsne must not import pandas

    if n_features is not None and n_features < 1:
        raise ValueError(f"n_features must be at least 1, or None for all; got {n_features}")
    order = np.argsort(-np.abs(shares.mean(0)), kind="stable")
    kept, rest = order[:n_features], order[len(order[:n_features]) :]
    columns, features = shares[:, kept], [names[f] for f in kept]
    if len(rest):
        columns = np.column_stack([columns, shares[:, rest].sum(1)])
        features = [*features, OTHERS]
    low, high = np.quantile(columns, [0.05, 0.95], axis=0)
    measured = {"share": columns.mean(0), "spread": columns.std(0), "low": low, "high": high}
    return pd.DataFrame({"feature": features, **measured, **count})


def load_table(
    shares: Mapping[Hashable, Array], names: list[str], n_features: int | None
) -> "pd.DataFrame":
    """Tables of all clusters, one below the other.

    Parameters
    ----------
    shares : mapping of label to ndarray of shape (n, D)
        Of each cluster's rows.
    names, n_features
        As in `share_table`.

    Returns
    -------
    DataFrame
        cluster, and the columns of `share_table` with the count n_rows.
    """
    import pandas as pd  # noqa: PLC0415 - importing ptsne must not import pandas

    tables = []
    for name, of_rows in shares.items():
        table = share_table(of_rows, names, n_features, n_rows=len(of_rows))
        table.insert(0, "cluster", [name] * len(table))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _check(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f'method must be "path", "paired" or "local"; got {method!r}')


def _way(start: Array, end: Array, what: str) -> Array:
    """Way (K,) between two places."""
    way: Array = end - start
    if np.linalg.norm(way) <= SAME_PLACE * max(np.linalg.norm(start), np.linalg.norm(end)):
        raise ValueError(f"{what} share one place, so that nothing separates them")
    return way


def _along(source: Source, starts: Array, ends: Array, way: Array, method: str) -> Array:
    """Displacements of each feature in the direction of a way, (P, D)."""
    if method == "path":
        return source.path_parts(starts, ends, way)
    is_local = method == "local"
    ways = source.local_ways(starts, ends) if is_local else source.paired_ways(starts, ends)
    if is_local:
        _warn_of_local(ways.sum(2).mean(0), way, stacklevel=5)
    parts: Array = np.einsum("k,pkd->pd", way, ways)
    return parts


def _relative(parts: Array) -> Array:
    """Parts (P, D) over what they add up to on average."""
    total = parts.sum(1).mean()
    if not total > 0:
        raise ValueError(
            "what was drawn does not, on average, lead from the one place to the other; draw more, "
            'or use method="path" where it was "local"'
        )
    relative: Array = parts / total
    return relative


def _pairs(
    members: tuple[NDArray[np.int64], NDArray[np.int64]],
    n_pairs: int,
    random_state: int | np.random.RandomState | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Different pairs of a member of each."""
    if n_pairs < 1:
        raise ValueError(f"n_pairs must be at least 1; got {n_pairs}")
    first, second = members
    n_there = len(first) * len(second)
    drawn = sample_without_replacement(
        n_there, min(n_pairs, n_there), random_state=check_random_state(random_state)
    )
    return first[drawn // len(second)], second[drawn % len(second)]


def _warn_of_local(predicted: Array, way: Array, *, stacklevel: int) -> None:
    """Warn where local maps do not predict the way."""
    lengths = np.linalg.norm(predicted), np.linalg.norm(way)
    cosine = predicted @ way / (lengths[0] * lengths[1]) if lengths[0] > 0 else 0.0
    ratio = lengths[0] / lengths[1]
    if cosine < LEAST_COSINE or not 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
        message = (
            f"the local maps predict a way {ratio:.2g} times as long as the actual one, at a "
            f"cosine of {cosine:.2f} to it: they do not hold between these rows; use "
            'method="path", which follows the map all the way'
        )
        warnings.warn(message, UserWarning, stacklevel=stacklevel)
