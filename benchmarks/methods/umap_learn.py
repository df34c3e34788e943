"""umap-learn."""

import numpy as np
from umap import UMAP

NOTE = (
    "not seeded, because a seed forces umap-learn to one thread: a seed here is the number of a "
    "repetition"
)
EXACT_BELOW = 4096  # rows; from there on umap-learn searches neighbours with pynndescent
WARM_UP_ROWS = 500


class Method:
    def __init__(self, setting, **parameters):
        self.options = {"n_jobs": setting.threads, **parameters}
        self.umap = UMAP(**self.options)

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((WARM_UP_ROWS, X.shape[1])).astype(X.dtype)
        is_large = len(X) >= EXACT_BELOW
        tiny = UMAP(n_epochs=5, force_approximation_algorithm=is_large, **self.options).fit(rows)
        tiny.transform(rows[:50])

    def fit(self, X):
        return np.array(self.umap.fit_transform(X))

    def transform(self, X):
        return np.array(self.umap.transform(X))
