"""Walking out of a target on the map: the smallest change that still lies in it.

Rows in the target are known: other rows, or rows that a climb has taken there. From such a row
inside, the way towards the change that is wanted is walked with the network itself, through all
linear regions, up to the point where it leaves the target. The exact map of the region beyond that
point tells in which direction of the data the target ends: one linear cut. The smallest change
under all cuts so far is wanted next, until the network says that it arrives. Where the target's
preimage is convex near the start, the cuts are its faces, and the change is the smallest one.

References
----------
Veinott 1967, The supporting hyperplane method for unimodal programming.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ptsne.explanation.arrival import Arrival
from ptsne.explanation.smallest import Limits, smallest_change
from ptsne.explanation.source import as_tensor
from ptsne.linearize.running import exact_arithmetic
from ptsne.networks import MapNetwork, apply_by_rows

Array = NDArray[Any]

MAX_CUTS = 100
"""Local maps taken from one start before it is given up."""

_DEPTH = 0.02  # of the target's size: cuts are made so far inside, so that a wanted change arrives
_GAP = 1e-3  # of the norm: what a change may be longer than the smallest under all cuts
_GAIN = 0.01  # of the norm: for less, a walk is not taken again
_CRUMB = 0.03  # of the largest change: less is not worth naming a feature for
_PULL = 0.5  # of the way to where it left the target: how far the row inside follows
_POINTS = 256  # asked on a way at once
_REFINEMENTS = 3
_WELL_INSIDE = 0.1  # of the target's size: where a climb ends
_CLIMBS = 20
_STEPS = np.array([1, 0.5, 0.25, 0.1, 0.03, 0.01])[:, None, None]


@dataclass(frozen=True)
class Quest:
    """One question to the network; changes are in units of each column's scale.

    Attributes
    ----------
    network : MapNetwork
        In eval mode.
    origin : ndarray of shape (D,), float64
        The row as it is.
    scale : ndarray of shape (D,)
        One unit of each column.
    dtype : numpy dtype
        Precision of the rows that the network gets.
    arrival : Arrival
        The target.
    limits : Limits
        What a change may be.
    maps : set of bytes
        Exact maps W that have been asked for.
    """

    network: MapNetwork
    origin: Array
    scale: Array
    dtype: Any
    arrival: Arrival
    limits: Limits
    maps: set[bytes]

    def rows(self, changes: Array) -> Array:
        """Changed rows."""
        rows: Array = (self.origin + self.scale * changes).astype(self.dtype)
        return rows

    def places(self, changes: Array) -> Array:
        """Where the network puts them, (M, K)."""
        return apply_by_rows(self.network, self.rows(changes))

    def margins(self, changes: Array) -> Array:
        """How deep they lie in the target, (M,)."""
        return self.arrival.margin(self.places(changes))

    def arrives(self, change: Array) -> bool:
        """Whether one change (D,) leads into the target."""
        return bool(self.margins(change[None])[0] >= 0)

    def local_maps(self, changes: Array) -> Array:
        """W (M, K, D) of their regions, in map units per unit of scale."""
        rows = as_tensor(self.origin + self.scale * changes, self.network)
        weight = _jacobian(self.network, rows).cpu().numpy()
        self.maps.update(W.tobytes() for W in weight)
        return np.asarray(weight * self.scale)


# ---- the search ----


def search(quest: Quest, known: Array, n_starts: int) -> Array:
    """Search for the shortest change that arrives.

    Parameters
    ----------
    quest : Quest
        The question.
    known : ndarray of shape (R, D)
        Changes that make known rows of the row, in units of scale, whatever the limits say.
    n_starts : int
        How many of them are starts.

    Returns
    -------
    ndarray of shape (D,)
        The shortest change found; where none arrives, the one that ends nearest.
    """
    origin = np.zeros(known.shape[1])
    if quest.arrives(origin):
        return origin
    trail = _Trail(quest)
    for inside in _inside(quest, known, n_starts):
        trail.add(_walk(quest, inside, trail.norm))
    if quest.limits.max_features < known.shape[1] or trail.best is None:
        _take_in(quest, trail, np.stack([*trail.short, *_partial(quest, known, n_starts)]))
    while trail.best is not None and trail.add(_again(quest, trail.best, trail.norm)):
        pass
    return trail.nearest() if trail.best is None else _shortened(quest, _tidy(quest, trail.best))


class _Trail:
    """What a search has found so far.

    Parameters
    ----------
    quest : Quest
        The question.
    longest : float
        Norm that is not worth noting.
    """

    def __init__(self, quest: Quest, longest: float = np.inf) -> None:
        self._quest = quest
        self.best: Array | None = None
        self.norm = longest
        self.short: list[Array] = [0 * quest.origin]

    def add(self, change: Array | None) -> bool:
        """Note a change; say whether it is clearly the shortest one that arrives."""
        if change is None:
            return False
        if not self._quest.arrives(change):
            self.short.append(change)
            return False
        before, norm = self.norm, float(self._quest.limits.length(change))
        if norm < before:
            self.best, self.norm = change, norm
        return norm < (1 - _GAIN) * before

    def nearest(self) -> Array:
        """Of the changes that do not arrive, the one that ends nearest."""
        return self.short[int(self._quest.margins(np.stack(self.short)).argmax())]


def _again(quest: Quest, change: Array, longest: float) -> Array | None:
    """Walk once more from where a walk ended, with new cuts, which are made near there."""
    climbed = _climb(quest, change[None])[0]
    return _walk(quest, climbed, longest) if quest.margins(climbed[None])[0] > 0 else None


def _tidy(quest: Quest, change: Array) -> Array:
    """Pull features that hardly change all the way back, where the others can make up for them."""
    is_crumb = np.abs(change) < _CRUMB * np.abs(change).max()
    if quest.limits.norm != "l1" or not (is_crumb & (change != 0)).any():
        return change
    trail = _Trail(quest, (1 + _CRUMB) * float(quest.limits.length(change)))
    _take_in(quest, trail, np.where(is_crumb, 0, change)[None])
    return change if trail.best is None else trail.best


def _shortened(quest: Quest, change: Array) -> Array:
    """The part of a change that arrives too: cuts are made a little inside the target."""
    last, _ = _exit(quest, change, np.zeros(len(change)), 0)
    return last


def _inside(quest: Quest, known: Array, n_starts: int) -> Array:
    """Rows (M, D) in the target to start from, whatever they change: the nearest ones first."""
    margin = quest.margins(known)
    inside = known[margin > 0]
    inside = inside[np.argsort(quest.limits.length(inside), kind="stable")]
    nearest = known[np.argsort(-margin, kind="stable")][: 0 if len(inside) else n_starts]
    climbed = _climb(quest, np.concatenate([0 * known[:1], nearest]))
    return np.concatenate([climbed[quest.margins(climbed) > 0], inside[:n_starts]])


def _partial(quest: Quest, known: Array, n_starts: int) -> Array:
    """Known rows (R, D) in their largest allowed changes alone: those deepest in the target."""
    limits = quest.limits
    within = np.clip(known, limits.low, limits.high)
    rank = np.argsort(np.argsort(-np.abs(within), axis=1, kind="stable"), axis=1)
    within[rank >= limits.max_features] = 0
    best = np.argsort(-quest.margins(within), kind="stable")[:n_starts]
    return np.asarray(within[best])


def _take_in(quest: Quest, trail: _Trail, changes: Array) -> None:
    """Take changes (M, D) into the target by the features they use, and make them small again."""
    limits, is_used = quest.limits, changes != 0
    low, high = np.where(is_used, limits.low, 0), np.where(is_used, limits.high, 0)
    climbed = _climb(quest, changes, low, high)
    for change, margin, *box in zip(climbed, quest.margins(climbed), low, high, strict=True):
        narrow = replace(quest, limits=replace(limits, low=box[0], high=box[1]))
        trail.add(_walk(narrow, change, trail.norm) if margin > 0 else change)


def _climb(
    quest: Quest, changes: Array, low: ArrayLike = -np.inf, high: ArrayLike = np.inf
) -> Array:
    """Take changes (M, D) into the target: by least-squares steps of each map, or more of them."""
    depth = _WELL_INSIDE * quest.arrival.reach
    for _ in range(_CLIMBS):
        places = quest.places(changes)
        margin = quest.arrival.margin(places)
        if (margin >= depth).all():
            break
        wanted = np.stack([quest.arrival.gradient(y) for y in places])
        wanted *= np.maximum(depth - margin, 0)[:, None]
        inverse = np.linalg.pinv(
            quest.local_maps(changes) * np.broadcast_to(np.less(low, high), changes.shape)[:, None]
        )
        step = np.einsum("mdk,mk->md", inverse, wanted)
        ways = np.concatenate([changes + _STEPS * step, changes + _STEPS * changes])
        trials = np.clip(ways, low, high)
        margins = quest.margins(trials.reshape(-1, changes.shape[1])).reshape(trials.shape[:2])
        best = margins.argmax(0), np.arange(len(changes))
        is_better = margins[best] > margin
        if not is_better.any():
            break
        changes = np.where(is_better[:, None], trials[best], changes)
    return changes


def _walk(quest: Quest, inside: Array, longest: float) -> Array | None:
    """Walk from a row in the target to the smallest change; tight limits may keep it outside.

    Parameters
    ----------
    quest : Quest
        The question.
    inside : ndarray of shape (D,)
        A change into the target, allowed or not.
    longest : float
        Norm from which on the walk is given up.

    Returns
    -------
    ndarray of shape (D,) or None
        The change; None if it was given up.
    """
    limits = quest.limits
    depth = min(_DEPTH * quest.arrival.reach, 0.5 * float(quest.margins(inside[None])[0]))
    G, h = np.zeros((0, len(inside))), np.zeros(0)
    best, wanted = None, np.zeros(len(inside))
    for _ in range(MAX_CUTS):
        smallest = smallest_change(G, h, limits)
        if smallest is None or _is_as_short(best, smallest, limits):
            break
        if limits.length(smallest) >= longest:
            return None
        wanted = smallest
        if quest.arrives(wanted):
            return wanted
        last, beyond = _exit(quest, inside, wanted, depth)
        if limits.allows(last) and not _is_as_short(best, last, limits):
            best = last
        normal = _cut(quest, beyond)
        if normal @ wanted >= normal @ last:  # the map bends away: this start has no more to tell
            break
        G, h = np.vstack([G, normal]), np.append(h, normal @ last)
        inside = inside + _PULL * (last - inside)
    return wanted if best is None else best


def _is_as_short(best: Array | None, change: Array, limits: Limits) -> bool:
    return best is not None and bool(limits.length(best) <= (1 + _GAP) * limits.length(change))


def _exit(quest: Quest, inside: Array, outside: Array, depth: float) -> tuple[Array, Array]:
    """Last change within the target on a straight way out of it, and the next one beyond."""
    low, high = 0.0, 1.0
    for _ in range(_REFINEMENTS):
        times = np.linspace(low, high, _POINTS)
        margins = quest.margins(inside + times[:, None] * (outside - inside))
        is_beyond = margins[1:-1] < depth  # the ends are known
        first = int(is_beyond.argmax()) + 1 if is_beyond.any() else _POINTS - 1
        low, high = times[first - 1], times[first]
    return inside + low * (outside - inside), inside + high * (outside - inside)


def _cut(quest: Quest, change: Array) -> Array:
    """Unit normal (D,) of the margin's level at a change, by the exact map of its region."""
    W = quest.local_maps(change[None])[0]
    normal = quest.arrival.gradient(quest.places(change[None])[0]) @ W
    length = np.linalg.norm(normal)
    return np.asarray(normal / length if length > 0 else normal)


def _jacobian(network: nn.Module, x: Tensor) -> Tensor:
    """W (M, K, D) of rows (M, D), which is the derivative inside a linear region."""
    with exact_arithmetic(x.device), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        y = network(x)
        sums = y.sum(0)
        rows = [torch.autograd.grad(total, x, retain_graph=True)[0] for total in sums]
    return torch.stack(rows, 1)
