"""Versions of a map laid over each other: what was done comes out, what is left is what changed."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.datasets import load_iris

import ptsne
from maps import iris_map
from ptsne import ParametricTSNE, register

ANGLE = 0.7
TURN = np.array([[np.cos(ANGLE), np.sin(ANGLE)], [-np.sin(ANGLE), np.cos(ANGLE)]])
MIRROR = np.diag([1.0, -1.0])


@pytest.fixture(scope="module")
def Y():
    return np.random.default_rng(0).normal(size=(40, 2)) * [3, 1]


@pytest.mark.parametrize("turn", [TURN, MIRROR, TURN @ MIRROR])
def test_rotation_reflection_and_shift_come_out(Y, turn):
    found = register(Y, Y @ turn + [5, -2])
    assert found.residual.max() < 1e-12
    assert found.disparity < 1e-12
    np.testing.assert_allclose(found.rotation, turn.T, atol=1e-12)
    assert found.is_mirrored == (np.linalg.det(turn) < 0)
    np.testing.assert_allclose(found.apply(Y @ turn + [5, -2]), Y, atol=1e-12)


def test_scale_only_where_it_is_asked_for(Y):
    assert register(Y, 3 * Y).scale == 1
    assert register(Y, 3 * Y).residual.max() > 1
    found = register(Y, 3 * Y @ TURN, scale=True)
    assert found.scale == pytest.approx(1 / 3)
    assert found.residual.max() < 1e-12


def test_is_the_procrustes_of_scipy(Y):
    Z = Y @ TURN + np.random.default_rng(1).normal(size=Y.shape) / 4
    R, _ = orthogonal_procrustes(Z - Z.mean(0), Y - Y.mean(0))
    found = register(Y, Z)
    np.testing.assert_allclose(found.rotation, R, atol=1e-12)
    left = np.linalg.norm((Z - Z.mean(0)) @ R - (Y - Y.mean(0)), axis=1)
    np.testing.assert_allclose(found.residual, left, atol=1e-12)
    assert 0 < found.disparity < 1


@pytest.mark.parametrize("k", [1, 3])
def test_other_dimensions(k):
    Y = np.random.default_rng(0).normal(size=(30, k))
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(k, k)))
    assert register(Y, Y @ turn + 1).residual.max() < 1e-12


def test_maps_are_registered_by_rows_that_both_know():
    X = load_iris(as_frame=True).data
    old = iris_map()
    new = ParametricTSNE(max_iter=80, random_state=1).fit(X)
    found = ptsne.register(old, new, X)
    plain = np.linalg.norm(new.transform(X) - old.transform(X), axis=1)
    assert np.sqrt((found.residual**2).mean()) <= np.sqrt((plain**2).mean())
    np.testing.assert_allclose(found.transform(X[:5]), found.apply(new.transform(X[:5])))
    assert "150 common rows" in str(found)


def test_a_row_at_one_point():
    assert register(np.ones((1, 2)), np.zeros((1, 2)), scale=True).residual.max() == 0


def test_what_cannot_be_registered(Y):
    with pytest.raises(ValueError, match="same rows in the same dimension"):
        register(Y, Y[:-1])
    with pytest.raises(ValueError, match="same rows in the same dimension"):
        register(Y, np.zeros((40, 3)))
    with pytest.raises(ValueError, match="finite"):
        register(Y, np.full_like(Y, np.nan))
    with pytest.raises(ValueError, match="pass rows that both know"):
        register(iris_map(), iris_map())
    with pytest.raises(ValueError, match="only places were registered"):
        register(Y, Y).transform(Y)
