"""
Do new digits find their island, and which pixels take them there?
==================================================================

1,198 handwritten digits (8 x 8 pixels) teach the map, 599 others are placed and explained.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import ptsne

digits = load_digits(as_frame=True)
X, X_new, y, y_new = train_test_split(
    digits.data, digits.target.to_numpy(), test_size=599, stratify=digits.target, random_state=0
)
map_ = ptsne.ParametricTSNE(random_state=0).fit(X)
why = map_.explain(X_new)

# %%
# A typical picture of each digit, the one nearest to the middle of its class among those that
# stand on one chart of the map; and two that stand among others. Red pixels take a picture further
# on its way from the mean picture, blue ones hold it back; a square's area is the distance.
middle = np.array([np.median(why.Y[y_new == digit], axis=0) for digit in range(10)])
distance = np.linalg.norm(why.Y - middle[y_new], axis=1) + 1e6 * (why.n_active > 1)
typical = [int(np.where(y_new == digit, distance, np.inf).argmin()) for digit in range(10)]

vote = KNeighborsClassifier(10).fit(map_.embedding_, y).predict(why.Y)
astray = np.flatnonzero((vote != y_new) & (why.n_active == 1))[:2]

ax = ptsne.plots.contribution_grid(why, [*typical, *astray], (8, 8), y=y_new, n_columns=4)
ax.figure.savefig("digits.png", dpi=110)

# %%
# What tells a 4 from a 9? The share of each pixel in the way between them, over pairs of pictures.
shares = why.contrast_clusters(y_new, 9, 4).set_index("feature")["share"]
lines = shares[why.feature_names].to_numpy().reshape(8, 8).sum(1)
parts = {
    "upper three": lines[:3].sum(),
    "middle two": lines[3:5].sum(),
    "lower three": lines[5:].sum(),
}
part = max(parts, key=parts.get)

# %%
# What was learned, in numbers.
lengths = -np.sort(-np.linalg.norm(why.displacement(range(100)), axis=1), axis=1)
is_half = lengths.cumsum(1) >= lengths.sum(1, keepdims=True) / 2
n_pixels = np.median(is_half.argmax(1) + 1)
print(
    f"{(vote == y_new).mean():.1%} of the 599 new digits land among their own kind, half of a "
    f"digit's way is the work of {n_pixels:.0f} of its 64 pixels, and the {part} lines of a "
    f"picture do more of what parts 4 from 9 than the others ({parts[part]:.0%}). "
    "See digits.png."
)
