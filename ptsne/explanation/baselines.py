"""What contributions are measured from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptsne.explanation.clusters import clusters_of
from ptsne.explanation.source import Array, Source

Baseline = str | Array | Sequence[float]


def baseline_rows(
    baseline: Baseline, X: Array, *, mean: Array, source: Source, labels: Any = None
) -> Array:
    """Baseline of each row.

    Parameters
    ----------
    baseline : "mean", "zero", "landmark", "cluster" or array-like of shape (D,) or (N, D)
        The mean of the training rows, zero, the training row nearest to the row's main landmark,
        the mean of the rows of its cluster, or given rows.
    X : ndarray of shape (N, D)
        The rows that are explained.
    mean : ndarray of shape (D,)
        Mean of the training rows.
    source : Source
        The fitted map.
    labels : array-like of shape (N,) or None
        Cluster of each row, for "cluster".

    Returns
    -------
    ndarray of shape (N, D)
        In the precision of `X`; read-only where all rows share one.

    Raises
    ------
    ValueError
        If `baseline` is none of the above, or `labels` are missing, or are given without need.
    """
    if labels is not None and not (isinstance(baseline, str) and baseline == "cluster"):
        raise ValueError('labels are for baseline="cluster" only')
    if not isinstance(baseline, str):
        return _given(baseline, X)
    if baseline == "landmark":
        return _main_landmarks(X, source)
    if baseline == "cluster":
        return _cluster_means(X, labels)
    named = {"mean": mean, "zero": np.zeros(X.shape[1])}
    if baseline not in named:
        raise ValueError(
            'baseline must be "mean", "zero", "landmark", "cluster", a row or rows; '
            f"got {baseline!r}"
        )
    return np.broadcast_to(named[baseline].astype(X.dtype), X.shape)


def _main_landmarks(X: Array, source: Source) -> Array:
    """Training row nearest to the landmark that holds each row most."""
    rows: Array = source.landmarks(X).rows[:, 0]
    if np.isnan(rows).any():
        raise ValueError(
            'baseline="landmark" needs rows that the file of this map was saved without; with the '
            "training rows at hand pass baseline=X_train[explanation.landmarks.indices[:, 0]]"
        )
    return rows


def _given(baseline: Any, X: Array) -> Array:
    rows = np.asarray(baseline, dtype=X.dtype)
    if rows.shape not in {X.shape, X.shape[1:]}:
        raise ValueError(
            f"baseline must be one row of shape {X.shape[1:]} or rows of shape {X.shape}; "
            f"got shape {rows.shape}"
        )
    if not np.isfinite(rows).all():
        raise ValueError("baseline must be finite; it holds NaN or infinity")
    return np.broadcast_to(rows, X.shape)


def _cluster_means(X: Array, labels: Any) -> Array:
    """Mean of the explained rows of each row's cluster."""
    if labels is None:
        raise ValueError(
            'baseline="cluster" needs the cluster of each row: '
            'map_.explain(X).with_baseline("cluster", labels)'
        )
    clusters = clusters_of(labels, len(X))
    lost = np.flatnonzero(clusters.codes < 0)
    if len(lost):
        raise ValueError(
            f"{len(lost)} rows are in no cluster (the first is row {lost[0]}), so that they have "
            "no mean; explain the others, or give these rows a label"
        )
    means = [X[clusters.members(name)].mean(0, dtype=np.float64) for name in clusters.names]
    return np.array(means, dtype=X.dtype)[clusters.codes]
