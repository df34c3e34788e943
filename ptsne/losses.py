"""What a map is asked to minimise, and its gradient with respect to the map.

``KL(P || Q) = sum_ij p_ij log(p_ij / q_ij)`` with ``q_ij = k1_ij / Z``, the Student-t kernel of
:mod:`ptsne.repulsion`. Splitting ``log q`` leaves a sum over the pairs of the sparse P, and one
number for all pairs, ``log Z``; the gradient splits likewise into attraction and repulsion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ptsne.repulsion import (
    Method,
    RepulsionEngine,
    add_in_order,
    per_device,
    working_precision,
)

# From a range of pairs and their d2: the factor of y_i - y_j for each, and the energy of all.
Pull = Callable[[slice, Tensor], tuple[Tensor, Tensor]]
# Pairs taken at once: their temporaries stay near the caches of a CPU, and fill a GPU.
_PAIRS_AT_ONCE = {"cpu": 2**18, "cuda": 2**22}
# Bytes of one all-pairs temporary of the Gaussian loss.
_BLOCK_BYTES = 2**22


class Edges(NamedTuple):
    """Pairs of points with a joint probability, each pair once.

    Parameters
    ----------
    row, column : Tensor, (E,), int64
        The pairs, ``row < column``, in an order that seldom repeats a row: sums over rows are about
        twice as fast when they do not add to one address again and again.
    weight : Tensor, (E,)
        ``p_ij + p_ji``.
    forward : Tensor, (E,)
        ``p_ij`` alone, row to column: half the weight where P is symmetric.
    row_mass : Tensor, (N,)
        ``sum_j p_ij``.
    mass : float
        ``sum_ij p_ij``, 1 for a joint distribution.
    negative_entropy : float
        ``sum_ij p_ij log p_ij``, nats.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from ptsne.affinities import joint_probabilities, nearest_neighbors
    >>> from ptsne.losses import Edges
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> P = joint_probabilities(nearest_neighbors(X, 15), perplexity=5)
    >>> edges = Edges.from_sparse(P, dtype=torch.float64)
    >>> len(edges.row) == P.nnz // 2
    True
    >>> round(edges.mass, 12)
    1.0
    """

    row: Tensor
    column: Tensor
    weight: Tensor
    forward: Tensor
    row_mass: Tensor
    mass: float
    negative_entropy: float

    def grouped(self, group: Tensor, n_groups: int) -> Edges:
        """Pairs of groups of points that stand at one place each.

        Pairs within a group pull at nothing, so that only those between groups are left, added up;
        mass and entropy are still those of all pairs.

        Parameters
        ----------
        group : Tensor, (N,), int64
            Group of each point.
        n_groups : int
            Number of groups G.

        Returns
        -------
        Edges
            Of G points.

        Examples
        --------
        >>> import torch
        >>> from scipy import sparse
        >>> from ptsne.losses import Edges
        >>> P = sparse.csr_array([[0.0, 0.2, 0.1], [0.2, 0.0, 0.2], [0.1, 0.2, 0.0]])
        >>> edges = Edges.from_sparse(P)
        >>> pair = edges.grouped(torch.tensor([0, 0, 1]), 2)  # points 0 and 1 stand at one place
        >>> pair.weight, pair.mass == edges.mass
        (tensor([0.6000]), True)
        """
        ends = torch.stack([group[self.row], group[self.column]])
        apart = ends[0] != ends[1]
        low, high = ends[:, apart].amin(0), ends[:, apart].amax(0)
        pairs, which = torch.unique(low * n_groups + high, return_inverse=True)

        def added(values: Tensor, index: Tensor, n: int) -> Tensor:
            return values.new_zeros(n).index_add_(0, index, values)

        forward = torch.where(ends[0] < ends[1], self.forward, self.weight - self.forward)
        row, column = pairs // n_groups, pairs % n_groups
        order = torch.from_numpy(_spaced(row.cpu().numpy())).to(row.device)
        return self._replace(
            row=row[order],
            column=column[order],
            weight=added(self.weight[apart], which, len(pairs))[order],
            forward=added(forward[apart], which, len(pairs))[order],
            row_mass=added(self.row_mass, group, n_groups),
        )

    @classmethod
    def from_sparse(
        cls,
        P: sparse.csr_array,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Edges:
        """Collect the pairs of a sparse matrix.

        Parameters
        ----------
        P : sparse array, (N, N)
            Joint probabilities: not negative, zero on the diagonal (ValueError otherwise). Need not
            be symmetric.
        dtype : torch.dtype, default torch.float32
            Of the weights. Mass and entropy are summed in float64.
        device : torch.device or str, default "cpu"
            Of the tensors.

        Returns
        -------
        Edges

        Examples
        --------
        >>> from scipy import sparse
        >>> from ptsne.losses import Edges
        >>> P = sparse.csr_array([[0.0, 0.2, 0.1], [0.2, 0.0, 0.2], [0.1, 0.2, 0.0]])
        >>> edges = Edges.from_sparse(P)
        >>> for pair in zip(edges.row, edges.column, edges.weight):
        ...     print(*(round(number.item(), 2) for number in pair))
        0 1 0.4
        1 2 0.4
        0 2 0.2
        """
        P = _checked_joint(P)
        # p_ij and p_ji of a pair as one complex number
        pairs = sparse.coo_array(sparse.triu(P + 1j * P.T))
        order = _spaced(pairs.row)
        forward, backward = pairs.data[order].real, pairs.data[order].imag
        return cls(
            torch.tensor(pairs.row[order], dtype=torch.int64, device=device),
            torch.tensor(pairs.col[order], dtype=torch.int64, device=device),
            torch.tensor(forward + backward, dtype=dtype, device=device),
            torch.tensor(forward, dtype=dtype, device=device),
            torch.tensor(P.sum(1), dtype=dtype, device=device),
            float(P.data.sum()),
            float((P.data * np.log(P.data)).sum()),
        )

    @classmethod
    def from_pairs(
        cls,
        row: Tensor,
        column: Tensor,
        probability: Tensor,
        n_points: int,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Edges:
        """Take the pairs of a symmetric P as they are, on their device.

        Parameters
        ----------
        row, column : Tensor, (E,), int64
            ``row < column``, in order.
        probability : Tensor, (E,), float64
            ``p_ij``, positive.
        n_points : int
            N.
        dtype : torch.dtype, default torch.float32
            Of the weights. Mass and entropy are summed in float64.

        Returns
        -------
        Edges

        Examples
        --------
        >>> import torch
        >>> from ptsne.losses import Edges
        >>> row, column = torch.tensor([[0, 0, 1], [1, 2, 2]])
        >>> probability = torch.tensor([0.2, 0.1, 0.2], dtype=torch.float64)
        >>> edges = Edges.from_pairs(row, column, probability, 3)
        >>> edges.row_mass, round(edges.mass, 12)
        (tensor([0.3000, 0.4000, 0.3000]), 1.0)
        """
        row_mass = probability.new_zeros(1, n_points)
        add_in_order(row_mass, row, probability[None])
        add_in_order(row_mass, column, probability[None])
        starts = torch.searchsorted(row, row)  # first pair of each pair's row
        rank = torch.arange(len(row), device=row.device) - starts
        order = rank.argsort(stable=True)
        weight = probability[order]
        return cls(
            row[order],
            column[order],
            (2 * weight).to(dtype),
            weight.to(dtype),
            row_mass[0].to(dtype),
            float(2 * probability.sum()),
            float(2 * torch.dot(probability, probability.log())),
        )


def _checked_joint(P: Any) -> sparse.csr_array:
    joint: sparse.csr_array = sparse.csr_array(P, dtype=np.float64, copy=True)
    joint.sum_duplicates()
    joint.eliminate_zeros()
    if joint.shape[0] != joint.shape[1]:
        raise ValueError(f"P must be square, got shape {joint.shape}")
    if not (np.isfinite(joint.data) & (joint.data > 0)).all():
        raise ValueError("P has a negative or non-finite entry; pass joint probabilities")
    if joint.diagonal().any():
        raise ValueError("P has a diagonal entry; a point is no neighbour of itself: set them to 0")
    return joint


def _spaced(row: NDArray[np.int32]) -> NDArray[np.intp]:
    """Order pairs, sorted by row, so that each row has its first pair, then each its second ..."""
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    rank = np.arange(len(row)) - np.repeat(starts, np.diff(starts, append=len(row)))
    return np.argsort(rank, kind="stable")


# Student-t


def kl_gradient(
    edges: Edges,
    Y: Tensor,
    *,
    exaggeration: float = 1.0,
    dof: float = 1.0,
    method: Method = "auto",
    engine: RepulsionEngine | None = None,
    with_kl: bool = True,
    count: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradient of KL(P || Q) at a map, for the Student-t similarity.

    ``dKL/dy_i = 2 (a + 1) / a * sum_j (e p_ij - q_ij) (1 + d2_ij / a)^-1 (y_i - y_j)``

    Parameters
    ----------
    edges : Edges
        P.
    Y : Tensor, (N, K)
        Map, K = 1, 2 or 3. No gradient flows through.
    exaggeration : float, default 1
        Factor ``e`` on P in the gradient.
    dof : float, default 1
        Degrees of freedom ``a``.
    method : {"auto", "exact", "fft"}, default "auto"
        Way to the repulsion, unless there is an engine.
    engine : RepulsionEngine, optional
        Keeps work between the steps of an optimisation; of the same ``dof``.
    with_kl : bool, default True
        False skips the KL, which costs a logarithm for each pair.
    count : Tensor, (N,), optional
        Points that stand at each place, for `edges` that are `Edges.grouped`.

    Returns
    -------
    gradient : Tensor, (N, K)
        Nats per map unit; with `count`, the sum over the points of each place.
    kl : Tensor, scalar
        KL(P || Q) with P not exaggerated, nats; NaN without ``with_kl``.

    Raises
    ------
    ValueError
        If Y has not one row for each point of P, or the engine has another ``dof``.

    References
    ----------
    van der Maaten and Hinton 2008, eq. 5; van der Maaten 2009 for degrees of freedom other than 1.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from ptsne.affinities import joint_probabilities, nearest_neighbors
    >>> from ptsne.losses import Edges, kl_gradient
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> P = joint_probabilities(nearest_neighbors(X, 15), perplexity=5)
    >>> edges = Edges.from_sparse(P, dtype=torch.float64)
    >>> gradient, kl = kl_gradient(edges, torch.tensor(X[:, :2]))
    >>> gradient.shape, bool(kl > 0)
    (torch.Size([60, 2]), True)
    """
    engine = engine or RepulsionEngine(dof=dof, method=method)
    if engine.dof != dof:
        raise ValueError(f"the engine has dof={engine.dof}, the gradient dof={dof}; pass one value")
    Y = _checked_map(edges, Y)
    pull = partial(_student_pull, edges, dof, with_kl)
    attraction, log_kernel = _attraction(edges, Y, pull)
    force, Z = engine(Y, count)
    force = force if count is None else force * count[:, None]
    Z = Z.clamp_min(torch.finfo(Z.dtype).tiny)  # 0 for a map of one point
    gradient = (dof + 1) / dof * (exaggeration * attraction - 2 * edges.mass / Z * force)
    return gradient, edges.negative_entropy + log_kernel + edges.mass * Z.log()


