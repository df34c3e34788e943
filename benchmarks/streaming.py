"""Fit rows of many times the memory that the fit may take, from every kind of source.

    python benchmarks/streaming.py                  # all sources, each in a process of its own
    python benchmarks/streaming.py --only memmap
    python benchmarks/streaming.py --page           # only the table of docs/big_data.md

The rows are made: clusters in a few directions, and noise. They are written to a temporary folder
block by block. "Peak" is the resident memory of the process at its highest above what it was when
`fit` began, after the imports and a warm-up on a tiny problem; pages of mapped files count.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from machine import ROOT, Watch, commit, hardware, versions
from records import RESULTS, read, write
from scipy import sparse
from tables import fill

from ptsne import ParametricTSNE
from ptsne.metrics import neighbor_recall, trustworthiness

N_CLUSTERS, N_DIRECTIONS = 40, 30
PARAMETERS = {"perplexity": 15, "max_iter": 100, "n_landmarks": 300, "random_state": 0}
BLOCK = 1000
PAGE = ROOT / "docs" / "big_data.md"
LIBRARIES = ("numpy", "scipy", "torch", "h5py", "zarr", "dask")


class Size(NamedTuple):
    """Rows, and the budget of their fit in MiB."""

    rows: int
    columns: int
    budget_mib: int | None

    @property
    def shape(self):
        return self.rows, self.columns

    @property
    def data_mib(self):
        return self.rows * self.columns * 4 / 2**20


NEAR, FAR = Size(20_000, 10_000, 256), Size(40_000, 20_000, 305)


def blocks(size):
    """Rows (B, D) float32, a block at a time, the same in every process."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(N_DIRECTIONS, size.columns)).astype(np.float32) / 100
    centres = 4 * rng.normal(size=(N_CLUSTERS, N_DIRECTIONS))
    for start in range(0, size.rows, BLOCK):
        n = min(BLOCK, size.rows - start)
        codes = centres[rng.integers(N_CLUSTERS, size=n)] + rng.normal(size=(n, N_DIRECTIONS))
        rows = codes.astype(np.float32) @ directions
        yield slice(start, start + n), rows + 0.01 * rng.standard_normal(rows.shape, np.float32)


def written(array, size):
    for where, rows in blocks(size):
        array[where] = rows
    return array


def memmap(folder, size):
    path = folder / "rows.npy"
    written(np.lib.format.open_memmap(path, "w+", np.float32, size.shape), size).flush()
    return np.load(path, mmap_mode="r")


def hdf5(folder, size):
    import h5py  # noqa: PLC0415 - only the process that measures it needs it

    with h5py.File(folder / "rows.h5", "w") as file:
        chunks = 100, size.columns
        written(file.create_dataset("rows", size.shape, np.float32, chunks=chunks), size)
    return h5py.File(folder / "rows.h5")["rows"]


def zarr_array(folder, size):
    import zarr  # noqa: PLC0415

    path, chunks = folder / "rows.zarr", (100, size.columns)
    how = {"shape": size.shape, "chunks": chunks, "dtype": "f4", "compressors": None}
    written(zarr.create_array(path, **how), size)
    return zarr.open_array(path, mode="r")


def csr(_, size):
    """The largest entries only; the matrix itself is in memory, its dense form never."""
    limit = 0.4
    parts = [sparse.csr_array(np.where(rows > limit, rows, 0)) for _, rows in blocks(size)]
    return sparse.csr_array(sparse.vstack(parts))


def mapped_csr(folder, size):
    """The same in three files."""
    matrix = csr(folder, size)
    for name in ("data", "indices", "indptr"):
        np.save(folder / f"{name}.npy", getattr(matrix, name))
    parts = [np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("data", "indices", "indptr")]
    return sparse.csr_array(tuple(parts), shape=size.shape)


def dask_array(folder, size):
    import dask.array  # noqa: PLC0415

    return dask.array.from_array(memmap(folder, size), chunks=(100, size.columns))


