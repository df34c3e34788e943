"""The interactive page: written to a file, or served live with the model."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from ptsne.cli.tables import Table, TableError, read_table
from ptsne.estimator import ParametricTSNE
from ptsne.report.contents import Words
from ptsne.report.page import page_contents, page_html
from ptsne.report.serving import live_server

Made = TypeVar("Made")


def write(map_: ParametricTSNE, table: Table, options: argparse.Namespace) -> None:
    """Write the page to a file.

    Parameters
    ----------
    map_ : ParametricTSNE
        The model.
    table : Table
        Rows.
    options : Namespace
        From the command line.
    """
    words = _words(map_, table, options)
    content = page_contents(map_, table.X, table.labels, words)
    page = _with_bokeh(lambda: page_html(content))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page, encoding="utf-8")
    print(f"wrote {options.output}: one file of {len(page) / 1e6:.1f} MB; open it in a browser")
    print("\n".join(content.facts["checks"]))


def serve(map_: ParametricTSNE, table: Table, options: argparse.Namespace) -> None:
    """Serve the page on this computer until Ctrl-C.

    Parameters
    ----------
    map_ : ParametricTSNE
        The model.
    table : Table
        Rows.
    options : Namespace
        From the command line.
    """
    words = _words(map_, table, options)
    server = _with_bokeh(lambda: live_server(map_, table.X, table.labels, words, port=options.port))
    with server:
        print(f"the page is at {server.url}, on this computer alone; Ctrl-C ends it", flush=True)
        server.serve_forever()


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what both commands understand.

    Parameters
    ----------
    command : ArgumentParser
        Of either command.
    """
    option = command.add_argument
    option("--label", metavar="COLUMN", help="column with classes or a quantity: colours")
    option("--id", metavar="COLUMN", help="column with names of the rows (default: 1, 2, ...)")
    option(
        "--images",
        type=int,
        nargs="+",
        metavar="N",
        help="rows are pictures of this height and width, and channels where there are any",
    )
    option("--title", help="heading of the page (default: name of the table)")


def special_columns(options: argparse.Namespace) -> tuple[str | None, list[str]]:
    """Find the columns that are no data.

    Parameters
    ----------
    options : Namespace
        From the command line; those of other commands have none.

    Returns
    -------
    str or None
        Label column.
    list of str
        Others.
    """
    names = getattr(options, "id", None)
    return getattr(options, "label", None), [] if names is None else [names]


def _words(map_: ParametricTSNE, table: Table, options: argparse.Namespace) -> Words:
    title = options.title or Path(options.table).stem
    images = None if options.images is None else tuple(options.images)
    return Words(title, _row_names(map_, table, options), images)


def _row_names(map_: ParametricTSNE, table: Table, options: argparse.Namespace) -> list[str]:
    """Names of the rows: the column the user named, or numbers from 1."""
    if options.id is None:
        return [str(number) for number in range(1, len(table.X) + 1)]
    columns = getattr(map_, "feature_names_in_", None)
    ignore = [name for name in [options.label] if name not in {None, options.id}]
    named = read_table(
        options.table,
        label=options.id,  # a label may be text
        ignore=ignore,
        columns=None if columns is None else list(columns),
    )
    return [str(name) for name in np.asarray(named.labels).tolist()]


def _with_bokeh(make: Callable[[], Made]) -> Made:
    """What `make` returns; without Bokeh, an error in a line."""
    try:
        return make()
    except ImportError as error:
        raise TableError(str(error)) from error
