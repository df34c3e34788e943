import pytest

from ptsne import ParametricTSNE
from ptsne.training import map_settings


def settings(n_rows, n_columns=60, **parameters):
    return map_settings((n_rows, n_columns), ParametricTSNE(**parameters).get_params())


def n_iterations(found):
    return len(found.schedule) + found.finetuning.n_iterations


@pytest.mark.parametrize("n_rows", [1, 2, 30, 1797, 10_000, 60_000, 1_000_000])
def test_a_better_preset_has_more_landmarks_and_iterations(n_rows):
    fast, default, high = (settings(n_rows, quality=q) for q in ("fast", "default", "high"))
    assert n_iterations(fast) < n_iterations(default) < n_iterations(high)
    assert 1 <= fast.n_landmarks <= default.n_landmarks <= high.n_landmarks <= n_rows
    if n_rows > 1000:
        assert fast.n_landmarks < default.n_landmarks < high.n_landmarks


def test_numbers_that_are_given_win_over_the_preset():
    found = settings(5000, quality="high", n_landmarks=77, max_iter=90)
    assert found.n_landmarks == 77
    assert n_iterations(found) == 90


@pytest.mark.parametrize("max_iter", [1, 2, 3, 10])
def test_few_iterations_are_shared_out(max_iter):
    found = settings(100, max_iter=max_iter)
    assert n_iterations(found) == max_iter
    assert found.schedule.late >= 1


def test_a_relu_network_takes_more_steps_for_a_finer_map():
    steps = [
        settings(n, projection="mlp").distillation.n_iterations
        for n in (100, 10_000, 60_000, 1_000_000)
    ]
    assert steps == sorted(steps)
    assert steps[0] == steps[1] < steps[2] < steps[3]
    assert steps[3] < 100 * steps[1]
