"""Same seed, same bits; places and explanations are those of a row, whatever runs beside it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ptsne import ParametricTSNE, linearize, networks
from ptsne.explanation import source

X = load_digits().data
NEW = X[300:900]
CHUNKS = (1, 7, 255, 256, 257, 600)


@pytest.fixture(scope="module", params=[{}, {"encoder": (16,), "projection": (32,)}], ids=str)
def map_(request):
    return ParametricTSNE(max_iter=10, random_state=0, **request.param).fit(X[:300])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_places_are_the_same_bits_in_chunks_of_any_size(map_, dtype, monkeypatch):
    rows = NEW.astype(dtype)
    whole = map_.transform(rows)
    for size in CHUNKS:
        n = 20 * size if size < 10 else len(rows)
        parts = [map_.transform(rows[i : i + size]) for i in range(0, n, size)]
        np.testing.assert_array_equal(np.concatenate(parts)[:n], whole[:n])
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(map_.transform(rows[order]), whole[order])
    monkeypatch.setitem(networks.ROWS_PER_BLOCK, "cpu", 8192)  # that of a GPU
    tolerance = 1e-12 if dtype == np.float64 else 1e-6
    scale = np.abs(whole).max()
    np.testing.assert_allclose(map_.transform(rows), whole, rtol=0, atol=tolerance * scale)


def assert_same_maps(found, expected):
    """W and b to the last digits: products of other shapes are summed in another order."""
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * float(abs(b).max()))


def test_maps_are_those_of_the_row_in_chunks_of_any_size(map_, monkeypatch):
    why = map_.explain(NEW)
    expected = why.weight, why.intercept
    order = np.random.default_rng(0).permutation(len(NEW))
    shuffled = map_.explain(NEW[order])
    assert_same_maps((shuffled.weight, shuffled.intercept), [part[order] for part in expected])
    np.testing.assert_array_equal(shuffled.Y, why.Y[order])
    np.testing.assert_array_equal(shuffled.n_active, why.n_active[order])
    for i in (0, 255, 599):
        alone = map_.explain(NEW[i : i + 1])
        assert_same_maps((alone.weight, alone.intercept), [part[i : i + 1] for part in expected])
    for size in CHUNKS[1:-1]:
        monkeypatch.setitem(source.ROWS_PER_BLOCK, "cpu", size)
        again = map_.explain(NEW)
        assert_same_maps((again.weight, again.intercept), expected)


def test_maps_of_a_network_do_not_depend_on_its_chunks():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 5)).double().eval()
    x = torch.from_numpy(NEW[:200])
    whole = linearize(network, x)
    room = 200 * 5 * 64 * 8
    parts = linearize(network, x, memory_budget=room)
    assert parts._chunk < 200
    assert_same_maps((parts.weight(), parts.bias()), (whole.weight(), whole.bias()))
    twice = linearize(network, x)
    assert torch.equal(twice.weight(), whole.weight())
    assert torch.equal(twice.bias(), whole.bias())


@pytest.fixture(scope="module")
def under_threads(tmp_path_factory):
    """What `under_threads.py` found, in a process that may set its threads."""
    path = tmp_path_factory.mktemp("threads") / "found.npz"
    script = Path(__file__).with_name("under_threads.py")
    folder = str(Path(__file__).parent.parent)
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": folder}
    environment.pop("OMP_NUM_THREADS", None)
    subprocess.run([sys.executable, script, path], check=True, env=environment)
    return dict(np.load(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["atlas", "mlp"])
def test_threads_change_no_bit_of_places_and_explanations(under_threads, name):
    for what in ("transform", "explain", "intercept"):
        one, *others = (under_threads[f"{name} {what} {threads}"] for threads in (1, 2, 8))
        for other in others:
            np.testing.assert_array_equal(other, one)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["atlas", "mlp"])
def test_the_same_seed_and_threads_give_the_same_fit(under_threads, name):
    first, again = (under_threads[f"{name} {what} 1"] for what in ("fit", "again"))
    np.testing.assert_array_equal(again, first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["atlas", "mlp"])
def test_more_threads_give_a_map_as_good(under_threads, name):
    """Sums in another order change last digits of a gradient, and iterations enlarge them."""
    one, *others = (under_threads[f"{name} kl fit {threads}"] for threads in (1, 2, 8))
    assert [float(other) for other in others] == pytest.approx([float(one)] * 2, rel=0.02)
