"""`ParametricTSNE`: validate, compose, store."""

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ptsne import export, persistence
from ptsne.devices import resolve_device
from ptsne.explanation import Baseline, Calibration, Explanation, Source, explain_rows
from ptsne.fitting import NEIGHBORS_PER_PERPLEXITY, callbacks_of, fit_inverse, fit_map
from ptsne.lazy import apply_by_blocks, is_dask
from ptsne.metrics import trustworthiness
from ptsne.networks import MapNetwork, apply_by_rows
from ptsne.rows import Rows, explainable_rows, in_memory, plain, read_rows
from ptsne.streaming import place_lazily
from ptsne.training import QUALITIES, Callback, Journal, ProgressBar
from ptsne.updating import Drift, Stream, update_map

SCORED_ROWS = 2000


class ParametricTSNE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""t-SNE as a function: new rows have a place, and every place explains itself exactly.

    An autoencoder is pre-trained, its encoder feeds a projection network, and both are trained on
    the t-SNE objective KL(P || Q) of all rows. The map is piecewise linear, so that at every row
    ``y = W x + b`` holds exactly; `explain` gives W and b.

    Parameters
    ----------
    n_components : int, default=2
        Dimension K of the map, 1 to 3.
    perplexity : float or sequence of float, default=30.0
        Effective number of neighbours; several values give a multiscale P. Lowered, with a warning,
        where there are too few rows.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance that defines the neighbours.
    encoder : "autoencoder", "linear", tuple of int, nn.Module or None, default="autoencoder"
        The network x -> z. "autoencoder": a linear path that starts at PCA, with a non-linear
        decoder. "linear": both linear. A tuple: the same linear path beside a ReLU branch of these
        widths, mirrored in the decoder. A module is copied, pre-trained as an autoencoder and
        trained with the map, unless its parameters do not require gradients; it receives the rows
        as they are, (B, D). None: the rows themselves, centred and scaled by one number.
    projection : "atlas", "mlp", tuple of int or nn.Module, default="atlas"
        The network z -> y. "atlas": landmarks with local affine charts. "mlp": the ReLU network
        500-500-2000 of the literature; a tuple: other widths; a module is copied.
    latent_dim : int or "auto", default="auto"
        Dimension L of the code z of the autoencoder; "auto" is min(50, D).
    n_landmarks : int or "auto", default="auto"
        Landmarks of the atlas; more give finer maps and smaller regions.
    quality : {"fast", "default", "high"}, default="default"
        What `n_landmarks` and `max_iter` are where they are "auto". "fast" takes three
        quarters of the landmarks and half of the iterations, "high" 1.6 times the landmarks and
        twice the iterations. 10,000 MNIST rows on two cores: 7, 11 and 20 s, KL 2.12, 2.00 and
        1.92, held-out recall .323, .335 and .343.
    early_exaggeration : float, default=12.0
        Factor on P in the first iterations, a tenth or less.
    exaggeration : float, default=1.0
        Factor on P afterwards; above 1 the map turns towards UMAP's.
    dof : float, default=1.0
        Degrees of freedom of the Student-t similarity; below 1 clusters come apart.
    similarity : {"student", "gaussian"}, default="student"
        Similarity on the map; "gaussian" is eq. 7 of Li et al. 2023 as written: row-normalised,
        with the bandwidths of the data. Its cost grows with the square of the rows.
    reconstruction_weight : float, default=0.0
        Weight of the reconstruction error while the map is trained (with an atlas).
    fidelity_weight : float, default=0.12
        Weight of the fidelity loss: how strongly W has to predict where a row's neighbours lie.
    target_weight : float, default=0.0
        How much labels count, 0 to 1. At 0 `y` is ignored. Above, ``fit(X, y)`` takes classes (-1,
        None or NaN: not known), and their rows attract each other more, those of other classes
        less: at 1 no two classes attract each other. See `ptsne.affinities.supervision`.
    max_iter : int or "auto", default="auto"
        Iterations over all phases.
    learning_rate : float or "auto", default="auto"
        Step of the places in t-SNE's usual unit; "auto" is N / 4 for ``dof=1``.
    device : str, default="auto"
        "auto" is a GPU when there is one, else the CPU; any torch device.
    memory_budget : int, str or None, default=None
        Bytes that `fit` may take, or a text such as "2GiB". Rows are then read block by block, and
        the map is trained on their leading principal directions, which are folded into a network
        of all columns. It counts everything that `fit` allocates: blocks, the neighbour graph, P,
        training and the fitted map, not the caller's own data nor the imported libraries. None:
        all rows are held in memory.
    distributed : bool, default=False
        Whether the processes that torchrun started train one map together, each on its share of
        the rows; all of them call `fit` with the same rows and end with the same map.
    callbacks : callable or sequence of callables, default=None
        Called with every `ptsne.training.Record`; one that returns True ends the training.
    verbose : int, default=0
        Above 0 draws a progress bar for each phase.
    checkpoint : path-like, default=None
        A file that keeps the state of an unfinished fit, written about every 10 seconds of
        training, whole or not at all. When the process dies, or Ctrl-C ends the training early,
        `fit` with the same arguments goes on from there, to the same bits; a complete fit deletes
        the file. A file of another fit is refused. Beside it, ``checkpoint + ".neighbors"`` keeps
        the neighbours. Callbacks hear of the new iterations only; `history_` is whole. Within a
        memory budget, rows are compared by a sample and the mean of each column, and reduced again.
        Of several processes, process 0 reads and writes for all; the bits are the same for two,
        while more may add up in another order.
    random_state : int, RandomState or None, default=None
        Seed; the same seed gives the same bits on the same machine. With None or a RandomState,
        a fit that goes on from a checkpoint has the seed that was drawn first.

    Attributes
    ----------
    embedding_ : ndarray of shape (N, K)
        The map of the training rows, ``transform(X)``.
    network_ : MapNetwork
        The trained network, with `.encoder`, `.projection` and `.decoder`.
    kl_divergence_ : float
        KL(P || Q) of `embedding_`, in nats.
    n_iter_ : int
        Iterations done.
    history_ : list of dict
        phase, iteration, n_iterations, loss, kl and seconds, in order.
    landmark_indices_ : ndarray of int
        Training row nearest to each landmark; empty without an atlas.
    perplexity_ : float or list of float
        The perplexity used.
    drift_ : Drift
        After `update`: how far known rows moved, what was learned, and what became of quality.
    n_features_in_ : int
        D.
    feature_names_in_ : ndarray of str
        Column names, when `X` has them.

    References
    ----------
    van der Maaten and Hinton 2008, Visualizing data using t-SNE.
    van der Maaten 2009, Learning a parametric embedding by preserving local structure.
    Li, Liu, Bhavya, Bremer and Pascucci 2023, Instance-wise linearization of neural network for
    model interpretation.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ptsne import ParametricTSNE
    >>> X = load_iris().data
    >>> map_ = ParametricTSNE(perplexity=20, max_iter=100, random_state=0).fit(X)
    >>> map_.transform(X[:3]).shape
    (3, 2)
    >>> why = map_.explain(X[:3])
    >>> bool(abs(why.contributions.sum(2) + why.offset - why.Y).max() < 1e-9)
    True
    """

    embedding_: NDArray[Any]
    network_: MapNetwork
    landmark_indices_: NDArray[np.int64]
    history_: list[dict[str, object]]
    drift_: Drift
    _inverse: nn.Module | None
    _training_rows: Rows | None
    _training_numbers: NDArray[np.int64] | None = None
    _waiting: Stream | None = None
    _known_codes: NDArray[np.float64] | None = None
    _n_distant_codes: int = 0
    _landmark_rows: NDArray[Any]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, 3, closed="both")],
        "perplexity": [Interval(Real, 0, None, closed="neither"), list, tuple, np.ndarray],
        "metric": [StrOptions({"euclidean", "cosine", "manhattan"})],
        "encoder": [StrOptions({"autoencoder", "linear"}), list, tuple, nn.Module, None],
        "projection": [StrOptions({"atlas", "mlp"}), list, tuple, nn.Module],
        "latent_dim": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_landmarks": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "quality": [StrOptions(set(QUALITIES))],
        "early_exaggeration": [Interval(Real, 1, None, closed="left")],
        "exaggeration": [Interval(Real, 0, None, closed="neither")],
        "dof": [Interval(Real, 0, None, closed="neither")],
        "similarity": [StrOptions({"student", "gaussian"})],
        "reconstruction_weight": [Interval(Real, 0, None, closed="left")],
        "fidelity_weight": [Interval(Real, 0, None, closed="left")],
        "target_weight": [Interval(Real, 0, 1, closed="both")],
        "max_iter": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "device": [str],
        "memory_budget": [Interval(Real, 0, None, closed="neither"), str, None],
        "distributed": ["boolean"],
        "callbacks": [callable, list, tuple, None],
        "verbose": ["verbose"],
        "checkpoint": [str, os.PathLike, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        perplexity: float | Sequence[float] = 30.0,
        metric: str = "euclidean",
        encoder: str | Sequence[int] | nn.Module | None = "autoencoder",
        projection: str | Sequence[int] | nn.Module = "atlas",
        latent_dim: int | str = "auto",
        n_landmarks: int | str = "auto",
        quality: str = "default",
        early_exaggeration: float = 12.0,
        exaggeration: float = 1.0,
        dof: float = 1.0,
        similarity: str = "student",
        reconstruction_weight: float = 0.0,
        fidelity_weight: float = 0.12,
        target_weight: float = 0.0,
        max_iter: int | str = "auto",
        learning_rate: float | str = "auto",
        device: str = "auto",
        memory_budget: float | str | None = None,
        distributed: bool = False,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.perplexity = perplexity
        self.metric = metric
        self.encoder = encoder
        self.projection = projection
        self.latent_dim = latent_dim
        self.n_landmarks = n_landmarks
        self.quality = quality
        self.early_exaggeration = early_exaggeration
        self.exaggeration = exaggeration
        self.dof = dof
        self.similarity = similarity
        self.reconstruction_weight = reconstruction_weight
        self.fidelity_weight = fidelity_weight
        self.target_weight = target_weight
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.device = device
        self.memory_budget = memory_budget
        self.distributed = distributed
        self.callbacks = callbacks
        self.verbose = verbose
        self.checkpoint = checkpoint
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, neighbors: Any = None) -> "ParametricTSNE":
        """Train the map.

        Parameters
        ----------
        X : array-like, tensor, DataFrame, sparse matrix or AnnData of shape (N, D)
            Rows; a DataFrame or AnnData (its ``.X``) gives its column names to the explanations.
            float32 and float64 are taken as they are, other numbers as float64. Sparse rows stay
            sparse while neighbours are searched; dense are then a float32 copy for the training,
            which may take 4 GiB, and the rows of the landmarks.
        y : array-like of shape (N,), default=None
            Ignored at ``target_weight=0``. Above, the class of each row, of any hashable kind; -1,
            None or NaN where it is not known. Measurements are refused: cut them into classes.
        neighbors : sparse matrix or (indices, distances), default=None
            A neighbour graph of the rows from any engine, instead of our own search: the sparse
            distances of scikit-learn's `KNeighborsTransformer`, or two arrays (N, k).

        Returns
        -------
        ParametricTSNE
            Itself, fitted. An error leaves it as it was: an earlier map stays usable.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> map_.embedding_.shape, map_.kl_divergence_ > 0, map_.n_iter_
        ((150, 2), True, 30)
        """
        self._fit(X, y, neighbors)()
        return self

    def fit_transform(self, X: Any, y: Any = None, *, neighbors: Any = None) -> Any:
        """Train the map and return the places of the training rows.

        Parameters
        ----------
        X, y, neighbors
            As in `fit`.

        Returns
        -------
        ndarray of shape (N, K)
            `embedding_`; a DataFrame where `set_output` asks for one.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0)
        >>> Y = map_.fit_transform(X)
        >>> Y.shape, Y is map_.embedding_
        ((150, 2), True)
        """
        self._fit(X, y, neighbors)()
        return self.embedding_

    def update(
        self, X: Any, y: Any = None, *, tolerance: float | str = "auto", keep: Any = None
    ) -> "ParametricTSNE":
        """Teach the fitted map new rows, and leave the known ones where they are.

        Rows of known kinds take the place that `transform` gives them. Groups of at least five rows
        that are unlike anything known get landmarks of their own, on free room of the map. All else
        is frozen, and landmarks that would move a known row farther than `tolerance` are left out:
        for every watched row the bound holds. Watched are the rows of `fit` and of earlier updates
        (at most 20,000, of which the estimator then keeps a copy), and `keep`. Once a map was
        pickled or saved it no longer has rows, and watches their codes, as many as 8 MiB hold
        (20,971 of the usual 50 numbers); then the code is not widened either. From a file without
        codes, or from before they were kept, it watches the rows of its landmarks, and warns.
        ``drift_.n_unwatched`` counts the known rows that may move farther.

        Afterwards `drift_` says what happened. `embedding_` has the new rows behind the old ones;
        rows that are no longer at hand keep the place that they had. `landmark_indices_` counts on
        through all rows, `history_` goes on, while `kl_divergence_`, `n_iter_` and the baseline of
        explanations stay those of `fit`. Needs ``projection="atlas"``; computes on the CPU.

        Parameters
        ----------
        X : array-like, tensor, DataFrame, sparse matrix or AnnData of shape (M, D)
            New rows.
        y : array-like of shape (M,), default=None
            Their classes, where ``target_weight`` is above 0: new rows of two classes attract each
            other less. Ignored otherwise.
        tolerance : float or "auto", default="auto"
            How far a watched row may move, in map units; "auto" is a hundredth of the map's spread.
        keep : array-like of shape (W, D), default=None
            Rows that must stay besides those that the map remembers.

        Returns
        -------
        ParametricTSNE
            Itself. An error leaves it as it was.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=50, random_state=0).fit(X[50:])
        >>> before = map_.transform(X[50:])
        >>> drift = map_.update(X[:50]).drift_  # setosa, which the map has never seen
        >>> drift.n_novel, bool(abs(map_.transform(X[50:]) - before).max() <= drift.tolerance)
        (50, True)
        """
        rows = in_memory(self._rows(X))
        kept = None if keep is None else in_memory(self._rows(keep))
        updated = copy.copy(self)
        updated.__dict__.update(vars(self))  # a copy leaves the rows behind
        with ProgressBar(enabled=self.verbose > 0) as bar:
            journal = Journal([*callbacks_of(self.callbacks), bar])
            how: dict[str, Any] = {"tolerance": tolerance, "keep": kept, "journal": journal}
            updated.drift_ = update_map(updated, rows, y, **how)
        self.__dict__.update(vars(updated))
        return self

    def partial_fit(self, X: Any, y: Any = None) -> "ParametricTSNE":
        """Learn from a stream of batches.

        Batches are kept until there are three times the perplexity and one row, on which the first
        map is fitted; from then on every batch is an `update`. Memory holds at most 20,000 rows, a
        random sample of the stream, besides the map and `embedding_` (16 bytes a row). The first
        map decides how fine known regions are drawn: begin with a large batch. Digits in six
        batches, the first of 106 rows with 0 to 4 and a kind more in each other, end with a
        held-out 10-NN accuracy of .94; one fit of all has .97.

        Parameters
        ----------
        X : array-like, tensor, DataFrame, sparse matrix or AnnData of shape (M, D)
            Rows of this batch.
        y : array-like of shape (M,), default=None
            Their classes, where ``target_weight`` is above 0.

        Returns
        -------
        ParametricTSNE
            Itself; not fitted yet while rows are kept for the first map.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=50, random_state=0)
        >>> for batch in X[50:100], X[100:], X[:50]:  # the first map needs 91 rows
        ...     map_ = map_.partial_fit(batch)
        >>> map_.embedding_.shape, map_.drift_.n_new
        ((150, 2), 50)
        """
        if self.__sklearn_is_fitted__():
            return self.update(X, y)
        rows = in_memory(read_rows(self, X, reset=self._waiting is None))
        if self._waiting is None:
            needed = NEIGHBORS_PER_PERPLEXITY * float(np.max(self.perplexity)) + 1
            self._waiting = Stream(int(np.ceil(needed)))
        if self._waiting.add(rows, y):
            names = getattr(self, "feature_names_in_", None)
            gathered, labels = self._waiting.gathered(names)
            self.fit(gathered, labels)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def transform(self, X: Any) -> Any:
        """Place rows on the map; each row's place does not depend on the other rows.

        Parameters
        ----------
        X : array-like, tensor, DataFrame, sparse matrix or AnnData of shape (M, D)
            Rows; sparse ones become dense in blocks of 256 (8,192 on a GPU).

        Returns
        -------
        ndarray of shape (M, K)
            Places, in the precision of `X`; of a dask array a dask array, not yet computed.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> map_.transform([[5.1, 3.5, 1.4, 0.2]]).shape  # a flower of one's own
        (1, 2)
        >>> bool(abs(map_.transform(X) - map_.embedding_).max() < 1e-9)
        True
        """
        rows = self._rows(X)
        return place_lazily(self, X) if is_dask(X) else self._place(rows)

    def explain(
        self, X: Any, *, baseline: Baseline = "mean", method: str = "secant"
    ) -> Explanation:
        """Exact local maps ``y = W x + b`` of rows, and what follows from them.

        Parameters
        ----------
        X : array-like, tensor, DataFrame, sparse matrix or AnnData of shape (M, D)
            Rows; the explanation holds them dense, beside W, which is K times as large.
        baseline : "mean", "zero", "landmark" or array of shape (D,) or (M, D), default="mean"
            What contributions are measured from: the mean of the training rows, zero, the training
            row nearest to the main landmark, or given rows. From the mean of each row's cluster:
            ``explain(X).with_baseline("cluster", labels)``.
        method : {"secant", "tangent"}, default="secant"
            Which linear map; they agree where the network is piecewise linear.

        Returns
        -------
        Explanation
            W, b, contributions, landmarks, ... for each row.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> why = map_.explain(X[:5])
        >>> why.weight.shape, why.intercept.shape
        ((5, 2, 4), (5, 2))
        >>> y = (why.weight @ X[:5, :, None])[:, :, 0] + why.intercept
        >>> bool(abs(y - map_.transform(X[:5])).max() < 1e-9)
        True
        """
        check_is_fitted(self)
        rows = explainable_rows(self, X)
        source = Source(
            self._network(rows.dtype),
            method,
            self.landmark_indices_,
            self._landmark_rows,
            self._calibration(),
        )
        names = getattr(self, "feature_names_in_", None)
        return explain_rows(source, rows, baseline=baseline, mean=self._mean, feature_names=names)

    def reconstruct(self, X: Any) -> NDArray[Any]:
        """Rows as the autoencoder sees them: ``decoder(encoder(x))``.

        Parameters
        ----------
        X : array-like, tensor, DataFrame, sparse matrix or AnnData of shape (M, D)
            Rows.

        Returns
        -------
        ndarray of shape (M, D)
            Reconstructed rows, in the columns' units; dense, whatever `X` is.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> bool(abs(map_.reconstruct(X) - X).max() < 1)  # centimetres, after 30 iterations
        True
        """
        rows = self._rows(X)
        network = self._network(rows.dtype)
        return apply_by_blocks(partial(apply_by_rows, network.autoencoder), rows)

    def inverse_transform(self, Y: Any) -> NDArray[Any]:
        """Rows that lie at given places: a decoder that starts at y, trained at the first call.

        Training needs the rows of `fit`, of which the estimator keeps a reference but never a
        copy, and which are neither pickled nor saved: call this once before, and what it learned
        goes along.

        Parameters
        ----------
        Y : array-like of shape (M, K)
            Places on the map.

        Returns
        -------
        ndarray of shape (M, D)
            What the data look like there, in the columns' units. The map keeps K numbers of a row,
            so that this is the mean of the rows that meet at the place.

        Raises
        ------
        ValueError
            If `Y` does not have K columns, or the decoder was not trained before it was pickled or
            saved.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> map_.inverse_transform(map_.embedding_.mean(0, keepdims=True)).shape
        (1, 4)
        """
        check_is_fitted(self)
        places = check_array(plain(Y), dtype=[np.float64, np.float32], ensure_min_samples=0)
        if places.shape[1] != self._n_features_out:
            raise ValueError(
                f"places have {self._n_features_out} coordinates on this map; "
                f"got an array of shape {places.shape}"
            )
        if self._inverse is None:
            self._inverse = fit_inverse(self)
        return apply_by_rows(_to(self._inverse, places.dtype), places)

    def score(self, X: Any, y: object = None) -> float:  # noqa: ARG002
        """Trustworthiness of the places of rows: 1 is best, about 0.5 is chance.

        Measured with ``k = min(15, M // 3)`` on at most the first 2,000 rows.

        Parameters
        ----------
        X : array-like, tensor, DataFrame, sparse matrix or AnnData of shape (M, D)
            Rows; at least 4.
        y : None
            Ignored.

        Returns
        -------
        float
            Higher is better.

        Raises
        ------
        ValueError
            If there are fewer than 4 rows.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> 0.9 < map_.score(X) <= 1
        True
        """
        rows = self._rows(X)[:SCORED_ROWS]
        if len(rows) < 4:
            raise ValueError(f"score needs at least 4 rows to rank neighbours; got {len(rows)}")
        k = min(15, len(rows) // 3)
        return float(trustworthiness(rows, self._place(rows), n_neighbors=k, metric=self.metric))

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        landmark_rows: bool = True,
        embedding: bool = True,
        codes: bool | None = None,
    ) -> None:
        """Write the fitted map to one file, without pickle; see `ptsne.persistence.save`.

        Parameters
        ----------
        path : path-like
            File to write; one that was there is replaced only by a whole one.
        landmark_rows : bool, default=True
            Keep the training rows nearest to the landmarks, in raw form: these are data. Without
            them landmarks are row numbers and weights, and ``baseline="landmark"`` asks for rows.
        embedding : bool, default=True
            Keep `embedding_`, the places of the training rows. Without them the loaded map has no
            such attribute.
        codes : bool, default=None
            Keep the codes of the training rows (8 MiB at most), so that `update` leaves these rows
            where they are. Codes of few columns give the rows away. None: as `landmark_rows`.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     map_.save(Path(folder) / "iris.model", landmark_rows=False)  # no row of the data
        ...     again = ParametricTSNE.load(Path(folder) / "iris.model")
        >>> bool((again.transform(X) == map_.transform(X)).all())
        True
        """
        check_is_fitted(self)
        persistence.save(self, path, landmark_rows=landmark_rows, embedding=embedding, codes=codes)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **modules: nn.Module | None) -> "ParametricTSNE":
        """Read a map written by `save`; nothing in the file is executed.

        Parameters
        ----------
        path : path-like
            File to read.
        **modules : nn.Module
            `encoder` and `projection`, where the map was trained with modules of one's own.

        Returns
        -------
        ParametricTSNE
            Fitted; gives the same bits.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import ptsne
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> map_ = ptsne.ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> with TemporaryDirectory() as folder:
        ...     map_.save(Path(folder) / "iris.model")
        ...     again = ptsne.load(Path(folder) / "iris.model")
        >>> bool((again.transform(X) == map_.transform(X)).all())
        True
        """
        return persistence.load(cls, path, **modules)

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        with_explanation: bool = False,
        dtype: str = "float32",
    ) -> None:
        """Write the fitted map as an ONNX graph; see `ptsne.export.write_onnx`.

        Parameters
        ----------
        path : path-like
            File to write.
        with_explanation : bool, default=False
            Whether the graph gives W and b of each row beside its place.
        dtype : {"float32", "float64"}, default="float32"
            Precision of the graph.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE
        >>> X = load_iris().data
        >>> map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory

        .. doctest::
            :skipif: is_missing("onnxscript", "onnxruntime")

            >>> import onnxruntime
            >>> with TemporaryDirectory() as folder:
            ...     map_.to_onnx(Path(folder) / "iris.onnx")
            ...     session = onnxruntime.InferenceSession(Path(folder) / "iris.onnx")
            >>> (Y,) = session.run(None, {session.get_inputs()[0].name: X.astype("float32")})
            >>> bool(abs(Y - map_.transform(X)).max() < 1e-3)
            True
        """
        check_is_fitted(self)
        unnamed = [f"x{i}" for i in range(self.n_features_in_)]
        export.write_onnx(
            self.network_,
            path,
            feature_names=getattr(self, "feature_names_in_", unnamed),
            with_explanation=with_explanation,
            dtype=dtype,
        )

    def _fit(self, X: Any, y: Any, neighbors: Any) -> Callable[[], None]:
        """Train the map; what is returned deletes the checkpoint."""
        trained = copy.copy(self)
        delete_checkpoint = fit_map(trained, X, y, neighbors)
        stale = vars(self).keys() - vars(trained).keys()
        self.__dict__.update(vars(trained))
        for name in stale:
            delattr(self, name)
        return delete_checkpoint

    def _calibration(self) -> Calibration | None:
        """What trust compares with; None in a file from before it was measured."""
        if getattr(self, "_trust_quantiles", None) is None:
            return None
        return Calibration(self._trust_quantiles, self._trust_readout)

    def _rows(self, X: Any) -> Any:
        """Checked rows; sparse ones stay so until they are sliced."""
        check_is_fitted(self)
        return read_rows(self, X)

    def _network(self, dtype: Any) -> MapNetwork:
        """The network on the device: our own in float64, whatever the precision of the rows."""
        # then no rounding depends on the other rows, and places and explanations agree on the
        # region of a row; a user's modules may be slow in float64, and follow the rows
        is_foreign = any(isinstance(part, nn.Module) for part in (self.encoder, self.projection))
        network: MapNetwork = _to(
            self.network_, dtype if is_foreign else np.float64, resolve_device(self.device)
        )
        return network

    def _place(self, rows: Rows) -> NDArray[Any]:
        return apply_by_blocks(partial(apply_by_rows, self._network(rows.dtype)), rows)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_training_rows": None, "_training_numbers": None}


def fit_to_file(
    model: ParametricTSNE, X: Any, path: str | os.PathLike[str], *, landmark_rows: bool = True
) -> None:
    """Fit a map and save it: a checkpoint is deleted once the map is in its file, not before.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted in place.
    X : array-like of shape (N, D)
        Rows, as for `ParametricTSNE.fit`.
    path : path-like
        File to write.
    landmark_rows : bool
        As in `ParametricTSNE.save`.
    """
    delete_checkpoint = model._fit(X, None, None)
    model.save(path, landmark_rows=landmark_rows)
    delete_checkpoint()


def _to(network: Any, dtype: Any, device: torch.device | str = "cpu") -> Any:
    """The network itself, or a copy in another precision or place."""
    wanted = torch.float64 if np.dtype(dtype) == np.float64 else torch.float32
    tensors = [*network.parameters(), *network.buffers()]
    floating = [t for t in tensors if t.is_floating_point()]
    if all(t.dtype == wanted and t.device.type == torch.device(device).type for t in floating):
        return network
    return copy.deepcopy(network).to(device, wanted)
