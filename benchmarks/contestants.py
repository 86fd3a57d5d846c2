"""The optimizers of compare_training.py: their usual numbers, the ranges of their search, and a step of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from math import inf, sqrt
from random import Random
from typing import Any, NamedTuple

import torch
from data_sets import Data, Set
from torch import Tensor, nn
from torch.nn import functional

import torchbcd
from torchbcd import fit_rules

Options = dict[str, Any]
Over = Callable[[], bool]  # whether the budget is spent
Step = Callable[[Tensor, Tensor, Over], object]


class Log(NamedTuple):
    """A range to draw from log-uniformly."""

    low: float
    high: float


BATCHES = (50, 100, 200, 500)
LARGE = (100, 200, 500, 1000, 2000)  # for dear steps
# Numbers of whoever takes small steps. `average`: c of the decay 1 - c / steps of averaged weights.
FRAME: Options = {"batch": BATCHES, "hold": (0.0, 0.5), "average": (None, 3, 10, 30)}
# Drawn for everyone: the loss where targets are classes, the noise on inputs that are images.
EVERYONE: Options = {"loss": ("squared", "cross-entropy"), "start": ("torch", "he"), "noise": (0.0, 0.0, 0.1)}
USUAL: Options = {
    "batch": 100,
    "hold": 0.5,
    "average": 10,
    "loss": "cross-entropy",
    "start": "torch",
    "noise": 0.0,
}
UNSCHEDULED: Options = {"hold": None, "average": None}
USUAL_MUON: Options = {**USUAL, "batch": 200, "lr": 0.02, "momentum": 0.95, "weight_decay": 0.0, "adam": 2e-3}


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz steps in float32; weight decay as AdamW's."""

    def __init__(
        self,
        matrices: list[nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 3,
    ):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps}
        super().__init__(matrices, defaults)

    @staticmethod
    def orthogonalized(matrix: Tensor, steps: int) -> Tensor:
        """So many steps of Keller Jordan's quintic iteration."""
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        x: Tensor = wide / (wide.norm() + 1e-7)
        for _ in range(steps):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
        return x if wide is matrix else x.T

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix."""
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                direction = self.orthogonalized(p.grad.lerp(mean, group["momentum"]), group["steps"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(direction, alpha=group["lr"] * sqrt(max(1, p.shape[0] / p.shape[1])))


class OutOfTime(Exception):  # noqa: N818
    """The budget is spent within a step."""


def batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled batches without an end."""
    while True:
        yield from torch.randperm(rows, generator=generator).split(size)


def mean_loss(model: nn.Module, x: Tensor, y: Tensor, kind: str, classes: int | None) -> Tensor:
    """Cross-entropy, or half the squared distance of a row, on one-hot targets where they are classes."""
    if classes and kind == "cross-entropy":
        return functional.cross_entropy(model(x), y)
    target = functional.one_hot(y, classes).float() if classes else y
    return 0.5 * (model(x) - target).square().sum(1).mean()


def by_gradients(model: nn.Module, optimizers: list[torch.optim.Optimizer], setting: Options, data: Data) -> Step:
    """A step of `optimizers` along one gradient."""

    def step(x: Tensor, y: Tensor, over: Over) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        mean_loss(model, x, y, setting["loss"], data.classes).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


Made = tuple[list[torch.optim.Optimizer], Step]


def relaxed(model: nn.Sequential, setting: Options, data: Data) -> Made:
    """RelaxedBCD; a weight decay of None is the rule of its `fit`, where the last layer has less in long runs."""
    outside = {*FRAME, *EVERYONE, "output_penalty"}
    options = {name: value for name, value in setting.items() if name not in outside}
    if data.classes and setting["loss"] == "cross-entropy":
        options |= {"loss": "cross_entropy", "output_penalty": setting["output_penalty"]}
    if options.get("weight_decay") is None:
        rows = len(data.x)
        least = 2e-4 if data.classes else 1e-4
        options["weight_decay"] = fit_rules.weight_decay(least, min(setting["batch"], rows), rows)
    optimizer = torchbcd.RelaxedBCD(model, **options)
    return [optimizer], lambda x, y, over: optimizer.step(x, y)


def adamw(model: nn.Sequential, setting: Options, data: Data) -> Made:
    """torch.optim.AdamW."""
    options = {name: setting[name] for name in ("lr", "weight_decay")}
    optimizer = torch.optim.AdamW(model.parameters(), **options, fused=True)
    return [optimizer], by_gradients(model, [optimizer], setting, data)


