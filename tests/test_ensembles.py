"""An ensemble is one network, the sum of its members; that W and b are sums is tested elsewhere."""

import pytest
import torch
from torch import nn

from ptsne import Ensemble

WEIGHTS = [0.5, -1.5, 2.0]


def perceptron(seed, n_out=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.GELU(), nn.Linear(7, n_out)
        return nn.Sequential(*layers).double().eval()


@pytest.fixture
def members():
    return [perceptron(seed) for seed in range(3)]


@pytest.fixture
def x():
    return torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_output_is_the_weighted_sum(members, x):
    expected = sum(a * member(x) for a, member in zip(WEIGHTS, members, strict=True))
    torch.testing.assert_close(Ensemble(members, WEIGHTS)(x), expected)


def test_default_is_the_mean(members, x):
    expected = torch.stack([member(x) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members)(x), expected)


def test_members_are_held_and_follow_train_and_eval(members):
    ensemble = Ensemble(members)
    assert ensemble.members[1] is members[1]
    assert not ensemble.training
    ensemble.train()
    assert all(member.training for member in members)
    assert "0.3333" in repr(ensemble)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((perceptron(0),), TypeError, "expected a list of networks, got one Sequential"),
        (([len],), TypeError, "a member must be a torch network .* its network_"),
        (([],), ValueError, "at least one network"),
        (([perceptron(0)], [1, 2]), ValueError, "one finite number for each of 1 networks"),
        (([perceptron(0)], [float("nan")]), ValueError, "one finite number"),
    ],
)
def test_what_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Ensemble(*arguments)


def test_outputs_of_two_shapes_are_refused(x):
    with pytest.raises(ValueError, match=r"outputs of one shape; got \[\(11, 3\), \(11, 4\)\]"):
        Ensemble([perceptron(0), perceptron(1, n_out=4)])(x)
