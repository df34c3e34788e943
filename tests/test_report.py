"""The page, without a browser: its numbers are those of the explanation, it loads nothing, and the
live model answers with a result or a sentence."""

import base64
import gzip
import json
import re
import sys
import threading
import urllib.error
import urllib.request
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError

import ptsne
from ptsne import ParametricTSNE
from ptsne.cli import main
from ptsne.metrics import local_fidelity
from ptsne.report.contents import Words
from ptsne.report.packing import encode_steps, encode_table
from ptsne.report.serving import live_server

EVIL = "</script><script>alert(1)</script>"

# ------------------------------------------------------------------------------------- fixtures


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


# -------------------------------------------------------------------------------------- packing


@given(random_arrays(np.float64, (5, 2, 3), elements=st.floats(-1e6, 1e6)))
def test_steps_are_at_most_half_a_step_off(array):
    steps = encode_steps(array)
    step = steps.step.astype(np.float64)[:, None, None]
    assert (np.abs(steps.decoded() - array) <= 0.5000001 * step).all()


def test_pixels_take_a_byte_and_come_back_exactly(rng):
    X = rng.integers(0, 256, (50, 30)).astype(np.float32) / 255
    coded = encode_table(X)
    assert coded.codes.dtype == np.uint8
    assert coded.error == 0
    assert_array_equal(coded.values[coded.codes], X.astype(np.float64))


def test_a_table_of_hundreds_of_values_takes_two_bytes_and_comes_back_exactly(rng):
    X = rng.integers(0, 600, (200, 30)) / 10
    coded = encode_table(X)
    assert coded.codes.dtype == np.uint16
    assert_array_equal(coded.values[coded.codes], X)


def test_a_table_of_arbitrary_numbers_stays_as_it_is_while_it_is_small(rng):
    X = rng.normal(size=(40, 20))
    coded = encode_table(X)
    assert_array_equal(coded.codes, X)
    assert coded.error == 0


def test_a_large_table_of_arbitrary_numbers_is_rounded_and_says_by_how_much(rng):
    X = rng.normal(size=(1100, 1000))
    coded = encode_table(X)
    assert coded.codes.dtype == np.float32
    assert coded.error == np.abs(coded.codes - X).max() > 0


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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


# ----------------------------------------------------------------------------------------- live


@pytest.fixture(scope="module")
def server(iris_map, iris):
    with live_server(iris_map, *iris, Words("Iris", None, None), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, question, body, **headers):
    """Status and answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(server.url + question, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_server_has_the_page(server):
    with urllib.request.urlopen(server.url, timeout=20) as response:
        page = response.read().decode()
    assert '"live": true' in page
    assert "connect-src 'self'" in page


def test_the_server_is_for_this_computer_only(server):
    assert server.server_address[0] == "127.0.0.1"
    status, answer = ask(server, "explain", {}, Host="evil.example")
    assert (status, answer["error"]) == (403, "questions come as JSON, from here")


def test_other_sites_cannot_ask(server):
    status, _ = ask(server, "explain", {}, **{"Content-Type": "text/plain"})
    assert status == 403


def test_a_new_row_is_placed_and_explained_by_the_model(server, iris_map, iris):
    x = [5.0, 3.0, 2.5, 1.0]
    status, answer = ask(server, "explain", {"values": x})
    why = iris_map.explain(pd.DataFrame([x], columns=iris[0].columns))
    assert status == 200
    assert_allclose(answer["place"], why.Y[0])
    origin = iris_map.transform(pd.DataFrame(why.baseline, columns=iris[0].columns))[0]
    assert_allclose(answer["distance"], np.linalg.norm(why.Y[0] - origin))
    assert_allclose(sum(answer["lengths"]), answer["distance"])
    shares = why.contrast(why.baseline[0], np.array(x))
    assert_allclose(answer["lengths"], shares * answer["distance"], atol=1e-9)
    notes = " ".join(answer["notes"])
    assert f"training row {why.landmarks.indices[0, 0]} (" in notes or "training rows" in notes
    assert f"Stranger than {why.trust.percentile[0]:.0f} %" in notes


def test_contrasts_are_the_models(server, iris_map, iris):
    x = [5.0, 3.0, 2.5, 1.0]
    why = iris_map.explain(iris[0])
    _, rows = ask(server, "contrast", {"a": {"row": 3}, "b": {"row": 140}})
    _, mixed = ask(server, "contrast", {"a": {"values": x}, "b": {"row": 140}})
    assert_allclose(rows["shares"], why.contrast(3, 140))
    assert_allclose(mixed["shares"], why.contrast(np.array(x), 140))


def test_a_live_map_that_a_page_cannot_hold(mlp_map, iris):
    with live_server(mlp_map, *iris, Words("Iris", None, None), port=0) as server:
        shares = server.page.answer("contrast", {"a": {"row": 3}, "b": {"row": 140}})["shares"]
        answer = server.page.answer("explain", {"values": [5.0, 3.0, 2.5, 1.0]})
    assert_allclose(shares, mlp_map.explain(iris[0]).contrast(3, 140, method="paired"))
    assert_allclose(sum(answer["lengths"]), answer["distance"])


@pytest.mark.parametrize(
    ("question", "body", "message"),
    [
        ("explain", {"values": [1, 2]}, "a row of this map has 4 values; got 2"),
        ("explain", {"values": "1,2"}, "4 values; got str"),
        ("explain", {"values": [1, 2, 3, "x"]}, "petal width .*expected a finite number; got 'x'"),
        ("explain", {"values": [1, 2, 3, None]}, "got None"),
        ("explain", {"values": [1, 2, 3, 1e999]}, "got inf"),
        ("explain", {"values": [1, 2, 3, 10**400]}, "finite"),
        ("explain", {"values": [1, 2, 3, True]}, "got True"),
        ("explain", [], "expected an object"),
        ("explain", b"{", "not JSON"),
        ("explain", b"\xff", "not JSON"),
        ("explain", b"[" * 100_000, "not JSON"),
        ("contrast", {}, "expected the number of a row"),
        ("contrast", {"a": {"row": 3}, "b": {"row": 150}}, "no row 150; rows go from 0 to 149"),
        ("contrast", {"a": {"row": 3}, "b": {"row": 1.5}}, "no row 1.5"),
        ("contrast", {"a": {"row": 3}, "b": {"row": 3}}, "share one place"),
    ],
)
def test_a_bad_question_gets_a_sentence(server, question, body, message):
    status, answer = ask(server, question, body)
    assert status == 400
    assert re.search(message, answer["error"])


def test_there_is_nothing_else_on_the_server(server):
    assert ask(server, "elsewhere", {})[0] == 404
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(server.url + "../../etc/passwd", timeout=20)
    with error.value:
        assert error.value.code == 404


def test_a_port_in_use_is_named(server, iris_map, iris):
    with pytest.raises(OSError, match=f"port {server.server_port} cannot be used"):
        live_server(iris_map, *iris, Words("Iris", None, None), port=server.server_port)


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
