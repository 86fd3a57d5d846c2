"""The optimizers as TorchScript objects: what they compute, what they save, what they refuse."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import data_for
from tables import CONFIGURATIONS, OPTIMIZERS
from torch import nn

import torchbcd
from torchbcd import regularizers

pytestmark = pytest.mark.usefixtures("one_thread")


class Trainer(nn.Module):
    """A model with its optimizer, its loops scripted."""

    def __init__(self, model, optimizer):
        super().__init__()
        self.model = model
        self.optimizer = optimizer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    @torch.jit.export
    def bind(self, x: torch.Tensor, y: torch.Tensor):
        self.optimizer.bind(x, y)

    @torch.jit.export
    def sweep(self, sweeps: int) -> float:
        for _ in range(sweeps):
            self.optimizer.step()
        return self.optimizer.objective()


@pytest.fixture
def data():
    return make_data(40, 6, 3)


class Bound(nn.Module):
    """An optimizer that starts from given variables."""

    def __init__(self, optimizer):
        super().__init__()
        self.optimizer = optimizer

    def forward(self, x: torch.Tensor, y: torch.Tensor, u: list[torch.Tensor], v: list[torch.Tensor]) -> float:
        self.optimizer.bind(x, y, None, u, v)
        self.optimizer.step()
        return self.optimizer.objective()


def test_starting_variables_of_bcd(data):
    model = make_mlp([6, 8, 3])
    twin = copy.deepcopy(model)
    eager = torchbcd.BCD(model)
    generator = torch.Generator().manual_seed(1)
    u, v = ([torch.randn(40, d, dtype=torch.float64, generator=generator) for d in (8, 3)] for _ in range(2))
    eager.bind(*data, u=u, v=v)
    eager.step()
    script = torch.jit.script(Bound(torchbcd.BCD(twin).script_object()))
    assert script(*data, u, v) == eager.objective()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name, found in CONFIGURATIONS.items() if found.scripts])
def test_a_scripted_loop_equals_the_eager_one(name, dtype):
    configuration = CONFIGURATIONS[name]
    x, y = data_for(configuration, dtype)
    model = configuration.model(dtype)
    twin = copy.deepcopy(model)
    eager = configuration.over(model)
    scripted = torch.jit.script(Trainer(twin, configuration.over(twin).script_object()))
    eager.bind(x, y)
    scripted.bind(x, y)
    for _ in range(5):
        eager.step()
        assert scripted.sweep(1) == eager.objective()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert torch.equal(scripted(x), model(x))
    if configuration.batches and configuration.method != "DLADMM":  # whose script object takes bound data alone
        eager.step(x, y)
        scripted.optimizer.step(x, y)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_saved_module_goes_on_where_it_was(kind, data):
    model = make_mlp([6, 8, 7, 3])
    trainer = torch.jit.script(Trainer(model, OPTIMIZERS[kind](model).script_object()))
    trainer.bind(*data)
    trainer.sweep(3)
    file = io.BytesIO()
    torch.jit.save(trainer, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert loaded.sweep(4) == trainer.sweep(4)
    for mine, its in zip(trainer.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(mine, its)
    assert torch.equal(loaded(data[0]), trainer(data[0])), "the optimizer moves the module's own parameters"
    assert loaded.optimizer.sweeps() == 7


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_script_object_starts_from_the_optimizers_state(kind, data):
    model = make_mlp([6, 8, 7, 3])
    optimizer = OPTIMIZERS[kind](model)
    optimizer.bind(*data)
    for _ in range(3):
        optimizer.step()
    twin = copy.deepcopy(model)
    fresh = OPTIMIZERS[kind](twin)
    fresh.load_state_dict(optimizer.state_dict())
    script = fresh.script_object()
    script.step()
    optimizer.step()
    assert script.objective() == optimizer.objective()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_mini_batches_and_rows(data):
    x, y = data
    model = make_mlp([6, 8, 3])
    twin = copy.deepcopy(model)
    eager, script = torchbcd.BCD(model), torchbcd.BCD(twin).script_object()
    weights = torch.rand(40, dtype=torch.float64)
    eager.step(x, y, sample_weight=weights)
    script.step(x, y, sample_weight=weights)
    eager.bind(x, y)
    script.bind(x, y)
    rows = torch.arange(0, 40, 3)
    eager.step(index=rows)
    script.step_rows(rows)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    variables = script.variables()
    assert all(torch.equal(a, b) for a, b in zip(variables["U"], eager.variables().U, strict=True))
    assert len(variables["V"]) == 3

    dlam, dlam_twin = make_mlp([6, 8, 3], seed=2), make_mlp([6, 8, 3], seed=2)
    torchbcd.DLAM(dlam, joint=True).step(x, y, sweeps=2)
    torchbcd.DLAM(dlam_twin, joint=True).script_object().step(x, y, 2)
    assert all(torch.equal(a, b) for a, b in zip(dlam.parameters(), dlam_twin.parameters(), strict=True))


def test_starting_variables_of_dlam(data):
    x, y = data
    model = make_mlp([6, 8, 3], hidden="tanh")
    twin = copy.deepcopy(model)
    z = [torch.randn(40, width, dtype=torch.float64) for width in (8, 3)]
    a = [z[0].tanh() + 0.05]
    eager = torchbcd.DLAM(model, joint=True, eps=0.1)
    script = torchbcd.DLAM(twin, joint=True, eps=0.1).script_object()

    @torch.jit.script
    def train(
        optimizer: torch.classes.torchbcd.DLAM,
        x: torch.Tensor,
        y: torch.Tensor,
        z: list[torch.Tensor],
        a: list[torch.Tensor],
    ) -> float:
        optimizer.bind(x, y, z=z, a=a)
        start: float = optimizer.objective()
        optimizer.step()
        return start

    eager.bind(x, y, z=z, a=a)
    assert train(script, x, y, z, a) == eager.objective()
    eager.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    script.bind(x, y, a=a)
    eager.bind(x, y, a=a)
    assert script.objective() == eager.objective()
    with pytest.raises(ValueError, match=r"z must hold one tensor for each of the 2 layers \(got 1\)"):
        script.bind(x, y, None, a)
    with pytest.raises(ValueError, match="must be at most eps, in the first sweep 0.1 .got up to .* in layer 1"):
        script.bind(x, y, z=z, a=[a[0] + 0.1])


def test_a_schedule_and_the_certificate_in_torchscript(data):
    x, y = data
    model = make_mlp([6, 8, 3])
    twin = copy.deepcopy(model)

    @torch.jit.script
    def train(optimizer: torch.classes.torchbcd.RelaxedBCD, x: torch.Tensor, y: torch.Tensor) -> list[float]:
        falls: list[float] = []
        for k in range(4):
            optimizer.set_option("lr", [1.0 - 0.25 * k])
            optimizer.step(x, y)
            certificate = optimizer.certificate()
            falls.append(certificate["before"][0] - certificate["after"][0])
        return falls

    options = {"momentum": 0.5, "weight_decay": 0.01}
    falls = train(torchbcd.RelaxedBCD(twin, **options).script_object(), x, y)
    eager = torchbcd.RelaxedBCD(model, **options)
    for k in range(4):
        for group in eager.param_groups:
            group["lr"] = 1 - 0.25 * k
        certificate = eager.step(x, y).certificate
        assert falls[k] == pytest.approx(certificate.before - certificate.after, rel=1e-9)
    assert min(falls) > 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_an_optimizer_built_in_torchscript(data):
    @torch.jit.script
    def train(
        weights: list[torch.Tensor], biases: list[torch.Tensor | None], x: torch.Tensor, y: torch.Tensor
    ) -> float:
        optimizer = torch.classes.torchbcd.BCD(
            weights, biases, ["leaky_relu(0.1)", "identity"], "squared", {"gamma": [2.0], "alpha": [0.1, 0.2]}
        )
        optimizer.bind(x, y)
        for _ in range(3):
            optimizer.step()
        return optimizer.objective()

    model = make_mlp([6, 8, 3], hidden="leaky_relu")
    twin = copy.deepcopy(model)
    objective = train([twin[0].weight, twin[2].weight], [twin[0].bias, twin[2].bias], *data)
    eager = torchbcd.BCD(model, gamma=2.0, alpha=[0.1, 0.2])
    eager.bind(*data)
    for _ in range(3):
        eager.step()
    assert objective == eager.objective()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_options_by_name(data):
    script = torchbcd.BCD(make_mlp([6, 8, 3]), state_regularizer=regularizers.Box(-1, 2)).script_object()
    assert script.option("state_regularizer") == [0, 0, -1, 2] * 2
    assert "alpha_weight" in script.option_names()
    script.set_option("gamma", [0.5])
    assert script.option("gamma") == [0.5, 0.5]


def test_refusals(data):
    x, _ = data
    model = make_mlp([6, 8, 3])
    script = torchbcd.BCD(model).script_object()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="gamma of layer 1 must be a finite positive number"):
        script.set_option("gamma", [0.0])
    assert script.option("gamma") == [1, 1]
    with pytest.raises(ValueError, match="option must be one of gamma"):
        script.set_option("gama", [1.0])
    with pytest.raises(ValueError, match="both inputs and targets"):
        script.step(x)
    with pytest.raises(ValueError, match="is given to bind"):
        script.step(sample_weight=torch.ones(40))
    with pytest.raises(ValueError, match="call bind"):
        script.step()
    with pytest.raises(ValueError, match="order must be 'paper', 'states_first'"):
        script.set_choice("order", "backwards")
    with pytest.raises(ValueError, match="order is a name"):
        script.set_option("order", [2.0])
    assert script.choice("order") == "paper"
    arguments = [model[0].weight, model[2].weight], [model[0].bias, model[2].bias]
    with pytest.raises(ValueError, match="activation must be one of"):
        torch.classes.torchbcd.BCD(*arguments, ["rely", "identity"], "squared", {})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="EpsSchedule for TorchScript"):
        torchbcd.DLAM(model, eps=lambda sweep: 1 / (sweep + 1)).script_object()
