"""What all tests share: figures without a screen, closed after each test; the same random cases."""

import sys

import matplotlib
import pytest
from hypothesis import settings

matplotlib.use("Agg")

# A run that drew new cases would fail for someone else's change; `--hypothesis-profile explore`
# draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
