"""The command line: tables are read or refused with the cell named, and commands agree with the
library."""

import re
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, load_iris
from sklearn.utils import Bunch

from ptsne import ParametricTSNE
from ptsne.cli import main
from ptsne.cli.tables import TableError, read_table
from ptsne.persistence.checkpoint import CheckpointFile
from ptsne.training import Checkpoint

# ----------------------------------------------------------------------------------- reading


def written(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_text_table_with_any_usual_separator(tmp_path, separator):
    path = written(tmp_path, "a,b\n1,2.5\n3,-4e1\n".replace(",", separator))
    table = read_table(path)
    assert list(table.X.columns) == ["a", "b"]
    assert_array_equal(table.X, [[1, 2.5], [3, -40]])
    assert (table.X.dtypes == np.float64).all()
    assert table.labels is None


def test_label_and_ignored_columns_are_no_data(tmp_path):
    path = written(tmp_path, "id,a,kind\n7,1,x\n8,2,y\n")
    table = read_table(path, label="kind", ignore=["id"])
    assert list(table.X.columns) == ["a"]
    assert table.labels.tolist() == ["x", "y"]
    assert table.unused == []


def test_columns_are_picked_by_name_and_the_rest_is_reported(tmp_path):
    path = written(tmp_path, "b,kind,a\n1,x,2\n")
    table = read_table(path, columns=["a", "b"])
    assert_array_equal(table.X, [[2, 1]])
    assert table.unused == ["kind"]


def test_arrays_and_parquet(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "t.npy", values)
    pd.DataFrame(values, columns=list("abc")).to_parquet(tmp_path / "t.parquet")
    array, frame = (read_table(tmp_path / f"t.{kind}") for kind in ("npy", "parquet"))
    assert isinstance(array.X, np.ndarray)
    assert_array_equal(array.X, values)
    assert list(frame.X.columns) == ["a", "b", "c"]
    assert_array_equal(frame.X, values)


def test_the_label_of_an_array_is_a_column_number(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(6).reshape(2, 3))
    table = read_table(tmp_path / "t.npy", label="1")
    assert_array_equal(table.X, [[0, 2], [3, 5]])
    assert_array_equal(table.labels, [1, 4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,four\n", 'row 2, column "b": expected a number, found "four"'),
        ("a,b\n1,2\n3,\n", 'row 2, column "b": expected a number, found an empty cell'),
        ("a,b\ninf,2\n", 'row 1, column "a": expected a number, found "inf"'),
        ("a,b\n2020-01-01,2\n", 'row 1, column "a": expected a number'),
        ("a,b\n", "no rows of data"),
        ("", "this is not a table"),
        ("a,b\n1,2\n1,2,3\n", "this is not a table.*line 3"),
    ],
)
def test_a_bad_table_is_refused_with_the_place_named(tmp_path, text, message):
    with pytest.raises(TableError, match=message):
        read_table(written(tmp_path, text))


def test_dates_in_parquet_are_no_numbers(tmp_path):
    pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match='row 1, column "when"'):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros(3), r"got shape \(3,\)"), (np.array([["a"]]), "got shape .* of <U1")],
)
def test_an_array_that_is_no_table_is_refused(tmp_path, array, message):
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(TableError, match=message):
        read_table(tmp_path / "t.npy")


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "t.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(TableError, match="this is not a table"):
        read_table(tmp_path / "t.npy")


def test_parquet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    def missing(path):
        raise ImportError("no engine")

    written(tmp_path, "", "t.parquet")
    monkeypatch.setattr(pd, "read_parquet", missing)
    with pytest.raises(TableError, match=r"t\.parquet: reading .* needs pyarrow: pip install"):
        read_table(tmp_path / "t.parquet")


def test_missing_files_kinds_and_columns_are_named(tmp_path):
    with pytest.raises(TableError, match=r"nothing\.csv: there is no such file"):
        read_table(tmp_path / "nothing.csv")
    with pytest.raises(TableError, match=r"expected a file ending in \.csv"):
        read_table(written(tmp_path, "a\n1\n", "table.txt"))
    with pytest.raises(TableError, match='no column "c"; the columns are "a", "b"'):
        read_table(written(tmp_path, "a,b\n1,2\n"), label="c")


# ---------------------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Fifty flowers as a CSV file, and the model that `ptsne fit` makes of them."""
    folder = tmp_path_factory.mktemp("flowers")
    frame = load_iris(as_frame=True).frame.iloc[::3]
    frame.to_csv(folder / "flowers.csv", index=False)
    words = f"fit {folder}/flowers.csv -o {folder}/new/model --label target --perplexity 5"
    options = ["--quality", "fast", "--picture", f"{folder}/map.png"]
    assert main([*words.split(), *options]) == 0
    return folder


