"""Rounds of local steps: weights that another process has had a part in; the example and the benchmark."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.distributed as dist
from conftest import make_data, make_mlp
from test_examples import ROOT, assert_is_png, run
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.utils import average_parameters

import torchbcd

WIDTHS, ROWS, LOCAL_STEPS = [6, 9, 7, 3], 40, 3
CASES = {
    "default": {},  # with momentum and decay
    "plain": {"momentum": 0.0, "weight_decay": 0.0},
    "bound": {"bound": True},
    "constrained": {"weight_regularizer": torchbcd.regularizers.MaxNorm(0.8)},
}


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def velocity(optimizer):
    tensors = optimizer.state_dict()["torchbcd"]["tensors"]
    return [
        part for pair in zip(tensors["weight_velocity"], tensors["bias_velocity"], strict=True) for part in pair
    ]


def train(case, rank, group):
    """A round, the average, and the step after it: where that one has started, and where it was to start."""
    options = dict(CASES[case])
    bound = options.pop("bound", False)
    x, y = make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=torch.float64)
    x, y = x[rank::2], y[rank::2]
    model = make_mlp(WIDTHS, dtype=torch.float64)
    optimizer = torchbcd.RelaxedBCD(model, **options)
    if bound:
        optimizer.bind(x, y)

    def step():
        return optimizer.step() if bound else optimizer.step(x, y)

    for _ in range(LOCAL_STEPS):
        step()
    local = weights(model)
    last_step = velocity(optimizer) if optimizer.param_groups[0]["momentum"] else None
    average_parameters(model.parameters(), group)
    averaged = weights(model)
    if last_step is not None:
        assert all(map(torch.equal, velocity(optimizer), last_step))
    start = copy.deepcopy(model)
    with torch.no_grad():
        for layer, group_ in enumerate(optimizer.param_groups):
            decay = 2e-4 if group_["weight_decay"] is None and layer < len(WIDTHS) - 2 else 0.0
            linear = start[2 * layer]
            linear.weight.mul_(1 - decay)
            if last_step is not None:
                linear.weight.add_(last_step[2 * layer], alpha=group_["momentum"])
                linear.bias.add_(last_step[2 * layer + 1], alpha=group_["momentum"])
            if group_["weight_regularizer"] is not None:
                norms = linear.weight.norm(dim=1, keepdim=True)
                linear.weight.mul_((0.8 / norms).clamp_max(1.0))
        target = torch.nn.functional.one_hot(y, WIDTHS[-1]).double()
        expected = 0.5 * (start(x) - target).square().sum().item()
    before = step().before
    return {"local": local, "averaged": averaged, "expected": expected, "before": before}


def periodic(rank, group):
    """The averager of torch that counts steps, which leaves out parameters without a gradient."""
    model = make_mlp(WIDTHS, dtype=torch.float64, seed=rank)
    optimizer = torchbcd.RelaxedBCD(model)
    x, y = make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=torch.float64)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    averager = PeriodicModelAverager(period=2, warmup_steps=1, process_group=group)
    seen = []
    for _ in range(4):
        optimizer.step(x[rank::2], y[rank::2])
        averager.average_parameters(model.parameters())
        seen.append(weights(model))
    return seen


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {case: train(case, rank, dist.group.WORLD) for case in CASES}
    results["periodic"] = periodic(rank, dist.group.WORLD)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    torch.multiprocessing.spawn(work, (folder,), 2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_the_average_is_where_the_next_step_starts(results, case):
    """The same weights in both, and each goes on from there with the step that it took itself before."""
    first, second = (result[case] for result in results)
    assert not any(map(torch.equal, first["local"], second["local"]))
    assert all(map(torch.equal, first["averaged"], second["averaged"]))
    for mean, a, b in zip(first["averaged"], first["local"], second["local"], strict=True):
        torch.testing.assert_close(mean, (a + b) / 2, rtol=1e-12, atol=1e-14)
    for result in (first, second):
        assert result["before"] == pytest.approx(result["expected"], rel=1e-10)


def test_the_averager_that_counts_steps(results):
    """It averages after the second and the fourth step; in between the two go their own ways."""
    for number, (mine, theirs) in enumerate(zip(*(result["periodic"] for result in results), strict=True), 1):
        assert all(map(torch.equal, mine, theirs)) == (number % 2 == 0)


EXAMPLE = ROOT / "examples/python/local_rounds.py"
NUMBERS = {"hold": 0.5, "start": "torch", "batch": 50}


@pytest.mark.usefixtures("one_thread", "benchmarks")
@pytest.mark.parametrize("by_label", [False, True])
def test_processes_and_the_simulation_agree(tmp_path, by_label):
    """Three rounds of two workers on the digits: torchrun's weights are those of one process that takes turns."""
    import rounds
    from data_sets import Data, Set, datasets

    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2, EXAMPLE, "--out", "weights.pt")
    numbers = ("--rounds", 3, "--epochs", 2, "--hidden", 30, *(["--by-label"] if by_label else []))
    done = run("-m", *launch, *numbers, cwd=tmp_path)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["round", f"{i},"] for i in (1, 2, 3)]
    found = torch.load(tmp_path / "weights.pt")
    digits = datasets.load("digits")
    data = Data(digits.x, digits.y, digits.x_test, digits.y_test)
    case = rounds.Case("two", 2, by_label, 3)
    model = rounds.train("RelaxedBCD", NUMBERS, case, data, Set("digits", (30, 30), 2), 3, 0, 2.0)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_benchmark(tmp_path):
    numbers = ("--workers", 2, "--epochs", 2, "--rounds", 1, 2, "--steps", 4, "--results", "found.json")
    script = ROOT / "benchmarks/rounds.py"
    run(script, "--set", "digits", *numbers, "--trials", 1, "--seeds", 1, cwd=tmp_path)
    first = json.loads((tmp_path / "found.json").read_text())
    assert len(first["trials"]) == 3 * 3
    assert len(first["runs"]) == 3 * (2 * 2 + 1)
    weights_bytes = 4 * (64 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10)
    for entry in first["runs"]:
        assert 0 <= entry["score"] <= 100
        if entry["workers"] or entry["contestant"] != "RelaxedBCD":
            assert (entry["waits"], entry["bytes"]) == (entry["syncs"], entry["syncs"] * weights_bytes)
        else:
            assert entry["bytes"] > entry["syncs"] * weights_bytes
    assert_is_png(tmp_path / "found.png")
    assert "RelaxedBCD" in (tmp_path / "found.md").read_text()
    run(script, "--set", "digits", *numbers, "--trials", 1, "--seeds", 2, cwd=tmp_path)
    second = json.loads((tmp_path / "found.json").read_text())
    assert second["trials"] == first["trials"]
    assert second["runs"][: len(first["runs"])] == first["runs"]
    assert len(second["runs"]) == 2 * len(first["runs"])
