"""Figures that the pages name: read from the committed benchmarks and from the package.

A page says ``{{ relu_radius }}``; a name that is not here is a warning, which stops a build.
"""

import json
import statistics
from pathlib import Path

from ptsne import networks, repulsion
from ptsne.affinities import neighbors
from ptsne.training import defaults, finetuning, landmarks, mapping

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TABLE = ROOT / "docs" / "_build" / "generated" / "repulsion.md"
DATASETS = ("iris", "wine", "digits", "mnist")
COURSE = ("max_iter", "early", "late")
ENGINES = {
    "grid": "grid",
    "exact float32": "exact pairs, float32",
    "openTSNE fft": "openTSNE's interpolation",
}


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def explained(part, dataset, method, figure):
    """Median over the seeds of an atlas."""
    runs = [r for r in read(f"explanations-{part}-{dataset}")["runs"] if r["projection"] == "atlas"]
    return statistics.median(run["methods"][method][figure] for run in runs)


def span(numbers, form):
    """Least and largest, as they are printed."""
    least, largest = form(min(numbers)), form(max(numbers))
    return least if least == largest else f"{least} to {largest}"


def percent(share):
    return f"{100 * share:.0f}"


def milliseconds(method):
    """Of a row and both coordinates; seconds of 1,000 rows are milliseconds of one."""
    found = [explained("timing", dataset, method, "seconds_per_1000") for dataset in DATASETS]
    return span(found, "{:.2g}".format)


def radius(network):
    """Median radius of the regions of a network, in the 2-norm."""
    rows = read("regions")["radius"]
    found = next(r for r in rows if r["network"] == network and r["p"] == "2")["median_radius"]
    return f"{found:.0e}".replace("e-0", "e-")


def between_charts():
    """Per cent of new rows that more than one landmark holds, over the data sets."""
    alone = [explained("nearby", name, "rows on one chart", "complete") for name in DATASETS]
    return span([1 - share for share in alone], percent)


def missed():
    """Per cent of the way from the mean row that contributions miss, where rows are pictures."""
    pictures = "digits", "mnist"
    error = "completeness_error"
    return span([explained("quality", name, "ours: local", error) for name in pictures], percent)


def course(rows, part):
    """Iterations of the training, or the share of a phase in per cent."""
    value = getattr(defaults.COURSE[rows], part)
    return f"{value:,}" if part == "max_iter" else percent(value)


def found():
    return {
        "missed_from_mean": missed(),
        "between_charts": between_charts(),
        "path_ms": milliseconds("ours: path"),
        "paired_ms": milliseconds("ours: paired"),
        "lenet_radius": radius("LeNet-5"),
        "many_rows": f"{defaults.MANY_ROWS:,}",
        **{f"{part}_{rows}": course(rows, part) for rows in defaults.COURSE for part in COURSE},
        "exact_rows": f"{neighbors.EXACT_LIMIT:,}",
        "n_axes": str(neighbors.N_AXES),
        "exact_pairs": f"{repulsion.engine.EXACT_ROWS['cpu']:,}",
        "exact_pairs_gpu": f"{repulsion.engine.EXACT_ROWS['cuda']:,}",
        "n_active": f"{mapping.N_ACTIVE:g}",
        "softening": f"{landmarks.SOFTENING:g}",
        "sharpening": f"{landmarks.SHARPENING:g}",
        "many_dimensions": f"{landmarks.MANY_DIMENSIONS}",
        "fidelity_scale": f"{finetuning.FIDELITY_SCALE:g}",
        "tilt": f"{networks.TILT:g}",
    }


def table():
    """Cost and error of one gradient by engine, of a map on its way and of a finished one."""
    record = read("repulsion")
    rows = {(r["map"], r["engine"]): r for r in record["rows"] if r["threads"] == 2}
    spans = [f"{rows[name, 'grid']['span']:.0f} units wide" for name in ("mid", "final")]
    lines = [f"| | on the way, {spans[0]} | error | finished, {spans[1]} | error |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for engine, title in ENGINES.items():
        cells = []
        for name in ("mid", "final"):
            row = rows[name, engine]
            error = row["gradient_error"]
            cells += [f"{row['ms']['median']:.1f} ms", "<.1 %" if error < 1e-3 else f"{error:.1%}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    what = f"{record['points']:,} MNIST digits, two threads of {record['hardware']['cpu']}"
    return "\n".join([*lines, "", f"One whole gradient of {what}; commit {record['commit']}.", ""])


def write(app):
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    if not TABLE.exists() or TABLE.read_text(encoding="utf-8") != table():
        TABLE.write_text(table(), encoding="utf-8")


def setup(app):
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
