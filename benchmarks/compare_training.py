"""Train the same net by RelaxedBCD, Adam, AdamW and SGD with momentum, and compare accuracy and seconds.

Fashion-MNIST, squared loss on one-hot targets, mini-batches of 200, one thread, denormal numbers flushed. Every
optimizer decays its step linearly to zero. `--select` tries each one's grid on a validation part, the last
10,000 training rows, and prints the grid; the settings in FINAL are what it chose. Without it, the settings in
FINAL train on all training rows with --seeds seeds; test accuracy is looked at after every epoch and chooses
nothing.

    python benchmarks/compare_training.py --select
    python benchmarks/compare_training.py --seeds 5
    python benchmarks/compare_training.py --robustness docs/results/robustness.png

`--robustness` moves one number at a time over a logarithmic grid, everything else as in FINAL, and draws the
validation accuracy after two epochs, beside that of Adam and SGD over their learning rates.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import torchbcd

mpl.use("Agg")
from matplotlib import pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/python"))
import datasets

WIDTHS = (784, 300, 300, 300, 10)
BATCH = 200
Step = Callable[[Tensor, Tensor], object]
ROBUSTNESS = {  # one number at a time, the others as in STEEP
    "relaxation": (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2),
    "damping": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "over_relaxation": (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 1.95),
    "penalty_ratio": (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0),
    "output_relaxation": (0.01, 0.03, 0.1, 0.3, 1.0),
    "cap": (0.03, 0.06, 0.12, 0.25, 0.5, 1.0),
}
RATES = {"Adam": (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1), "SGD": (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)}


class Setting(NamedTuple):
    """An optimizer with its numbers and its epochs."""

    name: str
    epochs: int
    options: dict[str, float]


STEEP = {"relaxation": 0.6, "growth": 1.6, "damping": 0.6, "output_relaxation": 0.1, "cap": 0.25}
GRIDS = {
    "RelaxedBCD": [{"relaxation": nu, "damping": damping} for nu in (0.3, 0.6) for damping in (0.1, 0.3, 0.6)]
    + [{**STEEP, "relaxation": nu, "damping": nu} for nu in (0.3, 0.6, 0.8)],
    "Adam": [{"lr": lr} for lr in (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)],
    "AdamW": [{"lr": lr, "weight_decay": wd} for lr in (1e-3, 2e-3) for wd in (0.01, 0.1)],
    "SGD": [{"lr": lr, "momentum": 0.9} for lr in (0.03, 0.1, 0.3)],
}
EPOCHS = {"RelaxedBCD": 5, "Adam": 10, "AdamW": 10, "SGD": 10}
FINAL = [
    Setting("RelaxedBCD", 5, {}),
    Setting("RelaxedBCD", 5, STEEP),
    Setting("RelaxedBCD", 2, STEEP),
    Setting("Adam", 5, {"lr": 2e-3}),
    Setting("Adam", 10, {"lr": 2e-3}),
    Setting("AdamW", 10, {"lr": 2e-3, "weight_decay": 0.01}),
    Setting("SGD", 10, {"lr": 0.03, "momentum": 0.9}),
]


def make_model(seed: int) -> nn.Sequential:
    """A ReLU net, initialised by He et al."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def make_step(name: str, model: nn.Sequential, options: dict[str, float]) -> tuple[torch.optim.Optimizer, Step]:
    """The optimizer, and what it does with a batch."""
    if name == "RelaxedBCD":
        relaxed = torchbcd.RelaxedBCD(model, **options)
        return relaxed, lambda x, y: relaxed.step(x, y)  # looked up at each call: schedulers wrap it
    classes = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}
    optimizer = classes[name](model.parameters(), fused=True, **options)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        target = functional.one_hot(y, 10).float()
        (0.5 * (model(x) - target).square().sum(1).mean()).backward()
        optimizer.step()

    return optimizer, step


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """In percent."""
    return 100 * (model(x).argmax(1) == y).double().mean().item()


class Curve(NamedTuple):
    """Accuracies after every epoch, and the seconds of training until then."""

    seconds: list[float]
    train: list[float]
    test: list[float]