def _student_pull(
    edges: Edges, dof: float, with_log: bool, chunk: slice, d2: Tensor
) -> tuple[Tensor, Tensor]:
    weight = edges.weight[chunk].to(d2)
    u = d2.div_(dof).add_(1.0)
    log_kernel = (dof + 1) / 2 * torch.dot(weight, u.log()) if with_log else u.new_tensor(math.nan)
    return weight / u, log_kernel


def kl_divergence(edges: Edges, Y: Tensor, *, dof: float = 1.0, method: Method = "exact") -> Tensor:
    """KL(P || Q) of a map for the Student-t similarity.

    Parameters
    ----------
    edges : Edges
        P.
    Y : Tensor, (N, K)
        Map. No gradient flows through; see :func:`kl_gradient`.
    dof : float, default 1
        Degrees of freedom.
    method : {"exact", "fft", "auto"}, default "exact"
        Way to Z.

    Returns
    -------
    Tensor, scalar
        Nats.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from ptsne.affinities import joint_probabilities, nearest_neighbors
    >>> from ptsne.losses import Edges, kl_divergence
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> P = joint_probabilities(nearest_neighbors(X, 15), perplexity=5)
    >>> edges = Edges.from_sparse(P, dtype=torch.float64)
    >>> Y = torch.tensor(X[:, :2])
    >>> bool(
    ...     kl_divergence(edges, Y) < kl_divergence(edges, Y.flip(0))
    ... )  # the wrong places are worse
    True
    """
    return kl_gradient(edges, Y, dof=dof, method=method)[1]


