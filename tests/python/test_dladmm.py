"""DLADMM: three sweeps against a literal transcription, what each block lowers, what it learns."""

from __future__ import annotations

import pytest
import torch
from conftest import MONOTONE, make_data, make_mlp
from objectives import LOSSES
from torch import nn

import torchbcd
import torchbcd.functional as F

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS, ROWS = [6, 8, 7, 3], 40


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
    @pytest.mark.parametrize("activation", MONOTONE)
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
