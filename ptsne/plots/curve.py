"""How training went."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ptsne.plots.palette import HALO, INK, TEN, new_axes


def training_curve(history: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw the KL divergence against the time of training, phase by phase.

    Parameters
    ----------
    history : sequence of records
        ``history_`` of a fitted map: "phase", "loss", "kl" and "seconds" of each record.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        Axes with one line of KL(P || Q) in nats for each phase that has a map. Phases without one
        (pre-training) are bands with the loss they ended with.

    Raises
    ------
    ValueError
        If `history` is empty.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import ptsne
    >>> X, y = load_digits(return_X_y=True)
    >>> map_ = ptsne.ParametricTSNE(max_iter=30, random_state=0).fit(X[:200])
    >>> ax = ptsne.plots.training_curve(map_.history_)
    """
    if not history:
        raise ValueError("history has no records: pass history_ of a map that was fitted")
    ax = new_axes((6.4, 3.6)) if ax is None else ax
    start = 0.0
    for k, (phase, group) in enumerate(groupby(history, key=lambda record: record["phase"])):
        start = _phase(ax, k, phase, list(group), start)
    ax.set_xlim(0, start or None)
    ax.set_xlabel("seconds")
    ax.set_ylabel("KL(P || Q), nats")
    ax.set_ylim(top=ax.get_ylim()[1] + 0.3 * np.ptp(ax.get_ylim()))  # room for the captions
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _phase(
    ax: Axes, k: int, phase: str, records: Sequence[Mapping[str, Any]], start: float
) -> float:
    """Draw one phase; return the second at which it ended."""
    seconds = np.array([record["seconds"] for record in records])
    kl = np.array([record["kl"] for record in records])
    end = float(seconds[-1])
    ax.axvspan(start, end, color="#f2f2f2" if k % 2 == 0 else "#e4e4e4", linewidth=0, zorder=0)
    has_map = np.isfinite(kl)
    if has_map.any():
        result = f"KL {kl[has_map][-1]:.3f}"
        ax.plot(seconds[has_map], kl[has_map], color=TEN[k % 6], linewidth=2, label=phase)
        ax.plot(seconds[has_map][-1:], kl[has_map][-1:], "o", color=TEN[k % 6], markersize=5)
    else:
        result = f"loss {records[-1]['loss']:.3g}"
    caption = f"{phase}\n{end - start:.1f} s, {result}"
    ax.annotate(
        caption,
        (start, 1 - 0.13 * (k % 2)),
        (4, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        fontsize="small",
        color=INK,
        path_effects=HALO,
    )
    return end
