"""Glass Box UMAP."""

import numpy as np
import torch
from glass_box_umap import GlassBoxUMAP

NOTE = (
    "explain is the Jacobian of the library, which takes the norm of a layer for a constant: its "
    "parts are complete, but it is not the derivative of the map"
)
WARM_UP_ROWS = 300


class Method:
    def __init__(self, setting, **parameters):
        self.umap = GlassBoxUMAP(random_state=setting.seed, quiet=True, **parameters)

    def warm_up(self, X):
        rows = np.random.default_rng(0).random((WARM_UP_ROWS, X.shape[1])).astype(X.dtype)
        tiny = GlassBoxUMAP(epochs=2, quiet=True)
        tiny.fit_transform(rows)
        tiny.compute_contributions(rows)

    def fit(self, X):
        return self.umap.fit_transform(X)

    def transform(self, X):
        return self.umap.transform(X)

    def explain(self, X):
        centred = torch.from_numpy(X.astype(np.float32) - self.umap._mean)
        return self.umap.compute_jacobian(centred).numpy()
