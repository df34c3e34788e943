"""
What parts malignant tumours from benign ones on the map, and how sure is that?
===============================================================================

Thirty measurements of cell nuclei from 569 tumours. The map never sees the diagnosis; it shows two
shores. The contrast asks which measurements make up the way from one shore to the other, pair by
pair of patients, so that each share comes with its spread.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ptsne

tumours = load_breast_cancer(as_frame=True)
diagnosis = np.array(["malignant", "benign"])[tumours.target]
pipeline = make_pipeline(StandardScaler(), ptsne.ParametricTSNE(random_state=0))
Y = pipeline.fit_transform(tumours.data)
why = ptsne.explain(pipeline, tumours.data)

# %%
# Two hundred pairs of a benign and a malignant tumour, every measurement's share of the way between
# them on the map: the mean, and how far it varies from pair to pair.
shares = why.contrast_clusters(diagnosis, "benign", "malignant")

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
ptsne.plots.map(Y, y=diagnosis, ax=left)
ptsne.plots.contrast(shares, ends=("benign", "malignant"), ax=right)
figure.savefig("contrast.png", dpi=150)

# %%
# Turn the map, mirror it, double it: shares of a way do not change. A contrast of two single
# patients answers the same question for them alone.
one, other = (int(np.flatnonzero(diagnosis == name)[0]) for name in ("benign", "malignant"))
alone = why.contrast(one, other)
largest = np.abs(alone).argmax()
print(f"Between these two, {why.feature_names[largest]} comes first, with {alone[largest]:.0%}")

# %%
# What was learned, in numbers.
first, second = shares.head(2).itertuples()
many = int((shares["share"].cumsum() >= 0.5).to_numpy().argmax()) + 1
print(
    f"No single measurement parts them: {first.feature} comes first with {first.share:.0%} "
    f"(± {first.spread:.0%} from pair to pair), then {second.feature} with {second.share:.0%}, and "
    f"{many} of 30 measurements make up half of the way. See contrast.png."
)
