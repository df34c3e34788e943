"""
Where does the map tear the digits apart?
=========================================

No flat map of many dimensions is true to all distances. W says, row by row, how far a small change
of the picture moves it on the map: where that is much, close pictures come to lie far apart.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import ptsne

digits = load_digits(as_frame=True)
X, y = digits.data[:1000], digits.target.to_numpy()[:1000]
map_ = ptsne.ParametricTSNE(random_state=0).fit(X)
why = map_.explain(X)

# %%
# The digits, and how strongly the map stretches the surroundings of each.
figure, (left, right) = plt.subplots(1, 2, figsize=(6.9, 3.4), layout="constrained")
ptsne.plots.map(map_, y=y, ax=left)
ptsne.plots.local_stretch(why, ax=right)
figure.savefig("stretch.png", dpi=250)

# %%
# Does stretch matter? How far a step of one unit towards the nearest neighbour goes on the map, for
# the tenth of the pictures that W stretches most and the tenth that it stretches least.
stretch = np.linalg.svd(why.weight, compute_uv=False)[:, 0]
near = ptsne.affinities.nearest_neighbors(why.X, 1).indices[:, 0]
step = np.linalg.norm(why.Y - why.Y[near], axis=1)
pace = step / np.linalg.norm(why.X - why.X[near], axis=1)
order = np.argsort(stretch)
calm, torn = order[:100], order[-100:]

# %%
# What was learned, in numbers.
n_torn = int((why.n_active[torn] > 1).sum())
print(
    f"The tenth of the digits that W stretches most is stretched "
    f"{np.median(stretch[torn]) / np.median(stretch[calm]):.1f} times as much as the tenth that it "
    f"stretches least, and the same step towards a nearest neighbour takes it "
    f"{np.median(pace[torn]) / np.median(pace[calm]):.1f} times as far on the map; {n_torn} of "
    "these 100 stand between two charts. See stretch.png."
)