def sgd(model: nn.Sequential, setting: Options, data: Data) -> Made:
    """torch.optim.SGD with Nesterov's momentum."""
    options = {name: setting[name] for name in ("lr", "weight_decay", "momentum")}
    optimizer = torch.optim.SGD(model.parameters(), **options, nesterov=True, fused=True)
    return [optimizer], by_gradients(model, [optimizer], setting, data)


def muon(model: nn.Sequential, setting: Options, data: Data) -> Made:
    """Muon in float32, or torch's where the setting says so; Adam on the last layer and the biases."""
    *matrices, last = [p for p in model.parameters() if p.ndim == 2]
    rest = [last, *(p for p in model.parameters() if p.ndim == 1)]
    options = {name: setting[name] for name in ("lr", "weight_decay", "momentum")}
    main: torch.optim.Optimizer
    if setting.get("of_torch"):
        main = torch.optim.Muon(matrices, **options, ns_steps=setting["steps"])
    else:
        main = Muon(matrices, **options, steps=setting["steps"])
    optimizers: list[torch.optim.Optimizer] = [main, torch.optim.Adam(rest, lr=setting["adam"], fused=True)]
    return optimizers, by_gradients(model, optimizers, setting, data)


def schedule_free(model: nn.Sequential, setting: Options, data: Data) -> Made:
    """AdamW of the package schedulefree, in training mode."""
    import schedulefree

    options = {name: setting[name] for name in ("lr", "weight_decay", "warmup_steps")}
    optimizer = schedulefree.AdamWScheduleFree(model.parameters(), **options, betas=(setting["beta"], 0.999))
    optimizer.train()
    return [optimizer], by_gradients(model, [optimizer], setting, data)


def soap(model: nn.Sequential, setting: Options, data: Data) -> Made:
    """SOAP of pytorch_optimizer."""
    from pytorch_optimizer import SOAP

    options = {name: value for name, value in setting.items() if name not in {*FRAME, *EVERYONE}}
    optimizer = SOAP(model.parameters(), **options)
    return [optimizer], by_gradients(model, [optimizer], setting, data)


CHUNK = 2000  # rows between looks at the clock


def lbfgs(model: nn.Sequential, setting: Options, data: Data) -> Made:
    """torch.optim.LBFGS with a strong Wolfe search; its best point where time is over within a step."""
    parameters = list(model.parameters())
    options = {"max_iter": setting["iterations"], "history_size": setting["history"]}
    optimizer = torch.optim.LBFGS(parameters, **options, line_search_fn="strong_wolfe")

    def step(x: Tensor, y: Tensor, over: Over) -> None:
        lowest, best = inf, [p.detach().clone() for p in parameters]

        def closure() -> float:
            nonlocal lowest, best
            total = 0.0
            for p in parameters:
                p.grad = setting["weight_decay"] * p.detach()
                total += 0.5 * setting["weight_decay"] * float(p.detach().square().sum())
            for x_, y_ in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
                if over():
                    raise OutOfTime
                loss = mean_loss(model, x_, y_, setting["loss"], data.classes) * (len(x_) / len(x))
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            if total < lowest:
                lowest, best = total, [p.detach().clone() for p in parameters]
            return total

        if not setting["keep"]:
            optimizer.state.clear()
        try:
            optimizer.step(closure)  # type: ignore[arg-type]
        except OutOfTime:
            with torch.no_grad():
                for p, kept in zip(parameters, best, strict=True):
                    p.copy_(kept)

    return [optimizer], step


class Contestant(NamedTuple):
    """An optimizer, its usual numbers (the search's first trial), and where the others are drawn from."""

    name: str
    make: Callable[[nn.Sequential, Options, Data], Made]
    usual: Options
    ranges: Options  # Log, or a tuple to choose from
    searched: bool = True
    package: str = "torch"  # skipped without it

    @property
    def present(self) -> bool:
        """Whether its package is installed."""
        return importlib.util.find_spec(self.package) is not None

    def setting(self, set_: Set, trial: int) -> Options:
        """The usual numbers for trial 0, then random ones, the same ones whenever they are asked for."""
        if trial == 0:
            found = dict(self.usual)
        else:
            random = Random(f"{set_.name}/{self.name}/{trial}")
            found = {name: draw(random, range_) for name, range_ in {**EVERYONE, **self.ranges}.items()}
        if not set_.images:
            found["noise"] = 0.0
        if not set_.classification:
            found["loss"] = "squared"
        if set_.residual and "row_blocks" in found:  # which takes no skip connections
            found["row_blocks"] = 1
        return found


