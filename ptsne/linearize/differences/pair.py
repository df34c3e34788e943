"""An operation at a row and at its reference, and a book of what the two differ by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from ptsne.linearize.operation import Gradients, Held, Operation
from ptsne.linearize.rule import send


@dataclass(frozen=True)
class Pair:
    """An operation at a row and at its reference."""

    operation: Operation
    at_reference: Operation

    @property
    def inputs(self) -> list[tuple[Tensor, Tensor]]:
        """``(z, z0)`` of each input that depends on x."""
        inputs, references = self.operation.inputs, self.at_reference.inputs
        return list(zip(inputs, references, strict=True))

    @property
    def input(self) -> tuple[Tensor, Tensor]:
        """``(z, z0)`` of the only input that depends on x."""
        return self.operation.input, self.at_reference.inputs[0]

    @property
    def outputs(self) -> tuple[Tensor, Tensor]:
        """``(y, y0)``, of the first output."""
        return self._first(self.operation.run()), self._first(self.at_reference.run())

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """First output at other inputs."""
        return self._first(self.operation.run(inputs))

    @staticmethod
    def _first(result: Any) -> Tensor:
        return result if isinstance(result, Tensor) else cast(Tensor, result[0])

    def vjp(self, inputs: Sequence[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the first output at other inputs."""
        with torch.enable_grad():
            leaves = [z.detach().requires_grad_(True) for z in inputs]
            return torch.autograd.grad(self.run(leaves), leaves, cotangent)


Difference = Callable[[Pair], Held]


class DifferenceBook(dict[str, Difference]):
    """Rules of differences by the name of their operation."""

    def rule(self, names: str) -> Callable[[Difference], Difference]:
        """Enter the decorated function under several names, separated by blanks."""

        def enter(difference: Difference) -> Difference:
            self.update(dict.fromkeys(names.split(), difference))
            return difference

        return enter


def times(pair: Pair, slope: Tensor) -> Held:
    """Held form ``y - y0 = slope (z - z0)`` of an elementwise operation."""
    return Held(partial(_pull_times, position=pair.operation.edges[0], slope=slope))


def _pull_times(
    incoming: Gradients, outgoing: Gradients, *, position: int, slope: Tensor
) -> Gradients:
    return send(incoming, {position: cast(Tensor, outgoing[0]) * slope})


def summed(slope: Tensor, dims: Sequence[int], *, keepdim: bool) -> Held:
    """Held form ``y - y0 = sum(slope (z - z0))`` over `dims`."""
    return Held(partial(_pull_summed, slope=slope, dims=dims, keepdim=keepdim))


def _pull_summed(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    slope: Tensor,
    dims: Sequence[int],
    keepdim: bool,
) -> Gradients:
    gradient = cast(Tensor, outgoing[0])
    if not keepdim:
        for dim in sorted(d % slope.dim() for d in dims):
            gradient = gradient.unsqueeze(dim)
    return send(incoming, {0: gradient * slope})
