"""Compare ptsne with other methods: quality, seconds and memory, on training and held-out rows.

    python benchmarks/run.py --datasets iris digits --seeds 0 1 2 --prepare
    python benchmarks/run.py --datasets mnist-10k --data FOLDER

Every data set x method x seed runs in a process of its own, one after the other, and is added to
results/<data set>/<method>.json. A peer that has an environment of its own (--prepare installs
them) fits there; its map is evaluated here. What is there for the same code, parameters, versions,
threads and machine is not measured again; what failed is. Then: tables.py, plots.py.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import environments
import machine
import numpy as np
import records
from methods import METHODS
from splits import load_split

DATASETS = ("iris", "digits", "pbmc4k", "mnist-10k", "fashion-10k")
JOB = Path(__file__).resolve().parent / "job.py"
QUALITY = JOB.with_name("quality.py")
NOTES = [
    "every method was warmed up on a tiny random problem of the same columns before the clock "
    "started, so that no import and no just-in-time compilation (numba in umap-learn and "
    "pynndescent) is in the seconds",
    "fit seconds include the method's own neighbour search and the places of the training rows",
    "transform is the first call with all held-out rows; transform_again the median of five more, "
    "where the first takes less than a second",
    "memory_gib is the peak of the resident memory during the call above what imports, warm-up and "
    "data take",
    "KL at perplexity 30 with exact neighbours and all pairs, of the map as it is, not rescaled",
]


def conditions(method, threads, folder=environments.FOLDER):
    """What a figure depends on: while it stays equal the figure need not be measured again."""
    entry = METHODS[method]
    packages = ("numpy", *entry.packages)
    is_ours = entry.file == "ours"
    return {
        "parameters": entry.parameters,
        "threads": threads,
        **machine.hardware(),
        "versions": _versions(packages, entry.environment, folder),
        "source": machine.source_hash() if is_ours else None,
    }


def _versions(packages, environment, folder):
    if environment is None:
        return machine.versions(packages)
    if _is_prepared(environment, folder):
        return machine.versions(packages, environments.python_of(environment, folder))
    return {}


def _is_prepared(environment, folder):
    noted = environments.state(environment, folder)
    return noted is not None and noted["error"] is None


def begun(dataset, method, current, folder):
    """The record to go on with: the stored one if of the same conditions, else an empty one."""
    record = records.read(records.path_of(dataset, method, folder))
    if record is not None and record["conditions"] == json.loads(json.dumps(current)):
        return record
    return {"dataset": dataset, "method": method, "conditions": current, "runs": []}


def has_run(record, seed):
    return any(run["seed"] == seed for run in records.good_runs(record))


def add_run(record, run):
    """Add a run in the place of an earlier one of its seed."""
    others = [other for other in record["runs"] if other["seed"] != run["seed"]]
    record["runs"] = sorted([*others, run], key=lambda each: each["seed"])


def run_job(dataset, method, seed, options):
    """Figures of one run, fitted and evaluated in processes of their own; or {"run": {"error"}}."""
    environment = METHODS[method].environment
    if environment is not None and not _is_prepared(environment, options.environments):
        reason = environments.state(environment, options.environments)["error"]
        return {"run": {"seed": seed, "error": f"cannot be installed: {reason}"}}
    split = load_split(dataset, data_home=options.data)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part in ("X_train", "X_test", "y_train", "y_test"):
            np.save(folder / f"{part}.npy", getattr(split, part))
        described = {"data": describe(split)}
        fit = [str(JOB), place, method, "--seed", str(seed), "--threads", str(options.threads)]
        error = _failure(fit, options, environment) or _failure([str(QUALITY), place], options)
        if error is not None:
            return {**described, "run": {"seed": seed, "error": error}}
        save_map(options.maps / dataset / f"{method}-{seed}.npz", split, folder)
        return {**described, **_figures(folder, seed)}


def describe(split):
    return {
        "training_rows": len(split.X_train),
        "held_out_rows": len(split.X_test),
        "columns": split.X_train.shape[1],
        "classes": len(split.target_names),
        "rule": split.rule,
    }


def save_map(path, split, folder):
    """Places and classes, for plots.py."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        Y_train=np.load(folder / "Y_train.npy"),
        Y_test=np.load(folder / "Y_test.npy"),
        y_train=split.y_train,
        y_test=split.y_test,
        target_names=np.array(split.target_names),
    )


