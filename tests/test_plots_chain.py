"""Ribbons carry what the two stages of the map say, and everything sums up."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.patches import PathPatch, Rectangle
from numpy.testing import assert_allclose

from maps import iris_explanation
from ptsne import plots


def slow_flow(why, i):
    """T[f, l] by loops."""
    d = why.contributions[i].sum(1)
    unit = d / np.linalg.norm(d)
    E, P = why.encoder.weight[i], why.projection.weight[i]
    step = why.X[i] - why.baseline[i]
    return np.array([
        [float(unit @ P[:, k]) * E[k, f] * step[f] for k in range(len(E))] for f in range(len(step))
    ])


def ribbons(ax):
    """Signed height of each ribbon at its start, in drawing order: red is plus."""
    patches = [p for p in ax.patches if isinstance(p, PathPatch)]
    heights = [p.get_path().vertices[-2, 1] - p.get_path().vertices[0, 1] for p in patches]
    signs = [1 if p.get_facecolor()[0] > p.get_facecolor()[2] else -1 for p in patches]
    return np.array(heights) * signs


def test_ribbons_are_in_proportion_to_the_parts():
    why = iris_explanation()
    ax = plots.chain(why, 7, n_features=4, n_coordinates=4)
    T = slow_flow(why, 7)
    T = T[np.argsort(-np.abs(T.sum(1)))][:, np.argsort(-np.abs(T.sum(0)))]
    drawn = ribbons(ax)
    first, second = drawn[:16], drawn[16:]
    scale = first[np.abs(T.ravel()).argmax()] / T.ravel()[np.abs(T.ravel()).argmax()]
    assert_allclose(first, scale * T.ravel(), atol=1e-12)
    assert_allclose(second, scale * T.sum(0), atol=1e-12)


def test_sums_are_written_and_the_last_is_the_whole_way():
    why = iris_explanation()
    T = slow_flow(why, 7)
    ax = plots.chain(why, 7)
    moved = np.linalg.norm(why.Y[7] - why.offset[7])
    words = [text.get_text() for text in ax.texts]
    assert words[-1] == f"{moved:.3g}\nmap units"
    assert T.sum() == pytest.approx(moved)
    top = np.abs(T.sum(1)).argmax()
    assert words[0] == f"{why.feature_names[top]} {T.sum(1)[top]:+.2f}".replace("-", "−")


def test_the_others_are_summed():
    why = iris_explanation()
    T = slow_flow(why, 7)
    ax = plots.chain(why, 7, n_features=2, n_coordinates=1)
    order = np.argsort(-np.abs(T.sum(1)))
    words = [text.get_text() for text in ax.texts]
    assert words[2].startswith("2 others")
    assert "3 other z" in words[4]
    kept = np.argmax(np.abs(T.sum(0)))
    rest = T[order[2:]].sum(0)
    expected = [rest[kept], rest.sum() - rest[kept]]
    drawn = ribbons(ax)[4:6]
    assert_allclose(drawn[0] / drawn[1], expected[0] / expected[1])


def test_nodes_do_not_overlap():
    ax = plots.chain(iris_explanation(), 3)
    nodes = [p for p in ax.patches if isinstance(p, Rectangle)]
    for x in {node.get_x() for node in nodes}:
        column = sorted((n.get_y(), n.get_y() + n.get_height()) for n in nodes if n.get_x() == x)
        assert all(above[1] <= below[0] for above, below in pairwise(column))
        assert column[0][0] >= -1e-9
        assert column[-1][1] <= 1 + 1e-9


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match="there is no row 150; this explanation has 150 rows"):
        plots.chain(iris_explanation(), 150)
