"""New landmarks: those that no row needs, and rows that none of their own kind draws."""

import copy

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris

from ptsne import ParametricTSNE
from ptsne.training import Journal
from ptsne.updating.growing import Growth, Newcomers, settle, widened_atlas

X = load_iris().data
OLD, NEW = X[50:], X[:40]


@pytest.fixture(scope="module")
def fitted():
    return ParametricTSNE(perplexity=10, max_iter=40, random_state=0).fit(OLD)


def test_landmarks_that_hold_no_row_are_not_added(fitted, monkeypatch):
    monkeypatch.setattr(
        "ptsne.updating.updating.choose_landmarks",
        lambda z, n, generator: (torch.full((n, z.shape[1]), 1e3, dtype=z.dtype), None, None),
    )
    map_ = copy.deepcopy(fitted)
    map_._training_rows = fitted._training_rows
    map_.update(NEW)
    assert map_.drift_.n_new_landmarks == 0
    assert map_.drift_.n_vetoed > 0
    assert map_.drift_.n_novel == 40
    assert (map_.transform(X) == fitted.transform(X)).all()
    assert len(map_.embedding_) == 140


def test_newcomers_that_only_known_rows_draw_settle_beside_those(fitted):
    atlas = fitted.network_.projection
    with torch.no_grad():
        z, codes = (fitted.network_.encoder(torch.from_numpy(rows)) for rows in (NEW[:6], OLD))
        fixed = atlas(codes)
    m = len(atlas.landmarks)
    pull = sparse.csr_array((np.full(6, 1.0), (np.arange(6), np.full(6, 6))), shape=(6, 106))
    near = (torch.arange(6)[:, None] + torch.arange(1, 6)) % 6
    newcomers = Newcomers(z, pull, torch.zeros(6, dtype=torch.int64), near, fixed)
    larger = widened_atlas(atlas, z[:4])
    generator = torch.Generator().manual_seed(0)
    few = Growth(joined=40, charts=10)
    settle(larger, m, newcomers, few, journal=Journal(), generator=generator)
    assert torch.equal(larger.places[:m], atlas.places)
    way = torch.cdist(larger(z), fixed)
    assert bool(way.isfinite().all())
    assert float(way[:, 0].max()) < float(torch.cdist(fixed, fixed).max())
