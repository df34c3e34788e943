"""Steps of every kind, and what a folded pipeline promises."""

import numpy as np
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

import ptsne

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
    "sparse random": SparseRandomProjection(6, dense_output=True, random_state=0),
    "neighborhood": NeighborhoodComponentsAnalysis(3, max_iter=5, random_state=0),
    "discriminant": LinearDiscriminantAnalysis(),
    "discriminant eigen": LinearDiscriminantAnalysis(solver="eigen", n_components=1),
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


def quick(**parameters):
    return ptsne.ParametricTSNE(perplexity=10, max_iter=20, random_state=0, **parameters)


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
