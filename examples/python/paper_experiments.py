"""The experiments of Zeng et al., Section 4: BCD, SGD and Adam, on the nets and from the start of the paper.

    mnist     MNIST or Fashion-MNIST, 784-2048-2048-2048-10, gamma 1, alpha 0.05
    cifar10   CIFAR-10, 3072-4000-1000-4000-10, gamma 0.75, alpha 5
    deep      ten hidden layers of 600, gamma = alpha = 1: not in the paper

ReLU, squared loss on one-hot targets, mini-batches of 200, weights from N(0, 0.01^2), biases 0.1; SGD and Adam
at the paper's learning rate, 0.05, Adam also at 0.001. The paper has curves and no numbers, and says of them:
BCD, SGD and Adam all come to a training loss of about zero and a training accuracy of about 100 %; Adam trains
fastest, and is less stable, BCD comes next, SGD is slowest in early epochs; BCD's test accuracy is comparable to
SGD's; on CIFAR-10 BCD and Adam overfit, SGD less so. It does not say whether a mini-batch's U and V are kept
between visits; paper_runs.py lists what is run. RelaxedBCD, Adam at 0.001 and the searched runs are not in it.

Curves are written as a figure, and as JSON beside it, from which paper_figures.py draws it again.

    python examples/python/paper_experiments.py mnist --device cuda --seeds 0,1,2 --epochs 40 --seconds 120
    python examples/python/paper_experiments.py mnist --dataset fashion-mnist --epochs 2
    python examples/python/paper_experiments.py deep --runs relaxed,adam --tensorboard runs --checkpoint deep.pt
    python examples/python/paper_experiments.py deep --runs relaxed,adam --checkpoint deep.pt --resume
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from paper_figures import plot, table
from paper_runs import (
    RUNS,
    SEARCHED,
    Experiment,
    evaluate,
    make_model,
    make_run,
    prepare,
    setting_of,
    synchronize,
)
from tqdm import tqdm

EXPERIMENTS = {
    "mnist": Experiment((2048, 2048, 2048), 1.0, 0.05, "mnist"),
    "cifar10": Experiment((4000, 1000, 4000), 0.75, 5.0, "cifar10"),
    "deep": Experiment((600,) * 10, 1.0, 1.0, "mnist"),
}


@dataclass
class Curves:
    """A point an epoch; seconds are those of training alone."""

    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)


def train(
    run: str, seed: int, data: datasets.Data, experiment: Experiment, arguments: argparse.Namespace, limit: float
) -> Curves:
    """Train one optimizer, from its checkpoint where there is one and --resume asks for it.

    It ends after --epochs, or before the epoch with which it would take longer than `limit` seconds.
    """
    begin = time.perf_counter()
    device = data.x.device
    widths = [data.x.shape[1], *experiment.hidden, int(data.y.max()) + 1]
    setting = setting_of(run, experiment, arguments.searched)
    model = make_model(widths, seed, setting.start if setting else None).to(device)
    batch_size = (setting and setting.batch_size) or arguments.batch_size
    optimizer, train_epoch = make_run(run, model, setting, data.x, data.y)
    shuffle = torch.Generator().manual_seed(seed)
    curves, first = Curves(), 0
    name = f"{run}-seed{seed}"
    checkpoint = arguments.checkpoint and arguments.checkpoint.with_stem(f"{arguments.checkpoint.stem}-{name}")
    if arguments.resume and checkpoint.exists():
        saved: dict[str, Any] = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        shuffle.set_state(saved["shuffle"])
        curves, first = Curves(**saved["curves"]), saved["epochs"]
    writer = None
    if arguments.tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(arguments.tensorboard / name, purge_step=first)
    longest = 0.0
    for epoch in range(first, arguments.epochs):
        start = time.perf_counter()
        if epoch > first and start - begin + longest > limit:
            break
        order = torch.randperm(len(data.x), generator=shuffle).to(device)
        batches = tqdm(order.split(batch_size), f"{name}, epoch {epoch + 1}", leave=False, disable=None)
        train_epoch(epoch, batches)
        synchronize(device)
        seconds = time.perf_counter() - start
        batches.close()
        curves.seconds.append(seconds + (curves.seconds[-1] if curves.seconds else 0.0))
        loss, accuracy = evaluate(model, data.x, data.y)
        curves.loss.append(loss)
        curves.train.append(accuracy)
        curves.test.append(evaluate(model, data.x_test, data.y_test)[1])
        print(
            f"{run:20} seed {seed}  epoch {epoch + 1:3}  loss {loss:.4g}  train {accuracy:.2%}  "
            f"test {curves.test[-1]:.2%}  {curves.seconds[-1]:.1f} s",
            flush=True,
        )
        if writer is not None:
            for scalar in ("loss", "train", "test"):
                writer.add_scalar(scalar, getattr(curves, scalar)[-1], epoch + 1)
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
        longest = max(longest, time.perf_counter() - start)
    if writer is not None:
        writer.close()
    return curves


def train_all(
    data: datasets.Data, experiment: Experiment, arguments: argparse.Namespace
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Curves by run and seed. What is left of --seconds is shared evenly by what is left to train."""
    deadline = time.perf_counter() + arguments.seconds
    pairs = [(run, seed) for seed in arguments.seeds for run in arguments.runs]
    curves: dict[str, dict[str, dict[str, list[float]]]] = {run: {} for run in arguments.runs}
    for done, (run, seed) in enumerate(pairs):
        limit = (deadline - time.perf_counter()) / (len(pairs) - done)
        curves[run][str(seed)] = asdict(train(run, seed, data, experiment, arguments, limit))
    return curves


