"""The rooms of the package and what they import, drawn from the code itself."""

import ast
import runpy
import textwrap
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 1.0, 0.62  # of a room, where a floor is 1 high


def draw():
    """Draw one box per room, its floor as in `tests/test_architecture.py`, a line per import."""
    architecture = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))
    floors = [sorted(names - {"__init__", "__main__"}) for names in architecture["FLOORS"]]
    floors = [names for names in floors if names]
    places = {
        name: (WIDTH * (column - len(names) / 2 + 0.5), floor)
        for floor, names in enumerate(floors)
        for column, name in enumerate(names)
    }
    _, ax = plt.subplots(figsize=(11, 1.35 * len(floors)))
    for (upper, lower), count in Counter(architecture["rooms"]()).items():
        if upper in places and lower in places and places[upper][1] > places[lower][1]:
            draw_import(ax, places[upper], places[lower], count)
    for name, place in places.items():
        draw_room(ax, name, place)
    reach = max(map(len, floors)) / 2
    ax.set(xlim=(-reach - 0.1, reach + 0.1), ylim=(-0.5, len(floors) - 0.5))
    ax.axis("off")


def draw_import(ax, upper, lower, count):
    ends = (upper[0], lower[0]), (upper[1] - HEIGHT / 2, lower[1] + HEIGHT / 2)
    ax.plot(*ends, color="#9aa5b1", linewidth=0.5 + 0.25 * min(count, 6), alpha=0.5, zorder=1)


def draw_room(ax, name, place):
    x, y = place
    corner = x - WIDTH / 2 + 0.04, y - HEIGHT / 2
    box = FancyBboxPatch(
        corner,
        WIDTH - 0.08,
        HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.05",
        facecolor="#eef3f8",
        edgecolor="#4a6785",
        zorder=2,
    )
    ax.add_patch(box)
    ax.text(x, y + 0.16, name, ha="center", va="center", weight="bold", fontsize=9.5, zorder=3)
    words = "\n".join(textwrap.wrap(purpose(name), 23)[:3])
    ax.text(x, y - 0.09, words, ha="center", va="center", fontsize=6.5, zorder=3)


def purpose(name):
    """First sentence of a room's docstring, cut where it begins to explain."""
    folder = ROOT / "ptsne" / name
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    words = " ".join((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split())
    for end in (". ", ": ", ", "):
        words = words.split(end)[0]
    return words.rstrip(".").replace("`", "")
