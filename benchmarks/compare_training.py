"""Train the same net by RelaxedBCD, Adam, AdamW and SGD with momentum, and compare accuracy and seconds.

Fashion-MNIST, squared loss on one-hot targets, mini-batches of 200, one thread, denormal numbers flushed. Every
optimizer may choose its initialisation (He's, or that of torch.nn.Linear), its schedule (linear to zero, from the
start or from half of the run on), averaging of its weights and noise on its inputs. `--select` tries
candidates() on a validation part, the last 10,000 training rows, and prints them; FINAL has the best of each
kind. Without it, the settings in FINAL train on all training rows with --seeds seeds, taking turns; test accuracy
is looked at after every epoch, in runs of up to five epochs every quarter of one, and chooses nothing. What a
setting of RelaxedBCD does not say is as in before.py, its defaults when all this was measured;
compare_defaults.py measures today's.

    python benchmarks/compare_training.py --select
    python benchmarks/compare_training.py --seeds 5
    python benchmarks/compare_training.py --robustness docs/results/robustness.png

`--robustness` moves one number at a time over a logarithmic grid, everything else as in STEEP, and draws the
validation accuracy after two epochs, beside that of Adam and SGD over their learning rates.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import torch
from before import BEFORE
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
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
    """An optimizer with its numbers, and how it is used."""

    name: str
    epochs: int
    options: dict[str, Any]
    init: str = "he"  # or "torch"
    hold: float = 0.0  # part of the run before the step begins to fall to zero
    average: float | None = None  # decay of an exponential moving average of the weights
    noise: float = 0.0  # standard deviation of Gaussian noise on the inputs


STEEP = {**BEFORE, "relaxation": 0.6, "growth": 1.6, "damping": 0.6, "output_relaxation": 0.1, "cap": 0.25}
STEEPER = {**STEEP, "penalty_ratio": 0.03}
STEEPEST = {**STEEP, "penalty_ratio": 0.1}
STEADY = {**STEEPEST, "damping": 2.0, "momentum": 0.7, "weight_decay": 2e-4}
SHORT: dict[str, Any] = {"init": "torch", "hold": 0.5, "average": 0.98}
LONG: dict[str, Any] = {"hold": 0.5, "average": 0.99, "noise": 0.1}
LONG_TORCH = {**LONG, "init": "torch"}


def candidates() -> Iterator[Setting]:
    """What --select tries: the same ideas for every optimizer."""
    for options, init in itertools.product((STEEP, STEEPER), ("he", "torch")):
        yield Setting("RelaxedBCD", 1, options, init)
    for epochs, options in itertools.product((1, 2), (STEEP, STEEPER, STEEPEST)):
        yield Setting("RelaxedBCD", epochs, options, **SHORT)
    for blocks in (2, 4):
        yield Setting("RelaxedBCD", 2, {**STEEPER, "row_blocks": blocks}, **SHORT)
        yield Setting("RelaxedBCD", 5, {**STEEPER, "row_blocks": blocks}, "he", 0.5, 0.98)
    for nu, damping in itertools.product((0.3, 0.6), (0.1, 0.3, 0.6)):
        yield Setting("RelaxedBCD", 5, {**BEFORE, "relaxation": nu, "damping": damping})
    for nu in (0.3, 0.6, 0.8):
        yield Setting("RelaxedBCD", 5, {**STEEP, "relaxation": nu, "damping": nu})
    for init, (hold, average) in itertools.product(("he", "torch"), ((0.0, None), (0.5, 0.98))):
        yield Setting("RelaxedBCD", 5, STEEPER, init, hold, average)
    for changed in ({}, {"output_relaxation": 0.03}, {"cap": 0.12}, {"penalty_ratio": 0.01}, {"relaxation": 0.4}):
        yield Setting("RelaxedBCD", 15, {**STEEPEST, **changed}, **LONG)
    yield Setting("RelaxedBCD", 15, STEEPEST, **LONG_TORCH)
    for decay in (2e-4, 6e-4, 2e-3):
        yield Setting("RelaxedBCD", 15, {**STEEPEST, "weight_decay": decay}, **LONG)
    for changed in ({}, {"weight_decay": 1e-4}, {"weight_decay": 3e-4}, {"momentum": 0.8, "damping": 3.0},
                    {"momentum": 0.5, "damping": 1.2}, {"relaxation": 0.3, "momentum": 0.9}):  # fmt: skip
        yield Setting("RelaxedBCD", 15, {**STEADY, **changed}, **LONG)
    for epochs, blocks in ((17, 2), (20, 4), (20, 8)):
        yield Setting("RelaxedBCD", epochs, {**STEADY, "row_blocks": blocks}, **LONG)
    for hold, average in ((0.2, 0.99), (0.75, 0.998), (0.9, 0.999)):
        yield Setting("RelaxedBCD", 15, STEADY, "he", hold, average, 0.1)
    for noise in (0.07, 0.13):
        yield Setting("RelaxedBCD", 15, STEEPEST, **{**LONG, "noise": noise})
    yield Setting("Adam", 3, {"lr": 2e-3}, "torch")
    for epochs, lr in itertools.product((3, 5), (2e-3, 3e-3)):
        yield Setting("Adam", epochs, {"lr": lr}, **SHORT)
    for lr, init in itertools.product((5e-4, 1e-3, 2e-3, 4e-3), ("he", "torch")):
        yield Setting("Adam", 10, {"lr": lr}, init)
    yield Setting("Adam", 10, {"lr": 2e-3}, "torch", 0.5, 0.99)
    for lr, noise in itertools.product((1e-3, 2e-3), (0.0, 0.05, 0.1)):
        yield Setting("Adam", 28, {"lr": lr}, **{**LONG_TORCH, "noise": noise})
    yield Setting("AdamW", 28, {"lr": 1e-3, "weight_decay": 0.2}, **LONG_TORCH)
    for decay in (0.01, 0.1):
        yield Setting("AdamW", 10, {"lr": 2e-3, "weight_decay": decay}, "torch")
        yield Setting("AdamW", 28, {"lr": 1e-3, "weight_decay": decay}, **LONG_TORCH)
    for lr, init in itertools.product((0.03, 0.1, 0.2, 0.4), ("he", "torch")):
        yield Setting("SGD", 10, {"lr": lr, "momentum": 0.9}, init)
    yield Setting("SGD", 28, {"lr": 0.2, "momentum": 0.9}, **LONG_TORCH)


FINAL = [
    Setting("RelaxedBCD", 5, BEFORE),
    Setting("RelaxedBCD", 1, STEEP, **SHORT),
    Setting("RelaxedBCD", 2, STEEPER, **SHORT),
    Setting("RelaxedBCD", 2, {**STEEPER, "row_blocks": 2}, **SHORT),
    Setting("RelaxedBCD", 5, STEEPER, "he", 0.5, 0.98),
    Setting("RelaxedBCD", 15, STEADY, **LONG),
    Setting("Adam", 3, {"lr": 2e-3}, "torch"),
    Setting("Adam", 5, {"lr": 2e-3}, **SHORT),
    Setting("Adam", 10, {"lr": 2e-3}, "torch", 0.5, 0.99),
    Setting("Adam", 28, {"lr": 1e-3}, **LONG_TORCH),
    Setting("AdamW", 28, {"lr": 1e-3, "weight_decay": 0.1}, **LONG_TORCH),
    Setting("SGD", 10, {"lr": 0.2, "momentum": 0.9}, "torch"),
    Setting("SGD", 28, {"lr": 0.2, "momentum": 0.9}, **LONG_TORCH),
]


def make_model(seed: int, init: str = "he") -> nn.Sequential:
    """A ReLU net, initialised by He et al. or as torch.nn.Linear does."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        linear = nn.Linear(inputs, outputs)
        if init == "he":
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def make_step(name: str, model: nn.Sequential, options: dict[str, Any]) -> tuple[torch.optim.Optimizer, Step]:
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
    """Accuracies at a number of looks, and the epochs and seconds of training until then.

    Training accuracy is that of the first 10,000 training rows: looking at all takes longer than an epoch.
    """

    epochs: list[float]
    seconds: list[float]
    train: list[float]
    test: list[float]


