"""
How often does the label flip if W x, or b, decides alone?
==========================================================

A network is ``W x + b`` at every picture. If b decided alone, the picture would hardly matter; if
``W x`` did, the network would be as good as linear. Li et al. 2023 asked this of networks for
pictures; here it is asked of three small ones that read digits: a plain one, one without any bias
before its last layer, and one with batch normalisation. ``examples/label_flip_rate.py`` is the
whole study, on MNIST, CIFAR-10 and ImageNet.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import ptsne


def layers(n_in, n_out, kind):
    linear = nn.Linear(n_in, n_out, bias=kind != "without bias")
    norm = [nn.BatchNorm1d(n_out)] if kind == "batch normalisation" else []
    return [linear, *norm, nn.ReLU()]


def trained(kind, x, y, n_steps=150):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hidden = [part for sizes in ((64, 64), (64, 64), (64, 64)) for part in layers(*sizes, kind)]
        network = nn.Sequential(*hidden, nn.Linear(64, 10)).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16), torch.tensor(labels)
kinds = ["plain", "without bias", "batch normalisation"]
rates = {}
for kind in kinds:
    network = trained(kind, x[:1200], y[:1200])
    rates[kind] = ptsne.label_flip_rate(network, x[1200:], y[1200:])
    print(f"{kind:20}", rates[kind])

# %%
# Accuracy of the whole, of W x and of b: what a bar is short of the first is what its part lacks.
figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
parts = {"W x + b": "accuracy", "W x alone": "accuracy_wx", "b alone": "accuracy_b"}
for step, (name, key) in enumerate(parts.items()):
    heights = [100 * getattr(rates[kind], key) for kind in kinds]
    ax.bar(np.arange(3) + 0.27 * (step - 1), heights, 0.25, label=name)
ax.axhline(10, color="black", linewidth=0.8, linestyle=":")
ax.annotate("chance", (2.6, 10), va="center", fontsize=9, annotation_clip=False)
ax.set_xticks(range(3), kinds)
ax.set_ylabel("new digits named rightly (%)")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.15))
figure.savefig("label-flip.png", dpi=150)

# %%
# What was learned, in numbers.
plain, normed = rates["plain"], rates["batch normalisation"]
print(
    f"Without b the plain network changes its mind on {plain.flip_rate_wx:.1%} of the new digits, "
    f"without W x on {plain.flip_rate_b:.1%}; with batch normalisation b knows more: alone it "
    f"names {normed.accuracy_b:.1%} rightly, against {plain.accuracy_b:.1%}. See label-flip.png."
)
