"""Where the map tears its rows apart, and where it squeezes them together."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from ptsne.explanation import Explanation
from ptsne.plots.cells import Cells, honeycomb
from ptsne.plots.palette import COLUMN, DEPARTURE, INK, paper_axes
from ptsne.plots.places import draw_places, map_height, require_plane

Array = NDArray[np.float64]


def local_stretch(
    why: Explanation, *, n_across: int = 12, min_rows: int = 3, ax: Axes | None = None
) -> Axes:
    r"""Draw how strongly the map stretches each row's surroundings, and in which direction.

    A point's colour is the first singular value of its W, the most map units that one unit of
    change in the columns can make there, relative to the median row. An ellipse is the mean shape
    of a cell of the map: what W makes of a small ball round a row, without its size.

    What to read: red is where the map tears: close rows come to lie far apart, so that a gap
    between islands says more about the map than about the rows; blue is where it squeezes rows
    together. A thin ellipse says that the rows there move along one line of the map only.

    Parameters
    ----------
    why : Explanation
        From ``map_.explain(X)`` of a map of two dimensions.
    n_across : int
        Cells along the longer side of the map.
    min_rows : int
        Cells with fewer rows have no ellipse.
    ax : matplotlib Axes, optional
        Where to draw; a new figure as wide as a column by default.

    Returns
    -------
    matplotlib Axes
        Axes with the points and one ellipse for each cell.

    Notes
    -----
    `ValueError` if the map does not have two dimensions. Stretch is measured in the columns' own
    units: where these differ, as in a pipeline that scales them, explain the map itself.

    References
    ----------
    Aupetit 2007, Visualizing distortions and recovering topology in continuous projection
    techniques.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE, plots
    >>> X = load_iris().data
    >>> why = ParametricTSNE(max_iter=60, random_state=0).fit(X).explain(X)
    >>> ax = plots.local_stretch(why)
    >>> len(ax.collections[0].get_offsets())
    150
    """
    require_plane(why.Y)
    ax = paper_axes(map_height(why.Y, COLUMN) + 0.65) if ax is None else ax
    weight = np.asarray(why.weight, np.float64)
    gram = weight @ weight.transpose(0, 2, 1)  # (N, 2, 2); its eigenvalues are squared stretches
    factor = _log_stretch(gram)
    limit = max(1.0, float(np.quantile(np.abs(factor), 0.95)))
    label = (
        "largest stretch by W, relative to the median row\n"
        "ellipses: what W makes of a ball, drawn with equal length"
    )
    scale = Normalize(-limit, limit, clip=True)
    bar = draw_places(ax, why.Y, factor, scale=scale, colors=DEPARTURE, label=label, extend="both")
    ticks = np.arange(np.ceil(-limit), np.floor(limit) + 1)
    ticks = ticks[:: max(1, len(ticks) // 7)]
    bar.set_ticks(ticks, labels=[_factor(tick) for tick in ticks])
    cells = honeycomb(np.asarray(why.Y, np.float64), n_across)
    ax.add_collection(_ellipses(ax, gram, cells, min_rows))
    return ax


def _log_stretch(gram: Array) -> Array:
    """Binary logarithm (N,) of the first singular value over its median."""
    first = np.sqrt(np.clip(np.linalg.eigvalsh(gram)[:, -1], 0, None))
    middle = float(np.median(first[first > 0])) if (first > 0).any() else 1.0
    factor: Array = np.log2(np.maximum(first / middle, 2.0**-20))
    return factor


def _factor(power: float) -> str:
    """2 as "x4", -2 as "x1/4"."""
    return f"\u00d7{2 ** int(power)}" if power >= 0 else f"\u00d71/{2 ** int(-power)}"


def _ellipses(ax: Axes, gram: Array, cells: Cells, min_rows: int) -> EllipseCollection:
    """Mean of W W' over each cell, every row with equal weight, as ellipses of equal length."""
    size = np.trace(gram, axis1=1, axis2=2)[:, None, None]
    shape = cells.mean(np.divide(gram, size, out=np.zeros_like(gram), where=size > 0))
    kept = cells.size >= min_rows
    values, vectors = np.linalg.eigh(shape[kept])
    long, short = np.sqrt(np.clip(values[:, ::-1], 0, None)).T
    ratio = np.divide(short, long, out=np.ones_like(long), where=long > 0)
    length = 0.65 * cells.width * (long > 0)
    return EllipseCollection(
        length,
        length * ratio,
        np.degrees(np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1])),
        units="xy",
        offsets=cells.place[kept],
        offset_transform=ax.transData,
        facecolors="none",
        edgecolors=INK,
        linewidths=0.6,
    )
