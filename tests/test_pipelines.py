"""Pipelines folded into their map: the same places, in the user's own columns."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    Normalizer,
    OneHotEncoder,
    StandardScaler,
)

import ptsne
from folding import STEPS, check_exact, fitted, quick
from ptsne.pipelines.explaining import _split, fold_steps


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True).data


@pytest.fixture(scope="module")
def y():
    return load_wine().target


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


NEED_LABELS = {"best", "neighborhood", "discriminant", "discriminant eigen"}
NOT_ONTO = {"union", "random", "sparse random"}
ELEMENTS = st.sampled_from(
    sorted(STEPS.keys() - NEED_LABELS - {"columns", "ica", "nothing", "word"})
)


@pytest.mark.filterwarnings("ignore:The number of components is higher")
@settings(max_examples=25, deadline=None)
@given(st.lists(ELEMENTS, min_size=2, max_size=4))
def test_chains_of_steps_compute_what_the_pipeline_computes(names):
    X = np.random.default_rng(0).normal(3, 2, (40, 13))
    steps = [(str(i), clone(STEPS[name])) for i, name in enumerate(names)]
    pipeline = Pipeline(steps)
    try:
        Z = pipeline.fit(X).transform(X)
    except ValueError:
        return  # a projection asked for more components than the one before it left
    # a column of rounding errors that is scaled to size is no measure: sklearn cannot repeat it
    nudged = X * (1 + 1e-15 * np.random.default_rng(1).normal(size=X.shape))
    assume(np.abs(pipeline.transform(nudged) - Z).max() < 1e-11 * max(1, np.abs(Z).max()))
    sites, _ = _split(Pipeline([*steps, ("map", None)]))
    block, columns = fold_steps(sites, X)
    x = torch.from_numpy(X)
    np.testing.assert_allclose(block(x).numpy(), Z, atol=1e-10 * max(1, np.abs(Z).max()))
    again = block(block.inverse(block(x)).nan_to_num()).numpy()
    # a clipped value stands for itself; of a step that does not fill its columns (more columns than
    # it was given, random directions that coincide) a later projection need not find a way back
    if "minmax clip" not in names and not NOT_ONTO & set(names[:-1]):
        np.testing.assert_allclose(again, Z, atol=1e-7 * max(1, np.abs(Z).max()))
    assert columns.names[:2] == ["x0", "x1"]


def test_pandas_of_every_number_type(wine):
    frame = wine.iloc[:, :5].copy()
    frame["magnesium"] = frame["magnesium"].round().astype("Int64")
    frame.loc[::9, "magnesium"] = pd.NA
    frame["is_strong"] = frame["alcohol"] > 13
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), quick()).fit(frame.astype(float))
    why = ptsne.explain(pipeline, frame)
    np.testing.assert_allclose(why.Y, pipeline.transform(frame.astype(float)), atol=1e-10)
    assert why.feature_names == list(frame.columns)


def test_sparse_rows(wine):
    X = sparse.csr_matrix(np.where(wine.to_numpy() > 2, wine.to_numpy(), 0))
    pipeline = make_pipeline(MaxAbsScaler(), TruncatedSVD(4, random_state=0), quick()).fit(X)
    check_exact(ptsne.explain(pipeline, X[:9]), pipeline, X[:9])


def test_float32_comes_back(wine):
    X = wine.to_numpy(dtype=np.float32)
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    why = ptsne.explain(pipeline, X)
    assert why.weight.dtype == why.X.dtype == why.Y.dtype == np.float32
    np.testing.assert_allclose(why.Y, pipeline.transform(X), atol=1e-3)
    table = ptsne.explain(pipeline, pd.DataFrame(X))
    assert table.X.dtype == np.float32
    np.testing.assert_array_equal(table.Y, why.Y)


def test_modules_of_ones_own(wine):
    encoder = torch.nn.Sequential(
        torch.nn.Linear(13, 8), torch.nn.LeakyReLU(), torch.nn.Linear(8, 4)
    )
    pipeline = make_pipeline(StandardScaler(), quick(encoder=encoder, projection=(16,)))
    pipeline.fit(wine)
    check_exact(ptsne.explain(pipeline, wine), pipeline, wine)


@pytest.fixture(scope="module")
def pipeline(wine):
    return make_pipeline(StandardScaler(), PCA(6), quick()).fit(wine)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Normalizer()], r"step 'step0' \(Normalizer\) cannot be folded.*pipeline\[1:\]"),
        ([StandardScaler(), KNNImputer()], r"'step1' \(KNNImputer\).*pipeline\[:2\]"),
        ([FunctionTransformer(np.log1p)], r"'step0' \(FunctionTransformer\).*one's own"),
        ([SimpleImputer(add_indicator=True)], r"'step0' \(SimpleImputer\).*add_indicator"),
        (
            [ColumnTransformer([("hot", OneHotEncoder(sparse_output=False), [0])])],
            r"'step0/hot' \(OneHotEncoder\)",
        ),
        ([make_pipeline(StandardScaler(), Normalizer())], r"'step0/normalizer' \(Normalizer\)"),
    ],
)
def test_refusals_name_the_step_and_say_what_to_do(steps, message, wine):
    pipeline = fitted(*steps, X=wine.to_numpy())
    with pytest.raises(ValueError, match=message):
        ptsne.explain(pipeline, wine.to_numpy())


def test_the_advice_works(wine):
    X = wine.to_numpy()
    pipeline = fitted(Normalizer(), StandardScaler(), PCA(4), X=X)
    check_exact(
        ptsne.explain(pipeline[1:], pipeline[:1].transform(X)),
        pipeline[1:],
        pipeline[:1].transform(X),
    )


def test_a_step_with_a_transform_of_its_own_is_noticed(wine):
    class Doubled(StandardScaler):
        def transform(self, X, copy=None):
            return 2 * super().transform(X, copy)

    pipeline = make_pipeline(Doubled(), quick()).fit(wine)
    with pytest.raises(ValueError, match="transform is one's own"):
        ptsne.explain(pipeline, wine)


def test_the_last_step_must_be_a_map(wine):
    pipeline = make_pipeline(StandardScaler(), PCA(2)).fit(wine)
    with pytest.raises(TypeError, match="must be a fitted ParametricTSNE; got PCA"):
        ptsne.explain(pipeline, wine)


def test_what_is_not_fitted_says_so(wine):
    for unfitted in (quick(), make_pipeline(StandardScaler(), quick())):
        with pytest.raises(NotFittedError):
            ptsne.explain(unfitted, wine)
    half = make_pipeline(StandardScaler().fit(wine), quick())
    with pytest.raises(NotFittedError):
        ptsne.explain(half, wine)


def test_a_bare_map_is_explained_by_itself(wine):
    map_ = quick().fit(wine)
    why, own = ptsne.explain(map_, wine), map_.explain(wine)
    np.testing.assert_array_equal(why.weight, own.weight)
    assert why.feature_names == own.feature_names
    alone = Pipeline([("map", map_)])
    np.testing.assert_array_equal(ptsne.explain(alone, wine, method="tangent").Y, own.Y)


def test_a_pipeline_within_a_pipeline(wine):
    inner = make_pipeline(PCA(5), quick())
    pipeline = make_pipeline(StandardScaler(), inner).fit(wine)
    check_exact(ptsne.explain(pipeline, wine), pipeline, wine)


def test_explaining_changes_nothing(pipeline, wine):
    before = {k: v.clone() for k, v in pipeline[-1].network_.state_dict().items()}
    X, places = wine.copy(), pipeline.transform(wine)
    ptsne.explain(pipeline, wine)
    pd.testing.assert_frame_equal(X, wine)
    np.testing.assert_array_equal(pipeline.transform(wine), places)
    assert all(torch.equal(v, before[k]) for k, v in pipeline[-1].network_.state_dict().items())


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_clone_and_grid_search(library, wine):
    pytest.importorskip(library)
    pipeline = make_pipeline(StandardScaler(), PCA(5), quick()).set_output(transform=library)
    places = clone(pipeline).fit_transform(wine)
    assert list(places.columns) == ["parametrictsne0", "parametrictsne1"]
    search = GridSearchCV(pipeline, {"parametrictsne__perplexity": [5, 15]}, cv=2).fit(wine)
    assert 0.5 < search.best_score_ <= 1
    why = ptsne.explain(search.best_estimator_, wine)
    assert why.feature_names == list(wine.columns)
    assert why.residual.max() < 1e-10
    np.testing.assert_allclose(why.Y, search.best_estimator_.transform(wine).to_numpy(), atol=1e-9)
