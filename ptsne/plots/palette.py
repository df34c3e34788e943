"""Colours that colour-blind readers can tell apart, and axes without ornament."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

# Okabe & Ito (2008) without black and the yellow that white paper swallows, then Tol (2021).
TEN = [
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"),
    *("#E69F00", "#882255", "#999933", "#332288", "#7F7F7F"),
]
RED, BLUE, GRAY, INK = "#B2182B", "#2166AC", "#8C8C8C", "#222222"
PALE = "#D9D9D9"
SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "#F7F7F7", RED])
"""Blue below zero, red above it; for areas."""
DEPARTURE = LinearSegmentedColormap.from_list("departure", [BLUE, "#C9C9C9", RED])
"""The same for points, which need a middle that white paper does not swallow."""
AMOUNT = LinearSegmentedColormap.from_list("amount", ["#E6E6E6", "#F0B37E", "#B5500B", "#4A1A00"])
"""From little (pale gray) to much (dark brown); its lightness falls all the way."""
OTHERS = "other features"
"""What tables and pictures call the features that they do not name."""
COLUMN = 3.3
"""Width of a column of a paper, inches."""
SMALL = 7.0
"""Size of the letters in it, points."""
TITLE = 8.0
"""Size of the titles in it, points."""
_PAPER: Any = {
    "font.size": SMALL,
    "axes.titlesize": TITLE,
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.6,
}
HALO: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="white", alpha=0.9)]


def class_colors(n: int) -> list[Any]:
    """Colours of n classes; ten can be told apart by everyone, of more the names do the work."""
    if n <= len(TEN):
        return TEN[:n]
    return [plt.get_cmap("tab20" if n <= 20 else "turbo")(v) for v in np.linspace(0, 1, n)]


def new_axes(size: tuple[float, float]) -> Axes:
    """Axes of a new figure of `size` (inches) whose parts do not overlap."""
    return plt.subplots(figsize=size, layout="constrained")[1]


def paper_axes(height: float, width: float = COLUMN) -> Axes:
    """Axes of a new figure as wide as a column, with letters of seven points."""
    axes: Axes = paper_panels(None, (1, 1), (width, height))[0, 0]
    return axes


def paper_panels(
    ax: Axes | None, shape: tuple[int, int], size: tuple[float, float], **grid: Any
) -> NDArray[np.object_]:
    """Panels (rows, columns) in a new figure of `size` (inches), or in the area of `ax`."""
    if ax is None:
        figure: Any = plt.figure(figsize=size, layout="constrained")
        spec = figure.add_gridspec(*shape, **grid)
    else:
        figure, spec = figure_of(ax), _grid_inside(ax, shape, grid)
    panels = np.empty(shape, dtype=np.object_)
    with plt.rc_context(_PAPER):
        for place in np.ndindex(*shape):
            panel = figure.add_subplot(spec[place])
            panel.tick_params(labelsize=SMALL, width=0.6, length=2)
            panels[place] = panel
    return panels


def _grid_inside(ax: Axes, shape: tuple[int, int], grid: dict[str, Any]) -> Any:
    """Grid of panels that takes the place of axes."""
    spec = ax.get_subplotspec()
    if spec is None:
        raise ValueError(
            "several panels need an ax that stands in a grid; make it with plt.subplots()"
        )
    ax.set_axis_off()
    return spec.subgridspec(*shape, **grid)


def figure_of(ax: Axes) -> Figure | SubFigure:
    """The figure of axes."""
    return ax.get_figure()  # type: ignore[return-value]


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, and a true minus; 0 has none."""
    rounded = round(float(value), digits)
    sign = "+" if rounded > 0 else "\u2212" * (rounded < 0)
    return f"{sign}{abs(rounded):.{digits}f}"


def plain(value: float) -> str:
    """A value of a column with three digits, and no exponent where it can be read without."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def shortened(name: object, length: int = 28) -> str:
    """A name that fits beside a bar."""
    text = str(name)
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"
