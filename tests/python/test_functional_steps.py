"""Steps as functions: those of the optimizers to the bit, exported, compiled, run by C++."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from contracts import assert_identical
from residual_problems import NETS, nets
from torch import nn

import torchbcd
import torchbcd.functional as F
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")


def data(rows=40):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    return x, torch.randn(rows, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.0, "relaxation": [0.3, 0.2, 0.4, 0.1], "weight_decay": 0.01},
        {"relaxation": 0.2, "growth": 2.0, "output_relaxation": 0.3},
        {"loss": "logistic", "loss_weight": "mean", "cap": None, "weight_regularizer": reg.L2(0.1)},
        {"weight_regularizer": [reg.L1(0.01), None, reg.MaxNorm(1.0), None], "relaxation": 0.5},
        {"weight_regularizer": reg.Monotone(increasing=[0])},
    ],
    ids=str,
)
def test_relaxed_step_is_the_optimizers(options):
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), *nets()["at the end"][0].double())
    model[2] = nn.Linear(6, 3, bias=False)
    model = model.double()
    parameters, network = F.network_of(model)
    velocity = ()
    optimizer = torchbcd.RelaxedBCD(model, **options)
    given = [p.clone() for p in parameters]
    for k in range(4):
        x, y = data(20 + k)
        y = y.argmax(1) if "loss" in options else y
        before = [p.clone() for p in given]
        new, velocity = F.relaxed_step(x, y, given, velocity, network=network, **options)
        assert_identical(given, before)  # what is given stays
        given = new
        optimizer.step(x, y)
        assert_identical(given, [p.detach() for p in model.parameters()])


@pytest.mark.parametrize("name", NETS)
def test_bcd_sweep_is_the_optimizers(name):
    model, _ = nets()[name]
    x, y = data()
    parameters, network = F.network_of(model)
    u, v = (), ()
    order = [(v, i) for i in range(len(network.activations), 0, -1) for v in "VUW"]
    optimizer = torchbcd.BCD(model, loss="huber", gamma=0.5, order=order)
    optimizer.bind(x, y)
    for _ in range(3):
        parameters, u, v = F.bcd_sweep(
            x, y, parameters, u, v, network=network, loss="huber", gamma=0.5, order=order
        )
        optimizer.step()
        for ours, theirs in zip(parameters, model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-11)
    assert len(u) == len(v) == len(network.activations)


class Trained(nn.Module):
    """A program that holds its parameters and trains on what it is given."""

    def __init__(self, model):
        super().__init__()
        parameters, self.network = F.network_of(model)
        self.parameters_of = nn.ParameterList(nn.Parameter(p, requires_grad=False) for p in parameters)

    def forward(self, x, y, velocity: list[torch.Tensor]):
        new, velocity = F.relaxed_step(x, y, list(self.parameters_of), velocity, network=self.network)
        return new, velocity


def exported_step():
    model = nets()["behind an activation"][0]
    program = Trained(model)
    x, y = data()
    velocity = [torch.zeros_like(p) for p in program.parameters_of]
    rows = torch.export.Dim("rows", min=2)
    shapes = {"x": {0: rows}, "y": {0: rows}, "velocity": [None] * len(velocity)}
    return program, torch.export.export(program, (x, y, velocity), dynamic_shapes=shapes), velocity


def test_export_keeps_the_step():
    program, exported, velocity = exported_step()
    assert "torchbcd.relaxed_step.default" in {str(node.target) for node in exported.graph.nodes}
    x, y = data(61)
    assert_identical(exported.module()(x, y, velocity), program(x, y, velocity))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
def test_a_compiled_package_takes_the_step(tmp_path):
    """AOTInductor: compiled here, and loaded by a process that knows of no model."""
    program, exported, velocity = exported_step()
    package = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "step.pt2"))
    x, y = data(61)
    expected = program(x, y, velocity)
    torch.save((x, y, velocity, expected), tmp_path / "data.pt")
    run = """
import sys, torch, torchbcd
step = torch._inductor.aoti_load_package(sys.argv[1])
x, y, velocity, expected = torch.load(sys.argv[2])
found = step(x, y, velocity)
assert all(torch.equal(a, b) for one, two in zip(found, expected) for a, b in zip(one, two))
"""
    subprocess.run([sys.executable, "-c", run, package, str(tmp_path / "data.pt")], check=True)


def test_what_is_refused():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    parameters, network = F.network_of(model)
    x, y = data()

    def step(change=None, velocity=(), own=network, **options):
        return F.relaxed_step(x, y, change or parameters, velocity, network=own, **options)

    def raw(options):
        return torch.ops.torchbcd.relaxed_step(x, y, parameters, [], ["relu", "identity"], "", "squared", options)

    for call, said in (
        (lambda: step(rate=1.0), "rate"),
        (lambda: step(relaxation=3.0), "relaxation"),
        (lambda: step(loss="hing"), "loss must be one of"),
        (lambda: step(parameters[1:]), "must be matrices"),
        (lambda: step([*parameters[:2], parameters[1], *parameters[2:]]), "must be matrices"),
        (lambda: step(velocity=parameters[:2]), "must hold"),
        (lambda: step(own=F.Network(("relu", "identity"), "V:0")), "skips must be a text such as"),
        (lambda: step(own=F.Network(("relu",))), "must be as many"),
        (lambda: raw("lr"), "such as"),
        (lambda: raw("lr=a"), "numbers with commas"),
        (lambda: F.network_of(nn.Sequential(nn.Flatten(), nn.Linear(5, 3))), "begin with its first layer"),
        (lambda: F.bcd_sweep(x, y, parameters, [x], [], network=network), "u must hold one tensor"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            call()
