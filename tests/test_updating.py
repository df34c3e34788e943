"""New rows join, old rows stay: movement, novelty, kinds of rows, streams."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError
from torch import nn

from ptsne import ParametricTSNE, load, metrics
from ptsne.updating import known as memory
from updates import ELSEWHERE, IRIS, NEW, OLD, as_it_is, quick

pytestmark = [
    pytest.mark.filterwarnings("ignore:perplexity .* is too high"),
    pytest.mark.usefixtures("short_updates"),
]


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(OLD)


@pytest.fixture
def map_(fitted):
    """A map of its own for each test, with its rows at hand."""
    return as_it_is(fitted)


@pytest.fixture(scope="module")
def updated(fitted):
    return as_it_is(fitted).update(NEW[:40])


# ---- old rows stay ----


def test_old_rows_stay_to_the_bit(fitted, updated):
    assert updated.drift_.n_new_landmarks > 0
    assert (updated.transform(OLD) == fitted.transform(OLD)).all()
    assert (updated.explain(OLD[:9]).weight == fitted.explain(OLD[:9]).weight).all()


def test_a_new_class_gets_an_island(fitted, updated):
    kinds = IRIS.target[50:] > 1
    for map_ in (fitted, updated):
        Y = np.concatenate([map_.transform(OLD), map_.transform(NEW[:40])])
        gap = np.linalg.norm(Y[100:, None] - Y[None, :100], axis=2).min()
        assert (gap > 3) == (map_ is updated)
    labels = np.concatenate([kinds + 1, np.zeros(40)])
    held_out = updated.transform(NEW[40:])
    assert metrics.knn_accuracy(held_out, np.zeros(10), Y_train=Y, labels_train=labels) == 1


def test_the_tolerance_holds_for_every_watched_row(fitted):
    for allowed in (0.0, 0.5, 5.0):
        map_ = as_it_is(fitted).update(IRIS.data[:140:2] + 0.3, tolerance=allowed)
        way = np.linalg.norm(map_.transform(OLD) - fitted.transform(OLD), axis=1)
        assert way.max() <= allowed
        assert map_.drift_.movement.largest == pytest.approx(way.max(), abs=1e-9)
        assert map_.drift_.tolerance == allowed


def test_landmarks_that_would_move_a_known_row_are_vetoed(fitted):
    near = OLD[0] + 0.4 * (NEW.mean(0) - OLD[0])
    map_ = as_it_is(fitted).update(np.vstack([NEW[:40], near]), keep=NEW[:40], tolerance=0)
    assert map_.drift_.n_new_landmarks == 0
    assert map_.drift_.n_vetoed > 0
    assert (map_.transform(NEW) == fitted.transform(NEW)).all()


def test_a_known_row_that_a_new_landmark_would_hold_gets_one_of_its_own():
    known = np.vstack([OLD, NEW[40:42]])
    fitted = quick().fit(known)
    map_ = as_it_is(fitted).update(NEW[:40], tolerance=1e-9)
    drift, m = map_.drift_, len(fitted.landmark_indices_)
    assert 0 < drift.n_guards < drift.n_new_landmarks
    assert f"{drift.n_guards} of them keep known rows in place" in str(drift)
    np.testing.assert_allclose(map_.transform(known), fitted.transform(known), atol=1e-9)
    guards = slice(m, m + drift.n_guards)
    assert set(map_.landmark_indices_[guards]) <= {100, 101}
    assert (map_._landmark_rows[guards] == known[map_.landmark_indices_[guards]]).all()


def test_guards_stand_at_rows_of_landmarks_where_others_are_gone(tmp_path):
    fitted = quick(n_landmarks=100).fit(np.vstack([OLD, NEW[40:42]]))
    fitted.save(tmp_path / "map.ptsne", codes=True)
    map_ = load(tmp_path / "map.ptsne").update(NEW[:40])
    rows, old = map_._landmark_rows, fitted._landmark_rows
    assert len(rows) == len(old) + map_.drift_.n_new_landmarks
    assert (rows[: len(old)] == old).all()
    assert map_.drift_.movement.largest <= map_.drift_.tolerance


def test_known_kinds_take_the_place_of_transform(fitted, map_):
    Y = map_.transform(OLD[::3] + 0.01)
    map_.update(OLD[::3] + 0.01)
    assert map_.drift_.n_new_landmarks == 0
    assert (map_.embedding_[len(OLD) :] == Y).all()


@pytest.mark.parametrize("n", [1, 4])
def test_a_few_strange_rows_are_no_group(map_, n):
    assert map_.update(NEW[:n]).drift_.n_novel == 0


def test_updates_follow_each_other(fitted, map_):
    elsewhere = ELSEWHERE[:30]
    map_.update(NEW[:40])
    places = map_.transform(np.vstack([OLD, NEW[:40]]))
    map_.update(elsewhere)
    assert map_.drift_.n_new_landmarks > 0
    assert (map_.transform(np.vstack([OLD, NEW[:40]])) == places).all()
    assert len(map_.embedding_) == 170
    assert (map_.embedding_ == map_.transform(np.vstack([OLD, NEW[:40], elsewhere]))).all()


# ---- what it is afterwards ----


def test_everything_learned_fits_together(fitted, updated):
    m = len(updated.network_.projection.landmarks)
    assert m == fitted.network_.projection.landmarks.shape[0] + updated.drift_.n_new_landmarks
    assert len(updated.landmark_indices_) == len(updated._landmark_rows) == m
    everything = np.vstack([OLD, NEW[:40]])
    assert (everything[updated.landmark_indices_] == updated._landmark_rows).all()
    assert (updated.embedding_ == updated.transform(everything)).all()
    phases = {record["phase"] for record in updated.history_}
    assert {"fine-tuning", "update", "update charts"} <= phases
    assert updated.kl_divergence_ == fitted.kl_divergence_
    assert not updated.network_.training


def test_explanations_stay_exact(updated):
    why = updated.explain(NEW)
    assert why.residual.max() < 1e-12
    assert abs(why.contributions.sum(2) + why.offset - why.Y).max() < 1e-9
    assert metrics.rank_deficient(why.weight) == 0
    assert abs(why.contrast(0, 3).sum() - 1) < 1e-10
    assert why.landmarks.indices.max() >= len(OLD)
    assert np.median(updated.explain(NEW[40:]).trust.percentile) < 90


def test_what_was_strange_is_known_now(fitted, updated):
    assert np.median(fitted.explain(NEW[40:]).trust.percentile) > 95
    assert as_it_is(updated).update(NEW[40:]).drift_.n_novel == 0


def test_save_load_pickle_give_the_same_bits(map_, tmp_path):
    map_.update(NEW[:40])
    map_.save(tmp_path / "map")
    loaded = ParametricTSNE.load(tmp_path / "map")
    pickled = pickle.loads(pickle.dumps(map_))
    for again in (loaded, pickled):
        assert (again.transform(IRIS.data) == map_.transform(IRIS.data)).all()
        assert (again.explain(NEW).weight == map_.explain(NEW).weight).all()
        assert (again.embedding_ == map_.embedding_).all()


def test_onnx_gives_the_same_places(map_, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    map_.update(NEW[:40]).to_onnx(tmp_path / "map.onnx", dtype="float64")
    session = runtime.InferenceSession(tmp_path / "map.onnx")
    name = session.get_inputs()[0].name
    Y = session.run(None, {name: IRIS.data})[0]
    np.testing.assert_allclose(Y, map_.transform(IRIS.data), atol=1e-9)


def test_the_inverse_learns_again(map_):
    map_.update(NEW[:40])
    back = map_.inverse_transform(map_.transform(NEW[40:]))
    assert np.abs(back - NEW[40:].mean(0)).mean() < 0.5


def test_an_error_leaves_the_map_as_it_was(map_):
    before = dict(vars(map_))

    def stop(record):
        raise OSError("stop")

    map_.callbacks = stop
    with pytest.raises(OSError, match="stop"):
        map_.update(NEW)
    map_.callbacks = None
    assert vars(map_) == before


def test_the_callers_rows_and_the_global_generators_stay(map_):
    rows = NEW[:40].copy()
    state, seed = torch.get_rng_state(), np.random.get_state()[1].copy()
    map_.update(rows)
    assert (rows == NEW[:40]).all()
    assert (torch.get_rng_state() == state).all()
    assert (np.random.get_state()[1] == seed).all()


def test_same_seed_same_bits(fitted, updated):
    again = as_it_is(fitted).update(NEW[:40])
    assert (again.transform(IRIS.data) == updated.transform(IRIS.data)).all()


def test_the_report_says_it(updated):
    drift = as_it_is(updated).update(ELSEWHERE).drift_
    text = str(drift)
    assert "40 new rows, 40 of them (100%)" in text
    assert "0 of 140 watched rows (training rows) moved" in text
    frame = drift.to_frame()
    assert set(frame.columns) == {"quantity", "value", "unit"}
    assert (frame.query("quantity == 'movement, largest'")["value"] == 0).all()
    assert "recall, new rows, after" in set(frame["quantity"])
    with pytest.raises(AttributeError):
        drift.n_new = 3


# ---- kinds of maps and rows ----


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_components": 1},
        {"n_components": 3},
        {"encoder": None},
        {"encoder": (8,)},
        {"dof": 0.7},
        {"metric": "manhattan"},
        {"encoder": nn.Linear(4, 3)},
    ],
    ids=str,
)
def test_every_atlas_learns(parameters):
    map_ = quick(**parameters).fit(OLD)
    places = map_.transform(OLD)
    map_.update(NEW[:40])
    assert map_.drift_.n_new_landmarks > 0
    np.testing.assert_allclose(map_.transform(OLD), places, atol=1e-9)
    assert map_.explain(NEW[:3]).residual.max() < 1e-9


@pytest.mark.parametrize("kind", [np.float32, sparse.csr_array, pd.DataFrame, torch.tensor])
def test_rows_of_any_kind(kind):
    old, new = (np.asarray(rows) for rows in (OLD, NEW[:40]))
    old, new = (kind(old), kind(new))
    map_ = quick().fit(old)
    places = map_.transform(old)
    map_.update(new)
    assert map_.drift_.n_new_landmarks > 0
    assert (map_.transform(old) == places).all()
    assert map_.embedding_.dtype == places.dtype


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"projection": (8,)}, "update adds landmarks.*ptsne.register"),
        ({"similarity": "gaussian"}, "Student-t similarity only"),
    ],
)
def test_what_cannot_learn_says_what_to_do(parameters, words):
    map_ = quick(**parameters).fit(OLD[:40])
    with pytest.raises(ValueError, match=words):
        map_.update(NEW)


@pytest.mark.parametrize("tolerance", [-1, "some", True, None, float("nan")])
def test_a_tolerance_is_a_number(map_, tolerance):
    with pytest.raises(ValueError, match="tolerance must be"):
        map_.update(NEW, tolerance=tolerance)


def test_other_columns_are_refused(map_):
    with pytest.raises(ValueError, match="3 features"):
        map_.update(NEW[:, :3])
    with pytest.raises(ValueError, match="3 features"):
        map_.update(NEW, keep=NEW[:, :3])
    with pytest.raises(NotFittedError):
        quick().update(NEW)


def test_labels_part_new_classes():
    kinds = IRIS.target[50:]
    map_ = quick(target_weight=1.0).fit(OLD, kinds)
    map_.update(NEW[:40], np.repeat(["a", "b"], 20))
    assert map_.drift_.n_new_landmarks > 0
    with pytest.raises(ValueError, match="one label a row"):
        map_.update(NEW[:40], [1, 2])


def hidden(n, shift, seed):
    """Rows that vary in two columns; a third is 0 but for the shift."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 6)) * [3, 3, 0.3, 0.1, 0.1, 0.1]
    rows[:, 5] += shift
    return rows


