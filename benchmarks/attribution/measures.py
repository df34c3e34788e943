"""How right an explanation is, asked of the map itself: no labels, no opinion."""

import numpy as np
import torch

from attribution.methods import shares
from attribution.problems import places
from ptsne.metrics import local_fidelity

N_MASKS = 100
N_NOISES = 100
NOISE = 0.1  # standard deviations of each column
N_SENSITIVITY = 5
SENSITIVITY_ROWS = 20
SENSITIVITY_RADIUS = 0.05  # standard deviations of each column
N_STEPS = 50


def completeness(map_, x, attribution):
    """``|y - origin - sum of parts| / |y - origin|``, (N,)."""
    way = places(map_.network, x) - attribution.origin
    gap = way - attribution.values.sum(2)
    return gap.norm(dim=1) / way.norm(dim=1)


def infidelity_to_baseline(map_, x, attribution, rng):
    """Yeh et al. 2019, eq. 1, with subsets of features set to the baseline, (N,)."""
    # relative to the mean square of what the subsets really do: an explanation of zeros has 1
    y = places(map_.network, x)
    ratios = []
    for row, place, parts in zip(x, y, attribution.values, strict=True):
        masks = torch.from_numpy(_subsets(rng, x.shape[1]))  # (N_MASKS, D)
        actual = place - places(map_.network, torch.where(masks, map_.baseline, row))
        ratios.append(_relative(masks.to(parts) @ parts.T, actual))
    return torch.stack(ratios)


def infidelity_to_noise(map_, x, attribution, rng):
    """Yeh et al. 2019, eq. 1, with Gaussian noise, (N,); None for a method without slopes."""
    if attribution.slope is None:
        return None
    scale = NOISE * map_.X_train.std(0, correction=0)
    y = places(map_.network, x)
    ratios = []
    for row, place, slope in zip(x, y, attribution.slope, strict=True):
        noise = torch.from_numpy(rng.normal(size=(N_NOISES, len(row)))) * scale
        actual = place - places(map_.network, row - noise)
        ratios.append(_relative(noise @ slope.T, actual))
    return torch.stack(ratios)


def _subsets(rng, n_columns):
    sizes = rng.integers(1, n_columns + 1, size=(N_MASKS, 1))
    ranks = rng.random((N_MASKS, n_columns)).argsort(1).argsort(1)
    return ranks < sizes


def _relative(said, actual):
    return (said - actual).square().sum() / actual.square().sum()


def max_sensitivity(map_, x, attribute, rng):
    """Yeh et al. 2019, eq. 2: largest relative change of the parts near each of the first rows."""
    x = x[:SENSITIVITY_ROWS]
    radius = SENSITIVITY_RADIUS * map_.X_train.std(0, correction=0)
    before = attribute(map_, x).values
    worst = torch.zeros(len(x), dtype=x.dtype)
    for _ in range(N_SENSITIVITY):
        moved = x + torch.from_numpy(rng.uniform(-1, 1, size=x.shape)) * radius
        change = (attribute(map_, moved).values - before).flatten(1).norm(dim=1)
        worst = torch.maximum(worst, change / before.flatten(1).norm(dim=1))
    return worst


def deletion_insertion(map_, x, score):
    """Areas under curves of what is left of the way by the share of features changed, (N,) each."""
    # Deletion: features are set to the baseline, the highest score (N, D) first; insertion: from
    # the baseline to the row. What is left: of the way, 0 where the point is at its end or past
    # it; and as a distance from the end, in lengths of the way. Less is better.
    y, origin = places(map_.network, x), places(map_.network, map_.baseline[None])
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(1)
    n_columns = x.shape[1]
    counts = np.unique(np.linspace(0, n_columns, min(n_columns, N_STEPS) + 1).round().astype(int))
    curves = {"deletion": [], "insertion": []}
    for count in counts:
        is_changed = rank < count
        deleted = places(map_.network, torch.where(is_changed, map_.baseline, x))
        inserted = places(map_.network, torch.where(is_changed, x, map_.baseline))
        curves["deletion"].append(_left(deleted - origin, y - origin))
        curves["insertion"].append(_left(inserted - y, origin - y))
    part = torch.from_numpy(counts / n_columns)
    areas = {name: torch.trapezoid(torch.stack(c, 2), part) for name, c in curves.items()}
    return {
        **{name: area[0] for name, area in areas.items()},
        **{f"{name}_distance": area[1] for name, area in areas.items()},
    }


def _left(rest, way):
    """Part of the way (N, K) that a rest of it is, from 0 to 1, and its length, (2, N)."""
    length = way.norm(dim=1)
    part = (rest * way).sum(1) / length**2
    return torch.stack([part.clamp(0, 1), rest.norm(dim=1) / length])


def slope_fidelity(map_, x, attribution):
    """R² of the slopes for the 5 nearest training rows; None without slopes."""
    if attribution.slope is None:
        return None
    y, y_train = places(map_.network, x), places(map_.network, map_.X_train)
    found = local_fidelity(
        attribution.slope.numpy(),
        x.numpy(),
        y.numpy(),
        X_train=map_.X_train.numpy(),
        Y_train=y_train.numpy(),
    )
    return found.r2


def quality(map_, x, attribute, seed=0):
    """All measures of one method: medians over rows, means of the areas."""
    attribution = attribute(map_, x)
    way = places(map_.network, x) - places(map_.network, map_.baseline[None])
    rng = np.random.default_rng(seed)
    medians = {
        "completeness_error": completeness(map_, x, attribution),
        "infidelity_baseline": infidelity_to_baseline(map_, x, attribution, rng),
        "infidelity_noise": infidelity_to_noise(map_, x, attribution, rng),
        "max_sensitivity": max_sensitivity(map_, x, attribute, rng),
    }
    areas = deletion_insertion(map_, x, shares(attribution, way))
    return {
        **{name: None if v is None else float(v.median()) for name, v in medians.items()},
        **{name: float(v.mean()) for name, v in areas.items()},
        "neighbour_r2": slope_fidelity(map_, x, attribution),
    }


def random_order(map_, x, seed=0):
    """What a random order of the features reaches."""
    score = torch.from_numpy(np.random.default_rng(seed).random(x.shape))
    return {name: float(v.mean()) for name, v in deletion_insertion(map_, x, score).items()}
