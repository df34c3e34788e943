"""The map while it is trained."""

import logging
import math
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ptsne.plots.palette import BLUE, TITLE, paper_panels
from ptsne.plots.places import dot_size
from ptsne.plots.scatter import Names, bare, groups_of, name_groups, row_colors
from ptsne.training import Record

logger = logging.getLogger(__name__)

Places = NDArray[Any]

SHARE_OF_TIME = 0.05
"""Of the training's time that frames may take, unless `every` is given."""
FIRST_FRAME = 0.15
"""Seconds that the first frame is expected to take."""
LAST_PHASE = "fine-tuning"
DOTS_PER_INCH = 120


class LiveMap:
    """A callback that draws the map of the training rows while it is trained.

    In a notebook the picture replaces itself; with a window it moves; with `path` every frame is
    written as a numbered PNG file. By default frames are as many as fit into a twentieth of the
    time of training, and one of the finished map. Closing the window ends the drawing, never the
    training.

    What to read: islands form under early exaggeration and then spread; a KL that still falls at
    the end asks for more iterations.

    Parameters
    ----------
    y : array-like of shape (N,), optional
        Classes or a quantity of the training rows, for the colours, as in `ptsne.plots.map`.
    names : sequence or mapping, optional
        Names of the classes.
    every : int, optional
        Draw at each iteration that this number divides, however long it takes; an iteration is
        announced at every tenth in some phases.
    path : path-like, optional
        Folder for the frames, made if it is not there.

    Raises
    ------
    ValueError
        If `every` is below 1; in training, if `y` does not have one value for each row.

    Attributes
    ----------
    figure : matplotlib Figure or None
        The last frame; None before the first.
    n_frames : int
        Frames drawn in the last training.
    seconds : float
        Time that they took.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> from ptsne.plots import LiveMap
    >>> iris = load_iris()
    >>> live = LiveMap(iris.target, names=iris.target_names, every=50)
    >>> map_ = ParametricTSNE(max_iter=100, callbacks=live, random_state=0).fit(iris.data)
    >>> live.n_frames > 1
    True
    """

    def __init__(
        self,
        y: ArrayLike | None = None,
        *,
        names: Names | None = None,
        every: int | None = None,
        path: Any = None,
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every must be at least 1 iteration; got {every!r}")
        self.y, self.names, self.every = y, names, every
        self.path = None if path is None else Path(path)
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        """Settings alone: scikit-learn copies callbacks, and figures are not for copying."""
        return {name: getattr(self, name) for name in ("y", "names", "every", "path")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """Forget an earlier training."""
        self.figure: Figure | None = None
        self.n_frames, self.seconds = 0, 0.0
        self._screen: _Screen | None = None
        self._curve: list[tuple[float, float]] = []
        self._was_closed = False
        self._last_second = -math.inf

    def __call__(self, record: Record) -> None:
        """Draw a frame where one is due."""
        if record.seconds < self._last_second:
            self._begin()  # another training
        self._last_second = record.seconds
        if self.path is not None:
            self.path.mkdir(parents=True, exist_ok=True)
        if not math.isnan(record.kl):
            self._curve.append((record.seconds, record.kl))
        if self._was_closed or not self._is_due(record):
            return
        start = perf_counter()
        Y = record.embedding
        if Y is not None:
            self._frame(Y, record)
            self.seconds += perf_counter() - start

    def _is_due(self, record: Record) -> bool:
        if math.isnan(record.kl):
            return False
        is_last = record.phase == LAST_PHASE and record.iteration == record.n_iterations
        if self.every is not None:
            return is_last or record.iteration % self.every == 0
        expected = self.seconds / self.n_frames if self.n_frames else FIRST_FRAME
        return is_last or self.seconds + expected <= SHARE_OF_TIME * record.seconds

    def _frame(self, Y: Places, record: Record) -> None:
        """Draw one frame and hand it out; what goes wrong on the screen ends the drawing only."""
        if self._screen is None:
            self._screen = _Screen(Y, self.y, self.names)
            self.figure = self._screen.figure
        elif self._screen.is_closed():
            logger.info("the window of the live map was closed; training goes on without it")
            self._was_closed = True
            return
        self._screen.draw(Y, self._curve, record)
        self.n_frames += 1
        try:
            self._screen.show(self._file())
        except Exception as error:  # a window that closes just now, a full disk, ...
            logger.warning("the live map stopped (%s); training goes on without it", error)
            self._was_closed = True

    def _file(self) -> Path | None:
        return None if self.path is None else self.path / f"frame-{self.n_frames:04d}.png"


class _Screen:
    """One figure: the map, and the KL divergence below it."""

    def __init__(self, Y: Places, y: ArrayLike | None, names: Names | None) -> None:
        self._groups = groups_of(y, names, len(Y))
        self._order = np.random.default_rng(0).permutation(len(Y))  # no class on top of the others
        colors = row_colors(y, names, len(Y))[self._order]
        panels = paper_panels(None, (2, 1), (3.6, 4.4), height_ratios=(5, 1))[:, 0]
        self._map, self._kl = panels
        self.figure: Figure = self._map.figure
        bare(self._map, n_components=2)
        self._map.set_aspect("equal", adjustable="box")
        self._dots = self._map.scatter(
            *_plane(Y)[self._order].T, s=1.5 * dot_size(len(Y)), c=colors, linewidths=0
        )
        (self._line,) = self._kl.plot([], [], color=BLUE, linewidth=1)
        self._kl.set(xlabel="seconds of training", ylabel="KL, nats")
        self._kl.spines[["top", "right"]].set_visible(False)
        self._shell = _notebook()
        self._display: Any = None
        if self._shell is not None:
            plt.close(self.figure)  # else it would be shown a second time below the cell

    def is_closed(self) -> bool:
        """Whether the reader closed the window."""
        return self._shell is None and not plt.fignum_exists(self.figure.number)

    def draw(self, Y: Places, curve: list[tuple[float, float]], record: Record) -> None:
        """Move the points, the names and the curve to this moment."""
        points = _plane(Y)
        self._dots.set_offsets(points[self._order])
        low, high = points.min(0), points.max(0)
        margin = 0.04 * float((high - low).max()) or 1.0
        self._map.set(xlim=(low[0] - margin, high[0] + margin))
        self._map.set(ylim=(low[1] - margin, high[1] + margin))
        for text in list(self._map.texts):
            text.remove()
        if self._groups is not None and len(self._groups.names) <= 20:
            name_groups(self._map, points, self._groups, is_strip=False)
        words = f"{record.phase} {record.iteration} of {record.n_iterations}, KL {record.kl:.3f}"
        self._map.set_title(words, fontsize=TITLE)
        self._line.set_data(*np.array(curve).T)
        self._kl.relim()
        self._kl.autoscale_view()

    def show(self, file: Path | None) -> None:
        """Hand the frame to the folder, the notebook, the window, or nobody."""
        if file is not None:
            self.figure.savefig(file, dpi=DOTS_PER_INCH)
        if self._shell is not None:
            self._show_in_notebook()
        elif getattr(self.figure.canvas, "required_interactive_framework", None):
            self.figure.show()
            self.figure.canvas.draw_idle()
            self.figure.canvas.flush_events()

    def _show_in_notebook(self) -> None:
        if self._display is None:
            self._display = self._shell.display(self.figure, display_id=True)
        else:
            self._display.update(self.figure)


def _plane(Y: Places) -> Places:
    """Two coordinates of a map of one, two or three dimensions."""
    if Y.shape[1] > 1:
        return Y[:, :2]
    jitter = np.random.default_rng(0).uniform(-0.05, 0.05, (len(Y), 1)).astype(Y.dtype)
    return np.hstack([Y, jitter * np.ptp(Y)])


def _notebook() -> Any:
    """IPython's display module where this runs in a notebook, else None."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return import_module("IPython.display") if hasattr(shell, "kernel") else None
