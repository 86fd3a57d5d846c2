"""Train an MLP with the rows of the data in several processes: by BCD, full batch, or by RelaxedBCD's fit.

    torchrun --nproc-per-node 2 examples/python/distributed.py [--dataset digits] [--sweeps 20]
    torchrun --nproc-per-node 2 examples/python/distributed.py --optimizer RelaxedBCD --sweeps 5

Every process keeps its rows and their U and V; only the Gram matrices and cross products of the W blocks go
between them. All end each sweep with the same weights, to the bit.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import datasets
import torch
import torch.distributed as dist
from torch import nn

import torchbcd


def main() -> None:
    """Train on this process's rows, report from the first one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=datasets.NAMES, default="digits", help="data (default: digits)")
    parser.add_argument("--data-root", type=Path, help="folder with the data set's four IDX files")
    parser.add_argument(
        "--download", action="store_true", help="fetch MNIST or Fashion-MNIST where it is not found"
    )
    parser.add_argument("--hidden", type=int, default=100, help="width of the two hidden layers (default: 100)")
    parser.add_argument("--optimizer", choices=("BCD", "RelaxedBCD"), default="BCD", help="default: BCD")
    parser.add_argument("--sweeps", type=int, default=20, help="of BCD, or epochs of RelaxedBCD (default: 20)")
    arguments = parser.parse_args()

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"
    data = datasets.load(arguments.dataset, arguments.data_root, fetch=arguments.download)
    x, y = data.x[rank::world].to(device), data.y[rank::world].to(device)

    torch.manual_seed(rank)  # the optimizer gives every process the model of the first
    widths = (x.shape[1], arguments.hidden, arguments.hidden, 10)
    modules = [m for d, d_next in pairwise(widths) for m in (nn.Linear(d, d_next), nn.ReLU())]
    model = nn.Sequential(*modules[:-1]).to(device)

    def say(of: str, value: float) -> None:
        if rank == 0:
            accuracy = (model(data.x_test.to(device)).argmax(1).cpu() == data.y_test).double().mean().item()
            print(f"{of} {value:.4f}, test accuracy {100 * accuracy:.2f} %")

    if arguments.optimizer == "BCD":
        optimizer = torchbcd.BCD(model, alpha=0.05, process_group=dist.group.WORLD)
        optimizer.bind(x, y)
        for _ in range(arguments.sweeps):
            say("objective", optimizer.step().objective)  # of all rows: every process reads it, or none
    else:
        relaxed = torchbcd.RelaxedBCD(model, process_group=dist.group.WORLD)
        reports = relaxed.fit(x, y, arguments.sweeps, 100 // world)
        say("mean loss", reports[-1].loss)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
