"""Time one sweep of BCD: torchbcd, the formulas as their authors published them (Algorithm 2), and the floor.

All in one run and on the same work, in float32. The floor is the sweep's unavoidable floating-point operations
(floors.py) divided by the rate of a large matrix product measured here; times are medians over rounds in which
the contestants take turns, so that a machine whose speed drifts slows all of them alike; on one thread they are
those of the process. Algorithm 1 has a floor where its blocks are least squares, which they are with the
identity.

    python benchmarks/bench_sweep.py [--threads N] [--rounds N] [--quick] [--out benchmark.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import floors
import torch
from torch import Tensor, nn

import torchbcd

GAMMA, ALPHA = 1.0, 0.05


class Workload(NamedTuple):
    """Rows, widths, whether the rows are bound (full batch) or a new mini-batch, and the splitting."""

    name: str
    rows: int
    widths: tuple[int, ...]
    full_batch: bool
    splitting: int = 3  # 2: Algorithm 1, with the identity


WORKLOADS = (
    Workload("20,000 rows, 784-1024x3-10, full batch", 20_000, (784, 1024, 1024, 1024, 10), True),
    Workload("60,000 rows, 784-300x3-10, full batch", 60_000, (784, 300, 300, 300, 10), True),
    Workload("200 rows, 784-2048x3-10, mini-batch", 200, (784, 2048, 2048, 2048, 10), False),
    Workload("20,000 rows, 784-300x3-10, identity", 20_000, (784, 300, 300, 300, 10), True, 2),
)
QUICK = (
    Workload("2,000 rows, 784-256x3-10, full batch", 2_000, (784, 256, 256, 256, 10), True),
    Workload("100 rows, 784-256x3-10, mini-batch", 100, (784, 256, 256, 256, 10), False),
    Workload("500 rows, 784-64x3-10, identity", 500, (784, 64, 64, 64, 10), True, 2),
)


class Published:
    """Algorithm 2 by the formulas of its authors' published program.

    Columns are samples, systems are solved by explicit inverses, the bias is repeated over the columns
    and updated after the weight, and the prox is a chain of `torch.where`.
    """

    def __init__(self, widths: tuple[int, ...], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        pairs = list(pairwise(widths))
        self.w = [0.01 * torch.randn(o, i, generator=generator) for i, o in pairs]
        self.b = [0.1 * torch.ones(o, 1) for _, o in pairs]

    def forward(self, x: Tensor, y: Tensor) -> None:
        """U and V by a forward pass."""
        self.x, self.y, self.u, self.v = x, y, [], [x]
        last = len(self.w) - 1
        for i, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            self.u.append(w @ self.v[-1] + b.repeat(1, x.shape[1]))
            self.v.append(self.u[-1] if i == last else torch.relu(self.u[-1]))

    @staticmethod
    def prox(a: Tensor, b: Tensor, gamma: float) -> Tensor:
        """[Z], Lemma 9, case by case."""
        mean, low = (a + gamma * b) / (1 + gamma), torch.min(b, torch.zeros_like(b))
        bound = a * (gamma - (gamma * (gamma + 1)) ** 0.5)
        value = torch.where(a + gamma * b < 0, low, torch.zeros_like(b))
        right = ((a + gamma * b >= 0) & (b >= 0)) | ((bound <= gamma * b) & (b < 0))
        value = torch.where(right, mean, value)
        return torch.where((-a <= gamma * b) & (gamma * b <= bound), b, value)

    def update_weight(self, i: int) -> None:
        """W, then b, each by its own formula."""
        u, v, w, b = self.u[i], self.v[i], self.w[i], self.b[i]
        d, n = v.shape
        inverse = torch.inverse(ALPHA * torch.eye(d) + GAMMA * (v @ v.t()))
        self.w[i] = (ALPHA * w + GAMMA * (u - b.repeat(1, n)) @ v.t()) @ inverse
        residual = (u - self.w[i] @ v).sum(1).reshape(b.shape)
        self.b[i] = (ALPHA * b + GAMMA * residual) / (GAMMA * n + ALPHA)

    def sweep(self) -> None:
        """One sweep in the paper's order."""
        n, last = self.x.shape[1], len(self.w) - 1
        self.v[-1] = (self.y + GAMMA * self.u[last] + ALPHA * self.v[-1]) / (1 + GAMMA + ALPHA)
        product = self.w[last] @ self.v[last] + self.b[last].repeat(1, n)
        self.u[last] = (GAMMA * self.v[-1] + GAMMA * product) / (2 * GAMMA)
        self.update_weight(last)
        for i in range(last - 1, -1, -1):
            w, b = self.w[i + 1], self.b[i + 1]
            inverse = torch.inverse(GAMMA * (w.t() @ w) + GAMMA * torch.eye(w.shape[1]))
            right = w.t() @ (self.u[i + 1] - b.repeat(1, n))
            self.v[i + 1] = inverse @ (GAMMA * right + GAMMA * torch.relu(self.u[i]))
            product = self.w[i] @ self.v[i] + self.b[i].repeat(1, n)
            centre = (GAMMA * product + ALPHA * self.u[i]) / (GAMMA + ALPHA)
            self.u[i] = self.prox(self.v[i + 1], centre, (GAMMA + ALPHA) / GAMMA)
            self.update_weight(i)


