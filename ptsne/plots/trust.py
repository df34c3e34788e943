"""Which places of the map are to be believed."""

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike

from ptsne.explanation import Explanation
from ptsne.plots.palette import AMOUNT, COLUMN, INK, TITLE, paper_axes
from ptsne.plots.places import dot_size, draw_places, map_height, require_plane, row_values


def trust(
    why: Explanation,
    percentile: ArrayLike | None = None,
    *,
    beyond: float = 95.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw the map with each row coloured by how unusual it is among the training rows.

    What to read: a row at percentile 80 is stranger than 80 % of the training rows. Rows beyond
    the limit are ringed: they are unlike what the map has learned, and their places, like
    everything that W says about them, are extrapolations.

    Parameters
    ----------
    why : Explanation
        From ``map_.explain(X)`` of a map of two dimensions.
    percentile : array-like of shape (N,), optional
        Numbers from 0 to 100; ``why.trust.percentile`` by default.
    beyond : float
        Percentile above which a row is ringed.
    ax : matplotlib Axes, optional
        Where to draw; a new figure as wide as a column by default.

    Returns
    -------
    matplotlib Axes
        Axes with the points, and rings round the strange ones.

    Raises
    ------
    ValueError
        If the map does not have two dimensions, or percentiles are not one number from 0 to 100
        for each row.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE, plots
    >>> X = load_iris().data
    >>> why = ParametricTSNE(max_iter=60, random_state=0).fit(X).explain(X[:3])
    >>> plots.trust(why, [10, 50, 99]).get_title()
    '1 of 3 rows beyond percentile 95'
    """
    require_plane(why.Y)
    values = why.trust.percentile if percentile is None else percentile
    values = row_values(values, len(why.Y), "trust")
    if values.min(initial=0) < 0 or values.max(initial=0) > 100:
        raise ValueError(
            f"percentiles must lie between 0 and 100; got {values.min():.4g} to {values.max():.4g}"
        )
    ax = paper_axes(map_height(why.Y, COLUMN) + 0.7) if ax is None else ax
    label = "stranger than this share of the training rows, %"
    draw_places(ax, why.Y, values, scale=Normalize(0, 100), colors=AMOUNT, label=label)
    strange = values > beyond
    size = 3 * dot_size(len(values)) + 6
    x, y = why.Y[strange].T
    ax.scatter(x, y, s=size, facecolors="none", edgecolors=INK, linewidths=0.6)
    words = f"{strange.sum()} of {len(values)} rows beyond percentile {beyond:g}"
    ax.set_title(words, fontsize=TITLE)
    return ax
