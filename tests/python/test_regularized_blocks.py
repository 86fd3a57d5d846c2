"""W blocks with a regulariser that is not smooth, against scikit-learn, SciPy and their optimality conditions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso
from torch import nn

import torchbcd
from torchbcd import regularizers as reg

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}"),
]

ALPHA, RHO = 0.05, 1.0


def digits(dtype):
    """Pixels in [0, 1], four of which are nearly copies of others, and one-hot classes."""
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float64) / 16
    generator = torch.Generator().manual_seed(0)
    x[:, :4] = x[:, 20:24] + 1e-3 * torch.randn(len(x), 4, generator=generator, dtype=torch.float64)
    return x.to(dtype), nn.functional.one_hot(torch.tensor(data.target)).to(dtype)


def w_block(regularizer, dtype=torch.float64):
    """One sweep of a net of one layer: (X, U, W before, W after); the W block is the last."""
    x, y = digits(dtype)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(x.shape[1], 10, bias=False)).to(dtype)
    before = model[0].weight.detach().clone()
    if regularizer.low == 0:
        before.abs_()
        model[0].weight.data.copy_(before)
    optimizer = torchbcd.BCD(model, gamma=1.0, rho=RHO, alpha=ALPHA, weight_regularizer=regularizer)
    optimizer.bind(x, y)
    optimizer.step()
    return x, optimizer.variables().U[0], before, model[0].weight.detach()


def augmented(x, u, before):
    """The block's least squares with its proximal term as further rows."""
    ridge = (ALPHA / RHO) ** 0.5
    rows = np.vstack([x.numpy(), ridge * np.eye(x.shape[1])])
    return rows, np.vstack([u.numpy(), ridge * before.numpy().T])


@pytest.mark.parametrize("weight", [10.0, 100.0])
def test_l1_as_scikit_learn(weight):
    x, u, before, after = w_block(reg.L1(weight))
    rows, targets = augmented(x, u, before)
    lasso = Lasso(alpha=weight / (RHO * len(rows)), fit_intercept=False, tol=1e-13, max_iter=1_000_000)
    expected = lasso.fit(rows, targets).coef_
    np.testing.assert_allclose(after.numpy(), expected, rtol=0, atol=1e-6)
    assert ((after == 0).numpy() == (expected == 0)).mean() > 0.999


def test_elastic_net_as_scikit_learn():
    x, u, before, after = w_block(reg.ElasticNet(2.0, 3.0))
    rows, targets = augmented(x, u, before)
    total = (2.0 + 3.0) / (RHO * len(rows))
    net = ElasticNet(alpha=total, l1_ratio=0.4, fit_intercept=False, tol=1e-13, max_iter=1_000_000)
    np.testing.assert_allclose(after.numpy(), net.fit(rows, targets).coef_, rtol=0, atol=1e-6)


def test_nonnegative_as_scipy():
    x, u, before, after = w_block(reg.Nonnegative())
    rows, targets = augmented(x, u, before)
    expected = np.stack([nnls(rows, target)[0] for target in targets.T])
    np.testing.assert_allclose(after.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "regularizer", [reg.L1(0.1), reg.ElasticNet(1.0, 0.5), reg.Nonnegative(), reg.Box(-0.05, 0.1)], ids=str
)
def test_optimality_conditions(regularizer, dtype):
    """Zero is in the subdifferential, relative to the gradient at the start, as closely as float32 holds it."""
    x, u, before, after = (t.double() for t in w_block(regularizer, dtype))

    def gradient(w):
        return RHO * (x @ w.T - u).T @ x + ALPHA * (w - before) + regularizer.l2 * w

    low, high = torch.ops.torchbcd.regularizer_subdifferential(after.to(dtype), *regularizer.numbers)
    smooth = gradient(after) - regularizer.l2 * after  # which the subdifferential has
    lowest, highest = smooth + low.double(), smooth + high.double()
    distance = torch.maximum(lowest, -highest).clamp_min(0)
    scale = gradient(before).abs().amax(1, keepdim=True).clamp_min(regularizer.l1)
    assert (distance / scale).max() < (1e-4 if dtype == torch.float32 else 1e-8)


@pytest.mark.parametrize("term", [reg.MaxNorm(0.4), reg.MaxNorm(0.7, p=1), reg.GroupL1(2.0)], ids=str)
def test_norms_with_two_splittings(term):
    """Where no activation is inside the block it is that of Algorithm 2, with V in the place of U."""
    x, y = digits(torch.float64)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(x.shape[1], 10)).double()
    twin = copy.deepcopy(model)
    options = {"gamma": 0.7, "alpha": ALPHA, "weight_regularizer": term}
    optimizer = torchbcd.BCD(model, splitting=2, **options)
    optimizer.bind(x, y)
    report = optimizer.step()
    v = optimizer.variables().V[1]
    expected = torchbcd.BCD(twin, rho=0.7, order=[("W", 1), ("V", 1), ("U", 1)], **options)
    expected.bind(x, y, u=[v], v=[v])
    expected.step()
    torch.testing.assert_close(model[0].weight, twin[0].weight, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(model[0].bias, twin[0].bias, rtol=1e-11, atol=1e-12)
    objective = report.objective
    for _ in range(5):
        report = optimizer.step()
        assert report.objective <= objective * (1 + 1e-13)
        objective = report.objective


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("beside", [reg.Nonnegative(), reg.L1(20.0), reg.InputSigns([0, 1, 2], [3])], ids=repr)
def test_a_norm_that_does_not_bind_changes_nothing(beside, bias):
    """Also where the best row is zero, which here some are, with a bias or without."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    rows = [[3.0, -1.0, 0.5, -2.0], [-3.0, -1.0, -2.0, -2.0], [-3.0, -1.0, -2.0, 2.0], [-0.1, 0.1, -0.1, 0.05]]
    y = x @ torch.tensor(rows, dtype=torch.float64).t()
    models = []
    for terms in (beside, beside + reg.MaxNorm(100.0), beside + reg.GroupL1(1e-13, by="unit")):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4, bias=bias)).double()
        optimizer = torchbcd.BCD(model, alpha=1e-3, weight_regularizer=terms)
        optimizer.bind(x, y)
        for _ in range(3):
            optimizer.step()
        models.append(model)
    assert (models[0][0].weight == 0).all(1).any()
    for model in models[1:]:
        for mine, plain in zip(model.parameters(), models[0].parameters(), strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-8, atol=1e-10)
