"""A map through any order of calls: fit, place, explain, update, save, load, copy, fail, fit again.

The default run draws the same short stories every time. Look for new ones with

    pytest -m slow tests/test_stateful.py --hypothesis-profile explore
"""

import copy
import pickle
import random
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import ptsne
from ptsne import ParametricTSNE

QUIET = pytest.mark.filterwarnings(
    "ignore:perplexity .* is too high",
    "ignore:X does not have valid feature names",
    "ignore:this map has neither its training rows",
)
SHORT = pytest.mark.usefixtures("short_updates")
N_NEW = 9

KINDS = {
    "normal": lambda rng, n, d: rng.normal(size=(n, d)),
    "far from zero": lambda rng, n, d: 1e4 + rng.normal(size=(n, d)),
    "tiny": lambda rng, n, d: 1e-6 * rng.normal(size=(n, d)),
    "counts": lambda rng, n, d: rng.poisson(0.7, size=(n, d)).astype(float),
    "duplicates": lambda rng, n, d: rng.normal(size=(3, d))[rng.integers(0, 3, n)],
    "one constant column": lambda rng, n, d: rng.normal(size=(n, d)) * (np.arange(d) > 0),
    "clusters": lambda rng, n, d: rng.normal(size=(n, d)) + 20 * rng.integers(0, 2, (n, 1)),
}
FORMS = {
    "array": np.asarray,
    "Fortran": np.asfortranarray,
    "frame": lambda X: pd.DataFrame(X, columns=names(X)),
    "sparse": sparse.csr_array,
    "tensor": torch.tensor,
}
OPTIONS = {
    "n_components": [1, 2, 3],
    "metric": ["cosine", "manhattan"],
    "encoder": ["linear", None, (3,), (4, 3)],
    "projection": [(5,), (6, 4)],
    "latent_dim": [1, 2, 3],
    "n_landmarks": [1, 2, 6],
    "similarity": ["gaussian"],
    "dof": [0.5, 3.0],
    "exaggeration": [2.0],
    "fidelity_weight": [0.0],
    "reconstruction_weight": [0.5],
    "learning_rate": [3.0],
}
PARAMETERS = st.builds(
    lambda always, chosen: always | dict(chosen),
    st.fixed_dictionaries({
        "max_iter": st.integers(1, 9),
        "perplexity": st.sampled_from([1.5, 4.0, 30.0, [2.0, 5.0]]),
        "random_state": st.integers(0, 3),
    }),
    st.lists(
        st.sampled_from([(n, v) for n, values in OPTIONS.items() for v in values]), max_size=4
    ),
)
DATA = st.fixed_dictionaries({
    "kind": st.sampled_from(list(KINDS)),
    "form": st.sampled_from(list(FORMS)),
    "dtype": st.sampled_from([np.float64, np.float64, np.float32]),
    "seed": st.integers(0, 9),
    "n": st.integers(2, 40),
    "d": st.integers(1, 5),
})
SEEDS = st.integers(0, 2**16)
LESSONS = {
    "known": lambda rng, X: X[rng.integers(0, len(X), 12)],
    "near": lambda rng, X: X[rng.integers(0, len(X), 12)] * rng.normal(1, 0.1, (12, 1)),
    "few": lambda rng, X: X[:1] + 50 * spread(X),
    "elsewhere": lambda rng, X: X.mean(0) + spread(X) * (30 + rng.normal(size=(20, X.shape[1]))),
    "one column": lambda rng, X: (
        X[rng.integers(0, len(X), 20)] + 40 * spread(X) * (np.arange(X.shape[1]) == 0)
    ),
    "everywhere": lambda rng, X: X.mean(0) + 9 * spread(X) * rng.normal(size=(30, X.shape[1])),
}
BAD_ROWS = {
    "a missing number": lambda X: np.where(np.arange(X.size).reshape(X.shape) == 1, np.nan, X),
    "a column too many": lambda X: np.c_[X, X[:, :1]],
    "one dimension": lambda X: X[:, 0],
    "words": lambda X: [["a"] * X.shape[1]],
    "nothing": lambda X: None,
}
BAD_PARAMETERS = [
    {"perplexity": -1.0},
    {"metric": "nothing of the kind"},
    {"n_components": 7},
    {"projection": "map"},
    {"callbacks": "none"},
]


