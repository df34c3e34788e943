"""Explain rows by the exact local maps of a trained network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptsne.explanation.baselines import Baseline, baseline_rows
from ptsne.explanation.explanation import Explanation
from ptsne.explanation.source import Array, Source
from ptsne.networks import MapNetwork, apply_by_rows


def explain_map(
    network: MapNetwork,
    X: Array,
    *,
    baseline: Baseline,
    method: str,
    mean: Array,
    landmark_indices: NDArray[np.int64],
    landmark_rows: Array,
    feature_names: Sequence[str] | None = None,
) -> Explanation:
    """Explain rows by the exact local maps of a trained network.

    Parameters
    ----------
    network : MapNetwork
        In eval mode; its precision is that of the computation, results have that of `X`.
    X : ndarray of shape (N, D)
        Rows.
    baseline : "mean", "zero", "landmark" or ndarray of shape (D,) or (N, D)
        What contributions are measured from.
    method : {"secant", "tangent"}
        Which linear map.
    mean : ndarray of shape (D,)
        Mean of the training rows.
    landmark_indices : int ndarray of shape (m,)
        Training row nearest to each landmark.
    landmark_rows : ndarray of shape (m, D)
        Those rows.
    feature_names : sequence of str or None
        Names of the columns; "x0", "x1", ... where there are none.

    Returns
    -------
    Explanation
        For every row.

    Raises
    ------
    ValueError
        If `method` or `baseline` is none of the above.
    """
    if method not in {"secant", "tangent"}:
        raise ValueError(f'method must be "secant" or "tangent"; got {method!r}')
    source = Source(network, method, landmark_indices, landmark_rows)
    return explain_rows(source, X, baseline=baseline, mean=mean, feature_names=feature_names)


def explain_rows(
    source: Source,
    X: Array,
    *,
    baseline: Baseline,
    mean: Array,
    feature_names: Sequence[str] | None = None,
) -> Explanation:
    """Explain rows by a source that is ready.

    Parameters
    ----------
    source : Source
        The network, and what else the explanation will ask for.
    X : ndarray of shape (N, D)
        Rows.
    baseline, mean, feature_names
        As in `explain_map`.

    Returns
    -------
    Explanation
        For every row.
    """
    weight, intercept = source.stage(source.network, X)
    names = [f"x{i}" for i in range(X.shape[1])] if feature_names is None else feature_names
    return Explanation(
        weight=weight,
        intercept=intercept,
        X=X,
        Y=apply_by_rows(source.network, X),
        baseline=baseline_rows(baseline, X, mean=mean, source=source),
        feature_names=[str(name) for name in names],
        n_active=source.n_active(X),
        _mean=mean,
        _source=source,
    )
