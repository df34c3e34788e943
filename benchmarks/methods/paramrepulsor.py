"""ParamRepulsor: parametric PaCMAP with hard negatives, of the package parampacmap."""

import numpy as np
from parampacmap import ParamPaCMAP

NOTE = (
    "the defaults of parampacmap are ParamRepulsor, 450 epochs; transform starts a process that "
    "loads rows, whose memory is not counted"
)
WARM_UP_ROWS = 300


class Method:
    def __init__(self, setting, **parameters):
        self.map = ParamPaCMAP(seed=setting.seed, **parameters)

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((WARM_UP_ROWS, X.shape[1])).astype(X.dtype)
        tiny = ParamPaCMAP(num_epochs=2)
        tiny.fit_transform(rows)
        tiny.transform(rows)

    def fit(self, X):
        return self.map.fit_transform(X)

    def transform(self, X):
        return self.map.transform(X)
