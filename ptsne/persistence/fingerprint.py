"""What makes one fit: if all of this is the same, so are the bits of the map."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from ptsne.lazy import LazyRows
from ptsne.persistence.saving import to_json, version_of

LIBRARIES = ("ptsne", "torch", "numpy", "scipy", "scikit-learn")
FREE = {"callbacks", "checkpoint", "device", "random_state", "verbose"}
"""Parameters that may be others in a fit that goes on; device and seed have rules of their own."""
SUM = "sha256:"
ROWS_AT_ONCE = 4096
SAMPLES, SAMPLED_ROWS = 16, 64
"""Runs of lazy rows that are compared, and rows of each."""


class Fingerprint:
    """All that the bits of a map depend on, by names that an error can say.

    Parameters
    ----------
    parameters : dict
        Of the estimator.
    data : (ndarray or csr_array, (ndarray, ndarray) or None, ndarray or None)
        Training rows, the neighbours that the user gave, and classes.
    device : torch.device
        Where it is trained.
    n_processes : int
        How many train it.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        data: tuple[Any, tuple[Any, Any] | None, Any],
        device: torch.device,
        n_processes: int = 1,
    ) -> None:
        rows, neighbors, classes = data
        self.versions = {library: version_of(library) for library in LIBRARIES}
        seed = parameters["random_state"]
        fit: dict[str, Any] = {
            "the shape of X": list(rows.shape),
            "the dtype of X": str(rows.dtype),
            "the values of X": digest(_blocks(rows)),
            "the neighbors given": None if neighbors is None else digest(neighbors),
            "the classes": None if classes is None else digest([classes]),
            "random_state": seed if seed is None or np.isscalar(seed) else type(seed).__name__,
            "the device": device.type,
            "torch.get_num_threads()": torch.get_num_threads(),
        }
        if n_processes > 1:
            fit["the number of processes"] = n_processes
        fit |= {f"the version of {name}": value for name, value in self.versions.items()}
        starts = {}
        for name, value in parameters.items():
            if isinstance(value, nn.Module):
                fit |= _of_module(name, value)
                starts[name] = _start(value)
            elif name not in FREE:
                fit[name] = value
        self.stored = {"fit": json.loads(json.dumps(to_json(fit))), "starts": starts}

    def is_same(self, stored: Mapping[str, Any]) -> bool:
        """Whether this is the fit that was stored."""
        is_same: bool = stored["fit"] == self.stored["fit"]
        return is_same

    def require_same(self, stored: Mapping[str, Any], what: str) -> None:
        """Hold this fit against one that was stored.

        Parameters
        ----------
        stored : dict
            `stored` of the other.
        what : str
            Where it was found, for the error.

        Raises
        ------
        ValueError
            If they differ.
        """
        was, now = stored["fit"], self.stored["fit"]
        differences = [_difference(k, was.get(k), now.get(k)) for k in sorted({*was, *now})]
        named = "; ".join(text for text in differences if text)
        if named:
            raise ValueError(
                f"{what} is of another fit: {named}. Fit with the same data, parameters and "
                "environment to go on with it, delete it to fit afresh, or name another file"
            )
        if stored["starts"] != self.stored["starts"]:
            message = (
                f"the modules given start with other weights than in {what}; training goes on from "
                "those in the file"
            )
            warnings.warn(message, UserWarning, stacklevel=7)


def _difference(name: str, was: Any, now: Any) -> str:
    if was == now:
        return ""
    if any(isinstance(value, str) and value.startswith(SUM) for value in (was, now)):
        return f"{name} changed"
    return f"{name} was {was!r} and is {now!r}"


def _of_module(name: str, network: nn.Module) -> dict[str, Any]:
    """Class, layers and fixed weights of a user's module."""
    learning = {key for key, value in network.named_parameters() if value.requires_grad}
    state = {k: v for k, v in network.state_dict().items() if isinstance(v, torch.Tensor)}
    layers = [f"{k} {tuple(v.shape)} {v.dtype} {k in learning}" for k, v in state.items()]
    fixed = [_bytes(value) for key, value in state.items() if key not in learning]
    return {
        name: type(network).__qualname__,
        f"the layers of {name}": digest([np.array(layers)]),
        f"the fixed weights of {name}": digest(fixed),
    }


def _start(network: nn.Module) -> str:
    """Checksum of the weights that training changes."""
    return digest(_bytes(value) for value in network.parameters() if value.requires_grad)


def _bytes(value: torch.Tensor) -> Any:
    return value.detach().cpu().reshape(-1).view(torch.uint8).numpy()


def _blocks(rows: Any) -> Iterable[Any]:
    """Rows in parts, so that those of a file on disk are never in memory at once."""
    if isinstance(rows, sparse.csr_array):
        return rows.indptr, rows.indices, rows.data
    if isinstance(rows, LazyRows):
        # to read them all would take as long as one of the two to five passes of the fit itself,
        # the first of which then compares the means of all columns
        starts = np.linspace(0, max(0, len(rows) - SAMPLED_ROWS), SAMPLES).astype(int)
        return (rows[i : i + SAMPLED_ROWS] for i in sorted({*starts.tolist()}))
    return (rows[i : i + ROWS_AT_ONCE] for i in range(0, len(rows), ROWS_AT_ONCE))


def digest(arrays: Iterable[Any]) -> str:
    """SHA-256 over shapes, types and bytes of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return SUM + found.hexdigest()
