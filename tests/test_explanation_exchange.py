"""Explanations for other libraries: SHAP's pictures, tables of pandas and polars."""

import sys

import numpy as np
import pytest
import sklearn
import torch
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ptsne


@pytest.fixture(scope="module")
def iris():
    return load_iris(as_frame=True).data


@pytest.fixture(scope="module")
def map_(iris):
    return ptsne.ParametricTSNE(perplexity=15, max_iter=60, random_state=0).fit(iris)


@pytest.fixture(scope="module")
def why(map_, iris):
    return map_.explain(iris)


@pytest.fixture(scope="module")
def shap():
    return pytest.importorskip("shap")


@pytest.mark.parametrize("method", ["contributions", "path", "paired"])
def test_shap_values_sum_to_the_place(shap, why, iris, method):
    given = why.to_shap(method=method)
    assert isinstance(given, shap.Explanation)
    assert given.shape == (150, 4, 2)
    np.testing.assert_allclose(given.values.sum(1) + given.base_values, why.Y, atol=1e-9)
    np.testing.assert_array_equal(given.data, iris)
    assert list(given.feature_names) == list(iris.columns)
    assert list(given.output_names) == ["map 1", "map 2"]


def test_base_values_are_the_local_ones_or_the_baselines_place(shap, map_, why, iris):
    np.testing.assert_allclose(why.to_shap().base_values, why.offset)
    place = map_.transform(iris.mean().to_frame().T)
    for method in ("path", "paired"):
        np.testing.assert_allclose(why.to_shap(method=method).base_values, place.repeat(150, 0))


def test_shap_values_are_the_contributions(shap, why):
    np.testing.assert_array_equal(why.to_shap().values, why.contributions.transpose(0, 2, 1))
    np.testing.assert_array_equal(why.to_shap()[3, :, 1].values, why.contributions[3, 1])


def test_path_values_are_exact_integrated_gradients(shap, map_, why):
    x, baseline = torch.from_numpy(why.X[:5].copy()), torch.from_numpy(why.baseline[:5].copy())
    given = why.to_shap(method="path").values
    for k in range(2):
        expected = ptsne.integrated_gradients(map_._network(np.float64), x, baseline, k)
        np.testing.assert_allclose(given[:5, :, k], expected.numpy(), atol=1e-9)


@pytest.mark.parametrize("plot", ["bar", "beeswarm", "waterfall", "heatmap", "scatter"])
def test_shap_draws_it(shap, why, plot):
    import matplotlib.pyplot as plt

    given = why.to_shap()[:, :, 0]
    part = {"waterfall": given[7], "scatter": given[:, 2]}.get(plot, given)
    getattr(shap.plots, plot)(part, show=False)
    texts = [text.get_text() for axes in plt.gcf().axes for text in axes.texts]
    labels = [label.get_text() for axes in plt.gcf().axes for label in axes.get_yticklabels()]
    labels += [axes.get_xlabel() for axes in plt.gcf().axes]
    assert any("petal length (cm)" in words for words in labels + texts)


def test_shap_of_a_pipeline_is_in_the_users_columns(shap, iris):
    map_ = ptsne.ParametricTSNE(perplexity=15, max_iter=20, random_state=0)
    pipeline = make_pipeline(StandardScaler(), map_).fit(iris)
    given = ptsne.explain(pipeline, iris[:9]).to_shap(method="path")
    np.testing.assert_array_equal(given.data, iris[:9])
    np.testing.assert_allclose(
        given.values.sum(1) + given.base_values, pipeline.transform(iris[:9])
    )


def test_tables_of_both_libraries_say_the_same(why):
    polars = pytest.importorskip("polars")
    pandas_table, polars_table = why.to_frame(), why.to_frame("polars")
    assert isinstance(polars_table, polars.DataFrame)
    assert list(pandas_table.columns) == polars_table.columns
    assert len(pandas_table) == 600
    assert polars_table["feature"].dtype == polars.String
    for name in pandas_table.columns:
        assert (pandas_table[name].to_numpy() == polars_table[name].to_numpy()).all()


def test_scikit_learns_configuration_chooses_the_table(why):
    polars = pytest.importorskip("polars")
    with sklearn.config_context(transform_output="polars"):
        assert isinstance(why.to_frame(), polars.DataFrame)
        assert not isinstance(why.to_frame("pandas"), polars.DataFrame)
    assert not isinstance(why.to_frame(), polars.DataFrame)


def test_polars_in_names_out(iris):
    polars = pytest.importorskip("polars")
    X = polars.from_pandas(iris)
    map_ = ptsne.ParametricTSNE(perplexity=15, max_iter=20, random_state=0).fit(X)
    why = map_.explain(X[:3])
    assert why.feature_names == list(iris.columns)
    assert list(why.to_frame("polars")["feature"][:4]) == list(iris.columns)
    with pytest.raises(ValueError, match="feature names"):
        map_.transform(X.rename({X.columns[0]: "other"}))


def test_unknown_words_and_absent_libraries_get_advice(why, monkeypatch):
    with pytest.raises(ValueError, match="got 'spark'"):
        why.to_frame("spark")
    with pytest.raises(ValueError, match="got 'kernel'"):
        why.to_shap(method="kernel")
    monkeypatch.setitem(sys.modules, "shap", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="pip install shap"):
        why.to_shap()
    with pytest.raises(ImportError, match="pip install polars"):
        why.to_frame("polars")


@pytest.mark.parametrize("method", ["path", "paired"])
def test_to_captum_is_complete(why, method):
    attributions, delta = why.to_captum(1, method=method)
    assert attributions.shape == why.X.shape
    assert float(delta.abs().max()) < 1e-10
    np.testing.assert_allclose(attributions, why.displacement(method=method)[:, 1])
    with pytest.raises(ValueError, match="0 to 1; got 2"):
        why.to_captum(2)
