"""Parametric t-SNE whose map explains itself exactly: ``y = W x + b`` at every point."""

from importlib import import_module
from types import ModuleType

from ptsne.decomposition import label_flip_rate, split_prediction
from ptsne.ensembles import Ensemble
from ptsne.estimator import ParametricTSNE
from ptsne.explanation import Explanation
from ptsne.linearize import (
    CompletenessError,
    Linearization,
    LinearizationError,
    UnsupportedOperation,
    linearization_rule,
    linearize,
    paired_linearization,
)
from ptsne.pipelines import explain
from ptsne.regions import (
    activation_pattern,
    integrated_gradients,
    region_radius,
    segment_regions,
)
from ptsne.registration import register
from ptsne.single_cell import explain_cells, gene_pipeline, tsne

load = ParametricTSNE.load

__version__ = "0.1.0"

__all__ = [
    "CompletenessError",
    "Ensemble",
    "Explanation",
    "Linearization",
    "LinearizationError",
    "ParametricTSNE",
    "UnsupportedOperation",
    "activation_pattern",
    "classifiers",
    "datasets",
    "explain",
    "explain_cells",
    "gene_pipeline",
    "integrated_gradients",
    "label_flip_rate",
    "linearization_rule",
    "linearize",
    "load",
    "paired_linearization",
    "plots",
    "region_radius",
    "register",
    "report",
    "segment_regions",
    "split_prediction",
    "tsne",
]


def __getattr__(name: str) -> ModuleType:
    """Import a submodule on first use: matplotlib is slow to import."""
    if name in {"classifiers", "datasets", "plots", "report"}:
        return import_module(f"ptsne.{name}")
    raise AttributeError(f"module 'ptsne' has no attribute {name!r}")
