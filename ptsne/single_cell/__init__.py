"""Maps of annotated data, in the way of scanpy: results are written beside the matrix."""

from ptsne.single_cell.explaining import explain_cells
from ptsne.single_cell.genes import gene_pipeline
from ptsne.single_cell.mapping import tsne

__all__ = ["explain_cells", "gene_pipeline", "tsne"]
