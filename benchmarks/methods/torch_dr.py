"""TorchDR's TSNE with an encoder."""

import numpy as np
import torch
import torchdr

NOTE = (
    "the library brings no encoder: here an MLP of two hidden layers of 256 units; its default "
    "optimiser (SGD) ends in NaN with an encoder, so Adam with a learning rate of 1e-3"
)
HIDDEN = 256
OPTIMISER = {"optimizer": "Adam", "lr": 1e-3, "optimizer_kwargs": None}
WARM_UP_ROWS = 300


def encoder(n_columns):
    return torch.nn.Sequential(
        torch.nn.Linear(n_columns, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, 2),
    )


class Method:
    def __init__(self, setting, **parameters):
        self.seed, self.parameters = setting.seed, parameters

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((WARM_UP_ROWS, X.shape[1])).astype(np.float32)
        tiny = torchdr.TSNE(encoder=encoder(X.shape[1]), max_iter=2, device="cpu", **OPTIMISER)
        tiny.fit_transform(rows)
        tiny.transform(rows)

    def fit(self, X):
        torch.manual_seed(self.seed)
        self.tsne = torchdr.TSNE(
            encoder=encoder(X.shape[1]),
            device="cpu",
            random_state=self.seed,
            **{**OPTIMISER, **self.parameters},
        )
        return np.asarray(self.tsne.fit_transform(X.astype(np.float32)))

    def transform(self, X):
        return np.asarray(self.tsne.transform(X.astype(np.float32)))
