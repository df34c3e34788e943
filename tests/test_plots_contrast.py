"""Bars and steps are the shares they claim to be."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from numpy.testing import assert_allclose

from maps import iris_explanation
from ptsne import plots
from ptsne.plots.palette import BLUE, GRAY, RED, plain

SHARES = np.array([0.1, -0.3, 0.7, 0.05, 0.45])
TABLE = pd.DataFrame({
    "feature": list("abcd"),
    "share": [0.6, 0.5, -0.3, 0.2],
    "spread": [0.1, 0.2, 0.3, 0.05],
    "low": [0.4, 0.1, -0.9, 0.1],
    "high": [0.8, 0.9, 0.2, 0.3],
    "n_pairs": 30,
})


def widths(ax):
    return [bar.get_width() for bar in ax.patches]


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def numbers(ax):
    return [text.get_text() for text in ax.texts]


def test_bars_are_the_shares_ranked_and_the_rest():
    ax = plots.contrast(SHARES, n_features=3, feature_names=list("vwxyz"))
    assert_allclose(widths(ax), [0.7, 0.45, -0.3, 0.15])
    assert names(ax) == ["x", "z", "w", "other features"]
    assert numbers(ax) == ["+0.70", "+0.45", "−0.30", "+0.15"]
    assert ax.yaxis_inverted()


def test_red_is_towards_blue_is_back_and_gray_is_the_rest():
    ax = plots.contrast(SHARES, n_features=3)
    colors = [bar.get_facecolor() for bar in ax.patches]
    assert colors == [to_rgba(c) for c in (RED, RED, BLUE, GRAY)]


def test_all_features_leave_no_rest():
    assert_allclose(widths(plots.contrast(SHARES)), [0.7, 0.45, -0.3, 0.1, 0.05])


def test_steps_start_where_the_last_ended_and_arrive_at_one():
    bars = plots.waterfall(SHARES, n_features=3).patches
    assert_allclose([bar.get_x() for bar in bars], [0, 0.7, 1.15, 0.85])
    assert_allclose([bar.get_width() for bar in bars], [0.7, 0.45, -0.3, 0.15])
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(1)


@pytest.mark.parametrize("picture", [plots.contrast, plots.waterfall])
def test_two_rows_of_an_explanation(picture):
    why = iris_explanation()
    ax = picture(why, 0, 120)
    shares = why.contrast(0, 120)
    rank = np.argsort(-np.abs(shares))
    assert_allclose(widths(ax), shares[rank])
    first = rank[0]
    a, b = why.X[[0, 120], first]
    assert names(ax)[0] == f"{why.feature_names[first]}\n{a:.3g} → {b:.3g}"
    assert "from row 0 to row 120" in ax.get_xlabel()


def test_whiskers_are_the_spread_and_the_quantiles():
    ax = plots.contrast(TABLE)
    thin, thick = (np.array(lines.get_segments()) for lines in ax.collections)
    assert_allclose(thin[:, :, 0], TABLE[["low", "high"]])
    assert_allclose(thick[:, 0, 0], TABLE["share"] - TABLE["spread"])
    assert_allclose(thick[:, 1, 0], TABLE["share"] + TABLE["spread"])
    assert numbers(ax)[2] == "−0.30 ± 0.30"


def test_a_table_of_shares_alone_has_no_whiskers():
    ax = plots.contrast(TABLE[["feature", "share"]])
    assert_allclose(widths(ax), TABLE["share"])
    assert numbers(ax) == ["+0.60", "+0.50", "−0.30", "+0.20"]
    assert not ax.collections


def test_a_rest_of_our_own_has_no_whisker():
    ax = plots.contrast(TABLE, n_features=2)
    assert_allclose(widths(ax), [0.6, 0.5, -0.1])
    assert (
        len(ax.collections[0].get_segments()[-1]) == 0
        or np.isnan(ax.collections[0].get_segments()[-1]).any()
    )
    assert numbers(ax)[-1] == "−0.10"


def test_the_rest_of_a_table_comes_last_with_its_whisker():
    table = TABLE.replace({"feature": {"a": "other features"}})
    ax = plots.contrast(table, n_features=5)
    assert names(ax) == ["b", "c", "d", "other features"]
    assert numbers(ax)[-1] == "+0.60 ± 0.10"
    assert ax.patches[-1].get_facecolor() == to_rgba(GRAY)


def test_a_table_of_clusters_as_the_explanation_makes_it():
    why = iris_explanation()
    table = why.contrast_clusters(np.repeat(list("abc"), 50), "a", "c", n_pairs=20)
    ax = plots.contrast(table, ends=("a", "c"))
    assert_allclose(widths(ax), table["share"])
    assert ax.get_xlabel() == "share of the way from a to c"


@pytest.mark.parametrize(
    ("value", "written"),
    [(1050.4, "1050"), (-2345.0, "-2345"), (0.12345, "0.123"), (1.5e7, "1.5e+07"), (0, "0")],
)
def test_values_are_written_plainly(value, written):
    assert plain(value) == written


def test_names_that_do_not_fit_are_shortened():
    ax = plots.contrast([1.0], feature_names=["a" * 60])
    assert len(names(ax)[0]) < 30


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0.5, 0.1],), {}, r"sums to 1; got shape \(2,\) with sum 0.6"),
        (([0.5, 0.5],), {"feature_names": ["a"]}, "1 entries but there are 2 shares"),
        ((pd.DataFrame({"share": [1.0]}),), {}, "needs columns feature and share"),
        ((SHARES,), {"n_features": 0}, "at least 1; got 0"),
    ],
)
def test_what_is_wrong_is_said(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        plots.contrast(*arguments, **options)


def test_an_explanation_needs_two_rows():
    with pytest.raises(ValueError, match="needs two rows"):
        plots.waterfall(iris_explanation(), 3)
