"""A fit keeps to its budget, or says what it needs."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from ptsne.affinities import graph_width, nearest_neighbors
from ptsne.lazy import lazy_source
from ptsne.streaming import (
    Sizes,
    budget_bytes,
    plan_memory,
)
from streams import IRIS, MIB, N_ROWS, SOURCES, WIDE, quick

# ---- budget ----


@pytest.mark.parametrize(
    ("value", "size"),
    [(10, 10), (1e6, 10**6), ("512", 512), ("1 KiB", 1024), ("1.5GiB", 3 * 2**29), ("2gb", 2**31),
     (".5m", 2**19), ("1T", 2**40), (" 7 MB ", 7 * MIB)],
)  # fmt: skip
def test_budgets_are_read(value, size):
    assert budget_bytes(value) == size


@pytest.mark.parametrize("value", ["", "much", "-1GiB", "1 GiBs", "1e3", "0", "5 XB"])
def test_other_budgets_are_refused(value):
    with pytest.raises(ValueError, match='such as "512MiB" or "2GiB"; got'):
        quick(memory_budget=value).fit(IRIS)


@pytest.mark.parametrize("value", [0, -5, float("inf"), [1], True])
def test_budgets_of_other_kinds_are_refused(value):
    with pytest.raises(ValueError, match="memory_budget"):
        quick(memory_budget=value).fit(IRIS)


def test_a_list_is_no_budget():
    with pytest.raises(ValueError, match=r'such as "512MiB" or "2GiB"; got \[1\]'):
        budget_bytes([1])


def test_a_budget_that_is_too_small_says_how_much_is_needed():
    with pytest.raises(ValueError, match=r"240 rows of 400 columns.* at least \d+ MiB, got 1 MiB"):
        quick(memory_budget="1MiB").fit(WIDE)


def least(fit):
    """The budget that the refusal of another names, in MiB."""
    with pytest.raises(ValueError, match="at least") as refusal:
        fit("1MiB")
    return int(re.search(r"at least (\d+) MiB", str(refusal.value))[1])


@pytest.mark.parametrize("given", [False, True])
def test_the_least_budget_is_what_is_named(given):
    graph = nearest_neighbors(WIDE, 60) if given else None

    def fit(budget):
        return quick(memory_budget=budget, max_iter=10).fit(WIDE, neighbors=graph)

    named = least(fit)
    assert fit(f"{named}MiB").embedding_.shape == (N_ROWS, 2)
    with pytest.raises(ValueError, match=rf"at least {named} MiB, got {named - 1} MiB"):
        fit(f"{named - 1}MiB")


@pytest.mark.parametrize("kind", ["dask", "zarr", "hdf5"])
def test_large_chunks_count(kind, tmp_path):
    """A chunk is read whole and held twice, however few of its rows are asked for."""
    data = SOURCES[kind](np.ones((N_ROWS, 2)), tmp_path)
    source, n_rows = lazy_source(data), {"dask": 123, "zarr": 48, "hdf5": 80}[kind]
    assert source.chunk_bytes == 2 * 8 * 2 * n_rows
    sizes = Sizes(4000, 784, 90, 50, 800, 256, 12 * 784)
    chunked = replace(sizes, chunk_bytes=500 * MIB)
    with pytest.raises(ValueError, match=r"at least 5\d\d MiB.*chunks of less than 250 MiB"):
        plan_memory(300 * MIB, chunked)
    assert chunked.peak(plan_memory(900 * MIB, chunked)) <= 900 * MIB


def test_a_graph_counts_with_all_its_neighbours():
    few, many = (Sizes(40_000, 9, k, 5, 50, 0, 108) for k in (30, 300))
    assert many.peak(plan_memory(2**30, many)) > 1.5 * few.peak(plan_memory(2**30, few))
    assert graph_width(nearest_neighbors(WIDE, 60), N_ROWS) == 60
    square = sparse.csr_array(np.ones((5, 5)))
    assert graph_width(square, 5) == 5
    with pytest.raises(ValueError, match="must both have shape"):
        quick().fit(WIDE, neighbors=(np.ones((3, 2)), np.ones((3, 2))))


@pytest.mark.parametrize("budget", [80, 100, 200, 1000])
def test_plans_keep_to_the_budget(budget):
    sizes = Sizes(4000, 784, 90, 50, 800, 256, 12 * 784)
    plan = plan_memory(budget * MIB, sizes)
    assert sizes.peak(plan) <= budget * MIB
    richer = plan_memory(2 * budget * MIB, sizes)
    assert (richer.rank, richer.n_landmarks) >= (plan.rank, plan.n_landmarks)


def test_fewer_landmarks_are_said(monkeypatch):
    monkeypatch.setattr("ptsne.streaming.budget.SCORED", 2**20)
    with pytest.warns(UserWarning, match=r"holds \d+ landmarks instead of 200"):
        quick(n_landmarks=200, max_iter=10).fit(WIDE)


# ---- memory ----


PEAK = """
import sys
from dataclasses import replace
import numpy as np
sys.path.insert(0, "benchmarks")
from machine import Watch
from ptsne import ParametricTSNE

options = {"memory_budget": "168MiB", "perplexity": 10, "n_landmarks": 200, "max_iter": 20}
ParametricTSNE(**options).fit(np.random.default_rng(0).normal(size=(400, 300)))
X = np.load(sys.argv[1], mmap_mode="r")
with Watch() as watch:
    ParametricTSNE(**options).fit(X)
print(watch.memory_gib * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system must tell its peak memory")
def test_peak_memory_keeps_to_the_budget(tmp_path):
    n_rows, n_columns = 10_000, 6_000  # 229 MiB
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n_rows, n_columns))
    rng = np.random.default_rng(0)
    for start in range(0, n_rows, 1000):
        rows[start : start + 1000] = rng.standard_normal((1000, n_columns), np.float32)
    del rows
    command = [sys.executable, "-c", PEAK, str(tmp_path / "x.npy")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 168
