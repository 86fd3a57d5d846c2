"""The data sets that the comparisons with other optimizers have in common, and the nets for them.

Fashion-MNIST and MNIST (784-300x3-10); adult, california-housing, naval-propulsion-plant, power-plant and
protein-tertiary-structure (256x3); small ones of scikit-learn (digits, diabetes, friedman1 to 3; 100x2); nets of
10 x 150 and 20 x 100 from N(0, 0.01^2) on 20,000 rows of Fashion-MNIST. The tabular sets also have the nets of
today: two blocks x + Linear(GELU(Linear(LayerNorm(x)))) of width 256 behind a Linear, then LayerNorm, Linear.
Inputs of tabular sets and targets of regression are standardised by the training part; images and digits are in
[0, 1].

DATA/mnist and DATA/fashion-mnist hold the four IDX files of a set, where DATA is the folder of `--data-root`. The
folder of `--tabular` holds a file of numpy a set, NAME.npz: `x` of float32, (rows, columns), `y` of class indices
or float32, (rows,), and the index arrays `train`, `validation` and `test`.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn.datasets
import torch
from torch import Tensor, nn

from torchbcd.nn import Residual

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/python"))
import datasets


class Data(NamedTuple):
    """A training part, and one to measure on."""

    x: Tensor
    y: Tensor
    x_held: Tensor
    y_held: Tensor

    @property
    def classes(self) -> int | None:
        """How many classes there are; None for regression."""
        return None if self.y.is_floating_point() else int(self.y.max()) + 1


class Set(NamedTuple):
    """A data set, and the net and the number of epochs for it."""

    name: str
    hidden: tuple[int, ...]
    epochs: int
    tiny: bool = False  # weights from N(0, 0.01^2), biases 0.1
    small: bool = False  # split at random
    residual: bool = False  # blocks with skip connections, LayerNorm and GELU

    @property
    def images(self) -> bool:
        """Whether there are 60,000 images to train on."""
        return self.tiny or self.name in ("fashion-mnist", "mnist")

    @property
    def classification(self) -> bool:
        """Whether the targets are classes."""
        return self.images or self.name in ("adult", "digits")


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
TABULAR = [set_.name for set_ in ALL if not (set_.images or set_.small)]
BLOCKS = 2  # of a residual net
FRIEDMAN = {"friedman1": (500, 1.0), "friedman2": (1000, 125.0), "friedman3": (2000, 0.1)}  # rows, noise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say where data are."""
    parser.add_argument("--data-root", type=Path, help="folder with folders mnist and fashion-mnist")
    parser.add_argument("--download", action="store_true", help="fetch images that are not found")
    parser.add_argument("--tabular", type=Path, help="folder with the npz files")


