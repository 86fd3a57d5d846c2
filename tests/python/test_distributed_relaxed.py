"""RelaxedBCD with its rows in several processes: the weights of one process with all rows, the same in each."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from conftest import make_data, make_mlp

import torchbcd
from torchbcd import losses
from torchbcd import regularizers as reg

ROWS, WIDTHS, SWEEPS = 61, [6, 9, 7, 3], 5
SPLITS = {1: (0, ROWS), 2: (0, 20, ROWS), 3: (0, 7, 40, ROWS)}  # where each process's rows begin and end
EMPTY = {1: (0, ROWS), 2: (0, ROWS, ROWS), 3: (0, 0, 40, ROWS)}  # one has none
CASES = {
    "default": {},
    "bound": {"bound": True},
    "persistent": {"bound": True, "persistent": True},
    "numbers": {"numbers": True},
    "cross_entropy": {"loss": "cross_entropy", "loss_weight": "mean"},
    "hinge": {"loss": "hinge", "guard": True},
    "parts": {
        "loss": losses.MultiOutput([(2, "cross_entropy"), (1, losses.Quantile(0.8), 0.5)]),
        "parts": True,
    },
    "signs": {"activation": "sign"},
    "conjugate gradients": {"state_steps": 3, "cap": 0.02},
    "guard": {"guard": True, "relaxation": 1.9},
    "l2": {"weight_regularizer": reg.L2(0.4)},
    "l1": {"weight_regularizer": reg.L1(0.05), "relaxation": 0.5},
    "groups": {"weight_regularizer": reg.GroupL1(0.3)},
    "max norm": {"weight_regularizer": reg.MaxNorm(0.8)},
    "no momentum": {"momentum": 0.0, "weight_decay": 0.0},
    "tanh": {"activation": "tanh"},
    "residual": {"widths": [6, 7, 8, 7, 3], "residual": (1, 4)},
    "residual, persistent": {
        "widths": [6, 7, 8, 7, 3],
        "residual": (2, 4),
        "bound": True,
        "persistent": True,
        "state_steps": 2,
    },
    "LayerNorm": {"norm": "before", "guard": True},
    "slopes": {"activation": "prelu", "norm": "behind", "numbers": True},
    "LayerNorm, persistent": {"norm": "behind", "bound": True, "persistent": True, "state_steps": 2},
    "wide": {"widths": [80, 90, 100, 3]},
    "frozen": {"frozen": ("0.bias", "2.weight", "2.bias"), "widths": [6, 9, 8, 7, 3]},
    "frozen weights": {"frozen": ("2.weight",), "weights": True},
    "frozen, kinks": {"frozen": ("4.weight",), "weight_regularizer": reg.L1(0.05), "relaxation": 0.5},
    "shortened steps": {
        "activation": "sigmoid",
        "scale": 5.0,
        "offset": 0.0,
        "over_relaxation": 1.9,
        "relaxation": 0.5,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "cap": None,
        "shortened": True,
    },
    "no bias": {"bias": False},
    "poorly scaled": {"scale": 300.0},
    "large": {"scale": 1e4, "offset": 0.0},
    "float32": {"dtype": torch.float32},
    "empty part": {"empty": True},
    "sorted": {"sorted": True},
    "weights": {"weights": True},
    "weights, persistent": {"weights": True, "bound": True, "persistent": True, "state_steps": 2, "cap": 0.1},
    "weights, hinge": {"weights": True, "loss": "hinge", "guard": True, "loss_weight": "mean", "empty": True},
    "weights, poorly scaled": {"weights": True, "scale": 300.0},
}


def data(case, options):
    """All rows, and where each process's begin."""
    widths, dtype = options.pop("widths", WIDTHS), options.pop("dtype", torch.float64)
    x, y = make_data(ROWS, widths[0], widths[-1], dtype=dtype)
    scale = options.pop("scale", 1.0)
    x = scale * x + (options.pop("offset", 1e4) if scale > 1 else 0)
    if options.pop("numbers", False):
        y = torch.linspace(-2, 3, 3 * ROWS, dtype=dtype).reshape(ROWS, 3).sin()
    if options.pop("parts", False):
        y = torch.cat([torch.eye(2, dtype=dtype)[y % 2], x[:, :1].sin()], 1)
    if options.pop("sorted", False):
        order = y.argsort()
        x, y = x[order], y[order]
    return x, y, EMPTY if options.pop("empty", False) else SPLITS


