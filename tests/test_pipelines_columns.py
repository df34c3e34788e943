"""Columns of a table: names, words, gaps, imputers behind each other, sparse rows."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

import ptsne
from folding import check_exact, fitted, quick
from ptsne import rows as of_rows
from ptsne.pipelines import columns
from ptsne.pipelines.explaining import _split


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True).data


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


# ---- sparse rows ----


@pytest.fixture
def most_dense_rows(monkeypatch, dense_blocks):
    """Numbers of rows that became dense at once, where a block has 50."""
    monkeypatch.setattr(columns, "ROWS_PER_BLOCK", 50)
    return dense_blocks


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
