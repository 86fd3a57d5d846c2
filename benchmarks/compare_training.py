"""Train the same nets by RelaxedBCD and by seven ways of backpropagation for the same seconds, searched alike.

    pip install -r benchmarks/requirements.txt
    python benchmarks/compare_training.py --data-root DATA --tabular DATA/tabular

makes docs/results/training.json, training.md and training.png. data_sets.py says where data are looked for;
requirements.txt has the packages of schedule-free AdamW and of SOAP, without which those are left out.

Seconds are those of the process (time.process_time) in training, batches included, on one thread with denormal
numbers flushed. All is driven by the seconds that are over: the step is held for a part of the budget (`hold`)
and falls linearly to zero at its end; schedule-free AdamW and L-BFGS have none of that. Averaged weights have the
decay 1 - c / steps, where steps is what the run will come to at its speed so far.

Search: every contestant but "RelaxedBCD, defaults" has `--trials` settings a set, its usual one first and then
random ones of the ranges in contestants.py, each for `--search-seconds` on the validation part with seed 0. The
best one is used at **every** budget. Final: the whole training part, the test part, which is not looked at
before, `--seeds` seeds for each of `--budgets`, the contestants taking turns.

With `--residual` the nets are those of today, skip connections, LayerNorm and GELU, on the tabular sets, and the
results are training_residual.json, .md and .png.

The results file is the state: every trial and run is written to it at once, and what it has is not done again,
so that a later call with more trials, seeds or budgets adds to it. A run whose setting is not the best one any
more is dropped. `--report` does nothing but write table and plot anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contestants
import data_sets
import torch
import training_report
from contestants import Contestant, Options, batches
from data_sets import SETS, Data, Set
from tqdm import tqdm

SETS_TO_COMPARE = [set_.name for set_ in data_sets.ALL if set_.name == "digits" or not (set_.small or set_.tiny)]
OUTPUT = Path(__file__).resolve().parents[1] / "docs/results"
WARM_UP = 0.1  # seconds of a run before the first one, so that no run pays for what is set up once


def train(
    contestant: Contestant, setting: Options, set_: Set, data: Data, seed: int, budget: float
) -> list[float]:
    """Score, number of steps and seconds of a run; the score is 0 where it could not go on."""
    generator = torch.Generator().manual_seed(seed)
    model = data_sets.make_model(set_, data, seed, setting["start"])
    parameters = [p.detach() for p in model.parameters()]
    averaged: list[torch.Tensor] = []
    steps, now, hold = 0, 0.0, setting["hold"]
    start = time.process_time()

    def over() -> bool:
        return time.process_time() - start >= budget

    optimizers, step = contestant.make(model, setting, data)
    rates = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    stream = batches(len(data.x), setting["batch"] or len(data.x), generator)
    try:
        while now < budget:
            if hold is not None:
                for group, rate in rates:
                    group["lr"] = rate * min(1.0, (1 - now / budget) / (1 - hold))
            rows = next(stream)
            inputs = data.x[rows]
            if setting["noise"]:
                inputs = inputs + setting["noise"] * torch.randn(inputs.shape, generator=generator)
            step(inputs, data.y[rows], over)
            steps += 1
            now = time.process_time() - start
            if setting["average"]:
                total = steps * budget / now
                if averaged and total > setting["average"]:
                    torch._foreach_lerp_(averaged, parameters, setting["average"] / total)
                else:
                    averaged = [p.clone() for p in parameters]
    except torch.linalg.LinAlgError:
        return [0.0, steps, round(now, 3)]
    if hasattr(optimizers[0], "eval"):  # schedule-free
        optimizers[0].eval()
    now = time.process_time() - start
    if averaged:
        torch._foreach_copy_(parameters, averaged)
    return [round(data_sets.score(model, data), 4), steps, round(now, 3)]


class Results:
    """The file of trials and runs."""

    def __init__(self, path: Path):
        self.path = path
        self.machines: list[str] = []
        self.trials: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        if path.exists():
            stored = json.loads(path.read_text())
            self.machines, self.trials, self.runs = stored["machines"], stored["trials"], stored["runs"]

    def save(self) -> None:
        """Write the file, one entry a line."""
        machine = f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}"
        if machine not in self.machines:
            self.machines.append(machine)
        lines = {"machines": self.machines, "trials": self.trials, "runs": self.runs}
        text = ",\n".join(
            f'"{name}": [\n' + ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries) + "\n]"
            for name, entries in lines.items()
        )
        arriving = self.path.with_suffix(".part")
        arriving.write_text("{" + text + "}\n")
        arriving.rename(self.path)

    def tried(self, set_: str, contestant: str) -> dict[int, dict[str, Any]]:
        """The trials there are, by their number."""
        return {t["trial"]: t for t in self.trials if (t["set"], t["contestant"]) == (set_, contestant)}

    def best(self, set_: str, contestant: str) -> dict[str, Any] | None:
        """The trial with the best score; None before the search."""
        tried = self.tried(set_, contestant).values()
        return max(tried, key=lambda t: (t["score"], -t["trial"]), default=None)

    def drop_stale(self) -> None:
        """Forget runs with settings that are not the best ones any more."""
        usual = {"trial": 0}
        self.runs = [
            run
            for run in self.runs
            if run["trial"] == (self.best(run["set"], run["contestant"]) or usual)["trial"]
        ]


class Store:
    """Data that are kept in memory, and who has trained on which."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.data: dict[tuple[str, str], Data] = {}
        self.warm: set[tuple[str, str, str]] = set()

    def load(self, set_: Set, part: str) -> Data:
        """Both parts."""
        if (set_.name, part) not in self.data:
            self.data[set_.name, part] = data_sets.load(set_, part, self.arguments)
        return self.data[set_.name, part]

    def train(
        self, contestant: Contestant, setting: Options, set_: Set, part: str, seed: int, budget: float
    ) -> list[float]:
        """A run, after all has been set up once."""
        data = self.load(set_, part)
        if (contestant.name, set_.name, part) not in self.warm:
            train(contestant, contestant.setting(set_, 0), set_, data, 0, WARM_UP)
            self.warm.add((contestant.name, set_.name, part))
        return train(contestant, setting, set_, data, seed, budget)


