"""Time one step of RelaxedBCD against one of Adam with its forward and backward pass, on the same mini-batches.

In float32, taking turns in one run, so that a machine whose speed drifts slows both alike; medians. Adam is
torch.optim.Adam(fused=True), with denormal numbers flushed. RelaxedBCD with its defaults, and with those of
before.py and several row_blocks, of which more than one is not exact. Adam's floor and that of an exact step are
those of floors.py, at the rate of a large matrix product that takes turns with them, too. On one thread
milliseconds are those of the process.

    python benchmarks/bench_relaxed.py [--rounds N] [--threads N ...] [--quick] [--out benchmark_relaxed.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import floors
import torch
from before import BEFORE
from torch import Tensor, nn
from torch.nn import functional

import torchbcd

NETS = {"784-300x3-10": (784, 300, 300, 300, 10), "784-512x2-10": (784, 512, 512, 10)}
QUICK = {"784-50-10": (784, 50, 10)}
BATCH = 200
ROW_BLOCKS = (1, 2, 4)


def make_model(widths: tuple[int, ...]) -> nn.Sequential:
    """A ReLU net, initialised by He et al."""
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def adam_step(model: nn.Sequential) -> Callable[[Tensor, Tensor], object]:
    """Forward, backward and update on the squared loss."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        target = functional.one_hot(y, 10).float()
        (0.5 * (model(x) - target).square().sum(1).mean()).backward()
        optimizer.step()

    return step


def measure(widths: tuple[int, ...], threads: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of a step, and the floors of two of them."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(1)
    contestants: dict[str, Callable[[Tensor, Tensor], object]]
    contestants = {"defaults": torchbcd.RelaxedBCD(make_model(widths)).step}
    for blocks in ROW_BLOCKS:
        optimizer = torchbcd.RelaxedBCD(make_model(widths), **BEFORE, row_blocks=blocks)
        contestants[f"row_blocks={blocks}"] = optimizer.step
    contestants["adam"] = adam_step(make_model(widths))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    product, products = floors.product(), []
    for round_ in range(rounds + 5):  # the first five warm up
        x = torch.rand(BATCH, widths[0], generator=generator)
        y = torch.randint(10, (BATCH,), generator=generator)
        for name, step in contestants.items():
            elapsed = floors.seconds_of(partial(step, x, y))
            if round_ >= 5:
                times[name].append(1e3 * elapsed)
        if round_ % 10 == 5:  # it takes as long as many steps
            products.append(floors.seconds_of(product))
    operations = {"defaults": floors.relaxed(BATCH, widths), "adam": floors.backpropagation(BATCH, widths)}
    rate = floors.rate(statistics.median(products))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians, {name: 1e3 * number / rate for name, number in operations.items()}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="timed steps (default: 50)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of PyTorch (default: 1 and then 2)"
    )
    parser.add_argument("--quick", action="store_true", help="a small net, to try the benchmark out")
    parser.add_argument("--out", type=Path, default=Path("benchmark_relaxed.json"), help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    results = []
    names = ["defaults", *(f"row_blocks={blocks}" for blocks in ROW_BLOCKS)]
    columns = "".join(f"{name:>14}{'ratio':>6}" for name in names)
    print(f"{'net':13}{'threads':>8}{'Adam':>9}{'share':>6}{'share':>6}{columns}")
    for net, widths in (QUICK if arguments.quick else NETS).items():
        for threads in arguments.threads:
            medians, least = measure(widths, threads, arguments.rounds)
            ratios = {name: time / medians["adam"] for name, time in medians.items() if name != "adam"}
            results.append({"net": net, "threads": threads, **medians, "ratios": ratios, "floors": least})
            cells = "".join(f"{medians[name]:>12.2f}ms{ratio:>6.2f}" for name, ratio in ratios.items())
            shares = "".join(f"{floors.share(least[name], medians[name]):>6}" for name in ("adam", "defaults"))
            print(f"{net:13}{threads:>8}{medians['adam']:>7.2f}ms{shares}{cells}")
    print("share: the floor of Adam, and that of an exact step of the defaults; ratio: over Adam")
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
