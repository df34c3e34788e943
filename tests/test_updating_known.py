"""What an update needs of the rows that the map was given before."""

import numpy as np
import pytest
from sklearn.datasets import load_iris

from ptsne import ParametricTSNE
from ptsne.lazy import LazyRows
from ptsne.updating import known

X = load_iris().data
OLD, NEW = X[50:], X[:40]


def fitted(**parameters):
    return ParametricTSNE(perplexity=10, max_iter=40, random_state=0, **parameters).fit(OLD)


@pytest.mark.parametrize("n_remembered", [20_000, 60])
def test_rows_that_were_read_in_blocks_are_brought_to_hand(monkeypatch, n_remembered):
    monkeypatch.setattr(known, "REMEMBERED", n_remembered)
    map_ = fitted(memory_budget="64MiB")
    assert isinstance(map_._training_rows, LazyRows)
    places = map_.transform(OLD)
    map_.update(NEW)
    assert map_.drift_.n_new_landmarks > 0
    everything = np.vstack([OLD, NEW])
    if n_remembered > len(everything):
        assert map_._training_numbers is None
        assert (map_._training_rows == everything).all()
        assert (map_.transform(OLD) == places).all()
        assert map_.drift_.witnesses == "training rows"
    else:
        assert len(set(map_._training_numbers.tolist())) == 60
        assert (map_._training_rows == everything[map_._training_numbers]).all()
        assert map_.drift_.witnesses == "rows at hand and landmark rows"
    assert map_.embedding_.shape == (140, 2)


def test_an_error_leaves_rows_where_they_were(monkeypatch):
    monkeypatch.setattr(known, "REMEMBERED", 60)
    map_ = fitted(memory_budget="64MiB")
    before = dict(vars(map_))
    with pytest.raises(ValueError, match="tolerance must be"):
        map_.update(NEW, tolerance=-1)
    map_.callbacks = [lambda record: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        map_.update(NEW)
    assert vars(map_) == before | {"callbacks": map_.callbacks}


def test_a_map_whose_rows_were_not_measured_says_so(tmp_path):
    map_ = fitted()
    map_._trust_quantiles = map_._trust_readout = None  # as in the first files
    map_.save(tmp_path / "model")
    loaded = ParametricTSNE.load(tmp_path / "model")
    with pytest.raises(ValueError, match="saved before training rows were measured"):
        loaded.update(NEW, keep=OLD)
