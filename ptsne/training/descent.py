"""Batches, steps and snapshots shared by the training phases."""

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptsne.training.checkpoint import State

_TRAINING = threading.RLock()


@contextmanager
def private_randomness(
    generator: torch.Generator, device: torch.device | str = "cpu"
) -> Iterator[None]:
    """Seed torch's global generators, for layers and dropout, and put them back afterwards.

    Threads that train wait for each other here: with one generator for all of them, none would
    give the same bits twice.

    Parameters
    ----------
    generator : torch.Generator
        Draws the seed.
    device : torch.device
        Whose generator is used besides the CPU's.

    Yields
    ------
    None
        While the seed holds.
    """
    is_cuda = torch.device(device).type == "cuda"
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    with _TRAINING, torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if is_cuda:  # pragma: no cover - needs a CUDA device
            with torch.cuda.device(device):  # else it seeds the current one
                torch.cuda.manual_seed(seed)
        yield


class IndexStream:
    """Random batches of row numbers without end: each row at most once an epoch.

    Parameters
    ----------
    n_rows, batch_size : int
        Rows to draw from, and rows of a batch; a last short batch is left out.
    generator : torch.Generator
        Draws the order.
    device : torch.device
        Of the rows: an epoch's order is brought there at once.
    """

    def __init__(
        self, n_rows: int, batch_size: int, generator: torch.Generator, device: torch.device
    ) -> None:
        self._n_rows, self._batch_size, self._generator = n_rows, batch_size, generator
        self._order = torch.empty(0, dtype=torch.long, device=device)
        self._start = 0

    def __next__(self) -> Tensor:
        if len(self._order) - self._start < min(self._batch_size, self._n_rows):
            order = torch.randperm(self._n_rows, generator=self._generator)
            self._order = order.to(self._order.device)
            self._start = 0
        batch = self._order[self._start : self._start + self._batch_size]
        self._start += self._batch_size
        return batch

    def state_dict(self) -> State:
        """Order of the rows in this epoch, how far it has come, and what draws the next."""
        generator = self._generator.get_state()
        return {"order": self._order, "start": self._start, "generator": generator}

    def load_state_dict(self, state: State, /) -> None:
        """Go on from there."""
        self._order, self._start = state["order"].to(self._order.device), state["start"]
        self._generator.set_state(state["generator"])


class Adam:
    r"""Adam on groups of parameters with learning rates of their own.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        \theta &\leftarrow \theta - \eta\, \frac{m / (1 - \beta_1^t)}
                                          {\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Ours because ``torch.optim`` imports torch's compiler, 2.3 s at its first use, which is half of
    the time of a small map.

    Parameters
    ----------
    groups : iterable of Group
        What is trained, and how fast.

    References
    ----------
    Kingma and Ba 2015, Adam: A method for stochastic optimization, Algorithm 1.
    """

    def __init__(self, groups: Iterable["Group"]) -> None:
        self._groups = [group for group in groups if group.parameters]
        self._steps = 0
        self._moments = {
            parameter: (torch.zeros_like(parameter), torch.zeros_like(parameter))
            for group in self._groups
            for parameter in group.parameters
        }

    def descend(self, loss: Tensor, factor: float = 1.0) -> None:
        """One step against the gradient of `loss`, with all learning rates times `factor`."""
        loss.backward()  # type: ignore[no-untyped-call]
        self._steps += 1
        with torch.no_grad():
            for group in self._groups:
                for parameter in group.parameters:
                    self._update(parameter, group, factor)

    def state_dict(self) -> State:
        """Number of steps, and the two moments of each parameter."""
        return {"steps": self._steps, "moments": [*self._moments.values()]}

    def load_state_dict(self, state: State, /) -> None:
        """Go on from there."""
        self._steps = state["steps"]
        for moments, stored in zip(self._moments.values(), state["moments"], strict=True):
            for moment, value in zip(moments, stored, strict=True):
                moment.copy_(value)

    def _update(self, parameter: nn.Parameter, group: "Group", factor: float) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        beta_1, beta_2 = group.betas
        m, v = self._moments[parameter]
        m.lerp_(gradient, 1 - beta_1)
        v.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
        spread = (v / (1 - beta_2**self._steps)).sqrt_().add_(1e-8)
        rate = group.learning_rate * factor / (1 - beta_1**self._steps)
        parameter.addcdiv_(m, spread, value=-rate)


class Group(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)


def learning(*modules: nn.Module) -> list[nn.Parameter]:
    """Parameters that require gradients."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def cosine(step: int, n_steps: int) -> float:
    """Factor of the learning rate: 5 % warm-up, then a cosine to zero (Loshchilov, Hutter 2017)."""
    warm_up = max(1, round(0.05 * n_steps))
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def linear(step: int, n_steps: int, *, warm_up: int = 10) -> float:
    """Factor of the learning rate: a short warm-up, then a line to zero."""
    return min(1.0, (step + 1) / (warm_up + 1)) * (1 - step / n_steps)


class Best:
    """Snapshot of the network at the lowest smoothed KL, for a training that is cut short.

    Parameters
    ----------
    network : nn.Module
        Its state is copied.
    every : int
        Steps whose mean KL is compared.
    """

    def __init__(self, network: nn.Module, *, every: int = 10) -> None:
        self._network = network
        self._every = every
        self._values: list[float] = []
        self._lowest = float("inf")
        self._state = self._copy()

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._network.state_dict().items()}

    def update(self, kl: float) -> None:
        """Note the KL of one step; every few steps compare their mean with the lowest so far."""
        self._values.append(kl)
        if len(self._values) < self._every:
            return
        mean, self._values = sum(self._values) / len(self._values), []
        if mean < self._lowest:
            self._lowest, self._state = mean, self._copy()

    def restore(self) -> None:
        """Put the best state back."""
        self._network.load_state_dict(self._state)

    def state_dict(self) -> State:
        """The snapshot, its KL, and the steps since."""
        return {"values": self._values, "lowest": self._lowest, "state": self._state}

    def load_state_dict(self, state: State, /) -> None:
        """Go on from there."""
        self._values, self._lowest = state["values"], state["lowest"]
        self._state = state["state"]
