"""DLAM and mDLAM: F recomputed, feasibility, conditions, the deadlock, momentum, corners.

F is recomputed here from the variables alone, in float64.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import pytest
import torch
from conftest import MONOTONE, make_data, make_mlp
from dlam_problems import ROWS, WIDTHS, build, recomputed
from objectives import LOSSES, row_losses
from torch import nn

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

REGULARIZERS = {
    "none": None,
    "l2": reg.L2(0.1),
    "l1": reg.L1(0.05),
    "elastic net": reg.ElasticNet(0.02, 0.05),
    "box": reg.Box(-0.4, 0.5),
}


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", MONOTONE)
@pytest.mark.parametrize("joint", [False, True], ids=["strict", "joint"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_monotone_and_feasible(activation, loss, regularizer, joint, dtype):
    options = {"joint": True, "eps": 0.05} if joint else {}
    model, optimizer, _, y = build(activation, loss, REGULARIZERS[regularizer], dtype, **options)
    double = copy.deepcopy(model).double()
    unit = torch.finfo(dtype).eps
    previous, eps = math.inf, None
    for _ in range(30):
        report = optimizer.step()
        value, gap = recomputed(optimizer, double, loss, y, report.eps)
        assert math.isfinite(report.objective)
        assert report.objective == pytest.approx(value, rel=300 * unit)
        assert gap <= 40 * unit * max(1, *(a.abs().max().item() for a in optimizer.variables().a[1:]))
        if report.eps == eps:  # F is one function as long as eps stays
            assert report.objective <= previous * (1 + 4 * unit)
        previous, eps = report.objective, report.eps


@pytest.mark.parametrize("activation", MONOTONE)
@pytest.mark.parametrize("joint", [False, True], ids=["strict", "joint"])
@pytest.mark.parametrize("regularizer", ["none", "l2", "l1"])
def test_conditions_hold(activation, joint, regularizer):
    options = {"joint": True, "eps": 0.05} if joint else {}
    _, optimizer, _, _ = build(
        activation, "cross_entropy", REGULARIZERS[regularizer], check_conditions=True, **options
    )
    for _ in range(40):
        slack = optimizer.step().condition_slack
        # (2) is tight where theta is found in closed form.
        assert min(slack.theta) >= -1e-12
        assert min(slack.tau) >= -1e-12


class TestDeadlock:
    @pytest.mark.parametrize("eps", [0.01, 1.0, 100.0])
    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_constant_eps_freezes_the_hidden_layers(self, activation, eps):
        widths = [6, 8, 7, 5, 3]
        with pytest.warns(UserWarning, match="never moves the hidden layers"):
            _, optimizer, _, _ = build(activation, widths=widths, eps=eps, rho=0.2)
        before = optimizer.variables()
        first = optimizer.objective()
        for _ in range(50):
            optimizer.step()
        after = optimizer.variables()
        for layer in range(3):
            assert torch.equal(after.W[layer], before.W[layer])
            assert torch.equal(after.b[layer], before.b[layer])
            assert torch.equal(after.z[layer], before.z[layer])
        for layer in range(3):  # a_0 = x, and the states before the last hidden one
            assert torch.equal(after.a[layer], before.a[layer])
        assert not torch.equal(after.W[3], before.W[3])
        assert optimizer.objective() < first

    @pytest.mark.parametrize(
        "options", [{"joint": True, "eps": 0.01}, {"eps": torchbcd.EpsSchedule(0.5, 0.8, 0.01)}], ids=str
    )
    def test_what_escapes_it(self, options):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, optimizer, _, _ = build("relu", **options)
        before = optimizer.variables()
        for _ in range(30):
            optimizer.step()
        after = optimizer.variables()
        for old, new in zip(before.W, after.W, strict=True):
            assert (new - old).norm() > 1e-3 * old.norm()

    def test_joint_reaches_lower_objectives_at_the_same_eps(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = []
            for joint in (False, True):
                _, optimizer, _, _ = build("relu", eps=0.01, joint=joint)
                for _ in range(300):
                    optimizer.step()
                results.append(optimizer.objective())
        assert results[1] < 0.5 * results[0]

    def test_a_regularizer_or_one_layer_need_no_warning(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            build("relu", eps=0.1, regularizer=reg.L2(0.1))
            build("relu", eps=0.1, widths=[6, 3], rho=0.1)


class TestMomentum:
    def test_nesterov_sequence(self):
        _, optimizer, _, _ = build("tanh", joint=True, eps=0.05)
        omegas = [optimizer.step().omega for _ in range(4)]
        s = [0.0]
        for _ in range(5):
            s.append((1 + math.sqrt(1 + 4 * s[-1] ** 2)) / 2)
        expected = [max(0.0, (s[k] - 1) / s[k + 1]) for k in range(4)]
        assert omegas == pytest.approx(expected)

    def test_capped_momentum_satisfies_theorem_1(self):
        for activation in ("relu", "tanh"):
            _, optimizer, _, _ = build(
                activation, "squared", reg.L2(0.01), joint=True, eps=0.05, monotone=False, momentum="capped"
            )
            start = optimizer.objective()
            previous = optimizer.step()
            for _ in range(150):
                report = optimizer.step()
                for omega, before, now in zip(
                    report.weight_omega + report.state_omega,
                    previous.theta + previous.tau,
                    report.theta + report.tau,
                    strict=True,
                ):
                    assert omega == 0 or omega**2 < before / now
                    assert omega < 1
                assert report.objective <= start  # Lemma 7 (a)
                previous = report

    def test_acceleration_helps(self):
        values = {}
        for momentum in (None, "nesterov"):
            _, optimizer, _, _ = build("tanh", joint=True, eps=0.05, momentum=momentum)
            for _ in range(100):
                report = optimizer.step()
            values[momentum] = report.objective
        assert values["nesterov"] < values[None]

    def test_monotone_redoes_what_dlam_accepts(self):
        redone = 0
        for activation in ("sigmoid", "identity"):
            _, optimizer, _, _ = build(activation, regularizer=reg.L2(0.1))
            redone += sum(optimizer.step().redone for _ in range(60))
        assert redone > 0

    def test_as_much_of_f_as_before_is_no_descent_in_the_paper(self):
        """Layers at rest: the extrapolated step goes nowhere, and line 7 has it done again."""
        for part, expected in ((0.0, 3), (1e-3, 0)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _, optimizer, _, _ = build("tanh", eps=0.1, sufficient_decrease=part)
            redone = [optimizer.step().redone for _ in range(6)]
            assert redone == [0, 0, *[expected] * 4]  # W_1, W_2, a_1

    def test_the_more_is_asked_of_a_step_the_more_is_done_again(self):
        redone = []
        for part in (0.0, 1e-3, 0.5):
            _, optimizer, _, _ = build("sigmoid", regularizer=reg.L2(0.1), sufficient_decrease=part)
            seen = [(r.redone, r.eps, r.objective) for r in (optimizer.step() for _ in range(100))]
            redone.append(sum(count for count, _, _ in seen))
            for (_, eps, before), (_, eps_after, after) in itertools.pairwise(seen):
                assert after <= before or eps_after != eps
        assert redone[0] > 0
        assert redone[1] < redone[2]


class TestLinearRate:
    def test_of_mdlam(self):
        """The regime of Theorem 4: a strongly convex F, an eps that no box feels."""
        model = make_mlp([6, 3])
        optimizer = torchbcd.DLAM(
            model, "squared", rho=1.0, eps=100.0, weight_regularizer=reg.L2(2.0), momentum=None
        )
        optimizer.bind(*make_data(ROWS, 6, 3))
        objectives = [optimizer.step().objective for _ in range(120)]
        fit = torchbcd.diagnostics.linear_rate(objectives[:30])
        assert fit.rate < 0.98
        assert fit.r_squared > 0.9
        assert fit.limit == pytest.approx(objectives[-1], rel=1e-3)

    def test_refusals(self):
        for objectives, tail, message in (
            ([1.0] * 20, 0.5, "that fall"),
            ([2.0, 1.0], 1.0, "at least 8"),
            ([1.0], 2.0, "tail"),
        ):
            with pytest.raises(ValueError, match=message):
                torchbcd.diagnostics.linear_rate(objectives, tail)


class TestCorners:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
    @pytest.mark.parametrize("joint", [False, True], ids=["strict", "joint"])
    def test_saturated_nets(self, activation, joint, dtype):
        model = make_mlp(WIDTHS, hidden=activation, dtype=dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(30)
        eps = 0.01 if joint else torchbcd.EpsSchedule(1.0, 0.9, 0.01)
        optimizer = torchbcd.DLAM(model, rho=0.1, eps=eps, joint=joint)
        x, y = make_data(ROWS, 6, 3, dtype=dtype)
        optimizer.bind(x, y)
        previous, last = math.inf, None
        unit = torch.finfo(dtype).eps
        for _ in range(100):
            report = optimizer.step()
            assert math.isfinite(report.objective)
            if report.eps == last:
                assert report.objective <= previous * (1 + 4 * unit)
            previous, last = report.objective, report.eps
        variables = optimizer.variables()
        assert all(t.isfinite().all() for part in variables for t in part)

    def test_one_layer_is_ridge_free_regression(self):
        model = make_mlp([6, 3])
        optimizer = torchbcd.DLAM(model, "squared", rho=1.0, eps=0.1)
        x, y = make_data(ROWS, 6, 3)
        optimizer.bind(x, y)
        for _ in range(2000):
            optimizer.step()
        ones = torch.cat([x, torch.ones(ROWS, 1, dtype=x.dtype)], 1)
        one_hot = nn.functional.one_hot(y, 3).double()
        best = torch.linalg.lstsq(ones, one_hot).solution
        torch.testing.assert_close(model[0].weight.detach(), best[:-1].t(), rtol=1e-6, atol=1e-8)

    def test_zero_gradients(self):
        """Targets that the net already meets: nothing moves, nothing divides by zero."""
        model = make_mlp(WIDTHS, hidden="tanh")
        x, _ = make_data(ROWS, 6, 3)
        with torch.no_grad():
            y = model(x)
        optimizer = torchbcd.DLAM(model, "squared", rho=0.1, eps=0.1, joint=True, check_conditions=True)
        optimizer.bind(x, y)
        before = copy.deepcopy(model.state_dict())
        for _ in range(3):
            report = optimizer.step()
            assert report.objective == pytest.approx(0, abs=1e-25)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])

    def test_zero_inputs_and_dead_units(self):
        model = make_mlp(WIDTHS, hidden="relu")
        with torch.no_grad():
            model[0].bias.fill_(-10)
        optimizer = torchbcd.DLAM(model, rho=0.1, eps=0.01, joint=True)
        optimizer.bind(torch.zeros(ROWS, 6).double(), make_data(ROWS, 6, 3)[1])
        values = [optimizer.step().objective for _ in range(10)]
        assert values == sorted(values, reverse=True)

    def test_eps_zero_with_joint(self):
        _, optimizer, _, _ = build("relu", joint=True, eps=0.0)
        values = []
        for _ in range(30):
            report = optimizer.step()
            values.append(report.objective)
            assert report.gap == 0
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.8 * values[0]

    def test_no_bias(self):
        model = make_mlp(WIDTHS, hidden="relu", bias=False)
        optimizer = torchbcd.DLAM(model, rho=0.1, eps=0.01, joint=True)
        optimizer.bind(*make_data(ROWS, 6, 3))
        values = [optimizer.step().objective for _ in range(10)]
        assert values == sorted(values, reverse=True)
        assert optimizer.variables().b == [None] * 3

    @pytest.mark.parametrize("regularizer", [None, reg.L2(0.1), reg.L1(0.05)], ids=str)
    def test_weight_damping(self, regularizer):
        _, optimizer, _, _ = build("relu", regularizer=regularizer, joint=True, eps=0.0, weight_damping=0.1)
        values = [optimizer.step().objective for _ in range(30)]
        assert values == sorted(values, reverse=True)

    def test_sample_weight(self):
        """Rows of weight 2 are rows that are there twice, in the loss."""
        x, y = make_data(ROWS, 6, 3)
        weight = torch.ones(ROWS, dtype=x.dtype)
        weight[:5] = 0
        model = make_mlp(WIDTHS)
        optimizer = torchbcd.DLAM(model, rho=0.1, eps=0.05, joint=True)
        optimizer.bind(x, y, sample_weight=weight)
        with torch.no_grad():
            losses = row_losses("cross_entropy", model(x), y)
        assert optimizer.objective() == pytest.approx(losses[5:].sum().item())


class TestSweeps:
    def test_block_order(self):
        _, optimizer, _, _ = build("relu")
        blocks = []
        optimizer.set_observer(lambda block, layer: blocks.append((block, layer)))
        optimizer.step()
        assert blocks == [
            *((block, layer) for layer in (1, 2) for block in ("W", "z", "a")),
            ("W", 3),
            ("z", 3),
        ]

    def test_outside_changes_are_taken_over(self):
        model, optimizer, _, y = build("tanh", joint=True, eps=0.05)
        for _ in range(5):
            optimizer.step()
        with torch.no_grad():
            model[0].weight.mul_(0.9)
        value, _ = recomputed(optimizer, model, "cross_entropy", y, 0.05)
        assert optimizer.objective() == pytest.approx(value, rel=1e-10)
        report = optimizer.step()
        assert report.omega == 0
        assert report.objective <= value

    def test_mini_batches(self):
        model = make_mlp(WIDTHS)
        optimizer = torchbcd.DLAM(model, rho=0.1, eps=0.01, joint=True)
        x, _ = make_data(400, 6, 3)
        y = x[:, :3].argmax(1)
        before = nn.functional.cross_entropy(model(x), y).item()
        for epoch in range(4):
            for rows in torch.randperm(400, generator=torch.Generator().manual_seed(epoch)).split(20):
                with torch.no_grad():
                    start = nn.functional.cross_entropy(model(x[rows]), y[rows], reduction="sum").item()
                assert optimizer.step(lambda rows=rows: (x[rows], y[rows])).objective <= start
        assert nn.functional.cross_entropy(model(x), y).item() < 0.8 * before

    def test_bound_data_know_of_the_sweeps_before_one_that_fails(self):
        model, seen = make_mlp(WIDTHS), []
        optimizer = torchbcd.DLAM(model, rho=0.5, joint=True)
        x, y = make_data(20, 6, 3)
        optimizer.bind(x, y)
        optimizer.step()

        def stop(block, layer):
            seen.append((block, layer))
            if seen.count(("W", 1)) == 4:
                raise InterruptedError

        optimizer.set_observer(stop)
        with pytest.raises(InterruptedError):
            optimizer.step(x[:9], y[:9], sweeps=5)
        assert optimizer.sweeps == 1 + 3
        found = optimizer.objective()
        for sign in (1.0, -1.0):  # a change of somebody else's computes all products anew
            for p in model.parameters():
                p.data.add_(sign)
            optimizer.objective()
        assert found == pytest.approx(optimizer.objective(), rel=1e-12)

    def test_one_sweep_from_a_forward_pass_moves_only_the_output(self):
        model = make_mlp(WIDTHS)
        optimizer = torchbcd.DLAM(model, rho=0.1, eps=0.01, joint=True)
        before = copy.deepcopy(model.state_dict())
        x, y = make_data(ROWS, 6, 3)
        optimizer.step(x, y, sweeps=1)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])
        optimizer.step(x, y)
        assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"monotone": False}, {"momentum": None}, {"output_solver": "fista"}])
def test_no_error_of_the_products_grows(options):
    """The products are updated by differences and computed afresh every 50 sweeps, with the last sweep's."""
    model, optimizer, _, y = build(
        "relu", regularizer=reg.L2(1.0), widths=[6, 5, 3], rho=1.0, eps=0.01, joint=True, **options
    )
    for _ in range(420):
        report = optimizer.step()
        total, _ = recomputed(optimizer, model, "cross_entropy", y, 0.01)
        assert report.objective == pytest.approx(total, rel=1e-11)
