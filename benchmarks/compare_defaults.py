"""Measure what RelaxedBCD(model).fit(x, y, epochs) is worth without another argument, beside AdamW and Muon.

Sets: Fashion-MNIST and MNIST (784-300x3-10); adult, california-housing, naval-propulsion-plant, power-plant and
protein-tertiary-structure (256x3); small ones (digits, diabetes, friedman1 to 3; 100x2); nets of 10 x 150 and
20 x 100 from N(0, 0.01^2) on 20,000 rows of Fashion-MNIST. Inputs of tabular sets and targets of regression are
standardised by the training part; images and digits are in [0, 1]. Squared loss (on one-hot targets),
torch.nn.Linear's initialisation unless said, one thread, denormal numbers flushed.

All contestants train for the seconds of the process that RelaxedBCD took: their number of steps, or of epochs, is
those seconds over the mean of a few, timed just before. AdamW: lr 2e-3, batches of 100, weight decay 0.01. Muon:
momentum 0.95 (Nesterov), three Newton-Schulz steps in float32, lr 0.02 sqrt(max(1, rows / columns) of the
matrix), batches of 200; Adam, lr 2e-3, on the last layer and the biases. Both hold their step for half of the run
and then lower it linearly to zero, and average their weights with a decay of 0.99. None of these numbers was
searched. `--before` adds RelaxedBCD with the defaults that it had before these.

    python benchmarks/compare_defaults.py --data-root DATA --tabular DATA/tabular --before
    python benchmarks/compare_defaults.py --part validation --sets digits diabetes

DATA/mnist and DATA/fashion-mnist hold the four IDX files of a set. The folder of `--tabular` holds a file of
numpy a set, NAME.npz: `x` of float32, (rows, columns), `y` of class indices or float32, (rows,), and the index
arrays `train`, `validation` and `test`. A set whose data are not there is skipped.

Accuracy in percent, or R^2 in percent for regression; means over seeds, with the range. Small sets are split anew
SPLITS times for each seed, whose figure is the mean over them, and whose seconds are their sum.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn.datasets
import torch
from before import BEFORE, FIT_BEFORE
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import torchbcd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/python"))
import datasets

SPLITS = 5
TRIAL = 50  # steps to time


class Data(NamedTuple):
    """A training part, and one to measure on."""

    x: Tensor
    y: Tensor
    x_held: Tensor
    y_held: Tensor


class Set(NamedTuple):
    """A data set, and the net and number of epochs for it."""

    name: str
    hidden: tuple[int, ...]
    epochs: int
    tiny: bool = False  # weights from N(0, 0.01^2), biases 0.1
    small: bool = False  # split SPLITS times


ALL = (
    Set("fashion-mnist", (300,) * 3, 5),
    Set("mnist", (300,) * 3, 5),
    Set("adult", (256,) * 3, 5),
    Set("california-housing", (256,) * 3, 15),
    Set("naval-propulsion-plant", (256,) * 3, 20),
    Set("power-plant", (256,) * 3, 20),
    Set("protein-tertiary-structure", (256,) * 3, 8),
    Set("digits", (100,) * 2, 20, small=True),
    Set("diabetes", (100,) * 2, 30, small=True),
    Set("friedman1", (100,) * 2, 30, small=True),
    Set("friedman2", (100,) * 2, 30, small=True),
    Set("friedman3", (100,) * 2, 30, small=True),
    Set("deep-10", (150,) * 10, 3, tiny=True),
    Set("deep-20", (100,) * 20, 4, tiny=True),
)
SETS = {set_.name: set_ for set_ in ALL}
Make = Callable[[], nn.Sequential]
FRIEDMAN = {"friedman1": (500, 1.0), "friedman2": (1000, 125.0), "friedman3": (2000, 0.1)}  # rows, noise


def standardized(data: Data) -> Data:
    """Columns, and targets of regression, with mean 0 and variance 1 over the training part."""

    def scale(train: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = train.mean(0), train.std(0).clamp_min(1e-6)
        return (train - mean) / spread, (held - mean) / spread

    x, x_held = scale(data.x, data.x_held)
    y, y_held = scale(data.y, data.y_held) if data.y.is_floating_point() else (data.y, data.y_held)
    return Data(x, y, x_held, y_held)


def images(name: str, arguments: argparse.Namespace, rows: int = 60_000) -> Data:
    """All 60,000 rows and the test part, or the first 50,000 and the last 10,000; at most `rows` to train on."""
    root = arguments.data_root
    data = datasets.load(name, root and root / name, fetch=arguments.download)
    if arguments.part == "test":
        return Data(data.x[:rows], data.y[:rows], data.x_test, data.y_test)
    cut = min(rows, 50_000)
    return Data(data.x[:cut], data.y[:cut], data.x[50_000:], data.y[50_000:])


def tabular(name: str, part: str, folder: Path | None) -> Data:
    """The parts that the file says."""
    if folder is None:
        raise FileNotFoundError(f"{name}.npz is looked for in the folder of --tabular")
    file = np.load(folder / f"{name}.npz")
    x, y = torch.tensor(file["x"]), torch.tensor(file["y"])
    y = y[:, None] if y.is_floating_point() else y
    train, held = file["train"], file[part]
    return standardized(Data(x[train], y[train], x[held], y[held]))


def small(name: str, part: str, split: int) -> Data:
    """60 % to train on and 20 % of validation, or 80 % and the other 20 %, of a split of its own."""
    if name in FRIEDMAN:
        rows, noise = FRIEDMAN[name]
        x, y = getattr(sklearn.datasets, f"make_{name}")(rows, noise=noise, random_state=split)
    else:
        x, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(split))
    x_ = torch.tensor(x, dtype=torch.float32)[order]
    y_ = torch.tensor(y)[order] if name == "digits" else torch.tensor(y, dtype=torch.float32)[order, None]
    train, end = len(x) * 3 // 5, len(x) * 4 // 5
    if part == "test":
        train, end = end, len(x)
    data = Data(x_[:train], y_[:train], x_[train:end], y_[train:end])
    return data._replace(x=data.x / 16, x_held=data.x_held / 16) if name == "digits" else standardized(data)


def parts(set_: Set, seed: int, arguments: argparse.Namespace) -> Iterator[Data]:
    """What a seed's figure is the mean over."""
    if set_.small:
        yield from (small(set_.name, arguments.part, SPLITS * seed + split) for split in range(SPLITS))
    elif set_.tiny:
        yield images("fashion-mnist", arguments, 20_000)
    elif set_.name in datasets.NAMES:
        yield images(set_.name, arguments)
    else:
        yield tabular(set_.name, arguments.part, arguments.tabular)


