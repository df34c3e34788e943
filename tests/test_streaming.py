"""Rows that do not fit into memory give the map that they would give in memory, or nearly."""

import pickle
import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from ptsne import ParametricTSNE
from ptsne import rows as rows_module
from ptsne.affinities import (
    calibrate_by_blocks,
    conditional_probabilities,
    joint_pairs,
    joint_probabilities,
    nearest_neighbors,
    search_cells,
)
from ptsne.lazy import LazyRows, Sliced
from ptsne.losses import Edges
from ptsne.metrics import neighbor_recall
from ptsne.networks import fit_standardize
from ptsne.streaming import (
    Sizes,
    budget_bytes,
    plan_memory,
    prepare,
    reduce_rows,
    stream_standardize,
)
from ptsne.streaming.preparing import _graph as neighbors_of

RNG, CPU = np.random.RandomState, torch.device("cpu")
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


# ---- the user's own graph, metrics, networks ----


def test_a_given_graph_is_taken(monkeypatch):
    found = nearest_neighbors(WIDE, 30)
    searched = quick().fit(WIDE)
    monkeypatch.setattr("ptsne.affinities.search_cells", None)  # nothing is searched
    map_ = quick().fit(WIDE, neighbors=(found.indices, found.distances))
    assert abs(map_.kl_divergence_ - searched.kl_divergence_) < 0.05


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_of_reduced_rows_are_those_of_the_rows(metric):
    reduced = reduce_rows(lazy(WIDE), 64, file=None, random_state=np.random.RandomState(0))
    found = neighbors_of(reduced, None, 10, metric, random_state=RNG(0), device=CPU)
    true = nearest_neighbors(WIDE, 10, metric=metric)
    same = [len(np.intersect1d(a, b)) for a, b in zip(found.indices, true.indices, strict=True)]
    assert np.mean(same) > 9.5
    assert np.median(np.abs(found.distances / true.distances - 1)) < 0.05


def test_manhattan_needs_all_columns_or_a_graph():
    with pytest.raises(ValueError, match='do not preserve metric="manhattan"; pass neighbors'):
        quick(metric="manhattan").fit(WIDE)
    found = nearest_neighbors(WIDE, 30, metric="manhattan")
    quick(metric="manhattan", max_iter=10).fit(WIDE, neighbors=found)
    quick(metric="manhattan", max_iter=10, latent_dim=4).fit(IRIS)


@pytest.mark.parametrize("encoder", [None, torch.nn.Linear(N_COLUMNS, 5)], ids=str)
def test_encoders_of_all_columns_are_refused_where_few_directions_are_kept(encoder):
    with pytest.raises(ValueError, match=r"keeps 256 principal directions of 400.*autoencoder"):
        quick(encoder=encoder).fit(WIDE)


def test_other_networks_are_folded_too():
    for parameters in ({"encoder": (16,)}, {"encoder": "linear"}, {"projection": (30,)}):
        map_ = quick(max_iter=10, **parameters).fit(WIDE)
        assert map_.explain(WIDE[:9]).residual.max() < 1e-12
        assert map_.reconstruct(WIDE[:9]).shape == (9, N_COLUMNS)


def test_a_gaussian_map_has_the_size_of_its_bandwidths():
    streamed, in_memory = (
        quick(similarity="gaussian", memory_budget=budget).fit(WIDE) for budget in (BUDGET, None)
    )
    assert streamed.embedding_.std() == pytest.approx(in_memory.embedding_.std(), rel=0.3)


def test_labels_are_refused():
    with pytest.raises(ValueError, match="target_weight needs all rows in memory"):
        quick(target_weight=0.5).fit(WIDE, np.arange(N_ROWS) % 2)


def test_places_have_rows_afterwards(streamed):
    rows = streamed.inverse_transform(streamed.embedding_[:5])
    assert rows.shape == (5, N_COLUMNS)


# ---- reduction ----


