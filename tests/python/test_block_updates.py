"""The least-squares blocks against normal equations and lstsq in float64, and their stationarity."""

from __future__ import annotations

import pytest
import torch

import torchbcd.functional as F

# (rows, inputs, outputs): every side the smaller one, sizes around the factorisation's blocks, none, one
SHAPES = [
    (40, 6, 5),
    (3, 20, 7),
    (3, 7, 20),
    (300, 140, 9),
    (50, 300, 260),
    (129, 128, 130),
    (700, 20, 600),
    (0, 4, 3),
    (1, 1, 1),
]


def problem(rows, inputs, outputs, *, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    return randn(rows, outputs), randn(rows, inputs), randn(outputs, inputs), randn(outputs)


def exact_weight_update(u, v, weight, bias, rho, alpha):
    """Stacked least squares, min |[sqrt(rho) (V - U); sqrt(alpha) (W - W_prev)]|, by lstsq."""
    u, v, weight = u.double(), v.double(), weight.double()
    previous = weight
    if bias is not None:
        v = torch.cat([v, torch.ones(len(v), 1, dtype=v.dtype)], 1)
        previous = torch.cat([weight, bias.double()[:, None]], 1)
    eye = torch.eye(v.shape[1], dtype=v.dtype)
    left = torch.cat([rho**0.5 * v, alpha**0.5 * eye])
    right = torch.cat([rho**0.5 * u, alpha**0.5 * previous.t()])
    solution = torch.linalg.lstsq(left, right, driver="gelsd").solution.t()
    return (solution[:, :-1], solution[:, -1]) if bias is not None else (solution, None)


def exact_state_update(s, u, weight, bias, gamma, rho):
    s, u, weight = s.double(), u.double(), weight.double()
    target = u if bias is None else u - bias.double()
    if len(s) == 0:
        return s
    eye = torch.eye(s.shape[1], dtype=s.dtype)
    left = torch.cat([gamma**0.5 * eye, rho**0.5 * weight])
    right = torch.cat([gamma**0.5 * s, rho**0.5 * target], 1).t()
    return torch.linalg.lstsq(left, right, driver="gelsd").solution.t()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rho", "alpha"), [(1.0, 1.0), (0.3, 2.5), (40.0, 1e-4)])
@pytest.mark.parametrize("shape", SHAPES)
def test_weight_update(shape, rho, alpha, bias):
    u, v, weight, b = problem(*shape)
    b = b if bias else None
    new_weight, new_bias = F.weight_update(u, v, weight, b, rho, alpha)
    expected_weight, expected_bias = exact_weight_update(u, v, weight, b, rho, alpha)
    torch.testing.assert_close(new_weight, expected_weight, rtol=1e-8, atol=1e-8)
    if bias:
        torch.testing.assert_close(new_bias, expected_bias, rtol=1e-8, atol=1e-8)
    else:
        assert new_bias is None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("gamma", "rho"), [(1.0, 1.0), (0.3, 2.5), (1e-3, 10.0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_state_update(shape, gamma, rho, bias):
    rows, inputs, outputs = shape
    u, s, weight, b = problem(rows, inputs, outputs)
    b = b if bias else None
    v = F.state_update(s, u, weight, b, gamma, rho)
    torch.testing.assert_close(v, exact_state_update(s, u, weight, b, gamma, rho), rtol=1e-8, atol=1e-8)


def test_stationarity():
    """The gradients of the documented objectives vanish at what is returned."""
    u, v, weight, bias = problem(30, 8, 5)
    rho, alpha, gamma = 0.7, 1.3, 0.4
    new_weight, new_bias = F.weight_update(u, v, weight, bias, rho, alpha)
    w, b = new_weight.clone().requires_grad_(), new_bias.clone().requires_grad_()
    fit = rho / 2 * (u - v @ w.t() - b).square().sum()
    prox = alpha / 2 * ((w - weight).square().sum() + (b - bias).square().sum())
    for gradient in torch.autograd.grad(fit + prox, (w, b)):
        assert gradient.abs().max() < 1e-12
    new_v = F.state_update(v, u, weight, bias, gamma, rho).requires_grad_()
    fit = rho / 2 * (u - new_v @ weight.t() - bias).square().sum()
    (gradient,) = torch.autograd.grad(fit + gamma / 2 * (new_v - v).square().sum(), new_v)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("rows", [20, 3000])
def test_rank_deficient_inputs(rows):
    """Repeated, constant and zero columns: the proximal term alone decides along their null space."""
    u, v, weight, bias = problem(rows, 12, 5)
    v[:, 3] = v[:, 2]
    v[:, 4] = 0
    v[:, 5] = 1  # collinear with the bias
    new_weight, new_bias = F.weight_update(u, v, weight, bias, 1.0, 1e-3)
    expected_weight, expected_bias = exact_weight_update(u, v, weight, bias, 1.0, 1e-3)
    torch.testing.assert_close(new_weight, expected_weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(new_bias, expected_bias, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(new_weight[:, 4], weight[:, 4])


@pytest.mark.parametrize("rows", [60, 4000])
def test_ill_conditioned_float32(rows):
    """Columns that agree to three digits and a small alpha: beyond a float32 factor, not a float64 one."""
    u, v, weight, bias = problem(rows, 80, 5)
    v = v[:, :1] * 3 + 1e-3 * v
    u = v @ weight.t() + bias
    start = torch.zeros_like(weight)
    args = (rows**-0.5, 1e-4)

    def objective(w, b):
        fit = (u - v @ w.t() - b).square().sum() * args[0] / 2
        return fit + args[1] / 2 * ((w - start).square().sum() + (b - bias).square().sum())

    new_weight, new_bias = F.weight_update(u.float(), v.float(), start.float(), bias.float(), *args)
    best = objective(*exact_weight_update(u.float(), v.float(), start, bias, *args))
    got = objective(new_weight.double(), new_bias.double())
    # The right-hand side U^T V is a float32 product still; the next call's residual would refine it.
    assert got <= best * 1.05 + 1e-4 * objective(start, bias)


def test_odd_layouts():
    u, v, weight, bias = problem(33, 8, 5)
    strided = (
        u.t().contiguous().t(),
        v.repeat_interleave(2, 1)[:, ::2],
        weight.t().contiguous().t(),
        bias.repeat_interleave(3)[::3],
    )
    for a, b in zip(
        F.weight_update(*strided, 1.0, 0.5), F.weight_update(u, v, weight, bias, 1.0, 0.5), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        F.state_update(strided[1], strided[0], *strided[2:], 1.0, 0.5),
        F.state_update(v, u, weight, bias, 1.0, 0.5),
        rtol=1e-12,
        atol=1e-12,
    )


def test_inputs_are_left_alone():
    arguments = problem(33, 8, 5)
    copies = [t.clone() for t in arguments]
    F.weight_update(*arguments, 1.0, 0.5)
    u, v, weight, bias = arguments
    F.state_update(v, u, weight, bias, 1.0, 0.5)
    for before, after in zip(copies, arguments, strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0)


class TestRefusals:
    def test_shapes(self):
        u, v, weight, bias = problem(6, 4, 3)
        with pytest.raises(ValueError, match=r"weight_update: v must have shape \(n, d\) = \[6, 4\]"):
            F.weight_update(u, v[:, :3], weight, bias, 1.0, 1.0)
        with pytest.raises(ValueError, match=r"weight_update: u must have shape \(n, d'\) = \[6, 3\]"):
            F.weight_update(u[:5], v, weight, bias, 1.0, 1.0)
        with pytest.raises(ValueError, match=r"state_update: bias must have shape \(d',\) = \[3\]"):
            F.state_update(v, u, weight, bias[:2], 1.0, 1.0)
        with pytest.raises(ValueError, match=r"weight must be a matrix of shape \(d', d\)"):
            F.state_update(v, u, weight[0], bias, 1.0, 1.0)

    @pytest.mark.parametrize("bad", [0.0, -2.0, float("nan"), float("inf")])
    def test_penalties(self, bad):
        u, v, weight, bias = problem(6, 4, 3)
        for name, arguments in (("rho", (bad, 1.0)), ("alpha", (1.0, bad))):
            with pytest.raises(ValueError, match=f"weight_update: {name} must be a finite positive"):
                F.weight_update(u, v, weight, bias, *arguments)
        for name, arguments in (("gamma", (bad, 1.0)), ("rho", (1.0, bad))):
            with pytest.raises(ValueError, match=f"state_update: {name} must be a finite positive"):
                F.state_update(v, u, weight, bias, *arguments)

    def test_dtypes(self):
        u, v, weight, bias = problem(6, 4, 3)
        with pytest.raises(TypeError, match="weight_update: v must have the dtype of weight"):
            F.weight_update(u, v.float(), weight, bias, 1.0, 1.0)
        with pytest.raises(TypeError, match="state_update: bias must have the dtype of weight"):
            F.state_update(v, u, weight, bias.float(), 1.0, 1.0)

    def test_overflow(self):
        u, v, weight, bias = problem(6, 4, 3)
        with pytest.raises(torch.linalg.LinAlgError, match="weight_update: .*no Cholesky factor"):
            F.weight_update(u, v * 1e200, weight, bias, 1.0, 1.0)
