"""The harness of benchmarks/: splits, processes, methods. No figure of it is checked."""

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmark_scripts import BENCHMARKS, finished_run, script

pytestmark = pytest.mark.usefixtures("beside_the_benchmarks")


# --- splits ---------------------------------------------------------------------------------------


def image_set(n_rows, first):
    """Row i of the file holds first + i."""
    numbers = np.arange(first, first + n_rows, dtype=np.float32)
    return SimpleNamespace(X=numbers[:, None], y=numbers.astype(np.int64), target_names=["a"])


@pytest.fixture
def image_files(monkeypatch):
    files = {"train": image_set(60_000, 0), "test": image_set(10_000, 100_000)}
    asked = []

    def load(name, *, split, data_home):
        asked.append((name, data_home))
        return files[split]

    monkeypatch.setattr(script("splits"), "load", load)
    return asked


@pytest.mark.parametrize(
    ("name", "data_set"), [("mnist-10k", "mnist"), ("fashion-10k", "fashion-mnist")]
)
def test_ten_thousand_images_are_the_agreed_rows(image_files, name, data_set):
    split = script("splits").load_split(name, data_home="folder")
    rng = np.random.default_rng(0)
    train_rows, test_rows = rng.permutation(60_000)[:10_000], rng.permutation(10_000)[:5_000]
    np.testing.assert_array_equal(split.X_train[:, 0], train_rows)
    np.testing.assert_array_equal(split.y_train, train_rows)
    np.testing.assert_array_equal(split.X_test[:, 0], 100_000 + test_rows)
    np.testing.assert_array_equal(split.y_test, 100_000 + test_rows)
    assert image_files == [(data_set, "folder")] * 2


def test_all_images_are_permuted_and_all_test_images_held_out(image_files):
    split = script("splits").load_split("mnist-60k")
    expected = np.random.default_rng(0).permutation(60_000)
    np.testing.assert_array_equal(split.X_train[:, 0], expected)
    np.testing.assert_array_equal(split.X_test[:, 0], 100_000 + np.arange(10_000))


@pytest.mark.parametrize(("name", "n_train", "n_test"), [("iris", 100, 50), ("digits", 1198, 599)])
def test_a_third_of_a_table_is_held_out(name, n_train, n_test):
    splits = script("splits")
    split = splits.load_split(name)
    data = splits.load(name, split="all")
    order = np.random.default_rng(0).permutation(len(data.X))
    np.testing.assert_array_equal(split.X_train, data.X[order[:n_train]])
    np.testing.assert_array_equal(split.X_test, data.X[order[n_train:]])
    np.testing.assert_array_equal(split.y_test, data.y[order[n_train:]])
    assert len(split.X_test) == n_test


def test_a_trial_takes_the_first_rows():
    splits = script("splits")
    whole, trial = splits.load_split("iris"), splits.load_split("iris@20")
    np.testing.assert_array_equal(trial.X_train, whole.X_train[:20])
    np.testing.assert_array_equal(trial.X_test, whole.X_test[:10])
    assert (len(trial.y_train), len(trial.y_test)) == (20, 10)


def test_blobs_have_any_size_and_are_always_the_same():
    splits = script("splits")
    blobs, again = splits.load_split("blobs-2k"), splits.load_split("blobs-2000")
    assert blobs.X_train.shape == (2000, 50)
    assert blobs.X_test.shape == (400, 50)
    assert blobs.X_train.dtype == np.float32
    np.testing.assert_array_equal(blobs.X_train, again.X_train)
    centers = [blobs.X_train[blobs.y_train == label].mean(0) for label in range(30)]
    nearest = np.linalg.norm(blobs.X_test[:, None] - np.array(centers), axis=2).argmin(1)
    assert np.mean(nearest == blobs.y_test) > 0.99


def test_unknown_data_names_the_known_ones():
    with pytest.raises(ValueError, match="mnist-10k"):
        script("splits").load_split("cats")


