"""Training: autoencoder, places, fine-tuning, distillation, progress; one process or many."""

from ptsne.training.checkpoint import Checkpoint, Randomness
from ptsne.training.defaults import QUALITIES, map_settings
from ptsne.training.distributed import World, joined, own_entries, shared_neighbors
from ptsne.training.inversion import train_inverse
from ptsne.training.mapping import MapSettings, train_map
from ptsne.training.objective import Objective, Task
from ptsne.training.progress import INTERRUPTED, Callback, Journal, ProgressBar, Record

__all__ = [
    "INTERRUPTED",
    "QUALITIES",
    "Callback",
    "Checkpoint",
    "Journal",
    "MapSettings",
    "Objective",
    "ProgressBar",
    "Randomness",
    "Record",
    "Task",
    "World",
    "joined",
    "map_settings",
    "own_entries",
    "shared_neighbors",
    "train_inverse",
    "train_map",
]
