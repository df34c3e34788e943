"""Fits in processes of their own, which are killed: imports once, then forks for each fit.

Reads requests from the standard input, one JSON object a line, and answers with a line each.
"""

import json
import math
import os
import signal
import sys
import time
import traceback
from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_iris, make_blobs
from torch import nn

from ptsne import ParametricTSNE
from ptsne.training import Checkpoint, defaults, finetuning

IRIS = load_iris().data
WIDE = make_blobs(120, 90, centers=4, cluster_std=3.0, random_state=0)[0]


def own_module():
    torch.manual_seed(0)
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    return nn.Sequential(*layers)


CASES = {
    "atlas": (IRIS, lambda: {}),
    "mlp": (IRIS, lambda: {"projection": (16,)}),
    "relu": (IRIS, lambda: {"encoder": (8,)}),
    "module": (IRIS, lambda: {"encoder": own_module()}),
    "gaussian": (IRIS, lambda: {"similarity": "gaussian", "reconstruction_weight": 0.1}),
    "reduced": (WIDE, lambda: {"latent_dim": 8}),
    "batches": (IRIS, lambda: {"random_state": np.random.RandomState(0)}),
    "streamed": (WIDE, lambda: {"memory_budget": "128MiB", "latent_dim": 8}),
    "reduced batches": (WIDE, lambda: {"latent_dim": 8}),
}


def arranged(case, seconds, **options):
    """Rows and estimator of a case; its state is kept every few milliseconds, 0: at every step."""
    Checkpoint.seconds, Checkpoint.share = seconds, math.inf
    if "reduced" in case:
        finetuning.RANK = 16
    if "batches" in case:
        defaults.FineTuning = partial(finetuning.FineTuning, batch_size=64)
    X, parameters = CASES[case]
    usual = {"perplexity": 10, "max_iter": 30, "random_state": 0}
    return X, ParametricTSNE(**usual | parameters() | options)


def result_of(map_, X):
    """All that has to be the same."""
    history = [{k: v for k, v in record.items() if k != "seconds"} for record in map_.history_]
    return {
        "embedding": map_.embedding_,
        "reconstruction": map_.reconstruct(X),
        "history": np.array(json.dumps(history)),
    }


def fit(case, checkpoint, out, seconds):
    X, map_ = arranged(case, seconds, checkpoint=checkpoint)
    np.savez(out, **result_of(map_.fit(X), X))


def forked(kill_after, **request):
    """Fit in a child; returns whether it ended by itself."""
    child = os.fork()
    if not child:
        try:
            fit(**request)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the fit failed with status {status}")
    return status == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.fsync = lambda _: None  # SIGKILL loses nothing that the system has taken
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(forked(**json.loads(line))) + "\n")
        sys.stdout.flush()
