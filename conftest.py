"""Examples in docstrings: rules they enter are gone afterwards; a library that is missing skips."""

import re
from collections.abc import Generator
from typing import Any

import pytest

from ptsne.linearize.table import MODULE_RULES, RULES


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run an example with rules of its own; other tests as they are."""
    example = getattr(item, "dtest", None)
    if example is None:
        return (yield)
    for library in re.findall(r'is_missing\("(\w+)"\)', example.docstring):
        pytest.importorskip(library)
    books: list[Any] = [(book, dict(book)) for book in (RULES, MODULE_RULES)]
    try:
        return (yield)
    finally:
        for book, entries in books:
            book.clear()
            book.update(entries)
