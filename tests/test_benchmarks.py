"""The harness of benchmarks/: splits, processes, records, tables. No figure of it is checked."""

import ast
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _scripts_see_each_other():
    """A script finds the files beside it; so do these tests."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def script(name):
    return importlib.import_module(name)


@pytest.fixture
def folders(tmp_path):
    return ["--output", str(tmp_path / "results"), "--maps", str(tmp_path / "maps")]


def finished_run(seed=0, **quality):
    held_out = {"recall_15": 0.5, "accuracy_10": 0.9, **quality}
    return {
        "seed": seed,
        "load_average": 0.25,
        "seconds": {"fit": 2.0, "transform": 0.004},
        "phases": {},
        "memory_gib": {"fit": 0.125},
        "quality": {"training": {"kl_divergence": 1.5, "recall_15": 0.6}, "held_out": held_out},
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
    }


def record(method, runs, dataset="iris", training_rows=100):
    return {
        "dataset": dataset,
        "method": method,
        "conditions": {
            "cpu": "cpu",
            "cores": 2,
            "gpu": None,
            "threads": 2,
            "versions": {"numpy": "2.0"},
        },
        "data": {
            "training_rows": training_rows,
            "held_out_rows": 50,
            "columns": 4,
            "classes": 3,
            "rule": "the last third",
        },
        "runs": runs,
    }


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


# --- environments ---------------------------------------------------------------------------------


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


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.3861, 3, ".386"),
        (-0.25, 2, "−.25"),
        (12.345, 1, "12.3"),
        (23456.7, 0, "23,457"),
        (0.0004, 3, "<.001"),
        (0.0, 0, "0"),
        (1.0, 3, "1.000"),
    ],
)
def test_numbers_are_printed_in_the_house_style(value, digits, text):
    assert script("tables").number(value, digits) == text


def test_losing_and_failed_methods_keep_their_row():
    tables = script("tables")
    failed = record("umap", [{"seed": 0, "error": "MemoryError: a | b\nmore", "date": "2026"}])
    rows = [record("ptsne", [finished_run()]), record("pca", [finished_run(recall_15=0.1)]), failed]
    lines = tables.table(rows, tables.measures("held_out")[:1]).splitlines()
    assert lines[2:] == [
        "| ptsne | **.500** |",
        "| pca | .100 |",
        "| umap (failed: MemoryError: a / b) | – |",
    ]


def test_several_seeds_give_median_and_half_the_range():
    tables = script("tables")
    runs = [finished_run(seed, recall_15=value) for seed, value in enumerate((0.5, 0.53, 0.52))]
    line = tables.table([record("ptsne", runs)], tables.measures("held_out")[:1]).splitlines()[2]
    assert line == "| ptsne | .520 ±.015 |"


def test_less_is_better_for_kl_and_seconds():
    tables = script("tables")
    slow = finished_run()
    slow["seconds"]["fit"] = 3.0
    rows = [record("ptsne", [finished_run()]), record("pca", [slow])]
    lines = tables.table(rows, [tables.FIT]).splitlines()
    assert lines[2:] == ["| ptsne | **2.00** |", "| pca | 3.00 |"]


def test_a_busy_machine_is_marked_and_told():
    tables = script("tables")
    busy = finished_run()
    busy["load_average"] = 2.6  # two threads of its own
    rows = [record("ptsne", [finished_run()]), record("pca", [finished_run(), busy])]
    text = tables.section("iris", rows)
    assert "| ptsne | 2 |" in text
    assert "| pca † | 2 |" in text
    assert tables.FOOTNOTE in text
    assert "†" not in tables.section("iris", rows[:1])


def test_all_versions_of_a_package_are_told():
    tables = script("tables")
    rows = [record("ptsne", [finished_run()]), record("pacmap", [finished_run()])]
    rows[1]["conditions"] = rows[1]["conditions"] | {"versions": {"numpy": "1.9", "faiss": "1"}}
    assert "faiss 1, numpy 1.9 / 2.0." in tables.provenance(rows)


def test_a_row_tells_what_was_reduced(monkeypatch):
    tables, methods = script("tables"), script("methods")
    entry = methods.METHODS["pca"]._replace(title="pca, half of it")
    monkeypatch.setitem(methods.METHODS, "pca", entry)
    assert "| pca, half of it |" in tables.table([record("pca", [finished_run()])], [tables.KL])


def test_the_small_table_puts_held_out_before_training():
    tables = script("tables")
    text = tables.small_report({"iris": [record("ptsne", [finished_run()])]}, "iris")
    assert "| ptsne | .500 / .600 |" in text
    assert "cpu, 2 cores, 2 threads" in text
    with pytest.raises(ValueError, match=r"run\.py first"):
        tables.small_report({}, "mnist-10k")


def test_data_sets_stand_in_order_and_trials_are_left_out():
    tables = script("tables")
    found = {name: [] for name in ("mnist-10k", "blobs-1000", "iris@20", "digits", "iris")}
    assert list(tables.ordered(found)) == ["iris", "digits", "mnist-10k", "blobs-1000"]
    methods = {"iris": [record(name, []) for name in ("pca", "umap", "ptsne")]}
    assert [each["method"] for each in tables.ordered(methods)["iris"]] == ["ptsne", "umap", "pca"]


def grown(**seconds_by_method):
    """Records of blobs of 1,000, 10,000, ... rows."""
    found = {}
    for method, seconds in seconds_by_method.items():
        for power, value in enumerate(seconds, 3):
            run = finished_run()
            run["seconds"]["fit"] = value
            records = found.setdefault(f"blobs-{10**power}", [])
            records.append(record(method, [run], training_rows=10**power))
    return found


def test_growth_is_the_exponent_of_the_rows():
    tables = script("tables")
    text = tables.growth(grown(pca=(1.0,), ptsne=(2.0, 20.0)))
    assert "| ptsne | 2.00 | 20.00 | 1.00 |\n| pca | 1.00 | – | – |" in text
    assert tables.growth(grown(ptsne=(2.0,))) is None
    # seconds ~ rows^(1, 2) in the two steps: the line through all three rises by 1.5
    assert tables.exponent({1000: 1.0, 10_000: 10.0, 100_000: 1000.0}) == pytest.approx(1.5)


def test_growth_is_drawn_beside_the_maps(tmp_path):
    records, plots = script("records"), script("plots")
    for name, (found,) in grown(ptsne=(2.0, 20.0)).items():
        records.write(records.path_of(name, "ptsne", tmp_path / "results"), found)
    (tmp_path / "maps" / "iris").mkdir(parents=True)
    places = {"Y_train": np.eye(2), "Y_test": np.eye(2), "y_train": [0, 1], "y_test": [0, 1]}
    np.savez(tmp_path / "maps" / "iris" / "pca-0.npz", **places, target_names=["a", "b"])
    folders = ["--maps", str(tmp_path / "maps"), "--results", str(tmp_path / "results")]
    assert plots.main(folders) == 0
    assert (tmp_path / "maps" / "growth.png").stat().st_size > 5000


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    told = script("tables").main(["--results", str(tmp_path), "--into", str(page)])
    assert "<!-- benchmark -->" in told
    assert page.read_text() == "nothing here"


def test_committed_figures_can_be_read():
    tables = script("tables")
    for name, found in tables.ordered(script("records").read_all()).items():
        assert tables.section(name, found).startswith(f"### {name}")