def train(case, rank=0, world=1, group=None):
    """The weights after a few sweeps on this rank's share of the rows, and what the reports say."""
    options = dict(CASES[case])
    widths, dtype = options.get("widths", WIDTHS), options.get("dtype", torch.float64)
    x, y, splits = data(case, options)
    bias, activation, norm = (
        options.pop("bias", True),
        options.pop("activation", "relu"),
        options.pop("norm", None),
    )
    first, last = options.pop("residual", (0, -1))
    # Rank 0's counts.
    model = make_mlp(widths, hidden=activation, bias=bias, dtype=dtype, seed=rank, norm=norm)
    if last > 0:
        branch = torchbcd.nn.Residual(*model[first : last + 1])
        model = torch.nn.Sequential(*model[:first], branch, *model[last + 1 :])
    frozen = options.pop("frozen", ())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    shortened = options.pop("shortened", False)
    share = slice(*splits[world][rank : rank + 2])
    x, y = x[share], y[share]
    bound = options.pop("bound", False)
    # Zero for all rows of a process of three.
    weight = (torch.arange(ROWS) - 7).clamp(min=0).sqrt()[share].to(dtype) if options.pop("weights", 0) else None
    optimizer = torchbcd.RelaxedBCD(model, process_group=group, **options)
    if bound:
        optimizer.bind(x, y, weight)
    said = []
    for _ in range(SWEEPS):
        report = optimizer.step() if bound else optimizer.step(x, y, sample_weight=weight)
        said += [report.before, report.objective, *(fall for _, _, fall in report.certificate[2])]
        said.append(optimizer.objective())
        assert report.halved > 0 or not shortened
    return [p.detach().clone() for p in model.parameters()], said


def fitted(rank, world, group):
    """Weights and reports of fit, with unequal shares and a validation part."""
    options = {}
    x, y, splits = data("default", options)
    share = slice(*splits[world][rank : rank + 2])
    model = make_mlp(WIDTHS, dtype=torch.float64)
    optimizer = torchbcd.RelaxedBCD(model, process_group=group)
    generator = torch.Generator().manual_seed(rank)
    reports = optimizer.fit(x[share], y[share], 4, 6, validation=(x[share], y[share]), generator=generator)
    outputs = model(x)
    return (
        [p.detach().clone() for p in model.parameters()],
        [(r.validation_loss, r.validation_accuracy, r.loss) for r in reports],
        [(outputs.argmax(1) == y).double().mean().item(), optimizer._object.sweeps],
    )


def bytes_of_steps(group):
    """What the steps of both methods have summed."""
    sent = {}
    x, y = make_data(20, 6, 3)
    relaxed = torchbcd.RelaxedBCD(make_mlp(WIDTHS), process_group=group)
    bcd = torchbcd.BCD(make_mlp(WIDTHS), process_group=group)
    for name, optimizer in (("relaxed", relaxed), ("bcd", bcd)):
        optimizer.step(x, y)
        optimizer.step(x, y)  # the first one compares weights, too
        sent[name] = optimizer.bytes_sent
        optimizer.objective()
        assert optimizer.bytes_sent > sent[name]
        optimizer.bind(x, y)
        optimizer.step()
        assert optimizer.bytes_sent >= sent[name]
        optimizer.step()
        sent[f"{name}, bound"] = optimizer.bytes_sent
    return sent


