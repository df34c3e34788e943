"""
Does an encoder that sees shapes make a better map of clothes?
==============================================================

Rows of pixels know nothing of each other's neighbours in the picture; a convolutional encoder does.
Any ``torch`` module can be the encoder: it is pre-trained as an autoencoder and trained with the
map, and the explanation goes through it down to the pixels. 3,000 pictures of Fashion-MNIST teach
two maps, 1,000 others judge them.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import ptsne
from ptsne.metrics import knn_accuracy, local_fidelity, neighbor_recall

rng = np.random.default_rng(0)
train = ptsne.datasets.load("fashion-mnist")
test = ptsne.datasets.load("fashion-mnist", split="test")
chosen, new = rng.permutation(60_000)[:3_000], rng.permutation(10_000)[:1_000]
X, y, X_new, y_new = train.X[chosen], train.y[chosen], test.X[new], test.y[new]

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    convolutional = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 8, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 6 * 6, 50),
    )

maps = {
    "linear encoder": ptsne.ParametricTSNE(random_state=0),
    "convolutional encoder": ptsne.ParametricTSNE(encoder=convolutional, random_state=0),
}

# %%
# Both are judged on pictures that they have not seen: the neighbours they keep, the kinds of
# clothes they tell apart, and how well W says where the neighbours lie.
figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
scores, explanations = {}, {}
for ax, (name, map_) in zip(axes, maps.items(), strict=True):
    why = explanations[name] = map_.fit(X).explain(X_new)
    places = {"X_train": X, "Y_train": map_.embedding_}
    scores[name] = {
        "recall": neighbor_recall(X_new, why.Y, **places),
        "accuracy": knn_accuracy(why.Y, y_new, Y_train=map_.embedding_, labels_train=y),
        "fidelity": local_fidelity(why.weight, X_new, why.Y, **places).r2,
    }
    ptsne.plots.map(why.Y, y=y_new, names=train.target_names, ax=ax).set_title(name)
    print(name, {score: round(float(value), 3) for score, value in scores[name].items()})
figure.savefig("fashion.png", dpi=150)

# %%
# What takes a boot to its place, through the convolutions: red pixels take it further on its way
# from the mean picture, blue ones hold it back.
why = explanations["convolutional encoder"]
typical = [int(np.flatnonzero((y_new == kind) & (why.n_active == 1))[0]) for kind in (9, 7, 1, 8)]
ax = ptsne.plots.contribution_grid(why, typical, train.image_shape, y=y_new, n_columns=2)
ax.figure.savefig("fashion-explained.png", dpi=150)

# %%
# What was learned, in numbers.
linear, shapes = scores.values()
verdict = "better" if shapes["recall"] > linear["recall"] else "worse"
print(
    f"On these 3,000 pictures the convolutional encoder is {verdict} at keeping neighbours "
    f"({shapes['recall']:.1%} against {linear['recall']:.1%}) and names {shapes['accuracy']:.1%} "
    f"of the new clothes (against {linear['accuracy']:.1%}); W x + b holds through it to "
    f"{why.residual.max():.0e}. See fashion.png and fashion-explained.png."
)