def test_a_code_is_widened_for_what_it_was_blind_to():
    old, new, newer = hidden(200, 0, 0), hidden(60, 4, 1), hidden(30, 4, 2)
    map_ = quick(latent_dim=2).fit(old)
    places, why = map_.transform(old), map_.explain(old[:5])
    map_.update(new)
    drift = map_.drift_
    assert drift.n_new_directions > 0
    assert drift.n_unseen == 0
    np.testing.assert_allclose(map_.transform(old), places, atol=1e-10)
    np.testing.assert_allclose(map_.explain(old[:5]).weight, why.weight, atol=1e-10)
    assert map_.explain(newer).residual.max() < 1e-12
    labels = np.repeat([0, 1], [200, 60])
    votes = {"Y_train": map_.embedding_, "labels_train": labels}
    assert metrics.knn_accuracy(map_.transform(newer), np.ones(30), **votes) > 0.9
    error = np.abs(map_.reconstruct(newer)[:, 5] - newer[:, 5]).mean()
    assert error < 1


def test_a_code_that_cannot_be_widened_is_named():
    first_two = nn.Linear(6, 2, bias=False).requires_grad_(False)
    first_two.weight.copy_(torch.eye(2, 6))
    map_ = quick(encoder=first_two).fit(hidden(120, 0, 0))
    drift = map_.update(hidden(40, 4, 1)).drift_
    assert drift.n_unseen > 30
    assert "in what the code leaves out" in str(drift)


