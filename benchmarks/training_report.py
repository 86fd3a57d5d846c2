"""Table and plot of the results of compare_training.py."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import contestants
import data_sets
import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Entries = list[dict[str, Any]]
DEFAULTS, SEARCHED = (contestant.name for contestant in contestants.ALL[:2])
LEVEL = 88.0  # percent on Fashion-MNIST
# Okabe and Ito's colours, black for RelaxedBCD.
STYLES = {
    "RelaxedBCD, defaults": ("black", "o", "-"),
    "RelaxedBCD, searched": ("black", "*", "--"),
    "AdamW": ("#0072B2", "s", "-"),
    "Muon, float32": ("#D55E00", "^", "-"),
    "Muon of torch": ("#D55E00", "v", "--"),
    "AdamW, schedule-free": ("#56B4E9", "D", "--"),
    "SOAP": ("#009E73", "P", "-"),
    "SGD with momentum": ("#CC79A7", "X", "-"),
    "L-BFGS": ("#E69F00", "<", ":"),
}


class Table:
    """Scores by set, contestant and budget."""

    def __init__(self, runs: Entries):
        self.names = [c.name for c in contestants.ALL if any(run["contestant"] == c.name for run in runs)]
        self.scores: dict[tuple[str, str, float], list[float]] = defaultdict(list)
        self.steps: dict[tuple[str, str, float], list[int]] = defaultdict(list)
        those = Counter((run["set"], run["budget"], run["seed"]) for run in runs)
        for run in runs:  # of the seeds that all have run
            if those[run["set"], run["budget"], run["seed"]] == len(self.names):
                self.scores[run["set"], run["contestant"], run["budget"]].append(run["score"])
                self.steps[run["set"], run["contestant"], run["budget"]].append(run["steps"])
        self.sets = [s.name for s in data_sets.ALL if any(set_ == s.name for set_, _, _ in self.scores)]
        self.budgets = sorted(b for b in {run["budget"] for run in runs} if self.sets_at(b))

    def sets_at(self, budget: float) -> list[str]:
        """Those where there is a seed that all have run."""
        return [s for s in self.sets if all((s, name, budget) in self.scores for name in self.names)]

    def mean(self, set_: str, name: str, budget: float) -> float:
        """Of the seeds."""
        return statistics.mean(self.scores[set_, name, budget])

    def ordered(self, set_: str, budget: float) -> list[str]:
        """The contestants, the best one first."""
        return sorted(self.names, key=lambda name: -self.mean(set_, name, budget))

    def rank(self, set_: str, name: str, budget: float) -> float:
        """Of the mean score; equal ones share the mean of their ranks."""
        means = [self.mean(set_, other, budget) for other in self.names]
        own = self.mean(set_, name, budget)
        return sum(m > own for m in means) + (sum(m == own for m in means) + 1) / 2

    def first(self, set_: str, budget: float) -> list[str]:
        """Those with the best mean."""
        best = max(self.mean(set_, name, budget) for name in self.names)
        return [name for name in self.names if self.mean(set_, name, budget) == best]

    def text(self, set_: str, name: str, budget: float) -> str:
        """Mean and range; three decimals where the best ones differ in the third."""
        scores = self.scores[set_, name, budget]
        digits = 3 if set_ == "naval-propulsion-plant" else 2
        mean = f"{statistics.mean(scores):.{digits}f}"
        if name in self.first(set_, budget):
            mean = f"**{mean}**"
        return mean if len(scores) == 1 else f"{mean} ({min(scores):.{digits}f} to {max(scores):.{digits}f})"


def row(*cells: object) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: object) -> list[str]:
    """The first two lines of one."""
    return [row(*cells), "|---" * len(cells) + "|"]


def seconds(budget: float) -> str:
    """A budget in words."""
    return f"{budget:g} s"


def ranks(table: Table) -> Iterator[str]:
    """Mean rank over the sets, and how often each contestant is the best one."""
    yield "## Mean rank\n"
    yield f"Mean over the sets of the rank among all {len(table.names)}, and on how many sets it is first.\n"
    yield from head("", *(f"{seconds(b)}, {len(table.sets_at(b))} sets" for b in table.budgets))
    means = {
        (name, b): statistics.mean(table.rank(s, name, b) for s in table.sets_at(b))
        for name in table.names
        for b in table.budgets
    }
    first = {b: Counter(name for s in table.sets_at(b) for name in table.first(s, b)) for b in table.budgets}
    for name in table.names:
        cells = []
        for b in table.budgets:
            least = min(value for (_, budget), value in means.items() if budget == b)
            text = f"{means[name, b]:.2f}"
            cells.append(f"{f'**{text}**' if means[name, b] == least else text}, first {first[b][name]}")
        yield row(name, *cells)


def firsts(table: Table) -> Iterator[str]:
    """Who is best on each set, and where RelaxedBCD's defaults are."""
    yield "\n## Who is first\n"
    yield f"The first two of each set, and the place and distance to the first of {DEFAULTS}.\n"
    yield from head("", *map(seconds, table.budgets))
    for set_ in table.sets:
        cells = []
        for b in table.budgets:
            if set_ not in table.sets_at(b):
                cells.append("-")
                continue
            best, second = table.ordered(set_, b)[:2]
            digits = 3 if set_ == "naval-propulsion-plant" else 2
            means = [f"{name} {table.mean(set_, name, b):.{digits}f}" for name in (best, second)]
            behind = table.mean(set_, best, b) - table.mean(set_, DEFAULTS, b)
            place = (
                f"defaults {table.rank(set_, DEFAULTS, b):g}, {-behind:+.{digits}f}" if behind else "defaults 1"
            )
            cells.append(f"**{means[0]}**; {means[1]}; {place}")
        yield row(set_, *cells)


