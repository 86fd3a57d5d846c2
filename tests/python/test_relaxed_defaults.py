"""The defaults of RelaxedBCD and its fit: what the rules for targets, depth and rows set, and that they train."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import make_data, make_mlp
from relaxed_problems import MANY, WIDTHS
from torch import nn

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")


def weights_after(x, y, loss="squared", steps=3, outputs=3, **options):
    model = make_mlp([*WIDTHS[:-1], outputs])
    optimizer = torchbcd.RelaxedBCD(model, loss, **options)
    for _ in range(steps):
        optimizer.step(x, y)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def column(optimizer, name):
    return [group[name] for group in optimizer.param_groups]


CLASSES = {"damping": 1.1, "weight_decay": [*[2e-4] * (len(WIDTHS) - 2), 0.0]}
NUMBERS = {"damping": 0.3, "weight_decay": [*[1e-4] * (len(WIDTHS) - 2), 0.0]}


def test_damping_and_decay_by_the_kind_of_targets():
    x, y = make_data(MANY, WIDTHS[0], 3)
    one_hot = nn.functional.one_hot(y, 3).double()
    for targets in (y, y.int(), one_hot):
        assert weights_after(x, targets).equal(weights_after(x, targets, **CLASSES))
    for targets in (one_hot * 2, one_hot - 1, x[:, :3], one_hot.roll(1, 0) + one_hot):
        assert weights_after(x, targets).equal(weights_after(x, targets, **NUMBERS))
    assert not weights_after(x, y, **CLASSES).equal(weights_after(x, y, **NUMBERS))
    column_of_numbers = y[:, None].double()  # one output tells no classes by the squared loss
    assert weights_after(x, column_of_numbers, outputs=1).equal(
        weights_after(x, column_of_numbers, outputs=1, **NUMBERS)
    )
    signs = 2.0 * one_hot - 1
    for loss in ("hinge", "logistic"):
        assert weights_after(x, signs, loss).equal(weights_after(x, signs, loss, **CLASSES))


def test_bound_targets_keep_their_kind_in_a_state():
    x, y = make_data(MANY, WIDTHS[0], 3)
    model = make_mlp(WIDTHS)
    optimizer = torchbcd.RelaxedBCD(model)
    optimizer.bind(x, y)
    optimizer.step()
    twin = make_mlp(WIDTHS)
    resumed = torchbcd.RelaxedBCD(twin)
    resumed.load_state_dict(optimizer.state_dict())
    twin.load_state_dict(model.state_dict())
    for each in (optimizer, resumed):
        each.step()
    assert all(a.equal(b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(("layers", "momentum"), [(2, 0.7), (12, 0.7), (13, 0.5)])
def test_momentum_by_depth(layers, momentum):
    optimizer = torchbcd.RelaxedBCD(make_mlp([4] * (layers + 1)))
    assert column(optimizer, "momentum") == [momentum] * layers
    assert column(optimizer, "weight_decay") == [None] * layers


def test_with_regularizers_and_persistent_variables():
    """Nothing that the defaults set is refused, or does what the regulariser is there for."""
    terms = [reg.Box(-1, 1), reg.L1(0.01), reg.L2(0.1), None]
    x, y = make_data(MANY, WIDTHS[0], 3)
    optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), weight_regularizer=terms)
    assert column(optimizer, "momentum") == [0.7, 0.7, 0.7, 0.7]
    assert column(optimizer, "relaxation") == pytest.approx([1, 0.72, 0.45, 0.055])
    for some in (terms, reg.L2(0.1)):
        groups = {
            "weight_decay": [None if r is None or not r.penalizes else 0.0 for r in some]
            if isinstance(some, list)
            else 0.0
        }
        found = weights_after(x, y, weight_regularizer=some)
        assert found.equal(weights_after(x, y, weight_regularizer=some, **groups))
    optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), persistent=True)
    optimizer.bind(x, y)
    previous = optimizer.step().objective
    for _ in range(5):
        report = optimizer.step()
        assert report.before == pytest.approx(previous, rel=1e-9)  # nothing moved between the sweeps
        previous = report.objective


@pytest.mark.parametrize(
    ("rows", "numbers", "decay"),
    [
        (40, True, 0.012),
        (400, True, 0.75 * 100 / 400**1.5),
        (400, False, 0.75 * 100 / 400**1.5),
        (20_000, True, 1e-4),
        (20_000, False, 2e-4),
    ],
)
def test_decay_of_fit_by_rows(rows, numbers, decay):
    x, y = make_data(rows, 3, 2)
    model = make_mlp([3, 4, 4, 2])
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=[None, reg.L2(0.1), None])
    seen = []
    optimizer.fit(
        x, x[:, :2] if numbers else y, 1, callback=lambda _: seen.append(column(optimizer, "weight_decay"))
    )
    last = min(decay, 1 / -(-rows // 100))  # of the run's steps
    assert seen == [[pytest.approx(decay), None, pytest.approx(last)]]
    assert column(optimizer, "weight_decay") == [None, None, None]
    optimizer = torchbcd.RelaxedBCD(model, weight_decay=0.003)
    optimizer.fit(x[:40], y[:40], 1, callback=lambda _: seen.append(column(optimizer, "weight_decay")))
    assert seen[1] == [0.003, 0.003, 0.003]
    optimizer = torchbcd.RelaxedBCD(make_mlp([3, 2]))
    optimizer.fit(x[:40], y[:40], 1, callback=lambda _: seen.append(column(optimizer, "weight_decay")))
    assert seen[2] == [0.012]  # of a net of one layer, which is not the last of several
    optimizer = torchbcd.RelaxedBCD(make_mlp([3, 4, 2]))
    optimizer.fit(x[:40], y[:40], 200, callback=lambda _: seen.append(column(optimizer, "weight_decay")))
    assert seen[3] == [0.012, 1 / 200]


@pytest.mark.parametrize(("epochs", "average"), [(2, None), (3, 1 - 10 / 12), (50, 1 - 10 / 80)])
def test_the_average_of_fit(epochs, average):
    """Of the last tenth of the steps or so, of two epochs at most; none where there are ten steps or fewer."""
    x, y = make_data(400, 6, 3)
    results = []
    for given in ("auto", average):
        model = make_mlp([6, 8, 3])
        generator = torch.Generator().manual_seed(0)
        torchbcd.RelaxedBCD(model).fit(x, y, epochs, average=given, generator=generator)
        results.append([p.detach() for p in model.parameters()])
    assert all(a.equal(b) for a, b in zip(*results, strict=True))
    with pytest.raises(ValueError, match='average must be a number, "auto" or None'):
        torchbcd.RelaxedBCD(model).fit(x, y, 1, average="ema")


def test_few_rows_are_not_over_fitted():
    """Of 240 rows with noise, beside a ridge regression and beside no decay."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(640, 10, generator=generator)
    y = x[:, :1] + 0.5 * x[:, 1:2] + 1.5 * torch.randn(640, 1, generator=generator)
    held = y[240:]
    scores = {}
    for decay in (None, 0.0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(
                nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 1)
            )
        torchbcd.RelaxedBCD(model, weight_decay=decay).fit(
            x[:240], y[:240], 30, generator=torch.Generator().manual_seed(1)
        )
        scores[decay] = 1 - ((model(x[240:]) - held).square().sum() / (held - held.mean()).square().sum()).item()
    assert scores[None] > scores[0.0] + 0.1
    assert scores[None] > 0.1