def standardized(data: Data) -> Data:
    """Columns, and targets of regression, with mean 0 and variance 1 over the training part."""

    def scale(train: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = train.mean(0), train.std(0).clamp_min(1e-6)
        return (train - mean) / spread, (held - mean) / spread

    x, x_held = scale(data.x, data.x_held)
    y, y_held = scale(data.y, data.y_held) if data.y.is_floating_point() else (data.y, data.y_held)
    return Data(x, y, x_held, y_held)


def images(name: str, part: str, arguments: argparse.Namespace, rows: int = 60_000) -> Data:
    """All 60,000 rows and the test part, or the first 50,000 and the last 10,000; at most `rows` to train on."""
    root = arguments.data_root
    data = datasets.load(name, root and root / name, fetch=arguments.download)
    if part == "test":
        return Data(data.x[:rows], data.y[:rows], data.x_test, data.y_test)
    cut = min(rows, 50_000)
    return Data(data.x[:cut], data.y[:cut], data.x[50_000:], data.y[50_000:])


Arrays = tuple[np.ndarray, np.ndarray]


def tabular_arrays(name: str, part: str, folder: Path | None) -> tuple[Arrays, Arrays]:
    """Inputs and targets of the training part and of another one, as the file has them."""
    if folder is None:
        raise FileNotFoundError(f"{name}.npz is looked for in the folder of --tabular")
    file = np.load(folder / f"{name}.npz")
    train, held = ((file["x"][file[rows]], file["y"][file[rows]]) for rows in ("train", part))
    return train, held


def tabular(name: str, part: str, folder: Path | None) -> Data:
    """The parts that the file says, standardised."""
    (x, y), (x_held, y_held) = (map(torch.tensor, rows) for rows in tabular_arrays(name, part, folder))
    if y.is_floating_point():
        y, y_held = y[:, None], y_held[:, None]
    return standardized(Data(x, y, x_held, y_held))


def scikit_learn_arrays(name: str, seed: int) -> Arrays:
    """Inputs and targets of a set that scikit-learn has, or makes."""
    if name in FRIEDMAN:
        rows, noise = FRIEDMAN[name]
        made: Arrays = getattr(sklearn.datasets, f"make_{name}")(rows, noise=noise, random_state=seed)
        return made
    loaded: Arrays = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    return loaded


def small(name: str, part: str, split: int) -> Data:
    """60 % to train on and 20 % of validation, or 80 % and the other 20 %, of a split of its own."""
    x, y = scikit_learn_arrays(name, split)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(split))
    x_ = torch.tensor(x, dtype=torch.float32)[order]
    y_ = torch.tensor(y)[order] if name == "digits" else torch.tensor(y, dtype=torch.float32)[order, None]
    train, end = len(x) * 3 // 5, len(x) * 4 // 5
    if part == "test":
        train, end = end, len(x)
    data = Data(x_[:train], y_[:train], x_[train:end], y_[train:end])
    return data._replace(x=data.x / 16, x_held=data.x_held / 16) if name == "digits" else standardized(data)


def load(set_: Set, part: str, arguments: argparse.Namespace, split: int = 0) -> Data:
    """The training part, and the `part` ("validation" or "test") to measure on.

    Raises:
        FileNotFoundError: The data are not where `arguments` say.
    """
    if set_.small:
        return small(set_.name, part, split)
    if set_.tiny:
        return images("fashion-mnist", part, arguments, 20_000)
    if set_.images:
        return images(set_.name, part, arguments)
    return tabular(set_.name, part, arguments.tabular)


def make_model(set_: Set, data: Data, seed: int, start: str = "torch") -> nn.Sequential:
    """A ReLU net for these data, or one of blocks, from torch.nn.Linear's start or from He's ("he")."""
    torch.manual_seed(seed)
    if set_.residual:
        return residual_model(data.x.shape[1], set_.hidden[0], data.classes or data.y.shape[1], start)
    modules: list[nn.Module] = []
    for inputs, width in pairwise((data.x.shape[1], *set_.hidden, data.classes or data.y.shape[1])):
        linear = nn.Linear(inputs, width)
        if set_.tiny:
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.constant_(linear.bias, 0.1)
        elif start == "he":
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def residual_model(inputs: int, width: int, outputs: int, start: str) -> nn.Sequential:
    """The net of today's."""
    blocks = [
        Residual(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        for _ in range(BLOCKS)
    ]
    model = nn.Sequential(nn.Linear(inputs, width), *blocks, nn.LayerNorm(width), nn.Linear(width, outputs))
    for module in model.modules():
        if start == "he" and isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return model


@torch.no_grad()
def score(model: nn.Module, data: Data) -> float:
    """Accuracy, or R^2, in percent; 0 where the model has diverged, or its R^2 is below that."""
    outputs, y = model(data.x_held), data.y_held
    if not bool(outputs.isfinite().all()):
        return 0.0
    if not y.is_floating_point():
        return 100 * float((outputs.argmax(1) == y).double().mean())
    found = 100 * (1 - float((outputs - y).square().sum() / (y - y.mean(0)).square().sum()))
    return max(found, 0.0) if math.isfinite(found) else 0.0
