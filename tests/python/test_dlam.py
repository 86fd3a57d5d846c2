"""DLAM and mDLAM: blocks by brute force, F recomputed, feasibility, conditions, the deadlock, corners, state.

F is recomputed here from the variables alone, in float64.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import pytest
import torch
from conftest import ACTIVATIONS, make_data, make_mlp
from objectives import LOSSES, regularizer_value, row_losses
from torch import nn

import torchbcd
import torchbcd.functional as F
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

MONOTONE = ("relu", "leaky_relu", "sigmoid", "tanh", "identity", "hardtanh", "hardsigmoid")
PARAMETERS = {"leaky_relu": [0.1], "hardtanh": [-0.75, 1.25]}
REGULARIZERS = {
    "none": None,
    "l2": reg.L2(0.1),
    "l1": reg.L1(0.05),
    "elastic net": reg.ElasticNet(0.02, 0.05),
    "box": reg.Box(-0.4, 0.5),
}
WIDTHS, ROWS = [6, 8, 7, 3], 40


def sigma(name):
    return ACTIVATIONS[name]()


def build(
    activation="relu", loss="cross_entropy", regularizer=None, dtype=torch.float64, widths=WIDTHS, **options
):
    model = make_mlp(widths, hidden=activation, dtype=dtype)
    options.setdefault("rho", [0.3, 0.1, 0.2][: len(widths) - 1])
    options.setdefault("eps", torchbcd.EpsSchedule(0.5, 0.5, 0.05))
    optimizer = torchbcd.DLAM(model, loss, weight_regularizer=regularizer, **options)
    x, y = make_data(ROWS, widths[0], widths[-1], dtype=dtype)
    optimizer.bind(x, y)
    return model, optimizer, x, y


def recomputed(optimizer, model, loss, y, eps):
    """F, and the largest |a - h(z)| - eps, from the variables, in float64."""
    w, b, z, a = optimizer.variables()
    activations = [module for module in model if not isinstance(module, nn.Linear)]
    total = row_losses(loss, z[-1].double(), y).sum().item()
    gap = -math.inf
    for i, group in enumerate(optimizer.param_groups):
        product = a[i].double() @ w[i].double().t() + b[i].double()
        total += group["rho"] / 2 * (z[i].double() - product).square().sum().item()
        total += regularizer_value(group["weight_regularizer"], w[i])
        if i < len(activations):
            gap = max(gap, (a[i + 1].double() - activations[i](z[i].double())).abs().max().item() - eps)
    return total, gap


class TestBlocks:
    """Each block against brute force in float64."""

    @pytest.mark.parametrize("eps", [0.0, 1e-3, 0.1, 2.0])
    @pytest.mark.parametrize("activation", MONOTONE)
    def test_joint_state_update(self, activation, eps):
        generator = torch.Generator().manual_seed(3)
        q, v = 3 * torch.randn(2, 60, generator=generator, dtype=torch.float64)
        grid = torch.cat([torch.linspace(-12, 12, 20001).double(), torch.zeros(1).double()])
        for ratio in (1e-2, 1.0, 30.0):
            z, a = F.joint_state_update(q, v, activation, PARAMETERS.get(activation, []), ratio, eps)
            assert ((a - sigma(activation)(z)).abs() <= eps + 1e-12).all()

            def value(z, a, ratio=ratio):
                return ratio / 2 * (z - q) ** 2 + 0.5 * (a - v) ** 2

            candidates = grid[:, None]
            image = sigma(activation)(candidates)
            best_a = v.clamp(min=image - eps, max=image + eps)
            best = value(candidates, best_a).min(0).values
            assert (value(z, a) <= best + 1e-9).all()

    @pytest.mark.parametrize("eps", [1e-3, 0.1, 2.0])
    @pytest.mark.parametrize("activation", MONOTONE)
    def test_preimage_projection(self, activation, eps):
        generator = torch.Generator().manual_seed(4)
        z, q, jitter = 2 * torch.randn(3, 60, generator=generator, dtype=torch.float64)
        a = sigma(activation)(z) + eps * jitter.clamp(-1, 1)
        projected = F.preimage_projection(q, a, z, activation, PARAMETERS.get(activation, []), eps)
        grid = torch.linspace(-12, 12, 200001).double()[:, None]
        feasible = (a - sigma(activation)(grid)).abs() <= eps
        distance = torch.where(feasible, (grid - q).abs(), math.inf).min(0).values
        assert ((a - sigma(activation)(projected)).abs() <= eps + 1e-12).all()
        assert ((projected - q).abs() <= distance + 1e-12).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("activation", MONOTONE)
    def test_saturated_and_empty_boxes_stay_finite(self, activation, dtype):
        z = torch.tensor([-200.0, -40, -20, -10, 0, 10, 20, 40, 200], dtype=dtype)
        for eps, sign in itertools.product((1e-6, 1e-3, 0.5), (-1, 1)):
            a = sigma(activation)(z) + sign * eps
            for q in (z, z - 1, z + 1, -z):
                projected = F.preimage_projection(q, a, z, activation, PARAMETERS.get(activation, []), eps)
                assert projected.isfinite().all()
                assert ((projected - q).abs() <= (z - q).abs()).all()
        outside = torch.full_like(z, 7)  # no z has a sigmoid or a tanh near 7
        for result in F.joint_state_update(z, outside, activation, PARAMETERS.get(activation, []), 0.5, 0.1):
            assert result.isfinite().all()

    def test_strided_inputs(self):
        q, v = torch.randn(2, 5, 7, dtype=torch.float64).transpose(1, 2)
        for strided, contiguous in zip(
            F.joint_state_update(q, v, "relu", [], 0.5, 0.1),
            F.joint_state_update(q.contiguous(), v.contiguous(), "relu", [], 0.5, 0.1),
            strict=True,
        ):
            torch.testing.assert_close(strided, contiguous, rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("name", "parameters"), [("polynomial", [0.0, 1.0, 2.0]), ("leaky_relu", [-0.5]), ("sign", [])]
    )
    def test_only_monotone_activations(self, name, parameters):
        x = torch.zeros(3)
        with pytest.raises(ValueError, match="must be monotone"):
            F.joint_state_update(x, x, name, parameters, 1.0, 0.1)
        with pytest.raises(ValueError, match="must be monotone"):
            F.preimage_projection(x, x, x, name, parameters, 0.1)

    def test_weight_step_minimises_its_model(self):
        """W' is the minimiser of P + Omega at the reported theta, and theta is the least that satisfies (2)."""
        _, optimizer, _, _ = build("tanh", regularizer=reg.L2(0.3), joint=True, eps=0.1, momentum=None)
        for _ in range(3):
            optimizer.step()
        before = optimizer.variables()
        report = optimizer.step()
        after = optimizer.variables()
        # The first layer's a is the data, and z its z of before.
        a, z, rho, theta = before.a[0], before.z[0], 0.3, report.theta[0]
        r = a @ before.W[0].t() + before.b[0] - z
        gradient = rho * r.t() @ a
        stationarity = gradient + theta * (after.W[0] - before.W[0]) + 0.3 * after.W[0]
        assert stationarity.abs().max() <= 1e-12 * gradient.abs().max()
        d_w, d_b = after.W[0] - before.W[0], after.b[0] - before.b[0]
        least = rho * (a @ d_w.t() + d_b).square().sum() / (d_w.square().sum() + d_b.square().sum())
        assert theta == pytest.approx(least.item(), rel=1e-9)


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
        assert gap <= 40 * unit
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


