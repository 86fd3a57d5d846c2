"""Train an MLP by DLAM, mDLAM and dlADMM, full batch, and compare their settings.

Runs, on the first --rows training rows, standardised (mean of each input, one standard deviation for all):

    published    mDLAM with eps halved from 100, no acceleration, raw inputs (not in the paper)
    strict       mDLAM with eps shrinking by 7 % a sweep
    joint        one exact block over (z, a), constant eps
    exact W      the same with W by ridge regression, eq. (1) of the paper, rather than its linearisation, eps = 0
    dlADMM       the method that the paper compares itself with

Prints accuracies of the forward pass as it goes, and writes curves to a PNG file.

    python examples/python/dlam.py
    python examples/python/dlam.py --dataset digits --rows 1400 --sweeps 60 --runs strict,joint
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import datasets
import matplotlib as mpl
import torch
from torch import Tensor, nn
from tqdm import tqdm

import torchbcd

mpl.use("Agg")
from matplotlib import pyplot as plt

Optimizer = torchbcd.DLAM | torchbcd.DLADMM


class Setting(NamedTuple):
    """A run: its optimizer, and whether the inputs are standardised."""

    make: Callable[[nn.Sequential], Optimizer]
    standardise: bool = True


SETTINGS = {
    "published": Setting(
        lambda model: torchbcd.DLAM(model, eps=torchbcd.EpsSchedule(100, 0.5, 1e-3), momentum=None), False
    ),
    "strict": Setting(lambda model: torchbcd.DLAM(model, eps=torchbcd.EpsSchedule(3, 0.93, 0.003))),
    "joint": Setting(lambda model: torchbcd.DLAM(model, eps=0.003, joint=True)),
    "exact W": Setting(lambda model: torchbcd.DLAM(model, eps=0.0, joint=True, weight_damping=1.0)),
    "dlADMM": Setting(lambda model: torchbcd.DLADMM(model, rho=1e-3)),
}


def make_model(widths: list[int], gain: float, seed: int) -> nn.Sequential:
    """A ReLU net: He's initialisation times `gain`, the last layer by its inputs alone, biases zero."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        linear = nn.Linear(inputs, outputs)
        last = layer == len(widths) - 2
        nn.init.normal_(linear.weight, std=1 / math.sqrt(inputs) if last else gain * math.sqrt(2 / inputs))
        nn.init.zeros_(linear.bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Of the forward pass, which is what the model is for."""
    return (model(x).argmax(1) == y).double().mean().item()


def train(
    name: str, data: datasets.Data, arguments: argparse.Namespace
) -> tuple[list[tuple[float, float]], list[float], float]:
    """Accuracies (train, test) and F after every sweep, and the seconds of a sweep."""
    setting = SETTINGS[name]
    x, x_test = data.x, data.x_test
    if setting.standardise:
        mean, std = x.mean(0), x.std()
        x, x_test = (x - mean) / std, (x_test - mean) / std
    model = make_model([x.shape[1], *arguments.hidden, int(data.y.max()) + 1], arguments.gain, arguments.seed)
    optimizer = setting.make(model)
    optimizer.bind(x, data.y)
    curve, objectives, seconds = [], [], 0.0
    progress = tqdm(range(arguments.sweeps), name)
    for _ in progress:
        start = time.perf_counter()
        report = optimizer.step()
        seconds += time.perf_counter() - start
        objectives.append(report.objective)
        curve.append((accuracy(model, x, data.y), accuracy(model, x_test, data.y_test)))
        progress.set_postfix(
            F=f"{report.objective:.4g}", train=f"{100 * curve[-1][0]:.2f}%", test=f"{100 * curve[-1][1]:.2f}%"
        )
    return curve, objectives, seconds / arguments.sweeps


def plot(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Train and test accuracy against sweeps."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for axis, label, part in zip(axes, ("training accuracy", "test accuracy"), (0, 1), strict=True):
        for name, curve in curves.items():
            axis.plot(range(1, len(curve) + 1), [point[part] for point in curve], label=name)
        axis.set(xlabel="sweeps", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def widths(text: str) -> list[int]:
    """Comma-separated widths, for argparse."""
    return [int(part) for part in text.split(",") if part]


def runs(text: str) -> list[str]:
    """Comma-separated names of runs, for argparse."""
    names = text.split(",")
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(SETTINGS)} (got {', '.join(unknown)})")
    return names


def main() -> None:
    """Train every run, print the table, write the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=("auto", *datasets.NAMES), default="auto", help="as in train_mlp.py (default: auto)")
    add("--data-root", type=Path, help="folder with the four IDX files of MNIST or Fashion-MNIST")
    add("--download", action="store_true", help="fetch MNIST or Fashion-MNIST where it is not found")
    add("--rows", type=int, default=10_000, help="training rows (default: 10000)")
    add("--hidden", type=widths, default=[100, 100], help="hidden widths (default: 100,100)")
    add("--sweeps", type=int, default=150, help="full-batch sweeps (default: 150)")
    add("--gain", type=float, default=0.5, help="times He's initialisation (default: 0.5)")
    add("--seed", type=int, default=0, help="seed of the initialisation (default: 0)")
    add("--runs", type=runs, default=list(SETTINGS), help="which runs (default: all)")
    add("--out", type=Path, default=Path("dlam_curves.png"), help="PNG file (default: dlam_curves.png)")
    arguments = parser.parse_args()
    data = datasets.load(arguments.dataset, arguments.data_root, arguments.seed, fetch=arguments.download)
    data = data._replace(x=data.x[: arguments.rows], y=data.y[: arguments.rows])
    print(f"{data.name}: {len(data.x)} training and {len(data.x_test)} test rows, hidden {arguments.hidden}")
    curves, lines = {}, []
    marks = sorted({round(arguments.sweeps * part) for part in (0.1, 0.4, 2 / 3, 1)} - {0})
    for name in arguments.runs:
        curves[name], objectives, seconds = train(name, data, arguments)
        cells = "".join(
            f"{f'{100 * a:.1f} / {100 * b:.1f}':>15}" for a, b in (curves[name][m - 1] for m in marks)
        )
        lines.append(f"{name:12}{cells}{objectives[-1]:>12.4g}{seconds:>12.3f}")
    print(
        f"\n{'train / test %':12}" + "".join(f"{f'sweep {m}':>15}" for m in marks) + f"{'F':>12}{'s a sweep':>12}"
    )
    print("\n".join(lines))
    plot(curves, arguments.out)
    print(f"curves: {arguments.out}")


if __name__ == "__main__":
    main()