def torchbcd_sweep(work: Workload, x: Tensor, y: Tensor) -> Callable[[], object]:
    """A sweep by this library; on a mini-batch, the forward pass and the checks of a step included."""
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(work.widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.constant_(linear.bias, 0.1)
        modules += [linear, nn.ReLU() if work.splitting == 3 else nn.Identity()]
    model = nn.Sequential(*modules[:-1])
    optimizer = torchbcd.BCD(model, splitting=work.splitting, gamma=GAMMA, alpha=ALPHA)
    if work.full_batch:
        optimizer.bind(x, y)
        return optimizer.step
    return lambda: optimizer.step(x, y)


def published_sweep(work: Workload, x: Tensor, y: Tensor) -> Callable[[], object]:
    """A sweep by the published formulas; on a mini-batch, the forward pass included."""
    net = Published(work.widths)
    columns, targets = x.t().contiguous(), nn.functional.one_hot(y, 10).float().t().contiguous()
    net.forward(columns, targets)
    if work.full_batch:
        return net.sweep

    def step() -> None:
        net.forward(columns, targets)
        net.sweep()

    return step


def measure(work: Workload, rounds: int) -> dict[str, object]:
    """Medians over `rounds` rounds in which product, torchbcd and the published formulas take turns."""
    x = torch.rand(work.rows, work.widths[0], generator=torch.Generator().manual_seed(1))
    y = torch.randint(work.widths[-1], (work.rows,), generator=torch.Generator().manual_seed(2))
    contestants = {"product": floors.product(), "torchbcd": torchbcd_sweep(work, x, y)}
    if work.splitting == 3:
        contestants["published"] = published_sweep(work, x, y)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):  # the first is a warm-up
        for name, call in contestants.items():
            repeats = 5 if name == "product" else 1
            elapsed = min(floors.seconds_of(call) for _ in range(repeats))
            if round_ > 0:
                times[name].append(elapsed)
    rate = floors.rate(statistics.median(times["product"]))
    floor = floors.bcd(work.rows, work.widths, work.full_batch) / rate
    ours = statistics.median(times["torchbcd"])
    result: dict[str, object] = {
        "method": f"BCD, Algorithm {work.splitting - 1}",
        "workload": work.name,
        "threads": torch.get_num_threads(),
        "gflops": rate / 1e9,
        "floor_seconds": floor,
        "torchbcd_seconds": ours,
        "torchbcd_over_floor": ours / floor,
    }
    if work.splitting == 3:
        theirs = statistics.median(times["published"])
        result |= {
            "published_seconds": theirs,
            "published_over_floor": theirs / floor,
            "published_over_torchbcd": theirs / ours,
        }
    return result


def main() -> None:
    """Measure every workload, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="small workloads, to try the benchmark out")
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"), help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    heads = f"{'workload':42}{'GFLOP/s':>9}{'floor s':>9}{'torchbcd':>10}{'share':>7}"
    print(f"{heads}{'published':>11}{'speed-up':>10}")
    results = []
    for work in QUICK if arguments.quick else WORKLOADS:
        result = measure(work, arguments.rounds)
        results.append(result)
        floor, ours = (float(str(result[f"{name}_seconds"])) for name in ("floor", "torchbcd"))
        published = ""
        if "published_seconds" in result:
            published = f"{result['published_over_floor']:>10.2f}x{result['published_over_torchbcd']:>9.2f}x"
        print(
            f"{result['workload']:42}{result['gflops']:>9.0f}{floor:>9.3f}{ours / floor:>9.2f}x"
            f"{floors.share(floor, ours):>7}{published}",
            flush=True,
        )
    print("torchbcd, published: times over the floor, share: the floor of it; speed-up: published over torchbcd")
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