class TestCost:
    """Products with a matrix of n rows, counted by the profiler, not by the engine's own word."""

    @staticmethod
    def products(optimizer, rows):
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
        ) as profile:
            report = optimizer.step()
        count = sum(
            any(rows in shape for shape in event.input_shapes)
            for event in profile.events()
            if event.name in ("aten::mm", "aten::addmm", "aten::addmm_")
        )
        return count, report

    @pytest.mark.parametrize("joint", [False, True], ids=["strict", "joint"])
    @pytest.mark.parametrize("momentum", ["nesterov", None])
    def test_products_of_a_sweep(self, momentum, joint):
        rows, widths = 301, [6, 8, 7, 5, 3]
        layers = len(widths) - 1
        model = make_mlp(widths, hidden="tanh")
        optimizer = torchbcd.DLAM(
            model,
            rho=0.1,
            eps=0.05 if joint else torchbcd.EpsSchedule(0.05, 1.0, 0.05),
            joint=joint,
            momentum=momentum,
        )
        optimizer.bind(*make_data(rows, 6, 3))
        for _ in range(5):
            optimizer.step()
        plain = 2 * layers + 2 * (layers - 1)
        # With acceleration one more a block, but for the first layer's, which is reused.
        bound = plain + (2 * (layers - 1) if momentum else 0)
        for _ in range(20):
            count, report = self.products(optimizer, rows)
            assert count == report.products
            assert count == bound + report.trials + 2 * report.redone
        assert report.trials <= 4

    def test_objective_and_reports_cost_no_product(self):
        _, optimizer, _, _ = build("tanh", joint=True, eps=0.05)
        report = optimizer.step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            assert report.objective == optimizer.objective()
            assert report.gap <= 1e-12
        assert not any(event.name in ("aten::mm", "aten::addmm") for event in profile.events())


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


