"""Dropout of training rows: unbiased, drawn anew, and the same in principal directions."""

import copy
from dataclasses import replace

import pytest
import torch
from sklearn.datasets import make_blobs

from ptsne import ParametricTSNE
from ptsne.networks import SkipNetwork
from ptsne.training import finetuning
from ptsne.training.dropout import PARTS, DroppedRows, ReducedRows, Window


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def rows(n=200, d=30):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_window_reads_what_was_drawn(generator):
    normals = Window.of_normals(5000, rows(), generator)
    first, second = normals(torch.Size([50, 100])), normals(torch.Size([50, 100]))
    assert first.dtype == torch.float64
    assert not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.1
    assert abs(float(first.std()) - 1) < 0.1
    mask = Window.of_dropout(5000, 0.2, rows(), generator)(torch.Size([5000]))
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert abs(float((mask == 0).double().mean()) - 0.2) < 0.03


def test_dropped_rows_are_right_on_average(generator):
    X = rows()
    dropped = DroppedRows(X, 0.3, 200, generator)
    mean = sum(dropped(slice(None)) for _ in range(2000)) / 2000
    assert float((mean - X).abs().mean()) < 0.02
    batch = torch.tensor([3, 7])
    kept = dropped(batch)
    assert kept.shape == (2, 30)
    torch.testing.assert_close(kept[kept != 0], X[batch][kept != 0] / 0.7)
    assert DroppedRows(X, 0.0, 200, generator)(batch).equal(X[batch])


def test_reduced_rows_are_dropped_rows_along_the_axes(generator):
    X, axes = rows(), torch.linalg.qr(rows(30, 8)).Q.T
    reduced = ReducedRows(X, axes, 0.3, 200, generator)
    torch.testing.assert_close(reduced.X, X @ axes.T)
    before = reduced(slice(None)).clone()
    mean, n = torch.zeros_like(before), 1500
    for _ in range(n):
        mean += reduced(slice(None)) / n
    assert float((mean - reduced.X).abs().mean()) < 0.2 * float((before - reduced.X).abs().mean())
    assert ReducedRows(X, axes, 0.0, 200, generator)(slice(None)).equal(reduced.X)


def test_a_tenth_of_the_rows_is_drawn_anew_in_each_step(generator):
    reduced = ReducedRows(rows(), torch.eye(30, dtype=torch.float64), 0.3, 200, generator)
    before = reduced(slice(None)).clone()
    after = reduced(slice(None))
    assert int((before != after).any(1).sum()) == 200 // PARTS
    for _ in range(PARTS):
        after = reduced(slice(None))
    assert bool((before != after).any(1).all())


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_reduced_rows_go_on_with_the_same_draws(generator, rate):
    X, axes = rows(205), torch.linalg.qr(rows(30, 8)).Q.T
    first = ReducedRows(X, axes, rate, 50, generator)
    for _ in range(7):
        first(slice(None))
    state, drawn = copy.deepcopy(first.state_dict()), generator.get_state()
    wanted = [first(slice(None)).clone() for _ in range(3)]
    later = torch.Generator().manual_seed(0)
    again = ReducedRows(X, axes, rate, 50, later)
    again.load_state_dict(state)
    later.set_state(drawn)
    for step in wanted:
        torch.testing.assert_close(again(slice(None)), step, rtol=0, atol=0)


def test_batches_larger_than_the_memory_allows_draw_parts_of_a_batch(generator):
    reduced = ReducedRows(rows(205), torch.eye(30, dtype=torch.float64)[:8], 0.3, 50, generator)
    for _ in range(50):
        assert reduced(torch.arange(50)).shape == (50, 8)


def test_a_seen_through_encoder_gives_the_same_codes(generator):
    X, axes = rows(), torch.linalg.qr(rows(30, 30)).Q.T[:12]
    encoder = SkipNetwork(axes[:5]).double()
    small = finetuning._seen_through(encoder, axes).double()
    torch.testing.assert_close(
        small(X @ axes.T), encoder(X), atol=1e-6, rtol=0
    )  # a float32 network


def test_wide_rows_train_as_well_in_their_principal_directions(monkeypatch):
    X, _ = make_blobs(400, 300, centers=8, cluster_std=4.0, random_state=0)
    make = ParametricTSNE(perplexity=20, latent_dim=20, max_iter=150, random_state=0)
    monkeypatch.setattr(finetuning, "RANK", 40)
    seen = []
    descend = finetuning._descend

    def spy(network, task, settings, inputs):
        seen.append(type(inputs))
        return descend(network, task, replace(settings), inputs)

    monkeypatch.setattr(finetuning, "_descend", spy)
    reduced = make.fit(X).kl_divergence_
    monkeypatch.setattr(finetuning, "RANK", 1000)
    full = make.fit(X).kl_divergence_
    assert seen == [ReducedRows, DroppedRows]
    assert reduced < full + 0.05


def test_reconstruction_needs_all_columns(monkeypatch):
    X, _ = make_blobs(400, 300, centers=4, random_state=0)
    monkeypatch.setattr(finetuning, "RANK", 40)
    make = ParametricTSNE(
        perplexity=20, latent_dim=20, max_iter=30, reconstruction_weight=0.1, random_state=0
    )
    assert make.fit(X).embedding_.shape == (400, 2)
