"""openTSNE, with its optimising transform."""

import numpy as np
from openTSNE import TSNE

NOTE = (
    "fit includes its own neighbour search; transform moves the training map in place, so the "
    "map is copied before, and held-out places are moved back with it"
)


class Method:
    def __init__(self, setting, **parameters):
        self.threads = setting.threads
        self.tsne = TSNE(n_jobs=setting.threads, random_state=setting.seed, **parameters)

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((1100, X.shape[1])).astype(X.dtype)
        brief = TSNE(early_exaggeration_iter=2, n_iter=2, n_jobs=self.threads, random_state=0)
        brief.fit(rows).transform(rows[:9], n_iter=2)

    def fit(self, X):
        self.embedding = self.tsne.fit(X)
        self.Y_train = np.array(self.embedding)
        return self.Y_train

    def transform(self, X):
        places = np.array(self.embedding.transform(X))
        return places + (self.Y_train[0] - np.asarray(self.embedding)[0])

    def reported_kl(self):
        return float(self.embedding.kl_divergence)
