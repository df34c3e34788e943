"""Pipelines folded into their map: the same places, in the user's own columns."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection

import ptsne
from ptsne.pipelines.explaining import _split, fold_steps

N_ROWS = 12

PARTS = ColumnTransformer(
    [
        ("scaled", make_pipeline(StandardScaler(), PCA(2)), [0, 3, 1]),
        ("mask", MinMaxScaler(), np.arange(13) == 5),
        ("called", RobustScaler(), lambda X: [4, 2]),
        ("sliced", "passthrough", slice(6, 9)),
        ("dropped", "drop", [9]),
        ("none", StandardScaler(), []),
    ],
    remainder=MaxAbsScaler(),
    transformer_weights={"mask": 3.0},
)

STEPS = {
    "standard": StandardScaler(),
    "centred": StandardScaler(with_std=False),
    "scaled": StandardScaler(with_mean=False),
    "minmax": MinMaxScaler((-2, 3)),
    "minmax clip": MinMaxScaler(clip=True),
    "maxabs": MaxAbsScaler(),
    "robust": RobustScaler(),
    "robust uncentred": RobustScaler(with_centering=False),
    "robust unscaled": RobustScaler(with_scaling=False),
    "pca": PCA(5),
    "pca whole": PCA(),
    "pca whitened": PCA(4, whiten=True),
    "incremental pca": IncrementalPCA(4, whiten=True),
    "ica": FastICA(3, random_state=0, max_iter=2000, tol=1e-2),
    "svd": TruncatedSVD(4, random_state=0),
    "random": GaussianRandomProjection(6, random_state=0),
    "best": SelectKBest(k=6),
    "variance": VarianceThreshold(0.5),
    "imputer": SimpleImputer(),
    "function": FunctionTransformer(),
    "word": "passthrough",
    "nothing": None,
    "columns": PARTS,
    "pipeline": Pipeline([("a", StandardScaler()), ("b", "passthrough"), ("c", PCA(3))]),
    "union": FeatureUnion(
        [("a", PCA(3)), ("b", MinMaxScaler()), ("c", "drop"), ("d", "passthrough")],
        transformer_weights={"a": 2.0},
    ),
}


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True).data


@pytest.fixture(scope="module")
def y():
    return load_wine().target


@pytest.fixture(scope="module")
def places(wine):
    """Small maps of as many columns as are asked for, each trained once."""
    return {}


def quick(**parameters):
    return ptsne.ParametricTSNE(perplexity=15, max_iter=40, random_state=0, **parameters)


def fitted(*steps, X, y=None):
    steps = [
        (f"step{i}", s if s is None or isinstance(s, str) else clone(s))
        for i, s in enumerate(steps)
    ]
    return Pipeline([*steps, ("map", quick())]).fit(X, y)


def check_exact(why, pipeline, X):
    """Everything that an explanation promises, for a folded one."""
    expected = pipeline.transform(X)
    y = np.einsum("nkd,nd->nk", why.weight, why.X) + why.intercept
    scale = np.abs(expected).max()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(why.Y, expected, rtol=0, atol=1e-10 * scale)
    assert why.residual.max() < 1e-10
    np.testing.assert_allclose(why.contributions.sum(2) + why.offset, expected, atol=1e-9 * scale)
    chained = why.projection.weight @ why.encoder.weight
    np.testing.assert_allclose(chained, why.weight, atol=1e-9 * np.abs(why.weight).max())
    b = np.einsum("nkl,nl->nk", why.projection.weight, why.encoder.intercept)
    np.testing.assert_allclose(b + why.projection.intercept, why.intercept, atol=1e-9 * scale)


def numeric_jacobian(pipeline, X, radius):
    """Differences of `pipeline.transform` within the ball in which the map is affine."""
    columns = []
    for d in range(X.shape[1]):
        step = np.zeros_like(X)
        step[:, d] = 0.4 * np.minimum(radius, 1.0)
        change = pipeline.transform(X + step) - pipeline.transform(X - step)
        columns.append(change / (2 * step[:, d, None]))
    return np.stack(columns, 2)


@pytest.mark.parametrize("name", STEPS)
def test_every_step_folds(name, wine, y):
    X = wine.to_numpy()
    pipeline = fitted(STEPS[name], X=X, y=y)
    rows = X[::15]
    why = ptsne.explain(pipeline, rows)
    check_exact(why, pipeline, rows)
    radius = why.radius()
    is_inside = radius > 1e-6
    assert is_inside.any()
    expected = numeric_jacobian(pipeline, rows[is_inside], radius[is_inside])
    scale = np.abs(why.weight).max()
    np.testing.assert_allclose(why.weight[is_inside], expected, atol=1e-5 * scale)


ELEMENTS = st.sampled_from(sorted(STEPS.keys() - {"columns", "best", "ica", "nothing", "word"}))


@pytest.mark.filterwarnings("ignore:The number of components is higher")
@settings(max_examples=40, deadline=None)
@given(st.lists(ELEMENTS, min_size=2, max_size=4))
def test_chains_of_steps_compute_what_the_pipeline_computes(names):
    X = np.random.default_rng(0).normal(3, 2, (40, 13))
    steps = [(str(i), clone(STEPS[name])) for i, name in enumerate(names)]
    try:
        Z = Pipeline(steps).fit_transform(X)
    except ValueError:
        return  # a projection asked for more components than the one before it left
    sites, _ = _split(Pipeline([*steps, ("map", None)]))
    block, columns = fold_steps(sites, X)
    x = torch.from_numpy(X)
    np.testing.assert_allclose(block(x).numpy(), Z, atol=1e-10 * max(1, np.abs(Z).max()))
    again = block(block.inverse(block(x)).nan_to_num()).numpy()
    if "minmax clip" not in names:
        np.testing.assert_allclose(again, Z, atol=1e-7 * max(1, np.abs(Z).max()))
    assert columns.names[:2] == ["x0", "x1"]
