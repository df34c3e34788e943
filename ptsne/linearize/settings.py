"""Settings of the whole process that a computation needs otherwise for a while."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class SharedSetting:
    """Sets something for all threads while at least one of them wants it set.

    torch has one value for the whole process, so that threads must count, or one of them would
    restore what another had set.

    Parameters
    ----------
    setting : callable
        Makes a context manager that sets it and puts it back.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[object]]) -> None:
        self._setting = setting
        self._lock = threading.Lock()
        self._n_inside = 0
        self._set: AbstractContextManager[object] | None = None

    def enter(self) -> None:
        """Want it set."""
        with self._lock:
            if self._n_inside == 0:
                self._set = self._setting()
                self._set.__enter__()
            self._n_inside += 1

    def leave(self) -> None:
        """Want it set no longer."""
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0 and self._set is not None:
                self._set.__exit__(None, None, None)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Want it set inside this context."""
        self.enter()
        try:
            yield
        finally:
            self.leave()


@contextmanager
def _no_onednn() -> Iterator[None]:
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


@contextmanager
def _no_tf32() -> Iterator[None]:
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    is_new = hasattr(matmul, "fp32_precision")  # since torch 2.9; once set, the flag raises
    name = "fp32_precision" if is_new else "allow_tf32"
    places = [matmul, cudnn.conv, cudnn.rnn] if is_new else [matmul, cudnn]
    before = [getattr(place, name) for place in places]
    for place in places:
        setattr(place, name, "ieee" if is_new else False)
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            if is_new:
                setattr(place, name, "none")  # what holds for all products, if that is the same
            if getattr(place, name) != value:
                setattr(place, name, value)


WITHOUT_ONEDNN = SharedSetting(_no_onednn)
WITHOUT_TF32 = SharedSetting(_no_tf32)
WRITTEN_OUT_ATTENTION = SharedSetting(lambda: sdpa_kernel(SDPBackend.MATH))
