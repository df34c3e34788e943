"""The README holds: its Python runs, its commands exist, its figures are the measured ones."""

import functools
import json
import re
import shlex
import statistics
from pathlib import Path

import pytest

from cases import CASES
from ptsne.cli import _parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """Code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def commands():
    """Lines of the bash blocks as lists of words."""
    lines = "".join(blocks("bash")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_every_block_is_checked_here():
    fences = re.findall(r"^```(\w*)$", README, flags=re.M)
    assert set(fences) - {""} == {"python", "bash"}
    assert len(fences) == 2 * (len(blocks("python")) + len(blocks("bash")))


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["Y_new"].shape == (450, 2)
    residual = float(re.search(r"W x \+ b - y: (\S+)", capsys.readouterr().out).group(1))
    assert residual < 1e-12


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_exist(words):
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, flags=re.M)
    else:
        assert words[0] == "ptsne"
        assert _parser().parse_args(words[1:]).command == words[1]


def test_links_lead_to_files():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    missing = [t for t in targets if "://" not in t and not (ROOT / t).exists()]
    assert not missing


def test_pictures_are_small():
    for path in (ROOT / "docs" / "images").glob("*.png"):
        assert path.stat().st_size < 300_000, path


# --- figures --------------------------------------------------------------------------------------


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def median(runs, *path):
    """Median over runs of the number that stands at a path; as the tables print it."""
    return statistics.median(functools.reduce(dict.__getitem__, path, run) for run in runs)


def of(record, projection):
    return [run for run in record["runs"] if run["projection"] == projection]


def printed(number, digits=2):
    return f"{number:.{digits}f}".replace("-", "−").replace("0.", ".", abs(number) < 1)


def row(title):
    """Cells of the line that begins with a title."""
    return next(line.split("|")[2:4] for line in README.splitlines() if line.startswith(title))


def test_the_fidelity_of_w_is_the_measured_one():
    record = results("explanations-fidelity-mnist.json")
    ours, theirs = row("| W predicts where neighbours lie")
    for text, projection in ((ours, "atlas"), (theirs, "mlp")):
        for rows in ("training", "held_out"):
            r2 = median(of(record, projection), "methods", "W", rows, "r2")
            assert f" {printed(r2)} " in text


def test_seconds_of_new_rows_are_the_measured_ones():
    ours, theirs = row("| Place 5,000 new digits")
    for text, method in ((ours, "ptsne"), (theirs, "opentsne"), (theirs, "umap")):
        record = results(f"mnist-10k/{method}.json")
        assert record["data"]["held_out_rows"] == 5000
        assert f"{printed(median(record['runs'], 'seconds', 'transform'))} s" in text


def test_what_integrated_gradients_miss_is_what_was_measured():
    _, theirs = row("| Parts of an explanation add up")
    for dataset, name in (("mnist", "MNIST"), ("iris", "iris")):
        runs = of(results(f"explanations-quality-{dataset}.json"), "atlas")
        missed = median(runs, "methods", "captum IG, 50 steps", "completeness_error")
        assert f"{missed:.0%} ({name})".replace("%", " %") in theirs
        ours = median(runs, "methods", "ours: path", "completeness_error")
        assert ours < 1e-11


def test_cases_are_counted():
    assert f"| {len(CASES)} test cases" in README


def test_it_is_under_two_screens():
    assert len(README.splitlines()) <= 80