class Stop(Exception):
    """What a callback raises."""


def names(X):
    return [f"column {i}" for i in range(X.shape[1])]


def dense(X):
    """Rows of any form as an array of the same precision."""
    return X.toarray() if sparse.issparse(X) else np.asarray(X)


def spread(X):
    """Of the rows as a whole, above 0."""
    return float(X.std()) or 1.0


def draws():
    """States of the generators that belong to the caller."""
    name, keys, *rest = np.random.get_state()
    torch_state = torch.get_rng_state().numpy().tobytes()
    return random.getstate(), (name, keys.tobytes(), *rest), torch_state


def facts(map_, rows):
    """All that a fitted map says about rows, bit for bit."""
    why = map_.explain(rows)
    found = {
        "places": map_.transform(rows),
        "weight": why.weight,
        "intercept": why.intercept,
        "baseline": why.baseline,
        "n_active": why.n_active,
        "rows again": map_.reconstruct(rows),
        "trust": np.asarray(why.trust),
    }
    numbers = (map_.kl_divergence_, map_.n_iter_, map_.perplexity_, map_.n_features_in_)
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.items()} | {
        "numbers": numbers,
        "history": str([{**record, "seconds": None} for record in map_.history_]),
        "columns": list(getattr(map_, "feature_names_in_", [])),
        "parameters": {
            name: tuple(value) if isinstance(value, list) else value  # JSON knows no tuples
            for name, value in map_.get_params().items()
        },
    }


def assert_same(found, known):
    """Facts are the same, or those that are not are named."""
    assert {name: found[name] for name in known if found[name] != known[name]} == {}


