"""Fit one method and place the held-out rows, in a process and, for peers, a Python of its own.

Started by run.py with a folder that holds X_train.npy and X_test.npy; leaves there the places
(Y_train.npy, Y_test.npy), W where the method explains (W_train.npy, W_test.npy) and job.json.
Imports nothing but numpy and the method's own library.
"""

import argparse
import json
import logging
import os
import statistics
from pathlib import Path

import numpy as np
from machine import Watch
from methods import METHODS, Setting, load_method

REPEATED_BELOW = 1.0  # seconds: a transform that is faster is repeated
REPETITIONS = 5


def measure(folder, method, setting):
    """Figures of one run, for JSON; places and W as files of the folder."""
    X_train, X_test = (np.load(folder / f"X_{part}.npy") for part in ("train", "test"))
    file = load_method(method)
    runner = file.Method(setting, **METHODS[method].parameters)
    with Watch() as warm_up:
        runner.warm_up(X_train)
    load_before = os.getloadavg()[0]
    with Watch() as fit:
        Y_train = runner.fit(X_train)
    with Watch() as transform:
        Y_test = runner.transform(X_test)
    again = _transform_again(runner, X_test, transform.seconds)
    load_average = max(load_before, os.getloadavg()[0])
    _save(folder, Y_train=Y_train, Y_test=Y_test)
    explain = _explained(runner, folder, X_train, X_test)
    n_explained = len(X_train) + len(X_test)
    return {
        "note": file.NOTE,
        "load_average": load_average,
        "seconds": {
            "fit": fit.seconds,
            "fit_cpu": fit.cpu_seconds,
            "transform": transform.seconds,
            "transform_cpu": transform.cpu_seconds,
            "transform_again": again,
            "explain": explain,
            "warm_up": warm_up.seconds,
        },
        "phases": runner.phases() if hasattr(runner, "phases") else {},
        "rows_per_second": {
            "transform": len(X_test) / (again or transform.seconds),
            "explain": None if explain is None else n_explained / explain,
        },
        "memory_gib": {"fit": fit.memory_gib, "transform": transform.memory_gib},
        "reported_kl": runner.reported_kl() if hasattr(runner, "reported_kl") else None,
    }


def _transform_again(runner, X, first):
    """Median seconds of later calls, where they are cheap: the first one may still set up."""
    if first > REPEATED_BELOW:
        return None
    seconds = []
    for _ in range(REPETITIONS):
        with Watch() as watch:
            runner.transform(X)
        seconds.append(watch.seconds)
    return statistics.median(seconds)


def _explained(runner, folder, X_train, X_test):
    """Seconds that W of all rows takes, or None."""
    if not hasattr(runner, "explain"):
        return None
    seconds = 0.0
    for part, X in (("train", X_train), ("test", X_test)):
        with Watch() as watch:
            W = runner.explain(X)
        seconds += watch.seconds
        _save(folder, **{f"W_{part}": W})
    return seconds


def _save(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with X_train.npy and X_test.npy")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    logging.captureWarnings(True)
    figures = measure(options.folder, options.method, Setting(options.seed, options.threads))
    (options.folder / "job.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
