"""Arrays of a page: exact, or at most half a step off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays
from numpy.testing import assert_array_equal

from ptsne.report.packing import encode_steps, encode_table


@given(random_arrays(np.float64, (5, 2, 3), elements=st.floats(-1e6, 1e6)))
def test_steps_are_at_most_half_a_step_off(array):
    steps = encode_steps(array)
    step = steps.step.astype(np.float64)[:, None, None]
    assert (np.abs(steps.decoded() - array) <= 0.5000001 * step).all()


def test_pixels_take_a_byte_and_come_back_exactly(rng):
    X = rng.integers(0, 256, (50, 30)).astype(np.float32) / 255
    coded = encode_table(X)
    assert coded.codes.dtype == np.uint8
    assert coded.error == 0
    assert_array_equal(coded.values[coded.codes], X.astype(np.float64))


def test_a_table_of_hundreds_of_values_takes_two_bytes_and_comes_back_exactly(rng):
    X = rng.integers(0, 600, (200, 30)) / 10
    coded = encode_table(X)
    assert coded.codes.dtype == np.uint16
    assert_array_equal(coded.values[coded.codes], X)


def test_a_table_of_arbitrary_numbers_stays_as_it_is_while_it_is_small(rng):
    X = rng.normal(size=(40, 20))
    coded = encode_table(X)
    assert_array_equal(coded.codes, X)
    assert coded.error == 0


def test_a_large_table_of_arbitrary_numbers_is_rounded_and_says_by_how_much(rng):
    X = rng.normal(size=(1100, 1000))
    coded = encode_table(X)
    assert coded.codes.dtype == np.float32
    assert coded.error == np.abs(coded.codes - X).max() > 0


@pytest.fixture
def rng():
    return np.random.default_rng(0)
