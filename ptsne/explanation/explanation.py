"""What a map says about its points: exact local maps, contributions, landmarks."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from ptsne.explanation.baselines import Baseline, baseline_rows
from ptsne.explanation.clusters import clusters_of
from ptsne.explanation.contrasts import (
    contrast_members,
    contrast_rows,
    load_members,
    load_table,
    row_of,
    share_table,
)
from ptsne.explanation.counterfactuals import (
    Allowed,
    Bounds,
    Counterfactual,
    find_counterfactual,
)
from ptsne.explanation.exchange import to_captum, to_frame, to_shap
from ptsne.explanation.neighborhoods import relative_variance, row_fidelity
from ptsne.explanation.source import AffineMap, Array, Landmarks, Source
from ptsne.explanation.trust import Trust

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

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> X = load_iris().data
    >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
    >>> why = map_.explain(X[:5])
    >>> why.weight.shape, why.intercept.shape
    ((5, 2, 4), (5, 2))
    >>> bool(why.residual.max() < 1e-12)
    True

    Why is a row where it is?

    >>> why.displacement().shape, why.importance().shape  # map units
    ((5, 2, 4), (5, 4))
    >>> bool(abs(why.contributions.sum(2) + why.offset - why.Y).max() < 1e-9)
    True
    >>> why.with_baseline("zero").baseline[0].tolist()
    [0.0, 0.0, 0.0, 0.0]

    And why is it not where another one is? Shares, which sum to 1:

    >>> float(why.contrast(0, 1).sum().round(12))
    1.0
    >>> of_all = map_.explain(X[::3])
    >>> kind = [0] * 17 + [1] * 17 + [2] * 16
    >>> list(of_all.contrast_clusters(kind, 0, 1, n_pairs=5))
    ['feature', 'share', 'spread', 'low', 'high', 'n_pairs']
    >>> len(of_all.loadings(kind, n_rows=5))  # 3 clusters, 4 columns
    12

    What would move it, how far does W hold, and what is it worth?

    >>> moved = of_all.counterfactual(0, 1, labels=kind)
    >>> moved.change.shape, list(moved.features) == moved.to_frame()["feature"].tolist()
    ((4,), True)
    >>> why.radius().shape, of_all.local_fidelity().shape, of_all.weight_variance().shape
    ((5,), (50,), (50,))

    As a table, a line for each row and column:

    >>> why.to_frame().shape[0]
    20
    """

    weight: Array
    intercept: Array
    X: Array
    Y: Array
    baseline: Array
    feature_names: list[str]
    n_active: NDArray[np.int64]
    _mean: Array
    _source: Source

    @property
    def source(self) -> Source:
        """The fitted map, as explanations of other rows would ask it too."""
        return self._source

    @property
    def contributions(self) -> Array:
        """``W (x - baseline)`` feature by feature, (N, K, D): displacement by the local map.

        ``contributions.sum(2) + offset == Y``. Where the baseline lies in the row's linear region,
        as many a ``baseline="landmark"`` does, `offset` is its place, and this is the whole way.
        From far away it is not: ask `displacement`, which follows the map.
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

    def displacement(self, rows: Sequence[int] | None = None, *, method: str = "path") -> Array:
        r"""What each feature adds on the way from the baseline's place to the row's.

        .. math:: \sum_f d_f = y(x) - y(r)

        This answers what puts a point where it stands. `contributions` say what the map around the
        point makes of the same difference, and between far places that is another way: on maps of
        digits it misses nearly all of the way from the mean picture.

        Parameters
        ----------
        rows : sequence of int, default=None
            Rows of this explanation; all by default.
        method : {"path", "paired"}, default="path"
            "path": exact integrated gradients, some ten milliseconds a row. "paired": differences
            of the two rows, unit by unit, about a millisecond.

        Returns
        -------
        ndarray of shape (n, K, D), float64
            In map units.

        Raises
        ------
        ValueError
            If the method is another word.

        Notes
        -----
        `UnsupportedOperation` where the network is not piecewise linear and the method is "path".

        References
        ----------
        Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, eq. 1.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> why = map_.explain(X[::5])
        >>> parts = why.displacement([0, 1])  # of two rows, from the mean flower
        >>> parts.shape
        (2, 2, 4)
        >>> way = why.Y[:2] - map_.transform(why.baseline[:2])
        >>> bool(abs(parts.sum(2) - way).max() < 1e-9)
        True
        """
        if method not in {"path", "paired"}:
            raise ValueError(f'method must be "path" or "paired"; got {method!r}')
        chosen = slice(None) if rows is None else np.asarray(rows, dtype=np.int64)
        starts, ends = (a[chosen].astype(np.float64) for a in (self.baseline, self.X))
        if method == "paired":
            return self._source.paired_ways(starts, ends)
        axes = np.eye(self.Y.shape[1])
        return np.stack([self._source.path_parts(starts, ends, axis) for axis in axes], 1)

    def with_baseline(self, baseline: Baseline, labels: Any = None) -> "Explanation":
        r"""The same local maps, measured from elsewhere.

        ``contributions`` become :math:`W (x - r)` with another r, and `offset` makes the sum exact
        again; W, b and the places stay. What has a baseline, as `loadings`, begins there.

        Parameters
        ----------
        baseline : "mean", "zero", "landmark", "cluster" or array-like of shape (D,) or (N, D)
            The mean of the training rows; zero; the training row nearest to each row's main
            landmark; the mean of those of these rows that are in its own cluster; one row; rows.
        labels : array-like of shape (N,), default=None
            Cluster of each row, for "cluster".

        Returns
        -------
        Explanation
            Of the same rows.

        Notes
        -----
        ValueError if the baseline is none of the above, or a row is in no cluster.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X, kind = load_iris(return_X_y=True)
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> of_kind = why.with_baseline("cluster", kind[::5])
        >>> of_kind.baseline[0].round(2).tolist(), why.baseline[0].round(2).tolist()
        ([5.16, 3.47, 1.49, 0.26], [5.84, 3.06, 3.76, 1.2])
        >>> bool((of_kind.weight == why.weight).all())
        True
        """
        rows = baseline_rows(baseline, self.X, mean=self._mean, source=self._source, labels=labels)
        return replace(self, baseline=rows)

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

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> why.importance().shape, bool((why.importance() >= 0).all())
        ((30, 4), True)
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

    @cached_property
    def trust(self) -> Trust:
        """How unlike the training rows each row is: see `Trust` for its numbers.

        ``trust.distance``: from the row's code to the nearest landmark. ``trust.
        reconstruction_error``: what its code does not hold. Each has its percentile among the
        training rows, which are measured as if they were new; ``trust.percentile`` is the larger
        one. At 99.9 a row is stranger than nearly all training rows: its place is an
        extrapolation, however exact its W.

        ValueError if the map was saved by a version that did not measure its training rows.
        """
        return self._source.trust(self.X)

    def local_fidelity(self, n_neighbors: int = 5) -> NDArray[np.float64]:
        r"""How well each row's W predicts where its nearest rows lie on the map.

        .. math:: 1 - \operatorname{median}_j |W_i \Delta x_j - \Delta y_j|^2 \, / \,
            \operatorname{median}_j |\Delta y_j|^2

        over the ways :math:`\Delta` to the nearest neighbours j of row i among these rows: the
        formula of `ptsne.metrics.local_fidelity`, row by row, with no pair left out. It stays the
        same when the map is rotated, mirrored, shifted or scaled.

        Parameters
        ----------
        n_neighbors : int, default=5
            Nearest other rows of this explanation, by Euclidean distance in the columns' units.

        Returns
        -------
        ndarray of shape (N,)
            1: W predicts them exactly; 0: no better than predicting no way at all; below 0 worse.

        Notes
        -----
        ValueError if there are not more than `n_neighbors` rows.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> fidelity = why.local_fidelity(n_neighbors=3)
        >>> fidelity.shape, bool((fidelity <= 1).all())
        ((30,), True)
        """
        return row_fidelity(self.weight, self.X, self.Y, n_neighbors)

    def weight_variance(self, n_neighbors: int = 5) -> NDArray[np.float64]:
        r"""How much W differs between a row and its nearest rows.

        .. math:: \frac{\tfrac1n \sum_j |W_j - \bar W|^2}{\tfrac1n \sum_j |W_j|^2}, \quad
            \bar W = \tfrac1n \sum_j W_j

        over a row and its nearest neighbours (Frobenius norms). It stays the same when the map is
        rotated, mirrored, shifted or scaled.

        Parameters
        ----------
        n_neighbors : int, default=5
            Nearest other rows of this explanation, by Euclidean distance in the columns' units.

        Returns
        -------
        ndarray of shape (N,)
            0: all share one W; near 1: they have nothing in common.

        Notes
        -----
        ValueError if there are not more than `n_neighbors` rows.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> variance = why.weight_variance(n_neighbors=3)
        >>> bool(((variance >= 0) & (variance <= 1)).all())
        True
        """
        return relative_variance(self.weight, self.X, n_neighbors)

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

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> why.radius().shape, bool((why.radius() > 0).all())  # centimetres
        ((30,), True)
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

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> shares = why.contrast(0, 29)  # a setosa and a virginica
        >>> float(shares.sum().round(12))
        1.0
        """
        start, end = (row_of(self.X, at) for at in (i, j))
        return contrast_rows(self._source, start, end, method)

    def contrast_clusters(
        self,
        labels: Any,
        a: Hashable,
        b: Hashable,
        n_features: int | None = None,
        *,
        method: str = "path",
        n_pairs: int = 200,
        random_state: int | np.random.RandomState | None = 0,
    ) -> "pd.DataFrame":
        r"""What separates two clusters: each feature's share of the way between their centres.

        Members of the two are paired at random, and the way of each pair is attributed as in
        `contrast`. With the displacement :math:`d_{pf}` of feature f on the way of pair p, and the
        way :math:`v` from the centre of a to that of b on the map,

        .. math:: s_{pf} = d_{pf} \cdot v \, / \, \bar d \cdot v, \quad
            \bar d = \tfrac1P \sum_{pf} d_{pf},

        so that the means over pairs sum to 1.

        Parameters
        ----------
        labels : array-like of shape (N,)
            Cluster of each row: strings, numbers or categories; -1 and missing ones are in none.
        a, b : label
            Two clusters.
        n_features : int, default=None
            Features to keep, those with the largest share; what the others add together is one
            more line, "other features". None keeps all.
        method : {"path", "paired", "local"}, default="path"
            How each way is attributed.
        n_pairs : int, default=200
            Different pairs drawn; all pairs where there are no more.
        random_state : int, RandomState or None, default=0
            Of the draw.

        Returns
        -------
        DataFrame
            One line a feature, largest \|share\| first: feature; share, the mean of
            :math:`s_{pf}` over pairs (the column sums to 1); spread, its standard deviation over
            pairs; low and high, its 5 % and 95 % quantiles; n_pairs.

        Raises
        ------
        ValueError
            If a is b.

        Warns
        -----
        UserWarning
            With "local", as in `contrast`.

        Notes
        -----
        ValueError also if there is not one label a row, a label is unknown, the clusters share one
        place, or few pairs of overlapping clusters lead nowhere on average.

        References
        ----------
        Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, eq. 1.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X, kind = load_iris(return_X_y=True)
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> table = why.contrast_clusters(kind[::5], 0, 1, n_features=2, n_pairs=20)
        >>> table["feature"].tolist()[2], float(table["share"].sum().round(12))
        ('other features', 1.0)
        """
        if a == b:
            raise ValueError(f"a cluster is contrasted with another one; got {a!r} twice")
        clusters = clusters_of(labels, len(self.X))
        shares = contrast_members(
            self._source,
            self.X,
            self.Y,
            (clusters.members(a), clusters.members(b)),
            method=method,
            n_pairs=n_pairs,
            random_state=random_state,
        )
        return share_table(shares, self.feature_names, n_features, n_pairs=len(shares))

    def loadings(
        self,
        labels: Any,
        n_features: int | None = None,
        *,
        method: str = "path",
        n_rows: int = 100,
        random_state: int | np.random.RandomState | None = 0,
    ) -> "pd.DataFrame":
        r"""What holds each cluster where it is: shares of the way from the baseline's place.

        With the displacement :math:`d_{if}` that feature f adds on the way from the baseline row of
        member i to the member, attributed as in `contrast`, and the way :math:`v` from the
        baseline's place to the cluster's centre on the map,

        .. math:: s_{if} = d_{if} \cdot v \, / \, \bar d \cdot v, \quad
            \bar d = \tfrac1n \sum_{if} d_{if},

        so that the means over members sum to 1. `with_baseline` measures from elsewhere.

        Parameters
        ----------
        labels : array-like of shape (N,)
            Cluster of each row: strings, numbers or categories; -1 and missing ones are in none.
        n_features : int, default=None
            Features to keep for each cluster, those with the largest share there; what the others
            add together is one more line, "other features". None keeps all.
        method : {"path", "paired", "local"}, default="path"
            How each way is attributed.
        n_rows : int, default=100
            Members drawn from each cluster; all where there are no more.
        random_state : int, RandomState or None, default=0
            Of the draw.

        Returns
        -------
        DataFrame
            One line a cluster and feature, clusters in order of their labels, largest \|share\|
            first in each: cluster; feature; share, the mean of :math:`s_{if}` over members (sums
            to 1 in each cluster); spread, its standard deviation over members; low and high, its
            5 % and 95 % quantiles; n_rows.

        Warns
        -----
        UserWarning
            With "local", as in `contrast`.

        Notes
        -----
        ValueError if there is not one label a row, no row is in a cluster, or a cluster's centre
        lies where its baseline lies. UnsupportedOperation for "path" if the network is not
        piecewise linear; use "paired".

        References
        ----------
        Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, eq. 1.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X, kind = load_iris(return_X_y=True)
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> table = why.loadings(kind[::5], n_rows=5)
        >>> table.groupby("cluster")["share"].sum().round(12).tolist()
        [1.0, 1.0, 1.0]
        """
        clusters = clusters_of(labels, len(self.X))
        rng = check_random_state(random_state)
        shares = {}
        for name in clusters.names:
            shares[name] = load_members(
                self._source,
                self.X,
                self.baseline,
                clusters.members(name),
                method=method,
                n_rows=n_rows,
                random_state=rng,
            )
        return load_table(shares, self.feature_names, n_features)

    def to_captum(self, target: int, *, method: str = "path") -> tuple[Tensor, Tensor]:
        """Captum's form of `displacement`: tensors as ``attribute(..., return_convergence_delta)``.

        Parameters
        ----------
        target : int
            Coordinate of the map.
        method : {"path", "paired"}, default="path"
            As in `displacement`.

        Returns
        -------
        attributions : Tensor of shape (N, D)
            What each feature adds to the coordinate on the way from the baseline.
        delta : Tensor of shape (N,)
            Their sum less the change of the coordinate: 0 up to rounding.

        Notes
        -----
        ValueError if there is no such coordinate, or the method is another word.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])

        .. doctest::
            :skipif: is_missing("captum")

            >>> attributions, delta = why.to_captum(target=0)
            >>> attributions.shape, bool(abs(delta).max() < 1e-9)
            (torch.Size([30, 4]), True)
        """
        return to_captum(self, target, method)

    def to_shap(self, *, method: str = "contributions") -> Any:
        """SHAP's form of this explanation, for its pictures: one output per coordinate of the map.

        ``shap.plots.beeswarm(why.to_shap()[:, :, 0])``, and so bar, waterfall, heatmap and scatter.
        Each coordinate turns with the map; `importance` and `contrast` do not.

        Parameters
        ----------
        method : {"contributions", "path", "paired"}, default="contributions"
            "contributions": ``W (x - baseline)``; base values are `offset`, which differs from row
            to row. "path" and "paired": the whole way from the baseline's place, as in `contrast`;
            the base value is that place, ``f(baseline)``, the same for all rows of one baseline.

        Returns
        -------
        shap.Explanation
            ``values`` (N, D, K), ``base_values`` (N, K), ``data`` (N, D), names of features and
            outputs; ``values.sum(1) + base_values`` is `Y`.

        Notes
        -----
        ValueError if the method is another word; ImportError without shap.

        References
        ----------
        Lundberg and Lee 2017, A unified approach to interpreting model predictions. With "path" the
        values are those of Aumann and Shapley 1974, Values of non-atomic games.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])

        .. doctest::
            :skipif: is_missing("shap")

            >>> found = why.to_shap()
            >>> found.values.shape, found.output_names
            ((30, 4, 2), ['map 1', 'map 2'])
            >>> bool(abs(found.values.sum(1) + found.base_values - why.Y).max() < 1e-9)
            True
        """
        return to_shap(self, method)

    def counterfactual(  # noqa: PLR0913 - one option for each thing a user may hold fixed
        self,
        x: int | ArrayLike,
        target: Any,
        *,
        labels: ArrayLike | Sequence[Hashable] | None = None,
        max_features: int | None = None,
        features: Sequence[str] | None = None,
        norm: str = "l1",
        bounds: Bounds | None = None,
        scale: str | ArrayLike | None = "spread",
        tolerance: float | None = None,
        n_starts: int = 8,
    ) -> Counterfactual:
        """What would move it: the smallest change that puts a row somewhere else on the map.

        The change is found by the exact maps of the regions on the way, and what is returned is
        where the network itself puts the changed row. It is the smallest change found, from
        several starts, not proven to be the smallest of all.

        Parameters
        ----------
        x : int or array-like of shape (D,)
            The row: its number in this explanation, or its values.
        target : array-like of shape (K,), int or label
            A place; the number of a row, to move beside it; or, with `labels`, one of them.
        labels : array-like of shape (N,), optional
            Labels of the explained rows. A place is among the rows of a label when its five
            nearest rows on the map are all of that label, and no farther than its rows are from
            each other (the fifth neighbour of 95 % of them).
        max_features : int, optional
            How many features may change.
        features : sequence of str, optional
            Which features may change; all by default.
        norm : {"l1", "l2"}, default="l1"
            What is made small; "l1" changes few features, "l2" changes many of them a little.
        bounds : (low, high) or dict of name to (low, high), optional
            Values that a changed feature may have: numbers, or arrays of shape (D,); may be
            infinite. By default the range of the known rows: the explained ones and those of the
            landmarks. The row's own value is always allowed.
        scale : "spread", None or array-like of shape (D,), default="spread"
            What counts as one unit of each column, so that centimetres and counts compare: its
            standard deviation over the known rows (1 where a column is constant), the columns'
            own units, or given numbers.
        tolerance : float, optional
            How near is there, in map units. By default the median distance of explained rows from
            their fifth neighbour on the map; for a label as said there.
        n_starts : int, default=8
            Known rows in the target that the search starts from, the nearest ones first.

        Returns
        -------
        Counterfactual
            Row, change, changed features, place, ... If the target was not reached, the nearest
            one found, and a UserWarning says what to relax.

        References
        ----------
        Wachter, Mittelstadt and Russell 2017, Counterfactual explanations without opening the
        black box.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X, kind = load_iris(return_X_y=True)
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> moved = why.counterfactual(10, 2, labels=kind[::5], max_features=2)
        >>> moved.reached, len(moved.features) <= 2
        (True, True)
        """
        allowed = Allowed(max_features, features, norm, bounds, scale)
        return find_counterfactual(
            self,
            x,
            target,
            labels=labels,
            allowed=allowed,
            tolerance=tolerance,
            n_starts=n_starts,
        )

    def to_frame(self, library: str = "auto") -> Any:
        """Tidy table: one line per row and feature.

        Parameters
        ----------
        library : {"auto", "pandas", "polars"}, default="auto"
            Whose table. "auto" is pandas, and polars where
            ``sklearn.set_config(transform_output="polars")`` asks for it.

        Returns
        -------
        pandas.DataFrame or polars.DataFrame
            Columns row, feature, value, baseline, importance, contribution_1 ... contribution_K
            and weight_1 ... weight_K.

        Notes
        -----
        ValueError if `library` is another word; ImportError if it is not installed.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> why = ParametricTSNE(max_iter=30, random_state=0).fit(X).explain(X[::5])
        >>> table = why.to_frame()
        >>> len(table), list(table)[:5]
        (120, ['row', 'feature', 'value', 'baseline', 'importance'])
        """
        return to_frame(self, library)
