"""
Where does the answer of a network of one's own come from?
==========================================================

A small network that nobody designed for explanation: convolutions, GELU, a residual connection,
layer normalisation and attention. It is trained on digits and then handed over as it is. For every
picture it is ``W x + b``, and b is a sum over its parameters: so its answer can be traced back both
to pixels and to layers.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from ptsne import linearize


class Network(nn.Module):
    """8 x 8 pixels to sixteen patches that attend to each other, to ten logits."""

    def __init__(self, width=24):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.position = nn.Parameter(torch.zeros(16, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mix = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))
        self.logits = nn.Linear(width, 10)

    def forward(self, x):
        z = self.patches(x).flatten(2).transpose(1, 2) + self.position  # (B, 16, width)
        n = self.norm(z)
        z = z + self.attention(n, n, n, need_weights=False)[0]
        return self.logits((z + self.mix(z)).mean(1))


def trained(x, y, n_steps=300):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_steps):
        rows = torch.randint(len(x), (100,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
    return network.double().eval()


images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16).reshape(-1, 1, 8, 8), torch.tensor(labels)
network = trained(x[:1200].float(), y[:1200])
right = (network(x[1200:]).argmax(1) == y[1200:]).double().mean().item()

# %%
# One call. W and b are those of each picture; nothing of the network was changed or registered.
shown = x[1200:][[int((y[1200:] == digit).nonzero()[0]) for digit in range(10)]]
lin = linearize(network, shown)
added = lin.attribution("predicted")[:, 0]  # W * x of the digit that the network sees
terms = {name: term[:, 0] for name, term in lin.bias_terms("predicted").items()}
logit = lin.output.amax(1)
gap = (added.sum((1, 2)) + sum(terms.values()) - logit).abs().max().item()

# %%
# Above, what each pixel adds to the logit. Below, what the parameters add: together they are it.
figure, axes = plt.subplots(
    2, 10, figsize=(12, 4), height_ratios=[1, 1.8], sharey="row", layout="constrained"
)
names = sorted(terms, key=lambda name: -terms[name].abs().mean().item())
for column, (picture, above, below) in enumerate(zip(added, *axes, strict=True)):
    limit = picture.abs().max()
    above.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
    above.set(xticks=[], yticks=[], title=f"logit {logit[column]:.1f}")
    parts = [picture.sum().item(), *(terms[name][column].item() for name in names)]
    colours = ["#B2182B" if part > 0 else "#2166AC" for part in parts]
    below.barh(["pixels (W x)", *names], parts, color=colours)
    below.axvline(0, color="black", linewidth=0.6)
axes[1, 0].invert_yaxis()
figure.suptitle("What pixels and parameters add to the digit that the network sees")
figure.savefig("own-network.png", dpi=150)

# %%
# What was learned, in numbers.
share = (added.sum((1, 2)) / logit).median().item()
print(
    f"The network names {right:.1%} of new digits; its pixels make {share:.0%} of a typical logit, "
    f"{names[0]} more of the rest than any other parameter, and together with b they make every "
    f"logit to {gap:.0e}. See own-network.png."
)
