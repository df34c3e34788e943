"""Rows as people have them: arrays, tensors, tables, sparse matrices and annotated data."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import check_array, validate_data

from ptsne.lazy import LazyRows, Sliced, Source, Sparse, lazy_source

DENSE_BUDGET = 2**32
"""Bytes that sparse rows may take where they have to be dense."""
NO_TABLES = (str, bytes, Mapping, AbstractSet, Iterator)
LARGEST = 1e150
"""Beyond it the squares of float64 values overflow."""
NAMED_COLUMNS = 8
"""Columns that an error names before it only counts the rest."""


class Annotated(NamedTuple):
    """A matrix beside the names of its columns, as an AnnData holds them.

    Attributes
    ----------
    X : array-like or sparse matrix of shape (N, D)
        Rows.
    var_names : sequence of str
        Names of the columns.
    """

    X: Any
    var_names: Sequence[str]


class SparseRows:
    """Sparse rows that become dense only where they are sliced.

    Parameters
    ----------
    matrix : csr_array of shape (N, D)
        Rows, in canonical format.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape: tuple[int, int] = matrix.shape
        self.dtype = matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        dense: NDArray[Any] = self.matrix[rows].toarray()
        return dense

    def mean(self, axis: int, dtype: Any) -> NDArray[Any]:
        """Column means (D,)."""
        return np.asarray(self.matrix.sum(axis=axis, dtype=dtype)) / len(self)

    def var(self, axis: int, dtype: Any) -> NDArray[Any]:
        """Column variances (D,), from differences: nothing cancels."""
        mean, column = self.mean(axis, dtype), self.matrix.indices
        stored = (self.matrix.data - mean[column]) ** 2
        n_stored = np.bincount(column, minlength=self.shape[1])
        squares = np.bincount(column, stored, minlength=self.shape[1])
        variance: NDArray[Any] = (squares + (len(self) - n_stored) * mean**2) / len(self)
        return variance


Rows: TypeAlias = Any  # ndarray, SparseRows or LazyRows


def read_rows(
    estimator: Any, X: Any, *, reset: bool = False, min_rows: int = 1, streamed: bool = False
) -> Rows:
    """Rows of any kind as float32 or float64 rows, checked; the caller's data are not touched.

    Parameters
    ----------
    estimator : BaseEstimator
        Whose columns these are: names and number of columns are learned or compared.
    X : array-like, sparse matrix, tensor, DataFrame, AnnData or lazy rows of shape (N, D)
        Rows. float32 stays, everything else becomes float64. Lazy are datasets of h5py, zarr and
        dask arrays, and a torch `Dataset`.
    reset : bool
        Whether to learn the columns.
    min_rows : int
        Fewest rows.
    streamed : bool
        Whether to read arrays and sparse rows lazily too.

    Returns
    -------
    C-ordered ndarray, SparseRows or LazyRows of shape (N, D)
        A view of the data where their layout allows it. Lazy rows are checked when they are read.

    Notes
    -----
    ValueError if the rows are not a finite table of numbers, or have other columns than at `fit`;
    TypeError if `X` is no table at all.
    """
    values, names = matrix_and_names(X, in_memory=not streamed)
    source = _on_disk(values) or lazy_source(values, arrays=streamed)
    values = plain(values) if source is None else _like(source, min_rows)
    rows = check_array(
        values,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        order="C",
        ensure_all_finite=False,
        ensure_min_samples=min_rows,
        estimator=estimator,
        input_name="X",
    )
    named = values if _is_table(values) else rows
    validate_data(
        estimator,
        X=named if names is None else _empty_table(names),
        reset=reset,
        skip_check_array=True,
    )
    columns = getattr(estimator, "feature_names_in_", None)
    if source is not None:
        return LazyRows(source, partial(_require_finite, names=columns))
    rows = _canonical(rows) if sparse.issparse(rows) else rows
    _require_finite(rows, names=columns)
    return as_lazy(rows) if streamed else rows


