"""How well a map keeps what the data had.

Rows are measured among themselves, each left out in turn; or, with ``X_train`` and ``Y_train``,
held-out rows are measured against the training rows, in the data and in the map alike. Distances in
a map are Euclidean. Every score is better when higher; a perfect map reaches 1.
"""

from ptsne.metrics.agreement import (
    continuity,
    knn_accuracy,
    neighbor_recall,
    trustworthiness,
)
from ptsne.metrics.distances import distance_correlation, triplet_accuracy
from ptsne.metrics.fidelity import LocalFidelity, local_fidelity, rank_deficient

__all__ = [
    "LocalFidelity",
    "continuity",
    "distance_correlation",
    "knn_accuracy",
    "local_fidelity",
    "neighbor_recall",
    "rank_deficient",
    "triplet_accuracy",
    "trustworthiness",
]
