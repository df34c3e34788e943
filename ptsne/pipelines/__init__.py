"""Explain a whole scikit-learn pipeline in the columns that the user gave it."""

from ptsne.pipelines.explaining import explain

__all__ = ["explain"]
