"""Seconds of fit and explain on a GPU, beside what is aimed at.

    PTSNE_DATA=FOLDER python benchmarks/gpu.py               # every case that has no record yet
    python benchmarks/gpu.py --only explain --force          # one case again
    python benchmarks/gpu.py --device cpu --scale 0.01 --output FOLDER     # a trial
    python benchmarks/gpu.py --page                          # the table of docs/scale.md alone

Each case and method runs in a process of its own and writes one JSON file with the device, the
versions and the commit, so that an interrupted run goes on where it was. A fit is timed with
everything from the rows in memory to the fitted map: neighbours, P, training, the places of all
rows. Before that a map of 2,000 random rows is fitted, so that no library is loaded and no kernel
chosen within the time. openTSNE and TorchDR are measured where they are installed.
"""

import argparse
import json
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from linearize import mlp
from machine import commit, environment, hardware, versions
from records import RESULTS, read, write

import ptsne
from ptsne.affinities import query_neighbors
from ptsne.datasets import load
from ptsne.linearize import linearize

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
PACKAGES = ("torch", "numpy", "scikit-learn", "torchdr", "openTSNE")
SCORED_ROWS, K_SCORED = 2000, 15
EXPLAINED_ROWS = 2**19
ROWS_AT_ONCE = 2**15


# ---- rows ----


def mnist(scale, data_home):
    parts = [load("mnist", split=part, data_home=data_home).X for part in ("train", "test")]
    X = np.concatenate(parts).astype(np.float32)
    return X[: max(500, int(scale * len(X)))]


def mixture(n_rows, n_columns):
    """Rows of 100 clusters, each in 16 directions of its own, with a little noise in all."""

    def rows(scale, data_home):
        del data_home
        rng, n = np.random.default_rng(0), max(500, int(scale * n_rows))
        centres = 3 * rng.standard_normal((100, n_columns), dtype=np.float32)
        axes = rng.standard_normal((100, 16, n_columns), dtype=np.float32) / 4
        X = np.empty((n, n_columns), dtype=np.float32)
        for start in range(0, n, 2**16):
            part = X[start : start + 2**16]
            cluster = rng.integers(100, size=len(part))
            part[...] = 0.1 * rng.standard_normal(part.shape, dtype=np.float32)
            for c in range(100):
                own = cluster == c
                within = rng.standard_normal((own.sum(), 16), dtype=np.float32)
                part[own] += centres[c] + within @ axes[c]
        return X

    return rows


# ---- methods: X, device -> (places, what else is known) ----


def fit_ours(X, device):
    map_ = ptsne.ParametricTSNE(random_state=0, device=device).fit(X)
    return map_.embedding_, {"kl": map_.kl_divergence_, "phases": phases(map_.history_)}


def phases(history):
    """Seconds of each phase of the training, and before it."""
    last = {record["phase"]: record["seconds"] for record in history}
    starts = [0.0, *list(last.values())[:-1]]
    return {name: end - start for (name, end), start in zip(last.items(), starts, strict=True)}


def fit_opentsne(X, device):
    del device
    tsne = import_module("openTSNE").TSNE(random_state=0, n_jobs=-1)
    embedding = tsne.fit(X)
    return np.array(embedding), {"kl": float(embedding.kl_divergence)}


def fit_torchdr(name):
    def fit(X, device):
        method = getattr(import_module("torchdr"), name)(device=device, random_state=0)
        return np.asarray(method.fit_transform(X)), {}

    return fit


OURS = {"ptsne": (None, fit_ours)}
OTHERS = {
    "opentsne": ("openTSNE", fit_opentsne),
    "torchdr-tsne": ("torchdr", fit_torchdr("TSNE")),
    "torchdr-umap": ("torchdr", fit_torchdr("UMAP")),
}

# case -> (what it is, rows, methods, seconds aimed at)
FITS = {
    "mnist-70k": ("70,000 x 784, MNIST", mnist, {**OURS, **OTHERS}, 15),
    "mixture-1.3m": (
        "1,300,000 x 50, 100 clusters",
        mixture(1_300_000, 50),
        {**OURS, **OTHERS},
        90,
    ),
    "mixture-10m": ("10,000,000 x 128, 100 clusters", mixture(10_000_000, 128), OURS, 900),
}
EXPLAIN, EXPLAINED, LEAST_ROWS = "explain", "784-500-500-2000-2, W and b", 200_000


def cases():
    yield from ((case, method) for case, (_, _, methods, _) in FITS.items() for method in methods)
    yield EXPLAIN, "ptsne"


def is_installed(case, method):
    package = None if case == EXPLAIN else FITS[case][2][method][0]
    return package is None or find_spec(package) is not None


# ---- measuring ----


def seconds(function, device):
    synchronize(device)
    start = time.perf_counter()
    result = function()
    synchronize(device)
    return time.perf_counter() - start, result


