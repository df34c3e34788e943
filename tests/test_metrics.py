import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn import manifold
from sklearn.neighbors import KNeighborsClassifier

import reference
from ptsne import metrics
from ptsne.affinities import nearest_neighbors, query_neighbors
from ptsne.metrics import neighborhoods
from ptsne.metrics.agreement import rank_score

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(70, 6))
Y = X[:, :2] + 0.7 * RANDOM.normal(size=(70, 2))
LABELS = np.array(["ant", "bee", "cat"])[(X[:, 0] > -0.4).astype(int) + (X[:, 0] > 0.4)]
HELD_OUT = {"X_train": X[:50], "Y_train": Y[:50]}
NEIGHBORHOOD = [metrics.neighbor_recall, metrics.trustworthiness, metrics.continuity]


# --- twins


@pytest.mark.parametrize("k", [1, 5, 15])
@pytest.mark.parametrize("name", ["neighbor_recall", "trustworthiness"])
def test_neighborhoods_twin(name, k):
    score, twin = getattr(metrics, name), getattr(reference, name)
    assert score(X, Y, n_neighbors=k) == pytest.approx(
        twin(X, Y, k, X, Y, leave_out=True), abs=1e-12
    )
    found = score(X[50:], Y[50:], n_neighbors=k, **HELD_OUT)
    assert found == pytest.approx(
        twin(X[50:], Y[50:], k, X[:50], Y[:50], leave_out=False), abs=1e-12
    )


@pytest.mark.parametrize("k", [1, 5, 15])
def test_continuity_twin(k):
    expected = reference.trustworthiness(Y, X, k, Y, X, leave_out=True)
    assert metrics.continuity(X, Y, n_neighbors=k) == pytest.approx(expected, abs=1e-12)
    expected = reference.trustworthiness(Y[50:], X[50:], k, Y[:50], X[:50], leave_out=False)
    found = metrics.continuity(X[50:], Y[50:], n_neighbors=k, **HELD_OUT)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_trustworthiness_agrees_with_sklearn(metric):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 10))
    places = rows @ rng.normal(size=(10, 2))
    found = metrics.trustworthiness(rows, places, n_neighbors=12, metric=metric)
    judge = manifold.trustworthiness(rows, places, n_neighbors=12, metric=metric)
    assert found == pytest.approx(judge, abs=1e-12)
    exchanged = manifold.trustworthiness(places, rows, n_neighbors=12)
    assert metrics.continuity(rows, places, n_neighbors=12) == pytest.approx(exchanged, abs=1e-12)


def test_knn_accuracy_agrees_with_sklearn():
    vote = KNeighborsClassifier(n_neighbors=7).fit(Y[:50], LABELS[:50])
    found = metrics.knn_accuracy(
        Y[50:], LABELS[50:], n_neighbors=7, Y_train=Y[:50], labels_train=LABELS[:50]
    )
    assert found == vote.score(Y[50:], LABELS[50:])
    correct = [
        KNeighborsClassifier(n_neighbors=7)
        .fit(np.delete(Y, i, axis=0), np.delete(LABELS, i))
        .predict(Y[[i]])[0]
        == LABELS[i]
        for i in range(70)
    ]
    assert metrics.knn_accuracy(Y, LABELS, n_neighbors=7) == np.mean(correct)


def test_knn_accuracy_of_classes_the_voters_lack():
    found = metrics.knn_accuracy(
        Y[50:], ["dog"] * 20, n_neighbors=3, Y_train=Y[:50], labels_train=LABELS[:50]
    )
    assert found == 0


def test_distance_correlation_agrees_with_scipy():
    judge = spearmanr(pdist(X), pdist(Y)).statistic
    assert metrics.distance_correlation(X, Y) == pytest.approx(judge, abs=1e-12)
    drawn = metrics.distance_correlation(X, Y, n_pairs=2000, random_state=0)
    assert drawn != pytest.approx(judge, abs=1e-12)
    assert drawn == pytest.approx(judge, abs=0.06)


