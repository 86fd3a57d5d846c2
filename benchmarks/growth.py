"""Seconds of a step or a sweep against rows, width, depth and classes, for each optimizer, beside the floor.

    python benchmarks/growth.py

makes docs/results/growth.json, growth.md and growth.png. One quantity at a time grows, on a net of CASES below,
with ReLU unless said. Full batches are bound; steps are on mini-batches of 100 rows, where these do not grow
themselves. RelaxedBCD has the defaults of its `fit`, the others their own; data are random numbers, inputs N(0,
1), weights He's. Adam is fused, on the squared loss, its forward and backward pass included.

Seconds are those of the process (time.process_time) on one thread with denormal numbers flushed: the median of
a few calls after one or two to warm up. Beside each point the rate of a large matrix product is measured, and
the floor is that of floors.py at this rate.

The results file is the state: each point is written at once, and what it has is not measured again. A line ends
where its next point would take more than `--seconds` or `--memory`, which it then says; a line runs in a
process of its own, whose memory is bounded. `--report` does nothing but write table and plot anew.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import floors
import growth_report
import torch
from torch import Tensor, nn
from torch.nn import functional

import torchbcd
from torchbcd import fit_rules

OUTPUT = Path(__file__).resolve().parents[1] / "docs/results/growth.json"
BATCH, INPUTS, EPOCH = 100, 64, 60_000
CALLS = 4  # what a point of one dear call takes: the set-up, one to warm up, two that count
Call = Callable[[], object]


class Work(NamedTuple):
    """What a point is: so many rows, and the widths of the net, inputs and classes among them."""

    rows: int
    widths: tuple[int, ...]


Floor = Callable[[Work], float] | None


def model_of(work: Work, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """He's weights, without his factor where nothing is cut off, and no biases."""
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for _, inputs, outputs in floors.layers_of(work.widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu" if activation is nn.ReLU else "linear")
        nn.init.zeros_(linear.bias)
        modules += [linear, activation()]
    return nn.Sequential(*modules[:-1])


def data_of(work: Work) -> tuple[Tensor, Tensor]:
    """Random rows and classes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(work.rows, work.widths[0], generator=generator)
    return x, torch.randint(work.widths[-1], (work.rows,), generator=generator)


def relaxed_of(work: Work) -> torchbcd.RelaxedBCD:
    """With the weight decay that its `fit` would set on 60,000 rows."""
    decay = fit_rules.weight_decay(2e-4, BATCH, EPOCH)
    return torchbcd.RelaxedBCD(model_of(work), weight_decay=decay)


def relaxed_step(work: Work) -> Call:
    """A step on a mini-batch."""
    optimizer, data = relaxed_of(work), data_of(work)
    return lambda: optimizer.step(*data)


def relaxed_bound(work: Work) -> Call:
    """A step on bound data."""
    optimizer = relaxed_of(work)
    optimizer.bind(*data_of(work))
    return optimizer.step


def bcd(splitting: int, activation: type[nn.Module]) -> Callable[[Work], Call]:
    """A sweep of either algorithm."""

    def made(work: Work) -> Call:
        optimizer = torchbcd.BCD(model_of(work, activation), splitting=splitting)
        optimizer.bind(*data_of(work))
        return optimizer.step

    return made


def dlam(work: Work) -> Call:
    """A sweep of mDLAM."""
    optimizer = torchbcd.DLAM(model_of(work))
    optimizer.bind(*data_of(work))
    return optimizer.step


def dladmm(work: Work) -> Call:
    """A sweep of dlADMM."""
    optimizer = torchbcd.DLADMM(model_of(work))
    optimizer.bind(*data_of(work))
    return optimizer.step


def adam(work: Work) -> Call:
    """Forward, backward and update on the squared loss."""
    model, (x, y) = model_of(work), data_of(work)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        target = functional.one_hot(y, work.widths[-1]).float()
        (0.5 * (model(x) - target).square().sum(1).mean()).backward()
        optimizer.step()

    return step


class Line(NamedTuple):
    """A line of every panel: whom to call, its floor, on a mini-batch or not, on nets how much narrower."""

    name: str
    make: Callable[[Work], Call]
    floor: Floor
    mini: bool = False
    small: bool = False


LINES = {
    line.name: line
    for line in (
        Line("RelaxedBCD, step", relaxed_step, lambda w: floors.relaxed(*w), mini=True),
        Line("Adam, step", adam, lambda w: floors.backpropagation(*w), mini=True),
        Line("RelaxedBCD, bound", relaxed_bound, lambda w: floors.relaxed(*w, bound=True)),
        Line("BCD, Algorithm 2", bcd(3, nn.ReLU), lambda w: floors.bcd(*w)),
        Line("BCD, Algorithm 1, identity", bcd(2, nn.Identity), lambda w: floors.bcd(*w)),
        Line("BCD, Algorithm 1, tanh", bcd(2, nn.Tanh), None, small=True),
        Line("DLAM", dlam, lambda w: floors.dlam(*w)),
        Line("dlADMM", dladmm, lambda w: floors.dladmm(*w)),
        Line("Adam, all rows", adam, lambda w: floors.backpropagation(*w)),
    )
}


class Case(NamedTuple):
    """A panel: what grows, for the lines of mini-batches, of full batches and of small nets."""

    said: str
    mini: tuple[int, ...]
    full: tuple[int, ...]
    small: tuple[int, ...]
    work: Callable[[int, Line], Work]


def rows_of(line: Line) -> int:
    """Where rows do not grow."""
    return BATCH if line.mini else 300 if line.small else 1000


def width_of(line: Line) -> int:
    """Of hidden layers, where it does not grow."""
    return 16 if line.small else 64


CASES = {
    "rows": Case(
        "rows: 64-64-64-10 (Algorithm 1 with tanh: 64-16-16-10)",
        (10, 30, 100, 300, 1000, 3000, 10_000),
        (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
        (100, 300, 1000, 3000, 10_000),
        lambda size, line: Work(size, (INPUTS, width_of(line), width_of(line), 10)),
    ),
    "width": Case(
        "width: two hidden layers of it, 64 inputs, 10 classes",
        (64, 128, 256, 512, 1024, 2048, 4096),
        (64, 128, 256, 512, 1024, 2048, 4096),
        (8, 16, 32, 64, 128),
        lambda size, line: Work(rows_of(line), (INPUTS, size, size, 10)),
    ),
    "depth": Case(
        "depth: hidden layers of 64 (16), 64 inputs, 10 classes",
        (1, 2, 4, 10, 20, 40),
        (1, 2, 4, 10, 20, 40),
        (1, 2, 4, 10, 20, 40),
        lambda size, line: Work(rows_of(line), (INPUTS, *[width_of(line)] * size, 10)),
    ),
    "classes": Case(
        "classes: 64-64-64-classes (64-16-16-classes)",
        (2, 10, 30, 100, 300, 1000, 3000, 10_000),
        (2, 10, 30, 100, 300, 1000, 3000, 10_000),
        (2, 10, 30, 100, 300, 1000),
        lambda size, line: Work(rows_of(line), (INPUTS, width_of(line), width_of(line), size)),
    ),
}


def sizes_of(quantity: str, line: Line) -> tuple[int, ...]:
    """The points of a line."""
    case = CASES[quantity]
    return case.mini if line.mini else case.small if line.small else case.full


def measure(line: Line, work: Work) -> dict[str, float]:
    """The median of calls, of at least two; their number goes by what one takes."""
    call = line.make(work)
    warming = floors.seconds_of(call)
    if warming < 1:
        warming = floors.seconds_of(call)
    times: list[float] = []
    while len(times) < 2 or (sum(times) < 0.5 and len(times) < 15):
        times.append(floors.seconds_of(call))
    product = floors.product()
    rate = floors.rate(min(floors.seconds_of(product) for _ in range(3)))
    point = {"seconds": statistics.median(times), "calls": len(times), "gflops": rate / 1e9}
    if line.floor:
        point["floor"] = line.floor(work) / rate
    return point


def say(**point: Any) -> None:
    """A point, to the process that collects them."""
    print(json.dumps(point, separators=(",", ":")), flush=True)


def run_line(arguments: argparse.Namespace) -> None:
    """The points of one line that are missing, one a line of output; the last one may say why it is missing."""
    line, case = LINES[arguments.line], CASES[arguments.quantity]
    status = Path("/proc/self/status").read_text() if Path("/proc/self/status").exists() else ""
    if "VmSize:" in status:
        held = 1024 * int(status.split("VmSize:")[1].split()[0])
        most = held + int(arguments.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for size in arguments.points:
        try:
            point: dict[str, Any] = measure(line, case.work(size, line))
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error) and not isinstance(error, MemoryError):
                raise
            point = {"skipped": f"more than {arguments.memory:g} GiB"}
        say(quantity=arguments.quantity, line=line.name, size=size, **point)
        if "skipped" in point:
            return


class Results:
    """The file of points."""

    def __init__(self, path: Path):
        self.path = path
        self.machines: list[str] = []
        self.points: list[dict[str, Any]] = []
        if path.exists():
            stored = json.loads(path.read_text())
            self.machines, self.points = stored["machines"], stored["points"]

    def add(self, point: dict[str, Any]) -> None:
        """Write the file, one entry a line."""
        machine = f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}"
        if machine not in self.machines:
            self.machines.append(machine)
        self.points.append({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in point.items()})
        text = ",\n".join(
            f'"{name}": [\n' + ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries) + "\n]"
            for name, entries in (("machines", self.machines), ("points", self.points))
        )
        arriving = self.path.with_suffix(".part")
        arriving.write_text("{" + text + "}\n")
        arriving.rename(self.path)

    def of(self, quantity: str, line: str) -> list[dict[str, Any]]:
        """A line's points, in order."""
        found = [p for p in self.points if (p["quantity"], p["line"]) == (quantity, line)]
        return sorted(found, key=lambda point: point["size"])


def next_size(found: list[dict[str, Any]], sizes: tuple[int, ...], most: float) -> int | dict[str, Any] | None:
    """The next point of a line; or one that says that it would take too long; or None."""
    if found and "skipped" in found[-1]:
        return None
    missing = [size for size in sizes if size not in {point["size"] for point in found}]
    if not missing:
        return None
    size = missing[0]
    if len(found) >= 2 and size > found[-1]["size"]:
        before, last = found[-2:]
        exponent = math.log(last["seconds"] / before["seconds"]) / math.log(last["size"] / before["size"])
        expected = CALLS * last["seconds"] * (size / last["size"]) ** max(exponent, 1.0)
        if expected > most:
            return {"size": size, "skipped": f"it would take {expected:.0f} s"}
    return size


def collect(results: Results, arguments: argparse.Namespace, quantity: str, line: Line) -> None:
    """All points of a line that are missing, by a process at a time."""
    sizes = tuple(size for size in sizes_of(quantity, line) if size <= arguments.largest)
    while True:
        following = next_size(results.of(quantity, line.name), sizes, arguments.seconds)
        if following is None:
            return
        if isinstance(following, dict):
            results.add({"quantity": quantity, "line": line.name, **following})
            return
        there = {point["size"] for point in results.of(quantity, line.name)}
        points = [str(size) for size in sizes if size not in there]
        command = [sys.executable, __file__, "--line", line.name, "--quantity", quantity, "--points", *points,
                   "--memory", str(arguments.memory)]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for text in process.stdout:
                results.add(json.loads(text))
                if not isinstance(next_size(results.of(quantity, line.name), sizes, arguments.seconds), int):
                    process.kill()
            code = process.wait()
        if code > 0 or len(results.of(quantity, line.name)) == len(there):
            raise SystemExit(f"{line.name}, {quantity}: the process has failed")


def main() -> None:
    """Measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantities", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES), help="default: all")
    parser.add_argument("--largest", type=int, default=10**9, help="leave out points beyond this size")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a point, set-up included (default: 20)")
    parser.add_argument("--memory", type=float, default=4.0, help="GiB of a point (default: 4)")
    parser.add_argument("--results", type=Path, default=OUTPUT, help="JSON file; table and plot lie beside it")
    parser.add_argument("--report", action="store_true", help="write table and plot of the results there are")
    parser.add_argument("--line", help=argparse.SUPPRESS)
    parser.add_argument("--quantity", help=argparse.SUPPRESS)
    parser.add_argument("--points", type=int, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if arguments.line:
        run_line(arguments)
        return
    results = Results(arguments.results)
    if not arguments.report:
        for quantity in arguments.quantities:
            for name in arguments.lines:
                collect(results, arguments, quantity, LINES[name])
                print(quantity, name, flush=True)
    said = {quantity: case.said for quantity, case in CASES.items()}
    growth_report.write(results.points, said, list(LINES), arguments.results)


if __name__ == "__main__":
    main()
