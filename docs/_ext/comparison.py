"""Tables and pictures of the comparison, from the JSON files that the benchmarks have left."""

import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "_build" / "generated" / "benchmarks.md"
sys.path.insert(0, str(ROOT / "benchmarks"))

import records  # noqa: E402
import tables  # noqa: E402

OURS = "#B2182B"
QUALITY = {
    "recall of 15 neighbours": ("quality", "held_out", "recall_15"),
    "10-NN accuracy": ("quality", "held_out", "accuracy_10"),
    "order of distances in triplets": ("quality", "held_out", "triplet_accuracy"),
}
COST = {
    "fit, seconds": ("seconds", "fit"),
    "new rows placed per second": ("rows_per_second", "transform"),
    "memory of the fit, GiB": ("memory_gib", "fit"),
}


def measured():
    """Records by data set, and methods within it, in the order of the tables."""
    return tables.ordered(records.read_all(records.RESULTS))


def draw_quality():
    """Held-out rows: one line of panels per data set, all methods in each."""
    _draw(QUALITY, is_logarithmic=False)


def draw_cost():
    _draw(COST, is_logarithmic=True)


def _draw(columns, *, is_logarithmic):
    """Dots of all methods; red is ours."""
    found = measured()
    heights = [0.5 + 0.24 * len(methods) for methods in found.values()]
    shape = {"figsize": (11, sum(heights) + 0.6), "height_ratios": heights, "squeeze": False}
    _, axes = plt.subplots(len(found), len(columns), layout="constrained", **shape)
    for line, (dataset, methods) in zip(axes, found.items(), strict=True):
        for ax, path in zip(line, columns.values(), strict=True):
            _draw_dots(ax, methods, path)
            if is_logarithmic:
                _make_logarithmic(ax)
            else:
                ax.locator_params(axis="x", nbins=5)
        for ax in line[1:]:
            ax.set_yticklabels([])
        line[0].set_ylabel(dataset, weight="bold")
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=10)


def _make_logarithmic(ax):
    """Ticks at the decades; at both ends where there are none."""
    numbers = [x for line in ax.lines if (x := line.get_xdata()[0]) > 0]
    ax.set_xscale("log")
    if max(numbers) / min(numbers) < 12:
        ax.set_xticks(
            [min(numbers), max(numbers)], [f"{n:.3g}" for n in (min(numbers), max(numbers))]
        )
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_dots(ax, methods, path):
    for height, record in enumerate(methods):
        numbers = tables.values(record, tables.Figure(path))
        colour = OURS if record["method"].startswith("ptsne") else "#4a6785"
        if numbers:
            ax.plot(statistics.median(numbers), height, "o", color=colour)
    ax.set_yticks(range(len(methods)), [record["method"] for record in methods], fontsize=8)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="both", color="#e3e8ee", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)


def write(app):
    """Write the tables where the page includes them, if they have changed."""
    text = tables.report(measured()) + "\n"
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        PAGE.write_text(text, encoding="utf-8")


def setup(app):
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