class Program(torch.nn.Module):
    """In TorchScript: three sweeps over the rows here."""

    def __init__(self, optimizer):
        super().__init__()
        self.optimizer = optimizer

    def forward(self, x: torch.Tensor, y: torch.Tensor, group: str, rank: int) -> int:
        self.optimizer.set_process_group(group, rank)
        self.optimizer.bind(x, y)
        for _ in range(3):
            self.optimizer.step()
        return self.optimizer.bytes_sent()


METHODS = ("BCD", "RelaxedBCD", "DLAM", "DLADMM")


def scripted(rank, world, group):
    """The weights that each method ends with, in TorchScript and in Python."""
    x, y = (t[slice(*SPLITS[world][rank : rank + 2])] for t in make_data(ROWS, WIDTHS[0], WIDTHS[-1]))
    found = {}
    for name in METHODS:
        method = getattr(torchbcd, name)
        model, other = make_mlp(WIDTHS, seed=rank), make_mlp(WIDTHS, seed=rank)
        program = torch.jit.script(Program(method(model).script_object()))
        sent = program(x, y, group.group_name, rank)
        optimizer = method(other, process_group=group)
        optimizer.bind(x, y)
        for _ in range(3):
            optimizer.step()
        assert sent == optimizer.bytes_sent
        found[name] = [[p.detach().clone() for p in m.parameters()] for m in (model, other)]
    return found


def refusals(rank, group):
    """What every process is told."""
    x, y = make_data(20, 6, 3)
    said = {}

    def record(name, make):
        try:
            make()
        except (ValueError, TypeError) as error:
            said[name] = str(error)
        dist.barrier()

    def changed():
        optimizer = torchbcd.RelaxedBCD(make_mlp([6, 5, 3]), process_group=group)
        optimizer.step(x, y)
        if rank == 1:
            optimizer.param_groups[0]["damping"] = 3.0
        optimizer.step(x, y)

    def poisoned(method, bound):
        """One process's data are bad; afterwards all go on from where they were."""
        model = make_mlp([6, 5, 3])
        optimizer = method(model, process_group=group)
        optimizer.step(x, y)
        before = [p.detach().clone() for p in model.parameters()]
        bad = torch.where(torch.arange(20)[:, None] == rank - 1, torch.nan, x) if rank == 1 else x
        try:
            optimizer.bind(bad, y) if bound else optimizer.step(bad, y)
        finally:
            assert all(map(torch.equal, model.parameters(), before))
            optimizer.step(x, y)
            assert not any(map(torch.equal, model.parameters(), before))

    def no_row_counts():
        model = make_mlp([6, 5, 3])
        optimizer = torchbcd.RelaxedBCD(model, process_group=group)
        optimizer.step(x, y)
        before = [p.detach().clone() for p in model.parameters()]
        try:
            optimizer.step(x, y, sample_weight=torch.zeros(20).double())
        finally:
            assert all(map(torch.equal, model.parameters(), before))

    def wrong_width():
        torchbcd.RelaxedBCD(make_mlp([6, 5, 3]), process_group=group).step(x[:, : 6 - rank], y)

    made = lambda **options: torchbcd.RelaxedBCD(make_mlp([6, 5, 3]), process_group=group, **options)  # noqa: E731
    record("row_blocks", lambda: made(row_blocks=2))
    record("option", lambda: made(damping=1.0 + rank))
    record("option later", changed)
    record("poisoned batch", lambda: poisoned(torchbcd.RelaxedBCD, bound=False))
    record("poisoned rows", lambda: poisoned(torchbcd.RelaxedBCD, bound=True))
    record("poisoned batch of BCD", lambda: poisoned(torchbcd.BCD, bound=False))
    record("poisoned rows of BCD", lambda: poisoned(torchbcd.BCD, bound=True))
    record("no row counts", no_row_counts)
    record("widths", wrong_width)
    record("copy", lambda: made().__getstate__())
    record("script", lambda: made().script_object())
    record("standardize", lambda: made().fit(x, y, 1, standardize=True))
    return said


