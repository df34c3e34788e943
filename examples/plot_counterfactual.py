"""
What would have to be different about a flower for it to lie elsewhere on the map?
==================================================================================

A hundred irises teach the map. Among fifty others, one versicolor is asked for the smallest change
of its measurements that would put it among the virginicas, and all the others for theirs.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import ptsne

iris = load_iris(as_frame=True)
X, X_new, y, y_new = train_test_split(
    iris.data, iris.target, test_size=50, stratify=iris.target, random_state=0
)
map_ = ptsne.ParametricTSNE(random_state=0).fit(X)
why = map_.explain(X_new)
species = iris.target_names[y_new]

# %%
# The smallest change for every versicolor, measured in spreads of each column, so that a wide
# column is not cheaper to change than a narrow one. The flower of the median change is told.
versicolors = np.flatnonzero(species == "versicolor")
changes = [why.counterfactual(int(i), "virginica", labels=species) for i in versicolors]
order = np.argsort([change.norm for change in changes])
told = order[len(order) // 2]
flower, change = int(versicolors[told]), changes[told]
print(change.to_frame().round(2).to_string(index=False))

# %%
# The walk on the map, while the measurements change at an even pace: the map is exactly linear
# from one linear region to the next.
steps = np.linspace(0, 1, 400)[:, None]
rows = change.original + steps * change.change
walk = map_.transform(pd.DataFrame(rows, columns=X.columns))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
places, classes = np.vstack([map_.embedding_, why.Y]), np.concatenate([y, y_new])
shown = classes > 0  # the setosas are far away
ptsne.plots.map(
    places[shown],
    y=classes[shown],
    names=iris.target_names[1:],
    held_out=(np.arange(150) >= 100)[shown],
    ax=left,
)
left.plot(*walk.T, color="black", linewidth=1.5)
left.plot(*walk[0], "o", color="black", markersize=7)
left.plot(*change.place, "*", color="black", markersize=14)
left.set_title("One versicolor on its way to the virginicas")
# sphinx_gallery_defer_figures

# %%
# What the other versicolors would need: the same measurements, by other amounts.
moved = np.array([c.change for c in changes])[order]
bottom = np.zeros(len(order))
for column, name in enumerate(why.feature_names):
    size = np.abs(moved[:, column])
    if size.any():
        right.bar(np.arange(len(order)), size, bottom=bottom, label=name.removesuffix(" (cm)"))
        bottom += size
right.set_xticks([])
right.set(xlabel="versicolors, the nearest to the virginicas first", ylabel="change (cm)")
right.set_title("What each of them would need")
right.legend(frameon=False)
figure.savefig("counterfactual.png", dpi=150)

# %%
# What was learned, in a sentence.
words = []
for line in change.to_frame().itertuples():
    if abs(line.change) < 0.05:
        continue  # would be told as 0.0
    part, dimension, _ = line.feature.split()  # such as petal length (cm)
    more, less = {"length": ("longer", "shorter"), "width": ("wider", "narrower")}[dimension]
    words.append(f"{abs(line.change):.1f} cm {more if line.change > 0 else less} {part}s")
reached = sum(c.reached for c in changes)
print(
    f"With {' and '.join(words)} this versicolor would lie among the virginicas; "
    f"{reached} of {len(changes)} versicolors can be moved there, by changing "
    f"{np.mean([len(c.features) for c in changes]):.1f} of 4 measurements on average. "
    "See counterfactual.png."
)
