"""Which examples are run, and in which order they are shown.

Examples name the data sets that they load. Those whose data are not on the machine are shown as
code: a build fetches nothing, and claims no result that it did not compute.
"""

import re
from functools import cache

import matplotlib.pyplot as plt
from docutils import nodes
from sphinx_gallery.directives import imgsgnode

from ptsne import datasets

ORDER = [
    "plot_iris.py",
    "plot_wine.py",
    "plot_contrast.py",
    "plot_pipeline.py",
    "plot_counterfactual.py",
    "plot_feature_field.py",
    "plot_digits.py",
    "plot_stretch.py",
    "plot_update.py",
    "plot_mnist.py",
    "plot_fashion.py",
    "plot_pbmc.py",
    "plot_own_network.py",
    "plot_custom_rule.py",
    "plot_label_flip.py",
    "plot_wx_rows.py",
    "plot_neuron_maps.py",
]
LOADED = re.compile(r"""(?:load|pictures|Recipe)\(\s*["']([\w-]+)["']""")


@cache
def is_here(name):
    """Whether a data set can be loaded without a network."""
    try:
        datasets.load(name, split="all", download=False)
    except FileNotFoundError:
        return False
    return True


def needs(path):
    """Names of the data sets that an example loads."""
    return sorted(set(LOADED.findall(path.read_text(encoding="utf-8"))) & set(datasets.NAMES))


def copy(source, target, made):
    """Copy the examples, so that the pictures that they write are no litter in the repository.

    What cannot be run says so below its title, and is run again where the data have come: what an
    earlier build has noted in the folder `made` is forgotten.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.suffix in (".py", ".rst"):
            missing = [name for name in needs(path) if not is_here(name)]
            text = path.read_text(encoding="utf-8")
            if missing:
                (made / f"{path.name}.md5").unlink(missing_ok=True)
            put(target / path.name, noted(text, missing) if missing else text)


def noted(text, missing):
    """An example with a note below its title."""
    title, line, rest = re.split(r"^(={4,}\n)", text, maxsplit=1, flags=re.MULTILINE)
    note = (
        f"\n.. note::\n   Not run in this build: {' and '.join(missing)} was not on the machine.\n"
        "   ``datasets/README.md`` says where the files are looked for.\n"
    )
    return title + line + note + rest


def put(path, text):
    """Write only what has changed: an old file is not run again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def runnable(folder):
    return [path for path in sorted(folder.glob("plot_*.py")) if all(map(is_here, needs(path)))]


def pattern(folder):
    """What sphinx-gallery takes to choose the examples that it runs."""
    names = "|".join(re.escape(path.name) for path in runnable(folder))
    return rf"/({names})$"


def order(name):
    """Examples as listed above, others behind them by name."""
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def box_pictures(app, document, name):
    """Give each picture of the gallery a box of its own, in which it can be moved sideways."""
    for picture in list(document.findall(imgsgnode)):
        box = nodes.container(classes=["picture"])
        picture.replace_self(box)
        box += picture


def reset(configuration, name):
    """Before each example: pictures of equal sharpness."""
    plt.rcParams["figure.dpi"] = 100
