"""Skip connections: the blocks against a NumPy transcription, the certificate recomputed, what is refused."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from conftest import make_data
from contracts import assert_identical
from residual_problems import NETS, Reference, lifted_objective, nets
from torch import nn

import torchbcd
from torchbcd.nn import Residual

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = 40


def data(dtype=torch.float64, rows=ROWS):
    x, _ = make_data(rows, 5, 3, dtype=dtype)
    return x, torch.randn(rows, 3, generator=torch.Generator().manual_seed(3), dtype=dtype)


def linears_of(model):
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


def squared_loss(model, x, y):
    return (model(x).detach() - y).square().sum().item() / 2


def penalties(depth, offset):
    """Different for every layer, so that no two blocks can swap theirs unnoticed."""
    return [0.3 + offset + 0.45 * ((3 * i + 1) % 5) for i in range(depth)]


def order_of(name, depth):
    layers = range(depth, 0, -1)
    if name == "paper":
        return [(v, i) for i in layers for v in "VUW"]
    if name == "states_first":
        return [(v, i) for i in layers for v in "VU"] + [("W", i) for i in layers]
    if name == "layer_parallel":
        return [(v, i) for v in "VUW" for i in layers]
    assert name == "a list"  # U before V, blocks twice, and what is stale is asked for
    ups = [(v, i) for i in range(1, depth + 1) for v in "WUV"]
    return [*ups, *((v, i) for i in layers for v in "UV"), ("W", 1)]


@pytest.mark.parametrize("order", ["paper", "states_first", "layer_parallel", "a list"])
@pytest.mark.parametrize("name", NETS)
def test_algorithm_2_is_the_transcription(name, order):
    model, skips = nets()[name]
    linears = linears_of(model)
    depth = len(linears)
    kinds = {"relu": nn.ReLU, "tanh": nn.Tanh}
    optimizer = torchbcd.BCD(
        model,
        loss="squared",
        order=order_of(order, depth) if order == "a list" else order,
        gamma=penalties(depth, 0.0),
        rho=penalties(depth, 0.21)[::-1],
        alpha=penalties(depth, 0.13),
        alpha_weight=penalties(depth, 0.37)[::-1],
    )
    activations = [activation for activation, _ in optimizer._model.activations]
    assert set(activations) <= {*kinds, "identity"}
    x, y = data()
    reference = Reference(
        x.numpy(),
        y.numpy(),
        [m.weight.detach().numpy().copy() for m in linears],
        [m.bias.detach().numpy().copy() for m in linears],
        activations,
        skips,
        penalties(depth, 0.0),
        penalties(depth, 0.21)[::-1],
        penalties(depth, 0.13),
        penalties(depth, 0.37)[::-1],
    )
    optimizer.bind(x, y)
    assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-12)
    before = math.inf
    for _ in range(4):
        optimizer.step()
        reference.sweep([(v, i - 1) for v, i in order_of(order, depth)])
        found = optimizer.variables()
        for ours, theirs in (
            (found.W, reference.weights),
            (found.b, reference.biases),
            (found.U, reference.u),
            (found.V[1:] if len(found.V) > depth else found.V, reference.v),
        ):
            for a, b in zip(ours, theirs, strict=True):
                assert np.abs(a.numpy() - b).max() < 1e-8 * max(1.0, np.abs(b).max())
        assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-10)
        assert reference.objective() <= before
        before = reference.objective()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NETS)
def test_algorithm_2_never_rises(name, dtype):
    """Also with a regulariser of the states, after rows of bound data, whose weights the others have not seen."""
    model = nets(nn.Sigmoid)[name][0].to(dtype)
    x, y = data(dtype)
    optimizer = torchbcd.BCD(model, alpha=0.1, state_regularizer=torchbcd.regularizers.L1(1e-3))
    optimizer.bind(x, y)
    start = optimizer.objective()
    for k in range(5):
        optimizer.step(index=torch.arange(k, k + 8))
    values = [optimizer.objective()]
    for _ in range(30):
        optimizer.step()
        values.append(optimizer.objective())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for earlier, later in itertools.pairwise(values):
        assert later <= earlier * (1 + tolerance)
    assert values[-1] < 0.5 * start


def watch(optimizer, skips, loss, y, *step):
    """A step's report, and L after every block."""
    seen = []
    optimizer.set_observer(lambda block, layer: seen.append(((block, layer), optimizer.variables())))
    report = optimizer.step(*step)
    optimizer.set_observer(None)
    clamped = loss == "squared"
    return report, [
        (name, lifted_objective(v, skips, report.penalties, loss, y, clamped=clamped)) for name, v in seen
    ]


