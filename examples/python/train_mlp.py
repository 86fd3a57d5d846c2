"""Train an MLP by RelaxedBCD, by BCD, by Adam and by Muon, on the same net and data.

RelaxedBCD trains by its `fit` with the defaults, on mini-batches for --relaxed-epochs. BCD, the papers'
algorithm, goes full batch (--sweeps) or, with --epochs, on mini-batches. Adam and Muon (torch's, with Adam on
the last layer and the biases) train for as many epochs as fit into RelaxedBCD's seconds, or for --adam-epochs,
on fit's terms: a step that is held for half of the run and then falls to zero, and a moving average of the
weights. All three have the average in their last point. Prints a table and writes the curves of loss, training
and test accuracy (the panels of Zeng et al., Figure 1) to a PNG file.

    python examples/python/train_mlp.py
    python examples/python/train_mlp.py --dataset digits --hidden 100,100 --sweeps 40
    python examples/python/train_mlp.py --epochs 2 --hidden 300,300,300
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import datasets
import matplotlib as mpl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

import torchbcd

mpl.use("Agg")
from matplotlib import pyplot as plt

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


@dataclass
class Run:
    """What one optimizer did: a point a sweep or epoch; seconds are those of training alone."""

    name: str
    unit: str
    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    objective: float | None = None

    def record(self, model: nn.Module, data: datasets.Data, seconds: float) -> None:
        """Append the model's loss and accuracies after `seconds` more seconds of training."""
        self.seconds.append(seconds + (self.seconds[-1] if self.seconds else 0.0))
        loss, accuracy = evaluate(model, data.x, data.y)
        self.loss.append(loss)
        self.train.append(accuracy)
        self.test.append(evaluate(model, data.x_test, data.y_test)[1])

    def record_average(self, model: nn.Module, data: datasets.Data, seconds: float) -> None:
        """Put the point of the averaged weights, `seconds` later, in place of the last one."""
        self.record(model, data, seconds)
        for points in (self.seconds, self.loss, self.train, self.test):
            del points[-2]

    def columns(self) -> dict[str, str]:
        """The last point, for a progress bar: the objective where there is one, or else the loss."""
        first = {"loss": self.loss[-1]} if self.objective is None else {"objective": self.objective}
        numbers = {name: f"{value:.4g}" for name, value in first.items()}
        return {**numbers, "train": f"{100 * self.train[-1]:.2f}%", "test": f"{100 * self.test[-1]:.2f}%"}


def squared_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean over rows of 1/2 |output - one_hot(y)|^2, the loss that all of them minimise."""
    return 0.5 * (outputs - nn.functional.one_hot(y, outputs.shape[1])).square().sum(1).mean()


@torch.no_grad()
def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean squared loss and accuracy."""
    outputs = model(x)
    return squared_loss(outputs, y).item(), (outputs.argmax(1) == y).double().mean().item()


def make_model(widths: list[int], activation: str, init: str, seed: int) -> nn.Sequential:
    """The net, initialised as in the paper (weights N(0, 0.01^2), biases 0.1), by He et al., or by PyTorch."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        if init == "paper":
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.constant_(linear.bias, 0.1)
        elif init == "he":
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        modules += [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*modules[:-1])


def batches(rows: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A shuffled epoch as index tensors."""
    return torch.randperm(rows, generator=generator).split(size)


def train_bcd(model: nn.Sequential, data: datasets.Data, arguments: argparse.Namespace) -> Run:
    """Full-batch sweeps, or epochs of mini-batches, each from a forward pass."""
    optimizer = torchbcd.BCD(model, gamma=arguments.gamma, alpha=arguments.alpha)
    full_batch = arguments.epochs is None
    run = Run("BCD", "sweep" if full_batch else "epoch")
    shuffle = torch.Generator().manual_seed(arguments.seed)
    start = time.perf_counter()
    if full_batch:
        optimizer.bind(data.x, data.y)
    progress = tqdm(range(arguments.sweeps if full_batch else arguments.epochs), f"BCD {run.unit}s")
    for _ in progress:
        if full_batch:
            optimizer.step()
        else:
            for index in batches(len(data.x), arguments.batch_size, shuffle):
                optimizer.step(data.x[index], data.y[index])
        run.record(model, data, time.perf_counter() - start)
        run.objective = optimizer.objective()
        progress.set_postfix(run.columns())
        start = time.perf_counter()
    return run


