"""Two gloo processes on this machine make the map of one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from distributed_fits import EQUAL
from ptsne import ParametricTSNE
from ptsne.affinities import nearest_neighbors
from ptsne.training.distributed import ALONE, VARIABLES, own_entries, share

FITS = Path(__file__).with_name("distributed_fits.py")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d")


def run(folder, *launcher):
    """What the processes wrote, one dict each."""
    folder.mkdir()
    environment = {
        **{k: v for k, v in os.environ.items() if k not in VARIABLES},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, *launcher, str(FITS), str(folder)]
    run = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return run, folder


def finished(run, folder):
    try:
        output, _ = run.communicate(timeout=240)
    finally:
        run.terminate()  # torchrun then ends its processes
    assert run.returncode == 0, output
    return [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Results of one process, and of each of two."""
    folder = tmp_path_factory.mktemp("distributed")
    both = run(folder / "2", *TORCHRUN, "--rdzv-endpoint", "localhost:0")
    (one,), (first, second) = finished(*run(folder / "1")), finished(*both)
    return one, first, second


NAMES = ("certain", "gaussian", "mlp", "default", "unseeded", "module 0", "wide")


@pytest.mark.parametrize("name", NAMES)
def test_every_process_ends_with_the_same_bits(processes, name):
    _, first, second = processes
    for what in ("Y", "kl", "landmarks", "history", "state"):
        np.testing.assert_array_equal(first[f"{name}-{what}"], second[f"{name}-{what}"])


# Without dropout, noise and fidelity a process draws nothing of its own: what differs is the order
# of float32 sums, 1e-7, times what the iterations make of it. Measured: 3e-6 of the map's size
# (digits), 1e-5 (iris, Gaussian), 5e-4 (a ReLU network, through its 400 steps on 256 rows each).
@pytest.mark.parametrize(
    ("name", "tolerance"), [("certain", 1e-3), ("gaussian", 1e-3), ("mlp", 1e-2)]
)
def test_the_map_is_that_of_one_process_up_to_rounding(processes, name, tolerance):
    one, first, _ = processes
    size = np.abs(one[f"{name}-Y"]).max()
    np.testing.assert_allclose(first[f"{name}-Y"], one[f"{name}-Y"], rtol=0, atol=tolerance * size)
    assert first[f"{name}-kl"] == pytest.approx(one[f"{name}-kl"], rel=1e-3)


def test_the_first_steps_are_those_of_one_process(processes):
    one, first, _ = processes
    np.testing.assert_allclose(first["certain-history"][:3], one["certain-history"][:3], rtol=1e-5)


@pytest.mark.parametrize("name", ["default", "wide"])
def test_with_draws_of_ones_own_the_map_is_as_good(processes, name):
    one, first, _ = processes
    assert first[f"{name}-kl"] == pytest.approx(one[f"{name}-kl"], abs=0.04)


def test_with_draws_of_ones_own_maps_of_a_module_are_as_good(processes):
    # one by one they differ by .05, also in one process
    one, first, _ = (
        np.mean([process[key] for key in process if re.fullmatch(r"module \d+-kl", key)])
        for process in processes
    )
    assert first == pytest.approx(one, abs=0.04)


def test_each_process_places_and_explains_its_share(processes):
    _, *both = processes
    Y = np.concatenate([result["shared-Y"] for result in both])
    np.testing.assert_array_equal(Y, both[0]["default-Y"])
    assert [len(result["shared-W"]) for result in both] == [150, 151]


def test_the_first_process_is_told_and_its_stop_is_everybodys(processes):
    one, first, second = processes
    assert first["stopped-n_iter"] == second["stopped-n_iter"] == one["stopped-n_iter"]
    np.testing.assert_array_equal(first["stopped-told"], one["stopped-told"])
    np.testing.assert_array_equal(second["stopped-told"], [0, 0])


def test_wrong_input_is_refused_in_every_process(processes):
    one, first, second = processes
    np.testing.assert_array_equal(first["refused"], second["refused"])
    assert first["refused"][0] == one["refused"][0]
    assert "the checkpoint was not written" in first["refused"][1]
    assert "must call fit with the same rows" in first["refused"][2]


