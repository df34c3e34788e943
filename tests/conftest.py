"""What all tests share: figures without a screen, closed after each test; the same random cases."""

import sys
from functools import partial
from pathlib import Path

import matplotlib
import pytest
from hypothesis import settings
from scipy import sparse

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


@pytest.fixture
def dense_blocks(monkeypatch):
    """How many rows of a sparse matrix became dense at once, block after block."""
    seen = [0]
    for kind in (sparse.csr_array, sparse.csr_matrix):

        def watched(self, *args, original=kind.toarray, **options):
            seen.append(self.shape[0])
            return original(self, *args, **options)

        monkeypatch.setattr(kind, "toarray", watched)
        monkeypatch.setattr(kind, "todense", None)
    return seen


@pytest.fixture(scope="module")
def short_updates():
    """Fewer iterations than a real update takes."""
    from ptsne.updating.growing import Growth

    few = partial(Growth, early=10, alone=20, joined=30, charts=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptsne.updating.updating.Growth", few)
        yield


@pytest.fixture(scope="module")
def beside_the_benchmarks():
    """A script of benchmarks/ finds the files beside it; so do the tests that ask for this."""
    folder = str(Path(__file__).parent.parent / "benchmarks")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture
def folders(tmp_path):
    """Where a benchmark writes."""
    return ["--output", str(tmp_path / "results"), "--maps", str(tmp_path / "maps")]
