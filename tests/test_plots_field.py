"""Arrows are averages of W's columns over cells."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from maps import iris_explanation, with_fields
from ptsne import plots
from ptsne.plots.cells import honeycomb


def arrows(ax):
    """Places (C, 2) and pushes (C, 2) of the arrows of a panel."""
    quiver = next(c for c in ax.collections if hasattr(c, "U"))
    return np.column_stack([quiver.X, quiver.Y]), np.column_stack([quiver.U, quiver.V])


def test_cells_are_the_nearest_of_a_honeycomb():
    Y = np.random.default_rng(0).normal(size=(300, 2))
    cells = honeycomb(Y, 6)
    width = np.ptp(Y, axis=0).max() / 6
    corners = np.array([
        (2 * i + k, np.sqrt(3) * (2 * j + k))
        for i in range(-1, 8)
        for j in range(-1, 6)
        for k in (0, 1)
    ])
    lattice = Y.min(0) + corners * width / 2
    nearest = np.linalg.norm(Y[:, None] - lattice, axis=2).argmin(1)
    assert len(np.unique(nearest)) == len(cells.size)
    assert len({*zip(nearest, cells.cell, strict=True)}) == len(cells.size)
    assert cells.width == pytest.approx(width)
    assert_allclose(cells.place[cells.cell[0]], Y[cells.cell == cells.cell[0]].mean(0))
    assert cells.size.sum() == 300


def test_arrows_are_the_mean_column_of_w_times_the_standard_deviation():
    why = iris_explanation()
    (panel,) = plots.feature_field(why, "petal length (cm)", min_rows=2)
    rows = why.n_active <= 1
    cell = honeycomb(why.Y[rows], 7).cell
    expected = {}
    for c in np.unique(cell):
        inside = np.flatnonzero(rows)[cell == c]
        if len(inside) >= 2:
            push = sum(why.weight[i][:, 2] for i in inside) / len(inside) * np.std(why.X[:, 2])
            expected[tuple(why.Y[inside].mean(0).round(6))] = push
    places, pushes = arrows(panel)
    assert len(places) == len(expected)
    for place, push in zip(places, pushes, strict=True):
        assert_allclose(push, expected[tuple(place.round(6))])


def test_rows_between_charts_have_no_say():
    why = iris_explanation()
    n_active = np.where(np.arange(150) < 50, 2, 1)
    wild = np.where((n_active > 1)[:, None, None], 1e6, why.weight)
    panel = plots.feature_field(with_fields(why, n_active=n_active, weight=wild), 0)[0]
    calm = with_fields(why, n_active=n_active)
    assert_allclose(arrows(panel)[1], arrows(plots.feature_field(calm, 0)[0])[1])


def test_pale_arrows_and_wide_fans_where_rows_disagree():
    why = iris_explanation()
    turned = np.where((np.arange(150) % 2 == 0)[:, None, None], why.weight, -why.weight)
    one = with_fields(why, weight=np.ones_like(turned))
    agree = plots.feature_field(one, 2)[0].collections
    quiver = next(c for c in agree if hasattr(c, "U"))
    assert_allclose(quiver.get_alpha(), 1)
    disagree = plots.feature_field(with_fields(why, weight=turned), 2)[0].collections
    assert next(c for c in disagree if hasattr(c, "U")).get_alpha().min() < 0.6


def test_the_strongest_features_are_drawn_by_default():
    why = iris_explanation()
    panels = plots.feature_field(why)
    size = (np.linalg.norm(why.weight, axis=1) * why.X.std(0))[why.n_active <= 1].mean(0)
    order = np.argsort(-size)
    assert [panel.get_title() for panel in panels] == [why.feature_names[f] for f in order]


def test_all_panels_have_one_scale_and_one_frame():
    panels = plots.feature_field(iris_explanation(), [0, 1, 2])
    scales = {next(c for c in panel.collections if hasattr(c, "U")).scale for panel in panels}
    assert len(scales) == 1
    assert len({panel.get_xlim() for panel in panels}) == 1
    assert len(panels) == 3
    assert len(panels[0].figure.axes) == 3
    assert all("map units per s.d." in panel.texts[0].get_text() for panel in panels)
    assert panels[2].get_xlabel() == "points: pale low, orange high\nfan: how far the rows differ"


def test_the_key_is_as_long_as_it_says():
    (panel,) = plots.feature_field(iris_explanation(), 1)
    key = [c for c in panel.collections if hasattr(c, "U")][1]
    assert float(panel.texts[0].get_text().split()[0]) == pytest.approx(float(key.U[0]))


def test_the_area_of_an_ax_is_shared_by_the_panels():
    figure, (left, right) = plt.subplots(1, 2)
    panels = plots.feature_field(iris_explanation(), [0, 1], ax=left)
    assert all(panel.figure is figure for panel in panels)
    assert not left.axison
    assert right.axison


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "petal"}, "unknown feature 'petal'; the 4 features are sepal length"),
        ({"features": 9}, "unknown feature 9"),
        ({"features": []}, "features is empty"),
        ({"min_rows": 500}, "no cell of the map holds 500 rows"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        plots.feature_field(iris_explanation(), **options)


def test_a_map_of_three_dimensions_is_refused():
    why = iris_explanation()
    with pytest.raises(ValueError, match="two dimensions"):
        plots.feature_field(with_fields(why, Y=np.zeros((150, 3))))


def test_an_ax_outside_a_grid_is_refused():
    ax = plt.figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match="stands in a grid"):
        plots.feature_field(iris_explanation(), ax=ax)
