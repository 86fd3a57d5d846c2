"""Table and plot of the results of growth.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from training_report import head, row

mpl.use("Agg")
from matplotlib import pyplot as plt

Points = list[dict[str, Any]]
STEP = 1.5  # more than what it should have grown by, times this, between neighbours
LINEAR = ("rows", "depth")
# Okabe and Ito's colours.
STYLES = {
    "RelaxedBCD, step": ("black", "o"),
    "Adam, step": ("#0072B2", "s"),
    "RelaxedBCD, bound": ("#999999", "o"),
    "BCD, Algorithm 2": ("#D55E00", "^"),
    "BCD, Algorithm 1, identity": ("#E69F00", "v"),
    "BCD, Algorithm 1, tanh": ("#CC79A7", "X"),
    "DLAM": ("#009E73", "D"),
    "dlADMM": ("#56B4E9", "P"),
    "Adam, all rows": ("#0072B2", "*"),
}


class Line:
    """What was measured of a line, in order of size."""

    def __init__(self, points: Points, quantity: str, name: str):
        own = [p for p in points if (p["quantity"], p["line"]) == (quantity, name)]
        own.sort(key=lambda point: point["size"])
        self.name, self.quantity = name, quantity
        self.points = [p for p in own if "seconds" in p]
        self.skipped = {p["size"]: p["skipped"] for p in own if "skipped" in p}

    def column(self, what: str) -> list[float]:
        """Sizes, seconds or floors."""
        return [p[what] for p in self.points]

    def exponent(self, what: str = "seconds") -> float:
        """The slope of log seconds on log size over the last decade."""
        sizes, values = self.column("size"), self.column(what)
        last = [(s, v) for s, v in zip(sizes, values, strict=True) if 10 * s >= sizes[-1]]
        if len(last) < 2:
            return math.nan
        x, y = np.log([s for s, _ in last]), np.log([v for _, v in last])
        return float(np.polyfit(x, y, 1)[0])

    def steps(self) -> Iterator[str]:
        """Where seconds grow by far more than the floor, and than the size where they should be linear in it."""
        for before, after in pairwise(self.points):
            grown = after["seconds"] / before["seconds"]
            sizes = after["size"] / before["size"]
            should = [after["floor"] / before["floor"]] if "floor" in after else []
            should += [sizes] if self.quantity in LINEAR or not should else []
            if grown > STEP * max(should):
                yield (
                    f"{self.name}, {self.quantity} {before['size']:,} to {after['size']:,}: "
                    f"{grown:.1f} times the seconds for {max(should):.1f} times the work"
                )


def number(value: float) -> str:
    """Milliseconds, three digits."""
    digits = max(0, 2 - math.floor(math.log10(1e3 * value)))
    return f"{1e3 * value:,.{digits}f}"


def tables(points: Points, said: dict[str, str], names: list[str]) -> Iterator[str]:
    """A table a quantity."""
    for quantity, what in said.items():
        lines = [line for name in names if (line := Line(points, quantity, name)).points]
        sizes = sorted({size for line in lines for size in [*line.column("size"), *line.skipped]})
        yield f"\n## {quantity.capitalize()}\n"
        yield f"Milliseconds, in parentheses the floor's share of them in %; {what}.\n"
        yield from head("", *(f"{size:,}" for size in sizes), "exponent (floor's)")
        for line in lines:
            cells = {p["size"]: number(p["seconds"]) for p in line.points}
            for p in line.points:
                cells[p["size"]] += f" ({100 * p['floor'] / p['seconds']:.0f})" if "floor" in p else ""
            exponent = f"{line.exponent():.2f}"
            if line.points and "floor" in line.points[0]:
                exponent += f" ({line.exponent('floor'):.2f})"
            cells |= line.skipped
            yield row(line.name, *(cells.get(size, "") for size in sizes), exponent)
        steps = [step for line in lines for step in line.steps()]
        yield ""
        yield "Steps: " + ("; ".join(steps) if steps else "none") + "."


def draw(points: Points, said: dict[str, str], names: list[str], path: Path) -> None:
    """A panel a quantity, seconds full and floors dotted."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), squeeze=False)
    for axis, quantity in zip(axes.flat, said, strict=False):
        for name in names:
            line = Line(points, quantity, name)
            if not line.points:
                continue
            color, marker = STYLES[name]
            axis.plot(
                line.column("size"), line.column("seconds"), color=color, marker=marker, markersize=4, label=name
            )
            if "floor" in line.points[0]:
                axis.plot(line.column("size"), line.column("floor"), color=color, linestyle=":", linewidth=1)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(quantity)
        axis.set_ylabel("seconds")
        axis.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=90)
    plt.close(figure)


def write(points: Points, said: dict[str, str], names: list[str], path: Path) -> None:
    """FILE.md and FILE.png beside FILE.json."""
    if not any("seconds" in point for point in points):
        print("nothing is measured yet")
        return
    plot, page = path.with_suffix(".png"), path.with_suffix(".md")
    draw(points, said, names, plot)
    rates = sorted(point["gflops"] for point in points if "gflops" in point)
    lines = [
        "# How seconds grow\n",
        "Written by `benchmarks/growth.py`, which says how. A step or a sweep of each optimizer on one thread in "
        "float32; where rows do not grow there are 1,000 of them, in mini-batches 100, for Algorithm 1 with tanh "
        "300. The exponent is the slope of log seconds on log size over the last decade. The floor is what "
        "`benchmarks/floors.py` counts, at the rate of a large matrix product beside each point "
        f"({rates[0]:.0f} to {rates[-1]:.0f} GFLOP/s, {rates[len(rates) // 2]:.0f} in the middle), dotted in the "
        f"plot. A step in between is listed where, between neighbours, seconds grow {STEP} times as much as the "
        "floor and, for rows and depth, as the size. [What is behind them](../speed.md#how-it-grows).\n",
        f"![seconds over rows, width, depth and classes]({plot.name})",
        *tables(points, said, names),
    ]
    page.write_text("\n".join(lines) + "\n")
    print(f"{page}, {plot}")
