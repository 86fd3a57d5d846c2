"""The experiments of Zeng et al.: BCD, RelaxedBCD, SGD and Adam, on the nets and from the start of the paper.

    figure1   MNIST or Fashion-MNIST, 784-2048-2048-2048-10, gamma 1, alpha 0.05 (Figure 1)
    figure2   CIFAR-10, 3072-4000-1000-4000-10, gamma 0.75, alpha 5 (Figure 2)
    deep      ten hidden layers of 600, gamma = alpha = 1 (the authors' program for deep nets)

ReLU, squared loss on one-hot targets, mini-batches of 200, weights from N(0, 0.01^2), biases 0.1; SGD and Adam
at the paper's learning rate, 0.05, Adam also at 0.001. RelaxedBCD is not in the paper. Reference lines are the
test accuracies that the authors published: MNIST 95.4 to 95.7 % (2048x3) and 85.6 to 87.2 % (600x10), CIFAR-10
44.8 to 45.2 %.

    python examples/python/paper_experiments.py figure1 --dataset fashion-mnist --epochs 2
    python examples/python/paper_experiments.py deep --runs relaxed,adam --tensorboard runs --checkpoint deep.pt
    python examples/python/paper_experiments.py deep --runs relaxed,adam --checkpoint deep.pt --resume
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import matplotlib as mpl
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import torchbcd

mpl.use("Agg")
from matplotlib import pyplot as plt


class Experiment(NamedTuple):
    """A figure's net and penalties."""

    hidden: tuple[int, ...]
    gamma: float
    alpha: float
    dataset: str


EXPERIMENTS = {
    "figure1": Experiment((2048, 2048, 2048), 1.0, 0.05, "mnist"),
    "figure2": Experiment((4000, 1000, 4000), 0.75, 5.0, "cifar10"),
    "deep": Experiment((600,) * 10, 1.0, 1.0, "mnist"),
}
PUBLISHED = {  # test accuracies in %
    ("figure1", "mnist"): (95.4, 95.7),
    ("deep", "mnist"): (85.6, 87.2),
    ("figure2", "cifar10"): (44.8, 45.2),
}
RELAXED = {"relaxation": 0.6, "growth": 1.6, "damping": 0.6, "output_relaxation": 0.1, "cap": 0.25}
# Nothing decays here, as in the paper: many layers then want smaller steps than for_any_depth has.
RELAXED_DEEP = {"relaxation": 0.3, "output_relaxation": 0.2, "cap": 0.2}
RUNS = ("bcd", "relaxed", "sgd", "adam", "adam-0.001")


@dataclass
class Curves:
    """A point an epoch; seconds are those of training alone."""

    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)


def make_model(widths: list[int], seed: int) -> nn.Sequential:
    """The paper's initialisation: weights from N(0, 0.01^2), biases 0.1."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.constant_(linear.bias, 0.1)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def squared_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean over rows of 1/2 |output - one_hot(y)|^2."""
    return 0.5 * (outputs - functional.one_hot(y, outputs.shape[1])).square().sum(1).mean()


def make_optimizer(
    run: str, model: nn.Sequential, experiment: Experiment
) -> tuple[torch.optim.Optimizer, Callable[[Tensor, Tensor], object]]:
    """The run's optimizer, and what it does with a batch."""
    if run == "bcd":
        bcd = torchbcd.BCD(model, gamma=experiment.gamma, alpha=experiment.alpha)
        return bcd, bcd.step
    if run == "relaxed":
        deep = len(experiment.hidden) > 5
        make = torchbcd.RelaxedBCD.for_any_depth if deep else torchbcd.RelaxedBCD
        relaxed = make(model, **(RELAXED_DEEP if deep else RELAXED))
        return relaxed, relaxed.step
    parameters = model.parameters()
    optimizer: torch.optim.Optimizer
    if run == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=0.05)
    else:
        optimizer = torch.optim.Adam(parameters, lr=0.05 if run == "adam" else 0.001, fused=True)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        squared_loss(model(x), y).backward()
        optimizer.step()

    return optimizer, step


