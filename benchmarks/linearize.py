"""Time and memory of W for all outputs: ours, torch.func, captum, SHAP and Glass Box UMAP.

    python benchmarks/linearize.py            # measure; a peer that is not installed says so
    python benchmarks/linearize.py --page     # the tables of docs/linearizer.md alone

Each pair of network and method runs in a process of its own, turn by turn with plain forward
passes of the same rows: the least time of several runs of both, and the peak of resident memory
above what was there before. Not all methods answer the same question: ``jacrev`` and Glass Box
UMAP give the Jacobian, which is W for these ReLU networks, without b; InputXGradient gives W * x;
DeepLift and DeepExplainer give differences from a reference, and integrated gradients an
approximate average along a path. ResNet-20 calls its ReLUs as functions, which DeepLift and
DeepExplainer do not see: for it their times are those of plain gradients.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import commit, hardware, versions
from records import RESULTS, read, write
from torch import nn

from ptsne.classifiers import LeNet5, resnet20
from ptsne.linearize import linearize

PAGE = Path(__file__).parent.parent / "docs" / "linearizer.md"
RECORD = RESULTS / "linearize.json"
STREAMED = "784-500-500-2000-2"
PACKAGES = ("torch", "captum", "shap", "glass-box-umap")


def mlp():
    return nn.Sequential(
        *(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU()),
        *(nn.Linear(500, 2000), nn.ReLU(), nn.Linear(2000, 2)),
    )


# name -> build, shape of a row, outputs, rows
NETWORKS = {
    STREAMED: (mlp, (784,), 2, 512),
    "LeNet-5": (LeNet5, (1, 28, 28), 10, 256),
    "ResNet-20": (resnet20, (3, 32, 32), 10, 16),
}


# ---- methods: (model, x) -> anything ----


def forward(model, x):
    with torch.no_grad():
        return model(x)


def ours(model, x):
    return linearize(model, x).weight()


def ours_with_b(model, x):
    lin = linearize(model, x)
    return lin.weight(), lin.bias()


def ours_wx_only(model, x):
    return linearize(model, x).linear_part()


def jacrev(model, x):
    one = torch.func.jacrev(lambda row: model(row[None])[0])
    return torch.func.vmap(one)(x).detach()


def glass_box(model, x):
    return import_module("glass_box_umap.jacobian").compute_jacobian(model, x)


def input_x_gradient(model, x):
    return per_output("InputXGradient", model, x)


def deep_lift(model, x):
    return per_output("DeepLift", model, x)


def integrated_gradients(model, x):
    return per_output("IntegratedGradients", model, x, n_steps=50, internal_batch_size=256)


def per_output(name, model, x, **options):
    method = getattr(import_module("captum.attr"), name)(model)
    x = x.clone().requires_grad_(True)
    outputs = range(model(x[:1]).shape[1])
    return [method.attribute(x, target=output, **options).detach() for output in outputs]


def deep_explainer(model, x):
    explainer = import_module("shap").DeepExplainer(model, torch.zeros_like(x[:1]))
    return explainer.shap_values(x, check_additivity=False)


METHODS = {
    "linearize, W": ours,
    "linearize, W and b": ours_with_b,
    "linearize, W x of all outputs": ours_wx_only,
    "torch.func.jacrev": jacrev,
    "Glass Box UMAP compute_jacobian": glass_box,
    "captum InputXGradient": input_x_gradient,
    "captum DeepLift": deep_lift,
    "captum IntegratedGradients, 50 steps": integrated_gradients,
    "SHAP DeepExplainer": deep_explainer,
}


# ---- measuring ----


def measured(network, method, budget):
    """Least milliseconds per row of the method and of forward passes, and peak memory in MiB."""
    build, shape, _, n_rows = NETWORKS[network]
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(n_rows, *shape)
    function = METHODS[method]
    function(model, x[:2])
    before = reset_peak()
    function(model, x)
    peak = status("VmHWM") - before
    times, forwards = [], []
    while not times or (sum(times) < budget and len(times) < 50):
        times.append(seconds(function, model, x))
        forwards.append(min(seconds(forward, model, x) for _ in range(3)))
    per_row = 1e3 / n_rows
    return {
        "ms_per_row": min(times) * per_row,
        "median_ms_per_row": float(np.median(times)) * per_row,
        "forward_ms_per_row": min(forwards) * per_row,
        "runs": len(times),
        "peak_mib_per_row": peak / 2**10 / n_rows,
    }


def seconds(function, model, x):
    start = time.perf_counter()
    function(model, x)
    return time.perf_counter() - start


def reset_peak():
    """Let the kernel forget the peak of resident memory; what is resident now, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def streamed(n_rows=60_000, chunk=500):
    """Seconds for W and W x of 60,000 rows through the first network, chunk after chunk."""
    build, shape, _, _ = NETWORKS[STREAMED]
    torch.manual_seed(0)
    model, x = build().eval(), torch.rand(n_rows, *shape)
    start = time.perf_counter()
    total = torch.zeros(2)
    for rows in x.split(chunk):
        W = linearize(model, rows).weight()
        total += torch.einsum("nkd,nd->k", W, rows)
    return {"rows": n_rows, "chunk": chunk, "seconds": time.perf_counter() - start}


