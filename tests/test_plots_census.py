"""Regions are counted, and changes of W measured, as a loop would."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist

from maps import iris_explanation, with_fields
from ptsne import plots


def test_rows_with_one_map_are_one_region():
    why = iris_explanation()
    _, sizes_ax, _ = plots.region_census(why, radii=np.ones(150))
    found = []
    for W, b in zip(why.weight, why.intercept, strict=True):
        for region in found:
            if np.allclose(region[0], W, rtol=1e-6, atol=1e-9) and np.allclose(region[1], b):
                region[2] += 1
                break
        else:
            found.append([W, b, 1])
    drawn = sizes_ax.patches[0].get_data().values
    assert drawn.tolist() == sorted((r[2] for r in found), reverse=True)
    assert sizes_ax.get_title() == f"150 rows in {len(found)} regions"
    assert 1 < len(found) < 150


def test_rounding_makes_no_regions():
    why = iris_explanation()
    noise = 1 + 1e-15 * np.random.default_rng(0).normal(size=why.weight.shape)
    before, after = (
        plots.region_census(e, radii=np.ones(150))[1].get_title()
        for e in (why, with_fields(why, weight=why.weight * noise))
    )
    assert before == after


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_as_many_maps_are_as_many_regions(dtype):
    why, rng = iris_explanation(), np.random.default_rng(0)
    n = 4000
    code = rng.integers(1500, size=n)
    maps = rng.normal(size=(1500, 2, 30))
    noise = 1 + 2 * np.finfo(dtype).eps * rng.normal(size=(n, 2, 30))
    rows = with_fields(
        why,
        weight=(maps[code] * noise).astype(dtype),
        intercept=np.zeros((n, 2), dtype),
        X=rng.normal(size=(n, 30)).astype(dtype),
        Y=rng.normal(size=(n, 2)).astype(dtype),
    )
    drawn = plots.region_census(rows, radii=np.ones(n))[1].patches[0].get_data().values
    assert drawn.tolist() == sorted(np.unique(code, return_counts=True)[1], reverse=True)


def test_a_single_map_is_one_region():
    why = iris_explanation()
    flat = with_fields(
        why,
        weight=np.broadcast_to(why.weight[0], why.weight.shape),
        intercept=np.broadcast_to(why.intercept[0], why.intercept.shape),
    )
    map_ax, sizes_ax, _ = plots.region_census(flat, radii=np.ones(150))
    assert sizes_ax.get_title() == "150 rows in 1 region"
    assert_allclose(map_ax.collections[0].get_array(), 0)


def test_colours_are_the_relative_change_to_the_nearest_rows():
    why = iris_explanation()
    map_ax, _, _ = plots.region_census(why, n_neighbors=3, radii=np.ones(150))
    dots = map_ax.collections[0]
    drawn = {
        tuple(p): v for p, v in zip(np.asarray(dots.get_offsets()), dots.get_array(), strict=True)
    }
    distance = cdist(why.X, why.X)
    np.fill_diagonal(distance, np.inf)
    for i in range(0, 150, 10):
        near = np.sort(distance[i])[:4]
        if near[3] == near[2]:
            continue  # which one is the third is open
        change = [
            np.linalg.norm(why.weight[i] - why.weight[j])
            / max(np.linalg.norm(why.weight[i]), np.linalg.norm(why.weight[j]))
            for j in np.argsort(distance[i])[:3]
        ]
        assert drawn[tuple(why.Y[i])] == pytest.approx(np.mean(change))


def test_radii_are_counted_and_those_without_are_named():
    radii = np.concatenate([np.geomspace(0.01, 1, 147), [0, np.inf, np.inf]])
    *_, radii_ax = plots.region_census(iris_explanation(), radii=radii)
    assert sum(bar.get_height() for bar in radii_ax.patches) == 147
    assert radii_ax.get_title() == "median 0.1, 3 at 0 or ∞"


def test_radii_come_from_the_explanation():
    why = iris_explanation()
    *_, radii_ax = plots.region_census(why)
    drawn = radii_ax.lines[0].get_xdata()[0]
    assert drawn == pytest.approx(np.median(why.radius()))


@pytest.mark.parametrize("radii", [np.ones(3), np.full(150, np.inf)])
def test_radii_that_do_not_fit_are_refused_and_endless_ones_are_not(radii):
    why = iris_explanation()
    if len(radii) == 3:
        with pytest.raises(ValueError, match=r"each of the 150 rows; got shape \(3,\)"):
            plots.region_census(why, radii=radii)
    else:
        assert plots.region_census(why, radii=radii)[2].get_title() == "no row has a boundary"


def test_one_row_is_no_census():
    why = iris_explanation()
    names = ("weight", "intercept", "X", "Y", "baseline", "n_active")
    one = with_fields(why, **{name: getattr(why, name)[:1] for name in names})
    with pytest.raises(ValueError, match="at least 2"):
        plots.region_census(one)
