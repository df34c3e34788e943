"""The package on a GPU that is none: everything is where it should be, and steps hardly wait."""

import json
import os
import subprocess
import sys

import pytest
import torch

import simulated_cuda
import simulated_fits

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.version.cuda is not None,
    reason="builds against a torch for the CPU, on Linux",
)


def has_compiler():
    try:
        probe = ["g++", "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
        subprocess.run(probe, input=b"#include <optional>", check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What went wrong in each run, or None."""
    if not has_compiler():
        pytest.skip("needs g++")
    found = tmp_path_factory.mktemp("simulated_cuda") / "outcomes.json"
    command = [sys.executable, simulated_cuda.__file__, simulated_fits.__file__, str(found)]
    path = os.pathsep.join(sys.path)
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(found.read_text())


@pytest.mark.parametrize("name", simulated_fits.RUNS)
def test_a_gpu_gives_what_the_cpu_gives(outcomes, name):
    assert outcomes[name] is None, outcomes[name]
