"""Cost of a fit by phase and number of rows, and what that makes of 100 million rows.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py           # measure, then write the page
    python benchmarks/scaling.py --page                      # the tables of docs/scale.md alone

Fits of a few iterations on clusters of 2,000 to 20,000 rows give the processor seconds that a row
costs in each phase and step, and the pairs that it has in P. The page multiplies them: the numbers
of a processor are measured ones times rows; those of a GPU and of a network are bytes and
operations over what its data sheet says, times an assumed efficiency, and are marked so.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from gpu import mixture
from machine import commit, hardware, versions
from records import RESULTS, read, write

import ptsne
from ptsne import affinities
from ptsne.affinities import cells
from ptsne.losses import Edges
from ptsne.training import Objective, map_settings

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
RECORD = RESULTS / "scaling.json"
PACKAGES = ("torch", "numpy", "scikit-learn", "scipy")
SIZES = (2000, 5000, 10_000, 20_000)
COLUMNS, MAX_ITER, K_NEAR = 128, 40, 90


# ---- measuring ----


def used(function):
    """Processor seconds of a call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def measured(n_rows):
    X = mixture(n_rows, COLUMNS)(1.0, None)
    neighbours, graph = used(lambda: affinities.nearest_neighbors(X, K_NEAR, method="exact"))
    joint, P = used(lambda: affinities.joint_probabilities(graph, 30.0))
    edges_s, edges = used(lambda: Edges.from_sparse(P))
    ticks = []

    def tick(record):
        ticks.append((record.phase, record.iteration, time.process_time()))

    estimator = ptsne.ParametricTSNE(
        max_iter=MAX_ITER, random_state=0, callbacks=tick, device="cpu"
    )
    fit, map_ = used(lambda: estimator.fit(X, neighbors=graph))
    Y = torch.from_numpy(map_.embedding_)
    Y = 40 * Y / Y.std()  # as wide as a map of many iterations: the grid has its final size
    objective = Objective(edges)
    gradient = min(used(lambda: objective.gradient(Y))[0] for _ in range(5))
    place = min(used(lambda: map_.transform(X))[0] for _ in range(3))
    return {
        "rows": n_rows,
        "columns": COLUMNS,
        "neighbours": neighbours,
        "P": joint + edges_s,
        "gradient": gradient,
        "places_step": per_step(ticks, "places"),
        "tuning_step": per_step(ticks, "fine-tuning"),
        "place": place,
        "fit_without_neighbours": fit,
        "pairs_per_row": len(edges.row) / n_rows,
        "landmarks": len(map_.landmark_indices_),
    }


def per_step(ticks, phase):
    """Processor seconds between the first and the last record of a phase, by step."""
    own = [(iteration, seconds) for name, iteration, seconds in ticks if name == phase]
    (first, start), (last, end) = own[0], own[-1]
    return (end - start) / (last - first)


# ---- the model ----


class Machine(NamedTuple):
    """What a data sheet says; `cores` for those whose numbers are measured ones."""

    name: str
    memory_gib: float  # of all devices together
    processes: int
    cores: int = 0
    bandwidth: float = 0.0  # bytes / s of one device's memory
    flops: float = 0.0  # float32, of one device
    network: float = 0.0  # bytes / s into one process
    efficiency: float = 0.5


MACHINES = (
    Machine("CPU node, 64 cores", 1024, 1, cores=64),
    Machine("one H200", 141, 1, bandwidth=4.8e12, flops=67e12, efficiency=0.3),
    Machine(
        "eight H200, NVLink", 1128, 8, bandwidth=4.8e12, flops=67e12, network=450e9, efficiency=0.3
    ),
)


class Plan(NamedTuple):
    """A fit: rows, columns, and what follows from the defaults of the estimator."""

    rows: int
    columns: int = 128
    near: int = 90
    latent: int = 50

    @property
    def settings(self):
        parameters = ptsne.ParametricTSNE().get_params(deep=False)
        return map_settings((self.rows, self.columns), parameters)

    @property
    def steps(self):
        settings = self.settings
        return len(settings.schedule), settings.finetuning.n_iterations

    @property
    def batch(self):
        return min(self.rows, self.settings.finetuning.batch_size)


def row_bytes(plan, pairs_per_row):
    """Bytes of a row while the map is trained, by what holds them."""
    pairs = pairs_per_row * plan.near / K_NEAR
    return {
        "rows, float32": 4 * plan.columns,
        "neighbours while searched (host)": 16 * plan.near,
        "P as a matrix (host)": 24 * pairs,
        "pairs of P (device)": 24 * pairs,
        "near rows (device)": 8 * min(30, plan.near),
        "codes": 4 * plan.latent,
        "places, gradient, spline weights": 4 * 2 * 6 + 36 * 16,
    }


