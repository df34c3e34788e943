"""What each process of the checkpoint test in `test_training_distributed` does: one fit.

    torchrun --nproc-per-node 2 tests/distributed_checkpoint.py CASE OUT [CHECKPOINT KILL_AT]

Process 1 kills itself at the KILL_AT-th step of the training, where that is above 0.
"""

import math
import os
import signal
import sys

import numpy as np
import torch
from sklearn.datasets import load_iris
from torch import nn

import ptsne
from ptsne.training import Checkpoint, Journal, defaults, finetuning

IRIS = load_iris().data


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


CASES = {
    "atlas": dict,
    "mlp": lambda: {"projection": (16,)},
    "module": lambda: {"encoder": module(), "reconstruction_weight": 0.1},
    "batches": dict,
}


def killing(steps, kill_at):
    """Steps of a phase, at one of which this process dies."""
    count = iter(range(1, 1_000_000))

    def counted(*arguments, **options):
        for step in steps(*arguments, **options):
            if next(count) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield step

    return counted


def main(case, out, checkpoint=None, kill_at="0"):
    torch.set_num_threads(1)
    Checkpoint.seconds, Checkpoint.share = 0.0, math.inf
    if case == "batches":
        options = finetuning.FineTuning
        defaults.FineTuning = lambda *a, **o: options(*a, **o | {"batch_size": 64})
    if os.environ.get("RANK") == "1" and int(kill_at):
        Journal.steps = killing(Journal.steps, int(kill_at))
    map_ = ptsne.ParametricTSNE(
        perplexity=10,
        max_iter=30,
        random_state=0,
        device="cpu",
        distributed=True,
        checkpoint=checkpoint,
        **CASES[case](),
    ).fit(IRIS)
    history = [record["loss"] for record in map_.history_]
    rows = map_.reconstruct(IRIS)
    np.savez(f"{out}.{os.environ['RANK']}.npz", Y=map_.embedding_, history=history, rows=rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
