"""What training tells the outside."""

import math
import pickle

import numpy as np
import pytest
from sklearn.datasets import load_iris

from ptsne import ParametricTSNE
from ptsne.training import INTERRUPTED, Journal, World

X = load_iris().data


def quick(**options):
    return ParametricTSNE(max_iter=60, random_state=0, **options)


@pytest.mark.parametrize("projection", ["atlas", (16,)])
@pytest.mark.parametrize("similarity", ["student", "gaussian"])
def test_a_record_gives_the_map_of_its_moment(projection, similarity):
    seen = {}

    def look(record):
        if not math.isnan(record.kl):
            seen[record.phase] = record.embedding
        else:
            assert record.embedding is None

    options = {"projection": projection, "similarity": similarity}
    map_ = quick(callbacks=look, **options).fit(X)
    assert set(seen) == {"places", "fine-tuning"}
    assert all(places.shape == (150, 2) for places in seen.values())
    last, final = seen["fine-tuning"], map_.embedding_
    scale = np.ptp(final, axis=0).max()
    assert np.median(np.linalg.norm(last - final, axis=1)) < 0.03 * scale


def test_looking_changes_no_bit_of_the_map():
    looked = quick(callbacks=lambda record: record.embedding is None and None).fit(X)
    assert np.array_equal(looked.embedding_, quick().fit(X).embedding_)


def test_records_that_are_kept_hold_no_network():
    seen = []
    map_ = quick(callbacks=seen.append).fit(X)
    assert set(map_.history_[0]) == {"phase", "iteration", "n_iterations", "loss", "kl", "seconds"}
    again = pickle.loads(pickle.dumps(seen[0]))
    assert again == seen[0]
    assert again.embedding is None


@pytest.mark.parametrize(
    ("phase", "options"),
    [
        ("pre-training", {"encoder": (8,)}),
        ("pre-training", {"encoder": (8,), "projection": (8,)}),
        ("distillation", {"projection": (8,)}),
    ],
)
def test_a_training_that_is_stopped_before_the_map_is_a_map(phase, options):
    map_ = quick(callbacks=lambda record: record.phase == phase, **options).fit(X)
    phases = [record["phase"] for record in map_.history_]
    assert phases[-1] == phase
    assert "fine-tuning" not in phases
    assert np.isfinite(map_.embedding_).all()
    assert np.ptp(map_.embedding_, axis=0).min() > 0
    assert np.array_equal(map_.transform(X), map_.embedding_)
    assert map_.explain(X[:5]).residual.max() < 1e-12


class Pair(World):
    """One of two processes."""

    size = 2


def test_one_of_several_processes_that_is_interrupted_does_not_go_on():
    alone, one_of_two = Journal(), Journal(world=Pair())
    with alone.interruptible():
        raise KeyboardInterrupt
    assert alone.stopped == INTERRUPTED
    with pytest.raises(KeyboardInterrupt), one_of_two.interruptible():
        raise KeyboardInterrupt
    assert one_of_two.stopped is None
