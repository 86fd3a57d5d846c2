"""BCD with its rows in several processes: the same weights in each, and those of one process with all rows."""

from __future__ import annotations

import re
import sys

import pytest
import torch
import torch.distributed as dist
from conftest import make_data, make_mlp

import torchbcd
from torchbcd import regularizers as reg

ROWS, WIDTHS, SWEEPS = 61, [6, 9, 7, 3], 5
SPLITS = {1: (0, ROWS), 2: (0, 20, ROWS), 3: (0, 7, 40, ROWS)}  # where each process's rows begin and end
EMPTY = {1: (0, ROWS), 2: (0, ROWS, ROWS), 3: (0, 0, 40, ROWS)}  # one has none
CASES = {
    "default": {},
    "penalties": {"gamma": [0.3, 1.0, 2.0], "alpha": 0.05, "rho": 0.7},
    "mean": {"loss_weight": "mean"},
    "cross_entropy": {"loss": "cross_entropy"},
    "l2": {"weight_regularizer": reg.L2(0.4)},
    "l1": {"weight_regularizer": reg.L1(0.05)},
    "norms": {"weight_regularizer": [reg.GroupL1(0.3), reg.GroupL1(0.3, by="unit"), reg.MaxNorm(0.5, p=1)]},
    "monotone": {"weight_regularizer": reg.Monotone([0, 2], [1]) + reg.MaxNorm(0.8)},
    "states_first": {"order": "states_first", "inner_sweeps": 2},
    "layer_parallel": {"order": "layer_parallel", "regularize_bias": True, "weight_regularizer": reg.L2(0.1)},
    "wide": {"widths": [80, 9, 100, 3]},
    "no_bias": {"bias": False},
    "float32": {"dtype": torch.float32},
    "sample_weight": {"weighted": True},
    "minibatch": {"batch": True},
    "rows": {"rows": True, "loss_weight": "mean"},
    "slopes": {"hidden": "prelu", "alpha_weight": 0.2},
    "empty part": {"empty": True, "loss_weight": "mean"},
    "two splittings": {
        "hidden": "identity",
        "splitting": 2,
        "weight_regularizer": [reg.MaxNorm(0.8), None, None],
    },
}


def train(case, rank=0, world=1, group=None):
    """The weights after a few sweeps on this rank's share of the rows, and the objective of all."""
    options = dict(CASES[case])
    widths, dtype = options.pop("widths", WIDTHS), options.pop("dtype", torch.float64)
    bias, batch, rows = options.pop("bias", True), options.pop("batch", False), options.pop("rows", False)
    hidden = options.pop("hidden", "relu")
    model = make_mlp(widths, hidden=hidden, bias=bias, dtype=dtype, seed=rank)  # rank 0's is the one that counts
    for module in model:
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.constant_(module.weight, 0.2 + 0.3 * rank)
    x, y = make_data(ROWS, widths[0], widths[-1], dtype=dtype)
    weights = torch.linspace(0.1, 2, ROWS, dtype=dtype) if options.pop("weighted", False) else None
    splits = EMPTY if options.pop("empty", False) else SPLITS
    share = slice(*splits[world][rank : rank + 2])
    x, y, weights = x[share], y[share], None if weights is None else weights[share]
    optimizer = torchbcd.BCD(model, process_group=group, **options)
    if not batch:
        optimizer.bind(x, y, weights)
    objectives = []
    for _ in range(SWEEPS):
        if batch:
            report = optimizer.step(x, y)
        elif rows:
            report = optimizer.step(index=torch.arange(0, len(x)))
        else:
            report = optimizer.step()
        objectives += [report.objective, report.decrease]
    return [p.detach().clone() for p in model.parameters()], objectives


def refusal(make):
    """What is said to a call, after which the processes are together again."""
    try:
        make()
    except (ValueError, TypeError) as error:
        said = str(error)
    else:
        said = ""
    dist.barrier()
    return said


