"""dist(0, dF) of DLAM against brute force and autograd, c_k of Theorem 2, and fit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import MONOTONE, make_data, make_mlp
from dlam_problems import ROWS, build
from objectives import row_losses
from torch import nn

import torchbcd
from torchbcd import regularizers as reg
from torchbcd.dlam_stationarity import pair_distance

pytestmark = pytest.mark.usefixtures("one_thread")

# Where to look at (z, a): h, its terms, and z among them the kinks.
PLACES = {
    "relu": (torch.relu, ("relu", ()), (-0.5, 0.0, 0.5)),
    "leaky_relu": (lambda z: nn.functional.leaky_relu(z, 0.25), ("leaky_relu", (0.25,)), (-0.5, 0.0, 0.5)),
    "bent down": (lambda z: nn.functional.leaky_relu(z, 2.0), ("leaky_relu", (2.0,)), (-0.5, 0.0, 0.5)),
    "hardtanh": (lambda z: z.clamp(-1, 1), ("hardtanh", (-1.0, 1.0)), (-2.0, -1.0, 0.5, 1.0)),
    "tanh": (torch.tanh, ("tanh", ()), (-0.5, 0.0, 1.5)),
    "sigmoid": (torch.sigmoid, ("sigmoid", ()), (-0.5, 2.0)),
}


def regular_distance(direction, inside):
    """Of `direction` from the regular normal cone: the polar of the tangent cone, its angles found by trying."""
    angles = torch.linspace(0, 2 * math.pi, 7201, dtype=torch.float64)[:-1]
    tangent = angles[inside(torch.cos(angles), torch.sin(angles))]
    if len(tangent) == 0:
        return 0.0
    steps = torch.cat([tangent[1:], tangent[:1] + 2 * math.pi]) - tangent
    widest = steps.argmax()  # the gap in the tangent directions
    if steps[widest] < math.pi * (1 - 1e-3):
        return math.hypot(*direction)  # their convex hull is the plane, or the cone's polar is {0}
    if steps.sort().values[-2] > math.pi * (1 - 1e-2):  # a line
        return abs(direction[0] * math.cos(tangent[0]) + direction[1] * math.sin(tangent[0]))
    first = tangent[(widest + 1) % len(tangent)]
    length = 2 * math.pi - steps[widest]
    hull = first + torch.linspace(0, 1, 7201, dtype=torch.float64) * length
    return max(0.0, (direction[0] * torch.cos(hull) + direction[1] * torch.sin(hull)).max().item())


def limiting_distance(h, z, a, eps, direction):
    """The least distance from regular normal cones of |a - h(z)| <= eps, at points around (z, a)."""
    best = math.inf
    for shift in (0.0, -1e-4, 1e-4):
        for side in (None, 1.0, -1.0):
            z_near = torch.tensor(z + shift, dtype=torch.float64)
            if side is None:
                if shift:
                    continue
                a_near = torch.tensor(a, dtype=torch.float64)
            else:
                a_near = h(z_near) + side * eps
                if abs(a_near.item() - a) > 1e-3:
                    continue

            def inside(along_z, along_a, z_near=z_near, a_near=a_near):
                t = 1e-6
                gap = (a_near + t * along_a - h(z_near + t * along_z)).abs() - eps
                return gap <= 1e-3 * t

            best = min(best, regular_distance(direction, inside))
    return best


@pytest.mark.parametrize("eps", [0.3, 0.0])
@pytest.mark.parametrize("name", PLACES)
def test_pairs_against_brute_force(name, eps):
    """Kinks and smooth parts, inside the box and on either side of it; gradients all around."""
    h, terms, places = PLACES[name]
    for z in places:
        for side in (0.0, 1.0, -1.0) if eps > 0 else (0.0,):
            a = h(torch.tensor(z, dtype=torch.float64)).item() + side * eps
            for k in range(24):
                angle = 2 * math.pi * (k + 0.37) / 24
                direction = 1.7 * math.cos(angle), 1.7 * math.sin(angle)
                at = torch.tensor([z], dtype=torch.float64), torch.tensor([a], dtype=torch.float64)
                gradient = (
                    torch.tensor([-direction[0]], dtype=torch.float64),
                    torch.tensor([-direction[1]], dtype=torch.float64),
                )
                found = pair_distance(gradient, at, terms, eps, torch.float64).item()
                expected = limiting_distance(h, z, a, eps, direction)
                assert found == pytest.approx(expected, abs=8e-3), (z, side, k)


def test_pairs_by_hand():
    """ReLU at its kink, eps = 0: the graph's normals are (p, 0), (t, -t), and p in [0, -r] for r <= 0."""

    def distance(p, r, eps=0.0, a=0.0):
        at = torch.zeros(1).double(), torch.tensor([a], dtype=torch.float64)
        gradient = torch.tensor([-p], dtype=torch.float64), torch.tensor([-r], dtype=torch.float64)
        return pair_distance(gradient, at, ("relu", ()), eps, torch.float64).item()

    assert distance(0, 2) == 0  # s = 0: (0, 1) up and down
    assert distance(0, -2) == 0
    assert distance(-1, 1) == 0  # s = 1
    assert distance(1, -1) == 0
    assert distance(1, -2) == 0  # between them, below
    assert distance(-1, 2) == pytest.approx(1 / math.sqrt(2))  # above, where C is not convex: the nearer ray
    assert distance(3, 0) == pytest.approx(3 / math.sqrt(2))
    assert distance(1, -2, eps=0.5) == pytest.approx(math.sqrt(5))  # inside the box
    assert distance(1, -2, eps=0.5, a=-0.5) == 0
    assert distance(-1, 2, eps=0.5, a=-0.5) == pytest.approx(math.sqrt(5))
    assert distance(1, -2, eps=0.5, a=-0.6) == math.inf


