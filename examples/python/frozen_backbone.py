"""Heads on a frozen CNN: trained by RelaxedBCD and BCD, beside AdamW, Muon, ridge and logistic regression.

A small CNN is trained by Adam on half of the classes and frozen. Then a head for all classes is trained on it:
an MLP by each optimizer, for as many seconds, and a linear one by torchbcd.RidgeHead and by scikit-learn's
logistic regression. torchbcd's optimizers get the whole model; those that backpropagate get the features, made
once, whose seconds count for them as well.

    python examples/python/frozen_backbone.py
    python examples/python/frozen_backbone.py --dataset digits --epochs 10
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import datasets
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from tqdm import tqdm
from train_mlp import Backpropagation, batches, epochs_within, evaluate, positive_int

import torchbcd

_CHANNELS = 32
_SIDE = 4  # of the last feature maps


def make_cnn(side: int) -> nn.Sequential:
    """Features (n, 512) of images (n, side^2)."""
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, _CHANNELS, 3, padding=1),
        nn.BatchNorm2d(_CHANNELS),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(_SIDE),
        nn.Flatten(),
    )


def pretrain(data: datasets.Data, epochs: int, classes: int) -> nn.Sequential:
    """The CNN, trained on the first half of the classes, frozen."""
    rows = data.y < classes // 2
    x, y = data.x[rows], data.y[rows]
    cnn = make_cnn(math.isqrt(data.x.shape[1]))
    model = nn.Sequential(cnn, nn.Linear(_CHANNELS * _SIDE**2, classes // 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in tqdm(range(epochs), f"CNN on {classes // 2} classes"):
        for index in batches(len(x), 100, torch.Generator()):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    return cnn.eval().requires_grad_(False)


def make_head(classes: int) -> nn.Sequential:
    """The MLP that every optimizer trains."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(_CHANNELS * _SIDE**2, 256), nn.ReLU(), nn.Linear(256, classes))


@torch.no_grad()
def features_of(cnn: nn.Module, x: Tensor) -> Tensor:
    """What the CNN makes of images."""
    return torch.cat([cnn(part) for part in x.split(1024)])


def main() -> None:
    """Train all of them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=("auto", *datasets.NAMES), default="auto", help="as train_mlp.py has it")
    add("--data-root", type=Path, help="folder with the four IDX files")
    add("--epochs", type=positive_int, default=5, help="of RelaxedBCD, whose seconds the others get (default: 5)")
    add("--alpha", type=float, default=10.0, help="weight of the ridge regression (default: 10)")
    arguments = parser.parse_args()
    arguments.batch_size = 100
    data = datasets.load(arguments.dataset, arguments.data_root)
    classes = int(data.y.max()) + 1
    torch.manual_seed(0)
    cnn = pretrain(data, 1 if len(data.x) > 10_000 else 20, classes)

    features = features_of(cnn, data.x)
    start = time.perf_counter()
    features_of(cnn, data.x)  # once more: a process's first pass is slower, and would be held against the others
    made = time.perf_counter() - start
    heads = datasets.Data(data.name, features, data.y, features_of(cnn, data.x_test), data.y_test)
    print(f"{data.name}: {len(data.x)} rows, {features.shape[1]} features made in {made:.1f} s")
    table: list[tuple[str, float, float]] = []

    def record(name: str, model: nn.Module, seconds: float) -> None:
        table.append((name, seconds, evaluate(model, heads.x_test, heads.y_test)[1]))

    head = make_head(classes)
    start = time.perf_counter()
    torchbcd.RelaxedBCD(nn.Sequential(cnn, *head)).fit(data.x, data.y, arguments.epochs)
    seconds = time.perf_counter() - start
    record("RelaxedBCD", head, seconds)

    head = make_head(classes)
    start = time.perf_counter()
    optimizer = torchbcd.BCD(nn.Sequential(cnn, *head), alpha=0.05)
    optimizer.bind(data.x, data.y)
    while time.perf_counter() - start < seconds:
        optimizer.step()
    record("BCD", head, time.perf_counter() - start)

    torch.set_flush_denormal(True)
    for name in ("AdamW", "Muon"):
        head = make_head(classes)
        epochs = epochs_within(max(0.0, seconds - made), name, head, heads, arguments)
        training = Backpropagation(name, head, epochs * math.ceil(len(features) / 100))
        shuffle = torch.Generator().manual_seed(0)
        taken = sum(training.epoch(heads, batches(len(features), 100, shuffle)) for _ in range(epochs))
        record(name, training.averaged.module, made + taken)

    start = time.perf_counter()
    ridge = torchbcd.RidgeHead(features.shape[1], classes)
    for index in torch.arange(len(features)).split(8192):
        ridge.partial_fit(features_of(cnn, data.x[index]), data.y[index])
    linear = ridge.linear(arguments.alpha)
    record("RidgeHead", linear, time.perf_counter() - start)

    start = time.perf_counter()
    scale = features.std(0) + 1e-6
    logistic = LogisticRegression(max_iter=100).fit((features / scale).numpy(), data.y.numpy())
    found = logistic.score((heads.x_test / scale).numpy(), data.y_test.numpy())
    table.append(("LogisticRegression", made + time.perf_counter() - start, found))

    again = copy.deepcopy(nn.Sequential(cnn, *make_head(classes)))
    start = time.perf_counter()
    loader = [(data.x[index], data.y[index]) for index in torch.arange(len(data.x)).split(8192)]
    torchbcd.refit_last_layer(again, loader, arguments.alpha)
    record("the same, random hidden layer", again[1:], time.perf_counter() - start)

    print(f"\n{'head':30}{'seconds':>9}{'test':>9}")
    for name, taken, accuracy in table:
        print(f"{name:30}{taken:>9.1f}{accuracy:>9.2%}")


if __name__ == "__main__":
    main()
