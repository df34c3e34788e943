"""Write the figures of results/ as tables: into benchmarks/README.md, or a small one elsewhere.

    python benchmarks/tables.py              # all data sets, into benchmarks/README.md
    python benchmarks/tables.py --readme     # one small table, into README.md

A file is changed only between its lines ``<!-- benchmark -->`` and ``<!-- /benchmark -->``. A
method that failed keeps its row and says why.
"""

import argparse
import math
import re
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import records
from methods import METHODS

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
README = Path(__file__).resolve().parent / "README.md"
PROJECT_README = README.parent.parent / "README.md"
ORDER = ("iris", "digits", "pbmc4k", "mnist-10k", "fashion-10k", "mnist-60k")
ABSENT = "–"
BUSY = "†"
SPARE = 0.5  # of the load average above what can run at once: what a quiet machine has
FED = 0.95  # of the seconds of its threads, that a method was given a processor: it did not wait
FOOTNOTE = (
    f"{BUSY} measured while more ran than the machine has cores, and had to wait for one: not its "
    "seconds but its processor seconds are to be read. Quality does not depend on it."
)


class Figure(NamedTuple):
    """Where a number stands in a run, how many decimals it is printed with, and what wins.

    `lower_wins` is None where nothing wins.
    """

    path: tuple[str, ...]
    digits: int = 3
    lower_wins: bool | None = False


class Column(NamedTuple):
    """A title and the figures that share a cell."""

    title: str
    figures: tuple[Figure, ...]


def one(title, *path, digits=3, lower_wins=False):
    return Column(title, (Figure(path, digits, lower_wins),))


def both(title, name, digits=3):
    """Held-out and training rows in one cell."""
    parts = ("held_out", "training")
    return Column(title, tuple(Figure(("quality", part, name), digits) for part in parts))


def measures(rows):
    """Columns of the measures on "training" or "held_out" rows."""
    path = ("quality", rows)
    return [
        one("recall 15", *path, "recall_15"),
        one("trust 5", *path, "trustworthiness_5"),
        one("trust 15", *path, "trustworthiness_15"),
        one("cont. 5", *path, "continuity_5"),
        one("cont. 15", *path, "continuity_15"),
        one("1-NN acc.", *path, "accuracy_1"),
        one("10-NN acc.", *path, "accuracy_10"),
        one("Spearman", *path, "distance_correlation"),
        one("triplets", *path, "triplet_accuracy"),
        one("fidelity R²", *path, "fidelity_r2"),
        one("rank < 2", *path, "rank_deficient", digits=0, lower_wins=True),
    ]


FIT = one("fit, s", "seconds", "fit", digits=2, lower_wins=True)
KL = one("KL", "quality", "training", "kl_divergence", lower_wins=True)
COSTS = [
    one("threads", "conditions", "threads", digits=0, lower_wins=None),
    FIT,
    one("processor, s", "seconds", "fit_cpu", digits=2, lower_wins=True),
    one("fit, GiB", "memory_gib", "fit", lower_wins=True),
    one("transform, s", "seconds", "transform", lower_wins=True),
    one("again, s", "seconds", "transform_again", digits=4, lower_wins=True),
    one("rows / s", "rows_per_second", "transform", digits=0),
    one("explain, rows / s", "rows_per_second", "explain", digits=0),
]
SMALL = [
    both("recall", "recall_15"),
    both("10-NN accuracy", "accuracy_10"),
    both("fidelity of W", "fidelity_r2", digits=2),
    KL,
    one("fit, s", "seconds", "fit", digits=1, lower_wins=True),
    one("transform, s", "seconds", "transform", digits=2, lower_wins=True),
]
LEFT_OUT = ("ptsne-fast", "ptsne-high")  # of the small table: presets; no peer is


# --- cells ----------------------------------------------------------------------------------------


def values(record, figure):
    """The number of every seed; empty where there is none."""
    conditions = {"conditions": record["conditions"]}
    found = [_lookup(run | conditions, figure.path) for run in records.good_runs(record)]
    return [value for value in found if value is not None]


def _lookup(run, path):
    for key in path:
        run = run.get(key) if run else None
    return run


def number(value, digits):
    """A number as it is printed: .386, 12.3, 23,400; <.01 where no digit would be left."""
    text = f"{value:,.{digits}f}"
    if value > 0 and not text.strip("0."):
        text = f"<{10**-digits:.{digits}f}"
    return re.sub(r"^([<−]?)0\.", r"\1.", text.replace("-", "−"))


def winner(all_values, figure):
    """The best median as printed, where at least two methods have one."""
    medians = [statistics.median(found) for found in all_values if found]
    if len(medians) < 2 or figure.lower_wins is None:
        return None
    return number(min(medians) if figure.lower_wins else max(medians), figure.digits)


