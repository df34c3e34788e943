import numpy as np
import openTSNE.affinity
import pynndescent
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.manifold._t_sne import _joint_probabilities_nn
from sklearn.neighbors import KNeighborsTransformer, NearestNeighbors, RadiusNeighborsTransformer

import reference
from ptsne.affinities import (
    Neighbors,
    conditional_probabilities,
    joint_probabilities,
    nearest_neighbors,
    neighbors_from_graph,
    query_neighbors,
    scan,
)

METRICS = ["euclidean", "cosine", "manhattan"]


@pytest.fixture
def rows():
    X = np.random.default_rng(0).normal(2.0, 1.0, size=(60, 7))
    X[[3, 8]] = 0.0  # two zero rows, which are also duplicates
    X[20] = X[21]
    return X


def perplexity_of(probabilities):
    safe = np.where(probabilities > 0, probabilities, 1.0)
    return np.exp(-(probabilities * np.log(safe)).sum(axis=1))


def global_state():
    return np.random.get_state()[1].copy()


# --- neighbours


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
    exact = nearest_neighbors(rows, 9)
    monkeypatch.setattr("ptsne.affinities.neighbors.NO_PRODUCT_LIMIT", 59)
    np.testing.assert_array_equal(nearest_neighbors(rows, 9).indices, exact.indices)
    assert (nearest_neighbors(sparse.csr_array(rows), 9).indices[0] != exact.indices[0]).any()
    assert (nearest_neighbors(rows, 9, metric="manhattan").indices[0] != exact.indices[0]).any()
    monkeypatch.setattr("ptsne.affinities.neighbors.EXACT_LIMIT", 59)
    assert (nearest_neighbors(rows, 9).indices[0] != exact.indices[0]).any()
    np.testing.assert_array_equal(nearest_neighbors(rows, 9, method="exact").indices, exact.indices)


def wide_rows(n_rows=800, n_columns=300):
    """Rows with most of their variance in a few of many directions, as images have it."""
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(n_columns, n_columns)) * np.arange(1, n_columns + 1.0)[:, None] ** -0.7
    return rng.normal(size=(n_rows, n_columns)) @ shape


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_projected_search_finds_nearly_all_at_their_distances(metric):
    X = wide_rows()
    before = global_state()
    found, again = (
        nearest_neighbors(X, 20, metric=metric, method="projected", random_state=0)
        for _ in range(2)
    )
    exact = nearest_neighbors(X, 20, metric=metric)
    is_same = found.indices == exact.indices
    assert is_same.mean() > 0.97
    np.testing.assert_allclose(found.distances[is_same], exact.distances[is_same], rtol=1e-9)
    assert (found.indices != np.arange(len(X))[:, None]).all()
    np.testing.assert_array_equal(found.indices, again.indices)
    np.testing.assert_array_equal(global_state(), before)


def test_projected_search_is_for_many_dense_rows_of_many_columns(monkeypatch):
    X = wide_rows(60)
    monkeypatch.setattr("ptsne.affinities.neighbors.EXACT_LIMIT", 59)
    monkeypatch.setattr("ptsne.affinities.neighbors.N_AXES", 3)  # ranks differently, so is seen
    exact = nearest_neighbors(X, 9, method="exact")
    automatic, projected = (
        nearest_neighbors(X, 9, method=m, random_state=0) for m in ("auto", "projected")
    )
    np.testing.assert_array_equal(automatic.indices, projected.indices)
    assert (projected.indices != exact.indices).any()
    for rows, metric in ((sparse.csr_array(X), "euclidean"), (X, "manhattan")):
        with pytest.raises(ValueError, match='use method="pynndescent"'):
            nearest_neighbors(rows, 9, metric=metric, method="projected")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_cells_find_nearly_all_at_their_distances(metric, monkeypatch):
    monkeypatch.setattr("ptsne.affinities.cells.EXACT_LIMIT", 100)
    X = wide_rows(1500, 8) + 1000
    X[7] = X[3]
    found, again = (
        nearest_neighbors(X, 20, metric=metric, method="cells", random_state=0) for _ in range(2)
    )
    exact = nearest_neighbors(X, 20, metric=metric)
    is_same = found.indices == exact.indices
    assert is_same.mean() > 0.97
    np.testing.assert_allclose(
        found.distances[is_same], exact.distances[is_same], rtol=1e-5, atol=1e-6
    )
    assert (found.indices != np.arange(len(X))[:, None]).all()
    np.testing.assert_array_equal(found.indices, again.indices)


