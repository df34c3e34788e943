"""Which way each feature pushes the points: a biplot for a map that is not one straight plane."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Wedge
from numpy.typing import NDArray

from ptsne.explanation import Explanation
from ptsne.plots.cells import honeycomb
from ptsne.plots.palette import BLUE, COLUMN, INK, SMALL, TITLE, paper_panels, shortened
from ptsne.plots.places import dot_size, map_height, require_plane
from ptsne.plots.scatter import bare

Array = NDArray[np.float64]

_VALUE = LinearSegmentedColormap.from_list("value", ["#E9E9E9", "#F3C58B", "#D98324"])


_ARROW: dict[str, Any] = {
    "angles": "xy",
    "scale_units": "xy",
    "width": 0.01,
    "headwidth": 3.6,
    "headlength": 4,
    "headaxislength": 3.6,
    "minlength": 0,
}


class _Arrows(NamedTuple):
    """One arrow for each cell (C)."""

    place: Array  # (C, 2)
    push: Array  # (C, 2), map units per standard deviation
    agreement: Array  # (C,), length of the mean push over the mean length, 0 to 1


def feature_field(
    why: Explanation,
    features: str | int | Sequence[str | int] | None = None,
    *,
    n_across: int = 7,
    min_rows: int = 3,
    n_columns: int = 2,
    ax: Axes | None = None,
) -> NDArray[np.object_]:
    r"""Draw where a larger value of a feature would push the points, all over the map.

    An arrow is the mean over a cell of the map of :math:`W_f \sigma_f`: W's column of the feature
    times its standard deviation over the rows, in map units per standard deviation. The fan behind
    it is one circular standard deviation of the rows' own arrows to each side, and an arrow is
    the paler, the less they agree. Points are coloured by the feature's value.

    What to read: long dark arrows that point from pale to orange points say that the feature
    arranges this part of the map; arrows that turn from one island to the next, that it does
    different work there; pale arrows with wide fans, that there is no common direction. Rows on the
    boundary between charts have the slope of a ramp as W: they are drawn, but have no say.

    Parameters
    ----------
    why : Explanation
        From ``map_.explain(X)`` of a map of two dimensions.
    features : str, int or sequence of them, optional
        Names or columns; the four with the longest mean arrows by default.
    n_across : int
        Cells along the longer side of the map.
    min_rows : int
        Cells with fewer rows have no arrow.
    n_columns : int
        Panels side by side.
    ax : matplotlib Axes, optional
        Area to draw in, one of ``plt.subplots()``; a new figure as wide as a column by default.

    Returns
    -------
    ndarray of matplotlib Axes, shape (number of features,)
        One panel for each feature; all arrows have one scale, which the key below states.

    Notes
    -----
    `ValueError` if the map does not have two dimensions, a feature is unknown, or no cell has rows
    enough.

    References
    ----------
    Gabriel 1971, The biplot graphic display of matrices (the linear case).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE, plots
    >>> iris = load_iris(as_frame=True).data
    >>> why = ParametricTSNE(max_iter=60, random_state=0).fit(iris).explain(iris)
    >>> panels = plots.feature_field(why, ["petal length (cm)", "sepal width (cm)"])
    >>> panels[0].get_title()
    'petal length (cm)'
    """
    require_plane(why.Y)
    columns = _columns(why, features)
    fields = [_arrows(why, f, n_across, min_rows) for f in columns]
    unit = _unit(fields, float(np.ptp(why.Y, axis=0).max()) / n_across)
    tips = [arrows.place + arrows.push / unit for arrows in fields]
    corners = _corners(np.vstack([np.asarray(why.Y, np.float64), *tips]))
    panels = _panels(ax, len(columns), n_columns, corners)
    for panel, f, arrows in zip(panels, columns, fields, strict=True):
        _panel(panel, why, f, arrows, unit)
        _key(panel, corners, unit)
    words = ["points: pale low, orange high", "fan: how far the rows differ"]
    n_columns = min(n_columns, len(panels))
    bottom = panels[(len(panels) - 1) // n_columns * n_columns :]
    for panel, text in zip(bottom, words if len(bottom) > 1 else ["\n".join(words)], strict=False):
        panel.set_xlabel(text, fontsize=SMALL - 0.5, labelpad=2)
    return panels


def _panels(ax: Axes | None, n: int, n_columns: int, corners: Array) -> NDArray[np.object_]:
    """One panel for each of n features."""
    n_columns = min(n_columns, n)
    n_rows = -(-n // n_columns)
    height = n_rows * (map_height(corners, COLUMN / n_columns) + 0.25)
    grid = paper_panels(ax, (n_rows, n_columns), (COLUMN, height)).ravel()
    for empty in grid[n:]:
        empty.remove()
    return np.asarray(grid[:n])


def _corners(points: Array) -> Array:
    """Lower left and upper right corner (2, 2) of what is drawn, with room for the key below."""
    low, high = points.min(0), points.max(0)
    margin = 0.03 * float((high - low).max())
    return np.array([low - margin - [0, 3 * margin], high + margin])


def _columns(why: Explanation, features: Any) -> list[int]:
    """Column numbers of the features asked for."""
    if features is None:
        sizes = (np.linalg.norm(why.weight, axis=1) * why.X.std(0))[_has_say(why)].mean(0)
        return [int(f) for f in np.argsort(-sizes, kind="stable")[:4]]
    if isinstance(features, (str, int, np.integer)):
        features = [features]
    if not len(features):
        raise ValueError("features is empty: name at least one, or pass None for the strongest")
    return [_column(why, feature) for feature in features]


def _column(why: Explanation, feature: Any) -> int:
    names = why.feature_names
    if isinstance(feature, (int, np.integer)) and -len(names) <= feature < len(names):
        return int(feature) % len(names)
    if feature in names:
        return names.index(feature)
    some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise ValueError(f"unknown feature {feature!r}; the {len(names)} features are {some}")


def _has_say(why: Explanation) -> NDArray[np.bool_]:
    """Rows on one chart, or all where none is."""
    on_chart = why.n_active <= 1
    return on_chart if on_chart.any() else ~on_chart


def _arrows(why: Explanation, f: int, n_across: int, min_rows: int) -> _Arrows:
    """Mean push of a feature over each cell with rows enough."""
    push = (why.weight[:, :, f] * why.X[:, f].std())[_has_say(why)]
    cells = honeycomb(np.asarray(why.Y[_has_say(why)], np.float64), n_across)
    mean, length = cells.mean(push), cells.mean(np.linalg.norm(push, axis=1))
    agreement = np.divide(
        np.linalg.norm(mean, axis=1), length, out=np.zeros_like(length), where=length > 0
    )
    kept = cells.size >= min_rows
    if not kept.any():
        raise ValueError(
            f"no cell of the map holds {min_rows} rows; lower min_rows or n_across, or explain "
            "more rows"
        )
    return _Arrows(cells.place[kept], mean[kept], agreement[kept].clip(0, 1))  # rounding


def _unit(fields: list[_Arrows], width: float) -> float:
    """Map units per standard deviation for each map unit of an arrow's length as drawn."""
    lengths = np.concatenate([np.linalg.norm(arrows.push, axis=1) for arrows in fields])
    longest = max(float(np.quantile(lengths, 0.95)) / 1.2, float(lengths.max()) / 2) or width
    power = 10.0 ** np.floor(np.log10(longest))
    rounded = min((1, 2, 5, 10), key=lambda step: abs(np.log(step * power / longest)))
    return float(rounded * power / width)


