"""Several processes that train one map: each holds a share of the rows, all hold the map.

Every process calls `fit` with the same rows, keeps the standardised rows of its own share, and the
encoder, landmarks and places are the same everywhere. A step asks for the codes and places of
one's own rows, gathers the places y (N, K) of all, adds up what each process knows of the gradient
dKL/dY, pushes it through the network for one's own rows, and takes the sum of the parameters'
gradients over all processes (`torch.nn.parallel.DistributedDataParallel`). So every process takes
the same step. ::

    torchrun --nproc-per-node 8 fit.py      # ParametricTSNE(distributed=True).fit(X)

Notes
-----
The map is that of one process, but for the order of sums: float32 sums of another order differ in
the seventh digit, and t-SNE, whose steps repel, makes more of it with every iteration. What is
drawn for a process's own rows (dropout, noise, batches) is drawn from generators of its own, so
that a fine-tuned map is another draw of the same kind.

Callbacks and the progress bar are those of process 0, and its decision to stop is everybody's. An
error in one process ends it; torchrun then ends the others, which otherwise wait until the time
limit of the process group has passed (`torch.distributed.init_process_group`, ``timeout=``). For
the same reason Ctrl-C does not keep the best map so far as it does with one process: it ends the
training.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ptsne.affinities import Neighbors, query_neighbors

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process."""

Value = TypeVar("Value")


class World:
    """One process alone: it holds all rows, and what the others add is nothing.

    `Processes` has the same methods for several, so that each training loop is written once.

    Attributes
    ----------
    rank, size : int
        Number of this process, and how many there are.
    device : torch.device
        Where tensors have to be that go to other processes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    def count(self, own: Sequence[Any] | Tensor) -> int:
        """Rows of all processes together, given one's own."""
        return len(own)

    def rows(self, n_rows: int) -> slice:
        """Which of `n_rows` rows are one's own."""
        return slice(0, n_rows)

    def share(self, n: int) -> int:
        """Part of `n` rows of a batch that this process takes."""
        return n

    def gather(self, own: Tensor) -> Tensor:
        """All rows (N, ...) from everybody's own (n, ...); no gradient flows through."""
        return own

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, with the same bits everywhere."""
        return values

    def largest(self, values: Tensor) -> Tensor:
        """Largest over the processes."""
        return values

    def mean(self, own: Tensor) -> Tensor:
        """Mean over everybody's rows of one value each (n,)."""
        return own.mean()

    def fetch(self, own: Tensor, index: Tensor) -> Tensor:
        """Rows `index` (B,), numbered over all processes, of a table that is shared out."""
        return own[index]

    def mine(self, index: Tensor) -> Tensor:
        """Those of the rows `index` that are one's own, numbered among these."""
        return index

    def same(self, value: Value) -> Value:
        """What process 0 says."""
        return value

    def once(self, function: Callable[[], Value]) -> Value:
        """Result of what process 0 alone computes, or its error."""
        return function()

    def everybodys(self, value: Value) -> list[Value]:
        """What each process says."""
        return [value]

    def own_generator(self, generator: torch.Generator) -> torch.Generator:
        """Source of what is drawn for one's own rows; `generator` is in step everywhere."""
        return generator

    def parallel(
        self, loss: Callable[..., Any], parts: Sequence[nn.Module], *, total: bool = False
    ) -> Callable[..., Any]:
        """A loss whose backward pass leaves the gradient of all processes in the parameters.

        Parameters
        ----------
        loss : callable
            Returns the loss of one's own rows, or a tuple that begins with it.
        parts : sequence of nn.Module
            What it trains; all of it, in every call.
        total : bool
            Whether the losses are added up; else their mean is taken.

        Returns
        -------
        callable
            To be called like `loss`.
        """
        del parts, total
        return loss

    def align(self, module: nn.Module) -> None:
        """Give a module the parameters and buffers that it has in process 0."""


ALONE = World()