def test_triplet_accuracy_twin():
    agreed = 0
    for i in range(70):
        in_data = [reference.distance(X[i], x, "euclidean") for x in X]
        in_map = [reference.distance(Y[i], y, "euclidean") for y in Y]
        others = [j for j in range(70) if j != i]
        agreed += sum(
            (in_data[j] < in_data[m]) == (in_map[j] < in_map[m])
            for j in others
            for m in others
            if j != m
        )
    expected = agreed / (70 * 69 * 68)
    found = metrics.triplet_accuracy(X, Y, n_triplets=200_000, random_state=0)
    assert found == pytest.approx(expected, abs=4e-3)  # four standard errors


@pytest.mark.parametrize("leave_out", [True, False])
def test_local_fidelity_twin(leave_out):
    W = RANDOM.normal(size=(70, 2, 6))
    part, train = (slice(70), {}) if leave_out else (slice(50, 70), HELD_OUT)
    rows, places = train.get("X_train", X), train.get("Y_train", Y)
    found = metrics.local_fidelity(W[part], X[part], Y[part], n_neighbors=4, **train)
    expected = reference.local_fidelity(
        W[part], X[part], Y[part], 4, rows, places, leave_out=leave_out
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_rows_at_one_distance_share_the_best_rank(metric, held_out):
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 4, size=(300, 8)) / 4.0  # many ties, exact in float64
    places = rng.normal(size=(300, 2))
    train = {"X_train": rows[:200], "Y_train": places[:200]} if held_out else {}
    part, n = (slice(200, None), 200) if held_out else (slice(None), 300)
    whole = np.rint(4 * rows).astype(int)
    gap = whole[part, None] - whole[None, :n]
    far = (gap**2).sum(axis=2) if metric == "euclidean" else np.abs(gap).sum(axis=2)
    way = np.linalg.norm(places[part, None] - places[None, :n], axis=2)
    if not held_out:
        np.fill_diagonal(way, np.inf)
        np.fill_diagonal(far, 99)
    chosen = np.argsort(way, axis=1)[:, :7]
    ranks = 1 + (far[:, None] < np.take_along_axis(far, chosen, axis=1)[:, :, None]).sum(axis=2)
    expected = rank_score(ranks, n - (not held_out))
    found = metrics.trustworthiness(rows[part], places[part], n_neighbors=7, metric=metric, **train)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("widest", "sorted_below"), [(0, 4096), (256, 4096), (256, 0)])
def test_ranks_are_those_of_float64(widest, sorted_below, monkeypatch):
    monkeypatch.setattr(neighborhoods, "WIDEST_BAND", widest)
    monkeypatch.setattr(neighborhoods, "SORTED_BELOW", sorted_below)
    rng = np.random.default_rng(3)
    rows = 1e3 + rng.normal(size=(400, 30)).astype(np.float32)  # far from 0: float32 is coarse
    rows[:40] = rows[40:80] + 1e-4 * rng.normal(size=(40, 30)).astype(np.float32)
    rows[80:90] = rows[90:100]
    chosen = np.array([rng.permutation(np.delete(np.arange(400), i))[:9] for i in range(400)])
    exact = rows.astype(np.float64)
    far = np.array([np.linalg.norm(exact - row, axis=1) for row in exact])
    np.fill_diagonal(far, np.inf)
    expected = 1 + (far[:, None] < np.take_along_axis(far, chosen, axis=1)[:, :, None]).sum(axis=2)
    pairs = neighborhoods.Pairs.of(rows, None, "euclidean")
    np.testing.assert_array_equal(neighborhoods.ranks_of(pairs, chosen), expected)
    found, ranks = neighborhoods.neighbors_and_ranks(pairs, 12, chosen)
    np.testing.assert_array_equal(ranks, expected)
    near = nearest_neighbors(rows, 12, method="exact")
    np.testing.assert_array_equal(found.distances, near.distances)
    np.testing.assert_array_equal(found.indices, near.indices)


