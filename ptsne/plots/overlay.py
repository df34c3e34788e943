"""A row that is a picture, with what each of its pixels adds drawn on it."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike, NDArray

from ptsne.explanation import Explanation
from ptsne.plots.lengths import displacements, signed_lengths
from ptsne.plots.palette import BLUE, RED, paper_axes

Array = NDArray[np.float64]

_SIGN = ListedColormap([BLUE, RED], "sign")


def overlay(
    explanation: Explanation,
    i: int,
    shape: tuple[int, ...] = (28, 28),
    *,
    start: int | None = None,
    values: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a picture in gray with a square on every pixel: its area is what the pixel adds.

    What to read: red pixels take the picture towards its place on the map, blue ones hold it back.
    Without `start` the way begins at the baseline's place, and the squares are lengths in map
    units; with it the way begins at another row, and they are shares that sum to 1.

    Parameters
    ----------
    explanation : Explanation
        From ``map_.explain(X)``.
    i : int
        Row to draw.
    shape : tuple of int
        (height, width) or (height, width, channels); channels are summed.
    start : int, optional
        Row from which the way to `i` begins, as in ``explanation.contrast(start, i)``.
    values : array-like of shape (D,), optional
        Numbers of one's own to draw instead.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        Axes with the picture, the squares, and what they sum to.

    Raises
    ------
    ValueError
        If the shape or `values` do not fit a row, or both `start` and `values` are given.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ptsne import ParametricTSNE, plots
    >>> X = load_digits().data[:200]
    >>> why = ParametricTSNE(max_iter=60, random_state=0).fit(X).explain(X)
    >>> ax = plots.overlay(why, 0, (8, 8), start=1)
    >>> bool(abs(ax.collections[0].get_array().sum() - 1) < 1e-9)
    True
    """
    if start is not None and values is not None:
        raise ValueError("pass start or values, not both: each says what the squares are")
    row = explanation.X[i]
    if values is not None:
        numbers, unit = _fitting(values, row), ""
    elif start is not None:
        numbers, unit = explanation.contrast(start, i), "of the way"
    else:
        numbers = signed_lengths(displacements(explanation, i, "path"))
        unit = "map units"
    ax = paper_axes(2.3, 2.1) if ax is None else ax
    pixels = draw_overlay(ax, row, numbers, shape)
    words = f"sum {numbers.sum():.3g} {unit}".strip()
    extent = f"pixels {pixels.min():+.2g} to {pixels.max():+.2g}"
    ax.set_xlabel(f"{words}\n{extent}".replace("-", "\u2212"))
    return ax


def draw_overlay(ax: Axes, x: Array, values: Array, shape: tuple[int, ...]) -> Array:
    """The picture in gray and a square on every pixel, its area the size of the signed value.

    Parameters
    ----------
    ax : matplotlib Axes
        Where to draw.
    x : ndarray of shape (D,)
        The picture.
    values : ndarray of shape (D,)
        What each entry adds.
    shape : tuple of int
        (height, width) or (height, width, channels).

    Returns
    -------
    ndarray of shape (height, width)
        What each pixel adds, summed over the channels.

    Raises
    ------
    ValueError
        If the shape does not fit.
    """
    if int(np.prod(shape)) != len(x):
        raise ValueError(f"image_shape {shape} does not fit a row of {len(x)} features")
    by_channel = (*shape[:2], -1)
    ax.imshow(x.reshape(by_channel).mean(2), cmap="gray_r", alpha=0.3)
    pixels = np.asarray(values.reshape(by_channel).sum(2))
    ax.add_collection(_squares(pixels))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color("#cccccc")
    return pixels


def _fitting(values: Any, row: Array) -> Array:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != row.shape:
        raise ValueError(
            f"values must have one number for each of the {len(row)} features; "
            f"got shape {numbers.shape}"
        )
    return numbers


def _squares(value: Array) -> PolyCollection:
    """One square per pixel of `value` (H, W): area by size, red for + and blue for -."""
    row, column = np.indices(value.shape)
    centre = np.stack([column, row], axis=-1).reshape(-1, 1, 2)
    limit = np.abs(value).max() or 1.0
    half = 0.5 * np.sqrt(np.abs(value.ravel()) / limit)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    squares = PolyCollection(centre + half[:, None, None] * corners, cmap=_SIGN, linewidths=0)
    squares.set_array(value.ravel())
    squares.set_clim(-limit, limit)
    return squares