@torch.no_grad()
def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean squared loss and accuracy, in chunks."""
    outputs = torch.cat([model(chunk) for chunk in x.split(10_000)])
    return squared_loss(outputs, y).item(), (outputs.argmax(1) == y).double().mean().item()


def train(run: str, data: datasets.Data, experiment: Experiment, arguments: argparse.Namespace) -> Curves:
    """Train one optimizer, from its checkpoint where there is one and --resume asks for it."""
    widths = [data.x.shape[1], *experiment.hidden, int(data.y.max()) + 1]
    model = make_model(widths, arguments.seed)
    optimizer, step = make_optimizer(run, model, experiment)
    shuffle = torch.Generator().manual_seed(arguments.seed)
    curves, first = Curves(), 0
    checkpoint = arguments.checkpoint and arguments.checkpoint.with_stem(f"{arguments.checkpoint.stem}-{run}")
    if arguments.resume and checkpoint.exists():
        saved: dict[str, Any] = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        shuffle.set_state(saved["shuffle"])
        curves, first = Curves(**saved["curves"]), saved["epochs"]
    writer = None
    if arguments.tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(arguments.tensorboard / run, purge_step=first)
    for epoch in range(first, arguments.epochs):
        start = time.perf_counter()
        batches = torch.randperm(len(data.x), generator=shuffle).split(arguments.batch_size)
        for rows in tqdm(batches, f"{run}, epoch {epoch + 1}", leave=False):
            step(data.x[rows], data.y[rows])
        seconds = time.perf_counter() - start
        curves.seconds.append(seconds + (curves.seconds[-1] if curves.seconds else 0.0))
        loss, accuracy = evaluate(model, data.x, data.y)
        curves.loss.append(loss)
        curves.train.append(accuracy)
        curves.test.append(evaluate(model, data.x_test, data.y_test)[1])
        print(
            f"{run:12} epoch {epoch + 1:3}  loss {loss:.4f}  train {accuracy:.2%}  test {curves.test[-1]:.2%}  "
            f"{curves.seconds[-1]:.1f} s",
            flush=True,
        )
        if writer is not None:
            for name in ("loss", "train", "test"):
                writer.add_scalar(name, getattr(curves, name)[-1], epoch + 1)
            writer.flush()
        if checkpoint:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "shuffle": shuffle.get_state(),
                    "curves": asdict(curves),
                    "epochs": epoch + 1,
                },
                checkpoint,
            )
    if writer is not None:
        writer.close()
    return curves


def plot(curves: dict[str, Curves], title: str, published: tuple[float, float] | None, path: Path) -> None:
    """Training loss, training accuracy and test accuracy against epochs: the panels of Figures 1 and 2."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    panels = (("training loss", "loss"), ("training accuracy", "train"), ("test accuracy", "test"))
    for axis, (label, attribute) in zip(axes, panels, strict=True):
        for run, curve in curves.items():
            values = getattr(curve, attribute)
            axis.plot(range(1, len(values) + 1), values, marker=".", label=run)
        axis.set(xlabel="epochs", ylabel=label)
        axis.grid(alpha=0.3)
    if published:
        axes[2].axhspan(published[0] / 100, published[1] / 100, alpha=0.3, color="grey", label="published")
        axes[2].legend()
    axes[0].set_yscale("log")
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def runs(text: str) -> list[str]:
    """Comma-separated names of runs, for argparse."""
    names = text.split(",")
    if unknown := [name for name in names if name not in RUNS]:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(RUNS)} (got {', '.join(unknown)})")
    return names


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("experiment", choices=EXPERIMENTS, help="which experiment")
    add("--dataset", choices=(*datasets.NAMES, "cifar10"), help="data (default: the paper's)")
    add("--data-root", type=Path, help="folder with the data set's files")
    add("--rows", type=int, help="only so many training rows (default: all)")
    add(
        "--hidden-scale", type=float, default=1.0, help="multiplies the hidden widths, to try it out (default: 1)"
    )
    add("--runs", type=runs, default=list(RUNS), help="which runs (default: all)")
    add("--epochs", type=int, default=5, help="epochs of each run (default: 5)")
    add("--batch-size", type=int, default=200, help="rows of a mini-batch (default: 200)")
    add("--seed", type=int, default=0, help="seed of initialisation and shuffling (default: 0)")
    add("--tensorboard", type=Path, help="folder to log to, a subfolder a run")
    add("--checkpoint", type=Path, help="file to save to after every epoch, one for each run (its name is added)")
    add("--resume", action="store_true", help="go on from --checkpoint, to the bit")
    add("--out", type=Path, default=Path("paper_curves.png"), help="PNG file (default: paper_curves.png)")
    arguments = parser.parse_args()
    if arguments.resume and not arguments.checkpoint:
        parser.error("--resume needs --checkpoint")
    return arguments


def main() -> None:
    """Train every run, write the curves."""
    arguments = parse_arguments()
    experiment = EXPERIMENTS[arguments.experiment]
    hidden = tuple(max(1, round(width * arguments.hidden_scale)) for width in experiment.hidden)
    experiment = experiment._replace(hidden=hidden)
    data = datasets.load(arguments.dataset or experiment.dataset, arguments.data_root, arguments.seed)
    data = data._replace(x=data.x[: arguments.rows], y=data.y[: arguments.rows])
    torch.set_flush_denormal(True)
    curves = {run: train(run, data, experiment, arguments) for run in arguments.runs}
    shape = "-".join(map(str, hidden))
    published = PUBLISHED.get((arguments.experiment, data.name)) if arguments.hidden_scale == 1 else None
    plot(curves, f"{arguments.experiment}: {data.name}, hidden {shape}", published, arguments.out)
    print(f"curves: {arguments.out}")


if __name__ == "__main__":
    main()
