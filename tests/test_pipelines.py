"""Pipelines folded into their map: the same places, in the user's own columns."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

import ptsne
from ptsne import rows as of_rows
from ptsne.pipelines import columns
from ptsne.pipelines.explaining import _split, fold_steps

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


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True).data


@pytest.fixture(scope="module")
def y():
    return load_wine().target


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


# ---- columns of a table ----


@pytest.fixture(scope="module")
def table(wine):
    """Wine with words, gaps and columns in an order of their own."""
    frame = wine.iloc[:, :6].copy()
    frame.insert(2, "cellar", np.where(wine["hue"] > 1, "north", "south"))
    frame.iloc[::7, 0] = np.nan
    frame.iloc[::5, 3] = np.nan
    return frame


@pytest.fixture(scope="module")
def columns_pipeline(table):
    measured = make_pipeline(StandardScaler(), SimpleImputer(strategy="median"))
    columns = make_column_transformer(
        (measured, make_column_selector(dtype_include="number")), remainder="drop"
    )
    return make_pipeline(columns, quick()).fit(table)


def test_names_are_the_users_and_words_are_left_out(table, columns_pipeline):
    why = ptsne.explain(columns_pipeline, table.iloc[:20])
    assert why.feature_names == [name for name in table.columns if name != "cellar"]
    assert why.weight.shape == (20, 2, 6)
    check_exact(why, columns_pipeline, table.iloc[:20])
    mixed = table.iloc[:20, ::-1]
    np.testing.assert_array_equal(ptsne.explain(columns_pipeline, mixed).weight, why.weight)
    without = table.iloc[:20].drop(columns="cellar")
    np.testing.assert_array_equal(ptsne.explain(columns_pipeline, without).weight, why.weight)


def test_a_gap_has_no_weight_and_its_value_is_in_b(table, columns_pipeline):
    why = ptsne.explain(columns_pipeline, table)
    numbers = table.drop(columns="cellar").to_numpy()
    gaps = np.isnan(numbers)
    assert gaps.sum() > 50
    assert not why.weight.transpose(0, 2, 1)[gaps].any()
    assert not why.importance()[gaps].any()
    filled = np.where(gaps, np.nanmedian(numbers, 0), numbers)
    np.testing.assert_allclose(why.X, filled, atol=1e-12)
    same = table.copy()
    same[why.feature_names] = filled
    whole = ptsne.explain(columns_pipeline, same)
    np.testing.assert_allclose(whole.Y, why.Y, atol=1e-10)
    np.testing.assert_array_equal(whole.weight[~gaps.any(1)], why.weight[~gaps.any(1)])
    assert whole.weight.transpose(0, 2, 1)[gaps].any()


def test_rows_that_had_no_gap_are_whole(table, columns_pipeline):
    """As many rows as were explained, but others: pairs of a contrast, for instance."""
    why = ptsne.explain(columns_pipeline, table)
    others = why.X[::-1]
    same = table.iloc[::-1].copy()
    same[why.feature_names] = others
    whole = ptsne.explain(columns_pipeline, same)
    stage = why._source.stage(why._source.network, others)
    np.testing.assert_allclose(stage.weight, whole.weight, atol=1e-12)
    np.testing.assert_allclose(why._source.radius(others, 2), whole.radius())


def test_radius_is_that_of_the_measured_columns(table, columns_pipeline):
    why = ptsne.explain(columns_pipeline, table)
    gaps = np.isnan(table.drop(columns="cellar").to_numpy())
    radius = why.radius()
    same = table.copy()
    same[why.feature_names] = why.X
    whole = ptsne.explain(columns_pipeline, same).radius()
    np.testing.assert_allclose(radius[~gaps.any(1)], whole[~gaps.any(1)])
    assert (radius >= whole * (1 - 1e-9)).all()
    assert (radius[gaps.any(1)] > whole[gaps.any(1)] * (1 + 1e-9)).any()
    rng = np.random.default_rng(0)
    way = np.where(gaps, 0, rng.normal(size=gaps.shape))
    way *= 0.99 * (radius / np.linalg.norm(way, axis=1))[:, None]
    moved = table.copy()
    moved[why.feature_names] = np.where(gaps, np.nan, why.X + way)
    scale = np.abs(why.weight).max()
    np.testing.assert_allclose(
        ptsne.explain(columns_pipeline, moved).weight, why.weight, atol=1e-9 * scale
    )


@pytest.mark.parametrize(
    "imputer",
    [
        SimpleImputer(strategy="mean"),
        SimpleImputer(strategy="most_frequent"),
        SimpleImputer(strategy="constant", fill_value=7.5),
        SimpleImputer(missing_values=-1),
        SimpleImputer(keep_empty_features=True),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
@pytest.mark.filterwarnings("ignore:Currently, when `keep_empty_feature:FutureWarning")  # 1.7
def test_imputers_fill_in_the_columns_own_units(wine, imputer):
    X = wine.to_numpy()[:, :6].copy()
    mark = imputer.missing_values
    X[::4, 1] = mark
    X[1::6, 4] = mark
    X[:, 5] = mark
    pipeline = make_pipeline(clone(imputer), StandardScaler(), PCA(3), quick()).fit(X)
    why = ptsne.explain(pipeline, X)
    check_exact(why, pipeline, X)
    assert not why.weight[::4, :, 1].any()
    assert why.weight[1::4, :, 1].any()
    expected = clone(imputer).fit(X[:, :5]).transform(X[:, :5])
    np.testing.assert_allclose(why.X[:, :5], expected, atol=1e-12)


def test_a_gap_in_a_column_that_no_step_takes(wine):
    X = wine.to_numpy()[:, :4].copy()
    X[::3, 2] = np.nan
    columns = ColumnTransformer([("some", StandardScaler(), [3, 0])])
    pipeline = make_pipeline(columns, quick()).fit(X)
    why = ptsne.explain(pipeline, X)
    check_exact(why, pipeline, X)
    assert not why.weight[:, :, 1:3].any()
    np.testing.assert_allclose(why.X[::3, 2], np.nanmean(X[:, 2]))
    np.testing.assert_allclose(why.baseline[0, 1:3], why.X.mean(0)[1:3])


def test_gaps_behind_other_steps_fill_in_the_users_units(wine):
    X = wine.to_numpy().copy()
    X[::3, 2] = np.nan
    steps = (MinMaxScaler((1, 2), clip=True), SelectKBest(k=5), SimpleImputer(), PCA(3))
    with pytest.raises(ValueError, match="NaN"):
        fitted(StandardScaler(), X=X)
    chosen = clone(steps[0]), "passthrough", *map(clone, steps[2:])
    pipeline = fitted(*chosen, X=X)
    why = ptsne.explain(pipeline, X)
    check_exact(why, pipeline, X)
    np.testing.assert_allclose(why.X[::3, 2], np.nanmean(X[:, 2]), atol=1e-12)


def test_two_fillings_of_one_gap_are_refused(wine):
    X = wine.to_numpy().copy()
    X[2, 2] = np.nan
    union = make_union(SimpleImputer(), SimpleImputer(strategy="constant", fill_value=100.0))
    pipeline = make_pipeline(union, quick()).fit(X)
    with pytest.raises(ValueError, match=r"row 2 .* filled in two ways"):
        ptsne.explain(pipeline, X)
    check_exact(ptsne.explain(pipeline, X[3:]), pipeline, X[3:])


def test_polars_names_come_out(wine):
    polars = pytest.importorskip("polars")
    frame = polars.from_pandas(wine)
    pipeline = make_pipeline(StandardScaler(), quick()).fit(frame)
    why = ptsne.explain(pipeline, frame[:5])
    assert why.feature_names == list(wine.columns)
    check_exact(why, pipeline, frame[:5])
    gapped = frame.with_columns(
        polars.when(polars.col("hue") > 1).then(polars.col("hue")).alias("hue")
    )
    pipeline = make_pipeline(SimpleImputer(), quick()).fit(gapped)
    why = ptsne.explain(pipeline, gapped)
    assert not why.weight[(wine["hue"] <= 1).to_numpy(), :, 10].any()


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


def test_modules_of_ones_own(wine):
    encoder = torch.nn.Sequential(
        torch.nn.Linear(13, 8), torch.nn.LeakyReLU(), torch.nn.Linear(8, 4)
    )
    pipeline = make_pipeline(StandardScaler(), quick(encoder=encoder, projection=(16,)))
    pipeline.fit(wine)
    check_exact(ptsne.explain(pipeline, wine), pipeline, wine)


# ---- baselines, landmarks, contrasts ----


@pytest.fixture(scope="module")
def pipeline(wine):
    return make_pipeline(StandardScaler(), PCA(6), quick()).fit(wine)


@pytest.mark.parametrize("scaler", ["standard", "minmax", "robust", "pca", "columns", "svd"])
def test_mean_is_taken_to_the_mean_of_the_maps_rows(scaler, wine, y):
    X = wine.to_numpy()
    pipeline = fitted(STEPS[scaler], X=X, y=y)
    why = ptsne.explain(pipeline, X[:5])
    np.testing.assert_array_equal(why.baseline[1:], why.baseline[:-1])
    z = pipeline[:-1].transform(np.vstack([why.baseline[:1], X]))
    np.testing.assert_allclose(z[0], z[1:].mean(0), atol=1e-10 * np.abs(z).max())
    if scaler in {"standard", "minmax", "robust", "pca"}:  # nothing is lost, or the mean is known
        np.testing.assert_allclose(why.baseline[0], X.mean(0), rtol=1e-9)


def test_baselines_are_in_the_users_columns(pipeline, wine):
    X = wine.to_numpy()
    np.testing.assert_array_equal(ptsne.explain(pipeline, wine, baseline="zero").baseline, 0 * X)
    np.testing.assert_array_equal(ptsne.explain(pipeline, wine, baseline=X[3]).baseline[9], X[3])
    why = ptsne.explain(pipeline, wine, baseline="landmark")
    np.testing.assert_array_equal(why.baseline, why.landmarks.rows[:, 0])
    check_exact(why, pipeline, wine)
    with pytest.raises(ValueError, match="baseline must be"):
        ptsne.explain(pipeline, wine, baseline="median")


def test_landmarks_are_training_rows_where_nothing_is_lost(wine):
    X = wine.to_numpy()
    pipeline = make_pipeline(StandardScaler(), PCA(), quick()).fit(X)
    held = ptsne.explain(pipeline, X).landmarks
    real = held.indices >= 0
    np.testing.assert_allclose(held.rows[real], X[held.indices[real]], rtol=1e-9)


def test_training_rows_give_real_landmarks_and_the_mean(pipeline, wine):
    X = wine.to_numpy()
    why = ptsne.explain(pipeline, wine.iloc[:9], training_rows=wine)
    held = why.landmarks
    real = held.indices >= 0
    np.testing.assert_array_equal(held.rows[real], X[held.indices[real]])
    np.testing.assert_allclose(why.baseline[0], X.mean(0))
    with pytest.raises(ValueError, match="not the rows that the map was trained on"):
        ptsne.explain(pipeline, wine, training_rows=wine.iloc[::-1])


def test_contrast_is_the_maps_contrast_pulled_back_through_the_steps(pipeline, wine):
    why = ptsne.explain(pipeline, wine)
    shares = why.contrast(0, 120)
    assert shares.shape == (13,)
    assert shares.sum() == pytest.approx(1, abs=1e-10)
    Z = pipeline[:-1].transform(wine)
    A = pipeline["pca"].components_ / pipeline["standardscaler"].scale_
    per_unit = pipeline[-1].explain(Z).contrast(0, 120) / (Z[120] - Z[0])
    expected = per_unit @ A * (why.X[120] - why.X[0])
    np.testing.assert_allclose(shares, expected, atol=1e-9)


@pytest.fixture(scope="module")
def scaled(wine):
    """A pipeline that changes units only, so that shares of columns must not change."""
    pipeline = make_pipeline(None, StandardScaler(), quick(encoder=(8,))).fit(wine)
    Z = pipeline[:-1].transform(wine)
    return ptsne.explain(pipeline, wine), pipeline[-1].explain(Z), list(wine.columns)


@pytest.mark.parametrize("method", ["path", "paired", "local"])
@pytest.mark.filterwarnings("ignore:the local maps")
def test_contrasts_do_not_depend_on_units(scaled, method):
    why, inside, _ = scaled
    shares = why.contrast(0, 120, method=method)
    np.testing.assert_allclose(shares, inside.contrast(0, 120, method=method), atol=1e-9)


@pytest.mark.parametrize("question", ["contrast_clusters", "loadings"])
def test_questions_about_clusters_do_not_depend_on_units(scaled, y, question):
    why, inside, names = scaled
    labels = (y, 0, 1) if question == "contrast_clusters" else (y,)
    table, expected = (getattr(which, question)(*labels) for which in (why, inside))
    assert set(table["feature"]) == set(names)
    numbers = {column: int(column[1:]) for column in inside.feature_names}
    expected["feature"] = [names[numbers[column]] for column in expected["feature"]]
    by = [c for c in ("cluster", "feature") if c in table]
    pd.testing.assert_frame_equal(
        table.sort_values(by, ignore_index=True), expected.sort_values(by, ignore_index=True)
    )


def test_another_baseline_is_in_the_users_columns(scaled, y):
    why, _, _ = scaled
    own = why.with_baseline("cluster", y)
    np.testing.assert_allclose(own.baseline[0], why.X[y == 0].mean(0))
    np.testing.assert_allclose(own.contributions.sum(2) + own.offset, why.Y, atol=1e-9)


def test_trust_is_that_of_the_map_itself(pipeline, wine):
    strange = wine.iloc[:5] * 3
    for rows in (wine, strange):
        why, inside = (
            ptsne.explain(pipeline, rows),
            pipeline[-1].explain(pipeline[:-1].transform(rows)),
        )
        for number, expected in zip(why.trust, inside.trust, strict=True):
            np.testing.assert_allclose(number, expected, rtol=1e-6, atol=1e-9)
    assert (ptsne.explain(pipeline, strange).trust.percentile > 99).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_a_counterfactual_is_a_row_for_the_pipeline(pipeline, wine, y, norm):
    why = ptsne.explain(pipeline, wine)
    found = why.counterfactual(0, 2, labels=y, norm=norm)
    assert found.reached
    assert set(found.features) <= set(wine.columns)
    moved = pd.DataFrame([found.row], columns=wine.columns)
    np.testing.assert_allclose(pipeline.transform(moved)[0], found.place, atol=1e-9)


def test_radius_is_in_the_users_units(wine):
    X = wine.to_numpy() / np.abs(wine.to_numpy()).max(0)
    map_ = quick().fit(X)
    scaler = MaxAbsScaler().fit(np.full((1, 13), 50.0))
    why = ptsne.explain(Pipeline([("scaler", scaler), ("map", map_)]), 50 * X)
    np.testing.assert_allclose(why.radius(), 50 * map_.explain(X).radius(), rtol=1e-9)


def test_table_has_the_users_names(pipeline, wine):
    frame = ptsne.explain(pipeline, wine.iloc[:2]).to_frame()
    assert list(frame["feature"][:13]) == list(wine.columns)
    np.testing.assert_allclose(frame["value"], wine.iloc[:2].to_numpy().ravel())


# ---- what is refused, and where a map may stand ----


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


# ---- sparse rows ----


@pytest.fixture
def most_dense_rows(monkeypatch):
    """Numbers of rows that became dense at once, where a block has 50."""
    monkeypatch.setattr(columns, "ROWS_PER_BLOCK", 50)
    seen = [0]
    for kind in (sparse.csr_array, sparse.csr_matrix):

        def watched(self, *args, original=kind.toarray, **options):
            seen.append(self.shape[0])
            return original(self, *args, **options)

        monkeypatch.setattr(kind, "toarray", watched)
        monkeypatch.setattr(kind, "todense", None)
    return seen


@pytest.mark.parametrize("step", [TruncatedSVD(5, random_state=0), MaxAbsScaler()], ids=str)
def test_sparse_rows_become_dense_in_blocks(step, wine, most_dense_rows):
    X = sparse.csr_array(wine.to_numpy())
    pipeline = Pipeline([("step", clone(step).fit(X)), ("map", quick())])
    pipeline[-1].fit(pipeline[:-1].transform(wine.to_numpy()))
    most_dense_rows.clear()
    why = ptsne.explain(pipeline, X, training_rows=X)
    assert max(most_dense_rows) == 50
    dense = ptsne.explain(pipeline, wine.to_numpy(), training_rows=wine.to_numpy())
    for name in ("weight", "intercept", "Y", "baseline"):
        same = getattr(dense, name)
        np.testing.assert_allclose(getattr(why, name), same, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(why.landmarks.rows, dense.landmarks.rows, rtol=0, atol=0)


def test_sparse_rows_that_are_no_training_rows_are_refused(wine, most_dense_rows):
    X = sparse.csr_array(wine.to_numpy())
    pipeline = Pipeline([("step", MaxAbsScaler().fit(X)), ("map", quick())])
    pipeline[-1].fit(pipeline[:-1].transform(wine.to_numpy()))
    for other in (X[:60], X[::-1]):
        with pytest.raises(ValueError, match="not the rows that the map was trained on"):
            ptsne.explain(pipeline, X[:3], training_rows=other)


def test_more_sparse_rows_than_memory_is_set_aside_for_are_refused(wine, monkeypatch):
    X = sparse.csr_array(wine.to_numpy())
    pipeline = Pipeline([("step", MaxAbsScaler().fit(X)), ("map", quick())])
    pipeline[-1].fit(pipeline[:-1].transform(wine.to_numpy()))
    monkeypatch.setattr(of_rows, "DENSE_BUDGET", 1000)
    with pytest.raises(MemoryError, match=r"178 sparse rows of 13 columns.*fewer rows at a time"):
        ptsne.explain(pipeline, X)


# ---- steps of steps, and gaps ----


def filled_twice():
    """Imputers behind each other and behind columns that part and meet."""
    first = ColumnTransformer(
        [("few", SimpleImputer(), slice("alcohol", "ash"))], remainder="passthrough"
    )
    both = make_union("passthrough", make_union(StandardScaler(), "passthrough"))
    return make_pipeline(first, SimpleImputer(strategy="median"), both)


def test_gaps_that_are_filled_one_after_the_other(wine):
    table = wine.copy()
    table.iloc[::7, 1] = table.iloc[3::11, 6] = np.nan
    pipeline = make_pipeline(filled_twice(), quick()).fit(table)
    why = ptsne.explain(pipeline, table)
    np.testing.assert_allclose(why.Y, pipeline[-1].embedding_, rtol=0, atol=1e-9)
    gaps = table.isna().to_numpy()[:, [list(table.columns).index(n) for n in why.feature_names]]
    assert (why.weight.transpose(0, 2, 1)[gaps] == 0).all()
    filled = table.fillna({
        c: table[c].mean() if c == "malic_acid" else table[c].median() for c in table
    })
    np.testing.assert_allclose(why.X, filled[why.feature_names], rtol=1e-9, atol=0)


def test_gaps_that_no_step_fills(wine):
    pipeline = make_pipeline(StandardScaler(), quick()).fit(wine)
    with pytest.raises(ValueError, match="leave missing values to the map; put a SimpleImputer"):
        ptsne.explain(pipeline, wine.where(wine > wine.min()))


def test_words_that_are_filled_in_are_refused(wine):
    words = SimpleImputer(strategy="constant", fill_value="none")
    words.fit(np.array([["a", None]] * 3, dtype=object))
    pipeline = Pipeline([("words", words), ("map", quick().fit(wine.to_numpy()))])
    with pytest.raises(ValueError, match=r"'words'.*it fills in words, which are no numbers"):
        ptsne.pipelines.explaining.fold_steps(_split(pipeline)[0], np.zeros((1, 2)))