def test_a_long_run_on_few_rows_keeps_its_weights():
    """With a last layer that decays hidden ones grow without end, which an average of the weights shows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 10, generator=generator)
    y = x[:, :1] + 0.5 * torch.randn(300, 1, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 1))
    torchbcd.RelaxedBCD(model).fit(x, y, 400, generator=torch.Generator().manual_seed(1))
    assert ((model(x) - y).square().sum() / y.square().sum()).item() < 0.3
    assert max(p.detach().abs().max().item() for p in model.parameters()) < 100


@pytest.mark.parametrize("depth", [4, 14])
def test_deep_nets_from_tiny_weights(depth):
    """Where every layer's output is nearly the same for every row."""
    x, _ = make_data(1000, 6, 3, dtype=torch.float32)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    modules = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for inputs, outputs in itertools.pairwise([6, *[40] * depth, 3]):
            modules += [nn.Linear(inputs, outputs), nn.ReLU()]
            nn.init.normal_(modules[-2].weight, std=0.01)
            nn.init.constant_(modules[-2].bias, 0.1)
    model = nn.Sequential(*modules[:-1])
    torchbcd.RelaxedBCD(model).fit(x, y, 30, generator=torch.Generator().manual_seed(0))
    assert (model(x).argmax(1) == y).double().mean() > 0.9
