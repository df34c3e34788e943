"""Explanations of more rows than fit into memory, a block at a time."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, Subset

from ptsne.lazy import Delayed, lazy_source
from ptsne.networks import rows_per_block
from ptsne.streaming.budget import budget_bytes

HELD, PLACED = 4, 4
"""Float64 copies of a block for each coordinate of the map: W, contributions, and those of the
block before; and copies of the rows that go through the network together."""
FEWEST_ROWS = 16


def explain_blocks(
    model: Any, X: Any, *, memory_budget: float | str = "256MiB", **options: Any
) -> Iterator[tuple[slice, Any]]:
    """Explain rows block by block, so that no more than one block and its W are in memory.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    X : array-like, memmap, sparse matrix, DataFrame, h5py, zarr or dask array, torch Dataset
        Rows (M, D); only the rows of a block are read.
    memory_budget : int or str
        Bytes that a block may take with all that is computed of it, or a text such as "1GiB". At
        least 16 rows are explained at a time, and at least one chunk of a dask array is computed.
    **options
        Those of `ParametricTSNE.explain`.

    Yields
    ------
    slice
        Which rows.
    Explanation
        Of these rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> from ptsne.streaming import explain_blocks
    >>> X = load_iris().data
    >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
    >>> contributions = np.empty((150, 2, 4))  # or a memmap, an HDF5 or zarr array
    >>> for rows, why in explain_blocks(map_, X, memory_budget="1MiB"):
    ...     contributions[rows] = why.contributions
    >>> bool(abs(contributions - map_.explain(X).contributions).max() < 1e-9)
    True
    """
    n_columns = model.n_features_in_
    padded = PLACED * 8 * rows_per_block(n_columns, "cpu") * n_columns
    room = budget_bytes(memory_budget) - padded
    size = max(FEWEST_ROWS, room // (8 * (4 + HELD * model._n_features_out) * n_columns))
    for start, stop in _spans(X, size):
        rows = _part(X, start, stop)
        for first in range(start, stop, size):
            last = min(first + size, stop)
            part = _part(rows, first - start, last - start)
            yield slice(first, last), model.explain(part, **options)


def _spans(X: Any, size: int) -> Iterator[tuple[int, int]]:
    """Stretches of rows that are read well at once."""
    source = lazy_source(X)
    if source is not None:
        return source.spans(size)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    return ((start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _part(X: Any, start: int, stop: int) -> Any:
    """Some neighbouring rows of any kind, of a dask array computed."""
    if isinstance(X, Dataset):
        return Subset(X, range(start, stop))
    source = lazy_source(X)
    if isinstance(source, Delayed):
        return source.read(start, stop)
    return X.iloc[start:stop] if hasattr(X, "iloc") else X[start:stop]
