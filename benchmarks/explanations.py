"""Measure whether explanations are right, ours beside those of captum and SHAP.

    OMP_NUM_THREADS=1 PTSNE_DATA=folder python benchmarks/explanations.py
    python benchmarks/explanations.py --only quality perturbation --datasets wine
    python benchmarks/explanations.py --only timing --force      # on a quiet machine
    python benchmarks/explanations.py --page                     # tables of docs/explanations.md

All methods explain the same rows of the same trained maps in float64. One JSON file per part and
data set; what is there is not measured again without ``--force``. A method that fails keeps its
row and says why. The parts do not touch each other's files: two can run at once.
"""

import argparse
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import records
import torch
from attribution import page
from attribution.parts import PARTS, described
from machine import commit, hardware, versions

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "captum", "shap")


def path_of(part, dataset, folder):
    return folder / f"explanations-{part}-{dataset}.json"


def measured(part, dataset, projection, seed):
    """One run: figures of every method, and when and how they came about."""
    start = time.perf_counter()
    methods = PARTS[part].measure(dataset, projection, seed)
    return {
        "projection": projection,
        "seed": seed,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "methods": methods,
    }


def update(part, dataset, options):
    """Measure what a file lacks, and write it after each run."""
    path = path_of(part, dataset, options.output)
    old = records.read(path) or {"runs": []}
    record = {
        "part": part,
        "dataset": dataset,
        "data": described(dataset),
        "conditions": {
            **hardware(), "threads": torch.get_num_threads(), "versions": versions(PACKAGES)
        },
        "runs": [] if options.force else old["runs"],
    }  # fmt: skip
    there = {(run["projection"], run["seed"]) for run in record["runs"]}
    for projection in PARTS[part].projections:
        for seed in options.seeds:
            if (projection, seed) in there or seed > PARTS[part].largest_seed:
                continue
            run = measured(part, dataset, projection, seed)
            record["runs"].append(run)
            records.write(path, record)
            print(f"{part} {dataset} {projection} seed {seed}: {run['seconds']} s", flush=True)


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--datasets", nargs="+", help="of those that a part has; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--force", action="store_true", help="measure again what is there")
    parser.add_argument("--page", action="store_true", help="only write the page's tables")
    parser.add_argument("--output", type=Path, default=records.RESULTS)
    parser.add_argument("--into", type=Path, default=page.PAGE, help="another page")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    for part in [] if options.page else options.only:
        for dataset in PARTS[part].datasets:
            if not options.datasets or dataset in options.datasets:
                update(part, dataset, options)
    parts = page.read_parts(options.output)
    text = page.filled(options.into.read_text("utf-8"), parts)
    options.into.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
