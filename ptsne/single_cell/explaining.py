"""Why cells lie where they do, in genes, written beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.random import sample_without_replacement

from ptsne.estimator import ParametricTSNE
from ptsne.explanation import Array, Explanation
from ptsne.explanation.clusters import Clusters, clusters_of
from ptsne.pipelines import explain
from ptsne.single_cell.entries import entry, rows_of
from ptsne.single_cell.genes import gene_pipeline

if TYPE_CHECKING:
    import pandas as pd

BLOCK_BYTES = 2**26
"""Bytes that the W of the cells that are explained at once may take."""
BUDGET = 2**32
"""Bytes that written contributions may take (4 GiB)."""


def explain_cells(  # noqa: PLR0913 - each is a choice that scanpy's users know by this name
    adata: Any,
    model: ParametricTSNE | Pipeline,
    groupby: str,
    *,
    genes: int | Sequence[str] | None = None,
    layer: str | None = None,
    use_rep: str | None = None,
    method: str = "path",
    n_rows: int = 100,
    key_added: str = "ptsne",
    random_state: int | np.random.RandomState | None = 0,
) -> "pd.DataFrame":
    """Which genes hold each group of cells, and each cell, where it lies; written into `adata`.

    Everything is measured from the mean cell that the map was trained on.

    Parameters
    ----------
    adata : AnnData of shape (N, D)
        Cells; ``X`` may be sparse, or on disk: it becomes dense a few cells at a time.
    model : ParametricTSNE or Pipeline
        The map, of ``X``, of the layer, or of `use_rep`; or a pipeline from genes to places.
    groupby : str
        Column of ``adata.obs`` with the group of each cell, such as "leiden".
    genes : int or sequence of str, default=None
        Genes whose contributions are written cell by cell: names, or how many, the largest
        loadings of each group in turn. None writes loadings alone, since all N cells are asked
        otherwise (some ten milliseconds a cell with "path", one or two with "paired").
    layer : str, default=None
        Genes are the columns of ``adata.layers[layer]`` instead of ``adata.X``.
    use_rep : str, default=None
        The map is one of ``adata.obsm[use_rep]``, such as "X_pca"; it is carried back to genes
        through the loadings in ``adata.varm``, exactly: see `gene_pipeline`.
    method : {"path", "paired"}, default="path"
        How a cell's way from the mean cell's place is attributed to genes, as in
        `Explanation.displacement`.
    n_rows : int, default=100
        Cells drawn from each group for its loadings; all where there are no more.
    key_added : str, default="ptsne"
        What the names of the entries begin with.
    random_state : int, RandomState or None, default=0
        Of the draw.

    Returns
    -------
    DataFrame
        Loadings as a table, for `ptsne.plots.loadings`: cluster, feature, share, spread, low, high,
        n_rows; see `Explanation.loadings`.

    Raises
    ------
    ValueError
        If `n_rows` is not positive, or the method is another word.

    Notes
    -----
    What is written, with G groups, M genes and K dimensions of the map:

    - ``varm["ptsne_loadings"]`` (D, G): share of each gene of the way from the mean cell's place to
      the group's centre; no unit, each column sums to 1;
    - ``varm["ptsne_spread"]`` (D, G): their standard deviation over the cells drawn;
    - ``obsm["ptsne_contributions"]`` (N, K, M), with `genes`: how far each gene moves the cell, in
      map units;
    - ``obsm["ptsne_rest"]`` (N, K): the mean cell's place and all other genes together, so that
      ``contributions.sum(2) + rest`` is the cell's place;
    - ``uns["ptsne"]``: "groups", the names of the G columns; "genes", those of the M genes;
      "params".

    ValueError also if an entry is missing, a gene is unknown, the map has other columns, or no cell
    is in a group; cells without a group are left out. MemoryError if contributions would take more
    than 4 GiB. Nothing is written then.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import ptsne
    >>> from sklearn.datasets import load_wine
    >>> wine = load_wine(as_frame=True)
    >>> adata = SimpleNamespace(  # in place of an AnnData
    ...     X=(wine.data / wine.data.std()).to_numpy(),
    ...     var_names=wine.data.columns,
    ...     obs={"cultivar": wine.target},
    ...     obsm={},
    ...     varm={},
    ...     uns={},
    ... )
    >>> map_ = ptsne.tsne(adata, max_iter=100, random_state=0)
    >>> table = ptsne.explain_cells(adata, map_, "cultivar", genes=5, method="paired")
    >>> adata.varm["ptsne_loadings"].shape, adata.obsm["ptsne_contributions"].shape
    ((13, 3), (178, 2, 5))
    """
    if method not in {"path", "paired"}:
        raise ValueError(f'method must be "path" or "paired"; got {method!r}')
    if n_rows < 1:
        raise ValueError(f"n_rows must be at least 1; got {n_rows}")
    if use_rep is not None:
        model = gene_pipeline(adata, model, use_rep=use_rep, layer=layer)
    cells = _Cells(model, _matrix(adata, layer), [str(name) for name in adata.var_names])
    clusters = clusters_of(entry(adata.obs, "obs", groupby), cells.n_cells)
    table = _loadings(cells, clusters, method, n_rows, check_random_state(random_state))
    shares, spread = (_by_gene(table, name, cells, clusters) for name in ("share", "spread"))
    params = {"groupby": groupby, "layer": layer, "use_rep": use_rep, "method": method}
    said: dict[str, Any] = {
        "groups": np.array([str(name) for name in clusters.names], dtype=object),
        "params": {key: value for key, value in params.items() if value is not None},
    }
    places: dict[str, Array] = {}
    if genes is not None:
        chosen = _chosen(genes, cells.names, shares)
        said["genes"] = np.array([cells.names[gene] for gene in chosen], dtype=object)
        places["contributions"], places["rest"] = _contributions(cells, chosen, method)
    adata.varm[f"{key_added}_loadings"], adata.varm[f"{key_added}_spread"] = shares, spread
    adata.obsm.update({f"{key_added}_{name}": values for name, values in places.items()})
    adata.uns[key_added] = said
    return table


@dataclass(frozen=True)
class _Cells:
    """Cells that are explained a few at a time."""

    model: ParametricTSNE | Pipeline
    matrix: Any
    names: list[str]

    def __post_init__(self) -> None:
        expected = getattr(self.model, "n_features_in_", len(self.names))
        if expected != len(self.names):
            raise ValueError(
                f"the map has {expected} columns, and there are {len(self.names)} genes; name what "
                'it is a map of, as in use_rep="X_pca"'
            )
        if len({*self.names}) < len(self.names):
            raise ValueError("genes need names of their own; call adata.var_names_make_unique()")

    @property
    def n_cells(self) -> int:
        return int(self.matrix.shape[0])

    def explained(self, cells: slice | NDArray[np.int64]) -> Explanation:
        """Explanation of some cells, in ascending order."""
        import pandas as pd  # noqa: PLC0415 - importing ptsne must not import pandas

        rows = self.matrix[cells]
        rows = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)
        if rows.dtype.kind != "f":
            rows = rows.astype(np.float64)
        has_names = hasattr(self.model, "feature_names_in_")
        return explain(self.model, pd.DataFrame(rows, columns=self.names) if has_names else rows)

    def blocks(self, n_components: int) -> Iterator[slice]:
        """Stretches of cells whose W is not too large."""
        size = max(1, BLOCK_BYTES // (8 * n_components * len(self.names)))
        return (slice(at, min(at + size, self.n_cells)) for at in range(0, self.n_cells, size))


def _matrix(adata: Any, layer: str | None) -> Any:
    """The matrix of genes; one on disk stays there."""
    rows = rows_of(adata, layer).X
    if rows is None:
        raise ValueError("the AnnData has no X; name the layer that holds the genes")
    return rows.tocsr() if hasattr(rows, "tocsr") else rows


def _loadings(
    cells: _Cells,
    clusters: Clusters,
    method: str,
    n_rows: int,
    random_state: np.random.RandomState,
) -> "pd.DataFrame":
    """Table of loadings; each group's cells are dense one after the other."""
    import pandas as pd  # noqa: PLC0415 - importing ptsne must not import pandas

    tables = []
    for name in clusters.names:
        members = clusters.members(name)
        n_drawn = min(n_rows, len(members))
        drawn = sample_without_replacement(len(members), n_drawn, random_state=random_state)
        why = cells.explained(np.sort(members[drawn]))
        table = why.loadings(np.zeros(n_drawn), method=method, n_rows=n_drawn)
        table["cluster"] = pd.Series([name] * len(table), dtype=object)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _by_gene(
    table: "pd.DataFrame", column: str, cells: _Cells, clusters: Clusters
) -> NDArray[np.float64]:
    """A column of the table as (D, G)."""
    wide = np.empty((len(cells.names), len(clusters.names)))
    for at, name in enumerate(clusters.names):
        of_group = table[table["cluster"] == name].set_index("feature")[column]
        wide[:, at] = of_group.loc[cells.names]
    return wide


