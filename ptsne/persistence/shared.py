"""One checkpoint of several processes: the first one writes what all of them tell it.

The processes of a fit hold the same network and moments, and draw for their own rows from
generators of their own. So the file holds the state of process 0, and of each other what differs.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ptsne.affinities import Neighbors
from ptsne.persistence.checkpoint import CheckpointFile, with_tensors, without_tensors
from ptsne.persistence.file import checksum
from ptsne.training import World


class SharedCheckpoint:
    """The file as each process sees it; all of them call the same methods at the same step.

    `seed` and `rng` are those of the `CheckpointFile`, but that only process 0 knows where its
    `rng` stands, and may draw from it.

    Parameters
    ----------
    world : World
        The processes.
    open_file : callable
        Gives the file; called by process 0 alone, whose errors are everybody's.
    rng : RandomState
        What the other processes have.
    """

    def __init__(
        self, world: World, open_file: Callable[[], CheckpointFile], rng: np.random.RandomState
    ) -> None:
        self._world = world
        self._files: list[CheckpointFile] = []  # of process 0, one
        self.seed = world.once(lambda: self._open(open_file))
        self.rng = self._files[0].rng if self._files else rng

    def _open(self, open_file: Callable[[], CheckpointFile]) -> int:
        self._files.append(open_file())
        return self._files[0].seed

    def _read(self) -> dict[str, Any] | None:
        return self._files[0].read()

    def _stored_neighbors(self) -> Neighbors | None:
        return self._files[0].stored_neighbors()

    @property
    def store(self) -> "SharedCheckpoint":
        """Where the training keeps its state."""
        return self

    def read(self) -> dict[str, Any] | None:
        """State of this process."""
        whole = self._world.once(self._read)
        if whole is None or not self._world.rank:
            return None if whole is None else whole["first"]
        tensors: dict[str, Tensor] = {}
        without_tensors(whole["first"], "state", tensors)
        mine = whole["others"][self._world.rank - 1]
        state: dict[str, Any] = with_tensors(json.loads(mine["plain"]), tensors | mine["own"])
        return state

    def write(self, state: Mapping[str, Any] | None) -> None:
        """Tell process 0, which replaces the file, whole or not at all.

        Parameters
        ----------
        state : dict or None
            State of the training in this process.
        """
        tensors: dict[str, Tensor] = {}
        plain = without_tensors(state, "state", tensors)
        sums = {name: checksum({name: tensor}) for name, tensor in tensors.items()}
        known = self._world.same(sums)
        own = {name: tensor for name, tensor in tensors.items() if sums[name] != known.get(name)}
        told = self._world.everybodys({"plain": json.dumps(plain), "own": own})
        for file in self._files:
            file.write({"first": state, "others": told[1:]})

    def neighbors(self, search: Callable[[], Neighbors]) -> Neighbors:
        """Neighbours of the fit that goes on, or what all processes find.

        Parameters
        ----------
        search : callable
            Finds them in every process.

        Returns
        -------
        Neighbors
            The same bits as in the fit that began.
        """
        stored = self._world.once(self._stored_neighbors)
        if stored is not None:
            return stored
        found = search()
        for file in self._files:
            file.keep_neighbors(found)
        return found

    def remove(self) -> None:
        """Delete the file and its graph: the fit is complete."""
        for file in self._files:
            file.remove()
