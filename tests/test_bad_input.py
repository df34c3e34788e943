"""Everything that cannot be mapped is refused by name, and nothing is lost by the attempt."""

import io
import pickle
import re
from typing import ClassVar
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

import ptsne
from ptsne import ParametricTSNE
from ptsne.affinities import nearest_neighbors
from ptsne.cli.tables import TableError, read_table
from ptsne.datasets.catalogue import RemoteFile
from ptsne.datasets.download import fetch

IRIS = load_iris(as_frame=True).data
X = IRIS.to_numpy()
FOUND = nearest_neighbors(X, 30)


def quick(**parameters):
    return ParametricTSNE(**{"perplexity": 10, "max_iter": 10, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(IRIS)


@pytest.fixture(scope="module")
def unnamed():
    return quick().fit(X)


def with_cell(value, row=3, column=1):
    data = X.copy()
    data[row, column] = value
    return data


def with_column(values):
    return IRIS.assign(kind=values)


class Places(nn.Module):
    """Some function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def polars_table():
    return pytest.importorskip("polars").DataFrame({"a": ["x", "y"], "b": [1, 2]})


def lazy_table():
    return pytest.importorskip("polars").LazyFrame({"a": [1.0, 2.0]})


V, T = ValueError, TypeError
WORDS = with_column("a")["kind"].dtype  # str, or object before pandas 3
ROWS = {
    # shapes
    "one dimension": (X[:, 0], V, "Expected 2D array, got 1D array"),
    "three dimensions": (X[None], V, "Found array with dim 3"),
    "a number": (5.0, V, "got scalar array"),
    "ragged": ([[1, 2, 3], [4, 5]], V, "row 0 has 3, row 1 has 2"),
    "empty list": ([], V, "Expected 2D array"),
    "empty rows": ([[], []], V, "0 feature"),
    "no columns": (np.zeros((9, 0)), V, "0 feature"),
    "no rows": (np.zeros((0, 4)), V, "0 sample"),
    "one row": (X[:1], V, "1 sample.* minimum of 2"),
    "one sparse row": (sparse.csr_array(X[:1]), V, "1 sample.* minimum of 2"),
    "sparse of one dimension": (sparse.coo_array(X[0]), V, "Expected 2D input"),
    "table without columns": (pd.DataFrame(index=range(5)), V, "the table X has no columns"),
    "series": (IRIS.iloc[:, 0], V, "Pass a DataFrame"),
    "nested objects": (np.array([[[1], [2]], [[3], [4]]], object), V, "dim 3"),
    # types
    "None": (None, T, "must be rows of numbers.* got NoneType"),
    "a path": ("rows.csv", T, "got str"),
    "a dict": ({"a": [1, 2]}, T, "got dict"),
    "a set": ({1, 2}, T, "got set"),
    "a generator": ((row for row in X), T, "got generator"),
    "words": (X.astype(str), V, "could not convert string, date.* dtype <U32"),
    "bytes": (X.astype("S"), V, "could not convert string, date"),
    "list of words": ([["a", "b"]] * 9, V, "could not convert string to float: 'a'"),
    "objects": (np.array([["a", 1.0]] * 9, object), V, "could not convert string to float: 'a'"),
    "an object": (np.array([[object(), 1.0]] * 9, object), T, "float.. argument must be"),
    "complex": (X + 1j, V, "Complex data not supported"),
    "sparse complex": (sparse.csr_array(X + 1j), V, "Complex data not supported"),
    "dates": (np.full((9, 2), "2020-01-01", "M8[D]"), V, r"dtype datetime64\[D\]"),
    "durations": (np.ones((9, 2), "m8[s]"), V, r"dtype timedelta64\[s\]"),
    "records": (np.zeros(5, [("a", float)]), V, "date or record"),
    "np.matrix": (X.view(np.matrix), T, "np.matrix is not supported"),
    "masked": (np.ma.masked_greater(X, 5), V, "masked values.*X.filled"),
    "sparse tensor": (torch.tensor(X).to_sparse(), V, "layout torch.sparse_coo.*csr_array"),
    "complex tensor": (torch.tensor(X) + 1j, V, "Complex data not supported"),
    "meta tensor": (torch.ones(9, 2, device="meta"), V, "holds no numbers"),
    "lazy frame": (lazy_table, T, r"pass X.collect\(\)"),
    # columns of tables
    "column of words": (with_column("a"), V,
                        rf"'kind' \({WORDS}\).*OneHotEncoder\(\), \['kind'\]"),
    "objects in a column": (with_column(pd.Series([1, "a"] * 75, dtype=object)), V, r"\(object\)"),
    "categories": (with_column(pd.Categorical([1] * 150)), V, r"'kind' \(category\)"),
    "days": (with_column(pd.Timestamp("2020")), V, r"'kind' \(datetime64"),
    "complex column": (with_column(1j), V, r"'kind' \(complex128\)"),
    "many such": (IRIS.astype(str).join([IRIS.astype(str).add_prefix(p) for p in "abc"]), V,
                  "and 8 more; leave them out"),
    "polars words": (polars_table, V, r"'a' \(String\)"),
    "mixed names": (pd.DataFrame(X, columns=[0, "a", 1, "b"]), T, "all input features have string"),
    # numbers
    "NaN": (with_cell(np.nan), V, "contains NaN: the first is in row 3, column 1; .*SimpleImputer"),
    "infinity": (with_cell(-np.inf), V, "contains infinity: the first is in row 3, column 1"),
    "NaN in a table": (pd.DataFrame(with_cell(np.nan), columns=IRIS.columns), V,
                       r"row 3, column 1 \('sepal width \(cm\)'\)"),
    "missing value": (pd.DataFrame(with_cell(np.nan)).astype("Float64"), V, "row 3, column 1"),
    "None in rows": ([[1, 2], [3, None]], V, "contains NaN: the first is in row 1, column 1"),
    "NaN in sparse rows": (sparse.csc_array(with_cell(np.nan)), V, "NaN.* row 3, column 1"),
    "NaN in a tensor": (torch.tensor(with_cell(np.nan)), V, "NaN.* row 3, column 1"),
    "NaN far below": (np.r_[np.ones((5000, 2)), [[1, np.nan]]], V, "row 5000, column 1"),
    "float32 infinity": (with_cell(np.inf).astype(np.float32), V, "infinity.* row 3, column 1"),
    "huge": (with_cell(1e300), V, r"contains 1e\+300 in row 3, column 1: squared.* overflow"),
}  # fmt: skip

P = InvalidParameterError
PARAMETERS = [
    ({"perplexity": 0}, P, "'perplexity'.*Got 0"),
    ({"perplexity": -1}, P, "'perplexity'.*Got -1"),
    ({"perplexity": np.nan}, P, "'perplexity'.*Got nan"),
    ({"perplexity": np.inf}, P, "'perplexity'.*Got inf"),
    ({"perplexity": "30"}, P, "'perplexity'.*Got '30'"),
    ({"perplexity": None}, P, "'perplexity'.*Got None"),
    ({"perplexity": []}, V, "perplexity must be positive, or a list"),
    ({"perplexity": [5, -1]}, V, r"must be positive.*\[5, -1\]"),
    ({"perplexity": [5, np.nan]}, V, r"must be positive.*\[5, nan\]"),
    ({"perplexity": ["a"]}, V, r"must be positive.*\['a'\]"),
    ({"perplexity": [[5, 6]]}, V, r"must be positive.*\[\[5, 6\]\]"),
    ({"perplexity": True}, V, "not truth values; got True"),
    ({"perplexity": 0.5}, V, "perplexity must be a number from 1 on"),
    ({"n_components": 0}, P, r"range \[1, 3\]. Got 0"),
    ({"n_components": 4}, P, r"range \[1, 3\]. Got 4"),
    ({"n_components": 2.0}, P, r"range \[1, 3\]. Got 2.0"),
    ({"n_components": True}, V, "n_components must be made of numbers"),
    ({"metric": "hamming"}, P, "'metric'.*Got 'hamming'"),
    ({"encoder": "vgg"}, P, "'encoder'.*Got 'vgg'"),
    ({"encoder": nn.Linear}, P, "'encoder'.*Got <class"),
    ({"encoder": (0,)}, V, r"encoder widths must be positive integers; got \(0,\)"),
    ({"encoder": (1.5,)}, V, "encoder widths must be positive"),
    ({"encoder": (True,)}, V, "encoder must be made of numbers"),
    ({"projection": None}, P, "'projection'.*Got None"),
    ({"projection": (8, -1)}, V, "projection widths must be positive"),
    ({"latent_dim": -1}, P, "'latent_dim'.*Got -1"),
    ({"latent_dim": 1.5}, P, "'latent_dim'.*Got 1.5"),
    ({"latent_dim": True}, V, "latent_dim must be made of numbers"),
    ({"n_landmarks": 0}, P, "'n_landmarks'.*Got 0"),
    ({"n_landmarks": 2.5}, P, "'n_landmarks'.*Got 2.5"),
    ({"early_exaggeration": 0.5}, P, r"range \[1.0, inf\). Got 0.5"),
    ({"exaggeration": 0}, P, "'exaggeration'.*Got 0"),
    ({"dof": np.nan}, P, "'dof'.*Got nan"),
    ({"similarity": "cauchy"}, P, "'similarity'.*Got 'cauchy'"),
    ({"reconstruction_weight": -1}, P, "'reconstruction_weight'.*Got -1"),
    ({"fidelity_weight": -1}, P, "'fidelity_weight'.*Got -1"),
    ({"max_iter": 0}, P, "'max_iter'.*Got 0"),
    ({"max_iter": True}, V, "max_iter must be made of numbers"),
    ({"learning_rate": 0}, P, "'learning_rate'.*Got 0"),
    ({"device": "gpu9"}, V, "device='gpu9' is not available.*device=\"cpu\""),
    ({"device": "cuda:99"}, V, "device='cuda:99' is not available"),
    ({"device": "meta"}, V, "device='meta' is not available"),
    ({"device": 0}, P, "'device'.*Got 0"),
    ({"memory_budget": "lots"}, V, 'a text such as "512MiB" or "2GiB"; got .lots.'),
    ({"memory_budget": 0}, P, "'memory_budget'.*Got 0"),
    ({"memory_budget": "1KiB"}, V, "needs a memory_budget of at least .* MiB.*raise it"),
    ({"callbacks": 3}, P, "'callbacks'.*Got 3"),
    ({"callbacks": [print, "bar"]}, V, "callbacks must be callables; got 'bar'"),
    ({"verbose": -1}, P, "'verbose'.*Got -1"),
    ({"random_state": "x"}, P, "'random_state'.*Got 'x'"),
    # modules of one's own
    ({"encoder": nn.Linear(3, 2)}, V, "does not accept rows of 4 columns"),
    ({"encoder": nn.Flatten(0)}, V, r"must map rows.*returned shape \(600,\)"),
    ({"encoder": Places(lambda x: x[::2])}, V, r"for 150 rows it returned shape \(75, 4\)"),
    ({"encoder": Places(lambda x: x * torch.nan)}, V, "returned NaN or infinite codes"),
    ({"encoder": Places(lambda x: x @ torch.eye(4).double())}, V, "same dtype"),
    ({"projection": nn.Linear(9, 2)}, V, "does not accept codes of 4 columns"),
    ({"projection": nn.Linear(4, 3)}, V, r"must map codes.*returned shape \(2, 3\)"),
    ({"projection": Places(lambda z: z[:, :2] * torch.nan)}, FloatingPointError, "became nan"),
    ({"projection": Places(lambda z: z @ torch.eye(4).double())}, V, "same dtype"),
]  # fmt: skip

GRAPHS = {
    "of other rows": (sparse.csr_array((50, 50)), r"must have shape \(150, 150\)"),
    "no pair": ((1, 2, 3), "sparse matrix of distances or a pair"),
    "dense": (np.zeros((150, 150)), "sparse matrix of distances or a pair"),
    "two shapes": ((FOUND.indices[:, :3], FOUND.distances), "must both have shape"),
    "negative": ((FOUND.indices, FOUND.distances - 9), "finite and not negative"),
    "NaN": ((FOUND.indices, FOUND.distances * np.nan), "finite and not negative"),
    "beyond": ((FOUND.indices + 150, FOUND.distances), "between 0 and 149, got 150 to 299"),
    "minus one": ((FOUND.indices * 0 - 1, FOUND.distances), "-1 usually marks"),
    "repeated": ((FOUND.indices * 0, FOUND.distances), "twice in the same row"),
    "connectivities": (sparse.csr_array(np.ones((150, 150))), "not connectivities"),
    "empty": (sparse.csr_array((150, 150)), "found 0 to 0"),
    "too few": ((FOUND.indices[:, :5], FOUND.distances[:, :5]), "must not exceed the number"),
}

QUESTIONS = {
    "fewer columns": (lambda m: m.transform(X[:, :3]), V, "3 features.* expecting 4"),
    "fewer sparse columns": (lambda m: m.transform(sparse.csr_array(X[:, :3])), V, "expecting 4"),
    "no rows": (lambda m: m.transform(X[:0]), V, "0 sample"),
    "NaN": (lambda m: m.transform(with_cell(np.nan)), V, "row 3, column 1"),
    "NaN explained": (lambda m: m.explain(with_cell(np.nan)), V, "row 3, column 1"),
    "baseline word": (lambda m: m.explain(X, baseline="median"), V, "baseline must be.*'median'"),
    "baseline width": (lambda m: m.explain(X, baseline=X[0, :3]), V, "one row of shape"),
    "baseline NaN": (lambda m: m.explain(X, baseline=X[0] * np.nan), V, "baseline must be finite"),
    "baseline None": (lambda m: m.explain(X, baseline=None), V, "one row of shape"),
    "method": (lambda m: m.explain(X, method="shap"), V, "method must be \"secant\" or"),
    "places of three": (lambda m: m.inverse_transform(np.zeros((2, 3))), V, "2 coordinates"),
    "flat places": (lambda m: m.inverse_transform(np.zeros(2)), V, "Expected 2D"),
    "NaN places": (lambda m: m.inverse_transform([[0, np.nan]]), V, "contains NaN"),
    "words as places": (lambda m: m.inverse_transform([["a", "b"]]), V, "could not convert"),
    "score of three": (lambda m: m.score(X[:3]), V, "at least 4 rows.* got 3"),
    "no file": (lambda m: m.load("there/is/none.ptsne"), FileNotFoundError, "none.ptsne"),
    "no folder": (lambda m: m.save("there/is/none.ptsne"), FileNotFoundError, "none.ptsne"),
}  # fmt: skip

L = nn.Linear(4, 2).double().eval()
ROWS_OF_X = torch.tensor(X[:6])
U, C = ptsne.UnsupportedOperation, ptsne.CompletenessError
NETWORKS = {
    "in train mode": (nn.Sequential(L, nn.Dropout()).train(), U, r"training mode; call model.eval"),
    "fewer rows": (Places(lambda x: L(x)[::2]), U, r"6 rows gave an output of shape \(3, 2\)"),
    "flat": (Places(lambda x: L(x).flatten()), U, r"one row per instance.*shape \(12,\)"),
    "one number": (Places(lambda x: L(x).sum()), U, r"one row per instance.*shape \(\)"),
    "two outputs": (Places(lambda x: (L(x), 1)), U, "must return one tensor, not tuple"),
    "rows that mix": (Places(lambda x: L(x) - L(x).mean(0)), C, "depends on the others in its bat"),
    "cut off": (Places(lambda x: L(x).detach()), C, "the model detaches it"),
    "NaN": (Places(lambda x: L(x) * torch.nan), C, "by nan.*Likely causes: NaN"),
    "other precision": (nn.Linear(4, 2).eval(), RuntimeError, "same dtype.* Double and Float"),
    "other columns": (nn.Linear(3, 2).double().eval(), RuntimeError, "6x4 and 3x2"),
    "a function": (torch.relu, T, "model must be a torch.nn.Module; got builtin"),
}  # fmt: skip


def state(map_):
    """Everything that a map knows, as bytes."""
    return pickle.dumps({name: value for name, value in vars(map_).items() if name != "callbacks"})


def refuses(action, error, message):
    with pytest.raises(error) as raised:
        action()
    assert re.search(message, str(raised.value), re.DOTALL)


@pytest.fixture
def unchanged(fitted):
    """A fitted map, which the test must leave as it is."""
    before, parameters = state(fitted), fitted.get_params()
    yield fitted
    fitted.set_params(**parameters)
    assert state(fitted) == before
    assert (fitted.transform(IRIS) == fitted.embedding_).all()


def test_there_are_enough_kinds():
    assert len(ROWS) + len(PARAMETERS) + len(GRAPHS) + len(QUESTIONS) + len(NETWORKS) > 130


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_are_none(kind, unchanged):
    data, error, message = ROWS[kind]
    data = data() if callable(data) else data
    refuses(lambda: unchanged.fit(data), error, message)


@pytest.mark.parametrize(("parameters", "error", "message"), PARAMETERS, ids=str)
def test_parameters_that_are_wrong(parameters, error, message, unchanged):
    refuses(lambda: unchanged.set_params(**parameters).fit(X), error, message)


@pytest.mark.parametrize("kind", GRAPHS)
def test_neighbors_that_are_none(kind, unchanged):
    graph, message = GRAPHS[kind]
    refuses(lambda: unchanged.fit(X, neighbors=graph), ValueError, message)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_questions_without_an_answer(kind, unnamed):
    question, error, message = QUESTIONS[kind]
    before = state(unnamed)
    refuses(lambda: question(unnamed), error, message)
    assert state(unnamed) == before


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_of_others_that_are_no_map(kind):
    network, error, message = NETWORKS[kind]
    if isinstance(network, Places):
        network.eval()
    refuses(lambda: ptsne.linearize(network, ROWS_OF_X).weight(), error, message)


class CutOff(io.BytesIO):
    """An answer that promises more than comes."""

    headers: ClassVar = {"Content-Length": "100"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: CutOff(b"half"), "interrupted after 4 of 100 bytes.*try again .what has arrived"),
        (lambda: CutOff(b"x" * 100), "expected sha256 0{64}, found [0-9a-f]{64}"),
        (lambda: 1 / 0, "URLError: .*no route.*put the file into"),
    ],
    ids=["interrupted", "something else", "no server"],
)
def test_downloads_that_do_not_arrive(answer, message, tmp_path, monkeypatch):
    def opened(*_, **__):
        try:
            return answer()
        except ZeroDivisionError:
            raise URLError("no route to it") from None

    monkeypatch.setattr("ptsne.datasets.download.urlopen", opened)
    file = RemoteFile("rows.bin", sha256="0" * 64, urls=("https://there.is.none/rows.bin",))
    refuses(lambda: fetch(file, tmp_path), ConnectionError, message)
    assert not (tmp_path / "rows.bin").exists()


@pytest.mark.parametrize("ask", ["transform", "explain", "reconstruct", "score"])
def test_other_names_or_another_order(ask, fitted):
    question = getattr(fitted, ask)
    with pytest.raises(ValueError, match="unseen at fit time:\n- other"):
        question(IRIS.rename(columns={IRIS.columns[0]: "other"}))
    with pytest.raises(ValueError, match="must be in the same order"):
        question(IRIS[IRIS.columns[::-1]])
    with pytest.raises(ValueError, match="seen at fit time, yet now missing"):
        question(IRIS[IRIS.columns[:3]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        question(X)


@pytest.mark.parametrize("ask", ["transform", "explain", "reconstruct", "score"])
def test_a_map_that_is_not_fitted(ask):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(quick(), ask)(X)


@pytest.mark.parametrize("ask", ["inverse_transform", "save"])
def test_what_else_needs_a_fit(ask, tmp_path):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(quick(), ask)(tmp_path / "map")


def test_a_perplexity_beyond_the_rows_is_lowered():
    with pytest.warns(UserWarning, match="perplexity 1000 is too high for 150 rows; using 49.67"):
        map_ = quick(perplexity=1000).fit(X)
    assert map_.perplexity_ == pytest.approx(149 / 3)


def test_equal_rows_are_one_place():
    Y = quick().fit_transform(np.ones((40, 3)))
    assert np.isfinite(Y).all()
    np.testing.assert_array_equal(Y, np.tile(Y[:1], (40, 1)))


def test_modules_in_train_mode_are_evaluated():
    encoder = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    map_ = quick(encoder=encoder).fit(X)
    assert (map_.transform(X) == map_.embedding_).all()
    assert encoder.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_modules_of_another_precision_are_cast_in_the_copy(dtype):
    encoder = nn.Linear(4, 3).to(dtype)
    assert quick(encoder=encoder).fit(X).embedding_.dtype == np.float64
    assert encoder.weight.dtype == dtype


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GiB"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=["numpy", "torch", "cuda"],
)
def test_memory_that_runs_out_is_said_so(error, unchanged):
    def explode(_):
        raise error

    refuses(
        lambda: unchanged.set_params(callbacks=explode).fit(X),
        MemoryError,
        r"not enough memory to fit 150 rows of 4 columns; fit fewer rows.*GiB|CUDA",
    )


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyError("mine")])
def test_other_errors_of_callbacks_pass(error, unchanged):
    def explode(_):
        raise error

    refuses(lambda: unchanged.set_params(callbacks=explode).fit(X[:, :3]), type(error), "mine")


def test_the_old_map_answers_until_the_new_one_is_there():
    map_ = quick().fit(X)
    before, seen = map_.embedding_, []
    map_.set_params(callbacks=lambda _: seen.append(map_.transform(X)), random_state=1).fit(X)
    assert seen
    assert all(np.array_equal(Y, before) for Y in seen)
    assert (map_.embedding_ != before).any()


def test_ctrl_c_before_training_keeps_the_old_map(unchanged, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ptsne.affinities.nearest_neighbors", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unchanged.fit(X)


def test_a_refit_replaces_everything():
    map_ = quick().fit(IRIS)
    again = map_.fit(X[:, :3])
    assert again is map_
    assert map_.n_features_in_ == 3
    assert not hasattr(map_, "feature_names_in_")
    assert (map_.embedding_ == quick().fit(X[:, :3]).embedding_).all()


CELLS = {
    "word": ("a,b\n1,2\n3,x\n", r'row 2, column "b": expected a number, found "x"'),
    "gap": ("a,b\n1,\n3,4\n", r'row 1, column "b": expected a number, found an empty cell'),
    "infinity": ("a,b\n1,2\ninf,4\n", r'row 2, column "a": expected a number, found "inf"'),
    "date": ("a,b\n1,2020-01-01\n", r'row 1, column "b"'),
    "no rows": ("a,b\n", "no rows of data"),
    "no table": ("", "this is not a table"),
    "ragged": ("a,b\n1,2\n1,2,3,4\n", "this is not a table.*line 3"),
}


@pytest.mark.parametrize("kind", CELLS)
def test_cells_of_a_file_are_named(kind, tmp_path):
    text, message = CELLS[kind]
    path = tmp_path / "rows.csv"
    path.write_text(text)
    refuses(lambda: read_table(path), TableError, message)
    assert path.read_text() == text


def test_files_that_are_missing_or_of_another_kind(tmp_path):
    with pytest.raises(TableError, match="there is no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "rows.docx").touch()
    with pytest.raises(TableError, match="expected a file ending in"):
        read_table(tmp_path / "rows.docx")
