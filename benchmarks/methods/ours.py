"""ptsne.ParametricTSNE."""

import numpy as np

from ptsne import ParametricTSNE

NOTE = "explain and its rows per second include W, b and contributions of every row"
WARM_UP_ROWS = 300


class Method:
    def __init__(self, setting, **parameters):
        self.parameters = parameters
        self.estimator = ParametricTSNE(random_state=setting.seed, **parameters)

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((WARM_UP_ROWS, X.shape[1])).astype(X.dtype)
        brief = {**self.parameters, "max_iter": 16}
        tiny = ParametricTSNE(random_state=0, **brief).fit(rows)
        tiny.transform(rows)
        tiny.explain(rows)

    def fit(self, X):
        return self.estimator.fit_transform(X)

    def transform(self, X):
        return self.estimator.transform(X)

    def explain(self, X):
        return self.estimator.explain(X).weight

    def phases(self):
        """Seconds of each phase of training, in order; neighbours come before the first."""
        ends = {record["phase"]: record["seconds"] for record in self.estimator.history_}
        return dict(zip(ends, np.diff([0.0, *ends.values()]).tolist(), strict=True))

    def reported_kl(self):
        return self.estimator.kl_divergence_
