"""The map itself: one point per row."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb, to_rgba
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from ptsne.plots.palette import BLUE, HALO, class_colors, new_axes

Labels = Literal["auto", "map", "legend", "none"]
Names = Sequence[object] | Mapping[Any, object]

_MAX_CLASSES = 50  # integers with more different values than this are a quantity, not a class


class Groups(NamedTuple):
    """Classes of the rows."""

    code: NDArray[np.int64]  # (N,) index into names, -1 where the label is missing
    names: list[str]


def map(
    map_or_Y: Any,
    X: Any = None,
    y: ArrayLike | None = None,
    *,
    names: Names | None = None,
    labels: Labels = "auto",
    held_out: ArrayLike = False,
    point_size: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the map: one point per row, coloured by `y`.

    The axes have no ticks because they have no meaning: only neighbourhoods do.

    Parameters
    ----------
    map_or_Y : fitted estimator or array of shape (N, 1), (N, 2) or (N, 3)
        A fitted map, or coordinates of points.
    X : array-like of shape (N, D), optional
        Rows to place with ``map_or_Y.transform``; the training rows when omitted. Not used with
        coordinates.
    y : array-like of shape (N,), optional
        Classes (strings, booleans, up to 50 different whole numbers) or a quantity (any other
        numbers, drawn with a colour bar). Missing values are gray.
    names : sequence or mapping, optional
        Names of the classes, in sorted order of the classes or by class.
    labels : {"auto", "map", "legend", "none"}
        Where the names stand: on the map at the densest place of each class, in a legend, nowhere.
        "auto" writes up to 20 classes on the map and lists more of them in a legend.
    held_out : bool or array-like of bool of shape (N,)
        Rows that the map was not fitted on; drawn as rings.
    point_size : float, optional
        Area of a point in square typographic points; by default it shrinks as N grows.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        The axes drawn on.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import ptsne
    >>> X, y = load_digits(return_X_y=True)
    >>> map_ = ptsne.ParametricTSNE(max_iter=30, random_state=0).fit(X[:200])
    >>> ax = ptsne.plots.map(map_, y=y[:200])
    >>> ax = ptsne.plots.map(map_, X[200:300], y[200:300])
    """
    Y = _coordinates(map_or_Y, X)
    groups = groups_of(y, names, len(Y))
    ax = _map_axes(Y.shape[1]) if ax is None else ax
    is_ring = np.broadcast_to(np.asarray(held_out, dtype=bool), len(Y))
    colors = row_colors(y, names, len(Y))
    points = _strip(Y, groups) if Y.shape[1] == 1 else Y
    bare(ax, n_components=Y.shape[1])
    _scatter(ax, points, colors, is_ring, point_size)
    if groups is None and y is not None:
        _quantity_bar(ax, np.asarray(y, dtype=float))
    if labels == "auto":
        labels = "map" if groups is None or len(groups.names) <= 20 else "legend"
    if groups is not None and labels == "map":
        name_groups(ax, points, groups, is_strip=Y.shape[1] == 1)
    _legend(ax, groups if labels == "legend" else None, is_ring)
    return ax


def _coordinates(map_or_Y: Any, X: Any) -> NDArray[np.float64]:
    """Coordinates (N, K) from a fitted map or an array."""
    if hasattr(map_or_Y, "transform"):
        map_or_Y = map_or_Y.embedding_ if X is None else map_or_Y.transform(X)
    Y = np.asarray(map_or_Y, dtype=float)
    if Y.ndim != 2 or Y.shape[1] not in (1, 2, 3):
        raise ValueError(
            f"expected a fitted map or coordinates of shape (N, 1), (N, 2) or (N, 3), got {Y.shape}"
        )
    return Y


def groups_of(y: ArrayLike | None, names: Names | None, n_rows: int) -> Groups | None:
    """Classes of the rows, or None when there are none or `y` is a quantity."""
    if y is None:
        return None
    y = np.asarray(y)
    if y.shape != (n_rows,):
        raise ValueError(f"y must have one value for each of the {n_rows} points, got {y.shape}")
    is_missing = np.array([value is None or value != value for value in y.tolist()], dtype=bool)
    known = np.array(y[~is_missing].tolist())  # objects become numbers, or strings that sort
    values, code = np.unique(known, return_inverse=True)
    is_number = np.issubdtype(values.dtype, np.number)
    if is_number and (len(values) > _MAX_CLASSES or np.any(values % 1)):
        return None
    codes = np.full(n_rows, -1)
    codes[~is_missing] = code
    return Groups(codes, _class_names(values, names))


def _class_names(values: NDArray[Any], names: Names | None) -> list[str]:
    if names is None:
        is_whole = np.issubdtype(values.dtype, np.floating)
        return [str(int(v)) if is_whole else str(v) for v in values.tolist()]
    if isinstance(names, Mapping):
        return [str(names.get(v, v)) for v in values.tolist()]
    if len(names) != len(values):
        raise ValueError(
            f"names has {len(names)} entries but y has {len(values)} classes; pass a mapping "
            "{class: name} when some classes are missing from y"
        )
    return [str(name) for name in names]