def draw(random: Random, range_: Log | tuple[Any, ...]) -> Any:
    """A value of a range."""
    if isinstance(range_, Log):
        return float(f"{range_.low * (range_.high / range_.low) ** random.random():.3g}")
    return random.choice(range_)


RELAXED = {**USUAL, "loss": "squared", "weight_decay": None}
MUON = {
    **FRAME,
    "batch": LARGE,
    "lr": Log(0.005, 0.3),
    "momentum": (0.9, 0.95),
    "weight_decay": Log(1e-3, 1.0),
    "adam": Log(5e-4, 1e-2),
    "steps": (3, 5),
}
ALL = (
    Contestant("RelaxedBCD, defaults", relaxed, RELAXED, {}, searched=False),
    Contestant(
        "RelaxedBCD, searched",
        relaxed,
        RELAXED,
        {
            **FRAME,
            "relaxation": Log(0.2, 0.9),
            "growth": (1.0, 1.3, 1.6, 2.0),
            "output_relaxation": Log(0.02, 0.2),
            "damping": Log(0.1, 3.0),
            "penalty_ratio": Log(0.005, 0.2),
            "cap": (0.12, 0.25, 0.5),
            "momentum": (0.5, 0.7, 0.8),
            "weight_decay": Log(3e-5, 5e-3),
            "row_blocks": (1, 1, 2),
            "output_penalty": Log(0.1, 1.0),
        },
    ),
    Contestant(
        "AdamW",
        adamw,
        {**USUAL, "lr": 1e-3, "weight_decay": 0.01},
        {**FRAME, "lr": Log(5e-4, 1e-2), "weight_decay": Log(1e-3, 1.0)},
    ),
    Contestant("Muon, float32", muon, {**USUAL_MUON, "steps": 3}, MUON),
    Contestant(
        "Muon of torch",
        muon,
        {**USUAL_MUON, "steps": 5, "of_torch": True},
        {**MUON, "of_torch": (True,)},
    ),
    Contestant(
        "AdamW, schedule-free",
        schedule_free,
        {**USUAL, **UNSCHEDULED, "lr": 2.5e-3, "weight_decay": 0.01, "warmup_steps": 0, "beta": 0.9},
        {
            "batch": BATCHES,
            "hold": (None,),
            "average": (None,),
            "lr": Log(1e-3, 2e-2),
            "weight_decay": Log(1e-3, 1.0),
            "warmup_steps": (0, 100),
            "beta": (0.9, 0.95, 0.98),
        },
        package="schedulefree",
    ),
    Contestant(
        "SOAP",
        soap,
        {**USUAL, "lr": 3e-3, "weight_decay": 0.01, "precondition_frequency": 10, "max_precondition_dim": 10_000},
        {
            **FRAME,
            "batch": LARGE,
            "lr": Log(1e-3, 1e-2),
            "weight_decay": Log(1e-3, 1.0),
            "precondition_frequency": (10, 30, 100),
            "max_precondition_dim": (300, 10_000),
        },
        package="pytorch_optimizer",
    ),
    Contestant(
        "SGD with momentum",
        sgd,
        {**USUAL, "lr": 0.03, "momentum": 0.9, "weight_decay": 0.0},
        {**FRAME, "lr": Log(0.005, 0.3), "momentum": (0.9, 0.95), "weight_decay": Log(1e-6, 1e-3)},
    ),
    Contestant(
        "L-BFGS",
        lbfgs,
        {
            **USUAL,
            **UNSCHEDULED,
            "batch": None,
            "iterations": 20,
            "history": 100,
            "keep": True,
            "weight_decay": 0.0,
        },
        {
            "batch": (500, 1000, 2000, 5000, None),  # None: all rows
            "hold": (None,),
            "average": (None, 3, 10),
            "iterations": (5, 10, 20),
            "history": (10, 30, 100),
            "keep": (False, True),  # what is known of the curvature, from batch to batch
            "weight_decay": Log(1e-7, 1e-3),
        },
    ),
)
