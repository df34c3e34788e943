"""Pictures hold the numbers they claim to show: artists' data are checked, never pixels."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from maps import iris_explanation, iris_map
from ptsne import plots
from ptsne.explanation import Explanation
from ptsne.plots.palette import BLUE, RED, TEN


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def explanation(rng):
    """A made-up explanation of 12 rows with 6 features, exact by construction."""
    weight, intercept = rng.normal(size=(12, 2, 6)), rng.normal(size=(12, 2))
    X = rng.normal(size=(12, 6))
    return Explanation(
        weight=weight,
        intercept=intercept,
        X=X,
        Y=np.einsum("nkd,nd->nk", weight, X) + intercept,
        baseline=np.broadcast_to(X.mean(0), X.shape),
        feature_names=[f"f{k}" for k in range(6)],
        n_active=np.ones(12, dtype=np.int64),
        **{name: None for name in Explanation.__dataclass_fields__ if name.startswith("_")},
    )


class FittedMap:
    """The two things that a picture asks of a fitted map."""

    embedding_ = np.arange(8.0).reshape(4, 2)

    def transform(self, X):
        return np.asarray(X)[:, :2] + 100


def drawn(ax):
    """Points of all collections on the axes, sorted."""
    points = np.vstack([c.get_offsets() for c in ax.collections])
    return points[np.lexsort(points.T)]


def color_of(ax, point):
    """Colour of the dot at a place."""
    (dots,) = ax.collections
    here = np.abs(np.asarray(dots.get_offsets()) - point).max(1) < 1e-12
    return tuple(dots.get_facecolors()[here][0])


# ---------------------------------------------------------------------------------------- map


def test_map_draws_every_point_once(rng):
    Y = rng.normal(size=(50, 2))
    assert_allclose(drawn(plots.map(Y)), Y[np.lexsort(Y.T)])


def test_map_of_a_fitted_map_shows_training_rows_or_the_rows_given():
    assert_allclose(drawn(plots.map(FittedMap())), FittedMap.embedding_)
    assert_allclose(drawn(plots.map(FittedMap(), [[1, 2, 3]])), [[101, 102]])


def test_map_has_equal_scales_and_no_ticks(rng):
    ax = plots.map(rng.normal(size=(9, 2)))
    assert ax.get_aspect() == 1
    assert not len(ax.get_xticks())
    assert not len(ax.get_yticks())


def test_points_have_the_colour_of_their_class(rng):
    Y = rng.normal(size=(30, 2))
    y = np.repeat(["b", "c", "a"], 10)
    ax = plots.map(Y, y=y)
    for place, name in zip(Y, y, strict=True):
        assert color_of(ax, place) == to_rgba(TEN["abc".index(name)])


def test_names_stand_on_their_class_by_default(rng):
    Y = np.vstack([rng.normal(size=(20, 2)), rng.normal(size=(20, 2)) + 50])
    ax = plots.map(Y, y=np.repeat([0, 1], 20), names=["left", "right"])
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert set(places) == {"left", "right"}
    assert np.linalg.norm(places["left"]) < 3
    assert np.linalg.norm(np.subtract(places["right"], 50)) < 3


def test_a_class_in_two_islands_is_named_on_the_larger(rng):
    Y = np.vstack([rng.normal(size=(60, 2)), rng.normal(size=(40, 2)) + 50])
    (text,) = plots.map(Y, y=np.zeros(100, dtype=int)).texts
    assert np.linalg.norm(text.get_position()) < 3


def test_legend_lists_the_classes(rng):
    ax = plots.map(rng.normal(size=(9, 2)), y=list("aabbccabc"), labels="legend")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert not ax.texts


def test_more_than_twenty_classes_go_to_the_legend(rng):
    ax = plots.map(rng.normal(size=(50, 2)), y=np.arange(50) % 25)
    assert len(ax.get_legend().get_texts()) == 25


def test_held_out_rows_are_rings(rng):
    Y = rng.normal(size=(30, 2))
    is_held_out = np.arange(30) < 10
    ax = plots.map(Y, y=np.arange(30) % 3, held_out=is_held_out)
    dots, rings = ax.collections
    assert len(dots.get_offsets()) == 20
    assert len(rings.get_offsets()) == 10
    assert len(rings.get_facecolors()) == 0
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["training rows", "held-out rows"]


def test_all_rows_held_out_need_no_key(rng):
    ax = plots.map(rng.normal(size=(5, 2)), held_out=True)
    assert ax.get_legend() is None
    assert len(ax.collections) == 1


def test_a_quantity_gets_a_colour_bar(rng):
    Y = rng.normal(size=(200, 2))
    ax = plots.map(Y, y=Y[:, 0])
    low, high = color_of(ax, Y[Y[:, 0].argmin()]), color_of(ax, Y[Y[:, 0].argmax()])
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert len(ax.figure.axes) == 2


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_labels_are_gray(rng, missing):
    Y = rng.normal(size=(4, 2))
    ax = plots.map(Y, y=[0.0, 1.0, missing, 1.0])
    r, g, b, _ = color_of(ax, Y[2])
    assert r == g == b
    assert {t.get_text() for t in ax.texts} == {"0", "1"}


def test_points_shrink_as_they_become_many(rng):
    sizes = [
        plots.map(rng.normal(size=(n, 2))).collections[0].get_sizes()[0] for n in (50, 500, 5000)
    ]
    assert sizes[0] > sizes[1] > sizes[2] > 0
    assert plots.map(rng.normal(size=(5, 2)), point_size=7).collections[0].get_sizes() == [7]


def test_a_map_of_one_dimension_is_a_band_per_class(rng):
    Y = rng.normal(size=(20, 1))
    y = np.arange(20) % 2
    ax = plots.map(Y, y=y, names=["even", "odd"])
    points = np.asarray(ax.collections[0].get_offsets())
    assert_allclose(np.sort(points[:, 0]), np.sort(Y[:, 0]))
    band = {float(x): -round(height) for x, height in points}
    assert [band[float(x)] for x in Y[:, 0]] == y.tolist()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["even", "odd"]


def test_a_map_of_three_dimensions_is_drawn_in_space(rng):
    Y = rng.normal(size=(20, 3))
    ax = plots.map(Y, y=np.arange(20) % 2)
    assert ax.name == "3d"
    assert_allclose(np.sort(ax.collections[0]._offsets3d[2]), np.sort(Y[:, 2]))


def test_map_uses_the_axes_it_is_given(rng):
    ax = plots.map(rng.normal(size=(5, 2)))
    assert plots.map(rng.normal(size=(5, 2)), ax=ax) is ax


@pytest.mark.parametrize(
    ("Y", "options", "message"),
    [
        (np.zeros((3, 4)), {}, r"shape \(N, 1\).*got \(3, 4\)"),
        (np.zeros((3, 2)), {"y": [1, 2]}, "one value for each of the 3 points"),
        (np.zeros((3, 2)), {"y": [1, 2, 3], "names": ["a"]}, "1 entries but y has 3 classes"),
    ],
)
def test_map_says_what_is_wrong(Y, options, message):
    with pytest.raises(ValueError, match=message):
        plots.map(Y, **options)


def test_names_can_be_a_mapping(rng):
    ax = plots.map(rng.normal(size=(6, 2)), y=[3, 3, 3, 7, 7, 7], names={3: "three"})
    assert {t.get_text() for t in ax.texts} == {"three", "7"}


# ----------------------------------------------------------------------------- training curve


HISTORY = [
    {"phase": "pre-training", "loss": 0.5, "kl": float("nan"), "seconds": 1.0},
    {"phase": "places", "loss": 9.0, "kl": 3.0, "seconds": 2.0},
    {"phase": "places", "loss": 7.0, "kl": 2.0, "seconds": 3.0},
    {"phase": "fine-tuning", "loss": 2.0, "kl": 1.5, "seconds": 4.5},
]


def test_training_curve_shows_the_kl_of_each_phase():
    ax = plots.training_curve(HISTORY)
    curves = {line.get_label(): line.get_xydata() for line in ax.lines}
    assert_allclose(curves["places"], [[2, 3], [3, 2]])
    assert_allclose(curves["fine-tuning"], [[4.5, 1.5]])
    assert "pre-training" not in curves
    captions = " ".join(text.get_text() for text in ax.texts)
    assert "loss 0.5" in captions
    assert "KL 1.500" in captions


def test_training_curve_needs_records():
    with pytest.raises(ValueError, match="history has no records"):
        plots.training_curve([])


# ------------------------------------------------------------------------------ contributions


def lengths_of(explanation, i):
    """Slow twin: length of each feature's displacement along the whole way."""
    moves = explanation.contributions[i].T
    way = sum(moves)
    return [float(move @ way) / float(np.sqrt(way @ way)) for move in moves]