def train(
    setting: Setting, train_data: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], seed: int
) -> Curve:
    """One run; the seconds are those of the steps, batches included, and not of looking at accuracies."""
    x, y = train_data
    model = make_model(seed)
    optimizer, step = make_step(setting.name, model, setting.options)
    steps = setting.epochs * -(-len(x) // BATCH)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, total_iters=steps)
    generator = torch.Generator().manual_seed(seed)
    curve, seconds = Curve([], [], []), 0.0
    for _ in range(setting.epochs):
        start = time.perf_counter()
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            step(x[rows], y[rows])
            scheduler.step()
        seconds += time.perf_counter() - start
        curve.seconds.append(seconds)
        curve.train.append(accuracy(model, x, y))
        curve.test.append(accuracy(model, *held_out))
    return curve


def label(setting: Setting) -> str:
    """A line's name."""
    options = ", ".join(f"{name} {value:g}" for name, value in setting.options.items())
    return f"{setting.name}, {setting.epochs} epochs" + (f", {options}" if options else "")


def reached(curves: list[Curve], part: str, level: float) -> str:
    """Mean seconds to the end of the first epoch at `level`, over the seeds that reached it."""
    times = []
    for curve in curves:
        values = getattr(curve, part)
        times += [seconds for seconds, value in zip(curve.seconds, values, strict=True) if value >= level][:1]
    return f"{statistics.mean(times):.1f} ({len(times)}/{len(curves)})" if times else "never"


def robustness(fit: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], path: Path, epochs: int = 2) -> None:
    """Validation accuracy over a grid of each number: printed, and drawn."""
    lines: dict[str, dict[float, float]] = {}
    for name, values in ROBUSTNESS.items():
        lines[name] = {v: train(Setting("RelaxedBCD", epochs, {**STEEP, name: v}), fit, held_out, 0).test[-1]
                       for v in tqdm(values, name, leave=False)}  # fmt: skip
    for name, rates in RATES.items():
        momentum = {"momentum": 0.9} if name == "SGD" else {}
        lines[f"{name}: lr"] = {v: train(Setting(name, epochs, {"lr": v, **momentum}), fit, held_out, 0).test[-1]
                                for v in tqdm(rates, name, leave=False)}  # fmt: skip
    figure, axes = plt.subplots(2, 4, figsize=(14, 6), sharey=True, layout="constrained")
    for axis, (name, line) in zip(axes.flat, lines.items(), strict=True):
        print(f"{name:20}" + "  ".join(f"{value:g}: {accuracy:.1f}" for value, accuracy in line.items()))
        axis.semilogx(list(line), list(line.values()), marker="o", color="C1" if ":" in name else "C0")
        axis.set(title=name if ":" in name else f"RelaxedBCD: {name}", ylim=(60, 91))
        axis.grid(alpha=0.3)
    figure.supylabel(f"validation accuracy after {epochs} epochs, %")
    figure.savefig(path, dpi=110)
    print(f"curves: {path}")


def main() -> None:
    """Select, compare, or move one number at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", action="store_true", help="try the grids on the validation part")
    parser.add_argument("--robustness", type=Path, help="PNG file to draw the robustness of every number to")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the comparison (default: 5)")
    parser.add_argument("--data-root", type=Path, help="folder with the four IDX files of Fashion-MNIST")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data = datasets.load("fashion-mnist", arguments.data_root)
    part = len(data.x) - 10_000
    fit, held_out = (data.x[:part], data.y[:part]), (data.x[part:], data.y[part:])
    if arguments.robustness:
        robustness(fit, held_out, arguments.robustness)
        return
    if arguments.select:
        for name, grid in GRIDS.items():
            for options in grid:
                curve = train(Setting(name, EPOCHS[name], options), fit, held_out, seed=0)
                print(f"{label(Setting(name, EPOCHS[name], options)):60}{curve.test[-1]:7.2f} %", flush=True)
        return
    curves: dict[str, list[Curve]] = {label(setting): [] for setting in FINAL}
    runs = list(itertools.product(range(arguments.seeds), FINAL))
    for seed, setting in tqdm(runs, "runs"):  # the contestants take turns
        curve = train(setting, (data.x, data.y), (data.x_test, data.y_test), seed)
        curves[label(setting)].append(curve)
    columns = ("epoch 1", "test", "train", "seconds", "s to 88 %", "s to 89 %", "s to train 95 %")
    print(f"{'':48}" + "".join(f"{column:>{18 if column == 'test' else 16}}" for column in columns))
    for name, list_ in curves.items():
        test = [curve.test[-1] for curve in list_]
        cells = [
            f"{statistics.mean(curve.test[0] for curve in list_):.2f}",
            f"{statistics.mean(test):.2f} ({min(test):.2f}-{max(test):.2f})",
            f"{statistics.mean(curve.train[-1] for curve in list_):.2f}",
            f"{statistics.mean(curve.seconds[-1] for curve in list_):.1f}",
            reached(list_, "test", 88),
            reached(list_, "test", 89),
            reached(list_, "train", 95),
        ]
        print(f"{name:48}" + "".join(f"{cell:>{20 if i == 1 else 16}}" for i, cell in enumerate(cells)))


if __name__ == "__main__":
    main()
