"""Rows that are read only when they are asked for: files, chunked arrays, datasets, graphs."""

import contextlib
import math
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch.utils.data import Dataset, IterableDataset

from ptsne.devices import give_back_memory

BLOCK_BYTES = 2**25
"""Bytes of a block of rows where no budget says otherwise."""

ROWS_AT_ONCE = 64
"""Rows of a block that are checked, or worked on in float64, together."""

BAND_BYTES = 2**22
"""Bytes of a chunked array that are read at once: zarr holds what it reads twice, by threads."""

INTEGERS, NUMBERS = set("biu"), set("biuf")

Check: TypeAlias = Callable[[NDArray[Any], int], None]  # block, number of its first row


class Source(Protocol):
    """Rows somewhere: a stretch of them at a time, or some of them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored numbers."""

    @property
    def chunk_bytes(self) -> int:
        """Bytes of memory that reading takes at once, however few rows are asked for."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to `stop`."""

    def spans(self, rows_per_block: int) -> Iterator[tuple[int, int]]:
        """Stretches of rows that are read well at once."""


@dataclass(frozen=True)
class _Held:
    """Something with a shape and a dtype, read in even blocks.

    Parameters
    ----------
    array : array of shape (N, D)
        Rows.
    """

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored numbers."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    @property
    def chunk_bytes(self) -> int:
        """Nothing is read beside the rows that are asked for."""
        return 0

    def spans(self, rows_per_block: int) -> Iterator[tuple[int, int]]:
        """Even blocks."""
        return _even_spans(self.shape[0], rows_per_block)


class Sliced(_Held):
    """An array that is sliced: in memory, mapped, or of HDF5 and zarr, whose chunks are kept."""

    @property
    def chunk_bytes(self) -> int:
        """Of one chunk, while it is unpacked and when it is there."""
        chunks = getattr(self.array, "chunks", None) or (0,)
        return 2 * math.prod(chunks) * self.dtype.itemsize

    @property
    def _rows_per_chunk(self) -> int:
        """0 where there are no chunks."""
        return int((getattr(self.array, "chunks", None) or (0,))[0])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to `stop`, as a copy."""
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for first, last in self._bands(start, stop, rows[:1].nbytes):
            rows[first - start : last - start] = self.array[first:last]
        give_back_pages(self.array)
        return rows

    def spans(self, rows_per_block: int) -> Iterator[tuple[int, int]]:
        """Whole chunks, as many as a block holds."""
        per_chunk = self._rows_per_chunk or 1
        step = max(1, rows_per_block // per_chunk) * min(per_chunk, rows_per_block)
        return _even_spans(self.shape[0], step)

    def _bands(self, start: int, stop: int, row_bytes: int) -> Iterator[tuple[int, int]]:
        """Stretches of a few chunks; everything where there are none."""
        per_chunk = self._rows_per_chunk
        if not per_chunk:
            return iter([(start, stop)])
        step = per_chunk * max(1, BAND_BYTES // max(1, per_chunk * row_bytes))
        lows = range(start - start % step, stop, step)
        return ((max(low, start), min(low + step, stop)) for low in lows)


class Sparse(_Held):
    """A sparse matrix by rows, in memory or mapped, dense where it is sliced."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to `stop`."""
        rows: NDArray[Any] = self.array[start:stop].toarray()
        for part in ("data", "indices"):
            give_back_pages(getattr(self.array, part, None))
        return rows


