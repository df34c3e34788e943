"""What an update has changed: how far known rows moved, and what became of quality."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptsne.metrics import neighbor_recall, trustworthiness
from ptsne.updating.stream import stack

if TYPE_CHECKING:
    import pandas as pd

Places = NDArray[np.floating]

JUDGED_ROWS = 2000
NEIGHBORS = 15


class Movement(NamedTuple):
    """How far rows moved on the map, in map units: nothing is rotated or shifted first.

    Attributes
    ----------
    median, p95, largest : float
        Over the rows.
    n_rows : int
        How many were looked at.
    n_moved : int
        How many of them moved more than rounding does.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.updating.drift import Movement
    >>> Movement.between(np.zeros((2, 2)), np.array([[0.0, 0.0], [3.0, 4.0]])).largest
    5.0
    """

    median: float
    p95: float
    largest: float
    n_rows: int
    n_moved: int

    @classmethod
    def between(cls, before: Places, after: Places) -> "Movement":
        """Of rows from places `before` to `after`.

        Parameters
        ----------
        before, after : ndarray of shape (N, K)
            Places of the same rows.

        Returns
        -------
        Movement
            How many of them moved, and how far; zeros of no rows.

        Examples
        --------
        >>> import numpy as np
        >>> from ptsne.updating.drift import Movement
        >>> Movement.between(np.zeros((2, 2)), np.array([[0.0, 0.0], [3.0, 4.0]])).n_moved
        1
        """
        way = np.linalg.norm(after - before, axis=1)
        if not len(way):
            return cls(0.0, 0.0, 0.0, 0, 0)
        rounding = 1e-9 * max(1.0, float(np.abs(before).max()))
        largest = float(way.max())
        middle, high = (float(q) for q in np.quantile(way, [0.5, 0.95]))
        return cls(middle, high, largest, len(way), int((way > rounding).sum()))


class Quality(NamedTuple):
    """How well neighbours are kept; NaN where there are too few rows to tell.

    Attributes
    ----------
    recall : float
        Share of the nearest rows in the data that are nearest on the map.
    trustworthiness : float
        1 is best, about .5 is chance.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.updating.drift import Quality
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> Quality.of(X, 3 * X, "euclidean")
    Quality(recall=1.0, trustworthiness=1.0)
    """

    recall: float
    trustworthiness: float

    @classmethod
    def of(cls, rows: Any, places: Places, metric: str) -> "Quality":
        """Of rows at their places, each among the others.

        Parameters
        ----------
        rows : array or sparse matrix of shape (N, D)
            Rows.
        places : ndarray of shape (N, K)
            Their places on the map.
        metric : str
            Metric of the rows.

        Returns
        -------
        Quality
            Recall and trustworthiness; NaN of fewer than 4 rows.

        Examples
        --------
        >>> import numpy as np
        >>> from ptsne.updating.drift import Quality
        >>> X = np.random.default_rng(0).normal(size=(60, 5))
        >>> Quality.of(X, X[:, :2], "euclidean").recall < 1  # three columns are not shown
        True
        """
        k = min(NEIGHBORS, (rows.shape[0] - 1) // 3)
        if k < 1:
            return cls(np.nan, np.nan)
        how: dict[str, Any] = {"n_neighbors": k, "metric": metric}
        return cls(neighbor_recall(rows, places, **how), trustworthiness(rows, places, **how))


class Qualities(NamedTuple):
    """Quality of the watched rows, the new rows, and both together, each among its own kind.

    Attributes
    ----------
    old, new, all : Quality
        Of at most 2,000 watched rows, as many new ones, and both.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.updating.drift import Qualities
    >>> X, new = np.random.default_rng(0).normal(size=(2, 60, 2))
    >>> Qualities.of(X, 3 * X, new, 3 * new, "euclidean").all.recall
    1.0
    """

    old: Quality
    new: Quality
    all: Quality

    @classmethod
    def of(
        cls, old: Any, old_places: Places, new: Any, new_places: Places, metric: str
    ) -> "Qualities":
        """Of old rows, of new rows, and of all of them together.

        Parameters
        ----------
        old, new : array or sparse matrix of shape (N, D), (M, D)
            Rows.
        old_places, new_places : ndarray of shape (N, K), (M, K)
            Their places on the map.
        metric : str
            Metric of the rows.

        Returns
        -------
        Qualities
            Of each part among itself, and of all rows.

        Examples
        --------
        >>> import numpy as np
        >>> from ptsne.updating.drift import Qualities
        >>> X, new = np.random.default_rng(0).normal(size=(2, 60, 2))
        >>> found = Qualities.of(X, 3 * X, new, 3 * new[::-1], "euclidean")
        >>> found.old.recall, found.new.recall < 1  # the new rows lie in each other's places
        (1.0, True)
        """
        a, b = judged(len(old_places)), judged(len(new_places))
        rows, places = (old[a], new[b]), (old_places[a], new_places[b])
        every = stack(list(rows)), np.concatenate(places)
        pairs = [*zip(rows, places, strict=True), every]
        return cls(*(Quality.of(X, Y.astype(np.float64), metric) for X, Y in pairs))


@dataclass(frozen=True)
class Drift:
    """Report of one update.

    Attributes
    ----------
    witnesses : str
        Known rows whose movement was watched: those at hand, else what a saved map keeps.
    movement : Movement
        Of these rows, in map units.
    tolerance : float
        Farthest that any of them was allowed to move, in map units.
    spread : float
        Root mean square distance of the map's landmarks from their middle, in map units.
    neighbor_distance : float
        Median distance on the map from a watched row to the nearest other, in map units.
    n_new, n_novel : int
        New rows, and those of them in groups unlike anything known.
    n_held : int
        New rows that new landmarks hold.
    n_landmarks, n_new_landmarks, n_vetoed : int
        Landmarks now, those that were added, and those that were not, because a known row would
        have moved too far.
    n_new_directions : int
        Directions by which the code was widened, so that it sees what it was blind to.
    n_unseen : int
        New rows of groups that the code does not bring back, and could not be widened for: they
        may lie on islands of rows that they only seem to be like.
    before, after : Qualities
        Quality of watched rows, new rows and both.
    n_unwatched : int
        Known rows of which the map has nothing any more: they may have moved farther.
    n_guards : int
        Of the added landmarks, those that stand at known rows and keep them where they were.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> X = load_iris().data
    >>> map_ = ParametricTSNE(perplexity=20, max_iter=50, random_state=0).fit(X[50:])
    >>> drift = map_.update(X[:50]).drift_  # setosa, which the map has never seen
    >>> drift.n_novel, drift.n_new_landmarks > 0, drift.movement.largest
    (50, True, 0.0)
    """

    witnesses: str
    movement: Movement
    tolerance: float
    spread: float
    neighbor_distance: float
    n_new: int
    n_novel: int
    n_held: int
    n_landmarks: int
    n_new_landmarks: int
    n_vetoed: int
    n_new_directions: int
    n_unseen: int
    before: Qualities
    after: Qualities
    n_unwatched: int = 0
    n_guards: int = 0

    @property
    def novel_share(self) -> float:
        """Share of the new rows that were novel."""
        return self.n_novel / max(1, self.n_new)

    def to_frame(self) -> "pd.DataFrame":
        """All numbers as a table.

        Returns
        -------
        DataFrame
            Columns quantity, value and unit.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(perplexity=20, max_iter=50, random_state=0).fit(X[50:])
        >>> table = map_.update(X[:50]).drift_.to_frame()
        >>> float(table.set_index("quantity").loc["novel", "value"])
        50.0
        >>> sorted(set(table["unit"]))
        ['count', 'map units', 'neighbor distance', 'share', 'spread of the map']
        """
        import pandas as pd  # noqa: PLC0415 - slow to import, and few updates are tabulated

        moved = [("median", "median"), ("95th percentile", "p95"), ("largest", "largest")]
        lines: list[tuple[str, float, str]] = []
        for word, name in moved:
            way = float(getattr(self.movement, name))
            lines += [
                (f"movement, {word}", way, "map units"),
                (f"movement, {word}", way / (self.spread or 1.0), "spread of the map"),
                (f"movement, {word}", way / (self.neighbor_distance or 1.0), "neighbor distance"),
            ]
        lines.append(("tolerance", self.tolerance, "map units"))
        counts = [name for name in self.__dataclass_fields__ if name.startswith("n_")]
        lines += [(name[2:].replace("_", " "), getattr(self, name), "count") for name in counts]
        for when in ("before", "after"):
            for kind, quality in getattr(self, when)._asdict().items():
                of = quality._asdict().items()
                lines += [(f"{name}, {kind} rows, {when}", value, "share") for name, value in of]
        return pd.DataFrame(lines, columns=["quantity", "value", "unit"])

    def __str__(self) -> str:
        """Say it in sentences."""
        m = self.movement
        guards = f" ({self.n_guards} of them keep known rows in place)" if self.n_guards else ""
        lines = [
            f"{self.n_new} new rows, {self.n_novel} of them ({self.novel_share:.0%}) in groups "
            f"unlike anything known; {self.n_new_landmarks} landmarks added{guards}, "
            f"{self.n_vetoed} vetoed, {self.n_landmarks} in all",
            f"{m.n_moved} of {m.n_rows} watched rows ({self.witnesses}) moved: median "
            f"{m.median:.3g}, 95th percentile {m.p95:.3g}, largest {m.largest:.3g} map units "
            f"(allowed {self.tolerance:.3g}; the map's spread is {self.spread:.3g}, a neighbor "
            f"{self.neighbor_distance:.3g} away)",
            *(
                f"{kind} rows: {_change(getattr(self.before, kind), getattr(self.after, kind))}"
                for kind in Qualities._fields
            ),
        ]
        if self.n_new_directions:
            lines.insert(1, f"the code was widened by {self.n_new_directions} directions")
        if self.n_unseen > self.n_new // 20:
            lines.append(
                f"{self.n_unseen} new rows differ from the known ones in what the code leaves out, "
                "and may lie among rows unlike them; fit again on old and new rows"
            )
        if self.n_unwatched:
            lines.append(
                f"{self.n_unwatched} known rows were not watched, and may have moved farther: pass "
                "them as keep, or save maps with their codes"
            )
        return "\n".join(lines)


def judged(n_rows: int) -> slice:
    """Evenly spread rows, at most some thousand, for which quality is measured."""
    return slice(None, None, -(-max(1, n_rows) // JUDGED_ROWS))


def _change(before: Quality, after: Quality) -> str:
    return (
        f"recall {before.recall:.3f} -> {after.recall:.3f}, trustworthiness "
        f"{before.trustworthiness:.3f} -> {after.trustworthiness:.3f}"
    )
