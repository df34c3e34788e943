"""Time `transform` of MNIST rows beside the matrix products that it needs.

    PTSNE_DATA=folder python benchmarks/transform.py

A map of 10,000 digits places 1, 100, 5,000 and 60,000 rows, with one thread and with two. The bare
products are those of a linear encoder and of all scores of the atlas, with their constants::

    z = X A^T + a           (N, D) (D, L)   of standardised rows
    s = z (2 K / T)^T + c   (N, L) (L, m)   the largest is the nearest landmark

on rows that are float64 already, in blocks that a cache holds, into memory that is there. `bare`
has both in float64, in which the map is computed; `bare mixed` has the scores in float32, as
`transform` looks for candidates. Everything else counts against us: checks of the input, its
conversion and standardisation, the search for the largest scores, charts, and the calls themselves.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from machine import commit, environment, hardware, versions
from records import RESULTS, write
from splits import load_split
from threadpoolctl import threadpool_limits

import ptsne

BLOCK = 256
SHORTEST = 0.02
"""Seconds that one reading of the clock spans at least."""


def bare_products(map_, X, scores_dtype):
    """A function that does the products of X, and nothing else."""
    standardize, skip = map_.network_.encoder
    atlas, linear = map_.network_.projection, skip.linear
    blocks = torch.split(standardize(torch.from_numpy(X).double()), BLOCK)
    n = len(blocks[0])
    slope = 2 * atlas.landmarks / atlas.temperature
    level = (-(slope * atlas.landmarks).sum(1) / 2).to(scores_dtype)
    slope, weight = slope.T.to(scores_dtype), linear.weight.T
    codes = [torch.addmm(linear.bias, x, weight).to(scores_dtype) for x in blocks]
    z, s = torch.empty(n, weight.shape[1]).double(), torch.empty(n, len(level), dtype=scores_dtype)

    def products():
        for x, code in zip(blocks, codes, strict=True):
            torch.addmm(linear.bias, x, weight, out=z[: len(x)])
            torch.addmm(level, code, slope, out=s[: len(x)])

    return products


def repeated(function, repeats):
    for _ in range(repeats):
        function()


def milliseconds(functions, rounds):
    """Of each function, wall and processor time: functions take turns, so that all see one load."""
    repeats = {}
    for name, function in functions.items():
        function()
        start = time.perf_counter()
        function()
        repeats[name] = max(1, int(SHORTEST / (time.perf_counter() - start)))
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter(), time.process_time()
            repeated(function, repeats[name])
            end = time.perf_counter(), time.process_time()
            spent = [1e3 * (b - a) / repeats[name] for a, b in zip(start, end, strict=True)]
            times[name].append(spent)
    return {
        name: {
            "least": float(np.min(spent, 0)[0]),
            "median": float(np.median(spent, 0)[0]),
            "processor_least": float(np.min(spent, 0)[1]),
            "processor_median": float(np.median(spent, 0)[1]),
        }
        for name, spent in times.items()
    }


def measured(map_, X, rounds):
    """Times of one batch, and how often the bare products fit into `transform`."""
    with torch.no_grad():
        functions = {
            "transform": lambda: map_.transform(X),
            "bare": bare_products(map_, X, torch.float64),
            "bare mixed": bare_products(map_, X, torch.float32),
        }
        times = milliseconds(functions, rounds)
    least = {name: spent["least"] for name, spent in times.items()}
    return {
        "milliseconds": times,
        "ratio": least["transform"] / least["bare"],
        "ratio_mixed": least["transform"] / least["bare mixed"],
    }


def explained(map_, X, rounds):
    times = milliseconds({"explain": lambda: map_.explain(X)}, rounds)["explain"]
    return {"milliseconds": times, "rows_per_second": 1e3 * len(X) / times["median"]}


def fitted(options, X):
    """The map: an earlier one where a file of it is named and there."""
    if options.map and options.map.exists():
        return ptsne.load(options.map)
    map_ = ptsne.ParametricTSNE(random_state=0).fit(X)
    if options.map:
        map_.save(options.map)
    return map_


def batches(X, sizes):
    """The first rows, again from the start where there are not enough."""
    return {size: np.resize(X, (size, X.shape[1])) for size in sizes}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist-10k")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 100, 5000, 60_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--map", type=Path, help="keep the fitted map in this file, or take it")
    parser.add_argument("--output", type=Path, default=RESULTS / "transform.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(max(options.threads))  # the largest first: see repulsion.py
    split = load_split(options.dataset)
    map_ = fitted(options, split.X_train)
    load, table = os.getloadavg()[0], []
    for threads in options.threads:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            for size, X in batches(split.X_test, options.rows).items():
                row = {"rows": size, "threads": threads, **measured(map_, X, options.rounds)}
                table.append(row)
                print(
                    f"{size:6} rows, {threads} threads: {row['ratio']:.2f} times the products, "
                    f"{row['ratio_mixed']:.2f} times those with float32 scores",
                    flush=True,
                )
    report = {
        "data": options.dataset,
        "landmarks": len(map_.landmark_indices_),
        "dtype": str(split.X_test.dtype),
        "commit": commit(),
        "hardware": hardware(),
        "environment": environment(),
        "load_at_start": load,
        "versions": versions(("torch", "numpy", "scikit-learn")),
        "rows": table,
        "explain": explained(map_, split.X_test[:1000], options.rounds),
    }
    write(options.output, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
