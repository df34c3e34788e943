"""A fitted map as one file: tensors in safetensors, everything else in its JSON header.

Nothing is pickled and nothing in a file is executed. The classes of a user's own networks are not
stored, so that they are passed when the file is read.
"""

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ptsne.networks import (
    AtlasProjection,
    Decoder,
    MapNetwork,
    Scale,
    SkipNetwork,
    Standardize,
    relu_network,
)

FORMAT = 1
LIBRARIES = ("ptsne", "torch", "numpy", "scikit-learn")
ARRAYS = ("embedding_", "landmark_indices_", "_landmark_rows", "_mean")
OPTIONAL_ARRAYS = ("_trust_quantiles", "_trust_readout")
"""Arrays that files of this format lack if they were written before there was such an array."""
NUMBERS = (
    "kl_divergence_",
    "n_iter_",
    "perplexity_",
    "n_features_in_",
    "_n_features_out",
    "history_",
)


class Model(Protocol):
    """What `save` needs of an estimator."""

    network_: MapNetwork

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name."""


M = TypeVar("M", bound=Model)


class ModelFile(NamedTuple):
    """Contents of a model file.

    Attributes
    ----------
    tensors : dict of Tensor
        By name.
    header : dict
        Parameters, fitted numbers, names and versions.
    """

    tensors: dict[str, Tensor]
    header: dict[str, Any]


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a fitted map.

    The file holds the networks, the training rows nearest to the landmarks (in raw form: they are
    data), the map of the training rows, the parameters and the history; no other training data.
    It appears under its name only when it is complete.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    path : path-like
        File to write.

    Notes
    -----
    Where the file cannot be written, OSError is raised and a file that was there stays as it was.
    """
    tensors = {f"network.{name}": value for name, value in model.network_.state_dict().items()}
    is_there = [name for name in OPTIONAL_ARRAYS if getattr(model, name, None) is not None]
    for name in (*ARRAYS, *is_there):
        tensors[name] = torch.from_numpy(np.array(getattr(model, name)))
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    names = getattr(model, "feature_names_in_", None)
    header = {
        "format": FORMAT,
        "versions": {library: version(library) for library in LIBRARIES},
        "parameters": {name: _to_json(v) for name, v in model.get_params(deep=False).items()},
        "fitted": {name: getattr(model, name) for name in NUMBERS},
        "feature_names": None if names is None else [str(name) for name in names],
        "checksum": _checksum(tensors),
    }
    _write(Path(path), tensors, {"ptsne": json.dumps(header)})


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside the target, then rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _to_json(value: Any) -> Any:
    """A parameter as JSON; networks, callbacks and generators are named, not stored."""
    if isinstance(value, (nn.Module, np.random.RandomState)) or callable(value):
        return {"not stored": type(value).__name__}
    if isinstance(value, (list, tuple)) and any(callable(item) for item in value):
        return {"not stored": "callbacks"}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].numpy()
        digest.update(f"{name} {value.shape} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def read(path: str | os.PathLike[str]) -> ModelFile:
    """Read and check a model file; nothing in it is executed.

    Parameters
    ----------
    path : path-like
        A file written by `save`.

    Returns
    -------
    ModelFile
        Tensors and header.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a map, is damaged, or was written by a newer format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["ptsne"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a ptsne model file, or is damaged ({error})") from error
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {header.get('format')}, this ptsne reads format {FORMAT}; "
            "install the version of ptsne that wrote it"
        )
    if header.get("checksum") != _checksum(tensors):
        raise ValueError(f"{path} is damaged: its checksum does not agree with its contents")
    return ModelFile(tensors, header)


def load(
    cls: type[M],
    path: str | os.PathLike[str],
    *,
    encoder: nn.Module | None = None,
    projection: nn.Module | None = None,
) -> M:
    """Read a fitted map.

    Parameters
    ----------
    cls : type
        Class of the estimator.
    path : path-like
        A file written by `save`.
    encoder, projection : nn.Module or None
        The user's own networks, where the map was trained with such; their weights come from the
        file.

    Returns
    -------
    ParametricTSNE
        Fitted; gives the same bits.

    Raises
    ------
    ValueError
        If the file is not a map, or a network of the user is missing or of another shape.
    """
    tensors, header = read(path)
    given = {"encoder": encoder, "projection": projection}
    parameters = header["parameters"]
    for name, value in parameters.items():
        if isinstance(value, dict):
            parameters[name] = given.get(name)
            if name in given and given[name] is None:
                raise ValueError(
                    f"this map was trained with its own {name} ({value['not stored']}); "
                    f"pass such a module: load(path, {name}=...)"
                )
        elif isinstance(value, list):
            parameters[name] = tuple(value)
    model = cls(**parameters)
    state = {k[len("network.") :]: v for k, v in tensors.items() if k.startswith("network.")}
    arrays = (*ARRAYS, *(name for name in OPTIONAL_ARRAYS if name in tensors))
    fitted = {name: tensors[name].numpy() for name in arrays} | header["fitted"]
    fitted["network_"] = build_network(state, encoder=encoder, projection=projection)
    if header["feature_names"] is not None:
        fitted["feature_names_in_"] = np.array(header["feature_names"], dtype=object)
    for name, value in (fitted | {"_inverse": None, "_training_rows": None}).items():
        setattr(model, name, value)
    return model


def build_network(
    state: dict[str, Tensor],
    *,
    encoder: nn.Module | None = None,
    projection: nn.Module | None = None,
) -> MapNetwork:
    """Rebuild the networks of a map from the names and shapes of their tensors.

    Parameters
    ----------
    state : dict of Tensor
        ``network.state_dict()``.
    encoder, projection : nn.Module or None
        The user's own parts.

    Returns
    -------
    MapNetwork
        In eval mode, in the precision of the state.

    Raises
    ------
    ValueError
        If names or shapes do not fit.
    """
    try:
        network = MapNetwork(
            copy.deepcopy(encoder) if encoder is not None else _encoder(_below(state, "encoder.")),
            _projection(_below(state, "projection."), projection),
            _decoder(_below(state, "decoder.")),
        ).to(next(iter(state.values())).dtype)
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the networks of this file cannot be rebuilt: {error}") from error
    return network.eval()


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _widths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Input width, then output widths of the linear layers of a ReLU network."""
    weights = [v for k, v in state.items() if k.endswith("weight")]
    return (weights[0].shape[1], *(len(w) for w in weights)) if weights else ()


def _standardize(state: Mapping[str, Tensor], prefix: str) -> Standardize:
    return Standardize(state[f"{prefix}mean"], state[f"{prefix}scale"])


def _skip(state: Mapping[str, Tensor], prefix: str) -> SkipNetwork:
    hidden = _widths(_below(state, f"{prefix}branch."))[1:-1]
    return SkipNetwork(state[f"{prefix}linear.weight"], hidden)


def _encoder(state: Mapping[str, Tensor]) -> nn.Module:
    if "mean" in state:
        return _standardize(state, "")
    return nn.Sequential(_standardize(state, "0."), _skip(state, "1."))


def _decoder(state: Mapping[str, Tensor]) -> Decoder:
    return Decoder(_skip(state, "network."), _standardize(state, "standardize."))


def _projection(state: Mapping[str, Tensor], given: nn.Module | None) -> nn.Module:
    if "landmarks" in state:
        return AtlasProjection(state["landmarks"], state["places"].shape[1])
    network = relu_network(_widths(_below(state, "0."))) if given is None else copy.deepcopy(given)
    return nn.Sequential(network, Scale(1.0))
