"""
Why does setosa sit apart from the other irises?
================================================

A hundred flowers teach the map, fifty others are placed and explained.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import ptsne

iris = load_iris(as_frame=True)
X, X_new, y, y_new = train_test_split(
    iris.data, iris.target, test_size=50, stratify=iris.target, random_state=0
)
map_ = ptsne.ParametricTSNE(random_state=0).fit(X)
why = map_.explain(X_new)

# %%
# Two hundred pairs of a setosa and a versicolor: how much of the way between them on the map is the
# work of each measurement, and how much that varies from pair to pair.
species = iris.target_names[y_new]
shares = why.contrast_clusters(species, "versicolor", "setosa")
print(shares.round(2).to_string(index=False))

# %%
# The map, with the new flowers as rings; what moves one of them, the virginica that stands farthest
# from the mean flower; and the contrast.
moved = np.linalg.norm(why.displacement().sum(2), axis=1)
flower = int(np.where(y_new == 2, moved, 0).argmax())

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
ptsne.plots.map(
    np.vstack([map_.embedding_, why.Y]),
    y=np.concatenate([y, y_new]),
    names=iris.target_names,
    held_out=np.arange(150) >= 100,
    ax=left,
)
left.annotate(
    "this one", why.Y[flower], (20, 30), textcoords="offset points", arrowprops={"arrowstyle": "->"}
)
ptsne.plots.contributions(why, flower, ax=middle)
ptsne.plots.contrast(shares, ends=("versicolor", "setosa"), ax=right)
figure.savefig("iris.png", dpi=150)

# %%
# What was learned, in numbers.
(first, of_first), (second, of_second) = shares[["feature", "share"]].to_numpy()[:2]
print(
    f"setosa sits apart from versicolor because of {first} ({of_first:.0%}) and {second} "
    f"({of_second:.0%}); W x + b gives the places to {why.residual.max():.0e}. See iris.png."
)
