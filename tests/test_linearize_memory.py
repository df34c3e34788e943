"""Large networks: what does not fit is refused with its size, the rest stays within the budget."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import public_networks
from cases import CASES
from ptsne.linearize import linearize, paired_linearization

MIB = 2**20


def test_weight_of_all_outputs_of_large_pictures_is_refused():
    x = torch.zeros(16, 3, 224, 224)
    lin = linearize(nn.Sequential(nn.AvgPool2d(224), nn.Flatten(), nn.Linear(3, 1000)).eval(), x)
    with pytest.raises(MemoryError, match=r"\(16, 1000, 3, 224, 224\) takes 9,187\.5 MiB.*"
                       r"memory_budget \(1,024\.0 MiB\); .*'predicted'.*linear_part"):  # fmt: skip
        lin.weight()
    assert lin.weight("predicted").shape == (16, 1, 3, 224, 224)
    assert lin.linear_part().shape == (16, 1000)


def test_weight_of_a_layer_says_to_choose_neurons():
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(32)).eval()
    lin = linearize(model, torch.ones(2, 1, 32, 32), layers=["0"], memory_budget=20 * MIB)
    layer = lin.layer("0")
    with pytest.raises(MemoryError, match=r"layer '0' of shape \(2, 8192, 1, 32, 32\).*neurons"):
        layer.weight()
    chosen = layer.contribution(3).flatten(1).abs().topk(5, 1).indices
    assert layer.weight(chosen).shape == (2, 5, 1, 32, 32)


def test_differences_above_the_budget_are_refused():
    x = torch.zeros(10, 1000)
    paired = paired_linearization(nn.Linear(1000, 100).eval(), x, x[0], memory_budget=MIB)
    with pytest.raises(MemoryError, match=r"^M of shape \(10, 100, 1000\) takes 3\.8 MiB"):
        paired.weight()


@pytest.mark.parametrize("ask", ["weight", "linear_part", "layer", "paired"])
def test_progress_bar(ask, capsys):
    case = next(c for c in CASES if c.name == "lenet")
    model, x = case.model(), case.x(6)
    for progress in (False, True):
        options = {"progress": progress, "memory_budget": 2**14}
        if ask == "paired":
            paired_linearization(model, x, x[0] * 0, **options).weight()
        else:
            lin = linearize(model, x, layers=["2"], **options)
            lin.layer("2").weight([0, 9]) if ask == "layer" else getattr(lin, ask)()
        said = capsys.readouterr().err
        assert ("100%" in said and "linearize" in said) == progress


def test_weight_above_the_budget_is_refused_with_its_size():
    model = nn.Linear(1000, 100).eval()
    lin = linearize(model, torch.zeros(10, 1000), memory_budget=2**20)
    with pytest.raises(MemoryError, match=r"\(10, 100, 1000\) takes 3\.8 MiB.*predicted"):
        lin.weight()
    assert lin.weight("predicted").shape == (10, 1, 1000)
    assert lin.linear_part().shape == (10, 100)


@pytest.mark.parametrize("name", ["gelu", "vision_transformer", "ragged", "fractional_max_pool2d"])
def test_chunks_agree_with_the_whole(name):
    case = next(c for c in CASES if c.name == name)
    model, x = case.model(), case.x(20)
    whole = linearize(model, x[:2])
    chunked = linearize(model, x)
    small = linearize(model, x, memory_budget=chunked._graph.n_bytes)
    assert small._graph is None
    assert 1 < small._chunk < 20
    if "fractional" not in name:
        torch.testing.assert_close(small.weight(0), chunked.weight(0), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(small.weight(0)[:2], whole.weight(0), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(small.linear_part(), chunked.linear_part())
    assert float(small.residual().max()) < 1e-12


PEAK = """
import resource
import torch
from public_networks import Network
from ptsne.linearize import linearize

torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
network = Network("torchvision", "resnet50", 224)
model = network.model()
x = network.x(16, torch.float32)
before = peak()
lin = linearize(model, x, memory_budget=400 * 2**20)
weight, bias = lin.weight("predicted"), lin.bias("predicted")
assert weight.shape == (16, 1, 3, 224, 224)
moved = (weight[:, 0] * x).flatten(1).sum(1) + bias[:, 0]
size = (weight[:, 0] * x).flatten(1).abs().sum(1)
assert ((moved - lin.output.amax(1)).abs() < 1e-5 * size).all()
print(peak() - before)
"""


@pytest.mark.slow
def test_peak_memory_of_a_deep_network_stays_near_the_budget():
    pytest.importorskip("resource", reason="measures memory as POSIX systems do")
    public_networks.torchvision()  # or skip
    folder = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", PEAK],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split()[-1]) < 1.5 * 400
