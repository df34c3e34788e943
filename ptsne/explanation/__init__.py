"""What a map says about its points: local maps, contributions, contrasts, landmarks."""

from ptsne.explanation.explaining import Baseline, explain_map
from ptsne.explanation.explanation import Explanation
from ptsne.explanation.source import AffineMap, Landmarks

__all__ = ["AffineMap", "Baseline", "Explanation", "Landmarks", "explain_map"]
