"""The figures of paper_experiments.py, from the JSON file that it writes beside its PNG file: nothing is trained.

The panels are the paper's: training loss, training accuracy and test accuracy against epochs. A line is the mean
over seeds, its band reaches from the lowest to the highest. The paper has no number to draw beside them.

    python examples/python/paper_figures.py paper_curves.json
    python examples/python/paper_figures.py paper_curves.json --first 5 --out early.png    # the early stage
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

PANELS = {"loss": "training loss", "train": "training accuracy", "test": "test accuracy"}
# Curves of a run, by seed: lists under "loss", "train", "test" and "seconds", a value an epoch.
Seeds = dict[str, dict[str, list[float]]]


def common_epochs(seeds: Seeds) -> int:
    """How many epochs all seeds of a run have."""
    return min(len(curves["loss"]) for curves in seeds.values())


def plot(record: dict[str, Any], path: Path, first: int | None = None) -> None:
    """Draw a record of paper_experiments.py, or its first epochs."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 4), layout="constrained")
    for axis, (name, label) in zip(axes, PANELS.items(), strict=True):
        for run, seeds in record["curves"].items():
            epochs = min(common_epochs(seeds), first or 10**9)
            values = list(zip(*(curves[name][:epochs] for curves in seeds.values()), strict=True))
            numbers = range(1, epochs + 1)
            (line,) = axis.plot(numbers, [statistics.fmean(v) for v in values], marker=".", label=run)
            if len(seeds) > 1:
                low, high = [min(v) for v in values], [max(v) for v in values]
                axis.fill_between(numbers, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
        axis.set(xlabel="epochs", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[-1].legend(fontsize="small")
    seeds_: Seeds = next(iter(record["curves"].values()), {})
    figure.suptitle(
        f"{record['experiment']}: {record['dataset']}, {record['rows']} rows, "
        f"{'-'.join(map(str, record['widths']))}, {len(seeds_)} seed{'s' if len(seeds_) > 1 else ''}"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(record: dict[str, Any]) -> str:
    """Every run at the last epoch that all its seeds have: the mean, and the range over seeds."""
    lines = [f"{'run':20}{'epochs':>7}{'loss':>26}{'train %':>24}{'test %':>24}{'seconds':>24}"]
    for run, seeds in record["curves"].items():
        epochs = common_epochs(seeds)
        cells = [f"{run:20}{epochs:7}"]
        for name, scale, digits, width in (
            ("loss", 1, "4g", 26),
            ("train", 100, "2f", 24),
            ("test", 100, "2f", 24),
            ("seconds", 1, "1f", 24),
        ):
            values = [scale * curves[name][epochs - 1] for curves in seeds.values()]
            mean, low, high = (
                format(value, f".{digits}") for value in (statistics.fmean(values), min(values), max(values))
            )
            cells.append(format(mean if len(values) == 1 else f"{mean} ({low} to {high})", f">{width}"))
        lines.append("".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Draw a file's curves, print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, help="JSON file of paper_experiments.py")
    parser.add_argument("--first", type=int, help="draw only so many epochs (default: all)")
    parser.add_argument("--out", type=Path, help="PNG file (default: the JSON file's name, with .png)")
    arguments = parser.parse_args()
    if arguments.first is not None and arguments.first < 1:
        parser.error("--first must be at least 1")
    record = json.loads(arguments.curves.read_text())
    out = arguments.out or arguments.curves.with_suffix(".png")
    plot(record, out, arguments.first)
    print(table(record))
    print(f"curves: {out}")


if __name__ == "__main__":
    main()
