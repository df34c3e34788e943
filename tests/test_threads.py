"""Eight threads on one map and on one network: the bits of one thread alone."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from ptsne import ParametricTSNE, linearize, paired_linearization
from ptsne.linearize.settings import SharedSetting
from ptsne.regions import integrated_gradients, region_radius

X = load_iris().data
N_THREADS, N_ROUNDS = 8, 3


def arrays(value):
    """All arrays of an answer."""
    if isinstance(value, (tuple, list)):
        return [array for v in value for array in arrays(v)]
    return arrays(list(value.values())) if isinstance(value, dict) else [np.asarray(value)]


def is_same(found, expected, tolerance):
    pairs = zip(arrays(found), arrays(expected), strict=True)
    if tolerance:
        return all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)
    return all((a.dtype, a.tobytes()) == (b.dtype, b.tobytes()) for a, b in pairs)


def settings():
    """The caller's generator and torch's flags."""
    flags = torch.backends.cuda
    attention = (
        flags.flash_sdp_enabled(),
        flags.math_sdp_enabled(),
        flags.mem_efficient_sdp_enabled(),
    )
    return torch.get_rng_state().tolist(), torch.backends.mkldnn.enabled, attention


def hammer(questions, tolerance=0.0):
    """Ask from many threads at once, in other orders; every answer has to be that of one thread."""
    before = settings()
    alone = {name: ask() for name, ask in questions.items()}
    start = threading.Barrier(N_THREADS)

    def work(number):
        order = random.Random(number)
        start.wait()
        asked = [name for _ in range(N_ROUNDS) for name in order.sample(sorted(questions), 3)]
        return {n for n in asked if not is_same(questions[n](), alone[n], tolerance)}

    with ThreadPoolExecutor(N_THREADS) as pool:
        wrong = set().union(*pool.map(work, range(N_THREADS)))
    assert not wrong
    assert settings() == before


def encoder_of_ones_own():
    """The same in every run: some random starts have no open ReLU for most rows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"encoder": (8,), "projection": (8,)},
        {"encoder": encoder_of_ones_own()},
    ],
    ids=["atlas", "mlp", "module"],
)
def map_(request):
    return ParametricTSNE(perplexity=10, max_iter=20, random_state=0, **request.param).fit(X)


def test_a_map_answers_many_threads(map_):
    why = map_.explain(X[:20])

    def explained(rows, **options):
        found = map_.explain(rows, **options)
        return found.weight, found.intercept, found.baseline, found.n_active

    hammer({
        "places": lambda: map_.transform(X),
        "one row": lambda: map_.transform(X[7:8]),
        "float32": lambda: map_.transform(X.astype(np.float32)),
        "explain": lambda: explained(X[:30]),
        "explain float32": lambda: explained(X[:9].astype(np.float32), baseline="zero"),
        "tangent": lambda: explained(X[20:50], method="tangent"),
        "way": lambda: why.displacement([0, 3]),
        "paired": lambda: why.displacement(method="paired"),
        "contrast": lambda: why.contrast(0, 19),
        "radius": why.radius,
        "chain": lambda: (*why.encoder, *why.projection),
        "trust": lambda: tuple(why.trust),
        "rows again": lambda: map_.reconstruct(X),
        "back": lambda: map_.inverse_transform(why.Y),
    })


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0].mean(1)


class Draws(nn.Module):
    """Takes its gates from torch's global generator."""

    def forward(self, x):
        return x * torch.rand(3, 1, device=x.device, dtype=x.dtype).sum()


def networks():
    torch.manual_seed(3)
    return {
        "perceptron": (nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 4)), (5, 6)),
        "normalised": (
            nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), (5, 6),
        ),
        "convolution": (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
            (4, 3, 6, 6),
        ),
        "attention": (Attends(), (2, 5, 8)),
        "recurrent": (nn.Sequential(nn.LSTM(6, 4, batch_first=True), First()), (3, 5, 6)),
        "random": (nn.Sequential(nn.Linear(6, 4), Draws(), nn.Linear(4, 2)), (3, 6)),
    }  # fmt: skip


class First(nn.Module):
    def forward(self, states):
        return states[0][:, -1]


# Of some operations torch has two kernels and one switch for all threads: while one of them needs
# the other kernel, the last digits of the others are that kernel's.
TOLERANCE = {("attention", torch.float64): 1e-12, ("attention", torch.float32): 1e-4,
             ("convolution", torch.float32): 1e-4, ("recurrent", torch.float32): 1e-4}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", networks())
def test_a_network_is_shared_by_many_threads(name, dtype):
    network, shape = networks()[name]
    network = network.to(dtype).eval()
    x, r = torch.randn(2, *shape, dtype=dtype).unbind()
    parameters = {n: (p, p.clone()) for n, p in network.named_parameters()}
    first = next(name for name, module in network.named_modules() if name)
    questions = {
        "W": lambda: linearize(network, x).weight(),
        "b": lambda: linearize(network, x).bias_terms("predicted"),
        "parts": lambda: linearize(network, x).linear_part(),
        "layer": lambda: linearize(network, x, layers=[first]).layer(first).contribution(0),
        "tangent": lambda: linearize(network, x[:1], activation="tangent").weight(),
    }
    if name in ("convolution", "perceptron"):
        questions["output"] = lambda: network(x).detach()
    if name not in ("recurrent", "random"):
        questions["paired"] = lambda: paired_linearization(network, x, r).weight()
    if name in ("normalised", "convolution"):
        questions["radius"] = lambda: tuple(region_radius(network, x))[:2]
        questions["path"] = lambda: integrated_gradients(network, x, r, 0)
    hammer(questions, TOLERANCE.get((name, dtype), 0.0))
    assert all(p is dict(network.named_parameters())[n] for n, (p, _) in parameters.items())
    assert all((p == q).all() and p.requires_grad for p, q in parameters.values())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_maps_are_fitted_in_threads_as_alone():
    before = torch.get_rng_state()

    def fit(seed):
        map_ = ParametricTSNE(perplexity=10, max_iter=4, encoder=(4,), random_state=seed)
        return map_.fit(X).embedding_.tobytes()

    alone = [fit(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fit, [0, 1, 2, 3] * 2)) == alone * 2
    assert (torch.get_rng_state() == before).all()


def test_a_setting_is_back_when_the_last_thread_leaves():
    flag = ["before"]

    @contextmanager
    def set_flag():
        before, flag[0] = flag[0], "wanted"
        yield
        flag[0] = before

    setting, inside, go = SharedSetting(set_flag), threading.Barrier(3), threading.Event()

    def work():
        with setting.on():
            inside.wait()
            go.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    with setting.on():
        pass
    assert flag == ["wanted"]
    go.set()
    for thread in threads:
        thread.join()
    assert flag == ["before"]