SORT = 16
"""Times that a key of 8 bytes and a value of 8 are moved to add in an order that is always one."""
PAIR_BYTES = 16 + 4 + 4 * 32 + 2 * 16 * SORT
"""That a pair moves for one gradient: numbers, weight, four scattered accesses, two sorts."""
GRID_BYTES = 36 * (8 + 4 + 2 * 32 + 16 * SORT)
"""That a row moves: 36 nodes of the grid, there, sorted, and back."""


def tuning_flops(plan):
    """Operations of a row of the batch: encoder there and back, landmarks each tenth step."""
    m = plan.settings.n_landmarks
    return 6 * plan.columns * plan.latent + 2 * m * plan.latent / 10 + 40 * plan.latent


def hours(plan, machine, record):
    """Hours by phase on a machine."""
    seconds = by_processor if machine.cores else by_data_sheet
    costs = seconds(plan, machine, record["rows"][-1])
    places, tuning = plan.steps
    steps = {"places": places, "fine-tuning": tuning}
    return {name: steps.get(name, 1) * value / 3600 for name, value in costs.items()}


ALL_PAIRS, NEAR_CELLS = "search, all pairs", "search, near cells"


def compared(plan, per_cell):
    """Pairs of which a search by cells takes the distance: with centres, and with rows near by."""
    return plan.rows * (plan.rows / per_cell + cells.MOST_PROBED * per_cell)


def by_processor(plan, machine, last):
    """Seconds of each phase, or of its step: measured processor seconds, over the cores."""
    cores = machine.cores * machine.efficiency
    near, landmarks = plan.near / K_NEAR, plan.settings.n_landmarks / last["landmarks"]
    each = {name: value / last["rows"] for name, value in last.items()}
    gradient = each["gradient"] * (1 + near) / 2 * plan.rows  # half of it is the grid's
    network = (each["tuning_step"] - each["gradient"]) * plan.batch
    return {
        ALL_PAIRS: each["neighbours"] / last["rows"] * plan.rows**2 / cores,
        NEAR_CELLS: each["neighbours"] / last["rows"] * compared(plan, cells.ROWS_PER_CELL) / cores,
        "P": each["P"] * near * plan.rows,  # one thread
        "places": last["places_step"] / last["gradient"] * gradient / cores,
        "fine-tuning": (gradient + network) / cores,
        "placing": each["place"] * landmarks * plan.rows / cores,
    }


def by_data_sheet(plan, machine, last):
    """Seconds of each phase, or of its step: bytes and operations over what a device can do."""
    bandwidth, flops = (machine.efficiency * x for x in (machine.bandwidth, machine.flops))
    n, own = machine.processes, plan.rows / machine.processes
    pairs = last["pairs_per_row"] * plan.near / K_NEAR
    gradient = (pairs * PAIR_BYTES * own + GRID_BYTES * plan.rows) / bandwidth
    network = tuning_flops(plan) / flops + 40 * plan.columns / bandwidth
    sent = sum(traffic(plan, n).values()) / machine.network if machine.network else 0.0
    pair = 2 * plan.columns / flops + 16 / bandwidth
    return {
        ALL_PAIRS: pair * plan.rows**2 / n,
        NEAR_CELLS: pair * compared(plan, cells.GPU_ROWS_PER_CELL) if n == 1 else math.nan,
        "P": plan.rows * plan.near * 40 * 16 / bandwidth,  # process 0 alone
        "places": last["places_step"] / last["gradient"] * gradient,
        "fine-tuning": gradient + network * plan.batch / n + sent,
        "placing": own * 2 * plan.settings.n_landmarks * plan.latent / flops,
    }


def traffic(plan, n_processes):
    """Bytes that a process receives in a step of the fine-tuning, by what they are."""
    others = (n_processes - 1) / n_processes
    m, L, K = plan.settings.n_landmarks, plan.latent, 2
    own_batch = plan.batch / n_processes
    parameters = m * (L + K + K * L) + plan.columns * L
    return {
        "places of all rows (all-gather)": 4 * K * plan.rows * others,
        "dKL/dY of all rows (all-reduce)": 2 * 4 * K * plan.rows * others,
        "codes of near rows (all-to-all)": own_batch * (8 + 4 * L) * others,
        "gradients of the parameters (all-reduce)": 2 * 4 * parameters * others,
    }


# ---- the page ----


