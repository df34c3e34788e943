"""contrastive-ne, parametric."""

import numpy as np
from cne import CNE

NOTE = "parametric=True, the other settings as the library has them; fit needs init=X to know N"
WARM_UP_ROWS = 300


class Method:
    def __init__(self, setting, **parameters):
        self.cne = CNE(parametric=True, seed=setting.seed, **parameters)

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((WARM_UP_ROWS, X.shape[1])).astype(X.dtype)
        tiny = CNE(parametric=True, n_epochs=2)
        tiny.fit_transform(rows, init=rows)
        tiny.transform(rows)

    def fit(self, X):
        # a parametric map has no initial places, but fit asks for their number
        return self.cne.fit_transform(X, init=X)

    def transform(self, X):
        return self.cne.transform(X)