def _panel(ax: Axes, why: Explanation, f: int, arrows: _Arrows, unit: float) -> None:
    """Points by value, fans, arrows and the key of one feature; `unit` per map unit drawn."""
    bare(ax, n_components=2)
    ax.set_title(shortened(why.feature_names[f], 24), pad=2, fontsize=TITLE)
    values = why.X[:, f]
    low, high = np.quantile(values, [0.02, 0.98])
    colors = _VALUE(Normalize(low, high if high > low else low + 1, clip=True)(values))
    ax.scatter(
        why.Y[:, 0],
        why.Y[:, 1],
        s=0.5 * dot_size(len(values)),
        c=colors,
        linewidths=0,
        rasterized=len(values) > 5e3,
    )
    ax.add_collection(_fans(arrows, unit))
    ax.quiver(
        *arrows.place.T,
        *arrows.push.T,
        scale=unit,
        color=INK,
        alpha=0.15 + 0.85 * arrows.agreement,
        **_ARROW,
    )


def _key(ax: Axes, corners: Array, unit: float) -> None:
    """Equal limits for all panels, and an arrow of known length in the lower left corner."""
    (x, low), (right, high) = corners
    ax.set(xlim=(x, right), ylim=(low, high))
    ax.set_aspect("equal", adjustable="box")
    extent = max(right - x, high - low)
    length = float(f"{unit * extent / 7:.0e}")  # one digit
    start, y = x + 0.02 * extent, low + 0.02 * extent
    ax.quiver([start], [y], [length], [0], scale=unit, color=INK, **_ARROW)
    words = f"{length:g} map units per s.d."
    place = start + length / unit + 0.03 * extent
    ax.text(place, y, words, fontsize=SMALL - 0.5, va="center", color=INK)


def _fans(arrows: _Arrows, unit: float) -> PatchCollection:
    """Wedges of one circular standard deviation to each side of every arrow."""
    angle = np.degrees(np.arctan2(arrows.push[:, 1], arrows.push[:, 0]))
    radius = np.linalg.norm(arrows.push, axis=1) / unit
    certain = np.clip(arrows.agreement, 1e-6, 1)
    half = np.minimum(np.degrees(np.sqrt(-2 * np.log(certain))), 180)
    wedges = [
        Wedge((float(x), float(y)), float(r), float(a - h), float(a + h))
        for (x, y), r, a, h in zip(arrows.place, radius, angle, half, strict=True)
    ]
    return PatchCollection(wedges, facecolor=BLUE, alpha=0.22, linewidths=0)
