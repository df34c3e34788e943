"""Numbers computed from x that leave torch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .recorder import Recorder

_LEAVES_TORCH = frozenset((
    *(torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__),
    *(torch.Tensor.__dlpack__, torch.Tensor.item),
))


class EscapeGuard(TorchFunctionMode):
    """Refuses that numbers computed from x leave torch; no dispatch mode can see them go.

    Parameters
    ----------
    recorder : Recorder
        Knows what was computed from x.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _LEAVES_TORCH:
            self._recorder.refuse_escape(args[0])
        return func(*args, **(kwargs or {}))
