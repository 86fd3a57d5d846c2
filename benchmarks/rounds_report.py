"""Table and plot of the results of rounds.py."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from training_report import head, row

mpl.use("Agg")
from matplotlib import pyplot as plt

Entries = list[dict[str, Any]]
STYLES = {"RelaxedBCD": ("black", "o"), "AdamW": ("#0072B2", "s"), "Muon": ("#D55E00", "^")}  # Okabe and Ito's


class Table:
    """Scores by case, optimizer and number of synchronisations; of each of these the seeds that all have run."""

    def __init__(self, runs: Entries):
        those = Counter((run["set"], run["syncs"], run["seed"]) for run in runs)
        all_ = len({run["contestant"] for run in runs})
        self.runs = [run for run in runs if those[run["set"], run["syncs"], run["seed"]] == all_]
        self.scores: dict[tuple[str, str, int], list[float]] = defaultdict(list)
        self.costs: dict[tuple[str, str, int], tuple[int, float]] = {}
        for run in self.runs:
            key = run["set"], run["contestant"], run["syncs"]
            self.scores[key].append(run["score"])
            self.costs[key] = run["waits"], run["bytes"] / 1e6
        self.seeds = sorted({len(scores) for scores in self.scores.values()})
        self.names = [name for name in STYLES if any(name == other for _, other, _ in self.scores)]
        self.split = list(dict.fromkeys(run["set"] for run in self.runs if run["workers"]))
        together = {run["syncs"]: run["set"] for run in self.runs if not run["workers"]}
        self.together = [together[steps] for steps in sorted(together)]

    def mean(self, *key: Any) -> float:
        """Of the seeds."""
        return statistics.mean(self.scores[key])  # type: ignore[index]

    def text(self, *key: Any) -> str:
        """Mean and range, bold where it is the best one of its case."""
        scores = self.scores[key]  # type: ignore[index]
        best = max(self.mean(key[0], name, key[2]) for name in self.names)
        mean = f"{self.mean(*key):.2f}"
        mean = f"**{mean}**" if self.mean(*key) == best else mean
        return mean if len(scores) == 1 else f"{mean} ({min(scores):.2f} to {max(scores):.2f})"

    def syncs(self, case: str) -> list[int]:
        """How often workers meet in its runs."""
        return sorted({syncs for name, _, syncs in self.scores if name == case})


def cost(waits: int, megabytes: float) -> str:
    """In words."""
    return f"{waits} waits, {megabytes:.1f} MB"


def tables(table: Table) -> Iterator[str]:
    """Accuracies: first of rounds, then of synchronised steps."""
    yield "\n## Rounds\n"
    yield "Accuracy on the test part in %: mean of the seeds (range), for so many averages of the weights."
    for case in table.split:
        yield f"\n### {case}\n"
        columns = table.syncs(case)
        yield from head("", *(f"{n}: {cost(*table.costs[case, table.names[0], n])}" for n in columns))
        for name in table.names:
            yield row(name, *(table.text(case, name, n) for n in columns))
    yield "\n## Synchronised\n"
    yield "Likewise, for so many steps on rows of all workers, the same however these are split.\n"
    yield from head("", *(case.split(", ")[1] for case in table.together))
    for name in table.names:
        keys = [(case, name, table.syncs(case)[0]) for case in table.together]
        yield row(name, *(f"{table.text(*key)}; {cost(*table.costs[key])}" for key in keys))


def settings(trials: Entries) -> Iterator[str]:
    """What the search chose."""
    yield "\n## What the search chose\n"
    yield "The best trial of each; trial 0 has usual numbers. Scores: validation part, 20,000 training rows.\n"
    yield from head("case", "optimizer", "trial", "score", "usual", "setting")
    hidden = ("start", "noise", "average", "of_torch")
    for case, name in dict.fromkeys((t["set"], t["contestant"]) for t in trials):
        own = [t for t in trials if (t["set"], t["contestant"]) == (case, name)]
        best = max(own, key=lambda t: (t["score"], -t["trial"]))
        said = ", ".join(f"{key} {value}" for key, value in best["setting"].items() if key not in hidden)
        if case.startswith("synchronised"):
            said = said.replace(f"batch {best['setting']['batch']}", "batch as the steps say")
        usual = next(t["score"] for t in own if t["trial"] == 0)
        yield row(case, name, best["trial"], f"{best['score']:.2f}", f"{usual:.2f}", said)


def draw(table: Table, path: Path) -> None:
    """A column for each case: accuracy over waits, and over bytes."""
    figure, axes = plt.subplots(
        2, len(table.split), figsize=(3.5 * len(table.split), 6.6), squeeze=False, sharey="col"
    )
    for column, case in enumerate(table.split):
        for line, what in enumerate(("all-reduces one after another", "MB that a worker sends")):
            axis = axes[line][column]
            for name in table.names:
                color, marker = STYLES[name]
                rounds = [(case, name, n) for n in table.syncs(case)]
                steps = [(other, name, table.syncs(other)[0]) for other in table.together]
                for keys, style in ((rounds, "-"), (steps, ":")):
                    kind = "rounds" if keys is rounds else "every step synchronised"
                    axis.plot([table.costs[key][line] for key in keys], [table.mean(*key) for key in keys],
                              color=color, marker=marker, linestyle=style, label=f"{name}, {kind}")  # fmt: skip
            axis.set_xscale("log")
            axis.set_xlabel(what)
            axis.grid(alpha=0.3)
        axes[0][column].set_title(case)
    axes[0][0].set_ylabel("test accuracy, %")
    axes[1][0].set_ylabel("test accuracy, %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def write(trials: Entries, runs: Entries, path: Path) -> None:
    """FILE.md and FILE.png beside FILE.json."""
    table = Table(runs)
    if not table.runs:
        print("there is nothing that all have run")
        return
    plot = path.with_suffix(".png")
    draw(table, plot)
    epochs = table.runs[0]["epochs"]
    lines = [
        "# Few synchronisations\n",
        f"Written by `benchmarks/rounds.py`, which says how. Every run goes over the rows {epochs:g} times. "
        f"Seeds: {' or '.join(map(str, table.seeds))}.\n",
        f"![accuracy over waits and bytes]({plot.name})",
        *tables(table),
        *settings(trials),
    ]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print(f"{path.with_suffix('.md')}, {plot}")