def test_where_near_cells_hold_too_few_rows_all_are_compared(monkeypatch):
    monkeypatch.setattr("ptsne.affinities.cells.EXACT_LIMIT", 100)
    monkeypatch.setattr("ptsne.affinities.cells.ROWS_PER_CELL", 5)
    monkeypatch.setattr("ptsne.affinities.cells.FEWEST_PROBED", 2)
    X = wide_rows(200, 8)
    found, exact = (nearest_neighbors(X, 60, method=m, random_state=0) for m in ("cells", "exact"))
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-5)


def test_a_gpu_compares_rows_of_cells_where_all_pairs_are_too_many(monkeypatch):
    X = wide_rows(60)
    monkeypatch.setattr("ptsne.affinities.neighbors._has_cuda", lambda device: True)
    monkeypatch.setattr("ptsne.affinities.neighbors.GPU_EXACT_LIMIT", 59)
    searched = []
    monkeypatch.setattr(
        "ptsne.affinities.neighbors.search_cells",
        lambda X, k, random_state, device: searched.append((X.shape, k, device)),
    )
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
        np.testing.assert_array_equal(on_gpu.distances, on_cpu.distances)


# --- neighbours from elsewhere


def test_graph_may_be_a_little_off_on_its_diagonal(rows):
    graph = KNeighborsTransformer(n_neighbors=9).fit_transform(rows)
    graph.setdiag(1e-3)  # what |x|^2 + |x|^2 - 2 xx leaves in float32
    found = neighbors_from_graph(graph, 60)
    exact = nearest_neighbors(rows, 9)
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-6, atol=1e-6)
    assert (found.indices != np.arange(60)[:, None]).all()


def test_graph_of_sklearn(rows):
    graph = KNeighborsTransformer(mode="distance", n_neighbors=9).fit_transform(rows)
    expected = nearest_neighbors(rows, 9)
    found = neighbors_from_graph(graph, 60)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-12)
    shuffled = graph.tocoo()
    order = np.random.default_rng(0).permutation(shuffled.nnz)
    shuffled = sparse.coo_matrix(
        (shuffled.data[order], (shuffled.row[order], shuffled.col[order])), shape=(60, 60)
    )
    np.testing.assert_array_equal(neighbors_from_graph(shuffled, 60).indices, found.indices)


@pytest.mark.parametrize("with_self", [True, False])
def test_graph_of_arrays(rows, with_self):
    expected = nearest_neighbors(rows, 9)
    indices, distances = expected
    if with_self:
        indices = np.hstack([np.arange(60)[:, None], indices])
        distances = np.hstack([np.zeros((60, 1)), distances])
    mixed = np.random.default_rng(0).permutation(indices.shape[1])
    found = neighbors_from_graph((indices[:, mixed], distances[:, mixed].astype(np.float32)), 60)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-6)
    assert found.indices.dtype == np.int64
    assert found.distances.dtype == np.float64


def test_graph_without_self_in_some_rows():
    # Of five equal rows, three neighbours each: an engine that counts the row itself may miss it.
    indices = np.array([[0, 1, 2], [1, 0, 2], [0, 1, 3], [3, 0, 1], [4, 0, 1]])
    found = neighbors_from_graph((indices, np.zeros((5, 3))), 5)
    assert found.indices.shape == (5, 2)
    assert (found.indices != np.arange(5)[:, None]).all()


