"""Rows that do not fit into memory give the map that they would give in memory, or nearly."""

import pickle
import tempfile

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from ptsne import ParametricTSNE
from ptsne.metrics import neighbor_recall

MIB = 2**20
IRIS = load_iris().data
N_ROWS, N_COLUMNS = 240, 400
BUDGET = "128MiB"


def wide_rows(seed=0, dtype=np.float64):
    """Six clusters in 20 directions of 400 columns, and some noise."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(N_COLUMNS, 20)))[0].T
    centres = 6 * rng.normal(size=(6, 20))
    codes = centres[np.arange(N_ROWS) % 6] + rng.normal(size=(N_ROWS, 20))
    rows = codes @ directions + 0.02 * rng.normal(size=(N_ROWS, N_COLUMNS)) + 3.0
    return rows.astype(dtype)


WIDE = wide_rows()


def quick(**parameters):
    return ParametricTSNE(**{
        "perplexity": 10,
        "max_iter": 40,
        "latent_dim": 20,
        "random_state": 0,
        "memory_budget": BUDGET,
        **parameters,
    })


class Pairs(Dataset):
    """Items are (row, label), rows are images."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return torch.tensor(self.rows[i]).reshape(2, -1), i % 3


class Endless(IterableDataset):
    def __iter__(self):
        return iter(WIDE)


def memmap(rows, folder):
    np.save(folder / "rows.npy", rows)
    return np.load(folder / "rows.npy", mmap_mode="r")


def hdf5(rows, folder):
    file = pytest.importorskip("h5py").File(folder / "rows.h5", "w")
    return file.create_dataset("rows", data=rows, chunks=(len(rows) // 3, rows.shape[1]))


def contiguous_hdf5(rows, folder):
    return pytest.importorskip("h5py").File(folder / "flat.h5", "w").create_dataset("r", data=rows)


def zarr_array(rows, folder):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        folder / "rows.zarr", shape=rows.shape, chunks=(len(rows) // 5, 2), dtype="f8"
    )
    array[:] = rows
    return array


def dask_array(rows, _):
    dask = pytest.importorskip("dask.array")
    return dask.from_array(rows, chunks=((100, 17, len(rows) - 117), 150))


SOURCES = {
    "array": lambda rows, _: rows,
    "memmap": memmap,
    "hdf5": hdf5,
    "hdf5 without chunks": contiguous_hdf5,
    "zarr": zarr_array,
    "csr": lambda rows, _: sparse.csr_array(rows),
    "csc": lambda rows, _: sparse.csc_array(rows),
    "dask": dask_array,
    "data set": lambda rows, _: Pairs(rows),
    "tensors": lambda rows, _: TensorDataset(torch.tensor(rows)),
}


@pytest.fixture(scope="module")
def streamed():
    return quick().fit(WIDE)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


# ---- fit ----


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_map(kind, streamed, tmp_path):
    data = SOURCES[kind](WIDE, tmp_path)
    map_ = quick().fit(data)
    assert (map_.embedding_ == streamed.embedding_).all()
    assert (map_._landmark_rows == WIDE[map_.landmark_indices_]).all()
    places = map_.transform(data)
    assert (np.asarray(places) == map_.transform(WIDE)).all()
    assert (map_.reconstruct(data) == map_.reconstruct(WIDE)).all()
    assert map_.score(data) == map_.score(WIDE)
    assert (map_.explain(data).weight == map_.explain(WIDE).weight).all()


@pytest.mark.parametrize("kind", [k for k in SOURCES if k not in {"csr", "csc"}])
def test_lazy_sources_are_read_into_memory_without_a_budget(kind, tmp_path):
    data = SOURCES[kind](IRIS, tmp_path)
    plain = quick(memory_budget=None, max_iter=10, latent_dim=4).fit(IRIS)
    map_ = quick(memory_budget=None, max_iter=10, latent_dim=4).fit(data)
    assert (map_.embedding_ == plain.embedding_).all()


def test_a_streamed_map_is_as_good_as_one_in_memory(streamed):
    in_memory = quick(memory_budget=None).fit(WIDE)
    ours, theirs = (
        neighbor_recall(WIDE, map_.embedding_, n_neighbors=10) for map_ in (streamed, in_memory)
    )
    assert ours > theirs - 0.03
    assert streamed.kl_divergence_ < in_memory.kl_divergence_ + 0.05


def test_the_network_takes_raw_columns_and_explains_them_exactly(streamed):
    why = streamed.explain(WIDE[:50])
    assert why.weight.shape == (50, 2, N_COLUMNS)
    assert why.residual.max() < 1e-12
    total = why.contributions.sum(2) + why.offset
    assert np.abs(total - why.Y).max() < 1e-10
    assert np.abs(streamed._mean - WIDE.mean(0)).max() < 1e-12
    assert (streamed.transform(WIDE) == streamed.embedding_).all()


def test_it_is_saved_loaded_and_pickled(streamed, tmp_path):
    streamed.save(tmp_path / "map.ptsne")
    for copy in (ParametricTSNE.load(tmp_path / "map.ptsne"), pickle.loads(pickle.dumps(streamed))):
        assert (copy.transform(WIDE) == streamed.embedding_).all()
        assert copy.memory_budget == BUDGET
