"""
A deep net from tiny weights
============================

Twenty hidden layers of 100 units, weights from N(0, 0.01²), biases 0.1. What comes out at the end hardly
depends on what goes in, and the gradient of the early layers is next to nothing. :class:`torchbcd.RelaxedBCD`
needs no gradient that has come through all layers: a block gets a target from the layer behind it. Digits,
1,400 rows to train on, 397 to test.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import torchbcd

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
train, test = order[:1400], order[1400:]


def tiny_net():
    """The start: the same one for both."""
    torch.manual_seed(1)
    widths = [64, *[100] * 20, 10]
    modules = []
    for i in range(len(widths) - 1):
        linear = nn.Linear(widths[i], widths[i + 1])
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.constant_(linear.bias, 0.1)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def accuracy(model):
    """Of the test part, in %."""
    with torch.no_grad():
        return 100 * (model(x[test]).argmax(1) == y[test]).double().mean().item()


# %%
# The one loop for both; only the line that makes a step differs.

EPOCHS, BATCH = 15, 50
curves = {}
for name in ("RelaxedBCD, its defaults", "Adam, lr 0.001"):
    model = tiny_net()
    relaxed = name.startswith("RelaxedBCD")
    optimizer = torchbcd.RelaxedBCD(model) if relaxed else torch.optim.Adam(model.parameters(), lr=1e-3)
    curves[name] = [accuracy(model)]
    for _ in range(EPOCHS):
        for rows in train[torch.randperm(len(train))].split(BATCH):
            if relaxed:
                optimizer.step(x[rows], y[rows])
            else:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
        curves[name].append(accuracy(model))

# %%

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, curve), style in zip(curves.items(), ("o-", "s--"), strict=True):
    axes.plot(curve, style, label=name)
axes.set_xlabel("epoch")
axes.set_ylabel("test accuracy (%)")
axes.set_ylim(0, 100)
axes.set_title("20 hidden layers from weights of N(0, 0.01²)")
axes.legend(loc="center right")
plt.show()

# %%
# This is about the start. From He's, backpropagation trains such nets too, and on shallow nets the two are close:
# see :doc:`/limits`.
