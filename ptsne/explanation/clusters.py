"""Clusters of rows, from labels of any kind."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clusters:
    """Which rows are in which cluster.

    Attributes
    ----------
    codes : int ndarray of shape (N,)
        Number of each row's cluster; -1 where it is in none.
    names : list
        The clusters' labels, sorted; each has a row.
    """

    codes: NDArray[np.int64]
    names: list[Hashable]

    def members(self, name: Hashable) -> NDArray[np.int64]:
        """Rows of a cluster, in order.

        Parameters
        ----------
        name : hashable
            Its label.

        Returns
        -------
        int ndarray of shape (n,)
            At least one row.

        Raises
        ------
        ValueError
            If no row has that label.
        """
        if name not in self.names:
            shown = ", ".join(repr(other) for other in self.names[:10])
            more = ", ..." if len(self.names) > 10 else ""
            raise ValueError(f"no row has the label {name!r}; the labels are {shown}{more}")
        return np.flatnonzero(self.codes == self.names.index(name))


def clusters_of(labels: Any, n_rows: int) -> Clusters:
    """Clusters by one label a row.

    Parameters
    ----------
    labels : array-like of shape (N,)
        Strings, numbers or categories; -1, NaN and None stand for no cluster.
    n_rows : int
        N.

    Returns
    -------
    Clusters
        Those with at least one row.

    Raises
    ------
    ValueError
        If there is not one label a row, or no row is in a cluster.
    """
    import pandas as pd  # noqa: PLC0415 - importing ptsne must not import pandas

    values = labels if hasattr(labels, "dtype") else np.array(list(labels), dtype=object)
    if values.ndim != 1 or len(values) != n_rows:
        raise ValueError(
            f"labels must be one a row, shape ({n_rows},); got shape {tuple(values.shape)}"
        )
    codes, names = pd.factorize(values, sort=True)
    known = [(code, name) for code, name in enumerate(names.tolist()) if not _is_none(name)]
    if not known:
        raise ValueError("no row is in a cluster: all labels are -1 or missing")
    new = np.full(len(names) + 1, -1)  # the last one is for rows of code -1
    new[[code for code, _ in known]] = np.arange(len(known))
    return Clusters(new[codes], [name for _, name in known])


def _is_none(name: Any) -> bool:
    return not isinstance(name, (str, bool)) and name == -1
