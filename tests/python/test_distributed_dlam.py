"""DLAM and DLADMM with their rows in several processes: one process's weights, the same steps in each."""

from __future__ import annotations

import itertools
import re
import warnings

import pytest
import torch
import torch.distributed as dist
from conftest import make_data, make_mlp

import torchbcd
from torchbcd import regularizers as reg

ROWS, WIDTHS, SWEEPS = 61, [6, 9, 7, 3], 6
SPLITS = {1: (0, ROWS), 2: (0, 20, ROWS), 4: (0, 7, 30, 40, ROWS)}  # where each process's rows begin and end
EMPTY = {1: (0, ROWS), 2: (0, ROWS, ROWS), 4: (0, 0, 40, 40, ROWS)}  # some have none
L2 = reg.L2(0.1)
CASES = {
    "schedule": {"empty": True},
    "joint": {"joint": True, "rho": 0.1, "momentum": "capped", "loss_weight": "mean"},
    "DLAM": {"monotone": False, "joint": True, "rho": 0.5, "weight_regularizer": L2},
    "strict": {"eps": 0.1, "weight_regularizer": L2, "sufficient_decrease": 0.0, "hidden": "tanh"},
    "no momentum": {"momentum": None, "eps": torchbcd.EpsSchedule(1.0, 0.5, 0.01), "hidden": "sigmoid"},
    "l1": {"weight_regularizer": reg.L1(0.02), "joint": True, "rho": 0.3},
    "norms": {
        "weight_regularizer": [reg.GroupL1(0.1), reg.GroupL1(0.1, by="unit"), reg.MaxNorm(0.5)],
        "joint": True,
        "rho": 1.0,
        "empty": True,
    },
    "eq. (1)": {"weight_damping": 0.0, "joint": True, "weight_regularizer": [None, L2, reg.L1(0.02)]},
    "damped": {"weight_damping": 0.1, "joint": True, "weight_regularizer": [L2, None, reg.L1(0.02)]},
    "squared": {"loss": "squared", "joint": True, "output_solver": "fista", "empty": True},
    "hinge": {"loss": "hinge", "joint": True, "weighted": True},
    "checked": {"check_conditions": True, "joint": True, "weight_regularizer": L2, "eps": 0.0, "empty": True},
    "batch": {"batch": 3, "joint": True, "weighted": True},
    "start": {"start": True, "eps": 0.2, "hidden": "leaky_relu"},
    "frozen": {"frozen": True, "joint": True},
    "one layer": {"widths": [6, 3], "bias": False},
    "float32": {"dtype": torch.float32, "joint": True, "rho": 1.0},
    "ADMM": {"method": "DLADMM", "rho": 0.1},
    "ADMM, l1": {"method": "DLADMM", "rho": 0.5, "nu": 0.2, "weight_regularizer": reg.L1(0.02), "empty": True},
    "ADMM, slopes": {"method": "DLADMM", "rho": 0.2, "hidden": "prelu"},
    "ADMM, mean": {"method": "DLADMM", "loss_weight": "mean", "weighted": True, "frozen": True, "hidden": "tanh"},
}
COUNTS = ("redone", "kept", "trials", "products")
FIELDS = ("theta", "tau", "weight_omega", "state_omega", *COUNTS, "primal_residual")


def train(case, rank=0, world=1, group=None):
    """The weights after a few sweeps on this rank's share of the rows, and all that the reports say."""
    options = dict(CASES[case])
    take = options.pop
    widths, dtype, method = take("widths", WIDTHS), take("dtype", torch.float64), take("method", "DLAM")
    model = make_mlp(widths, bias=take("bias", True), dtype=dtype, hidden=take("hidden", "relu"), seed=rank)
    splits = EMPTY if take("empty", False) else SPLITS
    share = slice(*splits[world][rank : rank + 2])
    x, y = (t[share] for t in make_data(ROWS, widths[0], widths[-1], dtype=dtype))
    weights = torch.linspace(0.1, 2, ROWS, dtype=dtype)[share] if take("weighted", False) else None
    if take("frozen", False):
        model[0].weight.requires_grad_(False)
        model[2].bias.requires_grad_(False)
    batch, start = take("batch", None), {}
    if take("start", False):
        start["z"] = [torch.linspace(-1, 2, ROWS * d).reshape(ROWS, d).to(dtype).sin()[share] for d in widths[1:]]
    optimizer = getattr(torchbcd, method)(model, process_group=group, **options)
    if batch is None:
        optimizer.bind(x, y, weights, **start)
    said = []
    for sweep in range(SWEEPS):
        report = optimizer.step() if batch is None else optimizer.step(x, y, sweeps=batch, sample_weight=weights)
        said.append(report.objective)
        for name in FIELDS:
            numbers = getattr(report, name, [])
            said += numbers if isinstance(numbers, list) else [numbers]
        if method == "DLAM" and sweep == SWEEPS - 1:
            said += [report.gap, report.residual, report.weight_residual]
        if options.get("check_conditions"):
            said += [report.c_k if sweep > 1 else 0.0, *itertools.chain(*report.condition_slack)]
    return [p.detach().clone() for p in model.parameters()], said