def as_lazy(rows: NDArray[Any] | SparseRows) -> LazyRows:
    """Checked rows in memory, to be read block by block."""
    source = Sparse(rows.matrix) if isinstance(rows, SparseRows) else Sliced(rows)
    return LazyRows(source, _are_checked)


def _are_checked(rows: NDArray[Any], first: int) -> None:
    """Nothing: these rows were checked when they were taken."""


def _like(source: Source, min_rows: int) -> NDArray[Any]:
    """A few zeros that `check_array` refuses where it would refuse the rows."""
    _require_numbers(source.dtype)
    n_rows, *others = source.shape if len(source.shape) == 2 else (1, *source.shape[1:])
    is_number = source.dtype.kind in "biufc"
    shape = (min(n_rows, min_rows), *others) if source.shape else ()
    return np.zeros(shape, source.dtype if is_number else np.float64)


def as_matrix(rows: Rows) -> Any:
    """The ndarray or csr_array behind rows."""
    return rows.matrix if isinstance(rows, SparseRows) else rows


def as_dense(rows: Rows) -> NDArray[Any]:
    """All rows as one array (N, D); MemoryError for sparse ones that take over 4 GiB so."""
    if isinstance(rows, LazyRows):
        return _read_all(rows)
    if isinstance(rows, SparseRows):
        require_room(rows.shape, rows.dtype.itemsize, "pass fewer rows at a time")
    dense: NDArray[Any] = rows[:]
    return dense


def explainable_rows(estimator: Any, X: Any) -> NDArray[Any]:
    """Rows of any kind, checked against the columns of a fitted map, as one dense array (N, D)."""
    rows = read_rows(estimator, X)
    require_explainable(rows)
    return as_dense(rows)


def in_memory(rows: Rows) -> Rows:
    """Rows that are read from a file as one array, others as they are."""
    return _read_all(rows) if isinstance(rows, LazyRows) else rows


def _read_all(rows: LazyRows) -> NDArray[Any]:
    """Lazy rows in memory."""
    result = np.empty(rows.shape, rows.dtype)
    for where, block in rows.blocks():
        result[where] = block
    return result


def require_explainable(rows: Rows) -> None:
    """Refuse to explain more lazy rows than memory is set aside for.

    Parameters
    ----------
    rows : Rows
        Rows (N, D).

    Raises
    ------
    MemoryError
        If they are lazy and take more than 4 GiB.
    """
    size = rows.shape[0] * rows.shape[1] * rows.dtype.itemsize
    if isinstance(rows, LazyRows) and size > DENSE_BUDGET:
        raise MemoryError(
            f"{rows.shape[0]} rows of {rows.shape[1]} columns take {size / 2**30:.1f} GiB, and an "
            "explanation holds them and their W; take ptsne.streaming.explain_blocks(map_, X), "
            "which explains a block at a time, or explain_lazily for a dask array"
        )


def float32_copy(rows: Rows) -> NDArray[np.float32]:
    """A dense copy (N, D) of rows in float32."""
    result = np.empty(rows.shape, dtype=np.float32)
    if isinstance(rows, LazyRows):
        for where, block in rows.blocks():
            result[where] = block
        return result
    for start in range(0, len(rows), 4096):
        result[start : start + 4096] = rows[start : start + 4096]
    return result


def part_of(rows: Rows, span: slice) -> Rows:
    """Some neighbouring rows; sparse ones stay so."""
    if span == slice(0, len(rows)):
        return rows
    return SparseRows(rows.matrix[span]) if isinstance(rows, SparseRows) else rows[span]


def require_room(shape: tuple[int, ...], itemsize: int, otherwise: str) -> None:
    """Refuse to make sparse rows dense beyond the budget.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    itemsize : int
        Bytes a number.
    otherwise : str
        What else can be done.

    Raises
    ------
    MemoryError
        If they take more than 4 GiB.
    """
    size = shape[0] * shape[1] * itemsize
    if size > DENSE_BUDGET:
        raise MemoryError(
            f"{shape[0]} sparse rows of {shape[1]} columns take {size / 2**30:.1f} GiB as a dense "
            f"array, over the budget of {DENSE_BUDGET / 2**30:.3g} GiB; {otherwise}, or reduce the "
            "columns first: make_pipeline(TruncatedSVD(100), ParametricTSNE())"
        )


