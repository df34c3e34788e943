"""Rows that are read only when they are asked for: files, chunked arrays, datasets, graphs."""

import contextlib
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset

BLOCK_BYTES = 2**25
"""Bytes of a block of rows where no budget says otherwise."""

BYTES_PER_NUMBER = 12
"""Of a block while it is worked on: as it was read, checked, and worked out in float32."""
ROWS_AT_ONCE = 64
"""Rows of a block that are worked on in float64."""

Check: TypeAlias = Callable[[NDArray[Any], int], None]  # block, number of its first row


class Source(Protocol):
    """Rows somewhere: a stretch of them at a time, or some of them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored numbers."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to `stop`."""

    def spans(self, rows_per_block: int) -> Iterator[tuple[int, int]]:
        """Stretches of rows that are read well at once."""


@dataclass(frozen=True)
class Sliced:
    """An array that is sliced: in memory, mapped, or of HDF5 and zarr, whose chunks are kept.

    Parameters
    ----------
    array : array of shape (N, D)
        With `shape`, `dtype` and slices.
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

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to `stop`, as a copy."""
        rows = np.array(self.array[start:stop])
        _give_back_pages(self.array)
        return rows

    def spans(self, rows_per_block: int) -> Iterator[tuple[int, int]]:
        """Whole chunks, as many as a block holds."""
        chunks = getattr(self.array, "chunks", None) or (1,)
        per_chunk = chunks[0] if isinstance(chunks[0], int) else 1
        step = max(1, rows_per_block // per_chunk) * min(per_chunk, rows_per_block)
        return _even_spans(self.shape[0], step)


@dataclass(frozen=True)
class Sparse:
    """A sparse matrix, dense where it is sliced.

    Parameters
    ----------
    matrix : csr_array of shape (N, D)
        Rows.
    """

    matrix: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return tuple(self.matrix.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored numbers."""
        dtype: np.dtype[Any] = np.dtype(self.matrix.dtype)
        return dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to `stop`."""
        rows: NDArray[Any] = self.matrix[start:stop].toarray()
        return rows

    def spans(self, rows_per_block: int) -> Iterator[tuple[int, int]]:
        """Even blocks."""
        return _even_spans(self.shape[0], rows_per_block)


@dataclass(frozen=True)
class Delayed:
    """A dask array, of which each chunk is computed once a pass.

    Parameters
    ----------
    array : dask.array.Array of shape (N, D)
        With chunks of known size.
    """

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the computed numbers."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

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

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Items from `start` to `stop`, in one array."""
        rows = np.empty((stop - start, self.shape[1]), self.dtype)
        for i, item in zip(range(start, stop), self._items(start, stop), strict=True):
            row = _row_of(item)
            if len(row) != rows.shape[1]:
                raise ValueError(
                    f"rows must have the same number of values: row 0 has {rows.shape[1]}, row "
                    f"{i} has {len(row)}"
                )
            rows[i - start] = row
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
        self.rows_per_block = max(
            1, min(len(self), block_bytes // (BYTES_PER_NUMBER * self.shape[1]))
        )

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
        self._check(rows, start)
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
        Whether plain arrays of numbers, in memory or mapped, are read lazily too.

    Returns
    -------
    Source or None
        For a torch `Dataset`, a dask array, or anything with chunks such as a dataset of h5py or a
        zarr array.

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
    if arrays and type(X) in {np.ndarray, np.memmap} and X.dtype.kind in "biuf":
        return Sliced(X)
    is_chunked = all(hasattr(X, name) for name in ("shape", "dtype", "chunks", "__getitem__"))
    return Sliced(X) if is_chunked else None


def is_dask(X: Any) -> bool:
    """Whether rows are a dask array."""
    return hasattr(X, "map_blocks") and hasattr(X, "chunks") and hasattr(X, "rechunk")


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


def _give_back_pages(array: Any) -> None:
    """Tell the system that a mapped file's pages are not needed, or they count as our memory."""
    if getattr(array, "mode", None) not in {"r", "r+"}:  # changes of a private map would be lost
        return
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        with contextlib.suppress(OSError, ValueError):
            mapped.madvise(mmap.MADV_DONTNEED)


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
