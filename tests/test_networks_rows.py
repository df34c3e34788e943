"""Hundreds of small networks: a row's result has the same bits wherever the row stands."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ptsne.networks import (
    AtlasProjection,
    MapNetwork,
    SkipNetwork,
    Standardize,
    apply_by_rows,
    relu_network,
    rows,
)
from ptsne.networks.aligned import AlignedLayers, aligned_linear

WIDTHS = [*range(1, 10), 17]
COLUMNS = [*WIDTHS, 31, 33, 65]
N_ROWS = 20
PRECISIONS = [np.float64, np.float32]


def linear(d, width):
    mean = torch.randn(d)
    skip = SkipNetwork(torch.randn(width, d) / d**0.5)
    return nn.Sequential(Standardize(mean, torch.tensor(1.7)), skip)


def branched(d, width):
    network = SkipNetwork(torch.randn(width, d), (width, 3))
    nn.init.normal_(network.branch[-1].weight)
    return nn.Sequential(Standardize(torch.randn(d), torch.tensor(1.7)), network)


def atlas(width):
    network = AtlasProjection(torch.randn(6, width), 1 + width % 3, temperature=1.5)
    nn.init.normal_(network.places)
    nn.init.normal_(network.charts)
    return network


NETWORKS = {
    "linear": linear,
    "branched": branched,
    "relu": lambda d, width: relu_network((d, width, 5, 2)),
    "map": lambda d, width: MapNetwork(linear(d, width), atlas(width)),
    "codes": lambda d, width: atlas(d),
}


def networks(name, dtype):
    """One network for every shape, with rows for it."""
    rng = np.random.default_rng(0)
    for d, width in itertools.product(COLUMNS, WIDTHS if name != "codes" else [1]):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(100 * d + width)
            network = NETWORKS[name](d, width).to(torch.from_numpy(np.empty(0, dtype)).dtype).eval()
        yield (d, width), network, 3 * rng.normal(size=(N_ROWS, d)).astype(dtype), rng


@pytest.fixture
def threads():
    """Sets torch's threads for the time of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_has_the_same_bits_wherever_it_stands(name, dtype, threads):
    uneven = set()
    for shape, network, X, rng in networks(name, dtype):
        threads(1)
        expected = apply_by_rows(network, X)
        everywhere = np.repeat(rng.integers(N_ROWS), 257)
        order = np.concatenate([everywhere, rng.integers(0, N_ROWS, rng.integers(1, 300))])
        for n_threads in (1, 2):
            threads(n_threads)
            found = apply_by_rows(network, X[order])
            if not np.array_equal(found, expected[order]):
                uneven.add(shape)
        for size in (1, 7):
            parts = [apply_by_rows(network, X[i : i + size]) for i in range(0, 3 * size, size)]
            if not np.array_equal(np.concatenate(parts)[:N_ROWS], expected[: 3 * size]):
                uneven.add(shape)
    assert sorted(uneven) == []


@pytest.mark.parametrize("name", ["linear", "map", "codes"])
def test_spans_of_rows_go_through_threads_side_by_side(name, threads, monkeypatch):
    monkeypatch.setattr(rows, "FEWEST_ROWS_PER_TURN", 40)
    for shape, network, X, rng in networks(name, np.float64):
        if shape[0] not in {5, 33}:
            continue
        many = X[rng.integers(0, N_ROWS, 1500)]
        threads(1)
        expected = apply_by_rows(network, many)
        for n_threads in (2, 5):
            threads(n_threads)
            np.testing.assert_array_equal(apply_by_rows(network, many), expected)
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(torch.get_num_threads).result() == n_threads
            assert torch.get_num_threads() == n_threads


def test_blocks_of_wide_rows_are_shorter():
    assert [rows.rows_per_block(d, "cpu") for d in (4, 4096, 4097, 10**6)] == [256, 256, 128, 64]


def test_a_module_of_the_users_runs_in_the_callers_thread(threads, monkeypatch):
    class Counting(nn.Module):
        def forward(self, x):
            assert threading.current_thread() is threading.main_thread()
            return x + 1

    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 100)
    threads(2)
    X = np.random.default_rng(0).normal(size=(1500, 3))
    np.testing.assert_array_equal(apply_by_rows(Counting().eval(), X), X + 1)


def test_a_linear_layer_in_the_middle_of_any_network_is_aligned():
    class Middle(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 7, generator=generator).double())

        def forward(self, x):
            return F.linear(x[:, :7].relu(), weight=self.weight)

    generator = torch.Generator().manual_seed(0)
    X = np.repeat(np.random.default_rng(0).normal(size=(1, 9)), 300, axis=0)
    found = apply_by_rows(Middle().eval(), X)
    np.testing.assert_array_equal(found, np.repeat(found[:1], 300, axis=0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("d", [1, 5, 8, 16, 21])
def test_an_aligned_layer_computes_what_the_layer_computes(d, dtype):
    generator = torch.Generator().manual_seed(d)
    x, weight = (torch.randn(2, n, d, generator=generator).to(dtype) for n in (3, 4))
    bias = torch.randn(4, generator=generator).to(dtype)
    for more in ((), (bias,)):
        expected = F.linear(x, weight[0], *more)
        torch.testing.assert_close(aligned_linear(x, weight[0], *more), expected)
        with AlignedLayers():
            torch.testing.assert_close(F.linear(input=x, weight=weight[0]), x @ weight[0].T)
            assert torch.equal(F.linear(x, weight[0], *more), aligned_linear(x, weight[0], *more))


def test_rows_may_lie_in_memory_in_any_way():
    network = linear(7, 3).double()
    X = np.random.default_rng(0).normal(size=(200, 7)).astype(np.float32)
    expected = apply_by_rows(network, X)
    locked = X.copy()
    locked.flags.writeable = False
    assert np.array_equal(apply_by_rows(network, locked), expected)
    assert np.array_equal(apply_by_rows(network, X[::-1])[::-1], expected)
    assert np.array_equal(apply_by_rows(network, np.asfortranarray(X)), expected)