def test_rows_that_float32_cannot_rank_are_sought_in_float64(monkeypatch):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(200, 6)) + np.repeat([[0.0], [3e3]], 100, axis=0)
    far = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    chosen = np.argsort(far, axis=1)[:, 1:8]
    pairs = neighborhoods.Pairs.of(rows, None, "euclidean")
    repeated = []
    exact_score = neighborhoods.exact_score
    monkeypatch.setattr(
        neighborhoods, "exact_score", lambda *a: repeated.append(1) or exact_score(*a)
    )
    found, ranks = neighborhoods.neighbors_and_ranks(pairs, 7, chosen)
    assert repeated
    np.testing.assert_array_equal(found.indices, chosen)
    np.testing.assert_array_equal(ranks, np.tile(np.arange(1, 8), (200, 1)))


def test_the_neighbors_of_a_map_are_those_of_a_search():
    places = np.vstack([Y, Y[:5], Y[:5]])  # three rows at one place
    map_neighbors = neighborhoods.map_neighbors
    in_map = map_neighbors(places, None, 6)
    assert not np.any(in_map == np.arange(80)[:, None])
    for found, judge in [
        (in_map, nearest_neighbors(places, 6).indices),
        (
            neighborhoods.map_neighbors(Y[50:], Y[:50], 1),
            query_neighbors(Y[:50], Y[50:], 1).indices,
        ),
    ]:
        start = places if len(found) == 80 else Y[50:]
        ways = [np.linalg.norm(places[table] - start[:, None], axis=2) for table in (found, judge)]
        np.testing.assert_allclose(*ways, atol=1e-15)


# --- the ends of the scale


@pytest.mark.parametrize("score", NEIGHBORHOOD)
@pytest.mark.parametrize("train", [{}, {"X_train": X[:50], "Y_train": X[:50]}])
def test_a_perfect_map_scores_1(score, train):
    assert (
        score(X, 3 * X - 2, **{k: 3 * v - 2 if k == "Y_train" else v for k, v in train.items()})
        == 1
    )


def test_a_perfect_map_orders_distances():
    assert metrics.distance_correlation(X, 2 * X + 1) == pytest.approx(1, abs=1e-12)
    assert metrics.triplet_accuracy(X, 2 * X + 1, random_state=0) == 1
    assert metrics.triplet_accuracy(X, np.zeros((70, 2)), random_state=0) == 0.5


def test_a_random_map_scores_chance():
    rng = np.random.default_rng(0)
    rows, places = rng.normal(size=(1500, 20)), rng.normal(size=(1500, 2))
    labels = rng.integers(0, 4, size=1500)
    assert metrics.neighbor_recall(rows, places) == pytest.approx(15 / 1499, abs=3e-3)
    assert metrics.trustworthiness(rows, places) == pytest.approx(0.5, abs=0.02)
    assert metrics.continuity(rows, places) == pytest.approx(0.5, abs=0.02)
    assert metrics.distance_correlation(rows, places, random_state=0) == pytest.approx(0, abs=0.03)
    assert metrics.triplet_accuracy(rows, places, random_state=0) == pytest.approx(0.5, abs=0.02)
    assert metrics.knn_accuracy(places, labels) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("k", [1, 2])
def test_the_worst_map_scores_0(k):
    line = np.arange(1.0, 5.0)[:, None]  # seen from 0, the map turns it round
    worst = {"X_train": line, "Y_train": line[::-1], "n_neighbors": k}
    assert metrics.trustworthiness([[0.0]], [[0.0]], **worst) == 0
    assert metrics.continuity([[0.0]], [[0.0]], **worst) == 0
    assert metrics.neighbor_recall([[0.0]], [[0.0]], **worst) == 0


def test_fidelity_of_a_linear_map_is_1():
    A = RANDOM.normal(size=(2, 6))
    W = np.broadcast_to(A, (70, 2, 6))
    np.testing.assert_allclose(metrics.local_fidelity(W, X, X @ A.T), 1, atol=1e-12)
    torn = X @ A.T
    torn[:3] += 1000  # torn pairs are few: they fall into the tenth that is left out
    assert metrics.local_fidelity(W, X, torn).r2 == pytest.approx(1, abs=1e-12)


def test_fidelity_of_no_map_is_0():
    nothing = metrics.local_fidelity(np.zeros((70, 2, 6)), X, Y)
    assert nothing == (0, 0, 0)
    collapsed = np.zeros((70, 2))
    assert metrics.local_fidelity(np.zeros((70, 2, 6)), X, collapsed).r2 == 1
    assert metrics.local_fidelity(np.ones((70, 2, 6)), X, collapsed).r2 == -np.inf


