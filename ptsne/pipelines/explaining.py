"""Explain a fitted pipeline in the columns that the user gave it."""

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from torch import nn

from ptsne.explanation import AffineMap, Array, Baseline, Explanation, Source, explain_rows
from ptsne.explanation.source import as_tensor
from ptsne.networks import MapNetwork
from ptsne.pipelines.blocks import Block, Chain, Elementwise, Embed
from ptsne.pipelines.columns import (
    Columns,
    Filled,
    as_array,
    fill_missing,
    read_columns,
    row_blocks,
)
from ptsne.pipelines.folding import Site, fold

TOLERANCE = {np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-6}
"""Of the largest value: a folded step that differs by more is another function."""


def explain(
    pipeline: Any,
    X: Any,
    *,
    baseline: Baseline = "mean",
    method: str = "secant",
    training_rows: Any = None,
) -> Explanation:
    r"""Exact local maps of a pipeline that ends in a map, in the columns that the pipeline gets.

    Steps :math:`z = A x + c` before the map :math:`y = W_z z + b_z` fold into it:

    .. math:: y = (W_z A) x + (W_z c + b_z)

    They become the first layer of the network, so that everything an explanation knows (contrasts,
    radius, landmarks, ...) is in the user's columns and units.

    Parameters
    ----------
    pipeline : Pipeline or ParametricTSNE
        Fitted; its last step is the map. Steps that fold: StandardScaler, MinMaxScaler (also with
        ``clip=True``, which is piecewise linear), MaxAbsScaler, RobustScaler, PCA, IncrementalPCA,
        FastICA, TruncatedSVD, random projections, LinearDiscriminantAnalysis,
        NeighborhoodComponentsAnalysis, SimpleImputer, feature selection, ColumnTransformer,
        FeatureUnion and Pipeline of these, "passthrough", and FunctionTransformer without a
        function.
    X : array-like or sparse matrix of shape (N, D), or DataFrame
        Rows as the pipeline takes them, missing values included.
    baseline : "mean", "zero", "landmark" or array of shape (D,) or (N, D), default="mean"
        What contributions are measured from, in the user's columns; see Notes.
    method : {"secant", "tangent"}, default="secant"
        Which linear map.
    training_rows : array-like or DataFrame, default=None
        The rows that the pipeline was fitted on, in their order. With them "mean" is their mean and
        landmarks are real rows, whatever the steps lose.

    Returns
    -------
    Explanation
        ``weight`` is (N, K, D). Columns of a DataFrame that are not numbers, which a
        ColumnTransformer drops, are left out.

    Notes
    -----
    TypeError if the last step is no map; ValueError if a step cannot be folded: the message names
    it and says what to do.

    *Missing values.* ``X`` of the explanation has the imputed value in the gap, in the column's own
    unit. W of the column is zero in that row and what the imputed value adds is part of b: nothing
    was measured, so nothing is explained by it. A radius is that of the columns that were measured
    (one pass for each set of columns with gaps). A contrast of two rows counts a gap as its imputed
    value.

    *Mean.* The steps are undone from the mean of the rows that the map was trained on. Scalers and
    PCA know the mean of what they were fitted on, so that this is the mean of the training rows.
    TruncatedSVD and random projections do not centre: there it is the shortest row that they take
    to that mean.

    *Landmarks* are undone in the same way: PCA with fewer components gives the landmark as PCA
    sees it. `training_rows` gives the rows themselves. In both, a column that never reaches the map
    (W = 0) has the mean of `X`.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> import ptsne
    >>> wine = load_wine(as_frame=True).data
    >>> map_ = ptsne.ParametricTSNE(perplexity=20, max_iter=100, random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), map_).fit(wine)
    >>> why = ptsne.explain(pipeline, wine)
    >>> why.feature_names[:2], why.weight.shape
    (['alcohol', 'malic_acid'], (178, 2, 13))
    >>> bool(why.residual.max() < 1e-10)
    True
    """
    steps, map_ = _split(pipeline)
    if not steps:
        return _explained(map_, X, baseline=baseline, method=method)
    z = transformed(steps, X)
    block, columns = fold_steps(steps, X)
    filled = _filled(block, columns, z)
    inner = _explained(map_, z[:1], baseline="mean", method=method)
    origin = _origin(steps, block, inner, filled.rows, training_rows)
    source = _source(inner._source, block, origin.landmark_rows, filled)
    return explain_rows(
        source, filled.rows, baseline=baseline, mean=origin.mean, feature_names=columns.names
    )