def row_colors(y: ArrayLike | None, names: Names | None, n_rows: int) -> NDArray[np.float64]:
    """Colour of every point, (n_rows, 4)."""
    if y is None:
        return np.tile(to_rgba(BLUE), (n_rows, 1))
    gray = np.array(to_rgba("#BDBDBD"))
    groups = groups_of(y, names, n_rows)
    if groups is not None:
        palette = np.vstack([[to_rgba(c) for c in class_colors(len(groups.names))], gray])
        return palette[groups.code]  # code -1 is the gray at the end
    values = np.asarray(y, dtype=float)
    colors = plt.get_cmap("viridis")(_scale(values)(values))
    colors[~np.isfinite(values)] = gray
    return np.asarray(colors)


def _scale(values: NDArray[np.float64]) -> Normalize:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99]) if len(finite) else (0, 1)
    return Normalize(low, high, clip=True)


def _scatter(
    ax: Any,  # Axes or Axes3D: both take the coordinates one by one
    points: NDArray[np.float64],
    colors: NDArray[np.float64],
    is_ring: NDArray[np.bool_],
    point_size: float | None,
) -> None:
    """Dots and rings, in a shuffled order so that no class lies on top of the others."""
    n = len(points)
    size = float(np.clip(600 / max(n, 1) ** 0.6, 0.8, 36)) if point_size is None else point_size
    order = np.random.default_rng(0).permutation(n)
    dots, rings = order[~is_ring[order]], order[is_ring[order]]
    rasterized = n > 5000  # keeps vector files small
    if len(dots):
        ax.scatter(*points[dots].T, s=size, c=colors[dots], linewidths=0, rasterized=rasterized)
    if len(rings):
        ax.scatter(
            *points[rings].T,
            s=1.6 * size + 4,
            facecolors="none",
            edgecolors=colors[rings],
            linewidths=0.5 + 0.02 * size,
            rasterized=rasterized,
        )


def _strip(Y: NDArray[np.float64], groups: Groups | None) -> NDArray[np.float64]:
    """A map of one dimension as a band per class, spread by a fixed jitter."""
    band = np.zeros(len(Y)) if groups is None else -groups.code.astype(float)
    return np.column_stack([Y[:, 0], band + np.random.default_rng(0).uniform(-0.3, 0.3, len(Y))])


def bare(ax: Any, *, n_components: int) -> None:
    """Take away what has no meaning on a map."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    if n_components == 3:
        ax.set_zticks([])
    if n_components > 1:
        ax.set_aspect("equal", adjustable="datalim")


def name_groups(ax: Any, points: NDArray[np.float64], groups: Groups, *, is_strip: bool) -> None:
    """Write each name where its class is densest, or beside its band."""
    if is_strip:
        ax.set_yticks(-np.arange(len(groups.names)), groups.names)
        ax.tick_params(axis="y", length=0)
        return
    colors = class_colors(len(groups.names))
    for k, name in enumerate(groups.names):
        dark = tuple(0.6 * c for c in to_rgb(colors[k]))
        place = _densest_place(points[groups.code == k])
        text = ax.text(*place, name, color=dark, ha="center", va="center", weight="bold")
        text.set_path_effects(HALO)


def _densest_place(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of the points round the fullest cell: on the larger of two islands, not between."""
    counts, edges = np.histogramdd(points, bins=6)
    cell = np.unravel_index(counts.argmax(), counts.shape)
    width = np.array([e[1] - e[0] for e in edges])
    centre = np.array([e[c] for e, c in zip(edges, cell, strict=True)]) + width / 2
    is_near = (np.abs(points - centre) <= 1.5 * width).all(1)
    return np.asarray(np.median(points[is_near], axis=0))


def _legend(ax: Axes, groups: Groups | None, is_ring: NDArray[np.bool_]) -> None:
    """List the classes beside the map; say what dots and rings are where both are drawn."""
    names = [] if groups is None else groups.names
    entries = [_entry(name, c) for name, c in zip(names, class_colors(len(names)), strict=True)]
    if is_ring.any() and not is_ring.all():
        entries += [_entry("training rows", "#555555"), _entry("held-out rows", "#555555", "none")]
    if not entries:
        return
    legend = partial(ax.legend, handles=entries, frameon=False)
    if names:
        legend(loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=-(-len(names) // 25))
    else:
        legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)


def _entry(label: str, color: Any, face: Any = None) -> Line2D:
    dot = Line2D([], [], marker="o", linestyle="", markersize=6.5, color=color, label=label)
    dot.set_markerfacecolor(face or color)
    return dot


def _quantity_bar(ax: Axes, values: NDArray[np.float64]) -> None:
    colors = ScalarMappable(norm=_scale(values), cmap="viridis")
    bar = ax.figure.colorbar(colors, ax=ax, shrink=0.6, aspect=25, extend="both")
    bar.ax.spines[:].set_visible(False)


def _map_axes(n_components: int) -> Axes:
    if n_components < 3:
        return new_axes((5.4, 5.4) if n_components == 2 else (6.4, 3.0))
    figure = plt.figure(figsize=(5.4, 5.4), layout="constrained")
    axes: Axes = figure.add_subplot(projection="3d")
    return axes