class Processes(World):
    """The processes of torch's default process group, each with a run of neighbouring rows.

    Parameters
    ----------
    n_rows : int
        Rows N of all together; at least one for each process.
    device : torch.device
        Where this process computes.
    """

    def __init__(self, n_rows: int, device: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.n_rows, self.device = n_rows, device
        self._bounds = [n_rows * rank // self.size for rank in range(self.size + 1)]
        self._start, self._stop = self._bounds[self.rank : self.rank + 2]

    def count(self, own: Sequence[Any] | Tensor) -> int:
        """Rows of all processes together."""
        del own
        return self.n_rows

    def rows(self, n_rows: int) -> slice:
        """Which of `n_rows` rows are one's own."""
        return slice(n_rows * self.rank // self.size, n_rows * (self.rank + 1) // self.size)

    def share(self, n: int) -> int:
        """An equal part of a batch."""
        return -(-n // self.size)

    def gather(self, own: Tensor) -> Tensor:
        """All rows, in order."""
        own = own.detach()
        largest = -(-self.n_rows // self.size)
        padded = own.new_empty(largest, *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        lengths = np.diff(self._bounds)
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        total = values.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def largest(self, values: Tensor) -> Tensor:
        """Largest over the processes."""
        found = values.detach().clone()
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found

    def mean(self, own: Tensor) -> Tensor:
        """Mean over everybody's rows."""
        total = self.sum(torch.stack([own.sum(), own.new_tensor(len(own))]))
        return total[0] / total[1]

    def fetch(self, own: Tensor, index: Tensor) -> Tensor:
        """Ask each row's owner for it."""
        starts = index.new_tensor(self._bounds[1:])
        owner = torch.bucketize(index.contiguous(), starts, right=True)
        order = owner.argsort(stable=True)
        n_asked = torch.bincount(owner, minlength=self.size)
        n_given = torch.empty_like(n_asked)
        dist.all_to_all_single(n_given, n_asked)
        asked, given = n_asked.tolist(), n_given.tolist()
        requests = index.new_empty(sum(given))
        dist.all_to_all_single(requests, index[order], given, asked)
        answers = own.detach()[requests - self._start].contiguous()
        found = own.new_empty(len(index), *own.shape[1:])
        dist.all_to_all_single(found, answers, asked, given)
        result = torch.empty_like(found)
        result[order] = found
        return result

    def mine(self, index: Tensor) -> Tensor:
        """Those of the rows that are one's own."""
        is_mine = (index >= self._start) & (index < self._stop)
        return index[is_mine] - self._start

    def same(self, value: Value) -> Value:
        """What process 0 says."""
        held: list[Any] = [value]
        dist.broadcast_object_list(held, src=0, device=self.device)
        result: Value = held[0]
        return result

    def once(self, function: Callable[[], Value]) -> Value:
        """Result of what process 0 alone computes, or its error."""
        result, error = (None, None) if self.rank else _attempt(function)
        result, error = self.same((result, error))
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def everybodys(self, value: Value) -> list[Value]:
        """What each process says."""
        values: list[Any] = [None] * self.size
        # NCCL sends objects through the current device, which may be that of another process
        is_cuda = self.device.type == "cuda"
        with torch.cuda.device(self.device) if is_cuda else nullcontext():
            dist.all_gather_object(values, value)
        return values

    def own_generator(self, generator: torch.Generator) -> torch.Generator:
        """Seeded by a common draw and the number of this process."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        return torch.Generator().manual_seed(seed + self.rank)

    def parallel(
        self, loss: Callable[..., Any], parts: Sequence[nn.Module], *, total: bool = False
    ) -> Callable[..., Any]:
        """The loss behind torch's DistributedDataParallel, which takes the mean."""
        factor = self.size if total else 1
        return DistributedDataParallel(_Loss(loss, parts, factor))

    def align(self, module: nn.Module) -> None:
        """Send parameters and buffers from process 0."""
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


class _Loss(nn.Module):
    """A function as a module: its `forward` returns the loss of one's own rows."""

    def __init__(
        self, function: Callable[..., Any], parts: Sequence[nn.Module], factor: int
    ) -> None:
        super().__init__()
        self.function, self.factor = function, factor
        self.parts = nn.ModuleList(parts)

    def forward(self, *arguments: Any) -> Any:
        """Loss times the factor, and what else the function returns."""
        result = self.function(*arguments)
        if isinstance(result, Tensor):
            return self.factor * result
        loss, *others = result
        return (self.factor * loss, *others)


def _attempt(function: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:  # it is raised again, in every process
        return None, error


@contextmanager
def joined(is_distributed: bool, shape: tuple[int, ...], device: torch.device) -> Iterator[World]:
    """Join the other processes for a training.

    Parameters
    ----------
    is_distributed : bool
        False stays alone.
    shape : (int, int)
        Rows and columns that are fitted.
    device : torch.device
        Where this process computes.

    Yields
    ------
    World
        A process group that was there is used, and left as it was; else one is made of torchrun's
        environment variables, and ended afterwards.

    Notes
    -----
    RuntimeError if there is neither; ValueError if the processes hold different rows, or there are
    more processes than rows.
    """
    if not is_distributed:
        yield ALONE
        return
    is_new = not (dist.is_available() and dist.is_initialized())
    if is_new:
        _join_from_environment(device)
    try:
        world = Processes(shape[0], device)
        _require_same_rows(world, shape)
        yield world
    except BaseException as error:
        # its frames hold the group; let go of later, it would wait for its own thread for ever
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        if is_new:
            dist.destroy_process_group()


def _join_from_environment(device: torch.device) -> None:
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing or not dist.is_available():
        raise RuntimeError(
            "distributed=True needs the other processes: start the script with torchrun "
            "(torchrun --nproc-per-node 2 fit.py), or call torch.distributed.init_process_group "
            f"before fit; missing from the environment: {', '.join(missing) or 'nothing'}"
        )
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(rendezvous("env://"))
    # torchrun's store outlives the group: a second one must not read what the first left there
    turn = store.add(f"ptsne/{rank}", 1)
    store = dist.PrefixStore(f"ptsne/{turn}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def _require_same_rows(world: Processes, shape: tuple[int, ...]) -> None:
    shapes = world.everybodys(shape)
    if len(set(shapes)) > 1:
        raise ValueError(
            f"every process must call fit with the same rows; their shapes are {shapes}; pass all "
            "rows everywhere (a memmap is read only where it is needed)"
        )
    if shape[0] < world.size:
        raise ValueError(
            f"there are more processes ({world.size}) than rows ({shape[0]}); start fewer"
        )


def shared_neighbors(
    rows: Any, n_neighbors: int, metric: str, device: torch.device, world: World
) -> Neighbors:
    """Exact neighbours of all rows, of which each process finds those of its own.

    Parameters
    ----------
    rows : array or sparse matrix of shape (N, D)
        All rows, the same in every process.
    n_neighbors : int
        k, from 1 to N - 1.
    metric : {"euclidean", "cosine", "manhattan"}
        Distance.
    device : torch.device
        Where this process computes.
    world : World
        The processes.

    Returns
    -------
    Neighbors
        ``indices`` (N, k) and ``distances`` (N, k), the same everywhere.
    """
    own = world.rows(rows.shape[0])
    found = query_neighbors(rows, rows[own], n_neighbors + 1, metric=metric, device=device)
    itself = np.arange(own.start, own.stop)[:, None]
    is_other = found.indices != itself
    is_other[is_other.all(1), -1] = False  # among equal rows it was not found
    gathered = (
        world.gather(torch.from_numpy(values[is_other].reshape(-1, n_neighbors)).to(device))
        for values in found
    )
    return Neighbors(*(values.cpu().numpy() for values in gathered))


def own_entries(P: sparse.csr_array, rows: slice) -> sparse.csr_array:
    """The matrix (N, N) of the entries of some rows alone; over all processes they add up to P."""
    ends = P.indptr[[rows.start, rows.stop]]
    kept = slice(*ends)
    starts = P.indptr.clip(*ends) - ends[0]
    return sparse.csr_array((P.data[kept], P.indices[kept], starts), shape=P.shape)


def share(X: Any) -> Any:
    """Rows of one process out of all: for `transform` and `explain` under torchrun.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Rows, the same in every process.

    Returns
    -------
    array-like of shape (n, D)
        Rows N r / R to N (r + 1) / R of process r of R; all of them where there is no torchrun.
        In the order of the ranks the results make up that of all rows.

    Examples
    --------
    >>> share([[0.0], [1.0], [2.0]])  # no torchrun here: all of them
    [[0.0], [1.0], [2.0]]
    """
    if dist.is_available() and dist.is_initialized():
        rank, size = dist.get_rank(), dist.get_world_size()
    else:
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    rows = slice(n_rows * rank // size, n_rows * (rank + 1) // size)
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]