def test_rank_deficient_counts():
    W = RANDOM.normal(size=(5, 2, 6))
    W[0, 1] = 3 * W[0, 0]
    W[2] = 0
    W[3, 1] = 1e-5 * W[3, 1]
    assert metrics.rank_deficient(W) == 2
    assert metrics.rank_deficient(W, rtol=1e-3) == 3
    assert metrics.rank_deficient(W[:, :, :1]) == 1  # one feature: rank 1 is all there can be


# --- kinds of input


@pytest.mark.parametrize("score", [*NEIGHBORHOOD, metrics.distance_correlation])
def test_sparse_rows_score_the_same(score):
    assert score(sparse.csr_array(X), Y) == pytest.approx(score(X, Y), abs=1e-12)
    assert score(X.tolist(), Y.tolist()) == score(X, Y)


@pytest.mark.parametrize("score", [metrics.neighbor_recall, metrics.trustworthiness])
def test_sparse_rows_are_compared_with_dense_ones(score):
    thin = score(sparse.csr_array(X[50:]), Y[50:], **HELD_OUT)
    assert thin == pytest.approx(score(X[50:], Y[50:], **HELD_OUT), abs=1e-12)


def test_sparse_fidelity():
    W = RANDOM.normal(size=(70, 2, 6))
    expected = metrics.local_fidelity(W, X, Y)
    np.testing.assert_allclose(metrics.local_fidelity(W, sparse.csr_array(X), Y), expected)
    bytes_ = RANDOM.integers(0, 255, size=(70, 6)).astype(np.uint8)  # differences must not wrap
    expected = metrics.local_fidelity(W, bytes_.astype(float), Y)
    np.testing.assert_allclose(metrics.local_fidelity(W, bytes_, Y), expected)


def test_duplicates_do_not_break_the_scores():
    rows = np.repeat(X[:20], 3, axis=0)
    places = np.repeat(Y[:20], 3, axis=0)
    for score in NEIGHBORHOOD:
        assert 0 <= score(rows, places, n_neighbors=5) <= 1
    assert np.isnan(metrics.distance_correlation(rows, np.zeros((60, 2))))


def test_blocks_do_not_matter(monkeypatch):
    whole = metrics.trustworthiness(X, Y)
    monkeypatch.setattr("ptsne.affinities.scan._BLOCK_BYTES", 1000)
    assert metrics.trustworthiness(X, Y) == whole


def test_draws_are_the_callers():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    for score in (metrics.distance_correlation, metrics.triplet_accuracy):
        keyword = "n_pairs" if score is metrics.distance_correlation else "n_triplets"
        scores = [score(X, Y, random_state=seed, **{keyword: 99}) for seed in (0, 0, 1, 2, 3)]
        assert scores[0] == scores[1]
        assert len(set(scores)) > 1
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


# --- refusals


def test_refusals():
    with pytest.raises(ValueError, match="got 70 and 69"):
        metrics.neighbor_recall(X, Y[:69])
    with pytest.raises(ValueError, match="both or none"):
        metrics.trustworthiness(X, Y, X_train=X)
    with pytest.raises(ValueError, match="at most half of the 69"):
        metrics.trustworthiness(X, Y, n_neighbors=35)
    with pytest.raises(ValueError, match=r"W must have shape \(70, 2, 6\)"):
        metrics.local_fidelity(np.zeros((70, 6)), X, Y)
    with pytest.raises(ValueError, match="has 5 columns but X_train has 6"):
        metrics.neighbor_recall(X[50:, :5], Y[50:], **HELD_OUT)
    with pytest.raises(ValueError, match=r"^X has 5 columns but X_train has 6"):
        metrics.trustworthiness(X[50:, :5], Y[50:], **HELD_OUT)
    with pytest.raises(ValueError, match="at least 3 rows"):
        metrics.triplet_accuracy(X[:2], Y[:2])
    with pytest.raises(ValueError, match="metric must be one of"):
        metrics.neighbor_recall(X, Y, metric="hamming")
