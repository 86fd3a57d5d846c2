"""A process that is killed in the middle of a sweep: all others raise, at their last complete sweep."""

from __future__ import annotations

import datetime
import os
import signal

import pytest
import torch
import torch.distributed as dist
from conftest import make_data, make_mlp

import torchbcd

WIDTHS, BEFORE, KILLED = [6, 9, 7, 3], 2, 1  # layers, complete sweeps, the rank that is killed
# The group's timeout: longer than a process may be late on any machine. Nobody waits for it, but for the one that
# "stay" is about, and there it is short for the last sweep alone, in which whoever is late is given up, too.
PATIENCE, IMPATIENCE = datetime.timedelta(minutes=10), datetime.timedelta(seconds=5)
MAKE = {
    "BCD": lambda model, group: torchbcd.BCD(model, process_group=group),
    "RelaxedBCD": lambda model, group: torchbcd.RelaxedBCD(model, process_group=group),
    "DLAM": lambda model, group: torchbcd.DLAM(model, process_group=group),
    "DLADMM": lambda model, group: torchbcd.DLADMM(model, process_group=group),
}

# Four processes for two of the optimizers: seconds go to starting them, and BCD sums what RelaxedBCD does, Gram
# matrices, DLADMM what DLAM does, gradients.
CASES = [
    *((name, 2, "leave") for name in MAKE),
    *((name, 4, "leave") for name in ("RelaxedBCD", "DLAM")),
    ("RelaxedBCD", 4, "stay"),
]


def work(name, rank, world, all_raised, folder):
    """Train; one rank is killed in the sweep after `BEFORE`, the others say how they have fared.

    They leave at once, which those that are not beside the killed one in gloo's ring notice; or they stay until
    all have raised, as these do at the group's timeout.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", PATIENCE, rank=rank, world_size=world)
    model = make_mlp(WIDTHS)
    optimizer = MAKE[name](model, dist.group.WORLD)
    x, y = make_data(60, WIDTHS[0], WIDTHS[-1])
    optimizer.bind(x[rank::world], y[rank::world])
    for _ in range(BEFORE):
        optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    blocks = []

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def observe(block, layer):
        blocks.append(f"{block}{layer}")
        if len(blocks) == 4 and rank == KILLED:
            die()

    optimizer.set_observer(observe)
    said = ""
    try:
        if all_raised is not None:
            dist.barrier()  # all have made their complete sweeps
            dist.distributed_c10d._set_pg_timeout(IMPATIENCE, dist.group.WORLD)
        optimizer.step()
    except RuntimeError as error:
        said = str(error)
    if rank == KILLED:
        die()  # it was so late that the others have given it up
    after = [p.detach().clone() for p in model.parameters()]
    result = {"before": before, "after": after, "sweeps": optimizer.sweeps, "said": said}
    torch.save(result, folder / f"{rank}.pt")
    if all_raised is not None:
        all_raised.wait(PATIENCE.total_seconds())
    os._exit(0)  # the group cannot be left in order


@pytest.mark.parametrize(("name", "world", "then"), CASES)
def test_the_others_are_at_their_last_complete_sweep(name, world, then, tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    all_raised = context.Barrier(world - 1) if then == "stay" else None
    processes = [
        context.Process(target=work, args=(name, rank, world, all_raised, tmp_path)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [
        -signal.SIGKILL if rank == KILLED else 0 for rank in range(world)
    ]
    alone = make_mlp(WIDTHS)
    optimizer = MAKE[name](alone, None)
    optimizer.bind(*make_data(60, WIDTHS[0], WIDTHS[-1]))
    for _ in range(BEFORE):
        optimizer.step()
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world) if rank != KILLED]
    for result in results:
        assert result["said"]
        assert result["sweeps"] == BEFORE
        assert all(map(torch.equal, result["after"], result["before"]))
        assert all(map(torch.equal, result["after"], results[0]["after"]))
    for mine, its in zip(results[0]["after"], alone.parameters(), strict=True):
        torch.testing.assert_close(mine, its.detach(), rtol=1e-8, atol=1e-8)
