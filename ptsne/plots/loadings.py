"""What holds each cluster where it is: a table of shares, each with how much it varies."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from ptsne.plots.palette import (
    COLUMN,
    GRAY,
    INK,
    OTHERS,
    PALE,
    SIGNED,
    SMALL,
    figure_of,
    paper_axes,
    shortened,
    signed,
)

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

_NEEDED = ["cluster", "feature", "share", "spread"]
_WHOLE_CELL = (0.0, 1.0, 1.0)  # centre, width and height of a square's frame within its cell
_BESIDE_NUMBERS = (-0.27, 0.36, 0.82)
_ROOM_FOR_NUMBERS = 4  # clusters


def loadings(
    frame: "pd.DataFrame",
    *,
    n_features: int = 12,
    clusters: Sequence[Hashable] | None = None,
    numbers: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""Draw which features hold each cluster at its place, and how much their shares vary.

    The colour of a square is the share (red: towards the cluster's place, blue: away from it), and
    its area is :math:`|share| / (|share| + spread)` of its frame: a full frame holds for every
    member, half a frame means that the share varies by as much as it is.

    Parameters
    ----------
    frame : DataFrame
        Table of ``why.loadings(labels)``, with columns cluster, feature, share and spread.
    n_features : int
        Features to show: those with the largest share in any cluster.
    clusters : sequence, optional
        Clusters to show, in this order; all by default.
    numbers : bool, optional
        Write share and spread into the cells; by default where there is room, up to four clusters.
    ax : matplotlib Axes, optional
        Where to draw; a new figure as wide as a column by default.

    Returns
    -------
    matplotlib Axes
        Axes with one row for each feature and one column for each cluster.

    Notes
    -----
    `ValueError` if columns are missing, a cluster is not in the table, or a cell is there twice.

    Examples
    --------
    >>> import pandas as pd
    >>> from ptsne import plots
    >>> table = pd.DataFrame({
    ...     "cluster": ["a", "b"],
    ...     "feature": ["length", "length"],
    ...     "share": [0.8, -0.3],
    ...     "spread": [0.1, 0.3],
    ... })
    >>> ax = plots.loadings(table)
    >>> [text.get_text() for text in ax.get_xticklabels()]
    ['a', 'b']
    """
    _check(frame, clusters)
    names = list(dict.fromkeys(frame["cluster"])) if clusters is None else list(clusters)
    table = frame[frame["cluster"].isin(names)]
    share, spread = (
        table.pivot(index="feature", columns="cluster", values=values)[names]
        for values in ("share", "spread")
    )
    kept = _ranked(share.to_numpy(np.float64), list(share.index), n_features)
    share, spread = share.iloc[kept], spread.iloc[kept]
    is_other = np.array([feature == OTHERS for feature in share.index])
    numbers = len(names) <= _ROOM_FOR_NUMBERS if numbers is None else numbers
    step = 0.26 if numbers else 0.2
    ax = paper_axes(0.95 + step * len(kept), _width(len(names))) if ax is None else ax
    frame_of_cell = _BESIDE_NUMBERS if numbers else _WHOLE_CELL
    squares = _squares(share.to_numpy(np.float64), spread.to_numpy(np.float64), frame_of_cell)
    _color(squares, share.to_numpy(np.float64), is_other)
    _draw(ax, squares, share.shape)
    ax.set_xticks(range(len(names)), [shortened(name, 14) for name in names])
    ax.set_yticks(range(len(kept)), [shortened(name) for name in share.index])
    if numbers:
        _write(ax, share.to_numpy(np.float64), spread.to_numpy(np.float64))
    return ax


def _check(frame: "pd.DataFrame", clusters: Sequence[Hashable] | None) -> None:
    missing = [column for column in _NEEDED if column not in frame.columns]
    if missing:
        raise ValueError(
            f"the table lacks {missing}; it has {list(frame.columns)}: pass the table of "
            "why.loadings(labels)"
        )
    known = list(dict.fromkeys(frame["cluster"]))
    unknown = [name for name in clusters or [] if name not in known]
    if unknown:
        raise ValueError(f"clusters {unknown} are not in the table; it has {known}")
    if frame.duplicated(["cluster", "feature"]).any():
        raise ValueError("the table has some cluster and feature twice; pass one table at a time")


def _width(n_clusters: int) -> float:
    """Inches: a column, and more where clusters are many."""
    return max(COLUMN, 1.6 + 0.2 * n_clusters)


def _ranked(share: Array, features: list[object], n_features: int) -> NDArray[np.int64]:
    """Features with the largest shares, by the cluster where each is largest; others last."""
    size = np.nan_to_num(np.abs(share))  # (D, C)
    is_other = np.array([feature == OTHERS for feature in features])
    kept = np.argsort(np.where(is_other, 0, -size.max(1)), kind="stable")
    kept = kept[~is_other[kept]][:n_features]
    order = np.lexsort([-size[kept].max(1), size[kept].argmax(1)])
    return np.concatenate([kept[order], np.flatnonzero(is_other)])


def _color(squares: PolyCollection, share: Array, is_other: NDArray[np.bool_]) -> None:
    """Colours by share; the features without a name are gray, and do not set the scale."""
    values = np.ma.masked_where(np.broadcast_to(is_other[:, None], share.shape), share)
    limit = float(np.abs(np.ma.masked_invalid(values)).max() or 0.0) or 1.0
    squares.set_array(values.ravel())
    squares.set(cmap=SIGNED.with_extremes(bad=GRAY), norm=Normalize(-limit, limit))


def _draw(ax: Axes, squares: PolyCollection, shape: tuple[int, int]) -> None:
    """The table with its colour bar and the key of sizes."""
    n_features, n_clusters = shape
    ax.add_collection(squares)
    ax.set(xlim=(-0.5, n_clusters - 0.5), ylim=(n_features - 0.5, -0.5))
    ax.set_xticks(np.arange(n_clusters + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(n_features + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=PALE, linewidth=0.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    bar = figure_of(ax).colorbar(squares, ax=ax, location="bottom", shrink=0.9, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, width=0.6, length=2)
    key = "full frame: no spread;\nhalf a frame: a spread as large"
    bar.set_label(f"share of the way from the baseline\n{key}", size=SMALL)


def _squares(share: Array, spread: Array, frame: tuple[float, float, float]) -> PolyCollection:
    """Squares (D x C) whose area is |share| / (|share| + spread) of their frame."""
    offset, *extent = frame
    row, column = np.indices(share.shape)
    centre = np.stack([column + offset, row], axis=-1).reshape(-1, 1, 2)
    size = np.abs(share.ravel())
    whole = size + spread.ravel()
    area = np.divide(size, whole, out=np.zeros_like(size), where=whole > 0)
    half = 0.5 * np.sqrt(np.nan_to_num(area))[:, None, None]
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * extent
    return PolyCollection(centre + half * corners, linewidths=0)


def _write(ax: Axes, share: Array, spread: Array) -> None:
    """Share and spread in every cell."""
    for (row, column), value in np.ndenumerate(share):
        if np.isnan(value):
            continue
        varies = float(spread[row, column])
        words = f"{signed(value)}\n\u00b1{varies:.2f}"
        text = ax.text(column + 0.45, row, words, fontsize=SMALL - 0.5, color=INK)
        text.set(ha="right", va="center", linespacing=0.95)
