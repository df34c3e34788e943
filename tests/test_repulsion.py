import subprocess
import sys
import time
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import reference_losses as reference
from ptsne.repulsion import RepulsionEngine, repulsion
from ptsne.repulsion.grid import MAX_NODES, Grid, _fast_size, largest_side


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n_points, n_components=2, span=1.0, seed=0):
    Y = torch.randn(n_points, n_components, generator=generator(seed), dtype=torch.float64)
    return Y * span / (Y.amax(0) - Y.amin(0)).max()


def clusters(n_points, span=160.0, seed=0):
    """Ten blobs, as t-SNE draws them: most neighbours closer than one unit."""
    centres = (torch.rand(10, 2, generator=generator(seed), dtype=torch.float64) - 0.5) * span
    spread = torch.randn(n_points, 2, generator=generator(seed + 1), dtype=torch.float64)
    return centres[torch.arange(n_points) % 10] + spread * span / 25


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("dof", [0.5, 1.0, 2.0])
def test_exact_equals_the_double_loop(n_components, dof):
    Y = cloud(25, n_components, span=4)
    force, Z = repulsion(Y, dof=dof, method="exact")
    expected_force, expected_Z = reference.repulsion(Y.numpy(), dof)
    torch.testing.assert_close(force, torch.from_numpy(expected_force), rtol=1e-12, atol=1e-12)
    assert float(Z) == pytest.approx(expected_Z, rel=1e-13)


def test_exact_blocks_join_seamlessly():
    Y = cloud(2000, span=50)
    force, Z = repulsion(Y, method="exact")  # 2000 rows of 16 kB: many blocks
    difference = Y[:, None] - Y
    u = 1 + difference.square().sum(-1)
    torch.testing.assert_close(force, (difference / u[..., None] ** 2).sum(1), rtol=0, atol=1e-11)
    assert float(Z) == pytest.approx(float((1 / u).sum()) - 2000, rel=1e-12)


