"""
Which chemistry pushes a wine where on the map?
===============================================

A biplot draws one arrow for each measurement, because its map is a straight plane. This map is not:
the same measurement may push one way here and another there, so every place has its own arrow.
"""

import numpy as np
from sklearn.datasets import load_wine

import ptsne

wine = load_wine(as_frame=True)
X = (wine.data - wine.data.mean()) / wine.data.std()
map_ = ptsne.ParametricTSNE(random_state=0).fit(X)
why = map_.explain(X)

# %%
# The two measurements that push hardest, the one with the most even push, and the one with the
# least even: how much of all its pushes is left when they are added up as arrows.
on_chart = why.n_active == 1
pushes = (why.weight * why.X.std(0))[on_chart]  # map units per standard deviation, (rows, 2, 13)
length = np.linalg.norm(pushes, axis=1).mean(0)
evenness = np.linalg.norm(pushes.mean(0), axis=0) / length
strongest, even = np.argsort(-length), np.argsort(-evenness)
shown = list(dict.fromkeys([*strongest[:2], even[0], even[-1], *strongest[2:]]))[:4]

panels = ptsne.plots.feature_field(why, shown)
panels[0].figure.savefig("feature-field.png", dpi=250)

# %%
# What was learned, in numbers.
first, steady, fickle = (why.feature_names[f] for f in (strongest[0], even[0], even[-1]))
print(
    f"One standard deviation of {first} moves a wine {length.max():.2f} map units on average, more "
    f"than any other measurement; {evenness.max():.0%} of the push of {steady} has one direction "
    f"all over the map, but only {evenness.min():.0%} of that of {fickle}. See feature-field.png."
)