def run(capsys, *words):
    """Exit status, standard output and standard error of a command."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as end:  # argparse ends the process itself
        status = end.code
    return status, *capsys.readouterr()


def test_fit_writes_model_and_picture(flowers):
    map_ = ParametricTSNE.load(flowers / "new" / "model")
    assert map_.embedding_.shape == (50, 2)
    assert (map_.perplexity, map_.quality) == (5, "fast")
    assert list(map_.feature_names_in_) == load_iris().feature_names
    assert (flowers / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_fit_keeps_no_row_where_it_is_told_so(flowers, tmp_path, capsys):
    table = pd.read_csv(flowers / "flowers.csv").iloc[::3]
    table.to_csv(tmp_path / "few.csv", index=False)
    words = ("fit", tmp_path / "few.csv", "-o", tmp_path / "lean", "--label", "target")
    assert run(capsys, *words, "--perplexity", "5", "--no-landmark-rows")[0] == 0
    map_ = ParametricTSNE.load(tmp_path / "lean")
    why = map_.explain(table.drop(columns="target"))
    assert np.isnan(why.landmarks.rows).all()
    assert (why.landmarks.indices[:, 0] >= 0).all()


def test_transform_writes_the_places_of_the_model(flowers, capsys):
    out = flowers / "out" / "places.csv"
    status, text, _ = run(
        capsys, "transform", flowers / "new/model", flowers / "flowers.csv", "-o", out
    )
    assert status == 0
    assert "50 rows" in text
    places = pd.read_csv(out)
    assert list(places.columns) == ["y1", "y2"]
    assert_allclose(places, ParametricTSNE.load(flowers / "new/model").embedding_, rtol=1e-12)


def test_transform_says_which_columns_it_left_out(flowers, capsys):
    words = ("transform", flowers / "new/model", flowers / "flowers.csv", "-o", flowers / "o.csv")
    assert "left out: target" in run(capsys, *words)[2]


def test_explain_writes_contributions_that_sum_to_the_places(flowers, capsys, monkeypatch):
    monkeypatch.setattr("ptsne.cli.ROWS_PER_BLOCK", 20)  # three blocks
    out = flowers / "why.csv"
    words = ("explain", flowers / "new/model", flowers / "flowers.csv", "-o", out)
    status, text, _ = run(capsys, *words, "--baseline", "zero")
    assert status == 0
    assert "checked: |W x + b - y| is at most" in text
    why = pd.read_csv(out)
    assert why["row"].tolist() == np.repeat(np.arange(50) + 1, 4).tolist()
    map_ = ParametricTSNE.load(flowers / "new/model")
    explanation = map_.explain(read_table(flowers / "flowers.csv", label="target").X)
    sums = why.groupby("row")[["contribution_1", "contribution_2"]].sum()
    assert_allclose(sums + explanation.intercept, map_.embedding_, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fit {0}/no.csv -o {0}/m", "ptsne fit: error: .*no such file"),
        ("fit {0}/flowers.csv -o {0}/m --label kind", 'no column "kind"'),
        ("fit {0}/flowers.csv -o {0}/m --perplexity -3", "perplexity"),
        ("fit {0}/flowers.csv -o {0}/m --device abacus", "device='abacus' is not available"),
        ("transform {0}/no {0}/flowers.csv -o {0}/o.csv", "there is no such model"),
        ("transform {0}/new/model {0}/other.csv -o {0}/o.csv", 'no column "sepal width'),
        ("explain {0}/new/model {0}/bad.csv -o {0}/o.csv", 'row 1, column "petal width'),
        ("explain {0}/new/model {0}/flowers.csv -o {0}/o.csv --baseline x", "invalid choice"),
        ("frobnicate", "invalid choice"),
        ("", "required: COMMAND"),
    ],
)
def test_errors_are_one_line_and_exit_with_2(flowers, capsys, words, message):
    written(flowers, "sepal length (cm)\n1\n", "other.csv")
    written(flowers, ",".join(load_iris().feature_names) + "\n1,2,3,red\n", "bad.csv")
    status, _, error = run(capsys, *words.format(flowers).split())
    assert status == 2
    assert "Traceback" not in error
    assert re.search(message, error.splitlines()[-1])


@pytest.mark.filterwarnings("default")  # as outside of the tests
def test_a_warning_is_a_note_without_a_line_of_code(flowers, tmp_path, capsys):
    pd.read_csv(flowers / "flowers.csv").iloc[:8].to_csv(tmp_path / "few.csv", index=False)
    words = ("fit", tmp_path / "few.csv", "-o", tmp_path / "m", "--label", "target")
    status, _, error = run(capsys, *words, "--quality", "fast")
    assert status == 0
    note = next(line for line in error.splitlines() if line.startswith("note: "))
    assert "perplexity" in note
    assert ".py" not in error


def test_fit_goes_on_from_a_checkpoint(flowers, capsys, monkeypatch):
    words = f"fit {flowers}/flowers.csv --label target --perplexity 5 --quality fast"
    words = f"{words} --checkpoint {flowers}/cut"

    def cut(self, *_):
        kept.append(write(self, *_))
        if len(kept) == 3:  # empty, and two steps
            raise KeyError("cut off")

    kept, write = [], CheckpointFile.write
    monkeypatch.setattr(Checkpoint, "seconds", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFile, "write", cut)
        with pytest.raises(KeyError):
            main([*words.split(), "-o", f"{flowers}/again"])
    assert (flowers / "cut").exists()
    status, _, error = run(capsys, *words.split(), "--seed", 1, "-o", flowers / "again")
    assert status == 2
    assert "random_state was 0 and is 1" in error
    assert run(capsys, *words.split(), "-o", flowers / "again")[0] == 0
    assert not (flowers / "cut").exists()
    whole, again = (ParametricTSNE.load(flowers / name) for name in ("new/model", "again"))
    assert_array_equal(whole.embedding_, again.embedding_)


def test_the_checkpoint_stays_until_the_model_is_written(flowers, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    words = f"fit {flowers}/flowers.csv --label target --perplexity 5 --quality fast"
    words = f"{words} --checkpoint {flowers}/kept -o {flowers}/late"
    with monkeypatch.context() as patch:
        patch.setattr(ParametricTSNE, "save", full)
        status, _, error = run(capsys, *words.split())
    assert status == 2
    assert "No space left" in error
    assert (flowers / "kept").exists()
    assert run(capsys, *words.split())[0] == 0
    assert (flowers / "late").exists()
    assert not (flowers / "kept").exists()


def test_ctrl_c_ends_quietly(flowers, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ptsne.cli.read_table", interrupted)
    status, _, error = run(capsys, "fit", flowers / "flowers.csv", "-o", flowers / "m")
    assert status == 130
    assert "stopped" in error


@pytest.mark.parametrize("command", ["demo", "fit", "transform", "explain"])
def test_help_gives_an_example(capsys, command):
    status, text, _ = run(capsys, command, "--help")
    assert status == 0
    assert f"Example: ptsne {command}" in text


def test_python_m_ptsne_is_the_command():
    words = [sys.executable, "-m", "ptsne", "--help"]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "ptsne demo" in result.stdout


def demonstrated(capsys, folder):
    """The table of quality that the demonstration wrote, and its files as it says."""
    status, text, _ = run(capsys, "demo", "-o", folder)
    assert status == 0
    named = {word for word in text.split() if word.endswith((".png", ".csv"))}
    files = [path.name for path in folder.iterdir()]
    for name in named:
        assert any(file.endswith(name.removeprefix("*")) for file in files), name
    assert len(files) == 11
    return pd.read_csv(folder / "quality.csv").set_index(["data", "rows"])


def test_demo_writes_what_it_says(tmp_path, capsys, monkeypatch):
    digits = load_digits(n_class=3, as_frame=True)
    few = Bunch(data=digits.data[:90], target=digits.target[:90], target_names=list("012"))
    monkeypatch.setattr("ptsne.cli.demo.load_digits", lambda *, as_frame: few)
    quick = partial(ParametricTSNE, max_iter=30, quality="fast", perplexity=10)
    monkeypatch.setattr("ptsne.cli.demo.ParametricTSNE", quick)
    quality = demonstrated(capsys, tmp_path / "out")
    assert quality["number"].to_dict() == {
        ("iris", "training"): 100,
        ("iris", "held-out"): 50,
        ("digits", "training"): 60,
        ("digits", "held-out"): 30,
    }
    assert (quality["|Wx+b-y|"] < 1e-12).all()
    places = pd.read_csv(tmp_path / "out" / "iris-places.csv")
    assert places["rows"].value_counts().to_dict() == {"training": 100, "held-out": 50}
    assert set(places["class"]) == {"setosa", "versicolor", "virginica"}


@pytest.mark.slow  # two whole maps
def test_demo_is_as_good_as_it_claims(tmp_path, capsys):
    quality = demonstrated(capsys, tmp_path / "out")
    assert quality.loc[("digits", "held-out"), "accuracy"] > 0.95
    assert quality.loc[("iris", "held-out"), "accuracy"] > 0.9
    assert (quality["|Wx+b-y|"] < 1e-12).all()
