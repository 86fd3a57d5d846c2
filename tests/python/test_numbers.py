"""Numbers of every size: inputs and targets that are not scaled, what overflows, what cancels."""

from __future__ import annotations

import warnings

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import build
from tables import METHODS
from torch import nn

import torchbcd

pytestmark = pytest.mark.usefixtures("one_thread")
every_method = pytest.mark.parametrize("method", METHODS)


def toy(rows=600):
    """Two classes that no linear map tells apart, of standardised inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 8, generator=generator)
    return x, ((x[:, 0] * x[:, 1] + x[:, 2]) > 0).long()


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))


def accuracy_of(model, x, y):
    return (model(x).argmax(1) == y).double().mean().item()


def train(model, x, y, loss="squared", epochs=12):
    optimizer = torchbcd.RelaxedBCD(model, loss)
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(50):
            report = optimizer.step(x[rows], y[rows])
            assert report.objective <= report.before * (1 + 2e-6)
    return accuracy_of(model, x, y)


class TestInputs:
    @pytest.mark.parametrize("loss", ["squared", "cross_entropy", "hinge"])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e2, 1e4, 1e6])
    def test_of_any_scale(self, loss, scale):
        x, y = toy()
        assert train(net(), x * scale, y, loss) > 0.93

    @pytest.mark.parametrize(
        "spoil",
        [lambda x: x + 100, lambda x: 1e4 + x, lambda x: x * torch.logspace(-3, 3, 8)],
        ids=["offset", "large offset", "columns apart"],
    )
    def test_folded_into_the_first_layer(self, spoil):
        x, y = toy()
        x = spoil(x)
        model = net()
        torchbcd.standardize_(model, x)
        assert train(model, x, y) > 0.93
        with pytest.warns(UserWarning, match="torchbcd.standardize_.model, x., before training"):
            torchbcd.RelaxedBCD(net()).step(x[:50], y[:50])
        model = net()
        with pytest.warns(UserWarning, match="fit has folded its scale and offset into the first layer"):
            torchbcd.RelaxedBCD(model).fit(x, y, 12, 50, generator=torch.Generator().manual_seed(0))
        assert accuracy_of(model, x, y) > 0.93

    def test_rows_that_do_not_vary(self):
        """One row, and equal ones, after rows that want the metric of standardised inputs."""
        x, y = toy(50)
        model = net()
        torchbcd.standardize_(model, x + 1000)
        optimizer = torchbcd.RelaxedBCD(model)
        optimizer.step(x + 1000, y)
        assert optimizer.state_dict()["torchbcd"]["numbers"]["standardize"] == [1.0]
        for rows in (x[:1], x[:1].repeat(5, 1)):
            report = optimizer.step(rows + 1000, y[:1].repeat(len(rows)))
            assert report.objective <= report.before * (1 + 2e-6)

    def test_the_warning_comes_once(self):
        x, y = toy(50)
        optimizer = torchbcd.RelaxedBCD(net())
        with pytest.warns(UserWarning, match="standardize_"):
            optimizer.step(x + 1000, y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.step(x + 1000, y)
            torchbcd.RelaxedBCD(net()).step(x, y)

    def test_fit_leaves_a_trained_model_alone(self):
        x, y = toy()
        model = net()
        train(model, x, y)
        with torch.no_grad():
            model[0].bias.sub_(1000 * model[0].weight.sum(1))  # now a model of x + 1000
        before = accuracy_of(model, x + 1000, y)
        assert before > 0.9
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torchbcd.RelaxedBCD(model, lr=0.0).fit(x + 1000, y, 1, 50)
        assert accuracy_of(model, x + 1000, y) == before


class TestStandardize:
    @pytest.mark.parametrize("bias", [True, False])
    def test_is_what_it_says_and_can_be_undone(self, bias):
        model = make_mlp([6, 5, 3], bias=bias)
        x = make_data(40, 6, 3)[0] * torch.logspace(-3, 3, 6).double() + (7.0 if bias else 0.0)
        x[:, 2] = 5.0  # does not vary
        before = {name: value.clone() for name, value in model.state_dict().items()}
        mean, scale = x.mean(0) if bias else torch.zeros(6).double(), x.std(0, unbiased=False)
        scale[2] = 1
        expected = model((x - mean) / scale)
        found = torchbcd.standardize_(model, x)
        torch.testing.assert_close(found, (mean, scale))
        torch.testing.assert_close(model(x), expected)
        torchbcd.unstandardize_(model, *found)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])

    def test_refusals(self):
        model = make_mlp([6, 5, 3])
        x, _ = make_data(40, 6, 3)
        for bad, error in (
            (x[:1], ValueError),
            (x[:, :5], ValueError),
            (x.float(), TypeError),
            (x / 0, ValueError),
        ):
            with pytest.raises(error):
                torchbcd.standardize_(model, bad)


@pytest.mark.parametrize("state_steps", [1, 2])
@pytest.mark.parametrize("hidden", ["tanh", "sign"])
def test_the_size_of_targets_changes_no_digit(hidden, state_steps):
    """Squared loss has no size of its own: RelaxedBCD's sweeps of float32 are float64's, from 1e-18 to 1e18."""
    x, _ = make_data(60, 4, 2)
    y = torch.sin(2 * x[:, :1]) + x[:, 1:2]
    for scale in (1e-18, 1e-10, 1e10, 1e15, 1e18):
        shares = {}
        for dtype in (torch.float32, torch.float64):
            model = make_mlp([4, 16, 8, 1], hidden=hidden).to(dtype)
            optimizer = torchbcd.RelaxedBCD(model, state_steps=state_steps)
            report = optimizer.step(x.to(dtype), (y * scale).to(dtype))
            shares[dtype] = [decrease / report.before for _, _, decrease in report.certificate.blocks]
        assert shares[torch.float64][2] > 0.03  # the states of the last hidden layer, whose product overflowed
        assert shares[torch.float32] == pytest.approx(shares[torch.float64], rel=2e-2, abs=1e-5)


@every_method
class TestTargets:
    @pytest.mark.parametrize("scale", [1e7, 1e10, 1e15, 1e18])
    def test_far_from_one(self, method, scale):
        """Squares overflow nowhere: float32 goes the way of float64, and hidden layers move."""
        x, _ = make_data(60, 4, 2)
        y = (torch.sin(2 * x[:, :1]) + x[:, 1:2]) * scale
        losses = {}
        for dtype in (torch.float32, torch.float64):
            model = make_mlp([4, 16, 1]).to(dtype)
            first = model[0].weight.detach().clone()
            optimizer = getattr(torchbcd, method)(model, "squared")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of DLAM's tolerance
                optimizer.bind(x.to(dtype), y.to(dtype))
            for _ in range(20):
                report = optimizer.step()
            assert not torch.equal(first, model[0].weight)
            assert report.objective == pytest.approx(optimizer.objective(), rel=1e-4)
            losses[dtype] = ((model(x.to(dtype)).detach().double() - y) / scale).square().mean().item()
        assert losses[torch.float32] == pytest.approx(losses[torch.float64], rel=0.05)

    def test_an_exponential_past_what_float32_holds(self, method):
        model = make_mlp([4, 8, 1], dtype=torch.float32)
        with torch.no_grad():
            model[2].weight.mul_(300)
        x, y = make_data(40, 4, 2, dtype=torch.float32)
        assert model(x).abs().max() > 100
        optimizer = getattr(torchbcd, method)(model, "exponential")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.bind(x, y)
        report = optimizer.step()
        assert torch.tensor([report.objective, optimizer.objective()]).isfinite().all()


def test_the_ridge_of_a_column_of_ones_does_not_cancel():
    """A bias beside inputs of 1e4 in float32: its small ridge must not be lost in the weights' large one."""
    x = 1e4 * make_data(50, 8, 2)[0]
    y = make_data(50, 4, 2, seed=3)[0]
    steps = []
    for dtype in (torch.float64, torch.float32):
        model = make_mlp([8, 4]).to(dtype)
        with torch.no_grad():
            model[0].weight.mul_(1e-4)
        optimizer = torchbcd.RelaxedBCD(model)
        optimizer.step(x.to(dtype), y.to(dtype))
        steps.append(model[0].bias.detach().double())
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-4, atol=1e-6)


