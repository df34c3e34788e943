"""From a fitted map to the contents of a file."""

import contextlib
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ptsne.networks import MapNetwork
from ptsne.persistence.checks import NUMBERS
from ptsne.persistence.file import ModelFile, write
from ptsne.persistence.probe import probe

LIBRARIES = ("ptsne", "torch", "numpy", "scikit-learn", "safetensors")
ARRAYS = (
    "landmark_indices_",
    "_landmark_rows",
    "_mean",
    "_trust_quantiles",
    "_trust_readout",
    "_known_codes",
    "embedding_",
)
DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
}


class Model(Protocol):
    """What `save` needs of an estimator."""

    network_: MapNetwork

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name."""

    def _validate_params(self) -> None:
        """Raise ValueError where a parameter is of another type or out of range."""


def save(
    model: Model,
    path: str | os.PathLike[str],
    *,
    landmark_rows: bool = True,
    embedding: bool = True,
    codes: bool | None = None,
) -> None:
    """Write a fitted map.

    The file holds the networks, the mean of the training rows, quantiles of how strange these rows
    are to the map, the parameters, the history, and the decoder of `inverse_transform` once that
    has been called. Of single training rows it holds what the options say, and nothing else.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    path : path-like
        File to write.
    landmark_rows : bool
        Keep the training row nearest to each landmark, in raw form: these are data. Without them
        the landmarks of explanations are row numbers and weights, their rows NaN, and
        ``baseline="landmark"`` asks for rows.
    embedding : bool
        Keep `embedding_`, the places of the training rows, 16 bytes a row. Without them a loaded
        map has no such attribute; ``transform`` gives the places again.
    codes : bool or None
        Keep the codes of the training rows, or of evenly spread ones where they take more than 8
        MiB: `update` of the loaded map then leaves them where they are. A code of as many numbers
        as there are columns is the row in another form. None: as `landmark_rows`.

    Notes
    -----
    ValueError if a module of the user's own keeps state that is no tensor of numbers. OSError if
    the file cannot be written; a file that was there stays as it was.

    Numbers in a file say something about the rows even where no row is kept: a landmark is about
    the mean of the rows near it.
    """
    dropped = {
        "_landmark_rows": not landmark_rows,
        "embedding_": not embedding,
        "_known_codes": not (landmark_rows if codes is None else codes),
    }
    tensors = {f"network.{k}": v for k, v in _state(model.network_).items()}
    inverse = getattr(model, "_inverse", None)
    if inverse is not None:
        tensors |= {f"inverse.{k}": v for k, v in _state(inverse).items()}
    for name in ARRAYS:
        array = getattr(model, name, None)
        if array is not None and not dropped.get(name) and not _is_missing(array):
            tensors[name] = torch.from_numpy(np.array(array))
    with contextlib.suppress(RuntimeError, LookupError, TypeError, ValueError):
        # a module of the user's own may take no row that is not theirs; it goes without
        tensors["probe"] = probe(model.network_, tensors["_mean"], _precision(model))
    write(path, ModelFile(tensors, _header(model)))


def _header(model: Model) -> dict[str, Any]:
    names = getattr(model, "feature_names_in_", None)
    return {
        "versions": {library: version_of(library) for library in LIBRARIES},
        "parameters": {name: to_json(v) for name, v in _parameters(model).items()},
        "fitted": {name: to_json(getattr(model, name)) for name in NUMBERS},
        "feature_names": None if names is None else [str(name) for name in names],
    }


def _parameters(model: Model) -> dict[str, Any]:
    """Parameters; a checkpoint is a file of this computer and no part of the map."""
    parameters = model.get_params(deep=False)
    return parameters | {"checkpoint": None} if "checkpoint" in parameters else parameters


def _state(network: nn.Module) -> dict[str, Tensor]:
    """A state dict whose tensors share no memory."""
    state: Mapping[str, Any] = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.dtype not in DTYPES or value.is_sparse:
            what = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"{name} of the network ({what}) is no tensor of real numbers and cannot be stored "
                "without pickle; pickle the map instead, or leave it out of the module's state"
            )
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _precision(model: Model) -> torch.dtype:
    """What `model` computes in: modules of the user's own follow the rows of fit."""
    is_foreign = any(isinstance(value, nn.Module) for value in model.get_params(False).values())
    rows = getattr(model, "_landmark_rows", np.empty(0))
    return torch.float32 if is_foreign and rows.dtype == np.float32 else torch.float64


def _is_missing(rows: Any) -> bool:
    """Whether these are the NaN that stand for rows that an earlier file left out."""
    return rows.dtype.kind == "f" and rows.ndim == 2 and bool(rows.size and np.isnan(rows).all())


def version_of(library: str) -> str:
    """Version of an installed library."""
    try:
        return version(library)
    except PackageNotFoundError:  # run from its source
        return "unknown"


def to_json(value: Any) -> Any:
    """A parameter as JSON; networks, callbacks and generators are named, not stored."""
    if isinstance(value, (nn.Module, np.random.RandomState)) or callable(value):
        return {"not stored": type(value).__name__}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        is_callbacks = any(callable(item) for item in value)
        return {"not stored": "callbacks"} if is_callbacks else [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(name): to_json(item) for name, item in value.items()}
    return value
