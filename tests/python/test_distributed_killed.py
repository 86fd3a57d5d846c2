"""A process that is killed in the middle of a sweep: the others raise, at their last complete sweep."""

from __future__ import annotations

import datetime
import os
import signal

import pytest
import torch
import torch.distributed as dist
from conftest import make_data, make_mlp

import torchbcd

WORLD, WIDTHS, BEFORE = 2, [6, 9, 7, 3], 2  # complete sweeps
MAKE = {
    "BCD": lambda model, group: torchbcd.BCD(model, process_group=group),
    "RelaxedBCD": lambda model, group: torchbcd.RelaxedBCD(model, process_group=group),
    "DLAM": lambda model, group: torchbcd.DLAM(model, process_group=group),
    "DLADMM": lambda model, group: torchbcd.DLADMM(model, process_group=group),
}


def work(name, rank, folder):
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", f"file://{folder}/store", patience, rank=rank, world_size=WORLD)
    model = make_mlp(WIDTHS)
    optimizer = MAKE[name](model, dist.group.WORLD)
    x, y = make_data(60, WIDTHS[0], WIDTHS[-1])
    optimizer.bind(x[rank::WORLD], y[rank::WORLD])
    for _ in range(BEFORE):
        optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    blocks = []

    def kill(block, layer):
        blocks.append(f"{block}{layer}")
        if len(blocks) == 4 and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    optimizer.set_observer(kill)
    said = ""
    try:
        optimizer.step()
    except RuntimeError as error:
        said = str(error)
    after = [p.detach().clone() for p in model.parameters()]
    torch.save(
        {"before": before, "after": after, "sweeps": optimizer.sweeps, "said": said}, folder / f"{rank}.pt"
    )
    os._exit(0)  # the group cannot be left in order


@pytest.mark.parametrize("name", MAKE)
def test_the_others_are_at_their_last_complete_sweep(name, tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(name, rank, tmp_path)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL]
    alone = make_mlp(WIDTHS)
    optimizer = MAKE[name](alone, None)
    optimizer.bind(*make_data(60, WIDTHS[0], WIDTHS[-1]))
    for _ in range(BEFORE):
        optimizer.step()
    result = torch.load(tmp_path / "0.pt")
    assert result["said"]
    assert result["sweeps"] == BEFORE
    assert all(map(torch.equal, result["after"], result["before"]))
    for mine, its in zip(result["after"], alone.parameters(), strict=True):
        torch.testing.assert_close(mine, its.detach(), rtol=1e-8, atol=1e-8)