def gradients(model, optimizer, x, y, loss, rho):
    """Of F without its indicators and regularisers, by autograd, in W and b, z and a."""
    w, b, z, a = optimizer.variables()
    leaves = [t.requires_grad_() for t in (*w, *b, *z, *a[1:])]
    n = len(w)
    total = row_losses(loss, z[-1], y).sum()
    for i in range(n):
        total = total + rho[i] / 2 * (z[i] - (a[i] @ w[i].t() + b[i])).square().sum()
    found = torch.autograd.grad(total, leaves)
    return found[:n], found[n : 2 * n], found[2 * n : 3 * n], found[3 * n :], (w, b, z, a)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy", "logistic"])
@pytest.mark.parametrize("eps", [100.0, 0.05], ids=["no box", "boxes"])
def test_against_autograd(loss, eps):
    model, optimizer, x, y = build("tanh", loss, reg.L2(0.1), joint=True, eps=eps)
    rho = [0.3, 0.1, 0.2]
    on_the_box = 0
    for _ in range(12):
        report = optimizer.step()
        of_w, of_b, of_z, of_a, (w, _, z, a) = gradients(model, optimizer, x, y, loss, rho)
        parts = report.stationarity
        for i in range(3):
            both = math.hypot((of_w[i] + 0.1 * w[i]).norm().item(), of_b[i].norm().item())
            assert parts.weight[i] == pytest.approx(both, rel=1e-8, abs=1e-10)
        assert parts.output == pytest.approx(of_z[2].norm().item(), abs=1e-10)
        for i in range(2):
            gap = (a[i + 1] - z[i].tanh()).detach()
            normal = torch.stack([-(1 - z[i].detach().tanh().square()), torch.ones_like(gap)])
            normal = normal / normal.norm(dim=0) * gap.sign()
            minus = -torch.stack([of_z[i], of_a[i]])
            along = (minus * normal).sum(0).clamp_min(0)
            tight = gap.abs() >= eps - 1e-12
            on_the_box += int(tight.sum())
            left = torch.where(tight, minus - along * normal, minus)
            assert parts.states[i] == pytest.approx(left.norm().item(), rel=1e-8, abs=1e-10)
        assert report.residual == pytest.approx(math.hypot(*parts.weight, *parts.states, parts.output))
        assert report.weight_residual == pytest.approx(math.hypot(*parts.weight))
    assert (on_the_box > 0) == (eps < 1)


