"""The live map shows the places of the moment, costs little, and never stops a training."""

import copy
import logging
import math
import pickle
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import load_iris

from ptsne import ParametricTSNE
from ptsne.plots import LiveMap, live
from ptsne.training import Record

IRIS = load_iris()
X, Y = IRIS.data, np.random.default_rng(0).normal(size=(5, 2))


def quick(**options):
    return ParametricTSNE(max_iter=60, random_state=0, **options)


class Places:
    """Stands in for a tensor."""

    def __init__(self, values):
        self.values = values

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        return self.values


def record(iteration, *, seconds=1.0, kl=2.0, phase="places", values=Y):
    return Record(phase, iteration, 100, kl, kl, seconds, lambda: Places(values))


def dots(live_map):
    """Places drawn, in the order of the rows."""
    drawn = np.asarray(live_map.figure.axes[0].collections[0].get_offsets())
    order = np.random.default_rng(0).permutation(len(drawn))
    return drawn[np.argsort(order)]


def test_a_frame_shows_the_places_and_the_kl():
    live_map = LiveMap(list("aabbb"), every=10)
    live_map(record(10, kl=3.0))
    live_map(record(20, kl=2.0, seconds=1.5, values=2 * Y))
    assert_allclose(dots(live_map), 2 * Y)
    map_ax, kl_ax = live_map.figure.axes
    assert map_ax.get_title() == "places 20 of 100, KL 2.000"
    assert {text.get_text() for text in map_ax.texts} == {"a", "b"}
    assert_allclose(kl_ax.lines[0].get_xydata(), [[1, 3], [1.5, 2]])
    assert live_map.n_frames == 2


@pytest.mark.parametrize("n_components", [1, 3])
def test_maps_of_other_dimensions_are_drawn_flat(n_components):
    live_map = LiveMap(every=1)
    values = np.random.default_rng(0).normal(size=(5, n_components))
    live_map(record(1, values=values))
    assert_allclose(dots(live_map)[:, 0], values[:, 0])


def test_frames_go_to_a_folder(tmp_path):
    live_map = LiveMap(IRIS.target, every=20, path=tmp_path / "frames")
    quick(callbacks=live_map).fit(X)
    files = sorted(file.name for file in (tmp_path / "frames").iterdir())
    assert files == [f"frame-{k:04d}.png" for k in range(1, live_map.n_frames + 1)]
    assert len(files) >= 3


def test_the_last_frame_is_the_map(tmp_path):
    live_map = LiveMap(IRIS.target)
    map_ = quick(callbacks=live_map).fit(X)
    assert live_map.n_frames >= 1
    gap = np.linalg.norm(dots(live_map) - map_.embedding_, axis=1)
    assert np.median(gap) < 0.03 * np.ptp(map_.embedding_, axis=0).max()


def test_frames_take_a_twentieth_of_the_time():
    live_map = LiveMap()
    live_map(record(1, seconds=0.5))
    assert live_map.n_frames == 0  # a first frame is expected to take 0.15 s
    live_map(record(2, seconds=100.0))
    assert live_map.n_frames == 1
    live_map.seconds = 4.0
    live_map(record(3, seconds=150.0))
    assert live_map.n_frames == 1  # 4 + 4 s would be more than 5 % of 150 s
    live_map(record(4, seconds=170.0))
    assert live_map.n_frames == 2
    live_map.seconds = 100.0
    live_map(record(100, phase="fine-tuning", seconds=171.0))
    assert live_map.n_frames == 3  # the finished map in any case


def test_a_phase_without_a_map_draws_nothing():
    live_map = LiveMap(every=1)
    live_map(Record("pre-training", 1, 10, 0.5, math.nan, 0.1))
    assert live_map.figure is None


def test_a_record_that_was_kept_draws_nothing():
    live_map = LiveMap(every=1)
    live_map(Record("places", 1, 10, 2.0, 2.0, 0.1))  # a KL, and no map any more
    assert live_map.figure is None
    assert live_map.n_frames == 0


def test_a_closed_window_ends_the_drawing_and_not_the_training(caplog):
    live_map = LiveMap(every=10)

    def close(record):
        if record.iteration == 20 and live_map.figure is not None:
            plt.close(live_map.figure)

    with caplog.at_level(logging.INFO):
        map_ = quick(callbacks=[live_map, close]).fit(X)
    assert map_.history_[-1]["phase"] == "decoder"
    assert live_map.n_frames <= 2
    assert "training goes on" in caplog.text


def test_a_screen_that_fails_ends_the_drawing_and_not_the_training(monkeypatch, caplog):
    def fail(self, file):
        raise OSError("no space left")

    monkeypatch.setattr(live._Screen, "show", fail)
    live_map = LiveMap(every=10)
    quick(callbacks=live_map).fit(X)
    assert live_map.n_frames == 1
    assert "no space left" in caplog.text


def test_a_window_is_redrawn(monkeypatch):
    done = []
    live_map = LiveMap(every=1)
    live_map(record(1))
    canvas = live_map.figure.canvas
    monkeypatch.setattr(canvas, "required_interactive_framework", "qt", raising=False)
    monkeypatch.setattr(live_map.figure, "show", lambda: done.append("show"))
    monkeypatch.setattr(canvas, "draw_idle", lambda: done.append("draw"))
    monkeypatch.setattr(canvas, "flush_events", lambda: done.append("flush"))
    live_map(record(2))
    assert done == ["show", "draw", "flush"]


def test_a_notebook_shows_one_picture_that_replaces_itself(monkeypatch):
    shown = []
    handle = types.SimpleNamespace(update=lambda figure: shown.append("update"))

    def display(figure, *, display_id):
        shown.append("display")
        return handle

    shell = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(live.sys.modules, "IPython", ipython)
    module = types.SimpleNamespace(display=display)
    monkeypatch.setitem(live.sys.modules, "IPython.display", module)
    live_map = LiveMap(every=1)
    for iteration in (1, 2, 3):
        live_map(record(iteration))
    assert shown == ["display", "update", "update"]
    assert not plt.fignum_exists(live_map.figure.number)


def test_another_training_begins_anew():
    live_map = LiveMap(every=1)
    live_map(record(1, seconds=5.0))
    live_map(record(1, seconds=1.0))
    assert live_map.n_frames == 1
    assert len(live_map.figure.axes[1].lines[0].get_xdata()) == 1


def test_copies_have_the_settings_and_no_figure(tmp_path):
    live_map = LiveMap(list("aabbb"), every=3, path=tmp_path)
    live_map(record(3))
    again = copy.deepcopy(live_map)
    assert (again.every, again.path, again.y) == (3, tmp_path, list("aabbb"))
    assert again.figure is None
    assert clone(quick(callbacks=live_map)).callbacks.figure is None
    assert pickle.loads(pickle.dumps(live_map)).n_frames == 0


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="every must be at least 1"):
        LiveMap(every=0)
    with pytest.raises(ValueError, match="one value for each of the 150 points"):
        quick(callbacks=LiveMap([1, 2, 3], every=10)).fit(X)
