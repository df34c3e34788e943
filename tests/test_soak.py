"""A thousand maps in one process: memory stays where it was after the first hundred."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

from ptsne import ParametricTSNE

STATM = Path("/proc/self/statm")
ROUNDS, WARM_UP = 1000, 100
ALLOWED = 16
"""MiB that allocators may wander: 18 KiB a map. Measured over 500 maps: 5."""

X = load_iris().data[::3]


def resident():
    """Resident memory of this process, in MiB."""
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def one_life(seed):
    """Everything that a small map is asked in its life."""
    map_ = ParametricTSNE(perplexity=5, max_iter=3, n_landmarks=10, random_state=seed).fit(X)
    assert np.array_equal(map_.transform(X[:7]), map_.embedding_[:7])
    why = map_.explain(X[:5])
    assert why.residual.max() < 1e-12
    assert abs(why.contrast(0, 3).sum() - 1) < 1e-9
    assert (why.radius() > 0).all()


def soak(rounds, warm_up, every):
    """Resident memory along the way, from the end of the warm-up on."""
    seen = []
    for number in range(1, rounds + 1):
        one_life(number)
        if number >= warm_up and number % every == 0:
            seen.append(resident())
    return np.array(seen)


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads resident memory as Linux tells it")
def test_a_thousand_maps_leave_memory_flat():
    curve = soak(ROUNDS, WARM_UP, every=50)
    assert curve[-3:].mean() - curve[0] < ALLOWED, f"MiB every 50 maps: {curve.round(1)}"