def run_names(text: str) -> list[str]:
    """Comma-separated names of runs, for argparse."""
    names = text.split(",")
    if unknown := [name for name in names if name not in (*RUNS, *SEARCHED)]:
        raise argparse.ArgumentTypeError(
            f"choose from {', '.join((*RUNS, *SEARCHED))} (got {', '.join(unknown)})"
        )
    return names


def numbers(text: str) -> list[int]:
    """Comma-separated whole numbers, for argparse."""
    return [int(number) for number in text.split(",")]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("experiment", choices=EXPERIMENTS, help="which experiment")
    add("--dataset", choices=(*datasets.NAMES, "cifar10"), help="data (default: the paper's)")
    add("--data-root", type=Path, help="folder with the data set's files")
    add("--download", action="store_true", help="fetch MNIST or Fashion-MNIST where it is not found")
    add("--device", type=torch.device, default="cpu", help="where to train, as torch names it (default: cpu)")
    add("--rows", type=int, help="only so many training rows (default: all)")
    add(
        "--hidden-scale", type=float, default=1.0, help="multiplies the hidden widths, to try it out (default: 1)"
    )
    add("--runs", type=run_names, default=list(RUNS), help="which runs (default: all but the searched ones)")
    add("--searched", type=Path, help="file of benchmarks/search_bcd.py, for the searched runs")
    add("--epochs", type=int, default=5, help="the most epochs of each run (default: 5)")
    add("--seconds", type=float, default=float("inf"), help="time for all runs together (default: no limit)")
    add("--batch-size", type=int, default=200, help="rows of a mini-batch (default: 200)")
    add("--seeds", type=numbers, default=[0], help="seeds of initialisation and shuffling (default: 0)")
    add("--tensorboard", type=Path, help="folder to log to, a subfolder for each run and seed")
    add("--checkpoint", type=Path, help="file to save to after every epoch, one for each run and seed (added)")
    add("--resume", action="store_true", help="go on from --checkpoint, to the bit")
    add("--out", type=Path, default=Path("paper_curves.png"), help="PNG file (default: paper_curves.png)")
    arguments = parser.parse_args()
    if arguments.resume and not arguments.checkpoint:
        parser.error("--resume needs --checkpoint")
    for run in SEARCHED:
        if run in arguments.runs and not arguments.searched:
            parser.error(f"{run} needs --searched")
    return arguments


def main() -> None:
    """Train every run, write the curves."""
    arguments = parse_arguments()
    experiment = EXPERIMENTS[arguments.experiment]
    hidden = tuple(max(1, round(width * arguments.hidden_scale)) for width in experiment.hidden)
    experiment = experiment._replace(hidden=hidden)
    data = datasets.load(
        arguments.dataset or experiment.dataset, arguments.data_root, arguments.seeds[0], fetch=arguments.download
    )
    data = data._replace(x=data.x[: arguments.rows], y=data.y[: arguments.rows])
    data = datasets.Data(data.name, *(tensor.to(arguments.device) for tensor in data[1:]))
    prepare(arguments.device)
    record = {
        "experiment": arguments.experiment,
        "dataset": data.name,
        "rows": len(data.x),
        "widths": [data.x.shape[1], *hidden, int(data.y.max()) + 1],
        "batch_size": arguments.batch_size,
        "device": str(arguments.device),
        "torch": torch.__version__,
        "curves": train_all(data, experiment, arguments),
    }
    if arguments.device.type == "cuda":
        record["device"] = torch.cuda.get_device_name(arguments.device)
    arguments.out.with_suffix(".json").write_text(json.dumps(record) + "\n")
    plot(record, arguments.out)
    print(table(record))
    print(f"curves: {arguments.out}, {arguments.out.with_suffix('.json')}")


if __name__ == "__main__":
    main()
