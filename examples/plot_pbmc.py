"""
Which genes hold a cluster of blood cells together?
===================================================

4,271 white blood cells of one donor, 2,000 genes. Counts are brought to one depth, logarithms
taken, and 50 principal components shown to the map, as is usual; the explanation goes back through
the components to the genes. A rank-sum test, which knows nothing of the map, is the judge.

The data are read from the folder that the environment variable ``PTSNE_DATA`` names.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

import ptsne

cells = ptsne.datasets.load("pbmc4k-counts")
counts = np.asarray(cells.X, dtype=np.float64)
depth = counts.sum(1, keepdims=True)
X = pd.DataFrame(np.log1p(counts * np.median(depth) / depth), columns=cells.feature_names)

pipeline = make_pipeline(PCA(50, random_state=0), ptsne.ParametricTSNE(random_state=0))
Y = pipeline.fit_transform(X)

# %%
# The genes of each cluster: their share of the way from the mean cell to forty of its cells.
few = np.concatenate([np.flatnonzero(cells.y == k)[:40] for k in np.unique(cells.y)])
why = ptsne.explain(pipeline, X.iloc[few])
names = np.array(cells.target_names)[np.searchsorted(np.unique(cells.y), cells.y)]
held = why.loadings(names[few])

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
ptsne.plots.map(Y, y=names, ax=left)
ptsne.plots.loadings(held, ax=right)
figure.savefig("pbmc.png", dpi=150)

# %%
# What was learned, in numbers: twenty genes of the largest cluster, beside the rank-sum test.
largest = max(np.unique(names), key=lambda name: (names == name).sum())
genes = held[held["cluster"] == largest].nlargest(20, "share")
inside = names == largest
rank_sum = mannwhitneyu(X[inside], X[~inside], axis=0)
effect = np.abs(rank_sum.statistic / (inside.sum() * (~inside).sum()) - 0.5)
tested = X.columns[np.argsort(-effect)[:20]]
first, second = (f"{row.feature} ({row.share:.0%})" for row in genes[:2].itertuples())
print(
    f"{largest} is held at its place above all by {first} and {second}; of its first twenty genes "
    f"{len(set(tested) & set(genes['feature']))} are also among the twenty that a rank-sum test "
    "finds. See pbmc.png."
)
