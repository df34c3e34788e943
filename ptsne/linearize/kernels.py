"""Which kernels run: torch's own, where oneDNN's are slower or hide what they do.

oneDNN's gradient of a convolution with respect to one to three input channels is 1 to 11 times
slower than torch's own kernel (3x3 to 11x11, stride 1 to 4, 1 to 64 pictures; from four channels on
oneDNN wins). It is the first layer of nearly every network of pictures, and most of the time of W.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .operation import Operation
from .settings import WITHOUT_ONEDNN

FEW_CHANNELS = 3


class WrittenOutLstm(TorchFunctionMode):
    """Runs LSTMs without oneDNN, which makes one node of a whole layer in float32."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not torch.lstm:
            return func(*args, **(kwargs or {}))
        with WITHOUT_ONEDNN.on():
            return func(*args, **(kwargs or {}))


class NativeKernels:
    """Computes chosen nodes of one graph without oneDNN.

    Nodes of a backward pass on a CPU run one after the other in the calling thread.
    """

    def __init__(self) -> None:
        self._is_inside = False

    def take(self, node: Any, operation: Operation) -> list[Any]:
        """Hook `node` if it is faster without oneDNN; the handles of the hooks."""
        if not _has_few_channels(operation):
            return []
        return [node.register_prehook(self._enter), node.register_hook(self._leave)]

    def restore(self) -> None:
        """Leave, if a node that failed did not."""
        self._leave()

    def _enter(self, *_: Any) -> None:
        self._is_inside = True
        WITHOUT_ONEDNN.enter()

    def _leave(self, *_: Any) -> None:
        if self._is_inside:
            self._is_inside = False
            WITHOUT_ONEDNN.leave()


def _has_few_channels(operation: Operation) -> bool:
    if operation.name != "convolution":
        return False
    weight, groups = operation.argument("weight"), operation.argument("groups")
    return (
        isinstance(weight, torch.Tensor)
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and not operation.argument("transposed")
        and weight.shape[1] * groups <= FEW_CHANNELS
    )