class _Origin(NamedTuple):
    """Training rows in the user's columns."""

    mean: Array
    landmark_rows: Array


@dataclass(frozen=True)
class FoldedSource(Source):
    """A source of rows that may have had gaps: what filled these is constant."""

    filled: Filled

    def stage(self, network: nn.Module, X: Array) -> AffineMap:
        """Linear maps of one network; a gap has W = 0, and its value is part of b."""
        found = super().stage(network, X)
        if not self._has_gaps(X):
            return found
        constant = found.weight * self.filled.missing[:, None, :]
        intercept = found.intercept + np.einsum("nkd,nd->nk", constant, X)
        return AffineMap(found.weight - constant, intercept)

    def radius(self, X: Array, p: float) -> Array:
        """Radius (N,) of the linear region of each row among the columns without a gap."""
        if not self._has_gaps(X):
            return super().radius(X, p)
        radii = np.empty(len(X), X.dtype)
        patterns, pattern = np.unique(self.filled.missing, axis=0, return_inverse=True)
        for k, gaps in enumerate(patterns):
            rows = X[pattern == k]
            held = Elementwise(0.0, ~gaps, np.where(gaps, rows[0], 0))
            source = replace(self, network=_in_front(held, self.network))
            radii[pattern == k] = Source.radius(source, rows, p)
        return radii

    def entering(self, X: Array) -> Array:
        """Rows as the steps hand them to the map's own encoder."""
        block = cast(nn.Sequential, self.network.encoder)[0]
        with torch.no_grad():
            rows: Array = block(as_tensor(X, self.network)).cpu().numpy()
        return rows

    def _has_gaps(self, X: Array) -> bool:
        """Whether these are the rows that had gaps: any others are whole."""
        rows, missing = self.filled
        return bool(missing.any()) and np.array_equal(X, rows)


# ---- the pipeline ----


def _split(pipeline: Any) -> tuple[list[tuple[Site, Any]], Any]:
    """Steps before the map, and the map."""
    if not isinstance(pipeline, Pipeline):
        return [], pipeline
    *before, (_, last) = pipeline.steps
    steps = [(Site(name, number), step) for number, (name, step) in enumerate(before)]
    inner, map_ = _split(last)
    return [*steps, *((Site(site.name, None), step) for site, step in inner)], map_


def _explained(map_: Any, X: Any, *, baseline: Baseline, method: str) -> Explanation:
    if not hasattr(map_, "explain"):
        raise TypeError(
            f"the last step must be a fitted ParametricTSNE; got {type(map_).__name__}; cut the "
            "pipeline behind the map, as in ptsne.explain(pipeline[:-1], X)"
        )
    explanation: Explanation = map_.explain(X, baseline=baseline, method=method)
    return explanation


def transformed(steps: list[tuple[Site, Any]], X: Any) -> Any:
    """Rows as the steps hand them to the map."""
    for _, step in steps:
        if step is not None and not isinstance(step, str):
            X = step.transform(X)
    return X


def fold_steps(steps: list[tuple[Site, Any]], X: Any) -> tuple[Block, Columns]:
    """One block for all steps, and the columns that enter it."""
    block: Block = Chain(*(fold(step, site) for site, step in steps))
    columns = read_columns(X, _first(steps, "feature_names_in_"), _first(steps, "n_features_in_"))
    if len(columns.numbers) < columns.n_columns:
        block = Chain(Embed(columns.numbers, columns.n_columns), block)
    return block, columns


def _first(steps: list[tuple[Site, Any]], attribute: str) -> Any:
    """Attribute of the first step that is an estimator; None where it has none."""
    fitted = [step for _, step in steps if step is not None and not isinstance(step, str)]
    return getattr(fitted[0], attribute, None) if fitted else None


# ---- from the map's columns to the user's ----


