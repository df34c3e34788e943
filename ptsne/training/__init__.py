"""Training: autoencoder, places of the landmarks, fine-tuning, distillation, progress."""

from ptsne.training.defaults import map_settings
from ptsne.training.inversion import train_inverse
from ptsne.training.mapping import MapSettings, train_map
from ptsne.training.objective import Objective, Task
from ptsne.training.progress import INTERRUPTED, Callback, Journal, ProgressBar, Record

__all__ = [
    "INTERRUPTED",
    "Callback",
    "Journal",
    "MapSettings",
    "Objective",
    "ProgressBar",
    "Record",
    "Task",
    "map_settings",
    "train_inverse",
    "train_map",
]
