"""What is measured: one function per part, ``(data set, projection, seed) -> figures``."""

import time
from typing import Any, NamedTuple

import numpy as np
import torch

from attribution import clusters, measures, perturbation
from attribution.methods import METHODS, names_for
from attribution.problems import MAX_ITER, Problem, fitted, places, problem, trained
from ptsne import linearize
from ptsne.datasets import load
from ptsne.metrics import knn_accuracy, local_fidelity

TIMED_SECONDS = 2.0
TIMED_ROWS = 200
GENE_PAIRS = ((0, 1), (0, 2), (2, 3), (3, 4))
RANDOM = "random order"
ON_ONE_CHART = "rows on one chart"
COMPLETE = 1e-9


class Part(NamedTuple):
    """A part of the benchmark."""

    measure: Any
    datasets: tuple[str, ...]
    projections: tuple[str, ...]
    largest_seed: int = 2


def quality(name, projection, seed):
    """Completeness, infidelity, sensitivity, deletion and insertion of every method."""
    map_, x = trained(name, projection, seed), torch.from_numpy(problem(name).X_test)
    found = {n: measures.quality(map_, x, METHODS[n], seed) for n in names_for(x.shape[1])}
    return {**found, RANDOM: measures.random_order(map_, x, seed)}


def perturbed(name, projection, seed):
    """Recall@3 of the features that were changed."""
    map_, X = trained(name, projection, seed), problem(name).X_test
    settings = {}
    for shift, noise in perturbation.SETTINGS:
        rng = np.random.default_rng(seed)
        settings[f"shift {shift:g}, noise {noise:g}"] = perturbation.recalls(
            map_, X, shift, noise, rng
        )
    return _by_method(settings)


def known_clusters(_, projection, seed):
    """Precision@k of what tells two made clusters apart."""
    designs = {}
    for design in clusters.DESIGNS:
        X, labels, answer = clusters.made(design, np.random.default_rng(seed))
        map_ = fitted(X, projection, seed)
        scores = clusters.cluster_shares(map_, X, labels, 0, 1)
        precision = {n: clusters.precision(score, answer) for n, score in scores.items()}
        apart = knn_accuracy(map_.model.embedding_, labels, n_neighbors=1)
        designs[str(design)] = {**precision, "1-NN accuracy of the map": apart}
    return _by_method(designs)


def genes(name, projection, seed):
    """Genes among the 20 first by both the contrast of clusters and a rank-sum test."""
    data = load(name, split="all")
    X = clusters.log_normalised(data.X)
    map_ = fitted(X, projection, seed)
    found = {}
    for a, b in GENE_PAIRS:
        z = clusters.rank_sum(X, data.y, a, b)
        scores = clusters.cluster_shares(map_, X, data.y, a, b)
        scores["difference of means, no map"] = X[data.y == b].mean(0) - X[data.y == a].mean(0)
        found[f"{data.target_names[a]} and {data.target_names[b]}"] = {
            n: clusters.overlap(score, z) for n, score in scores.items()
        }
    return _by_method(found)


def fidelity(name, projection, seed):
    """How well W of a row predicts where its 5 nearest training rows lie."""
    rows = problem(name)
    n_iter = MAX_ITER if projection == "mlp-full" else "auto"  # its default takes many minutes
    map_ = fitted(rows.X_train, projection, seed, max_iter=n_iter)
    Y_train = places(map_.network, map_.X_train).numpy()
    held_out = torch.from_numpy(rows.X_test)
    W_train, W = (linearize(map_.network, x).weight().numpy() for x in (map_.X_train, held_out))
    parts = {
        "training": local_fidelity(W_train, rows.X_train, Y_train),
        "held_out": local_fidelity(
            W,
            rows.X_test,
            places(map_.network, held_out).numpy(),
            X_train=rows.X_train,
            Y_train=Y_train,
        ),
    }
    measured = {part: found._asdict() for part, found in parts.items()}
    return {"W": {**measured, "kl": float(map_.model.kl_divergence_)}}


def nearby(name, projection, seed):
    """How complete parts are from a row's landmark, the nearest of the rows that hold its place."""
    map_, rows = trained(name, projection, seed), problem(name)
    why = map_.model.explain(rows.X_test, baseline="landmark")
    x, r = torch.from_numpy(rows.X_test), torch.from_numpy(why.baseline.copy())
    found = {}
    for name_of, attribute in METHODS.items():
        if "SHAP" in name_of or "InputX" in name_of:
            continue  # these explain from a background or from zeros
        error = measures.completeness(map_, x, attribute(map_, x, r)).nan_to_num()  # 0 of 0
        found[name_of] = {
            "complete": float((error < COMPLETE).double().mean()),
            "largest_error": float(error.max()),
        }
    return {**found, ON_ONE_CHART: {"complete": float((why.n_active == 1).mean())}}


def timing(name, projection, seed):
    """Processor seconds for 1,000 rows, all outputs, from the mean of the training rows."""
    map_, rows = trained(name, projection, seed), problem(name)
    x = torch.from_numpy(np.resize(rows.X_test, (TIMED_ROWS, rows.X_test.shape[1])))
    names = names_for(x.shape[1])  # SHAP's take row by row, so that a few tell as much
    return {n: _seconds(METHODS[n], map_, x[:20] if "SHAP" in n else x) for n in names}


def _seconds(attribute, map_, x):
    attribute(map_, x[:2])
    times = []
    while not times or (sum(times) < TIMED_SECONDS and len(times) < 9):
        start = time.process_time()
        attribute(map_, x)
        times.append(time.process_time() - start)
    return {"seconds_per_1000": 1000 * float(np.median(times)) / len(x), "runs": len(times)}


def _by_method(settings):
    """``{setting: {method: figure}}`` the other way round."""
    methods = dict.fromkeys(name for found in settings.values() for name in found)
    return {
        method: {setting: found[method] for setting, found in settings.items()}
        for method in methods
    }


TABLES = ("iris", "wine", "digits", "mnist")
BOTH = ("atlas", "mlp")
PARTS = {
    "quality": Part(quality, TABLES, BOTH),
    "nearby": Part(nearby, TABLES, ("atlas",)),
    "perturbation": Part(perturbed, ("diabetes", "breast_cancer", "wine", "toy"), BOTH),
    "clusters": Part(known_clusters, ("made",), BOTH),
    "genes": Part(genes, ("pbmc4k-counts",), ("atlas",), 0),
    "fidelity": Part(fidelity, TABLES, ("atlas", "mlp", "mlp-full"), 0),
    "timing": Part(timing, TABLES, BOTH, 0),
}


def described(name):
    """The rows of a data set; nothing for those that a part makes itself."""
    known = {*TABLES, *PARTS["perturbation"].datasets}
    return Problem.describe(problem(name)) if name in known else None
