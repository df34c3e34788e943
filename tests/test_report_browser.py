"""The page in a browser: pointing, choosing, searching and colouring work, and say what the model
says. Skipped where there is no Chromium or no playwright."""

import os
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits, load_iris

import ptsne
from ptsne import ParametricTSNE
from ptsne.report.contents import Words
from ptsne.report.serving import live_server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
EVIL = "<script>window.evil = 1</script><img src=x onerror='window.evil = 1'>"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium; set CHROMIUM to its path"
)

# ------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def iris():
    data = load_iris(as_frame=True)
    return data.data, data.target_names[data.target]


@pytest.fixture(scope="module")
def iris_map(iris):
    return ParametricTSNE(max_iter=80, random_state=0).fit(iris[0])


@pytest.fixture(scope="module")
def why(iris_map, iris):
    return iris_map.explain(iris[0])


@pytest.fixture(scope="module")
def iris_file(iris_map, iris, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "iris.html"
    return ptsne.report(iris_map, *iris, path=path, title="Iris")


@pytest.fixture
def open_page(browser):
    """Open pages, and fail at the end of the test if one complained."""
    with opener(browser) as open_page:
        yield open_page


@contextmanager
def opener(browser):
    tabs, complaints = [], []

    def open_page(address, width=1280, height=800):
        tab = browser.new_page(viewport={"width": width, "height": height})
        tabs.append(tab)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        tab.on("request", lambda r: complaints.append(r.url) if not is_local(r.url) else None)
        tab.goto(address if "://" in str(address) else address.as_uri())
        tab.wait_for_selector("body[data-ready]", timeout=30_000)
        return tab

    yield open_page
    for tab in tabs:
        tab.close()
    assert not complaints


def is_local(url):
    return url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:"))


@pytest.fixture
def page(open_page, iris_file):
    """A page in its first state."""
    return open_page(iris_file)


@pytest.fixture(scope="module")
def used_page(browser, iris_file):
    """A page for tests that do not care in which state they find it."""
    with opener(browser) as open_page:
        yield open_page(iris_file)


def point(page, i):
    """Where row `i` is on the screen."""
    return page.evaluate(
        """(i) => {
          const { x, y, plot } = ptsnePage.map;
          const box = document.getElementById("map").getBoundingClientRect();
          const across = (x[i] - plot.x_range.start) / (plot.x_range.end - plot.x_range.start);
          const up = (y[i] - plot.y_range.start) / (plot.y_range.end - plot.y_range.start);
          return [
            box.left + (box.width - plot.inner_width) / 2 + across * plot.inner_width,
            box.top + (box.height - plot.inner_height) / 2 + (1 - up) * plot.inner_height,
          ];
        }""",
        i,
    )


def pixels(page):
    """How many different colours the map shows."""
    return page.evaluate("new Set(ptsnePage.map.colours).size")


def bars(page, card):
    """Names and numbers of the bars of a card, as shown."""
    lines = page.locator(f"#{card} .line")
    lines.first.wait_for()
    names, numbers = (lines.locator(f".{part}").all_inner_texts() for part in ("name", "number"))
    values = [float(n.split("±")[0].strip(" %").replace("−", "-")) for n in numbers]
    return dict(zip(names, values, strict=True))


def contrast(page, i, j):
    """Shares that the page computes between two rows."""
    shares = "(e) => Array.from(e.shares(e.row({i}), e.row({j})).values)"
    script = shares.replace("{i}", str(i)).replace("{j}", str(j))
    return np.array(page.evaluate(f"({script})(ptsnePage.explainer)"))


def lasso(page, rows):
    """Draw round rows."""
    page.click("#lasso")
    places = np.array([point(page, int(i)) for i in rows])
    left, top = places.min(0) - 12
    right, bottom = places.max(0) + 12
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()
    page.click("#move")


# ---------------------------------------------------------------------------------- the same page


def test_the_page_computes_what_the_library_computes(used_page, why):
    for i, j in [(0, 149), (60, 3), (101, 77)]:
        assert_allclose(contrast(used_page, i, j), why.contrast(i, j), atol=1e-9)


def test_the_page_places_rows_where_the_map_does(used_page, why):
    place = "i => Array.from(ptsnePage.explainer.engine.place(ptsnePage.explainer.row(i).x))"
    for i in (0, 70, 149):
        assert_allclose(used_page.evaluate(place, i), why.Y[i], atol=1e-10)


def test_group_contrasts_sum_to_one_and_agree_with_the_library(used_page, why, iris):
    script = """async () => {
      const rows = (k) => Array.from({ length: 50 }, (_, i) => 50 * k + i);
      const found = await ptsnePage.explainer.contrast(rows(0), rows(2), () => false);
      return { ...found, values: Array.from(found.values), spread: Array.from(found.spread) };
    }"""
    found = used_page.evaluate(script)
    table = why.contrast_clusters(iris[1], "setosa", "virginica").set_index("feature")
    table = table.loc[list(iris[0].columns)]
    assert found["nPairs"] == 200
    assert_allclose(sum(found["values"]), 1)
    assert_allclose(found["values"], table["share"], atol=0.1)  # other pairs of the same groups
    assert_allclose(found["spread"], table["spread"], atol=0.1)


def test_a_map_stored_as_displacements(open_page, iris, tmp_path):
    map_ = ParametricTSNE(projection=(16,), max_iter=60, random_state=0).fit(iris[0])
    page = open_page(ptsne.report(map_, *iris, path=tmp_path / "mlp.html"))
    found = contrast(page, 3, 140)
    source = map_.explain(iris[0])._source
    X = iris[0].to_numpy()
    parts = source.paired_ways(np.tile(X.mean(0), (2, 1)), X[[3, 140]])
    parts = parts[1] - parts[0]
    way = parts.sum(1)
    assert_allclose(found, way @ parts / (way @ way), atol=1e-3)
    assert_allclose(found.sum(), 1)
    assert page.is_hidden("#new-card")


# ---------------------------------------------------------------------------------------- hands


def test_pointing_at_a_row_shows_it(page, why):
    page.mouse.move(*point(page, 100))
    page.wait_for_selector("#tooltip:not([hidden])")
    text = page.inner_text("#tooltip")
    assert "virginica" in text
    assert "petal length (cm) = " in text
    page.mouse.move(5, 5)
    page.wait_for_selector("#tooltip", state="hidden")


def test_clicking_a_row_keeps_it(page, why):
    page.mouse.click(*point(page, 100))
    page.wait_for_selector("#row-body .bars")
    i = page.evaluate("ptsnePage.pinned")
    assert_allclose(why.Y[i], why.Y[100], atol=np.ptp(why.Y) / 50)
    assert page.inner_text("#row-title") == f"Row {i} · virginica"
    distance = np.linalg.norm(why.Y[i] - page.evaluate("Array.from(ptsnePage.explainer.origin)"))
    assert f"{distance:.3g} map units" in page.inner_text("#row-body")
    assert_allclose(sum(bars(page, "row-body").values()), distance, rtol=0.02)
    held = why.landmarks.indices[i, 0]
    assert f"training row {held} (100 %)" in page.inner_text("#row-body") or why.n_active[i] > 1


def test_two_clicks_show_the_contrast(page, why):
    page.mouse.click(*point(page, 10))
    page.mouse.click(*point(page, 120))
    page.wait_for_selector("#contrast-body .bars")
    i, j = page.evaluate("[ptsnePage.slots.A.rows[0], ptsnePage.slots.B.rows[0]]")
    shares = dict(zip(why.feature_names, 100 * why.contrast(i, j), strict=True))
    assert bars(page, "contrast-body") == pytest.approx(shares, abs=0.51)


def test_lassos_round_two_groups_show_the_contrast_with_its_spread(page):
    lasso(page, range(50))
    assert page.evaluate("ptsnePage.slots.A.rows.length") >= 50
    lasso(page, range(110, 140))
    page.wait_for_selector("#contrast-body .bars")
    assert page.evaluate("ptsnePage.slots.B.rows.length") >= 30
    assert sum(bars(page, "contrast-body").values()) == pytest.approx(100, abs=2)
    assert page.locator("#contrast-body .whisker").count() == 4
    assert "Mean over 200 pairs" in page.inner_text("#contrast-body")


def test_names_in_the_legend_choose_groups_and_clear_forgets_them(page):
    page.click("#legend .chip >> nth=0")
    page.click("#legend .chip >> nth=2")
    page.wait_for_selector("#contrast-body .bars")
    assert page.inner_text("#slot-a") == "A setosa (50)"
    assert page.inner_text("#slot-b") == "B virginica (50)"
    assert pixels(page) == 3  # A, B and the rest
    page.click("#clear")
    assert page.locator("#contrast-body .bars").count() == 0
    assert page.inner_text("#slot-a") == "A choose"


def test_search_by_number_and_by_label(used_page):
    used_page.fill("#query", "17")
    used_page.keyboard.press("Enter")
    assert used_page.inner_text("#row-title") == "Row 17 · setosa"
    used_page.fill("#query", "VIRGIN")
    used_page.keyboard.press("Enter")
    assert used_page.inner_text("#found") == "1 of 50"
    used_page.keyboard.press("Enter")
    assert used_page.inner_text("#found") == "2 of 50"
    assert used_page.inner_text("#row-title") == "Row 101 · virginica"
    used_page.fill("#query", "150")
    used_page.keyboard.press("Enter")
    assert used_page.inner_text("#found") == "no such row"


def test_colours_change(page):
    assert pixels(page) == 3
    for choice in ("value", "contribution", "trust"):
        page.select_option("#colour", choice)
        page.wait_for_selector("#legend .ramp")
        assert pixels(page) > 10
    page.select_option("#colour", "contribution")
    page.fill("#feature", "nonsense")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('progress').textContent.includes('no such')")
    page.select_option("#colour", "none")
    assert pixels(page) == 1


def test_contributions_as_colours_are_those_of_the_rows(used_page):
    script = """async () => {
      const e = ptsnePage.explainer;
      await e.walkToAll(() => {}, () => false);
      const values = e.contributions(2);
      return [0, 70, 149].map((i) => [values[i], e.lengths(e.row(i)).values[2]]);
    }"""
    for shown, exact in used_page.evaluate(script):
        assert shown == pytest.approx(exact, rel=1e-4)


def test_a_new_row_finds_its_place_and_its_contrast(page, iris_map, iris):
    x = [5.1, 3.3, 2.2, 0.7]
    page.fill("#new-text", "\t".join(map(str, x)))
    page.click("#new-form button")
    page.wait_for_selector("#new-body .bars")
    expected = iris_map.transform(pd.DataFrame([x], columns=iris[0].columns))[0]
    assert_allclose(page.evaluate("Array.from(ptsnePage.newRow.end.y)"), expected, atol=1e-10)
    page.mouse.click(*point(page, 120))
    page.wait_for_selector("#contrast-body .bars")
    assert page.inner_text("#slot-a") == "A the new row"
    assert sum(bars(page, "contrast-body").values()) == pytest.approx(100, abs=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1, 2", "A row of this map has 4 values; these are 2."),
        ("1, 2, 3, four", 'petal width (cm): expected a number, found "four".'),
        ("1, 2, , 4", "petal length (cm): expected a number, found an empty cell."),
        ("petal length (cm)=3, nose=1", 'There is no feature "nose"; the features are sepal'),
        ("petal length (cm)=3; petal length (cm)=4", "is given twice"),
        ("1,2,3,4\n1,2,3,4\n1,2,3,4", "Paste one row at a time."),
        ("a,b\n1,2,3", "2 names stand above 3 values."),
        ("", "Paste the values of a row"),
    ],
)
def test_a_bad_row_gets_a_sentence(used_page, text, message):
    used_page.fill("#new-text", text)
    used_page.click("#new-form button")
    assert message in used_page.inner_text("#new-error")


