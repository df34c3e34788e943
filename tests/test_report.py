"""The page, without a browser: its numbers are those of the explanation, it loads nothing."""

import base64
import copy
import gzip
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError

import ptsne
from ptsne import ParametricTSNE
from ptsne.cli import main
from ptsne.metrics import local_fidelity

EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def iris():
    data = load_iris(as_frame=True)
    return data.data, data.target_names[data.target]


@pytest.fixture(scope="module")
def iris_map(iris):
    return ParametricTSNE(max_iter=80, random_state=0).fit(iris[0])


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:300], y[:300]


@pytest.fixture(scope="module")
def digits_map(digits):
    return ParametricTSNE(max_iter=60, random_state=0).fit(digits[0])


@pytest.fixture(scope="module")
def mlp_map(iris):
    """A map that a page cannot hold."""
    return ParametricTSNE(projection=(16,), max_iter=60, random_state=0).fit(iris[0])


class Page(HTMLParser):
    """What a browser finds in a page: facts, arrays, elements."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text("utf-8")
        self.elements, self.data, self.arrays = [], {}, {}
        self._open = None
        self.feed(self.text)
        self.facts = json.loads(self.data["facts"])

    def handle_starttag(self, tag, attributes):
        self._open = (tag, dict(attributes))
        self.elements.append(self._open)

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, text):
        tag, attributes = self._open or ("", {})
        if "data-name" in attributes:
            raw = np.frombuffer(gzip.decompress(base64.b64decode(text)), attributes["data-dtype"])
            shape = [int(n) for n in attributes["data-shape"].split()]
            self.arrays[attributes["data-name"]] = raw.reshape(shape)
        elif "id" in attributes:
            self.data[attributes["id"]] = self.data.get(attributes["id"], "") + text

    @property
    def X(self):
        codes, values = self.arrays["codes"], self.arrays["values"]
        return values[codes] if len(values) else codes


@pytest.fixture(scope="module")
def iris_page(iris_map, iris, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "iris.html"
    return Page(ptsne.report(iris_map, *iris, path=path, title="Iris"))


@pytest.fixture(scope="module")
def mlp_page(mlp_map, iris, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "mlp.html"
    return Page(ptsne.report(mlp_map, *iris, path=path))


# ---------------------------------------------------------------------------- what the page says


def sparsemax(scores):
    """Projection onto the simplex, by trying all sizes of the support."""
    ordered = np.sort(scores)[::-1]
    sizes = [k for k in range(1, len(scores) + 1) if 1 + k * ordered[k - 1] > ordered[:k].sum()]
    threshold = (ordered[: sizes[-1]].sum() - 1) / sizes[-1]
    return np.maximum(scores - threshold, 0)


def place(arrays, x):
    """The map as the page has it, landmark by landmark."""
    temperature, clip = arrays["constants"]
    z = arrays["encoder"] @ x + arrays["bias"]
    K = arrays["landmarks"]
    p = sparsemax((2 * K @ z - (K**2).sum(1)) / temperature)
    y = arrays["tilt"] @ z
    for k in np.flatnonzero(p):
        chart = arrays["charts"][k] @ (z - K[k])
        y = y + p[k] * arrays["places"][k] + np.clip(chart, -clip * p[k], clip * p[k])
    return y


def test_the_page_holds_the_map_itself(iris_page, iris_map, iris):
    assert iris_page.facts["engine"] == "atlas"
    assert_array_equal(iris_page.X, iris[0])
    Y = np.array([place(iris_page.arrays, x) for x in iris_page.X])
    assert_allclose(Y, iris_map.transform(iris[0]), atol=1e-10)
    assert_allclose(iris_page.arrays["Y"], iris_map.transform(iris[0]), rtol=1e-12)


def test_ways_begin_at_the_mean_row(iris_page, iris_map, iris):
    mean = iris[0].mean().to_numpy()
    assert_allclose(iris_page.arrays["baseline"], mean)
    origin = iris_map.transform(pd.DataFrame([mean], columns=iris[0].columns))[0]
    assert_allclose(iris_page.arrays["origin"], origin)


def test_trust_and_landmarks_are_those_of_the_explanation(iris_page, iris_map, iris):
    why = iris_map.explain(iris[0])
    assert_array_equal(iris_page.arrays["n_active"], why.n_active)
    assert_allclose(iris_page.arrays["trust"], why.trust.percentile, rtol=1e-6)


def test_the_checks_are_measured(iris_page, iris_map, iris):
    why = iris_map.explain(iris[0])
    checks = " ".join(iris_page.facts["checks"])
    assert f"holds to {why.residual.max():.0e} of its terms" in checks
    assert f"{(why.n_active > 1).mean():.1%} of the rows" in checks
    fidelity = local_fidelity(why.weight, why.X, why.Y).r2
    assert f"Local fidelity {fidelity:.2f}" in checks


def test_of_many_rows_some_are_checked_and_of_few_fewer_things(
    iris_map, iris, tmp_path, monkeypatch
):
    few = Page(ptsne.report(iris_map, iris[0][:5], path=tmp_path / "few.html"))
    assert "Local fidelity" not in " ".join(few.facts["checks"])
    monkeypatch.setattr("ptsne.report.contents.CHECKED_ROWS", 60)
    page = Page(ptsne.report(iris_map, *iris, path=tmp_path / "many.html"))
    checks = " ".join(page.facts["checks"])
    assert 0 < float(re.search(r"Local fidelity (\S+):", checks)[1]) <= 1
    assert float(re.search(r"holds to (\S+)", checks)[1]) < 1e-12


def test_a_page_says_how_far_its_values_are_rounded(iris_map, iris, tmp_path, monkeypatch):
    monkeypatch.setattr("ptsne.report.packing.MAX_EXACT", 100)
    X = iris[0] + 0.01 * np.random.default_rng(0).normal(
        size=iris[0].shape
    )  # more values than codes are worth
    page = Page(ptsne.report(iris_map, X, path=tmp_path / "page.html"))
    stated = re.search(r"single precision, at most (\S+) off", " ".join(page.facts["checks"]))
    error = np.abs(X.to_numpy().astype(np.float32) - X.to_numpy()).max()
    assert float(stated[1]) == pytest.approx(error, rel=0.5)
    assert_allclose(page.X, X, atol=error)


def test_a_map_from_before_trust_was_measured_has_a_page_without(iris_map, iris, tmp_path):
    old = copy.deepcopy(iris_map)
    del old._trust_quantiles
    page = Page(ptsne.report(old, *iris, path=tmp_path / "page.html"))
    assert "trust" not in page.arrays
    assert "n_active" in page.arrays


def test_pictures_in_single_precision(digits_map, digits, tmp_path):
    X, y = digits
    path = tmp_path / "digits.html"
    page = Page(ptsne.report(digits_map, X.astype(np.float32), y, path=path, images=(8, 8)))
    assert page.arrays["codes"].dtype == np.uint8
    assert_array_equal(page.X, X)
    assert page.facts["image_shape"] == [8, 8]
    assert page.facts["classes"] == [str(digit) for digit in range(10)]
    assert "holds to" in page.facts["checks"][0]
    assert float(re.search(r"holds to (\S+)", page.facts["checks"][0])[1]) < 1e-12


def test_other_maps_store_displacements_that_sum_to_the_way(mlp_page, mlp_map, iris):
    facts, arrays = mlp_page.facts, mlp_page.arrays
    assert facts["engine"] == "table"
    displacements = arrays["displacements"] * arrays["step"].astype(float)[:, None, None]
    X = iris[0].to_numpy()
    source = mlp_map.explain(iris[0])._source
    expected = source.paired_ways(np.broadcast_to(X.mean(0), X.shape), X)
    stated = float(re.search(r"at most (\S+) map units off", " ".join(facts["checks"]))[1])
    assert np.abs(displacements - expected).max() <= 1.5 * stated  # stated to one digit
    way = arrays["Y"] - arrays["origin"]
    assert np.abs(displacements.sum(2) - way).max() <= 1.5 * stated * X.shape[1]
    assert_array_equal(mlp_page.X, X)


def test_rows_beyond_the_budget_have_no_details_and_the_page_says_so(
    iris_map, mlp_map, iris, tmp_path
):
    for model in (iris_map, mlp_map):
        page = Page(ptsne.report(model, *iris, path=tmp_path / "small.html", max_bytes=400))
        rows = page.arrays["detailed"]
        assert 0 < len(rows) < 150
        assert (np.diff(rows) > 0).all()
        assert_array_equal(page.X, iris[0].to_numpy()[rows])
        assert len(page.arrays["Y"]) == 150
        assert f"Details of {len(rows)} of 150 rows" in " ".join(page.facts["checks"])


@pytest.mark.parametrize("n_components", [1, 3])
def test_maps_of_one_and_three_dimensions(iris, tmp_path, n_components):
    map_ = ParametricTSNE(n_components, max_iter=30, random_state=0).fit(iris[0])
    page = Page(ptsne.report(map_, *iris, path=tmp_path / "page.html"))
    assert page.facts["n_components"] == n_components
    assert page.arrays["Y"].shape == (150, n_components)


def test_the_same_rows_give_the_same_page(iris_map, iris, iris_page, tmp_path):
    again = Page(ptsne.report(iris_map, *iris, path=tmp_path / "again.html", title="Iris"))
    assert again.facts == iris_page.facts
    for name, array in iris_page.arrays.items():
        assert_array_equal(again.arrays[name], array)


# --------------------------------------------------------------------------------------- labels


def labelled(iris_map, iris, y, tmp_path):
    return Page(ptsne.report(iris_map, iris[0], y, path=tmp_path / "page.html"))


def test_classes_may_be_missing(iris_map, iris, tmp_path):
    y = np.array(iris[1], dtype=object)
    y[:3] = [None, np.nan, None]
    page = labelled(iris_map, iris, y, tmp_path)
    assert page.facts["classes"] == ["setosa", "versicolor", "virginica"]
    assert page.arrays["label"][:5].tolist() == [-1, -1, -1, 0, 0]


def test_many_numbers_are_a_quantity(iris_map, iris, tmp_path):
    y = np.arange(150) / 7
    page = labelled(iris_map, iris, y, tmp_path)
    assert page.facts["classes"] is None
    assert_allclose(page.arrays["quantity"], y, rtol=1e-6)


def test_whole_numbers_and_no_labels(iris_map, iris, tmp_path):
    assert labelled(iris_map, iris, [1.0, 2.0] * 75, tmp_path).facts["classes"] == ["1", "2"]
    page = labelled(iris_map, iris, None, tmp_path)
    assert page.facts["classes"] is None
    assert not page.arrays.keys() & {"label", "quantity"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": [1, 2]}, "one value for each of the 150 rows"),
        ({"row_names": ["a"]}, "one name for each of the 150 rows; got 1"),
        ({"images": (2, 3)}, r"product 4, the number of features; got \(2, 3\)"),
        ({"images": (4,)}, r"got \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused(iris_map, iris, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ptsne.report(iris_map, iris[0], path=tmp_path / "page.html", **options)
    assert not (tmp_path / "page.html").exists()


def test_only_a_fitted_map_has_a_page(iris, tmp_path):
    with pytest.raises(NotFittedError):
        ptsne.report(ParametricTSNE(), iris[0], path=tmp_path / "page.html")


# ----------------------------------------------------------------------------------- the document


def test_the_page_loads_nothing(iris_page):
    for _, attributes in iris_page.elements:
        assert "src" not in attributes
        assert attributes.get("href", "data:,").startswith("data:")
    policy = next(a["content"] for t, a in iris_page.elements if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    style = re.search("<style>(.*?)</style>", iris_page.text, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_only_scripts_of_the_page_itself_run(iris_page):
    nonces = [a.get("nonce") for t, a in iris_page.elements if t == "script" and "type" not in a]
    policy = next(a["content"] for t, a in iris_page.elements if a.get("http-equiv"))
    assert len(nonces) > 1
    assert len(set(nonces)) == 1
    assert f"script-src 'nonce-{nonces[0]}'" in policy


def test_names_stay_text(iris_map, iris, iris_page, tmp_path):
    X = iris[0].rename(columns={"sepal length (cm)": EVIL})
    map_ = ParametricTSNE(max_iter=20, random_state=0).fit(X)
    names = [EVIL] * 150
    path = tmp_path / "evil.html"
    page = Page(ptsne.report(map_, X, names, path=path, title=EVIL, row_names=names))
    n_scripts = [sum(tag == "script" for tag, _ in p.elements) for p in (page, iris_page)]
    assert n_scripts[0] == n_scripts[1]
    assert page.facts["features"][0] == EVIL
    assert page.facts["classes"] == [EVIL]
    assert EVIL not in page.text


def test_without_bokeh_it_says_what_to_install(iris_map, iris, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh.resources", None)
    with pytest.raises(ImportError, match=r"pip install 'ptsne\[report\]'"):
        ptsne.report(iris_map, *iris, path=tmp_path / "page.html")


# --------------------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def files(iris_map, iris, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    table = iris[0].assign(species=iris[1], name=[f"flower {i}" for i in range(150)])
    table.to_csv(folder / "iris.csv", index=False)
    iris_map.save(folder / "iris.model")
    return folder


def test_report_writes_the_page(files, capsys):
    arguments = [str(files / "iris.model"), str(files / "iris.csv")]
    output = files / "new" / "page.html"
    options = ["-o", str(output), "--label", "species", "--id", "name", "--title", "Flowers"]
    assert main(["report", *arguments, *options]) == 0
    page = Page(output)
    assert page.facts["title"] == "Flowers"
    assert page.facts["row_names"][:2] == ["flower 0", "flower 1"]
    assert page.facts["classes"] == ["setosa", "versicolor", "virginica"]
    printed = capsys.readouterr().out
    assert str(output) in printed
    assert "y = W x + b holds to" in printed


def test_rows_are_counted_from_one_as_in_explain(files, capsys):
    table = load_iris(as_frame=True).data
    table.to_csv(files / "plain.csv", index=False)
    output = files / "plain.html"
    assert (
        main(["report", str(files / "iris.model"), str(files / "plain.csv"), "-o", str(output)])
        == 0
    )
    page = Page(output)
    assert page.facts["row_names"][:2] == ["1", "2"]
    assert page.facts["title"] == "plain"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--label", "nothing"], 'there is no column "nothing"'),
        (["--id", "nothing"], 'there is no column "nothing"'),
        (["--images", "3", "3"], "the number of features"),
    ],
)
def test_report_names_what_is_wrong(files, capsys, option, message):
    arguments = [str(files / "iris.model"), str(files / "iris.csv"), "-o", str(files / "x.html")]
    assert main(["report", *arguments, *option]) == 2
    assert message in capsys.readouterr().err


def test_report_without_bokeh_is_an_error_in_a_line(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh.resources", None)
    arguments = [str(files / "iris.model"), str(files / "iris.csv"), "-o", str(files / "x.html")]
    assert main(["report", *arguments]) == 2
    assert "pip install 'ptsne[report]'" in capsys.readouterr().err


def test_serve_says_where_and_ends_with_ctrl_c(files, capsys, monkeypatch):
    def stopped(server):
        raise KeyboardInterrupt

    monkeypatch.setattr("ptsne.report.serving.Server.serve_forever", stopped)
    arguments = [str(files / "iris.model"), str(files / "iris.csv"), "--label", "species"]
    assert main(["serve", *arguments, "--port", "0"]) == 130
    assert re.search(r"http://127\.0\.0\.1:\d+/", capsys.readouterr().out)
