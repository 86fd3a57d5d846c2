"""Lemmas 5 and 6 measured, the stationarity residual against autograd, and where the paper's constants fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import ACTIVATIONS, make_data, make_mlp
from objectives import LOSSES, REGULARIZERS, recomputed_objective, row_losses

import torchbcd
import torchbcd.functional as F
from torchbcd import lifted
from torchbcd import regularizers as reg

OPTIONS = {"gamma": [0.5, 1.0, 2.0], "rho": [1.5, 0.4, 0.8], "alpha": [0.3, 0.7, 0.6], "alpha_weight": 0.4}


def build(activation="relu", loss="squared", widths=(6, 8, 7, 3), rows=40, **options):
    model = make_mlp(list(widths), hidden=activation)
    optimizer = torchbcd.BCD(model, loss, **{**OPTIONS, **options})
    x, y = make_data(rows, widths[0], widths[-1])
    optimizer.bind(x, y)
    return model, optimizer, x, y


@pytest.mark.parametrize("splitting", [3, 2])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "sign"])
def test_lemma_5_holds(activation, loss, splitting):
    _, optimizer, _, _ = build(activation, loss, splitting=splitting)
    for _ in range(12 if splitting == 3 else 4):
        report = optimizer.step()
        descent = report.descent
        assert descent.holds(), descent
        assert descent.decrease == pytest.approx(report.decrease, rel=1e-6, abs=1e-9)
        per_layer = "VW" if splitting == 2 else "VUW"
        assert [b[:2] for b in descent.blocks] == [(b, i) for i in (3, 2, 1) for b in per_layer]


def test_lemma_5_constant_is_the_papers():
    _, optimizer, _, _ = build()
    assert optimizer.step().descent.constant == 0.15  # min(alpha, gamma)/2
    _, optimizer, _, _ = build(gamma=0.1, rho=0.1, alpha=0.7, alpha_weight=0.7)
    assert optimizer.step().descent.constant == 0.05


@pytest.mark.parametrize("regularizer", [r for r in REGULARIZERS if r != "none"])
def test_lemma_5_holds_with_regularizers(regularizer):
    weights, states = REGULARIZERS[regularizer]
    _, optimizer, _, _ = build(weight_regularizer=weights, state_regularizer=states)
    optimizer.step()
    for _ in range(12):
        report = optimizer.step()
        assert report.descent.holds(tolerance=1e-6)
        assert report.decrease == pytest.approx(report.descent.decrease, rel=1e-6, abs=1e-9)


def test_equation_17_is_too_strong():
    """The U block of a ReLU falls by alpha/2 |D|^2, not by the (alpha + gamma)/2 |D|^2 of [Z], eq. 17.

    Two minimisers of the block's problem tie here, so the one that the prox moves to gains nothing beyond the
    proximal term.
    """
    gamma = rho = alpha = 1.0
    v, ratio = 1.0, (rho + alpha) / gamma
    kappa = ratio + math.sqrt(ratio * (ratio + 1))
    u_old = -v / kappa * (1 - 1e-9)  # on the side of the tie where the right-hand branch wins
    product = u_old
    u_new = F.prox_relu(torch.tensor([v]).double(), torch.tensor([u_old]).double(), ratio).item()
    assert u_new > 0 > u_old

    def objective(u):
        return gamma / 2 * (max(u, 0) - v) ** 2 + rho / 2 * (u - product) ** 2

    decrease, squared = objective(u_old) - objective(u_new), (u_new - u_old) ** 2
    assert decrease == pytest.approx(alpha / 2 * squared, rel=1e-6)
    assert decrease < 0.51 * (alpha + gamma) / 2 * squared


def lifted_objective(loss, activation, w, b, u, v, y, options):
    """The lifted objective as a differentiable function of its variables."""
    total = row_losses(loss, v[-1], y).sum()
    for i in range(len(w)):
        sigma = activation if i < len(w) - 1 else (lambda t: t)
        total = total + options["gamma"][i] / 2 * (v[i + 1] - sigma(u[i])).square().sum()
        total = total + options["rho"][i] / 2 * (u[i] - v[i] @ w[i].t() - b[i]).square().sum()
    return total


SMOOTH_LOSSES = ["squared", "logistic", "exponential", "cross_entropy", "poisson", "binary_cross_entropy"]


@pytest.mark.parametrize("loss", SMOOTH_LOSSES)
def test_stationarity_and_lemma_6_against_autograd(loss):
    """Where all is smooth, both are the gradient of the lifted objective."""
    _, optimizer, _, y = build("tanh", loss)
    for _ in range(4):
        report = optimizer.step()
        w, b, u, v = optimizer.variables()
        variables = [t.requires_grad_() for t in (*w, *b, *u, *v[1:])]
        n = len(w)
        objective = lifted_objective(loss, torch.tanh, w, b, u, v, y, OPTIONS)
        gradients = torch.autograd.grad(objective, variables)
        parts = report.stationarity
        for i in range(n):
            of_weight = torch.cat([gradients[i].flatten(), gradients[n + i]])
            assert parts.weight[i] == pytest.approx(of_weight.norm().item(), rel=1e-8, abs=1e-10)
            assert parts.u[i] == pytest.approx(gradients[2 * n + i].norm().item(), rel=1e-8, abs=1e-10)
            assert parts.v[i] == pytest.approx(gradients[3 * n + i].norm().item(), rel=1e-8, abs=1e-10)
        whole = math.sqrt(sum(g.square().sum().item() for g in gradients))
        assert report.residual == pytest.approx(whole, rel=1e-8)
        lemma6 = report.lemma6_subgradient
        for i in range(n):
            torch.testing.assert_close(lemma6.w[i], gradients[i], rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(lemma6.b[i], gradients[n + i], rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(lemma6.u[i], gradients[2 * n + i], rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(lemma6.v[i], gradients[3 * n + i], rtol=1e-6, atol=1e-8)


ORDERS = ("states_first", "layer_parallel", [(v, i) for i in (1, 2, 3) for v in "WVU"])


@pytest.mark.parametrize("order", ORDERS, ids=["states_first", "layer_parallel", "upwards"])
def test_both_lemmas_in_any_order(order):
    """With a regulariser of W and b: a sweep's blocks replayed, and the gradient of the whole at its end."""
    l2 = 0.3
    _, optimizer, _, y = build(
        "tanh", "logistic", order=order, regularize_bias=True, weight_regularizer=reg.L2(l2)
    )
    for _ in range(4):
        report = optimizer.step()
        assert report.descent.holds()
        assert report.descent.decrease == pytest.approx(report.decrease, rel=1e-9)
        w, b, u, v = optimizer.variables()
        variables = [t.requires_grad_() for t in (*w, *b, *u, *v[1:])]
        objective = lifted_objective("logistic", torch.tanh, w, b, u, v, y, OPTIONS)
        objective = objective + l2 / 2 * sum(t.square().sum() for t in (*w, *b))
        assert optimizer.objective() == pytest.approx(objective.item(), rel=1e-12)
        gradients = torch.autograd.grad(objective, variables)
        whole = torch.cat([g.flatten() for g in gradients])
        lemma6 = report.lemma6_subgradient
        found = torch.cat([t.flatten() for t in (*lemma6.w, *lemma6.b, *lemma6.u, *lemma6.v)])
        torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-8)
        assert report.residual == pytest.approx(whole.norm().item(), rel=1e-8)


