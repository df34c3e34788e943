"""The two first principal components: what a straight map can do."""

import numpy as np
from sklearn.decomposition import PCA

NOTE = "linear: W is the same everywhere and predicts every displacement, so it is not measured"


class Method:
    def __init__(self, setting, **parameters):
        self.pca = PCA(n_components=2, random_state=setting.seed, **parameters)

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((100, X.shape[1])).astype(X.dtype)
        PCA(n_components=2, random_state=0).fit(rows).transform(rows)

    def fit(self, X):
        return self.pca.fit_transform(X)

    def transform(self, X):
        return self.pca.transform(X)
