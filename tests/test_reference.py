"""The reference of the site: every public name is in its index, with parameters and an example.

Every public method has an example too; that all of them run is seen by `make docs`.
"""

import importlib
import inspect
import re
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

INDEX = Path(__file__).parent.parent / "docs" / "reference" / "index.md"

# All that these rooms offer is meant for users; of other rooms the index lists what users meet.
ROOMS = (
    "ptsne",
    "ptsne.classifiers",
    "ptsne.datasets",
    "ptsne.evaluation",
    "ptsne.linearize",
    "ptsne.metrics",
    "ptsne.pipelines",
    "ptsne.plots",
    "ptsne.regions",
    "ptsne.report",
)


def listed():
    """Names in the index, as `autosummary` reads them under the current module ptsne."""
    page = INDEX.read_text(encoding="utf-8")
    tables = re.findall(r"^\.\. autosummary::\n((?: .*\n|\n)+)", page, flags=re.M)
    lines = [line.strip() for table in tables for line in table.splitlines()]
    return [line for line in lines if line and not line.startswith(":")]


def resolved(name):
    room, _, last = f"ptsne.{name}".rpartition(".")
    return getattr(importlib.import_module(room), last)


NAMES = listed()
DESCRIBED = [name for name in NAMES if callable(resolved(name))]


CLASSES = [name for name in DESCRIBED if inspect.isclass(resolved(name))]


def own_methods(name):
    """Public methods that the package wrote; those of scikit-learn and torch have theirs there."""
    parts = [part for part in resolved(name).__mro__ if part.__module__.startswith("ptsne.")]
    members = {word: member for part in parts for word, member in vars(part).items()}
    kinds = (FunctionType, classmethod, staticmethod)
    return sorted(w for w, m in members.items() if isinstance(m, kinds) and not w.startswith("_"))


METHODS = [f"{name}.{method}" for name in CLASSES for method in own_methods(name)]


def same(a, b):
    """Two names of one thing; a bound method is a new object every time."""
    return a is b or (inspect.ismethod(a) and a == b)


def test_nothing_is_listed_twice():
    assert len(NAMES) == len(set(NAMES)) > 80


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_listed(room):
    module = importlib.import_module(room)
    things = [resolved(name) for name in NAMES]
    offered = {name: getattr(module, name) for name in module.__all__}
    missing = [
        name
        for name, thing in offered.items()
        if not isinstance(thing, ModuleType) and not any(same(thing, other) for other in things)
    ]
    assert not missing


@pytest.mark.parametrize("name", DESCRIBED)
def test_docstring_has_an_example(name):
    assert has_example(resolved(name))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_an_example(name):
    of_class, _, method = name.rpartition(".")
    assert has_example(getattr(resolved(of_class), method))


def has_example(thing):
    return re.search(r"^Examples\n-+\n(.*\n)*>>> ", inspect.getdoc(thing) or "", flags=re.M)


@pytest.mark.parametrize("name", DESCRIBED)
def test_docstring_names_every_parameter(name):
    thing = resolved(name)
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return
    if inspect.isclass(thing) and not re.search(r"^Parameters\n-", inspect.getdoc(thing), re.M):
        return  # made by a function that is listed, and described by its attributes
    heads = re.findall(r"^([*\w, ]+?)(?: :|$)", inspect.getdoc(thing), flags=re.M)
    told = {word.strip(" *") for head in heads for word in head.split(",")}
    assert set(inspect.signature(thing).parameters) <= told


@pytest.mark.parametrize("name", CLASSES)
def test_methods_have_docstrings(name):
    members = vars(resolved(name)).items()
    silent = [n for n, m in members if callable(m) and not n.startswith("_") and not m.__doc__]
    assert not silent


@pytest.mark.parametrize(
    "name",
    [
        "Explanation",
        "Linearization",
        "linearize.PairedLinearization",
        "linearize.LayerLinearization",
    ],
)
def test_examples_call_every_method(name):
    thing = resolved(name)
    text = inspect.getdoc(thing)
    public = [n for n, m in vars(thing).items() if callable(m) and not n.startswith("_")]
    elsewhere = {"to_captum", "to_shap"}  # they need a library; the guide of pipelines has them
    assert not [n for n in public if f".{n}(" not in text and n not in elsewhere]
