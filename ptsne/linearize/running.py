"""Running a caller's network without a trace: arithmetic, random state, checks of what comes in."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .errors import UnsupportedOperation
from .settings import WITHOUT_TF32


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Leave the caller's inference mode, and keep TF32 out of products on a GPU."""
    if device.type != "cuda":
        with torch.inference_mode(False):
            yield
        return
    with WITHOUT_TF32.on(), torch.inference_mode(False):
        yield


class RandomState:
    """The caller's random state: every run draws as if it started there, and none moves it.

    Some pooling draws numbers even in evaluation mode; runs must agree on them.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with PrivateDraws.lock:  # another thread may have put its own there for one operation
            self._states = _random_states(device)

    def held(self) -> "PrivateDraws":
        """Run from the state at construction, and leave the caller's as it is."""
        return PrivateDraws(self._device, self._states)


class PrivateDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What this thread draws inside comes from a random state of its own.

    The caller's is replaced for the single operation that draws, so that other threads, which
    draw from the same generator, neither lose numbers nor get some twice.

    Parameters
    ----------
    device : torch.device
        Whose generator is meant besides the CPU's.
    states : list of Tensor
        Where to start.
    """

    lock = threading.RLock()

    def __init__(self, device: torch.device, states: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._states = states

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        with self.lock:
            before = _random_states(self._device)
            _set_random_states(self._device, self._states)
            try:
                return func(*args, **(kwargs or {}))
            finally:
                self._states = _random_states(self._device)
                _set_random_states(self._device, before)


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":  # pragma: no cover - needs a GPU
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_random_states(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":  # pragma: no cover - needs a GPU
        torch.cuda.set_rng_state(states[1], device)


def check_arguments(model: nn.Module, x: Tensor) -> None:
    """Refuse what cannot be linearized, before anything runs.

    Parameters
    ----------
    model : nn.Module
        The network.
    x : Tensor of shape (N, ...)
        Its input.

    Raises
    ------
    TypeError
        If `model` is not a module or `x` is not a tensor of float32 or float64.
    ValueError
        If `x` has no rows.
    UnsupportedOperation
        If the model is in training mode or is a TorchScript module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedOperation(
            "TorchScript modules hide their operations; pass the module they were made from"
        )
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"x must be a float32 or float64 tensor; got {got}. Convert half precision by "
            "model.float(), and start from the embedded vectors where the input is whole numbers."
        )
    if x.dim() == 0 or len(x) == 0:
        raise ValueError(f"x must have at least one row; got shape {tuple(x.shape)}")
    training = next((name for name, m in model.named_modules() if m.training), None)
    if training is not None:
        raise UnsupportedOperation(
            f"module {training!r} is in training mode; call model.eval() first"
        )
