"""RelaxedBCD over many steps: the guard, momentum, persistent variables, schedules, fit, real data."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import InterruptedSweep, stop_at
from objectives import LOSSES, row_losses
from relaxed_problems import FEW, MANY, STILL, WIDTHS, assert_certified, watched_sweep
from torch import nn

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")


class TestGuard:
    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_the_true_loss_never_rises(self, activation):
        model = make_mlp(WIDTHS, hidden=activation)
        x, y = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        optimizer = torchbcd.RelaxedBCD(model, relaxation=1.9, output_relaxation=1.9, damping=1e-3, guard=True)
        value, halvings = math.inf, 0
        for _ in range(60):
            halvings += optimizer.step(x, y).guard_halvings
            after = row_losses("squared", model(x).detach(), y).sum().item()
            assert after <= value
            value = after
        assert halvings > 0

    def test_it_changes_nothing_where_nothing_rises(self):
        weights = []
        for guard in (False, True):
            model = make_mlp(WIDTHS)
            optimizer = torchbcd.RelaxedBCD(model, guard=guard, relaxation=0.1)
            for _ in range(3):
                assert optimizer.step(*make_data(MANY, WIDTHS[0], WIDTHS[-1])).guard_halvings == 0
            weights.append(model[0].weight.detach())
        assert torch.equal(*weights)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("momentum", "decay"), [(0.7, 0.0), (0.0, 0.03), ([0.9, 0.0, 0.5, 0.2], [0.0, 0.1, 0.02, 0.3])]
)
class TestMomentumAndDecay:
    def test_sweeps_start_further_on(self, momentum, decay, bias):
        """The same weights as when a plain optimizer is given (1 - lr decay) W + momentum D before each step."""
        model, plain = make_mlp(WIDTHS, bias=bias), make_mlp(WIDTHS, bias=bias)
        optimizer = torchbcd.RelaxedBCD(model, momentum=momentum, weight_decay=decay, lr=0.5)
        reference = torchbcd.RelaxedBCD(plain, lr=0.5, **STILL)
        factors = [group for group in optimizer.param_groups for _ in range(1 + bias)]
        velocity = [torch.zeros_like(p) for p in plain.parameters()]
        for rows in (FEW, MANY, FEW, FEW, MANY):
            data = make_data(rows, WIDTHS[0], WIDTHS[-1])
            report = optimizer.step(*data)
            before = [p.detach().clone() for p in plain.parameters()]
            with torch.no_grad():
                for p, d, group in zip(plain.parameters(), velocity, factors, strict=True):
                    p.mul_(1 - 0.5 * group["weight_decay"] * (p.dim() == 2)).add_(d, alpha=group["momentum"])
            expected = reference.step(*data)
            velocity = [p.detach() - b for p, b in zip(plain.parameters(), before, strict=True)]
            assert report.certificate == expected.certificate
            for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)

    def test_guard_is_for_the_model_s_weights(self, momentum, decay, bias):
        model = make_mlp(WIDTHS, bias=bias)
        x, y = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        optimizer = torchbcd.RelaxedBCD(
            model, momentum=momentum, weight_decay=decay, relaxation=1.9, damping=1e-3, guard=True
        )
        value = math.inf
        for _ in range(30):
            optimizer.step(x, y)
            after = row_losses("squared", model(x).detach(), y).sum().item()
            assert after <= value
            value = after


class TestPersistent:
    @pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
    @pytest.mark.parametrize("activation", ["relu", "sigmoid"])
    def test_one_chain_over_all_sweeps(self, activation, loss):
        model = make_mlp(WIDTHS, hidden=activation)
        optimizer = torchbcd.RelaxedBCD(model, loss, persistent=True, weight_regularizer=reg.L2(0.01))
        x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1])
        optimizer.bind(x, y)
        previous, penalties = None, None
        for _ in range(30):
            report, seen = watched_sweep(optimizer)
            assert_certified(report, seen, reg.L2(0.01), loss, y, clamped=loss == "squared", dtype=torch.float64)
            if previous is not None:
                assert report.before == pytest.approx(previous, rel=1e-9)
                assert report.penalties == penalties
            previous, penalties = report.objective, report.penalties

    def test_goes_with_no_momentum(self):
        said = "persistent variables go with no momentum and no weight_decay"
        with pytest.raises(ValueError, match=said):
            torchbcd.RelaxedBCD(make_mlp(WIDTHS), persistent=True, momentum=0.5)
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), persistent=True)
        optimizer.bind(*make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        optimizer.param_groups[0]["weight_decay"] = 0.1
        with pytest.raises(ValueError, match=said):
            optimizer.step()


class TestSteps:
    def test_lr_scheduler(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), momentum=0.0)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)
        data = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        factors = []
        for _ in range(5):
            factors.append(optimizer.param_groups[0]["lr"])
            optimizer.step(*data)
            scheduler.step()
        assert factors == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
        model = copy.deepcopy(optimizer.param_groups[0]["params"][0])
        optimizer.step(*data)  # lr = 0: the weights stay
        assert torch.equal(model, optimizer.param_groups[0]["params"][0])

    def test_bound_and_given_data_agree(self):
        data = make_data(MANY, WIDTHS[0], WIDTHS[-1])
        weights = []
        for bound in (False, True):
            model = make_mlp(WIDTHS)
            optimizer = torchbcd.RelaxedBCD(model)
            optimizer.bind(*data)
            for _ in range(3):
                optimizer.step(*(() if bound else data))
            weights.append(model[0].weight.detach())
        assert torch.equal(*weights)

    def test_batches_of_any_size(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        for rows in (5, 40, 7, 41, 1, 40):
            report = optimizer.step(*make_data(rows, WIDTHS[0], WIDTHS[-1]))
            assert report.objective <= report.before

    def test_a_failed_sweep_leaves_no_variables_to_look_at(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        stop_at(optimizer, 6)
        with pytest.raises(InterruptedSweep):
            optimizer.step(*make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        with pytest.raises(ValueError, match="call step first"):
            optimizer.variables()

    def test_objective_is_the_certificate_s_end(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), "cross_entropy")
        report = optimizer.step(*make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        assert optimizer.objective() == pytest.approx(report.objective)


class TestFit:
    @staticmethod
    def problem(rows=400):
        x, _ = make_data(rows, 6, 3)
        return x, x[:, :3].argmax(1)

    def test_epochs(self):
        model = make_mlp(WIDTHS)
        optimizer = torchbcd.RelaxedBCD(model)
        x, y = self.problem()
        seen = []
        reports = optimizer.fit(
            x[:300], y[:300], 8, 25, validation=(x[300:], y[300:]), average=0.9, callback=seen.append,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert reports == seen
        assert [report.epoch for report in reports] == list(range(1, 9))
        assert reports[-1].loss < 0.5 * reports[0].loss
        assert reports[-1].validation_accuracy > 0.85
        assert [group["lr"] for group in optimizer.param_groups] == [1.0] * 4
        # The model holds the average that was measured last.
        accuracy = (model(x[300:]).argmax(1) == y[300:]).double().mean().item()
        assert accuracy == reports[-1].validation_accuracy

    @pytest.mark.parametrize("loss", LOSSES)
    def test_losses_are_those_of_the_engine(self, loss):
        model = make_mlp(WIDTHS)
        x, y = self.problem(40)
        expected = row_losses(loss, model(x).detach(), y).mean().item()
        (report,) = torchbcd.RelaxedBCD(model, loss, lr=0.0).fit(x, y, 1, 40, validation=(x, y))
        assert report.loss == pytest.approx(expected)
        assert report.validation_loss == pytest.approx(expected)

    def test_patience_restores_the_best(self):
        model = make_mlp(WIDTHS)
        x, _ = self.problem(60)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(3, (60,), generator=generator)  # nothing to generalise: it soon over-fits
        reports = torchbcd.RelaxedBCD(model).fit(
            x, noise, 60, 10, validation=(x + 1, noise), patience=3, decay=False, generator=generator
        )
        losses = [report.validation_loss for report in reports]
        assert len(reports) < 60
        assert len(losses) - 1 - losses.index(min(losses)) == 3
        restored = row_losses("squared", model(x + 1).detach(), noise).mean().item()
        assert restored == pytest.approx(min(losses))

    def test_validation_by_a_function(self):
        """Of the averaged model, and with a tolerance."""
        x, y = self.problem()
        found = []

        def error(module):
            with torch.no_grad():
                found.append((module(x).argmax(1) != y).double().mean().item())
            return found[-1]

        for tol in (0.0, 0.01):
            found.clear()
            model = make_mlp(WIDTHS)
            generator = torch.Generator().manual_seed(0)
            reports = torchbcd.RelaxedBCD(model).fit(
                x, y, 200, 25, validation=error, patience=4, tol=tol, average=0.9, generator=generator
            )
            losses = [report.validation_loss for report in reports]
            assert losses == found
            assert reports[0].validation_accuracy is None
            better = [k for k, loss in enumerate(losses) if loss < min([math.inf, *losses[:k]]) - tol]
            assert len(losses) - 1 - better[-1] == 4
            # That of the best epoch, also where it was better by less than tol.
            assert error(model) == min(losses)

    @pytest.mark.parametrize(("hold", "expected"), [(0.0, [1, 0.75, 0.5, 0.25]), (0.5, [1, 1, 1, 0.5])])
    def test_lr_falls_to_zero(self, hold, expected):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        rates = []

        def watch(block, layer):
            if block == "V":
                rates.append(optimizer.param_groups[layer - 1]["lr"])

        optimizer.set_observer(watch)
        optimizer.fit(*self.problem(40), 2, 20, hold=hold)
        assert rates == expected

    def test_the_same_seed_gives_the_same_weights(self):
        weights = []
        for _ in range(2):
            model = make_mlp(WIDTHS)
            generator = torch.Generator().manual_seed(3)
            torchbcd.RelaxedBCD(model).fit(*self.problem(80), 2, 10, noise=0.1, generator=generator)
            weights.append(model[0].weight.detach())
        assert torch.equal(*weights)

    def test_refusals(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        data = self.problem(20)
        for options, message in (
            ({"epochs": 0}, "at least 1"),
            ({"average": 1.0}, r"average must be in \(0, 1\)"),
            ({"hold": 1.0}, r"hold must be in \[0, 1\)"),
            ({"patience": 2}, "patience needs validation data"),
            ({"tol": -0.1}, "tol must be at least 0"),
        ):
            with pytest.raises(ValueError, match=message):
                optimizer.fit(*data, **options)


def test_sign_layers_learn(digits):
    """Backpropagation teaches the last layer alone; flipped states teach the ones before it."""
    x, y = digits
    accuracies = []
    for hidden in (0.0, 0.3):
        model = make_mlp([64, 50, 50, 10], hidden="sign", dtype=torch.float32)
        optimizer = torchbcd.RelaxedBCD(model, relaxation=[hidden, hidden, 0.05])
        optimizer.fit(x, y, 8, 50, generator=torch.Generator().manual_seed(0))
        accuracies.append((model(x).argmax(1) == y).double().mean().item())
    last_layer, all_layers = accuracies
    assert last_layer < 0.75
    assert all_layers > 0.85


def test_a_deep_net_from_a_tiny_initialisation(digits):
    """Ten hidden layers, weights from N(0, 0.01^2): gradients vanish, the sweep does not mind."""
    x, y = digits
    torch.manual_seed(0)
    modules = []
    for inputs, outputs in itertools.pairwise([64] + [50] * 10 + [10]):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.constant_(linear.bias, 0.1)
        modules += [linear, nn.ReLU()]
    model = nn.Sequential(*modules[:-1])
    optimizer = torchbcd.RelaxedBCD.for_any_depth(model)
    optimizer.fit(x[:1400], y[:1400], 15, 50, generator=torch.Generator().manual_seed(0))
    assert (model(x[1400:]).argmax(1) == y[1400:]).double().mean() > 0.8


def test_digits_in_a_few_epochs(digits):
    x, y = digits
    model = make_mlp([64, 100, 100, 10], dtype=torch.float32)
    optimizer = torchbcd.RelaxedBCD(model)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    generator = torch.Generator().manual_seed(1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=20)
    for _ in range(20):
        for rows in train[torch.randperm(1400, generator=generator)].split(50):
            optimizer.step(x[rows], y[rows])
        scheduler.step()
    assert (model(x[test]).argmax(1) == y[test]).double().mean() >= 0.97
