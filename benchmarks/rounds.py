"""What seldom meeting costs: accuracy against synchronisations and bytes, for RelaxedBCD, AdamW and Muon.

    python benchmarks/rounds.py

makes docs/results/rounds.json, rounds.md and rounds.png. Every run goes over the rows `--epochs` times; what
differs is how often workers synchronise within it:

* rounds, `--rounds` of them: each of `--workers` trains on its own rows, then the weights are averaged, as in
  examples/python/local_rounds.py. Rows are split at random, or by label: sorted by class, cut into twice as many
  pieces as there are workers, two pieces each, hence rows of two to four classes. A run is a simulation in one
  process, the workers in turn: an average is an average (tests/python/test_local_rounds.py compares the weights
  with those of the example under torchrun).
* synchronised, `--steps` of them: every step is on rows of all workers, `rows * epochs / steps` of them. One
  process computes it, whatever the split: a mean of gradients, as DistributedDataParallel has it, and the sums of
  RelaxedBCD(process_group=...) do not depend on how a batch is split.

Bytes are those that a worker gives to all-reduces in the run: the weights, or the gradients, or what RelaxedBCD's
`bytes_sent` says. Waits are all-reduces one after another: one a round or step, and several a step of RelaxedBCD,
which torch's profiler counts (collectives.py).

Search: `--trials` settings for each optimizer and case, the same number for all, on 20,000 rows, scored on the
last 10,000 of the training part with seed 0; trial 0 has usual numbers, the others are drawn from RANGES. That of
rounds has the first one of `--rounds`. Final: all 60,000 rows, the test part, which is not looked at before.
Nobody averages over steps.

The results file is the state: what it has is not done again, so that a later call with more trials or seeds adds
to it. A run whose setting is not the best one any more is dropped. `--report` writes table and plot anew.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import collectives
import contestants
import data_sets
import local_rounds
import rounds_report
import torch
import torch.distributed as dist
from compare_training import Results
from contestants import Log, Made, Options
from data_sets import SETS, Data
from torch import Tensor, nn
from tqdm import tqdm

import torchbcd

OUTPUT = Path(__file__).resolve().parents[1] / "docs/results/rounds.json"
SEARCHED_ROWS = 20_000
SYNCHRONISED = "synchronised"
BASE: Options = {"hold": 0.5, "start": "torch", "noise": 0.0, "average": None}
USUAL: dict[str, Options] = {
    "RelaxedBCD": {"batch": 100},
    "AdamW": {"batch": 100, "loss": "cross-entropy", "lr": 1e-3, "weight_decay": 0.01},
    "Muon": {"batch": 200, "loss": "squared", "lr": 0.02, "momentum": 0.95, "weight_decay": 0.01, "adam": 2e-3,
             "steps": 3, "of_torch": True},
}  # fmt: skip
# RelaxedBCD on thousands of rows, whose sums are good for longer steps: trial 1 of the synchronised cases.
MANY_ROWS: Options = {"relaxation": 1.0, "growth": 1.3, "damping": 0.03, "output_relaxation": 0.5, "guard": True}
RANGES: dict[str, Options] = {
    "RelaxedBCD": {
        "relaxation": Log(0.2, 1.2),
        "growth": (1.0, 1.3, 1.6),
        "output_relaxation": Log(0.03, 0.5),
        "damping": Log(0.02, 3.0),
        "momentum": (0.0, 0.5, 0.7),
        "batch": (50, 100, 200),
    },
    "AdamW": {"lr": Log(3e-4, 2e-2), "weight_decay": Log(1e-3, 0.3), "batch": (50, 100, 200)},
    "Muon": {"lr": Log(5e-3, 0.2), "weight_decay": Log(1e-3, 0.3), "adam": Log(5e-4, 1e-2), "batch": (200, 500)},
}
EVERYONE: Options = {"hold": (0.0, 0.5, None)}  # None: steps as long as at first, to the end
LOSSES: Options = {"loss": ("squared", "cross-entropy")}  # of those that take gradients


def relaxed(model: nn.Sequential, options: Options, data: Data) -> Made:
    """RelaxedBCD, which has its own defaults where nothing is said."""
    own = {name: value for name, value in options.items() if name not in {"batch", *BASE}}
    optimizer = torchbcd.RelaxedBCD(model, **own)
    return [optimizer], lambda x, y, over: optimizer.step(x, y)


MAKE = {"RelaxedBCD": relaxed, "AdamW": contestants.adamw, "Muon": contestants.muon}


class Case(NamedTuple):
    """Who has which rows; settings are searched for each."""

    name: str
    workers: int  # 0: synchronised
    by_label: bool
    syncs: int  # that the search has; in the synchronised cases all runs


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """All of them."""
    for workers in arguments.workers:
        for by_label in (False, True):
            how = "by label" if by_label else "at random"
            yield Case(f"{workers} workers, {how}", workers, by_label, arguments.rounds[0])
    for steps in arguments.steps:
        yield Case(f"{SYNCHRONISED}, {steps} steps", 0, False, steps)


def setting(name: str, case: Case, trial: int) -> Options:
    """The usual numbers for trial 0, then random ones, the same ones whenever they are asked for."""
    found = {**BASE, **USUAL[name]}
    if trial == 1 and name == "RelaxedBCD" and not case.workers:
        return {**found, **MANY_ROWS, "hold": None}
    if trial:
        random = Random(f"{case.name}/{name}/{trial}")
        ranges = {**EVERYONE, **({} if name == "RelaxedBCD" else LOSSES), **RANGES[name]}
        found |= {key: contestants.draw(random, range_) for key, range_ in ranges.items()}
        if name == "RelaxedBCD" and not case.workers:
            found["guard"] = True
    return found


class Worker:
    """A model on its way, and its rows."""

    def __init__(self, made: Made, model: nn.Module, stream: Iterator[Tensor]):
        self.optimizers, self._step = made
        self.model, self._stream = model, stream
        self._rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(self, data: Data, factor: float) -> None:
        """One batch, with `lr` times a factor."""
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        rows = next(self._stream)
        self._step(data.x[rows], data.y[rows], lambda: False)


@torch.no_grad()
def average(models: list[nn.Module]) -> None:
    """What `average_parameters` does in several processes: shares of the mean, summed."""
    for parameters in zip(*(model.parameters() for model in models), strict=True):
        mean = torch.stack([p.detach() / len(models) for p in parameters]).sum(0)
        for p in parameters:
            p.copy_(mean)


def train(name: str, options: Options, case: Case, data: Data, set_: data_sets.Set, syncs: int, seed: int,
          epochs: float, after: Callable[[list[Worker]], object] | None = None) -> nn.Module:  # fmt: skip
    """A run: the model that all have at its end. `after`: what is done to the workers after an average."""
    count = max(1, case.workers)
    batch = options["batch"] if case.workers else max(1, round(len(data.x) * epochs / syncs))
    shares = local_rounds.shares(data.y, count, case.by_label, seed)
    workers = []
    for worker, rows in enumerate(shares):
        model = data_sets.make_model(set_, data, seed, options["start"])
        stream = local_rounds.batches(rows, batch, seed, worker)
        workers.append(Worker(MAKE[name](model, {**options, "batch": batch}, data), model, stream))
    rounds = local_rounds.rounds_of(len(data.x) // count, batch, epochs, syncs)
    for steps in rounds:
        for worker_ in workers:
            for step in steps:
                worker_.step(data, local_rounds.factor(step, rounds[-1].stop, options["hold"]))
        if case.workers:
            average([worker_.model for worker_ in workers])
        if after is not None:
            after(workers)
    return workers[0].model


def score(*run: Any) -> float:
    """Of the model at the end; 0 where it could not go on."""
    try:
        return round(data_sets.score(train(*run), run[3]), 4)
    except torch.linalg.LinAlgError:
        return 0.0


class Sweep(NamedTuple):
    """What a step of RelaxedBCD sums over the processes, and how many numbers the weights are."""

    order: list[int]
    bytes: int
    weights: int


def sweep(data: Data, set_: data_sets.Set) -> Sweep:
    """Of a step on rows of all workers."""
    model = data_sets.make_model(set_, data, 0)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        optimizer = torchbcd.RelaxedBCD(model, process_group=dist.group.WORLD, **MANY_ROWS)
        for _ in range(2):  # the first step also compares weights
            optimizer.step(data.x[:500], data.y[:500])
        order = collectives.order_of(lambda: optimizer.step(data.x[:500], data.y[:500]))
        dist.destroy_process_group()
    return Sweep(order, optimizer.bytes_sent, sum(p.numel() for p in model.parameters()))


def costs(data: Data, set_: data_sets.Set) -> dict[str, list[int]]:
    """Waits and bytes of a synchronisation: of weights or gradients, and of a step of RelaxedBCD."""
    found = sweep(data, set_)
    return {"": [1, 4 * found.weights], "RelaxedBCD": [collectives.in_turn(found.order), found.bytes]}


def search(results: Results, arguments: argparse.Namespace) -> None:
    """All trials that the file does not have."""
    set_ = SETS[arguments.set]
    whole = data_sets.load(set_, "validation", arguments)
    data = whole._replace(x=whole.x[:SEARCHED_ROWS], y=whole.y[:SEARCHED_ROWS])
    todo = [
        (case, name, trial)
        for trial in range(arguments.trials)
        for case in cases(arguments)
        for name in MAKE
        if trial not in results.tried(case.name, name)
    ]
    for case, name, trial in tqdm(todo, "search"):
        options = setting(name, case, trial)
        found = score(name, options, case, data, set_, case.syncs, 0, arguments.epochs)
        results.trials.append(
            {"set": case.name, "contestant": name, "trial": trial, "score": found, "setting": options}
        )
        results.save()


def final(results: Results, arguments: argparse.Namespace) -> None:
    """All runs that the file does not have; one seed of everything comes first."""
    set_ = SETS[arguments.set]
    data = data_sets.load(set_, "test", arguments)
    cost = costs(data, set_)
    there = {(r["set"], r["contestant"], r["syncs"], r["seed"]) for r in results.runs}
    todo = [
        (case, name, syncs, seed)
        for seed in range(arguments.seeds)
        for case in cases(arguments)
        for syncs in (arguments.rounds if case.workers else [case.syncs])
        for name in MAKE
        if (case.name, name, syncs, seed) not in there
    ]
    for case, name, syncs, seed in tqdm(todo, "final"):
        best = results.best(case.name, name) or {"trial": 0, "setting": setting(name, case, 0)}
        found = score(name, best["setting"], case, data, set_, syncs, seed, arguments.epochs)
        waits, sent = cost["RelaxedBCD" if name == "RelaxedBCD" and not case.workers else ""]
        results.runs.append(
            {"set": case.name, "contestant": name, "workers": case.workers, "by_label": case.by_label,
             "syncs": syncs, "seed": seed, "score": found, "trial": best["trial"], "waits": syncs * waits,
             "bytes": syncs * sent, "epochs": arguments.epochs}
        )  # fmt: skip
        results.save()


def main() -> None:
    """Search, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("fashion-mnist", "mnist", "digits"), default="fashion-mnist")
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16], help="default: 4 16")
    parser.add_argument("--epochs", type=float, default=3.0, help="of every run (default: 3)")
    parser.add_argument("--rounds", type=int, nargs="+", default=[3, 1, 15], help="default: 3 1 15")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[3, 30, 300], help="synchronised (default: 3 30 300)"
    )
    parser.add_argument("--trials", type=int, default=5, help="settings an optimizer and case (default: 5)")
    parser.add_argument("--seeds", type=int, default=5, help="default: 5")
    parser.add_argument("--results", type=Path, default=OUTPUT, help="JSON file; table and plot lie beside it")
    parser.add_argument("--report", action="store_true", help="write table and plot of the results there are")
    data_sets.add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results = Results(arguments.results)
    if not arguments.report:
        search(results, arguments)
        results.drop_stale()
        final(results, arguments)
    rounds_report.write(results.trials, results.runs, arguments.results)


if __name__ == "__main__":
    main()
