"""Tables of docs/explanations.md from the JSON files: medians over seeds, ± half of the range."""

import re
import statistics
from pathlib import Path
from typing import NamedTuple

import records
from tables import number

from attribution.parts import PARTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanations.md"
ABSENT = "–"
ROUNDING = 1e-9
CONTROLS = ("random order", "size of the change, no map", "difference of means, no map")
CONTROLS += ("1-NN accuracy of the map", "rows on one chart")


class Figure(NamedTuple):
    """A column: its title, where its numbers stand, decimals, and which ones win."""

    title: str
    name: str
    digits: int = 3
    higher_wins: bool = False


QUALITY = (
    Figure("completeness error", "completeness_error"),
    Figure("infidelity, to baseline", "infidelity_baseline"),
    Figure("infidelity, to noise", "infidelity_noise"),
    Figure("max-sensitivity", "max_sensitivity"),
    Figure("deletion", "deletion"),
    Figure("insertion", "insertion"),
    Figure("deletion, distance", "deletion_distance"),
    Figure("insertion, distance", "insertion_distance"),
    Figure("neighbours R²", "neighbour_r2", 3, True),
)


def read_parts(folder):
    """Records by part and data set."""
    found = {}
    for part, entry in PARTS.items():
        for dataset in entry.datasets:
            record = records.read(folder / f"explanations-{part}-{dataset}.json")
            if record and record["runs"]:
                found.setdefault(part, {})[dataset] = record
    return found


def filled(text, parts):
    """The page with new content between ``<!-- part -->`` and ``<!-- /part -->``."""
    for name, of_datasets in parts.items():
        content = "\n\n".join([*SECTIONS[name](of_datasets), provenance(of_datasets)])
        marks = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = marks.sub(lambda match, new=content: f"{match[1]}{new}\n{match[2]}", text, count=1)
    return text


# --- cells ----------------------------------------------------------------------------------------


def values(record, projection, method, name):
    """A figure of all seeds; empty where there is none."""
    runs = [run for run in record["runs"] if run["projection"] == projection]
    found = [run["methods"].get(method, {}).get(name) for run in runs]
    return [value for value in found if value is not None]


def median(found, digits=3):
    """Median, and half of the range where seeds differ."""
    if not found:
        return ABSENT
    half = (max(found) - min(found)) / 2
    spread = f" ±{number(half, digits)}" if number(half, digits).strip("<.0") else ""
    return number(statistics.median(found), digits) + spread


def methods_of(of_datasets):
    """All methods in the order measured, controls last."""
    runs = [run for record in of_datasets.values() for run in record["runs"]]
    names = dict.fromkeys(name for run in runs for name in run["methods"])
    return sorted(names, key=lambda name: name in CONTROLS)


def bold(cells, scores, higher_wins):
    """Cells with the best one bold; a score of None takes no part."""
    known = [score for score in scores if score is not None]
    if not known:
        return cells
    best = max(known) if higher_wins else min(known)
    best_cells = {
        cell.split(" ±")[0] for cell, score in zip(cells, scores, strict=True) if score == best
    }
    return [
        f"**{cell}**" if score is not None and cell.split(" ±")[0] in best_cells else cell
        for cell, score in zip(cells, scores, strict=True)
    ]