def measured_lines(record):
    yield "| rows | neighbours | P | a gradient | step of places | of fine-tuning | placing |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in record["rows"]:
        micro = [
            f"{1e6 * row[key] / row['rows']:.1f}"
            for key in ("neighbours", "P", "gradient", "places_step", "tuning_step", "place")
        ]
        yield f"| {row['rows']:,} | {' | '.join(micro)} |"
    where, last = record["hardware"], record["rows"][-1]
    yield ""
    yield (
        f"Processor microseconds a row, one thread ({where['cpu']}, load average before it "
        f"{record['load_at_start']:.1f}); {last['columns']} columns, {K_NEAR} neighbours, "
        f"{last['pairs_per_row']:.0f} pairs of P a row; torch {record['versions']['torch']}, "
        f"commit {record['commit']}."
    )


PLANS = (Plan(10**7), Plan(10**8), Plan(10**9), Plan(10**8, near=15), Plan(10**9, near=15))


def memory_lines(record):
    pairs = record["rows"][-1]["pairs_per_row"]
    yield f"| GiB | {' | '.join(map(title, PLANS))} |"
    yield f"| --- | {' | '.join('---:' for _ in PLANS)} |"
    columns = [row_bytes(plan, pairs) for plan in PLANS]
    for name in columns[0]:
        sizes = (gib(c[name] * p.rows) for c, p in zip(columns, PLANS, strict=True))
        yield f"| {name} | {' | '.join(sizes)} |"
    totals = (gib(sum(c.values()) * p.rows) for c, p in zip(columns, PLANS, strict=True))
    yield f"| **sum** | {' | '.join(totals)} |"
    yield f"| grid of the repulsion, at most | {' | '.join('0.2' for _ in PLANS)} |"


def time_lines(record):
    names = list(hours(PLANS[0], MACHINES[0], record))
    yield f"| fit | machine | {' | '.join(names)} | all but the search |"
    yield f"| --- | --- |{' ---: |' * (len(names) + 1)}"
    for plan in PLANS:
        for machine in MACHINES:
            by_phase = hours(plan, machine, record)
            rest = sum(by_phase[name] for name in names if name not in {ALL_PAIRS, NEAR_CELLS})
            kind = "" if machine.cores else " *"
            shown = " | ".join(map(duration, (*by_phase.values(), rest)))
            yield f"| {title(plan)} | {machine.name}{kind} | {shown} |"
    yield ""
    yield (
        "Processor: measured seconds x rows / (64 cores x 50 %), P on one core. * Computed: bytes "
        "and operations over 4.8 TB/s and 67 TFLOP/s (float32) a device, x 30 % of that, and "
        "450 GB/s between devices; nothing of it was run. P is process 0's alone."
    )


def traffic_lines(record):
    del record
    plans, n = PLANS[:3], 8
    yield f"| MB into each of {n} processes, a step | {' | '.join(map(title, plans))} |"
    yield f"| --- | {' | '.join('---:' for _ in plans)} |"
    columns = [traffic(plan, n) for plan in plans]
    for name in columns[0]:
        yield f"| {name} | {' | '.join(f'{c[name] / 1e6:,.1f}' for c in columns)} |"
    for name, speed in (("NVLink, 450 GB/s", 450e9), ("Ethernet, 100 Gbit/s", 12.5e9)):
        times = (f"{1e3 * sum(c.values()) / speed:,.1f}" for c in columns)
        yield f"| *milliseconds over {name}* (computed) | {' | '.join(times)} |"


def title(plan):
    size = f"{plan.rows // 10**6:,} M" if plan.rows < 10**9 else f"{plan.rows // 10**9} B"
    return f"{size} x {plan.columns}, k = {plan.near}"


def duration(hours):
    if math.isnan(hours):
        return "–"
    if hours >= 1:
        return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"
    minutes = 60 * hours
    return f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.2g} s"


def gib(n_bytes):
    return f"{n_bytes / 2**30:,.0f}" if n_bytes > 2**30 else f"{n_bytes / 2**30:.1f}"


TABLES = {
    "measured": measured_lines,
    "memory": memory_lines,
    "hours": time_lines,
    "network": traffic_lines,
}


def write_page(record, page=PAGE):
    text = page.read_text(encoding="utf-8")
    for name, lines in TABLES.items():
        start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = "\n".join([before + start, *lines(record), end + after])
    page.write_text(text, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="numbers of rows")
    parser.add_argument("--page", action="store_true", help="write the tables of the page alone")
    options = parser.parse_args(arguments)
    if not options.page:
        torch.set_num_threads(1)
        measured(300)  # loads the libraries
        load = Path("/proc/loadavg").read_text().split()[0] if sys.platform == "linux" else "nan"
        record = {
            "commit": commit(), "hardware": hardware(), "versions": versions(PACKAGES),
            "load_at_start": float(load), "rows": [],
        }  # fmt: skip
        for n_rows in options.sizes:
            record["rows"].append(measured(n_rows))
            print(record["rows"][-1], flush=True)
        write(RECORD, record)
    write_page(read(RECORD))


if __name__ == "__main__":
    main()
