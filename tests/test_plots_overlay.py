"""Squares on a picture are the numbers of its pixels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from maps import iris_explanation
from ptsne import plots


def test_without_a_start_the_squares_are_lengths_of_the_whole_way():
    why = iris_explanation()
    ax = plots.overlay(why, 3, (2, 2))
    moved = np.linalg.norm(why.displacement([3]).sum(2))
    assert ax.collections[0].get_array().sum() == pytest.approx(moved)
    assert ax.get_xlabel().startswith(f"sum {moved:.3g} map units")
    assert_allclose(ax.images[0].get_array(), why.X[3].reshape(2, 2))


def test_with_a_start_they_are_shares():
    why = iris_explanation()
    ax = plots.overlay(why, 120, (2, 2), start=0)
    assert_allclose(ax.collections[0].get_array(), why.contrast(0, 120))
    assert ax.get_xlabel().startswith("sum 1 of the way")


def test_numbers_of_ones_own_and_their_extent():
    ax = plots.overlay(iris_explanation(), 0, (2, 2), values=[1, -2, 0.5, 0])
    assert_allclose(ax.collections[0].get_array(), [1, -2, 0.5, 0])
    assert ax.get_xlabel() == "sum −0.5\npixels −2 to +1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"\(28, 28\) does not fit a row of 4"),
        ({"shape": (2, 2), "values": [1, 2]}, r"each of the 4 features; got shape \(2,\)"),
        ({"shape": (2, 2), "values": [1, 2, 3, 4], "start": 1}, "not both"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        plots.overlay(iris_explanation(), 0, **options)