def test_bars_sum_to_the_way_of_the_point(explanation):
    ax = plots.contributions(explanation, 3, n_features=4, method="local")
    widths = [bar.get_width() for bar in ax.patches]
    moved = explanation.Y[3] - explanation.offset[3]
    assert len(widths) == 5
    assert_allclose(sum(widths), np.linalg.norm(moved))


@pytest.mark.parametrize("method", ["path", "paired"])
def test_bars_are_the_way_from_the_place_of_the_baseline(method):
    why = iris_explanation()
    ax = plots.contributions(why, 120, method=method)
    way = why.Y[120] - iris_map().network_(torch.from_numpy(why.baseline[:1].copy()))[0].numpy()
    assert_allclose(sum(bar.get_width() for bar in ax.patches), np.linalg.norm(way))
    parts = why.displacement([120], method=method)[0].T @ way / np.linalg.norm(way)
    assert_allclose(sorted(bar.get_width() for bar in ax.patches), sorted(parts))


def test_bars_are_ranked_named_and_coloured(explanation):
    ax = plots.contributions(explanation, 3, n_features=4, method="local")
    lengths = lengths_of(explanation, 3)
    rank = sorted(range(6), key=lambda f: -abs(lengths[f]))[:4]
    for bar, label, f in zip(ax.patches, ax.get_yticklabels(), rank, strict=False):
        assert_allclose(bar.get_width(), lengths[f])
        assert bar.get_facecolor() == to_rgba(RED if lengths[f] > 0 else BLUE)
        assert label.get_text() == f"f{f} = {explanation.X[3, f]:.3g}"
    assert ax.get_yticklabels()[-1].get_text() == "the 2 others together"
    assert ax.yaxis_inverted()