@pytest.mark.parametrize("limit", [10, 1024])
def test_axes_are_those_of_pca(limit, monkeypatch):
    monkeypatch.setattr("ptsne.streaming.reduction.COVARIANCE_LIMIT", limit)
    reduced = reduce_rows(lazy(WIDE, 2**16), 20, file=None, random_state=RNG(0))
    standardize = fit_standardize(WIDE)
    wanted = PCA(20).fit(WIDE).components_
    axes = reduced.axes.numpy().astype(float)
    assert np.linalg.svd(wanted @ axes.T)[1].min() > 0.999  # the same space
    assert np.abs(axes @ axes.T - np.eye(20)).max() < 1e-5
    x = (torch.from_numpy(WIDE) - standardize.mean) / standardize.scale
    assert (reduced.X.double() - x @ reduced.axes.double().T).abs().max() < 1e-5


@pytest.mark.parametrize("far", [0.0, 1e8])
def test_moments_are_those_of_all_rows(far):
    rows = lazy(WIDE + far, 2**15)
    assert rows.rows_per_block < N_ROWS
    ours, theirs = stream_standardize(rows), fit_standardize(WIDE + far)
    assert (ours.mean - theirs.mean).abs().max() <= 1e-14 * max(far, 100)
    assert float(ours.scale) == pytest.approx(float(theirs.scale), rel=1e-7)


def test_equal_rows_have_scale_one():
    assert float(stream_standardize(lazy(np.ones((5, 3)))).scale) == 1


# ---- budget ----


@pytest.mark.parametrize(
    ("value", "size"),
    [(10, 10), (1e6, 10**6), ("512", 512), ("1 KiB", 1024), ("1.5GiB", 3 * 2**29), ("2gb", 2**31),
     (".5m", 2**19), ("1T", 2**40), (" 7 MB ", 7 * MIB)],
)  # fmt: skip
def test_budgets_are_read(value, size):
    assert budget_bytes(value) == size


@pytest.mark.parametrize("value", ["", "much", "-1GiB", "1 GiBs", "1e3", "0", "5 XB"])
def test_other_budgets_are_refused(value):
    with pytest.raises(ValueError, match='such as "512MiB" or "2GiB"; got'):
        quick(memory_budget=value).fit(IRIS)


@pytest.mark.parametrize("value", [0, -5, float("inf"), [1], True])
def test_budgets_of_other_kinds_are_refused(value):
    with pytest.raises(ValueError, match="memory_budget"):
        quick(memory_budget=value).fit(IRIS)


def test_a_budget_that_is_too_small_says_how_much_is_needed():
    with pytest.raises(ValueError, match=r"240 rows of 400 columns.* at least \d+ MiB, got 1 MiB"):
        quick(memory_budget="1MiB").fit(WIDE)


@pytest.mark.parametrize("budget", [80, 100, 200, 1000])
def test_plans_keep_to_the_budget(budget):
    sizes = Sizes(4000, 784, 90, 50, 800, 256, 12 * 784)
    plan = plan_memory(budget * MIB, sizes)
    assert sizes.peak(plan) <= budget * MIB
    richer = plan_memory(2 * budget * MIB, sizes)
    assert (richer.rank, richer.n_landmarks) >= (plan.rank, plan.n_landmarks)


def test_fewer_landmarks_are_said(monkeypatch):
    monkeypatch.setattr("ptsne.streaming.budget.SCORED", 2**20)
    with pytest.warns(UserWarning, match=r"holds \d+ landmarks instead of 200"):
        quick(n_landmarks=200, max_iter=10).fit(WIDE)


# ---- temporary files ----


def test_reduced_rows_in_a_file_give_the_same_map_and_are_removed(temporary, monkeypatch, streamed):
    seen = []

    def in_file(budget, sizes):
        plan = plan_memory(budget, sizes)
        return replace(plan, in_file=True)

    def mapped(file, shape):
        seen.append(file.parent)
        return np.memmap(file, np.float32, "w+", shape=shape)

    monkeypatch.setattr("ptsne.streaming.preparing.plan_memory", in_file)
    monkeypatch.setattr("ptsne.streaming.reduction._mapped", mapped)
    assert (quick().fit(WIDE).embedding_ == streamed.embedding_).all()
    assert seen[0].parent == temporary
    assert not list(temporary.iterdir())


def test_an_error_leaves_no_file(temporary):
    def fail(record):
        raise KeyError(record.phase)

    with pytest.raises(KeyError):
        quick(callbacks=fail).fit(WIDE)
    assert not list(temporary.iterdir())


