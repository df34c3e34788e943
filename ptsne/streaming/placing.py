"""Places of the rows of a dask array, computed where and when its blocks are."""

import copy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEFT_BEHIND = (
    "embedding_",
    "history_",
    "_landmark_rows",
    "_training_rows",
    "_inverse",
    "_known_codes",
)
"""What a place does not need: blocks may be placed on other machines."""


def place_lazily(model: Any, X: Any) -> Any:
    """Places of a dask array as a dask array.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    X : dask.array.Array of shape (M, D)
        Rows; the columns of a row are brought into one block.

    Returns
    -------
    dask.array.Array of shape (M, K)
        Not computed yet, in blocks of the same rows.
    """
    light = copy.copy(model)
    light.callbacks = None
    for name in LEFT_BEHIND:
        light.__dict__.pop(name, None)
    dtype = np.dtype(np.float32 if X.dtype == np.float32 else np.float64)
    n_components = model._n_features_out
    return X.rechunk({1: -1}).map_blocks(
        partial(_place_block, light),
        dtype=dtype,
        chunks=(X.chunks[0], (n_components,)),
        meta=np.empty((0, n_components), dtype),
    )


def _place_block(model: Any, rows: Any, block_info: Any = None) -> NDArray[Any]:
    """Places of one block; an error says where the block begins."""
    try:
        places: NDArray[Any] = model._place(model._rows(rows))
    except ValueError as error:
        first = block_info[0]["array-location"][0][0] if block_info else 0
        raise ValueError(f"in the block that starts at row {first}: {error}") from error
    return places
