"""The smallest change under linear cuts: a linear programme (l1) or a least-distance one (l2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, nnls

Array = NDArray[Any]

_ROUNDING = 1e-9
_DROPPED_AT_ONCE = 0.25  # of the features still changed, while there are too many of them


@dataclass(frozen=True)
class Limits:
    """What a change may be, in units of each column's scale.

    Attributes
    ----------
    low, high : ndarray of shape (D,)
        Least and largest change of each feature, ``low <= 0 <= high``; both 0 where it must stay.
    norm : {"l1", "l2"}
        What is made small.
    max_features : int
        How many features may change.
    """

    low: Array
    high: Array
    norm: str
    max_features: int

    def length(self, changes: Array) -> Array:
        """Norm over the last axis."""
        length: Array = np.linalg.norm(changes, ord=int(self.norm[1]), axis=-1)
        return length

    def allows(self, change: Array) -> bool:
        """Whether a change (D,) keeps to these limits."""
        is_within = (change >= self.low - _ROUNDING) & (change <= self.high + _ROUNDING)
        return bool(is_within.all() and np.count_nonzero(change) <= self.max_features)


def smallest_change(G: Array, h: Array, limits: Limits) -> Array | None:
    """``argmin |d|`` subject to ``G d >= h`` and the limits.

    Exact but for `max_features`: features are given up from the smallest change on, each time with
    the smallest change of the others.

    Parameters
    ----------
    G : ndarray of shape (n, D)
        Cuts.
    h : ndarray of shape (n,)
        Their right-hand sides.
    limits : Limits
        Box, norm and number of features.

    Returns
    -------
    ndarray of shape (D,) or None
        The change; None where nothing fulfils the cuts.

    References
    ----------
    Lawson and Hanson 1974, Solving Least Squares Problems, chapter 23 (least-distance programming).
    """
    is_free = limits.low < limits.high
    change = _solve(G, h, limits, is_free)
    while change is not None and np.count_nonzero(change) > limits.max_features:
        is_free, change = _with_fewer(G, h, limits, change)
    return change


def _with_fewer(
    G: Array, h: Array, limits: Limits, change: Array
) -> tuple[NDArray[np.bool_], Array | None]:
    """The smallest change of fewer features than `change` uses, and which ones it may use."""
    used = np.flatnonzero(change)
    used = used[np.argsort(np.abs(change[used]), kind="stable")]  # the smallest first
    excess = len(used) - limits.max_features
    several = min(excess, int(_DROPPED_AT_ONCE * len(used)))
    trials = [used[:several]] if several > 1 else []
    for dropped in (*trials, *used[:, None]):
        is_free = change != 0
        is_free[dropped] = False
        fewer = _solve(G, h, limits, is_free)
        if fewer is not None:
            return is_free, fewer
    return change != 0, None


def _solve(G: Array, h: Array, limits: Limits, is_free: NDArray[np.bool_]) -> Array | None:
    """The smallest change of the free features alone."""
    change = np.zeros(len(is_free))
    if not (h > 0).any():
        return change
    if not is_free.any():
        return None
    solve = _l1 if limits.norm == "l1" else _l2
    found = solve(G[:, is_free], h, limits.low[is_free], limits.high[is_free])
    if found is None:
        return None
    change[is_free] = np.clip(found, limits.low[is_free], limits.high[is_free])
    change[np.abs(change) <= _ROUNDING * np.abs(change).max()] = 0
    return change


def _l1(G: Array, h: Array, low: Array, high: Array) -> Array | None:
    """Linear programme in the rises and the falls of the features."""
    box = [(0.0, float(most)) for most in (*high, *-low)]
    found = linprog(np.ones(len(box)), A_ub=np.hstack([-G, G]), b_ub=-h, bounds=box)
    if found.status != 0:
        return None
    rise, fall = np.split(np.asarray(found.x), 2)
    return np.asarray(rise - fall)


def _l2(G: Array, h: Array, low: Array, high: Array) -> Array | None:
    """Least distance to the cuts; a side of the box counts once a solution has crossed it."""
    eye = np.eye(len(low))
    is_low, is_high = np.zeros(len(low), bool), np.zeros(len(low), bool)
    while True:
        rows = np.vstack([G, eye[is_low], -eye[is_high]])
        change = _least_distance(rows, np.concatenate([h, low[is_low], -high[is_high]]))
        if change is None:
            return None
        below = (change < low - _ROUNDING) & ~is_low
        above = (change > high + _ROUNDING) & ~is_high
        if not (below | above).any():
            return change
        is_low, is_high = is_low | below, is_high | above


def _least_distance(G: Array, h: Array) -> Array | None:
    """``argmin |d|_2`` subject to ``G d >= h``, by its dual: non-negative least squares."""
    goal = np.append(np.zeros(G.shape[1]), 1.0)
    dual = np.vstack([G.T, h])
    try:
        weights, _ = nnls(dual, goal, maxiter=100 * sum(dual.shape))
    except RuntimeError:  # no convergence: as good as no solution
        return None
    residual = goal - dual @ weights
    if residual[-1] < _ROUNDING:  # its length is 0: the cuts contradict each other
        return None
    change: Array = -residual[:-1] / residual[-1]
    return change if (G @ change >= h - 1e-6).all() else None