def printed(found, figure, best):
    """Median, bold where it is the best, and ± half of the range of several seeds."""
    if not found:
        return ABSENT
    median = number(statistics.median(found), figure.digits)
    text = f"**{median}**" if median == best else median
    spread = number((max(found) - min(found)) / 2, figure.digits)
    is_setting = figure.lower_wins is None  # the same for all seeds
    return text if len(found) == 1 or is_setting else f"{text} ±{spread}"


# --- tables ---------------------------------------------------------------------------------------


def table(dataset_records, columns):
    """Markdown table of one data set, a row per method."""
    cells = [[_name(record) for record in dataset_records]]
    cells += [_column_cells(dataset_records, column) for column in columns]
    lines = [["", *(column.title for column in columns)]]
    lines += [["---", *("---:" for _ in columns)]]
    lines += [list(row) for row in zip(*cells, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _column_cells(dataset_records, column):
    parts = []
    for figure in column.figures:
        found = [values(record, figure) for record in dataset_records]
        best = winner(found, figure)
        parts.append([printed(each, figure, best) for each in found])
    rows = zip(*parts, strict=True)
    return [ABSENT if set(row) == {ABSENT} else " / ".join(row) for row in rows]


def _name(record):
    """Method, a mark where the machine was busy, and the reason where no run succeeded."""
    name = title(record["method"])
    if records.good_runs(record):
        return f"{name} {BUSY}" if is_busy(record) else name
    reason = record["runs"][-1]["error"].splitlines()[0][:120]
    return f"{name} (failed: {reason})".replace("|", "/")


def title(method):
    """The name of a row."""
    entry = METHODS.get(method)
    return (entry and entry.title) or method


def is_busy(record):
    """Whether a run had to wait for other programs."""
    conditions = record["conditions"]
    threads = conditions["threads"]
    quiet = max(threads, conditions["cores"]) + SPARE
    return any(
        run.get("load_average", 0) > quiet
        and run["seconds"]["fit_cpu"] < FED * threads * run["seconds"]["fit"]
        for run in records.good_runs(record)
    )


def footnote(dataset_records):
    """What the mark means, where it stands."""
    return FOOTNOTE if any(map(is_busy, dataset_records)) else None


def section(dataset, dataset_records):
    """Everything about one data set."""
    parts = [f"### {dataset}", _data(dataset_records)]
    parts += ["Held-out rows:", table(dataset_records, measures("held_out"))]
    parts += ["Training rows:", table(dataset_records, [KL, *measures("training")])]
    parts += ["Cost:", table(dataset_records, COSTS), footnote(dataset_records)]
    parts += _phases(dataset_records)
    parts += [provenance(dataset_records)]
    return "\n\n".join(filter(None, parts))


def _data(dataset_records):
    data = next((record["data"] for record in dataset_records if record["data"]), None)
    return data and (
        f"{data['training_rows']:,} training rows, {data['held_out_rows']:,} held-out rows, "
        f"{data['columns']:,} columns, {data['classes']} classes ({data['rule']})."
    )


def _phases(dataset_records):
    """A sentence on each method that tells the seconds of its phases; medians over the seeds."""
    for record in dataset_records:
        runs = [run["phases"] for run in records.good_runs(record) if run["phases"]]
        names = dict.fromkeys(name for phases in runs for name in phases)
        medians = {name: statistics.median(run.get(name, 0) for run in runs) for name in names}
        if medians:
            told = ", ".join(f"{name} {number(value, 2)} s" for name, value in medians.items())
            yield f"Phases of {record['method']}: {told}."


def provenance(dataset_records):
    """Machines, threads, commits, days and versions of some records."""
    places = {_machine(record["conditions"]) for record in dataset_records}
    runs = [run for record in dataset_records for run in record["runs"]]
    days = sorted({run["date"][:10] for run in runs})
    commits = ", ".join(sorted({str(run["commit"]) for run in runs}))
    busiest = max(run.get("load_average", 0) for run in runs)
    packages = {}  # peers stand in environments of their own: a package may have two versions
    for record in dataset_records:
        for name, version in record["conditions"]["versions"].items():
            packages.setdefault(name, set()).add(str(version))
    versions = ", ".join(
        f"{name} {' / '.join(sorted(found))}" for name, found in sorted(packages.items())
    )
    return (
        f"{'; '.join(sorted(places))}; load average up to {busiest:.1f}; seeds "
        f"{', '.join(str(seed) for seed in sorted({run['seed'] for run in runs}))}; "
        f"{' to '.join(dict.fromkeys([days[0], days[-1]]))}; commit {commits}; {versions}."
    )


def _machine(where):
    gpu = f", {where['gpu']}" if where["gpu"] else ""
    plural = "s" * (where["threads"] > 1)
    return f"{where['cpu']}, {where['cores']} cores{gpu}, {where['threads']} thread{plural}"


def fit_seconds(all_records):
    """Median seconds of fit on the blobs: method -> {training rows: seconds}, rows ascending."""
    seconds = {}
    for record in _blobs(all_records):
        found = values(record, FIT.figures[0])
        if found:
            by_rows = seconds.setdefault(record["method"], {})
            by_rows[record["data"]["training_rows"]] = statistics.median(found)
    rank = {name: i for i, name in enumerate(METHODS)}
    names = sorted(seconds, key=lambda name: rank.get(name, len(rank)))
    return {name: dict(sorted(seconds[name].items())) for name in names}


def _blobs(all_records):
    return [
        record
        for dataset, dataset_records in all_records.items()
        for record in (dataset_records if dataset.startswith("blobs-") else [])
    ]


def exponent(by_rows):
    """a of seconds ~ rows^a, fitted to all sizes by least squares of logarithms; None for one."""
    if len(by_rows) < 2:
        return None
    rows, seconds = (
        [math.log(number) for number in part] for part in zip(*by_rows.items(), strict=True)
    )
    return statistics.linear_regression(rows, seconds).slope


def growth(all_records):
    """Seconds of fit by the number of rows of the blobs; None where there are not two numbers."""
    seconds = fit_seconds(all_records)
    sizes = sorted({n_rows for by_rows in seconds.values() for n_rows in by_rows})
    if len(sizes) < 2:
        return None
    busy = {record["method"] for record in _blobs(all_records) if is_busy(record)}
    lines = [["", *(f"{n_rows:,}" for n_rows in sizes), "exponent"]]
    lines += [["---", *("---:" for _ in sizes), "---:"]]
    for method, by_rows in seconds.items():
        cells = [number(by_rows[n], 2) if n in by_rows else ABSENT for n in sizes]
        slope = exponent(by_rows)
        name = f"{title(method)} {BUSY}" if method in busy else title(method)
        lines.append([name, *cells, ABSENT if slope is None else number(slope, 2)])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    parts = [
        "### Growth",
        "Seconds of fit by training rows, Gaussian blobs, and a of seconds ~ rowsᵃ:",
        rows,
        footnote(_blobs(all_records)),
    ]
    return "\n\n".join(filter(None, parts))


# --- files ----------------------------------------------------------------------------------------


def ordered(all_records):
    """Data sets from small to large, methods in the order of `METHODS`, trials left out."""
    rank = {name: i for i, name in enumerate(METHODS)}
    names = [name for name in all_records if "@" not in name]
    names.sort(
        key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), len(name), name)
    )
    last = len(rank)
    return {
        name: sorted(all_records[name], key=lambda record: rank.get(record["method"], last))
        for name in names
    }