# ---- streams ----


def test_a_stream_waits_then_fits_then_updates():
    map_ = quick()
    assert map_.partial_fit(OLD[:20]) is map_
    assert map_.n_features_in_ == 4
    with pytest.raises(NotFittedError):
        map_.transform(OLD)
    with pytest.raises(ValueError, match="3 features"):
        map_.partial_fit(OLD[20:30, :3])
    map_.partial_fit(OLD[20:])
    assert (map_.embedding_ == quick().fit(OLD).embedding_).all()
    map_.partial_fit(NEW[:40])
    assert len(map_.embedding_) == 140
    assert map_.drift_.n_new_landmarks > 0


def test_a_stream_keeps_names_and_sparse_rows():
    frame = pd.DataFrame(IRIS.data, columns=IRIS.feature_names)
    map_ = quick().partial_fit(frame[:10]).partial_fit(frame[10:60])
    assert list(map_.feature_names_in_) == IRIS.feature_names
    thin = sparse.csr_array(IRIS.data)
    assert (quick().partial_fit(thin[:10]).partial_fit(thin[10:60]).transform(thin).shape) == (
        150,
        2,
    )


def test_a_stream_with_labels():
    kinds = np.where(IRIS.target == 1, "b", "c").astype(object)[50:]
    map_ = quick(target_weight=0.5).partial_fit(OLD[::2], kinds[::2])
    map_.partial_fit(OLD[1::2], kinds[1::2])
    assert len(map_.embedding_) == 100


def test_memory_is_bounded(monkeypatch, map_):
    monkeypatch.setattr(memory, "REMEMBERED", 60)
    map_.update(NEW[:25])
    assert len(map_._training_rows) == len(map_._training_numbers) == 60
    everything = np.vstack([OLD, NEW[:25]])
    assert (everything[map_._training_numbers] == map_._training_rows).all()
    map_.update(NEW[25:])
    everything = np.vstack([everything, NEW[25:]])
    assert len(map_._training_rows) == 60
    assert (everything[map_._training_numbers] == map_._training_rows).all()
    assert map_.drift_.witnesses == "rows at hand and landmark rows"
    assert len(map_.embedding_) == 150
    assert np.isfinite(map_._trust_quantiles).all()
    assert (np.diff(map_._trust_quantiles) >= 0).all()
