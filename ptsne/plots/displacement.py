"""What moves a point: the displacement that each feature adds, as bars or on the picture."""

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from ptsne.explanation import Explanation
from ptsne.plots.lengths import displacements, signed_lengths
from ptsne.plots.overlay import draw_overlay
from ptsne.plots.palette import BLUE, GRAY, INK, RED, new_axes, plain
from ptsne.plots.scatter import Names, map, row_colors

_CAPTION = 0.05  # share of the height of a grid


def contributions(
    explanation: Explanation,
    i: int,
    *,
    n_features: int = 10,
    image_shape: tuple[int, ...] | None = None,
    method: str = "path",
    ax: Axes | None = None,
) -> Axes:
    r"""Draw what moves one point from the baseline's place to where it stands.

    A feature adds the displacement :math:`d_f` of ``explanation.displacement()``, and the picture
    shows its signed length along the whole way :math:`d = \sum_f d_f`, that is
    :math:`d_f \cdot d / |d|`: these numbers sum to :math:`|d|` and do not change when the map is
    turned, mirrored or shifted.

    Parameters
    ----------
    explanation : Explanation
        From ``map_.explain(X)``.
    i : int
        Row of the explanation.
    n_features : int
        Number of bars; the rest is summed in one more bar.
    image_shape : tuple of int, optional
        (height, width) or (height, width, channels) when the row is a picture: then every pixel
        carries a square whose area is the size of its signed length, summed over the channels.
    method : {"path", "paired", "local"}, default="path"
        How the way is attributed: as in ``explanation.displacement``; "local" draws
        ``explanation.contributions``, whose way begins where the local map puts the baseline.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        Axes with bars, the largest on top, or with the picture.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import ptsne
    >>> X, y = load_digits(return_X_y=True)
    >>> map_ = ptsne.ParametricTSNE(max_iter=30, random_state=0).fit(X[:200])
    >>> ax = ptsne.plots.contributions(map_.explain(X[200:210]), 0, image_shape=(8, 8))
    """
    lengths = signed_lengths(displacements(explanation, i, method))
    if image_shape is not None:
        ax = new_axes((3.6, 3.6)) if ax is None else ax
        draw_overlay(ax, explanation.X[i], lengths, image_shape)
        return ax
    rank = np.argsort(-np.abs(lengths), kind="stable")[:n_features]
    ax = new_axes((6.4, 1.0 + 0.34 * (len(rank) + 1))) if ax is None else ax
    named = [f"{explanation.feature_names[f]} = {plain(explanation.X[i, f])}" for f in rank]
    _bars(ax, lengths, rank, named)
    ax.set_xlabel(f"displacement towards the point, {lengths.sum():.3g} map units in all")
    return ax


def contribution_grid(
    explanation: Explanation,
    indices: Sequence[int],
    image_shape: tuple[int, ...],
    *,
    y: ArrayLike | None = None,
    names: Names | None = None,
    n_columns: int = 3,
    method: str = "path",
    ax: Axes | None = None,
) -> Axes:
    """Draw the map and, beside it, the pictures of several points with what moves each.

    Equal letters join a point on the map and its picture; frames have the colour of the class.

    Parameters
    ----------
    explanation : Explanation
        From ``map_.explain(X)``; all its rows are drawn on the map.
    indices : sequence of int
        Rows to show as pictures.
    image_shape : tuple of int
        (height, width) or (height, width, channels) of a row.
    y : array-like of shape (N,), optional
        Classes or a quantity for the colours of the map.
    names : sequence or mapping, optional
        Names of the classes, as in `map`.
    n_columns : int
        Pictures side by side.
    method : {"path", "paired", "local"}, default="path"
        As in `contributions`.
    ax : matplotlib Axes, optional
        Area to draw in; a new figure by default.

    Returns
    -------
    matplotlib Axes
        The area; its ``child_axes`` are the pictures, in the order of `indices`, then the map.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import ptsne
    >>> X, y = load_digits(return_X_y=True)
    >>> map_ = ptsne.ParametricTSNE(max_iter=30, random_state=0).fit(X[:200])
    >>> why = map_.explain(X[200:240])
    >>> ax = ptsne.plots.contribution_grid(why, [0, 1, 2, 3], (8, 8), y=y[200:240])
    """
    side = 4.8
    if ax is None:
        ax = new_axes((side * _grid_width(len(indices), n_columns), side))
    map_ax, panels = _grid(ax, len(indices), n_columns)
    map(explanation.Y, y=y, names=names, ax=map_ax)
    colors = row_colors(y, names, len(explanation.Y))
    for k, (i, panel) in enumerate(zip(indices, panels, strict=True)):
        contributions(explanation, i, image_shape=image_shape, method=method, ax=panel)
        panel.spines[:].set(color=colors[i], linewidth=2)
        _mark(panel, (0.09, 0.91), _letters(k), transform=panel.transAxes)
        _mark(map_ax, explanation.Y[i], _letters(k), transform=map_ax.transData)
    _step_aside(map_ax, explanation.Y[list(indices)])
    caption = "red takes a point further on its way from the baseline, blue holds it back"
    ax.text(1, 0, caption, ha="right", transform=ax.transAxes, fontsize=8)
    return ax


