"""PaCMAP: not parametric, places new rows by their neighbours among the training rows."""

import numpy as np
from pacmap import PaCMAP

NOTE = "not parametric: transform optimises the places of new rows, and gets the training rows too"
WARM_UP_ROWS = 300


class Method:
    def __init__(self, setting, **parameters):
        self.seed = setting.seed
        self.map = PaCMAP(random_state=setting.seed, save_tree=True, **parameters)

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((WARM_UP_ROWS, X.shape[1])).astype(X.dtype)
        # numba compiles the seed in: that of the first fit of a process holds for all
        tiny = PaCMAP(num_iters=(2, 2, 2), save_tree=True, random_state=self.seed)
        tiny.fit_transform(rows)
        tiny.transform(rows[:50], basis=rows)

    def fit(self, X):
        self.X = X
        return np.array(self.map.fit_transform(X))

    def transform(self, X):
        return np.array(self.map.transform(X, basis=self.X))
