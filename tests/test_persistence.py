"""Model files: the same bits come back, and nothing else gets in."""

import copy
import io
import json
import pickle
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import ptsne
from ptsne import ParametricTSNE, persistence
from ptsne.persistence import saving

CONFIGURATIONS = [
    {},
    {"encoder": (8, 4), "n_components": 3},
    {"encoder": None, "n_components": 1},
    {"encoder": "linear", "projection": (8, 4)},
    {"perplexity": [5, 10], "callbacks": print, "random_state": np.random.RandomState(0)},
]


GOLDEN = Path(__file__).parent / "golden"


def fit_rows(*, X, **parameters):
    defaults = {"perplexity": 10, "max_iter": 20, "random_state": 0}
    return ParametricTSNE(**{**defaults, **parameters}).fit(X)


def fit(**parameters):
    return fit_rows(X=load_iris(as_frame=True).data, **parameters)


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))


def through_joblib(value):
    file = io.BytesIO()
    joblib.dump(value, file)
    file.seek(0)
    return joblib.load(file)


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


@pytest.fixture(scope="module")
def lean(path, tmp_path_factory):
    """The iris map from a file without single training rows."""
    lean = tmp_path_factory.mktemp("lean") / "iris.ptsne"
    ptsne.load(path).save(lean, landmark_rows=False, embedding=False)
    assert lean.stat().st_size < path.stat().st_size - 150 * 2 * 8
    return lean


def test_rows_and_places_of_single_training_rows_can_be_left_out(path, lean, tmp_path):
    frame = load_iris(as_frame=True).data
    whole, map_ = ptsne.load(path), ptsne.load(lean)
    assert not {"_landmark_rows", "embedding_"} & set(persistence.read(lean).tensors)
    np.testing.assert_array_equal(map_.transform(frame), whole.embedding_)
    assert not hasattr(map_, "embedding_")
    a, b = map_.explain(frame).landmarks, whole.explain(frame).landmarks
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert np.isnan(a.rows).all()
    with pytest.raises(ValueError, match="saved without; with the training rows at hand"):
        map_.explain(frame, baseline="landmark")
    with pytest.raises(ValueError, match="saved without"):
        map_.explain(frame).with_baseline("landmark")
    rows = frame.to_numpy()[a.indices[:, 0]]
    expected = whole.explain(frame, baseline="landmark").contributions
    np.testing.assert_array_equal(map_.explain(frame, baseline=rows).contributions, expected)
    map_.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == lean.read_bytes()


def test_no_value_of_a_training_row_is_left_in_a_lean_file(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 5))
    map_ = ParametricTSNE(perplexity=10, max_iter=20, n_landmarks=60, random_state=0).fit(X)
    held = {}
    for is_kept in (True, False):
        map_.save(tmp_path / "model", landmark_rows=is_kept, embedding=is_kept)
        data = (tmp_path / "model").read_bytes()
        held[is_kept] = sum(value.tobytes() in data for value in X.ravel())
    assert held[True] > 100
    assert held[False] == 0


def test_a_pipeline_asks_for_left_out_rows(tmp_path):
    X = load_iris().data
    pipeline = make_pipeline(StandardScaler(), fit_rows(X=StandardScaler().fit_transform(X)))
    pipeline[0].fit(X)
    whole = ptsne.explain(pipeline, X[:9], training_rows=X).landmarks
    pipeline[1].save(tmp_path / "model", landmark_rows=False)
    lean = make_pipeline(pipeline[0], ptsne.load(tmp_path / "model"))
    assert np.isnan(ptsne.explain(lean, X[:9]).landmarks.rows).all()
    with pytest.raises(ValueError, match="saved without"):
        ptsne.explain(lean, X[:9], baseline="landmark")
    np.testing.assert_array_equal(
        ptsne.explain(lean, X[:9], training_rows=X).landmarks.rows, whole.rows
    )
    with pytest.raises(ValueError, match="not the rows"):
        ptsne.explain(lean, X[:9], training_rows=X + 1)


def test_a_trained_inverse_comes_back(path, tmp_path):
    map_ = fit(encoder=None)
    map_.save(tmp_path / "model")
    with pytest.raises(ValueError, match="then pickle or save"):
        ptsne.load(tmp_path / "model").inverse_transform(map_.embedding_)
    rows = map_.inverse_transform(map_.embedding_)
    map_.save(tmp_path / "model", embedding=False)
    again = ptsne.load(tmp_path / "model")
    np.testing.assert_array_equal(again.inverse_transform(map_.embedding_), rows)
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


