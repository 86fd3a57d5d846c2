"""Search for settings of plain BCD (Algorithm 2 of Zeng et al.) on MNIST: start, penalties, order, rows used.

LISTED is tried first, then random settings until the --seconds are over. The last rows of the training part are
the validation part; the test part chooses nothing. A setting stops early where, after a third or two thirds of
its epochs, its training loss is above the median of those before it (the median stopping rule). Every setting is
a line of JSON, which `examples/python/paper_experiments.py --searched` reads.

loss_weight is not searched: multiplying it, gamma, rho, alpha and alpha_weight by one number changes no sweep, so
the paper's 1/n is the summed loss with penalties n times as large. alpha_weight stands beside a sum over rows: it
is drawn, and listed, per row of a sweep.

    python benchmarks/search_bcd.py --device cuda --seconds 120
    python benchmarks/search_bcd.py --rows 3000 --hidden 128,128,128 --seconds 300
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/python"))
import datasets
from paper_runs import Setting, as_line, bcd_run, evaluate, make_model, prepare, synchronize

# By epoch: "loss" and "train" of the rows trained on, "validation" accuracy, "seconds" with evaluation.
Figures = dict[str, list[float]]
# Found with 784-200x3-10 and 784-512x3-10 on 4,000 and 10,000 rows; alpha_weight is per row.
FOUND = Setting(
    "persistent",
    start=0.2,
    batch_size=500,
    growth=3,
    options={
        "gamma": 3.6,
        "rho": 3.6,
        "alpha": 3e-4,
        "alpha_weight": 0.002,
        "order": "states_first",
        "inner_sweeps": 5,
    },
)
FULL = replace(FOUND, rows="full", batch_size=None, growth=0)
SOFT = {"gamma": 2.1, "rho": 1.1, "alpha": 1e-4, "alpha_weight": 3e-4, "inner_sweeps": 3}
LISTED = [
    FOUND,
    FULL,
    replace(FOUND, start=0.1),
    replace(FOUND, start=None),
    replace(FOUND, batch_size=2000),
    replace(FOUND, options={**FOUND.options, "gamma": 8.0, "rho": 8.0}),
    replace(FOUND, options={**FOUND.options, "order": "paper"}),
    replace(FULL, growth=10, options={**FULL.options, **SOFT}),
]


def random_setting(rng: random.Random) -> Setting:
    """A setting from the ranges that wider searches, on 2,000 and 4,000 rows, have left."""

    def log_uniform(low: float, high: float) -> float:
        return float(f"{low * (high / low) ** rng.random():.2g}")

    gamma = log_uniform(1, 10)
    options: dict[str, Any] = {
        "gamma": gamma,
        "rho": float(f"{gamma * rng.choice((0.3, 1, 1)):.2g}"),
        "alpha": log_uniform(1e-4, 0.03),
        "alpha_weight": log_uniform(3e-4, 0.02),
        "order": rng.choice(("paper", "states_first")),
        "inner_sweeps": rng.choice((3, 5, 10)),
    }
    rows = rng.choice(("full", "persistent", "persistent"))
    return Setting(
        rows,
        start=rng.choice((None, 0.1, 0.2, 0.3)),
        batch_size=None if rows == "full" else rng.choice((200, 500, 2000)),
        growth=rng.choice((0, 3, 10)),
        options=options,
    )


def describe(setting: Setting) -> str:
    """A setting on one line."""
    start = "the paper's" if setting.start is None else f"{setting.start} He"
    options = ", ".join(f"{name} {value}" for name, value in setting.options.items())
    size = f" of {setting.batch_size}" if setting.batch_size else ""
    return f"{setting.rows}{size}, start {start}, growth {setting.growth}, {options}"


def scaled(setting: Setting, rows: int) -> Setting:
    """The setting with alpha_weight for so many rows a sweep."""
    per_row = setting.options.get("alpha_weight")
    if per_row is None:
        return setting
    return replace(setting, options={**setting.options, "alpha_weight": per_row * rows})


class MedianStopping:
    """Whether a training loss is above the median of earlier settings', a third or two thirds through."""

    def __init__(self, epochs: int) -> None:
        self._losses: dict[int, list[float]] = {max(1, epochs * part // 3): [] for part in (1, 2)}

    def __call__(self, epoch: int, loss: float) -> bool:
        """Note the loss after an epoch, counted from 1."""
        earlier = self._losses.get(epoch)
        if earlier is None:
            return False
        behind = len(earlier) >= 4 and loss > statistics.median(earlier)
        earlier.append(loss)
        return behind


class Search:
    """The data, on its device, and what is common to all settings."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device = torch.device(arguments.device)
        prepare(self.device)
        data = datasets.load(arguments.dataset, arguments.data_root)
        rows = min(arguments.rows or len(data.x), len(data.x) - arguments.validation)
        if rows < 1:
            raise ValueError(f"there must be rows left to train on (got --validation {arguments.validation})")
        self.x, self.y = data.x[:rows].to(self.device), data.y[:rows].to(self.device)
        self.held_out = [tensor[-arguments.validation :].to(self.device) for tensor in (data.x, data.y)]
        self.widths = (self.x.shape[1], *arguments.hidden, int(data.y.max()) + 1)
        self.stopping = MedianStopping(arguments.epochs)

    def run(self, setting: Setting, deadline: float, may_stop: bool) -> Figures:
        """Train with a setting until its epochs are over, or the time, or it has no solution, or falls behind."""
        model = make_model(self.widths, self.arguments.seed, setting.start).to(self.device)
        _, train_epoch = bcd_run(setting, model, self.x, self.y)
        shuffle = torch.Generator().manual_seed(self.arguments.seed)
        figures: Figures = {"loss": [], "train": [], "validation": [], "seconds": []}
        start = time.perf_counter()
        deadline = min(deadline, start + self.arguments.setting_seconds)
        for epoch in range(self.arguments.epochs):
            order = torch.randperm(len(self.x), generator=shuffle).to(self.device)
            try:
                train_epoch(epoch, order.split(setting.batch_size or len(order)))
            except torch.linalg.LinAlgError:
                break
            synchronize(self.device)
            loss, accuracy = evaluate(model, self.x, self.y)
            if not math.isfinite(loss):
                break
            figures["loss"].append(loss)
            figures["train"].append(accuracy)
            figures["validation"].append(evaluate(model, *self.held_out)[1])
            figures["seconds"].append(time.perf_counter() - start)
            if (self.stopping(epoch + 1, loss) and may_stop) or time.perf_counter() > deadline:
                break
        return figures


def search(arguments: argparse.Namespace) -> list[tuple[Setting, Figures]]:
    """Try one setting after the other until the time is over; the listed ones are not stopped early."""
    begin = time.perf_counter()
    searching = Search(arguments)
    rng = random.Random(arguments.search_seed)
    listed = [] if arguments.random_only else LISTED
    tried: list[tuple[Setting, Figures]] = []
    with arguments.out.open("w") as out, tqdm(total=arguments.seconds, unit="s", disable=None) as bar:
        while (elapsed := time.perf_counter() - begin) < arguments.seconds:
            bar.update(elapsed - bar.n)
            may_stop = len(tried) >= len(listed)
            per_row = random_setting(rng) if may_stop else listed[len(tried)]
            setting = scaled(per_row, per_row.batch_size or len(searching.x))
            figures = searching.run(setting, begin + arguments.seconds, may_stop)
            tried.append((per_row, figures))
            if figures["loss"]:
                print(as_line(setting, dict(figures)), file=out, flush=True)
                best = max(accuracies["validation"][-1:] for _, accuracies in tried)
                bar.set_postfix(settings=len(tried), best=f"{best[0]:.2%}")
    return [(setting, figures) for setting, figures in tried if figures["loss"]]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=(*datasets.NAMES, "cifar10"), default="mnist", help="data (default: mnist)")
    add("--data-root", type=Path, help="folder with the data set's files")
    add("--device", type=torch.device, default="cpu", help="where to train, as torch names it (default: cpu)")
    add("--seconds", type=float, default=120, help="time for all settings together (default: 120)")
    add("--setting-seconds", type=float, help="time for one setting (default: a tenth of --seconds)")
    add("--epochs", type=int, default=30, help="the most epochs of a setting (default: 30)")
    add("--rows", type=int, help="only so many training rows (default: all but the validation part)")
    add("--validation", type=int, default=5000, help="rows of the validation part, the last (default: 5000)")
    add("--hidden", default="2048,2048,2048", help="hidden widths (default: the paper's, 2048,2048,2048)")
    add("--seed", type=int, default=0, help="seed of initialisation and shuffling (default: 0)")
    add("--search-seed", type=int, default=0, help="seed of the random settings (default: 0)")
    add("--random-only", action="store_true", help="leave out the listed settings")
    add("--show", type=int, default=10, help="how many of the best settings to print (default: 10)")
    add("--out", type=Path, default=Path("search_bcd.jsonl"), help="JSON lines (default: search_bcd.jsonl)")
    arguments = parser.parse_args()
    arguments.hidden = [int(width) for width in arguments.hidden.split(",")]
    arguments.setting_seconds = arguments.setting_seconds or arguments.seconds / 10
    return arguments


def main() -> None:
    """Search, print the best."""
    arguments = parse_arguments()
    tried = search(arguments)
    orders: dict[str, Callable[[Figures], float]] = {
        "final training loss": lambda figures: figures["loss"][-1],
        "validation accuracy": lambda figures: -figures["validation"][-1],
    }
    print(f"{len(tried)} settings; alpha_weight is per row of a sweep")
    for name, key in orders.items():
        print(f"\nthe best by {name}:")
        print(f"{'epochs':>6}{'seconds':>9}{'loss':>10}{'train %':>9}{'valid. %':>9}  setting")
        for setting, figures in sorted(tried, key=lambda one: key(one[1]))[: arguments.show]:
            print(
                f"{len(figures['loss']):6}{figures['seconds'][-1]:9.1f}{figures['loss'][-1]:10.4g}"
                f"{100 * figures['train'][-1]:9.2f}{100 * figures['validation'][-1]:9.2f}  {describe(setting)}"
            )
    print(f"\nsettings: {arguments.out}")


if __name__ == "__main__":
    main()