def test_pairs_fill_what_is_missing_with_the_mean_and_say_so(used_page, iris):
    used_page.fill("#new-text", "petal length (cm)=1.4, petal width (cm) = 0.2")
    used_page.click("#new-form button")
    used_page.wait_for_selector("#new-body .bars")
    assert "at their mean: sepal length (cm), sepal width (cm)" in used_page.inner_text("#new-body")
    x = used_page.evaluate("Array.from(ptsnePage.newRow.end.x)")
    assert_allclose(x, [*iris[0].mean()[:2], 1.4, 0.2])


def test_names_do_not_run(open_page, iris, tmp_path):
    X = iris[0].rename(columns={"petal length (cm)": EVIL})
    map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X)
    labels = np.where(np.arange(150) < 50, EVIL, "other")
    rows = [f"{EVIL} {i}" for i in range(150)]
    file = ptsne.report(map_, X, labels, path=tmp_path / "evil.html", title=EVIL, row_names=rows)
    page = open_page(file)
    page.mouse.move(*point(page, 100))
    page.wait_for_selector("#tooltip:not([hidden])")
    page.click("#legend .chip >> nth=0")
    page.click("#legend .chip >> nth=1")
    page.wait_for_selector("#contrast-body .bars")
    page.mouse.click(*point(page, 10))
    for choice in ("value", "contribution"):
        page.select_option("#colour", choice)
        page.wait_for_selector("#legend .ramp")
    page.fill("#new-text", f"{EVIL}=x")
    page.click("#new-form button")
    assert page.evaluate("window.evil") is None
    assert page.inner_text("h1") == EVIL


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_is_cut_off(open_page, iris_file, width):
    page = open_page(iris_file, width=width)
    page.mouse.click(*point(page, 10))
    page.wait_for_selector("#row-body .bars")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#map").bounding_box()
    assert min(box["width"], box["height"]) > 250


