"""Every line that no test has to run says why."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ptsne"
PRAGMA = re.compile(r"# *pragma: *no (cover|branch)(.*)")


def unreasoned(text):
    """Numbers of lines that are left out of the coverage without a reason of three words."""
    found = ((number, PRAGMA.search(line)) for number, line in enumerate(text.split("\n"), 1))
    return [
        number
        for number, pragma in found
        if pragma and not re.match(r" - (\S+ ){2,}\S+", pragma.group(2))
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_what_is_left_out_has_a_reason(path):
    assert not unreasoned(path.read_text("utf-8"))


def test_a_reason_is_looked_for():
    assert unreasoned("x = 1  # pragma: no cover") == [1]
    assert unreasoned("x = 1\ny = 2  # pragma: no branch - why") == [2]
    assert not unreasoned("x = 1  # pragma: no cover - needs a GPU")
