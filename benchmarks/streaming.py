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
from pathlib import Path

import numpy as np
from machine import ROOT, Watch, commit, hardware, versions
from records import RESULTS, read, write
from scipy import sparse
from tables import fill

from ptsne import ParametricTSNE
from ptsne.metrics import neighbor_recall, trustworthiness

N_ROWS, N_COLUMNS = 20_000, 10_000
BUDGET_MIB = 256
N_CLUSTERS, N_DIRECTIONS = 40, 30
PARAMETERS = {"perplexity": 15, "max_iter": 100, "n_landmarks": 300, "random_state": 0}
BLOCK = 1000
SOURCES = ("memmap", "hdf5", "zarr", "csr", "dask", "dataset", "in memory")
PAGE = ROOT / "docs" / "big_data.md"
LIBRARIES = ("numpy", "scipy", "torch", "h5py", "zarr", "dask")


def blocks():
    """Rows (B, D) float32, a block at a time, the same in every process."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(N_DIRECTIONS, N_COLUMNS)).astype(np.float32) / 100
    centres = 4 * rng.normal(size=(N_CLUSTERS, N_DIRECTIONS))
    for start in range(0, N_ROWS, BLOCK):
        n = min(BLOCK, N_ROWS - start)
        codes = centres[rng.integers(N_CLUSTERS, size=n)] + rng.normal(size=(n, N_DIRECTIONS))
        rows = codes.astype(np.float32) @ directions
        yield slice(start, start + n), rows + 0.01 * rng.standard_normal(rows.shape, np.float32)


def written(array):
    for where, rows in blocks():
        array[where] = rows
    return array


def memmap(folder):
    path = folder / "rows.npy"
    shape = (N_ROWS, N_COLUMNS)
    written(np.lib.format.open_memmap(path, "w+", np.float32, shape)).flush()
    return np.load(path, mmap_mode="r")


def hdf5(folder):
    import h5py  # noqa: PLC0415 - only the process that measures it needs it

    with h5py.File(folder / "rows.h5", "w") as file:
        shape, chunks = (N_ROWS, N_COLUMNS), (100, N_COLUMNS)
        written(file.create_dataset("rows", shape, np.float32, chunks=chunks))
    return h5py.File(folder / "rows.h5")["rows"]


def zarr_array(folder):
    import zarr  # noqa: PLC0415

    path, shape, chunks = folder / "rows.zarr", (N_ROWS, N_COLUMNS), (100, N_COLUMNS)
    written(zarr.create_array(path, shape=shape, chunks=chunks, dtype="f4", compressors=None))
    return zarr.open_array(path, mode="r")


def csr(_):
    """The largest entries only; the matrix itself is in memory, its dense form never."""
    limit = 0.4
    parts = [sparse.csr_array(np.where(rows > limit, rows, 0)) for _, rows in blocks()]
    return sparse.csr_array(sparse.vstack(parts))


def dask_array(folder):
    import dask.array  # noqa: PLC0415

    return dask.array.from_array(memmap(folder), chunks=(100, N_COLUMNS))


def dataset(folder):
    from torch.utils.data import Dataset  # noqa: PLC0415

    class Rows(Dataset):
        def __init__(self):
            self.rows = memmap(folder)

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, i):
            return np.array(self.rows[i]), 0

    return Rows()


def in_memory(folder):
    return np.array(memmap(folder))


MAKERS = {
    "memmap": memmap,
    "hdf5": hdf5,
    "zarr": zarr_array,
    "csr": csr,
    "dask": dask_array,
    "dataset": dataset,
    "in memory": in_memory,
}


def measure(source):
    """Seconds, peak memory and quality of one fit, in this process."""
    budget = None if source == "in memory" else BUDGET_MIB * 2**20
    tiny = np.random.default_rng(0).normal(size=(400, 300))
    ParametricTSNE(max_iter=20, memory_budget=budget).fit(tiny)
    with tempfile.TemporaryDirectory() as folder:
        rows = MAKERS[source](Path(folder))
        map_ = ParametricTSNE(memory_budget=budget, **PARAMETERS)
        with Watch() as watch:
            map_.fit(rows)
        quality = judged(map_)
    return {
        "source": source,
        "peak_mib": watch.memory_gib * 2**10,
        "cpu_seconds": watch.cpu_seconds,
        "seconds": watch.seconds,
        "kl_divergence": map_.kl_divergence_,
        **quality,
    }


def judged(map_):
    """Recall and trustworthiness of the first rows, among themselves."""
    X = np.concatenate([rows for where, rows in blocks() if where.start < 3000])
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
        "rows": N_ROWS,
        "columns": N_COLUMNS,
        "data_mib": N_ROWS * N_COLUMNS * 4 / 2**20,
        "budget_mib": BUDGET_MIB,
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
        "| rows come from | budget, MiB | peak, MiB | processor, s | KL | recall 15 | trust 15 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in found["runs"]:
        budget = "–" if run["source"] == "in memory" else found["budget_mib"]
        lines.append(
            f"| {run['source']} | {budget} | {run['peak_mib']:.0f} | {run['cpu_seconds']:.0f} "
            f"| {run['kl_divergence']:.3f} | {run['recall_15']:.3f} "
            f"| {run['trustworthiness_15']:.3f} |"
        )
    parameters = ", ".join(f"{name}={value}" for name, value in found["parameters"].items())
    machine = found["hardware"]
    libraries = ", ".join(f"{name} {v}" for name, v in found["versions"].items() if v)
    lines += [
        "",
        f"{found['rows']:,} rows of {found['columns']:,} float32 columns, "
        f"{found['data_mib']:,.0f} MiB; {parameters}. KL of the "
        "map by its own graph; recall and trust of the first 3,000 rows among themselves. "
        f"{machine['cpu']}, {machine['cores']} cores, with other work beside it; {libraries}.",
    ]
    return "\n".join(lines)


def write_page():
    found = read(RESULTS / "streaming.json")
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), page(found)), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=SOURCES)
    parser.add_argument("--measure", choices=SOURCES, help="measure here, and print JSON")
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
            write(path, record([runs[source] for source in SOURCES if source in runs]))
    write_page()


if __name__ == "__main__":
    main()
