"""Rows of a stream that wait until there are enough for a first map."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ptsne.rows import Annotated, Rows, as_matrix


@dataclass
class Stream:
    """Batches that came before the first map.

    Parameters
    ----------
    needed : int
        Rows of a first map.
    """

    needed: int
    parts: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)

    def add(self, rows: Rows, y: Any) -> bool:
        """Keep a batch; whether there are enough rows now."""
        self.parts.append(as_matrix(rows))
        self.labels += [None] * len(rows) if y is None else list(np.asarray(y, dtype=object))
        n_rows = sum(int(part.shape[0]) for part in self.parts)
        return n_rows >= self.needed

    def gathered(self, names: Any) -> tuple[Any, list[Any]]:
        """All rows, with the names of their columns, and their labels."""
        return named(stack(self.parts), names), self.labels


def named(matrix: Any, names: Any) -> Any:
    """A matrix beside the names of its columns, where there are names."""
    return matrix if names is None else Annotated(matrix, list(names))


def stack(parts: list[Any]) -> Any:
    """Arrays, or arrays and sparse matrices, one below the other."""
    if any(sparse.issparse(part) for part in parts):
        return sparse.csr_array(sparse.vstack([sparse.csr_array(part) for part in parts]))
    stacked: NDArray[Any] = np.concatenate(parts)
    return stacked
