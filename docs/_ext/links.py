"""Links of the built pages: those inside lead somewhere, those outside are listed.

A page that links to a file or a heading that is not there, or that would fetch a script, a style or
a picture from elsewhere, is a warning. Links to other sites are written to ``external-links.txt``
beside the pages; nothing is fetched.
"""

from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

logger = logging.getLogger(__name__)

FETCHED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("source", "src"),
    ("iframe", "src"),
}
SCHEMES = ("http", "https", "mailto", "data", "javascript")


class Page(HTMLParser):
    """Anchors of a page, and what it links to."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.fetched = {""}, set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif (tag, name) in FETCHED and value:
                self.fetched.add(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.add(value)


def check(app, error):
    """Look through all pages of a finished build."""
    if error is not None or app.builder.format != "html":
        return
    root = Path(app.outdir)
    files = [path for path in sorted(root.rglob("*.html")) if root / "_static" not in path.parents]
    pages = {path: Page(path) for path in files}
    outside = defaultdict(set)
    for path, page in pages.items():
        name = path.relative_to(root).as_posix()
        for link in page.fetched:
            if urlsplit(link).scheme in ("http", "https") or link.startswith("//"):
                logger.warning("%s would fetch %s", name, link)
        # Sources link back to pages of one object each, by names that may be another module's.
        shorten = str.partition if name.startswith("_modules/") else lambda link, _: (link,)
        for link in {shorten(link, "#")[0] for link in page.links | page.fetched}:
            if urlsplit(link).scheme in SCHEMES:
                outside[link].add(name)
            elif not leads_somewhere(path, link, pages):
                logger.warning("%s links to %s, which is not there", name, link)
    write(root / "external-links.txt", outside)


def leads_somewhere(path, link, pages):
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if target.is_dir():
        target /= "index.html"
    if not parts.fragment or target not in pages:
        return target.exists()
    return unquote(parts.fragment) in pages[target].anchors


def write(path, outside):
    """A line for each link that leaves the site, with the first page that has it."""
    lines = [
        f"{link}\t{min(names)}"
        for link, names in sorted(outside.items())
        if urlsplit(link).scheme in ("http", "https")
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app):
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
