"""
Monotone regression
===================

The mean may only rise with x, and the data are few and noisy. :class:`torchbcd.regularizers.Monotone` keeps the
weights where the net rises with its inputs, for every x and after every step; without it, the same net follows
the noise. 40 made-up rows of a staircase, a 1-24-24-1 tanh net.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import torchbcd
from torchbcd.regularizers import Monotone

generator = torch.Generator().manual_seed(1)
x = torch.linspace(-3, 3, 40)[:, None]


def truth(at):
    """Two steps of one."""
    return torch.sigmoid(5 * (at + 1.5)) + torch.sigmoid(5 * (at - 1.5)) - 1


y = truth(x) + 0.25 * torch.randn(x.shape, generator=generator)


def fitted(regularizer):
    """The net after 150 steps on all rows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=regularizer, relaxation=0.8, output_relaxation=0.2)
    for _ in range(150):
        optimizer.step(x, y)
    return model


# %%

grid = torch.linspace(-3.5, 3.5, 701)[:, None]
curves = {}
with torch.no_grad():
    for name, regularizer in {"free": None, "Monotone(increasing=[0])": Monotone(increasing=[0])}.items():
        curves[name] = fitted(regularizer)(grid)

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
axes.plot(x, y, ".", color="gray", ms=8, label="data")
axes.plot(grid, truth(grid), ":", color="black", label="the truth")
for (name, curve), style in zip(curves.items(), ("--", "-"), strict=True):
    axes.plot(grid, curve, style, label=name, linewidth=2)
axes.set_xlabel("x")
axes.set_ylabel("y")
axes.set_title("A net that may not fall, and the same net without the constraint")
axes.legend(loc="upper left")
plt.show()

# %%
# How far each is from the truth, and on how much of the grid it falls:

for name, curve in curves.items():
    error = (curve - truth(grid)).square().mean().sqrt().item()
    falls = (curve.diff(dim=0) < 0).double().mean().item()
    print(f"{name}: {error:.2f} from the truth, falls on {100 * falls:.0f} % of the grid")
