"""Tables of the pages are those of the committed records: nothing was written by hand."""

import importlib
import json
import shutil
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
pytestmark = pytest.mark.usefixtures("beside_the_benchmarks")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Let a script write into a copy of its page, and compare the two."""

    def compare(name, page):
        script, copy = importlib.import_module(name), tmp_path / page.name
        shutil.copy(page, copy)
        if name == "tables":
            readme = ["--readme"] if page.parent == ROOT else []
            assert script.main([*readme, "--into", str(copy)]) == 0
        else:
            monkeypatch.setattr(script, "PAGE", copy)
            script.write_page()
        return copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")

    return compare


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("tables", "README.md"),
        ("tables", "benchmarks/README.md"),
        ("linearize", "docs/linearizer.md"),
        ("streaming", "docs/big_data.md"),
        ("finetuning", "docs/theory/training.md"),
    ],
)
def test_a_page_has_the_tables_of_its_records(written, name, page):
    assert written(name, ROOT / page)


def test_the_study_has_the_tables_of_its_records():
    paper = importlib.import_module("paper")
    text = paper.PAGE.read_text(encoding="utf-8")
    assert paper.filled(text, paper.stored_results()) == text


def test_the_explanations_have_the_tables_of_their_records():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap changes colour maps when it is imported
        page = importlib.import_module("attribution.page")
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, page.read_parts(RESULTS)) == text


def test_the_tables_of_ensembles_are_those_of_the_record():
    ensembles = importlib.import_module("ensembles")
    text = ensembles.PAGE.read_text("utf-8")
    assert ensembles.filled(text, json.loads(ensembles.FILE.read_text("utf-8"))) == text
