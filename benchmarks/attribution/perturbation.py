"""Which features moved the row? Three features are shifted; an explanation has to name them.

The task of A. Artelt, A. Schulz and B. Hammer (2023), "Why here and not there?", with their data
sets and their shift of 5 standard deviations. There an explanation sees the old row and the new
place; here methods see both rows, as `Explanation.contrast` does, and name exactly three features.
"""

import warnings

import numpy as np
import torch

from attribution.methods import OURS, PEERS, names_for, shares
from attribution.problems import places

N_CHANGED = 3
N_ROWS = 40
SETTINGS = ((5.0, 0.0), (5.0, 0.1), (5.0, 0.3), (1.0, 0.1))
NO_MAP = "size of the change, no map"


def shifted(x, shift, noise, rng):
    """Rows (N, D) of standardised columns with three features shifted and all others jittered."""
    changed = rng.random(x.shape).argsort(1)[:, :N_CHANGED]
    step = noise * rng.normal(size=x.shape)
    np.put_along_axis(step, changed, shift, 1)
    return x + step, changed


def recall_at_3(score, changed, rng):
    """Share of the changed features (N, 3) among the three with the largest |score|; ties drawn."""
    tie = rng.random(score.shape)
    order = np.lexsort((tie, -np.abs(score)), axis=1)
    named = order[:, :N_CHANGED]
    return float((named[:, :, None] == changed[:, None, :]).any(2).mean())


def recalls(map_, X, shift, noise, rng):
    """Recall of each method, and of the sizes of the changes themselves."""
    X = X[:N_ROWS]
    moved, changed = shifted(X, shift, noise, rng)
    score = {f"ours: {method}": contrasts(map_, X, moved, method) for method in OURS}
    x, r = torch.from_numpy(moved), torch.from_numpy(X)
    way = places(map_.network, x) - places(map_.network, r)
    for name in names_for(X.shape[1], PEERS):
        score[name] = shares(PEERS[name](map_, x, r), way).numpy()
    score[NO_MAP] = moved - X
    return {name: recall_at_3(values, changed, rng) for name, values in score.items()}


def contrasts(map_, X, moved, method):
    """`Explanation.contrast` of each row (N, D) and what became of it, (N, D)."""
    why = map_.model.explain(X[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where local maps do not reach so far
        return np.stack([why.contrast(*ends, method=method) for ends in zip(X, moved, strict=True)])
