"""Arrays as text of a page: exact where that is cheap, otherwise with a stated error."""

import base64
import gzip
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_CODES = 2**16
"""Different values that a table may have to be written as codes."""
MAX_EXACT = 1_000_000
"""Cells up to which a table that needs more values is written in float64."""
_PROBED_ROWS = 500


class Coded(NamedTuple):
    """A table as numbers of a code book, ``values[codes]``, or as it is.

    Attributes
    ----------
    codes : ndarray of shape (N, D)
        uint8 or uint16 codes; float32 or float64 values where `values` is empty.
    values : float64 ndarray of shape (n,)
        Value of each code.
    error : float
        Largest difference from the table.
    """

    codes: Array
    values: NDArray[np.float64]
    error: float


class Steps(NamedTuple):
    """Rows of an array as whole steps, ``codes * step``.

    Attributes
    ----------
    codes : int16 ndarray of shape (N, ...)
        Number of steps.
    step : float32 ndarray of shape (N,)
        Size of a step of each row.
    """

    codes: NDArray[np.int16]
    step: NDArray[np.float32]

    def decoded(self) -> NDArray[np.float64]:
        """What a reader of the page gets, (N, ...)."""
        step = self.step.astype(np.float64)
        return self.codes * step.reshape(-1, *(1,) * (self.codes.ndim - 1))


def pack(array: Array) -> dict[str, Any]:
    """Write an array as text.

    Parameters
    ----------
    array : ndarray
        Of a little-endian type that a browser has.

    Returns
    -------
    dict
        dtype, shape, and data: base64 of gzip of the bytes in C order.
    """
    # level 6 takes a third of the time of level 9 and 1 % more bytes; no time stamp, so that the
    # same numbers give the same page
    data = gzip.compress(np.ascontiguousarray(array).tobytes(), compresslevel=6, mtime=0)
    return {
        "dtype": array.dtype.name,
        "shape": array.shape,
        "data": base64.b64encode(data).decode("ascii"),
    }


def packed_size(array: Array) -> int:
    """Bytes that an array takes in the page."""
    return len(pack(array)["data"])


def encode_table(X: Array) -> Coded:
    """Write a table in few bytes: exactly where it has few different values, as pixels have.

    Parameters
    ----------
    X : ndarray of shape (N, D)
        Finite.

    Returns
    -------
    Coded
        Up to 256 different values take a byte a cell, up to 65,536 two; tables with more values
        take float64 up to a million cells, and float32, rounded, beyond.
    """
    values = _different_values(X)
    if values is not None:
        dtype = np.uint8 if len(values) <= 2**8 else np.uint16
        return Coded(np.searchsorted(values, X).astype(dtype), values.astype(np.float64), 0.0)
    nothing = np.empty(0, dtype=np.float64)
    if X.size <= MAX_EXACT:
        return Coded(X.astype(np.float64), nothing, 0.0)
    rounded = X.astype(np.float32)
    return Coded(rounded, nothing, float(np.abs(rounded - X).max()))


def _different_values(X: Array) -> Array | None:
    """Sorted values of a table, or None where there are too many to be worth codes."""
    if len(np.unique(X[:_PROBED_ROWS])) > min(MAX_CODES, max(2**8, X.size // 4)):
        return None
    values = np.unique(X)
    # codes of two bytes and their book must take less than the values themselves
    return values if len(values) <= min(MAX_CODES, max(2**8, X.size // 4)) else None


def encode_steps(array: Array) -> Steps:
    """Round rows of numbers to 65,535 equal steps each.

    Parameters
    ----------
    array : ndarray of shape (N, ...)
        Finite.

    Returns
    -------
    Steps
        With an error of half a step at most.
    """
    largest = np.abs(array).reshape(len(array), -1).max(1)
    step = np.where(largest > 0, largest, 1.0) / np.iinfo(np.int16).max
    step32 = np.nextafter(step.astype(np.float32), np.float32(np.inf))
    codes = np.rint(array / step32.astype(np.float64).reshape(-1, *(1,) * (array.ndim - 1)))
    return Steps(codes.astype(np.int16), step32)
