"""From rows to the sparse joint probabilities of t-SNE.

``X -> nearest_neighbors -> conditional_probabilities -> joint_probabilities -> P``

Every row ``i`` gets a Gaussian over its neighbours, as wide as the perplexity asks, and the two
directions of a pair are averaged [1]_:

    p_{j|i} = exp(-d_ij² / 2σ_i²) / Σ_l exp(-d_il² / 2σ_i²)        (eq. 1)
    p_ij    = (p_{j|i} + p_{i|j}) / 2N                              (section 2)

References
----------
.. [1] L. van der Maaten and G. Hinton (2008). Visualizing data using t-SNE. Journal of Machine
   Learning Research 9, 2579-2605.
"""

from ptsne.affinities.calibration import (
    Conditional,
    conditional_probabilities,
    joint_probabilities,
)
from ptsne.affinities.cells import search_cells
from ptsne.affinities.graph import graph_width, neighbors_from_graph
from ptsne.affinities.neighbors import is_searched_exactly, nearest_neighbors, query_neighbors
from ptsne.affinities.pairs import JointPairs, calibrate_by_blocks, joint_pairs
from ptsne.affinities.scan import Neighbors
from ptsne.affinities.supervision import class_numbers, supervised_probabilities
from ptsne.affinities.tensors import TensorPairs, tensor_pairs

__all__ = [
    "Conditional",
    "JointPairs",
    "Neighbors",
    "TensorPairs",
    "calibrate_by_blocks",
    "class_numbers",
    "conditional_probabilities",
    "graph_width",
    "is_searched_exactly",
    "joint_pairs",
    "joint_probabilities",
    "nearest_neighbors",
    "neighbors_from_graph",
    "query_neighbors",
    "search_cells",
    "supervised_probabilities",
    "tensor_pairs",
]
