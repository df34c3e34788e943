"""The house stands: imports only fall, no room is called utils, importing is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ptsne"

# A module imports only from floors below its own, except for the pairs named in SAME_FLOOR.
FLOORS = [
    {"affinities", "devices", "lazy", "repulsion", "losses", "metrics", "registration", "datasets"},
    {"networks", "classifiers", "ensembles", "linearize"},
    {"training", "regions", "decomposition"},
    {"explanation", "persistence", "rows", "export", "streaming"},
    {"fitting", "updating"},
    {"estimator", "pipelines", "plots"},
    {"report", "evaluation", "single_cell"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {module: number for number, modules in enumerate(FLOORS) for module in modules}
SAME_FLOOR = {
    ("losses", "repulsion"),  # the gradient of the KL contains the repulsion
    ("metrics", "affinities"),  # recall compares neighbours
    ("lazy", "devices"),  # what a block of rows has left goes back to the system
    ("affinities", "lazy"),  # a graph may be mapped too
}


def files():
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path):
    """ptsne/linearize/graph.py -> linearize.graph; the room is the first word."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path):
    """Absolute names of everything that a file imports, anywhere in it, when it runs."""
    package = ["ptsne", *path.relative_to(PACKAGE).parts[:-1]]
    for node in running_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if is_module(inner) or module == "sklearn" else module


def running_nodes(node):
    """All nodes of a tree except what stands under `if TYPE_CHECKING`."""
    is_for_types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    if not is_for_types:
        yield node
        for child in ast.iter_child_nodes(node):
            yield from running_nodes(child)


def imported(path):
    """Modules of ours that a file imports, without the leading "ptsne."."""
    return [name.removeprefix("ptsne.") for name in imports(path) if name.startswith("ptsne.")]


def is_module(name):
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def rooms():
    """(importing room, imported room) pairs of the whole house."""
    for path in files():
        room = dotted(path).split(".")[0]
        for name in imported(path):
            if name.split(".")[0] != room:
                yield room, name.split(".")[0]


def test_every_room_has_a_floor():
    assert {dotted(path).split(".")[0] for path in files()} <= set(FLOOR)


def test_imports_only_fall():
    rising = {
        pair
        for pair in rooms()
        if FLOOR[pair[0]] <= FLOOR[pair[1]] and pair not in SAME_FLOOR and "__" not in pair[0]
    }
    assert not rising


def test_no_file_imports_itself_in_a_circle():
    graph = {dotted(path): set(imported(path)) for path in files()}

    def reachable(name, seen):
        for child in graph.get(name, set()) - seen:
            seen.add(child)
            reachable(child, seen)
        return seen

    # A package's __init__ is left out: it only gathers the names of its own files.
    packages = {dotted(path) for path in files() if path.name == "__init__.py"}
    circular = {name for name in graph.keys() - packages if name in reachable(name, set())}
    assert not circular


def test_no_attics():
    attics = {"utils", "helpers", "common", "core", "base", "misc"}
    assert not attics & {path.stem for path in files()} | attics & {
        folder.name for folder in PACKAGE.rglob("*") if folder.is_dir()
    }


def test_the_maths_knows_no_estimator_file_or_picture():
    maths = {module for floor in FLOORS[:4] for module in floor}
    forbidden = ("matplotlib", "bokeh", "sklearn.base", "argparse")
    for path in files():
        if dotted(path).split(".")[0] in maths:
            assert not [name for name in imports(path) if name.startswith(forbidden)], path


def test_only_the_command_line_prints():
    for path in files():
        calls = (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call))
        printing = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not printing or dotted(path).startswith("cli"), path


def test_the_linearizer_knows_no_network_of_ours():
    assert "linearize" not in {importing for importing, _ in rooms()}


# pandas is not in the list: scikit-learn imports it itself where it is installed.
@pytest.mark.parametrize("module", ["matplotlib", "umap", "openTSNE", "bokeh", "captum", "onnx"])
def test_importing_ptsne_is_light(module, modules_after_import):
    assert module not in modules_after_import


@pytest.fixture(scope="module")
def modules_after_import():
    code = "import sys, ptsne; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def yields(node, contexts=()):
    """Every yield of a function, with the contexts around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Yield, ast.YieldFrom)):
            yield contexts
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            entered = tuple(map(ast.unparse, getattr(child, "items", ())))
            yield from yields(
                child, (*contexts, *entered) if isinstance(child, ast.With) else contexts
            )


@pytest.mark.parametrize("path", files(), ids=dotted)
def test_no_iterator_is_left_inside_a_setting(path):
    """One that is not run to its end leaves it when memory is cleared, in the middle of others."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef):
            is_context = any("contextmanager" in ast.unparse(d) for d in function.decorator_list)
            around = {name for names in yields(function) for name in names}
            assert is_context or all(name.startswith("tqdm(") for name in around)
