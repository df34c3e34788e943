"""What separates two places: each feature's share of the way, as bars or as a waterfall."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from ptsne.explanation import Explanation
from ptsne.plots.palette import BLUE, GRAY, INK, OTHERS, RED, paper_axes, plain, shortened, signed

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Place = Union[int, ArrayLike, None]  # noqa: UP007 - ArrayLike is itself a union of strings' types
Shares = Union[Explanation, "pd.DataFrame", ArrayLike]

_WHOLE = 1e-6  # shares sum to 1 up to this


class _Bars(NamedTuple):
    """What is drawn: features from the largest share down, then the others as one."""

    labels: list[str]
    share: Array  # (k,)
    varies: Array | None  # (3, k): spread, low, high; NaN for the others
    is_other: NDArray[np.bool_]  # (k,)


def contrast(
    shares: Shares,
    i: Place = None,
    j: Place = None,
    *,
    n_features: int = 10,
    feature_names: Sequence[object] | None = None,
    ends: tuple[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw each feature's share of the way from one place of the map to another, as bars.

    What to read: the bars sum to 1, the whole way. A red bar takes a row that far towards the
    second place, a blue one holds it back. Between two groups of rows, the thick line on a bar is
    plus and minus one spread (standard deviation over pairs of members), the thin line runs from
    the 5th to the 95th percentile: a bar whose line crosses 0 says little about a single row.

    Parameters
    ----------
    shares : Explanation, DataFrame or array-like of shape (D,)
        An explanation, asked for ``shares.contrast(i, j)``; the table of
        ``why.contrast_clusters(labels, a, b)``, with columns feature and share, and spread, low
        and high where it has them; or shares that sum to 1.
    i, j : int or array-like of shape (D,), optional
        The two rows, where `shares` is an explanation.
    n_features : int
        Number of bars; the others are summed in one more.
    feature_names : sequence of str, optional
        Names, where `shares` is an array.
    ends : (str, str), optional
        Names of the two places, for the axis.
    ax : matplotlib Axes, optional
        Where to draw; a new figure as wide as a column by default.

    Returns
    -------
    matplotlib Axes
        Axes with bars, the largest on top.

    Notes
    -----
    `ValueError` if shares do not sum to 1, names do not fit them, or the rows are missing.

    Examples
    --------
    >>> from ptsne import plots
    >>> ax = plots.contrast([0.7, -0.1, 0.4], feature_names=["length", "width", "age"])
    >>> [round(float(bar.get_width()), 3) for bar in ax.patches]
    [0.7, 0.4, -0.1]
    """
    bars = _bars(shares, (i, j), n_features, feature_names)
    ax = paper_axes(_height(bars)) if ax is None else ax
    ax.barh(range(len(bars.share)), bars.share, color=_colors(bars), height=0.72)
    if bars.varies is not None:
        _whiskers(ax, bars.share, bars.varies)
    _furnish(ax, bars, _ends(ends, i, j))
    return ax


