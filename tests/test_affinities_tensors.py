"""The search and calibration of a GPU, on tensors of the CPU, beside those of numpy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptsne import affinities
from ptsne.affinities import cells, tensors
from ptsne.affinities import neighbors as search
from ptsne.affinities.scan import Plane, Scan, exact_score
from ptsne.losses import Edges

SHAPES = {"blob": (300, 5), "wide": (120, 40), "few": (12, 3)}


def rows(name, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.normal(size=SHAPES[name]).astype(dtype)
    X[5] = X[3]  # equal rows
    return X


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["single", "double"])
def test_scan_is_that_of_numpy(name, dtype, kind, monkeypatch):
    monkeypatch.setattr(tensors, "_BLOCK_BYTES", 4 * 300 * 7)  # several blocks
    monkeypatch.setattr(tensors, "_GATHER_BYTES", 2000)
    X = rows(name, dtype)
    scan = Scan(X, X, 6, 2, True)
    plane = Plane.of(X, X, torch.float32, "cpu")
    score = plane.score if kind == "single" else exact_score(X, X, 2, "cpu")
    everything = np.arange(len(X))
    wanted, wanted_cutoff = scan.run(score, everything)
    found, cutoff = tensors.TensorScan(scan, "cpu").run(score, everything)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-14)
    # differences of float32 numbers up to 1: another block shape rounds otherwise
    np.testing.assert_allclose(cutoff, wanted_cutoff, rtol=1e-6, atol=1e-6)


def test_scan_of_queries_does_not_leave_rows_out():
    X, Q = rows("blob"), rows("blob")[10:30]
    scan = Scan(Q, X, 4, 2, False)
    found, _ = tensors.TensorScan(scan, "cpu").run(exact_score(Q, X, 2, "cpu"), np.arange(20))
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(10, 30))
    assert not found.distances[:, 0].any()


def test_the_whole_search_where_there_is_a_gpu(monkeypatch):
    X = rows("blob")
    wanted = affinities.nearest_neighbors(X, 9)
    monkeypatch.setattr(search, "_has_cuda", lambda device: True)
    found = affinities.nearest_neighbors(X, 9, device="cpu")
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-14)


@pytest.mark.parametrize("setting", [{"allow_tf32": True}, {"fp32_precision": "tf32"}])
def test_products_of_ten_bits_rank_nothing(monkeypatch, setting):
    X = rows("blob")
    wanted = affinities.nearest_neighbors(X, 9)
    monkeypatch.setattr(search, "_has_cuda", lambda device: True)
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(**setting))
    monkeypatch.setattr(Plane, "is_certain", None)  # of a ranking in float32
    found = affinities.nearest_neighbors(X, 9, device="cpu")
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-14)


def test_cells_on_a_device_are_larger_and_their_rows_go_there_at_once():
    X = rows("blob", np.float32)
    there, here = (cells._Rows.of(X, None, torch.device(name)) for name in ("meta", "cpu"))
    assert (there.resident.device.type, there.resident.shape) == ("meta", X.shape)
    assert (there.per_cell, there.score_bytes) == (cells.GPU_ROWS_PER_CELL, cells.GPU_SCORE_BYTES)
    assert here.resident is None
    assert here.per_cell < there.per_cell


def test_cells_of_rows_that_stay_on_a_device_are_those_of_rows_in_memory(monkeypatch):
    X = np.random.default_rng(0).normal(size=(700, 6)).astype(np.float32)
    X[:300] = X[0]  # more equal centres than cells are compared
    monkeypatch.setattr(cells, "ROWS_PER_CELL", 10)

    def draw():
        return np.random.RandomState(0)

    wanted = cells.search_cells(X, 12, random_state=draw(), exact_limit=100)
    resident = cells._Rows(X, None, torch.device("cpu"), torch.from_numpy(X), 10, 2**12)
    monkeypatch.setattr(cells._Rows, "of", lambda X, squares, device: resident)
    found = cells.search_cells(X, 12, random_state=draw(), exact_limit=100)
    np.testing.assert_array_equal(found.distances, wanted.distances)
    np.testing.assert_array_equal(found.indices[300:], wanted.indices[300:])
    assert (found.indices != np.arange(700)[:, None]).all()


@pytest.mark.parametrize("perplexity", [1, 2.5, 10, 30, [3, 10]])
def test_calibration_is_that_of_numpy(perplexity):
    rng = np.random.default_rng(0)
    distances = np.sort(rng.gamma(2.0, size=(50, 30)), axis=1)
    distances[0] = 3.0  # all equal
    distances[1] = 0.0
    distances[2, 1:] = 1e9  # one far nearer than the others
    distances[3] *= 1e-200
    wanted = affinities.conditional_probabilities(distances, perplexity)
    p, sigma = tensors.conditional_tensors(torch.from_numpy(distances), perplexity)
    np.testing.assert_allclose(p, wanted.probabilities, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(
        sigma, wanted.sigma, rtol=1e-5 if perplexity == 1 else 1e-9
    )  # 1: flat


def test_a_row_that_is_not_a_number_ends_and_leaves_the_others_alone():
    distances = torch.linspace(1, 3, 30, dtype=torch.float64).repeat(4, 1)
    wanted, width = tensors.conditional_tensors(distances, 5)
    distances[2, 3] = torch.nan
    p, sigma = tensors.conditional_tensors(distances, 5)
    assert p[2].isnan().all()
    torch.testing.assert_close(p[[0, 1, 3]], wanted[[0, 1, 3]], rtol=0, atol=0)
    torch.testing.assert_close(sigma[[0, 1, 3]], width[[0, 1, 3]], rtol=0, atol=0)


@pytest.mark.parametrize("perplexity", [0.5, 31])
def test_a_perplexity_out_of_range_is_refused(perplexity):
    with pytest.raises(ValueError, match="perplexity"):
        tensors.conditional_tensors(torch.ones(2, 30), perplexity)


@pytest.mark.parametrize("name", SHAPES)
def test_pairs_are_the_joint_probabilities(name, monkeypatch):
    monkeypatch.setattr(tensors, "_ROWS", 100)
    graph = affinities.nearest_neighbors(rows(name), 9)
    P = affinities.joint_probabilities(graph, 3)
    pairs = affinities.tensor_pairs(graph, 3, device="cpu")
    assert (pairs.row < pairs.column).all()
    np.testing.assert_allclose(
        P.toarray()[pairs.row, pairs.column], pairs.probability, rtol=1e-9, atol=1e-15
    )
    assert 2 * len(pairs.row) == P.nnz
    assert float(pairs.probability.sum()) == pytest.approx(0.5, abs=1e-14)


@pytest.mark.parametrize("name", SHAPES)
def test_edges_of_pairs_are_those_of_the_sparse_matrix(name):
    graph = affinities.nearest_neighbors(rows(name), 9)
    wanted = Edges.from_sparse(affinities.joint_probabilities(graph, 3), dtype=torch.float64)
    found = Edges.from_pairs(*affinities.tensor_pairs(graph, 3, device="cpu"), dtype=torch.float64)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-9, atol=1e-14)


def test_a_fit_with_tensor_pairs_is_the_same_but_for_rounding(monkeypatch):
    from ptsne import ParametricTSNE
    from ptsne.fitting import whole

    X = rows("blob")
    wanted = ParametricTSNE(max_iter=10, random_state=0, device="cpu").fit(X)
    monkeypatch.setattr(whole, "is_gpu", lambda device: True)
    found = ParametricTSNE(max_iter=10, random_state=0, device="cpu").fit(X)
    np.testing.assert_allclose(found.embedding_, wanted.embedding_, atol=1e-5)
    assert found.kl_divergence_ == pytest.approx(wanted.kl_divergence_, abs=1e-5)
