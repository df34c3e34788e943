"""The pages of the docs folder hold: their Python runs, their links lead somewhere.

`make docs` checks the site as a whole; this is what can be known without building it.
"""

import re
from pathlib import Path

import pytest

import ptsne
from ptsne.linearize.table import MODULE_RULES, RULES

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.fixture
def rules():
    """Rules that a page registers are gone after it."""
    before = [(book, dict(book)) for book in (RULES, MODULE_RULES)]
    yield
    for book, entries in before:
        book.clear()
        book.update(entries)


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), flags=re.M | re.S):
        if code.startswith(">>>"):  # run by `make docs`, which compares what it prints
            continue
        exec(compile(code, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    built = ("gallery/",)  # made with the site
    files = [t for t in targets if "://" not in t and not t.startswith(built)]
    assert not [t for t in files if not any((DOCS / f"{t}{end}").exists() for end in ("", ".md"))]


def test_one_version_everywhere():
    root = DOCS.parent
    project = re.search(r'^version = "(.+)"', (root / "pyproject.toml").read_text("utf-8"), re.M)
    cited = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text("utf-8"), re.M)
    assert project[1] == cited[1] == ptsne.__version__
    assert f"\n## {ptsne.__version__} " in (root / "CHANGELOG.md").read_text("utf-8")
