"""A map of annotated data in one line."""

from typing import Any

from ptsne.estimator import ParametricTSNE
from ptsne.single_cell.entries import rows_of


def tsne(
    adata: Any,
    *,
    layer: str | None = None,
    use_rep: str | None = None,
    key_added: str = "X_ptsne",
    **parameters: Any,
) -> ParametricTSNE:
    """Map the observations of an AnnData, and write their places into ``adata.obsm``.

    Parameters
    ----------
    adata : AnnData of shape (N, D)
        Observations; nothing but ``adata.obsm[key_added]`` is changed.
    layer : str, default=None
        ``adata.layers[layer]`` instead of ``adata.X``.
    use_rep : str, default=None
        ``adata.obsm[use_rep]`` instead, such as "X_pca".
    key_added : str, default="X_ptsne"
        Name of the places in ``adata.obsm``.
    **parameters
        Of `ParametricTSNE`.

    Returns
    -------
    ParametricTSNE
        The fitted map, for `explain_cells`, and for `explain` and `transform` of other data.

    Notes
    -----
    ValueError if there is no such layer or representation, or both are named.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import ptsne
    >>> from sklearn.datasets import load_iris
    >>> adata = SimpleNamespace(obsm={"X_pca": load_iris().data})  # in place of an AnnData
    >>> map_ = ptsne.tsne(adata, use_rep="X_pca", max_iter=30, random_state=0)
    >>> adata.obsm["X_ptsne"].shape
    (150, 2)
    """
    map_ = ParametricTSNE(**parameters)
    adata.obsm[key_added] = map_.fit(rows_of(adata, layer, use_rep)).embedding_
    return map_
