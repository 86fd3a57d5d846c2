"""
Few synchronisations
====================

Four workers with 350 rows each, who go over them twelve times. In *rounds*, each trains by itself with
:class:`torchbcd.RelaxedBCD`, and now and then the weights are averaged, as
``torch.distributed.algorithms.model_averaging`` does it in several processes (:doc:`/distributed`). Here the
workers take turns in one process: an average is an average. Digits, a 64-100-100-10 ReLU net, 397 rows to test.
"""

import copy

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import torchbcd

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
train, test = order[:1400], order[1400:]
WORKERS, EPOCHS, BATCH = 4, 12, 50


def accuracy(model):
    """Of the test part, in %."""
    with torch.no_grad():
        return 100 * (model(x[test]).argmax(1) == y[test]).double().mean().item()


def average(models):
    """Give all of them the mean of their weights."""
    with torch.no_grad():
        for weights in zip(*(model.parameters() for model in models), strict=True):
            mean = torch.stack(weights).mean(0)
            for weight in weights:
                weight.copy_(mean)


def train_in_rounds(shares, every):
    """Test accuracy of the first worker after each epoch; an average after every so many epochs."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    models = [copy.deepcopy(start) for _ in shares]
    optimizers = [torchbcd.RelaxedBCD(model) for model in models]
    reached = []
    for epoch in range(1, EPOCHS + 1):
        for optimizer, own in zip(optimizers, shares, strict=True):
            for rows in own[torch.randperm(len(own))].split(BATCH):
                optimizer.step(x[rows], y[rows])
        if every and epoch % every == 0:
            average(models)
        reached.append(accuracy(models[0]))
    return reached


# %%

shares = train.chunk(WORKERS)
curves = {
    "one worker with all rows": (train_in_rounds([train], 0), "k:"),
    "4 workers, an average after every epoch": (train_in_rounds(shares, 1), "o-"),
    "4 workers, after every fourth: three in all": (train_in_rounds(shares, 4), "s-"),
    "4 workers who never meet (the first one)": (train_in_rounds(shares[:1], 0), "^--"),
}
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, (reached, style) in curves.items():
    axes.plot(range(1, EPOCHS + 1), reached, style, label=name)
axes.set_xlabel("epoch over a worker's rows")
axes.set_ylabel("test accuracy (%)")
axes.set_ylim(86, 100)
axes.set_title("Four workers, three averages: nearly what all rows in one place do")
axes.grid(alpha=0.3)
axes.legend(loc="lower right")
plt.show()

# %%
# Rows are split at random here. Where each worker has rows of few classes, averages of weights are a bad idea,
# whoever trains: :doc:`/distributed` has the figures, and what AdamW and Muon do.

print({name: round(reached[-1], 1) for name, (reached, _) in curves.items()})
