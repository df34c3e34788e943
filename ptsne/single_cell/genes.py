"""From a map of principal components back to genes."""

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from ptsne.estimator import ParametricTSNE
from ptsne.pipelines.components import Components
from ptsne.single_cell.entries import entry, rows_of


def gene_pipeline(
    adata: Any,
    map_: ParametricTSNE,
    *,
    use_rep: str = "X_pca",
    loadings: str | None = None,
    layer: str | None = None,
) -> Pipeline:
    r"""Carry a map of principal components back to genes, exactly.

    Components are affine in the genes, :math:`z = A (x - \mu) + \bar z` with the loadings A, and
    the map is so at every cell, :math:`y = W_z z + b_z`. Hence

    .. math:: y = (W_z A) x + (b_z + W_z (\bar z - A \mu)).

    Parameters
    ----------
    adata : AnnData of shape (N, D)
        Cells whose genes and components are known; it is not changed.
    map_ : ParametricTSNE
        Fitted on ``adata.obsm[use_rep]``, as by ``ptsne.tsne(adata, use_rep="X_pca")``.
    use_rep : str, default="X_pca"
        Name of the components in ``adata.obsm``.
    loadings : str, default=None
        Name of their loadings (D, L) in ``adata.varm``; by default "PCs" for "X_pca", else
        `use_rep`: where ``scanpy.pp.pca`` writes them.
    layer : str, default=None
        The components are those of ``adata.layers[layer]`` instead of ``adata.X``.

    Returns
    -------
    Pipeline
        From genes to places: ``transform`` places new cells, ``ptsne.explain`` explains cells in
        genes.

    Notes
    -----
    ValueError if an entry is missing, or if the components are not those of this matrix: it was
    scaled since, or the components were corrected for batches. The constant is learned from the
    cells, so that it does not matter whether the components were centred, nor on which cells. Rows
    are read block by block, from sparse matrices and files too.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import ptsne
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.decomposition import PCA
    >>> wine = load_wine(as_frame=True).data
    >>> pca = PCA(3).fit(wine)
    >>> adata = SimpleNamespace(  # in place of an AnnData
    ...     X=wine.to_numpy(),
    ...     var_names=wine.columns,
    ...     obsm={"X_pca": pca.transform(wine)},
    ...     varm={"PCs": pca.components_.T},
    ... )
    >>> map_ = ptsne.tsne(adata, use_rep="X_pca", max_iter=30, random_state=0)
    >>> pipeline = ptsne.gene_pipeline(adata, map_)
    >>> why = ptsne.explain(pipeline, wine[:5])
    >>> why.feature_names[:2], why.weight.shape
    (['alcohol', 'malic_acid'], (5, 2, 13))
    """
    known = np.asarray(entry(adata.obsm, "obsm", use_rep))
    name = loadings or ("PCs" if use_rep == "X_pca" else use_rep)
    A = np.asarray(entry(adata.varm, "varm", name))
    components = Components(A).fit(rows_of(adata, layer), known)
    return Pipeline([("components", components), ("map", map_)])
