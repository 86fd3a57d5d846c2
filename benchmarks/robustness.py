"""Move one number of RelaxedBCD at a time over a logarithmic grid, and draw what accuracy it costs.

Fashion-MNIST, 784-300x3-10 ReLU, squared loss on one-hot targets, mini-batches of 200, one thread, denormal
numbers flushed: validation accuracy (the last 10,000 training rows) after two epochs with a step that falls
linearly to zero, everything else as in STEEP, from He's start; beside that of Adam and SGD over their learning
rates, from torch.nn.Linear's. What STEEP does not say is as in before.py.

    python benchmarks/robustness.py docs/results/robustness_fashion_mnist.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import data_sets
import matplotlib as mpl
import torch
from before import BEFORE
from contestants import mean_loss
from data_sets import SETS, Data
from torch import nn
from tqdm import tqdm

import torchbcd

mpl.use("Agg")
from matplotlib import pyplot as plt

BATCH = 200
EPOCHS = 2
STEEP = {**BEFORE, "relaxation": 0.6, "growth": 1.6, "damping": 0.6, "output_relaxation": 0.1, "cap": 0.25}
GRIDS = {  # one number at a time
    "relaxation": (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2),
    "damping": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "over_relaxation": (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 1.95),
    "penalty_ratio": (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0),
    "output_relaxation": (0.01, 0.03, 0.1, 0.3, 1.0),
    "cap": (0.03, 0.06, 0.12, 0.25, 0.5, 1.0),
}
RATES = {"Adam": (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1), "SGD": (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)}


def make_optimizer(name: str, model: nn.Sequential, options: dict[str, Any]) -> torch.optim.Optimizer:
    """Of that name."""
    if name == "RelaxedBCD":
        return torchbcd.RelaxedBCD(model, **options)
    if name == "SGD":
        return torch.optim.SGD(model.parameters(), momentum=0.9, fused=True, **options)
    return torch.optim.Adam(model.parameters(), fused=True, **options)


def accuracy(name: str, options: dict[str, Any], data: Data) -> float:
    """After a run, in percent."""
    model = data_sets.make_model(SETS["fashion-mnist"], data, 0, "he" if name == "RelaxedBCD" else "torch")
    optimizer = make_optimizer(name, model, options)
    generator = torch.Generator().manual_seed(0)
    steps = EPOCHS * -(-len(data.x) // BATCH)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: (steps - k) / steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(data.x), generator=generator).split(BATCH):
            if isinstance(optimizer, torchbcd.RelaxedBCD):
                optimizer.step(data.x[rows], data.y[rows])
            else:
                optimizer.zero_grad()
                mean_loss(model, data.x[rows], data.y[rows], "squared", 10).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            scheduler.step()
    return data_sets.score(model, data)


def main() -> None:
    """Run all, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plot", type=Path, help="PNG file to draw to")
    data_sets.add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data = data_sets.load(SETS["fashion-mnist"], "validation", arguments)
    lines: dict[str, dict[float, float]] = {}
    for name, values in GRIDS.items():
        lines[name] = {
            v: accuracy("RelaxedBCD", {**STEEP, name: v}, data) for v in tqdm(values, name, leave=False)
        }
    for name, rates in RATES.items():
        lines[f"{name}: lr"] = {
            rate: accuracy(name, {"lr": rate}, data) for rate in tqdm(rates, name, leave=False)
        }
    figure, axes = plt.subplots(2, 4, figsize=(14, 6), sharey=True, layout="constrained")
    for axis, (name, line) in zip(axes.flat, lines.items(), strict=True):
        print(f"{name:20}" + "  ".join(f"{value:g}: {found:.1f}" for value, found in line.items()))
        axis.semilogx(list(line), list(line.values()), marker="o", color="C1" if ":" in name else "C0")
        axis.set(title=name if ":" in name else f"RelaxedBCD: {name}", ylim=(60, 91))
        axis.grid(alpha=0.3)
    figure.supylabel(f"validation accuracy after {EPOCHS} epochs, %")
    figure.savefig(arguments.plot, dpi=110)
    print(f"curves: {arguments.plot}")


if __name__ == "__main__":
    main()
