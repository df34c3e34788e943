"""Places and explanations of a dask array, computed where and when its blocks are."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEFT_BEHIND = ("embedding_", "history_", "_training_rows", "_inverse", "_known_codes")
"""What a block does not need: it may be worked on by other machines."""


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
    light = _light(model, "_landmark_rows")
    dtype = np.dtype(np.float32 if X.dtype == np.float32 else np.float64)
    n_components = model._n_features_out
    return X.rechunk({1: -1}).map_blocks(
        partial(_by_block, partial(_place, light)),
        dtype=dtype,
        chunks=(X.chunks[0], (n_components,)),
        meta=np.empty((0, n_components), dtype),
    )


def explain_lazily(
    model: Any, X: Any, of: str | Callable[[Any], NDArray[Any]] = "contributions", **options: Any
) -> Any:
    """What the explanations of a dask array's rows say, as a dask array.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    X : dask.array.Array of shape (M, D)
        Rows; the columns of a row are brought into one block. Explaining a block takes about 12
        times its float64 size: choose the rows of a chunk by it.
    of : str or callable
        Name of an array of the `Explanation` with a row for each row, such as "contributions",
        "weight" or "offset"; or a function of the `Explanation` that gives such an array, such as
        ``Explanation.importance``.
    **options
        Those of `ParametricTSNE.explain`.

    Returns
    -------
    dask.array.Array of shape (M, ...)
        Not computed yet, in blocks of the same rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> from ptsne.streaming import explain_lazily
    >>> X = load_iris().data
    >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)

    .. doctest::
        :skipif: is_missing("dask")

        >>> import dask.array as da
        >>> contributions = explain_lazily(map_, da.from_array(X, chunks=(50, 4)))
        >>> contributions.chunks  # nothing is computed yet
        ((50, 50, 50), (2,), (4,))
        >>> bool(abs(contributions.compute() - map_.explain(X).contributions).max() < 1e-9)
        True
    """
    light = _light(model)
    explained = partial(_explain, light, of, options)
    like = explained(np.zeros((1, X.shape[1]), X.dtype))
    added = {"new_axis": list(range(2, like.ndim))} if like.ndim > 2 else {}
    if like.ndim == 1:
        added = {"drop_axis": [1]}
    return X.rechunk({1: -1}).map_blocks(
        partial(_by_block, explained),
        dtype=like.dtype,
        chunks=(X.chunks[0], *((n,) for n in like.shape[1:])),
        meta=like[:0],
        **added,
    )


def _place(model: Any, rows: Any) -> NDArray[Any]:
    places: NDArray[Any] = model._place(model._rows(rows))
    return places


def _explain(
    model: Any, of: str | Callable[[Any], NDArray[Any]], options: dict[str, Any], rows: Any
) -> NDArray[Any]:
    why = model.explain(rows, **options)
    return np.asarray(getattr(why, of) if isinstance(of, str) else of(why))


def _light(model: Any, *others: str) -> Any:
    """The fitted model without what a block does not need."""
    light = copy.copy(model)
    light.callbacks = None
    for name in (*LEFT_BEHIND, *others):
        light.__dict__.pop(name, None)
    return light


def _by_block(
    function: Callable[[Any], NDArray[Any]], rows: Any, block_info: Any = None
) -> NDArray[Any]:
    """A function of one block; an error says where the block begins."""
    try:
        return function(rows)
    except ValueError as error:
        first = block_info[0]["array-location"][0][0] if block_info else 0
        raise ValueError(f"in the block that starts at row {first}: {error}") from error