def train_relaxed(model: nn.Sequential, data: datasets.Data, arguments: argparse.Namespace) -> Run:
    """Epochs of RelaxedBCD as it is."""
    run = Run("RelaxedBCD", "epoch")
    progress = tqdm(total=arguments.relaxed_epochs, desc="RelaxedBCD epochs")
    start = time.perf_counter()

    def record(report: torchbcd.reports.EpochReport) -> None:
        nonlocal start
        run.record(model, data, time.perf_counter() - start)
        progress.set_postfix(run.columns(), refresh=False)
        progress.update()
        start = time.perf_counter()

    shuffle = torch.Generator().manual_seed(arguments.seed)
    optimizer = torchbcd.RelaxedBCD(model)
    optimizer.fit(
        data.x, data.y, arguments.relaxed_epochs, arguments.batch_size, generator=shuffle, callback=record
    )
    run.record_average(model, data, time.perf_counter() - start)
    return run


def peers(name: str, model: nn.Module) -> list[torch.optim.Optimizer]:
    """The optimizers of Adam, AdamW, or Muon, which is for hidden matrices and leaves the rest to Adam."""
    parameters = list(model.parameters())
    *hidden, _ = [p for p in parameters if p.ndim == 2]
    if name == "AdamW":
        return [torch.optim.AdamW(parameters, lr=2e-3, fused=True)]
    if name == "Adam" or not hidden:
        return [torch.optim.Adam(parameters, lr=2e-3, fused=True)]
    rest = [p for p in parameters if not any(p is matrix for matrix in hidden)]
    return [
        torch.optim.Muon(hidden, lr=0.02, weight_decay=0.0),
        torch.optim.Adam(rest, lr=2e-3, fused=True),
    ]


class Backpropagation:
    """A step held for half of so many, then falling to zero, and averaged weights."""

    def __init__(self, name: str, model: nn.Module, steps: int) -> None:
        self.model = model
        self.optimizers = peers(name, model)
        self.schedulers = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, 2 * (1 - k / steps)))
            for optimizer in self.optimizers
        ]
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(max(0.0, 1 - 10 / steps)))

    def epoch(self, data: datasets.Data, order: tuple[Tensor, ...]) -> float:
        """One epoch over the batches in `order`; the seconds it took."""
        start = time.perf_counter()
        for index in order:
            self.model.zero_grad()
            squared_loss(self.model(data.x[index]), data.y[index]).backward()
            for each in (*self.optimizers, *self.schedulers):
                each.step()
            self.averaged.update_parameters(self.model)
        return time.perf_counter() - start


def epochs_within(
    seconds: float, name: str, model: nn.Module, data: datasets.Data, arguments: argparse.Namespace
) -> int:
    """How many epochs take so many seconds, at least one: by the second of two on a copy of the model."""
    order = batches(len(data.x), arguments.batch_size, torch.Generator())
    trial = Backpropagation(name, copy.deepcopy(model), 2 * len(order))
    taken = [trial.epoch(data, order) for _ in range(2)]
    return max(1, round(seconds / taken[-1]))


def train_peer(
    name: str, model: nn.Sequential, data: datasets.Data, arguments: argparse.Namespace, seconds: float
) -> Run:
    """Epochs of Adam or of Muon: so many as are asked for, or as so many seconds have time for."""
    epochs = arguments.adam_epochs or epochs_within(seconds, name, model, data, arguments)
    run = Run(name, "epoch")
    shuffle = torch.Generator().manual_seed(arguments.seed)
    training = Backpropagation(name, model, epochs * math.ceil(len(data.x) / arguments.batch_size))
    progress = tqdm(range(epochs), f"{name} epochs")
    for _ in progress:
        order = batches(len(data.x), arguments.batch_size, shuffle)
        run.record(model, data, training.epoch(data, order))
        progress.set_postfix(run.columns())
    run.record_average(training.averaged.module, data, 0.0)
    return run


