"""What runs when a gradient passes a held operation."""

import math
from collections.abc import Mapping

from torch import Tensor

from .collector import Collector
from .operation import Gradients, Held, Operation


def finite(constants: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
    """Constants with 0 for what is infinite, such as the border of a padded maximum."""
    return {name: _finite(value) for name, value in constants.items()}


def _finite(value: Tensor | float) -> Tensor | float:
    # no gradient reaches infinity where the output is finite; if one does, the check will tell
    if not isinstance(value, Tensor):
        return 0.0 if abs(value) == math.inf else value
    is_infinite = value.isinf()
    return value.masked_fill(is_infinite, 0.0) if bool(is_infinite.any()) else value


class Remainder:
    """What a plateau, or the tangent of any operation, leaves over: ``y - A z``."""

    def __init__(self, operation: Operation) -> None:
        result = operation.run()
        outputs = (result,) if isinstance(result, Tensor) else tuple(result)
        self._outputs = [_finite(y) for y in outputs]
        self._inputs = dict(zip(operation.edges, map(_finite, operation.inputs), strict=True))

    def add(
        self, collector: Collector, label: str, site: int, sent: Gradients, outgoing: Gradients
    ) -> None:
        """Add ``<outgoing, y> - <sent, z>``."""
        for i, (gradient, y) in enumerate(zip(outgoing, self._outputs, strict=False)):
            if gradient is not None:
                collector.add(label, (site, i), gradient, y)
        for position, z in self._inputs.items():
            gradient = sent[position]
            if gradient is not None:
                collector.add(label, (site, -1 - position), gradient, -z)


def on_backward(
    incoming: Gradients,
    outgoing: Gradients,
    *,
    held: Held,
    constants: Mapping[str, Tensor | float],
    remainder: Remainder | None,
    label: str,
    site: int,
    collector: Collector,
) -> Gradients | None:
    """Hook of one node: send the held gradients on, and report its constants to the collector."""
    gradient = next((g for g in outgoing if g is not None), None)
    if gradient is None:
        return None
    sent = held.pull(incoming, outgoing) if held.pull else incoming
    for i, (name, value) in enumerate(constants.items()):
        collector.add(name, (site, i), gradient, value)
    if remainder:
        remainder.add(collector, label, site, sent, outgoing)
    return sent if held.pull else None
