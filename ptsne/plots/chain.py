"""The chain of one row: features, latent coordinates, displacement on the map."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from ptsne.explanation import Explanation
from ptsne.plots.lengths import direction
from ptsne.plots.palette import BLUE, GRAY, HALO, INK, RED, SMALL, paper_axes, shortened, signed

Array = NDArray[np.float64]

_NODE = 0.03  # width of a node; the picture is 2 wide


class _Flow(NamedTuple):
    """Signed lengths along the way, from feature to latent coordinate; others last."""

    length: Array  # (features, coordinates)
    features: list[str]
    coordinates: list[str]


def chain(
    why: Explanation,
    i: int,
    *,
    n_features: int = 6,
    n_coordinates: int = 4,
    ax: Axes | None = None,
) -> Axes:
    r"""Draw how one row's features reach the map through the latent coordinates.

    The two stages of the map, encoder and projection, are affine at the row. Feature f moves the
    row on its way d from the baseline's place by

    .. math:: \sum_l T_{fl}, \quad T_{fl} = \frac{d}{|d|} \cdot W^p_l\, W^e_{lf}
              (x_f - \text{baseline}_f)

    by way of the latent coordinates l; everything sums to :math:`|d|`. A ribbon is as wide as its
    part is large: red parts go towards the row's place, blue parts hold it back.

    What to read: the numbers beside the nodes are sums, in map units. Many wide ribbons of both
    colours into a coordinate with a small sum mean that the features cancel each other there.

    Parameters
    ----------
    why : Explanation
        From ``map_.explain(X)``.
    i : int
        Row of the explanation.
    n_features, n_coordinates : int
        How many to draw by themselves; the others are summed in one more of each.
    ax : matplotlib Axes, optional
        Where to draw; a new figure as wide as a column by default.

    Returns
    -------
    matplotlib Axes
        Axes with one ribbon for each feature and coordinate, and one from each coordinate to the
        map.

    Raises
    ------
    ValueError
        If there is no such row.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE, plots
    >>> X = load_iris().data
    >>> why = ParametricTSNE(max_iter=60, random_state=0).fit(X).explain(X)
    >>> ax = plots.chain(why, 0)
    >>> ax.texts[-1].get_text().splitlines()[1]
    'map units'
    """
    if not -len(why.Y) <= i < len(why.Y):
        raise ValueError(f"there is no row {i}; this explanation has {len(why.Y)} rows")
    flow = _flow(why, i, n_features, n_coordinates)
    rows = max(len(flow.features), len(flow.coordinates))
    ax = paper_axes(0.6 + 0.36 * rows) if ax is None else ax
    ax.set(xlim=(-0.04, 2.3), ylim=(1.04, -0.1))
    ax.set_axis_off()
    _draw(ax, flow)
    return ax


def _flow(why: Explanation, i: int, n_features: int, n_coordinates: int) -> _Flow:
    """T of one row (D, L), its largest rows and columns, and the others as one of each."""
    way = direction(why.contributions[i])
    to_code = why.encoder.weight[i] * (why.X[i] - why.baseline[i])  # (L, D)
    length = (to_code * (way @ why.projection.weight[i])[:, None]).T
    of_feature = np.argsort(-np.abs(length.sum(1)), kind="stable")
    of_coordinate = np.argsort(-np.abs(length.sum(0)), kind="stable")
    length = length[of_feature][:, of_coordinate]
    length = _folded(_folded(length, n_features).T, n_coordinates).T
    features = [shortened(why.feature_names[f], 18) for f in of_feature[:n_features]]
    coordinates = [f"z{c}" for c in of_coordinate[:n_coordinates]]
    features += [f"{len(of_feature) - n_features} others"] * (len(of_feature) > n_features)
    n_left = len(of_coordinate) - n_coordinates
    coordinates += [f"{n_left} other z"] * (n_left > 0)
    return _Flow(length, features, coordinates)


def _folded(values: Array, n: int) -> Array:
    """The first n rows, and the sum of all others as one more."""
    if len(values) <= n:
        return values
    return np.vstack([values[:n], values[n:].sum(0)])


def _draw(ax: Axes, flow: _Flow) -> None:
    """Three columns of nodes with ribbons between them."""
    gross = float(np.abs(flow.length).sum()) or 1.0
    n_nodes = max(flow.length.shape)
    gap = 0.35 / (n_nodes + 1)  # room for a line of text
    scale = (1 - gap * (n_nodes - 1)) / gross
    size, net = np.abs(flow.length) * scale, flow.length.sum(0) * scale  # (coordinates,)
    left, middle = _tops(size.sum(1), gap), _tops(size.sum(0), gap)
    end = _tops(np.abs(net), 0.0)
    out = left[:, None] + np.cumsum(size, 1) - size  # upper edge of each ribbon where it leaves
    into = middle[None, :] + np.cumsum(size, 0) - size
    for f, c in np.ndindex(*size.shape):
        _ribbon(ax, (0 + _NODE, out[f, c], into[f, c]), size[f, c], flow.length[f, c])
    leave = middle + (size.sum(0) - np.abs(net)) / 2
    for c, value in enumerate(net):
        _ribbon(ax, (1 + _NODE, leave[c], end[c]), abs(value), value)
    _nodes(ax, 0.0, left, size.sum(1))
    _nodes(ax, 1.0, middle, size.sum(0))
    _nodes(ax, 2 - _NODE, end[:1], np.abs(net).sum(keepdims=True))
    _words(ax, flow, (left + size.sum(1) / 2, middle, end[0] + np.abs(net).sum() / 2))


def _tops(size: Array, gap: float) -> Array:
    """Upper edges of nodes one below the other, centred."""
    whole = size.sum() + gap * (len(size) - 1)
    return np.asarray((1 - whole) / 2 + np.cumsum(size + gap) - size - gap)


def _ribbon(ax: Axes, place: tuple[float, Any, Any], width: Any, value: Any) -> None:
    """A band of constant height from a node to one unit further right."""
    x, top, goal = place
    x_end, middle = np.floor(x) + 1 - (_NODE if x > 1 else 0), np.floor(x) + 0.5
    corners = [
        *((x, top), (middle, top), (middle, goal), (x_end, goal), (x_end, goal + width)),
        *((middle, goal + width), (middle, top + width), (x, top + width), (x, top)),
    ]
    curve = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    color = RED if value > 0 else BLUE
    ax.add_patch(PathPatch(Path(corners, curve), facecolor=color, alpha=0.55, linewidth=0))


def _nodes(ax: Axes, x: float, tops: Array, heights: Array) -> None:
    for top, height in zip(tops, heights, strict=True):
        ax.add_patch(Rectangle((x, top), _NODE, height, facecolor=GRAY, linewidth=0))


def _words(ax: Axes, flow: _Flow, places: tuple[Array, Array, float]) -> None:
    """Name and sum of every node."""
    left, middle, end = places
    text: dict[str, Any] = {"fontsize": SMALL, "color": INK, "path_effects": HALO}
    for name, y, value in zip(flow.features, left, flow.length.sum(1), strict=True):
        ax.text(-0.03, y, f"{name} {signed(value)}", ha="right", va="center", **text)
    for name, y, value in zip(flow.coordinates, middle, flow.length.sum(0), strict=True):
        ax.text(1, y - 0.006, f"{name} {signed(value)}", ha="center", va="bottom", **text)
    total = flow.length.sum()
    ax.text(2.03, end, f"{total:.3g}\nmap units", va="center", **text)
