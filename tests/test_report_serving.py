"""A live page: the model answers this computer's questions, and no one else's."""

import copy
import http.client
import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris

from ptsne import ParametricTSNE
from ptsne.report.contents import Words
from ptsne.report.serving import live_server, notes


@pytest.fixture(scope="module")
def iris():
    data = load_iris(as_frame=True)
    return data.data, data.target_names[data.target]


@pytest.fixture(scope="module")
def iris_map(iris):
    return ParametricTSNE(max_iter=80, random_state=0).fit(iris[0])


@pytest.fixture(scope="module")
def mlp_map(iris):
    """A map that a page cannot hold."""
    return ParametricTSNE(projection=(16,), max_iter=60, random_state=0).fit(iris[0])


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


def test_the_mean_row_has_no_way_to_itself(server, iris):
    status, answer = ask(server, "explain", {"values": server.page._baseline.tolist()})
    assert status == 200
    assert answer["distance"] == 0
    assert answer["lengths"] == [0, 0, 0, 0]


def test_a_row_between_charts_is_said_to_be_there(iris_map, iris):
    rows = iris[0].to_numpy()
    between = pd.DataFrame(np.linspace(rows[0], rows[149], 400), columns=iris[0].columns)
    blended = between[iris_map.explain(between).n_active > 1][:1]
    assert "It stands on a boundary between charts of the map." in notes(iris_map.explain(blended))


def test_a_map_from_before_trust_was_measured_is_explained_without(iris_map, iris):
    old = copy.deepcopy(iris_map)
    del old._trust_quantiles
    sentences = " ".join(notes(old.explain(iris[0][:1])))
    assert "Stranger than" not in sentences
    assert "y = W x + b holds" in sentences


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


def test_a_question_that_is_too_long_is_not_read(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    length = {"Content-Length": str(10**9), "Content-Type": "application/json"}
    connection.request("POST", "/explain", headers=length)
    response = connection.getresponse()
    assert response.status == 400
    assert "at most 20,000,000 bytes" in json.load(response)["error"]
    connection.close()


def test_other_names_of_this_computer_get_no_page(server):
    request = urllib.request.Request(server.url, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=20)
    with error.value:
        assert error.value.code == 403


def test_there_is_nothing_else_on_the_server(server):
    assert ask(server, "elsewhere", {})[0] == 404
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(server.url + "../../etc/passwd", timeout=20)
    with error.value:
        assert error.value.code == 404


def test_a_port_in_use_is_named(server, iris_map, iris):
    with pytest.raises(OSError, match=f"port {server.server_port} cannot be used"):
        live_server(iris_map, *iris, Words("Iris", None, None), port=server.server_port)