def set_of(name: str, arguments: argparse.Namespace) -> Set:
    """The set, with the nets that were asked for."""
    return SETS[name]._replace(residual=arguments.residual)


def search(results: Results, present: list[Contestant], store: Store) -> None:
    """All trials that the file does not have."""
    arguments = store.arguments
    todo = [
        (set_of(name, arguments), contestant, trial)
        for name in arguments.sets
        for trial in range(arguments.trials)
        for contestant in present
        if contestant.searched and trial not in results.tried(name, contestant.name)
    ]
    for set_, contestant, trial in tqdm(todo, "search"):
        setting = contestant.setting(set_, trial)
        score, steps, _ = store.train(contestant, setting, set_, "validation", 0, arguments.search_seconds)
        results.trials.append(
            {"set": set_.name, "contestant": contestant.name, "trial": trial, "score": score, "steps": steps,
             "budget": arguments.search_seconds, "setting": setting}
        )  # fmt: skip
        results.save()


def runs(results: Results, present: list[Contestant], arguments: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    """The runs that the file does not have; one seed of everything comes first."""
    there = {(r["set"], r["contestant"], r["budget"], r["seed"]) for r in results.runs}
    for seed in range(arguments.seeds):
        for budget in arguments.budgets:
            for name in arguments.sets:
                for contestant in present:
                    if (name, contestant.name, budget, seed) not in there:
                        yield set_of(name, arguments), contestant, budget, seed


def final(results: Results, present: list[Contestant], store: Store) -> None:
    """All runs that the file does not have."""
    for set_, contestant, budget, seed in tqdm(list(runs(results, present, store.arguments)), "final"):
        usual = {"trial": 0, "setting": contestant.setting(set_, 0)}
        best = results.best(set_.name, contestant.name) or usual
        setting = best["setting"]
        score, steps, seconds = store.train(contestant, setting, set_, "test", seed, budget)
        results.runs.append(
            {"set": set_.name, "contestant": contestant.name, "budget": budget, "seed": seed, "score": score,
             "steps": steps, "seconds": seconds, "trial": best["trial"]}
        )  # fmt: skip
        results.save()


def available(names: list[str], store: Store) -> Iterator[str]:
    """The sets whose data are there."""
    for name in names:
        try:
            store.load(SETS[name], "test")
            yield name
        except FileNotFoundError as error:
            print(f"{name} is skipped: {error}")


def main() -> None:
    """Search, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sets", nargs="+", choices=SETS, help="default: the eight sets, with --residual the tabular ones"
    )
    parser.add_argument("--residual", action="store_true", help="nets of skip connections, LayerNorm and GELU")
    parser.add_argument("--trials", type=int, default=12, help="settings a contestant and set (default: 12)")
    parser.add_argument("--search-seconds", type=float, default=3.0, help="of every trial (default: 3)")
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[1.0, 3.0, 10.0], help="seconds of final runs"
    )
    parser.add_argument("--seeds", type=int, default=5, help="default: 5")
    parser.add_argument("--results", type=Path, help="JSON file; table and plot lie beside it")
    parser.add_argument("--report", action="store_true", help="write table and plot of the results there are")
    data_sets.add_arguments(parser)
    arguments = parser.parse_args()
    arguments.sets = arguments.sets or (data_sets.TABULAR if arguments.residual else SETS_TO_COMPARE)
    arguments.results = arguments.results or OUTPUT / f"training{'_residual' * arguments.residual}.json"
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results, store = Results(arguments.results), Store(arguments)
    if not arguments.report:
        arguments.sets = list(available(arguments.sets, store))
        present = [contestant for contestant in contestants.ALL if contestant.present]
        for contestant in contestants.ALL:
            if contestant not in present:
                print(f"{contestant.name} is skipped: {contestant.package} is not installed (requirements.txt)")
        search(results, present, store)
        results.drop_stale()
        final(results, present, store)
    nets = ", on nets with skip connections, LayerNorm and GELU" if arguments.residual else ""
    training_report.write(results.trials, results.runs, arguments.results, nets)


if __name__ == "__main__":
    main()