def assert_certified(report, values, dtype):
    unit = 3e-6 if dtype == torch.float32 else 1e-11
    certificate = report.certificate
    scale = certificate.before
    known = certificate.before
    for (name, value), (block, layer, decrease) in zip(values, certificate.blocks, strict=True):
        assert name == (block, layer)
        assert decrease >= -unit * scale
        known -= decrease
        assert known == pytest.approx(value, abs=20 * unit * scale)
    assert certificate.after == pytest.approx(values[-1][1], abs=20 * unit * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Tanh])
@pytest.mark.parametrize("name", NETS)
def test_no_block_raises_the_objective(name, activation, steps, loss, dtype):
    model, skips = nets(activation)[name]
    x, y = data(dtype)
    y = y.softmax(1) if loss == "cross_entropy" else y
    optimizer = torchbcd.RelaxedBCD(model.to(dtype), loss, state_steps=steps, momentum=0.3)
    optimizer.step(x, y)  # which may begin with scaling the outputs
    for _ in range(8):
        report, values = watch(optimizer, skips, loss, y, x, y)
        assert_certified(report, values, dtype)


@pytest.mark.parametrize("name", NETS)
def test_a_step_begins_at_the_true_loss(name):
    model, _ = nets()[name]
    x, y = data()
    optimizer = torchbcd.RelaxedBCD(model, momentum=0.0, weight_decay=0.0)
    optimizer.step(x, y)
    first = last = squared_loss(model, x, y)
    for _ in range(60):
        report = optimizer.step(x, y)
        assert report.before == pytest.approx(last, rel=1e-10)
        last = squared_loss(model, x, y)
    assert last < 0.9 * first


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_persistent_variables_never_rise(name, steps):
    model, skips = nets(nn.Tanh)[name]
    x, y = data()
    optimizer = torchbcd.RelaxedBCD(model, persistent=True, state_steps=steps)
    optimizer.bind(x, y)
    before = math.inf
    for _ in range(25):
        report, values = watch(optimizer, skips, "squared", y)
        assert report.before <= before * (1 + 1e-12)
        assert_certified(report, values, torch.float64)
        before = report.certificate.after


@pytest.mark.parametrize("name", NETS)
def test_the_guard_sees_the_skips(name):
    model, _ = nets()[name]
    x, y = data()
    optimizer = torchbcd.RelaxedBCD(model, guard=True, relaxation=1.5, output_relaxation=1.5, momentum=0.9)
    losses = []
    for _ in range(15):
        optimizer.step(x, y)
        losses.append(squared_loss(model, x, y))
    assert all(later <= earlier * (1 + 1e-10) for earlier, later in itertools.pairwise(losses))


def test_states_are_saved_and_go_on():
    for make in (
        lambda m: torchbcd.BCD(m, alpha=0.1),
        torchbcd.RelaxedBCD,
        lambda m: torchbcd.RelaxedBCD(m, persistent=True),
    ):
        model, _ = nets()["activation first"]
        x, y = data()
        optimizer = make(model)
        optimizer.bind(x, y)
        for _ in range(3):
            optimizer.step()
        model, optimizer = copy.deepcopy((model, optimizer))
        other, _ = nets()["activation first"]
        other.load_state_dict(model.state_dict())
        again = make(other)
        again.load_state_dict(optimizer.state_dict())
        for _ in range(2):
            optimizer.step()
            again.step()
        assert_identical(dict(model.state_dict()), dict(other.state_dict()))


class Holder(nn.Module):
    """A scripted module that has an optimizer in it."""

    def __init__(self, model, optimizer):
        super().__init__()
        self.model = model
        self.optimizer = optimizer

    def forward(self, x):
        self.optimizer.step()
        return self.model(x)


@pytest.mark.parametrize("kind", ["BCD", "RelaxedBCD"])
@pytest.mark.parametrize("name", NETS)
def test_a_saved_script_goes_on_alike(name, kind, tmp_path):
    model, _ = nets()[name]
    other = copy.deepcopy(model)
    x, y = data()
    optimizer = getattr(torchbcd, kind)(model, loss="squared")
    twin = getattr(torchbcd, kind)(other, loss="squared")
    for each in (optimizer, twin):
        each.bind(x, y)
    torch.jit.save(torch.jit.script(Holder(other, twin.script_object())), tmp_path / "holder.pt")
    loaded = torch.jit.load(tmp_path / "holder.pt")
    for _ in range(3):
        optimizer.step()
        found = loaded(x)
    assert torch.equal(found, model(x))


def test_a_state_of_other_skips_is_refused():
    layers = [nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)]
    first = torchbcd.RelaxedBCD(nn.Sequential(layers[0], layers[1], Residual(*layers[2:]))).state_dict()
    for other in (nn.Sequential(*layers), nn.Sequential(Residual(*layers))):
        with pytest.raises(ValueError, match=r"skips must be .*\(got V of layer 1 to layer 3\)"):
            torchbcd.RelaxedBCD(other).load_state_dict(first)
    old = torchbcd.RelaxedBCD(nn.Sequential(*layers)).state_dict()
    del old["torchbcd"]["skips"]  # as it was before there were any
    torchbcd.RelaxedBCD(nn.Sequential(*layers)).load_state_dict(old)


