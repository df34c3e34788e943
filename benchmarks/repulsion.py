"""Time one full gradient of 10,000 MNIST digits: our grid, our exact pairs and openTSNE's FFT.

    PTSNE_DATA=folder python benchmarks/repulsion.py

Maps are snapshots of one descent, so that all engines see the same points: the start, the end of
early exaggeration, shortly after it, and the final map. Errors are those of the net gradient,
relative to the exact one in float64; on a final map that is nearly zero, which makes them large.
"""

import argparse
import itertools
import os
import time
from pathlib import Path

import numpy as np
import torch
from machine import commit, hardware, versions
from openTSNE import tsne
from records import RESULTS, write
from scipy import sparse
from sklearn.decomposition import PCA

from ptsne.affinities import joint_probabilities, nearest_neighbors
from ptsne.datasets import load
from ptsne.losses import Edges, kl_gradient
from ptsne.repulsion import RepulsionEngine

# (name, steps to it, exaggeration on the way)
STAGES = (("start", 0, 12.0), ("exaggerated", 100, 12.0), ("mid", 50, 1.0), ("final", 450, 1.0))
OPEN_TSNE = {"n_interpolation_points": 3, "min_num_intervals": 50, "ints_in_interval": 1}


def problem(n_points):
    X = PCA(50, random_state=0).fit_transform(load("mnist").X[:n_points])
    P = joint_probabilities(nearest_neighbors(X, 90), 30.0)
    start = X[:, :2] / X[:, 0].std() * 1e-4
    return sparse.csr_matrix(P), torch.as_tensor(start, dtype=torch.float32)


def snapshots(edges, Y):
    """Momentum and gains, as t-SNE descends."""
    engine, velocity, gain = RepulsionEngine(), torch.zeros_like(Y), torch.ones_like(Y)
    for name, steps, exaggeration in STAGES:
        for _ in range(steps):
            gradient, _ = kl_gradient(
                edges, Y, exaggeration=exaggeration, engine=engine, with_kl=False
            )
            agrees = gradient * velocity > 0
            gain = torch.where(agrees, gain * 0.8, gain + 0.2).clamp_min(0.01)
            velocity = 0.8 * velocity - len(Y) / exaggeration * gain * gradient
            Y = Y + velocity
        yield name, exaggeration, Y


def ours(edges, Y, exaggeration, _n_threads):
    """Name -> function that gives (gradient, kl) or, for a part of it, anything."""
    engine = RepulsionEngine(method="fft")

    def gradient(**options):
        return kl_gradient(edges, Y, exaggeration=exaggeration, **options)

    return {
        "grid": lambda: gradient(engine=engine),
        "grid, no kl": lambda: gradient(engine=engine, with_kl=False),
        "grid, repulsion alone": lambda: engine(Y),
        "exact float32": lambda: gradient(method="exact"),
    }


def theirs(P, Y, exaggeration, n_threads):
    map64, P_exaggerated = Y.double().numpy(), P * exaggeration

    def open_tsne():
        kl, gradient = tsne.kl_divergence_fft(
            map64.copy(), P_exaggerated, 1.0, OPEN_TSNE, should_eval_error=True, n_jobs=n_threads
        )
        # with exaggerated P its value is not the KL, so that is not reported
        return 4 * torch.from_numpy(gradient), kl if exaggeration == 1 else np.nan

    return {"openTSNE fft": open_tsne}


def milliseconds(function, budget):
    """Median and least of 3 to 50 runs after one to warm up, within a budget of seconds."""
    function()
    times = []
    while len(times) < 3 or (len(times) < 50 and sum(times) < 1e3 * budget):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return {"median": float(np.median(times)), "least": min(times), "runs": len(times)}


def accuracy(result, exact_gradient, exact_kl):
    gradient, kl = result
    error = (gradient.double() - exact_gradient).norm() / exact_gradient.norm()
    return {"gradient_error": float(error), "kl_error": float(kl) / float(exact_kl) - 1}


def rows(edges, P, maps, threads, budget):
    exact = [
        kl_gradient(edges, Y.double(), exaggeration=exaggeration, method="exact")
        for _, exaggeration, Y in maps
    ]
    # openTSNE last: PyTorch's threads wait longer for each other once a second OpenMP has run
    for (engines, joint), n_threads in itertools.product(((ours, edges), (theirs, P)), threads):
        torch.set_num_threads(n_threads)
        for (name, exaggeration, Y), truth in zip(maps, exact, strict=True):
            span = float((Y.amax(0) - Y.amin(0)).max())
            for label, function in engines(joint, Y, exaggeration, n_threads).items():
                row = {"map": name, "span": span, "engine": label, "threads": n_threads}
                row["ms"] = milliseconds(function, budget)
                if "alone" not in label:
                    row |= accuracy(function(), *truth)
                yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row (default: 2)")
    parser.add_argument("--output", type=Path, default=RESULTS / "repulsion.json")
    options = parser.parse_args()

    # the largest first: PyTorch's threads also do in a process that began with fewer
    torch.set_num_threads(options.threads[0])
    where = {
        "commit": commit(), "hardware": hardware(), "load_at_start": os.getloadavg()[0],
        "versions": versions(("torch", "numpy", "openTSNE")),
    }  # fmt: skip
    P, start = problem(options.points)
    edges = Edges.from_sparse(P)
    maps = list(snapshots(edges, start))
    table = []
    for row in rows(edges, P, maps, options.threads, options.seconds):
        table.append(row)
        print(
            f"{row['map']:>12} {row['span']:8.2g} {row['threads']} threads  {row['engine']:<22}"
            f"{row['ms']['median']:9.1f} ms (least {row['ms']['least']:.1f})"
            f"  error {row.get('gradient_error', np.nan):8.1e}"
            f"  KL {100 * row.get('kl_error', np.nan):+.3f} %",
            flush=True,
        )
    report = {"data": "mnist", "points": options.points, "edges": P.nnz, **where, "rows": table}
    write(options.output, report)


if __name__ == "__main__":
    main()
