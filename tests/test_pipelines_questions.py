"""Baselines, landmarks, contrasts and counterfactuals of a pipeline, in the user's columns."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

import ptsne
from folding import STEPS, check_exact, fitted, quick


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True).data


@pytest.fixture(scope="module")
def y():
    return load_wine().target


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
