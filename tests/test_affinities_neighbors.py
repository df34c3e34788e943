"""Neighbours: exact, by cells, by pynndescent; metrics, ties, refusals."""

import numpy as np
import pynndescent
import pytest
import torch
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

import reference
from ptsne.affinities import (
    joint_probabilities,
    nearest_neighbors,
    query_neighbors,
    scan,
    search_cells,
)

METRICS = ["euclidean", "cosine", "manhattan"]


@pytest.fixture
def rows():
    return reference.rows_with_ties()


def global_state():
    return np.random.get_state()[1].copy()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [np.float32, np.float64, sparse.csr_array, sparse.csr_matrix])
def test_nearest_neighbors_twin(rows, metric, kind):
    X = kind(rows)
    wide = X.toarray() if sparse.issparse(X) else X.astype(np.float64)
    found = nearest_neighbors(X, 9, metric=metric)
    expected = reference.nearest_distances(wide, wide, 9, metric, exclude_self=True)
    np.testing.assert_allclose(found.distances, expected, rtol=1e-12, atol=1e-14)
    for i, (index, distances) in enumerate(zip(*found, strict=True)):
        assert i not in index
        assert len(set(index)) == 9
        again = [reference.distance(wide[i], wide[j], metric) for j in index]
        np.testing.assert_allclose(distances, again, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("as_query", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("as_train", [np.asarray, sparse.csr_array])
def test_query_neighbors_twin(rows, metric, as_query, as_train):
    train, query = rows[:40], rows[15:50]
    found = query_neighbors(as_train(train), as_query(query), 5, metric=metric)
    expected = reference.nearest_distances(train, query, 5, metric, exclude_self=False)
    np.testing.assert_allclose(found.distances, expected, rtol=1e-12, atol=1e-14)
    assert found.distances[0, 0] < 1e-30  # row 15 is there itself


def test_exact_search_agrees_with_sklearn():
    X = np.random.default_rng(1).normal(size=(2000, 30)).astype(np.float32) + 100
    wide = X.astype(np.float64)
    distances, indices = (
        NearestNeighbors(n_neighbors=31, algorithm="kd_tree").fit(wide).kneighbors(wide)
    )
    found = nearest_neighbors(X, 30)
    np.testing.assert_array_equal(found.indices, indices[:, 1:])
    np.testing.assert_allclose(found.distances, distances[:, 1:], rtol=1e-12)


@pytest.mark.parametrize(
    ("distance", "width"),
    [
        (3e3, 1.0),  # the ranking in float32 is near enough to look right
        (2e5, 1e-2),  # in float32 each cloud collapses to a few places
    ],
)
def test_rows_that_float32_cannot_rank_are_ranked_in_float64(monkeypatch, distance, width):
    rng = np.random.default_rng(2)
    X = rng.normal(scale=width, size=(300, 3)) + np.repeat([[0.0], [distance]], 150, axis=0)
    repeated = []
    exact_score = scan.exact_score
    monkeypatch.setattr(
        "ptsne.affinities.neighbors.exact_score",
        lambda *arguments: repeated.append(1) or exact_score(*arguments),
    )
    found = nearest_neighbors(X, 10)
    between = np.linalg.norm(X[:, None] - X[None], axis=2)
    np.testing.assert_allclose(found.distances, np.sort(between, axis=1)[:, 1:11], rtol=1e-9)
    assert repeated


def test_ordinary_rows_are_ranked_in_float32_alone(rows, monkeypatch):
    monkeypatch.setattr("ptsne.affinities.neighbors.exact_score", None)
    X = np.random.default_rng(3).normal(size=(500, 20)) + 1000  # centred, it does not matter
    assert nearest_neighbors(X, 30).indices.shape == (500, 30)


def test_blocks_do_not_matter(rows, monkeypatch):
    whole = nearest_neighbors(rows, 9)
    monkeypatch.setattr(scan, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(scan, "_GATHER_BYTES", 1)
    np.testing.assert_array_equal(nearest_neighbors(rows, 9).distances, whole.distances)
    by_row = nearest_neighbors(sparse.csr_array(rows), 9)
    np.testing.assert_allclose(by_row.distances, whole.distances, rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_rows(metric, n):
    for X in (np.ones((n, 4)), np.zeros((n, 4)), np.random.default_rng(0).normal(size=(n, 4))):
        found = nearest_neighbors(X, n - 1, metric=metric)
        everyone = [[j for j in range(n) if j != i] for i in range(n)]
        np.testing.assert_array_equal(np.sort(found.indices), everyone)
        P = joint_probabilities(found, 1 + (n - 2) / 2)
        assert P.sum() == pytest.approx(1, abs=1e-12)


def test_equal_distances_come_in_the_order_of_rows():
    rows = np.vstack([np.ones((200, 3)), np.zeros((100, 3))])
    found = nearest_neighbors(rows, 99)
    assert not found.distances.any()
    assert (np.diff(found.indices, axis=1) > 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, bool])
def test_integers_are_rows_too(dtype):
    X = np.random.default_rng(0).integers(0, 2, size=(30, 12)).astype(dtype)
    found = nearest_neighbors(X, 4)
    expected = nearest_neighbors(X.astype(np.float64), 4)
    np.testing.assert_array_equal(found.distances, expected.distances)


def test_huge_and_tiny_values(monkeypatch):
    X = np.random.default_rng(0).normal(size=(40, 3))
    expected = nearest_neighbors(X, 5).indices
    monkeypatch.setattr("ptsne.affinities.neighbors.exact_score", None)  # float32 will do
    for factor in (1e-100, 1e100):
        np.testing.assert_array_equal(nearest_neighbors(X * factor, 5).indices, expected)


def test_the_caller_keeps_array_and_generator(rows):
    rows.flags.writeable = False  # as a memory map would be
    before = rows.copy(), global_state(), torch.get_rng_state()
    nearest_neighbors(np.asfortranarray(rows), 5)
    nearest_neighbors(rows, 5, metric="manhattan")
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(global_state(), before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_neighbors": 60}, "between 1 and 59"),
        ({"n_neighbors": 0}, "between 1 and 59"),
        ({"n_neighbors": 3, "metric": "chebyshev"}, "metric must be one of"),
        ({"n_neighbors": 3, "method": "annoy"}, "method must be one of"),
    ],
)
def test_nearest_neighbors_refuses(rows, arguments, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(rows, **arguments)


def test_query_neighbors_refuses(rows):
    with pytest.raises(ValueError, match="same features"):
        query_neighbors(rows, rows[:, :3], 2)
    with pytest.raises(ValueError, match="between 1 and 60"):
        query_neighbors(rows, rows, 61)


class Reliable:
    """Stands in for NNDescent: finds the true neighbours of all rows."""

    def __init__(self, X, metric, *, n_neighbors, random_state, verbose):
        indices = NearestNeighbors(n_neighbors=n_neighbors).fit(X).kneighbors(X)[1]
        self.neighbor_graph = indices.astype(np.int32), np.zeros(indices.shape, np.float32)


class Forgetful(Reliable):
    """Finds two neighbours of row 0, the true ones of the others."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.neighbor_graph[0][0, 2:] = -1


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_too_few_found_are_completed(rows, monkeypatch, kind):
    monkeypatch.setattr(pynndescent, "NNDescent", Forgetful)
    found = nearest_neighbors(kind(rows), 9, method="pynndescent", random_state=0)
    np.testing.assert_allclose(found.distances, nearest_neighbors(rows, 9).distances, atol=1e-12)


def test_where_none_is_missing_none_is_searched_again(rows, monkeypatch):
    exact = nearest_neighbors(rows, 9)
    monkeypatch.setattr(pynndescent, "NNDescent", Reliable)
    monkeypatch.setattr("ptsne.affinities.neighbors.exact_score", None)
    found = nearest_neighbors(rows, 9, method="pynndescent", random_state=0)
    np.testing.assert_allclose(found.distances, exact.distances, atol=1e-12)


def test_auto_is_exact_up_to_its_limit(rows, monkeypatch):
    monkeypatch.setattr(pynndescent, "NNDescent", Forgetful)
    monkeypatch.setattr("ptsne.affinities.neighbors._complete", lambda *_: None)
    monkeypatch.setattr("ptsne.affinities.cells.ROWS_PER_CELL", 5)
    monkeypatch.setattr("ptsne.affinities.cells.EXACT_LIMIT", 50)
    kinds = ((rows, "euclidean"), (sparse.csr_array(rows), "euclidean"), (rows, "manhattan"))
    for X, metric in kinds:
        exact = nearest_neighbors(X, 9, metric=metric, method="exact").indices
        monkeypatch.setattr("ptsne.affinities.neighbors.EXACT_LIMIT", 60)
        np.testing.assert_array_equal(nearest_neighbors(X, 9, metric=metric).indices, exact)
        monkeypatch.setattr("ptsne.affinities.neighbors.EXACT_LIMIT", 59)
        found = nearest_neighbors(X, 9, metric=metric, random_state=0).indices
        assert (found != exact).any()
        method = "cells" if X is rows and metric == "euclidean" else "pynndescent"
        again = nearest_neighbors(X, 9, metric=metric, method=method, random_state=0).indices
        np.testing.assert_array_equal(found, again)


def wide_rows(n_rows=800, n_columns=300):
    """Rows with most of their variance in a few of many directions, as images have it."""
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(n_columns, n_columns)) * np.arange(1, n_columns + 1.0)[:, None] ** -0.7
    return rng.normal(size=(n_rows, n_columns)) @ shape


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("n_columns", [8, 300])  # 300: ranked by 128 principal components
def test_cells_find_nearly_all_at_their_distances(n_columns, metric, monkeypatch):
    monkeypatch.setattr("ptsne.affinities.cells.EXACT_LIMIT", 100)
    X = wide_rows(1500, n_columns) + 1000
    X[7] = X[3]
    before = global_state()
    found, again = (
        nearest_neighbors(X, 20, metric=metric, method="cells", random_state=0) for _ in range(2)
    )
    exact = nearest_neighbors(X, 20, metric=metric)
    is_same = found.indices == exact.indices
    assert is_same.mean() > 0.97
    np.testing.assert_allclose(found.distances[is_same], exact.distances[is_same], rtol=1e-9)
    assert (found.indices != np.arange(len(X))[:, None]).all()
    np.testing.assert_array_equal(found.indices, again.indices)
    np.testing.assert_array_equal(global_state(), before)


def test_norms_tell_near_rows_where_components_leave_much_of_them(monkeypatch):
    monkeypatch.setattr("ptsne.affinities.neighbors.N_AXES", 2)
    rng = np.random.default_rng(0)
    left = rng.normal(size=(800, 300)) * rng.uniform(0, 2, size=(800, 1))
    X = np.hstack([30 * rng.normal(size=(800, 2)), left])
    exact = nearest_neighbors(X, 20, method="exact").indices

    def share(indices):
        return np.mean([np.isin(*pair).mean() for pair in zip(exact, indices, strict=True)])

    found = nearest_neighbors(X, 20, method="cells", random_state=0).indices
    by_components = nearest_neighbors(X[:, :2], 30, method="exact").indices
    assert share(found) > 0.95
    assert share(by_components) < 0.8  # all that components alone would have measured


def test_cells_measure_close_rows_far_from_zero():
    X = np.repeat([[0.0], [1e9]], 40, axis=0) + np.random.default_rng(0).normal(size=(80, 3))
    found, exact = (nearest_neighbors(X, 39, method=m, random_state=0) for m in ("cells", "exact"))
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-9)


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("n_columns", [8, 300])
def test_cells_hold_rows_of_any_size(n_columns, size):
    X = wide_rows(200, n_columns) * size
    found, exact = (nearest_neighbors(X, 9, method=m, random_state=0) for m in ("cells", "exact"))
    np.testing.assert_allclose(found.distances / size, exact.distances / size, rtol=1e-9)


def test_where_near_cells_hold_too_few_rows_all_are_compared(monkeypatch):
    monkeypatch.setattr("ptsne.affinities.cells.EXACT_LIMIT", 100)
    monkeypatch.setattr("ptsne.affinities.cells.ROWS_PER_CELL", 5)
    monkeypatch.setattr("ptsne.affinities.cells.FEWEST_PROBED", 2)
    monkeypatch.setattr("ptsne.affinities.cells.PROBED_SHARE", 0.01)
    X = wide_rows(200, 8)
    found, exact = (nearest_neighbors(X, 60, method=m, random_state=0) for m in ("cells", "exact"))
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-5)


def test_a_gpu_compares_rows_of_cells_where_all_pairs_are_too_many(monkeypatch):
    X = wide_rows(60)
    monkeypatch.setattr("ptsne.affinities.neighbors._has_cuda", lambda device: True)
    monkeypatch.setattr("ptsne.affinities.neighbors.GPU_EXACT_LIMIT", 59)
    searched = []

    def search(X, k, *, random_state, device):
        searched.append((X.shape, k, device))
        return search_cells(X, k, random_state=random_state)

    monkeypatch.setattr("ptsne.affinities.neighbors.search_cells", search)
    nearest_neighbors(X, 9, device="cpu")
    assert searched == [(X.shape, 9, "cpu")]
    with pytest.raises(ValueError, match='method="cells" needs dense rows'):
        nearest_neighbors(X, 9, metric="manhattan", method="cells")


@pytest.mark.slow  # pynndescent compiles for half a minute
@pytest.mark.parametrize(
    ("metric", "kind"),
    [("euclidean", np.float32), ("cosine", sparse.csr_array), ("manhattan", sparse.csr_array)],
)
def test_pynndescent(metric, kind):
    X = kind(np.random.default_rng(0).normal(size=(1500, 10)) + 3)
    before = global_state()
    found, again = (
        nearest_neighbors(X, 20, metric=metric, method="pynndescent", random_state=7)
        for _ in range(2)
    )
    exact = nearest_neighbors(X, 20, metric=metric)
    recall = np.mean([
        len(np.intersect1d(*pair)) / 20 for pair in zip(found[0], exact[0], strict=True)
    ])
    assert recall > 0.97
    np.testing.assert_array_equal(found.indices, again.indices)
    np.testing.assert_array_equal(global_state(), before)
    assert (found.indices != np.arange(1500)[:, None]).all()
    is_same = found.indices == exact.indices
    np.testing.assert_allclose(found.distances[is_same], exact.distances[is_same], rtol=1e-9)


@pytest.mark.gpu
def test_gpu_finds_the_same(rows):
    X = np.random.default_rng(0).normal(size=(3000, 40)).astype(np.float32)
    for metric in METRICS:
        on_gpu, on_cpu = (
            nearest_neighbors(X, 30, metric=metric, device=d) for d in ("cuda", "cpu")
        )
        np.testing.assert_array_equal(on_gpu.indices, on_cpu.indices)
        np.testing.assert_allclose(on_gpu.distances, on_cpu.distances, rtol=1e-12)
