"""Measure torchbcd.sklearn's MLPs beside scikit-learn's of the same names, all with their defaults.

torchbcd's are given inputs as they come. scikit-learn's are given them as they come, then standardised in a
pipeline, and for regression with y standardised, too (TransformedTargetRegressor), which its users are advised
to do. Everything is fitted on one thread; the seconds are those of the process, for one fit, pipeline included.

    python benchmarks/compare_sklearn.py --data-root DATA --tabular DATA/tabular > docs/results/sklearn.md
    python benchmarks/compare_sklearn.py --part validation --sets iris digits

Small sets (iris to friedman3) are split anew for each of `--splits` seeds, 80 % and 20 %, by classes. The sets
of `--tabular` have one split and `--seeds` seeds; "mnist" is 10,000 rows, others for each seed, and the test
part's 10,000. DATA/mnist holds the four IDX files. The folder of `--tabular` holds a file of numpy a set,
NAME.npz: `x` of float32, (rows, columns), `y` of class indices or float32, (rows,), and the index arrays
`train`, `validation` and `test`. A set whose data are not there is skipped. `--part validation` holds back a
quarter of the small sets' training rows, the npz files' validation part, or MNIST's last 10,000 training rows.

Accuracy or R^2, in percent: means over seeds, with the range; for classes the mean log-loss.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from data_sets import scikit_learn_arrays, tabular_arrays
from sklearn import neural_network
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import torchbcd
import torchbcd.sklearn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/python"))
import datasets

CLASSES = ("iris", "wine", "breast_cancer", "digits", "mnist", "adult")
NUMBERS = (
    "diabetes", "friedman1", "friedman2", "friedman3", "power-plant", "naval-propulsion-plant",
    "california-housing", "protein-tertiary-structure",
)  # fmt: skip
SMALL = (*CLASSES[:4], *NUMBERS[:4])
ROWS = 10_000  # of MNIST
Make = Callable[[int], Any]


class Data(NamedTuple):
    """A training part, and one to measure on."""

    x: np.ndarray
    y: np.ndarray
    x_held: np.ndarray
    y_held: np.ndarray


class Result(NamedTuple):
    """What one fit comes to."""

    score: float
    loss: float
    seconds: float


def theirs_standardised(seed: int) -> Any:
    """scikit-learn's regressor with inputs and targets of mean 0 and variance 1."""
    inner = make_pipeline(StandardScaler(), neural_network.MLPRegressor(random_state=seed))
    return TransformedTargetRegressor(inner, transformer=StandardScaler())


CLASSIFIERS: dict[str, Make] = {
    "torchbcd": lambda seed: torchbcd.sklearn.MLPClassifier(random_state=seed),
    "torchbcd, log_loss": lambda seed: torchbcd.sklearn.MLPClassifier(loss="log_loss", random_state=seed),
    "scikit-learn": lambda seed: neural_network.MLPClassifier(random_state=seed),
    "X standardised": lambda seed: make_pipeline(
        StandardScaler(), neural_network.MLPClassifier(random_state=seed)
    ),
}
REGRESSORS: dict[str, Make] = {
    "torchbcd": lambda seed: torchbcd.sklearn.MLPRegressor(random_state=seed),
    "scikit-learn": lambda seed: neural_network.MLPRegressor(random_state=seed),
    "X standardised": lambda seed: make_pipeline(
        StandardScaler(), neural_network.MLPRegressor(random_state=seed)
    ),
    "X and y standardised": theirs_standardised,
}


def small(name: str, part: str, seed: int) -> Data:
    """80 % and 20 % of a set of scikit-learn's; or 60 % and another 20 %."""
    x, y = scikit_learn_arrays(name, seed)

    def split(x: np.ndarray, y: np.ndarray, held: float) -> list[np.ndarray]:
        return train_test_split(x, y, test_size=held, random_state=seed, stratify=y if name in CLASSES else None)

    x, x_held, y, y_held = split(x, y, 0.2)
    if part == "validation":
        x, x_held, y, y_held = split(x, y, 0.25)
    return Data(x, y, x_held, y_held)


