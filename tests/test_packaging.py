"""What is shipped: an sdist that builds, a wheel of the package alone, a fit far from the sources.

Needs the packages `build` and `hatchling`; `make release-check` installs them.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LARGEST = 1_000_000  # bytes of one file in an archive
pytestmark = pytest.mark.slow

STORY = """
import numpy as np, ptsne
assert "site-packages" in ptsne.__file__, ptsne.__file__
X = np.random.default_rng(0).normal(size=(40, 3))
map_ = ptsne.ParametricTSNE(perplexity=5, max_iter=5, random_state=0).fit(X)
assert map_.explain(X).residual.max() < 1e-12
map_.save("model")
assert (ptsne.load("model").transform(X) == map_.embedding_).all()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it, without the network."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built):
    (path,) = built.glob("*.tar.gz")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {info.filename: info.file_size for info in archive.infolist()}
    shipped = {name for name in files if name.startswith("ptsne/")}
    mine = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ptsne").rglob("*.py")}
    assert mine <= shipped
    assert "ptsne/py.typed" in shipped
    assert {name.split("/")[0].split("-")[0] for name in files} == {"ptsne"}
    assert not [name for name in files if name.endswith((".pyc", ".npz", ".csv", ".ipynb"))]
    assert max(files.values()) < LARGEST


def test_the_metadata_are_those_of_the_project(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = next(n.split("/")[0] for n in archive.namelist() if ".dist-info/" in n)
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        entries = archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert metadata["Name"] == "ptsne"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.10"
    assert "ptsne = ptsne.cli:main" in entries
    required = {r.split(";")[0] for r in metadata.get_all("Requires-Dist") if "extra" not in r}
    assert len(required) == 9
    assert metadata.get_payload().startswith("# ptsne")


def test_the_sdist_holds_what_tests_need_and_no_data(sdist):
    with tarfile.open(sdist) as archive:
        sizes = {m.name.split("/", 1)[1]: m.size for m in archive.getmembers() if m.isfile()}
    assert {"LICENSE", "README.md", "pyproject.toml", "Makefile"} <= set(sizes)
    assert {"constraints.txt", "tests/conftest.py", "tests/test_estimator.py"} <= set(sizes)
    assert {name for name in sizes if name.startswith(".")} <= {".gitignore"}
    assert not [name for name in sizes if name.startswith(("datasets/", "benchmarks/"))]
    assert max(sizes.values()) < LARGEST


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """An environment with the wheel, and with this one's libraries below it."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    install = (python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    libraries = next(p for p in sys.path if p.endswith("site-packages"))
    # our own package comes first; an editable install of the sources below must not be found
    (site / "libraries.pth").write_text(f"import sys; sys.path.append({libraries!r})\n")
    return folder


def in_clean(clean, *words):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = (clean / "env" / "bin" / words[0], *words[1:])
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=clean, env=environment
    ).stdout


def test_the_installed_package_fits_explains_and_saves(clean):
    in_clean(clean, "python", "-W", "error::DeprecationWarning:ptsne", "-c", STORY)


def test_the_installed_command_answers(clean):
    assert "iris and digits" in in_clean(clean, "ptsne", "demo", "--help")
    assert "ptsne" in in_clean(clean, "python", "-m", "ptsne", "--help")
