"""
Sign units
==========

:class:`torchbcd.nn.Sign` is 1 for u ≥ 0 and −1 below: its derivative is zero wherever it has one, so
backpropagation teaches the last layer alone. A state block of :class:`torchbcd.RelaxedBCD` needs none. It
flips, row by row, the units whose flip lowers the row's terms most, and the layer before is drawn across zero
there. Digits, 64-100-100-10, 1,400 rows to train on, 397 to test.
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


class StraightThrough(nn.Module):
    """The sign forwards, hardtanh's derivative backwards: the usual way to train such units."""

    def forward(self, u):
        """Apply it."""
        smooth = u.clamp(-1, 1)
        return smooth + (torch.where(u >= 0, 1.0, -1.0) - smooth).detach()


def net(activation):
    """The same start for all."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 100), activation(), nn.Linear(100, 100), activation(), nn.Linear(100, 10)]
    return nn.Sequential(*layers)


def by_adam(model):
    """A function that makes a step of backpropagation."""
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)

    def step(inputs, targets):
        adam.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        adam.step()

    return step


def curve(model, step, epochs=20):
    """Test accuracy in % after each epoch of a plain loop."""
    reached = []
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train))].split(50):
            step(x[rows], y[rows])
        reached.append(100 * (model(x[test]).argmax(1) == y[test]).double().mean().item())
    return reached


# %%

relaxed, straight, plain = net(torchbcd.nn.Sign), net(StraightThrough), net(torchbcd.nn.Sign)
curves = {
    "Adam, straight-through estimator": curve(straight, by_adam(straight)),
    "RelaxedBCD, by flips": curve(relaxed, torchbcd.RelaxedBCD(relaxed).step),
    "Adam, plain: the last layer alone learns": curve(plain, by_adam(plain)),
}

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, reached), style in zip(curves.items(), ("^-", "o-", "s--"), strict=True):
    axes.plot(range(1, len(reached) + 1), reached, style, label=name)
axes.set_xlabel("epoch")
axes.set_xticks(range(2, 21, 2))
axes.set_ylabel("test accuracy (%)")
axes.set_title("Two hidden layers of sign units")
axes.legend(loc="lower right")
plt.show()

# %%
# So flips teach hidden layers that backpropagation cannot reach, and a straight-through estimator, which makes a
# derivative up, is better than either.

print({name: round(reached[-1], 1) for name, reached in curves.items()})