def test_pictures_are_drawn(open_page, tmp_path):
    X, y = load_digits(return_X_y=True)
    map_ = ParametricTSNE(max_iter=60, random_state=0).fit(X[:300])
    file = ptsne.report(map_, X[:300], y[:300], path=tmp_path / "digits.html", images=(8, 8))
    page = open_page(file)
    page.mouse.move(*point(page, 7))
    page.wait_for_selector("#tooltip canvas")
    page.click("#legend .chip >> nth=0")
    page.click("#legend .chip >> nth=1")
    page.wait_for_selector("#contrast-body .bars")
    assert page.locator("#contrast-body canvas").count() == 3
    assert sum(bars(page, "contrast-body").values()) == pytest.approx(100, abs=2)


@pytest.mark.slow
def test_seventy_thousand_rows_answer_at_once(open_page, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (70_000, 50)).astype(np.float32) / 255
    map_ = ParametricTSNE(max_iter=30, random_state=0).fit(X[:2000])
    file = ptsne.report(map_, X, rng.integers(0, 10, 70_000), path=tmp_path / "big.html")
    assert file.stat().st_size < 15e6
    page = open_page(file)
    milliseconds = page.evaluate(
        """() => {
          const start = performance.now();
          for (let i = 0; i < 100; i++) ptsnePage.tooltipParts(700 * i);
          return (performance.now() - start) / 100;
        }"""
    )
    assert milliseconds < 100


