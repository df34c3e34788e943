"""
A kind of digit turns up that the map has never seen: does it find room, and what moves?
========================================================================================

A map learns handwritten digits from 0 to 9, but no 8. Then the eights come.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import ptsne

X, y = load_digits(return_X_y=True)
X, X_new, y, y_new = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)
is_old = y != 8
map_ = ptsne.ParametricTSNE(random_state=0).fit(X[is_old])


# %%
# Before, the eights stand among ones, threes and nines: the map has no place for them.


def found(y_true):
    """Share of the digits kept out whose ten nearest on the map are of their kind."""
    vote = KNeighborsClassifier(10).fit(map_.transform(X), y)
    return vote.score(map_.transform(X_new[y_true]), y_new[y_true])


before, found_before = map_.transform(X), found(y_new == 8)

# %%
# The update freezes all that the map knows, and adds landmarks where groups of rows are unlike
# anything known. The report says what that has done to the old rows.
map_.update(X[~is_old])
after, found_after = map_.transform(X), found(y_new == 8)
print(map_.drift_)

# %%
# The same map before and after; eights are black.
figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), sharex=True, sharey=True)
for ax, Y, title in zip(axes, (before, after), ("before", "after the update"), strict=True):
    ax.scatter(*Y[is_old].T, c=y[is_old], cmap="tab10", s=6, alpha=0.6)
    ax.scatter(*Y[~is_old].T, color="black", s=8)
    ax.set(title=title, xticks=[], yticks=[])
    for digit in range(10):
        if digit != 8 or ax is axes[1]:
            color = "white" if digit == 8 else "black"
            middle = np.median(Y[y == digit], axis=0)
            ax.annotate(str(digit), middle, fontsize=15, weight="bold", color=color)
figure.tight_layout()
figure.savefig("update.png", dpi=110)

# %%
# A map that is fitted again on everything comes out turned and rearranged; laid over the old one
# as well as a rotation, a reflection and a shift can, its rows lie elsewhere.
again = ptsne.ParametricTSNE(random_state=0).fit(X)
moved = ptsne.register(before[is_old], again.transform(X[is_old]))

# %%
# What was learned, in numbers.
drift = map_.drift_
print(
    f"Of the eights kept out, {found_after:.0%} instead of {found_before:.0%} stand among their "
    f"own kind, and the farthest that any of the {drift.movement.n_rows} old digits moved is "
    f"{drift.movement.largest:.2g} map units; after a new fit, laid over the old map, half of them "
    f"are more than {np.median(moved.residual):.0f} from where they were. See update.png."
)
