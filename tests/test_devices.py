"""Devices by name."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from ptsne.devices import give_back_memory, is_gpu, resolve_device


@pytest.mark.parametrize(
    ("local_rank", "name"), [(None, "cuda"), ("0", "cuda:0"), ("1", "cuda:1"), ("2", "cuda:0")]
)
def test_each_process_of_torchrun_gets_a_gpu(monkeypatch, local_rank, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if local_rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert resolve_device("auto") == torch.device(name)
    assert is_gpu(resolve_device("auto"))


def test_without_a_gpu_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device("auto") == torch.device("cpu")
    assert not is_gpu(resolve_device("cpu"))


def test_a_device_without_float64_is_refused(monkeypatch):
    def zeros(*shape, dtype, device):
        raise TypeError(f"Cannot convert a {device} Tensor to {dtype}")

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(ValueError, match=r"'mps' is not available here \(.*float64\); use device="):
        resolve_device("mps")


def test_memory_is_given_back_where_the_c_library_keeps_it(monkeypatch):
    trimmed = []
    monkeypatch.setattr("ptsne.devices.sys", SimpleNamespace(platform="linux"))
    for library in (SimpleNamespace(malloc_trim=trimmed.append), SimpleNamespace()):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, library=library: library)
        give_back_memory()
    assert trimmed == [0]  # by the one, and no error of the other
    monkeypatch.setattr("ptsne.devices.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(ctypes, "CDLL", None)
    give_back_memory()
