"""Places and explanations of dask arrays, and of rows block by block."""

import pickle

import numpy as np
import pytest

from ptsne import rows as rows_module
from ptsne.explanation import Explanation
from ptsne.streaming import explain_blocks, explain_lazily
from streams import N_COLUMNS, N_ROWS, SOURCES, WIDE, dask_array, quick, streamed_map


@pytest.fixture(scope="module")
def streamed():
    return streamed_map()


def test_places_of_a_dask_array_are_computed_when_they_are_asked_for(streamed, tmp_path):
    dask = pytest.importorskip("dask")
    rows = dask_array(WIDE, None)
    places = streamed.transform(rows)
    assert dask.is_dask_collection(places)
    assert places.shape == (N_ROWS, 2)
    assert places.dtype == np.float64
    assert places.chunks == (rows.chunks[0], (2,))
    assert (places.compute(scheduler="synchronous") == streamed.embedding_).all()
    assert (places[100:120].compute() == streamed.embedding_[100:120]).all()
    task = pickle.loads(pickle.dumps(places))  # as it travels to other machines
    assert (task.compute(scheduler="synchronous") == streamed.embedding_).all()
    assert streamed.transform(rows.astype("f4")).dtype == np.float32


def test_explanations_of_a_dask_array_by_blocks(streamed):
    pytest.importorskip("dask")
    rows = dask_array(WIDE, None).rechunk({1: -1})
    parts = rows.map_blocks(
        lambda block: streamed.explain(block).importance(), dtype=float, meta=np.empty((0, 0))
    )
    found = parts.compute()  # in threads
    assert np.abs(found - streamed.explain(WIDE).importance()).max() < 1e-10


def test_dask_arrays_of_unknown_size_are_refused(streamed):
    rows = dask_array(WIDE, None)
    unknown = rows[rows[:, 0] > 0]
    for action in (streamed.transform, quick().fit):
        with pytest.raises(ValueError, match=r"X.compute_chunk_sizes\(\)"):
            action(unknown)


def test_explanations_that_do_not_fit_say_what_to_do(streamed, monkeypatch):
    monkeypatch.setattr(rows_module, "DENSE_BUDGET", 1000)
    with pytest.raises(
        MemoryError, match=r"240 rows of 400 columns take .*streaming.explain_blocks\(map_"
    ):
        streamed.explain(dask_array(WIDE, None))


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        ("contributions", lambda why: why.contributions),
        ("offset", lambda why: why.offset),
        ("n_active", lambda why: why.n_active),
        (Explanation.importance, lambda why: why.importance()),
        (lambda why: why.trust.percentile, lambda why: why.trust.percentile),
    ],
)
def test_explanations_of_a_dask_array_are_computed_when_they_are_asked_for(streamed, of, wanted):
    dask = pytest.importorskip("dask")
    lazily = explain_lazily(streamed, dask_array(WIDE, None), of)
    expected = wanted(streamed.explain(WIDE))
    assert dask.is_dask_collection(lazily)
    assert (lazily.shape, lazily.dtype) == (expected.shape, expected.dtype)
    assert np.abs(lazily.compute(scheduler="synchronous") - expected).max() < 1e-10
    assert np.abs(lazily[100:110].compute() - expected[100:110]).max() < 1e-10


def test_explanations_of_a_dask_array_travel(streamed):
    pytest.importorskip("dask")
    lazily = explain_lazily(streamed, dask_array(WIDE, None), baseline="landmark")
    found = pickle.loads(pickle.dumps(lazily)).compute(scheduler="synchronous")
    expected = streamed.explain(WIDE, baseline="landmark").contributions
    assert np.abs(found - expected).max() < 1e-10


# ---- blocks ----


@pytest.mark.parametrize("kind", [*SOURCES, "frame"])
def test_blocks_of_every_source_are_explained(kind, streamed, tmp_path, monkeypatch):
    frame = pytest.importorskip("pandas").DataFrame
    monkeypatch.setattr("ptsne.streaming.explaining.FEWEST_ROWS", 50)
    data = frame(WIDE) if kind == "frame" else SOURCES[kind](WIDE, tmp_path)
    file = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", float, (N_ROWS, 2, N_COLUMNS))
    sizes = []
    for rows, why in explain_blocks(streamed, data, memory_budget="1MiB"):
        file[rows] = why.contributions
        sizes.append(rows.stop - rows.start)
    assert max(sizes) <= 50
    assert sum(sizes) == N_ROWS
    assert np.abs(file - streamed.explain(WIDE).contributions).max() < 1e-10


def test_blocks_take_the_options_of_explain(streamed):
    (_, why), *others = explain_blocks(streamed, WIDE[:20], baseline="zero", memory_budget="1GiB")
    assert not others
    wanted = streamed.explain(WIDE[:20], baseline="zero")
    assert (why.contributions == wanted.contributions).all()
