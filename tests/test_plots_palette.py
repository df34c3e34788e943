"""Colours that everyone can read."""

import numpy as np
import pytest

from ptsne.plots.palette import AMOUNT, DEPARTURE, SIGNED, TEN


def lightness(colors):
    """Relative luminance of colours (n, 4), WCAG."""
    c = np.asarray(colors)[:, :3]
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_more_is_always_darker():
    assert (np.diff(lightness(AMOUNT(np.linspace(0, 1, 256)))) < 0).all()


@pytest.mark.parametrize("colors", [SIGNED, DEPARTURE])
def test_the_middle_of_signed_colours_is_the_lightest_and_gray(colors):
    values = lightness(colors(np.linspace(0, 1, 257)))
    assert values.argmax() == pytest.approx(128, abs=2)
    assert np.ptp(colors(0.5)[:3]) < 0.02


def test_ten_classes_have_ten_colours():
    assert len(set(TEN)) == 10