def _bars(
    ax: Axes, lengths: NDArray[np.float64], rank: NDArray[np.int64], named: list[str]
) -> None:
    """Bars of the ranked features, largest on top, then one for all the others."""
    shown, n_others = lengths[rank], len(lengths) - len(rank)
    colors = [RED if value > 0 else BLUE for value in shown]
    if n_others:
        shown = np.append(shown, lengths.sum() - shown.sum())
        named, colors = [*named, f"the {n_others} others together"], [*colors, GRAY]
    bars = ax.barh(range(len(shown)), shown, color=colors, height=0.72)
    ax.bar_label(bars, fmt="%+.3g", padding=3, fontsize="small", color=INK)
    ax.set_yticks(range(len(shown)), named)
    ax.invert_yaxis()
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.margins(x=0.24 if (shown < 0).any() else 0.14)  # room for the numbers left of the axis
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _grid(ax: Axes, n: int, n_columns: int) -> tuple[Axes, list[Axes]]:
    """Inside the area of `ax`: a square map on the left, n square pictures to its right."""
    n_rows = -(-n // n_columns)
    step = 1 / (n_rows * _grid_width(n, n_columns))  # width of a picture
    low, height = _CAPTION, (1 - _CAPTION) / n_rows
    corner = [
        (1 - step * (n_columns - k % n_columns), low + height * (n_rows - 1 - k // n_columns))
        for k in range(n)
    ]
    ax.set_axis_off()
    panels = [ax.inset_axes((left, y, 0.94 * step, 0.94 * height)) for left, y in corner]
    return ax.inset_axes((0, 0, 1 / _grid_width(n, n_columns), 1)), panels


def _grid_width(n: int, n_columns: int) -> float:
    """Width of map and pictures, in units of the height."""
    return 1.04 + n_columns / -(-n // n_columns)


def _mark(ax: Axes, place: Any, letters: str, *, transform: Any) -> None:
    """Write letters in a white disc."""
    disc = {"boxstyle": "circle,pad=0.18", "facecolor": "white", "edgecolor": INK}
    x, y = place
    text = ax.text(x, y, letters, transform=transform, bbox=disc, fontsize=8, zorder=5)
    text.set(ha="center", va="center")


def _step_aside(map_ax: Axes, marks: NDArray[np.float64]) -> None:
    """Move the names of classes off the marks of points."""
    least = 0.06 * np.ptp(map_ax.viewLim.get_points(), axis=0).max()
    for text in map_ax.texts:
        if text.get_bbox_patch() is not None:
            continue  # a mark itself
        place = np.array(text.get_position())
        nearest = marks[np.linalg.norm(marks - place, axis=1).argmin()]
        way = place - nearest
        distance = np.linalg.norm(way)
        if distance < least:
            unit = way / distance if distance > 0 else np.array([0.0, 1.0])
            text.set_position(tuple(nearest + least * unit))


def _letters(k: int) -> str:
    """A to Z, then AA, AB, ...: letters, since classes are often numbers."""
    return ("" if k < 26 else _letters(k // 26 - 1)) + ascii_uppercase[k % 26]
