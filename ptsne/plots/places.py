"""The rows at their places, coloured by a number that the reader is to trace over the map."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from numpy.typing import NDArray

from ptsne.plots.palette import SMALL, figure_of
from ptsne.plots.scatter import bare

Array = NDArray[np.float64]


def require_plane(Y: Array) -> None:
    """Raise ValueError unless the map has two dimensions."""
    if Y.ndim != 2 or Y.shape[1] != 2:
        raise ValueError(
            f"this picture needs a map of two dimensions; got places of shape {Y.shape}: "
            "fit with n_components=2"
        )


def row_values(values: Any, n_rows: int, name: str) -> Array:
    """One finite number for each row.

    Parameters
    ----------
    values : array-like of shape (n_rows,)
        Numbers.
    n_rows : int
        Rows of the explanation.
    name : str
        What the message calls them.

    Returns
    -------
    ndarray of shape (n_rows,)
        As float64.

    Raises
    ------
    ValueError
        If their number is another, or they are not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (n_rows,):
        raise ValueError(
            f"{name} must have one number for each of the {n_rows} rows; got shape {numbers.shape}"
        )
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite; got NaN or infinite values")
    return numbers


def dot_size(n_rows: int) -> float:
    """Area of a point of n on a map as wide as a column, in square points."""
    return float(np.clip(190 / max(n_rows, 1) ** 0.5, 0.6, 16))


def map_height(Y: Array, width: float) -> float:
    """Inches that a map of this width needs, between a flat and a tall one."""
    extent = np.ptp(Y, axis=0)
    shape = float(extent[1] / extent[0]) if extent[0] > 0 else 1.0
    return width * float(np.clip(shape, 0.35, 1.3))


def draw_places(
    ax: Axes,
    Y: Array,
    values: Array,
    *,
    scale: Normalize,
    colors: Colormap,
    label: str,
    extend: str = "neither",
) -> Any:
    """Points coloured by a number, the largest on top, with a colour bar below; returns the bar."""
    bare(ax, n_components=2)
    order = np.argsort(np.abs(values), kind="stable")
    dots = ax.scatter(
        Y[order, 0],
        Y[order, 1],
        s=dot_size(len(Y)),
        c=values[order],
        cmap=colors,
        norm=scale,
        linewidths=0,
        rasterized=len(Y) > 5000,
    )
    bar = figure_of(ax).colorbar(
        dots, ax=ax, location="bottom", shrink=0.8, aspect=30, pad=0.02, extend=extend
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, width=0.6, length=2)
    bar.set_label(label, size=SMALL)
    return bar