def report(all_records):
    """The text for benchmarks/README.md."""
    parts = [section(name, dataset_records) for name, dataset_records in all_records.items()]
    return "\n\n".join([*parts, *filter(None, [growth(all_records)])])


def small_report(all_records, dataset):
    """The text for README.md: all methods of one data set, ours with its defaults."""
    if dataset not in all_records:
        raise ValueError(f"there are no figures of {dataset}; run benchmarks/run.py first")
    methods = {record["method"] for record in all_records[dataset]}
    shown = [
        record
        for record in all_records[dataset]
        if record["method"] not in LEFT_OUT and not _is_part(record["method"], methods)
    ]
    data = next(record["data"] for record in shown if record["data"])
    places = [record["conditions"] for record in shown]
    machines = "; ".join(sorted({f"{where['cpu']}, {where['cores']} cores" for where in places}))
    threads = " or ".join(str(n) for n in sorted({where["threads"] for where in places}))
    days = sorted({run["date"][:10] for record in shown for run in record["runs"]})
    busy = f" {BUSY}: the machine was busy, seconds are too many." if footnote(shown) else ""
    caption = (
        f"Held-out / training rows; {dataset}: {data['training_rows']:,} and "
        f"{data['held_out_rows']:,} rows of {data['columns']:,} columns. {machines}, {threads} "
        f"{'thread' if threads == '1' else 'threads'}; "
        f"{' to '.join(dict.fromkeys([days[0], days[-1]]))}.{busy}"
    )
    return f"{table(shown, SMALL)}\n\n{caption}"


def _is_part(method, methods):
    """Whether it is another, cut short, and that one is there in full: glass-box-umap-20."""
    name, _, share = method.rpartition("-")
    return share.isdigit() and name in methods


def fill(text, content):
    """The text with new content between the two marks."""
    marks = re.compile(f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"expected the lines {BEGIN} and {END}, in this order; add them")
    return marks.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text, count=1)


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readme", action="store_true", help="the small table into README.md")
    parser.add_argument("--dataset", default="mnist-10k", help="of the small table")
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    parser.add_argument("--into", type=Path, help="another file")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    path = options.into or (PROJECT_README if options.readme else README)
    all_records = ordered(records.read_all(options.results))
    try:
        content = (
            small_report(all_records, options.dataset) if options.readme else report(all_records)
        )
        path.write_text(fill(path.read_text(encoding="utf-8"), content), encoding="utf-8")
    except ValueError as error:
        return f"{path.name}: {error}"
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