def test_column_sums_in_float64_where_the_factor_is():
    """100,000 rows of one feature far from zero: the bordered Gram matrix is nearly singular."""
    generator = torch.Generator().manual_seed(0)
    x = 300 + torch.randn(100_000, 1, generator=generator)
    model = nn.Sequential(nn.Linear(1, 1))
    optimizer = torchbcd.BCD(model, alpha=0.003)
    optimizer.bind(x, x - 300)
    previous = optimizer.objective()
    for _ in range(5):
        objective = optimizer.step().objective
        assert objective <= previous * (1 + 1e-6)
        previous = objective


@every_method
def test_parameters_that_were_never_finite(method):
    model, _, x, y = build(METHODS[method])
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    optimizer = METHODS[method].over(model)
    for way in (optimizer.bind, optimizer.step):
        with pytest.raises(ValueError, match="parameters of layer 2 must be finite"):
            way(x, y)


def test_numbers_of_numpy_and_tensors():
    np = pytest.importorskip("numpy")
    plain, others = make_mlp([6, 5, 3]), make_mlp([6, 5, 3])
    x, y = make_data(30, 6, 3)
    torchbcd.RelaxedBCD(plain, relaxation=[0.1, 0.2], state_steps=2, damping=[0.1, 0.3], lr=0.5).step(x, y)
    torchbcd.RelaxedBCD(
        others,
        relaxation=np.array([0.1, 0.2]),
        state_steps=np.int64(2),
        damping=torch.tensor([0.1, 0.3], dtype=torch.float64),
        lr=np.float32(0.5),
    ).step(x, y)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), others.parameters(), strict=True))