def _figures(folder, seed):
    """What the two processes left, as one run."""
    run, quality = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("job", "quality")
    )
    notes = [run.pop("note")]
    run["seconds"]["evaluation"] = quality.pop("seconds")
    run["perplexity"] = quality.pop("perplexity")
    return {"notes": notes, "run": {"seed": seed, **run, "quality": quality}}


def _failure(command, options, environment=None):
    """Run a script with our Python or a peer's; why it failed, or None."""
    variables = {**os.environ, **dict.fromkeys(machine.THREAD_VARIABLES, str(options.threads))}
    path = variables.pop("PYTHONPATH", None)
    if environment is None:
        python = sys.executable
        # the package measured is the one beside this folder, installed or not
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(machine.ROOT), path]))
    else:
        python = str(environments.python_of(environment, options.environments))
    process = subprocess.Popen(
        [python, *command],
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, told = process.communicate(timeout=options.timeout)
    except subprocess.TimeoutExpired:
        return f"stopped after {options.timeout:g} seconds"
    finally:
        _end(process)
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"ended by signal {-process.returncode} (9: out of memory, as a rule)"
    return last_error(told)


def _end(process):
    """End it with the processes that it started, if it has not ended."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()


def last_error(text):
    """Name and message of the exception at the end of a traceback, without its files."""
    starts = [match.start() for match in re.finditer(r"^[\w.]+(Error|Exception)\b", text, re.M)]
    return text[starts[-1] :].strip() if starts else text.strip()[-500:]


def measure(dataset, method, seed, options):
    """Measure one seed, unless it is there, and store it; what to tell the user."""
    environment = METHODS[method].environment
    if environment is not None and environments.state(environment, options.environments) is None:
        return "left out: there is no environment for it yet (--prepare makes it)"
    current = conditions(method, options.threads, options.environments)
    record = begun(dataset, method, current, options.output)
    if has_run(record, seed) and not options.force:
        return "is there"
    figures = run_job(dataset, method, seed, options)
    record["environment"] = machine.environment()
    record["data"] = figures.get("data", record.get("data"))
    record["notes"] = NOTES + figures.get("notes", [])
    run = {**figures["run"], "date": _now(), "commit": machine.commit()}
    add_run(record, run)
    records.write(records.path_of(dataset, method, options.output), record)
    return summary(run)


def _now():
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def summary(run):
    if "error" in run:
        return "failed: " + run["error"].splitlines()[0]
    seconds, held_out = run["seconds"], run["quality"]["held_out"]
    return (
        f"fit {seconds['fit']:.2f} s, transform {seconds['transform']:.3f} s, held-out recall "
        f"{held_out['recall_15']:.3f}, KL {run['quality']['training']['kl_divergence']:.3f}"
    )


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--datasets",
        nargs="+",
        default=list(DATASETS),
        metavar="NAME",
        help=f"default: {' '.join(DATASETS)}; also mnist-60k, blobs-N (blobs-100k) and NAME@n, "
        "the first n training rows for a trial",
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data", help="folder with data sets; PTSNE_DATA does the same")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every method")
    parser.add_argument("--timeout", type=float, default=7200, help="seconds per run")
    parser.add_argument("--force", action="store_true", help="measure again what is there")
    parser.add_argument("--prepare", action="store_true", help="first install the peers")
    parser.add_argument(
        "--environments",
        type=Path,
        default=environments.FOLDER,
        help="of the peers; PTSNE_BENCHMARK_ENVIRONMENTS does the same",
    )
    parser.add_argument("--output", type=Path, default=records.RESULTS)
    parser.add_argument("--maps", type=Path, default=records.MAPS)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    if options.prepare:
        needed = {METHODS[method].environment for method in options.methods} - {None}
        environments.prepare_all(sorted(needed), options.environments)
    n_failed = 0
    for dataset in options.datasets:
        for seed in options.seeds:
            for method in options.methods:  # in turn: a machine has faster and slower minutes
                print(f"{dataset:>12}  {method:<17} seed {seed}: ", end="", flush=True)
                told = measure(dataset, method, seed, options)
                n_failed += told.startswith("failed")
                print(told, flush=True)
    return 1 if n_failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # who is ended ends its job
    sys.exit(main())