def waterfall(
    shares: Shares,
    i: Place = None,
    j: Place = None,
    *,
    n_features: int = 8,
    feature_names: Sequence[object] | None = None,
    ends: tuple[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the way from one place to another as steps that begin at 0 and end at 1.

    What to read: every bar starts where the one above it ended. Red steps go towards the second
    place, blue steps back; the last one, of all features not named, arrives at 1.

    Parameters
    ----------
    shares : Explanation, DataFrame or array-like of shape (D,)
        As in `contrast`.
    i, j : int or array-like of shape (D,), optional
        The two rows, where `shares` is an explanation.
    n_features : int
        Number of steps; the others are summed in one more.
    feature_names : sequence of str, optional
        Names, where `shares` is an array.
    ends : (str, str), optional
        Names of the two places, for the axis.
    ax : matplotlib Axes, optional
        Where to draw; a new figure as wide as a column by default.

    Returns
    -------
    matplotlib Axes
        Axes with one bar for each step.

    Notes
    -----
    `ValueError` if shares do not sum to 1, names do not fit them, or the rows are missing.

    Examples
    --------
    >>> from ptsne import plots
    >>> ax = plots.waterfall([0.7, -0.1, 0.4], feature_names=["length", "width", "age"])
    >>> [round(float(bar.get_x()), 3) for bar in ax.patches]
    [0.0, 0.7, 1.1]
    """
    bars = _bars(shares, (i, j), n_features, feature_names)
    ax = paper_axes(_height(bars)) if ax is None else ax
    reached = np.cumsum(bars.share)
    start = np.concatenate([[0.0], reached[:-1]])
    ax.barh(range(len(start)), bars.share, left=start, color=_colors(bars), height=0.72)
    for k, place in enumerate(reached):  # joins a step to the next, the last one to the goal
        ax.plot([place, place], [k - 0.36, min(k + 1, len(start) - 0.5)], color=INK, linewidth=0.6)
    ax.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=0)
    _furnish(ax, bars, _ends(ends, i, j))
    return ax


def _bars(
    shares: Any, rows: tuple[Place, Place], n_features: int, names: Sequence[object] | None
) -> _Bars:
    """Shares from whatever was given, ranked, with the others as one."""
    if isinstance(n_features, bool) or n_features < 1:
        raise ValueError(f"n_features must be at least 1; got {n_features!r}")
    varies = None
    if isinstance(shares, Explanation):
        values, labels = _of_rows(shares, rows)
    elif hasattr(shares, "columns"):
        values, labels, varies = _of_frame(shares)
    else:
        values, labels = _of_array(shares, names)
    named = np.array([label != OTHERS for label in labels])
    order = np.argsort(-np.abs(values), kind="stable")
    rank, rest = order[named[order]][:n_features], order[~named[order]]
    is_cut = len(rank) + len(rest) < len(values)
    if is_cut or (not len(rest) and abs(1 - values[rank].sum()) > _WHOLE):
        return _with_rest(labels, values, varies, rank)
    rank = np.concatenate([rank, rest])
    varies = None if varies is None else varies[:, rank]
    return _Bars([labels[f] for f in rank], values[rank], varies, ~named[rank])


def _with_rest(
    labels: list[str], values: Array, varies: Array | None, rank: NDArray[np.int64]
) -> _Bars:
    """The ranked features, and what is left of the way; how much that varies is not known."""
    if varies is not None:
        varies = np.hstack([varies[:, rank], np.full((len(varies), 1), np.nan)])
    share = np.append(values[rank], 1 - values[rank].sum())
    kept = [*(labels[f] for f in rank), OTHERS]
    return _Bars(kept, share, varies, np.arange(len(share)) == len(rank))


def _of_rows(why: Explanation, rows: tuple[Place, Place]) -> tuple[Array, list[str]]:
    """Shares between two rows; labels say how each feature changes."""
    i, j = rows
    if i is None or j is None:
        raise ValueError("an explanation needs two rows: contrast(why, i, j)")
    shares = np.asarray(why.contrast(i, j))
    start, end = (_row(why, place) for place in rows)
    labels = [
        f"{shortened(name)}\n{plain(a)} \u2192 {plain(b)}".replace("-", "\u2212")
        if abs(a - b) > 0
        else shortened(name)
        for name, a, b in zip(why.feature_names, start, end, strict=True)
    ]
    return shares, labels


def _row(why: Explanation, place: Place) -> Array:
    is_number = isinstance(place, (int, np.integer))
    return np.asarray(why.X[place] if is_number else place, dtype=np.float64)  # type: ignore[index]


def _of_frame(frame: "pd.DataFrame") -> tuple[Array, list[str], Array | None]:
    """Shares between groups, with how much they vary."""
    missing = {"feature", "share"} - set(frame.columns)
    if missing:
        raise ValueError(
            f"the table needs columns feature and share; it has {list(frame.columns)}: pass the "
            "table of why.contrast_clusters(labels, a, b)"
        )
    varies = None
    if {"spread", "low", "high"} <= set(frame.columns):
        varies = frame[["spread", "low", "high"]].to_numpy(np.float64).T
    labels = [shortened(name) for name in frame["feature"]]
    return frame["share"].to_numpy(np.float64), labels, varies


def _of_array(shares: Any, names: Sequence[object] | None) -> tuple[Array, list[str]]:
    values = np.asarray(shares, dtype=np.float64)
    if values.ndim != 1 or not abs(values.sum() - 1) < _WHOLE:
        raise ValueError(
            f"shares must be one row that sums to 1; got shape {values.shape} with sum "
            f"{values.sum():.6g}: pass why.contrast(i, j), or the explanation and two rows"
        )
    names = [f"x{f}" for f in range(len(values))] if names is None else names
    if len(names) != len(values):
        raise ValueError(
            f"feature_names has {len(names)} entries but there are {len(values)} shares"
        )
    return values, [shortened(name) for name in names]


def _height(bars: _Bars) -> float:
    """Inches: taller where labels have two lines."""
    step = 0.3 if any("\n" in label for label in bars.labels) else 0.2
    return 0.5 + step * len(bars.share)


def _colors(bars: _Bars) -> list[str]:
    signs = [RED if value > 0 else BLUE for value in bars.share]
    return [GRAY if other else sign for sign, other in zip(signs, bars.is_other, strict=True)]


def _whiskers(ax: Axes, share: Array, varies: Array) -> None:
    """Thick line: plus and minus one spread; thin line: from low to high."""
    spread, low, high = varies
    height = np.arange(len(share))
    ax.hlines(height, low, high, color=INK, linewidth=0.7)
    ax.hlines(height, share - spread, share + spread, color=INK, linewidth=2.0)


def _furnish(ax: Axes, bars: _Bars, ends: tuple[str, str] | None) -> None:
    """Names on the left, numbers in a column on the right, 0 as a line."""
    ax.set_yticks(range(len(bars.labels)), bars.labels)
    ax.set_ylim(len(bars.labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.margins(x=0.04)
    spread = [""] * len(bars.share)
    if bars.varies is not None:
        spread = [f" \u00b1 {s:.2f}" if np.isfinite(s) else "" for s in bars.varies[0]]
    size = ax.get_yticklabels()[0].get_fontsize()
    for k, (value, extra) in enumerate(zip(bars.share, spread, strict=True)):
        text = signed(value) + extra
        ax.text(1.02, k, text, transform=ax.get_yaxis_transform(), va="center", fontsize=size)
    ax.set_xlabel("share of the way" + _between(ends))


def _between(ends: tuple[str, str] | None) -> str:
    """Names of the two places, on a line of their own where they are long."""
    if ends is None:
        return ""
    words = f"from {ends[0]} to {ends[1]}"
    return f" {words}" if len(words) <= 24 else f"\n{words}"


def _ends(ends: tuple[str, str] | None, i: Place, j: Place) -> tuple[str, str] | None:
    """Names of the places: the ones given, or row numbers."""
    if ends is not None or i is None or j is None:
        return ends
    first, second = (
        f"row {place}" if isinstance(place, (int, np.integer)) else "a given row"
        for place in (i, j)
    )
    return first, second