@pytest.mark.parametrize("loss", ["squared", "logistic", "cross_entropy"])
def test_fista_agrees_with_the_prox(loss):
    weights = []
    for solver in ("prox", "fista"):
        model, optimizer, _, _ = build("tanh", loss, joint=True, eps=0.05, rho=0.5, output_solver=solver)
        for _ in range(5):
            optimizer.step()
        weights.append(model[-1].weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", ["hinge", "exponential"])
def test_fista_needs_a_smooth_loss(loss):
    with pytest.raises(ValueError, match="needs a loss with a Lipschitz gradient"):
        torchbcd.DLAM(make_mlp(WIDTHS), loss, output_solver="fista")


class TestContract:
    def test_state_dict_continues_bit_for_bit(self):
        model, optimizer, _, _ = build("relu", regularizer=reg.L1(0.01))
        for _ in range(7):
            optimizer.step()
        other = make_mlp(WIDTHS)
        copied = torchbcd.DLAM(other, rho=9.0, eps=torchbcd.EpsSchedule(0.5, 0.5, 0.05))
        state = copy.deepcopy(optimizer.state_dict())
        other.load_state_dict(model.state_dict())
        copied.load_state_dict(state)
        for _ in range(60):
            first, second = optimizer.step(), copied.step()
        assert first.objective == second.objective
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    def test_a_failed_sweep_changes_nothing(self):
        model, optimizer, _, _ = build("relu")
        for _ in range(3):
            optimizer.step()
        objective, state = optimizer.objective(), copy.deepcopy(model.state_dict())

        def interrupt(block, layer):
            if (block, layer) == ("a", 1):
                raise KeyboardInterrupt

        optimizer.set_observer(interrupt)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
        assert optimizer.objective() == objective
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name])
        optimizer.set_observer(None)
        reference = build("relu")
        for _ in range(4):
            reference[1].step()
        optimizer.step()
        assert torch.equal(model[0].weight, reference[0][0].weight)

    def test_block_order(self):
        _, optimizer, _, _ = build("relu")
        blocks = []
        optimizer.set_observer(lambda block, layer: blocks.append((block, layer)))
        optimizer.step()
        assert blocks == [
            *((block, layer) for layer in (0, 1) for block in ("W", "z", "a")),
            ("W", 2),
            ("z", 2),
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

    def test_reports_expire(self):
        _, optimizer, _, _ = build("relu")
        report = optimizer.step()
        optimizer.step()
        with pytest.raises(RuntimeError, match="moved on"):
            _ = report.objective

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rho": 0.0}, "rho of layer 1 must be a finite positive number"),
            ({"rho": [0.1]}, "rho must hold one number for each of the 3 layers"),
            ({"momentum": "heavy"}, "momentum must be one of"),
            ({"output_solver": "newton"}, "output_solver must be one of"),
            ({"weight_damping": -1.0}, "weight_damping must be > 0 or None"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            torchbcd.DLAM(make_mlp(WIDTHS), **options)

    @pytest.mark.parametrize(("eps", "joint"), [(-1.0, True), (0.0, False), (math.nan, False), (math.inf, True)])
    def test_bad_eps(self, eps, joint):
        optimizer = torchbcd.DLAM(make_mlp(WIDTHS), eps=eps, joint=joint)
        with pytest.raises(ValueError, match="eps must be a finite positive number"):
            optimizer.bind(*make_data(ROWS, 6, 3))

    def test_unsupported_models(self):
        with pytest.raises(ValueError, match=r"layer 1: the activation must be monotone"):
            torchbcd.DLAM(make_mlp(WIDTHS, hidden="polynomial"))
        with pytest.raises(ValueError, match="the last layer must have no activation"):
            torchbcd.DLAM(make_mlp(WIDTHS, output="tanh"))

    def test_nothing_bound(self):
        optimizer = torchbcd.DLAM(make_mlp(WIDTHS))
        for call in (optimizer.step, optimizer.objective, optimizer.gap, optimizer.variables):
            with pytest.raises(ValueError, match=r"call bind\(x, y\)"):
                call()


class TestDladmm:
    def test_reference(self):
        """Three sweeps against a literal transcription."""
        model = make_mlp(WIDTHS, hidden="relu")
        x, y = make_data(ROWS, 6, 3)
        rho, nu = 0.4, 0.7
        optimizer = torchbcd.DLADMM(model, "squared", rho=rho, nu=nu)
        optimizer.bind(x, y)
        w = [module.weight.detach().clone() for module in model if isinstance(module, nn.Linear)]
        b = [module.bias.detach().clone() for module in model if isinstance(module, nn.Linear)]
        target = nn.functional.one_hot(y, 3).double()
        a, z = [x], []
        for i in range(3):
            z.append(a[i] @ w[i].t() + b[i])
            a.append(z[i].relu())
        u = torch.zeros_like(z[2])
        penalty = [nu, nu, rho]

        def goal(i):
            return z[i] + u / rho if i == 2 else z[i]

        def residual(i):
            return a[i] @ w[i].t() + b[i] - goal(i)

        def update_a(i):  # a[i + 1] = h(z[i])
            g = nu * (a[i + 1] - z[i].relu()) + penalty[i + 1] * residual(i + 1) @ w[i + 1]
            curvature = nu * g.square().sum() + penalty[i + 1] * (g @ w[i + 1].t()).square().sum()
            a[i + 1] = a[i + 1] - g * (g.square().sum() / curvature)

        def update_z(i):
            q = a[i] @ w[i].t() + b[i]
            z[i] = (target + rho * q - u) / (1 + rho) if i == 2 else F.prox_relu(a[i + 1], q, 1.0)

        def update_b(i):
            b[i] = b[i] - residual(i).mean(0)

        def update_w(i):
            g = residual(i).t() @ a[i]
            w[i] = w[i] - g * (g.square().sum() / (a[i] @ g.t()).square().sum())

        for _ in range(3):
            for i in (2, 1, 0):
                if i < 2:
                    update_a(i)
                update_z(i)
                update_b(i)
                update_w(i)
            for i in (0, 1, 2):
                update_w(i)
                update_b(i)
                update_z(i)
                if i < 2:
                    update_a(i)
            u = u + rho * (z[2] - a[2] @ w[2].t() - b[2])
            report = optimizer.step()
        variables = optimizer.variables()
        for mine, theirs in zip(
            (*variables.W, *variables.b, *variables.z, *variables.a, variables.u),
            (*w, *b, *z, *a[:3], u),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
        lagrangian = 0.5 * (z[2] - target).square().sum() + (u * (z[2] - a[2] @ w[2].t() - b[2])).sum()
        for i in range(3):
            lagrangian += penalty[i] / 2 * (z[i] - a[i] @ w[i].t() - b[i]).square().sum()
            if i < 2:
                lagrangian += nu / 2 * (a[i + 1] - z[i].relu()).square().sum()
        assert report.objective == pytest.approx(lagrangian.item(), rel=1e-9)

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("activation", [*MONOTONE, "polynomial"])
    def test_it_learns(self, activation, loss):
        model = make_mlp(WIDTHS, hidden=activation)
        x, y = make_data(ROWS, 6, 3)
        optimizer = torchbcd.DLADMM(model, loss, rho=0.5)
        optimizer.bind(x, y)
        before = optimizer.objective()  # of a forward pass: the loss
        for _ in range(60):
            report = optimizer.step()
        assert report.loss < 0.8 * before
        assert report.primal_residual < 0.3 * optimizer.variables().z[-1].norm()

    def test_every_block_but_the_multiplier_lowers_the_lagrangian(self):
        optimizer = torchbcd.DLADMM(make_mlp(WIDTHS, hidden="tanh"), rho=0.2)
        optimizer.bind(*make_data(ROWS, 6, 3))
        value = optimizer.objective()
        for _ in range(20):
            report = optimizer.step()
            raised = 0.2 * report.primal_residual**2
            assert report.objective <= value + raised + 1e-10
            value = report.objective

    def test_state_dict_continues_bit_for_bit(self):
        model = make_mlp(WIDTHS)
        optimizer = torchbcd.DLADMM(model, rho=0.1, weight_regularizer=reg.L1(0.01))
        optimizer.bind(*make_data(ROWS, 6, 3))
        for _ in range(5):
            optimizer.step()
        other = copy.deepcopy(model)
        copied = torchbcd.DLADMM(other, rho=7.0)
        copied.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for _ in range(5):
            optimizer.step()
            copied.step()
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    def test_refusals(self):
        with pytest.raises(ValueError, match="the last layer must have no activation"):
            torchbcd.DLADMM(make_mlp(WIDTHS, output="tanh"))
        optimizer = torchbcd.DLADMM(make_mlp(WIDTHS))
        with pytest.raises(ValueError, match=r"call bind\(x, y\)"):
            optimizer.step()
        with pytest.raises(ValueError, match="penalty of layer 1 must be a finite positive number"):
            torchbcd.DLADMM(make_mlp(WIDTHS), nu=-1.0)