def train(
    setting: Setting, train_data: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], seed: int
) -> Curve:
    """One run; the seconds are those of the steps, batches included, and not of looking at accuracies."""
    x, y = train_data
    model = make_model(seed, setting.init)
    optimizer, step = make_step(setting.name, model, setting.options)
    batches = -(-len(x) // BATCH)
    steps = setting.epochs * batches
    held = setting.hold * steps
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (steps - k) / (steps - held)))
    averaged = None
    if setting.average is not None:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(setting.average))
    generator = torch.Generator().manual_seed(seed)
    curve, done, seconds = Curve([], [], [], []), 0, 0.0
    looks = {batches * quarter // 4 for quarter in ((1, 2, 3, 4) if setting.epochs <= 5 else (4,))}
    for _ in range(setting.epochs):
        start = time.perf_counter()
        for batch, rows in enumerate(torch.randperm(len(x), generator=generator).split(BATCH), 1):
            inputs = x[rows]
            if setting.noise:
                inputs = inputs + setting.noise * torch.randn(inputs.shape, generator=generator)
            step(inputs, y[rows])
            scheduler.step()
            if averaged is not None:
                averaged.update_parameters(model)
            done += 1
            if batch in looks:
                seconds += time.perf_counter() - start
                evaluated = model if averaged is None else averaged.module
                curve.epochs.append(done / batches)
                curve.seconds.append(seconds)
                curve.train.append(accuracy(evaluated, x[:10_000], y[:10_000]))
                curve.test.append(accuracy(evaluated, *held_out))
                start = time.perf_counter()
    return curve


def label(setting: Setting) -> str:
    """A line's name."""
    known = {"before": BEFORE, "steep": STEEP, "steeper": STEEPER, "steepest": STEEPEST, "steady": STEADY}
    named = next((name for name, options in known.items() if options == setting.options), None)
    changed = {name: value for name, value in setting.options.items() if value != BEFORE.get(name)}
    parts = [named or ", ".join(f"{name} {value:g}" for name, value in changed.items())]
    parts += [f"hold {setting.hold:g}"] * bool(setting.hold)
    parts += [f"average {setting.average}"] * (setting.average is not None)
    parts += [f"noise {setting.noise:g}"] * bool(setting.noise)
    return ", ".join([f"{setting.name} {setting.epochs} ep", setting.init, *filter(None, parts)])


def reached(curves: list[Curve], part: str, level: float) -> str:
    """Mean seconds to the first look that found `level`, over the seeds that reached it."""
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
        settings = {rate: Setting(name, epochs, {"lr": rate, **momentum}, "torch") for rate in rates}
        lines[f"{name}: lr"] = {rate: train(setting, fit, held_out, 0).test[-1]
                                for rate, setting in tqdm(settings.items(), name, leave=False)}  # fmt: skip
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
        for setting in candidates():
            curves_ = [train(setting, fit, held_out, seed) for seed in range(2)]
            found = " ".join(f"{curve.test[-1]:.2f}" for curve in curves_)
            print(f"{label(setting):100}{found}  {curves_[0].seconds[-1]:.1f} s", flush=True)
        return
    curves: dict[str, list[Curve]] = {label(setting): [] for setting in FINAL}
    runs = list(itertools.product(range(arguments.seeds), FINAL))
    for seed, setting in tqdm(runs, "runs"):  # the contestants take turns
        curve = train(setting, (data.x, data.y), (data.x_test, data.y_test), seed)
        curves[label(setting)].append(curve)
    width = max(map(len, curves)) + 2
    columns = ("epoch 1", "test", "train", "seconds", "s to 88 %", "s to 89 %", "s to train 95 %")
    print(f"{'':{width}}" + "".join(f"{column:>{18 if column == 'test' else 16}}" for column in columns))
    for name, list_ in curves.items():
        test = [curve.test[-1] for curve in list_]
        cells = [
            f"{statistics.mean(curve.test[curve.epochs.index(1)] for curve in list_):.2f}",
            f"{statistics.mean(test):.2f} ({min(test):.2f}-{max(test):.2f})",
            f"{statistics.mean(curve.train[-1] for curve in list_):.2f}",
            f"{statistics.mean(curve.seconds[-1] for curve in list_):.1f}",
            reached(list_, "test", 88),
            reached(list_, "test", 89),
            reached(list_, "train", 95),
        ]
        print(f"{name:{width}}" + "".join(f"{cell:>{20 if i == 1 else 16}}" for i, cell in enumerate(cells)))


if __name__ == "__main__":
    main()
