"""Fitting rows that do not fit into memory: read block by block, trained in a few directions."""

from ptsne.streaming.budget import Plan, Sizes, budget_bytes, plan_memory
from ptsne.streaming.explaining import explain_blocks
from ptsne.streaming.folding import unfold_network
from ptsne.streaming.placing import explain_lazily, place_lazily
from ptsne.streaming.preparing import Prepared, prepare
from ptsne.streaming.reduction import Reduced, reduce_rows, stream_standardize

__all__ = [
    "Plan",
    "Prepared",
    "Reduced",
    "Sizes",
    "budget_bytes",
    "explain_blocks",
    "explain_lazily",
    "place_lazily",
    "plan_memory",
    "prepare",
    "reduce_rows",
    "stream_standardize",
    "unfold_network",
]