def fitted(rank, world, group):
    """What fit says, which stops where dist(0, dF) of all rows is small."""
    x, y = make_data(ROWS, 6, 3)
    share = slice(*SPLITS[world][rank : rank + 2])
    model = make_mlp([6, 4, 3], hidden="tanh")
    optimizer = torchbcd.DLAM(model, rho=1.0, joint=True, weight_regularizer=reg.L2(1.0), process_group=group)
    result = optimizer.fit(x[share], y[share], max_sweeps=100, tol=1.5)
    return [p.detach().clone() for p in model.parameters()], [*result[:4]]


def costs(rank, world, group):
    """All-reduces and bytes of one sweep of either method."""
    x, y = make_data(ROWS, 6, 3)
    share = slice(*SPLITS[world][rank : rank + 2])
    costs = {}
    for method in (torchbcd.DLAM, torchbcd.DLADMM):
        optimizer = method(make_mlp(WIDTHS), process_group=group)
        optimizer.bind(x[share], y[share])
        optimizer.step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            report = optimizer.step()
        waits = sum(event.count for event in profile.key_averages() if event.key == "c10d::allreduce_")
        again = [getattr(report, name, 0) for name in ("trials", "redone")]
        costs[method.__name__] = [waits, optimizer.bytes_sent, *again]
    return costs


def resumed(rank, world, group):
    """Weights of each method, and where it is continued from a state with each process's own rows."""
    x, y = make_data(ROWS, 6, 3)
    share = slice(*SPLITS[world][rank : rank + 2])
    weights = {}
    for method in (torchbcd.DLAM, torchbcd.DLADMM):
        model, twin = make_mlp(WIDTHS), make_mlp(WIDTHS, seed=1)
        optimizer, other = (method(m, rho=0.1, process_group=group) for m in (model, twin))
        optimizer.bind(x[share], y[share])
        for _ in range(4):
            optimizer.step()
        twin.load_state_dict(model.state_dict())
        other.load_state_dict(optimizer.state_dict())
        assert other.objective() == optimizer.objective()
        for _ in range(2):
            optimizer.step()
            other.step()
        weights[method.__name__] = [[p.detach().clone() for p in m.parameters()] for m in (model, twin)]
    return weights


def refusals(rank, group):
    """What every process is told where one of them, of rank 1, differs or fails; all can go on afterwards."""
    (x, y), one, said = make_data(20, 6, 3), rank == 1, {}

    def tell(name, call, put_right=lambda optimizer: None, method=torchbcd.DLAM, **options):
        model = make_mlp(WIDTHS)
        optimizer = method(model, process_group=group, **options)
        optimizer.bind(x, y)
        optimizer.step()
        before = [p.detach().clone() for p in model.parameters()]
        with pytest.raises((TypeError, ValueError, RuntimeError)) as refused:
            call(optimizer)
        said[name] = f"{type(refused.value).__name__}: {refused.value}"
        put_right(optimizer)
        assert all(map(torch.equal, model.parameters(), before)), name
        assert optimizer.sweeps == 1
        assert optimizer.step().objective > 0
        assert optimizer.sweeps == 2

    def bad_rows(optimizer):
        optimizer.bind(torch.full_like(x, torch.nan) if one else x, y)

    def far_start(optimizer):
        _, _, z, a = optimizer.variables()
        optimizer.bind(x, y, z=z, a=[t + 3.0 * one for t in a[1:]])

    def overflow(optimizer):  # of z_L in one process, while the weights stay finite
        optimizer.bind(x, y, torch.tensor([1e308 if one else 1.0], dtype=x.dtype).expand(20))
        optimizer.step()

    def move(optimizer, by):
        optimizer._model.linears[0].weight.data[0, 0] *= by if one else 1.0

    def other_weights(optimizer):
        move(optimizer, 2.0)
        optimizer.step()

    def load(optimizer, factor):
        state = optimizer.state_dict()
        numbers = state["torchbcd"]["numbers"]
        numbers["nesterov" if "nesterov" in numbers else "theta"][0] *= factor if one else 1.0
        optimizer.load_state_dict(state)

    def other_state(optimizer):
        load(optimizer, 2.0)
        optimizer.step()

    def bad_option(optimizer):
        optimizer.param_groups[0]["rho"] = -1.0 if one else 0.1
        optimizer.step()

    def good_option(optimizer):
        optimizer.param_groups[0]["rho"] = 0.1

    def raising(sweep):
        if one and sweep == 1:
            raise OSError("no schedule to be found")
        return 0.5

    for method in (torchbcd.DLAM, torchbcd.DLADMM):
        tell(f"rows of {method.__name__}", bad_rows, method=method)
        tell(f"weights of {method.__name__}", other_weights, lambda o: move(o, 0.5), method)
        tell(f"state of {method.__name__}", other_state, lambda o: load(o, 0.5), method)
    tell("overflow", overflow, lambda o: o.bind(x, y))
    tell("start", far_start, eps=0.2)
    tell("sweeps", lambda o: o.step(x, y, sweeps=2 + one))
    tell("most sweeps", lambda o: o.fit(x, y, max_sweeps=2 + one))
    tell("no sweeps", lambda o: o.fit(x, y, max_sweeps=1 - one))
    tell("bad rows to fit", lambda o: o.fit(x / (1 - one), y, 1), method=torchbcd.RelaxedBCD)
    tell("bad epochs to fit", lambda o: o.fit(x, y, 1 - one), method=torchbcd.RelaxedBCD)
    tell("no tensor", lambda o: o.step([1] if one else x, y))
    tell("no rows", lambda o: o.bind(x[:0], y[:0]))
    tell("no rows to BCD", lambda o: o.step(x[:0], y[:0]), method=torchbcd.BCD)
    tell("option", bad_option, good_option)
    tell("no tensor to BCD", lambda o: o.step(x, [y] if one else y), method=torchbcd.BCD)
    return said


