"""From distances to probabilities: a Gaussian per row, as wide as the perplexity asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ptsne.affinities.scan import Neighbors

_TOLERANCE = 1e-12  # of the entropy, and of log β
_MAX_STEPS = 200  # bisection alone needs 80
_LOG_LIMIT = 350.0  # β² overflows at 354


class Conditional(NamedTuple):
    """Conditional probabilities of the neighbours of each row.

    Attributes
    ----------
    probabilities : ndarray of shape (N, k), float64
        ``p_{j|i}`` in the order of the distances; each row sums to 1.
    sigma : ndarray of shape (N,), float64
        Width ``σ_i`` of each Gaussian, in the unit of the distances.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.affinities import conditional_probabilities
    >>> row = conditional_probabilities(np.array([[1.0, 2.0, 3.0]]), 2)
    >>> row.probabilities.round(2), row.sigma.round(2)
    (array([[0.73, 0.24, 0.04]]), array([1.16]))
    """

    probabilities: NDArray[np.float64]
    sigma: NDArray[np.float64]


def conditional_probabilities(
    distances: NDArray[np.float64], perplexity: float | Sequence[float]
) -> Conditional:
    """Calibrate a Gaussian per row so that its perplexity is as asked.

    ``p_{j|i} ∝ exp(-d_ij² / 2σ_i²)`` with ``σ_i`` such that ``exp(H_i) = perplexity``, where
    ``H_i = -Σ_j p_{j|i} log p_{j|i}``, to 1e-12 in ``H``. A row cannot spread over fewer neighbours
    than are at its smallest distance: it is then uniform over those.

    Parameters
    ----------
    distances : ndarray of shape (N, k)
        Distances to the neighbours of each row, ascending.
    perplexity : float or sequence of float
        Effective number of neighbours, from 1 to k. Of several, the probabilities are averaged
        (multiscale [1]_) and the widths are those of the last.

    Returns
    -------
    Conditional
        ``probabilities`` (N, k), rows sum to 1; ``sigma`` (N,).

    Notes
    -----
    ValueError if a perplexity is below 1 or above k.

    References
    ----------
    .. [1] D. Kobak and P. Berens (2019). The art of using t-SNE for single-cell transcriptomics.
       Nature Communications 10, 5416.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.affinities import conditional_probabilities
    >>> conditional_probabilities(np.array([[1.0, 1.0, 1.0, 9.0]]), 3).probabilities.round(3)
    array([[0.333, 0.333, 0.333, 0.   ]])
    """
    perplexities = require_perplexities(perplexity, distances.shape[1])
    scale = distances.max(axis=1, keepdims=True)  # (N, 1); squares then neither over- nor underflow
    square = (distances / np.where(scale == 0, 1.0, scale)) ** 2
    excess = square - square.min(axis=1, keepdims=True)  # in [0, 1]; the factor cancels in p
    mean = np.zeros_like(excess)
    for value in perplexities:
        log_beta = _calibrate(excess, np.log(value))
        mean += _gaussian(excess, log_beta) / len(perplexities)
    sigma = np.where(scale == 0, 1.0, scale)[:, 0] / np.sqrt(2 * np.exp(log_beta))
    return Conditional(mean, sigma)


def require_perplexities(perplexity: float | Sequence[float], n_neighbors: int) -> list[float]:
    """Perplexities as a list; ValueError for one below 1, or above the number of neighbours."""
    perplexities = [float(value) for value in np.atleast_1d(np.asarray(perplexity))]
    if not perplexities or not min(perplexities) >= 1:
        raise ValueError(f"perplexity must be a number from 1 on, or a list of them: {perplexity}")
    if max(perplexities) > n_neighbors:
        raise ValueError(
            f"perplexity ({max(perplexities)}) must not exceed the number of neighbours "
            f"({n_neighbors}); lower perplexity or pass more neighbours"
        )
    return perplexities


def _gaussian(excess: NDArray[np.float64], log_beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """``exp(-β excess)``, rows normalised: (N, k)."""
    weight: NDArray[np.float64] = np.exp(-np.exp(log_beta)[:, None] * excess)
    weight /= weight.sum(axis=1, keepdims=True)
    return weight


def _calibrate(excess: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
    """Solve ``H(β) = entropy`` for ``log β`` in every row: Newton steps, bisection as the guard."""
    low, high = _bracket(excess)
    if entropy >= np.log(excess.shape[1]):  # every neighbour counts the same
        return low
    log_beta: NDArray[np.float64] = np.clip(
        -np.log(np.maximum(excess.mean(axis=1), 1e-300)), low, high
    )
    active = np.flatnonzero(high > low)
    for _ in range(_MAX_STEPS):  # pragma: no branch - bisection alone needs 80 of these 200
        if active.size == 0:
            break
        current = log_beta[active]
        gap, slope = _entropy_gap(excess[active], current, entropy)
        low[active] = np.where(gap > 0, current, low[active])
        high[active] = np.where(gap > 0, high[active], current)
        newton = current - gap / np.where(slope < 0, slope, -1e-300)
        is_inside = (newton > low[active]) & (newton < high[active])
        is_done = (np.abs(gap) <= _TOLERANCE) | (high[active] - low[active] <= _TOLERANCE)
        following = np.where(is_inside, newton, (low[active] + high[active]) / 2)
        log_beta[active] = np.where(is_done, current, following)
        active = active[~is_done]
    return log_beta


def _bracket(
    excess: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of ``log β``, (N,) each: p is uniform at the first, on the nearest at the second."""
    # they are equal where all distances are, for then every β gives the same p
    largest = excess.max(axis=1)
    smallest = np.where(excess > 0, excess, np.inf).min(axis=1)
    is_flat = largest == 0
    low = np.log(1e-9) - np.log(np.where(is_flat, 1.0, largest))
    high = np.minimum(np.log(60) - np.log(np.where(is_flat, 1.0, smallest)), _LOG_LIMIT)
    return np.where(is_flat, 0.0, low), np.where(is_flat, 0.0, high)


