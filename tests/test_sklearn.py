"""scikit-learn's own check suite, with default parameters, and its tools."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ptsne import ParametricTSNE

# the check data have 1 to 30 rows, for which a perplexity of 30 is lowered with a warning
pytestmark = pytest.mark.filterwarnings("ignore:perplexity .* is too high")


@parametrize_with_checks([ParametricTSNE()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def quick(**parameters):
    return ParametricTSNE(perplexity=10, max_iter=30, random_state=0, **parameters)


def test_pipeline_and_grid_search():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), quick(), KNeighborsClassifier(5))
    search = GridSearchCV(pipeline, {"parametrictsne__perplexity": [5, 15]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.7


def test_grid_search_by_own_score():
    X = load_iris().data
    search = GridSearchCV(quick(), {"n_landmarks": [10, 20]}, cv=2).fit(X)
    assert 0.5 < search.best_score_ <= 1


def test_clone_keeps_every_parameter():
    parameters = {
        "n_components": 3,
        "perplexity": [5, 10],
        "metric": "cosine",
        "encoder": (8,),
        "projection": (16,),
        "latent_dim": 3,
        "n_landmarks": 7,
        "dof": 0.5,
        "fidelity_weight": 0.12,
        "verbose": 1,
    }
    copy = clone(ParametricTSNE(**parameters))
    assert {name: copy.get_params()[name] for name in parameters} == parameters


def test_pandas_in_names_out():
    X, y = load_iris(return_X_y=True, as_frame=True)
    map_ = quick().set_output(transform="pandas")
    frame = map_.fit_transform(X, y)
    assert list(frame.columns) == ["parametrictsne0", "parametrictsne1"]
    assert list(map_.get_feature_names_out()) == list(frame.columns)
    assert map_.explain(X.iloc[:2]).feature_names == list(X.columns)
    with pytest.raises(ValueError, match="feature names"):
        map_.transform(X.rename(columns={X.columns[0]: "other"}))


def test_polars_out():
    pytest.importorskip("polars")
    X = load_iris().data
    frame = quick().set_output(transform="polars").fit_transform(X)
    assert frame.shape == (150, 2)


@pytest.mark.parametrize("module", ["pickle", "joblib"])
def test_pickle_and_joblib_give_the_same_bits(module, tmp_path):
    import pickle

    import joblib

    X = load_iris().data
    map_ = quick().fit(X)
    path = tmp_path / "model"
    if module == "pickle":
        path.write_bytes(pickle.dumps(map_))
        again = pickle.loads(path.read_bytes())
    else:
        joblib.dump(map_, path)
        again = joblib.load(path)
    assert (again.transform(X) == map_.transform(X)).all()
    assert (again.explain(X).weight == map_.explain(X).weight).all()
    assert path.stat().st_size < 300_000
    with pytest.raises(ValueError, match="call inverse_transform once"):
        again.inverse_transform(np.zeros((1, 2)))