class Delayed(_Held):
    """A dask array with chunks of known size and of all columns, each computed once a pass."""

    @property
    def chunk_bytes(self) -> int:
        """Of the largest chunk, while it is made and when it is there."""
        return 2 * max(self.array.chunks[0], default=0) * self.shape[1] * self.dtype.itemsize

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to `stop`, computed."""
        return np.asarray(self.array[start:stop].compute())

    def spans(self, rows_per_block: int) -> Iterator[tuple[int, int]]:
        """Neighbouring chunks, as many as a block holds, and at least one."""
        start = stop = 0
        for size in self.array.chunks[0]:
            if stop > start and stop + size - start > rows_per_block:
                yield start, stop
                start = stop
            stop += size
        if stop > start:
            yield start, stop


@dataclass(frozen=True)
class Items:
    """A torch `Dataset` with a length: an item is a row, or a tuple that starts with one.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Rows of any shape, which are flattened: an image is a row of pixels.
    """

    dataset: Any
    _first: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        first = _row_of(self.dataset[0]) if len(self.dataset) else np.empty(1)
        object.__setattr__(self, "_first", first)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return len(self.dataset), len(self._first)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the first item."""
        return self._first.dtype

    @property
    def chunk_bytes(self) -> int:
        """Nothing is read beside the items that are asked for."""
        return 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Items from `start` to `stop`, in one array."""
        rows = np.empty((stop - start, self.shape[1]), self.dtype)
        mapped: dict[int, np.memmap[Any, Any]] = {}
        for i, item in zip(range(start, stop), self._items(start, stop), strict=True):
            row = _row_of(item)
            if (whole := _mapped_whole(row)) is not None:
                mapped[id(whole)] = whole
            if len(row) != rows.shape[1]:
                raise ValueError(
                    f"rows must have the same number of values: row 0 has {rows.shape[1]}, row "
                    f"{i} has {len(row)}"
                )
            rows[i - start] = row
        for whole in mapped.values():
            give_back_pages(whole)
        return rows

    def spans(self, rows_per_block: int) -> Iterator[tuple[int, int]]:
        """Even blocks."""
        return _even_spans(self.shape[0], rows_per_block)

    def _items(self, start: int, stop: int) -> Any:
        fetch = getattr(self.dataset, "__getitems__", None)
        if fetch is not None:
            return fetch(list(range(start, stop)))
        return (self.dataset[i] for i in range(start, stop))


class LazyRows:
    """Rows that are read block by block, as float32 or float64, and checked as they are read.

    Parameters
    ----------
    source : Source
        Where they are.
    check : callable
        Raises for a block that cannot be used; called with it and the number of its first row.
    block_bytes : int
        Bytes that a block may take while it is worked on.
    """

    def __init__(self, source: Source, check: Check, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.source, self._check = source, check
        self.shape = (source.shape[0], source.shape[1])
        self.dtype = np.dtype(np.float32 if source.dtype.type is np.float32 else np.float64)
        self.rows_per_block = max(1, min(len(self), block_bytes // self.row_bytes))

    @property
    def row_bytes(self) -> int:
        """Of a row while its block is read, as chunks and then whole, and worked out in float32."""
        return (2 * max(self.source.dtype.itemsize, 4) + 4) * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        if not isinstance(rows, slice):
            return self._take(np.asarray(rows))
        start, stop, step = rows.indices(len(self))
        if step != 1:
            return self._take(np.arange(start, stop, step))
        return self._read(start, max(start, stop))

    def with_blocks(self, block_bytes: int) -> "LazyRows":
        """The same rows in blocks of another size."""
        return LazyRows(self.source, self._check, block_bytes=block_bytes)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all rows once.

        Yields
        ------
        slice
            Which rows.
        ndarray of shape (B, D)
            The rows; B is at most `rows_per_block`.
        """
        for start, stop in self.source.spans(self.rows_per_block):
            rows = self._read(start, stop)
            for first in range(0, len(rows), self.rows_per_block):
                part = rows[first : first + self.rows_per_block]
                yield slice(start + first, start + first + len(part)), part
            del rows, part
            give_back_memory()  # or what this block leaves behind adds to what the next one takes

    def parts(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Read all rows once, and give few of them at a time in float64.

        Yields
        ------
        slice
            Which rows.
        ndarray of shape (B, D), float64
            The rows; a new array.
        """
        for where, rows in self.blocks():
            for first in range(0, len(rows), ROWS_AT_ONCE):
                part = rows[first : first + ROWS_AT_ONCE].astype(np.float64)
                yield slice(where.start + first, where.start + first + len(part)), part

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        rows = self.source.read(start, stop).astype(self.dtype, order="C", copy=False)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            self._check(rows[first : first + ROWS_AT_ONCE], start + first)
        return rows

    def _take(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Rows by number, in stretches: chunked files are slow in anything else."""
        result = np.empty((len(indices), self.shape[1]), self.dtype)
        order = np.argsort(indices, kind="stable")
        ascending = indices[order]
        for start, stop in self.source.spans(self.rows_per_block):
            low, high = np.searchsorted(ascending, [start, stop])
            if low < high:
                wanted = ascending[low:high]
                rows = self._read(int(wanted[0]), int(wanted[-1]) + 1)
                result[order[low:high]] = rows[wanted - wanted[0]]
        return result


def lazy_source(X: Any, *, arrays: bool = False) -> Source | None:
    """How to read rows that are not in memory; None for rows that are.

    Parameters
    ----------
    X : object
        Rows of any kind.
    arrays : bool
        Whether arrays and sparse rows of numbers, in memory or mapped, are read lazily too.

    Returns
    -------
    Source or None
        For a torch `Dataset`, a dask array, anything with chunks such as a dataset of h5py or a
        zarr array, and a mapped array of integers, of which a float64 copy would be made.

    Raises
    ------
    TypeError
        If the data set has no length.

    Notes
    -----
    ValueError if the sizes of a dask array's chunks are not known.
    """
    if isinstance(X, Dataset):
        if isinstance(X, IterableDataset) or not hasattr(X, "__len__"):
            raise TypeError(
                "a data set must have a length and give its items by number, since it is read "
                "several times; got an iterable one: write its rows to a file first"
            )
        return Items(X)
    if is_dask(X):
        return _delayed(X)
    if sparse.issparse(X):
        return Sparse(X) if arrays and _is_by_rows(X) else None
    if type(X) in {np.ndarray, np.memmap}:
        is_integer = type(X) is np.memmap and X.dtype.kind in INTEGERS
        return Sliced(X) if is_integer or (arrays and X.dtype.kind in NUMBERS) else None
    is_chunked = all(hasattr(X, name) for name in ("shape", "dtype", "chunks", "__getitem__"))
    return Sliced(X) if is_chunked else None


def is_dask(X: Any) -> bool:
    """Whether rows are a dask array."""
    return hasattr(X, "map_blocks") and hasattr(X, "chunks") and hasattr(X, "rechunk")


def _is_by_rows(matrix: Any) -> bool:
    return matrix.format == "csr" and matrix.dtype.kind in NUMBERS


def _delayed(X: Any) -> Delayed:
    if any(np.isnan(size) for sizes in X.chunks for size in sizes):
        raise ValueError(
            "the sizes of the dask array's chunks are not known; call X.compute_chunk_sizes() first"
        )
    return Delayed(X.rechunk({1: -1}) if X.ndim == 2 else X)


def _even_spans(n_rows: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def _row_of(item: Any) -> NDArray[Any]:
    """The row of an item, flat."""
    row = item[0] if isinstance(item, (tuple, list)) else item
    if isinstance(row, torch.Tensor):
        row = row.detach().cpu()
    return np.asarray(row).ravel()


def give_back_pages(array: Any) -> None:
    """Tell the system that a mapped file's pages are not needed, or they count as our memory.

    Parameters
    ----------
    array : object
        An array that is mapped, or a view of one; anything else is left alone.
    """
    mapped = _mapped_whole(array)
    if getattr(mapped, "mode", None) not in {"r", "r+"}:  # changes of a private map would be lost
        return
    pages = getattr(mapped, "_mmap", None)
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        with contextlib.suppress(OSError, ValueError):
            pages.madvise(mmap.MADV_DONTNEED)


def _mapped_whole(array: Any) -> "np.memmap[Any, Any] | None":
    """The mapped array that an array is or is a view of; None for others."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array if isinstance(array, np.memmap) else None


def apply_by_blocks(function: Callable[[Any], NDArray[Any]], rows: Any) -> NDArray[Any]:
    """Apply a function of rows to lazy rows block by block, to others at once.

    Parameters
    ----------
    function : callable
        From rows (B, D) to results (B, ...).
    rows : LazyRows, ndarray or SparseRows of shape (N, D)
        Rows.

    Returns
    -------
    ndarray of shape (N, ...)
        Results.
    """
    if not isinstance(rows, LazyRows):
        return function(rows)
    return np.concatenate([function(block) for _, block in rows.blocks()])
