"""What a map says about its points: local maps, contributions, contrasts, landmarks."""

from ptsne.explanation.baselines import Baseline
from ptsne.explanation.counterfactuals import Counterfactual
from ptsne.explanation.explaining import explain_rows
from ptsne.explanation.explanation import Explanation
from ptsne.explanation.source import AffineMap, Array, Landmarks, Source
from ptsne.explanation.trust import Calibration, Trust, calibrate

__all__ = [
    "AffineMap",
    "Array",
    "Baseline",
    "Calibration",
    "Counterfactual",
    "Explanation",
    "Landmarks",
    "Source",
    "Trust",
    "calibrate",
    "explain_rows",
]
