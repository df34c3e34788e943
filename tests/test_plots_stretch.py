"""Colours are singular values of W, ellipses are images of a ball."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from maps import iris_explanation, with_fields
from ptsne import plots


def stretched(weight):
    """An explanation of as many rows, in a few heaps."""
    why = iris_explanation()
    return with_fields(why, weight=np.broadcast_to(weight, why.weight.shape).copy())


def test_points_are_coloured_by_the_first_singular_value():
    why = iris_explanation()
    dots = plots.local_stretch(why).collections[0]
    first = [np.linalg.norm(W, 2) for W in why.weight]
    expected = np.log2(np.array(first) / np.median(first))
    assert_allclose(np.sort(dots.get_array()), np.sort(expected))
    place = np.asarray(dots.get_offsets())[np.argmax(dots.get_array())]
    assert_allclose(place, why.Y[np.argmax(expected)])


def test_ellipses_have_the_shape_and_direction_of_w():
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    W = turn @ np.diag([4.0, 1.0]) @ np.eye(2, 4)
    ellipses = plots.local_stretch(stretched(W)).collections[1]
    assert_allclose(ellipses.get_heights() / ellipses.get_widths(), 0.25)
    assert_allclose(np.sin(2 * np.radians(ellipses.get_angles())), np.sin(1.0))


def test_a_map_of_one_direction_makes_lines_and_no_map_makes_nothing():
    line = np.zeros((2, 4))
    line[0] = 1
    ellipses = plots.local_stretch(stretched(line)).collections[1]
    assert_allclose(ellipses.get_heights(), 0, atol=1e-6)
    nothing = plots.local_stretch(stretched(np.zeros((2, 4))))
    assert_allclose(nothing.collections[1].get_widths(), 0)


def test_stretch_does_not_depend_on_the_unit_of_the_map():
    why = iris_explanation()
    twice = with_fields(why, weight=2 * why.weight)
    one, other = (plots.local_stretch(e).collections[0].get_array() for e in (why, twice))
    assert_allclose(one, other)


def test_the_bar_counts_in_factors_of_two():
    ax = plots.local_stretch(iris_explanation())
    bar = next(other for other in ax.figure.axes if other is not ax)
    labels = [text.get_text() for text in bar.get_xticklabels()]
    assert {"×1/2", "×1", "×2"} <= set(labels)


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="n_components=2"):
        plots.local_stretch(with_fields(iris_explanation(), Y=np.zeros((150, 1))))