def table(titles, names, columns):
    """Markdown of columns of cells."""
    lines = [["", *titles], ["---", *("---:" for _ in titles)]]
    lines += [list(row) for row in zip(names, *columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- sections -------------------------------------------------------------------------------------


def quality(of_datasets):
    for dataset, record in of_datasets.items():
        for projection in PARTS["quality"].projections:
            names = methods_of({dataset: record})
            columns = [_quality_column(record, projection, names, figure) for figure in QUALITY]
            data = record["data"]
            yield (
                f"**{dataset}, {projection}** ({data['training_rows']:,} training rows, "
                f"{data['held_out_rows']} held-out rows, {data['columns']} columns):"
            )
            yield table([figure.title for figure in QUALITY], names, columns)


def _quality_column(record, projection, names, figure):
    found = [values(record, projection, name, figure.name) for name in names]
    scores = [
        statistics.median(each) if each and name not in CONTROLS else None
        for name, each in zip(names, found, strict=True)
    ]
    if figure.name == "completeness_error":  # what is rounding is as good as any other rounding
        scores = [score and max(score, ROUNDING) for score in scores]
        cells = [_power(each) for each in found]
        return [
            f"**{cell}**" if score == min(filter(None, scores)) else cell
            for cell, score in zip(cells, scores, strict=True)
        ]
    return bold([median(each, figure.digits) for each in found], scores, figure.higher_wins)


def _power(found):
    """What is rounding as a power of ten."""
    if found and statistics.median(found) < ROUNDING:
        return f"{statistics.median(found):.0e}"
    return median(found)


def nearby(of_datasets):
    names = methods_of(of_datasets)
    columns = [
        [median(values(record, "atlas", name, "complete")) for name in names]
        for record in of_datasets.values()
    ]
    yield "Share of the held-out rows whose parts add up to 1e-9 of the way, atlas:"
    yield table(list(of_datasets), names, columns)


def perturbation(of_datasets):
    names = methods_of(of_datasets)
    settings = list(next(iter(of_datasets.values()))["runs"][0]["methods"][names[0]])
    yield f"Recall@3, {settings[0]}, atlas / mlp:"
    columns = [
        [_both({"one": record}, name, settings[0]) for name in names]
        for record in of_datasets.values()
    ]
    yield table(list(of_datasets), names, columns)
    yield "Recall@3, noise on all other features in standard deviations, mean over the data sets:"
    columns = [[_both(of_datasets, name, setting) for name in names] for setting in settings[1:]]
    yield table(settings[1:], names, columns)


def _both(of_datasets, name, setting, digits=3):
    """Mean over data sets of the median over seeds, for an atlas and for an mlp."""
    cells = []
    for projection in ("atlas", "mlp"):
        found = [values(record, projection, name, setting) for record in of_datasets.values()]
        medians = [statistics.median(each) for each in found if each]
        cells.append(number(statistics.mean(medians), digits) if medians else ABSENT)
    return " / ".join(cells)


def known_clusters(of_datasets):
    (record,) = of_datasets.values()
    names = methods_of(of_datasets)
    designs = list(record["runs"][0]["methods"][names[0]])
    titles = list(dict.fromkeys(design.rsplit(", ", 1)[0] for design in designs))
    for projection in PARTS["clusters"].projections:
        yield f"Precision@k, {projection}; mean over noise and seeds, and the lowest:"
        columns = [
            [_mean_and_lowest(record, projection, name, title, designs) for name in names]
            for title in titles
        ]
        yield table(titles, names, columns)


def _mean_and_lowest(record, projection, name, title, designs):
    found = [
        value
        for design in designs
        if design.startswith(f"{title},")
        for value in values(record, projection, name, design)
    ]
    if not found:
        return ABSENT
    return f"{number(statistics.mean(found), 2)}, {number(min(found), 2)}"


def genes(of_datasets):
    (record,) = of_datasets.values()
    names = methods_of(of_datasets)
    pairs = list(record["runs"][0]["methods"][names[0]])
    columns = [[median(values(record, "atlas", name, pair), 0) for name in names] for pair in pairs]
    yield "Of the first 20 genes, those that are among the first 20 of the rank-sum test (atlas):"
    yield table(pairs, names, columns)


def fidelity(of_datasets):
    projections = PARTS["fidelity"].projections
    titles = [f"{p}, {rows}" for p in projections for rows in ("training", "held-out")]
    titles += [f"KL, {projection}" for projection in projections]
    cells = [
        [_r2(record, p, rows) for record in of_datasets.values()]
        for p in projections
        for rows in ("training", "held_out")
    ]
    cells += [
        [median(values(record, p, "W", "kl")) for record in of_datasets.values()]
        for p in projections
    ]
    yield "R² of W for the 5 nearest training rows:"
    yield table(titles, list(of_datasets), cells)


def _r2(record, projection, rows):
    return median([found["r2"] for found in values(record, projection, "W", rows)])


def timing(of_datasets):
    names = methods_of(of_datasets)
    columns = [
        [_both({"one": record}, name, "seconds_per_1000", 2) for name in names]
        for record in of_datasets.values()
    ]
    yield "Processor seconds for 1,000 rows, both outputs, atlas / mlp:"
    yield table(list(of_datasets), names, columns)


SECTIONS = {
    "quality": quality,
    "nearby": nearby,
    "perturbation": perturbation,
    "clusters": known_clusters,
    "genes": genes,
    "fidelity": fidelity,
    "timing": timing,
}


def provenance(of_datasets):
    """Machine, threads, load, seeds, commits and versions."""
    runs = [run for record in of_datasets.values() for run in record["runs"]]
    places = {_machine(record["conditions"]) for record in of_datasets.values()}
    packages = {}
    for record in of_datasets.values():
        packages |= record["conditions"]["versions"]
    return (
        f"{'; '.join(sorted(places))}; load average up to "
        f"{max(run['load_average'] for run in runs):.1f}; seeds "
        f"{', '.join(str(seed) for seed in sorted({run['seed'] for run in runs}))}; "
        f"{max(run['date'] for run in runs)[:10]}; commit "
        f"{', '.join(sorted({str(run['commit']) for run in runs}))}; "
        f"{', '.join(f'{name} {version}' for name, version in packages.items())}."
    )


def _machine(where):
    plural = "s" * (where["threads"] > 1)
    return f"{where['cpu']}, {where['cores']} cores, {where['threads']} thread{plural}"