def differences(rank):
    """What every process is told where one of them differs."""
    group = dist.group.WORLD
    x, y = make_data(20, 6, 3)

    def made(widths=(6, 5, 3), bias=True, dtype=torch.float64, **options):
        return torchbcd.BCD(make_mlp(list(widths), bias=bias, dtype=dtype), process_group=group, **options)

    def changed(change):
        optimizer = made()
        optimizer.bind(x, y)
        optimizer.step()
        before = [p.detach().clone() for p in optimizer._model.module.parameters()]
        if rank == 1:
            change(optimizer)
        after = [p.detach().clone() for p in optimizer._model.module.parameters()]
        try:
            optimizer.step()
        finally:
            parameters = optimizer._model.module.parameters()
            assert all(torch.equal(p, a) for p, a in zip(parameters, after, strict=True))
            with torch.no_grad():
                for p, b in zip(optimizer._model.module.parameters(), before, strict=True):
                    p.requires_grad_(True).copy_(b)
            for penalties in optimizer.param_groups:
                penalties["gamma"] = 1.0
            optimizer.step()  # put right, it goes on

    def set_gamma(optimizer):
        optimizer.param_groups[0]["gamma"] = 3.0

    def set_weight(optimizer):
        optimizer._model.linears[0].weight.data[0, 0] += 1

    one = rank == 1
    return {
        "depth": refusal(lambda: made((6, 3) if one else (6, 5, 3))),
        "width": refusal(lambda: made((6, 4, 3) if one else (6, 5, 3))),
        "bias": refusal(lambda: made(bias=not one)),
        "dtype": refusal(lambda: made(dtype=torch.float32 if one else torch.float64)),
        "option": refusal(lambda: made(gamma=2.0 if one else 1.0)),
        "bad option": refusal(lambda: made(gamma=-1.0 if one else 1.0)),
        "group": refusal(lambda: torchbcd.BCD(make_mlp([6, 3]), process_group=NON_MEMBER)),
        "option later": refusal(lambda: changed(set_gamma)),
        "weights later": refusal(lambda: changed(set_weight)),
        "frozen later": refusal(lambda: changed(lambda o: o._model.linears[0].weight.requires_grad_(False))),
    }


NON_MEMBER = dist.GroupMember.NON_GROUP_MEMBER


def work(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results = {case: train(case, rank, world, dist.group.WORLD) for case in CASES}
    results["differences"] = differences(rank)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (request.param, folder), request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("case", CASES)
def test_as_in_one_process(results, case):
    weights, objectives = results[0][case]
    for other, measured in (result[case] for result in results[1:]):
        assert all(torch.equal(mine, its) for mine, its in zip(weights, other, strict=True))
        assert measured == objectives
    expected, alone = train(case)
    tolerance = {"float32": 1e-3, "l1": 1e-5}.get(case, 1e-8)  # an L1 norm is solved for iteratively
    assert objectives == pytest.approx(alone, rel=tolerance, abs=tolerance)
    for mine, its in zip(weights, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=tolerance, atol=tolerance)


DIFFERENCES = {
    "depth": "the number of Linear modules must be the same in every process .rank 0 has 2, rank 1 1",
    "width": "the weights' shapes must be the same",
    "bias": "which layers have a bias must be the same",
    "dtype": "dtype must be the same in every process .rank 0 has torch.float64, rank 1 torch.float32",
    "option": "gamma must be the same in every process",
    "bad option": "gamma of layer 1 must be a finite positive number",
    "group": "must be one that this process is in",
    "option later": "the processes differ, in an option",
    "weights later": "in weights or requires_grad changed since the last sweep",
    "frozen later": "in weights or requires_grad changed",
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_differs_is_said_in_every_process(results, case):
    for result in results:
        assert re.search(DIFFERENCES[case], result["differences"][case])


def test_sums_do_not_go_through_python(group):
    """Gloo's threads wait for the interpreter with a tensor that Python has seen, even for one that is ending."""
    optimizer = torchbcd.BCD(make_mlp([6, 5, 3]), process_group=group)
    optimizer.bind(*make_data(20, 6, 3))
    called = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_filename) if event == "call" else None)
    try:
        optimizer.step()
        optimizer.objective()
    finally:
        sys.setprofile(None)
    assert any("torchbcd" in file for file in called)
    assert [file for file in called if "torch/distributed" in file] == []


def test_refusals(group):
    x, y = make_data(20, 6, 3)
    with pytest.raises(ValueError, match="needs splitting=3, or no activations.*'relu' in layer 1"):
        torchbcd.BCD(make_mlp([6, 5, 3]), splitting=2, process_group=group)
    optimizer = torchbcd.BCD(make_mlp([6, 5, 3]), process_group=group)
    with pytest.raises(ValueError, match="fit needs all rows in one process"):
        optimizer.fit(x, y)
    optimizer.bind(x, y)
    report = optimizer.step()
    assert report.decrease > 0
    with pytest.raises(ValueError, match="needs all rows in one process"):
        _ = report.stationarity
    with pytest.raises(ValueError, match="script_object needs all rows in one process"):
        optimizer.script_object()
