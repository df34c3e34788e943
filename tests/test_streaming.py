"""Rows that do not fit into memory give the map that they would give in memory, or nearly."""

import pickle
import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from ptsne import ParametricTSNE
from ptsne.affinities import (
    nearest_neighbors,
)
from ptsne.metrics import neighbor_recall
from ptsne.streaming import (
    plan_memory,
    prepare,
    reduce_rows,
)
from ptsne.streaming.preparing import _graph as neighbors_of
from streams import (
    BUDGET,
    IRIS,
    MIB,
    N_COLUMNS,
    N_ROWS,
    SOURCES,
    WIDE,
    lazy,
    quick,
    streamed_map,
)

RNG, CPU = np.random.RandomState, torch.device("cpu")


@pytest.fixture(scope="module")
def streamed():
    return streamed_map()


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


@pytest.mark.parametrize("kind", [k for k in SOURCES if not k.startswith("cs")])
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