@pytest.mark.parametrize("splitting", [3, 2])
@pytest.mark.parametrize("term", [reg.L1(0.2), reg.Box(-0.5, 0.5)], ids=["l1", "box"])
def test_residual_with_regularized_biases(splitting, term):
    """It vanishes where the sweeps end, and is infinite where a bias is out of bounds."""
    _, optimizer, _, _ = build(
        "identity", "squared", (3, 4, 3, 2), splitting=splitting, regularize_bias=True, weight_regularizer=term
    )
    first = optimizer.step().residual
    for _ in range(100):
        report = optimizer.step()
    assert report.residual < 0.1 * first
    if math.isfinite(term.low):
        with torch.no_grad():
            optimizer.param_groups[0]["params"][1].fill_(2.0)
        assert optimizer.objective() == math.inf
        assert optimizer.stationarity().residual == math.inf


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_lemma_6_bounds_the_residual(activation):
    """At kinks too: the explicit subgradient is an element, the residual the shortest one."""
    _, optimizer, _, _ = build(activation, "hinge")
    for _ in range(20):
        report = optimizer.step()
        assert report.residual <= report.lemma6_subgradient.norm * (1 + 1e-9)


def test_residual_of_two_splittings_against_autograd():
    _, optimizer, _, y = build("sigmoid", splitting=2)
    report = optimizer.step()
    w, b, _, v = optimizer.variables()
    variables = [t.requires_grad_() for t in (*w, *b, *v[1:])]
    total = row_losses("squared", v[-1], y).sum()
    for i in range(3):
        product = v[i] @ w[i].t() + b[i]
        sigma = torch.sigmoid(product) if i < 2 else product
        total = total + OPTIONS["gamma"][i] / 2 * (v[i + 1] - sigma).square().sum()
    gradients = torch.autograd.grad(total, variables)
    assert report.residual == pytest.approx(math.sqrt(sum(g.square().sum().item() for g in gradients)), rel=1e-8)
    assert report.stationarity.u == []


