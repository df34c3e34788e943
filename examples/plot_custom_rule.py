"""
What do the pixels add, in a network with an activation of one's own?
=====================================================================

``relu(z) ** 2`` as a ``torch.autograd.Function`` hides from the linearizer what it computes: it is
refused, by name, until a rule says which part of it is the gate. Its gradient would mislead.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from ptsne import linearize
from ptsne.linearize import UnsupportedOperation, gain, linearization_rule


class SquaredRelu(torch.autograd.Function):
    """``relu(z) ** 2``, keeping ``relu(z)`` for the way back."""

    @staticmethod
    def forward(ctx, z):
        r = z.clamp_min(0)
        ctx.save_for_backward(r)
        return r * r

    @staticmethod
    def backward(ctx, gradient):
        (r,) = ctx.saved_tensors
        return 2 * r * gradient


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.logits = nn.Linear(64, 40), nn.Linear(40, 10)

    def forward(self, x):
        return self.logits(SquaredRelu.apply(self.hidden(x)))


def trained(x, y, n_steps=150):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network().double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16), torch.tensor(labels)
network = trained(x[:1200], y[:1200])
shown = x[1200:][[int((y[1200:] == digit).nonzero()[0]) for digit in range(10)]]
try:
    linearize(network, shown)
except UnsupportedOperation as refusal:
    print(refusal)

# %%
# relu(z)^2 is relu(z) times z. One factor carries x, the other is held as its gate.


@linearization_rule(SquaredRelu)
def squared_relu(operation):
    (r,) = operation.node.saved_tensors
    return gain(operation, r)


held = linearize(network, shown)
added = held.attribution("predicted")
logit = held.output.amax(1)
gap = (added.sum(1) + held.bias("predicted")[:, 0] - logit).abs().max()

pixels = shown.clone().requires_grad_(True)
network(pixels).amax(1).sum().backward()
claimed = shown * pixels.grad
ratio = (claimed.sum(1) / added.sum(1)).median()

# %%
# What each pixel adds to the digit that the network sees, and what its gradient claims.
figure, axes = plt.subplots(3, 10, figsize=(11, 3.9), layout="constrained")
names = ("picture", "W · x, gates held", "gradient · x")
for name, line, pictures in zip(names, axes, (shown, added, claimed), strict=True):
    line[0].set_ylabel(name, fontsize=8)
    for ax, picture, limit in zip(line, pictures, claimed.abs().amax(1), strict=True):
        scale = {"cmap": "gray_r"} if picture.min() >= 0 else {"cmap": "RdBu_r"}
        limits = {} if picture.min() >= 0 else {"vmin": -limit, "vmax": limit}
        ax.imshow(picture.reshape(8, 8), **scale, **limits)
        ax.set(xticks=[], yticks=[])
for column in range(10):
    axes[0, column].set_title(f"logit {logit[column]:.1f}", fontsize=8)
    axes[1, column].set_xlabel(f"{added[column].sum():.1f}", fontsize=8)
    axes[2, column].set_xlabel(f"{claimed[column].sum():.1f}", fontsize=8)
figure.suptitle("Pixels for (red) and against (blue) the digit seen; sums below")
figure.savefig("custom-rule.png", dpi=150)

# %%
# What was learned, in numbers.
right = int((network(x[1200:]).argmax(1) == y[1200:]).sum())
print(
    f"With the rule, what the pixels add and b make the logits to {gap:.0e}; gradient times input "
    f"claims {ratio:.2f} times as much ({100 * right / len(y[1200:]):.0f}% of new digits right). "
    "See custom-rule.png."
)
