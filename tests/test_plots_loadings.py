"""Squares have the colour of the share and the area of its certainty."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from maps import iris_explanation
from ptsne import plots

TABLE = pd.DataFrame({
    "cluster": ["a"] * 3 + ["b"] * 3,
    "feature": ["x", "y", "z"] * 2,
    "share": [0.8, 0.1, 0.1, -0.2, 0.9, 0.3],
    "spread": [0.2, 0.1, 0.3, 0.0, 0.9, 0.3],
})


def squares(ax):
    """Feature by cluster: area, and value."""
    (collection,) = ax.collections
    corners = np.array([path.vertices[:4] for path in collection.get_paths()])
    shape = len(ax.get_yticks()), len(ax.get_xticks())
    return np.ptp(corners, axis=1).prod(1).reshape(shape), collection.get_array().reshape(shape)


def labels(ax):
    return [[t.get_text() for t in axis] for axis in (ax.get_yticklabels(), ax.get_xticklabels())]


def test_each_square_is_one_line_of_the_table():
    ax = plots.loadings(TABLE, numbers=False)
    features, clusters = labels(ax)
    area, value = squares(ax)
    assert clusters == ["a", "b"]
    for line in TABLE.itertuples():
        f, c = features.index(line.feature), clusters.index(line.cluster)
        assert value[f, c] == line.share
        size = abs(line.share)
        assert area[f, c] == pytest.approx(size / (size + line.spread))


def test_features_stand_beside_the_cluster_they_hold():
    assert labels(plots.loadings(TABLE))[0] == ["x", "y", "z"]
    assert labels(plots.loadings(TABLE, n_features=2))[0] == ["x", "y"]


def test_clusters_can_be_chosen_and_ordered():
    ax = plots.loadings(TABLE, clusters=["b", "a"])
    assert labels(ax)[1] == ["b", "a"]
    assert_allclose(squares(ax)[1][labels(ax)[0].index("x")], [-0.2, 0.8])


def test_numbers_are_written_where_there_is_room():
    written = {text.get_text() for text in plots.loadings(TABLE).texts}
    assert "+0.80\n±0.20" in written
    assert "−0.20\n±0.00" in written
    many = pd.concat([TABLE.assign(cluster=TABLE["cluster"] + str(k)) for k in range(3)])
    assert not plots.loadings(many).texts
    assert len(plots.loadings(many, numbers=True).texts) == 18


def test_a_cell_without_a_line_stays_empty():
    ax = plots.loadings(TABLE.drop(index=5))
    area, _ = squares(ax)
    assert area[labels(ax)[0].index("z"), 1] == 0
    assert len(ax.texts) == 5


def test_the_others_are_last_gray_and_do_not_set_the_scale():
    table = TABLE.replace({"feature": {"y": "other features"}})
    ax = plots.loadings(table, numbers=False)
    assert labels(ax)[0] == ["x", "z", "other features"]
    _, value = squares(ax)
    assert value.mask[2].all()
    assert ax.collections[0].norm.vmax == 0.8


def test_a_table_as_the_explanation_makes_it():
    table = iris_explanation().loadings(np.repeat(list("abc"), 50), n_rows=10)
    ax = plots.loadings(table)
    assert len(ax.texts) == len(table) == 12
    assert_allclose(np.sort(squares(ax)[1].ravel()), np.sort(table["share"]))


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (TABLE.drop(columns="spread"), {}, r"lacks \['spread'\]"),
        (TABLE, {"clusters": ["a", "q"]}, r"\['q'\] are not in the table"),
        (pd.concat([TABLE, TABLE]), {}, "twice"),
    ],
)
def test_what_is_wrong_is_said(table, options, message):
    with pytest.raises(ValueError, match=message):
        plots.loadings(table, **options)