@pytest.mark.parametrize("activation", MONOTONE)
@pytest.mark.parametrize("loss", ["hinge", "row_hinge", "cross_entropy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_what_sweeps_leave_is_feasible_and_optimal_in_the_output(activation, loss, dtype, eps):
    """No pair is outside its box, and z_L, which the sweep ends with, is exact: its part is rounding."""
    _, optimizer, _, _ = build(activation, loss, reg.L1(0.01), dtype, joint=True, eps=eps)
    for _ in range(10):
        report = optimizer.step()
        assert math.isfinite(report.residual)
        assert report.stationarity.output < 100 * torch.finfo(dtype).eps * ROWS


class TestTheorems:
    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_theorem_3_in_w(self, activation):
        """dist(0, d_W F) tends to zero for the paper's blocks; in (z, a), which they treat apart, it need not."""
        _, optimizer, _, _ = build(activation, "cross_entropy", reg.L2(0.05), rho=1.0)
        first = optimizer.step()
        _ = first.weight_residual
        for _ in range(2500):
            report = optimizer.step()
        assert report.weight_residual < 1e-3 * first.weight_residual
        assert report.residual > 0.1

    def test_deadlock_is_stationary_in_w_alone(self):
        with pytest.warns(UserWarning, match="never moves"):
            _, optimizer, _, _ = build("tanh", eps=0.01)
        for _ in range(30):
            report = optimizer.step()
        assert report.stationarity.weight[:2] == [0, 0]
        assert report.stationarity.states[1] > 0.1

    def test_theorem_2(self):
        """c_k recomputed from copies of the variables; >= 0 and o(1/k) with Theorem 1's condition on omega."""
        _, optimizer, _, _ = build(
            "tanh", "squared", reg.L2(0.1), joint=True, eps=0.05, monotone=False, momentum="capped",
            check_conditions=True,
        )  # fmt: skip
        rho = [0.3, 0.1, 0.2]
        points, reports = [optimizer.variables()], []
        for _ in range(200):
            reports.append(optimizer.step())
            points.append(optimizer.variables())
        assert reports[0].c_k == math.inf

        def squares(k, part, layer):
            old, new = getattr(points[k - 1], part)[layer], getattr(points[k], part)[layer]
            return (new - old).square().sum().item()

        least = math.inf
        for i in range(1, 200):
            now, then = reports[i - 1], reports[i]  # sweeps i and i + 1
            term = 0.0
            for layer in range(3):
                omega = then.weight_omega[layer]
                moved = squares(i, "W", layer) + squares(i, "b", layer)
                term += (now.theta[layer] - then.theta[layer] * omega**2) / 2 * moved
                term += rho[layer] / 2 * (1 - then.omega**2) * squares(i, "z", layer)
            for layer in range(2):
                weight = now.tau[layer] - then.tau[layer] * then.state_omega[layer] ** 2
                term += weight / 2 * squares(i, "a", layer + 1)
            assert term >= 0
            least = min(least, term)
            assert then.c_k == pytest.approx(least, rel=1e-12)
        rate = torchbcd.diagnostics.power_rate([report.c_k for report in reports[1:]])
        assert rate.exponent > 1

    def test_c_k_starts_anew(self):
        _, optimizer, x, y = build(
            "tanh", "squared", reg.L2(0.1), check_conditions=True, eps=torchbcd.EpsSchedule(0.5, 0.5, 0.2)
        )  # fmt: skip
        known = [math.isfinite(optimizer.step().c_k) for _ in range(6)]
        # eps = 0.5, 0.25, 0.2, 0.2, ...: sweep 3 moved to a smaller box, sweep 4's part is known after sweep 5.
        assert known == [False, False, False, False, True, True]
        optimizer.bind(x, y)
        assert optimizer.step().c_k == math.inf
        optimizer.step()
        optimizer.step()
        optimizer.step()
        assert math.isfinite(optimizer.step().c_k)
        with torch.no_grad():
            optimizer.param_groups[0]["params"][0].mul_(0.9)
        assert optimizer.step().c_k == math.inf
        assert math.isfinite(optimizer.step().c_k)
        with pytest.raises(ValueError, match="c_k needs"):
            _ = optimizer.step(x, y).c_k
        with pytest.raises(ValueError, match="c_k needs"):
            _ = build("tanh", joint=True, eps=0.1)[1].step().c_k


class TestReports:
    def test_of_a_mini_batch(self):
        """A batch of the same rows, targets and sample weights has the residual of the bound data."""
        model = make_mlp([6, 8, 7, 3], hidden="tanh")
        x, y = make_data(ROWS, 6, 3)
        weight = torch.linspace(0.5, 2, ROWS, dtype=x.dtype)
        options = {"rho": 0.1, "joint": True, "eps": 0.05, "loss_weight": "mean"}
        bound = torchbcd.DLAM(copy.deepcopy(model), **options)
        bound.bind(x, y, sample_weight=weight)
        for _ in range(3):
            report = bound.step()
        batch = torchbcd.DLAM(model, **options)
        targets = y.clone()
        of_batch = batch.step(x, targets, sweeps=3, sample_weight=weight)
        targets.fill_(0)
        assert of_batch.residual == pytest.approx(report.residual, rel=1e-12)
        assert of_batch.residual > 0

    def test_expires(self):
        _, optimizer, _, _ = build("tanh", joint=True, eps=0.05)
        kept, lost = optimizer.step(), None
        first = kept.residual
        lost = optimizer.step()
        optimizer.step()
        assert kept.residual == first
        with pytest.raises(RuntimeError, match="not read before the optimizer moved on"):
            _ = lost.residual

    def test_options_of_the_sweep_count(self):
        _, optimizer, _, _ = build("tanh", joint=True, eps=0.05)
        twin = build("tanh", joint=True, eps=0.05)[1]
        report, other = optimizer.step(), twin.step()
        for group in optimizer.param_groups:
            group["rho"] = 5.0
        assert report.residual == other.residual

    def test_frozen_parameters_are_no_variables(self):
        model = make_mlp([6, 8, 3], hidden="tanh")
        model[0].requires_grad_(False)
        optimizer = torchbcd.DLAM(model, rho=0.1, joint=True, eps=0.05)
        optimizer.bind(*make_data(ROWS, 6, 3))
        for _ in range(3):
            report = optimizer.step()
        assert report.stationarity.weight[0] == 0
        assert report.stationarity.weight[1] > 0

    def test_outside_the_bounds_of_a_regularizer(self):
        model = make_mlp([6, 8, 3], hidden="tanh")
        model[0].requires_grad_(False)
        optimizer = torchbcd.DLAM(
            model, rho=0.1, joint=True, eps=0.05, weight_regularizer=[reg.Box(0, 0.1), None]
        )
        optimizer.bind(*make_data(ROWS, 6, 3))
        assert optimizer.step().residual == math.inf

    @pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pair], ids=["copied", "itself"])
    def test_after_a_copy(self, way):
        model, optimizer, _, _ = build("tanh", joint=True, eps=0.05, check_conditions=True)
        optimizer.step()
        _, again = way((model, optimizer))
        assert again.step().residual > 0


