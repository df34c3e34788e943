"""The networks of the map: formulas, continuity, exact support."""

import numpy as np
import pytest
import torch

from ptsne.networks import (
    AtlasProjection,
    MapNetwork,
    SkipNetwork,
    Standardize,
    apply_by_rows,
    candidates_within,
    relu_network,
    sparsemax_support,
    sparsemax_threshold,
)
from ptsne.networks.atlas import SCORES_AT_ONCE
from ptsne.networks.placing import candidates, place


def atlas(m=30, latent_dim=4, n_components=2, *, temperature=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    head = AtlasProjection(
        2 * normal(m, latent_dim), n_components, temperature=temperature, clip=0.7
    )
    with torch.no_grad():
        head.places.copy_(5 * normal(m, n_components))
        head.charts.copy_(normal(m, n_components, latent_dim))
        head.shared_chart.copy_(normal(n_components, latent_dim))
    return head.double(), normal(200, latent_dim)


def sparsemax_twin(scores):
    """Sort everything (Martins and Astudillo 2016, Algorithm 1), one row at a time."""
    result = np.zeros_like(scores)
    for i, row in enumerate(scores):
        ordered, total = np.sort(row)[::-1], 0.0
        for k, value in enumerate(ordered, start=1):
            if 1 + k * value <= total + value:
                break
            total += value
            tau = (total - 1) / k
        result[i] = np.maximum(row - tau, 0)
    return result


def atlas_twin(head, z):
    """The formula of the atlas with a loop over rows and landmarks."""
    K, V = head.landmarks.detach().numpy(), head.places.detach().numpy()
    B = (head.charts + head.shared_chart).detach().numpy()
    c, y = float(head.clip), []
    p = sparsemax_twin((2 * z @ K.T - (K**2).sum(1)) / float(head.temperature))
    for i, row in enumerate(z):
        place = head.tilt.numpy() @ row
        for k in np.flatnonzero(p[i]):
            reach = c * p[i, k]
            place += p[i, k] * V[k] + np.clip(B[k] @ (row - K[k]), -reach, reach)
        y.append(place)
    return np.array(y)


def test_sparsemax_support_and_threshold_agree_with_sorting_everything():
    scores = 3 * torch.randn(
        100, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    expected = sparsemax_twin(scores.numpy())
    index, active = sparsemax_support(scores)
    found = np.zeros_like(expected)
    candidates = scores.gather(1, index).masked_fill(~active, -torch.inf)
    p = (candidates - sparsemax_threshold(candidates).unsqueeze(1)).clamp(min=0)
    np.add.at(found, (np.arange(100)[:, None], index.numpy()), p.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (active.sum(1).numpy() == (expected > 0).sum(1)).all()


def test_candidates_are_those_within_the_margin():
    scores = torch.tensor([[0.0, 2.5, 3.0], [1.0, -5.0, -9.0]])
    index, valid = candidates_within(scores, 1.0)
    assert [row[keep].tolist() for row, keep in zip(index, valid, strict=True)] == [[1, 2], [0]]


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("temperature", [1e-3, 1.5, 50.0])
def test_atlas_equals_its_formula(n_components, temperature):
    head, z = atlas(n_components=n_components, temperature=temperature)
    with torch.no_grad():
        np.testing.assert_allclose(head(z).numpy(), atlas_twin(head, z.numpy()), atol=1e-12)


def test_atlas_is_continuous_and_bounded():
    head, z = atlas()
    with torch.no_grad():
        step = head(z + 1e-9) - head(z)
        assert step.abs().max() < 1e-6
        far = 1e4 * z
        bound = head.places.abs().max() + head.clip
        assert (head(far) - far @ head.tilt.T).abs().max() <= bound + 1e-9


def test_landmark_weights_sum_to_one(monkeypatch):
    head, z = atlas()
    monkeypatch.setitem(SCORES_AT_ONCE, "cpu", 64 * len(head.landmarks))
    index, weights = head.landmark_weights(z)
    assert index.shape == weights.shape
    torch.testing.assert_close(weights.sum(1), torch.ones(200, dtype=torch.float64))
    assert (weights >= -1e-12).all()


def test_standardize_inverts():
    layer = Standardize(torch.tensor([1.0, 2.0]), torch.tensor(4.0))
    x = torch.tensor([[3.0, 5.0]])
    torch.testing.assert_close(layer.inverse(layer(x)), x)


def test_skip_network_starts_as_its_linear_path():
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    x = torch.ones(2, 5)
    torch.testing.assert_close(SkipNetwork(weight, (7,))(x), x @ weight.T)


def test_a_network_without_a_decoder_is_no_autoencoder():
    head, _ = atlas()
    with pytest.raises(ValueError, match="has no decoder"):
        MapNetwork(torch.nn.Linear(3, 4), head).autoencoder  # noqa: B018 - a property that refuses


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_do_not_depend_on_their_company(dtype):
    network = relu_network((20, 50, 8)).double()
    X = np.random.default_rng(0).normal(size=(700, 20)).astype(dtype)
    X.flags.writeable = False
    whole = apply_by_rows(network, X)
    assert whole.dtype == dtype
    for row in (0, 3, 255, 256, 699):
        assert (apply_by_rows(network, X[row : row + 1]) == whole[row]).all()
    assert (apply_by_rows(network, X[100:400]) == whole[100:400]).all()
    assert apply_by_rows(network, X[:0]).shape == (0, 8)


def test_rows_depend_on_their_place_in_a_block_by_rounding_at_most():
    # float32 BLAS has kernels for few outputs that round differently at the edge of a block
    network = relu_network((20, 50, 2))
    X = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    np.testing.assert_allclose(
        apply_by_rows(network, X)[7:], apply_by_rows(network, X[7:]), atol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_network_without_numbers_takes_the_precision_of_the_rows(dtype):
    X = np.arange(-6, 6).reshape(4, 3).astype(dtype)
    found = apply_by_rows(torch.nn.ReLU(), X)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, X.clip(0))


def rows_near_and_far(z):
    """Rows where float32 tells scores apart, beside rows where it, and where float64, does not."""
    far = z[:6] * torch.tensor([[1e4], [1e8], [1e16], [1e50], [1e140], [0]]).double()
    return torch.cat([z, far])


@pytest.mark.parametrize("temperature", [1e-9, 1e-3, 1.5, 50.0])
@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_places_are_those_of_the_formula(n_components, temperature):
    head, z = atlas(n_components=n_components, temperature=temperature)
    found = place(head, z, block=64)
    np.testing.assert_allclose(found.numpy(), atlas_twin(head, z.numpy()), rtol=0, atol=1e-12)


def test_places_of_a_float32_atlas_are_those_of_its_forward():
    head, z = atlas()
    head, z = head.float(), z.float()
    with torch.no_grad():
        torch.testing.assert_close(place(head, z, block=64), head(z), rtol=0, atol=1e-4)


@pytest.mark.parametrize("temperature", [1e-9, 1e-3, 1.5, 50.0])
def test_places_of_a_row_are_the_same_bits_beside_any_other(temperature):
    head, z = atlas(temperature=temperature)
    rows = rows_near_and_far(z)
    whole = place(head, rows, block=64)
    for size in (1, 7, 100):
        parts = [place(head, part, block=64) for part in rows.split(size)]
        np.testing.assert_array_equal(torch.cat(parts).numpy(), whole.numpy())
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    shuffled = place(head, rows[order], block=64)
    np.testing.assert_array_equal(shuffled.numpy(), whole[order].numpy())


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("temperature", [1e-3, 0.3, 50.0])
def test_candidates_miss_no_landmark_that_holds_a_row(temperature, precision):
    head, z = atlas(m=200, latent_dim=20, temperature=temperature)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        row, landmark = candidates(head, 5 * z, block=64)
    finally:
        torch.set_float32_matmul_precision(before)
    found = set(zip(row.tolist(), landmark.tolist(), strict=True))
    index, active = head.support(5 * z)
    for i, k in active.nonzero().tolist():
        assert (i, int(index[i, k])) in found


def test_codes_that_are_not_finite_have_no_place():
    head, z = atlas()
    z[3, 1], z[5, 3] = torch.nan, torch.inf
    found = place(head, z, block=64)
    assert torch.isnan(found[[3, 5]]).all()
    assert torch.isnan(found).any(1).sum() == 2
    assert place(head, z[:0], block=64).shape == (0, 2)


def test_landmarks_at_one_point_share_a_row():
    head, z = atlas()
    with torch.no_grad():
        head.landmarks.copy_(head.landmarks[:1].expand_as(head.landmarks))
        torch.testing.assert_close(place(head, z, block=64), head(z), rtol=0, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_network_applied_to_rows_is_the_network(offset):
    head, z = atlas(latent_dim=6)
    generator = torch.Generator().manual_seed(2)
    mean = offset + torch.randn(40, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 40, generator=generator, dtype=torch.float64) / 40**0.5
    linear = SkipNetwork(weight.float()).double()
    standardize = Standardize(mean, torch.tensor(3.0).double())
    network = MapNetwork(torch.nn.Sequential(standardize, linear), head)
    X = mean + 3 * torch.randn(300, 40, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = network(X).numpy()
    rows = X.numpy()
    rows.flags.writeable = False
    found = apply_by_rows(network, rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    for start in (0, 31, 32, 299):
        np.testing.assert_array_equal(apply_by_rows(network, rows[start:]), found[start:])
