"""DLAM's W block by eq. (1): its minimisers by search over active sets, its optimality conditions, its cost."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import slow_search as search
import test_dlam_blocks
import torch
from conftest import make_data, make_mlp
from dlam_problems import build
from scipy.optimize import lsq_linear

import torchbcd
from torchbcd import regularizers as reg
from torchbcd.regularizers import Regularizer

pytestmark = pytest.mark.usefixtures("one_thread")

RHO = [0.3, 0.1, 0.2]
KINKED = {
    "l1": reg.L1(0.2),
    "elastic net": reg.ElasticNet(0.1, 0.3),
    "box": reg.Box(-0.2, 0.25),
    "nonnegative": reg.Nonnegative(),
}


class WeightBlock:
    """The problem of one layer's W block in a sweep, from the variables before and after it.

    Columns of W and b are one matrix of rows here, as those of a and 1 are.
    """

    def __init__(self, layer, before, after, rho, regularizer, damping):
        a, z = after.a[layer].double(), before.z[layer].double()  # a_{l-1} is new, z_l is not
        self.rho, self.regularizer, self.covered = rho, regularizer, a.shape[1]
        self.alpha = damping * rho * a.square().sum().item() / a.shape[1]
        bias = before.b[layer] is not None
        self.rows = torch.cat([a, torch.ones(len(a), int(bias)).double()], 1)
        self.z = z
        self.start, self.found = (
            torch.cat([v.W[layer], v.b[layer][:, None]], 1) if bias else v.W[layer] for v in (before, after)
        )

    def gradient(self, w):
        """Of all but Omega."""
        w, start = w.double(), self.start.double()
        return self.rho * (self.rows @ w.T - self.z).T @ self.rows + self.alpha * (w - start)

    def distance(self):
        """Of zero from each entry's subdifferential, relative to the largest slope at the start or to l1."""
        smooth = self.gradient(self.found)
        low, high = smooth.clone(), smooth.clone()
        own = self.found[:, : self.covered]
        ends = torch.ops.torchbcd.regularizer_subdifferential(own.contiguous(), *self.regularizer.numbers)
        low[:, : self.covered] += ends[0].double()
        high[:, : self.covered] += ends[1].double()
        scale = max(self.gradient(self.start).abs().max().item(), self.regularizer.l1)
        return torch.maximum(low, -high).max().item() / scale

    def searched(self):
        """The minimiser over all active sets."""
        rows, start = self.rows.numpy(), self.start.double().numpy()
        hessian = self.rho * rows.T @ rows + self.alpha * np.eye(rows.shape[1])
        linear = self.rho * self.z.numpy().T @ rows + self.alpha * start
        return search.argmin_rows(search.quadratic(hessian, linear), self.regularizer, start, self.covered)


def weight_blocks(optimizer, regularizer, damping, sweeps=1):
    """Those of every layer in some sweeps."""
    for _ in range(sweeps):
        before = optimizer.variables()
        optimizer.step()
        after = optimizer.variables()
        for layer in range(len(before.W)):
            yield WeightBlock(layer, before, after, RHO[layer], regularizer, damping)


def within(model, regularizer):
    """Weights within the bounds, so that F is finite at the start."""
    with torch.no_grad():
        for module in model[::2]:
            module.weight.clamp_(regularizer.low, regularizer.high)


