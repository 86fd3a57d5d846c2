"""Time steps on a GPU against fused Adam's and Muon's, forward and backward pass included, and count their waits.

A wait is a call in which the host stops until the GPU is done, as torch.cuda.set_sync_debug_mode counts them.
Medians of torch.utils.benchmark.Timer, float32 without TF32, all methods on the same rows in one run. RelaxedBCD
has the numbers of before.py, as in docs/numerics.md; "defaults" is RelaxedBCD with its own.

    python benchmarks/bench_gpu.py [--device cuda] [--quick] [--out benchmark_gpu.json]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from before import BEFORE
from bench_relaxed import make_model
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.benchmark import Timer

import torchbcd

NETS = {"784-300x3-10": (784, 300, 300, 300, 10), "784-2048x3-10": (784, 2048, 2048, 2048, 10)}
ROWS = {"784-300x3-10": (200, 60_000), "784-2048x3-10": (500, 60_000)}
QUICK = {"20-30-10": (20, 30, 10)}
QUICK_ROWS = {"20-30-10": (50,)}


def backpropagated(
    model: nn.Sequential, *optimizers: torch.optim.Optimizer
) -> Callable[[Tensor, Tensor], object]:
    """Forward, backward and update on the cross-entropy."""

    def step(x: Tensor, y: Tensor) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def adam_step(model: nn.Sequential) -> Callable[[Tensor, Tensor], object]:
    """Fused Adam on all parameters."""
    return backpropagated(model, torch.optim.Adam(model.parameters(), fused=True))


def muon_step(model: nn.Sequential) -> Callable[[Tensor, Tensor], object]:
    """Muon on the hidden weights, fused Adam on the others."""
    linears = [module for module in model if isinstance(module, nn.Linear)]
    hidden = [linear.weight for linear in linears[:-1]]
    others = [linear.bias for linear in linears] + [linears[-1].weight]
    return backpropagated(model, torch.optim.Muon(hidden), torch.optim.Adam(others, fused=True))


METHODS: dict[str, Callable[[nn.Sequential], Callable[[Tensor, Tensor], object]]] = {
    "Adam": adam_step,
    "Muon": muon_step,
    "RelaxedBCD": lambda model: torchbcd.RelaxedBCD(model, **BEFORE).step,
    "defaults": lambda model: torchbcd.RelaxedBCD(model).step,
    "BCD": lambda model: torchbcd.BCD(model).step,
    "DLAM": lambda model: torchbcd.DLAM(model).step,
}


def waits(step: Callable[[Tensor, Tensor], object], x: Tensor, y: Tensor) -> int:
    """How often the host waits for the GPU in one step."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # which warns that it is a prototype
        try:
            step(x, y)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def measure(name: str, widths: tuple[int, ...], x: Tensor, y: Tensor, seconds: float) -> dict[str, float]:
    """Median milliseconds of a step and how often it waits."""
    step = METHODS[name](make_model(widths).to(x.device))
    for _ in range(3):
        step(x, y)
    timer = Timer("step(x, y)", globals={"step": step, "x": x, "y": y})
    result = {"milliseconds": 1e3 * timer.blocked_autorange(min_run_time=seconds).median}
    if x.is_cuda:
        result["waits"] = waits(step, x, y)
    return result


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="where to run (default: cuda)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time of each measurement (default: 1)")
    parser.add_argument("--quick", action="store_true", help="a small net, to try the benchmark out")
    parser.add_argument("--out", type=Path, default=Path("benchmark_gpu.json"), help="JSON file to write")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(1)
    results = []
    print(f"{'net':16}{'rows':>8}  {'method':12}{'ms':>10}{'x Adam':>8}{'waits':>7}")
    for net, widths in (QUICK if arguments.quick else NETS).items():
        for rows in (QUICK_ROWS if arguments.quick else ROWS)[net]:
            x = torch.rand(rows, widths[0], generator=generator).to(arguments.device)
            y = torch.randint(10, (rows,), generator=generator).to(arguments.device)
            adam = None
            for name in METHODS:
                result = measure(name, widths, x, y, arguments.seconds)
                adam = adam or result["milliseconds"]
                result["over_adam"] = result["milliseconds"] / adam
                results.append({"net": net, "rows": rows, "method": name, **result})
                print(
                    f"{net:16}{rows:>8}  {name:12}{result['milliseconds']:>10.3f}{result['over_adam']:>8.2f}"
                    f"{result.get('waits', '-'):>7}",
                    flush=True,
                )
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
