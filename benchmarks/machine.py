"""Where and with what a figure was measured, and how much memory it took."""

import ctypes
import gc
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ptsne"
NO_EFFECT = {  # rooms of the package that no figure depends on
    *("__main__", "classifiers", "cli", "datasets", "decomposition", "persistence", "plots"),
    *("regions", "report"),
}
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def hardware():
    return {"cpu": _cpu(), "cores": os.cpu_count(), "gpu": _gpu()}


def versions(packages, python=None):
    """Of Python and some distributions, here or as another Python sees them."""
    if python is None:
        found = {name: _version(name) for name in packages}
        return {"python": platform.python_version(), **found}
    command = [str(python), __file__, *packages]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def environment():
    """What is recorded for the reader, and does not decide whether a figure is still good."""
    return {"system": platform.platform(), "memory_gib": _total_memory()}


def commit():
    """Commit of the working tree; "+" where the package differs from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return f"{head}+" if head and _git("status", "--porcelain", "--", "ptsne") else head


def source_hash():
    """Hash of all files of the package that a figure depends on."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        if name.parts[0].removesuffix(".py") not in NO_EFFECT:
            digest.update(f"{name.as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments):
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def _cpu():
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor()


def _gpu():
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip() or None


def _total_memory():
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if not all(name in os.sysconf_names for name in names):
        return None
    page, pages = (os.sysconf(name) for name in names)
    return round(page * pages / 2**30, 1)


class Watch:
    """Wall time, processor time and peak memory of a block of code.

    Attributes
    ----------
    seconds, cpu_seconds : float
        Wall time; time of all threads together, and of child processes that have ended.
    memory_gib : float or None
        Peak of the resident memory above what it was at the start. None where the system does not
        tell it: Linux does, and lets a process reset its own high-water mark.
    """

    def __enter__(self):
        gc.collect()
        _give_back_freed_memory()
        self._at_start = _resident("VmRSS") if _reset_high_water_mark() else None
        self._start = time.perf_counter(), _processor_time()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._start[0]
        self.cpu_seconds = _processor_time() - self._start[1]
        peak = None if self._at_start is None else _resident("VmHWM") - self._at_start
        self.memory_gib = None if peak is None else max(0, peak) / 2**20


def _processor_time():
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def _resident(field):
    """A line of this process's status, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1])


def _reset_high_water_mark():
    """Forget the peak of imports and loading; False where the system does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _give_back_freed_memory():
    """Return to the system what was freed, or the block could use it unseen."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)


if __name__ == "__main__":
    print(json.dumps(versions(sys.argv[1:])))