def work(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    group = dist.group.WORLD
    warnings.simplefilter("ignore", UserWarning)  # a constant eps leaves hidden layers where they are
    results = {case: train(case, rank, world, group) for case in CASES}
    results["fit"] = fitted(rank, world, group)
    results["costs"] = costs(rank, world, group)
    results["resumed"] = resumed(rank, world, group)
    results["refusals"] = refusals(rank, group)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (request.param, folder), request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.filterwarnings("ignore:with a constant eps")
@pytest.mark.parametrize("case", [*CASES, "fit"])
def test_as_in_one_process(results, case):
    weights, said = results[0][case]
    for other, theirs in (result[case] for result in results[1:]):
        assert all(map(torch.equal, weights, other))
        assert theirs == said
    expected, alone = fitted(0, 1, None) if case == "fit" else train(case)
    tolerance = {"float32": 1e-3, "fit": 1e-7}.get(case, 1e-6 if "l1" in case else 1e-9)
    assert said == pytest.approx(alone, rel=tolerance, abs=tolerance)
    for mine, its in zip(weights, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", ["DLAM", "DLADMM"])
def test_a_state_of_several_processes_goes_on(results, method):
    for result in results:
        whole, loaded = result["resumed"][method]
        assert all(map(torch.equal, whole, loaded))
        assert all(map(torch.equal, whole, results[0]["resumed"][method][0]))


def test_all_reduces_and_bytes(results):
    """As docs/distributed.md has them: the gradients, and some numbers."""
    layers, gradients = len(WIDTHS) - 1, sum((d + 1) * d_next for d, d_next in itertools.pairwise(WIDTHS))
    for result in results:
        waits, sent, trials, redone = result["costs"]["DLAM"]
        assert (waits, trials, redone) == (4 * layers + 1, 0, 0)
        assert sent == 8 * (gradients + 3 * layers + 7 * (layers - 1) + 19)
        waits, sent, *_ = result["costs"]["DLADMM"]
        assert waits == 8 * layers + 1
        assert sent == 8 * (2 * gradients + 2 * layers + 4 * (layers - 1) + 20)


REFUSED = {
    "rows": "ValueError: .*x must be finite",
    "weights": "ValueError: .*the processes differ, in an option, in weights",
    "state": "ValueError: .*the processes differ",
    "overflow": "LinAlgError: .*layer 3 of 3, z block: the update is not finite",
    "start": "ValueError: .*must be at most eps, in the first sweep 0.2",
    "sweeps": "ValueError: .*the processes differ.* or in how they step",
    "most sweeps": "ValueError: max_sweeps must be the same in every process .rank 0 has 2, rank 1 3",
    "no sweeps": "ValueError: .*max_sweeps must be at least 1",
    "bad rows to fit": "ValueError: .*x must be finite",
    "bad epochs to fit": "ValueError: .*epochs and batch_size must be at least 1",
    "no tensor": "Error: .*x must be a torch.Tensor",
    "no rows": "ValueError: .*one of the processes must have a row at least",
    "no rows to BCD": "ValueError: .*one of the processes must have a row at least",
    "option": "ValueError: .*rho of layer 1 must be a finite positive number",
    "no tensor to BCD": "Error: .*targets must be a torch.Tensor",
}
OF_ALL = ("weights", "state", "sweeps", "most sweeps", "no rows", "no rows to BCD")


@pytest.mark.parametrize("case", REFUSED)
def test_what_one_process_refuses_all_refuse(results, case):
    for rank, result in enumerate(results):
        found = {name: text for name, text in result["refusals"].items() if name.split(" of D")[0] == case}
        assert found
        for text in found.values():
            assert re.search(REFUSED[case], text)
            assert ("in the process of rank 1: " in text) == (case not in OF_ALL and rank != 1)


def test_one_process_with_a_group_is_one_without(group):
    for case in ("joint", "ADMM"):
        (mine, said), (its, told) = train(case, group=group), train(case)
        assert all(map(torch.equal, mine, its))
        assert said == told
    for method in (torchbcd.DLAM, torchbcd.DLADMM):
        optimizer = method(make_mlp(WIDTHS), process_group=group)
        for call in (optimizer.script_object, optimizer.__getstate__):
            with pytest.raises(ValueError, match="needs all rows in one process"):
                call()
