"""Rows, and the maps trained on them: the same for every method that explains."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

from ptsne import ParametricTSNE
from ptsne.datasets import load

STANDARDISED = ("wine", "breast_cancer", "diabetes", "toy")
PROJECTIONS = {"atlas": "atlas", "mlp": (100, 100), "mlp-full": "mlp"}
N_IMAGES = 3000
LARGEST_HELD_OUT = 200
MAX_ITER = 250


class Problem(NamedTuple):
    """Training and held-out rows."""

    name: str
    X_train: Any
    X_test: Any
    y_train: Any
    y_test: Any

    def describe(self):
        return {
            "training_rows": len(self.X_train),
            "held_out_rows": len(self.X_test),
            "columns": self.X_train.shape[1],
            "standardised": self.name in STANDARDISED,
        }


class TrainedMap(NamedTuple):
    """A fitted map, and what every method is given of it."""

    model: ParametricTSNE
    network: nn.Module
    X_train: torch.Tensor
    baseline: torch.Tensor  # (D,) mean of the training rows


@lru_cache
def problem(name):
    """Rows of a table, the last third held out; of MNIST 3,000 training and 200 test images."""
    rng = np.random.default_rng(0)
    if name == "mnist":
        train, test = (_drawn("mnist", *part, rng) for part in (("train", N_IMAGES), ("test", 200)))
        return Problem(name, train[0], test[0], train[1], test[1])
    X, y = _table(name)
    order = rng.permutation(len(X))
    train, test = np.split(order, [len(X) - len(X) // 3])
    test = test[:LARGEST_HELD_OUT]
    if name in STANDARDISED:
        X = (X - X[train].mean(0)) / X[train].std(0)
    return Problem(name, X[train], X[test], y[train], y[test])


def _drawn(name, split, n_rows, rng):
    data = load(name, split=split)
    rows = rng.permutation(len(data.X))[:n_rows]
    return np.asarray(data.X[rows], dtype=np.float64), data.y[rows]


def _table(name):
    if name == "toy":  # Artelt et al.: Gaussian columns, each around a centre from 0 to 100
        rng = np.random.default_rng(0)
        return rng.normal(100 * rng.random(10), size=(500, 10)), np.zeros(500, dtype=int)
    if name == "diabetes":
        data = load_diabetes(scaled=False)
        return data.data, data.target
    data = load(name, split="all")
    return np.asarray(data.X, dtype=np.float64), data.y


@lru_cache
def trained(name, projection, seed):
    return fitted(problem(name).X_train, projection, seed)


def fitted(X, projection, seed, **parameters):
    """A map of rows in float64, gradients off."""
    parameters = {"max_iter": MAX_ITER, **parameters}
    model = ParametricTSNE(projection=PROJECTIONS[projection], random_state=seed, **parameters).fit(
        X
    )
    rows = torch.from_numpy(X)
    return TrainedMap(model, model.network_.double().eval(), rows, rows.mean(0))


def places(network, x, rows=4096):
    with torch.no_grad():
        return torch.cat([network(part) for part in x.split(rows)])