class TestFit:
    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_until_convergence(self, activation):
        model = make_mlp([6, 5, 3], hidden=activation)
        optimizer = torchbcd.DLAM(model, rho=1.0, joint=True, eps=0.01, weight_regularizer=reg.L2(1.0))
        reports = []
        data = make_data(30, 6, 3, seed=3)
        result = optimizer.fit(*data, max_sweeps=20_000, tol=1e-3, callback=reports.append)
        assert result.converged
        assert 1 < result.sweeps == len(reports) < 20_000
        assert result.residual == reports[-1].residual <= 1e-3
        assert result.objective == reports[-1].objective
        assert result.rate is not None
        assert result.rate.rate < 1

    def test_not_before_eps_has_settled(self):
        """Large boxes: the residual falls below the tolerance while eps still shrinks, which makes another F."""
        model = make_mlp([6, 5, 3], hidden="tanh")
        x, y = make_data(30, 6, 3)
        for eps, early in ((100.0, True), (torchbcd.EpsSchedule(100.0, 0.999, 1.0), False)):
            optimizer = torchbcd.DLAM(copy.deepcopy(model), rho=1.0, eps=eps, weight_regularizer=reg.L2(1.0))
            reports = []
            result = optimizer.fit(x, y, max_sweeps=300, tol=0.5, callback=reports.append)
            assert min(report.eps for report in reports[:300]) > 1
            assert result.converged == early
            if not early:
                assert result.residual <= 0.5

    def test_number_of_sweeps(self):
        _, optimizer, x, y = build("tanh", joint=True, eps=0.05)
        result = optimizer.fit(x, y, max_sweeps=4, tol=0)
        assert (result.sweeps, result.converged, result.rate) == (4, False, None)
        for tol, sweeps, message in ((1e-3, 0, "max_sweeps must be at least 1"), (-1, 5, "tol must be >= 0")):
            with pytest.raises(ValueError, match=message):
                optimizer.fit(x, y, max_sweeps=sweeps, tol=tol)


class TestRates:
    def test_power_rate(self):
        values = [3 / k**1.5 * (1 + k % 2) for k in range(1, 400)]
        rate = torchbcd.diagnostics.power_rate(values)
        assert rate.exponent == pytest.approx(1.5, rel=0.05)
        assert rate.r_squared > 0.99

    def test_refusals(self):
        for values, tail, message in (
            ([1.0] * 20, 2.0, "tail"),
            ([1.0] * 7, 1.0, "at least 8"),
            ([1.0] * 20 + [-1.0], 1.0, ">= 0"),
            ([1.0] * 20 + [math.nan], 1.0, "finite"),
            ([1.0] * 20 + [0.0], 1.0, "above 0"),
        ):
            with pytest.raises(ValueError, match=message):
                torchbcd.diagnostics.power_rate(values, tail)

    def test_algorithm_2_is_at_least_sublinear(self):
        """Lemmas 5 and 6: squared residuals are summable, so their minima fall faster than 1/k."""
        model = make_mlp([6, 8, 3], hidden="tanh")
        optimizer = torchbcd.BCD(model, gamma=1.0, alpha=0.1, weight_regularizer=reg.L2(0.5))
        optimizer.bind(*make_data(30, 6, 3))
        squares = [optimizer.step().residual ** 2 for _ in range(400)]
        assert torchbcd.diagnostics.power_rate(squares).exponent > 1

    def test_fit_of_bcd_has_the_rate_of_its_objectives(self):
        model = make_mlp([6, 5, 3], hidden="tanh")
        optimizer = torchbcd.BCD(model, gamma=1.0, alpha=0.01, weight_regularizer=reg.L2(0.5))
        reports = []
        result = optimizer.fit(*make_data(30, 6, 3), max_sweeps=60, tol=1e-12, callback=reports.append)
        assert result.rate == torchbcd.diagnostics.linear_rate([report.objective for report in reports])
