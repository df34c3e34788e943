"""Rows of every kind are read, or refused by name."""

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from torch.utils.data import Dataset

from ptsne.affinities import nearest_neighbors, neighbors_from_graph
from ptsne.lazy import Sliced, give_back_pages, lazy_source
from ptsne.streaming import explain_blocks
from streams import (
    IRIS,
    N_COLUMNS,
    SOURCES,
    WIDE,
    Endless,
    Pairs,
    hdf5,
    lazy,
    memmap,
    quick,
    streamed_map,
)


@pytest.fixture(scope="module")
def streamed():
    return streamed_map()


@pytest.mark.parametrize("kind", [k for k in SOURCES if k != "csc"])
def test_a_wrong_number_is_named_by_its_row_and_column(kind, tmp_path):
    rows = WIDE.copy()
    rows[201, 7] = np.nan
    data = SOURCES[kind](rows, tmp_path)
    message = "contains NaN: the first is in row 201, column 7; .*SimpleImputer"
    with pytest.raises(ValueError, match=message):
        quick().fit(data)
    fitted = quick(max_iter=10).fit(WIDE)
    with pytest.raises(ValueError, match=r"row 201, column 7|at row 117: .*row 84, column 7"):
        np.asarray(fitted.transform(data))


def test_shapes_and_columns_are_checked_before_anything_is_read(streamed, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for shape, message in (
            ((9,), "Expected 2D array, got 1D"),
            ((9, 2, 2), "Found array with dim 3"),
            ((0, N_COLUMNS), "0 sample"),
            ((9, 0), "0 feature"),
            ((1, N_COLUMNS), "1 sample.* minimum of 2"),
        ):
            data = file.create_dataset("x", shape, "f4")
            with pytest.raises(ValueError, match=message):
                quick().fit(data)
            del file["x"]
        words = file.create_dataset("w", data=np.array([[b"a", b"b"]] * 4))
        with pytest.raises(ValueError, match="could not convert string"):
            quick().fit(words)
        with pytest.raises(ValueError, match=r"Complex data not supported"):
            quick().fit(file.create_dataset("c", data=np.ones((4, 2), complex)))
        with pytest.raises(ValueError, match=r"3 features.* expecting 400"):
            streamed.transform(file.create_dataset("n", (5, 3), "f4"))


def test_data_sets_must_have_a_length_and_rows_of_one_length():
    with pytest.raises(TypeError, match="must have a length"):
        quick().fit(Endless())
    ragged = Pairs([*np.zeros((99, 4)), np.zeros(6)])
    with pytest.raises(ValueError, match="row 0 has 4, row 99 has 6"):
        quick().fit(ragged)
    with pytest.raises(ValueError, match="0 sample"):
        quick().fit(Pairs(np.zeros((0, 4))))


def test_integers_and_float32_come_back_as_they_should(tmp_path):
    for dtype, wanted in ((np.uint8, np.float64), (np.float32, np.float32)):
        rows = (10 * IRIS).astype(dtype)
        map_ = quick(max_iter=10, latent_dim=4).fit(memmap(rows, tmp_path))
        assert map_.embedding_.dtype == wanted
        assert (map_.transform(hdf5(rows[:9], tmp_path)) == map_.embedding_[:9]).all()


class Arrays(Pairs):
    """Items are rows themselves, as numpy has them."""

    def __getitem__(self, i):
        return self.rows[i]


def test_items_may_be_arrays():
    source = lazy_source(Arrays(WIDE))
    assert source.shape == WIDE.shape
    assert (source.read(3, 8) == WIDE[3:8]).all()


def test_slices_with_steps_are_read():
    rows = lazy(WIDE)
    for step in (slice(1, 90, 7), slice(90, 1, -7), slice(None, None, -1)):
        assert (rows[step] == WIDE[step]).all()


def test_empty_chunks_of_a_dask_array_are_no_blocks():
    dask = pytest.importorskip("dask.array")
    source = lazy_source(dask.from_array(WIDE[:5], chunks=((3, 0, 2, 0), N_COLUMNS)))
    assert list(source.spans(1)) == [(0, 3), (3, 5)]
    assert list(source.spans(9)) == [(0, 5)]


# ---- mapped files ----

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the system must tell what is mapped")


def resident(path):
    """KiB of a mapped file that count as memory of this process."""
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    return sum(map(int, re.findall(rf"{path}\n(?:.*\n)*?Rss:\s+(\d+)", maps)))


@on_linux
def test_mapped_sparse_rows_stay_mapped(tmp_path):
    rows = SOURCES["csr, mapped"](np.random.default_rng(0).normal(size=(500, 300)), tmp_path)
    source = lazy_source(rows, arrays=True)
    assert source.array is rows
    assert float(rows.data.sum()) != 0  # reads the whole file
    assert resident(tmp_path / "data.npy") > 1000
    assert (source.read(5, 9) == rows[5:9].toarray()).all()
    source.read(0, 500)
    assert resident(tmp_path / "data.npy") == 0
    assert resident(tmp_path / "indices.npy") == 0


class Mapped(Dataset):
    """Rows of two mapped files, as views."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return 2 * len(self.files[0])

    def __getitem__(self, i):
        return self.files[i % 2][i // 2], 0


@on_linux
def test_rows_that_a_data_set_maps_are_given_back(tmp_path):
    files = [memmap(2 * part, tmp_path, f"{i}.npy") for i, part in enumerate([WIDE, -WIDE])]
    rows = lazy_source(Mapped(files)).read(0, 2 * len(WIDE))
    assert (rows[::2] == -rows[1::2]).all()
    assert resident(tmp_path / "0.npy") == resident(tmp_path / "1.npy") == 0


@on_linux
def test_a_mapped_graph_is_read_in_parts_and_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr("ptsne.affinities.graph.ROWS_AT_ONCE", 50)
    graph = nearest_neighbors(WIDE, 30)
    mapped = [memmap(part, tmp_path, f"{i}.npy") for i, part in enumerate(graph)]
    found = neighbors_from_graph(tuple(mapped), len(WIDE))
    assert all((a == b).all() for a, b in zip(found, graph, strict=True))
    assert resident(tmp_path / "0.npy") == resident(tmp_path / "1.npy") == 0


def test_where_the_system_takes_no_advice_pages_stay(tmp_path, monkeypatch):
    monkeypatch.delattr(mmap, "MADV_DONTNEED", raising=False)
    mapped = memmap(WIDE, tmp_path)
    give_back_pages(mapped[3:])
    assert (mapped == WIDE).all()


@pytest.mark.parametrize("kind", ["hdf5", "zarr", "dask", "csr"])
def test_graphs_of_every_kind_give_the_same_neighbours(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("ptsne.affinities.graph.ROWS_AT_ONCE", 50)
    graph = nearest_neighbors(WIDE, 30)
    if kind == "csr":
        starts = np.arange(0, 30 * len(WIDE) + 1, 30)
        given = sparse.csr_array((graph.distances.ravel(), graph.indices.ravel(), starts))
    else:
        folders = [tmp_path / "i", tmp_path / "d"]
        for folder in folders:
            folder.mkdir()
        given = [
            SOURCES[kind](part.astype(float), f) for part, f in zip(graph, folders, strict=True)
        ]
    found = neighbors_from_graph(given, len(WIDE))
    assert all((a == b).all() for a, b in zip(found, graph, strict=True))


def test_mapped_integers_are_placed_and_explained_block_by_block(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 9, (300, 12)).astype(np.uint8)
    map_ = quick(memory_budget=None, max_iter=10, latent_dim=4).fit(pixels)
    mapped = memmap(pixels, tmp_path)
    assert lazy_source(mapped) is not None
    assert lazy_source(mapped.astype(float)) is None
    assert (map_.transform(mapped) == map_.embedding_).all()
    assert (map_.explain(mapped).weight == map_.explain(pixels).weight).all()
    again = quick(memory_budget=None, max_iter=10, latent_dim=4).fit(mapped)
    assert (again.embedding_ == map_.embedding_).all()


def test_what_is_too_large_to_be_explained_at_once_is_explained_as_the_error_says(
    streamed, tmp_path, monkeypatch
):
    mapped = memmap(WIDE.astype(np.int16), tmp_path)
    expected = streamed.explain(mapped).weight
    monkeypatch.setattr("ptsne.rows.DENSE_BUDGET", 20 * 8 * N_COLUMNS)
    with pytest.raises(MemoryError, match=r"take ptsne\.streaming\.explain_blocks\(map_, X\)"):
        streamed.explain(mapped)
    weight = [why.weight for _, why in explain_blocks(streamed, mapped, memory_budget="1KiB")]
    assert (np.concatenate(weight) == expected).all()


class Chunked:
    """Rows in chunks, which notes what is read of them."""

    def __init__(self, rows, rows_per_chunk):
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
        self.chunks, self.read = (rows_per_chunk, rows.shape[1]), []

    def __getitem__(self, span):
        self.read.append((span.start, span.stop))
        return self.rows[span]


@pytest.mark.parametrize(
    ("rows_per_chunk", "bytes_at_once", "expected"),
    [
        (7, 0, [(5, 7), (7, 14), (14, 21), (21, 23)]),
        (7, 2 * 7 * 8 * N_COLUMNS, [(5, 14), (14, 23)]),
        (100, 0, [(5, 23)]),
    ],
)
def test_a_few_chunks_are_read_at_once(monkeypatch, rows_per_chunk, bytes_at_once, expected):
    monkeypatch.setattr("ptsne.lazy.BAND_BYTES", bytes_at_once)
    rows = Chunked(WIDE.astype(np.float64), rows_per_chunk)
    assert (Sliced(rows).read(5, 23) == WIDE[5:23]).all()
    assert rows.read == expected