def trained(regularizer, damping, *, dtype=torch.float64, rows=40, widths=(6, 8, 7, 3), bias=True, ratio=1.0):
    """An optimizer after five sweeps; the inputs' columns have sizes up to a ratio."""
    model = make_mlp(list(widths), hidden="tanh", dtype=dtype, bias=bias)
    within(model, regularizer)
    optimizer = torchbcd.DLAM(
        model, rho=RHO, eps=0.05, joint=True, weight_regularizer=regularizer, weight_damping=damping
    )
    x, y = make_data(rows, widths[0], widths[-1], dtype=dtype)
    optimizer.bind(x * torch.logspace(0, -np.log10(ratio), widths[0], dtype=dtype), y)
    for _ in range(5):
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("damping", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize("name", KINKED)
def test_minimiser_over_all_active_sets(name, damping, bias):
    optimizer = trained(KINKED[name], damping, widths=(3, 4, 4, 3), bias=bias)
    on_kinks = 0
    for block in weight_blocks(optimizer, KINKED[name], damping):
        expected = block.searched()
        np.testing.assert_allclose(block.found.numpy(), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
        covered = expected[:, : block.covered]
        on_kinks += np.isin(covered, [0, KINKED[name].low, KINKED[name].high]).sum()
    assert on_kinks > 0


def test_bounds_as_scipy():
    damping, bounds = 0.1, KINKED["box"]
    for block in weight_blocks(trained(bounds, damping), bounds, damping):
        root = (block.alpha / block.rho) ** 0.5
        rows = np.vstack([block.rows.numpy(), root * np.eye(block.rows.shape[1])])
        ends = [np.full(rows.shape[1], end) for end in (bounds.low, bounds.high)]
        ends[0][block.covered :], ends[1][block.covered :] = -np.inf, np.inf
        for z, start, found in zip(block.z.T.numpy(), block.start.numpy(), block.found.numpy(), strict=True):
            target = np.concatenate([z, root * start])
            least = lsq_linear(rows, target, ends, method="bvls", tol=1e-14).x
            np.testing.assert_allclose(found, least, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-9), (torch.float32, 3e-5)])
@pytest.mark.parametrize("ratio", [1.0, 1e3])
@pytest.mark.parametrize("name", KINKED)
def test_optimality_conditions(name, ratio, dtype, tolerance):
    """Also where the inputs' columns differ a thousand times in size and the proximal term is small."""
    damping = 1e-6 if dtype == torch.float64 else 1e-2
    optimizer = trained(KINKED[name], damping, dtype=dtype, rows=300, widths=(30, 25, 20, 4), ratio=ratio)
    blocks = weight_blocks(optimizer, KINKED[name], damping, sweeps=3)
    assert max(block.distance() for block in blocks) <= tolerance


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("name", ["none", "l2", *KINKED])
def test_passes_over_the_rows(name, damping):
    """The cross product, the Gram matrix and q, however many passes of coordinate descent there are."""
    regularizer = {"none": Regularizer(), "l2": reg.L2(0.1), **KINKED}[name]
    optimizer = trained(regularizer, damping, rows=301)
    count, report = test_dlam_blocks.TestCost.products(optimizer, 301)
    assert count == report.products
    # 3 for each W, 2 for each (z, a), and what acceleration and its re-dos add.
    assert count == 3 * 3 + 2 * (2 + 1) + report.trials + 2 * report.redone


