"""When a place on the map has arrived at a target: the margin that is left, and where it grows."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

Array = NDArray[Any]

N_NEIGHBORS = 5
"""Neighbours on the map that must be of a cluster before a place lies in it."""
CROWDED = 0.95
"""Part of a cluster's members that stand as close to their own kind as a place in it must."""


class Arrival(Protocol):
    """A part of the map that a place lies in, or not."""

    @property
    def reach(self) -> float:
        """Size of the target, in map units."""
        ...

    def margin(self, Y: Array) -> Array:
        """How deep places (M, K) lie in the target, (M,), in map units: negative outside."""
        ...

    def gradient(self, y: Array) -> Array:
        """Direction (K,) in which the margin of a place grows."""
        ...

    def distance(self, y: Array) -> float:
        """Distance of a place (K,) from the target's nearest place, in map units."""
        ...


@dataclass(frozen=True)
class Disc:
    """All places within `reach` of one place.

    Attributes
    ----------
    place : ndarray of shape (K,)
        The middle.
    reach : float
        In map units, positive.
    """

    place: Array
    reach: float

    def margin(self, Y: Array) -> Array:
        """``reach - |y - place|``."""
        margin: Array = self.reach - np.linalg.norm(Y - self.place, axis=1)
        return margin

    def gradient(self, y: Array) -> Array:
        """Towards the middle."""
        return _unit(self.place - y)

    def distance(self, y: Array) -> float:
        """``|y - place|``."""
        return float(np.linalg.norm(y - self.place))


@dataclass(frozen=True)
class Cluster:
    """Places whose `k` nearest rows are all of one label, the k-th within `reach`.

    Attributes
    ----------
    members : KDTree
        Places of the label's rows.
    others : KDTree or None
        Places of all other rows, if there are any.
    k : int
        Neighbours asked.
    reach : float
        In map units: how far the k-th neighbour may be.
    """

    members: KDTree
    others: KDTree | None
    k: int
    reach: float

    def margin(self, Y: Array) -> Array:
        """``min(reach, nearest other row) - k-th nearest member``."""
        kth = np.asarray(self.members.query(Y, [self.k])[0])[:, 0]
        nearest = self.reach if self.others is None else self.others.query(Y)[0]
        return np.asarray(np.minimum(self.reach, nearest) - kth)

    def gradient(self, y: Array) -> Array:
        """Towards the k-th member and away from the nearest other row, where that one is near."""
        kth = np.asarray(self.members.query(y, [self.k])[1])[0]
        towards = _unit(self.members.data[kth] - y)
        if self.others is None:
            return towards
        distance, nearest = self.others.query(y)
        is_near = distance < self.reach
        return towards + _unit(y - self.others.data[nearest]) if is_near else towards

    def distance(self, y: Array) -> float:
        """Distance from the nearest member."""
        return float(self.members.query(y)[0])


def cluster(
    Y: Array, labels: ArrayLike | Sequence[Hashable], label: Hashable, tolerance: float | None
) -> Cluster:
    """Where a place lies among the rows of one label.

    Parameters
    ----------
    Y : ndarray of shape (N, K)
        Places of the rows.
    labels : array-like of shape (N,)
        Their labels.
    label : object
        One of them.
    tolerance : float or None
        How far the k-th neighbour may be; by default as far as it is for 95 % of the members.

    Returns
    -------
    Cluster
        With k = 5, or all members where there are fewer.

    Raises
    ------
    ValueError
        If no row has this label.
    """
    named = np.asarray(labels)
    is_member = np.asarray(named == label)
    if is_member.shape != named.shape or not is_member.any():
        known = ", ".join(map(repr, np.unique(named).tolist()[:10]))
        raise ValueError(f"target {label!r} is none of the labels of the other rows: {known}")
    members = Y[is_member]
    if tolerance is None:
        tolerance = max(spacing(members, CROWDED), spacing(Y))
    others = None if is_member.all() else KDTree(Y[~is_member])
    return Cluster(KDTree(members), others, min(N_NEIGHBORS, len(members)), tolerance)


def spacing(Y: Array, quantile: float = 0.5) -> float:
    """Distance from each place (M, K) to the fifth nearest other one: its median over places.

    Parameters
    ----------
    Y : ndarray of shape (M, K)
        Places.
    quantile : float
        Another quantile than the median.

    Returns
    -------
    float
        In map units; 0 for a single place.
    """
    if len(Y) < 2:
        return 0.0
    k = min(N_NEIGHBORS, len(Y) - 1)
    distance, _ = KDTree(Y).query(Y, [k + 1])  # the first neighbour is the place itself
    return float(np.quantile(distance, quantile))


def _unit(v: Array) -> Array:
    length = np.linalg.norm(v)
    return v / length if length > 0 else v
