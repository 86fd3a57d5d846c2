"""
A head on a frozen CNN
======================

A small CNN learns the digits 0 to 4 by Adam and is frozen. Its features are then what a head for **all ten**
digits is trained on, from few rows: by :class:`torchbcd.RidgeHead`, the exact last layer, and by
:class:`torchbcd.RelaxedBCD`, a hidden layer more. Beside it, ridge regression on the pixels. Means of three draws
of the rows, 597 rows to test.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import torchbcd

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
train, test = order[:1200], order[1200:]

torch.manual_seed(0)
cnn = nn.Sequential(
    nn.Unflatten(1, (1, 8, 8)),
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(16, 16, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
)
pretrained = nn.Sequential(cnn, nn.Linear(256, 5))
adam = torch.optim.Adam(pretrained.parameters(), lr=3e-3)
seen = train[y[train] < 5]
for _ in range(8):
    for rows in seen[torch.randperm(len(seen))].split(50):
        adam.zero_grad()
        nn.functional.cross_entropy(pretrained(x[rows]), y[rows]).backward()
        adam.step()
cnn.requires_grad_(False).eval()

# %%
# A backbone that is frozen may stand before the layers: every optimizer runs it, and trains what is behind it.


def accuracy(model):
    """Of the test part, all ten digits, in %."""
    with torch.no_grad():
        return 100 * (model(x[test]).argmax(1) == y[test]).double().mean().item()


def ridge(backbone, rows):
    """The last layer alone, exactly; alpha by leave-one-out errors."""
    with torch.no_grad():
        features = backbone(x[rows])
    head = torchbcd.RidgeHead(features.shape[1], 10)
    head.partial_fit(features, y[rows])
    alphas = [0.01, 0.1, 1.0, 10.0]
    errors = [float(error) for error in head.leave_one_out(alphas, features, y[rows])]
    return nn.Sequential(backbone, head.linear(alphas[errors.index(min(errors))]))


def relaxed(backbone, rows):
    """A hidden layer of 64 units, and the last one."""
    torch.manual_seed(0)
    model = nn.Sequential(backbone, nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
    torchbcd.RelaxedBCD(model).fit(x[rows], y[rows], epochs=10, batch_size=50)
    return model


# %%

SIZES, DRAWS = (25, 50, 100, 200, 400, 800), 3
HEADS = {
    "RelaxedBCD on the CNN's features": (relaxed, cnn, "o-"),
    "RidgeHead on the CNN's features": (ridge, cnn, "s-"),
    "RidgeHead on the pixels": (ridge, nn.Identity(), "^:"),
}
draws = [train[torch.randperm(len(train), generator=torch.Generator().manual_seed(i))] for i in range(DRAWS)]
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, (fit, backbone, style) in HEADS.items():
    means = [sum(accuracy(fit(backbone, draw[:size])) for draw in draws) / DRAWS for size in SIZES]
    axes.plot(SIZES, means, style, label=name)
    print(name, [round(mean, 1) for mean in means])
axes.set_xscale("log")
axes.set_xticks(SIZES, [str(size) for size in SIZES])
axes.minorticks_off()
axes.set_xlabel("rows of ten digits (logarithmic)")
axes.set_ylabel("test accuracy (%)")
axes.set_title("Heads for ten digits on a CNN that has seen five")
axes.grid(alpha=0.3)
axes.legend(loc="lower right")
plt.show()
