"""Train an MLP in processes that meet seldom: each trains on its own rows, then their weights are averaged.

    torchrun --nproc-per-node 2 examples/python/local_rounds.py [--rounds 5]
    torchrun --nproc-per-node 4 examples/python/local_rounds.py --dataset auto --rounds 25 --by-label

One all-reduce of the weights a round is all that goes between the processes. The average is torch's own,
`torch.distributed.algorithms.model_averaging.utils.average_parameters`; the optimizer takes the weights that it
finds, as after any change from outside, and goes on from there. benchmarks/rounds.py measures what it costs to
meet seldom.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import datasets
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.model_averaging.utils import average_parameters
from torch.optim.lr_scheduler import LambdaLR

import torchbcd


def shares(y: Tensor, workers: int, by_label: bool, seed: int) -> list[Tensor]:
    """Which rows each worker has: as many at random, or two of 2 * workers pieces of the rows sorted by class."""
    generator = torch.Generator().manual_seed(seed)
    if not by_label:
        return list(torch.randperm(len(y), generator=generator).tensor_split(workers))
    pieces = y.argsort(stable=True).tensor_split(2 * workers)
    order = torch.randperm(2 * workers, generator=generator).tolist()
    return [torch.cat([pieces[a], pieces[b]]) for a, b in zip(order[::2], order[1::2], strict=True)]


def batches(rows: Tensor, size: int, seed: int, worker: int) -> Iterator[Tensor]:
    """A worker's shuffled batches, without an end: they go on from one round into the next."""
    generator = torch.Generator().manual_seed(1000 * seed + worker)
    while True:
        yield from rows[torch.randperm(len(rows), generator=generator)].split(size)


def rounds_of(rows: int, batch_size: int, epochs: float, rounds: int) -> list[range]:
    """The steps of each round, `epochs` in all: the same in every process, whatever share it has."""
    total = max(rounds, round(epochs * rows / batch_size))
    ends = [number * total // rounds for number in range(rounds + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


def factor(step: int, steps: int, hold: float | None = 0.5) -> float:
    """Of `lr`: 1 for a part of the run, then linearly to zero; None: 1 throughout."""
    return 1.0 if hold is None else min(1.0, (1 - step / steps) / (1 - hold))


def main() -> None:
    """Train on this process's rows, report from the first one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=("auto", *datasets.NAMES), default="digits", help="default: digits")
    parser.add_argument("--data-root", type=Path, help="folder with the data set's four IDX files")
    parser.add_argument(
        "--download", action="store_true", help="fetch MNIST or Fashion-MNIST where it is not found"
    )
    parser.add_argument("--hidden", type=int, default=100, help="width of the two hidden layers (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="how often weights are averaged (default: 5)")
    parser.add_argument("--epochs", type=float, default=5.0, help="over all rounds (default: 5)")
    parser.add_argument("--batch-size", type=int, default=50, help="of each process (default: 50)")
    parser.add_argument("--by-label", action="store_true", help="give each process rows of few classes")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the shares and the batches")
    parser.add_argument("--out", type=Path, help="file for the weights")
    arguments = parser.parse_args()

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"
    data = datasets.load(arguments.dataset, arguments.data_root, fetch=arguments.download)
    x, y = data.x.to(device), data.y.to(device)
    own = shares(data.y, world, arguments.by_label, arguments.seed)[rank]

    torch.manual_seed(arguments.seed)  # all begin with the same weights
    widths = (x.shape[1], arguments.hidden, arguments.hidden, 10)
    modules = [m for d, d_next in pairwise(widths) for m in (nn.Linear(d, d_next), nn.ReLU())]
    model = nn.Sequential(*modules[:-1]).to(device)

    optimizer = torchbcd.RelaxedBCD(model)  # no process_group: the steps are on this process's rows alone
    rounds = rounds_of(len(y) // world, arguments.batch_size, arguments.epochs, arguments.rounds)
    scheduler = LambdaLR(optimizer, lambda step: factor(step, rounds[-1].stop))
    stream = batches(own, arguments.batch_size, arguments.seed, rank)
    for number, steps in enumerate(rounds, 1):
        for _ in steps:
            rows = next(stream).to(device)
            optimizer.step(x[rows], y[rows])
            scheduler.step()
        average_parameters(model.parameters(), dist.group.WORLD)
        if rank == 0:
            correct = model(data.x_test.to(device)).argmax(1).cpu() == data.y_test
            print(f"round {number}, test accuracy {100 * correct.double().mean().item():.2f} %")
    if rank == 0 and arguments.out:
        torch.save(model.state_dict(), arguments.out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
