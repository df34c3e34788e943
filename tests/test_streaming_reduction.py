"""What is made of rows that are read block by block is what is made of all at once."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ptsne.affinities import (
    calibrate_by_blocks,
    cells,
    conditional_probabilities,
    joint_pairs,
    joint_probabilities,
    nearest_neighbors,
    search_cells,
)
from ptsne.losses import Edges
from ptsne.networks import fit_standardize
from ptsne.streaming import (
    reduce_rows,
    stream_standardize,
)
from streams import IRIS, N_ROWS, WIDE, lazy

RNG, CPU = np.random.RandomState, torch.device("cpu")


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


def test_a_cell_of_many_equal_rows_is_searched_in_parts(monkeypatch):
    monkeypatch.setattr("ptsne.affinities.cells.ROWS_PER_CELL", 8)
    sizes = []
    search = cells._search_cell
    monkeypatch.setattr(
        cells,
        "_search_cell",
        lambda rows, part, *rest: (sizes.append(len(part)), search(rows, part, *rest)),
    )
    X = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    X[::2] = X[0]
    true = nearest_neighbors(X, 20)
    found = search_cells(X, 20, random_state=RNG(0), exact_limit=100)
    assert sum(sizes) == 3000
    assert max(sizes) <= 8 * cells.LARGEST < 1500
    assert np.isclose(found.distances, true.distances, atol=1e-6).mean() > 0.98


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


def test_a_pair_that_is_too_rare_for_float32_counts_as_none():
    indices = np.array([[1, 2], [0, 2], [0, 1]])
    rare = np.finfo(np.float32).smallest_subnormal
    found = joint_pairs(indices, np.array([[1, rare], [1, rare], [1, rare]], np.float32))
    assert np.isfinite(found.negative_entropy)
    assert found.weight.sum() == pytest.approx(1)
