"""Codes that are widened for rows they were blind to, and codes that cannot be."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ptsne import ParametricTSNE, metrics
from ptsne.updating.growing import Growth

pytestmark = pytest.mark.filterwarnings("ignore:perplexity .* is too high")


def hidden(n, shift, seed):
    """Rows that vary in two columns; the last is 0 but for the shift."""
    rows = np.random.default_rng(seed).normal(size=(n, 6)) * [3, 3, 0.3, 0.1, 0.1, 0.1]
    rows[:, 5] += shift
    return rows


OLD, NEW, NEWER = hidden(120, 0, 0), hidden(40, 4, 1), hidden(20, 4, 2)


def fitted(**parameters):
    return ParametricTSNE(perplexity=10, max_iter=40, random_state=0, **parameters).fit(OLD)


@pytest.fixture(scope="module", autouse=True)
def _short():
    """Fewer iterations than a real update takes."""
    with pytest.MonkeyPatch.context() as patch:
        few = partial(Growth, early=10, alone=20, joined=30, charts=20)
        patch.setattr("ptsne.updating.updating.Growth", few)
        yield


def test_an_encoder_with_hidden_layers_is_widened():
    map_ = fitted(encoder=(8,), latent_dim=2)
    places, rebuilt = map_.transform(OLD), map_.reconstruct(OLD)
    caller = torch.get_rng_state()
    map_.update(NEW)
    assert (torch.get_rng_state() == caller).all()
    n = map_.drift_.n_new_directions
    assert n > 0
    assert f"the code was widened by {n} directions" in str(map_.drift_)
    np.testing.assert_allclose(map_.transform(OLD), places, atol=1e-10)
    assert map_.explain(NEWER).residual.max() < 1e-12
    votes = {"Y_train": map_.embedding_, "labels_train": np.repeat([0, 1], [120, 40])}
    assert metrics.knn_accuracy(map_.transform(NEWER), np.ones(20), **votes) > 0.9
    assert np.abs(map_.reconstruct(NEWER)[:, 5] - NEWER[:, 5]).mean() < 1
    assert np.abs(map_.reconstruct(OLD) - rebuilt)[:, :5].max() < 0.5


def test_linear_codes_are_widened():
    map_ = fitted(encoder="linear", latent_dim=2)
    places = map_.transform(OLD)
    map_.update(NEW)
    assert map_.drift_.n_new_directions > 0
    np.testing.assert_allclose(map_.transform(OLD), places, atol=1e-10)
    assert np.abs(map_.reconstruct(NEWER)[:, 5] - NEWER[:, 5]).mean() < 1


def first_two():
    layer = nn.Linear(6, 2, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.eye(2, 6))
    return layer


@pytest.mark.parametrize(
    "encoder",
    [
        first_two(),
        nn.Sequential(first_two()),
        nn.Sequential(first_two(), nn.Identity()),
    ],
    ids=["layer", "one layer", "two layers"],
)
def test_a_module_of_ones_own_is_not_widened(encoder):
    map_ = fitted(encoder=encoder)
    places = map_.transform(OLD)
    drift = map_.update(NEW).drift_
    assert drift.n_new_directions == 0
    assert drift.n_unseen > 30
    assert "in what the code leaves out" in str(drift)
    np.testing.assert_allclose(map_.transform(OLD), places, atol=1e-10)