def test_what_processes_tell_one_another(processes):
    for result in processes[1:]:
        np.testing.assert_array_equal(result["world-gathered"], np.arange(33.0).reshape(11, 3))
        assert not result["world-fetched"].any()
        assert result["world-none"].shape == (0, 3)
        assert result["world-mean"] == 15
        assert result["world-largest"] == 1
        assert result["world-is_left"]
        assert result["world-too_few"] == "there are more processes (2) than rows (1); start fewer"
    mine = [result["world-mine"][:, 0].tolist() for result in processes[1:]]
    assert mine == [[0], [30, 15]]
    both = [result["world-share"] for result in processes[1:]]
    np.testing.assert_array_equal(np.concatenate(both), np.arange(33.0).reshape(11, 3))
    np.testing.assert_array_equal(processes[1]["world-Y"], processes[2]["world-Y"])


def test_each_process_finds_neighbours_of_its_own_rows(processes):
    wanted = nearest_neighbors(EQUAL, 5)
    for result in processes[1:]:
        indices, distances = result["world-indices"], result["world-distances"]
        np.testing.assert_allclose(distances, wanted.distances, rtol=1e-14)
        assert (indices != np.arange(40)[:, None]).all()
        assert all(len(set(row)) == 5 for row in indices.tolist())
        lengths = np.linalg.norm(EQUAL[indices] - EQUAL[:, None], axis=2)
        np.testing.assert_allclose(lengths, distances, rtol=1e-14)
    np.testing.assert_array_equal(*(result["world-indices"] for result in processes[1:]))


def test_without_torchrun_it_says_how_to_start(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r"start the script with torchrun .*RANK, WORLD_SIZE"):
        ParametricTSNE(distributed=True).fit(np.eye(9))


def test_it_does_not_go_with_a_memory_budget():
    with pytest.raises(ValueError, match="memory_budget is for one process"):
        ParametricTSNE(distributed=True, memory_budget="1GiB").fit(np.eye(9))


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame, torch.as_tensor, np.ndarray.tolist])
def test_shares_make_up_the_whole(monkeypatch, kind):
    X = np.arange(22.0).reshape(11, 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(np.asarray(share(kind(X))))
    np.testing.assert_array_equal(np.concatenate(parts), X)


def test_entries_of_rows_add_up():
    from scipy import sparse

    P = sparse.random_array((9, 9), density=0.4, format="csr", rng=np.random.default_rng(0))
    parts = [own_entries(P, slice(*ends)) for ends in [(0, 3), (3, 4), (4, 9)]]
    assert abs(sum(parts) - P).sum() == 0
    assert not own_entries(P, slice(3, 4))[[0, 1, 2, 4]].sum()


def test_alone_nothing_is_added():
    values = torch.arange(6.0).view(3, 2)
    for result in (ALONE.gather(values), ALONE.sum(values), ALONE.largest(values)):
        assert result is values
    assert ALONE.once(lambda: 3) == ALONE.same(3) == ALONE.share(3) == 3
    assert ALONE.everybodys(3) == [3]


# ---- checkpoints ----


def test_a_fit_that_was_cut_off_goes_on_in_every_process(processes):
    for result in processes:
        assert result["resumed-is_kept"]
        np.testing.assert_array_equal(result["resumed-again"], result["resumed-whole"])
    one, first, second = processes
    np.testing.assert_array_equal(first["resumed-again"], second["resumed-again"])
    np.testing.assert_array_equal(first["resumed-heard"], one["resumed-heard"])
    assert one["resumed-heard"][0] == 30  # of the fine-tuning, whose first twenty steps were kept
    assert one["resumed-is_removed"]
    assert first["resumed-is_removed"]


FIT = Path(__file__).with_name("distributed_checkpoint.py")


def fitted(*words):
    """Exit status of a fit by two processes."""
    launcher = [sys.executable, *TORCHRUN, "--rdzv-endpoint", "localhost:0", str(FIT)]
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [*launcher, *map(str, words)],
        env=environment,
        capture_output=True,
        check=False,
        timeout=240,
    )
    return run.returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "kills"),
    [("atlas", (30, 40)), ("mlp", (50, 120)), ("module", (60, 130)), ("batches", (45,))],
)
def test_two_processes_of_which_one_was_killed_go_on(tmp_path, case, kills):
    assert fitted(case, tmp_path / "whole") == 0
    for kill_at in kills:
        assert fitted(case, tmp_path / "again", tmp_path / "fit", kill_at) != 0
        assert (tmp_path / "fit").exists()
    assert fitted(case, tmp_path / "again", tmp_path / "fit") == 0
    assert not (tmp_path / "fit").exists()
    for rank in (0, 1):
        whole, again = (np.load(tmp_path / f"{name}.{rank}.npz") for name in ("whole", "again"))
        for what in ("Y", "history", "rows"):
            np.testing.assert_array_equal(again[what], whole[what])