def _checked_map(edges: Edges, Y: Tensor) -> Tensor:
    n_points = len(edges.row_mass)
    if len(Y) != n_points:
        raise ValueError(
            f"Y has {len(Y)} rows and P has {n_points}; both must be of the same points"
        )
    return working_precision(Y.detach())


def _attraction(edges: Edges, Y: Tensor, pull: Pull) -> tuple[Tensor, Tensor]:
    """Sum ``pull_ij (y_i - y_j)`` over j, (N, K), and the energies of all pairs."""
    lanes = _lanes(Y)
    at_row = [torch.zeros_like(lane)[None] for lane in lanes]
    at_column = [torch.zeros_like(lane)[None] for lane in lanes]
    energies = [Y.new_zeros(())]
    step = per_device(_PAIRS_AT_ONCE, Y)
    for start in range(0, len(edges.row), step):
        chunk = slice(start, start + step)
        row, column = edges.row[chunk], edges.column[chunk]
        apart = [lane.index_select(0, row).sub_(lane.index_select(0, column)) for lane in lanes]
        strength, energy = pull(chunk, _squared_length(apart))
        energies.append(energy)
        for d, r, c in zip(apart, at_row, at_column, strict=True):
            add_in_order(r, row, d.mul_(strength)[None])
            add_in_order(c, column, d[None])
    force = _columns([(r - c)[0] for r, c in zip(at_row, at_column, strict=True)])
    return force, torch.stack(energies).sum()