# ---- wrong rows ----


@pytest.mark.parametrize("kind", [k for k in SOURCES if not k.startswith("cs")])
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


# ---- memory that runs out ----


def test_half_of_the_budget_is_tried_where_memory_runs_out(monkeypatch):
    budgets = []

    def limited(rows, budget, *arguments, **options):
        budgets.append(budget)
        if len(budgets) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return prepare(rows, budget, *arguments, **options)

    monkeypatch.setattr("ptsne.fitting.streamed.prepare", limited)
    with pytest.warns(UserWarning, match="not enough memory to fit 240 rows.*training again with"):
        quick(max_iter=10, memory_budget="256MiB").fit(WIDE)
    assert budgets == [256 * MIB, 128 * MIB]


def test_memory_that_runs_out_twice_is_an_error(monkeypatch):
    def none(*_, **__):
        raise MemoryError("no")

    monkeypatch.setattr("ptsne.fitting.streamed.prepare", none)
    with (
        pytest.warns(UserWarning, match="training again"),
        pytest.raises(MemoryError, match="memory_budget"),
    ):
        quick(max_iter=10).fit(WIDE)


# ---- dask ----


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
        MemoryError, match=r"240 rows of 400 columns take .* explain\(X\[start:stop"
    ):
        streamed.explain(dask_array(WIDE, None))


# ---- cells ----


def test_cells_find_nearly_all_neighbours():
    X = np.random.default_rng(0).normal(size=(3000, 5)).astype(np.float32)
    true = nearest_neighbors(X, 20)
    exact = search_cells(X, 20, random_state=RNG(0))
    assert np.abs(exact.distances - true.distances).max() < 1e-5
    near = search_cells(X, 20, random_state=RNG(0), exact_limit=100)
    assert (np.diff(near.distances, axis=1) >= 0).all()
    assert (near.indices != np.arange(3000)[:, None]).all()
    same = [len(np.intersect1d(a, b)) for a, b in zip(near.indices, true.indices, strict=True)]
    assert np.mean(same) > 19


def test_cells_of_equal_rows_still_give_every_row_its_neighbours():
    X = np.repeat(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), 400, axis=0)
    found = search_cells(X, 450, random_state=RNG(0), exact_limit=100)
    assert all(len(set(row)) == 450 for row in found.indices)


def test_pairs_are_those_of_the_joint_probabilities():
    graph = nearest_neighbors(IRIS, 30)
    P = joint_probabilities(graph, 10.0)
    wanted = Edges.from_sparse(P)
    probabilities, sigma = calibrate_by_blocks(graph, 10.0)
    found = joint_pairs(graph.indices, probabilities)
    dense = np.zeros(P.shape)
    dense[found.row, found.column] = found.weight
    assert np.abs(dense - np.triu(2 * P.toarray())).max() < 1e-8
    assert np.abs(found.row_mass - P.sum(1)).max() < 1e-8
    assert found.negative_entropy == pytest.approx(wanted.negative_entropy, abs=1e-5)
    assert np.array_equal(found.row, wanted.row.numpy())  # in the order that sums fast
    assert (sigma == conditional_probabilities(graph.distances, 10.0).sigma).all()


# ---- memory ----

PEAK = """
import sys
import numpy as np
sys.path.insert(0, "benchmarks")
from machine import Watch
from ptsne import ParametricTSNE

options = {"memory_budget": "168MiB", "perplexity": 10, "n_landmarks": 200, "max_iter": 20}
ParametricTSNE(**options).fit(np.random.default_rng(0).normal(size=(400, 300)))
X = np.load(sys.argv[1], mmap_mode="r")
with Watch() as watch:
    ParametricTSNE(**options).fit(X)
print(watch.memory_gib * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system must tell its peak memory")
def test_peak_memory_keeps_to_the_budget(tmp_path):
    n_rows, n_columns = 10_000, 6_000  # 229 MiB
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n_rows, n_columns))
    rng = np.random.default_rng(0)
    for start in range(0, n_rows, 1000):
        rows[start : start + 1000] = rng.standard_normal((1000, n_columns), np.float32)
    del rows
    command = [sys.executable, "-c", PEAK, str(tmp_path / "x.npy")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 168