def _entropy_gap(
    excess: NDArray[np.float64], log_beta: NDArray[np.float64], entropy: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``H(β) - entropy`` and its derivative in ``log β``, (N,) each."""
    # with Z = Σ exp(-β e): H = log Z + β <e> and dH/d log β = -β² Var(e)
    beta = np.exp(log_beta)
    weight = np.exp(-beta[:, None] * excess)
    total = weight.sum(axis=1)
    mean = np.einsum("nk,nk->n", weight, excess) / total
    spread = excess - mean[:, None]
    variance = np.einsum("nk,nk,nk->n", weight, spread, spread) / total
    return np.log(total) + beta * mean - entropy, -(beta**2) * variance


def joint_probabilities(
    neighbors: Neighbors, perplexity: float | Sequence[float]
) -> sparse.csr_array:
    """Symmetric joint probabilities ``p_ij = (p_{j|i} + p_{i|j}) / 2N`` of neighbouring rows.

    Parameters
    ----------
    neighbors : Neighbors
        Neighbours of all N rows, the rows themselves excluded.
    perplexity : float or sequence of float
        From 1 to the number of neighbours; of several, the probabilities are averaged.

    Returns
    -------
    scipy.sparse.csr_array of shape (N, N), float64
        Symmetric, non-negative, zero diagonal, sum 1; indices sorted, no stored zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne.affinities import joint_probabilities, nearest_neighbors
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> P = joint_probabilities(nearest_neighbors(X, 15), perplexity=5)
    >>> P.shape, float(P.sum().round(12))
    ((60, 60), 1.0)
    """
    return symmetric(conditional_graph(neighbors, perplexity))


def conditional_graph(
    neighbors: Neighbors, perplexity: float | Sequence[float]
) -> sparse.csr_array:
    """Conditional probabilities ``p_{j|i}`` of all rows as a sparse matrix.

    Parameters
    ----------
    neighbors : Neighbors
        Neighbours of all N rows.
    perplexity : float or sequence of float
        As in `conditional_probabilities`.

    Returns
    -------
    scipy.sparse.csr_array of shape (N, N), float64
        Rows sum to 1.
    """
    n_samples, n_neighbors = neighbors.indices.shape
    conditional = conditional_probabilities(neighbors.distances, perplexity).probabilities
    starts = np.arange(0, n_samples * n_neighbors + 1, n_neighbors)
    return sparse.csr_array(
        (conditional.ravel(), neighbors.indices.ravel(), starts), shape=(n_samples, n_samples)
    )


def symmetric(one_way: sparse.csr_array) -> sparse.csr_array:
    """Joint probabilities (N, N), sum 1, of conditional ones (N, N): the mean of both ways."""
    joint = sparse.csr_array(one_way + one_way.T)  # stores no zeros, even of stored zeros
    joint.sort_indices()
    joint.data /= joint.data.sum()
    return joint
