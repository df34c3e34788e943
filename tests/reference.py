"""Slow, obvious twins of the library: loops over points in float64, one formula each."""

import math

import numpy as np

# --- affinities ---------------------------------------------------------------------------------


def rows_with_ties():
    X = np.random.default_rng(0).normal(2.0, 1.0, size=(60, 7))
    X[[3, 8]] = 0.0  # two zero rows, which are also duplicates
    X[20] = X[21]
    return X


def distance(x, y, metric):
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if metric == "manhattan":
        return sum(abs(a - b) for a, b in zip(x, y, strict=True))
    if metric == "euclidean":
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))
    if not x.any() and not y.any():
        return 0.0
    if not x.any() or not y.any():
        return 1.0
    return 1 - sum(x * y) / math.sqrt(sum(x * x) * sum(y * y))


def nearest_distances(train, query, n_neighbors, metric, *, exclude_self):
    """Sorted distances of each query row to its nearest training rows."""
    result = []
    for i, x in enumerate(query):
        others = [j for j in range(len(train)) if not (exclude_self and i == j)]
        result.append(sorted(distance(x, train[j], metric) for j in others)[:n_neighbors])
    return np.array(result)


def gaussian_row(distances, perplexity):
    """p_{j|i} of one row by 200 bisections of β between 0 and 1e6 / (mean square distance)."""
    squares = [float(d) ** 2 for d in distances]
    low, high = 0.0, 1e6 / (sum(squares) / len(squares))
    for _ in range(200):
        beta = (low + high) / 2
        weights = [math.exp(-beta * (s - min(squares))) for s in squares]
        p = [w / sum(weights) for w in weights]
        entropy = -sum(q * math.log(q) for q in p if q > 0)
        low, high = (beta, high) if entropy > math.log(perplexity) else (low, beta)
    return np.array(p), math.sqrt(1 / (2 * beta))


def joint_matrix(indices, distances, perplexity):
    """Dense P = (P_{j|i} + P_{i|j}) / 2N."""
    n = len(indices)
    conditional = np.zeros((n, n))
    for i in range(n):
        p, _ = gaussian_row(distances[i], perplexity)
        for j, value in zip(indices[i], p, strict=True):
            conditional[i, j] = value
    return (conditional + conditional.T) / (2 * n)


# --- metrics ------------------------------------------------------------------------------------


def ranked(train, x, *, left_out=None):
    """Training rows from the nearest to the farthest, Euclidean."""
    others = [j for j in range(len(train)) if j != left_out]
    return sorted(others, key=lambda j: distance(x, train[j], "euclidean"))


def neighbor_recall(X, Y, n_neighbors, X_train, Y_train, *, leave_out):
    kept = 0
    for i in range(len(X)):
        left_out = i if leave_out else None
        in_data = ranked(X_train, X[i], left_out=left_out)[:n_neighbors]
        in_map = ranked(Y_train, Y[i], left_out=left_out)[:n_neighbors]
        kept += len(set(in_data) & set(in_map))
    return kept / (n_neighbors * len(X))


def trustworthiness(X, Y, n_neighbors, X_train, Y_train, *, leave_out):
    """Venna and Kaski (2001), divided by the penalty of the k farthest rows as neighbours."""
    penalty, worst = 0, 0
    for i in range(len(X)):
        left_out = i if leave_out else None
        in_data = ranked(X_train, X[i], left_out=left_out)
        in_map = ranked(Y_train, Y[i], left_out=left_out)
        for j in in_map[:n_neighbors]:
            penalty += max(0, in_data.index(j) + 1 - n_neighbors)
        m = len(in_data)
        worst += sum(rank - n_neighbors for rank in range(m - n_neighbors + 1, m + 1))
    return 1 - penalty / worst


def local_fidelity(W, X, Y, n_neighbors, X_train, Y_train, *, leave_out):
    pairs = []
    for i in range(len(X)):
        for j in ranked(X_train, X[i], left_out=i if leave_out else None)[:n_neighbors]:
            pairs.append((Y_train[j] - Y[i], W[i] @ (X_train[j] - X[i])))
    longest = np.quantile([np.linalg.norm(dy) for dy, _ in pairs], 0.9)
    pairs = [(dy, wdx) for dy, wdx in pairs if np.linalg.norm(dy) <= longest]
    errors = [np.linalg.norm(dy - wdx) for dy, wdx in pairs]
    lengths = [np.linalg.norm(dy) for dy, _ in pairs]
    cosines = [dy @ wdx / np.linalg.norm(dy) / np.linalg.norm(wdx) for dy, wdx in pairs]
    within_half = [e <= length / 2 for e, length in zip(errors, lengths, strict=True)]
    r2 = 1 - np.median(np.square(errors)) / np.median(np.square(lengths))
    return r2, np.mean(cosines), np.mean(within_half)
