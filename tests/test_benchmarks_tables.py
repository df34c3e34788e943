"""Tables and pictures of the records: medians, marks, notes, order."""

import numpy as np
import pytest

from benchmark_scripts import finished_run, record, script

pytestmark = pytest.mark.usefixtures("beside_the_benchmarks")


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


def test_who_had_a_processor_all_the_time_did_not_wait():
    tables = script("tables")
    fed = finished_run()
    fed["load_average"], fed["seconds"]["fit_cpu"] = 2.6, 3.9
    assert "†" not in tables.section("iris", [record("pca", [fed])])
    beside = finished_run()
    beside["load_average"], beside["seconds"]["fit_cpu"] = 2.1, 1.9
    alone = record("pca", [beside])
    alone["conditions"]["threads"] = 1  # the other core ran something else
    assert "†" not in tables.section("iris", [alone])


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


def test_the_small_table_has_no_part_of_what_is_there_in_full():
    tables, part = script("tables"), "glass-box-umap-20"
    whole, cut = (record(name, [finished_run()]) for name in ("glass-box-umap", part))
    assert "20 of 200 epochs" in tables.small_report({"iris": [cut]}, "iris")
    assert "20 of 200 epochs" not in tables.small_report({"iris": [whole, cut]}, "iris")


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