def _filled(block: Block, columns: Columns, z: Any, first: int = 0) -> Filled:
    """Rows from the first on without gaps; checked to be what the steps make of those with gaps."""
    expected = np.asarray(as_array(z), dtype=np.float64)
    if not np.isfinite(expected).all():
        raise ValueError(
            "the steps leave missing values to the map; put a SimpleImputer in front of it"
        )
    filled = fill_missing(block, columns.values)
    found = _apply(block, filled.rows)
    tolerance = TOLERANCE[columns.values.dtype] * np.abs(expected).max(initial=1e-300)
    wrong = ~(np.abs(found - expected).max(1, initial=0) <= tolerance)
    if wrong.any():
        row = first + int(wrong.argmax())
        raise ValueError(
            f"row {row} is not what the folded steps make of it (of {int(wrong.sum())} such rows): "
            "a missing value is filled in two ways, or a step's transform is one's own; fill "
            "missing values before columns part, and explain from behind that step"
        )
    return filled


def _origin(
    steps: list[tuple[Site, Any]], block: Block, inner: Explanation, rows: Array, training: Any
) -> _Origin:
    """Mean and landmarks of the training rows in the user's columns."""
    landmarks = inner._source.landmark_rows
    if training is not None:
        return _origin_of(steps, block, inner, training)
    undone = _undo(block, np.vstack([inner.baseline[:1], landmarks]))
    undone = np.where(np.isnan(undone), rows.mean(0), undone)
    undone[1:][np.isnan(landmarks).any(1)] = np.nan  # rows that the map's file left out
    return _Origin(undone[0], undone[1:])


def _origin_of(
    steps: list[tuple[Site, Any]], block: Block, inner: Explanation, training: Any
) -> _Origin:
    mean, at = _mean_and_rows(steps, block, inner._source.landmark_indices, training)
    expected = np.vstack([inner.baseline[:1], inner._source.landmark_rows])
    found = _apply(block, np.vstack([mean, at]))
    known = np.isfinite(expected).all(1)  # all rows, but for those that the map's file left out
    atol = 1e-3 * np.nanmax(np.abs(found))
    if not np.allclose(found[known], expected[known], rtol=1e-3, atol=atol):
        raise ValueError(
            "training_rows are not the rows that the map was trained on, or stand in another "
            "order; pass X of fit"
        )
    return _Origin(mean, at)


def _mean_and_rows(
    steps: list[tuple[Site, Any]], block: Block, numbers: NDArray[np.int64], training: Any
) -> tuple[Array, Array]:
    """Mean of the training rows without gaps (n,), and some of them (m, n); NaN beyond the end."""
    total, n_rows, chosen = np.zeros(()), 0, np.empty((0, 0))
    for where, part in row_blocks(training):
        columns = fold_steps(steps, part)[1]
        rows = _filled(block, columns, transformed(steps, part), where.start).rows
        if not n_rows:
            chosen = np.full((len(numbers), rows.shape[1]), np.nan, rows.dtype)
        is_here = (where.start <= numbers) & (numbers < where.stop)
        chosen[is_here] = rows[numbers[is_here] - where.start]
        total, n_rows = total + rows.sum(0, dtype=np.float64), n_rows + len(rows)
    return total / n_rows, chosen


def _apply(block: Block, rows: Array) -> Array:
    with torch.no_grad():
        result: Array = block(torch.from_numpy(rows.astype(np.float64))).numpy()
    return result


def _undo(block: Block, rows: Array) -> Array:
    with torch.no_grad():
        result: Array = block.inverse(torch.from_numpy(rows.astype(np.float64))).numpy()
    return result


def _source(source: Source, block: Block, landmark_rows: Array, filled: Filled) -> FoldedSource:
    """The map's source with the steps in front of its network."""
    fields = {**vars(source), "network": _in_front(block, source.network)}
    return FoldedSource(**{**fields, "landmark_rows": landmark_rows, "filled": filled})


def _in_front(block: Block, network: MapNetwork) -> MapNetwork:
    """A network in float64 whose encoder starts with a block."""
    network = copy.deepcopy(network).double()
    like = next(iter((*network.parameters(), *network.buffers())))
    encoder = nn.Sequential(block.to(like.device), network.encoder)
    return MapNetwork(encoder, network.projection, network.decoder).eval()