def graph_cases():
    indices, distances = np.array([[1, 2], [0, 2], [0, 1]]), np.ones((3, 2))
    X = np.random.default_rng(0).normal(size=(30, 2))
    radius = RadiusNeighborsTransformer(radius=1.0, mode="distance").fit_transform(X)
    uneven = sparse.csr_array(1.0 - np.eye(4))
    uneven[[0], [1, 2]] = 0.0
    uneven.eliminate_zeros()
    ones = KNeighborsTransformer(mode="connectivity", n_neighbors=3).fit_transform(X)
    return [
        (radius, 30, "same number of neighbours"),
        (uneven, 4, "same number of neighbours"),
        (ones, 30, "not connectivities"),
        (ones, 29, r"shape \(29, 29\)"),
        (X, 30, "got ndarray"),
        ((indices, distances), 4, r"shape \(4, k\)"),
        ((indices, distances[:, :1]), 3, r"shape \(3, k\)"),
        ((indices, -distances), 3, "finite and not negative"),
        ((indices, distances * np.nan), 3, "finite and not negative"),
        ((indices + 1, distances), 3, "between 0 and 2"),
        ((indices - 1, distances), 3, "not found"),
        ((indices * 0 + 1, distances), 3, "twice"),
    ]


@pytest.mark.parametrize(("graph", "n_samples", "message"), graph_cases())
def test_graph_refused(graph, n_samples, message):
    with pytest.raises(ValueError, match=message):
        neighbors_from_graph(graph, n_samples)


# --- probabilities


@pytest.mark.parametrize("perplexity", [1.5, 5.0, 12.0])
def test_conditional_twin(rows, perplexity):
    distances = nearest_neighbors(rows[30:], 15).distances
    found = conditional_probabilities(distances, perplexity)
    for i, row in enumerate(distances):
        p, sigma = reference.gaussian_row(row, perplexity)
        np.testing.assert_allclose(found.probabilities[i], p, rtol=1e-9, atol=1e-12)
        assert found.sigma[i] == pytest.approx(sigma, rel=1e-9)


