"""Model files: the same bits come back, and nothing else gets in."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_iris
from torch import nn

import ptsne
from ptsne import ParametricTSNE, persistence

CONFIGURATIONS = [
    {},
    {"encoder": (8, 4), "n_components": 3},
    {"encoder": None, "n_components": 1},
    {"encoder": "linear", "projection": (8, 4)},
    {"perplexity": [5, 10], "callbacks": print, "random_state": np.random.RandomState(0)},
]


def fit(**parameters):
    defaults = {"perplexity": 10, "max_iter": 20, "random_state": 0}
    return ParametricTSNE(**{**defaults, **parameters}).fit(load_iris(as_frame=True).data)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "iris.ptsne"
    fit().save(path)
    return path


@pytest.mark.parametrize("parameters", CONFIGURATIONS, ids=str)
def test_a_loaded_map_gives_the_same_bits(parameters, tmp_path):
    map_, X = fit(**parameters), load_iris(as_frame=True).data
    map_.save(tmp_path / "model")
    again = ptsne.load(tmp_path / "model")
    assert (again.transform(X) == map_.transform(X)).all()
    assert (again.embedding_ == map_.embedding_).all()
    a, b = again.explain(X), map_.explain(X)
    assert (a.weight == b.weight).all()
    assert (a.baseline == b.baseline).all()
    assert a.feature_names == b.feature_names == list(X.columns)
    assert str(again.history_) == str(map_.history_)  # NaN differs from itself
    assert again.perplexity_ == map_.perplexity_
    assert again.get_params()["n_components"] == map_.n_components
    np.testing.assert_array_equal(again.reconstruct(X), map_.reconstruct(X))


def test_own_modules_are_passed_when_loading(tmp_path):
    encoder = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    projection = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    map_, X = fit(encoder=encoder, projection=projection), load_iris(as_frame=True).data
    map_.save(tmp_path / "model")
    with pytest.raises(ValueError, match="trained with its own encoder"):
        ptsne.load(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        ptsne.load(tmp_path / "model", encoder=nn.Linear(4, 3), projection=projection)
    again = ptsne.load(tmp_path / "model", encoder=encoder, projection=projection)
    assert (again.transform(X) == map_.transform(X)).all()


def test_file_holds_no_pickle_and_little_data(path):
    data = path.read_bytes()
    assert len(data) < 100_000
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert set(header.pop("__metadata__")) == {"ptsne"}
    assert {part["dtype"] for part in header.values()} == {"F64", "I64"}
    end = max(part["data_offsets"][1] for part in header.values())
    assert 8 + length + end == len(data)  # numbers, and nothing behind them


def damaged(path, kind):
    data = path.read_bytes()
    if kind == "truncated":
        return data[: len(data) // 2]
    if kind == "flipped":
        return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    if kind == "pickle":
        return pickle.dumps({"a": 1})
    if kind == "giant header":
        return (2**62).to_bytes(8, "little") + data[8:]
    return b"" if kind == "empty" else b"not a model at all"


@pytest.mark.parametrize(
    "kind", ["truncated", "flipped", "pickle", "giant header", "empty", "text"]
)
def test_damaged_and_foreign_files_are_refused(path, tmp_path, kind):
    bad = tmp_path / "bad"
    bad.write_bytes(damaged(path, kind))
    with pytest.raises(ValueError, match=r"not a ptsne model file|damaged"):
        ptsne.load(bad)


def test_other_safetensors_and_newer_formats_are_refused(path, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="not a ptsne model file"):
        ptsne.load(tmp_path / "other")
    header = persistence.read(path).header | {"format": 99}
    save_file(load_file(path), tmp_path / "newer", {"ptsne": json.dumps(header)})
    with pytest.raises(ValueError, match="has format 99"):
        ptsne.load(tmp_path / "newer")
    with pytest.raises(FileNotFoundError, match="no model file"):
        ptsne.load(tmp_path / "missing")
