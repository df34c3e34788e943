"""An unfinished fit as a file, so that the same fit can go on: nothing is pickled.

The file belongs to one fit: it names the rows, the parameters, versions and threads, and is refused
where any of them differs. Beside it, as ``path.neighbors``, stands the neighbour graph, which is
large and never changes.
"""

import contextlib
import copy
import glob
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptsne.affinities import Neighbors
from ptsne.persistence.file import PART, Kind, ModelFile, checksum, read, write
from ptsne.persistence.fingerprint import Fingerprint, digest
from ptsne.persistence.saving import DTYPES, to_json

OTHERWISE = "delete it to fit afresh, or name another file"
CHECKPOINT = Kind("checkpoint", OTHERWISE, OTHERWISE)
TENSOR = "$tensor"
"""Stands in the header for the tensor of this name."""


class NoCheckpoint:
    """What a fit has that keeps nothing.

    Parameters
    ----------
    seed : int
        Seed of the training.
    rng : RandomState
        Source of what else is drawn.
    """

    store = None

    def __init__(self, seed: int, rng: np.random.RandomState) -> None:
        self.seed, self.rng = seed, rng
        self._random = rng.get_state()

    def recall(self, name: str, value: Any) -> Any:  # noqa: ARG002
        """The value, for there is none of an earlier fit."""
        return value

    def require_same(self, name: str, arrays: Iterable[Any]) -> None:
        """Nothing to compare with."""

    def restart(self, **values: Any) -> None:  # noqa: ARG002
        """Random numbers from the beginning."""
        self.rng.set_state(self._random)

    def neighbors(self, search: Callable[[], Neighbors]) -> Neighbors:
        """What `search` finds."""
        return search()

    def remove(self) -> None:
        """Nothing to do."""


