"""Draw every map that run.py made, into benchmarks/maps/: to look at, not only to measure.

    python benchmarks/plots.py

One picture per map, and one per data set with the maps of all methods side by side. Dots are
training rows, rings held-out rows. growth.png: seconds of fit by rows of the blobs, where at least
two sizes were measured.
"""

import argparse
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import records
import tables
from methods import METHODS

from ptsne import plots


def draw(path, ax=None):
    """One map."""
    with np.load(path) as places:
        Y = np.vstack([places["Y_train"], places["Y_test"]])
        y = np.concatenate([places["y_train"], places["y_test"]])
        held_out = np.arange(len(Y)) >= len(places["Y_train"])
        names = dict(enumerate(places["target_names"].tolist()))
    ax = plots.map(Y, y=y, names=names, held_out=held_out, ax=ax)
    ax.set_title(f"{path.parent.name}, {path.stem}")
    return ax


def save(figure, path):
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"wrote {path}")


def sheet(paths, columns=3):
    """Maps side by side."""
    n_rows = -(-len(paths) // columns)
    shape = (6 * min(columns, len(paths)), 6.4 * n_rows)
    figure, axes = plt.subplots(
        n_rows, min(columns, len(paths)), figsize=shape, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(paths) :]:
        ax.set_visible(False)
    for path, ax in zip(paths, axes.flat, strict=False):
        draw(path, ax)
    return figure


def first_of_each_method(folder):
    """The map with the lowest seed of each method, in the order of `METHODS`."""
    found = []
    for method in METHODS:
        seeds = sorted(
            folder.glob(f"{method}-[0-9]*.npz"), key=lambda path: int(path.stem.rpartition("-")[2])
        )
        found += seeds[:1]
    return found


def draw_growth(seconds):
    """Seconds of fit by rows: a line per method, with its exponent."""
    figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
    for method, by_rows in seconds.items():
        slope = tables.exponent(by_rows)
        label = tables.title(method) + ("" if slope is None else f", rows^{slope:.2f}")
        ax.loglog(list(by_rows), list(by_rows.values()), marker="o", label=label)
    ax.set_xlabel("training rows")
    ax.set_ylabel("fit, seconds")
    ax.grid(visible=True, which="major", alpha=0.3)
    ax.legend()
    return figure


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--maps", type=Path, default=records.MAPS)
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="for growth.png")
    options = parser.parse_args(arguments)
    folders = [folder for folder in sorted(options.maps.glob("*")) if folder.is_dir()]
    chosen = [f for f in folders if options.datasets is None or f.name in options.datasets]
    if not chosen:
        return f"there are no maps in {options.maps}; run benchmarks/run.py first"
    for folder in chosen:
        for path in sorted(folder.glob("*.npz")):
            save(draw(path).figure, path.with_suffix(".png"))
        save(sheet(first_of_each_method(folder)), folder.with_suffix(".png"))
    seconds = tables.fit_seconds(records.read_all(options.results))
    if any(len(by_rows) > 1 for by_rows in seconds.values()):
        save(draw_growth(seconds), options.maps / "growth.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
