"""What each part of the fine-tuning is worth to rows that it never saw.

    PTSNE_DATA=folder python benchmarks/finetuning.py     # MNIST; a quarter of an hour
    python benchmarks/finetuning.py --page                # the table of the page alone

Each variant changes one thing of the default estimator. Its row has medians over the seeds of
held-out rows of ``mnist-10k``.
"""

import argparse
import statistics
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from machine import commit, hardware, source_hash
from records import RESULTS, read, write
from splits import load_split

from ptsne import ParametricTSNE
from ptsne.metrics import knn_accuracy, local_fidelity, neighbor_recall
from ptsne.training import defaults, finetuning, landmarks

FILE = RESULTS / "finetuning.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "theory" / "training.md"
SEEDS = (0, 1, 2)
NARROW = landmarks.SOFTENING / landmarks.SHARPENING
FIGURES = {"recall": 3, "accuracy": 3, "fidelity": 2, "kl": 3}  # digits printed
BEGIN, END = "<!-- finetuning -->\n", "<!-- end -->"


def seams(*, training, map_):
    """Temperatures of the fine-tuning and of the map, over that of the places."""
    return {landmarks: {"SOFTENING": training, "SHARPENING": training / map_}}


VARIANTS = {  # name -> constants by module, parameters of the estimator
    "as it is": ({}, {}),
    "seams of the map as wide as while it is trained": (
        seams(training=landmarks.SOFTENING, map_=landmarks.SOFTENING),
        {},
    ),
    "seams narrow all the time": (seams(training=NARROW, map_=NARROW), {}),
    "seams of the places all the time": (seams(training=1.0, map_=1.0), {}),
    "no fidelity loss": ({}, {"fidelity_weight": 0.0}),
    "fidelity loss at every step": ({finetuning: {"FIDELITY_SHARE": 1.0}}, {}),
    "fidelity loss that forgives more: s = 2, w = .24": (
        {finetuning: {"FIDELITY_SCALE": 2.0}},
        {"fidelity_weight": 0.24},
    ),
    "no noise on the codes": ({defaults: {"NOISE": 0.0}}, {}),
    "no dropout of inputs": ({defaults: {"DROPOUT": 0.0}}, {}),
    "2,000 landmarks": ({}, {"n_landmarks": 2000}),
    "twice the iterations": ({}, {"max_iter": 1600}),
}


def measured(split, constants, parameters, seed):
    """Figures of one fit."""
    with ExitStack() as patched:
        for module, values in constants.items():
            patched.enter_context(mock.patch.multiple(module, **values))
        map_ = ParametricTSNE(random_state=seed, **parameters).fit(split.X_train)
    Y, Y_new = map_.embedding_, map_.transform(split.X_test)
    train = {"X_train": split.X_train, "Y_train": Y}
    weight = map_.explain(split.X_test).weight
    return {
        "recall": neighbor_recall(split.X_test, Y_new, **train),
        "accuracy": knn_accuracy(
            Y_new, split.y_test, Y_train=Y, labels_train=split.y_train, n_neighbors=10
        ),
        "fidelity": local_fidelity(weight, split.X_test, Y_new, **train).r2,
        "kl": map_.kl_divergence_,
    }


def table(record):
    lines = ["| | recall | 10-NN accuracy | fidelity of W | KL of training rows |"]
    lines.append("| --- |" + " ---: |" * len(FIGURES))
    for name, runs in record["variants"].items():
        cells = [
            f"{statistics.median(run[figure] for run in runs):.{digits}f}"
            for figure, digits in FIGURES.items()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_page():
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    after = rest.split(END, 1)[1]
    PAGE.write_text(before + BEGIN + table(read(FILE)) + END + after, "utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with data sets, as PTSNE_DATA")
    parser.add_argument("--page", action="store_true", help="only write the page's table")
    options = parser.parse_args()
    if not options.page:
        split = load_split("mnist-10k", data_home=options.data)
        record = {"commit": commit(), "source": source_hash(), "hardware": hardware()}
        record["variants"] = {
            name: [measured(split, *how, seed) for seed in SEEDS] for name, how in VARIANTS.items()
        }
        write(FILE, record)
    write_page()


if __name__ == "__main__":
    main()
