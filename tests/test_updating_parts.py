"""The parts of an update: groups, free spots, idle landmarks, neighbours."""

import numpy as np
import pytest
import torch

from ptsne.networks import AtlasProjection
from ptsne.updating.growing import held_by_new, widened_atlas, without
from ptsne.updating.guarding import guarded, guards_of, harmless
from ptsne.updating.neighborhood import groups, nearest_newcomers, newcomers_neighbors, weakened
from ptsne.updating.novelty import group_level
from ptsne.updating.room import free_spot
from updates import OLD, quick

pytestmark = pytest.mark.filterwarnings("ignore:perplexity .* is too high")


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(OLD)


def test_groups_of_strange_rows_not_single_ones():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(500, 3)), rng.normal(size=(30, 3)) + 20])
    percentile = np.concatenate([rng.uniform(0, 100, 500), rng.uniform(90, 100, 30)])
    is_novel = group_level(X, percentile)
    assert is_novel[500:].all()
    assert not is_novel[:500].any()
    assert not group_level(X, np.full(530, np.nan)).any()


def test_a_free_spot_is_free_and_near():
    rng = np.random.default_rng(0)
    occupied = torch.from_numpy(rng.normal(size=(400, 2)) * 10)
    hole = occupied[(occupied - torch.tensor([5.0, 0.0])).norm(dim=1) > 6]
    spot = free_spot(4.0, hole, torch.tensor([[5.0, 0.0]]).double(), torch.ones(1).double())
    assert torch.cdist(spot[None], hole).min() >= 4
    assert (spot - torch.tensor([5.0, 0.0])).norm() < 2
    for k in (1, 3):
        points = torch.from_numpy(rng.normal(size=(50, k)))
        away = free_spot(1.0, points, points[:1], torch.ones(1).double())
        assert torch.cdist(away[None], points).min() >= 1


def test_guards_keep_the_map_where_they_stand(fitted):
    atlas = fitted.network_.projection
    z = torch.from_numpy(fitted.network_.encoder(torch.from_numpy(OLD).float()).detach().numpy())
    z = z.to(atlas.landmarks)[::7]
    larger = guarded(atlas, z)
    index, weights = larger.landmark_weights(z)
    is_alone = weights.amax(1) == 1
    assert is_alone.sum() > len(z) / 2
    own = torch.arange(len(z)) + len(atlas.landmarks)
    assert (index.gather(1, weights.argmax(1, keepdim=True))[:, 0] == own)[is_alone].all()
    torch.testing.assert_close(larger(z)[is_alone], atlas(z)[is_alone])
    assert not torch.allclose(widened_atlas(atlas, z)(z), atlas(z), atol=0.1)


def test_known_rows_that_new_landmarks_hold_get_guards_and_the_rest_a_veto(fitted):
    atlas = fitted.network_.projection
    z = atlas.landmarks.detach() + 0.01
    assert guards_of(atlas, z[:2], z, 0.0).row[:2].tolist() == [0, 1]
    assert not len(guards_of(atlas, z[:2] + 1e3, z, 0.0).row)
    larger = widened_atlas(atlas, z[:2])  # at place 0, where no known row was
    left = harmless(atlas, larger, z, 1e-6)
    assert left.tolist() == [*range(len(atlas.landmarks))]
    assert len(harmless(atlas, larger, z[2:] + 1e3, 1e-6)) == len(larger.landmarks)


def test_an_atlas_with_idle_landmarks_is_the_same_map(fitted):
    atlas = fitted.network_.projection
    z = torch.randn(
        50, atlas.landmarks.shape[1], generator=torch.Generator().manual_seed(0)
    ).double()
    far = torch.full((3, z.shape[1]), 1e3)
    larger = widened_atlas(atlas, far)
    assert isinstance(larger, AtlasProjection)
    assert torch.equal(larger(z), atlas(z))
    m = len(atlas.landmarks)
    assert not held_by_new(larger, z, m).any()
    assert held_by_new(larger, far.double(), m).all()
    smaller = without(larger, torch.tensor([m, m + 2]))
    assert torch.equal(smaller.landmarks[m:], far[:1].double())


def test_neighbours_of_newcomers():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 3))
    rows[7] = rows[3]  # an equal row is a neighbour, not the row itself
    indices, p = newcomers_neighbors(rows, 20, 5.0, "euclidean")
    assert (indices != np.arange(20)[:, None]).all()
    assert indices[3, 0] == 7
    np.testing.assert_allclose(p.sum(axis=1), 1)
    distance = np.linalg.norm(rows[:20, None] - rows[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (np.sort(indices[5]) == np.sort(np.argsort(distance[5])[:15])).all()
    near = nearest_newcomers(indices, 20, 10)
    assert near.max() < 20
    classes = np.arange(20) % 2
    parted = weakened(p, classes, 1.0).toarray()
    np.testing.assert_allclose(parted.sum(1), 1)
    assert not parted[:, :20][classes[:, None] != classes[None]].any()


def test_groups_are_linked_rows():
    near = np.array([[1, 1], [0, 0], [3, 3], [2, 2]])
    assert groups(near).tolist() == [0, 0, 1, 1]
