"""A fit within a memory budget that was cut off goes on."""

import numpy as np
import pytest

from ptsne.affinities import nearest_neighbors
from ptsne.streaming import prepare
from streams import IRIS, MIB, WIDE, quick


class Cut(Exception):
    pass


def cut(record):
    if record.phase == "fine-tuning":
        raise Cut


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A checkpoint of a fit of WIDE that was cut off."""
    monkeypatch.setattr("ptsne.training.Checkpoint.seconds", 0.0)
    monkeypatch.setattr("ptsne.training.Checkpoint.share", np.inf)
    path = tmp_path / "fit.ckpt"
    with pytest.raises(Cut):
        quick(checkpoint=path, callbacks=cut).fit(WIDE)
    return path


def test_a_fit_within_a_budget_goes_on(begun, monkeypatch):
    whole = quick().fit(WIDE)

    def never(*_, **__):
        raise AssertionError("searched again")

    heard = []
    monkeypatch.setattr("ptsne.affinities.search_cells", never)
    map_ = quick(checkpoint=begun, callbacks=heard.append).fit(WIDE)
    assert (map_.embedding_ == whole.embedding_).all()
    assert heard[0].phase == "fine-tuning"
    assert not list(begun.parent.iterdir())


def test_other_lazy_rows_are_refused(begun):
    with pytest.raises(ValueError, match="the shape of X was"):
        quick(checkpoint=begun).fit(WIDE[:-1])
    for row, message in ((0, "the values of X changed"), (len(WIDE) - 1, "the values of X")):
        other = WIDE.copy()
        other[row, 3] += 1e-6
        with pytest.raises(ValueError, match=message):
            quick(checkpoint=begun).fit(other)


def test_rows_that_no_sample_has_change_the_mean(begun, monkeypatch):
    monkeypatch.setattr("ptsne.persistence.fingerprint.SAMPLED_ROWS", 1)
    begun.unlink()
    with pytest.raises(Cut):
        quick(checkpoint=begun, callbacks=cut).fit(WIDE)
    other = WIDE.copy()
    other[5, 3] += 1e-6
    with pytest.raises(ValueError, match="the mean of X changed; delete it"):
        quick(checkpoint=begun).fit(other)


def test_half_of_the_budget_is_that_of_the_fit_that_goes_on(tmp_path, monkeypatch):
    budgets, path = [], tmp_path / "fit.ckpt"

    def limited(rows, budget, *arguments, **options):
        budgets.append(budget)
        if len(budgets) == 1:
            raise MemoryError("no")
        return prepare(rows, budget, *arguments, **options)

    monkeypatch.setattr("ptsne.training.Checkpoint.seconds", 0.0)
    monkeypatch.setattr("ptsne.fitting.streamed.prepare", limited)
    with pytest.warns(UserWarning, match="training again"), pytest.raises(Cut):
        quick(checkpoint=path, callbacks=cut, memory_budget="256MiB").fit(WIDE)
    map_ = quick(checkpoint=path, memory_budget="256MiB").fit(WIDE)
    assert budgets == [256 * MIB, 128 * MIB, 128 * MIB]
    whole = quick(memory_budget="128MiB").fit(WIDE)
    assert (map_.embedding_ == whole.embedding_).all()


def test_a_given_graph_belongs_to_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("ptsne.training.Checkpoint.seconds", 0.0)
    monkeypatch.setattr("ptsne.training.Checkpoint.share", np.inf)
    path, graph = tmp_path / "fit.ckpt", nearest_neighbors(IRIS, 30)

    def fit(neighbors, **options):
        return quick(latent_dim=4, max_iter=10, **options).fit(IRIS, neighbors=neighbors)

    with pytest.raises(Cut):
        fit(graph, checkpoint=path, callbacks=cut)
    with pytest.raises(ValueError, match="neighbors"):
        fit((graph.indices, 1.5 * graph.distances), checkpoint=path)
    map_ = fit(graph, checkpoint=path)
    assert (map_.embedding_ == fit(graph).embedding_).all()
