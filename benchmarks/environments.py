"""An environment for every peer, so that the versions they ask for do not fight.

    python benchmarks/environments.py                    # all
    python benchmarks/environments.py pacmap torchdr     # some
    python benchmarks/environments.py --folder FOLDER    # elsewhere than in benchmarks/.venv

A peer is a file of pinned requirements in environments/. What is there for the same file is kept;
what cannot be installed is noted with its reason, and the tables tell it. An installation that
would fetch CUDA is refused, unless --cuda allows it: let pip find builds for a CPU, by
--find-links or --extra-index-url in its settings.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent / "environments"
FOLDER = Path(
    os.environ.get("PTSNE_BENCHMARK_ENVIRONMENTS", Path(__file__).resolve().parent / ".venv")
)
CUDA = re.compile(r"nvidia[-_]|cuda[-_]|triton$", re.IGNORECASE)


def known():
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def python_of(name, folder=FOLDER):
    """Its interpreter."""
    place = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    return Path(folder, name, *place).absolute()


def state(name, folder=FOLDER):
    """None before it was prepared with these requirements, else {"error"}: None or the reason."""
    path = _note(name, folder)
    if not path.exists():
        return None
    noted = json.loads(path.read_text(encoding="utf-8"))
    return noted if noted["requirements"] == _hash(name) else None


def prepare(name, folder=FOLDER, *, allow_cuda=False):
    """Make an environment; None, or why it cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    error = _installed(name, folder, allow_cuda)
    noted = {"requirements": _hash(name), "error": error}
    _note(name, folder).write_text(json.dumps(noted), encoding="utf-8")
    return error


def _installed(name, folder, allow_cuda):
    python = str(python_of(name, folder))
    pip = [python, "-m", "pip", "install", "-r", str(REQUIREMENTS / f"{name}.txt")]
    with tempfile.TemporaryDirectory() as reports:
        report = Path(reports, "report.json")
        dry = [*pip, "--dry-run", "--quiet", "--report", str(report)]
        return (
            _failure([sys.executable, "-m", "venv", str(Path(folder, name))])
            or _failure(dry)
            or (None if allow_cuda else _cuda(json.loads(report.read_text(encoding="utf-8"))))
            or _failure([*pip, "--quiet"])
        )


def _failure(command):
    """Run a command; why it failed, or None."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return None
    told = [line for line in run.stderr.splitlines() if line.strip()] or ["no reason was told"]
    errors = [line for line in told if line.startswith("ERROR:")]
    return (errors or told)[-1].removeprefix("ERROR:").strip()


def _cuda(report):
    """Why this would be gigabytes that a CPU has no use for, or None."""
    names = [item["metadata"]["name"] for item in report["install"]]
    found = sorted(name for name in names if CUDA.match(name))
    return f"pip would fetch CUDA ({', '.join(found[:3])}, ...)" if found else None


def _note(name, folder):
    return Path(folder, f"{name}.json")


def _hash(name):
    return hashlib.sha256((REQUIREMENTS / f"{name}.txt").read_bytes()).hexdigest()[:12]


def prepare_all(names, folder=FOLDER, *, allow_cuda=False):
    """Make what is not there, and tell; the number of failures."""
    n_failed = 0
    for name in names:
        noted = state(name, folder)
        is_there = noted is not None and noted["error"] is None
        error = None if is_there else prepare(name, folder, allow_cuda=allow_cuda)
        n_failed += error is not None
        print(f"{name:>16}: {'is there' if is_there else error or 'installed'}", flush=True)
    return n_failed


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known())}")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--cuda", action="store_true", help="CUDA may be fetched")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(known())
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known())}")
    names = options.names or known()
    return 1 if prepare_all(names, options.folder, allow_cuda=options.cuda) else 0


if __name__ == "__main__":
    sys.exit(main())
