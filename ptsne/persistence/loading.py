"""From the contents of a file to a fitted map."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ptsne.networks import MapNetwork
from ptsne.persistence.checks import (
    OPTIONAL_ARRAYS,
    REQUIRED_ARRAYS,
    check_arrays,
    check_header,
    check_inverse,
    check_names,
    check_stages,
    require,
)
from ptsne.persistence.file import ModelFile, read
from ptsne.persistence.probe import is_found_again, probe
from ptsne.persistence.rebuilding import below, build_inverse, build_network
from ptsne.persistence.saving import Model

M = TypeVar("M", bound=Model)
Modules = Mapping[str, nn.Module | None]

MISFITS = (ValueError, TypeError, LookupError, RuntimeError, OverflowError)
"""What contents raise that agree with their checksums and yet are no map."""


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
        A file written by `save`, by this version or an older one.
    encoder, projection : nn.Module or None
        The user's own networks, where the map was trained with such; their weights come from the
        file. They are copied.

    Returns
    -------
    ParametricTSNE
        Fitted; gives the same bits.

    Raises
    ------
    TypeError
        If `encoder` or `projection` is no module.
    ValueError
        If the file is not a map, or a network of the user is missing, of another shape, or
        computes something else than the one that was saved.
    """
    given = {"encoder": encoder, "projection": projection}
    for name, module in given.items():
        if module is not None and not isinstance(module, nn.Module):
            raise TypeError(f"{name} must be a module, not {module!r}; pass load({name}=Module())")
    contents = read(path)
    try:
        return _model(cls, contents, given)
    except MISFITS as error:
        writer = str(contents.header.get("versions"))[:200]
        raise ValueError(
            f"{path} cannot be loaded: {error}. It was written by {writer}; save the map again, or "
            "load it with these versions"
        ) from error


def _model(cls: type[M], contents: ModelFile, given: Modules) -> M:
    tensors, header = contents
    check_header(header, set(cls().get_params(deep=False)))
    check_names(tensors)
    model = cls(**_parameters(header["parameters"], given))
    model._validate_params()
    network = build_network(below(tensors, "network."), **given)
    _check_contents(tensors, header, network, is_foreign=set(given.values()) != {None})
    fitted = header["fitted"] | _arrays(tensors) | {"network_": network, "_training_rows": None}
    fitted["_inverse"] = _inverse(tensors, header["fitted"])
    if header.get("feature_names") is not None:
        fitted["feature_names_in_"] = np.array(header["feature_names"], dtype=object)
    for name, value in fitted.items():
        setattr(model, name, value)
    return model


def _parameters(stored: Mapping[str, Any], given: Modules) -> dict[str, Any]:
    """Arguments of the estimator, with the modules of the user."""
    parameters = dict(stored)
    for name, value in stored.items():
        if isinstance(value, dict):
            parameters[name] = given.get(name)
            require(
                name not in given or given[name] is not None,
                f"this map was trained with its own {name} ({str(value['not stored'])[:80]}); "
                f"pass such a module: load(path, {name}=...)",
            )
        elif isinstance(value, list):
            parameters[name] = tuple(value)
    for name, module in given.items():
        is_own = isinstance(stored.get(name), dict)
        require(
            module is None or is_own,
            f"the {name} of this map is in the file ({stored.get(name)!r}); load it without "
            f"{name}=...",
        )
    return parameters


def _check_contents(
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    network: MapNetwork,
    *,
    is_foreign: bool,
) -> None:
    """Hold arrays and networks against each other."""
    d, k = header["fitted"]["n_features_in_"], header["fitted"]["_n_features_out"]
    names = (*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS, "probe")
    check_arrays({name: tensors[name] for name in names if name in tensors}, network, d, k)
    expected = tensors.get("probe")
    if is_foreign and expected is None:
        return  # a module that takes no row but the user's own
    try:
        if not is_foreign:
            check_stages(network, tensors["_mean"], tensors.get("_trust_readout"), k)
        precision = torch.float64 if expected is None else expected.dtype
        place = probe(network, tensors["_mean"], precision)
    except (LookupError, RuntimeError, TypeError) as error:
        raise ValueError(f"no row passes through its networks: {str(error)[:500]}") from error
    require(is_foreign or bool(place.isfinite().all()), "its places are not finite")
    require(
        expected is None or is_found_again(place, expected),
        "its network places the mean of the training rows elsewhere than when it was saved: "
        + ("the module that was passed computes something else" if is_foreign else "by other code"),
    )


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Learned arrays by attribute; landmarks whose rows were left out have rows of NaN."""
    names = [*REQUIRED_ARRAYS, *(name for name in OPTIONAL_ARRAYS if name in tensors)]
    arrays = {name: tensors[name].numpy() for name in names}
    shape = (len(arrays["landmark_indices_"]), len(arrays["_mean"]))
    dtype = np.float32 if _is_single(tensors.get("probe")) else np.float64
    return {"_landmark_rows": np.full(shape, np.nan, dtype)} | arrays


def _is_single(value: Tensor | None) -> bool:
    return value is not None and value.dtype == torch.float32


def _inverse(tensors: Mapping[str, Tensor], fitted: Mapping[str, Any]) -> nn.Module | None:
    state = below(dict(tensors), "inverse.")
    if not state:
        return None
    inverse = build_inverse(state)
    check_inverse(inverse, fitted["n_features_in_"], fitted["_n_features_out"])
    return inverse
