"""What `test_simulated_cuda` runs: the package on a simulated GPU, beside the same on the CPU.

Started by ``python tests/simulated_cuda.py tests/simulated_fits.py outcomes.json``.
"""

import json
import math
import sys
import traceback
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from torch import nn

import ptsne
from cases import CASES
from ptsne.affinities import nearest_neighbors, query_neighbors
from ptsne.training import Checkpoint

DIGITS = load_digits().data[:300]
GPU = "cuda:1"  # a tensor that is made on "cuda" is on the other one
DEVICES = GPU, "cpu"


def clusters(n):
    rng = np.random.default_rng(0)
    centres = rng.normal(scale=3, size=(20, 30))
    return (centres[rng.integers(20, size=n)] + rng.normal(size=(n, 30))).astype("f4")


def fit(device, X=DIGITS, y=None, **parameters):
    parameters = {"max_iter": 40, "random_state": 0, **parameters}
    return ptsne.ParametricTSNE(device=device, **parameters).fit(X, y)


def same(X=DIGITS, y=None, **parameters):
    """A map of the GPU is as good as that of the CPU, and exact about itself."""
    on_gpu, on_cpu = (fit(device, X, y, **parameters) for device in DEVICES)
    np.testing.assert_allclose(on_gpu.kl_divergence_, on_cpu.kl_divergence_, rtol=0.05)
    np.testing.assert_array_equal(on_gpu.transform(X[:20]), on_gpu.embedding_[:20])
    assert on_gpu.explain(X[:10]).residual.max() < (1e-12 if X.dtype == float else 1e-4)


def network(n_in, n_out):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n_in, 16), nn.ReLU(), nn.Linear(16, n_out)).double()


def read_only():
    X = DIGITS.copy()
    X.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(X)


def rows_on_the_gpu():
    X = torch.from_numpy(DIGITS)
    map_ = fit(GPU, X.cuda())
    np.testing.assert_array_equal(map_.transform(X.cuda()), map_.transform(DIGITS))


def grown():
    map_ = fit(GPU).update(DIGITS[:100] + 20)
    assert np.isfinite(map_.transform(DIGITS)).all()
    assert np.isfinite(map_.inverse_transform(map_.embedding_[:3])).all()


def stored():
    file = Path(sys.argv[1]).with_name("map.ptsne")
    map_ = fit(GPU)
    map_.save(file)
    for device in DEVICES:
        again = ptsne.load(file).set_params(device=device)
        np.testing.assert_allclose(again.transform(DIGITS), map_.embedding_, rtol=1e-9)


def resumed():
    """A fit that was cut off ends with the bits of one that was not."""
    file = Path(sys.argv[1]).with_name("cut.ckpt")

    def cut(record):
        if record.phase == "fine-tuning" and record.iteration >= 20:
            raise InterruptedError

    kept_at_every_step = mock.patch.multiple(Checkpoint, seconds=0.0, share=math.inf)
    for options in ({}, {"projection": (16,)}, {"memory_budget": "80MiB"}):
        parameters, heard = {"max_iter": 60, **options}, []
        with kept_at_every_step, pytest.raises(InterruptedError):
            fit(GPU, checkpoint=file, callbacks=cut, **parameters)
        again = fit(GPU, checkpoint=file, callbacks=heard.append, **parameters)
        assert heard[0].phase == "fine-tuning", heard[0]
        np.testing.assert_array_equal(again.embedding_, fit(GPU, **parameters).embedding_)


def neighbours():
    X = clusters(3000)
    for metric in ("euclidean", "cosine", "manhattan"):
        of = [nearest_neighbors(X, 30, metric=metric, device=device) for device in DEVICES]
        np.testing.assert_array_equal(of[0].indices, of[1].indices)
        of = [query_neighbors(X, X[:50] + 1, 30, metric=metric, device=d) for d in DEVICES]
        np.testing.assert_array_equal(of[0].indices, of[1].indices)
    cells = nearest_neighbors(X, 30, method="cells", device=GPU).indices
    exact = nearest_neighbors(X, 30, device="cpu").indices
    assert np.mean([len(set(a) & set(b)) / 30 for a, b in zip(cells, exact, strict=True)]) > 0.95


def explanations():
    map_ = fit(GPU)
    why = map_.explain(DIGITS[:20])
    assert (why.radius() >= 0).all()
    assert np.isfinite(why.local_fidelity()).all()
    assert np.isfinite(why.contrast(0, 1, method="path")).all()
    why.counterfactual(0, map_.embedding_[5])
    assert len(why.trust.percentile) == len(why.landmarks.indices) == 20


def classifier():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(100, 10)).double().eval()
    x, y = torch.rand(20, 1, 12, 12).double(), torch.arange(20) % 10
    rates = ptsne.label_flip_rate(model, x, y, batch_size=7)
    assert ptsne.label_flip_rate(model.to(GPU), x, y, batch_size=7) == rates
    assert ptsne.split_prediction(model, x.to(GPU)).wx.is_cuda


def linearizer():
    """Every case whose own constants are where its input is."""
    n = 0
    for case in CASES:
        model, x = case.model(), case.x(3)
        expected = ptsne.linearize(model, x)
        W, b = expected.weight(), expected.bias()
        model, x = model.to(GPU), x.to(GPU)
        try:
            is_whole = model(x).is_cuda
        except RuntimeError:
            continue
        if is_whole:
            found = ptsne.linearize(model, x)
            torch.testing.assert_close(found.weight().cpu(), W, msg=case.name)
            torch.testing.assert_close(found.bias().cpu(), b, msg=case.name)
            n += 1
    assert n > 250, n


def steps_hardly_wait():
    counts = {"places": [], "fine-tuning": []}
    fit(
        GPU,
        max_iter=60,
        callbacks=lambda r: counts.get(r.phase, []).append((r.iteration, torch.cuda.waits())),
    )
    for phase, most in (("places", 0.2), ("fine-tuning", 4)):
        (first, before), *_, (last, after) = counts[phase]
        assert (after - before) / (last - first) <= most, (phase, counts[phase])


RUNS = {
    "default": same,
    "float32": lambda: same(DIGITS.astype("f4")),
    "the grid of the repulsion": lambda: same(clusters(4200), max_iter=8),
    "three components": lambda: same(n_components=3),
    "ReLU network": lambda: same(projection=(16,)),
    "modules": lambda: same(encoder=network(64, 9), projection=network(9, 2), latent_dim=9),
    "no encoder": lambda: same(encoder=None),
    "wide encoder": lambda: same(encoder=(32, 16), reconstruction_weight=0.1),
    "cosine": lambda: same(metric="cosine"),
    "manhattan": lambda: same(metric="manhattan"),
    "several perplexities": lambda: same(perplexity=[5, 30]),
    "Gaussian kernel": lambda: same(similarity="gaussian"),
    "sparse": lambda: same(sparse.csr_matrix(DIGITS)),
    "labels": lambda: same(y=load_digits().target[:300], target_weight=0.5),
    "memory budget": lambda: same(memory_budget="80MiB"),
    "read-only rows": read_only,
    "rows on the GPU": rows_on_the_gpu,
    "grown": grown,
    "stored": stored,
    "resumed": resumed,
    "neighbours": neighbours,
    "explanations": explanations,
    "classifier": classifier,
    "linearizer": linearizer,
    "steps hardly wait": steps_hardly_wait,
}


def outcome(run):
    try:
        run()
    except Exception:
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(sys.argv[1]).write_text(json.dumps({name: outcome(run) for name, run in RUNS.items()}))
