"""The pages of large data: their tables come from the records, and the scripts run."""

import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.usefixtures("beside_the_benchmarks")


@pytest.fixture(scope="module")
def scaling():
    return importlib.import_module("scaling")


@pytest.fixture(scope="module")
def gpu():
    return importlib.import_module("gpu")


def test_the_page_is_what_the_record_says(scaling, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    scaling.write_page(scaling.read(scaling.RECORD), page)
    assert page.read_text(encoding="utf-8") == PAGE


def test_the_gpu_table_is_what_the_records_say(gpu, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    gpu.write_page(page=page)
    assert page.read_text(encoding="utf-8") == PAGE


def test_more_rows_take_longer_and_more_devices_less(scaling):
    record = scaling.read(scaling.RECORD)
    for machine in scaling.MACHINES:
        small, large = (scaling.hours(plan, machine, record) for plan in scaling.PLANS[:2])
        known = [name for name, value in small.items() if not math.isnan(value)]
        assert all(small[name] < large[name] for name in known)
        assert set(small) - set(known) <= {scaling.NEAR_CELLS}  # of one process
    one, eight = (scaling.hours(scaling.PLANS[1], m, record) for m in scaling.MACHINES[1:])
    assert eight["fine-tuning"] < one["fine-tuning"] < 8 * eight["fine-tuning"]


def test_a_size_is_measured(scaling):
    found = scaling.measured(300)
    assert found["rows"] == 300
    assert all(found[name] > 0 for name in ("neighbours", "P", "gradient", "tuning_step"))
    json.dumps(found)


def test_mixtures_are_the_same_rows_however_often(gpu):
    rows = gpu.mixture(1000, 20)
    np.testing.assert_array_equal(rows(0.6, None), rows(0.6, None))
    assert rows(0.6, None).shape == (600, 20)


def test_explanations_are_timed(gpu):
    found = gpu.one("explain", "ptsne", SimpleNamespace(device="cpu", scale=0.0))
    assert found["rows"] == 1024
    assert found["rows_per_second"] > 0
    assert found["device_peak_gib"] is None


@pytest.mark.slow
def test_a_fit_is_timed(gpu, tmp_path):
    options = SimpleNamespace(device="cpu", scale=0.0, data=None)
    found = gpu.one("mixture-1.3m", "ptsne", options)
    assert found["rows"] == 500
    assert 0.2 < found["recall_15"] <= 1
    assert {"places", "fine-tuning"} < set(found["phases"])


def test_a_trial_is_kept_apart_from_the_figures(gpu):
    assert "--output" in gpu.main(["--device", "cpu", "--scale", "0.01"])


def test_a_record_becomes_a_line(gpu, tmp_path):
    record = {"rows": 70_000, "seconds": 14.0, "recall_15": 0.3, "kl": 2.5, "device": "H200"}
    gpu.write(gpu.path_of(tmp_path, "mnist-70k", "ptsne"), record | {"device_peak_gib": 3.0})
    gpu.write(gpu.path_of(tmp_path, "mnist-70k", "opentsne"), {"error": "E", "device": "H200"})
    lines = list(gpu.page_lines(tmp_path))
    assert "| 14.0 | 5,000 | 0.300 | 2.500 | 3.0 | H200 |" in lines[2]
    assert "failed: E" in lines[3]
    assert lines[4].count("not measured yet") == 1