def in_own_process(network, method, options):
    """What `measured` gives in a new process, or how it failed."""
    command = [sys.executable, __file__, "--one", network, method]
    command += ["--threads", str(options.threads), "--budget", str(options.budget)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        return {"error": run.stderr.strip().splitlines()[-1][:300]}
    return json.loads(run.stdout.splitlines()[-1])


def table(options):
    for network, (_, _, n_outputs, n_rows) in NETWORKS.items():
        for method in METHODS:
            row = {"network": network, "method": method, "rows": n_rows, "outputs": n_outputs}
            row |= in_own_process(network, method, options)
            if "error" not in row:
                row["forwards"] = row["ms_per_row"] / row["forward_ms_per_row"]
                row["forwards_per_output_and_one"] = row["forwards"] / (n_outputs + 1)
            yield row


# ---- the page ----


def speed_lines(record):
    yield "| network | method | ms a row | forwards | / (outputs + 1) | MiB a row |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for row in record["rows"]:
        start = f"| {row['network']} | {row['method']} |"
        if "error" in row:
            yield f"{start} failed: {row['error']} | | | |"
            continue
        yield (
            f"{start} {row['ms_per_row']:.3f} | {row['forwards']:.1f} | "
            f"{row['forwards_per_output_and_one']:.2f} | {row['peak_mib_per_row']:.2f} |"
        )
    where, stream = record["hardware"], record["streaming"]
    yield ""
    yield (
        f"{where['cpu']}, threads: {record['threads']}, torch {record['versions']['torch']}, "
        f"commit {record['commit']}. W of {stream['rows']:,} rows through {STREAMED}, streaming, "
        f"on {stream['threads']} threads: {stream['seconds']:.1f} s."
    )


class Figure(NamedTuple):
    """A column of the tables of regions: its title, where its number stands, how it is printed."""

    title: str
    name: str
    format: str


RADIUS = (
    Figure("p", "p", "{}"),
    Figure("rows", "rows", "{:,}"),
    Figure("ms a row", "ms_per_row", "{:,.3g}"),
    Figure("median radius", "median_radius", "{:.2g}"),
    Figure("differs from ours by", "differs_from_ours", "{:.0e}"),
)
GRADIENTS = (
    Figure("ms", "ms", "{:,.3g}"),
    Figure("regions on the way", "regions", "{:,}"),
    Figure("parts miss of the way", "completeness_error", "{:.2g}"),
    Figure("differs from exact by", "error", "{:.2%}"),
)


def region_lines(record):
    yield "Radius of the region around a row:"
    yield ""
    yield from region_table(record["radius"], RADIUS)
    yield ""
    yield "Integrated gradients of one output, from black to a digit:"
    yield ""
    yield from region_table(record["gradients"], GRADIENTS)
    yield ""
    yield (
        f"Medians of three runs or more. {record['cpu']}, threads: {record['threads']}, load "
        f"average {record['load_at_start']:.1f}: times are to be compared with each other; torch "
        f"{record['versions']['torch']}, captum {record['versions']['captum']}, commit "
        f"{record['commit']}."
    )


def region_table(rows, columns):
    yield "| network | method | " + " | ".join(column.title for column in columns) + " |"
    yield "| --- | --- |" + " ---: |" * len(columns)
    for row in rows:
        cells = [cell(row.get(column.name), column.format) for column in columns]
        yield f"| {row['network']} | {row['method']} | " + " | ".join(cells) + " |"


def cell(value, form):
    """A number as it is printed; of several runs the median; nothing where nothing was measured."""
    if value is None:
        return ""
    text = form.format(value["median"] if isinstance(value, dict) else value)
    if "e+" in text:  # three digits of 1288.2 are 1.29e+03
        text = f"{float(text):,.0f}"
    return text.replace("e-0", "e-")


def write_page():
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in (
        ("linearize", speed_lines(read(RECORD))),
        ("regions", region_lines(read(RESULTS / "regions.json"))),
    ):
        start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = "\n".join([before + start, *lines, end + after])
    PAGE.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of the table; streaming uses all")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds per figure")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "METHOD"), help="in this process")
    parser.add_argument("--page", action="store_true", help="write the tables of the page alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        warnings.simplefilter("ignore")
        print(json.dumps(measured(*options.one, options.budget)))
        return
    if options.page:
        write_page()
        return
    record = {
        "commit": commit(), "hardware": hardware(), "versions": versions(PACKAGES),
        "threads": options.threads, "load_at_start": os.getloadavg()[0], "rows": [],
    }  # fmt: skip
    for row in table(options):
        record["rows"].append(row)
        print(row, flush=True)
    torch.set_num_threads(os.cpu_count())
    record["streaming"] = {"threads": os.cpu_count(), **streamed()}
    write(RECORD, record)
    write_page()


if __name__ == "__main__":
    main()
