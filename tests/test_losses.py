import math

import numpy as np
import pytest
import torch
from openTSNE import tsne
from scipy import sparse

import reference_losses as reference
from ptsne.losses import (
    Edges,
    gaussian_kl_gradient,
    kl_divergence,
    kl_gradient,
    reconstruction_loss,
)
from ptsne.repulsion import RepulsionEngine


def cloud(n_points, n_components=2, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_points, n_components, generator=generator, dtype=torch.float64) * scale


def random_joint(n_points, density=0.2, seed=0):
    """Random P with sum 1, zero diagonal and an empty last row; not symmetric."""
    rng = np.random.default_rng(seed)
    P = rng.random((n_points, n_points)) * (rng.random((n_points, n_points)) < density)
    np.fill_diagonal(P, 0)
    P[-1] = P[:, -1] = 0
    return P / P.sum()


def symmetric_joint(n_points, density=0.2, seed=0):
    P = random_joint(n_points, density, seed)
    return (P + P.T) / 2


def edges_of(P, dtype=torch.float64):
    return Edges.from_sparse(sparse.csr_array(P), dtype=dtype)


def neighbor_problem(n_points, seed=0):
    """A map of blobs and a P of its nearest neighbours: KL near its minimum, as after training."""
    rng = np.random.default_rng(seed)
    Y = rng.normal(size=(10, 2))[np.arange(n_points) % 10] * 40 + rng.normal(size=(n_points, 2)) * 5
    d2 = np.square(Y[:, None] - Y).sum(-1)
    np.fill_diagonal(d2, np.inf)
    P = np.where(d2 <= np.sort(d2, 1)[:, 29:30], np.exp(-d2 / np.sort(d2, 1)[:, 9:10]), 0)
    P = P / P.sum(1, keepdims=True)
    return torch.from_numpy(Y), (P + P.T) / (2 * n_points)


def dense_kl(P, log_q):
    P = torch.from_numpy(P)
    return (torch.special.xlogy(P, P) - torch.where(P > 0, P * log_q, 0.0)).sum()


def student_log_q(Y, dof):
    d2 = (Y[:, None] - Y).square().sum(-1)
    log_k1 = -(dof + 1) / 2 * torch.log1p(d2 / dof)
    log_k1 = log_k1.masked_fill(torch.eye(len(Y), dtype=torch.bool), -1e9)
    return log_k1 - log_k1.flatten().logsumexp(0)


def gaussian_log_q(Y, sigma):
    d2 = (Y[:, None] - Y).square().sum(-1)
    logits = -d2 / (2 * sigma[:, None] ** 2)
    return logits.masked_fill(torch.eye(len(Y), dtype=torch.bool), -1e9).log_softmax(1)


# --- Edges --------------------------------------------------------------------------------------


def test_edges_hold_each_pair_once():
    P = random_joint(30)
    edges = edges_of(P)
    total, forward = np.zeros_like(P), np.zeros_like(P)
    row, column = edges.row.numpy(), edges.column.numpy()
    total[row, column] = edges.weight.numpy()
    forward[row, column] = edges.forward.numpy()
    assert (row < column).all()
    assert len(set(zip(row.tolist(), column.tolist(), strict=True))) == len(row)
    np.testing.assert_allclose(total, np.triu(P + P.T), rtol=1e-15)
    np.testing.assert_allclose(forward, np.triu(P), rtol=1e-15)
    np.testing.assert_allclose(edges.row_mass.numpy(), P.sum(1), rtol=1e-14)
    assert edges.mass == pytest.approx(1, rel=1e-14)
    assert edges.negative_entropy == pytest.approx((P[P > 0] * np.log(P[P > 0])).sum(), rel=1e-14)


def test_edges_seldom_repeat_a_row():
    edges = edges_of(symmetric_joint(200))
    assert float((edges.row[1:] == edges.row[:-1]).double().mean()) < 0.01


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.coo_array, sparse.csc_array])
def test_edges_come_from_any_sparse_layout(layout):
    P = random_joint(20)
    expected, edges = edges_of(P), Edges.from_sparse(layout(P), dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(edges[:5], expected[:5], strict=True))


def test_edges_add_up_duplicate_entries():
    parts = [0.1, 0.2, 0.3, 0.4]
    P = sparse.csr_array((parts, [1, 1, 0, 0], [0, 2, 4]), shape=(2, 2))
    edges = Edges.from_sparse(P, dtype=torch.float64)
    assert edges.weight.tolist() == [1.0]
    assert edges.negative_entropy == pytest.approx(0.3 * math.log(0.3) + 0.7 * math.log(0.7))


