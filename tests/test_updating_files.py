"""Maps from files and pickles learn too: what they watch, and what they cannot."""

import pickle
from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from sklearn.datasets import load_digits

from ptsne import ParametricTSNE
from updates import ELSEWHERE, IRIS, NEW, OLD, quick

pytestmark = [
    pytest.mark.filterwarnings("ignore:perplexity .* is too high"),
    pytest.mark.usefixtures("short_updates"),
]


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(OLD)


@pytest.mark.filterwarnings("ignore:this map has neither its training rows nor their codes")
@pytest.mark.parametrize("options", [{}, {"embedding": False}, {"landmark_rows": False}])
def test_a_loaded_map_learns(fitted, tmp_path, options):
    fitted.save(tmp_path / "map", **options)
    map_ = ParametricTSNE.load(tmp_path / "map")
    landmarks = fitted._landmark_rows
    places = map_.transform(landmarks)
    map_.update(NEW[:40])
    assert map_.drift_.n_new_landmarks > 0
    assert (map_.transform(landmarks) == places).all()
    assert hasattr(map_, "embedding_") == options.get("embedding", True)
    map_.save(tmp_path / "again")
    again = ParametricTSNE.load(tmp_path / "again")
    assert (again.transform(IRIS.data) == map_.transform(IRIS.data)).all()
    map_.update(ELSEWHERE[:30])
    assert map_.drift_.n_new_landmarks > 0


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A map without the nines, from a file with codes and from one without; rows of both kinds."""
    folder = tmp_path_factory.mktemp("digits")
    X, y = (values[:700] for values in load_digits(return_X_y=True))
    map_ = quick(quality="fast").fit(X[y != 9])
    for codes in (True, False):
        map_.save(folder / str(codes), codes=codes)
    loaded = {codes: partial(ParametricTSNE.load, folder / str(codes)) for codes in (True, False)}
    return map_, loaded, X[y != 9], X[y == 9]


def moved(map_, rows, **options):
    """How far rows move when a map learns the nines."""
    places = map_.transform(rows)
    map_.update(**options)
    return np.linalg.norm(map_.transform(rows) - places, axis=1)


@pytest.mark.parametrize("kind", ["file", "pickle", "file twice"])
@pytest.mark.parametrize("tolerance", ["auto", 0.0])
def test_rows_that_are_in_no_file_stay_too(digits, tmp_path, kind, tolerance):
    map_, loaded, old, new = digits
    map_ = pickle.loads(pickle.dumps(map_)) if kind == "pickle" else loaded[True]()
    if kind == "file twice":
        map_.update(new[:30]).save(tmp_path / "again")
        map_, old, new = ParametricTSNE.load(tmp_path / "again"), np.vstack([old, new[:30]]), -new
    way = moved(map_, old, X=new, tolerance=tolerance)
    assert way.max() <= map_.drift_.tolerance + 1e-9
    assert map_.drift_.n_new_landmarks > 0
    assert map_.drift_.n_unwatched == 0
    assert map_.drift_.movement.n_rows > len(old)
    assert map_.drift_.witnesses == "landmark rows and codes of known rows"


def test_without_codes_a_file_says_what_it_cannot_watch(digits):
    _, loaded, old, new = digits
    map_ = loaded[False]()
    with pytest.warns(UserWarning, match=r"630 known rows may move.*pass them as keep=, or save"):
        way = moved(map_, old, X=new)
    assert (way > map_.drift_.tolerance).any()  # they do: this is why codes are kept
    assert map_.drift_.n_unwatched == len(old) == 630
    assert "630 known rows were not watched" in str(map_.drift_)
    again = loaded[False]()
    assert moved(again, old, X=new, keep=old).max() <= again.drift_.tolerance
    assert again.drift_.n_unwatched == 0


def test_the_inverse_does_not_learn_from_new_rows_alone(fitted):
    map_ = pickle.loads(pickle.dumps(fitted)).update(NEW[:40])
    with pytest.raises(ValueError, match="before this estimator was pickled or saved"):
        map_.inverse_transform(map_.embedding_[:3])


def test_codes_are_as_many_as_they_may_be(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("ptsne.explanation.trust.CODE_BYTES", 8 * 4 * 20)
    map_ = quick().fit(OLD)
    assert map_._known_codes.shape == (20, 4)
    assert (fitted._known_codes[::5] == map_._known_codes).all()
    map_.save(tmp_path / "map")
    map_ = ParametricTSNE.load(tmp_path / "map").update(NEW[:40])
    assert map_.drift_.n_unwatched == 80
    assert len(map_._known_codes) == 40
    map_.update(ELSEWHERE[:30])  # nothing is at hand of the 80, and all of the last 40
    assert map_.drift_.n_unwatched == 80
    assert len(map_._known_codes) <= 40


def test_rows_to_keep_are_kept_by_a_loaded_map(fitted):
    map_ = pickle.loads(pickle.dumps(fitted))
    places = map_.transform(OLD)
    map_.update(NEW[:40], keep=OLD)
    assert (map_.transform(OLD) == places).all()
    assert map_.drift_.movement.n_rows > len(OLD)


def test_what_is_new_keeps_off_a_map_of_which_nothing_but_the_landmarks_is_left(tmp_path):
    map_ = quick().fit(OLD)
    occupied = map_.embedding_
    map_.save(tmp_path / "map", landmark_rows=False, embedding=False)
    again = ParametricTSNE.load(tmp_path / "map")
    with pytest.warns(UserWarning, match="neither its training rows nor their codes"):
        again.update(ELSEWHERE)  # not a row that the map has known
    islands = again.transform(ELSEWHERE)
    assert again.drift_.n_novel == len(ELSEWHERE)
    assert cdist(islands, occupied).min() > np.median(pdist(occupied)) / 10


@pytest.mark.filterwarnings("ignore:this map has neither its training rows")
def test_one_row_that_the_only_landmark_holds_has_a_distance(tmp_path):
    quick(n_landmarks=1).fit(OLD).save(tmp_path / "map", landmark_rows=False)
    again = ParametricTSNE.load(tmp_path / "map")
    again.partial_fit(OLD[:1])
    assert np.isfinite(np.asarray(again.explain(OLD).trust)).all()