def test_joint_twin(rows):
    found = nearest_neighbors(rows[30:], 15)
    P = joint_probabilities(found, 5)
    expected = reference.joint_matrix(*found, 5)
    np.testing.assert_allclose(P.toarray(), expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("perplexities", [[10], [5, 30]])
def test_joint_agrees_with_opentsne(perplexities):
    X = np.random.default_rng(0).normal(size=(400, 5))
    k = 3 * max(perplexities)
    P = joint_probabilities(nearest_neighbors(X, k), perplexities)
    judge = openTSNE.affinity.Multiscale(X, perplexities=perplexities, method="exact").P
    judge = judge.tocoo()
    np.testing.assert_allclose(P[judge.row, judge.col], judge.data, rtol=1e-6, atol=1e-12)


def test_joint_agrees_with_sklearn():
    X = np.random.default_rng(0).normal(size=(200, 5))
    found = nearest_neighbors(X, 30)
    graph = sparse.csr_matrix((
        found.distances.ravel() ** 2,
        found.indices.ravel(),
        np.arange(0, 6001, 30),
    ))
    judge = _joint_probabilities_nn(graph, 10, 0).toarray()
    # scikit-learn calibrates in float32, to 1e-5 of the entropy
    np.testing.assert_allclose(
        joint_probabilities(found, 10).toarray(), judge, rtol=1e-4, atol=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.floats(0, 12),
    share=st.floats(0.05, 1),
    n_ties=st.integers(1, 5),
)
def test_conditional_properties(seed, spread, share, n_ties):
    rng = np.random.default_rng(seed)
    distances = np.sort(10 ** rng.uniform(-spread, spread, size=(6, 20)), axis=1)
    distances[:, :n_ties] = distances[:, :1]
    perplexity = max(1.0, 20 * share)
    found = conditional_probabilities(distances, perplexity)
    p = found.probabilities
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert (p >= 0).all()
    assert (np.diff(p, axis=1) <= 1e-15).all()  # nearer is never less probable
    assert (found.sigma > 0).all()
    assert np.isfinite(found.sigma).all()
    expected = np.maximum(perplexity, (distances == distances[:, :1]).sum(axis=1))
    np.testing.assert_allclose(np.log(perplexity_of(p)), np.log(expected), atol=1e-5)


def test_equal_distances_are_uniform():
    found = conditional_probabilities(np.array([[0.0] * 4, [3.0] * 4]), 2)
    np.testing.assert_array_equal(found.probabilities, 0.25)
    np.testing.assert_allclose(found.sigma, [np.sqrt(0.5), 3 * np.sqrt(0.5)])
    every = conditional_probabilities(np.array([[1.0, 2.0, 4.0]]), 3).probabilities
    np.testing.assert_allclose(every, 1 / 3, atol=1e-8)


def test_a_row_that_is_not_a_number_ends_and_leaves_the_others_alone(rows):
    distances = nearest_neighbors(rows, 15).distances
    wanted = conditional_probabilities(distances, 5)
    distances[3, 7] = np.nan
    found = conditional_probabilities(distances, 5)
    others = np.arange(len(rows)) != 3
    assert np.isnan(found.probabilities[3]).all()
    np.testing.assert_array_equal(found.probabilities[others], wanted.probabilities[others])
    np.testing.assert_array_equal(found.sigma[others], wanted.sigma[others])


def test_distances_of_all_magnitudes():
    found = conditional_probabilities(np.array([[0.0, 1e-161, 1e-160, 1.0]]), 1)
    assert np.isfinite(found.sigma).all()
    np.testing.assert_allclose(found.probabilities.sum(), 1)


def test_multiscale_is_the_mean_of_its_scales():
    distances = nearest_neighbors(np.random.default_rng(0).normal(size=(50, 3)), 30).distances
    both, small, large = (conditional_probabilities(distances, p) for p in ([4, 10], 4, 10))
    mean = (small.probabilities + large.probabilities) / 2
    np.testing.assert_allclose(both.probabilities, mean, rtol=1e-12)
    np.testing.assert_array_equal(both.sigma, large.sigma)


@pytest.mark.parametrize("perplexity", [0.5, [], [5, 0.1], float("nan"), 16, [3, 16]])
def test_perplexity_refused(rows, perplexity):
    with pytest.raises(ValueError, match="perplexity"):
        joint_probabilities(nearest_neighbors(rows, 15), perplexity)


def test_joint_properties(rows):
    P = joint_probabilities(nearest_neighbors(rows, 15), 5)
    for start, stop in zip(P.indptr[:-1], P.indptr[1:], strict=True):
        assert (np.diff(P.indices[start:stop]) > 0).all()
    assert P.shape == (60, 60)
    assert P.dtype == np.float64
    assert P.sum() == pytest.approx(1, abs=1e-12)
    assert P.data.min() > 0
    assert not P.diagonal().any()
    assert abs(P - P.T).max() == 0


def test_joint_has_no_stored_zeros():
    # the rows of one group are so much nearer that the probability of the other underflows
    X = np.array([[0.0], [1.0], [3.0], [1e6], [1e6 + 1], [1e6 + 3]])
    found = nearest_neighbors(X, 3)
    assert (conditional_probabilities(found.distances, 1.0).probabilities[:, 2] == 0).all()
    assert joint_probabilities(found, 1.0).data.min() > 0


def test_row_order_does_not_matter():
    X = np.random.default_rng(0).normal(size=(80, 4))
    order = np.random.default_rng(1).permutation(80)
    P, permuted = (joint_probabilities(nearest_neighbors(x, 15), 5) for x in (X, X[order]))
    np.testing.assert_allclose(permuted.toarray(), P.toarray()[order][:, order], atol=1e-15)


def test_scale_does_not_matter():
    found = nearest_neighbors(np.random.default_rng(0).normal(size=(40, 4)), 15)
    P, scaled = (
        joint_probabilities(Neighbors(found.indices, found.distances * c), 5) for c in (1, 1e-150)
    )
    np.testing.assert_allclose(P.data, scaled.data, rtol=1e-9)
