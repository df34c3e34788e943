"""The linear regions that the rows live in: how many, how full, how wide, how different."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from ptsne.affinities import nearest_neighbors
from ptsne.explanation import Explanation
from ptsne.plots.palette import AMOUNT, BLUE, COLUMN, GRAY, INK, SMALL, paper_panels
from ptsne.plots.places import draw_places, map_height, require_plane

Array = NDArray[np.float64]


def region_census(
    why: Explanation,
    *,
    n_neighbors: int = 5,
    radii: ArrayLike | None = None,
    ax: Axes | None = None,
) -> NDArray[np.object_]:
    r"""Draw how many linear regions the rows live in, and where W changes from row to row.

    Rows with equal W and b are counted as one region. The map's colours are the mean of
    :math:`|W_i - W_j| / \max(|W_i|, |W_j|)` over the nearest rows j in the data: 0 where neighbours
    share their linear map, above 1 where it has nothing in common or is reversed.

    What to read: few full regions and pale islands mean that one explanation speaks for a whole
    neighbourhood; a region for every row, small radii and dark points mean that each W holds for
    its own row only.

    Parameters
    ----------
    why : Explanation
        From ``map_.explain(X)`` of a map of two dimensions.
    n_neighbors : int
        Nearest explained rows that each row is compared with.
    radii : array-like of shape (N,), optional
        ``why.radius()``, where it is at hand; else it is computed.
    ax : matplotlib Axes, optional
        Area to draw in, one of ``plt.subplots()``; a new figure as wide as a column by default.

    Returns
    -------
    ndarray of matplotlib Axes, shape (3,)
        The map; rows of each region, the fullest first; histogram of the radii.

    Raises
    ------
    ValueError
        If the map does not have two dimensions, there is but one row, or `radii` do not fit.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE, plots
    >>> X = load_iris().data
    >>> why = ParametricTSNE(max_iter=60, random_state=0).fit(X).explain(X)
    >>> map_ax, sizes_ax, radii_ax = plots.region_census(why)
    >>> int(sizes_ax.patches[0].get_data().values.sum())
    150
    """
    require_plane(why.Y)
    if len(why.Y) < 2:
        raise ValueError("a census compares rows: explain at least 2")
    radius = np.asarray(why.radius() if radii is None else radii, dtype=np.float64)
    if radius.shape != (len(why.Y),):
        raise ValueError(
            f"radii must have one number for each of the {len(why.Y)} rows; "
            f"got shape {radius.shape}"
        )
    height = map_height(why.Y, COLUMN) + 0.5
    areas = paper_panels(ax, (2, 1), (COLUMN, height + 1.2), height_ratios=(height, 1.2))
    map_area, low_area = areas[:, 0]
    sizes_ax, radii_ax = paper_panels(low_area, (1, 2), (COLUMN, 1.4))[0]
    _changes(map_area, why, n_neighbors)
    _sizes(sizes_ax, _regions(why))
    _radii(radii_ax, radius)
    return np.array([map_area, sizes_ax, radii_ax])


def _regions(why: Explanation) -> NDArray[np.int64]:
    """Rows (R,) of each region, the fullest first."""
    mixed, rounding = _fingerprints(why)
    # Rounding in the last digits, which depends on how rows were grouped, must not make regions:
    # rows are put into wide cells, and cells whose rows are closer than rounding are joined.
    cells = np.rint(mixed / (16 * rounding))
    _, first, cell = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    pairs = KDTree(mixed[first]).query_pairs(4 * rounding, p=np.inf, output_type="ndarray")
    ones = np.ones(len(pairs), dtype=bool)
    graph = csr_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(first), len(first)))
    _, region = connected_components(graph, directed=False)
    return np.sort(np.bincount(region[cell.ravel()]))[::-1]


def _fingerprints(why: Explanation) -> tuple[Array, float]:
    """Four random combinations of each row's W and b (N, 4), and how far rounding moves them."""
    maps = np.concatenate(
        [
            _unit_size((why.weight * why.X.std(0)).reshape(len(why.Y), -1)),
            _unit_size(np.asarray(why.intercept)),
        ],
        axis=1,
    )
    mixing = np.random.default_rng(0).normal(size=(maps.shape[1], 4))
    digits = 1e-9 if why.weight.dtype == np.float64 else 1e-5
    return maps @ mixing, digits * float(np.sqrt(maps.shape[1]))


def _unit_size(values: Array) -> Array:
    """Values with 1 as the largest."""
    return np.asarray(values, np.float64) / (np.abs(values).max(initial=0) or 1.0)


def _relative_change(why: Explanation, n_neighbors: int) -> Array:
    """Mean (N,) of |W_i - W_j| over the larger of |W_i| and |W_j|, over the nearest rows j."""
    weight = why.weight.reshape(len(why.Y), -1).astype(np.float64)
    near = nearest_neighbors(why.X, min(n_neighbors, len(weight) - 1)).indices
    size = np.linalg.norm(weight, axis=1)
    change = np.empty(near.shape)
    for k, j in enumerate(near.T):
        larger = np.maximum(size, size[j])
        gap = np.linalg.norm(weight - weight[j], axis=1)
        change[:, k] = np.divide(gap, larger, out=np.zeros_like(gap), where=larger > 0)
    return np.asarray(change.mean(1))


def _changes(ax: Axes, why: Explanation, n_neighbors: int) -> None:
    change = _relative_change(why, n_neighbors)
    label = f"relative change of W to the {n_neighbors} nearest rows"
    high = max(1.0, float(change.max()))
    draw_places(ax, why.Y, change, scale=Normalize(0, high), colors=AMOUNT, label=label)


def _sizes(ax: Axes, sizes: NDArray[np.int64]) -> None:
    ax.stairs(sizes, np.arange(len(sizes) + 1), fill=True, color=BLUE)
    _plain(ax)
    ax.set(xlim=(0, len(sizes)), xlabel="linear regions, fullest first", ylabel="rows")
    regions = "1 region" if len(sizes) == 1 else f"{len(sizes)} regions"
    ax.set_title(f"{sizes.sum()} rows in {regions}", fontsize=SMALL)


def _radii(ax: Axes, radius: Array) -> None:
    """Histogram on a logarithmic axis; rows without a boundary, or on one, are named."""
    drawn = radius[np.isfinite(radius) & (radius > 0)]
    _plain(ax)
    ax.set(xlabel="radius in column units", ylabel="rows")
    left_out = len(radius) - len(drawn)
    if not len(drawn):
        ax.set_title("no row has a boundary", fontsize=SMALL)
        return
    edges = np.geomspace(drawn.min() * 0.999, drawn.max() * 1.001, 21)
    ax.set_xscale("log")
    ax.hist(drawn, edges.tolist(), color=GRAY)
    ax.axvline(float(np.median(drawn)), color=INK, linewidth=0.8)
    ax.set_title(f"median {np.median(drawn):.2g}" + f", {left_out} at 0 or \u221e" * (left_out > 0))
    ax.title.set_fontsize(SMALL)


def _plain(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
