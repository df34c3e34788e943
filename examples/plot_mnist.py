"""
How fast and how well does a map place pictures it has never seen?
==================================================================

6,000 MNIST digits teach the map, 3,000 of the test file are placed. The data are downloaded once,
or read from the folder that the environment variable ``PTSNE_DATA`` names.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

import ptsne
from ptsne.metrics import knn_accuracy, neighbor_recall

rng = np.random.default_rng(0)
train, test = ptsne.datasets.load("mnist"), ptsne.datasets.load("mnist", split="test")
chosen, new = rng.permutation(60_000)[:6_000], rng.permutation(10_000)[:3_000]
X, y, X_new, y_new = train.X[chosen], train.y[chosen], test.X[new], test.y[new]

map_ = ptsne.ParametricTSNE(random_state=0).fit(X)
start = perf_counter()
Y_new = map_.transform(X_new)
microseconds = (perf_counter() - start) / len(X_new) * 1e6

# %%
# The map and where the new pictures land; then a typical picture of each digit, explained.
figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
ptsne.plots.map(map_, y=y, ax=axes[0]).set_title("6,000 training pictures")
ptsne.plots.map(Y_new, y=y_new, ax=axes[1]).set_title("3,000 new pictures")
figure.savefig("mnist.png", dpi=150)

few = rng.permutation(3_000)[:1_000]
why, digit = map_.explain(X_new[few]), y_new[few]
middle = np.array([np.median(why.Y[digit == d], axis=0) for d in range(10)])
distance = np.linalg.norm(why.Y - middle[digit], axis=1) + 1e6 * (why.n_active > 1)
typical = [int(np.where(digit == d, distance, np.inf).argmin()) for d in range(10)]
ax = ptsne.plots.contribution_grid(why, typical, train.image_shape, y=digit, n_columns=4)
ax.figure.savefig("mnist-explained.png", dpi=150)

# %%
# What tells a 4 from a 9: each pixel's share of the way between them, over pairs of pictures.
table = why.contrast_clusters(digit, 9, 4, n_pairs=50)
share = table.set_index("feature")["share"][why.feature_names].to_numpy().reshape(28, 28)
upper, centre, lower = (third.sum() for third in np.array_split(share, 3))

# %%
# What was learned, in numbers.
places = {"Y_train": map_.embedding_}
accuracy = knn_accuracy(Y_new, y_new, labels_train=y, **places)
recall = neighbor_recall(X_new, Y_new, X_train=X, **places)
print(
    f"A new picture is placed in {microseconds:.0f} microseconds; {accuracy:.1%} of them land "
    f"among their own kind and keep {recall:.0%} of their 15 nearest neighbours. Of the way "
    f"between 9 and 4, the upper third of a picture makes {upper:.0%}, the middle third "
    f"{centre:.0%}, and the lower third {lower:.0%}. "
    "See mnist.png and mnist-explained.png."
)
