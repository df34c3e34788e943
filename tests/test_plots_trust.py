"""Colours are percentiles, rings are what lies beyond."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from maps import iris_explanation, with_fields
from ptsne import plots


def test_colours_are_percentiles_and_rings_are_beyond_the_limit():
    why = iris_explanation()
    percentile = np.linspace(0, 100, 150)
    ax = plots.trust(why, percentile, beyond=90)
    dots, rings = ax.collections
    assert_allclose(dots.get_array(), percentile)
    assert_allclose(dots.get_offsets(), why.Y)
    assert_allclose(rings.get_offsets(), why.Y[percentile > 90])
    assert ax.get_title() == f"{(percentile > 90).sum()} of 150 rows beyond percentile 90"
    assert dots.norm.vmin == 0
    assert dots.norm.vmax == 100


def test_percentiles_come_from_the_explanation():
    why = iris_explanation()
    percentile = np.linspace(100, 0, 150)

    class Trusted(type(why)):
        trust = SimpleNamespace(percentile=percentile)

    dots = plots.trust(Trusted(**{n: getattr(why, n) for n in why.__dataclass_fields__}))
    assert_allclose(dots.collections[0].get_array(), percentile[::-1])


@pytest.mark.parametrize(
    ("percentile", "message"),
    [
        ([1, 2], r"each of the 150 rows; got shape \(2,\)"),
        (np.full(150, np.nan), "must be finite"),
        (np.full(150, 101), "between 0 and 100; got 101 to 101"),
    ],
)
def test_what_is_wrong_is_said(percentile, message):
    with pytest.raises(ValueError, match=message):
        plots.trust(iris_explanation(), percentile)


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="two dimensions"):
        plots.trust(with_fields(iris_explanation(), Y=np.zeros((150, 1))), np.zeros(150))
