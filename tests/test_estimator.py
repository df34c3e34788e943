"""The estimator: parameters, row independence, reproducibility, errors."""

import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsTransformer
from torch import nn

from ptsne import ParametricTSNE, affinities
from ptsne.losses import Edges, kl_divergence
from ptsne.metrics import knn_accuracy, trustworthiness


def quick(**parameters):
    defaults = {"perplexity": 10, "max_iter": 40, "random_state": 0}
    return ParametricTSNE(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def X():
    return load_iris().data


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def fitted(digits):
    """A real map of half of the digits."""
    X, y = digits
    return ParametricTSNE(random_state=0, max_iter=300).fit(X[::2].astype(np.float32))


def test_map_of_digits_is_good_on_training_and_held_out_rows(fitted, digits):
    X, y = digits
    Y, held_out = fitted.embedding_, fitted.transform(X[1::2])
    assert trustworthiness(X[::2], Y, n_neighbors=15) > 0.97
    assert knn_accuracy(Y, y[::2]) > 0.94
    assert knn_accuracy(held_out, y[1::2], Y_train=Y, labels_train=y[::2]) > 0.93


def test_small_map_of_iris_is_good():
    X, y = load_iris(return_X_y=True)
    map_ = ParametricTSNE(perplexity=20, random_state=0).fit(X[::2])
    assert map_.kl_divergence_ < 0.2
    assert (
        knn_accuracy(map_.transform(X[1::2]), y[1::2], Y_train=map_.embedding_, labels_train=y[::2])
        > 0.9
    )


def test_reported_kl_is_the_exact_kl(fitted, digits):
    X = digits[0][::2].astype(np.float32)
    P = affinities.joint_probabilities(affinities.nearest_neighbors(X, 90), 30.0)
    exact = kl_divergence(
        Edges.from_sparse(P, dtype=torch.float64), torch.from_numpy(fitted.embedding_).double()
    )
    assert fitted.kl_divergence_ == pytest.approx(float(exact), rel=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parameters", [{}, {"projection": (32,)}, {"encoder": (16,)}])
def test_rows_do_not_depend_on_their_company(X, dtype, parameters):
    map_ = quick(**parameters).fit(X)
    rows = np.tile(X, (5, 1)).astype(dtype)
    Y = map_.transform(rows)
    assert Y.dtype == dtype
    assert (map_.transform(rows[::-1]) == Y[::-1]).all()
    for i in (0, 7, 255, 256, 749):
        assert (map_.transform(rows[i : i + 1]) == Y[i]).all()


def test_fit_transform_is_fit_then_transform(X):
    assert (quick().fit_transform(X) == quick().fit(X).transform(X)).all()


def test_same_seed_same_bits_and_another_seed_another_map(X):
    first, second, other = (quick(random_state=s).fit(X).embedding_ for s in (0, 0, 1))
    assert (first == second).all()
    assert (first != other).any()


@pytest.mark.parametrize("parameters", [{}, {"encoder": (8,), "projection": (8,)}])
def test_nothing_of_the_callers_is_touched(X, parameters):
    rows, before = X.copy(), np.random.get_state()[1].copy()
    torch_before = torch.random.get_rng_state()
    quick(**parameters).fit(rows).explain(rows)
    assert (rows == X).all()
    assert (np.random.get_state()[1] == before).all()
    assert (torch.random.get_rng_state() == torch_before).all()


def test_modules_are_copied_trained_and_left_alone(X):
    encoder = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.1), nn.Linear(6, 3))
    projection = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    before = [p.clone() for m in (encoder, projection) for p in m.parameters()]
    map_ = quick(encoder=encoder, projection=projection).fit(X)
    after = [p for m in (encoder, projection) for p in m.parameters()]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)
    assert encoder.training
    assert not map_.network_.training
    why = map_.explain(X)
    assert why.residual.max() < 1e-12


def test_frozen_encoder_stays_as_it_is(X):
    encoder = nn.Linear(4, 3).requires_grad_(False)
    map_ = quick(encoder=encoder).fit(X)
    assert (map_.network_.encoder.weight == encoder.weight).all()


def test_convolutional_encoder_on_images():
    generator = np.random.default_rng(0)
    images = np.zeros((120, 28, 28), np.float32)
    for image, corner in zip(images, generator.integers(0, 3, 120), strict=True):
        image[8 * corner : 8 * corner + 8, 4:20] = 1
    images += 0.1 * generator.random(images.shape, dtype=np.float32)
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4 * 6 * 6, 8),
    )  # fmt: skip
    X = images.reshape(len(images), -1)
    map_ = quick(encoder=encoder).fit(X[:100])
    assert map_.transform(X[100:]).shape == (20, 2)
    np.testing.assert_allclose(map_.transform(X[3:4])[0], map_.embedding_[3], atol=1e-4)
    assert map_.explain(X[100:].astype(float)).residual.max() < 1e-12
    assert map_.reconstruct(X[:5]).shape == (5, 784)


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"metric": "cosine"},
        {"metric": "manhattan"},
        {"perplexity": [5, 20]},
        {"similarity": "gaussian"},
        {"dof": 0.5},
        {"exaggeration": 4.0},
        {"encoder": None},
        {"encoder": "linear"},
        {"projection": (16, 16)},
        {"reconstruction_weight": 1.0},
        {"fidelity_weight": 0.0},
        {"latent_dim": 2, "n_landmarks": 5},
        {"learning_rate": 10.0, "early_exaggeration": 4.0},
    ],
    ids=str,
)
def test_every_option_runs_and_stays_exact(X, n_components, parameters):
    map_ = quick(n_components=n_components, **parameters).fit(X)
    assert map_.embedding_.shape == (150, n_components)
    assert np.isfinite(map_.embedding_).all()
    assert map_.explain(X).residual.max() < 1e-12
    assert map_.n_iter_ > 0


