"""One rule for each preprocessing step of scikit-learn: the block that computes the same."""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from ptsne.pipelines.blocks import (
    Block,
    Chain,
    Clip,
    Elementwise,
    Impute,
    Join,
    Project,
    Select,
)
from ptsne.pipelines.components import Components


class Site(NamedTuple):
    """Where a step stands, for messages.

    Attributes
    ----------
    name : str
        Names of the step and of those it stands in, joined by "/".
    number : int or None
        Number of the pipeline's own step that it is, or is part of; None where that is another
        pipeline inside.
    """

    name: str
    number: int | None

    def inner(self, name: str) -> "Site":
        """Site of a step inside this one."""
        return Site(f"{self.name}/{name}", self.number)

    def refusal(self, step: Any, reason: str) -> ValueError:
        """Error that names the step and says what to do."""
        k = "k" if self.number is None else self.number + 1
        return ValueError(
            f"step {self.name!r} ({type(step).__name__}) cannot be folded: {reason}; explain the "
            f"steps after it, in the columns that it gives: "
            f"ptsne.explain(pipeline[{k}:], pipeline[:{k}].transform(X))"
        )


@singledispatch
def fold(step: Any, site: Site) -> Block:
    """Block that computes what a fitted step computes.

    Parameters
    ----------
    step : transformer or str
        Fitted; "passthrough" is the identity. Without a rule it is refused: ValueError.
    site : Site
        Where it stands.
    """
    raise site.refusal(step, "it is not affine in its columns, as far as we know")


@fold.register
def _word(_step: str, _site: Site) -> Block:
    return Chain()


@fold.register
def _nothing(_step: None, _site: Site) -> Block:
    return Chain()


@fold.register
def _function(step: FunctionTransformer, site: Site) -> Block:
    if step.func is not None:
        raise site.refusal(step, "it calls a function of one's own")
    return Chain()


# ---- scalers ----


@fold.register
def _standard(step: StandardScaler, _site: Site) -> Block:
    centre = step.mean_ if step.with_mean else 0.0
    return Elementwise(centre, 1 / step.scale_ if step.with_std else 1.0)


@fold.register
def _robust(step: RobustScaler, _site: Site) -> Block:
    centre = step.center_ if step.with_centering else 0.0
    return Elementwise(centre, 1 / step.scale_ if step.with_scaling else 1.0)


@fold.register
def _min_max(step: MinMaxScaler, _site: Site) -> Block:
    low, high = step.feature_range
    scaled = Elementwise(step.data_min_, step.scale_, low)
    return Chain(scaled, Clip(low, high)) if step.clip else scaled


@fold.register
def _max_abs(step: MaxAbsScaler, _site: Site) -> Block:
    scaled = Elementwise(0.0, 1 / step.scale_)
    return Chain(scaled, Clip(-1.0, 1.0)) if getattr(step, "clip", False) else scaled


# ---- projections and selections ----


@fold.register(PCA)
@fold.register(IncrementalPCA)
def _pca(step: PCA | IncrementalPCA, _site: Site) -> Block:
    if not step.whiten:
        return Project(step.components_, step.mean_)
    variance = np.maximum(step.explained_variance_, 0)
    scale = np.maximum(np.sqrt(variance), np.finfo(variance.dtype).eps)
    return Project(step.components_ / scale[:, None], step.mean_)


@fold.register
def _ica(step: FastICA, _site: Site) -> Block:
    return Project(step.components_, step.mean_ if step.whiten else 0.0)


@fold.register(TruncatedSVD)
@fold.register(NeighborhoodComponentsAnalysis)
@fold.register(GaussianRandomProjection)
@fold.register(SparseRandomProjection)
def _components(step: Any, _site: Site) -> Block:
    A = step.components_
    return Project(A.toarray() if hasattr(A, "toarray") else A)


@fold.register
def _known_components(step: Components, _site: Site) -> Block:
    A = np.asarray(step.loadings, dtype=np.float64)
    return Chain(Project(A.T, step.mean_), Elementwise(0.0, 1.0, step.offset_))


@fold.register
def _discriminant(step: LinearDiscriminantAnalysis, _site: Site) -> Block:
    A = step.scalings_[:, : len(step.get_feature_names_out())].T
    return Project(A, step.xbar_ if step.solver == "svd" else 0.0)


@fold.register
def _selector(step: SelectorMixin, _site: Site) -> Block:
    support = step.get_support()
    return Select(np.flatnonzero(support), len(support))


@fold.register
def _imputer(step: SimpleImputer, site: Site) -> Block:
    if step.add_indicator:
        raise site.refusal(step, "add_indicator=True makes columns that are no affine function")
    try:
        fill = np.asarray(step.statistics_, dtype=np.float64)
        missing = np.nan if _is_none(step.missing_values) else float(step.missing_values)
    except (TypeError, ValueError):
        raise site.refusal(step, "it fills in words, which are no numbers") from None
    kept = np.flatnonzero(~np.isnan(fill))
    impute = Impute(fill[kept], missing)
    return impute if len(kept) == len(fill) else Chain(Select(kept, len(fill)), impute)


def _is_none(missing: Any) -> bool:
    """Whether missing values are None or pandas.NA, which are NaN among numbers."""
    return missing is None or type(missing).__name__ == "NAType"


# ---- steps of steps ----


@fold.register
def _pipeline(step: Pipeline, site: Site) -> Block:
    return Chain(*(fold(inner, site.inner(name)) for name, inner in step.steps))


@fold.register
def _union(step: FeatureUnion, site: Site) -> Block:
    weights = step.transformer_weights or {}
    branches = [
        _weighted(fold(inner, site.inner(name)), weights.get(name))
        for name, inner in step.transformer_list
        if inner not in ("drop", None)
    ]
    return _side_by_side(branches, step.n_features_in_)


@fold.register
def _column_transformer(step: ColumnTransformer, site: Site) -> Block:
    weights = step.transformer_weights or {}
    names = list(getattr(step, "feature_names_in_", ()))
    branches: list[Block] = []
    for name, inner, columns in step.transformers_:
        index = _column_numbers(columns, names, step.n_features_in_)
        if len(index) and not (isinstance(inner, str) and inner == "drop"):
            block = _weighted(fold(inner, site.inner(name)), weights.get(name))
            branches.append(Chain(Select(index, step.n_features_in_), block))
    return _side_by_side(branches, step.n_features_in_)


def _column_numbers(columns: Any, names: list[str], n_columns: int) -> NDArray[np.int64]:
    """Numbers of the columns that a transformer gets, however they were asked for."""
    if isinstance(columns, slice):
        start, stop = (
            names.index(end) if isinstance(end, str) else end
            for end in (columns.start, columns.stop)
        )
        if isinstance(columns.stop, str):
            stop += 1  # a slice of names includes its end
        return np.arange(n_columns)[start : stop : columns.step]
    asked = np.atleast_1d(np.asarray(columns))
    if asked.dtype.kind in "UTO":
        return np.array([names.index(name) for name in asked.tolist()], dtype=np.int64)
    return np.arange(n_columns)[asked] if len(asked) else np.empty(0, np.int64)


def _weighted(block: Block, weight: float | None) -> Block:
    return block if weight is None else Chain(block, Elementwise(0.0, weight))


def _side_by_side(branches: Sequence[Block], n_columns: int) -> Block:
    nothing = torch.zeros(1, n_columns, dtype=torch.float64)
    return Join(branches, [branch(nothing).shape[1] for branch in branches])