class TestBounds:
    @pytest.mark.parametrize("splitting", [2, 3])
    def test_outside_is_infinite(self, splitting):
        model = make_mlp([3, 4, 2])
        optimizer = torchbcd.BCD(model, splitting=splitting, weight_regularizer=reg.Box(-0.2, 0.2))
        optimizer.bind(torch.ones(5, 3).double(), torch.arange(5) % 2)
        assert optimizer.objective() == math.inf
        found = optimizer.stationarity()
        assert found.weight == [math.inf, math.inf]
        assert found.residual == math.inf
        report = optimizer.step()
        assert math.isfinite(report.objective)
        assert math.isfinite(report.residual)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_bound_counts_in_the_datas_dtype(self, dtype):
        for value, expected in ((0.1, 0.0), (0.1 - 1e-5, 2.0), (0.1 + 1e-5, math.inf)):
            x = torch.tensor([value], dtype=dtype).double()
            low, high = lifted.regularizer_subdifferential(reg.Box(-0.5, 0.1), x, dtype)
            assert lifted.shortest(low - 2, high - 2).abs().item() == expected
            low, high = lifted.regularizer_subdifferential(reg.Box(-0.1, 0.5), -x, dtype)
            assert lifted.shortest(low + 2, high + 2).abs().item() == expected

    def test_sums_of_empty_intervals_are_empty(self):
        empty = torch.tensor([math.inf]), torch.tensor([-math.inf])
        whole = torch.tensor([-math.inf]), torch.tensor([math.inf])
        assert lifted.shortest(*lifted.add(empty, whole)).item() == math.inf
        assert lifted.shortest(*lifted.add(whole, whole)).item() == 0

    def test_a_frozen_weight_outside(self):
        """L is infinite whatever the variables do: it has no subgradient."""
        model = make_mlp([3, 4, 2])
        model[0].weight.requires_grad_(False)
        for splitting in (2, 3):
            optimizer = torchbcd.BCD(model, splitting=splitting, weight_regularizer=[reg.Box(-0.01, 0.01), None])
            optimizer.bind(torch.ones(5, 3).double(), torch.arange(5) % 2)
            report = optimizer.step()
            assert report.objective == math.inf
            assert report.residual == math.inf

    def test_regularizer_subdifferential(self):
        def distance(terms, x, gradient):
            low, high = lifted.regularizer_subdifferential(terms, torch.tensor(x).double(), torch.float64)
            return lifted.shortest(low + torch.tensor(gradient), high + torch.tensor(gradient)).norm().item()

        assert distance(reg.L1(0.5), [1.0, -1.0, 0.0, 0.0], [-0.5, 0.5, 0.4, 0.9]) == pytest.approx(0.4)
        box = reg.Box(0.0, 1.0)
        for gradient, expected in (([2.0, -2.0, 0.0], 0.0), ([-2.0, 0.0, 0.0], 2.0), ([0.0, 3.0, 0.0], 3.0)):
            assert distance(box, [0.0, 1.0, 0.5], gradient) == pytest.approx(expected)


class TestFit:
    def test_stops_at_a_critical_point(self):
        model = make_mlp([6, 5, 3], hidden="tanh")
        optimizer = torchbcd.BCD(model, gamma=1.0, alpha=0.01, weight_regularizer=reg.L2(0.5))
        x, y = make_data(30, 6, 3)
        result = optimizer.fit(x, y, max_sweeps=20_000, tol=1e-4)
        assert result.converged
        assert result.sweeps < 20_000
        assert result.residual <= 1e-4
        assert optimizer.stationarity().residual == pytest.approx(result.residual)
        assert recomputed_objective(optimizer, model, "squared", y, 3) == pytest.approx(result.objective)

    def test_stops_at_max_sweeps(self):
        optimizer = torchbcd.BCD(make_mlp([6, 5, 3]))
        reports = []
        result = optimizer.fit(*make_data(30, 6, 3), max_sweeps=4, tol=0, callback=reports.append)
        assert result.sweeps == 4
        assert not result.converged
        assert [report.sweep for report in reports] == [1, 2, 3, 4]

    def test_refusals(self):
        optimizer = torchbcd.BCD(make_mlp([6, 5, 3]))
        with pytest.raises(ValueError, match=r"max_sweeps must be at least 1 \(got 0\)"):
            optimizer.fit(*make_data(30, 6, 3), max_sweeps=0)
        with pytest.raises(ValueError, match="tol must be >= 0"):
            optimizer.fit(*make_data(30, 6, 3), tol=float("nan"))


