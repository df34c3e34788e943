"""The pages of the docs folder hold: their Python runs, their links lead somewhere.

`make docs` checks the site as a whole; this is what can be known without building it.
"""

import re
import shlex
from pathlib import Path

import pytest

import ptsne
from ptsne.cli import _parser
from ptsne.linearize.table import MODULE_RULES, RULES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BUILT = ("_build", "generated")
WRITTEN = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "datasets" / "README.md",
    *(page for page in sorted(DOCS.rglob("*.md")) if not set(BUILT) & set(page.parts)),
]
# Blocks that are run, by `make docs` and here, and blocks that have no Python to be run or (plots)
# run it themselves.
RUN = {"python", "{doctest}", "{testsetup}", "{testcleanup}"}
SHELL = {"", "bash", "text"}
NO_PYTHON = {
    *SHELL,
    *("{computed}", "{eval-rst}", "{image}", "{include}", "{math}", "{toctree}"),
}
SHOWN = re.compile(r"^ *(\.\. |:{3,}{)(code|sourcecode|code-block|literalinclude)(::|})", re.M)
PYTHON = re.compile(r"^ *(>>> |import |from [\w.]+ import |def )", re.M)


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
    if any("import dask" in code for code in blocks(page, "python")):
        pytest.importorskip("dask")  # the tools of the tests have it for Python 3.11 and newer
    names = {}
    for code in blocks(page, r"{testsetup}|python"):
        if not code.startswith(">>>"):  # run by `make docs`, which compares what it prints
            exec(compile(code, page.name, "exec"), names)
    for code in blocks(page, "{testcleanup}"):
        exec(compile(code, page.name, "exec"), names)


def blocks(page, language):
    """Code blocks of a page."""
    text = page.read_text("utf-8")
    return re.findall(rf"^```(?:{language})\n(.*?)^```", text, flags=re.M | re.S)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_python_is_shown_without_being_run(page):
    """What the doctest builder runs is on pages of the site; the README has a test of its own."""
    is_run = DOCS in page.parents or page == ROOT / "README.md"
    for language, code in fenced(page):
        assert language in NO_PYTHON or (language in RUN and is_run), f"{language}: {code[:80]}"
        assert language not in SHELL or not PYTHON.search(code), code[:80]
    assert not SHOWN.search(page.read_text("utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "```py\nx\n```",
        "~~~ python3\nx\n~~~",
        "   ```{code-block} python\nx\n   ```",
        "```text\nimport ptsne\n```",
        ":::{code} python\nx\n:::",
        "```{eval-rst}\n.. code-block:: python\n\n    x\n```",
    ],
)
def test_what_would_not_be_run_is_seen(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    with pytest.raises(AssertionError):
        test_no_python_is_shown_without_being_run(page)


def fenced(page):
    """Language and text of every fenced block."""
    fence = r"^ *(`{3,}|~{3,}) *([\w{}-]*)[^`\n]*\n(.*?)^ *\1 *$"
    found = re.findall(fence, page.read_text("utf-8"), flags=re.M | re.S)
    return [(language, code) for _, language, code in found]


def links(page):
    """What a page links to inside the project, as (path or "", anchor or "")."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(<?([^)\s>]+)>?\)", text)
    return [target.partition("#")[::2] for target in targets if "://" not in target]


def found(page, path):
    """The file that a link leads to; pages of the gallery are made from the examples."""
    target = page.parent / path if path else page
    if target.parent.name == "gallery":
        is_index = target.stem == "index"
        target = ROOT / "examples" / ("GALLERY_HEADER.rst" if is_index else f"{target.stem}.py")
    return next((t for t in (target, Path(f"{target}.md")) if t.exists()), None)


def anchors(page):
    """Anchors of a page's headings, as MyST and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for path, anchor in links(page):
        target = found(page, path)
        assert target, f"{path} is not there"
        assert not anchor or anchor in anchors(target), f"{path}#{anchor} is not there"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text("utf-8"), flags=re.M | re.S)
    for line in "".join(blocks).splitlines():
        words = [word for word in shlex.split(line, comments=True) if "=" not in word]
        if words[:1] == ["make"]:
            assert all(re.search(f"^{target}:", makefile, flags=re.M) for target in words[1:])
        elif words[:1] == ["python"] and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), words[1]
        elif words[:1] == ["ptsne"]:
            assert _parser().parse_args(words[1:]).command == words[1]


@pytest.mark.parametrize("page", sorted((DOCS / "theory").glob("*.md")), ids=lambda page: page.stem)
def test_an_equation_stands_beside_its_function(page):
    for section in page.read_text("utf-8").split("\n## "):
        if "```{math}" in section:
            assert re.search(r"{computed}|{py:\w+}|{doctest}", section), section[:60]


def test_one_version_everywhere():
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    assert project[1] == cited[1] == ptsne.__version__
    assert f"\n## {ptsne.__version__} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
