r"""Train in several processes that may be killed: torchrun starts them again, from the last checkpoint.

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nproc-per-node 2 --max-restarts 1 \
        examples/python/restart.py --checkpoints runs [--kill-at 20]

Weights, momentum and the count of sweeps are the same in every process, so that the first one writes the
checkpoint, after each epoch, and all of them read it. An epoch's batches follow from its number. So a run that
was interrupted ends with the weights, to the bit, of one that was not; `--kill-at` interrupts one, to see that.

The variable is for torch, not for torchbcd: without it, processes that are started again may find the addresses
of those before them in torchrun's store, and wait for them (pytorch#135712).
"""

from __future__ import annotations

import argparse
import os
import signal
from itertools import pairwise
from pathlib import Path

import datasets
import torch
import torch.distributed as dist
from torch import nn

import torchbcd


def latest(folder: Path) -> int:
    """The number of the last epoch that there is a checkpoint of; 0 where there is none."""
    return max((int(path.stem) for path in folder.glob("*.pt")), default=0)


def save(path: Path, model: nn.Sequential, optimizer: torchbcd.RelaxedBCD) -> None:
    """A file that is there is whole, whenever its writer is killed."""
    arriving = path.with_suffix(".part")
    torchbcd.save_checkpoint(arriving, model, optimizer)
    arriving.rename(path)


def main() -> None:
    """Train on this process's rows, from where the last start has come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=datasets.NAMES, default="digits", help="data (default: digits)")
    parser.add_argument("--data-root", type=Path, help="folder with the data set's four IDX files")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder for a file of each epoch")
    parser.add_argument("--hidden", type=int, default=100, help="width of the two hidden layers (default: 100)")
    parser.add_argument("--epochs", type=int, default=5, help="default: 5")
    parser.add_argument("--batch-size", type=int, default=100, help="over all processes (default: 100)")
    parser.add_argument("--kill-at", type=int, help="sweep at which the last process kills itself, once")
    arguments = parser.parse_args()

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    data = datasets.load(arguments.dataset, arguments.data_root)
    x, y = data.x[rank::world], data.y[rank::world]
    steps = -(-len(data.x) // arguments.batch_size)

    torch.manual_seed(0)
    widths = (x.shape[1], arguments.hidden, arguments.hidden, 10)
    modules = [m for d, d_next in pairwise(widths) for m in (nn.Linear(d, d_next), nn.ReLU())]
    model = nn.Sequential(*modules[:-1])
    optimizer = torchbcd.RelaxedBCD(model, process_group=dist.group.WORLD)
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)
    done = latest(arguments.checkpoints)
    dist.barrier()  # nobody writes the next one before all have looked
    if done:
        torchbcd.load_checkpoint(arguments.checkpoints / f"{done}.pt", model, optimizer)
    if rank == 0:
        print(f"epochs done: {done}", flush=True)

    first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    for epoch in range(done + 1, arguments.epochs + 1):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for rows in order.tensor_split(steps):
            report = optimizer.step(x[rows], y[rows])
            if report.sweep == arguments.kill_at and rank == world - 1 and first_start:
                os.kill(os.getpid(), signal.SIGKILL)
        if rank == 0:
            save(arguments.checkpoints / f"{epoch}.pt", model, optimizer)
            accuracy = (model(data.x_test).argmax(1) == data.y_test).double().mean().item()
            print(f"epoch {epoch}, sweep {report.sweep}, test accuracy {100 * accuracy:.2f} %", flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