def _lanes(Y: Tensor) -> list[Tensor]:
    """Split a map into vectors; two columns make one complex vector, which moves both at once."""
    if Y.shape[1] == 1:
        return [Y[:, 0].contiguous()]
    plane = torch.view_as_complex(Y[:, :2].contiguous())
    return [plane, *(column.contiguous() for column in Y[:, 2:].T)]


def _columns(lanes: list[Tensor]) -> Tensor:
    parts = [torch.view_as_real(v) if v.is_complex() else v[:, None] for v in lanes]
    return torch.cat(parts, 1)


def _squared_length(lanes: list[Tensor]) -> Tensor:
    squares = [torch.view_as_real(v).square() if v.is_complex() else v.square() for v in lanes]
    return reduce(torch.add, [s[:, 0] + s[:, 1] if s.ndim == 2 else s for s in squares])


# Gaussian


def gaussian_kl_gradient(
    edges: Edges, Y: Tensor, sigma: Tensor, *, exaggeration: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Gradient of sum_ij p_ij log(p_ij / q_ij) for the Gaussian similarity of Li et al.

    ``q_ij = exp(-d2_ij / (2 sigma_i^2)) / sum_{k != i} exp(-d2_ik / (2 sigma_i^2))``

    The bandwidths are those of the high-dimensional rows, and Q is normalised row by row, as the
    paper has it. With ``p_i = sum_j p_ij`` and ``b_i = sigma_i^-2``::

        dKL/dy_i = sum_j [b_i (e p_ij - p_i q_ij) + b_j (e p_ji - p_j q_ji)] (y_i - y_j)

    All pairs are visited, in blocks: O(N^2) time.

    Parameters
    ----------
    edges : Edges
        P; its rows need not sum to 1.
    Y : Tensor, (N, K)
        Map. No gradient flows through.
    sigma : Tensor, (N,)
        Bandwidths, positive, in map units.
    exaggeration : float, default 1
        Factor ``e`` on P in the gradient.

    Returns
    -------
    gradient : Tensor, (N, K)
        Nats per map unit.
    kl : Tensor, scalar
        The objective with P not exaggerated, nats. For a joint P it is ``KL(P || Q / N) - log N``.

    References
    ----------
    Li et al. 2023, eq. 7.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from ptsne.affinities import conditional_probabilities, nearest_neighbors
    >>> from scipy import sparse
    >>> from ptsne.losses import Edges, gaussian_kl_gradient
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> near = nearest_neighbors(X, 15)
    >>> rows = conditional_probabilities(near.distances, 5)
    >>> starts = np.arange(0, 60 * 15 + 1, 15)
    >>> P = sparse.csr_array((rows.probabilities.ravel(), near.indices.ravel(), starts))
    >>> edges = Edges.from_sparse(P, dtype=torch.float64)
    >>> gradient, kl = gaussian_kl_gradient(edges, torch.tensor(X[:, :2]), torch.tensor(rows.sigma))
    >>> gradient.shape
    torch.Size([60, 2])
    """
    Y = _checked_map(edges, Y)
    precision = sigma.to(Y).pow(-2)  # (N,)
    attraction, energy = _attraction(edges, Y, partial(_gaussian_pull, edges, precision))
    repulsion, log_normalisers = _gaussian_repulsion(Y, precision, edges.row_mass.to(Y))
    return exaggeration * attraction - repulsion, edges.negative_entropy + energy + log_normalisers


def _gaussian_pull(
    edges: Edges, precision: Tensor, chunk: slice, d2: Tensor
) -> tuple[Tensor, Tensor]:
    forward = edges.forward[chunk].to(d2)
    backward = edges.weight[chunk].to(d2) - forward
    row, column = edges.row[chunk], edges.column[chunk]
    strength = precision[row] * forward + precision[column] * backward
    return strength, torch.dot(strength, d2) / 2


def _gaussian_repulsion(Y: Tensor, precision: Tensor, row_mass: Tensor) -> tuple[Tensor, Tensor]:
    """Sum ``(b_i p_i q_ij + b_j p_j q_ji) (y_i - y_j)`` over j, and ``p_i log S_i`` over i."""
    if len(Y) < 2:  # no pair, and S would be an empty sum
        return torch.zeros_like(Y), Y.new_zeros(())
    columns = Y.T.contiguous()  # (K, N)
    n_rows = max(1, _BLOCK_BYTES // (len(Y) * Y.element_size()))
    starts = range(0, len(Y), n_rows)
    force, total = torch.zeros_like(columns), Y.new_zeros(1 + len(starts))
    for number, start in enumerate(starts, 1):
        block = slice(start, start + n_rows)
        difference = columns[:, block, None] - columns[:, None]  # (K, B, N)
        logits = difference.square().sum(0) * (-precision[block, None] / 2)  # (B, N)
        logits.diagonal(start).fill_(-math.inf)
        log_normaliser = logits.logsumexp(1)
        q = (logits - log_normaliser[:, None]).exp_()
        push = difference.mul_(q * (row_mass * precision)[block, None])
        force[:, block] += push.sum(2)
        force -= push.sum(1)
        total[number] = torch.dot(row_mass[block], log_normaliser)
    return force.T.contiguous(), total.sum()


# Autoencoder


def reconstruction_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean over rows of the squared error summed over features, ``mean_i |x_i - x_hat_i|^2``.

    Parameters
    ----------
    x, x_hat : Tensor, (B, ...)
        Rows and their reconstruction. Gradients flow through both.

    Returns
    -------
    Tensor, scalar

    Examples
    --------
    >>> import torch
    >>> from ptsne.losses import reconstruction_loss
    >>> reconstruction_loss(torch.ones(5, 3), torch.zeros(5, 3))
    tensor(3.)
    """
    return (x_hat - x).square().flatten(1).sum(1).mean()
