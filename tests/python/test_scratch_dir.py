"""Bound data in a folder: the bits of those in memory, runs that are killed, full disks, memory."""

from __future__ import annotations

import gc
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_data, make_mlp
from own_memory import grows_with_the_rows
from torch import nn

import torchbcd
from torchbcd.regularizers import L1, L2, Box

WIDTHS, ROWS = [6, 9, 7, 3], 60


def problem(seed=0, rows=ROWS, hidden="relu", **options):
    """A float32 model, its optimizer and data."""
    x, y = make_data(rows, WIDTHS[0], WIDTHS[-1], dtype=torch.float32)
    model = make_mlp(WIDTHS, dtype=torch.float32, seed=seed, hidden=hidden)
    return model, torchbcd.BCD(model, "cross_entropy", gamma=0.3, alpha=0.1, **options), x, y


def point(model, optimizer):
    """All that the next sweep starts from."""
    variables = optimizer.variables()
    return [*(p.detach().clone() for p in model.parameters()), *variables.U, *variables.V]


def same(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))


def memory_maps(folder, x, y):
    """The data as files: one that torch maps, one of NumPy's that must not be written to."""
    x.numpy().tofile(folder / "x")
    np.save(folder / "y.npy", y.numpy())
    mapped = torch.from_file(str(folder / "x"), shared=True, size=x.numel(), dtype=x.dtype)
    labels = torch.from_numpy(np.load(folder / "y.npy", mmap_mode="r"))
    return mapped.view(x.shape), labels


