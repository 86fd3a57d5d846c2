"""Time a sweep of mDLAM: torchbcd, and the formulas as their authors' published program has them; and of dlADMM.

In float32, on the same data, taking turns, so that a machine whose speed drifts slows all alike; beside the
floor (floors.py) at the rate of a large matrix product, measured in turn with them. On one thread seconds are
those of the process. The published program recomputes F from scratch, in full, before and after every block
(its W, b, z and a), finds theta and tau by doubling from 1, and solves for z_L by FISTA; its extrapolations
come out as zero.

    python benchmarks/bench_dlam.py [--threads N] [--rounds N] [--quick] [--out benchmark_dlam.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import floors
import torch
from torch import Tensor, nn
from torch.nn import functional

import torchbcd

RHO, EPS = 1e-3, 0.1
WORKLOADS = {
    "10,000 rows, 784-100-100-10": (10_000, (784, 100, 100, 10)),
    "10,000 rows, 784-500-500-10": (10_000, (784, 500, 500, 10)),
}
OURS = ("mDLAM", "joint", "dlADMM")
QUICK = {"500 rows, 784-50-50-10": (500, (784, 50, 50, 10))}


class Published:
    """mDLAM by the published formulas, its doublings limited as there (ten for each step)."""

    def __init__(self, model: nn.Sequential, x: Tensor, y: Tensor) -> None:
        linears = [module for module in model if isinstance(module, nn.Linear)]
        self.w = [linear.weight.detach().clone() for linear in linears]
        self.b = [linear.bias.detach().clone() for linear in linears]
        self.y = y
        self.one_hot = functional.one_hot(y, self.w[-1].shape[0]).float()
        self.a, self.z = [x], []
        for w, b in zip(self.w, self.b, strict=True):
            self.z.append(self.a[-1] @ w.t() + b)
            self.a.append(self.z[-1].relu())

    def phi(self, i: int, w: Tensor, b: Tensor, a: Tensor) -> float:
        """The penalty, rho/2 times the squared residual."""
        return RHO / 2 * (self.z[i] - a @ w.t() - b).square().sum().item()

    def objective(self) -> float:
        """F, every term from scratch."""
        total = functional.cross_entropy(self.z[-1], self.y, reduction="sum").item()
        for i in range(len(self.w)):
            total += self.phi(i, self.w[i], self.b[i], self.a[i])
            if i + 1 < len(self.w):
                total += float((self.a[i + 1] - self.z[i].relu()).abs().max() > EPS)
        return total

    def doubled(
        self, start: Tensor, gradient: Tensor, clip: Callable[[Tensor], Tensor], value: Callable[[Tensor], float]
    ) -> Tensor:
        """A step whose curvature is doubled from 1 until its model majorises."""
        here, theta = value(start), 1.0
        for _ in range(11):
            step = clip(start - gradient / theta)
            change = step - start
            if here + (gradient * change).sum().item() + theta / 2 * change.square().sum().item() >= value(step):
                return step
            theta *= 2
        return start

    def checked(self, update: Callable[[], None]) -> None:
        """A block between two evaluations of F, as the program guards it."""
        before = self.objective()
        update()
        if self.objective() > before:
            update()

    def update_w(self, i: int) -> None:
        """W_i, by its quadratic model."""
        w, b, a = self.w[i], self.b[i], self.a[i]
        gradient = RHO * (a @ w.t() + b - self.z[i]).t() @ a
        self.w[i] = self.doubled(w, gradient, lambda s: s, lambda s: self.phi(i, s, b, a))

    def update_b(self, i: int) -> None:
        """b_i, by the mean residual."""
        self.b[i] = self.b[i] - (self.a[i] @ self.w[i].t() + self.b[i] - self.z[i]).mean(0)

    def update_z(self, i: int) -> None:
        """z_i: clipped, or by FISTA in the last layer."""
        q = self.a[i] @ self.w[i].t() + self.b[i]
        if i + 1 < len(self.w):
            a = self.a[i + 1]
            low = torch.where(a - EPS > 0, a - EPS, -torch.inf)
            self.z[i] = torch.minimum(torch.maximum(q, low), a + EPS)
            return
        x = point = self.z[i]
        t = 1.0
        for _ in range(100):
            gradient = point.softmax(1) - self.one_hot
            following = (point / 0.25 - gradient + RHO * q) / (1 / 0.25 + RHO)
            t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
            point, x, t = following + (t - 1) / t_next * (following - x), following, t_next
        self.z[i] = x

    def update_a(self, i: int) -> None:
        """The states after layer i, by their quadratic model."""
        w, b, a, centre = self.w[i + 1], self.b[i + 1], self.a[i + 1], self.z[i].relu()
        gradient = RHO * (a @ w.t() + b - self.z[i + 1]) @ w
        self.a[i + 1] = self.doubled(
            a,
            gradient,
            lambda s: torch.minimum(torch.maximum(s, centre - EPS), centre + EPS),
            lambda s: self.phi(i + 1, w, b, s),
        )

    def sweep(self) -> None:
        """One sweep."""
        for i in range(len(self.w)):
            self.checked(lambda i=i: self.update_w(i))
            self.checked(lambda i=i: self.update_b(i))
            self.checked(lambda i=i: self.update_z(i))
            if i + 1 < len(self.w):
                self.checked(lambda i=i: self.update_a(i))


def make_model(widths: tuple[int, ...]) -> nn.Sequential:
    """A ReLU net with PyTorch's initialisation."""
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        modules += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def measure(name: str, rows: int, widths: tuple[int, ...], rounds: int) -> dict[str, object]:
    """Medians over rounds in which the contestants take turns."""
    x = torch.randn(rows, widths[0], generator=torch.Generator().manual_seed(1))
    y = torch.randint(widths[-1], (rows,), generator=torch.Generator().manual_seed(2))
    contestants: dict[str, Callable[[], object]] = {"published": Published(make_model(widths), x, y).sweep}
    for variant, options in (("mDLAM", {}), ("joint", {"joint": True})):
        schedule = torchbcd.EpsSchedule(EPS, 1.0, EPS)
        optimizer = torchbcd.DLAM(make_model(widths), rho=RHO, eps=schedule, **options)
        optimizer.bind(x, y)
        contestants[variant] = optimizer.step
    admm = torchbcd.DLADMM(make_model(widths), rho=RHO)
    admm.bind(x, y)
    contestants |= {"dlADMM": admm.step, "product": floors.product()}
    times: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for round_ in range(rounds + 2):  # the first two warm up
        for contestant, call in contestants.items():
            elapsed = floors.seconds_of(call)
            if round_ > 1:
                times[contestant].append(elapsed)
    medians = {contestant: statistics.median(values) for contestant, values in times.items()}
    rate = floors.rate(medians.pop("product"))
    mdlam, dladmm = (floor(rows, widths) / rate for floor in (floors.dlam, floors.dladmm))
    return {
        "workload": name,
        "threads": torch.get_num_threads(),
        "gflops": rate / 1e9,
        **{f"{contestant}_seconds": value for contestant, value in medians.items()},
        "floors": {"mDLAM": mdlam, "joint": mdlam, "dlADMM": dladmm},
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a small workload, to try the benchmark out")
    parser.add_argument("--out", type=Path, default=Path("benchmark_dlam.json"), help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    workloads = QUICK if arguments.quick else WORKLOADS
    results = [measure(name, rows, widths, arguments.rounds) for name, (rows, widths) in workloads.items()]
    print(f"{'workload':30}{'published':>10}" + "".join(f"{name:>9}{'ratio':>7}{'share':>7}" for name in OURS))
    for result in results:
        seconds = {name: float(str(result[f"{name}_seconds"])) for name in ("published", *OURS)}
        shares: dict[str, float] = result["floors"]  # type: ignore[assignment]
        cells = "".join(
            f"{seconds[name]:>8.3f}s{seconds['published'] / seconds[name]:>7.1f}"
            f"{floors.share(shares[name], seconds[name]):>7}"
            for name in OURS
        )
        print(f"{result['workload']!s:30}{seconds['published']:>9.3f}s{cells}")
    print("ratio: published over it; share: the floor of it")
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
