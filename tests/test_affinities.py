"""Distances of any origin become probabilities: graphs, calibration, symmetry."""

import numpy as np
import openTSNE.affinity
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.manifold._t_sne import _joint_probabilities_nn
from sklearn.neighbors import KNeighborsTransformer, RadiusNeighborsTransformer

import reference
from ptsne.affinities import (
    Neighbors,
    conditional_probabilities,
    joint_probabilities,
    nearest_neighbors,
    neighbors_from_graph,
)


@pytest.fixture
def rows():
    return reference.rows_with_ties()


def perplexity_of(probabilities):
    safe = np.where(probabilities > 0, probabilities, 1.0)
    return np.exp(-(probabilities * np.log(safe)).sum(axis=1))


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
