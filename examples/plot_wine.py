"""
What makes three wines three?
=============================

178 wines of one region, from three cultivars, with thirteen measurements by a chemist. The map is
behind a scaler, and is explained in the chemist's own units.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ptsne

wine = load_wine(as_frame=True)
pipeline = make_pipeline(StandardScaler(), ptsne.ParametricTSNE(random_state=0))
Y = pipeline.fit_transform(wine.data)
why = ptsne.explain(pipeline, wine.data)

# %%
# What holds each cultivar at its place: every measurement's share of the way from the mean wine,
# and how much it varies among the wines of that cultivar. The colour of a square is the share, its
# area says how sure that is.
cultivar = np.array(["first", "second", "third"])[wine.target]
held = why.loadings(cultivar)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
ptsne.plots.map(Y, y=cultivar, ax=left)
ptsne.plots.loadings(held, ax=right)
figure.savefig("wine.png", dpi=150)

# %%
# What was learned, in numbers.
largest = held.sort_values("share", ascending=False).groupby("cluster").head(2)
typical = wine.data.groupby(cultivar).mean() - wine.data.mean()


def reason(row):
    amount = "much" if typical.loc[row.cluster, row.feature] > 0 else "little"
    return f"{amount} {row.feature} ({row.share:.0%})"


reasons = [
    f"the {name} by {' and '.join(reason(row) for row in rows.itertuples())}"
    for name, rows in largest.groupby("cluster")
]
print(f"Of three cultivars, the map knows {', '.join(reasons)}. See wine.png.")