def synchronize(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak_gib(device):
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.startswith("cuda") else None


def measured_fit(case, method, options):
    _, rows, methods, _ = FITS[case]
    fit = methods[method][1]
    X = rows(options.scale, options.data)
    fit(
        np.random.default_rng(0).standard_normal((2000, X.shape[1]), dtype=np.float32),
        options.device,
    )
    if options.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(options.device)
    taken, (places, known) = seconds(lambda: fit(X, options.device), options.device)
    return {
        "rows": len(X),
        "columns": X.shape[1],
        "seconds": taken,
        "device_peak_gib": peak_gib(options.device),
        "recall_15": recall(X, places, options.device),
        **known,
    }


def recall(X, places, device):
    """Share of the 15 nearest rows of 2,000 rows that are among the 15 nearest on the map."""
    asked = np.random.default_rng(1).permutation(len(X))[:SCORED_ROWS]
    near = [
        query_neighbors(rows, rows[asked], K_SCORED + 1, device=device).indices
        for rows in (X, np.asarray(places, dtype=np.float32))
    ]
    common = [len((set(a) & set(b)) - {i}) for i, a, b in zip(asked, *near, strict=True)]
    return float(np.mean(common)) / K_SCORED


def measured_explanation(options):
    """Rows per second of W and b, left on the device, and brought to the host."""
    torch.manual_seed(0)
    model = mlp().to(options.device).eval()
    n_rows = max(1024, int(options.scale * EXPLAINED_ROWS))
    x = torch.rand(n_rows, 784, device=options.device)

    def explain(finish):
        for rows in torch.split(x, ROWS_AT_ONCE):
            linear = linearize(model, rows)
            finish(linear.weight(), linear.bias())

    def ignore(*maps):
        del maps

    explain(ignore)
    left, _ = seconds(lambda: explain(ignore), options.device)
    brought, _ = seconds(lambda: explain(lambda W, b: (W.cpu(), b.cpu())), options.device)
    return {
        "rows": n_rows,
        "seconds": left,
        "rows_per_second": n_rows / left,
        "rows_per_second_to_host": n_rows / brought,
        "device_peak_gib": peak_gib(options.device),
    }


def one(case, method, options):
    if case == EXPLAIN:
        return measured_explanation(options)
    return measured_fit(case, method, options)


def record_of(case, method, options):
    """What a process of its own measures, or how it failed."""
    command = [sys.executable, __file__, "--one", case, method, "--device", options.device]
    command += ["--scale", str(options.scale)]
    command += ["--data", options.data] if options.data else []
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        found = {"error": run.stderr.strip().splitlines()[-1][:300]}
    else:
        found = json.loads(run.stdout.splitlines()[-1])
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    return {
        "case": case, "method": method, "device": name, "scale": options.scale, **found,
        "hardware": hardware(), "versions": versions(PACKAGES), "environment": environment(),
        "commit": commit(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


# ---- the page ----


def page_lines(folder):
    yield "| case | aimed at | method | seconds | rows / s | recall@15 | KL | GiB | on |"
    yield "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for case, method in cases():
        record = read(path_of(folder, case, method)) or {}
        if method == "ptsne" or record:
            yield f"| {' | '.join(cells(case, method, record))} |"


def cells(case, method, record):
    if case == EXPLAIN:
        what, aim = EXPLAINED, f"{LEAST_ROWS:,} rows / s"
    else:
        what, aim = FITS[case][0], f"{FITS[case][3]} s"
    if not record:
        return what, aim, method, "not measured yet", "", "", "", "", ""
    if "error" in record:
        return what, aim, method, f"failed: {record['error']}", "", "", "", "", record["device"]
    rate = record["rows"] / record["seconds"]
    shown = [f"{record[k]:.3f}" if record.get(k) else "" for k in ("recall_15", "kl")]
    memory = f"{record['device_peak_gib']:.1f}" if record["device_peak_gib"] else ""
    taken = f"{record['seconds']:.1f}"
    return what, aim, method, taken, f"{rate:,.0f}", *shown, memory, record["device"]


def write_page(folder=RESULTS, page=PAGE):
    start, end = "<!-- gpu -->", "<!-- end gpu -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    _, after = rest.split(end)
    page.write_text("\n".join([before + start, *page_lines(folder), end + after]), encoding="utf-8")


def path_of(folder, case, method):
    return folder / f"gpu-{case}-{method}.json"


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows, for a trial")
    parser.add_argument("--only", nargs="+", default=[*FITS, EXPLAIN], help="cases")
    parser.add_argument("--methods", nargs="+", default=[*OURS, *OTHERS])
    parser.add_argument("--data", help="folder with MNIST; else PTSNE_DATA, else downloaded")
    parser.add_argument("--force", action="store_true", help="measure again what has a record")
    parser.add_argument("--output", type=Path, help="folder of the records; needed for a trial")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "METHOD"), help="in this process")
    parser.add_argument("--page", action="store_true", help="write the table of the page alone")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    if options.one:
        print(json.dumps(one(*options.one, options)))
        return 0
    if options.page:
        write_page(options.output or RESULTS)
        return 0
    is_trial = options.scale != 1 or not options.device.startswith("cuda")
    if is_trial and options.output is None:
        return "a trial is no figure of the page: name a folder for it with --output"
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        return "there is no CUDA device; for a trial: --device cpu --scale 0.01 --output FOLDER"
    folder = options.output or RESULTS
    for case, method in cases():
        path = path_of(folder, case, method)
        is_asked = case in options.only and method in options.methods
        if is_asked and is_installed(case, method) and (options.force or not path.exists()):
            record = record_of(case, method, options)
            write(path, record)
            print({k: v for k, v in record.items() if not isinstance(v, dict)}, flush=True)
    if not is_trial:
        write_page(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
