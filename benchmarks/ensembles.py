"""Does a mean of networks do better than its members? Fills the tables of docs/paper.md.

    PTSNE_DATA=folder python benchmarks/ensembles.py     # MNIST; some minutes
    python benchmarks/ensembles.py --page                # the tables of the page alone

Maps are those of the default estimator with several seeds, laid over the first one before their
places are averaged.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from paper import PAGE, RESULTS, environment
from splits import load_split
from torch import nn
from torch.nn import functional as F

from ptsne import Ensemble, ParametricTSNE, classifiers, label_flip_rate, linearize, register
from ptsne.metrics import knn_accuracy, neighbor_recall

FILE = RESULTS / "ensembles.json"
SIZES = (2, 4)
EPOCHS, BATCH, LEARNING_RATE = 10, 128, 1e-3


def trained_classifier(X, y, seed):
    """LeNet-300-100 by Adam with a linear decay; its own start and order of the rows."""
    torch.manual_seed(seed)
    network = classifiers.LeNet300100()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(X)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(X[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    return network.eval()


def classifier_row(name, network, X, y):
    rates = label_flip_rate(network, X, y)
    keys = ("accuracy", "flip_rate_wx", "flip_rate_b")
    return {"name": name, **{key: getattr(rates, key) for key in keys}}


def classifier_rows(split):
    X, X_test = (torch.as_tensor(rows).float() for rows in (split.X_train, split.X_test))
    y, y_test = map(torch.as_tensor, (split.y_train, split.y_test))
    members = [trained_classifier(X, y, seed) for seed in range(max(SIZES))]
    rows = [classifier_row(f"seed {i}", net, X_test, y_test) for i, net in enumerate(members)]
    for n in SIZES:
        rows.append(classifier_row(f"mean of {n}", Ensemble(members[:n]), X_test, y_test))
    return rows, largest_gap(members, X_test[:64])


def largest_gap(members: list[nn.Module], x):
    """Largest difference of W from the mean of the members' W, in float64."""
    members = [member.double() for member in members]
    whole = linearize(Ensemble(members), x.double()).weight()
    parts = torch.stack([linearize(member, x.double()).weight() for member in members])
    return float((whole - parts.mean(0)).abs().max())


def map_row(name, split, Y, Y_test):
    return {
        "name": name,
        "recall": neighbor_recall(split.X_test, Y_test, X_train=split.X_train, Y_train=Y),
        "accuracy": knn_accuracy(Y_test, split.y_test, Y_train=Y, labels_train=split.y_train),
    }


def map_rows(split):
    places = []
    for seed in range(max(SIZES)):
        fitted = ParametricTSNE(random_state=seed).fit(split.X_train)
        both = fitted.embedding_, fitted.transform(split.X_test)
        over = register(places[0][0], both[0]) if places else None
        places.append([over.apply(Y) if over else Y for Y in both])
    rows = [map_row(f"seed {i}", split, *both) for i, both in enumerate(places)]
    for n in SIZES:
        means = [np.mean(both, 0) for both in zip(*places[:n], strict=True)]
        rows.append(map_row(f"mean of {n}", split, *means))
    return rows


def table(rows):
    """Markdown; shares in per cent."""
    keys = [key for key in rows[0] if key != "name"]
    titles = {"flip_rate_wx": "flips of W x", "flip_rate_b": "flips of b", "recall": "recall@15"}
    lines = ["| |" + "".join(f" {titles.get(key, key)} |" for key in keys)]
    lines.append("| --- |" + " ---: |" * len(keys))
    for row in rows:
        lines.append(f"| {row['name']} |" + "".join(f" {100 * row[key]:.2f} |" for key in keys))
    return "\n".join(lines) + "\n"


def filled(page, report):
    for part in ("classifiers", "maps"):
        before, rest = page.split(f"<!-- ensembles-{part} -->\n")
        after = rest.split("<!-- end -->", 1)[1]
        middle = table(report[part])
        page = f"{before}<!-- ensembles-{part} -->\n{middle}<!-- end -->{after}"
    return page


def measured(data_home):
    split = load_split("mnist-10k", data_home=data_home)
    rows, gap = classifier_rows(split)
    return {**environment(), "classifiers": rows, "largest_gap": gap, "maps": map_rows(split)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with data sets, as PTSNE_DATA")
    parser.add_argument("--page", action="store_true", help="only write the page's tables")
    options = parser.parse_args()
    if not options.page:
        FILE.write_text(json.dumps(measured(options.data), indent=1) + "\n")
    report = json.loads(FILE.read_text("utf-8"))
    PAGE.write_text(filled(PAGE.read_text("utf-8"), report), "utf-8")


if __name__ == "__main__":
    main()
