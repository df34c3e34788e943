"""The site that `make docs` built, in a browser: front page, a page of the gallery, search.

Skipped where the site is not built, or there is no Chromium or no playwright.
"""

import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SITE = Path(__file__).parent.parent / "docs" / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "searchindex.js").exists(), reason="run make docs first"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; set CHROMIUM to its path"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[1400, 400], ids=["wide", "narrow"])
def page(browser, address, request):
    """A tab that fails the test if a script breaks or anything is asked of another site."""
    faults = []
    tab = browser.new_page(viewport={"width": request.param, "height": 900})
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith((address, "data:")) else faults.append(r))
    tab.on("response", lambda r: faults.append(r.url) if r.status >= 400 else None)
    yield tab
    tab.close()
    assert not faults


def assert_fits(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def assert_pictures_are_there(page):
    sizes = page.evaluate("[...document.querySelectorAll('article img')].map(i => i.naturalWidth)")
    assert sizes
    assert min(sizes) > 0


def test_front_page(page, address):
    page.goto(f"{address}/index.html", wait_until="load")
    assert page.inner_text("h1").startswith("ptsne")
    assert page.locator("math").count() > 0
    assert_pictures_are_there(page)
    assert_fits(page)


def test_an_example_leads_to_the_reference(page, address):
    page.goto(f"{address}/gallery/plot_iris.html", wait_until="load")
    assert page.inner_text("h1").startswith("Why does setosa")
    assert "setosa sits apart" in page.inner_text(".sphx-glr-script-out >> nth=-1")
    assert_pictures_are_there(page)
    assert_fits(page)
    assert page.locator(".picture img").bounding_box()["width"] > 500  # large enough to be read
    page.click("a.sphx-glr-backref-type-py-class >> nth=0")
    assert "ParametricTSNE" in page.inner_text("h1")


def test_search_finds(page, address):
    page.goto(f"{address}/search.html?q=counterfactual", wait_until="load")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li").count() > 3
    assert_fits(page)
