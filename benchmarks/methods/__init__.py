"""What is compared: methods by name, with the file that runs each.

A file has a NOTE of what a reader of the figures has to know, and a class `Method(setting,
**parameters)` with

warm_up(X)
    Do everything once on a tiny random problem shaped like X.
fit(X), transform(X)
    Places of training rows, and of others.

and, where the library has it,

explain(X)
    W of rows: (N, 2, D).
phases(), reported_kl()
    Seconds of each phase of `fit`; the method's own value of the KL.

It may use numpy and its own library, no more: where its library stands in an environment of its
own, nothing else is there. Rows arrive as a float array.
"""

from importlib import import_module
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """What is equal for all methods."""

    seed: int
    threads: int


class Entry(NamedTuple):
    """How a method is run.

    `packages` are the distributions whose versions decide about its figures; `environment` is the
    file of environments/ that installs them, None where they are installed beside ptsne; `title`
    names the row of a table, where the name alone would promise more than was run.
    """

    file: str
    parameters: dict[str, Any]
    packages: tuple[str, ...]
    environment: str | None = None
    title: str | None = None


OURS = ("torch", "scipy", "scikit-learn", "pynndescent")
GLASS_BOX = ("glass-box-umap", "torch", "pytorch-lightning", "umap-learn", "pynndescent")
METHODS = {
    "ptsne": Entry("ours", {}, OURS),
    "ptsne-fast": Entry("ours", {"quality": "fast"}, OURS),
    "ptsne-high": Entry("ours", {"quality": "high"}, OURS),
    "ptsne-mlp": Entry("ours", {"projection": "mlp"}, OURS),
    "opentsne": Entry("opentsne", {}, ("openTSNE", "scipy", "scikit-learn")),
    "umap": Entry("umap_learn", {}, ("umap-learn", "pynndescent", "numba", "scikit-learn")),
    "parametric-umap": Entry(
        "parametric_umap",
        {},
        ("umap-learn", "keras", "tensorflow-cpu", "pynndescent"),
        "parametric-umap",
    ),
    "glass-box-umap": Entry("glass_box", {}, GLASS_BOX, "glass-box-umap"),
    "glass-box-umap-20": Entry(
        "glass_box",
        {"epochs": 20},
        GLASS_BOX,
        "glass-box-umap",
        "glass-box-umap, 20 of 200 epochs",
    ),
    "paramrepulsor": Entry(
        "paramrepulsor", {}, ("parampacmap", "torch", "annoy", "numba"), "parampacmap"
    ),
    "contrastive-ne": Entry(
        "contrastive_ne", {}, ("contrastive-ne", "torch", "annoy"), "contrastive-ne"
    ),
    "torchdr": Entry("torch_dr", {}, ("torchdr", "torch"), "torchdr"),
    "torchdr-80": Entry(
        "torch_dr",
        {"max_iter": 80},
        ("torchdr", "torch"),
        "torchdr",
        "torchdr, 80 of 2,000 iterations",
    ),
    "pacmap": Entry("pacmap", {}, ("pacmap", "faiss-cpu", "numba"), "pacmap"),
    "pca": Entry("pca", {}, ("scikit-learn", "scipy")),
}


def load_method(name: str) -> Any:
    """The file of a method; only here is its library imported."""
    return import_module(f"methods.{METHODS[name].file}")