class Stories(RuleBasedStateMachine):
    """One estimator, and what is known of it."""

    map: ParametricTSNE
    rows: object  # of the last fit, as they were passed
    X: np.ndarray  # the same, dense
    new: object  # rows that no fit has seen, in the same form
    form: object  # makes rows of that form
    seen: np.ndarray  # rows that the map was given and remembers
    known: dict
    fitted: dict  # what was known after the last fit

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.draws = draws()

    def teardown(self):
        self.folder.cleanup()

    @property
    def path(self):
        return Path(self.folder.name) / "model"

    def keep(self, map_):
        """Go on with another estimator, which has to say the same."""
        assert_same(facts(map_, self.new), self.known)
        self.map = map_

    # ---- fitting ----

    @initialize(parameters=PARAMETERS, data=DATA)
    def begin(self, parameters, data):
        self.map = ParametricTSNE()
        self.fit(parameters, data)

    @rule(parameters=PARAMETERS, data=DATA)
    def fit(self, parameters, data):
        rng = np.random.default_rng(data["seed"])
        drawn = KINDS[data["kind"]](rng, data["n"] + N_NEW, data["d"]).astype(data["dtype"])
        form = self.form = FORMS[data["form"]]
        self.rows, self.X, self.new = form(drawn[N_NEW:]), drawn[N_NEW:].copy(), form(drawn[:N_NEW])
        fresh = ParametricTSNE(**parameters)
        places = fresh.fit_transform(self.rows)
        self.map.set_params(**fresh.get_params()).fit(self.rows)
        assert places.dtype == data["dtype"]
        assert places.shape == (data["n"], self.map.n_components)
        assert np.isfinite(places).all()
        np.testing.assert_array_equal(self.map.embedding_, places)
        np.testing.assert_array_equal(self.map.transform(self.rows), places)
        self.start()
        assert_same(facts(fresh, self.new), self.known)

    def start(self):
        """Nothing but a fit has happened."""
        self.seen = self.X
        self.is_lean = self.is_apart = self.is_forgetful = False
        self.known = self.fitted = facts(self.map, self.new)

    @rule()
    def fit_the_clone(self):
        self.map = clone(self.map)
        assert not hasattr(self.map, "network_")
        known = self.fitted
        self.map.fit(self.rows)
        self.start()
        assert_same(self.known, known)

    @rule(parameters=PARAMETERS, data=DATA, n_batches=st.integers(1, 4))
    def fit_a_stream(self, parameters, data, n_batches):
        few = parameters | {"perplexity": [1.5, 3.0]}
        n = 10 + data["n"]
        self.fit(few, data | {"n": n})  # what the stream ends as
        stream = ParametricTSNE(**few)
        for part in np.array_split(self.X[:9], n_batches):
            stream.partial_fit(self.form(part))
            with pytest.raises(NotFittedError):
                stream.transform(self.new)
        stream.partial_fit(self.form(self.X[9:]))
        np.testing.assert_array_equal(stream.embedding_, self.map.embedding_)
        self.keep(stream)

    # ---- new rows join, old rows stay ----

    @property
    def may_learn(self):
        return self.map.projection == "atlas" and self.map.similarity == "student"

    @rule(
        what=st.sampled_from(list(LESSONS)),
        tolerance=st.sampled_from(["auto", "auto", 0.0, 0.5]),
        is_kept=st.booleans(),
        seed=SEEDS,
    )
    def update(self, what, tolerance, is_kept, seed):
        rng = np.random.default_rng(seed)
        lesson = LESSONS[what](rng, self.X.astype(float)).astype(self.X.dtype)
        rows = self.form(lesson)
        watched = np.concatenate([self.seen, dense(self.new)]) if is_kept else self.seen
        before = self.places(watched), getattr(self.map, "embedding_", None)
        if not self.may_learn:
            with pytest.raises(ValueError, match="fit again"):
                self.map.partial_fit(rows)
            return
        if tolerance == "auto" and not is_kept:
            self.map.partial_fit(rows)
        else:
            keep = self.new if is_kept else None
            self.map.update(rows, tolerance=tolerance, keep=keep)
        self.assert_stayed(before, watched, tolerance)
        self.assert_learned(before, lesson, rows)
        self.seen = np.concatenate([self.seen, lesson])
        self.known = facts(self.map, self.new) | self.unmoved()

    def places(self, X):
        """Of rows, of which there may be none."""
        return self.map.transform(X) if len(X) else np.empty((0, self.map.n_components))

    def assert_stayed(self, before, watched, tolerance):
        """Watched rows have moved as little as they may, and as far as the report says."""
        drift, after = self.map.drift_, self.places(watched)
        assert tolerance in {"auto", drift.tolerance}
        assert tolerance != "auto" or drift.tolerance == pytest.approx(drift.spread / 100)
        way = np.linalg.norm(after.astype(float) - before[0], axis=1)
        digits = 1e-9 if self.X.dtype == np.float64 else 1e-3
        room = digits * max(1.0, np.abs(before[0]).max(initial=0))
        assert drift.movement.largest <= drift.tolerance + room
        assert way.max(initial=0) <= drift.tolerance + room
        assert abs(way.max(initial=0) - drift.movement.largest) <= room or self.is_forgetful
        assert drift.movement.n_moved <= drift.movement.n_rows
        assert drift.n_unwatched == 0 or self.is_forgetful
        assert self.is_apart or drift.movement.n_rows == len(watched)

    def assert_learned(self, before, lesson, rows):
        """Places, landmarks and report fit each other, and everything is explained."""
        drift, places = self.map.drift_, self.map.transform(rows)
        assert drift.n_new == len(lesson) >= max(drift.n_novel, drift.n_held)
        assert drift.n_landmarks == len(self.map.landmark_indices_)
        assert drift.n_landmarks == len(self.map.network_.projection.landmarks)
        assert np.isfinite(places).all()
        if not self.is_lean:
            n = len(before[1])
            np.testing.assert_array_equal(self.map.embedding_[n:], places)
            if not self.is_apart:
                np.testing.assert_array_equal(
                    self.map.embedding_[:n], self.map.transform(self.seen)
                )
        why = self.map.explain(rows)
        np.testing.assert_array_equal(why.Y, places)
        digits = 1e-10 if self.X.dtype == np.float64 else 1e-3
        parts = why.weight.astype(float) * lesson[:, None, :].astype(float)
        scale = np.abs(parts).sum(2) + np.abs(why.intercept) + np.abs(why.Y)
        assert (np.abs(parts.sum(2) + why.intercept - why.Y) <= digits * scale).all()

    def unmoved(self):
        """What no update changes."""
        return {name: self.known[name] for name in ("baseline", "numbers", "columns", "parameters")}

    # ---- rows ----

    @rule(seed=SEEDS)
    def place_in_any_order_and_company(self, seed):
        rng = np.random.default_rng(seed)
        pool = np.concatenate([dense(self.new), self.X])
        expected = self.map.transform(pool)
        order = rng.integers(0, len(pool), rng.integers(1, 700))
        np.testing.assert_array_equal(self.map.transform(pool[order]), expected[order])
        one = rng.integers(len(pool))
        np.testing.assert_array_equal(self.map.transform(pool[one : one + 1])[0], expected[one])

    @rule(baseline=st.sampled_from(["mean", "zero", "row"]), seed=SEEDS)
    def explain(self, baseline, seed):
        row = dense(self.new)[seed % N_NEW]
        why = self.map.explain(self.rows, baseline=row if baseline == "row" else baseline)
        np.testing.assert_array_equal(why.Y, self.map.transform(self.rows))
        np.testing.assert_array_equal(why.X, self.X)
        digits = 1e-12 if self.X.dtype == np.float64 else 1e-4
        parts = why.weight.astype(float) * self.X[:, None, :].astype(float)
        scale = np.abs(parts).sum(2) + np.abs(why.intercept) + np.abs(why.Y)
        assert (np.abs(parts.sum(2) + why.intercept - why.Y) <= digits * scale).all()
        alone = self.map.explain(self.X[seed % len(self.X)][None])
        np.testing.assert_allclose(
            alone.weight[0], why.weight[seed % len(self.X)], rtol=digits, atol=digits * scale.max()
        )

    @rule(method=st.sampled_from(["path", "paired"]))
    def explain_all_the_way(self, method):
        why = self.map.explain(self.rows)
        parts = why.displacement([0, len(self.X) - 1], method=method)
        starts = self.map.transform(why.baseline[[0, -1]].astype(float))
        digits = 1e-9 if self.X.dtype == np.float64 else 1e-3
        scale = np.abs(parts).sum(2).max() + np.abs(why.Y).max()
        steep = 1e4 * np.finfo(self.X.dtype).eps * np.abs(self.X).max()  # of rounding in x
        assert np.abs(parts.sum(2) - (why.Y[[0, -1]] - starts)).max() <= digits * scale + steep

    @rule()
    def score_and_invert(self):
        if len(self.X) >= 4:
            assert np.isfinite(self.map.score(self.rows))
        places = self.map.transform(self.new)
        if self.is_apart and self.map._inverse is None:
            with pytest.raises(ValueError, match="pickle or save"):
                self.map.inverse_transform(places)
            return
        back = self.map.inverse_transform(places)
        assert back.shape == dense(self.new).shape
        assert np.isfinite(back).all()

    # ---- files and copies ----

    @rule(landmark_rows=st.booleans(), embedding=st.booleans())
    def save_and_load(self, landmark_rows, embedding):
        self.map.save(self.path, landmark_rows=landmark_rows, embedding=embedding)
        again = ptsne.load(self.path)
        if embedding and not self.is_lean:
            np.testing.assert_array_equal(again.embedding_, self.map.embedding_)
        again.save(self.path.with_suffix(".again"), landmark_rows=landmark_rows)
        assert self.path.with_suffix(".again").read_bytes() == self.path.read_bytes()
        again.set_params(random_state=self.map.random_state)
        self.is_lean |= not embedding
        self.is_apart = True
        if not landmark_rows:  # nor codes: nothing tells what these rows were
            self.is_forgetful, self.seen = True, self.seen[:0]
        self.keep(again)

    @rule(how=st.sampled_from(["pickle", "deepcopy"]))
    def copy(self, how):
        is_pickled = how == "pickle"
        self.is_apart = True  # both leave the rows of fit behind
        self.keep(pickle.loads(pickle.dumps(self.map)) if is_pickled else copy.deepcopy(self.map))

    # ---- what fails ----

    @rule(what=st.sampled_from(list(BAD_ROWS)), call=st.sampled_from(["transform", "explain"]))
    def refuse_rows(self, what, call):
        with pytest.raises((ValueError, TypeError)):
            getattr(self.map, call)(BAD_ROWS[what](dense(self.new)))

    @rule(wrong=st.sampled_from(BAD_PARAMETERS))
    def refuse_parameters(self, wrong):
        before = {name: getattr(self.map, name) for name in wrong}
        with pytest.raises(ValueError, match=next(iter(wrong))):
            self.map.set_params(**wrong).fit(self.rows)
        self.map.set_params(**before)

    @rule(what=st.sampled_from(["a missing number", "one dimension", "nothing"]))
    def refuse_to_fit(self, what):
        with pytest.raises((ValueError, TypeError)):
            self.map.fit(BAD_ROWS[what](self.X))

    @rule()
    def fail_while_fitting(self):
        def fail(record):
            raise Stop

        self.map.set_params(callbacks=fail)
        with pytest.raises(Stop):
            self.map.fit(dense(self.new)[:, :1])
        self.map.set_params(callbacks=None)

    @rule(what=st.sampled_from([*BAD_ROWS, "a tolerance below 0"]))
    def refuse_to_update(self, what):
        before = dict(vars(self.map))
        how = {"tolerance": -1.0} if what not in BAD_ROWS else {}
        bad = BAD_ROWS.get(what, np.asarray)(dense(self.new))
        with pytest.raises((ValueError, TypeError)):
            self.map.update(bad, **how)
        assert vars(self.map) == before

    @precondition(lambda self: self.may_learn and self.known is self.fitted)
    @rule()
    def fail_while_updating(self):
        def fail(record):
            raise Stop

        rows = LESSONS["elsewhere"](np.random.default_rng(0), self.X.astype(float))
        self.map.set_params(callbacks=fail)
        before = dict(vars(self.map))
        with pytest.raises(Stop):
            self.map.update(rows)
        assert vars(self.map) == before
        self.map.set_params(callbacks=None)

    @precondition(lambda self: self.path.exists())
    @rule(at=SEEDS)
    def refuse_a_damaged_file(self, at):
        data = bytearray(self.path.read_bytes())
        data[at % len(data)] ^= 1 + at % 255
        bad = self.path.with_suffix(".bad")
        bad.write_bytes(data)
        with pytest.raises(ValueError, match=r"."):
            ptsne.load(bad)

    # ---- what stays ----

    @invariant()
    def the_map_is_what_it_was(self):
        if hasattr(self, "known"):
            assert_same(facts(self.map, self.new), self.known)

    @invariant()
    def the_callers_rows_are_what_they_were(self):
        if hasattr(self, "known"):
            np.testing.assert_array_equal(dense(self.rows), self.X)

    @invariant()
    def the_callers_generators_are_where_they_were(self):
        assert draws() == self.draws


@QUIET
@SHORT
class TestStories(Stories.TestCase):
    settings = settings(max_examples=10, stateful_step_count=10, database=None)


@QUIET
@SHORT
@pytest.mark.slow
class TestLongStories(Stories.TestCase):
    settings = settings(max_examples=600, stateful_step_count=30)
