"""Rows that are read block by block: the same table from every kind of source."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from ptsne import ParametricTSNE
from ptsne.lazy import LazyRows, Sliced

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


def lazy(rows, block_bytes=2**20):
    return LazyRows(Sliced(rows), lambda block, first: None, block_bytes=block_bytes)


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


def memmap(rows, folder, name="rows.npy"):
    np.save(folder / name, rows)
    return np.load(folder / name, mmap_mode="r")


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


def mapped_csr(rows, folder):
    matrix = sparse.csr_array(rows)
    for name in ("data", "indices", "indptr"):
        np.save(folder / f"{name}.npy", getattr(matrix, name))
    parts = [np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("data", "indices", "indptr")]
    return sparse.csr_array(tuple(parts), shape=rows.shape)


SOURCES = {
    "array": lambda rows, _: rows,
    "memmap": memmap,
    "hdf5": hdf5,
    "hdf5 without chunks": contiguous_hdf5,
    "zarr": zarr_array,
    "csr": lambda rows, _: sparse.csr_array(rows),
    "csr, mapped": mapped_csr,
    "csc": lambda rows, _: sparse.csc_array(rows),
    "dask": dask_array,
    "data set": lambda rows, _: Pairs(rows),
    "tensors": lambda rows, _: TensorDataset(torch.tensor(rows)),
}


@cache
def streamed_map():
    """A map of the rows in memory, fitted within the budget."""
    return quick().fit(WIDE)
