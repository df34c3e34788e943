"""ParametricUMAP of umap-learn, on TensorFlow."""

import os

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import tensorflow as tf
from umap.parametric_umap import ParametricUMAP

NOTE = (
    "keras is seeded; umap-learn's own search for neighbours is not, because a seed forces it to "
    "one thread"
)
WARM_UP_ROWS = 500
WARM_UP_EPOCHS = 5  # visits of an edge


class Method:
    def __init__(self, setting, **parameters):
        tf.config.threading.set_intra_op_parallelism_threads(setting.threads)
        tf.config.threading.set_inter_op_parallelism_threads(setting.threads)
        self.seed = setting.seed
        self.options = {
            "n_jobs": setting.threads,
            "verbose": False,
            "keras_fit_kwargs": {"verbose": 0},
            **parameters,
        }

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((WARM_UP_ROWS, X.shape[1])).astype(X.dtype)
        tiny = ParametricUMAP(
            n_epochs=WARM_UP_EPOCHS, force_approximation_algorithm=True, **self.options
        )
        tiny.fit_transform(rows)
        tiny.transform(rows)

    def fit(self, X):
        keras.utils.set_random_seed(self.seed)
        self.umap = ParametricUMAP(**self.options)
        return np.array(self.umap.fit_transform(X))

    def transform(self, X):
        return np.array(self.umap.transform(X))