def test_torchscript_refuses_skips_that_are_none():
    weights = [torch.randn(4, 5), torch.randn(4, 4), torch.randn(4, 4)]
    for skips, said in (
        ([(0, 1, True)], "at least two further on"),
        ([(0, 3, True)], "of 3 layers counted from 0"),
        ([(-1, 2, True)], "must join equal widths"),
        ([(-1, 2, False)], "must be of V"),
        ([(0, 2, True), (0, 2, True)], "must not be added twice"),
    ):
        with pytest.raises((RuntimeError, ValueError), match=said):
            torch.classes.torchbcd.BCD(
                weights, [None] * 3, ["relu", "relu", "identity"], "squared", {}, False, {}, skips
            )


def test_modules_before_the_layers_may_be_residuals():
    """A frozen one that holds what is no layer runs as it is; one of layers is trained as layers are."""
    torch.manual_seed(1)
    before = Residual(nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 5)).double().requires_grad_(False)
    layers, _ = nets()["of the inputs"]
    x, y = data()
    alone = copy.deepcopy(layers)
    whole = nn.Sequential(before, nn.ReLU(), *layers)
    torch.manual_seed(2)
    torchbcd.RelaxedBCD(whole).fit(x, y, 3, batch_size=20)
    torch.manual_seed(2)
    torchbcd.RelaxedBCD(alone).fit(before(x).relu(), y, 3, batch_size=20)
    assert_identical(list(whole[2:].state_dict().values()), list(alone.state_dict().values()))


def test_frozen_layers_within_stay():
    model, _ = nets()["behind an activation"]
    frozen = model[2][0].weight.requires_grad_(False)
    was = frozen.clone()
    x, y = data()
    for optimizer in (torchbcd.RelaxedBCD(model), torchbcd.BCD(model)):
        for _ in range(3):
            optimizer.step(x, y)
    assert torch.equal(frozen, was)


def refused(*modules):
    with pytest.raises(ValueError, match=r"module|Residual") as error:
        torchbcd.RelaxedBCD(nn.Sequential(*modules))
    return str(error.value)


def test_what_is_refused():
    one = Residual(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    assert "module 1.0" in refused(nn.Linear(5, 4), Residual(nn.Linear(4, 4)), nn.Linear(4, 2))
    assert "at least two Linear modules" in refused(nn.Linear(5, 4), Residual(nn.Linear(4, 4)))
    ends = refused(nn.Linear(5, 4), Residual(nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))
    assert "module 1.2" in ends
    assert "must end with a Linear" in ends
    widths = refused(nn.Linear(5, 4), Residual(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)))
    assert "a Residual of 4 inputs, and must have as many outputs (got 3)" in widths
    assert "module 1, Residual()" in refused(nn.Linear(5, 4), Residual(), nn.Linear(4, 4)).replace(
        " of the model", ""
    )
    assert "module 1.1" in refused(nn.Linear(5, 4), Residual(nn.Linear(4, 4), nn.BatchNorm1d(4), one[2]))
    assert "added twice" in refused(nn.Linear(5, 4), Residual(one), nn.Linear(4, 2))
    assert "signs of layer 1" in refused(nn.Linear(5, 4), torchbcd.nn.Sign(), one, nn.Linear(4, 2))
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), one, nn.Linear(4, 2))
    for make in (
        torchbcd.DLAM,
        lambda m: torchbcd.DLADMM(m, rho=0.1),
        lambda m: torchbcd.BCD(m, splitting=2),
    ):
        with pytest.raises(ValueError, match="takes no Residual"):
            make(model)
    with pytest.raises(ValueError, match="row_blocks"):
        torchbcd.RelaxedBCD(model, row_blocks=2)
    with pytest.raises(ValueError, match="cannot be pruned"):
        torchbcd.prune_zeros(model)
    optimizer = torchbcd.BCD(model)
    optimizer.bind(torch.randn(6, 5), torch.randint(2, (6,)))
    with pytest.raises(ValueError, match="not computed for a Residual"):
        optimizer.stationarity()


def test_a_changed_residual_is_seen():
    for change in (
        lambda m: m[2].append(nn.ReLU()),
        lambda m: m.__setitem__(2, nn.Sequential(*m[2])),
        lambda m: m[2].register_forward_hook(lambda *_: None),
    ):
        model, _ = nets()["behind an activation"]
        optimizer = torchbcd.RelaxedBCD(model)
        x, y = data()
        optimizer.step(x, y)
        change(model)
        with pytest.raises(ValueError, match="module|hooks"):
            optimizer.step(x, y)
