"""What the contents of a file have to be, before anything is made of them."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ptsne.networks import AtlasProjection, MapNetwork

NUMBERS = (
    "kl_divergence_",
    "n_iter_",
    "perplexity_",
    "n_features_in_",
    "_n_features_out",
    "history_",
)
REQUIRED_ARRAYS = ("landmark_indices_", "_mean")
OPTIONAL_ARRAYS = (
    "embedding_",
    "_landmark_rows",
    "_trust_quantiles",
    "_trust_readout",
    "_known_codes",
)
MAY_HOLD_NAN = {"_trust_quantiles"}
"""Without landmarks, distances to them are NaN."""
NOT_STORED = ("encoder", "projection", "callbacks", "random_state")
"""Parameters that may be objects."""


def require(is_so: bool, message: str) -> None:
    """Raise ValueError with `message` unless `is_so`."""
    if not is_so:
        raise ValueError(message)


def is_whole_number(value: Any, low: int) -> bool:
    """Whether a JSON value is an integer of at least `low`."""
    return type(value) is int and low <= value < 2**62


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_header(header: Mapping[str, Any], known: set[str]) -> None:
    """Check types of everything in a header.

    Parameters
    ----------
    header : dict
        As read.
    known : set of str
        Parameters that the estimator has.
    """
    is_map = header.get("kind") is None
    require(is_map, "it is the checkpoint of a fit that is not complete; call that fit again")
    for name in ("parameters", "fitted", "versions"):
        require(isinstance(header.get(name), dict), f"its {name} are no JSON object")
    strange = sorted(set(header["parameters"]) - known)
    require(not strange, f"this ptsne has no parameters {strange}; install the one that wrote it")
    for name, value in header["parameters"].items():
        _check_parameter(name, value)
    _check_fitted(header["fitted"])
    names = header.get("feature_names")
    if names is not None:
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        n = header["fitted"]["n_features_in_"]
        require(is_list and len(names) == n, f"its feature names are no list of {n} texts")


def _check_parameter(name: str, value: Any) -> None:
    if isinstance(value, dict):
        is_named = set(value) == {"not stored"} and isinstance(value["not stored"], str)
        require(name in NOT_STORED and is_named, f"parameter {name} is {str(value)[:80]}")
    if name == "checkpoint":
        require(value is None, "it names a file of another computer as checkpoint")
    if isinstance(value, list):
        require(all(map(is_number, value)), f"parameter {name} is a list of other than numbers")
    if name == "device":
        kind = torch.device(value).type if value != "auto" else "cpu"
        require(kind != "meta", "its device holds no numbers")


def _check_fitted(fitted: Mapping[str, Any]) -> None:
    require(set(fitted) == set(NUMBERS), f"its fitted numbers are not {', '.join(NUMBERS)}")
    require(is_number(fitted["kl_divergence_"]), "kl_divergence_ is no number")
    require(is_whole_number(fitted["n_iter_"], 0), "n_iter_ is no number of iterations")
    require(is_whole_number(fitted["n_features_in_"], 1), "n_features_in_ is no number of columns")
    require(is_whole_number(fitted["_n_features_out"], 1), "_n_features_out is no dimension")
    given = fitted["perplexity_"]
    values = given if isinstance(given, list) else [given]
    is_perplexity = len(values) > 0 and all(is_number(p) and p > 0 for p in values)
    require(is_perplexity, "perplexity_ is not positive")
    is_history = isinstance(fitted["history_"], list) and all(
        isinstance(record, dict) and all(_is_plain(value) for value in record.values())
        for record in fitted["history_"]
    )
    require(is_history, "history_ is no list of records")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def check_names(tensors: Mapping[str, Tensor]) -> None:
    """Require every array of a map, and none that no map has; both trust arrays or neither."""
    known = {*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS, "probe"}
    others = {name for name in tensors if not name.startswith(("network.", "inverse."))}
    strange = sorted(others - known)
    require(not strange, f"no map has tensors {str(strange)[:200]}")
    missing = [name for name in REQUIRED_ARRAYS if name not in tensors]
    require(not missing, f"it lacks {missing}")
    is_paired = ("_trust_quantiles" in tensors) == ("_trust_readout" in tensors)
    require(is_paired, "of its trust arrays, one is missing")


def check_arrays(arrays: Mapping[str, Tensor], network: MapNetwork, d: int, k: int) -> None:
    """Check shapes, types and values of the arrays beside the networks.

    Parameters
    ----------
    arrays : dict of Tensor
        Those that are there, by name.
    network : MapNetwork
        The map.
    d, k : int
        Number of columns and dimension of the map.
    """
    atlas = network.projection
    m, latent_dim = atlas.landmarks.shape if isinstance(atlas, AtlasProjection) else (0, 0)
    shapes: dict[str, tuple[int | None, ...]] = {
        "embedding_": (None, k),
        "landmark_indices_": (m,),
        "_landmark_rows": (m, d),
        "_mean": (d,),
        "_trust_quantiles": (2, None),
        "_trust_readout": (None, d),
        "_known_codes": (None, latent_dim),
        "probe": (1, k),
    }
    for name, value in arrays.items():
        _check_array(name, value, shapes[name])
    indices = arrays["landmark_indices_"]
    n = len(arrays["embedding_"]) if "embedding_" in arrays else torch.iinfo(torch.int64).max
    is_row = bool((indices >= 0).all() and (indices < n).all())
    require(is_row, f"landmark_indices_ are no row numbers, 0 to {n - 1}")
    if "_trust_quantiles" in arrays:
        steps = arrays["_trust_quantiles"].diff(dim=1)
        require(not bool((steps < 0).any()), "_trust_quantiles do not ascend")


def _check_array(name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
    fits = len(shape) == value.ndim and all(
        n in {None, size} for n, size in zip(shape, value.shape, strict=True)
    )
    wanted = str(shape).replace("None", "any")
    require(fits, f"{name} has shape {tuple(value.shape)}, not {wanted}")
    dtypes = {torch.int64} if name == "landmark_indices_" else {torch.float64, torch.float32}
    require(value.dtype in dtypes, f"{name} holds {value.dtype}")
    is_finite = name in MAY_HOLD_NAN | {"probe"} or bool(value.isfinite().all())
    require(is_finite, f"{name} holds NaN or infinity")


@torch.no_grad()
def check_stages(network: MapNetwork, mean: Tensor, readout: Tensor | None, k: int) -> None:
    """Run one row through every stage: code, place and reconstruction have the shapes they should.

    Parameters
    ----------
    network : MapNetwork
        The map.
    mean : Tensor of shape (D,)
        The row.
    readout : Tensor of shape (L + 1, D) or (0, D), or None
        The reconstruction that trust measures with.
    k : int
        Dimension of the map.
    """
    code = network.encoder(mean[None])
    place = network.projection(code)
    require(place.shape == (1, k), f"the map gives places of shape {tuple(place.shape[1:])}")
    require(code.ndim == 2, f"its codes have shape {tuple(code.shape)}")
    back = network.autoencoder(mean[None])
    require(back.shape == (1, len(mean)), f"rows are rebuilt in shape {tuple(back.shape[1:])}")
    rows = {0, code.shape[1] + 1} if readout is None else {len(readout)} & {0, code.shape[1] + 1}
    require(len(rows) > 0, "_trust_readout does not fit the codes")


@torch.no_grad()
def check_inverse(inverse: nn.Module, d: int, k: int) -> None:
    """Run one place through the decoder of `inverse_transform`."""
    found = inverse(torch.zeros(1, k))
    fits = found.shape == (1, d) and bool(found.isfinite().all())
    require(fits, f"its inverse gives no rows of {d} numbers")
