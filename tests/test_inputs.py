"""Rows of every kind give the map of the plain array, and stay as they were."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import ptsne
from ptsne import ParametricTSNE, rows

IRIS = load_iris(as_frame=True).data[::2]
X = IRIS.to_numpy()
NAMES = list(IRIS.columns)
SPARSE = [
    kind
    for form in ("csr", "csc", "coo", "bsr", "lil", "dok", "dia")
    for kind in (getattr(sparse, f"{form}_array"), getattr(sparse, f"{form}_matrix"))
]


def quick(**parameters):
    return ParametricTSNE(**{"perplexity": 10, "max_iter": 10, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def plain():
    """The map of the plain array."""
    return quick().fit(X)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def memmap(array, folder):
    np.save(folder / "rows.npy", array)
    return np.load(folder / "rows.npy", mmap_mode="r")


class Array:
    """What gives its numbers only when asked."""

    def __array__(self, dtype=None, copy=None):
        return np.array(X, dtype=dtype)


DENSE = {
    "list": lambda _: X.tolist(),
    "rows in a list": lambda _: list(X),
    "Fortran order": lambda _: np.asfortranarray(X),
    "every other column": lambda _: np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": lambda _: X[::-1].copy()[::-1],
    "read-only": lambda _: read_only(X),
    "memmap": lambda folder: memmap(X, folder),
    "unmasked": lambda _: np.ma.masked_greater(X, 100),
    "object": lambda _: X.astype(object),
    "__array__": lambda _: Array(),
    "other byte order": lambda _: X.astype(X.dtype.newbyteorder()),
    "tensor": lambda _: torch.tensor(X),
    "tensor with a gradient": lambda _: torch.tensor(X, requires_grad=True),
    "transposed tensor": lambda _: torch.tensor(X.T.copy()).T,
}
TABLES = {
    "pandas": IRIS.copy,
    "nullable": lambda: IRIS.astype("Float64"),
    "arrow": lambda: IRIS.astype("float64[pyarrow]"),
    "polars": lambda: pytest.importorskip("polars").DataFrame({
        n: IRIS[n].to_numpy() for n in NAMES
    }),
    "annotated": lambda: SimpleNamespace(X=X.copy(), var_names=pd.Index(NAMES)),
}


@pytest.mark.parametrize("kind", DENSE)
def test_dense_kinds_give_the_same_bits(kind, plain, tmp_path):
    data = DENSE[kind](tmp_path)
    map_ = quick().fit(data)
    assert (map_.embedding_ == plain.embedding_).all()
    assert (map_.transform(data) == plain.embedding_).all()
    assert (map_.explain(data).weight == plain.explain(X).weight).all()
    assert (map_.reconstruct(data) == plain.reconstruct(X)).all()
    assert map_.score(data) == plain.score(X)


@pytest.mark.parametrize("kind", TABLES)
def test_tables_give_the_same_bits_and_their_names(kind, plain):
    table = TABLES[kind]()
    map_ = quick().fit(table)
    assert (map_.transform(table) == plain.embedding_).all()
    assert list(map_.feature_names_in_) == NAMES
    assert map_.explain(table).feature_names == NAMES
    assert map_.score(table) == plain.score(X)


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
@pytest.mark.parametrize("kind", SPARSE, ids=lambda kind: kind.__name__)
def test_sparse_kinds_are_placed_to_the_same_bits(kind, plain):
    matrix = kind(X)
    assert (plain.transform(matrix) == plain.embedding_).all()
    assert (plain.explain(matrix).weight == plain.explain(X).weight).all()
    assert (plain.reconstruct(matrix) == plain.reconstruct(X)).all()
    assert plain.score(matrix) == plain.score(X)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_fit_of_sparse_rows_is_that_of_dense_rows(kind, metric):
    # the sums of mean, scale and distances are in another order: last digits, then iterations
    dense = quick(metric=metric).fit(X)
    thin = quick(metric=metric).fit(kind(X))
    np.testing.assert_allclose(thin.embedding_, dense.embedding_, atol=0.05)
    assert thin.kl_divergence_ == pytest.approx(dense.kl_divergence_, abs=1e-3)
    assert (thin.embedding_ == thin.transform(X)).all()


def test_sparse_columns_of_a_table_keep_their_names():
    table = IRIS.astype(pd.SparseDtype("float64", 0.0))
    map_ = quick().fit(table)
    assert map_.explain(table.iloc[:2]).feature_names == NAMES


@pytest.mark.parametrize(
    "encoder", [(4,), None, torch.nn.Linear(4, 3)], ids=["branch", "raw", "module"]
)
def test_other_encoders_take_sparse_rows(encoder):
    map_ = quick(encoder=encoder).fit(sparse.csr_array(X))
    assert (map_.transform(X) == map_.embedding_).all()
    assert map_.explain(sparse.csr_array(X[:5])).residual.max() < 1e-12
    assert map_.inverse_transform(map_.embedding_[:5]).shape == (5, 4)


def test_sparse_means_and_variances_are_the_dense_ones():
    data = load_digits().data + 1000.0 * (load_digits().data > 0)
    thin = rows.SparseRows(sparse.csr_array(data))
    np.testing.assert_allclose(thin.mean(0, float), data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(thin.var(0, float), data.var(0), rtol=1e-12)


def test_unsorted_entries_and_duplicates_are_summed_in_a_copy(plain):
    split = sparse.csr_array((
        np.repeat(X.ravel(), 2) / 2,
        np.tile([3, 3, 2, 2, 1, 1, 0, 0], 75),
        8 * np.arange(76),
    ))
    before = copy.deepcopy(split)
    reverse = sparse.csr_array(X)[:, ::-1]
    assert (plain.transform(split) == plain.transform(reverse)).all()
    assert (split.data == before.data).all()
    assert (split.indices == before.indices).all()


def counts(dtype):
    return load_digits().data[:80].astype(dtype)


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int16, np.int32, np.int64, np.float16, np.longdouble]
)
def test_other_numbers_are_taken_as_float64(dtype):
    data = counts(dtype)
    map_ = quick().fit(data)
    assert map_.embedding_.dtype == np.float64
    assert (map_.embedding_ == quick().fit(data.astype(float)).embedding_).all()
    assert (map_.transform(sparse.csr_array(data.astype(float))) == map_.embedding_).all()


@pytest.mark.parametrize(
    "make", [np.asarray, sparse.csr_array, torch.from_numpy, pd.DataFrame], ids=lambda m: m.__name__
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_comes_back_as_given(make, dtype):
    data = make(counts(dtype))
    map_ = quick().fit(data)
    why = map_.explain(data[:3])
    found = (map_.embedding_, map_.transform(data), map_.reconstruct(data), why.weight, why.X)
    assert {array.dtype.type for array in found} == {dtype}


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e25), (np.float64, 0.9e150)])
def test_numbers_whose_sum_of_squares_is_too_large_are_still_numbers(plain, kind, dtype, size):
    far = np.outer([1.0, 2.0], [size / 2, 0, size / 4, 0]).astype(dtype)
    places = plain.transform(kind(far))
    assert np.isfinite(places).all()
    np.testing.assert_allclose(places[1], 2 * places[0].astype(float), rtol=1e-5)


def test_bfloat16_tensors_are_taken_as_float64(plain):
    data = torch.tensor(X, dtype=torch.bfloat16)
    assert (plain.transform(data) == plain.transform(data.double())).all()
    assert plain.transform(data).dtype == np.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu(plain):
    np.testing.assert_allclose(plain.transform(torch.tensor(X).cuda()), plain.embedding_)


def test_one_row_broadcast_to_many(plain):
    data = np.broadcast_to(X[0], (300, 4))
    assert (plain.transform(data) == plain.embedding_[0]).all()
    map_ = quick().fit(data)
    assert np.isfinite(map_.embedding_).all()


def numbers_of(data):
    """Every array behind the data."""
    if sparse.issparse(data):
        return [np.array(getattr(data, part)) for part in ("data", "indices", "indptr")]
    return [np.asarray(getattr(data, "X", data)).copy()]


@pytest.mark.parametrize(
    "data",
    [X.copy(), np.asfortranarray(X), IRIS.copy(), sparse.csr_matrix(X), sparse.csc_array(X),
     torch.tensor(X), SimpleNamespace(X=X.copy(), var_names=NAMES)],
    ids=["array", "Fortran", "pandas", "csr", "csc", "tensor", "annotated"],
)  # fmt: skip
def test_the_callers_data_are_untouched(data):
    before = numbers_of(data)
    map_ = quick().fit(data)
    map_.transform(data)
    map_.explain(data)
    map_.score(data)
    assert all((a == b).all() for a, b in zip(before, numbers_of(data), strict=True))


@pytest.fixture(scope="module")
def wide():
    """1,000 rows of 2,000 columns, ten of them filled."""
    return sparse.random_array((1000, 2000), density=0.005, rng=np.random.default_rng(0)).tocsr()


def test_wide_sparse_rows_are_never_dense_as_a_whole(monkeypatch, wide):
    map_ = quick(max_iter=5, encoder="linear", latent_dim=5).fit(wide[:60])
    assert map_.explain(wide[:2]).residual.max() < 1e-12
    seen = []
    original = rows.SparseRows.__getitem__

    def watch(self, part):
        dense = original(self, part)
        seen.append(len(dense))
        return dense

    monkeypatch.setattr(rows.SparseRows, "__getitem__", watch)
    map_.transform(wide)
    assert max(seen) * wide.shape[1] <= 2**20  # numbers, 8 MiB


def test_rows_beyond_the_budget_are_refused_before_they_are_dense(monkeypatch, plain):
    monkeypatch.setattr(rows, "DENSE_BUDGET", 1000)
    with pytest.raises(MemoryError, match=r"75 sparse rows of 4 columns.*fit fewer rows.*Trunc"):
        quick().fit(sparse.csr_array(X))
    with pytest.raises(MemoryError, match=r"pass fewer rows at a time.*TruncatedSVD\(100\)"):
        plain.explain(sparse.csr_array(X))
    assert (plain.transform(sparse.csr_array(X)) == plain.embedding_).all()
    assert plain.explain(X).X.shape == X.shape


def test_the_advice_in_the_errors_works(wide):
    table = IRIS.assign(kind=["a", "b", "c"] * 25)
    with pytest.raises(ValueError, match="OneHotEncoder") as raised:
        quick().fit(table)
    encoder = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough")
    assert "make_column_transformer((OneHotEncoder(), ['kind'])" in str(raised.value)
    assert make_pipeline(encoder, quick()).fit_transform(table).shape == (75, 2)
    assert make_pipeline(TruncatedSVD(10), quick()).fit_transform(wide[:60]).shape == (60, 2)


# ---- annotated data ----


def annotated():
    """What `tsne` needs of an AnnData."""
    return SimpleNamespace(
        X=sparse.csr_matrix(X),
        var_names=pd.Index(NAMES),
        layers={"raw": X.copy()},
        obsm={"X_pca": X[:, :2].copy()},
    )


PARAMETERS = {"perplexity": 10, "max_iter": 10, "random_state": 0}


def test_annotated_data_get_their_places():
    adata = annotated()
    map_ = ptsne.tsne(adata, **PARAMETERS)
    assert (adata.obsm["X_ptsne"] == map_.embedding_).all()
    assert (map_.transform(adata) == map_.embedding_).all()
    assert map_.explain(adata).feature_names == NAMES


def test_layers_and_representations(plain):
    adata = annotated()
    of_layer = ptsne.tsne(adata, layer="raw", key_added="of_layer", **PARAMETERS)
    assert (adata.obsm["of_layer"] == plain.embedding_).all()
    assert list(of_layer.feature_names_in_) == NAMES
    of_pca = ptsne.tsne(adata, use_rep="X_pca", key_added="of_pca", **PARAMETERS)
    assert of_pca.n_features_in_ == 2
    assert set(adata.obsm) == {"X_pca", "of_layer", "of_pca"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"layer": "counts"}, r"adata.layers has no 'counts'; it has 'raw'"),
        ({"use_rep": "X_umap"}, r"adata.obsm has no 'X_umap'; it has 'X_pca'"),
        ({"layer": "raw", "use_rep": "X_pca"}, "pass one of them"),
    ],
)
def test_what_is_not_there_is_named(choice, message):
    adata = annotated()
    with pytest.raises(ValueError, match=message):
        ptsne.tsne(adata, **choice)
    assert set(adata.obsm) == {"X_pca"}


def test_other_genes_are_refused(plain):
    map_ = ptsne.tsne(annotated(), **PARAMETERS)
    other = annotated()
    other.var_names = other.var_names[::-1]
    with pytest.raises(ValueError, match="feature names"):
        map_.transform(other)
    other.X = None
    with pytest.raises(ValueError, match="has no X; name a layer"):
        map_.transform(other)


@pytest.mark.filterwarnings("ignore")  # of its own
def test_a_real_anndata_and_its_file(tmp_path):
    anndata = pytest.importorskip("anndata")
    adata = anndata.AnnData(sparse.csr_matrix(X), var=pd.DataFrame(index=NAMES))
    map_ = ptsne.tsne(adata, **PARAMETERS)
    anndata.settings.allow_write_nullable_strings = True
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert (map_.transform(backed) == adata.obsm["X_ptsne"]).all()
    assert map_.explain(adata[:3]).feature_names == NAMES
    backed.file.close()