def duels(table: Table) -> Iterator[str]:
    """RelaxedBCD's defaults and its searched numbers against every other one."""
    for own in (DEFAULTS, SEARCHED):
        yield f"\n## {own}, against each\n"
        yield "Sets on which its mean is higher or lower; in brackets those where the ranges do not overlap.\n"
        yield from head("", *map(seconds, table.budgets))
        for name in table.names:
            if name != own:
                yield row(name, *(duel(table, own, name, b) for b in table.budgets))


def duel(table: Table, own: str, name: str, budget: float) -> str:
    """Higher and lower, and how many of them clearly."""
    higher = lower = above = below = 0
    for set_ in table.sets_at(budget):
        a, b = table.scores[set_, own, budget], table.scores[set_, name, budget]
        higher += statistics.mean(a) > statistics.mean(b)
        lower += statistics.mean(a) < statistics.mean(b)
        above += min(a) > max(b) and len(a) > 1
        below += max(a) < min(b) and len(a) > 1
    return f"{higher} higher ({above}), {lower} lower ({below})"


def reached(table: Table, name: str) -> str:
    """Seconds to LEVEL on Fashion-MNIST, between budgets by their logarithm."""
    found = [(b, table.mean("fashion-mnist", name, b)) for b in table.budgets
             if ("fashion-mnist", name, b) in table.scores]  # fmt: skip
    if not found or max(score for _, score in found) < LEVEL:
        return "not reached"
    if found[0][1] >= LEVEL:
        return f"within {seconds(found[0][0])}"
    for (low, before), (high, after) in pairwise(found):
        if after >= LEVEL:
            part = (LEVEL - before) / (after - before)
            return f"{low * (high / low) ** part:.1f} s"
    return "not reached"


def sets(table: Table) -> Iterator[str]:
    """A table for each set."""
    yield "\n## Each set\n"
    yield "Accuracy, or R² of regression, on the test part, in %: mean of the seeds (range). Steps: last budget."
    for set_ in table.sets:
        level = set_ == "fashion-mnist"
        yield f"\n### {set_}\n"
        budgets = [b for b in table.budgets if set_ in table.sets_at(b)]
        yield from head("", *map(seconds, budgets), "steps", *([f"to {LEVEL:g} %, about"] * level))
        for name in table.names:
            cells = [table.text(set_, name, b) for b in budgets]
            steps = round(statistics.mean(table.steps[set_, name, budgets[-1]])) if budgets else "-"
            yield row(name, *cells, steps, *([reached(table, name)] * level))