def test_all_features_need_no_bar_of_others(explanation):
    assert len(plots.contributions(explanation, 0, n_features=6, method="local").patches) == 6


def test_bars_do_not_change_when_the_map_is_turned(explanation):
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = Explanation(**{
        **{f: getattr(explanation, f) for f in explanation.__dataclass_fields__},
        "weight": turn @ explanation.weight,
    })
    before, after = (
        [bar.get_width() for bar in plots.contributions(e, 5, method="local").patches]
        for e in (explanation, turned)
    )
    assert_allclose(before, after)


def test_a_point_at_the_baseline_has_no_bars(explanation):
    still = Explanation(**{
        **{f: getattr(explanation, f) for f in explanation.__dataclass_fields__},
        "baseline": explanation.X,
    })
    assert all(
        bar.get_width() == 0 for bar in plots.contributions(still, 5, method="local").patches
    )


def square_areas(squares):
    corners = np.array([path.vertices[:4] for path in squares.get_paths()])
    return np.ptp(corners, axis=1).prod(1)


def test_squares_on_a_picture_have_the_area_of_the_contribution(explanation):
    ax = plots.contributions(explanation, 2, image_shape=(2, 3), method="local")
    (squares,) = ax.collections
    lengths = np.array(lengths_of(explanation, 2))
    assert_allclose(squares.get_array(), lengths)
    assert_allclose(square_areas(squares), np.abs(lengths) / np.abs(lengths).max(), atol=1e-12)
    squares.update_scalarmappable()
    expected = [to_rgba(RED if value > 0 else BLUE) for value in lengths]
    assert_allclose(squares.get_facecolors(), expected)
    assert_allclose(ax.images[0].get_array(), explanation.X[2].reshape(2, 3))


