"""What each process of `test_training_distributed` does: fits, and writes what came out.

    torchrun --nproc-per-node 2 tests/distributed_fits.py FOLDER

Without torchrun one process does the same.
"""

import math
import os
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from sklearn.datasets import load_digits, load_iris
from torch import distributed, nn

import ptsne
from ptsne.training import Checkpoint, Journal, defaults, finetuning
from ptsne.training.distributed import Processes, joined, share, shared_neighbors

RANK = int(os.environ.get("RANK", "0"))
IS_DISTRIBUTED = "RANK" in os.environ
IRIS = load_iris().data
DIGITS = load_digits().data[:301]  # shares of different size
EQUAL = np.repeat(DIGITS[:15], [1] * 10 + [2] * 4 + [22], axis=0)  # rows that are met again
WIDE = np.hstack([DIGITS, np.random.default_rng(0).random((301, 240))])


def network(n_in):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n_in, 16), nn.ReLU(), nn.Linear(16, 5))


def fit(X, neighbors=None, **parameters):
    parameters = {"max_iter": 60, "random_state": 0, "device": "cpu", **parameters}
    map_ = ptsne.ParametricTSNE(distributed=IS_DISTRIBUTED, **parameters)
    return map_.fit(X, neighbors=neighbors)


def without_chance(X, **parameters):
    """A fit in which a process draws nothing for its own rows."""
    dropout, noise = defaults.DROPOUT, defaults.NOISE
    defaults.DROPOUT = defaults.NOISE = 0.0
    try:
        return fit(X, fidelity_weight=0.0, **parameters)
    finally:
        defaults.DROPOUT, defaults.NOISE = dropout, noise


def maps():
    yield "certain", without_chance(DIGITS)
    yield "gaussian", without_chance(IRIS, similarity="gaussian", max_iter=40)
    yield "mlp", without_chance(IRIS, projection=(20,), max_iter=20)
    yield "default", fit(DIGITS)
    yield "unseeded", fit(IRIS, random_state=None, max_iter=10)
    for seed in range(16):
        own = {"encoder": network(4), "reconstruction_weight": 0.1, "max_iter": 40}
        yield f"module {seed}", fit(IRIS, **own, random_state=seed)
    yield "wide", fit(WIDE, max_iter=20)


def learned(map_):
    yield "Y", map_.embedding_
    yield "kl", np.array(map_.kl_divergence_)
    yield "landmarks", map_.landmark_indices_
    yield "history", np.array([record["loss"] for record in map_.history_])
    state = map_.network_.state_dict().values()
    yield "state", np.concatenate([tensor.numpy().ravel() for tensor in state])


def shared_work(map_):
    part = share(DIGITS)
    yield "rows", part
    yield "Y", map_.transform(part)
    yield "W", map_.explain(part).weight


def stopped():
    """Iterations of a fit that a callback ends, and how many records a process was told."""
    told = []

    def callback(record):
        told.append(record if record.embedding is None else record.embedding.shape)
        return record.phase == "fine-tuning" and record.iteration == 3

    map_ = fit(IRIS, callbacks=callback)
    yield "n_iter", np.array(map_.n_iter_)
    yield "told", np.array([told.count((150, 2)), len(told)])


class Cut(Exception):
    """What ends a fit before its end."""


def cut(steps):
    """Steps of which every process leaves the fine-tuning after two dozen."""

    def counted(journal, phase, *arguments, **options):
        for step in steps(journal, phase, *arguments, **options):
            if phase == "fine-tuning" and step == 24:
                raise Cut
            yield step

    return counted


def resumed(folder):
    """A fit in batches, and one that was cut off and went on."""
    parameters = {"encoder": network(4), "reconstruction_weight": 0.1, "max_iter": 80}
    batches = partial(finetuning.FineTuning, batch_size=64)
    with mock.patch.object(defaults, "FineTuning", batches):
        yield "whole", fit(IRIS, **parameters).embedding_
        parameters["checkpoint"] = folder / "fit"
        at_once = mock.patch.multiple(Checkpoint, seconds=0.0, share=math.inf)
        with at_once, mock.patch.object(Journal, "steps", cut(Journal.steps)):
            try:
                fit(IRIS, **parameters)
            except Cut:
                yield "is_kept", np.array((folder / "fit").exists())
        heard = []
        yield "again", fit(IRIS, callbacks=heard.append, **parameters).embedding_
    yield "heard", np.array([record.iteration for record in heard])
    if RANK == 0:
        yield "is_removed", np.array(not (folder / "fit").exists())


def refused(folder):
    """What wrong input is answered with, in every process."""
    graph = np.zeros((150, 5), dtype=int), np.zeros((150, 5))
    nowhere = folder / "no folder" / "fit"
    for X, options in (
        (IRIS, {"neighbors": graph}),
        (IRIS, {"checkpoint": nowhere}),
        (IRIS[: 150 - RANK], {}),
    ):
        try:
            fit(X, **options)
        except (OSError, ValueError) as error:
            yield str(error)
        if not IS_DISTRIBUTED:
            return


def too_few(device):
    """What is said of one row for two processes."""
    try:
        with joined(True, (1, 3), device):
            return ""
    except ValueError as error:
        return str(error)


def collectives():
    """The methods of `Processes`, in a group that `fit` then uses and leaves as it was."""
    distributed.init_process_group("gloo")
    world = Processes(11, torch.device("cpu"))
    table = torch.arange(33.0).view(11, 3)
    own = table[world.rows(11)]
    index = torch.tensor([10, 0, 5, 5, 4][: 5 - RANK])
    yield "gathered", world.gather(own).numpy()
    yield "fetched", (world.fetch(own, index) - table[index]).numpy()
    yield "none", world.fetch(own, index[:0]).numpy()
    yield "mean", world.mean(own[:, 0]).numpy()
    yield "mine", own[world.mine(torch.tensor([10, 0, 5]))].numpy()
    yield "largest", world.largest(torch.tensor(float(RANK))).numpy()
    yield "share", share(table).numpy()
    yield "too_few", np.array(too_few(world.device))
    near = shared_neighbors(EQUAL, 5, "euclidean", torch.device("cpu"), Processes(40, world.device))
    yield "indices", near.indices
    yield "distances", near.distances
    yield "Y", fit(IRIS, max_iter=10).embedding_
    yield "is_left", np.array(distributed.is_initialized())
    distributed.destroy_process_group()


def results(folder):
    for name, map_ in maps():
        yield from ((f"{name}-{what}", value) for what, value in learned(map_))
        if name == "default":
            yield from ((f"shared-{what}", value) for what, value in shared_work(map_))
    yield from ((f"stopped-{what}", value) for what, value in stopped())
    yield "refused", np.array(list(refused(folder)))
    yield from ((f"resumed-{what}", value) for what, value in resumed(folder))
    if IS_DISTRIBUTED:
        yield from ((f"world-{what}", value) for what, value in collectives())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    np.savez(folder / f"{RANK}.npz", **dict(results(folder)))
