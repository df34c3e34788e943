"""What a map says about its points: local maps, contributions, contrasts, landmarks."""

from ptsne.explanation.baselines import Baseline
from ptsne.explanation.explaining import explain_map, explain_rows
from ptsne.explanation.explanation import Explanation
from ptsne.explanation.source import AffineMap, Array, Landmarks, Source

__all__ = [
    "AffineMap",
    "Array",
    "Baseline",
    "Explanation",
    "Landmarks",
    "Source",
    "explain_map",
    "explain_rows",
]
