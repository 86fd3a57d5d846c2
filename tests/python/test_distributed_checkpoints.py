"""Checkpoints of several processes: read by another number of them, and by those that are started again."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from conftest import make_data, make_mlp
from test_examples import ROOT, run
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import torchbcd

WIDTHS, ROWS, BEFORE, AFTER = [6, 9, 7, 3], 40, 4, 3
VELOCITY = ("weight_velocity", "bias_velocity")


def rows(rank=0, world=1):
    x, y = make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=torch.float64)
    return x[rank::world], y[rank::world]


def without_rows(state):
    """A state_dict that is the same in every process: bound rows are each one's own."""
    tensors, numbers = state["torchbcd"]["tensors"], state["torchbcd"]["numbers"]
    for name in ("x", "y"):
        tensors.pop(name, None)
    numbers.pop("classes", None)
    return state


def go_on(optimizer, bound, sweeps, x, y):
    if bound:
        optimizer.bind(x, y)
    return [(optimizer.step() if bound else optimizer.step(x, y)).sweep for _ in range(sweeps)]


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for bound in (False, True):
        model = make_mlp(WIDTHS, dtype=torch.float64, seed=rank)
        optimizer = torchbcd.RelaxedBCD(model, process_group=dist.group.WORLD)
        go_on(optimizer, bound, BEFORE, *rows(rank, 2))
        state = {"model": model.state_dict(), "optimizer": without_rows(optimizer.state_dict())}
        dcp.save(state, checkpoint_id=folder / f"bound {bound}")
        results[bound] = [p.detach().clone() for p in model.parameters()], state["optimizer"]
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.multiprocessing.spawn(work, (folder,), 2)
    return folder


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("bound", [False, True])
def test_two_processes_save_and_one_goes_on(folder, tmp_path, bound):
    """One file for any number of processes; what follows is what one process with all rows would have done."""
    (saved, state), (theirs, their_state) = (torch.load(folder / f"{rank}.pt")[bound] for rank in range(2))
    assert all(map(torch.equal, saved, theirs))
    for name in VELOCITY:
        assert all(map(torch.equal, *(s["torchbcd"]["tensors"][name] for s in (state, their_state)))), name

    dcp_to_torch_save(folder / f"bound {bound}", tmp_path / "one.pt")
    model = make_mlp(WIDTHS, dtype=torch.float64, seed=5)
    optimizer = torchbcd.RelaxedBCD(model)
    torchbcd.load_checkpoint(tmp_path / "one.pt", model, optimizer)
    assert all(map(torch.equal, model.parameters(), saved))
    loaded = optimizer.state_dict()["torchbcd"]
    assert loaded["numbers"] == state["torchbcd"]["numbers"]
    assert loaded["numbers"]["sweeps"] == [BEFORE]
    for name in VELOCITY:
        assert all(map(torch.equal, loaded["tensors"][name], state["torchbcd"]["tensors"][name])), name
    assert go_on(optimizer, bound, AFTER, *rows()) == [BEFORE + 1 + i for i in range(AFTER)]

    alone = make_mlp(WIDTHS, dtype=torch.float64)
    go_on(torchbcd.RelaxedBCD(alone), bound, BEFORE + AFTER, *rows())
    for mine, its in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_loading_in_place_needs_a_step_before(folder):
    """dcp.load fills the tensors that a state has; that of an optimizer without a step has no last step."""
    for steps in (0, 1):
        model = make_mlp(WIDTHS, dtype=torch.float64, seed=5)
        optimizer = torchbcd.RelaxedBCD(model)
        go_on(optimizer, False, steps, *rows())
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        dcp.load(state, checkpoint_id=folder / "bound False")
        found = state["optimizer"]["torchbcd"]
        assert found["numbers"]["sweeps"] == [BEFORE]
        assert set(found["tensors"]) == set(VELOCITY if steps else ())


def test_a_killed_process_changes_nothing(tmp_path, monkeypatch):
    """Killed once in the third epoch: torchrun starts both again, which end where an undisturbed run does."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    script = ROOT / "examples/python/restart.py"
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    numbers = ("--epochs", 4, "--hidden", 30)
    whole = run("-m", *launch, script, "--checkpoints", "whole", *numbers, cwd=tmp_path)
    killed = run("-m", *launch, "--max-restarts", 1, script, "--checkpoints", "killed", *numbers, "--kill-at", 35,
                 cwd=tmp_path)  # fmt: skip
    starts = [line for line in killed.stdout.splitlines() if line.startswith("epochs done")]
    assert starts == ["epochs done: 0", "epochs done: 2"]
    assert killed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]
    last = [torch.load(tmp_path / name / "4.pt") for name in ("whole", "killed")]
    assert last[0]["optimizer"]["torchbcd"]["numbers"] == last[1]["optimizer"]["torchbcd"]["numbers"]
    assert last[0]["optimizer"]["torchbcd"]["numbers"]["sweeps"] == [4 * 14]
    for name, value in last[0]["model"].items():
        assert torch.equal(value, last[1]["model"][name]), name
