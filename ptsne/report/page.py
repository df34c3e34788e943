"""One self-contained interactive page: the map, and what puts every row where it is."""

import html
import json
import os
import secrets
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from ptsne.estimator import ParametricTSNE
from ptsne.report.contents import Contents, Words, contents
from ptsne.report.packing import Array, pack
from ptsne.report.plot import bokeh_code, plot_item
from ptsne.rows import explainable_rows

MAX_BYTES = 60_000_000
SCRIPTS = (
    "decode.js",
    "atlas.js",
    "table.js",
    "shares.js",
    "draw.js",
    "map.js",
    "newrow.js",
    "app.js",
)


def report(
    model: ParametricTSNE,
    X: Any,
    y: ArrayLike | None = None,
    *,
    path: str | os.PathLike[str] = "report.html",
    images: tuple[int, ...] | None = None,
    row_names: Sequence[object] | None = None,
    title: str = "Map",
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Write one interactive page that needs no network: the map, and why each row is where it is.

    Point at a row to see it and the features that put it there; click two rows, or lasso two
    groups, to see what separates them; colour by label, feature, contribution or trust; search a
    row. Where the encoder is affine and the projection an atlas, as by default, the page holds the
    map itself: it walks the linear regions between two rows exactly, as `Explanation.contrast`
    does, and places new rows. Of other maps it stores what each feature adds on the way from the
    mean row to each row.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    X : array-like of shape (N, D)
        Rows to show.
    y : array-like of shape (N,), optional
        Classes (strings, up to 50 different whole numbers) or a quantity (other numbers).
    path : path-like, default="report.html"
        File to write.
    images : tuple of int, optional
        (height, width) or (height, width, channels) of a row that is a picture.
    row_names : sequence of length N, optional
        Name of each row; its number from 0 by default.
    title : str, default="Map"
        Heading.
    max_bytes : int, default=60,000,000
        Bytes for the rows and their explanations; where they take more, a random choice of the
        rows has details, and the page says so.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.datasets import load_iris
    >>> import ptsne
    >>> iris = load_iris(as_frame=True)
    >>> species = iris.target_names[iris.target]
    >>> map_ = ptsne.ParametricTSNE(max_iter=50, random_state=0).fit(iris.data)
    >>> with TemporaryDirectory() as folder:
    ...     page = ptsne.report(map_, iris.data, species, path=Path(folder) / "iris.html")
    >>> page.name
    'iris.html'
    """
    words = Words(title, row_names, images)
    page = page_html(page_contents(model, X, y, words, max_bytes=max_bytes))
    target = Path(path)
    target.write_text(page, encoding="utf-8")
    return target


def page_contents(
    model: ParametricTSNE,
    X: Any,
    y: ArrayLike | None,
    words: Words,
    *,
    max_bytes: int = MAX_BYTES,
) -> Contents:
    """Check what the user gave, and gather what a page needs.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    X : array-like of shape (N, D)
        Rows.
    y : array-like of shape (N,) or None
        Labels.
    words : Words
        Names.
    max_bytes : int
        As in `report`.

    Returns
    -------
    Contents
        Of the page.

    Raises
    ------
    ValueError
        If the names or the shape of the pictures do not fit the rows.
    """
    check_is_fitted(model)
    rows: Array = explainable_rows(model, X)
    if words.row_names is not None and len(words.row_names) != len(rows):
        raise ValueError(
            f"row_names must have one name for each of the {len(rows)} rows; got "
            f"{len(words.row_names)}"
        )
    shape = words.image_shape
    if shape is not None and (len(shape) not in {2, 3} or np.prod(shape) != rows.shape[1]):
        raise ValueError(
            f"images must be (height, width) or (height, width, channels) with product "
            f"{rows.shape[1]}, the number of features; got {shape}"
        )
    rng = np.random.default_rng(0)  # the same rows give the same page
    return contents(model, rows, y, words, max_bytes=max_bytes, rng=rng)


def page_html(content: Contents, *, is_live: bool = False) -> str:
    """Write the page.

    Parameters
    ----------
    content : Contents
        Numbers and words.
    is_live : bool
        Whether a server answers for the model.

    Returns
    -------
    str
        HTML; scripts run only with the nonce of the page's own, and nothing is loaded.
    """
    nonce = secrets.token_urlsafe(16)
    scripts = "\n".join(_asset(name) for name in SCRIPTS)
    facts = {**content.facts, "live": is_live}
    return Template(_asset("page.html")).substitute(
        nonce=nonce,
        connect="'self'" if is_live else "'none'",
        title=html.escape(content.facts["title"]),
        style=_asset("page.css"),
        facts=_json(facts),
        map=_json(plot_item(content.arrays["Y"])),
        arrays="\n".join(_array_element(name, array) for name, array in content.arrays.items()),
        bokeh="\n".join(f'<script nonce="{nonce}">{code}</script>' for code in bokeh_code()),
        script=f'(() => {{\n"use strict";\n{scripts}\n}})();',
    )


def _asset(name: str) -> str:
    return (files("ptsne.report") / "assets" / name).read_text("utf-8")


def _json(value: Any) -> str:
    """JSON that can stand inside a script element: no "<", so no end of it."""
    return json.dumps(value).replace("<", "\\u003c")


def _array_element(name: str, array: Array) -> str:
    packed = pack(array)
    shape = " ".join(map(str, packed["shape"]))
    return (
        f'<script type="application/octet-stream" data-name="{name}" '
        f'data-dtype="{packed["dtype"]}" data-shape="{shape}">{packed["data"]}</script>'
    )