# --- machine --------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells peak memory")
def test_peak_memory_is_what_the_block_takes_at_most():
    machine = script("machine")
    before = np.ones(2**24)  # 128 MiB that were there
    with machine.Watch() as watch:
        block = np.ones(2**23)  # 64 MiB
        block.sum()
        del block
    with machine.Watch() as idle:
        pass
    assert before.sum() == 2**24
    assert 60 / 1024 < watch.memory_gib < 80 / 1024
    assert idle.memory_gib < 8 / 1024
    assert watch.seconds > 0
    assert watch.cpu_seconds > 0


def test_conditions_can_be_stored_and_name_what_decides():
    run = script("run")
    current = run.conditions("ptsne", 2)
    assert json.loads(json.dumps(current)) == current
    assert current["threads"] == 2
    assert current["versions"]["torch"]
    assert len(current["source"]) == 12
    assert run.conditions("pca", 2)["source"] is None  # our code does not change what a peer does


def test_the_hash_follows_the_code_that_decides(tmp_path, monkeypatch):
    machine = script("machine")
    monkeypatch.setattr(machine, "PACKAGE", tmp_path)
    (tmp_path / "plots").mkdir()
    (tmp_path / "losses.py").write_text("1")
    first = machine.source_hash()
    (tmp_path / "plots" / "curve.py").write_text("1")
    (tmp_path / "report.py").write_text("1")
    assert machine.source_hash() == first
    (tmp_path / "losses.py").write_text("2")
    assert machine.source_hash() != first


# --- run ------------------------------------------------------------------------------------------


