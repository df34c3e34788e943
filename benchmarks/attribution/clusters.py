"""What tells two clusters apart? Made clusters whose answer is known, and genes of blood cells."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

from attribution.methods import OURS, PEERS, shares

N_GROUPS = 6
N_ROWS = 600
N_PAIRS = 100
CLUSTER_PEERS = ("captum IG, 50 steps", "captum DeepLift", "captum InputXGradient")


class Design(NamedTuple):
    """Clusters 0 and 1 differ in k of D columns, by so many standard deviations in all."""

    k: int
    n_columns: int
    noise: float

    def __str__(self):
        return f"k={self.k}, D={self.n_columns}, noise={self.noise:g}"


DESIGNS = [
    Design(k, n_columns, noise)
    for k, n_columns in ((1, 10), (3, 10), (3, 50), (10, 50), (3, 200), (20, 200))
    for noise in (0.5, 1.0)
]


def made(design, rng):
    """Rows of six Gaussian clusters, their labels, and the k columns that are the answer."""
    # Centres have deviation 3; that of cluster 1 is that of cluster 0 but for the k columns. Three
    # loud columns, with 3 times the noise, tell no clusters apart.
    k, n_columns, noise = design
    centers = rng.normal(scale=3, size=(N_GROUPS, n_columns))
    columns = rng.permutation(n_columns)
    answer, loud = columns[:k], columns[k : k + 3]
    centers[1] = centers[0]
    centers[1, answer] += 6 * rng.choice([-1, 1], size=k)
    centers[:, loud] = centers[0, loud]
    labels = np.arange(N_ROWS) % N_GROUPS
    deviation = np.full(n_columns, noise)
    deviation[loud] = 3 * noise
    return centers[labels] + deviation * rng.normal(size=(N_ROWS, n_columns)), labels, answer


def cluster_shares(map_, X, labels, a, b):
    """Each feature's share of the way from cluster a to b by each method, (D,)."""
    why = map_.model.explain(X)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where local maps do not reach so far
        for method in OURS:
            found[f"ours: {method}"] = _ours(why, labels, a, b, method)
    rng = np.random.default_rng(0)
    members = [rng.choice(np.flatnonzero(labels == label), N_PAIRS) for label in (a, b)]
    r, x = (torch.from_numpy(X[rows]) for rows in members)
    start, end = (torch.from_numpy(why.Y[labels == label].mean(0)) for label in (a, b))
    for name in CLUSTER_PEERS:
        of_pairs = shares(PEERS[name](map_, x, r), (end - start).expand(N_PAIRS, -1))
        found[name] = of_pairs.mean(0).numpy()
    return found


def _ours(why, labels, a, b, method):
    """`Explanation.contrast_clusters`; None where the local maps lead away and it says so."""
    try:
        table = why.contrast_clusters(labels, a, b, method=method, n_pairs=N_PAIRS)
    except ValueError:
        if method != "local":
            raise
        return None
    return table.set_index("feature")["share"][why.feature_names].to_numpy()


def precision(score, answer):
    """Share of the answer among as many features with the largest |score|; 0 without a score."""
    if score is None:
        return 0.0
    named = np.argsort(-np.abs(score), kind="stable")[: len(answer)]
    return float(np.isin(named, answer).mean())


def is_apart(Y, labels):
    """Share of the rows of clusters 0 and 1 whose nearest row of the two is of their own."""
    chosen = labels < 2
    Y, labels = Y[chosen], labels[chosen]
    distance = np.linalg.norm(Y[:, None] - Y, axis=2)
    np.fill_diagonal(distance, np.inf)
    return float((labels[distance.argmin(1)] == labels).mean())


# --- genes ----------------------------------------------------------------------------------------


def log_normalised(counts):
    """``log1p`` of counts (N, D) scaled to the median total of a cell."""
    total = counts.sum(1, keepdims=True, dtype=np.float64)
    return np.log1p(counts / total * np.median(total))


def rank_sum(X, labels, a, b):
    """|z| of Wilcoxon's rank-sum test of each column between two clusters, ties corrected, (D,)."""
    first, second = X[labels == a], X[labels == b]
    n, m = len(first), len(second)
    both = np.vstack([first, second])
    ranks = rankdata(both, axis=0)
    ties = np.array([_tie_term(column) for column in both.T])
    expected = n * (n + m + 1) / 2
    variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1)))
    spread = np.sqrt(np.where(variance > 0, variance, 1))
    return np.abs(ranks[:n].sum(0) - expected) / spread


def _tie_term(column):
    count = np.unique(column, return_counts=True)[1].astype(np.float64)
    return float((count**3 - count).sum())


def overlap(score, other, n_features=20):
    """Features that are among the first by both scores; None without a score."""
    if score is None:
        return None
    first, second = (np.argsort(-np.abs(s), kind="stable")[:n_features] for s in (score, other))
    return len(np.intersect1d(first, second))