def make_model(set_: Set, data: Data, seed: int) -> nn.Sequential:
    """A ReLU net for these data."""
    torch.manual_seed(seed)
    outputs = data.y.shape[1] if data.y.is_floating_point() else int(data.y.max()) + 1
    modules: list[nn.Module] = []
    for inputs, width in pairwise((data.x.shape[1], *set_.hidden, outputs)):
        linear = nn.Linear(inputs, width)
        if set_.tiny:
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.constant_(linear.bias, 0.1)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


@torch.no_grad()
def score(model: nn.Module, data: Data) -> float:
    """Accuracy, or R^2, in percent."""
    outputs, y = model(data.x_held), data.y_held
    if not y.is_floating_point():
        return 100 * float((outputs.argmax(1) == y).double().mean())
    return 100 * (1 - float((outputs - y).square().sum() / (y - y.mean(0)).square().sum()))


def train_relaxed(model: nn.Sequential, data: Data, epochs: int, seed: int, before: bool = False) -> float:
    """Seconds of a fit with the library's defaults, or with those of before."""
    options, arguments = (BEFORE, FIT_BEFORE) if before else ({}, {})
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    torchbcd.RelaxedBCD(model, **options).fit(data.x, data.y, epochs, generator=generator, **arguments)
    return time.process_time() - start