def print_table(runs: list[Run]) -> None:
    """The closing table."""
    header = f"{'':12}{'steps':>12}{'train loss':>12}{'train':>9}{'test':>9}{'objective':>12}{'seconds':>9}"
    print(f"\n{header}\n{'-' * len(header)}")
    for run in runs:
        steps = f"{len(run.seconds)} {run.unit}s"
        objective = "" if run.objective is None else f"{run.objective:.4g}"
        print(
            f"{run.name:12}{steps:>12}{run.loss[-1]:>12.5f}{run.train[-1]:>9.2%}{run.test[-1]:>9.2%}"
            f"{objective:>12}{run.seconds[-1]:>9.1f}"
        )


def plot(runs: list[Run], title: str, path: Path) -> None:
    """Loss, training accuracy and test accuracy against seconds of training."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    panels = (("training loss", "loss"), ("training accuracy", "train"), ("test accuracy", "test"))
    for axis, (label, attribute) in zip(axes, panels, strict=True):
        for run in runs:
            axis.plot(run.seconds, getattr(run, attribute), marker=".", label=run.name)
        axis.set(xlabel="seconds of training", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def positive_int(text: str) -> int:
    """A whole number above zero, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {value})")
    return value


def widths(text: str) -> list[int]:
    """Comma-separated widths, for argparse; an empty text is no hidden layer."""
    return [positive_int(part) for part in text.split(",") if part]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--dataset",
        choices=("auto", *datasets.NAMES),
        default="auto",
        help="data to train on; auto: Fashion-MNIST where found, else scikit-learn's digits (default: auto)",
    )
    add("--data-root", type=Path, help="folder with the four IDX files of MNIST or Fashion-MNIST")
    add("--download", action="store_true", help="fetch MNIST or Fashion-MNIST where it is not found")
    add("--hidden", type=widths, default=[600], help="hidden widths, such as 300,300 (default: 600)")
    add(
        "--activation",
        choices=ACTIVATIONS,
        default="relu",
        help="activation of the hidden layers (default: relu)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--sweeps", type=positive_int, default=20, help="full-batch sweeps of BCD (default: 20)")
    add(
        "--relaxed-epochs",
        type=positive_int,
        default=5,
        help="epochs of RelaxedBCD on mini-batches (default: 5)",
    )
    add(
        "--adam-epochs",
        type=positive_int,
        help="epochs of Adam and of Muon (default: as many as fit into RelaxedBCD's seconds)",
    )
    length.add_argument("--epochs", type=positive_int, help="train BCD on mini-batches for so many epochs")
    add("--batch-size", type=positive_int, default=100, help="rows of a mini-batch (default: 100)")
    inits = ("paper", "he", "torch")
    add("--init", choices=inits, default="paper", help="initialisation of the weights (default: paper)")
    add("--adam-init", choices=inits, default="torch", help="Adam's and Muon's, better off so (default: torch)")
    add("--gamma", type=float, default=1.0, help="penalty of the splitting, gamma = rho (default: 1)")
    add("--alpha", type=float, default=0.05, help="weight of the proximal terms (default: 0.05)")
    add("--seed", type=int, default=0, help="seed of initialisation and shuffling (default: 0)")
    add("--out", type=Path, default=Path("bcd_curves.png"), help="PNG file (default: bcd_curves.png)")
    return parser.parse_args()


def main() -> None:
    """Train by all of them, print the table, write the curves."""
    arguments = parse_arguments()
    data = datasets.load(arguments.dataset, arguments.data_root, arguments.seed, fetch=arguments.download)
    classes = int(data.y.max()) + 1
    net = [data.x.shape[1], *arguments.hidden, classes]
    shape = "-".join(map(str, net))
    rows = f"{len(data.x)} training and {len(data.x_test)} test rows"
    print(f"{data.name}: {rows}, {shape} {arguments.activation}")
    relaxed = train_relaxed(
        make_model(net, arguments.activation, arguments.init, arguments.seed), data, arguments
    )
    bcd = train_bcd(make_model(net, arguments.activation, arguments.init, arguments.seed), data, arguments)
    torch.set_flush_denormal(True)  # without it Adam slows down on pixels that are nearly always zero
    runs = [relaxed, bcd]
    for name in ("Adam", "Muon"):
        model = make_model(net, arguments.activation, arguments.adam_init, arguments.seed)
        runs.append(train_peer(name, model, data, arguments, relaxed.seconds[-1]))
    print_table(runs)
    plot(runs, f"{data.name}, {shape}", arguments.out)
    print(f"curves: {arguments.out}")


if __name__ == "__main__":
    main()
