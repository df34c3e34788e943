"""Measure the map that job.py left in a folder: the same measures for every method.

Started by run.py with a folder that holds rows, classes and places as .npy; leaves quality.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from ptsne.evaluation import evaluate

LARGEST_EVALUATED = 60_000


def measure(folder):
    """Figures of the map, for JSON."""
    start = time.perf_counter()
    quality = evaluate(
        (_load(folder, "Y_train"), _load(folder, "Y_test")),
        *(_load(folder, name) for name in ("X_train", "X_test", "y_train", "y_test")),
        W_train=_load(folder, "W_train"),
        W_test=_load(folder, "W_test"),
        max_rows=LARGEST_EVALUATED,
    )
    return {
        "seconds": time.perf_counter() - start,
        "perplexity": quality.perplexity,
        "training": quality.training,
        "held_out": quality.held_out,
    }


def _load(folder, name):
    path = folder / f"{name}.npy"
    return np.load(path) if path.exists() else None


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    (options.folder / "quality.json").write_text(json.dumps(measure(options.folder)))


if __name__ == "__main__":
    main()
