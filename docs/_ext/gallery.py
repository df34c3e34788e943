"""Which examples are run, and in which order they are shown.

Examples name the data sets that they load. Those whose data are not on the machine are shown as
code: a build fetches nothing, and claims no result that it did not compute.
"""

import re
from functools import cache

import matplotlib.pyplot as plt

from ptsne import datasets

ORDER = [
    "plot_iris.py",
    "plot_wine.py",
    "plot_digits.py",
]
LOADED = re.compile(r"""(?:load|pictures|Recipe)\(\s*["']([\w-]+)["']""")


@cache
def is_here(name):
    """Whether a data set can be loaded without a network."""
    try:
        for split in ("train", "test"):
            datasets.load(name, split=split, download=False)
    except FileNotFoundError:
        return False
    return True


def needs(path):
    """Names of the data sets that an example loads."""
    return sorted(set(LOADED.findall(path.read_text(encoding="utf-8"))) & set(datasets.NAMES))


def runnable(folder):
    return [path for path in sorted(folder.glob("plot_*.py")) if all(map(is_here, needs(path)))]


def pattern(folder):
    """What sphinx-gallery takes to choose the examples that it runs."""
    names = "|".join(re.escape(path.name) for path in runnable(folder))
    return rf"/({names})$"


def order(name):
    """Examples as listed above, others behind them by name."""
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def reset(configuration, name):
    """Before each example: pictures of equal sharpness."""
    plt.rcParams["figure.dpi"] = 100
