"""Every example runs, writes its pictures and ends with what was learned."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from ptsne import datasets

ROOT = Path(__file__).parent.parent
README_PICTURE = ROOT / "docs" / "images" / "digits.png"  # drawn by `make pictures`


def learned(name, folder):
    """Last line that an example prints, run in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    words = [sys.executable, ROOT / "examples" / name]
    run = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    sentence = run.stdout.splitlines()[-1]
    for picture in re.findall(r"[\w-]+\.png", sentence):
        assert (folder / picture).stat().st_size > 10_000
    return sentence


def percentages(sentence):
    return [float(number) for number in re.findall(r"(-?[\d.]+)%", sentence)]


def test_every_example_is_tested():
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))
    assert all(path.name in tests for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda p: p.stem
)
def test_an_example_begins_with_its_question(path):
    title = path.read_text(encoding="utf-8").split('"""')[1].strip().splitlines()[0]
    assert title.endswith("?")


def test_iris(tmp_path):
    sentence = learned("plot_iris.py", tmp_path)
    assert sentence.startswith("setosa sits apart from versicolor because of petal length")
    assert percentages(sentence)[0] > 50
    assert sentence.endswith("See iris.png.")


def test_pipeline(tmp_path):
    sentence = learned("plot_pipeline.py", tmp_path)
    assert "proline" in sentence
    assert 10 < percentages(sentence)[0] < 60
    assert float(re.search(r"places to (\S+)\. See", sentence).group(1)) < 1e-10
    assert sentence.endswith("See pipeline.png.")


def test_feature_field(tmp_path):
    sentence = learned("plot_feature_field.py", tmp_path)
    most, least = percentages(sentence)
    assert 100 > most > least > 0
    assert sentence.endswith("See feature-field.png.")


@pytest.mark.slow
def test_stretch(tmp_path):
    sentence = learned("plot_stretch.py", tmp_path)
    stretched, moved = (float(n) for n in re.findall(r"([\d.]+) times", sentence))
    assert stretched > 1.5
    assert moved > 1.2
    assert sentence.endswith("See stretch.png.")


@pytest.mark.slow
def test_digits(tmp_path):
    sentence = learned("plot_digits.py", tmp_path)
    assert percentages(sentence)[0] > 95
    assert sentence.endswith("See digits.png.")
    drawn, shown = imread(tmp_path / "digits.png"), imread(README_PICTURE)
    assert drawn.shape == shown.shape
    assert (drawn == shown).all(axis=2).mean() > 0.6  # the points of another machine are elsewhere


@pytest.mark.slow
@pytest.mark.network
def test_mnist(tmp_path):
    try:
        datasets.load("mnist", split="all", download=False)
    except FileNotFoundError:
        pytest.skip("the MNIST files are not on this machine")
    sentence = learned("plot_mnist.py", tmp_path)
    accuracy, recall, *thirds = percentages(sentence)
    assert accuracy > 90
    assert recall > 30
    assert max(thirds) > 100 / 3
    assert abs(sum(thirds) - 100) < 2


def test_counterfactual(tmp_path):
    sentence = learned("plot_counterfactual.py", tmp_path)
    assert re.match(r"With \d\.\d cm longer petals this versicolor would lie among", sentence)
    assert "17 of 17 versicolors" in sentence
    assert sentence.endswith("See counterfactual.png.")


def test_wine(tmp_path):
    sentence = learned("plot_wine.py", tmp_path)
    assert re.search(r"the first by [^,]*much proline", sentence)
    assert min(percentages(sentence)) > 100 / 13  # more than an equal share
    assert sentence.endswith("See wine.png.")


@pytest.mark.slow
def test_cells(tmp_path):
    try:
        datasets.load("pbmc4k-counts")
    except FileNotFoundError:
        pytest.skip("the cells are not on this machine")
    sentence = learned("plot_pbmc.py", tmp_path)
    common = int(re.search(r"(\d+) are also", sentence).group(1))
    assert common >= 5
    assert sentence.endswith("See pbmc.png.")


def test_custom_rule(tmp_path):
    sentence = learned("plot_custom_rule.py", tmp_path)
    assert float(re.search(r"logits to (\S+);", sentence).group(1)) < 1e-12
    assert "claims 2.00 times as much" in sentence  # the gradient of a square
    assert percentages(sentence)[0] > 85
    assert sentence.endswith("See custom-rule.png.")


@pytest.mark.slow
def test_update(tmp_path):
    sentence = learned("plot_update.py", tmp_path)
    after, before = percentages(sentence)
    assert after > 90 > before
    assert float(re.search(r"moved is (\S+) map units", sentence).group(1)) < 0.3
    assert sentence.endswith("See update.png.")


@pytest.mark.slow
def test_contrast(tmp_path):
    sentence = learned("plot_contrast.py", tmp_path)
    first, spread, second = percentages(sentence)
    assert 15 > first >= second > 100 / 30
    assert sentence.endswith("See contrast.png.")


@pytest.mark.slow
def test_own_network(tmp_path):
    sentence = learned("plot_own_network.py", tmp_path)
    assert percentages(sentence)[0] > 80
    assert float(re.search(r"logit to (\S+)\. See", sentence).group(1)) < 1e-11
    assert sentence.endswith("See own-network.png.")


@pytest.mark.slow
def test_label_flip(tmp_path):
    sentence = learned("plot_label_flip.py", tmp_path)
    without_b, without_wx, normed, plain = percentages(sentence)
    assert without_b < 20 < 50 < without_wx
    assert plain < normed
    assert sentence.endswith("See label-flip.png.")


@pytest.mark.slow
def test_fashion(tmp_path):
    try:
        datasets.load("fashion-mnist", split="all", download=False)
    except FileNotFoundError:
        pytest.skip("the Fashion-MNIST files are not on this machine")
    sentence = learned("plot_fashion.py", tmp_path)
    assert min(percentages(sentence)[2:4]) > 40
    assert float(re.search(r"through it to (\S+)\. See", sentence).group(1)) < 1e-5
