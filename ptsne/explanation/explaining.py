"""Explain rows by the exact local maps of a trained network."""

from collections.abc import Sequence

from ptsne.explanation.baselines import Baseline, baseline_rows
from ptsne.explanation.explanation import Explanation
from ptsne.explanation.source import Array, Source
from ptsne.networks import apply_by_rows


def explain_rows(
    source: Source,
    X: Array,
    *,
    baseline: Baseline,
    mean: Array,
    feature_names: Sequence[str] | None = None,
) -> Explanation:
    """Explain rows by the exact local maps of a trained network.

    Parameters
    ----------
    source : Source
        The network, which linear map, and what else the explanation will ask for.
    X : ndarray of shape (N, D)
        Rows; results have their precision.
    baseline : "mean", "zero", "landmark" or ndarray of shape (D,) or (N, D)
        What contributions are measured from.
    mean : ndarray of shape (D,)
        Mean of the training rows.
    feature_names : sequence of str or None
        Names of the columns; "x0", "x1", ... where there are none.

    Returns
    -------
    Explanation
        For every row.

    Raises
    ------
    ValueError
        If the source's method is none of "secant" and "tangent".
    """
    if source.method not in {"secant", "tangent"}:
        raise ValueError(f'method must be "secant" or "tangent"; got {source.method!r}')
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
