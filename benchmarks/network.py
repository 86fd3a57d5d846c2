"""Seconds to 85 and 88 % on Fashion-MNIST where ranks are far from one another: RelaxedBCD, AdamW and Muon.

    sudo python benchmarks/network.py
    python benchmarks/network.py --model

The first one makes docs/results/network.json, network.md and network.png; the second writes table and plot anew
from the constants in the file. Ranks are processes in network namespaces of this machine (slow_network.py: root,
iproute2; where there can be none, the reason is printed and what needs none is done), of which each sends
`--rate` Mbit/s, and what it sends arrives `--delay` ms later. `--rate 0 --delay 0` is this machine's loopback.

Methods: RelaxedBCD with sums over ranks in sweeps of all rows; AdamW and torch.optim.Muon under
DistributedDataParallel; all three in rounds of local steps, then an average of the weights, as
examples/python/local_rounds.py has it. Rows are split at random. Settings are the best ones that rounds.py found
for such a case on validation rows; how long a run is, METHODS says, by looks at validation rows as well. The test
part is only looked at to say when 85 and 88 % are reached, after a run, on weights that were kept on its way.

Seconds are those of the clock. Computing is CPU time of a rank's main thread, queueing the time that this thread
has waited for a core, of which there may be fewer than ranks (both of the rank with the largest sum); the rest is
communication. Bytes are those given to all-reduces, and those that the kernel counts on rank 0's interface.

Also measured: all-reduces by themselves, and, in one process, rounds of more ranks than there are processes here,
for how many rounds they need. network_model.py says what is made of it for 8 to 1,024 ranks.

The results file is the state: what it has is not done again.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import data_sets
import local_rounds
import network_report
import rounds
import slow_network
import torch
import torch.distributed as dist
from compare_training import Results
from contestants import Options
from data_sets import SETS, Data
from torch.distributed.algorithms.model_averaging.utils import average_parameters
from torch.nn.parallel import DistributedDataParallel

OUTPUT = Path(__file__).resolve().parents[1] / "docs/results/network.json"
SMALL = (network_report.FEW_NUMBERS, network_report.SMALL)  # numbers of all-reduces, for what a hop costs
LARGE = (100_000, 1_000_000)  # to check the model
REPETITIONS = 7
PATIENCE = 1500  # seconds for all that a number of ranks has to do
RELAXED = "RelaxedBCD"
LONGER = 2  # times the rounds of METHODS, for more ranks than there are processes here


class Method(NamedTuple):
    """Who trains, and how often ranks meet."""

    optimizer: str
    local: bool
    case: str  # of rounds.py, which has searched for it
    epochs: float
    syncs: int  # steps, or rounds
    every: int  # of them, between looks

    @property
    def name(self) -> str:
        """In tables."""
        if self.local:
            return f"{self.optimizer}, local rounds"
        return f"{self.optimizer}, {'sweeps' if self.optimizer == RELAXED else 'DDP'}"


FEW, MORE = "4 workers, at random", "16 workers, at random"
METHODS = (
    Method(RELAXED, False, f"{rounds.SYNCHRONISED}, 3 steps", 16, 16, 1),
    Method("AdamW", False, f"{rounds.SYNCHRONISED}, 300 steps", 3.6, 360, 10),
    Method("Muon", False, f"{rounds.SYNCHRONISED}, 300 steps", 1.5, 150, 5),
    Method(RELAXED, True, FEW, 3, 6, 1),
    Method("AdamW", True, FEW, 10, 20, 1),
    Method("Muon", True, FEW, 3, 6, 1),
)


class Far(NamedTuple):
    """The network."""

    rate: float
    delay: float

    @property
    def limited(self) -> bool:
        """Whether it takes namespaces."""
        return bool(self.rate or self.delay)


def option(method: Method, ranks: int = 0) -> Options:
    """The best setting of rounds.json; of rounds on many ranks the one for many workers."""
    case = MORE if method.local and ranks > 8 else method.case
    found = Results(rounds.OUTPUT).best(case, method.optimizer)
    workers = int(case.split()[0]) if method.local else 0
    return (found or {}).get("setting") or rounds.setting(
        method.optimizer, rounds.Case(case, workers, False, 0), 0
    )


class Job(NamedTuple):
    """What the processes of a number of ranks do."""

    far: Far
    ranks: int
    data: Data
    set_: data_sets.Set
    results: Results
    methods: list[Method]
    sizes: list[int]
    seed: int


def train(method: Method, job: Job, rank: int) -> dict[str, Any]:
    """A run of a rank: the looks at it, and what it has sent."""
    data, options = job.data, option(method)
    model = data_sets.make_model(job.set_, data, job.seed, options["start"])
    batch = options["batch"]
    if not method.local:
        batch = max(1, round(len(data.x) * method.epochs / method.syncs / job.ranks))
        if method.optimizer == RELAXED:
            options = {**options, "process_group": dist.group.WORLD}
    parallel = not method.local and method.optimizer != RELAXED
    options = {**options, "batch": batch}
    made = rounds.MAKE[method.optimizer](DistributedDataParallel(model) if parallel else model, options, data)
    own = local_rounds.shares(data.y, job.ranks, False, job.seed)[rank]
    worker = rounds.Worker(made, model, local_rounds.batches(own, batch, job.seed, rank))
    runs = local_rounds.rounds_of(len(data.x) // job.ranks, batch, method.epochs, method.syncs)
    parameters = list(model.parameters())
    numbers = sum(p.numel() for p in parameters)
    given, kept, before = 0, [], slow_network.sent() if job.far.limited else 0
    dist.barrier()
    start, (cpu, queued) = time.monotonic(), clocks()
    for number, steps in enumerate(runs, 1):
        for step in steps:
            worker.step(data, local_rounds.factor(step, runs[-1].stop, options["hold"]))
            given += getattr(made[0][0], "bytes_sent", 0)
        if method.local:
            average_parameters(iter(parameters), dist.group.WORLD)
        given += 4 * numbers if parallel or method.local else 0
        if number % method.every == 0:
            weights = [p.detach().clone() for p in parameters] if rank == 0 else []
            now, now_queued = clocks()
            kept.append((number, time.monotonic() - start, (now - cpu, now_queued - queued), given, weights))
    counted = slow_network.sent() - before if job.far.limited else None
    computing: list[Any] = [None] * job.ranks
    dist.all_gather_object(computing, [look[2] for look in kept])
    looks, shown = [], copy.deepcopy(model)
    for (number, seconds, _, bytes_, weights), each in zip(kept, zip(*computing, strict=True), strict=True):
        busy = max(each, key=sum)  # of the rank that was the longest busy, or waiting to be
        score = 0.0
        if rank == 0:
            torch.nn.utils.vector_to_parameters(torch.cat([w.flatten() for w in weights]), shown.parameters())
            score = data_sets.score(shown, data)
        looks.append([number, *(round(part, 3) for part in (seconds, *busy)), bytes_, round(score, 2)])
    return {
        "method": method.name, "rate": job.far.rate, "delay": job.far.delay, "ranks": job.ranks, "seed": job.seed,
        "rows": batch, "steps": runs[-1].stop, "looks": looks, "counted": counted,
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def clocks() -> tuple[float, float]:
    """CPU seconds of this thread, and those that it has waited for a core (0 where the kernel does not say)."""
    accounts = Path("/proc/thread-self/schedstat")
    queued = float(accounts.read_text().split()[1]) / 1e9 if accounts.exists() else 0.0
    return time.thread_time(), queued


def all_reduces(job: Job, numbers: int) -> dict[str, Any]:
    """Seconds of one, the median of some that follow one another."""
    tensor, seconds = torch.ones(numbers), []
    dist.all_reduce(tensor)
    for _ in range(REPETITIONS):
        start = time.monotonic()
        dist.all_reduce(tensor)
        seconds.append(time.monotonic() - start)
    return {"kind": "all-reduce", "rate": job.far.rate, "delay": job.far.delay, "ranks": job.ranks,
            "numbers": numbers, "seconds": round(statistics.median(seconds), 5)}  # fmt: skip


def work(rank: int, job: Job, network: slow_network.Network | None, port: int) -> None:
    """A process."""
    slow_network.die_with_parent()
    if network is not None:
        network.enter(rank)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if network is None else "eth0"
    first = "127.0.0.1" if network is None else slow_network.address(0)
    dist.init_process_group("gloo", init_method=f"tcp://{first}:{port}", rank=rank, world_size=job.ranks)
    for numbers in job.sizes:
        entry = all_reduces(job, numbers)
        if rank == 0:
            job.results.trials.append(entry)
            job.results.save()
    for method in job.methods:
        entry = train(method, job, rank)
        if rank == 0:
            job.results.runs.append(entry)
            job.results.save()
            print(f"{method.name}, {job.ranks} ranks: {entry['looks'][-1]}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as any_:
        any_.bind(("127.0.0.1", 0))
        return int(any_.getsockname()[1])


def launch(job: Job) -> None:
    """All processes of a job: forks, so that torch and the data are loaded once."""
    context = multiprocessing.get_context("fork")
    place = slow_network.Network(job.ranks, *job.far) if job.far.limited else nullcontext()
    with place as network:
        arguments = (job, network, free_port())
        processes = [context.Process(target=work, args=(rank, *arguments)) for rank in range(job.ranks)]
        try:
            for process in processes:
                process.start()
            last = time.monotonic() + PATIENCE
            while any(process.exitcode is None for process in processes):
                if any(process.exitcode for process in processes):
                    raise SystemExit("a rank has failed")
                if time.monotonic() > last:
                    raise SystemExit("the ranks have not come to an end")
                time.sleep(0.1)
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()


def measure(results: Results, arguments: argparse.Namespace, data: Data, far: Far) -> None:
    """All runs and all-reduces that the file does not have; small all-reduces also without limits."""
    for ranks in arguments.ranks:
        for where in dict.fromkeys((Far(0, 0), far)):
            place = (where.rate, where.delay, ranks)
            there = {r["method"] for r in results.runs if (r["rate"], r["delay"], r["ranks"]) == place}
            known = {t["numbers"] for t in results.trials if t["kind"] == "all-reduce"
                     and (t["rate"], t["delay"], t["ranks"]) == place}  # fmt: skip
            methods = [m for m in METHODS if m.name not in there] if where == far else []
            sizes = [n for n in (SMALL if where != far else SMALL + LARGE) if n not in known and ranks > 1]
            if methods or sizes:
                set_ = SETS[arguments.set]
                launch(Job(where, ranks, data, set_, results, methods, sizes, arguments.seed))
                fresh = Results(results.path)  # a child has written it
                results.machines, results.trials, results.runs = fresh.machines, fresh.trials, fresh.runs


class Reached(Exception):  # noqa: N818
    """The last level is."""


def simulate(results: Results, arguments: argparse.Namespace, data: Data) -> None:
    """How many rounds more ranks than there are processes need: ranks in turn, as in rounds.py."""
    set_ = SETS[arguments.set]
    there = {(t["method"], t["ranks"]) for t in results.trials if t["kind"] == "simulated"}
    todo = [
        (ranks, m) for ranks in arguments.simulated for m in METHODS if m.local and (m.name, ranks) not in there
    ]
    for ranks, method in todo:
        looks: list[list[float]] = []

        def look(workers: list[rounds.Worker], looks: list[list[float]] = looks) -> None:
            looks.append([len(looks) + 1, round(data_sets.score(workers[0].model, data), 2)])
            if looks[-1][1] >= max(network_report.LEVELS):
                raise Reached

        options, case = option(method, ranks), rounds.Case("", ranks, False, 0)
        epochs, syncs = LONGER * method.epochs, LONGER * method.syncs
        steps = local_rounds.rounds_of(len(data.x) // ranks, options["batch"], epochs, syncs)[-1].stop
        with suppress(Reached):
            rounds.train(method.optimizer, options, case, data, set_, syncs, arguments.seed, epochs, look)
        results.trials.append({"kind": "simulated", "method": method.name, "ranks": ranks, "looks": looks,
                               "rows": options["batch"], "steps": steps, "syncs": syncs})  # fmt: skip
        results.save()
        print(f"{method.name}, {ranks} ranks in turn: {looks[-1]}", flush=True)


def reduces(data: Data, set_: data_sets.Set) -> Iterator[dict[str, Any]]:
    """The all-reduces of a step."""
    found = rounds.sweep(data, set_)
    yield {"kind": "reduces", "method": METHODS[0].name, "order": found.order}
    yield {"kind": "reduces", "method": "", "order": [found.weights, -1]}


def main() -> None:
    """Measure, simulate, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("fashion-mnist", "mnist", "digits"), default="fashion-mnist")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="default: 1 2 4")
    parser.add_argument("--rate", type=float, default=100, help="Mbit/s that a rank sends (default: 100)")
    parser.add_argument("--delay", type=float, default=20, help="ms, one way (default: 20)")
    parser.add_argument(
        "--simulated", type=int, nargs="*", default=[8, 32, 128], help="ranks in turn (default: 8 32 128)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--results", type=Path, default=OUTPUT, help="JSON file; table and plot lie beside it")
    parser.add_argument("--model", action="store_true", help="measure nothing: table and plot from the file")
    data_sets.add_arguments(parser)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # namespaces are removed on the way out
    results, far = Results(arguments.results), Far(arguments.rate, arguments.delay)
    if not arguments.model:
        reason = slow_network.why_not() if far.limited else None
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        data = data_sets.load(SETS[arguments.set], "test", arguments)
        if reason is None:
            measure(results, arguments, data, far)
        else:
            print(f"runs on a slow network are skipped: {reason}")
        if not any(t["kind"] == "reduces" for t in results.trials):
            results.trials += reduces(data, SETS[arguments.set])
            results.save()
        simulate(results, arguments, data)
    network_report.write(results.trials, results.runs, far, arguments.results)


if __name__ == "__main__":
    main()
