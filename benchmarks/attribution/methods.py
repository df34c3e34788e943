"""Methods that explain: rows and baselines in, displacement of each output by each feature out.

A method is a function ``(map_, x, r) -> Attribution`` of rows x (N, D) and their baselines r
(N, D); ``r=None`` is the mean of the training rows, and then methods that want a background get
training rows instead. All compute in float64.
"""

import warnings
from typing import NamedTuple

import captum.attr
import numpy as np
import shap
import torch
from torch import Tensor, nn

from attribution.problems import places
from ptsne import linearize
from ptsne.explanation.paired import paired_maps
from ptsne.regions import integrated_gradients

N_BACKGROUND = 50
N_SAMPLES = 200
KERNEL_SAMPLES = 2**10


class Attribution(NamedTuple):
    """What one method says about rows.

    Attributes
    ----------
    values : Tensor of shape (N, K, D)
        Displacement of each output by each feature.
    origin : Tensor of shape (N, K)
        Place from which the method claims to explain the way.
    slope : Tensor of shape (N, K, D) or None
        Map units per unit of a feature, for methods that have one.
    """

    values: Tensor
    origin: Tensor
    slope: Tensor | None


class Output(nn.Module):
    """One output of a map."""

    def __init__(self, network, k):
        super().__init__()
        self.network, self.k = network, k

    def forward(self, x):
        return self.network(x)[:, self.k : self.k + 1]


def rows_of(map_, x, r):
    """Baselines, one per row."""
    return (map_.baseline if r is None else r).expand_as(x).contiguous()


def _by_slope(map_, x, r, slope):
    return Attribution(slope * (x - r)[:, None], places(map_.network, r), slope)


def _by_parts(map_, x, r, values):
    step = (x - r)[:, None].expand_as(values)
    moved = step != 0
    slope = torch.where(moved, values / torch.where(moved, step, 1.0), 0.0)
    return Attribution(values, places(map_.network, r), slope)


# --- ours -----------------------------------------------------------------------------------------


def local(map_, x, r=None):
    return _by_slope(map_, x, rows_of(map_, x, r), linearize(map_.network, x).weight())


def path(map_, x, r=None):
    r = rows_of(map_, x, r)
    n_outputs = places(map_.network, x[:1]).shape[1]
    outputs = [Output(map_.network, k).eval() for k in range(n_outputs)]
    values = torch.stack([integrated_gradients(output, x, r, 0) for output in outputs], 1)
    return _by_parts(map_, x, r, values)


def paired(map_, x, r=None):
    r = rows_of(map_, x, r)
    return _by_slope(map_, x, r, paired_maps(map_.network, r, x))


# --- captum ---------------------------------------------------------------------------------------


def _of_each_output(map_, x, attribute):
    n_outputs = places(map_.network, x[:1]).shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum tells of its hooks at each call
        parts = [attribute(x.clone().requires_grad_(), k).detach() for k in range(n_outputs)]
    return torch.stack(parts, 1)


def integrated_gradients_50(map_, x, r=None):
    r = rows_of(map_, x, r)
    judge = captum.attr.IntegratedGradients(map_.network)
    values = _of_each_output(
        map_,
        x,
        lambda leaf, k: judge.attribute(leaf, r, target=k, n_steps=50, internal_batch_size=5000),
    )
    return _by_parts(map_, x, r, values)


def deep_lift(map_, x, r=None):
    r = rows_of(map_, x, r)
    judge = captum.attr.DeepLift(map_.network)
    values = _of_each_output(map_, x, lambda leaf, k: judge.attribute(leaf, r, target=k))
    return _by_parts(map_, x, r, values)


def input_x_gradient(map_, x, r=None):  # noqa: ARG001 - it knows of no baseline but zero
    judge = captum.attr.InputXGradient(map_.network)
    values = _of_each_output(map_, x, lambda leaf, k: judge.attribute(leaf, target=k))
    return _by_parts(map_, x, torch.zeros_like(x), values)


# --- shap -----------------------------------------------------------------------------------------


def _background(map_):
    rows = np.random.default_rng(0).permutation(len(map_.X_train))[:N_BACKGROUND]
    return map_.X_train[rows]


def _by_shap(map_, x, r, explain):
    """One background for all rows, or the baseline of each row as its own."""
    if r is None:
        background = _background(map_)
        values = explain(background, x)
        origin = places(map_.network, background).mean(0).expand(len(x), -1)
        return Attribution(_outputs_first(values), origin, None)
    r = rows_of(map_, x, r)
    values = np.concatenate([explain(r[i : i + 1], x[i : i + 1]) for i in range(len(x))])
    return Attribution(_outputs_first(values), places(map_.network, r), None)


def _outputs_first(values):
    return torch.from_numpy(np.asarray(values, dtype=np.float64)).movedim(2, 1).contiguous()


def shap_gradient(map_, x, r=None):
    def explain(background, rows):
        judge = shap.GradientExplainer(map_.network, background, batch_size=N_SAMPLES)
        return judge.shap_values(rows, nsamples=N_SAMPLES, rseed=0)

    return _by_shap(map_, x, r, explain)


def shap_deep(map_, x, r=None):
    def explain(background, rows):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # modules that it does not know get the plain gradient
            judge = shap.DeepExplainer(map_.network, background)
            return judge.shap_values(rows, check_additivity=False)

    return _by_shap(map_, x, r, explain)


def shap_kernel(map_, x, r=None):
    """From the baseline itself: Shapley's values, exact up to 10 columns, else sampled."""
    r = rows_of(map_, x, r)

    def predict(rows):
        return places(map_.network, torch.from_numpy(np.asarray(rows, dtype=np.float64))).numpy()

    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row, baseline in zip(x, r, strict=True):
            judge = shap.KernelExplainer(predict, baseline[None].numpy(), silent=True)
            values.append(
                judge.shap_values(row[None].numpy(), nsamples=KERNEL_SAMPLES, silent=True)
            )
    return Attribution(_outputs_first(np.concatenate(values)), places(map_.network, r), None)


OURS = {"path": path, "paired": paired, "local": local}
PEERS = {
    "captum IG, 50 steps": integrated_gradients_50,
    "captum DeepLift": deep_lift,
    "captum InputXGradient": input_x_gradient,
    "SHAP Gradient": shap_gradient,
    "SHAP Deep": shap_deep,
    "SHAP Kernel": shap_kernel,
}
METHODS = {**{f"ours: {name}": method for name, method in OURS.items()}, **PEERS}
MOST_COLUMNS = {"SHAP Kernel": 30}


def names_for(n_columns, methods=METHODS):
    """Methods that can be afforded for so many columns."""
    return [name for name in methods if n_columns <= MOST_COLUMNS.get(name, n_columns)]


def shares(attribution, way):
    """Signed share of each feature in the way (N, K): its displacement along it, (N, D)."""
    along = torch.einsum("nkd,nk->nd", attribution.values, way)
    return along / way.square().sum(1, keepdim=True)
