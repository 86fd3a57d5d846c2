"""
Residual nets
=============

Plain nets take longer the more layers they have; with skip connections the depth hardly matters.
:class:`torchbcd.nn.Residual` is x + branch(x), and :class:`torchbcd.RelaxedBCD` trains nets with it block
by block. Here are both, with 2 to 32 hidden layers of 50 units, five epochs over 1,400 digits, 397 to test.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import torchbcd
from torchbcd.nn import Residual

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
train, test = order[:1400], order[1400:]
WIDTH, DEPTHS = 50, (2, 4, 8, 16, 32)


def plain(hidden):
    """So many hidden layers, one after another."""
    layers = [nn.Linear(64, WIDTH), nn.ReLU()]
    for _ in range(hidden - 1):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def residual(hidden):
    """As many Linear modules, but in branches of two."""
    blocks = [Residual(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)) for _ in range(hidden // 2)]
    return nn.Sequential(nn.Linear(64, WIDTH), *blocks, nn.ReLU(), nn.Linear(WIDTH, 10))


def trained(make, hidden):
    """Test accuracy in % after five epochs of a plain loop, defaults throughout."""
    torch.manual_seed(0)
    model = make(hidden)
    optimizer = torchbcd.RelaxedBCD(model)
    for _ in range(5):
        for rows in train[torch.randperm(len(train))].split(50):
            optimizer.step(x[rows], y[rows])
    with torch.no_grad():
        return 100 * (model(x[test]).argmax(1) == y[test]).double().mean().item()


# %%

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, make, style in (("with skip connections", residual, "o-"), ("plain", plain, "s--")):
    reached = [trained(make, hidden) for hidden in DEPTHS]
    axes.plot(DEPTHS, reached, style, label=name)
    print(name, [round(value, 1) for value in reached])
axes.set_xscale("log")
axes.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
axes.minorticks_off()
axes.set_xlabel("hidden layers (logarithmic)")
axes.set_ylabel("test accuracy (%)")
axes.set_ylim(0, 100)
axes.set_title("RelaxedBCD, five epochs: depth with and without skip connections")
axes.grid(alpha=0.3)
axes.legend(loc="lower left")
plt.show()

# %%
# Depth is no merit in itself: two hidden layers are as good on the digits. Fifteen epochs bring the 32 plain
# layers to 65 %. What such nets are beside AdamW and Muon is on :doc:`/residual`.