@pytest.mark.parametrize("copy_of", [copy.deepcopy, through_pickle, through_joblib])
def test_copies_of_a_loaded_map_give_the_same_bits(path, copy_of):
    X = load_iris(as_frame=True).data
    map_ = ptsne.load(path)
    again = copy_of(map_)
    np.testing.assert_array_equal(again.transform(X), map_.transform(X))
    a, b = again.explain(X), map_.explain(X)
    np.testing.assert_array_equal(a.weight, b.weight)
    np.testing.assert_array_equal(a.landmarks.rows, b.landmarks.rows)
    np.testing.assert_array_equal(a.trust, b.trust)
    np.testing.assert_array_equal(again.reconstruct(X), map_.reconstruct(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_of_rows_comes_back(dtype, tmp_path):
    X = load_iris().data.astype(dtype)
    map_ = fit_rows(X=X)
    map_.save(tmp_path / "model")
    again = ptsne.load(tmp_path / "model")
    assert again.embedding_.dtype == again.explain(X).landmarks.rows.dtype == dtype
    np.testing.assert_array_equal(again.transform(X), map_.embedding_)
    np.testing.assert_array_equal(again.explain(X).trust, map_.explain(X).trust)


@pytest.mark.parametrize(
    "names", [["é", "長さ", 'a\n"b"', "🌷"], [0, 1, 2, 3], ["", "../x", " ", "__metadata__"]]
)
def test_names_of_columns_come_back(names, tmp_path):
    frame = pd.DataFrame(load_iris().data, columns=names)
    map_ = fit_rows(X=frame)
    map_.save(tmp_path / "model")
    again = ptsne.load(tmp_path / "model")
    assert again.explain(frame).feature_names == map_.explain(frame).feature_names
    assert hasattr(again, "feature_names_in_") == isinstance(names[0], str)
    np.testing.assert_array_equal(again.transform(frame), map_.embedding_)


def test_deep_networks_come_back(tmp_path):
    """Above ten layers, names in a file are in another order than layers."""
    X = load_iris().data
    map_ = fit_rows(X=X, encoder=(9, 8, 7, 6, 5, 4, 3), projection=(3, 4, 5, 6, 7, 8, 9))
    map_.save(tmp_path / "model")
    again = ptsne.load(tmp_path / "model")
    np.testing.assert_array_equal(again.transform(X), map_.embedding_)
    np.testing.assert_array_equal(again.reconstruct(X), map_.reconstruct(X))


def test_parameters_of_numpy_types_are_saved(tmp_path):
    map_ = fit_rows(
        X=load_iris().data,
        n_components=np.int64(2),
        perplexity=np.array([5, 10]),
        encoder=[4],
        dof=np.float32(1),
    )
    map_.save(tmp_path / "model")
    found = ptsne.load(tmp_path / "model").get_params()
    assert (found["perplexity"], found["encoder"], found["dof"]) == ((5, 10), (4,), 1.0)


class Tied(nn.Module):
    """Two names of one tensor."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class WithExtraState(nn.Linear):
    def get_extra_state(self):
        return {"anything": print}

    def set_extra_state(self, state):
        pass


def test_modules_that_share_weights_are_saved(tmp_path):
    X = load_iris().data
    map_ = fit_rows(X=X, encoder=Tied())
    map_.save(tmp_path / "model")
    again = ptsne.load(tmp_path / "model", encoder=Tied())
    np.testing.assert_array_equal(again.transform(X), map_.embedding_)
    np.testing.assert_array_equal(again.reconstruct(X), map_.reconstruct(X))


def test_modules_with_other_state_are_refused(path, tmp_path):
    map_ = copy.deepcopy(ptsne.load(path))
    map_.network_.encoder = WithExtraState(4, 3)
    with pytest.raises(ValueError, match=r"_extra_state.*cannot be stored without pickle"):
        map_.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_module_that_computes_something_else_is_refused(path, tmp_path):
    map_ = fit_rows(X=load_iris().data, encoder=nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    map_.save(tmp_path / "model")
    ptsne.load(tmp_path / "model", encoder=nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    with pytest.raises(ValueError, match=r"model cannot be loaded.*computes something else"):
        ptsne.load(tmp_path / "model", encoder=nn.Sequential(nn.Linear(4, 3), nn.Tanh()))
    with pytest.raises(TypeError, match=r"encoder must be a module.*load\(encoder=Module\(\)\)"):
        ptsne.load(tmp_path / "model", encoder=nn.ReLU)
    with pytest.raises(ValueError, match=r"is in the file \('autoencoder'\); load it without"):
        ptsne.load(path, encoder=nn.Linear(4, 3))


class Tilted(nn.Linear):
    """Has float32 numbers that no cast reaches: takes rows of that precision alone."""

    tilt = torch.eye(3) + 0.1

    def forward(self, x):
        return super().forward(x) @ self.tilt


def test_a_module_of_one_precision_is_held_to_its_place(tmp_path):
    X = load_iris().data.astype(np.float32)
    map_ = fit_rows(X=X, encoder=Tilted(4, 3))
    map_.save(tmp_path / "model")
    again = ptsne.load(tmp_path / "model", encoder=Tilted(4, 3))
    np.testing.assert_array_equal(again.transform(X), map_.embedding_)
    with pytest.raises(ValueError, match="computes something else"):
        ptsne.load(tmp_path / "model", encoder=nn.Linear(4, 3))


class Pairs(nn.Linear):
    """Takes two rows at least."""

    def forward(self, x):
        if len(x) < 2:
            raise ValueError("a row alone")
        return super().forward(x)


def test_a_module_that_takes_no_row_alone_is_loaded_unchecked(tmp_path):
    X = load_iris().data
    map_ = fit_rows(X=X, encoder=Pairs(4, 3))
    map_.save(tmp_path / "model")
    assert "probe" not in persistence.read(tmp_path / "model").tensors
    again = ptsne.load(tmp_path / "model", encoder=Pairs(4, 3))
    np.testing.assert_array_equal(again.transform(X), map_.embedding_)


def test_a_module_with_places_of_another_shape_is_refused(tmp_path):
    map_ = fit_rows(X=load_iris().data, projection=nn.Sequential(nn.Linear(4, 2), nn.Flatten()))
    map_.save(tmp_path / "model")
    flat = nn.Sequential(nn.Linear(4, 2), nn.Flatten(0))
    with pytest.raises(ValueError, match=r"model cannot be loaded.*computes something else"):
        ptsne.load(tmp_path / "model", projection=flat)


def test_a_loaded_map_has_no_gradients_and_can_be_fitted_again(path):
    X = load_iris().data
    map_ = ptsne.load(path)
    assert not any(p.requires_grad for p in map_.network_.parameters())
    again = map_.fit(X[:, :3])
    assert again.transform(X[:, :3]).shape == (150, 2)


def test_a_file_says_who_wrote_it(path):
    versions = persistence.read(path).header["versions"]
    # the build, as in 2.13.0+cu130, is told by some wheels of torch only once it is imported
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(versions) == {"ptsne", "torch", "numpy", "scikit-learn", "safetensors"}


def test_a_library_that_is_not_installed_has_no_version(path, tmp_path, monkeypatch):
    """Such as ptsne itself, run from its source."""

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(saving, "version", missing)
    ptsne.load(path).save(tmp_path / "model")
    assert set(persistence.read(tmp_path / "model").header["versions"].values()) == {"unknown"}
    assert ptsne.load(tmp_path / "model").n_features_in_ == 4


def test_files_of_the_first_format_load(tmp_path):
    """The golden file was written by the last code that wrote format 1; its rows lie beside it."""
    golden = np.load(GOLDEN / "format1.npz")
    map_ = ptsne.load(GOLDEN / "format1.ptsne")
    rows = pd.DataFrame(golden["rows"], columns=["a", "b", "c"])
    np.testing.assert_allclose(map_.transform(rows), golden["places"], rtol=1e-10)
    np.testing.assert_allclose(map_.embedding_, golden["places"], rtol=1e-10)
    assert map_.feature_names_in_.tolist() == ["a", "b", "c"]
    map_.save(tmp_path / "model")
    assert persistence.read(tmp_path / "model").header["format"] == 2
    again = ptsne.load(tmp_path / "model")
    np.testing.assert_array_equal(again.transform(rows), map_.transform(rows))