def dependent(rows, dtype):
    """Inputs of rank 5 at most: one column of six is zero, one another's copy, and sums of two follow."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(-8, 9, (rows, 12), generator=generator).to(dtype) / 8
    x[:, 6:] = x[:, :6].roll(1, 1) + x[:, :6]
    x[:, 3], x[:, 4] = 0, x[:, 5]
    return x


class TestWithoutAProximalTerm:
    """Eq. (1) as it is written, whose minimiser need not be the only one."""

    @staticmethod
    def first_blocks(regularizer, rows, dtype, bias=True):
        """The first layer's blocks, over inputs that depend on each other."""
        model = make_mlp([12, 9, 5, 3], hidden="relu", dtype=dtype, bias=bias)
        within(model, regularizer)
        optimizer = torchbcd.DLAM(
            model, rho=RHO, eps=0.05, joint=True, weight_regularizer=regularizer, weight_damping=0.0
        )
        optimizer.bind(dependent(rows, dtype), make_data(rows, 12, 3)[1])
        for _ in range(4):
            optimizer.step()
        blocks = list(weight_blocks(optimizer, regularizer, 0.0, sweeps=3))
        return blocks[::3], optimizer

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
    @pytest.mark.parametrize("rows", [40, 5])
    def test_the_nearest_minimiser(self, rows, bias, dtype):
        blocks, _ = self.first_blocks(Regularizer(), rows, dtype, bias)
        for block in blocks:
            assert np.linalg.matrix_rank(block.rows.numpy()) < block.rows.shape[1]
            start = block.start.double()
            residual = block.z - block.rows @ start.T
            nearest = start + torch.linalg.lstsq(block.rows, residual, driver="gelsd").solution.T
            size = 1e-9 if dtype == torch.float64 else 2e-5
            torch.testing.assert_close(block.found.double(), nearest, rtol=0, atol=size)
            assert (nearest - start).abs().max() > 50 * size

    @pytest.mark.parametrize("rows", [40, 5])
    def test_ridge_regression(self, rows):
        blocks, _ = self.first_blocks(reg.L2(0.3), rows, torch.float64)
        for block in blocks:
            hessian = block.rho * block.rows.T @ block.rows
            hessian.diagonal()[: block.covered] += 0.3
            expected = torch.linalg.solve(hessian, block.rho * block.rows.T @ block.z).T
            torch.testing.assert_close(block.found, expected, rtol=0, atol=1e-11)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
    @pytest.mark.parametrize("rows", [40, 5])
    @pytest.mark.parametrize("name", KINKED)
    def test_optimality_conditions(self, name, rows, dtype, tolerance):
        blocks, _ = self.first_blocks(KINKED[name], rows, dtype)
        assert max(block.distance() for block in blocks) <= tolerance

    @pytest.mark.parametrize("regularizer", [Regularizer(), reg.L2(0.1), *KINKED.values()], ids=str)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_never_rises(self, dtype, regularizer):
        _, optimizer = self.first_blocks(regularizer, 40, dtype)
        values = [optimizer.step().objective for _ in range(40)]
        for before, after in pairwise(values):
            assert after <= before * (1 + 4 * torch.finfo(dtype).eps)
        assert values[-1] < values[0]

    def test_it_lowers_f_by_more_than_eq_3(self):
        """In the first block that moves: the last layer's of the first sweep."""
        after = []
        for damping in (0.0, 1e-3, None):
            _, optimizer, _, _ = build("tanh", joint=True, eps=0.05, rho=RHO, weight_damping=damping)
            optimizer.step()
            seen = optimizer.variables()
            optimizer.step()
            now = optimizer.variables()
            residual = seen.z[2] - now.a[2] @ now.W[2].T - now.b[2]
            after.append(residual.square().sum().item())
        assert after[0] < after[1] < after[2]


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_what_is_frozen_stays(damping):
    regularizer = KINKED["l1"]
    model, optimizer, _, _ = build(
        "tanh", regularizer=regularizer, joint=True, eps=0.05, weight_damping=damping, rho=RHO
    )
    optimizer.step()
    model[0].bias.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    kept = model[0].bias.clone(), model[2].weight.clone()
    before = optimizer.variables()
    optimizer.step()
    after = optimizer.variables()
    assert torch.equal(model[0].bias, kept[0])
    assert torch.equal(model[2].weight, kept[1])
    # Of the first layer's weight alone.
    block = WeightBlock(0, before, after, RHO[0], regularizer, damping)
    assert not torch.equal(block.start, block.found)
    smooth = block.gradient(block.found)[:, : block.covered]
    zero = block.found[:, : block.covered] == 0
    excess = torch.where(zero, (smooth.abs() - 0.2).clamp_min(0), smooth + 0.2 * block.found[:, :-1].sign())
    tolerance = 1e-6 if damping == 0 else 1e-10
    assert excess.abs().max() <= tolerance * block.gradient(block.start).abs().max()