CASES = {
    "plain": {},
    "regularizers": {
        "weight_regularizer": L1(0.01),
        "state_regularizer": [L2(0.1), Box(-2, 2), None],
        "order": "layer_parallel",
    },
    "given": {"given": True, "weight_regularizer": L2(0.1)},
    "two splittings": {"splitting": 2, "hidden": "tanh"},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_the_bits_are_those_in_memory(case, tmp_path):
    options = dict(CASES[case])
    weights, starts = None, {}
    if options.pop("given", False):  # sample weights and starting variables, and rows of several chunks
        weights = torch.linspace(0, 2, 3000)
        starts = {"u": [torch.full((3000, d), 0.1) for d in WIDTHS[1:]]}
    results = []
    for folder in (None, tmp_path / "scratch"):
        model, optimizer, x, y = problem(rows=ROWS if weights is None else 3000, **options)
        if folder is not None:
            folder.mkdir()
            x, y = memory_maps(tmp_path, x, y)
        optimizer.bind(x, y, weights, scratch_dir=folder, **starts)
        objectives = [optimizer.objective()]
        for _ in range(3):
            report = optimizer.step()
            objectives += [report.objective, report.decrease, optimizer.objective()]
        optimizer.step(x[:5], y[:5])
        optimizer.step()
        results.append((objectives, point(model, optimizer)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


def test_modules_before_the_layers(tmp_path):
    """What they make of the rows goes to the file, too: classes, images to flatten, a frozen backbone."""
    points = []
    for scratch_dir in (None, tmp_path):
        torch.manual_seed(0)
        backbone = nn.Conv2d(1, 2, 3).requires_grad_(requires_grad=False)
        model = nn.Sequential(backbone, nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))
        optimizer = torchbcd.BCD(model, torchbcd.losses.CrossEntropy(label_smoothing=0.1, weight=[1.0, 2.0]))
        optimizer.bind(torch.randn(1500, 1, 4, 4), torch.arange(1500) % 2, scratch_dir=scratch_dir)
        optimizer.step()
        points.append(point(model, optimizer))
    assert same(*points)


def test_killed_between_blocks(tmp_path):
    """What a folder holds after some block of a sweep is what SIGKILL there would leave."""
    run = tmp_path / "run"
    run.mkdir()
    model, optimizer, x, y = problem()
    optimizer.bind(x, y, scratch_dir=run)
    left = []

    def leave(block, layer):
        if layer != 2 and (block, layer) != ("W", 1):
            return
        left.append((optimizer.sweeps, tmp_path / f"{len(left)}"))
        shutil.copytree(run, left[-1][1])

    expected = [point(model, optimizer)]
    for sweep in range(4):
        optimizer.set_observer(leave if sweep in (1, 2) else None)
        optimizer.step()
        expected.append(point(model, optimizer))
    assert len(left) == 2 * 4  # in a sweep to each of the two sets
    for done, folder in left:
        (folder / "torchbcd.record.new").write_bytes(b"half of a")  # killed while it was written, too
        again, resumed, x, y = problem(seed=5)
        resumed.bind(x, y, scratch_dir=folder, resume=True)
        assert resumed.sweeps == done
        assert same(point(again, resumed), expected[done])
        for _ in range(done, 4):
            resumed.step()
        assert same(point(again, resumed), expected[4])


PROGRAM = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
from test_scratch_dir import problem, point

torch.set_num_threads(1)
model, optimizer, x, y = problem()
optimizer.bind(x, y, scratch_dir={folder!r}, resume=True)
def kill(block, layer):
    if optimizer.sweeps == 2 and (block, layer) == ("U", 2):
        os.kill(os.getpid(), signal.SIGKILL)
optimizer.set_observer(kill if sys.argv[1] == "kill" else None)
while optimizer.sweeps < 4:
    optimizer.step()
torch.save(point(model, optimizer), sys.argv[2])
"""


def test_a_killed_process_goes_on(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    program = PROGRAM.format(tests=str(Path(__file__).parent), folder=str(folder))
    out = tmp_path / "point.pt"
    killed = subprocess.run([sys.executable, "-c", program, "kill", str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    subprocess.run([sys.executable, "-c", program, "go on", str(out)], check=True)
    model, optimizer, x, y = problem()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer.bind(x, y)
    for _ in range(4):
        optimizer.step()
    torch.set_num_threads(threads)
    assert same(torch.load(out), point(model, optimizer))


def test_between_sweeps(tmp_path):
    """Weights that somebody changed, an objective looked at with them, a mini-batch: as a folder has them."""
    run, copy = tmp_path / "run", tmp_path / "copy"
    run.mkdir()
    model, optimizer, x, y = problem()
    optimizer.bind(x, y, scratch_dir=run)
    optimizer.step()
    with torch.no_grad():
        model[0].weight.mul_(1.25)
    objective = optimizer.objective()  # residuals of the new weights take the place of the old ones'
    shutil.copytree(run, copy)
    again, resumed, x, y = problem(seed=5)
    resumed.bind(x, y, scratch_dir=copy, resume=True)
    assert resumed.objective() == objective
    for each in (optimizer, resumed):
        each.step(x[:7], y[:7])
    shutil.copytree(run, tmp_path / "after a batch")
    last, once_more, x, y = problem(seed=6)
    once_more.bind(x, y, scratch_dir=tmp_path / "after a batch", resume=True)
    for each in (optimizer, resumed, once_more):
        each.step()
        assert each.sweeps == 3
    assert same(point(model, optimizer), point(again, resumed))
    assert same(point(model, optimizer), point(last, once_more))


def test_what_is_refused(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    _, optimizer, x, y = problem()
    before = optimizer.bind(x, y), optimizer.step(), optimizer.objective()

    def refused(error, match, *data, of=optimizer, **arguments):
        with pytest.raises(error, match=match):
            of.bind(*(data or (x, y)), **arguments)

    refused(ValueError, "scratch_dir must be a folder .*No such file", scratch_dir=tmp_path / "none")
    (tmp_path / "file").touch()
    refused(ValueError, "must be a folder .got the file", scratch_dir=tmp_path / "file")
    refused(ValueError, "to write in .*proc", scratch_dir="/proc/self")
    refused(TypeError, "scratch_dir must be the path", scratch_dir=3)
    refused(ValueError, "resume needs a scratch_dir", resume=True)
    refused(ValueError, "x must be finite", x / 0, y, scratch_dir=run)
    refused(ValueError, "classes from 0 to 2", x, y + 1, scratch_dir=run)
    assert not [file.name for file in run.iterdir() if file.name != "torchbcd.lock"]
    assert optimizer.objective() == before[-1]

    _, holder, x, y = problem()
    holder.bind(x, y, scratch_dir=run)
    holder.step()
    refused(ValueError, "of one optimizer alone", scratch_dir=run, resume=True)
    refused(ValueError, "of one optimizer alone", of=holder, scratch_dir=run, resume=True)
    with pytest.raises(ValueError, match="needs data bound in memory"):
        holder.step(index=torch.arange(3))
    with pytest.raises(ValueError, match="resume=True"):
        holder.state_dict()
    holder.bind(x, y)  # which lets the folder go
    refused(ValueError, "must hold no run, or resume=True", scratch_dir=run)
    other = x.clone()
    other[17, 2] += 1
    refused(ValueError, "x must be what the run", other, y, scratch_dir=run, resume=True)
    refused(ValueError, "y must be what the run", x, (y + 1) % 3, scratch_dir=run, resume=True)
    refused(ValueError, "data and layers of the same sizes", x[:-1], y[:-1], scratch_dir=run, resume=True)
    refused(ValueError, "_weight must be there", x, y, torch.ones(ROWS), scratch_dir=run, resume=True)
    two = torchbcd.BCD(make_mlp(WIDTHS, dtype=torch.float32), "cross_entropy", splitting=2)
    refused(ValueError, "must have this splitting .3 there, 2 here", of=two, scratch_dir=run, resume=True)
    hinge = torchbcd.BCD(make_mlp(WIDTHS, dtype=torch.float32), "squared")
    refused(ValueError, "the run in scratch_dir's loss must be squared", of=hinge, scratch_dir=run, resume=True)
    wide = torchbcd.BCD(make_mlp([6, 8, 7, 3], dtype=torch.float32), "cross_entropy")
    refused(ValueError, "data and layers of the same sizes", of=wide, scratch_dir=run, resume=True)
    assert optimizer.objective() == before[-1]
    optimizer.bind(x, y, scratch_dir=run, resume=True)
    assert optimizer.sweeps == 1


def test_a_bind_that_was_killed_leaves_nothing_in_the_way(tmp_path):
    for name in ("torchbcd.x", "torchbcd.0.U9"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes").write_bytes(b"mine")
    model, optimizer, x, y = problem()
    optimizer.bind(x, y, scratch_dir=tmp_path)
    optimizer.step()
    assert (tmp_path / "notes").exists()
    assert not (tmp_path / "torchbcd.0.U9").exists()
    assert len(list(tmp_path.glob("torchbcd.*"))) == 2 + 2 + 2 * 3 * 3
    kept = point(model, optimizer)
    del optimizer
    gc.collect()
    _, again, x, y = problem()
    again.bind(x, y, scratch_dir=tmp_path, resume=True)  # files stay when an optimizer goes
    assert same(point(model, again)[len(list(model.parameters())) :], kept[len(list(model.parameters())) :])


def test_a_full_disk_is_an_error(tmp_path):
    """A limit of file sizes, which fails where a full disk would, and where a write to memory would be SIGBUS."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    model, optimizer, x, y = problem()
    optimizer.bind(x, y)
    optimizer.step()
    before = point(model, optimizer)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * ROWS * WIDTHS[0] + 1, limits[1]))
        with pytest.raises(RuntimeError, match=r"scratch_dir must have room .*torchbcd.0.U1"):
            optimizer.bind(x, y, scratch_dir=tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["torchbcd.lock"]
        assert same(point(model, optimizer), before)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        _, memory, x, y = problem()
        memory.bind(x, y)
        model, optimizer, x, y = problem()
        optimizer.bind(x, y, scratch_dir=tmp_path)
        before = point(model, optimizer)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(RuntimeError, match=r"torchbcd.record cannot be written"):
            optimizer.step()
        assert same(point(model, optimizer), before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for _ in range(2):
        optimizer.step()
        memory.step()
    assert same(optimizer.variables().U, memory.variables().U)


MODEL = "nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 8))"
LINEAR = "nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 8))"


@pytest.mark.parametrize(("model", "splitting"), [(MODEL, 3), (LINEAR, 2)])
def test_memory_does_not_grow_with_the_rows(model, splitting, tmp_path):
    optimizer = f"torchbcd.BCD(model, 'cross_entropy', splitting={splitting})"
    assert not grows_with_the_rows(tmp_path, model, optimizer, rows=75_000)


def test_gram_matrices_by_parts():
    """Rows beyond the 65,536 that products are taken of at a time."""
    torch.manual_seed(0)
    v, u = torch.randn(140_000, 3, dtype=torch.float64), torch.randn(140_000, 2, dtype=torch.float64)
    weight, bias = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    ones = torch.cat([v, torch.ones(len(v), 1, dtype=torch.float64)], 1)
    before = torch.cat([weight, bias[:, None]], 1)
    system = 0.5 * ones.T @ ones + 2.0 * torch.eye(4, dtype=torch.float64)
    expected = torch.linalg.solve(system, 0.5 * ones.T @ u + 2.0 * before.T).T
    found = torchbcd.functional.weight_update(u, v, weight, bias, rho=0.5, alpha=2.0)
    torch.testing.assert_close(torch.cat([found[0], found[1][:, None]], 1), expected, rtol=1e-11, atol=1e-12)