# ----------------------------------------------------------------------------------------- live


@pytest.fixture(scope="module")
def server(iris_map, iris):
    with live_server(iris_map, *iris, Words("Iris", None, None), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_live_page_asks_the_model(open_page, server, iris_map, iris):
    page = open_page(server.url)
    x = [5.1, 3.3, 2.2, 0.7]
    page.fill("#new-text", ",".join(map(str, x)))
    page.click("#new-form button")
    page.wait_for_selector("#new-body .bars")
    why = iris_map.explain(pd.DataFrame([x], columns=iris[0].columns))
    assert "Held by training row" in page.inner_text("#new-body")
    assert f"Stranger than {why.trust.percentile[0]:.0f} %" in page.inner_text("#new-body")
    page.mouse.click(*point(page, 120))
    page.wait_for_selector("#contrast-body .bars")
    j = page.evaluate("ptsnePage.slots.B.rows[0]")
    shares = 100 * why.contrast(0, iris[0].to_numpy()[j])
    expected = dict(zip(why.feature_names, shares, strict=True))
    assert bars(page, "contrast-body") == pytest.approx(expected, abs=0.51)


def test_the_live_page_shows_the_models_objection(open_page, server):
    page = open_page(server.url)
    page.fill("#new-text", "1, 2, 3, 1e999")
    page.click("#new-form button")
    assert "expected a number" in page.inner_text("#new-error")