PEAK_OF_MANY_BLOCKS = """
import resource
import torch
from ptsne.repulsion.pairs import between_pairs

Y = torch.randn(60_000, 2, dtype=torch.float64)
between_pairs(Y[:100], Y, 1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
between_pairs(Y[:2000], Y, 1.0)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is Linux's")
def test_many_exact_blocks_take_no_more_memory_than_a_few():
    run = [sys.executable, "-c", PEAK_OF_MANY_BLOCKS]
    grown = float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert grown < 100  # MiB; a block's sum kept in a tensor of its own made it 800


def test_exact_z_of_points_far_apart_does_not_cancel():
    Y = torch.tensor([[0.0, 0.0], [1e4, 0.0], [0.0, 1e4]])
    _, Z = repulsion(Y, method="exact")
    assert float(Z) == pytest.approx(2 * (1e-8 + 1e-8 + 0.5e-8), rel=1e-5)


def test_exact_float32_is_close_to_float64():
    Y = clusters(1000)
    force, Z = repulsion(Y.float(), method="exact")
    expected_force, expected_Z = repulsion(Y.float().double(), method="exact")
    assert relative_error(force.double(), expected_force) < 1e-5
    assert float(Z) == pytest.approx(float(expected_Z), rel=1e-5)


@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize("dof", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("span", [1e-3, 0.1, 1.0, 10.0, 50.0, 200.0])
def test_grid_is_as_accurate_as_it_says(n_components, dof, span):
    for n_points, tolerance in [(2, 0.06), (3, 0.06), (10, 0.06), (300, 0.01)]:
        Y = cloud(n_points, n_components, span, seed=n_points)
        force, Z = repulsion(Y, dof=dof, method="fft")
        expected_force, expected_Z = repulsion(Y, dof=dof, method="exact")
        assert relative_error(force, expected_force) < tolerance
        assert float(Z) == pytest.approx(float(expected_Z), rel=1e-3)


@pytest.mark.parametrize("dof", [0.5, 1.0, 2.0])
def test_grid_is_within_one_percent_on_a_tsne_like_map(dof):
    Y = clusters(3000)
    force, Z = repulsion(Y.float(), dof=dof, method="fft")
    expected_force, expected_Z = repulsion(Y, dof=dof, method="exact")
    assert relative_error(force.double(), expected_force) < 0.006
    assert float(Z) == pytest.approx(float(expected_Z), rel=1e-4)


@pytest.mark.parametrize(("span", "tolerance"), [(1e-3, 1e-7), (1.0, 1e-7), (5.0, 1e-6)])
def test_grid_is_finer_on_small_maps(span, tolerance):
    Y = cloud(300, span=span)
    force, Z = repulsion(Y, method="fft")
    expected_force, expected_Z = repulsion(Y, method="exact")
    assert relative_error(force, expected_force) < tolerance
    assert float(Z) == pytest.approx(float(expected_Z), rel=tolerance)


@pytest.mark.parametrize("span", [1e-4, 1.0])
def test_float32_tells_the_points_of_a_small_map_apart(span):
    Y = cloud(3000, span=span).float()
    force, _ = repulsion(Y, method="fft")
    assert relative_error(force.double(), repulsion(Y.double(), method="exact")[0]) < 1e-4


@pytest.mark.parametrize("n_components", [1, 2])
def test_grid_force_is_the_slope_of_its_z(n_components):
    Y = cloud(40, n_components, span=15)
    direction = cloud(40, n_components, seed=1)
    force, _ = repulsion(Y, method="fft")
    # dZ/dy_i = -2 (a + 1) / a force_i of the exact sums; the grid keeps that for its own Z
    (_, ahead), (_, behind) = (
        repulsion(Y + step * direction, method="fft") for step in (1e-5, -1e-5)
    )
    slope = float(ahead - behind) / 2e-5
    assert slope == pytest.approx(-4 * float((force * direction).sum()), rel=1e-3)


def test_float32_grid_loses_little_to_rounding():
    Y = clusters(2000).float()
    force, Z = repulsion(Y, method="fft")
    expected_force, expected_Z = repulsion(Y.double(), method="fft")
    assert relative_error(force.double(), expected_force) < 1e-4
    assert float(Z) == pytest.approx(float(expected_Z), rel=1e-4)


@pytest.mark.parametrize("method", ["exact", "fft"])
def test_a_shift_changes_nothing(method):
    Y = clusters(1500)
    force, Z = repulsion(Y, method=method)
    moved_force, moved_Z = repulsion(Y + torch.tensor([1e3, -5e3]), method=method)
    assert relative_error(moved_force, force) < 1e-9
    assert float(moved_Z) == pytest.approx(float(Z), rel=1e-9)


@pytest.mark.parametrize(("method", "tolerance"), [("exact", 1e-12), ("fft", 0.01)])
def test_a_rotation_turns_the_forces(method, tolerance):
    Y = clusters(1500)
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.stack([
        torch.stack([angle.cos(), -angle.sin()]),
        torch.stack([angle.sin(), angle.cos()]),
    ])
    force, Z = repulsion(Y, method=method)
    turned_force, turned_Z = repulsion(Y @ turn, method=method)
    assert relative_error(turned_force, force @ turn) < tolerance
    assert float(turned_Z) == pytest.approx(float(Z), rel=tolerance)


@pytest.mark.parametrize("method", ["exact", "fft"])
def test_row_order_does_not_matter(method):
    Y = clusters(1200)
    order = torch.randperm(1200, generator=generator())
    force, Z = repulsion(Y, method=method)
    shuffled_force, shuffled_Z = repulsion(Y[order], method=method)
    torch.testing.assert_close(shuffled_force, force[order], rtol=1e-9, atol=1e-9)
    assert float(shuffled_Z) == pytest.approx(float(Z), rel=1e-12)


@pytest.mark.parametrize("method", ["exact", "fft"])
def test_forces_balance(method):
    force, _ = repulsion(clusters(1500), method=method)
    assert float(force.sum(0).abs().max()) < 1e-9 * float(force.abs().sum())


@pytest.mark.parametrize("method", ["exact", "fft"])
def test_same_input_same_bits(method):
    Y = clusters(3000).float()
    first, second = repulsion(Y, method=method), repulsion(Y, method=method)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_engine_with_a_past_equals_a_fresh_one():
    engine = RepulsionEngine(method="fft")
    maps = [clusters(500, span) for span in (1.0, 0.5, 80.0, 80.5, 160.0, 80.0)]
    for Y in [*maps, maps[-1].float(), maps[-1][:, :1]]:
        force, Z = engine(Y)
        expected_force, expected_Z = repulsion(Y, method="fft")
        assert torch.equal(force, expected_force)
        assert torch.equal(Z, expected_Z)


def test_auto_is_exact_for_few_points_and_in_three_dimensions():
    for Y in (clusters(300), cloud(1500, 3, span=20)):
        automatic, exact = repulsion(Y), repulsion(Y, method="exact")
        assert torch.equal(automatic[0], exact[0])
        assert torch.equal(automatic[1], exact[1])


def test_auto_takes_the_grid_for_many_points():
    Y = clusters(4000)
    assert torch.equal(repulsion(Y)[0], repulsion(Y, method="fft")[0])


@pytest.mark.parametrize("n_components", [1, 2])
def test_points_strewn_far_out_are_summed_exactly(n_components):
    Y = torch.cat([cloud(3000, n_components, span=100), cloud(7, n_components, span=1e9)])
    force, Z = repulsion(Y)
    expected_force, expected_Z = repulsion(Y, method="exact")
    assert relative_error(force, expected_force) < 0.01
    assert float(Z) == pytest.approx(float(expected_Z), rel=0.01)
    torch.testing.assert_close(force[-7:], expected_force[-7:], rtol=1e-9, atol=0)


def test_points_outside_the_largest_grid_meet_all_others(monkeypatch):
    monkeypatch.setattr("ptsne.repulsion.grid.MAX_NODES", 2**14)  # a core of 17 units
    Y = cloud(2000, span=40)
    force, Z = repulsion(Y)
    expected_force, expected_Z = repulsion(Y, method="exact")
    assert 1e-6 < relative_error(force, expected_force) < 0.01
    assert float(Z) == pytest.approx(float(expected_Z), rel=1e-4)


@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize("dof", [0.5, 1.0, 2.0])
def test_largest_grid_is_just_inside_its_bound(n_components, dof):
    side = largest_side(n_components, dof)
    grid = Grid.around([0.0] * n_components, [side] * n_components, dof)
    assert 0.7 * MAX_NODES < grid.n_nodes <= MAX_NODES


def test_fast_sizes_are_the_next_even_products_of_2_3_5():
    def is_fast(n):
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        return n == 1

    for n in range(2, 1200):
        assert _fast_size(n) == next(m for m in range(n, 2 * n + 1) if m % 2 == 0 and is_fast(m))


def test_a_map_without_a_core_is_summed_exactly():
    Y = cloud(1500, span=1e7)
    assert torch.equal(repulsion(Y)[0], repulsion(Y, method="exact")[0])


def test_two_far_islands_are_within_one_percent():
    Y = torch.cat([cloud(2000, span=60), cloud(1100, span=60, seed=1) + 3e4])
    force, Z = repulsion(Y)
    expected_force, expected_Z = repulsion(Y, method="exact")
    assert relative_error(force, expected_force) < 0.01
    assert float(Z) == pytest.approx(float(expected_Z), rel=0.01)


@pytest.mark.parametrize("method", ["exact", "fft", "auto"])
@pytest.mark.parametrize("n_points", [0, 1])
def test_no_pairs_no_force(method, n_points):
    force, Z = repulsion(torch.ones(n_points, 2), method=method)
    assert force.shape == (n_points, 2)
    assert not force.any()
    assert float(Z) == 0


@pytest.mark.parametrize("method", ["exact", "fft"])
def test_points_in_one_place(method):
    force, Z = repulsion(torch.full((1200, 2), 3.0), method=method)
    assert float(force.abs().max()) < 1e-3
    assert float(Z) == pytest.approx(1200 * 1199, rel=1e-4)  # 1,200 equal float32 terms a node


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("n_points", [10, 2000])
def test_a_broken_map_gives_nan(bad, n_points):
    Y = clusters(n_points)
    Y[3, 1] = bad
    force, _ = repulsion(Y)
    assert force.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["exact", "fft"])
def test_half_precision_is_computed_in_float32(dtype, method):
    Y = clusters(200).to(dtype)
    force, Z = repulsion(Y, method=method)
    assert force.dtype == Z.dtype == torch.float32
    assert torch.equal(force, repulsion(Y.float(), method=method)[0])


def test_caller_keeps_map_and_graph():
    Y = clusters(1200).requires_grad_()
    before = Y.detach().clone()
    force, Z = repulsion(Y)
    assert not force.requires_grad
    assert not Z.requires_grad
    assert torch.equal(Y.detach(), before)


def test_non_contiguous_maps_are_welcome():
    Y = clusters(1200)
    assert torch.equal(repulsion(Y.T.contiguous().T)[0], repulsion(Y)[0])


@pytest.mark.parametrize("options", [{"method": "bh"}, {"dof": 0.0}, {"dof": float("nan")}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        RepulsionEngine(**options)


def test_grid_in_three_dimensions_is_refused():
    with pytest.raises(ValueError, match="use 'exact'"):
        repulsion(cloud(10, 3), method="fft")


class PeakMemory(TorchDispatchMode):
    """Largest sum of bytes of living tensors that operations made."""

    def __init__(self):
        super().__init__()
        self.peak, self._made = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self._made += [weakref.ref(t) for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self._made = [ref for ref in self._made if ref() is not None]
        storages = [ref().untyped_storage() for ref in self._made]
        self.peak = max(self.peak, sum({s.data_ptr(): s.nbytes() for s in storages}.values()))
        return result


def test_memory_is_measured():
    with PeakMemory() as memory:
        total = torch.zeros(1000) + 1
        (total + 1).sum()
    assert 8000 <= memory.peak <= 13000


@pytest.mark.parametrize("dof", [1.0, 1.5])
def test_exact_memory_is_bounded(dof):
    Y = clusters(4000)
    with PeakMemory() as memory:
        repulsion(Y, dof=dof, method="exact")  # one matrix of all pairs would take 128 MB
    assert memory.peak < 8 * 2**20


def test_grid_memory_is_bounded_on_a_wide_map():
    Y = clusters(3000, span=500.0).float()
    with PeakMemory() as memory:
        repulsion(Y, method="fft")
    assert memory.peak < 256 * 2**20


@pytest.mark.slow
def test_grid_time_grows_slower_than_pairs():
    seconds = {}
    for n_points in (20_000, 160_000):
        engine, Y = RepulsionEngine(), clusters(n_points).float()
        engine(Y)
        start = time.perf_counter()
        engine(Y)
        seconds[n_points] = time.perf_counter() - start
    assert seconds[160_000] < 16 * seconds[20_000]


@pytest.mark.parametrize("method", ["exact", "fft"])
@pytest.mark.parametrize("dof", [0.5, 1.0])
@pytest.mark.parametrize("n_components", [1, 2])
def test_rows_at_one_place_are_counted(method, dof, n_components):
    count = torch.randint(4, (300,), generator=generator(), dtype=torch.float64)
    Y = cloud(300, n_components, span=40)
    engine = RepulsionEngine(dof=dof, method=method)
    force, Z = engine(Y, count)
    one_by_one, expected_Z = engine(Y.repeat_interleave(count.long(), 0))
    expected = one_by_one[count.cumsum(0)[count > 0].long() - 1]
    assert relative_error(force[count > 0], expected) < (1e-12 if method == "exact" else 1e-2)
    assert float(Z) == pytest.approx(float(expected_Z), rel=1e-12 if method == "exact" else 1e-3)


def test_rows_at_one_place_are_counted_on_a_strewn_map():
    Y = cloud(300, span=40)
    Y[0] = 1e6
    count = torch.randint(1, 4, (300,), generator=generator(), dtype=torch.float64)
    force, Z = RepulsionEngine(method="fft")(Y, count)
    expected, expected_Z = RepulsionEngine(method="exact")(Y, count)
    assert relative_error(force, expected) < 1e-2
    assert float(Z) == pytest.approx(float(expected_Z), rel=1e-3)
