"""The checkpoint that a fit asks for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ptsne.affinities import Neighbors
from ptsne.persistence.checkpoint import CheckpointFile, NoCheckpoint
from ptsne.persistence.fingerprint import Fingerprint
from ptsne.persistence.shared import SharedCheckpoint
from ptsne.training import World
from ptsne.training.distributed import ALONE


def open_checkpoint(
    parameters: Mapping[str, Any],
    data: tuple[Any, Neighbors | None, Any],
    device: torch.device,
    randomness: tuple[int, np.random.RandomState],
    world: World = ALONE,
) -> CheckpointFile | SharedCheckpoint | NoCheckpoint:
    """The file that a fit asks for, written and checked; what stands for it where it asks for none.

    Parameters
    ----------
    parameters : dict
        Of the estimator.
    data : (ndarray or csr_array, Neighbors or None, ndarray or None)
        Rows, the neighbours that the user gave, and classes.
    device : torch.device
        Where the fit computes.
    randomness : (int, RandomState)
        Seed of the training, and the source of what else is drawn.
    world : World
        The processes; of several, the first one reads and writes.

    Returns
    -------
    CheckpointFile, SharedCheckpoint or NoCheckpoint
        With the seed that counts.
    """
    if world.size == 1 or parameters["checkpoint"] is None:
        return open_own_checkpoint(parameters, data, device, randomness)

    def open_file() -> CheckpointFile:
        fit = Fingerprint(parameters, data, device, world.size)
        return CheckpointFile(parameters["checkpoint"], fit, *randomness)

    return SharedCheckpoint(world, open_file, randomness[1])


def open_own_checkpoint(
    parameters: Mapping[str, Any],
    data: tuple[Any, Neighbors | None, Any],
    device: torch.device,
    randomness: tuple[int, np.random.RandomState],
) -> CheckpointFile | NoCheckpoint:
    """`open_checkpoint` of one process."""
    if parameters["checkpoint"] is None:
        return NoCheckpoint(*randomness)
    fit = Fingerprint(parameters, data, device)
    return CheckpointFile(parameters["checkpoint"], fit, *randomness)
