"""Which device computes, and what to do when its memory is not enough."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def resolve_device(device: str) -> torch.device:
    """Torch device for a name; "auto" is the GPU when there is one.

    Parameters
    ----------
    device : str
        "auto" or a torch device; with "auto" each process of torchrun gets a GPU of its own.

    Returns
    -------
    torch.device
        A device that exists here and computes in float64.

    Raises
    ------
    ValueError
        If the device does not exist here, or has no float64.
    """
    if device == "auto":
        return _own_gpu() if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.zeros(1, dtype=torch.float64, device=device)  # Apple's GPUs have none
        found.cpu()  # the meta device has no numbers
        return found.device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not available here ({str(error).splitlines()[0]}); "
            'use device="cpu" or device="auto"'
        ) from error


def _own_gpu() -> torch.device:
    """The GPU, or one for each process that torchrun started on this machine."""
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def is_gpu(device: torch.device) -> bool:
    """Whether data should stay on the device from one step to the next."""
    return device.type != "cpu"


@contextmanager
def advice_on_memory(shape: tuple[int, ...]) -> Iterator[None]:
    """Turn a failed allocation into an error that says what to change.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns that are fitted.

    Yields
    ------
    None
        To the fitting.

    Raises
    ------
    MemoryError
        If there was not enough memory.
    RuntimeError
        Any other that came up.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise MemoryError(
            f"not enough memory to fit {shape[0]} rows of {shape[1]} columns; fit fewer rows and "
            "transform the others, reduce the columns with PCA or TruncatedSVD in a pipeline, set "
            f'memory_budget, lower n_landmarks, or on a GPU use device="cpu" ({error})'
        ) from error


def give_back_memory() -> None:
    """Return to the system what was freed, where the C library keeps it (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("allocate memory", "not enough memory", "out of memory")  # what the CPU's says
    return any(word in str(error).lower() for word in words)
