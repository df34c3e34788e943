"""The user's columns as numbers, and what stands for their missing values."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ptsne.pipelines.blocks import Block, Chain
from ptsne.rows import Annotated, matrix_and_names, require_room

ROWS_PER_BLOCK = 1024
"""Rows that become dense at once."""


class Columns(NamedTuple):
    """A table as numbers.

    Attributes
    ----------
    values : ndarray of shape (N, n), float32 or float64
        The columns that are numbers; NaN where a value is missing.
    numbers : int ndarray of shape (n,)
        Which of the table's columns those are.
    names : list of str
        Their names.
    n_columns : int
        How many columns the table has.
    """

    values: NDArray[Any]
    numbers: NDArray[np.int64]
    names: list[str]
    n_columns: int


class Filled(NamedTuple):
    """Rows without gaps.

    Attributes
    ----------
    rows : ndarray of shape (N, n)
        A missing value is the one that the steps put in its place, in the column's own unit.
    missing : bool ndarray of shape (N, n)
        Where that is so.
    """

    rows: NDArray[Any]
    missing: NDArray[np.bool_]


def read_columns(X: Any, names_in: Sequence[str] | None, n_columns: int | None) -> Columns:
    """The columns of a table that are numbers, in the order of `fit`.

    Parameters
    ----------
    X : array-like, sparse matrix, DataFrame or AnnData
        Rows, as the pipeline takes them.
    names_in : sequence of str or None
        Column names at `fit`, where there were any.
    n_columns : int or None
        Number of columns at `fit`, where it is known.

    Returns
    -------
    Columns
        What a ColumnTransformer drops may be words, or absent: it is left out.
    """
    X, _ = matrix_and_names(X)
    if not hasattr(X, "columns"):
        values = _floating(as_array(X))
        names = [f"x{i}" for i in range(values.shape[1])] if names_in is None else [*names_in]
        return Columns(values, np.arange(values.shape[1]), names, n_columns or values.shape[1])
    names = [str(name) for name in (X.columns if names_in is None else names_in)]
    given = {str(name): _numbers(X[name]) for name in X.columns if str(name) in names}
    found = {i: v for i, name in enumerate(names) if (v := given.get(name)) is not None}
    kept = [names[i] for i in found]
    return Columns(np.stack([*found.values()], 1), np.array([*found]), kept, len(names))


def as_array(X: Any) -> NDArray[Any]:
    """Rows as one array; sparse ones become dense in blocks, and over 4 GiB are refused."""
    if not hasattr(X, "toarray"):
        return np.asarray(X)
    require_room(X.shape, X.dtype.itemsize, "pass fewer rows at a time")
    matrix, dense = X.tocsr(), np.empty(X.shape, X.dtype)
    for start in range(0, len(dense), ROWS_PER_BLOCK):
        dense[start : start + ROWS_PER_BLOCK] = matrix[start : start + ROWS_PER_BLOCK].toarray()
    return dense


def row_blocks(X: Any) -> Iterator[tuple[slice, Any]]:
    """Sparse rows some at a time, and others at once, as the steps take them.

    Parameters
    ----------
    X : array-like, sparse matrix, DataFrame or AnnData of shape (N, D)
        Rows.

    Yields
    ------
    slice
        Which rows.
    object
        The rows, as sparse or as named as they were.
    """
    matrix, names = matrix_and_names(X)
    if not hasattr(matrix, "tocsr"):
        yield slice(0, len(matrix)), X
        return
    rows, n_rows = matrix.tocsr(), matrix.shape[0]
    for start in range(0, n_rows, ROWS_PER_BLOCK):
        where = slice(start, min(start + ROWS_PER_BLOCK, n_rows))
        yield where, rows[where] if names is None else Annotated(rows[where], names)


def fill_missing(block: Block, values: NDArray[Any]) -> Filled:
    """Put into the gaps of rows what the steps would put there.

    Parameters
    ----------
    block : Block
        All steps before the map.
    values : ndarray of shape (N, n)
        Rows with gaps.

    Returns
    -------
    Filled
        Rows without gaps. A gap in a column that reaches no step gets the mean of the other rows.
    """
    gapped = torch.from_numpy(values.astype(np.float64))
    rows, missing = gapped.clone(), torch.zeros_like(gapped, dtype=torch.bool)
    for before, impute in block.imputations(Chain()):
        is_missing = impute.is_missing(before.fill_gaps(gapped))
        known = before.inverse(torch.where(is_missing, impute.fill, torch.nan))
        found = ~known.isnan() & ~missing
        rows, missing = torch.where(found, known, rows), missing | found
    unused = rows.isnan()
    rows = torch.where(unused, rows.nanmean(0).nan_to_num(), rows)
    return Filled(rows.numpy().astype(values.dtype), (missing | unused).numpy())


def _floating(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype == np.float32 else values.astype(np.float64)


def _numbers(column: Any) -> NDArray[Any] | None:
    """A DataFrame's column as float32 or float64; None where it is not made of numbers."""
    options = {"dtype": np.float64, "na_value": np.nan} if hasattr(column, "array") else {}
    try:
        values = np.asarray(column)
        if values.dtype == np.float32:
            return values
        return None if values.dtype.kind in "mM" else _floating(column.to_numpy(**options))
    except (TypeError, ValueError):
        return None