def settings(table: Table, trials: Entries) -> Iterator[str]:
    """What the search chose."""
    yield "\n## What the search chose\n"
    yield "The best trial of each; trial 0 has the usual numbers. Scores: validation part.\n"
    yield from head("set", "optimizer", "trial", "score", "usual", "setting")
    usual = {(t["set"], t["contestant"]): t["score"] for t in trials if t["trial"] == 0}
    for set_ in table.sets:
        for contestant in contestants.ALL:
            own = [t for t in trials if (t["set"], t["contestant"]) == (set_, contestant.name)]
            if own:
                best = max(own, key=lambda t: (t["score"], -t["trial"]))
                setting = ", ".join(f"{name} {value}" for name, value in best["setting"].items())
                before = usual[set_, contestant.name]
                yield row(set_, contestant.name, best["trial"], f"{best['score']:.2f}", f"{before:.2f}", setting)


def markdown(table: Table, trials: Entries, plot: str, nets: str) -> str:
    """All tables."""
    each = Counter((t["set"], t["contestant"]) for t in trials)
    number = sorted(set(each.values()))
    spent = sorted({t["budget"] for t in trials})
    seeds = {b: sorted({len(table.scores[s, name, b]) for s in table.sets_at(b) for name in table.names})
             for b in table.budgets}  # fmt: skip
    lines = [
        f"# RelaxedBCD beside other optimizers, for equal seconds{nets}\n",
        f"Written by `benchmarks/compare_training.py`, whose text says how. Trials of the search: "
        f"{'-'.join(map(str, number))} for each optimizer and set, {'/'.join(map(seconds, spent))} each. "
        f"Seeds: {', '.join(f'{seconds(b)}: ' + '-'.join(map(str, n)) for b, n in seeds.items())}.\n",
        f"![score over seconds]({plot})\n",
        *ranks(table),
        *firsts(table),
        *duels(table),
        *sets(table),
        *settings(table, trials),
    ]
    return "\n".join(lines) + "\n"


def draw(table: Table, path: Path) -> None:
    """A panel for each set: score over seconds."""
    columns = min(4, len(table.sets))
    rows = math.ceil(len(table.sets) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, 3.3 * rows + 0.9), squeeze=False)
    for axis in axes.flat[len(table.sets) :]:
        axis.set_visible(False)
    for axis, set_ in zip(axes.flat, table.sets, strict=False):
        for name in table.names:
            budgets = [b for b in table.budgets if (set_, name, b) in table.scores]
            color, marker, line = STYLES[name]
            means = [table.mean(set_, name, b) for b in budgets]
            wide = 2.2 if color == "black" else 1.3
            axis.plot(budgets, means, color=color, marker=marker, linestyle=line, label=name, linewidth=wide,
                      markersize=9 if marker == "*" else 5)  # fmt: skip
        axis.set_xscale("log")
        axis.set_xticks(table.budgets, [f"{b:g}" for b in table.budgets])
        axis.minorticks_off()
        axis.set_ylim(*limits(table, set_))
        measure = "accuracy" if data_sets.SETS[set_].classification else "R²"
        axis.set_title(set_)
        axis.set_ylabel(f"{measure}, %")
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("seconds of training")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.8 / (3.3 * rows + 0.9), 1, 1))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def limits(table: Table, set_: str) -> tuple[float, float]:
    """Scores to show: the better half of the first budget, and all of the last that have no diverged seed (0)."""
    means = [
        [table.mean(set_, name, b) for name in table.names if min(table.scores.get((set_, name, b), [0.0]))]
        for b in table.budgets
        if any((set_, name, b) in table.scores for name in table.names)
    ]
    low, high = min(statistics.median(means[0]), *means[-1]), max(map(max, means))
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def write(
    trials: Entries, runs: Entries, path: Path, nets: str = "", say: Callable[[str], object] = print
) -> None:
    """FILE.md and FILE.png beside FILE.json, and the ranks on the screen."""
    if not runs:
        say("there are no runs to report")
        return
    table = Table(runs)
    plot = path.with_suffix(".png")
    draw(table, plot)
    path.with_suffix(".md").write_text(markdown(table, trials, plot.name, nets))
    say("\n".join([*ranks(table), *firsts(table), f"\nall of it: {path.with_suffix('.md')}, {plot}"]))
