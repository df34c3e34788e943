"""Lets torch take memory of this machine for a GPU's.

    python tests/simulated_cuda.py script.py arguments    # built and loaded before torch; needs g++

What it can show: that all tensors of a computation are where they should be, and by
`torch.cuda.waits` how often the host has waited for the device. Kernels, memory and speed are
those of the CPU.
"""

import ctypes
import runpy
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")


def build(library):
    """Compile it against the torch that is installed."""
    torch = Path(find_spec("torch").origin).parent
    include = [f"-I{torch / path}" for path in ("include", "include/torch/csrc/api/include")]
    link = [f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch / 'lib'}"]
    command = ["g++", "-shared", "-fPIC", "-O1", "-std=c++20", "-w", *include, str(SOURCE)]
    subprocess.run([*command, "-o", str(library), *link], check=True)


def use(library):
    """Load the device, and torch behind it."""
    device = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    import torch  # looks for devices when it is imported

    replaced = {
        "waits": partial(device.waits),
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "current_device": partial(device.current_device),
        "synchronize": lambda device=None: None,
        "manual_seed": lambda seed: None,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: None,
        "_lazy_init": lambda: None,
        "_exchange_device": partial(device.exchange_device),
        "_maybe_exchange_device": partial(device.exchange_device),
    }
    for name, function in replaced.items():
        setattr(torch.cuda, name, function)
    for kind in (torch.Tensor, torch.nn.Parameter):
        kind.__deepcopy__ = _deepcopy(kind.__deepcopy__, torch)


def _deepcopy(of_cpu, torch):
    """Storages of torch for the CPU know no other device."""

    def deepcopy(self, memo):
        if not self.is_cuda:
            return of_cpu(self, memo)
        if id(self) not in memo:
            is_parameter = isinstance(self, torch.nn.Parameter)
            new = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)] = type(self)(new, self.requires_grad) if is_parameter else new
        return memo[id(self)]

    return deepcopy


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "cuda.so")
        build(library)
        use(library)
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")
