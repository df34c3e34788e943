"""Modules of the user's own, from the first row to the last step."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from torch import nn

from ptsne import ParametricTSNE

X = load_iris().data


class Shifty(nn.Linear):
    """Gives more numbers for a row at some calls; `how` says at which."""

    def __init__(self, *widths, how):
        super().__init__(*widths)
        self.how, self.calls = how, 0

    def forward(self, x):
        self.calls += 1
        is_odd = self.training if self.how == "training" else self.calls > self.how
        z = super().forward(x)
        return z.repeat(1, 2) if is_odd else z


@pytest.mark.parametrize("how", ["training", 5, 120])
def test_an_encoder_that_changes_its_shape_is_named(how):
    encoder = Shifty(4, 3, how=how)
    map_ = ParametricTSNE(perplexity=10, max_iter=40, random_state=0, encoder=encoder)
    match = r"encoder Shifty changed its shape during fit: .*\(\d+, 6\) where .*\(\d+, 3\) before"
    with pytest.raises(ValueError, match=match):
        map_.fit(X)
    assert encoder.calls == 0


def test_a_projection_that_changes_its_shape_is_named():
    projection = nn.Sequential(Shifty(4, 2, how="training"))
    map_ = ParametricTSNE(perplexity=10, max_iter=40, random_state=0, projection=projection)
    match = r"projection Sequential changed its shape .*\(\d+, 4\) where .*\(\d+, 2\) before"
    with pytest.raises(ValueError, match=match):
        map_.fit(X)


def test_rows_that_are_blended_in_parts_give_the_same_map(monkeypatch):
    map_ = ParametricTSNE(perplexity=10, max_iter=60, random_state=0)
    whole = map_.fit_transform(X)
    monkeypatch.setattr("ptsne.training.blending.ROWS_BLENDED", 40)
    parts = map_.fit_transform(X)
    assert (parts != whole).any()  # sums in another order
    np.testing.assert_allclose(parts, whole, atol=1e-3 * np.ptp(whole))


def test_nothing_is_left_on_a_trained_module():
    modules = {"encoder": nn.Linear(4, 3), "projection": nn.Linear(3, 2)}
    map_ = ParametricTSNE(perplexity=10, max_iter=20, random_state=0, **modules).fit(X)
    assert not any(module._forward_hooks for module in map_.network_.modules())