# ---- kinds ----


def matrix_and_names(X: Any, *, in_memory: bool = True) -> tuple[Any, Sequence[str] | None]:
    """Matrix and names of the columns of an AnnData; anything else as it is.

    Parameters
    ----------
    X : object
        Rows of any kind.
    in_memory : bool
        Whether a sparse matrix on disk is read; one by columns always is.

    Returns
    -------
    matrix : object
        Rows.
    names : list of str or None
        None where there are none beside the matrix.

    Raises
    ------
    ValueError
        If the AnnData has no matrix.
    """
    if not (hasattr(X, "X") and hasattr(X, "var_names")):
        return X, None
    if X.X is None:
        raise ValueError("the AnnData has no X; name a layer or a representation in ptsne.tsne")
    names = [str(name) for name in X.var_names]
    stays = not in_memory and _on_disk(X.X)
    return X.X.to_memory() if hasattr(X.X, "to_memory") and not stays else X.X, names


def _on_disk(X: Any) -> Sparse | None:
    """Rows of a sparse matrix on disk, of which AnnData reads those that are sliced."""
    return Sparse(X) if hasattr(X, "to_memory") and getattr(X, "format", "") == "csr" else None


def plain(X: Any) -> Any:
    """What `check_array` reads rightly, or a ValueError or TypeError that says what it is."""
    if hasattr(type(X), "collect_schema") and hasattr(type(X), "collect"):
        raise TypeError("X is a lazy frame, which holds no rows yet; pass X.collect()")
    if isinstance(X, torch.Tensor):
        return _from_tensor(X)
    if _is_table(X):
        _require_number_columns(X)
    elif X is None or (isinstance(X, NO_TABLES) and not sparse.issparse(X)):  # DOK is a mapping
        raise TypeError(
            "X must be rows of numbers, (n_samples, n_features): an array, a DataFrame, a sparse "
            f"matrix, a tensor or an AnnData; got {type(X).__name__}"
        )
    elif isinstance(X, np.ma.MaskedArray) and np.ma.getmaskarray(X).any():
        raise ValueError(
            "X has masked values, which have no place on a map; fill them (X.filled) or drop rows"
        )
    elif isinstance(X, (list, tuple)):
        _require_one_length(X)
    _require_numbers(getattr(X, "dtype", None))
    return X


def _from_tensor(X: torch.Tensor) -> NDArray[Any]:
    if X.layout is not torch.strided:
        raise ValueError(
            f"X is a tensor of layout {X.layout}; pass a scipy.sparse.csr_array or X.to_dense()"
        )
    if X.is_meta:
        raise ValueError("X is a tensor on the meta device, which holds no numbers")
    values = X.detach().cpu()
    is_known = values.dtype is not torch.bfloat16  # NumPy has no such numbers
    array: NDArray[Any] = (values if is_known else values.double()).numpy()
    return array


def _is_table(X: Any) -> bool:
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def _require_number_columns(X: Any) -> None:
    """Refuse a DataFrame with columns that are no numbers, and name them."""
    if not len(X.columns):
        raise ValueError("the table X has no columns; pass at least one column of numbers")
    dtypes = zip(X.columns, X.dtypes, strict=True)  # pandas, polars
    wrong = {str(name): str(dtype) for name, dtype in dtypes if not _is_number(dtype)}
    if wrong:
        named = [f"{name!r} ({dtype})" for name, dtype in wrong.items()][:NAMED_COLUMNS]
        more = f" and {len(wrong) - len(named)} more" if len(wrong) > len(named) else ""
        raise ValueError(
            f"could not convert columns to numbers: {', '.join(named)}{more}; leave them out, or "
            "encode them in front of the map: make_pipeline(make_column_transformer("
            f"(OneHotEncoder(), {[*wrong][:NAMED_COLUMNS]}), remainder='passthrough'), "
            "ParametricTSNE())"
        )