def test_neighbors_of_another_engine(X):
    expected = quick().fit(X)
    graph = KNeighborsTransformer(mode="distance", n_neighbors=30).fit_transform(X)
    found = affinities.nearest_neighbors(X, 30)
    for neighbors in (graph, found, tuple(found)):
        map_ = quick().fit(X, neighbors=neighbors)
        assert map_.kl_divergence_ == pytest.approx(expected.kl_divergence_, rel=0.2)


def test_inverse_transform_lands_near_the_rows(X):
    map_ = quick(max_iter=200).fit(X)
    back = map_.inverse_transform(map_.embedding_)
    unexplained = ((back - X) ** 2).sum() / ((X - X.mean(0)) ** 2).sum()
    assert unexplained < 0.2
    with pytest.raises(ValueError, match="2 coordinates on this map"):
        map_.inverse_transform(np.zeros((1, 3)))


def test_reconstruction_of_digits(fitted, digits):
    X = digits[0][1::2].astype(np.float32)
    assert ((fitted.reconstruct(X) - X) ** 2).mean() < 0.05 * X.var(0).sum() / 64 * 64


def test_history_and_callbacks(X):
    seen = []
    map_ = quick(callbacks=seen.append).fit(X)
    assert [r.phase for r in seen] == [r["phase"] for r in map_.history_]
    assert {r["phase"] for r in map_.history_} == {"places", "fine-tuning", "decoder"}
    assert set(map_.history_[0]) == {"phase", "iteration", "n_iterations", "loss", "kl", "seconds"}
    seconds = [r["seconds"] for r in map_.history_]
    assert seconds == sorted(seconds)


def test_callback_stops_training(X):
    map_ = quick(callbacks=[lambda record: record.iteration >= 20], max_iter=200).fit(X)
    assert {r["phase"] for r in map_.history_} == {"places"}
    assert map_.n_iter_ == 20


@pytest.mark.parametrize("phase", ["places", "fine-tuning"])
@pytest.mark.parametrize("projection", ["atlas", (16,)])
def test_ctrl_c_keeps_the_map_so_far(X, phase, projection):
    def interrupt(record):
        if record.phase == phase and record.iteration >= 10:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="best map so far is kept"):
        map_ = quick(callbacks=interrupt, max_iter=200, projection=projection).fit(X)
    assert np.isfinite(map_.transform(X)).all()
    assert map_.explain(X).residual.max() < 1e-12


def test_progress_bar_per_phase(X, capsys):
    quick(verbose=1).fit(X)
    bars = capsys.readouterr().err
    assert all(phase in bars for phase in ("places", "fine-tuning", "decoder"))


class Explodes(nn.Module):
    """Identity, until it has been trained for a while."""

    calls = 0

    def forward(self, x):
        self.calls += self.training
        return x / float(self.calls < 20)


def test_nan_in_the_loss_stops_with_a_message(X):
    encoder = nn.Sequential(nn.Linear(4, 3), Explodes())
    with pytest.raises(FloatingPointError, match=r"iteration 20 of pre-training.*lower learning"):
        quick(encoder=encoder).fit(X)


def test_threads_share_a_map(fitted, digits):
    X, results = digits[0][:200], []
    expected = fitted.transform(X)
    threads = [
        threading.Thread(target=lambda: results.append(fitted.transform(X))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((result == expected).all() for result in results)


@pytest.mark.parametrize("n_samples", [2, 3, 4, 5, 10])
def test_few_rows_never_fail(n_samples):
    X = np.random.default_rng(0).normal(size=(n_samples, 3))
    with pytest.warns(UserWarning, match="pass more rows"):
        Y = ParametricTSNE(max_iter=20, random_state=0).fit_transform(X)
    assert np.isfinite(Y).all()


@pytest.mark.filterwarnings("ignore:perplexity .* is too high")
@pytest.mark.parametrize(
    "X",
    [
        np.ones((20, 3)),
        np.repeat(np.eye(3), 10, axis=0),
        np.c_[np.arange(30.0), np.ones(30)],
        np.arange(30.0)[:, None],
        1e-8 * np.random.default_rng(0).normal(size=(30, 2)),
        1e8 + np.random.default_rng(0).normal(size=(30, 2)),
        np.random.default_rng(0).normal(size=(10, 40)),
    ],
    ids=["constant", "duplicates", "constant column", "one column", "tiny", "offset", "wide"],
)
def test_awkward_data_is_mapped(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        map_ = quick().fit(X)
    assert np.isfinite(map_.embedding_).all()
    assert map_.explain(X).residual.max() < 1e-11


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_named(X):
    with pytest.raises(ValueError, match='device="cpu"'):
        quick(device="cuda").fit(X)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_encoder_may_hold_no_numbers(dtype):
    X = load_iris().data.astype(dtype)
    map_ = ParametricTSNE(perplexity=10, max_iter=10, encoder=nn.ReLU(), random_state=0).fit(X)
    why = map_.explain(X[:3])
    assert why.residual.max() < (1e-12 if dtype == np.float64 else 1e-5)
    assert why.trust.percentile.shape == why.radius().shape == (3,)
    np.testing.assert_array_equal(why.encoder.weight, np.tile(np.eye(4, dtype=dtype), (3, 1, 1)))
    np.testing.assert_array_equal(map_.transform(X), map_.embedding_)
