"""What network.py has measured, what network_model.py makes of it, in a table and a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import collectives
import matplotlib as mpl
from network_model import Computing, Network, fit_computing, fit_hop
from training_report import head, row

mpl.use("Agg")
from matplotlib import pyplot as plt

Entries = list[dict[str, Any]]
LEVELS = (85.0, 88.0)  # percent
RANKS = (8, 16, 32, 64, 128, 256, 512, 1024)
ROWS = 60_000
COLORS = {"RelaxedBCD": "black", "AdamW": "#0072B2", "Muon": "#D55E00"}  # Okabe and Ito's
FEW_NUMBERS = 1
SMALL = 1000  # numbers, many of them and few bytes


def is_local(name: str) -> bool:
    """Whether ranks meet after rounds only."""
    return name.endswith("local rounds")


class Look(NamedTuple):
    """At the weights of a run."""

    syncs: int
    seconds: float
    computing: float
    queueing: float
    bytes: int
    score: float

    @property
    def own(self) -> float:
        """Seconds with a core for each rank: computing and communication."""
        return self.computing + self.communication

    @property
    def communication(self) -> float:
        """Seconds that were neither spent on a core nor waiting for one."""
        return max(0.0, self.seconds - self.computing - self.queueing)


def looks(run: dict[str, Any]) -> list[Look]:
    """In order."""
    return [Look(*look) for look in run["looks"]]


def reached(run: dict[str, Any], level: float) -> Look | None:
    """The first one at a level or above."""
    return next((look for look in looks(run) if look.score >= level), None)


class Rounds(NamedTuple):
    """Of a rank: steps from one synchronisation to the next, rows of a step; scores after synchronisations."""

    steps: float
    rows: float
    scores: list[Any]


class Model:
    """The constants, and what they come to."""

    def __init__(self, trials: Entries, runs: Entries, rate: float, delay: float):
        self.runs = [r for r in runs if (r["rate"], r["delay"]) == (rate, delay)]
        self.names = list(dict.fromkeys(r["method"] for r in self.runs))
        self.all_reduces = [t for t in trials if t["kind"] == "all-reduce"]
        self.simulated = {(t["method"], t["ranks"]): t for t in trials if t["kind"] == "simulated"}
        self.orders: dict[str, list[int]] = {t["method"]: t["order"] for t in trials if t["kind"] == "reduces"}
        self.rate, self.delay = rate, delay
        self.network = Network(delay / 1000, rate * 1e6 / 8, *(self._hop(n) for n in (FEW_NUMBERS, SMALL)))
        self.computing = {name: self._computing(name) for name in self.names}

    def _hop(self, numbers: int) -> Any:
        def of(rate: float, delay: float) -> list[tuple[int, float]]:
            return [(t["ranks"], t["seconds"]) for t in self.all_reduces
                    if (t["rate"], t["delay"], t["numbers"]) == (rate, delay, numbers)]  # fmt: skip

        return fit_hop(of(0, 0), of(self.rate, self.delay), self.delay / 1000)

    def _computing(self, name: str) -> Computing:
        """Of gradients, from all runs of the optimizer, whose batches differ; of RelaxedBCD, from its own."""
        optimizer = name.split(",")[0]
        own = [
            r
            for r in self.runs
            if r["method"] == name or (optimizer != "RelaxedBCD" and optimizer in r["method"])
        ]
        return fit_computing((r["rows"], looks(r)[-1].computing / r["steps"]) for r in own)

    def order_of(self, name: str) -> list[int]:
        """The all-reduces of a step or an average."""
        return self.orders.get(name, self.orders[""])

    def rounds(self, name: str, ranks: int) -> Rounds | None:
        """Of this number of ranks, as they ran or in turn."""
        run = next((r for r in self.runs if (r["method"], r["ranks"]) == (name, ranks)), None)
        if run is not None:
            scores = [(look.syncs, look.score) for look in looks(run)]
            return Rounds(run["steps"] / scores[-1][0], run["rows"], scores)
        turn = self.simulated.get((name, ranks))
        return turn and Rounds(turn["steps"] / turn["syncs"], min(turn["rows"], ROWS / ranks), turn["looks"])

    def synchronised(self, name: str, ranks: int, level: float) -> Rounds:
        """All ranks make one step. As many of them to a level as the median of the runs."""
        runs = [r for r in self.runs if r["method"] == name]
        there = [look.syncs for run in runs if (look := reached(run, level))]
        rows = runs[0]["rows"] * runs[0]["ranks"] / ranks
        return Rounds(1, rows, [(statistics.median(there), level)] if 2 * len(there) > len(runs) else [])

    def seconds(self, name: str, level: float, ranks: int, tree: bool = False) -> tuple[float, float] | None:
        """Of computing and of communication until a level is reached; None where it is not, or is not known."""
        found = self.rounds(name, ranks) if is_local(name) else self.synchronised(name, ranks, level)
        syncs = next((number for number, score in found.scores if score >= level), None) if found else None
        if found is None or syncs is None:
            return None
        waiting = self.network.step(ranks, self.order_of(name), tree)
        return syncs * found.steps * self.computing[name].seconds(found.rows), syncs * waiting


def text(seconds: float) -> str:
    """With as many digits as there is sense in."""
    return f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}"


def measured(model: Model) -> Iterator[str]:
    """The runs, a table for each number of ranks."""
    yield "\n## Measured\n"
    yield (
        "Seconds until a test accuracy is reached: sum (computing + communication), and what the clock said, "
        "with queueing for a core. All-reduces that wait for one another, and MB: of the whole run, as given to "
        "all-reduces, and as the kernel counted them on rank 0's interface."
    )
    for ranks in sorted({r["ranks"] for r in model.runs}):
        own = [r for r in model.runs if r["ranks"] == ranks]
        load = f"{min(r['load'] for r in own):.0f} to {max(r['load'] for r in own):.0f}"
        yield f"\n### {ranks} rank{'s' if ranks > 1 else ''}\n"
        yield f"Load of the machine while it ran, beside other work: {load}.\n"
        yield from head(
            "", *(f"{level:g} %" for level in LEVELS), "the end", "all-reduces in turn", "MB", "MB on the wire"
        )
        at = {level: [look.own for r in own if (look := reached(r, level))] for level in LEVELS}
        for run in own:
            cells = []
            for level in LEVELS:
                look = reached(run, level)
                if look is None:
                    cells.append("not reached")
                    continue
                shown = f"**{text(look.own)}**" if look.own == min(at[level]) else text(look.own)
                parts = f"{text(look.computing)} + {text(look.communication)}"
                cells.append(f"{shown} ({parts}); clock {text(look.seconds)}")
            last = looks(run)[-1]
            counted = "-" if run["counted"] is None or ranks == 1 else f"{run['counted'] / 1e6:.0f}"
            number = last.syncs * collectives.in_turn(model.order_of(run["method"])) if ranks > 1 else 0
            sent = f"{last.bytes / 1e6:.0f}" if ranks > 1 else "0"
            yield row(
                run["method"], *cells, f"{last.score:.2f} % after {text(last.seconds)} s", number, sent, counted
            )


def constants(model: Model) -> Iterator[str]:
    """What the model is made of."""
    yield "\n## The model's constants\n"
    order = model.orders.get("RelaxedBCD, sweeps", [])
    sweep = collectives.begun(order)
    yield (
        f"Numbers that are averaged, weights or gradients: {model.orders[''][0]:,}. All-reduces of a sweep of "
        f"RelaxedBCD: {len(sweep)}, of which {collectives.in_turn(order)} wait for one another, "
        f"{sum(n < SMALL for n in sweep)} of fewer than {SMALL} numbers, {sum(sweep):,} numbers in all. "
        "CPU seconds of a step on n rows of a rank, a + c n:\n"
    )
    yield from head("", "a, ms", "c, µs a row")
    for name, computing in model.computing.items():
        yield row(name, f"{1e3 * computing.fixed:.1f}", f"{1e6 * computing.row:.1f}")
    network = model.network
    yield "\n" + (
        f"A hop of a ring: {network.few.delays:.2f} delays and {1e3 * network.few.own:.2f} ms with few numbers, "
        f"{network.many.delays:.2f} and {1e3 * network.many.own:.2f} ms otherwise (medians).\n"
    )
    yield "All-reduces by themselves, ms: measured, and by the model.\n"
    yield from head("ranks", "numbers", "measured", "model")
    for entry in model.all_reduces:
        if (entry["rate"], entry["delay"]) == (model.rate, model.delay):
            expected = network.all_reduce(entry["ranks"], entry["numbers"])
            yield row(
                entry["ranks"], f"{entry['numbers']:,}", f"{1e3 * entry['seconds']:.0f}", f"{1e3 * expected:.0f}"
            )


def check(model: Model) -> Iterator[str]:
    """Model and measurement side by side."""
    yield "\n## Model and measurement\n"
    yield f"Seconds to {LEVELS[0]:g} %, computing + communication; queueing is in neither.\n"
    ranks = sorted({r["ranks"] for r in model.runs})
    yield from head(
        "", *(f"{n} rank{'s' if n > 1 else ''}, {what}" for n in ranks for what in ("measured", "model"))
    )
    for name in model.names:
        cells = []
        for n in ranks:
            run = next((r for r in model.runs if (r["method"], r["ranks"]) == (name, n)), None)
            look, expected = reached(run, LEVELS[0]) if run else None, model.seconds(name, LEVELS[0], n)
            cells.append(f"{text(look.computing)} + {text(look.communication)}" if look else "-")
            cells.append(" + ".join(map(text, expected)) if expected else "-")
        yield row(name, *cells)


def extrapolated(model: Model) -> Iterator[str]:
    """Tables of the model; bold where everybody is known."""
    for tree in (False, True):
        yield f"\n## Model: {'an all-reduce in 2 log2 P hops' if tree else 'the ring of gloo'}\n"
        levels = " / ".join(f"{level:g} %" for level in LEVELS)
        yield f"Seconds to {levels}, a core for each rank. -: not reached. Empty: rounds were not simulated.\n"
        yield from head("", *(f"{ranks:,}" for ranks in RANKS))
        known = {
            ranks: all(not is_local(name) or model.rounds(name, ranks) for name in model.names) for ranks in RANKS
        }
        for name in model.names:
            cells = []
            for ranks in RANKS:
                if is_local(name) and not model.rounds(name, ranks):
                    cells.append("")
                    continue
                shown = []
                for level in LEVELS:
                    all_ = {other: model.seconds(other, level, ranks, tree) for other in model.names}
                    best = min((sum(s) for s in all_.values() if s), default=0.0)
                    own = all_[name]
                    value = text(sum(own)) if own else "-"
                    shown.append(f"**{value}**" if own and known[ranks] and sum(own) == best else value)
                cells.append(" / ".join(shown))
            yield row(name, *cells)


def draw(model: Model, path: Path) -> None:
    """Levels beside one another, rings above trees; what was measured where it was."""
    figure, axes = plt.subplots(2, len(LEVELS), figsize=(11, 8.5), sharex=True, sharey=True, layout="constrained")
    low = sorted({r["ranks"] for r in model.runs} - {1})
    for line, tree in zip(axes, (False, True), strict=True):
        for axis, level in zip(line, LEVELS, strict=True):
            for name in model.names:
                style = {"color": COLORS[name.split(",")[0]], "linestyle": "-" if is_local(name) else ":"}
                found = [(n, s) for n in (*low, *RANKS) if (s := model.seconds(name, level, n, tree))]
                xs, ys = [n for n, _ in found], [sum(s) for _, s in found]
                axis.plot(xs, ys, marker="o" if is_local(name) else "", ms=4, label=name, **style)
                if not tree:
                    own = [(r["ranks"], look) for r in model.runs if r["method"] == name and r["ranks"] in low
                           and (look := reached(r, level))]  # fmt: skip
                    times = [look.own for _, look in own]
                    axis.plot([n for n, _ in own], times, "x", color=style["color"], ms=9, mew=2)
            how = "all-reduce in 2 log2 P hops" if tree else "gloo's ring; crosses: measured"
            axis.set_title(f"to {level:g} %, {how}", fontsize=10)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks([*low, *RANKS], [f"{n:,}" for n in (*low, *RANKS)])
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("ranks")
    for axis in axes[:, 0]:
        axis.set_ylabel("seconds (computing + communication)")
    figure.suptitle(f"Fashion-MNIST, {model.rate:g} Mbit/s a rank, {model.delay:g} ms one way")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def write(trials: Entries, runs: Entries, far: Sequence[float], path: Path) -> None:
    """FILE.md and FILE.png beside FILE.json."""
    rate, delay = far
    if not any((r["rate"], r["delay"]) == (rate, delay) for r in runs):
        print("there are no runs on this network")
        return
    model = Model(trials, runs, rate, delay)
    plot = path.with_suffix(".png")
    draw(model, plot)
    lines = [
        "# A slow network\n",
        f"Written by `benchmarks/network.py`, which says how, and what the seconds are. Each rank sends {rate:g} "
        f"Mbit/s, which arrive {delay:g} ms later. Fashion-MNIST, 784-300x3-10, one seed, one thread a rank.\n",
        f"![seconds to an accuracy over the number of ranks]({plot.name})",
        *measured(model),
        *constants(model),
        *check(model),
        *extrapolated(model),
    ]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print(f"{path.with_suffix('.md')}, {plot}")