def test_edges_leave_the_matrix_alone():
    P = sparse.csr_array(random_joint(20))
    P.data[0] = 0
    before = P.copy()
    Edges.from_sparse(P)
    assert P.nnz == before.nnz
    assert (P.data == before.data).all()


@pytest.mark.parametrize(
    ("P", "message"),
    [
        (np.ones((2, 3)), "square"),
        (np.array([[0, -1.0], [1, 0]]), "negative"),
        (np.array([[0, np.nan], [1, 0]]), "non-finite"),
        (np.array([[0, np.inf], [1, 0]]), "non-finite"),
        (np.array([[0.5, 0.25], [0.25, 0]]), "diagonal"),
    ],
)
def test_edges_refuse_what_is_no_joint_distribution(P, message):
    with pytest.raises(ValueError, match=message):
        edges_of(P)


# --- Student-t ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dof", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("exaggeration", [1.0, 12.0])
def test_gradient_equals_the_double_loop(dof, exaggeration):
    P, Y = symmetric_joint(20), cloud(20)
    gradient, kl = kl_gradient(edges_of(P), Y, dof=dof, exaggeration=exaggeration)
    expected = reference.student_gradient(P, Y.numpy(), dof, exaggeration)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-12, atol=1e-15)
    assert float(kl) == pytest.approx(reference.kl(P, reference.student_q(Y, dof)), rel=1e-13)


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("dof", [0.5, 1.0, 2.0])
def test_gradient_equals_autograd_for_any_p(n_components, dof):
    P, Y = 0.7 * random_joint(40), cloud(40, n_components).requires_grad_()
    expected_kl = dense_kl(P, student_log_q(Y, dof))
    (expected,) = torch.autograd.grad(expected_kl, Y)
    gradient, kl = kl_gradient(edges_of(P), Y, dof=dof)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(kl, expected_kl.detach(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("exaggeration", [1.0, 12.0])
def test_gradient_equals_open_tsne(exaggeration):
    P, Y = symmetric_joint(300), cloud(300, scale=5)
    gradient, kl = kl_gradient(edges_of(P), Y, exaggeration=exaggeration, method="exact")
    _, theirs = tsne.kl_divergence_bh(
        Y.numpy().copy(), sparse.csr_matrix(P * exaggeration), 1.0, {"theta": 0.0}
    )
    np.testing.assert_allclose(gradient.numpy(), 4 * theirs, rtol=0, atol=1e-12)
    error, _ = tsne.kl_divergence_bh(
        Y.numpy().copy(), sparse.csr_matrix(P), 1.0, {"theta": 0.0}, should_eval_error=True
    )
    assert float(kl) == pytest.approx(error, rel=1e-12)


def test_grid_gradient_is_closer_to_the_exact_one_than_open_tsne():
    Y, P = neighbor_problem(2000)
    edges = edges_of(P, torch.float32)
    exact, _ = kl_gradient(edges, Y, method="exact")
    ours, _ = kl_gradient(edges, Y.float(), method="fft")
    options = {"n_interpolation_points": 3, "min_num_intervals": 50, "ints_in_interval": 1}
    _, theirs = tsne.kl_divergence_fft(Y.numpy().copy(), sparse.csr_matrix(P), 1.0, options)
    assert (ours - exact).norm() < 0.5 * (4 * torch.from_numpy(theirs) - exact).norm()


@pytest.mark.parametrize("dof", [0.5, 1.0, 2.0])
def test_grid_kl_is_within_one_percent(dof):
    Y, P = neighbor_problem(1500)
    for scale in (1e-3, 0.1, 1.0):
        exact = float(kl_divergence(edges_of(P), Y * scale, dof=dof))
        on_grid = kl_divergence(
            edges_of(P, torch.float32), Y.float() * scale, dof=dof, method="fft"
        )
        assert float(on_grid) == pytest.approx(exact, rel=0.01)


def test_kl_divergence_is_the_kl_of_the_gradient():
    P, Y = symmetric_joint(50), cloud(50)
    assert kl_divergence(edges_of(P), Y, dof=2.0) == kl_gradient(edges_of(P), Y, dof=2.0)[1]


def test_kl_is_not_negative_and_zero_where_p_is_q():
    Y = cloud(30)
    for seed in range(5):
        assert float(kl_divergence(edges_of(random_joint(30, seed=seed)), Y)) > 0
    at_minimum = edges_of(reference.student_q(Y))
    gradient, kl = kl_gradient(at_minimum, Y)
    assert float(kl) == pytest.approx(0, abs=1e-13)
    assert float(gradient.abs().max()) < 1e-15


def test_exaggeration_leaves_the_kl_alone():
    P, Y = symmetric_joint(50), cloud(50)
    assert kl_gradient(edges_of(P), Y)[1] == kl_gradient(edges_of(P), Y, exaggeration=12.0)[1]


def test_without_kl_the_gradient_is_the_same():
    P, Y = symmetric_joint(50), cloud(50)
    gradient, kl = kl_gradient(edges_of(P), Y, with_kl=False)
    assert torch.equal(gradient, kl_gradient(edges_of(P), Y)[0])
    assert kl.isnan()


def test_pairs_in_chunks_equal_pairs_at_once(monkeypatch):
    P, Y = random_joint(60), cloud(60, 3)
    whole = kl_gradient(edges_of(P), Y)
    monkeypatch.setattr("ptsne.losses._PAIRS_AT_ONCE", {"cpu": 7, "cuda": 7})
    parts = kl_gradient(edges_of(P), Y)
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("method", ["exact", "fft"])
def test_same_input_same_bits(method):
    Y, P = neighbor_problem(1200)
    edges, Y = edges_of(P, torch.float32), Y.float()
    first, second = (kl_gradient(edges, Y, method=method) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_shift_and_rotation_leave_the_kl_and_turn_the_gradient():
    P, Y = symmetric_joint(50), cloud(50)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    gradient, kl = kl_gradient(edges_of(P), Y)
    turned, turned_kl = kl_gradient(edges_of(P), Y @ turn + 100)
    torch.testing.assert_close(turned, gradient @ turn, rtol=1e-9, atol=1e-14)
    assert float(turned_kl) == pytest.approx(float(kl), rel=1e-12)


def test_row_order_does_not_matter():
    P, Y = random_joint(50), cloud(50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    gradient, kl = kl_gradient(edges_of(P), Y)
    shuffled, shuffled_kl = kl_gradient(edges_of(P[order][:, order]), Y[order])
    torch.testing.assert_close(shuffled, gradient[order], rtol=1e-11, atol=1e-15)
    assert float(shuffled_kl) == pytest.approx(float(kl), rel=1e-13)


def test_an_engine_changes_speed_only():
    Y, P = neighbor_problem(1200)
    engine = RepulsionEngine(method="fft")
    for _ in range(2):
        with_engine = kl_gradient(edges_of(P), Y, engine=engine)
        assert torch.equal(with_engine[0], kl_gradient(edges_of(P), Y, method="fft")[0])


def test_an_engine_of_another_dof_is_refused():
    with pytest.raises(ValueError, match="dof"):
        kl_gradient(edges_of(symmetric_joint(9)), cloud(9), engine=RepulsionEngine(dof=2.0))


def test_a_map_of_other_points_is_refused():
    with pytest.raises(ValueError, match="8 rows and P has 9"):
        kl_gradient(edges_of(symmetric_joint(9)), cloud(8))


@pytest.mark.parametrize("n_points", [0, 1, 2])
def test_no_neighbours_no_nan(n_points):
    edges = edges_of(np.zeros((n_points, n_points)))
    for gradient, kl in (
        kl_gradient(edges, cloud(n_points)),
        gaussian_kl_gradient(edges, cloud(n_points), torch.ones(n_points)),
    ):
        assert not gradient.any()
        assert float(kl) == 0


def test_results_have_the_precision_of_the_map():
    edges = edges_of(symmetric_joint(20), torch.float32)
    sigma = torch.ones(20, dtype=torch.float64)
    for dtype, expected in [(torch.float16, torch.float32), (torch.float32, torch.float32),
                            (torch.float64, torch.float64)]:  # fmt: skip
        Y = cloud(20).to(dtype).requires_grad_()
        for result in (kl_gradient(edges, Y), gaussian_kl_gradient(edges, Y, sigma)):
            assert [t.dtype for t in result] == [expected, expected]
            assert not any(t.requires_grad for t in result)


# --- Gaussian -----------------------------------------------------------------------------------


def test_gaussian_objective_equals_the_double_loop():
    P, Y = random_joint(15), cloud(15, scale=1)
    sigma = torch.linspace(0.4, 3, 15, dtype=torch.float64)
    _, kl = gaussian_kl_gradient(edges_of(P), Y, sigma)
    Q = reference.gaussian_q(Y, sigma)
    np.testing.assert_allclose(Q.sum(1), 1, rtol=1e-14)
    assert float(kl) == pytest.approx(reference.kl(P, Q), rel=1e-12)


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("mass", [1.0, 40.0])
def test_gaussian_gradient_equals_autograd_for_any_p(n_components, mass):
    P, Y = mass * random_joint(40), cloud(40, n_components).requires_grad_()
    sigma = torch.linspace(0.4, 3, 40, dtype=torch.float64)
    expected_kl = dense_kl(P, gaussian_log_q(Y, sigma))
    (expected,) = torch.autograd.grad(expected_kl, Y)
    gradient, kl = gaussian_kl_gradient(edges_of(P), Y, sigma)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(kl, expected_kl.detach(), rtol=1e-12, atol=0)


def test_gaussian_gradient_vanishes_where_p_is_q():
    Y, sigma = cloud(20, scale=1), torch.linspace(0.5, 3, 20, dtype=torch.float64)
    gradient, kl = gaussian_kl_gradient(edges_of(reference.gaussian_q(Y, sigma)), Y, sigma)
    assert float(gradient.abs().max()) < 1e-13
    assert float(kl) == pytest.approx(0, abs=1e-12)


def test_gaussian_exaggeration_scales_the_attraction_alone():
    P, Y, sigma = random_joint(30), cloud(30), torch.full((30,), 2.0)
    one, two, twelve = (
        gaussian_kl_gradient(edges_of(P), Y, sigma, exaggeration=e) for e in (1.0, 2.0, 12.0)
    )
    attraction = two[0] - one[0]
    torch.testing.assert_close(twelve[0], one[0] + 11 * attraction, rtol=1e-11, atol=1e-14)
    assert one[1] == twelve[1]


def test_gaussian_survives_points_many_bandwidths_apart():
    P, Y = symmetric_joint(20), cloud(20, scale=1e3).float()
    gradient, kl = gaussian_kl_gradient(edges_of(P), Y, torch.full((20,), 0.1))
    assert gradient.isfinite().all()
    assert kl.isfinite()


def test_gaussian_blocks_join_seamlessly(monkeypatch):
    P, Y, sigma = random_joint(50), cloud(50), torch.full((50,), 2.0)
    whole = gaussian_kl_gradient(edges_of(P), Y, sigma)
    monkeypatch.setattr("ptsne.losses._BLOCK_BYTES", 7 * 50 * 8)
    parts = gaussian_kl_gradient(edges_of(P), Y, sigma)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-15)


# --- reconstruction -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 6), (4, 2, 3)])
def test_reconstruction_loss_is_the_mean_squared_length_of_the_errors(shape):
    x, x_hat = cloud(4, 6).view(shape), cloud(4, 6, seed=1).view(shape).requires_grad_()
    loss = reconstruction_loss(x, x_hat)
    error = (x_hat - x).detach().numpy().reshape(4, 6)
    assert float(loss.detach()) == pytest.approx(np.mean([math.fsum(e**2) for e in error]))
    (gradient,) = torch.autograd.grad(loss, x_hat)
    torch.testing.assert_close(gradient, 2 * (x_hat - x).detach() / 4)


@pytest.mark.parametrize("exaggeration", [1.0, 4.0])
def test_points_at_one_place_can_be_taken_together(exaggeration):
    group = torch.arange(30) % 7
    places = cloud(7)
    edges = edges_of(random_joint(30))
    gradient, kl = kl_gradient(edges, places[group], exaggeration=exaggeration, method="exact")
    together, kl_together = kl_gradient(
        edges.grouped(group, 7),
        places,
        exaggeration=exaggeration,
        method="exact",
        count=torch.bincount(group).double(),
    )
    expected = torch.zeros_like(places).index_add_(0, group, gradient)
    torch.testing.assert_close(together, expected, rtol=1e-12, atol=1e-14)
    assert float(kl_together) == pytest.approx(float(kl), rel=1e-13)


def test_grouped_pairs_keep_their_direction():
    P = random_joint(30)
    group = np.arange(30) % 7
    member = np.eye(7)[group]
    expected = member.T @ P @ member
    np.fill_diagonal(expected, 0)
    edges = edges_of(P).grouped(torch.from_numpy(group), 7)
    forward = np.zeros((7, 7))
    forward[edges.row, edges.column] = edges.forward
    np.testing.assert_allclose(forward, np.triu(expected), atol=1e-15)
    np.testing.assert_allclose(edges.weight.sum(), expected.sum(), rtol=1e-13)
    np.testing.assert_allclose(edges.row_mass, (member.T @ P).sum(1), rtol=1e-13)
