"""DLAM's blocks by brute force in float64, and what a sweep of them costs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import ACTIVATIONS, MONOTONE, make_data, make_mlp
from dlam_problems import build

import torchbcd
import torchbcd.functional as F
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMETERS = {"leaky_relu": [0.1], "hardtanh": [-0.75, 1.25], "polynomial": [0.0, 1.0, 0.3, 0.05]}


def sigma(name):
    return ACTIVATIONS[name]()


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


@pytest.mark.parametrize("loss", ["squared", "logistic", "cross_entropy", "binary_cross_entropy"])
def test_fista_agrees_with_the_prox(loss):
    weights = []
    for solver in ("prox", "fista"):
        model, optimizer, _, _ = build("tanh", loss, joint=True, eps=0.05, rho=0.5, output_solver=solver)
        for _ in range(5):
            optimizer.step()
        weights.append(model[-1].weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", ["hinge", "row_hinge", "exponential", "poisson", "quantile"])
def test_fista_needs_a_smooth_loss(loss):
    with pytest.raises(ValueError, match="needs a loss with a Lipschitz gradient"):
        torchbcd.DLAM(make_mlp([6, 8, 7, 3]), loss, output_solver="fista")