class TestReports:
    def test_decrease(self):
        _, optimizer, _, _ = build()
        before = optimizer.objective()
        report = optimizer.step()
        assert report.decrease == pytest.approx(before - report.objective, rel=1e-12)
        batch = optimizer.step(*make_data(10, 6, 3, seed=4))
        assert batch.decrease > 0
        rows = optimizer.step(index=torch.arange(5))
        assert rows.decrease > 0

    def test_a_bind_ends_a_report(self):
        _, optimizer, x, y = build()
        report = optimizer.step()
        optimizer.bind(x, y)
        with pytest.raises(RuntimeError, match="report of sweep 1 was not read before the optimizer moved on"):
            _ = report.objective

    def test_replay_needs_every_block_once(self):
        _, optimizer, _, _ = build(order="states_first", inner_sweeps=2)
        report = optimizer.step()
        for question in ("descent", "lemma6_subgradient"):
            with pytest.raises(ValueError, match="replays a sweep block by block, each once"):
                getattr(report, question)
        layers = (3, 2, 1)
        _, optimizer, _, _ = build(order=[(v, layer) for layer in layers for v in "UVW"])
        report = optimizer.step()
        assert report.descent.holds()
        with pytest.raises(ValueError, match="needs the V of layer 1 before its U"):
            _ = report.lemma6_subgradient
        _, optimizer, _, _ = build(splitting=2)
        with pytest.raises(ValueError, match="Lemma 6's subgradient is that of Algorithm 2"):
            _ = optimizer.step().lemma6_subgradient


def test_on_the_digits(digits):
    """Both lemmas over a run on real data, in float32."""
    x, y = digits
    model = make_mlp([64, 50, 30, 10], dtype=torch.float32)
    optimizer = torchbcd.BCD(model, gamma=1.0, alpha=0.5)
    optimizer.bind(x, y)
    residuals = []
    for _ in range(40):
        report = optimizer.step()
        assert report.descent.holds(tolerance=1e-3)
        residuals.append(report.residual)
    assert residuals[-1] < 0.2 * residuals[0]
    assert np.isfinite(residuals).all()


class TestSpecialCases:
    def test_zhang_brand(self):
        """States at or above zero, and every block's constrained least squares solved."""
        model = make_mlp([6, 8, 5, 3])
        x, y = make_data(40, 6, 3)
        optimizer = torchbcd.ZhangBrand(model, gamma=0.5, alpha=0.05)
        optimizer.bind(x, y)
        previous = optimizer.objective()
        assert math.isfinite(previous)
        for _ in range(30):
            objective = optimizer.step().objective
            assert objective <= previous * (1 + 1e-12)
            previous = objective
            assert all((v >= 0).all() for v in optimizer.variables().V[1:])
        with pytest.raises(ValueError, match="ZhangBrand needs nn.ReLU after every hidden Linear"):
            torchbcd.ZhangBrand(make_mlp([6, 8, 3], hidden="tanh"))

    def test_zhang_brand_state_block_is_nonnegative_least_squares(self):
        from scipy.optimize import nnls

        gamma, alpha = 0.5, 0.05
        optimizer = torchbcd.ZhangBrand(make_mlp([4, 5, 3]), gamma=gamma, alpha=alpha)
        x, y = make_data(12, 4, 3)
        optimizer.bind(x, y)
        optimizer.step()
        before = optimizer.variables()
        u, v = before.U[0].numpy(), before.V[1].numpy()
        optimizer.step()
        after = optimizer.variables()
        # The hidden V, given the new V_N and W_N.
        w_next, b_next, v_next = after.W[1].numpy(), after.b[1].numpy(), after.V[2].numpy()
        left = np.vstack([(gamma + alpha) ** 0.5 * np.eye(5), gamma**0.5 * w_next])
        for row in range(12):
            centre = (gamma * u[row] + alpha * v[row]) / (gamma + alpha)
            right = np.r_[(gamma + alpha) ** 0.5 * centre, gamma**0.5 * (v_next[row] - b_next)]
            np.testing.assert_allclose(after.V[1][row].numpy(), nnls(left, right)[0], atol=1e-7)
