import pytest
import torch
from scipy import sparse

from ptsne.losses import Edges
from ptsne.training.objective import Objective
from ptsne.training.places import Attention

N, M, SLOTS = 200, 15, 3


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def attention_and_dense():
    """Slots with a third of the rows between landmarks, and the same as a dense S (N, m)."""
    g = generator()
    index = torch.stack([torch.randperm(M, generator=g)[:SLOTS] for _ in range(N)])
    weights = torch.rand(N, SLOTS, generator=g, dtype=torch.float64)
    weights[torch.rand(N, generator=g) < 0.67, 1:] = 0
    weights /= weights.sum(1, keepdim=True)
    S = torch.zeros(N, M, dtype=torch.float64).scatter_(1, index, weights)
    return Attention.from_slots(index, weights, M), S


def objective(**parameters):
    P = sparse.random_array((N, N), density=0.1, rng=0)
    P = P + P.T
    P.setdiag(0)
    edges = Edges.from_sparse(sparse.csr_array(P / P.sum()), dtype=torch.float64)
    return Objective(edges, **parameters)


def test_places_are_those_of_all_rows(attention_and_dense):
    attention, S = attention_and_dense
    V = torch.randn(M, 2, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(attention.spread(V)[attention.group], S @ V, rtol=0, atol=1e-15)
    assert attention.n_places == M + int(((S > 0).sum(1) > 1).sum())


@pytest.mark.parametrize(
    "parameters", [{}, {"dof": 0.5}, {"sigma": torch.linspace(1, 2, N, dtype=torch.float64)}]
)
def test_gradient_of_the_landmarks_is_that_of_all_rows(attention_and_dense, parameters):
    attention, S = attention_and_dense
    V = 3 * torch.randn(M, 2, generator=generator(), dtype=torch.float64)
    of_rows = objective(**parameters)
    of_places = of_rows.grouped(attention.group, attention.n_places)
    gradient, kl = of_rows.gradient(S @ V, exaggeration=4.0)
    at_places, kl_at_places = of_places.gradient(attention.spread(V), exaggeration=4.0)
    expected = (S.T @ gradient) / S.sum(0).clamp(min=1e-3).unsqueeze(1)
    torch.testing.assert_close(attention.gather(at_places), expected, rtol=1e-10, atol=1e-13)
    assert float(kl_at_places) == pytest.approx(float(kl), rel=1e-12)
