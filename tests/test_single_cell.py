"""Annotated data: maps, and the genes behind them, written where scanpy's users look."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ptsne
from ptsne import ParametricTSNE
from ptsne.lazy import LazyRows
from ptsne.pipelines.components import Components
from ptsne.single_cell import explaining

N, D, L = 90, 24, 6
GENES = [f"gene {g}" for g in range(D)]
QUICK = {"perplexity": 10, "max_iter": 20, "random_state": 0}
SHIFT = {
    "centred": lambda counts: PCA(L, random_state=0).fit(counts),
    "uncentred": lambda counts: TruncatedSVD(L, random_state=0).fit(counts),
    "centred elsewhere": lambda counts: PCA(L, random_state=0).fit(counts[:50]),
}


def counts(dtype=np.float64):
    rng = np.random.default_rng(0)
    rate = rng.gamma(1.0, 1.0, D) * np.ones((3, D))
    for kind in range(3):
        rate[kind, 5 * kind : 5 * kind + 5] += 5
    return np.log1p(rng.poisson(rate[np.arange(N) % 3])).astype(dtype)


def table():
    return pd.DataFrame(counts(), columns=GENES)


def annotated(X, pca=None, names=None):
    """What is asked of an AnnData."""
    known = SHIFT["centred"](counts()) if pca is None else pca
    return SimpleNamespace(
        X=X,
        shape=X.shape,
        var_names=pd.Index(GENES if names is None else names),
        obs=pd.DataFrame({
            "kind": pd.Categorical(np.array(list("ABC"))[np.arange(len(counts())) % 3])
        }),
        obsm={"X_pca": known.transform(counts())},
        varm={"PCs": known.components_.T},
        layers={},
        uns={},
    )


@pytest.fixture(scope="module")
def of_components():
    """The map of the principal components."""
    return ptsne.tsne(annotated(counts()), use_rep="X_pca", **QUICK)


@pytest.fixture(scope="module")
def of_genes():
    return ptsne.tsne(annotated(counts()), **QUICK)


# ---- from components to genes ----


@pytest.mark.parametrize("shift", SHIFT)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array])
def test_the_map_is_carried_to_genes_exactly(shift, form, of_components):
    adata, map_ = annotated(form(counts()), SHIFT[shift](counts())), of_components
    pipeline = ptsne.gene_pipeline(adata, map_)
    A, z = adata.varm["PCs"].T, adata.obsm["X_pca"]
    inner, why = map_.explain(z), ptsne.explain(pipeline, table())
    np.testing.assert_allclose(pipeline[:-1].transform(table()), z, rtol=0, atol=1e-12)
    np.testing.assert_allclose(why.weight, inner.weight @ A, rtol=0, atol=1e-12)
    constant = z[0] - A @ counts()[0]
    np.testing.assert_allclose(
        why.intercept, inner.weight @ constant + inner.intercept, rtol=0, atol=1e-11
    )
    np.testing.assert_allclose(why.Y, map_.transform(z), rtol=0, atol=1e-11)
    assert why.residual.max() < 1e-12
    if shift == "centred":  # the map was trained on these
        np.testing.assert_allclose(why.baseline[0], counts().mean(0), rtol=0, atol=1e-12)


def test_genes_without_a_part_in_the_components_weigh_nothing(of_components):
    X, chosen = counts(), np.arange(D) % 2 == 0
    pca = PCA(L, random_state=0).fit(X[:, chosen])
    adata = annotated(X)
    adata.obsm["X_pca"], adata.varm["PCs"] = pca.transform(X[:, chosen]), np.zeros((D, L))
    adata.varm["PCs"][chosen] = pca.components_.T
    weight = ptsne.explain(ptsne.gene_pipeline(adata, of_components), adata).weight
    assert (weight[:, :, ~chosen] == 0).all()
    assert (weight[:, :, chosen] != 0).any(1).all()


def test_single_precision_is_rounding_and_nothing_else(of_components):
    adata = annotated(counts(np.float32))
    adata.obsm["X_pca"] = adata.obsm["X_pca"].astype(np.float32)
    pipeline = ptsne.gene_pipeline(adata, of_components)
    assert np.abs(pipeline.transform(adata) - of_components.embedding_).max() < 1e-3
    assert ptsne.explain(pipeline, adata).feature_names == GENES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.varm.clear(), r"adata.varm has no 'PCs'; it has nothing"),
        (lambda a: a.obsm.clear(), r"adata.obsm has no 'X_pca'"),
        (lambda a: setattr(a, "X", a.X**2), r"row \d+ is off by .* before they were scaled"),
        (lambda a: a.obsm.update(X_pca=a.obsm["X_pca"] + np.arange(N)[:, None]), "is off by"),
        (lambda a: a.obsm.update(X_pca=a.obsm["X_pca"] * np.nan), "is off by nan"),
        (lambda a: a.varm.update(PCs=a.varm["PCs"][:, :3]), r"loadings \(24, 3\) and components"),
        (lambda a: a.obsm.update(X_pca=a.obsm["X_pca"][:9]), r"components \(9, 6\) do not go"),
    ],
    ids=["no loadings", "no components", "scaled", "corrected", "NaN", "fewer", "other cells"],
)
def test_components_of_something_else_are_refused(change, message, of_components):
    adata = annotated(counts())
    change(adata)
    with pytest.raises(ValueError, match=message):
        ptsne.gene_pipeline(adata, of_components)


def test_loadings_of_another_name(of_components):
    adata = annotated(counts())
    adata.obsm["mine"], adata.varm["mine"] = adata.obsm.pop("X_pca"), adata.varm.pop("PCs")
    adata.layers["log"], adata.X = adata.X, None
    pipeline = ptsne.gene_pipeline(adata, of_components, use_rep="mine", layer="log")
    np.testing.assert_allclose(
        pipeline.transform(table()), of_components.embedding_, rtol=0, atol=1e-11
    )


# ---- what is written ----


def test_loadings_stand_beside_the_genes(of_components):
    adata = annotated(sparse.csr_matrix(counts()))
    loadings = ptsne.explain_cells(adata, of_components, "kind", use_rep="X_pca", n_rows=30)
    expected = ptsne.explain(ptsne.gene_pipeline(adata, of_components), adata).loadings(
        adata.obs["kind"], n_rows=30
    )
    for cluster, written in zip("ABC", adata.varm["ptsne_loadings"].T, strict=True):
        shares = expected[expected["cluster"] == cluster].set_index("feature")["share"]
        np.testing.assert_allclose(written, shares.loc[GENES], rtol=0, atol=1e-9)
    assert adata.varm["ptsne_spread"].shape == (D, 3)
    np.testing.assert_allclose(adata.varm["ptsne_loadings"].sum(0), 1, rtol=0, atol=1e-12)
    assert list(adata.uns["ptsne"]["groups"]) == ["A", "B", "C"]
    assert adata.uns["ptsne"]["params"] == {"groupby": "kind", "use_rep": "X_pca", "method": "path"}
    assert list(loadings.columns) == list(expected.columns)
    assert set(adata.obsm) == {"X_pca"}


@pytest.mark.parametrize("method", ["path", "paired"])
def test_contributions_and_the_rest_are_the_place(method, of_genes, monkeypatch):
    monkeypatch.setattr(explaining, "BLOCK_BYTES", 8 * 2 * D * 7)  # blocks of 7 cells
    adata = annotated(sparse.csr_array(counts()[:12]))
    adata.obs = adata.obs[:12]
    ptsne.explain_cells(adata, of_genes, "kind", genes=GENES[3:0:-2], method=method, n_rows=5)
    contributions, rest = (adata.obsm[f"ptsne_{name}"] for name in ("contributions", "rest"))
    parts = of_genes.explain(adata).displacement(method=method)
    np.testing.assert_allclose(contributions, parts[:, :, [3, 1]], rtol=0, atol=1e-12)
    places = of_genes.embedding_[:12]
    np.testing.assert_allclose(contributions.sum(2) + rest, places, rtol=0, atol=1e-12)
    assert list(adata.uns["ptsne"]["genes"]) == GENES[3:0:-2]


def test_genes_by_number_are_those_of_each_group_in_turn(of_genes):
    adata = annotated(counts())
    ptsne.explain_cells(adata, of_genes, "kind", genes=6, method="paired", key_added="why")
    loadings, genes = np.abs(adata.varm["why_loadings"]), adata.uns["why"]["genes"]
    assert {GENES[g] for g in loadings.argmax(0)} <= set(genes)
    assert len(set(genes)) == 6
    assert adata.obsm["why_contributions"].shape == (N, 2, 6)


def test_a_pipeline_of_ones_own_and_a_layer():
    pipeline = make_pipeline(StandardScaler(), ParametricTSNE(**QUICK)).fit(table())
    adata = annotated(counts())
    adata.layers["log"], adata.X = counts(), None
    ptsne.explain_cells(adata, pipeline, "kind", layer="log", n_rows=N, method="paired")
    expected = ptsne.explain(pipeline, table()).loadings(
        adata.obs["kind"], n_rows=N, method="paired"
    )
    largest = expected.groupby("cluster").head(1)["feature"].tolist()
    assert [GENES[g] for g in np.abs(adata.varm["ptsne_loadings"]).argmax(0)] == largest


def test_whole_numbers_and_cells_without_a_group():
    adata = annotated(np.expm1(counts()).round().astype(np.int32))
    adata.obs["kind"] = adata.obs["kind"].cat.remove_categories("C")
    map_ = ptsne.tsne(adata, **QUICK)
    loadings = ptsne.explain_cells(adata, map_, "kind", method="paired")
    assert loadings["cluster"].unique().tolist() == ["A", "B"]
    assert adata.varm["ptsne_loadings"].shape == (D, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groupby": "leiden"}, ValueError, "adata.obs has no 'leiden'; it has 'kind'"),
        ({"genes": ["CD4", "gene 1"]}, ValueError, "there is no gene 'CD4' in adata.var_names"),
        ({"genes": 0}, ValueError, "names, or how many, 1 or more; got 0"),
        ({"n_rows": 0}, ValueError, "n_rows must be at least 1; got 0"),
        ({"method": "local"}, ValueError, 'method must be "path" or "paired"'),
        ({"use_rep": "X_umap"}, ValueError, "adata.obsm has no 'X_umap'"),
        ({"layer": "raw"}, ValueError, "adata.layers has no 'raw'"),
        ({"genes": 24}, MemoryError, "24 genes to the places of 90 cells"),
    ],
    ids=str,
)
def test_questions_without_an_answer_write_nothing(options, error, message, of_genes, monkeypatch):
    monkeypatch.setattr(explaining, "BUDGET", 1000)
    adata = annotated(counts())
    with pytest.raises(error, match=message):
        ptsne.explain_cells(
            adata, of_genes, **{"groupby": "kind", "n_rows": 2, "method": "paired", **options}
        )
    assert set(adata.varm) == {"PCs"}
    assert set(adata.obsm) == {"X_pca"}
    assert not adata.uns


def test_genes_that_do_not_fit_the_map(of_components, of_genes):
    with pytest.raises(ValueError, match=r'the map has 6 columns.* use_rep="X_pca"'):
        ptsne.explain_cells(annotated(counts()), of_components, "kind")
    with pytest.raises(ValueError, match="var_names_make_unique"):
        ptsne.explain_cells(annotated(counts(), names=["a"] * D), of_genes, "kind")
    adata = annotated(counts())
    adata.X = None
    with pytest.raises(ValueError, match="has no X; name the layer"):
        ptsne.explain_cells(adata, of_genes, "kind")


# ---- what is never dense as a whole ----

WIDE, MANY = 400, 300


class OnDisk:
    """Sparse rows as AnnData keeps them in a file."""

    format = "csr"

    def __init__(self, matrix):
        self.matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def __getitem__(self, rows):
        return self.matrix[rows]

    def to_memory(self):
        raise MemoryError("the whole file was asked for")


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    X = sparse.random_array((MANY, WIDE), density=0.05, rng=rng, format="csr")
    loadings = rng.normal(size=(WIDE, 4))
    z = X @ loadings
    return SimpleNamespace(
        X=X,
        var_names=pd.Index(range(WIDE)).astype(str),
        obs=pd.DataFrame({"kind": np.arange(MANY) % 2}),
        obsm={"X_pca": z - z.mean(0)},
        varm={"PCs": loadings},
        uns={},
    )


@pytest.fixture(scope="module")
def of_wide(wide):
    return ptsne.tsne(wide, use_rep="X_pca", **QUICK)


@pytest.fixture
def largest(monkeypatch, dense_blocks):
    """Numbers of rows that became dense at once, where blocks have 40 rows."""
    monkeypatch.setattr(LazyRows, "row_bytes", 1)
    monkeypatch.setattr(LazyRows.__init__, "__kwdefaults__", {"block_bytes": 40})
    return dense_blocks


@pytest.mark.parametrize("form", [sparse.csr_matrix, OnDisk], ids=["sparse", "on disk"])
def test_genes_become_dense_a_few_cells_at_a_time(form, wide, of_wide, largest, monkeypatch):
    monkeypatch.setattr(explaining, "BLOCK_BYTES", 8 * 2 * WIDE * 25)
    adata = SimpleNamespace(**{**vars(wide), "X": form(wide.X)})
    asked = {"use_rep": "X_pca", "genes": 3, "method": "paired", "n_rows": 10}
    ptsne.explain_cells(adata, of_wide, "kind", **asked)
    assert adata.obsm["ptsne_contributions"].shape == (MANY, 2, 3)
    assert max(largest) == 40


def test_a_sparse_file_is_streamed(wide):
    adata = SimpleNamespace(X=OnDisk(wide.X), var_names=wide.var_names)
    map_ = ParametricTSNE(memory_budget="1GiB", n_landmarks=10, **QUICK).fit(adata)
    assert map_.n_features_in_ == WIDE


def test_a_transformer_of_known_loadings_says_what_it_is():
    X, pca = counts(), SHIFT["centred"](counts())
    step = Components(pca.components_.T).fit(X, pca.transform(X))
    np.testing.assert_allclose(step.transform(X[:3]), pca.transform(X[:3]), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="3 features"):
        step.transform(X[:, :3])


# ---- the real thing ----


@pytest.mark.filterwarnings("ignore")  # of its own
def test_what_scanpy_writes_is_understood(tmp_path):
    anndata, scanpy = pytest.importorskip("anndata"), pytest.importorskip("scanpy")
    adata = anndata.AnnData(sparse.csr_matrix(counts(np.float32)), var=pd.DataFrame(index=GENES))
    adata.obs["kind"] = pd.Categorical(np.array(list("ABC"))[np.arange(N) % 3])
    scanpy.pp.pca(adata, n_comps=L)
    map_ = ptsne.tsne(adata, use_rep="X_pca", **QUICK)
    ptsne.explain_cells(adata, map_, "kind", use_rep="X_pca", genes=4, method="paired")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    places = backed.obsm["ptsne_contributions"].sum(2) + backed.obsm["ptsne_rest"]
    np.testing.assert_allclose(places, backed.obsm["X_ptsne"], atol=1e-3)
    assert list(backed.uns["ptsne"]["groups"]) == ["A", "B", "C"]
    before = backed.varm["ptsne_loadings"].copy()
    ptsne.explain_cells(backed, map_, "kind", use_rep="X_pca", genes=4, method="paired")
    np.testing.assert_allclose(backed.varm["ptsne_loadings"], before, atol=1e-6)
    ParametricTSNE(memory_budget="1GiB", **QUICK).fit(backed)
    backed.file.close()