def test_one_run_from_the_command_to_table_and_picture(tmp_path, folders, capsys):
    run, tables, plots = script("run"), script("tables"), script("plots")
    arguments = ["--datasets", "iris", "--methods", "pca", "--threads", "1", *folders]
    assert run.main(arguments) == 0
    path = tmp_path / "results" / "iris" / "pca.json"
    stored = json.loads(path.read_text())
    (only,) = stored["runs"]
    assert only["seconds"]["fit"] > 0
    assert 0.8 < only["quality"]["held_out"]["recall_15"] < 0.9
    assert only["quality"]["held_out"]["fidelity_r2"] is None  # JSON has no NaN
    assert stored["data"]["training_rows"] == 100
    assert any("warmed up" in note for note in stored["notes"])

    assert run.main(arguments) == 0
    assert "is there" in capsys.readouterr().out
    assert json.loads(path.read_text()) == stored

    page = tmp_path / "page.md"
    page.write_text("above\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nbelow\n")
    assert tables.main(["--results", str(tmp_path / "results"), "--into", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("above\n<!-- benchmark -->\n### iris\n")
    assert text.endswith("<!-- /benchmark -->\nbelow\n")
    assert "old" not in text

    assert plots.main(["--maps", str(tmp_path / "maps")]) == 0
    assert (tmp_path / "maps" / "iris" / "pca-0.png").stat().st_size > 5000
    assert (tmp_path / "maps" / "iris.png").stat().st_size > 5000


@pytest.fixture
def jobs(monkeypatch):
    """Jobs that would have been started; each succeeds unless its seed is 13."""
    run, started = script("run"), []

    def run_job(dataset, method, seed, options):
        started.append((dataset, method, seed))
        if seed == 13:
            return {"run": {"seed": seed, "error": "MemoryError: too large"}}
        return {"run": finished_run(seed), "data": {"training_rows": 100}, "notes": ["a note"]}

    monkeypatch.setattr(run, "run_job", run_job)
    return started


def test_what_is_there_is_not_measured_again(jobs, folders, tmp_path, monkeypatch):
    run = script("run")
    arguments = ["--datasets", "iris", "--methods", "pca", *folders, "--seeds"]
    assert run.main([*arguments, "0", "1"]) == 0
    assert run.main([*arguments, "1", "2"]) == 0
    assert [seed for *_, seed in jobs] == [0, 1, 2]
    stored = json.loads((tmp_path / "results" / "iris" / "pca.json").read_text())
    assert [each["seed"] for each in stored["runs"]] == [0, 1, 2]

    run.main([*arguments, "1", "--force"])
    assert len(jobs) == 4
    run.main([*arguments, "0", "--threads", "7"])  # other conditions: nothing old is kept
    stored = json.loads((tmp_path / "results" / "iris" / "pca.json").read_text())
    assert [each["seed"] for each in stored["runs"]] == [0]


def test_a_failure_is_stored_told_and_tried_again(jobs, folders, tmp_path, capsys):
    run = script("run")
    arguments = ["--datasets", "iris", "--methods", "pca", "--seeds", "13", "14", *folders]
    assert run.main(arguments) == 1
    assert "failed: MemoryError: too large" in capsys.readouterr().out
    stored = json.loads((tmp_path / "results" / "iris" / "pca.json").read_text())
    assert stored["runs"][0]["error"] == "MemoryError: too large"
    assert stored["data"] == {"training_rows": 100}
    run.main(arguments)
    assert [seed for *_, seed in jobs] == [13, 14, 13]


def test_a_job_that_takes_too_long_is_an_error(folders, tmp_path):
    run = script("run")
    arguments = ["--datasets", "iris", "--methods", "pca", "--timeout", "0.01", *folders]
    assert run.main(arguments) == 1
    stored = json.loads((tmp_path / "results" / "iris" / "pca.json").read_text())
    assert stored["runs"][0]["error"] == "stopped after 0.01 seconds"


def test_of_a_traceback_the_error_remains():
    text = (
        'Traceback (most recent call last):\n  File "secret.py", line 1\nKeyError: 1\n\nThe above'
    )
    text += '\nTraceback:\n  File "x.py"\nsklearn.exceptions.NotFittedError: no\nfit first\n'
    last_error = script("run").last_error
    assert last_error(text) == "sklearn.exceptions.NotFittedError: no\nfit first"
    assert last_error("Killed\n") == "Killed"


# --- methods --------------------------------------------------------------------------------------


@pytest.fixture
def iris_folder(tmp_path):
    """What run.py gives to job.py and quality.py."""
    split = script("splits").load_split("iris")
    for part in ("X_train", "X_test", "y_train", "y_test"):
        np.save(tmp_path / f"{part}.npy", getattr(split, part))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ptsne", {"max_iter": 40, "perplexity": 10}),
        pytest.param("opentsne", {}, marks=pytest.mark.slow),
        pytest.param("umap", {}, marks=pytest.mark.slow),
    ],
)
def test_a_method_measures_itself(name, parameters, iris_folder, monkeypatch):
    job, methods = script("job"), script("methods")
    entry = methods.METHODS[name]._replace(parameters=parameters)
    monkeypatch.setitem(methods.METHODS, name, entry)
    run = job.measure(iris_folder, name, methods.Setting(0, 1))
    assert run["seconds"]["fit"] > 0
    assert (run["rows_per_second"]["explain"] is not None) == (name == "ptsne")
    assert sum(run["phases"].values()) <= run["seconds"]["fit"]
    quality = script("quality").measure(iris_folder)
    assert quality["held_out"]["recall_15"] > 0.5
    assert np.isnan(quality["held_out"]["fidelity_r2"]) == (name != "ptsne")


def test_what_a_peer_runs_imports_nothing_of_ours():
    for name in ("job", "machine", "methods/__init__"):
        tree = ast.parse((BENCHMARKS / f"{name}.py").read_text())
        names = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        known = {"machine", "methods", "numpy", *sys.stdlib_module_names}
        assert {each.partition(".")[0] for each in names} <= known


def test_the_versions_of_another_python_are_its_own():
    machine = script("machine")
    asked = ("numpy", "no-such-distribution")
    assert machine.versions(asked, sys.executable) == machine.versions(asked)