def train_before(make: Make, data: Data, seconds: float, seed: int) -> tuple[nn.Sequential, float]:
    """A model after as many epochs with the defaults of before as take so many seconds, and what they took."""
    batch = FIT_BEFORE["batch_size"]
    trial = data._replace(x=data.x[: TRIAL * batch], y=data.y[: TRIAL * batch])
    epochs = max(1, TRIAL * batch // len(data.x))
    taken = [train_relaxed(make(), trial, epochs, seed, before=True) for _ in range(2)][1]
    epoch = taken / epochs * len(data.x) / len(trial.x)
    model = make()
    return model, train_relaxed(model, data, max(1, round(seconds / epoch)), seed, before=True)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz steps in float32."""

    def __init__(self, matrices: list[nn.Parameter], lr: float = 0.02, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @staticmethod
    def orthogonalized(matrix: Tensor) -> Tensor:
        """Three steps of Keller Jordan's quintic iteration."""
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        x: Tensor = wide / (wide.norm() + 1e-7)
        for _ in range(3):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
        return x if wide is matrix else x.T

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix."""
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                direction = self.orthogonalized(p.grad.lerp(mean, group["momentum"]))
                p.sub_(direction, alpha=group["lr"] * sqrt(max(1, p.shape[0] / p.shape[1])))


def optimizers_of(name: str, model: nn.Sequential) -> tuple[list[torch.optim.Optimizer], int]:
    """Optimizers, and the batch size."""
    if name == "AdamW":
        return [torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, fused=True)], 100
    *matrices, last = [p for p in model.parameters() if p.ndim == 2]
    rest = [last, *(p for p in model.parameters() if p.ndim == 1)]
    return [Muon(matrices), torch.optim.Adam(rest, lr=2e-3, fused=True)], 200


def batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled batches without an end."""
    while True:
        yield from torch.randperm(rows, generator=generator).split(size)


def backpropagate(name: str, model: nn.Sequential, data: Data, steps: int, seed: int) -> float:
    """Seconds of so many steps, which leave the averaged weights in the model."""
    optimizers, size = optimizers_of(name, model)
    held = steps / 2
    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (steps - k) / (steps - held)))
                  for optimizer in optimizers]  # fmt: skip
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    classes = None if data.y.is_floating_point() else len(list(model.parameters())[-1])
    stream = batches(len(data.x), size, torch.Generator().manual_seed(seed))
    start = time.process_time()
    for _ in range(steps):
        rows = next(stream)
        target = data.y[rows] if classes is None else functional.one_hot(data.y[rows], classes).float()
        loss = 0.5 * (model(data.x[rows]) - target).square().sum(1).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        averaged.update_parameters(model)
    seconds = time.process_time() - start
    model.load_state_dict(averaged.module.state_dict())
    return seconds


def train_peer(name: str, make: Make, data: Data, seconds: float, seed: int) -> tuple[nn.Sequential, float]:
    """A model after as many steps as take so many seconds, and what they took."""
    backpropagate(name, make(), data, 3, seed)  # warm
    step = backpropagate(name, make(), data, TRIAL, seed) / TRIAL
    model = make()
    return model, backpropagate(name, model, data, max(2, round(seconds / step)), seed)


def run(set_: Set, data: Data, seed: int, before: bool) -> dict[str, tuple[float, float]]:
    """Scores and seconds of all contestants, one after the other."""
    make = partial(make_model, set_, data, seed)
    model = make()
    seconds = train_relaxed(model, data, set_.epochs, seed)
    results = {"RelaxedBCD": (score(model, data), seconds)}
    if before:
        model, taken = train_before(make, data, seconds, seed)
        results["before"] = (score(model, data), taken)
    for name in ("AdamW", "Muon"):
        model, taken = train_peer(name, make, data, seconds, seed)
        results[name] = (score(model, data), taken)
    return results


def cells(set_: Set, arguments: argparse.Namespace) -> Iterator[str]:
    """For every contestant its mean score, range and seconds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        runs = [run(set_, data, seed, arguments.before) for data in parts(set_, seed, arguments)]
        for contestant in runs[0]:
            scores, seconds = zip(*(results[contestant] for results in runs), strict=True)
            found.setdefault(contestant, []).append((statistics.mean(scores), sum(seconds)))
    for contestant, pairs in found.items():
        scores, seconds = zip(*pairs, strict=True)
        yield (f"{contestant} {statistics.mean(scores):.3f} ({min(scores):.3f}-{max(scores):.3f}) "
               f"{statistics.mean(seconds):.1f} s")  # fmt: skip


def main() -> None:
    """Run all sets, the contestants taking turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="to measure on")
    parser.add_argument("--seeds", type=int, default=2, help="default: 2")
    parser.add_argument("--before", action="store_true", help="also RelaxedBCD with its defaults of before")
    parser.add_argument("--data-root", type=Path, help="folder with folders mnist and fashion-mnist")
    parser.add_argument("--download", action="store_true", help="fetch images that are not found")
    parser.add_argument("--tabular", type=Path, help="folder with the npz files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in arguments.sets:
        try:
            print(f"{name:28}" + "  ".join(cells(SETS[name], arguments)), flush=True)
        except FileNotFoundError as error:
            print(f"{name:28}skipped: {error}", flush=True)


if __name__ == "__main__":
    main()