def _is_number(dtype: Any) -> bool:
    if hasattr(dtype, "kind"):
        return dtype.kind in "biuf"
    return dtype.is_numeric() or str(dtype) == "Boolean"


def _require_one_length(X: Sequence[Any]) -> None:
    lengths = [len(row) for row in X if hasattr(row, "__len__") and np.ndim(row[:0]) == 1]
    if len(set(lengths)) > 1:
        other = next(i for i, n in enumerate(lengths) if n != lengths[0])
        raise ValueError(
            f"rows must have the same number of values: row 0 has {lengths[0]}, row {other} has "
            f"{lengths[other]}"
        )


def _require_numbers(dtype: Any) -> None:
    kind = getattr(dtype, "kind", None)
    if kind in set("mMUSV"):
        raise ValueError(
            f"could not convert string, date or record to a number: X has dtype {dtype}; pass "
            "columns of numbers"
        )


def _empty_table(names: Sequence[str]) -> Any:
    """A table without rows whose columns have these names."""
    import pandas as pd  # noqa: PLC0415 - optional: only annotated data have names beside a matrix

    return pd.DataFrame(np.empty((0, len(names))), columns=list(names))


def _canonical(matrix: Any) -> SparseRows:
    """Sorted rows without duplicates: a copy where the caller's are not so."""
    rows = sparse.csr_array(matrix)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return SparseRows(rows)


# ---- finite numbers ----


def _require_finite(rows: Rows, first: int = 0, *, names: Sequence[str] | None) -> None:
    """Refuse NaN, infinity and what squares to it, and name the first cell in reading order."""
    cell = _first_beyond(rows)
    if cell is None:
        return
    row, column, value = first + cell[0], *cell[1:]
    name = f"{column}" if names is None else f"{column} ({str(names[column])!r})"
    if np.isfinite(value):
        raise ValueError(
            f"Input X contains {value:.3g} in row {row}, column {name}: squared distances would "
            f"overflow; scale the columns below {LARGEST:.0e}"
        )
    found = "NaN" if np.isnan(value) else "infinity"
    raise ValueError(
        f"Input X contains {found}: the first is in row {row}, column {name}; a map needs finite "
        "numbers: fill gaps with SimpleImputer in a pipeline, or drop these rows"
    )


def _is_beyond(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where values are not finite or too large: NaN compares as false."""
    largest = min(LARGEST, float(np.finfo(values.dtype).max))
    is_beyond: NDArray[np.bool_] = ~(np.abs(values) <= largest)
    return is_beyond


def _are_usable(values: NDArray[Any]) -> bool:
    """Whether the sum of squares shows that all values are; False leaves it open."""
    largest = min(LARGEST, float(np.finfo(values.dtype).max))
    flat = values.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(flat, flat)) <= largest**2 / 2  # float: float32 would overflow too


def _first_beyond(rows: Rows) -> tuple[int, int, float] | None:
    """Row, column and value of the first cell that cannot be used."""
    if isinstance(rows, SparseRows):
        matrix = rows.matrix
        at = _first_entry_beyond(matrix.data)
        if at is None:
            return None
        row = int(np.searchsorted(matrix.indptr, at, side="right")) - 1
        return row, int(matrix.indices[at]), float(matrix.data[at])
    for start in range(0, len(rows), 4096):
        values = rows[start : start + 4096]
        if _are_usable(values):  # in one pass; a search takes 30 times as long
            continue
        cells = np.argwhere(_is_beyond(values))
        if len(cells):
            row, column = (int(i) for i in cells[0])
            return start + row, column, float(rows[start + row, column])
    return None


def _first_entry_beyond(values: NDArray[Any]) -> int | None:
    """Number of the first of many values that cannot be used."""
    for start in range(0, len(values), 2**20):
        part = values[start : start + 2**20]
        if _are_usable(part):
            continue
        wrong = np.flatnonzero(_is_beyond(part))
        if len(wrong):
            return start + int(wrong[0])
    return None