def work(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results = {case: train(case, rank, world, dist.group.WORLD) for case in CASES}
    results["fit"] = fitted(rank, world, dist.group.WORLD)
    results["bytes"] = bytes_of_steps(dist.group.WORLD)
    results["scripted"] = scripted(rank, world, dist.group.WORLD)
    results["refusals"] = refusals(rank, dist.group.WORLD)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (request.param, folder), request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.filterwarnings("ignore:x has a common offset")
@pytest.mark.parametrize("case", CASES)
def test_as_in_one_process(results, case):
    weights, said = results[0][case]
    for other, theirs in (result[case] for result in results[1:]):
        assert all(map(torch.equal, weights, other))
        assert theirs == said
    expected, alone = train(case)
    iterative = dict.fromkeys(("l1", "groups", "max norm"), 1e-6)
    tolerance = {"float32": 2e-3, "large": 1e-7, **iterative}.get(case, 1e-6 if "poorly" in case else 1e-9)
    assert said == pytest.approx(alone, rel=tolerance, abs=tolerance * max(map(abs, alone)))
    for mine, its in zip(weights, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=tolerance, atol=tolerance * its.abs().max().item())


def test_bytes_are_those_of_the_triangles_and_cross_products(results):
    """For each layer (d + 1)(d + 2)/2 and d' (d + 1) numbers, whatever the rows, and a few more.

    The first layer's Gram matrix of bound rows is summed once.
    """
    matrices = sum((d + 1) * (d + 2) // 2 + (d + 1) * d_next for d, d_next in pairwise(WIDTHS))
    first = (WIDTHS[0] + 1) * (WIDTHS[0] + 2) // 2
    for result in results:
        for name in ("relaxed", "bcd"):
            sent, bound = result["bytes"][name], result["bytes"][f"{name}, bound"]
            assert 8 * matrices <= sent <= 8 * (matrices + 60)
            assert bound == sent - 8 * first
    assert torchbcd.BCD(make_mlp(WIDTHS)).bytes_sent == 0


@pytest.mark.parametrize("name", METHODS)
def test_torchscript_takes_a_group(results, name):
    for result in results:
        for weights in result["scripted"][name]:
            assert all(map(torch.equal, weights, results[0]["scripted"][name][1]))


def test_fit_takes_the_same_steps_everywhere(results):
    weights, reports, (accuracy, sweeps) = results[0]["fit"]
    for result in results[1:]:
        other, theirs, (_, steps) = result["fit"]
        assert all(map(torch.equal, weights, other))
        assert theirs == reports
        assert steps == sweeps
    largest = max(b - a for a, b in zip(SPLITS[len(results)], SPLITS[len(results)][1:], strict=False))
    assert sweeps == 4 * -(-largest // 6)
    assert reports[-1][1] == pytest.approx(accuracy)  # over all rows


def test_what_is_refused_is_refused_everywhere(results):
    for result in results:
        said = result["refusals"]
        assert "needs row_blocks=1" in said["row_blocks"]
        assert "damping must be the same in every process" in said["option"]
        assert "the processes differ, in an option" in said["option later"]
        assert "weights must have a sum that is finite and > 0" in said["no row counts"]
        assert "a copy needs all rows in one process" in said["copy"]
        assert "script_object needs all rows in one process" in said["script"]
        assert "standardize needs all rows in one process" in said["standardize"]


@pytest.mark.parametrize(
    "case", ["poisoned batch", "poisoned rows", "poisoned batch of BCD", "poisoned rows of BCD"]
)
def test_one_process_with_bad_data_stops_all(results, case):
    for rank, result in enumerate(results):
        said = result["refusals"][case]
        assert "x must be finite" in said
        assert ("refused in the process of rank 1: " in said) == (rank != 1)


def test_several_processes_with_bad_data(results):
    said = [result["refusals"]["widths"] for result in results]
    assert all("x must have shape (n, 6)" in text for text in said[1:])
    expected = "the process of rank 1: " if len(results) == 2 else "refused in 2 other processes"
    assert expected in said[0]