class CheckpointFile:
    """The file of one fit, and the store of its training.

    Parameters
    ----------
    path : path-like
        The file; one that is there must be of this fit. It is written at once, so that a place that
        cannot be written is known before the work.
    fit : Fingerprint
        What makes this fit.
    seed : int
        Seed of the training.
    rng : RandomState
        Source of what else is drawn.

    Attributes
    ----------
    seed : int
        That of the fit that began.
    rng : RandomState
        The one given, or where the fit goes on a copy that stands where it stood.

    Raises
    ------
    FileExistsError
        If another file has the name that the neighbour graph needs.

    Notes
    -----
    OSError if the file cannot be written. ValueError if the one that is there is no checkpoint, is
    damaged, or is of another fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fit: Fingerprint,
        seed: int,
        rng: np.random.RandomState,
    ) -> None:
        self._path = Path(os.path.realpath(os.fsdecode(path)))
        self._graph_path = self._path.with_name(f"{self._path.name}.neighbors")
        self._fit, self.seed, self.rng = fit, seed, rng
        self._random = self._random_later = to_json(rng.get_state(legacy=False))
        self._values: dict[str, Any] = {}
        self._graph: dict[str, Tensor] = {}  # found, but not yet written
        self._graph_checksum: str | None = None
        self._state = self._found() if self._path.is_file() else None
        if self._graph_checksum is None and not _is_ours(self._graph_path):
            raise FileExistsError(
                f"{self._graph_path} is in the way: the checkpoint keeps the neighbour graph under "
                "that name; move it, or name another checkpoint"
            )
        self._remove_parts()
        self.write(self._state)

    def _found(self) -> dict[str, Any] | None:
        """State in the file that is there; what it knows of the fit counts from now on."""
        tensors, header = read(self._path, CHECKPOINT)
        if header.get("kind") != "checkpoint":
            raise ValueError(
                f"{self._path} is a saved map, not a checkpoint; name another file as checkpoint"
            )
        if header["state"] is None and not self._fit.is_same(header["fit"]):
            return None  # that fit ended before its training began
        self._fit.require_same(header["fit"], f"the checkpoint {self._path}")
        self.seed, self._graph_checksum = header["seed"], header["graph"]
        self.rng, self._random = copy.deepcopy(self.rng), header["random"]
        self._random_later, self._values = header["random_later"], header["values"]
        self.rng.set_state(self._random)
        state: dict[str, Any] | None = with_tensors(header["state"], tensors)
        return state

    @property
    def store(self) -> "CheckpointFile":
        """Where the training keeps its state."""
        return self

    def read(self) -> dict[str, Any] | None:
        """State of the training that was found; given once, so that memory does not hold it."""
        state, self._state = self._state, None
        return state

    def write(self, state: Mapping[str, Any] | None) -> None:
        """Replace the file, whole or not at all.

        Parameters
        ----------
        state : dict or None
            State of the training.
        """
        self._write_graph()
        tensors: dict[str, Tensor] = {}
        header = {
            "kind": "checkpoint",
            "versions": self._fit.versions,
            "fit": self._fit.stored,
            "seed": self.seed,
            "random": self._random,
            "random_later": self._random_later,
            "values": self._values,
            "graph": self._graph_checksum,
            "state": without_tensors(state, "state", tensors),
        }
        self._write(self._path, ModelFile(tensors, header))

    def recall(self, name: str, value: Any) -> Any:
        """What the fit that began had under this name, else `value`, which is kept.

        Parameters
        ----------
        name : str
            Of the value.
        value : int, float or str
            Of a fit that begins.

        Returns
        -------
        int, float or str
            The value that counts.
        """
        return self._values.setdefault(name, value)

    def require_same(self, name: str, arrays: Iterable[Any]) -> None:
        """Hold what is known only later against the fit that began.

        Parameters
        ----------
        name : str
            For the error.
        arrays : iterable of ndarray
            What has to be the same.

        Raises
        ------
        ValueError
            If it is not.
        """
        found = digest(arrays)
        if self._values.setdefault(name, found) != found:
            raise ValueError(
                f"the checkpoint {self._path} is of another fit: {name} changed; {OTHERWISE}"
            )

    def restart(self, **values: Any) -> None:
        """Forget the training and the neighbours: the same fit begins again, with other values.

        Parameters
        ----------
        **values
            What `recall` gives from now on.
        """
        self._state, self._values = None, values
        self._graph, self._graph_checksum = {}, None
        self.rng.set_state(self._random)
        self.write(None)

    def neighbors(self, search: Callable[[], Neighbors]) -> Neighbors:
        """Neighbours of the fit that goes on, or what `search` finds.

        Parameters
        ----------
        search : callable
            Finds them, and may draw.

        Returns
        -------
        Neighbors
            The same bits as in the fit that began.
        """
        stored = self.stored_neighbors()
        if stored is not None:
            return stored
        found = search()
        self.keep_neighbors(found)
        return found

    def stored_neighbors(self) -> Neighbors | None:
        """Those of the fit that goes on; random numbers then stand where they stood after it."""
        if self._graph_checksum is None:
            return None
        self.rng.set_state(self._random_later)
        return self._stored_graph(self._graph_checksum)

    def keep_neighbors(self, found: Neighbors) -> None:
        """Write them once.

        Parameters
        ----------
        found : Neighbors
            Of all rows.
        """
        self._random_later = to_json(self.rng.get_state(legacy=False))
        self._graph = {
            "indices": torch.from_numpy(found.indices).int(),
            "distances": torch.from_numpy(found.distances),
        }
        try:
            self._write_graph()
        except OSError as error:
            message = f"fit goes on without a new checkpoint: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=5)

    def remove(self) -> None:
        """Delete the file and its graph: the fit is complete."""
        try:
            self._path.unlink(missing_ok=True)
            self._graph_path.unlink(missing_ok=True)
        except OSError as error:
            message = f"fit is complete, but its checkpoint could not be deleted: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=5)

    def _stored_graph(self, expected: str) -> Neighbors:
        found = None
        with contextlib.suppress(FileNotFoundError):
            found = read(self._graph_path, CHECKPOINT)
        if found is None or found.header["checksum"] != expected:
            raise ValueError(
                f"{self._graph_path}, the neighbour graph of the checkpoint, is missing or of "
                f"another fit; put it back, or delete {self._path} to fit afresh"
            )
        indices, distances = found.tensors["indices"], found.tensors["distances"]
        return Neighbors(indices.long().numpy(), distances.numpy())

    def _write_graph(self) -> None:
        """Write the graph once, before any state that depends on it."""
        if self._graph:
            self._write(self._graph_path, ModelFile(self._graph, {"kind": "neighbors"}))
            self._graph_checksum, self._graph = checksum(self._graph), {}

    def _write(self, path: Path, contents: ModelFile) -> None:
        write(path, contents, what="the checkpoint", prefix=self._prefix)

    @property
    def _prefix(self) -> str:
        return f".{self._path.name}."

    def _remove_parts(self) -> None:
        """Delete what a killed process had begun to write."""
        for part in self._path.parent.glob(f"{glob.escape(self._prefix)}*{PART}"):
            with contextlib.suppress(OSError):
                part.unlink()


def _is_ours(graph_path: Path) -> bool:
    """Whether the name of the graph is free, or stands for a graph of an earlier checkpoint."""
    try:
        return read(graph_path, CHECKPOINT).header.get("kind") == "neighbors"
    except FileNotFoundError:
        return True
    except (ValueError, OSError):
        return False


# ---- states as JSON beside tensors ----


def without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A state as JSON, its tensors moved to `tensors`."""
    if isinstance(value, Tensor):
        _require_storable(value.dtype in DTYPES and not value.is_sparse, name, value.dtype)
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {TENSOR: name}
    if isinstance(value, dict):
        return {key: without_tensors(v, f"{name}/{key}", tensors) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_tensors(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    is_plain = value is None or isinstance(value, (str, int, float))
    _require_storable(is_plain, name, type(value).__name__)
    return value


def _require_storable(is_so: bool, name: str, kind: object) -> None:
    if not is_so:
        raise ValueError(
            f"{name.rsplit('/', 1)[-1]} of the network ({kind}) is no tensor of real numbers and "
            "cannot be kept without pickle; fit without checkpoint, or leave it out of the "
            "module's state"
        )


def with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state again, from JSON and tensors."""
    if isinstance(value, list):
        return [with_tensors(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {TENSOR}:
        return tensors[value[TENSOR]]
    return {name: with_tensors(part, tensors) for name, part in value.items()}
