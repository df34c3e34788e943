"""The package on a GPU that is none: everything is where it should be, and steps hardly wait."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import simulated_cuda

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.version.cuda is not None,
    reason="builds against a torch for the CPU, on Linux",
)
FITS = Path(__file__).with_name("simulated_fits.py")
NAMES = re.findall(r'^    "(.+?)": ', FITS.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What went wrong in each run, or None."""
    found = tmp_path_factory.mktemp("simulated_cuda") / "outcomes.json"
    command = [sys.executable, simulated_cuda.__file__, str(FITS), str(found)]
    path = os.pathsep.join(sys.path)
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if "g++" in run.stderr:
        pytest.skip("no compiler here that builds against this torch")
    assert run.returncode == 0, run.stderr
    return json.loads(found.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_what_the_cpu_gives(outcomes, name):
    assert outcomes[name] is None, outcomes[name]
