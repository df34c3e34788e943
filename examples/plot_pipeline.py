"""
Which measurements set wines apart, when the map saw principal components only?
===============================================================================

Chemists measured thirteen things in wines of three cultivars. A pipeline scales them and keeps five
principal components, and the map is made of these. In its own columns the map answers with
components, which nobody can read; the whole pipeline answers in the chemists' columns.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ptsne

wine = load_wine(as_frame=True)
X, cultivar = wine.data, wine.target.to_numpy()
cultivars = [f"cultivar {letter}" for letter in "ABC"]

pipeline = make_pipeline(StandardScaler(), PCA(5), ptsne.ParametricTSNE(random_state=0))
pipeline.set_output(transform="pandas").fit(X)
why = ptsne.explain(pipeline, X)
inside = pipeline[-1].explain(pipeline[:-1].transform(X))

# %%
# The same question twice: what separates cultivars A and B on the map? Shares of the way from one
# to the other, mean and standard deviation over 200 pairs of wines.
components = inside.contrast_clusters(cultivar, 0, 1)
measurements = why.contrast_clusters(cultivar, 0, 1)


def draw_shares(ax, table, title):
    """Bars for the shares of a way, the largest on top."""
    names = table["feature"].str.replace("_", " ").str.replace("pca", "component ")
    ax.barh(names, table["share"], xerr=table["spread"], color="#8da0cb", ecolor="#555555")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.set_title(title)
    ax.set_xlabel("share of the way")
    ax.spines[["top", "right"]].set_visible(False)


figure, (left, middle, right) = plt.subplots(
    1, 3, figsize=(14, 4.6), width_ratios=[1.2, 0.8, 1.2], layout="constrained"
)
ptsne.plots.map(why.Y, y=cultivar, names=cultivars, ax=left)
left.set_title("178 wines, from five components")
draw_shares(middle, components, "A to B in what the map saw")
draw_shares(right, measurements, "A to B in what the chemists measured")
figure.savefig("pipeline.png", dpi=150)

# %%
# What was learned, in numbers.
first, second = measurements.head(2).itertuples()
error = np.abs(why.contributions.sum(2) + why.offset - pipeline.transform(X).to_numpy()).max()
print(
    f"{first.feature} ({first.share:.0%} of the way) and {second.feature} "
    f"({second.share:.0%}) set cultivar B apart from A on a map that saw five principal "
    f"components; contributions of the thirteen measurements give its places to {error:.0e}. "
    "See pipeline.png."
)