def test_channels_of_a_picture_are_summed(explanation):
    (squares,) = plots.contributions(
        explanation, 2, image_shape=(1, 2, 3), method="local"
    ).collections
    assert_allclose(squares.get_array(), np.reshape(lengths_of(explanation, 2), (2, 3)).sum(1))


def test_a_wrong_image_shape_is_refused(explanation):
    with pytest.raises(ValueError, match=r"image_shape \(2, 2\) does not fit a row of 6"):
        plots.contributions(explanation, 0, image_shape=(2, 2), method="local")


def test_grid_joins_points_and_pictures_by_letter(explanation):
    ax = plots.contribution_grid(
        explanation, [4, 7, 1, 9], (2, 3), y=np.arange(12) % 2, method="local"
    )
    *panels, map_ax = sorted(ax.child_axes, key=lambda child: len(child.images) == 0)
    assert len(panels) == 4
    marks = {t.get_text(): t.get_position() for t in map_ax.texts if t.get_bbox_patch()}
    assert len(marks) == 4
    for letter, i, panel in zip("ABCD", [4, 7, 1, 9], panels, strict=True):
        assert_allclose(marks[letter], explanation.Y[i])
        assert panel.texts[0].get_text() == letter
        assert_allclose(panel.images[0].get_array(), explanation.X[i].reshape(2, 3))


def test_grid_has_letters_for_any_number_of_pictures(explanation):
    ax = plots.contribution_grid(explanation, [0] * 28, (2, 3), n_columns=7, method="local")
    letters = [panel.texts[0].get_text() for panel in ax.child_axes if panel.images]
    assert letters[:2] + letters[-3:] == ["A", "B", "Z", "AA", "AB"]


def test_grid_takes_an_area_of_ones_own(explanation):
    figure = Figure()
    given = figure.subplots(1, 2)[1]
    ax = plots.contribution_grid(explanation, [4, 7], (2, 3), method="local", ax=given)
    assert ax is given
    assert len(ax.child_axes) == 3
    assert {child.figure for child in ax.child_axes} == {figure}


def test_grid_frames_have_the_colour_of_the_class(explanation):
    y = np.arange(12) % 2
    ax = plots.contribution_grid(explanation, [4, 7], (2, 3), y=y, method="local")
    panels = [panel for panel in ax.child_axes if panel.images]
    assert [panel.spines["left"].get_edgecolor() for panel in panels] == [
        to_rgba(TEN[0]),
        to_rgba(TEN[1]),
    ]


def test_names_step_aside_for_marks(explanation):
    y = np.arange(12)
    ax = plots.contribution_grid(explanation, [4, 7], (2, 3), y=y, method="local")
    (map_ax,) = (child for child in ax.child_axes if not child.images)
    names = {t.get_text(): t.get_position() for t in map_ax.texts if not t.get_bbox_patch()}
    extent = np.ptp(map_ax.viewLim.get_points(), axis=0).max()
    for i, place in enumerate(explanation.Y):
        to_marks = np.linalg.norm(explanation.Y[[4, 7]] - place, axis=1).min()
        away = np.linalg.norm(names[str(i)] - place)
        assert away < 1e-9 if to_marks > 0.07 * extent else away > 0
        assert np.linalg.norm(explanation.Y[[4, 7]] - names[str(i)], axis=1).min() > 0.05 * extent
