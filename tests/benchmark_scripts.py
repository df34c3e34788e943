"""Scripts of benchmarks/ as modules, and records as they write them."""

import importlib
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def script(name):
    return importlib.import_module(name)


def finished_run(seed=0, **quality):
    held_out = {"recall_15": 0.5, "accuracy_10": 0.9, **quality}
    return {
        "seed": seed,
        "load_average": 0.25,
        "seconds": {"fit": 2.0, "fit_cpu": 3.0, "transform": 0.004},
        "phases": {},
        "memory_gib": {"fit": 0.125},
        "quality": {"training": {"kl_divergence": 1.5, "recall_15": 0.6}, "held_out": held_out},
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
    }


def record(method, runs, dataset="iris", training_rows=100):
    return {
        "dataset": dataset,
        "method": method,
        "conditions": {
            "cpu": "cpu",
            "cores": 2,
            "gpu": None,
            "threads": 2,
            "versions": {"numpy": "2.0"},
        },
        "data": {
            "training_rows": training_rows,
            "held_out_rows": 50,
            "columns": 4,
            "classes": 3,
            "rule": "the last third",
        },
        "runs": runs,
    }
