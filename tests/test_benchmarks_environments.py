"""Environments of the peers: pinned, made once, and named where they cannot be had."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmark_scripts import BENCHMARKS, script

pytestmark = pytest.mark.usefixtures("beside_the_benchmarks")


def test_every_peer_has_an_environment_with_pinned_versions():
    entries = script("methods").METHODS.values()
    assert {entry.environment for entry in entries} - {None} == set(script("environments").known())
    for entry in entries:
        if entry.environment is not None:
            text = (BENCHMARKS / "environments" / f"{entry.environment}.txt").read_text()
            lines = [line for line in text.splitlines() if line and not line.startswith("#")]
            assert all("==" in line for line in lines)
            pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
            assert {name.lower() for name in entry.packages} <= pinned


@pytest.fixture
def pip(monkeypatch):
    """Commands that would have been run; the dry run tells `found`, fails by `error`."""
    environments = script("environments")
    fake = SimpleNamespace(commands=[], found=["torch"], error=None)

    def failure(command):
        fake.commands.append(command)
        if "--report" in command:
            items = [{"metadata": {"name": name}} for name in fake.found]
            Path(command[-1]).write_text(json.dumps({"install": items}))
            return fake.error
        return None

    monkeypatch.setattr(environments, "_failure", failure)
    return fake


def test_an_environment_is_made_once(pip, tmp_path, capsys):
    environments = script("environments")
    assert environments.state("pacmap", tmp_path) is None
    assert environments.main(["pacmap", "--folder", str(tmp_path)]) == 0
    assert len(pip.commands) == 3  # a place, a look, the installation
    assert environments.state("pacmap", tmp_path)["error"] is None
    assert environments.main(["pacmap", "--folder", str(tmp_path)]) == 0
    assert len(pip.commands) == 3
    assert capsys.readouterr().out.split() == ["pacmap:", "installed", "pacmap:", "is", "there"]


def test_an_installation_that_would_fetch_cuda_is_refused(pip, tmp_path):
    environments = script("environments")
    pip.found = ["torch", "nvidia-cublas", "triton"]
    assert environments.prepare("torchdr", tmp_path).startswith("pip would fetch CUDA (nvidia-")
    assert len(pip.commands) == 2
    assert environments.prepare("torchdr", tmp_path, allow_cuda=True) is None


def test_of_a_failed_command_the_last_error_remains():
    code = "import sys; sys.exit('WARNING: a\\nERROR: first\\nERROR: no such version\\nhint')"
    failure = script("environments")._failure
    assert failure([sys.executable, "-c", code]) == "no such version"
    assert failure([sys.executable, "-c", "import sys; sys.exit(3)"]) == "no reason was told"
    assert failure([sys.executable, "-c", ""]) is None


def test_a_peer_that_cannot_be_installed_is_a_row_with_the_reason(pip, folders, tmp_path, capsys):
    run, tables = script("run"), script("tables")
    peer = ["--datasets", "iris", "--methods", "pacmap", "--environments", str(tmp_path / "envs")]
    assert run.main([*peer, *folders]) == 0
    assert "left out" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()

    pip.error = "no matching distribution"
    assert run.main([*peer, *folders, "--prepare"]) == 1
    stored = json.loads((tmp_path / "results" / "iris" / "pacmap.json").read_text())
    line = tables.table([stored], tables.COSTS[:1]).splitlines()[2]
    expected = "pacmap (failed: cannot be installed: no matching distribution)"
    assert line == f"| {expected} | – |"


def test_held_out_places_of_opentsne_lie_on_the_map_that_was_copied():
    methods = script("methods")
    method = methods.load_method("opentsne").Method(methods.Setting(0, 1))
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(40, 3)), 0.2 * rng.normal(size=(80, 3)) + 9])
    Y = method.fit(X).copy()
    places = method.transform(X)  # the training rows themselves: near their own places
    np.testing.assert_array_equal(method.Y_train, Y)
    frame_moved = np.abs(np.asarray(method.embedding) - Y).max()
    assert frame_moved > 0.05
    away = np.linalg.norm(places - Y, axis=1)
    away_in_moved_frame = np.linalg.norm(places - np.asarray(method.embedding), axis=1)
    assert np.median(away) < np.median(away_in_moved_frame)
