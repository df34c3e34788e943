"""What a map says about its points: exact local maps, contributions, landmarks."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptsne.explanation.contrasts import contrast_rows, row_of
from ptsne.explanation.source import AffineMap, Array, Landmarks, Source

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Explanation:
    """Exact local maps of rows: ``Y[i] == weight[i] @ X[i] + intercept[i]``.

    Attributes
    ----------
    weight : ndarray of shape (N, K, D)
        W: map units per unit of each column.
    intercept : ndarray of shape (N, K)
        b, summed from the layers' constants independently of `Y`.
    X : ndarray of shape (N, D)
        The rows.
    Y : ndarray of shape (N, K)
        Their places.
    baseline : ndarray of shape (N, D)
        What contributions are measured from.
    feature_names : list of str
        Names of the columns.
    n_active : int ndarray of shape (N,)
        Landmarks that hold each row. At 1 W is the slope of one chart; above 1 the row stands
        on the boundary between charts, where W is the slope of a ramp: rank no features by it.
        0 where the projection has no landmarks.
    """

    weight: Array
    intercept: Array
    X: Array
    Y: Array
    baseline: Array
    feature_names: list[str]
    n_active: NDArray[np.int64]
    _source: Source

    @property
    def contributions(self) -> Array:
        """``W (x - baseline)`` feature by feature, (N, K, D): displacement on the map.

        ``contributions.sum(2) + offset == Y``.
        """
        displacement: Array = self.weight * (self.X - self.baseline)[:, None, :]
        return displacement

    @property
    def offset(self) -> Array:
        """``W baseline + b``, (N, K): where the local map puts the baseline."""
        place: Array = np.einsum("nkd,nd->nk", self.weight, self.baseline) + self.intercept
        return place

    @property
    def residual(self) -> Array:
        """``|W x + b - y|`` relative to ``|W x| + |b| + |y|``, (N,): 0 up to rounding."""
        wx = np.einsum("nkd,nd->nk", self.weight, self.X)
        error = np.abs(wx + self.intercept - self.Y)
        scale = np.abs(wx) + np.abs(self.intercept) + np.abs(self.Y)
        relative: Array = (error / np.where(scale > 0, scale, 1)).max(1)
        return relative

    def importance(self, reduce: str = "l2") -> Array:
        """Length of each feature's displacement, (N, D): unchanged when the map is rotated.

        Parameters
        ----------
        reduce : {"l2", "l1"}, default="l2"
            Norm over the K coordinates; only "l2" is free of the choice of axes.

        Returns
        -------
        ndarray of shape (N, D)
            In map units, non-negative.

        Raises
        ------
        ValueError
            If `reduce` is another word.
        """
        if reduce not in {"l1", "l2"}:
            raise ValueError(f'reduce must be "l2" or "l1"; got {reduce!r}')
        length: Array = np.linalg.norm(self.contributions, ord=int(reduce[1]), axis=1)
        return length

    @cached_property
    def encoder(self) -> AffineMap:
        """First stage ``z = W_e x + b_e``: weight (N, L, D), intercept (N, L)."""
        return self._source.stage(self._source.network.encoder, self.X)

    @cached_property
    def projection(self) -> AffineMap:
        """Second stage ``y = W_p z + b_p``: weight (N, K, L), intercept (N, K).

        ``weight == projection.weight @ encoder.weight`` and ``intercept ==
        projection.weight @ encoder.intercept + projection.intercept``.
        """
        return self._source.stage(self._source.network.projection, self._source.codes(self.X))

    @cached_property
    def landmarks(self) -> Landmarks:
        """Training rows that hold each point, and how heavily."""
        return self._source.landmarks(self.X)

    def radius(self, p: float = 2) -> Array:
        """How far each local map holds: the largest p-ball around the row with the same W and b.

        Parameters
        ----------
        p : {1, 2, inf}, default=2
            Norm, in the columns' units.

        Returns
        -------
        ndarray of shape (N,)
            Distance to the nearest boundary of the row's linear region.

        References
        ----------
        Li et al. 2023, Lemma 1.
        """
        return self._source.radius(self.X, p)

    def contrast(self, i: Any, j: Any, *, method: str = "path") -> Array:
        r"""Why `j` lies where it does and not at `i`: each feature's share of the way between them.

        .. math:: s_f = d_f \cdot (y_j - y_i) / |y_j - y_i|^2, \quad \sum_f d_f = y_j - y_i

        The displacements :math:`d_f` are, with :math:`\Delta = x_j - x_i`,

        - "path": exact integrated gradients, :math:`\Delta_f \int_0^1 \partial_f F(x_i + t \Delta)
          \, dt`. The straight connection of the rows is walked from linear region to linear region.
        - "paired": :math:`M_f \Delta_f` with the exact map of the difference,
          :math:`y_j - y_i = M \Delta`. It follows each switch of the network from one end to the
          other without looking between them, and needs no piecewise linear network.
        - "local": :math:`\frac12 (W_i + W_j)_f \Delta_f`, what the two local maps predict. Here
          the way is the predicted one, :math:`\sum_f d_f`, not the actual one.

        Parameters
        ----------
        i, j : int or array-like of shape (D,)
            Rows of this explanation by their number, or rows of one's own in the columns' units,
            such as a stored example or the centre of a cluster.
        method : {"path", "paired", "local"}, default="path"
            How the way is attributed.

        Returns
        -------
        ndarray of shape (D,), float64
            Signed shares; they sum to 1, stay the same when the map is rotated, mirrored, shifted
            or scaled, and when i and j change places.

        Warns
        -----
        UserWarning
            With "local", where the predicted way is more than 60 degrees off the actual one, or
            its length off by more than a factor of 2.

        Notes
        -----
        ValueError if the method is unknown, there is no such row, or the rows share one place.
        UnsupportedOperation for "path" if the network is not piecewise linear; use "paired".

        References
        ----------
        Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, eq. 1.
        Shrikumar, Greenside and Kundaje 2017, Learning important features through propagating
        activation differences (summation to delta; the rescale rule).
        """
        start, end = (row_of(self.X, at) for at in (i, j))
        return contrast_rows(self._source, start, end, method)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one line per row and feature.

        Returns
        -------
        DataFrame
            Columns row, feature, value, baseline, importance, contribution_1 ... contribution_K
            and weight_1 ... weight_K.
        """
        import pandas as pd  # noqa: PLC0415 - importing ptsne must not import pandas

        N, K, D = self.weight.shape
        columns = {
            "row": np.repeat(np.arange(N), D),
            "feature": np.tile(self.feature_names, N),
            "value": self.X.ravel(),
            "baseline": self.baseline.ravel(),
            "importance": self.importance().ravel(),
        }
        for name, values in (("contribution", self.contributions), ("weight", self.weight)):
            columns |= {f"{name}_{k + 1}": values[:, k].ravel() for k in range(K)}
        return pd.DataFrame(columns)