def dataset(folder, size):
    from torch.utils.data import Dataset  # noqa: PLC0415

    class Rows(Dataset):
        def __init__(self):
            self.rows = memmap(folder, size)

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, i):
            return self.rows[i], 0

    return Rows()


def in_memory(folder, size):
    return np.array(memmap(folder, size))


CASES = {
    "memmap": (memmap, NEAR),
    "hdf5": (hdf5, NEAR),
    "zarr": (zarr_array, NEAR),
    "csr": (csr, NEAR),
    "csr, mapped": (mapped_csr, NEAR),
    "dask": (dask_array, NEAR),
    "dataset": (dataset, NEAR),
    "in memory": (in_memory, NEAR._replace(budget_mib=None)),
    "memmap, ten times the budget": (memmap, FAR),
}


def measure(source):
    """Seconds, peak memory and quality of one fit, in this process."""
    make, size = CASES[source]
    budget = size.budget_mib and size.budget_mib * 2**20
    tiny = np.random.default_rng(0).normal(size=(400, 300))
    ParametricTSNE(max_iter=20, memory_budget=budget).fit(tiny)
    with tempfile.TemporaryDirectory() as folder:
        rows = make(Path(folder), size)
        map_ = ParametricTSNE(memory_budget=budget, **PARAMETERS)
        with Watch() as watch:
            map_.fit(rows)
        quality = judged(map_, size)
    return {
        "source": source,
        **size._asdict(),
        "data_mib": size.data_mib,
        "peak_mib": watch.memory_gib * 2**10,
        "cpu_seconds": watch.cpu_seconds,
        "seconds": watch.seconds,
        "kl_divergence": map_.kl_divergence_,
        **quality,
    }


def judged(map_, size):
    """Recall and trustworthiness of the first rows, among themselves."""
    X = np.concatenate([rows for _, rows in islice(blocks(size), 3000 // BLOCK)])
    Y = map_.embedding_[: len(X)]
    return {
        "recall_15": neighbor_recall(X, Y, n_neighbors=15),
        "trustworthiness_15": trustworthiness(X, Y, n_neighbors=15),
    }


def in_own_process(source):
    command = [sys.executable, __file__, "--measure", source]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{source}: {run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def record(runs):
    return {
        "parameters": PARAMETERS,
        "runs": runs,
        "hardware": hardware(),
        "versions": versions(LIBRARIES),
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def page(found):
    """The table, and how it came about."""
    lines = [
        "| rows come from | rows, MiB | budget | peak | processor, s | KL | recall 15 | trust 15 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in found["runs"]:
        lines.append(
            f"| {run['source']} | {run['data_mib']:,.0f} | {run['budget_mib'] or '–'} "
            f"| {run['peak_mib']:,.0f} | {run['cpu_seconds']:.0f} "
            f"| {run['kl_divergence']:.3f} | {run['recall_15']:.3f} "
            f"| {run['trustworthiness_15']:.3f} |"
        )
    parameters = ", ".join(f"{name}={value}" for name, value in found["parameters"].items())
    machine = found["hardware"]
    shapes = {f"{run['rows']:,} rows of {run['columns']:,}": None for run in found["runs"]}
    libraries = ", ".join(f"{name} {v}" for name, v in found["versions"].items() if v)
    lines += [
        "",
        f"{' or '.join(shapes)} float32 columns; {parameters}. KL of the map by its own graph; "
        "recall and trust of the first 3,000 rows among themselves. "
        f"{machine['cpu']}, {machine['cores']} cores; {libraries}.",
    ]
    return "\n".join(lines)


def write_page():
    found = read(RESULTS / "streaming.json")
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), page(found)), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--measure", choices=CASES, help="measure here, and print JSON")
    parser.add_argument("--page", action="store_true", help="only write the table")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    if not options.page:
        path = RESULTS / "streaming.json"
        runs = {run["source"]: run for run in (read(path) or {"runs": []})["runs"]}
        for source in options.only:
            runs[source] = in_own_process(source)
            print(json.dumps(runs[source]), flush=True)
            write(path, record([runs[source] for source in CASES if source in runs]))
    write_page()


if __name__ == "__main__":
    main()
