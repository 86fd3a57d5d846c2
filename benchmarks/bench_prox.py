"""Time the proxes that iterate: nanoseconds an entry on one core, and what they make of a sweep of BCD.

    python benchmarks/bench_prox.py [--rounds N]

Entry by entry: 200,000 problems, targets uniform in (-0.8, 0.8) for activations and -1 or 1, or 0 or 1, for
losses, centres from N(0, 1.5^2), for several gamma; the closed form of ReLU beside them. Cross-entropy: rows of
standard normal numbers with a one-hot target, beside torch.log_softmax of the same rows. A sweep: 20,000
rows, 784-300x3-10, Algorithm 2, bound full batch, the same net with ReLU and with another activation. Medians of
rounds that take turns, in seconds of the process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import torchbcd
from torchbcd import functional

GAMMAS = (0.03, 0.1, 0.3, 1.0, 3.0, 30.0)
ENTRIES = 200_000
SMOOTH = (
    "gelu",
    "gelu_tanh",
    "elu",
    "softplus",
    "mish",
    "logsigmoid",
    "softsign",
    "tanhshrink",
    "hardswish",
    "sine",
)
PROXES = {
    **dict.fromkeys(("relu", "softshrink", "hardshrink", "tanh", "sigmoid", "silu", *SMOOTH), 0),
    **dict.fromkeys(("logistic_loss", "exponential_loss"), 1),
    **dict.fromkeys(("binary_cross_entropy_loss", "poisson_loss", "quantile_loss"), 2),
}
ROWS = {10: 20_000, 1000: 300}
ACTIVATIONS = {"ReLU": nn.ReLU, "Tanh": nn.Tanh, "Sigmoid": nn.Sigmoid, "SiLU": nn.SiLU, "GELU": nn.GELU}


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each call, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if round_:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def entries(dtype: torch.dtype, rounds: int) -> None:
    """The proxes of an entry."""
    generator = torch.Generator().manual_seed(0)
    activation = torch.rand(ENTRIES, generator=generator, dtype=dtype) * 1.6 - 0.8
    sign = torch.randn(ENTRIES, generator=generator, dtype=dtype).sign()
    b = 1.5 * torch.randn(ENTRIES, generator=generator, dtype=dtype)
    for name, loss in PROXES.items():
        prox = getattr(functional, f"prox_{name}")
        a = (activation, sign, (sign + 1) / 2)[loss]
        times = medians({f"{gamma:g}": lambda a=a, p=prox, g=gamma: p(a, b, g) for gamma in GAMMAS}, rounds)
        line = "  ".join(f"{gamma}: {1e9 * seconds / ENTRIES:.1f}" for gamma, seconds in times.items())
        print(f"prox_{name:26} {str(dtype)[6:]}  ns an entry by gamma  {line}", flush=True)


def cross_entropy(dtype: torch.dtype, rounds: int) -> None:
    """The prox of a row."""
    generator = torch.Generator().manual_seed(0)
    for classes, rows in ROWS.items():
        v = torch.randn(rows, classes, generator=generator, dtype=dtype)
        labels = torch.randint(classes, (rows,), generator=generator)
        y = nn.functional.one_hot(labels, classes).to(dtype)
        calls: dict[str, Callable[[], object]] = {"log_softmax": lambda v=v: torch.log_softmax(v, 1)}
        for gamma in (0.1, 1.0, 10.0):
            calls[f"prox, gamma {gamma:g}"] = lambda v=v, y=y, gamma=gamma: functional.prox_cross_entropy_loss(
                y, v, gamma
            )
        times = medians(calls, rounds)
        line = "  ".join(f"{name}: {1e9 * seconds / v.numel():.2f}" for name, seconds in times.items())
        print(f"cross-entropy, {classes} classes, {str(dtype)[6:]}  ns an entry  {line}", flush=True)


def sweeps(rounds: int) -> None:
    """Sweeps of BCD."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20_000, 784, generator=generator)
    y = torch.randint(10, (20_000,), generator=generator)
    optimizers = {}
    for name, activation in ACTIVATIONS.items():
        torch.manual_seed(0)
        hidden = [m for inputs in (784, 300, 300) for m in (nn.Linear(inputs, 300), activation())]
        optimizers[name] = torchbcd.BCD(nn.Sequential(*hidden, nn.Linear(300, 10)), alpha=0.05)
        optimizers[name].bind(x, y)
    times = medians({name: optimizer.step for name, optimizer in optimizers.items()}, rounds)
    line = "  ".join(f"{name} {seconds / times['ReLU']:.2f}" for name, seconds in times.items())
    print(f"a sweep of BCD, relative to ReLU's {times['ReLU']:.2f} s  {line}", flush=True)


def main() -> None:
    """All of it, on one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for dtype in (torch.float32, torch.float64):
        entries(dtype, arguments.rounds)
        cross_entropy(dtype, arguments.rounds)
    sweeps(arguments.rounds)


if __name__ == "__main__":
    main()