def parts(name: str, arguments: argparse.Namespace) -> Iterator[Data]:
    """The data for each seed."""
    part = arguments.part
    if name in SMALL:
        yield from (small(name, part, seed) for seed in range(arguments.splits))
    elif name == "mnist":
        root = arguments.data_root
        data = datasets.load(name, root and root / name, fetch=arguments.download)
        x, y, x_held, y_held = (tensor.numpy() for tensor in data[1:])
        if part == "validation":
            x_held, y_held = x[50_000:], y[50_000:]
        for seed in range(arguments.seeds):
            rows = slice(seed * ROWS, (seed + 1) * ROWS)
            yield Data(x[rows], y[rows], x_held, y_held)
    else:
        train, held = tabular_arrays(name, part, arguments.tabular)
        yield from [Data(*train, *held)] * arguments.seeds


def measure(make: Make, data: Data, seed: int) -> Result:
    """Fit and score."""
    estimator = make(seed)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of epochs that were not enough
        estimator.fit(data.x, data.y)
    seconds = time.process_time() - start
    loss = float("nan")
    if hasattr(estimator, "predict_proba"):
        loss = log_loss(data.y_held, estimator.predict_proba(data.x_held), labels=estimator.classes_)
    return Result(100 * estimator.score(data.x_held, data.y_held), loss, seconds)


def row(name: str, contestants: dict[str, Make], arguments: argparse.Namespace) -> str:
    """A line of the table; the best score and those within a hundredth of it are bold."""
    found: dict[str, list[Result]] = {contestant: [] for contestant in contestants}
    for seed, data in enumerate(parts(name, arguments)):
        shape = data.x.shape
        for contestant, make in contestants.items():
            found[contestant].append(measure(make, data, seed))
    best = max(np.mean([result.score for result in results]) for results in found.values())
    cells = []
    for results in found.values():
        scores, losses, seconds = (np.array(column) for column in zip(*results, strict=True))
        mean = f"{scores.mean():.2f}"
        mean = f"**{mean}**" if scores.mean() > best - 0.01 else mean
        loss = "" if np.isnan(losses).any() else f" {losses.mean():.3f},"
        cells.append(f"{mean} ({scores.min():.1f} to {scores.max():.1f}),{loss} {seconds.mean():.2f} s")
    return f"| {name}, {shape[0]:,} x {shape[1]} | " + " | ".join(cells) + " |"


def table(title: str, names: list[str], contestants: dict[str, Make], arguments: argparse.Namespace) -> None:
    """Print the rows as they are measured."""
    if names:
        print(f"\n{title}\n\n| rows x columns | " + " | ".join(contestants) + " |")
        print("|---" * (len(contestants) + 1) + "|", flush=True)
    skipped = []
    for name in names:
        try:
            print(row(name, contestants, arguments), flush=True)
        except FileNotFoundError as error:
            skipped.append(f"\nSkipped {name}: {error}")
    print(*skipped, sep="\n")


def main() -> None:
    """Run all sets, the contestants taking turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = (*CLASSES, *NUMBERS)
    parser.add_argument("--sets", nargs="+", choices=everything, default=everything, help="default: all")
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="to measure on")
    parser.add_argument("--splits", type=int, default=10, help="of the small sets; default: 10")
    parser.add_argument("--seeds", type=int, default=2, help="of the others; default: 2")
    parser.add_argument("--data-root", type=Path, help="folder with a folder mnist")
    parser.add_argument("--download", action="store_true", help="fetch MNIST where it is not found")
    parser.add_argument("--tabular", type=Path, help="folder with the npz files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    command = "python benchmarks/compare_sklearn.py --data-root DATA --tabular DATA/tabular"
    print(
        f"# torchbcd.sklearn beside scikit-learn {sklearn.__version__}\n\n"
        f"Written by `{command}`, whose head says how: all\n"
        "estimators with their defaults, one hidden layer of 100, one thread. Means over "
        f"{arguments.splits} splits of the small sets, over\n{arguments.seeds} seeds of the others, on the "
        f"{arguments.part} part. The seconds of the process are those of one fit. Bold: best score."
    )
    with threadpool_limits(1):
        for make in (*CLASSIFIERS.values(), *REGRESSORS.values()):  # the first fit of a process is slower
            measure(make, small("iris", "validation", 0), 0)
        for title, names, contestants in (
            ("Accuracy in % (range), log-loss, seconds:", CLASSES, CLASSIFIERS),
            ("R² in % (range), seconds:", NUMBERS, REGRESSORS),
        ):
            table(title, [name for name in names if name in arguments.sets], contestants, arguments)


if __name__ == "__main__":
    main()
