"""Rows of many columns in their principal directions, read block by block."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor

from ptsne.lazy import ROWS_AT_ONCE, LazyRows
from ptsne.networks import LATENT_RADIUS, Standardize

OVERSAMPLING = 16
COVARIANCE_LIMIT = 1024
"""Columns up to which the covariance is cheaper than its products with a basis."""
POWER_STEPS = 3

Single: TypeAlias = NDArray[np.float32]


class Reduced(NamedTuple):
    """Standardised rows in r directions.

    Attributes
    ----------
    X : Tensor of shape (N, r), float32
        ``standardize(x) @ axes.T``.
    axes : Tensor of shape (r, D), float32, or None
        Orthonormal rows; None where all columns are kept.
    standardize : Standardize
        Of the rows in data units, in float64.
    """

    X: Tensor
    axes: Tensor | None
    standardize: Standardize


def reduce_rows(
    rows: LazyRows, rank: int, *, file: Path | None, random_state: RandomState
) -> Reduced:
    """Read rows a few times, and keep them in their leading principal directions.

    Parameters
    ----------
    rows : LazyRows
        N rows of D columns; read 2 times where all columns are kept, 3 times up to 1,024 columns,
        else 5 times.
    rank : int
        Directions r; D or more keeps the columns as they are.
    file : Path or None
        Where to keep the reduced rows; None keeps them in memory.
    random_state : RandomState
        Starts the search for the directions, where there are many columns.

    Returns
    -------
    Reduced
        The rows and how they were made.
    """
    standardize = stream_standardize(rows)
    is_whole = rank >= rows.shape[1]
    axes = None if is_whole else _axes(rows, standardize, rank, random_state)
    shape = (len(rows), min(rank, rows.shape[1]))
    X = np.empty(shape, np.float32) if file is None else _mapped(file, shape)
    for where, block in _standardized(rows, standardize):
        X[where] = block if axes is None else block @ axes.T
    return Reduced(
        torch.from_numpy(X), None if axes is None else torch.from_numpy(axes), standardize
    )


def stream_standardize(rows: LazyRows) -> Standardize:
    """`fit_standardize` of rows that are read once, in float64."""
    n, mean, squares = 0, np.zeros(rows.shape[1]), 0.0
    for _, part in rows.parts():
        centre = part.mean(0)
        step, share = centre - mean, len(part) / (n + len(part))
        apart = part - centre
        squares += float(np.vdot(apart, apart)) + n * share * float(step @ step)
        mean += share * step
        n += len(part)
    scale = (squares / n) ** 0.5 / LATENT_RADIUS if squares > 0 else 1.0
    return Standardize(torch.from_numpy(mean), torch.tensor(scale, dtype=torch.float64))


def _standardized(rows: LazyRows, standardize: Standardize) -> Iterator[tuple[slice, Single]]:
    """Blocks of standardised rows, rounded to float32 after the subtraction."""
    mean, scale = standardize.mean.numpy(), float(standardize.scale)
    for where, block in rows.blocks():
        standard = np.empty(block.shape, np.float32)
        for start in range(0, len(block), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            standard[part] = (block[part] - mean) / scale
        yield where, standard


def _axes(rows: LazyRows, standardize: Standardize, rank: int, rng: RandomState) -> Single:
    """Leading principal directions (r, D), with signs by their largest entry."""
    n_columns = rows.shape[1]
    if n_columns <= COVARIANCE_LIMIT:
        covariance = _times_covariance(rows, standardize, None).astype(np.float64)
        axes = np.linalg.eigh(covariance)[1].T[::-1][:rank].astype(np.float32)
    else:
        axes = _iterated_axes(rows, standardize, rank, rng)
    largest = np.abs(axes).argmax(1)[:, None]
    signed: Single = axes * np.sign(np.take_along_axis(axes, largest, 1))
    return np.ascontiguousarray(signed)


def _iterated_axes(rows: LazyRows, standardize: Standardize, rank: int, rng: RandomState) -> Single:
    """Subspace iteration from random directions, each step one pass over the rows."""
    # Halko, Martinsson and Tropp 2011, Finding structure with randomness, algorithm 4.4
    width = min(rows.shape[1], rank + OVERSAMPLING)
    product = rng.standard_normal((rows.shape[1], width)).astype(np.float32)
    for _ in range(POWER_STEPS):
        basis = np.linalg.qr(product)[0]
        product = _times_covariance(rows, standardize, basis)
    within = np.linalg.eigh((basis.T @ product).astype(np.float64))[1][:, ::-1]
    axes: Single = (basis @ within[:, :rank].astype(np.float32)).T
    return axes


def _times_covariance(rows: LazyRows, standardize: Standardize, basis: Single | None) -> Single:
    """Sum over rows of ``x x.T`` (D, D), or its product (D, l) with a basis."""
    total = np.zeros((rows.shape[1],) * 2 if basis is None else basis.shape, np.float32)
    for _, block in _standardized(rows, standardize):
        total += block.T @ (block if basis is None else block @ basis)
    return total


def _mapped(file: Path, shape: tuple[int, int]) -> Single:
    return np.memmap(file, np.float32, "w+", shape=shape)
