"""RelaxedBCD's bound data in a folder, and the memory of all that is as large as they are."""

from __future__ import annotations

import copy
import gc
import resource
import shutil
from pathlib import Path

import pytest
import torch
from own_memory import grows_with_the_rows
from torch import nn

import torchbcd

ROWS = 3000  # whose states are just large enough to be in files
PERSISTENT = {"persistent": True, "momentum": 0.0, "weight_decay": 0.0}


def problem(seed=0, *middle, weights=None, **options):
    """A model, its optimizer and the arguments of bind."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(20, 100), nn.ReLU(), *copy.deepcopy(middle), nn.Linear(100, 90), nn.Tanh(), nn.Linear(90, 3)
    )
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 20, generator=generator)
    y = torch.randint(3, (ROWS,), generator=generator)
    return model, torchbcd.RelaxedBCD(model, "cross_entropy", **options), (x, y, weights)


def point(model, optimizer):
    variables = optimizer.variables()
    return [*(p.detach().clone() for p in model.parameters()), *variables.U, *variables.V]


def same(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))


def mapped():
    """The parts of memory that are files without names: first and last address."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [[int(end, 16) for end in line.split()[0].split("-")] for line in lines if "torchbcd.memory." in line]


BRANCH = torchbcd.nn.Residual(nn.LayerNorm(100), nn.Linear(100, 100), nn.GELU(), nn.Linear(100, 100))
CASES = {
    "momentum": ((), {}),
    "persistent": ((), PERSISTENT),
    "weights": ((), {"weights": torch.linspace(0, 2, ROWS), "guard": True}),
    "nets of today": ((nn.Linear(100, 100), BRANCH, nn.Dropout(0.2)), {"state_steps": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_in_memory(case, tmp_path):
    middle, options = CASES[case]
    results = []
    for scratch_dir in (None, tmp_path):
        others = len(mapped())
        model, optimizer, data = problem(0, *middle, **options)
        optimizer.bind(*data, scratch_dir=scratch_dir)
        numbers = []
        torch.manual_seed(7)  # of masks
        for _ in range(2):
            report = optimizer.step()
            numbers += [report.objective, report.before, optimizer.objective()]
        if not options.get("persistent"):
            optimizer.step(data[0][:5], data[1][:5])
            numbers.append(optimizer.objective())
        optimizer.step()
        results.append((numbers, point(model, optimizer)))
        assert (len(mapped()) > others) == (scratch_dir is not None)
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


@pytest.mark.parametrize("options", [{}, PERSISTENT], ids=["momentum", "persistent"])
def test_killed_between_blocks(options, tmp_path):
    """What a folder holds after some block of a sweep is what SIGKILL there would leave."""
    run = tmp_path / "run"
    run.mkdir()
    model, optimizer, data = problem(**options)
    optimizer.bind(*data, scratch_dir=run)
    left, expected = [], []

    def leave(block, layer):
        if (block, layer) in (("W", 2), ("UV", 1)):
            left.append((optimizer.sweeps, tmp_path / f"{len(left)}"))
            shutil.copytree(run, left[-1][1])

    for _ in range(4):
        optimizer.set_observer(leave if optimizer.sweeps in (0, 2) else None)
        optimizer.step()
        expected.append(point(model, optimizer))
    assert len(left) == 4
    for done, folder in left:
        again, resumed, data = problem(5, **options)
        resumed.bind(*data, scratch_dir=folder, resume=True)
        assert resumed.sweeps == done
        for sweep in range(done, 4):
            resumed.step()
            assert same(point(again, resumed), expected[sweep])


def test_what_is_refused(tmp_path):
    model, optimizer, data = problem()
    with pytest.raises(ValueError, match="resume needs a scratch_dir"):
        optimizer.bind(*data, resume=True)
    with pytest.raises(ValueError, match="x must be finite"):
        optimizer.bind(data[0] / 0, data[1], scratch_dir=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["torchbcd.lock"]
    optimizer.bind(*data, scratch_dir=tmp_path)
    optimizer.step()
    for refused in (optimizer.state_dict, lambda: copy.deepcopy(optimizer)):
        with pytest.raises(ValueError, match="resume=True"):
            refused()
    optimizer.bind(*data)  # which lets the folder go
    assert not mapped()
    optimizer.step()
    before = optimizer.objective()
    with pytest.raises(ValueError, match="must hold no run, or resume=True"):
        optimizer.bind(*data, scratch_dir=tmp_path)
    with pytest.raises(ValueError, match="x must be what the run"):
        optimizer.bind(2 * data[0], data[1], scratch_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="_weight must be there"):
        optimizer.bind(*data[:2], torch.ones(ROWS), scratch_dir=tmp_path, resume=True)
    other = torchbcd.BCD(copy.deepcopy(model), "cross_entropy")
    with pytest.raises(ValueError, match=r"the run in scratch_dir.* RelaxedBCD"):
        other.bind(*data, scratch_dir=tmp_path, resume=True)
    assert optimizer.objective() == before


def test_a_full_disk_is_an_error(tmp_path):
    """A limit of file sizes, which fails where a full disk would: in bind, and where a step wants more room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    runs = [problem(guard=True) for _ in range(2)]
    model, optimizer, data = runs[0]
    before = [p.detach().clone() for p in model.parameters()]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        with pytest.raises(RuntimeError, match="scratch_dir must have room"):
            optimizer.bind(*data, scratch_dir=tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["torchbcd.lock"]
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        for index, (_, each, _) in enumerate(runs):
            each.bind(*data, scratch_dir=None if index else tmp_path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        with pytest.raises(RuntimeError, match="scratch_dir must have room"):
            optimizer.step()
        assert same(before, [p.detach() for p in model.parameters()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for _, each, _ in runs:
        each.step()
    assert same(*(point(each_model, each) for each_model, each, _ in runs))


def test_only_what_a_call_makes_is_in_files(tmp_path):
    """Not what an observer makes within it, or anybody after it."""
    made = []
    _, optimizer, data = problem()
    optimizer.bind(*data, scratch_dir=tmp_path)
    optimizer.set_observer(lambda *_: made.append(torch.empty(1 << 20)))
    optimizer.step()
    made.append(torch.empty(1 << 20))
    states = optimizer.variables().U[0]

    def in_files(t):
        return any(begin <= t.data_ptr() < end for begin, end in mapped())

    assert len(made) > 5
    assert not any(map(in_files, made))
    assert in_files(states)
    kept = states.clone()
    del optimizer
    gc.collect()
    assert torch.equal(states, kept)  # its memory stays as long as it
    del states
    gc.collect()
    assert not mapped()


MODEL = """nn.Sequential(
    nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16), nn.LayerNorm(16), nn.Tanh(), nn.Dropout(0.1),
    nn.Linear(16, 8),
)"""


def test_memory_does_not_grow_with_the_rows(tmp_path):
    optimizer = "torchbcd.RelaxedBCD(model, 'cross_entropy', guard=True, state_steps=2)"
    assert not grows_with_the_rows(tmp_path, MODEL, optimizer, rows=50_000)