def _chosen(genes: int | Sequence[str], names: list[str], shares: Array) -> NDArray[np.int64]:
    """Numbers of the genes asked for: by name, or those that hold a group most."""
    if isinstance(genes, (int, np.integer)):
        if genes < 1:
            raise ValueError(f"genes must be names, or how many, 1 or more; got {genes}")
        rank = np.argsort(np.argsort(-np.abs(shares), axis=0, kind="stable"), axis=0).min(1)
        return np.lexsort([-np.abs(shares).max(1), rank])[:genes]
    numbers = {name: number for number, name in enumerate(names)}
    unknown = [gene for gene in genes if gene not in numbers]
    if unknown:
        raise ValueError(
            f"there is no gene {', '.join(map(repr, unknown[:10]))} in adata.var_names"
        )
    return np.array([numbers[gene] for gene in genes], dtype=np.int64)


def _contributions(
    cells: _Cells, chosen: NDArray[np.int64], method: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What chosen genes add to the place of each cell (N, K, M), and the rest of it (N, K)."""
    n_components = cells.explained(slice(0, 1)).Y.shape[1]
    shape = (cells.n_cells, n_components, len(chosen))
    size = 8 * int(np.prod(shape))
    if size > BUDGET:
        raise MemoryError(
            f"contributions of {len(chosen)} genes to the places of {cells.n_cells} cells take "
            f"{size / 2**30:.1f} GiB; ask for fewer genes"
        )
    parts, rest = np.empty(shape), np.empty(shape[:2])
    for block in cells.blocks(n_components):
        why = cells.explained(block)
        parts[block] = why.displacement(method=method)[:, :, chosen]
        rest[block] = why.Y - parts[block].sum(2)
    return parts, rest
