"""Prints what a map says under 1, 2 and 8 threads; run by test_determinism in a process of its own.

python under_threads.py places.npz
"""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from ptsne import ParametricTSNE

THREADS = (1, 2, 8)
OPTIONS = {"atlas": {}, "mlp": {"encoder": (16,), "projection": (32, 32)}}


def main(path):
    """Fit under each number of threads, and ask the first map under each."""
    X = load_digits().data
    found = {}
    for name, options in OPTIONS.items():
        maps = {}
        for threads in (*THREADS, 1):
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                map_ = ParametricTSNE(max_iter=4, random_state=0, **options).fit(X[:150])
            again = "again" if threads in maps else "fit"
            maps.setdefault(threads, map_)
            found[f"{name} {again} {threads}"] = map_.embedding_
            found[f"{name} kl {again} {threads}"] = map_.kl_divergence_
        for threads in THREADS:
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                why = maps[1].explain(X[300:400])
                found[f"{name} transform {threads}"] = maps[1].transform(X)
                found[f"{name} explain {threads}"] = why.weight
                found[f"{name} intercept {threads}"] = why.intercept
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
