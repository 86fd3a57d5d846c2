"""What paper_experiments.py and benchmarks/search_bcd.py train: the nets, their starts, and an epoch of each run.

Algorithm 2 of Zeng et al. can be given its rows in three ways, and the loss in two scalings; every combination is
a run of its own:

    bcd-full          all rows, U and V kept from sweep to sweep, as Theorem 2 has it; a sweep an epoch
    bcd-persistent    mini-batches of the bound rows, whose U and V are kept from visit to visit
    bcd               mini-batches, U and V from a forward pass of each
    ...-mean          the loss divided by the number of rows of a sweep, as in the paper's (1), not summed
    bcd-searched      the best setting that benchmarks/search_bcd.py has found
    bcd-full-searched the best of those with all rows in a sweep
    relaxed, sgd, adam, adam-0.001
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import torchbcd

RELAXED = {
    **{"relaxation": 0.6, "growth": 1.6, "damping": 0.6, "output_relaxation": 0.1, "cap": 0.25},
    **{"penalty_ratio": 0.01, "momentum": 0.0, "weight_decay": 0.0},
}
# Nothing decays here, as in the paper: many layers then want smaller steps than for_any_depth has.
RELAXED_DEEP = {"relaxation": 0.3, "output_relaxation": 0.2, "cap": 0.2}
ROWS = {"bcd-full": "full", "bcd-persistent": "persistent", "bcd": "fresh"}
RUNS = (*(f"{name}{end}" for name in ROWS for end in ("", "-mean")), "relaxed", "sgd", "adam", "adam-0.001")
SEARCHED = ("bcd-full-searched", "bcd-searched")
PENALTIES_FROM = 0.01


class Experiment(NamedTuple):
    """A net, and the penalties of plain BCD on it."""

    hidden: tuple[int, ...]
    gamma: float
    alpha: float
    dataset: str


@dataclass(frozen=True)
class Setting:
    """How plain BCD is used: what it is started from, which rows a sweep sees, its options.

    Attributes:
        rows: "full", "persistent" or "fresh", as the module's text has it.
        start: Standard deviation of the weights in units of He's, with biases 0; None for the paper's,
            N(0, 0.01^2) with biases 0.1.
        batch_size: Rows of a mini-batch; None for the program's.
        growth: Epochs over which gamma and rho rise to what `options` say, from a hundredth of it.
        options: Those of :class:`torchbcd.BCD`.
    """

    rows: str = "full"
    start: float | None = None
    batch_size: int | None = None
    growth: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def penalty_factor(self, epoch: int) -> float:
        """What gamma and rho are multiplied by in an epoch, counted from 0."""
        return PENALTIES_FROM ** max(0.0, 1 - epoch / self.growth) if self.growth else 1.0


def make_model(widths: Iterable[int], seed: int, start: float | None = None) -> nn.Sequential:
    """A ReLU net with the start of a :class:`Setting`."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=0.01 if start is None else start * (2 / inputs) ** 0.5)
        nn.init.constant_(linear.bias, 0.1 if start is None else 0.0)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def squared_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean over rows of 1/2 |output - one_hot(y)|^2."""
    return 0.5 * (outputs - functional.one_hot(y, outputs.shape[1])).square().sum(1).mean()


@torch.no_grad()
def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean squared loss and accuracy, in chunks."""
    outputs = torch.cat([model(chunk) for chunk in x.split(10_000)])
    return squared_loss(outputs, y).item(), (outputs.argmax(1) == y).double().mean().item()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock read next tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def prepare(device: torch.device) -> None:
    """Float32 is float32 everywhere; and the device's libraries are loaded before anything is timed."""
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("highest")  # no TF32
    x, y = torch.rand(20, 8, device=device), torch.arange(20, device=device) % 3
    for make in (torchbcd.BCD, torchbcd.RelaxedBCD):
        make(make_model((8, 30, 30, 3), 0).to(device)).step(x, y)
    synchronize(device)


# An epoch: its number, from 0, and its mini-batches, as indices of rows.
Epoch = Callable[[int, Iterable[Tensor]], None]


def bcd_run(setting: Setting, model: nn.Sequential, x: Tensor, y: Tensor) -> tuple[torchbcd.BCD, Epoch]:
    """Plain BCD over a model, and what an epoch of it is."""
    optimizer = torchbcd.BCD(model, **setting.options)
    penalties = [{name: group[name] for name in ("gamma", "rho")} for group in optimizer.param_groups]
    if setting.rows != "fresh":
        optimizer.bind(x, y)

    def epoch(number: int, batches: Iterable[Tensor]) -> None:
        factor = setting.penalty_factor(number)
        for group, final in zip(optimizer.param_groups, penalties, strict=True):
            group.update({name: value and factor * value for name, value in final.items()})
        if setting.rows == "full":
            optimizer.step()
        else:
            for rows in batches:
                if setting.rows == "persistent":
                    optimizer.step(index=rows)
                else:
                    optimizer.step(x[rows], y[rows])

    return optimizer, epoch


def setting_of(run: str, experiment: Experiment, searched: Path | None) -> Setting | None:
    """The setting of a run of plain BCD; None for the other optimizers."""
    if run in SEARCHED:
        if searched is None:
            raise ValueError(f"{run} needs a file of the search")
        return best_setting(searched, full=run == "bcd-full-searched")
    if (rows := ROWS.get(run.removesuffix("-mean"))) is None:
        return None
    weight = "mean" if run.endswith("-mean") else 1.0
    return Setting(rows, options={"gamma": experiment.gamma, "alpha": experiment.alpha, "loss_weight": weight})


def make_run(
    run: str, model: nn.Sequential, setting: Setting | None, x: Tensor, y: Tensor
) -> tuple[torch.optim.Optimizer, Epoch]:
    """The run's optimizer, and what an epoch of it is."""
    if setting is not None:
        return bcd_run(setting, model, x, y)
    optimizer: torch.optim.Optimizer
    if run == "relaxed":
        deep = len(model) > 11
        make = torchbcd.RelaxedBCD.for_any_depth if deep else torchbcd.RelaxedBCD
        relaxed = optimizer = make(model, **(RELAXED_DEEP if deep else RELAXED))
        step: Callable[[Tensor, Tensor], object] = relaxed.step
    else:
        if run == "sgd":
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        else:
            optimizer = torch.optim.Adam(model.parameters(), lr=0.05 if run == "adam" else 0.001, fused=True)

        def step(x: Tensor, y: Tensor) -> None:
            optimizer.zero_grad()
            squared_loss(model(x), y).backward()
            optimizer.step()

    def epoch(number: int, batches: Iterable[Tensor]) -> None:
        for rows in batches:
            step(x[rows], y[rows])

    return optimizer, epoch


def as_line(setting: Setting, figures: dict[str, Any]) -> str:
    """A line of the search's file."""
    return json.dumps({"setting": asdict(setting), **figures})


def best_setting(path: Path, full: bool) -> Setting:
    """The setting of a search's file with the highest validation accuracy, of all or of the full-batch ones."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    fitting = [line for line in lines if not full or line["setting"]["rows"] == "full"]
    if not fitting:
        raise ValueError(f"{path} must have a setting{' with all rows in a sweep' if full else ''}")
    return Setting(**max(fitting, key=lambda line: line["validation"][-1])["setting"])
