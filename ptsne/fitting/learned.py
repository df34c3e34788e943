"""What training leaves on the estimator."""

import warnings
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ptsne.explanation.trust import calibrate_with_codes
from ptsne.networks import AtlasProjection, MapNetwork
from ptsne.rows import Rows, part_of
from ptsne.training import INTERRUPTED, Journal, Objective

Array = NDArray[Any]


class Model(Protocol):
    """What fitting needs of an estimator, and what it leaves there."""

    embedding_: Array
    history_: list[dict[str, object]]
    kl_divergence_: float
    landmark_indices_: NDArray[np.int64]
    n_iter_: int
    network_: MapNetwork
    perplexity_: Any
    _inverse: Any
    _known_codes: Array | None
    _landmark_rows: Array
    _mean: NDArray[np.float64]
    _n_distant_codes: int
    _n_features_out: int
    _training_numbers: NDArray[np.int64] | None
    _training_rows: Rows | None
    _trust_quantiles: Array
    _trust_readout: Array
    _waiting: Any

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name."""

    def _validate_params(self) -> None:
        """Raise ValueError where a parameter is of another type or out of range."""

    def _network(self, dtype: Any) -> MapNetwork:
        """The network in the precision that rows of this dtype ask for."""

    def _place(self, rows: Rows) -> Array:
        """Places of rows."""


class Learned(NamedTuple):
    """Result of a training.

    Attributes
    ----------
    network : MapNetwork
        Trained, of rows in data units.
    landmark_rows : int Tensor of shape (m,)
        Training row nearest to each landmark.
    journal : Journal
        Records of the training.
    objective : Objective
        KL(P || Q) of the training rows.
    """

    network: MapNetwork
    landmark_rows: Tensor
    journal: Journal
    objective: Objective


def store(model: Model, rows: Rows, learned: Learned) -> None:
    """Put the learned attributes on the model, and warn where training was interrupted.

    Parameters
    ----------
    model : Model
        Changed in place.
    rows : Rows
        Training rows (N, D), of all processes.
    learned : Learned
        What training gave.
    """
    if learned.journal.stopped == INTERRUPTED:
        message = "training was interrupted; the best map so far is kept"
        warnings.warn(message, ConvergenceWarning, stacklevel=5)
    model.network_ = learned.network.double().requires_grad_(False)
    model.landmark_indices_ = learned.landmark_rows.numpy()
    model.history_ = learned.journal.history()
    model.n_iter_ = learned.journal.n_iterations
    model._landmark_rows = rows[model.landmark_indices_]
    model._training_rows, model._training_numbers, model._waiting = rows, None, None
    model._inverse = None
    model._n_features_out = model.get_params(deep=False)["n_components"]
    _measure(model, rows, learned)


def _measure(model: Model, rows: Rows, learned: Learned) -> None:
    """Places of the training rows, how strange each would be, and how good the map is."""
    world, objective = learned.journal.world, learned.objective
    own = torch.from_numpy(model._place(part_of(rows, world.rows(len(rows)))))
    model.embedding_ = world.gather(own.to(world.device)).cpu().numpy()
    network = model._network(rows.dtype)
    calibration, codes = world.once(lambda: calibrate_with_codes(network, rows))
    model._trust_quantiles, model._trust_readout = calibration
    is_atlas = isinstance(network.projection, AtlasProjection)
    model._known_codes, model._n_distant_codes = (codes if is_atlas else None), 0
    y = torch.from_numpy(model.embedding_ / objective.unit)
    device = objective.edges.weight.device
    model.kl_divergence_ = float(objective.gradient(y.to(device, torch.float32))[1])


def keep() -> None:
    """Stands where a checkpoint would be deleted: there is none, or it is needed again."""
