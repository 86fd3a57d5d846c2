"""Proximal operators against brute force, over ties, extremes, layouts and dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from more_activations import FORMULAS, JUMPS, SELU, elu, hardshrink, softplus, threshold
from reference import hardsigmoid, sigmoid, sign

import torchbcd.functional as F

GAMMAS = (1e-6, 1e-3, 0.05, 0.3, 1.0, 7.0, 1e3, 1e6)
CUBIC = [0.5, -1.0, 0.0, 0.3]
QUARTIC = [0.0, 1.0, -2.0, 0.1, 0.7]
OCTIC = [1.0, 0.0, -3.0, 0.0, 1.0, 0.2, 0.0, 0.0, 0.01]


def half_square(activation):
    return lambda u, a: 0.5 * (activation(u) - a) ** 2


def polynomial(coefficients):
    return lambda u: np.polynomial.polynomial.polyval(u, coefficients)


def leaky(slope):
    return lambda u: np.maximum(u, 0) + slope * np.minimum(u, 0)


def clipped(low, high):
    return lambda u: np.clip(u, low, high)


def silu(u):
    return u / (1 + np.exp(np.minimum(-u, 700)))


def huber(v, y):
    distance = np.abs(v - y)
    return np.where(distance <= 1, 0.5 * distance**2, distance - 0.5)


def pinball(tau):
    return lambda v, y: np.maximum(tau * (y - v), (tau - 1) * (y - v))


def with_parameters(op, *parameters):
    return lambda a, b, gamma: op(a, b, gamma, *parameters)


# name -> (operator, the objective without its quadratic, on float64 NumPy arrays)
PROXES = {
    "prox_relu": (F.prox_relu, half_square(lambda u: np.maximum(u, 0))),
    "prox_identity": (F.prox_identity, half_square(lambda u: u)),
    "prox_leaky_relu": (F.prox_leaky_relu, half_square(leaky(0.01))),
    "prox_sigmoid": (F.prox_sigmoid, half_square(sigmoid)),
    "prox_tanh": (F.prox_tanh, half_square(np.tanh)),
    "prox_hardtanh": (F.prox_hardtanh, half_square(clipped(-1, 1))),
    "prox_hardsigmoid": (F.prox_hardsigmoid, half_square(hardsigmoid)),
    "prox_silu": (F.prox_silu, half_square(silu)),
    "prox_sign": (F.prox_sign, half_square(sign)),
    "prox_gelu": (F.prox_gelu, half_square(FORMULAS["gelu"][0])),
    "prox_gelu_tanh": (F.prox_gelu_tanh, half_square(FORMULAS["gelu_tanh"][0])),
    "prox_elu": (F.prox_elu, half_square(elu()[0])),
    "prox_softplus": (F.prox_softplus, half_square(softplus()[0])),
    "prox_mish": (F.prox_mish, half_square(FORMULAS["mish"][0])),
    "prox_hardswish": (F.prox_hardswish, half_square(FORMULAS["hardswish"][0])),
    "prox_logsigmoid": (F.prox_logsigmoid, half_square(FORMULAS["logsigmoid"][0])),
    "prox_softsign": (F.prox_softsign, half_square(FORMULAS["softsign"][0])),
    "prox_tanhshrink": (F.prox_tanhshrink, half_square(FORMULAS["tanhshrink"][0])),
    "prox_softshrink": (F.prox_softshrink, half_square(FORMULAS["softshrink"][0])),
    "prox_hardshrink": (F.prox_hardshrink, half_square(JUMPS["hardshrink"][0])),
    "prox_threshold": (
        with_parameters(F.prox_threshold, 0.25, -0.5),
        half_square(JUMPS["threshold"][0]),
    ),
    "prox_sine": (F.prox_sine, half_square(np.sin)),
    "prox_squared_loss": (F.prox_squared_loss, half_square(lambda u: u)),
    "prox_hinge_loss": (F.prox_hinge_loss, lambda v, y: np.maximum(0, 1 - y * v)),
    "prox_logistic_loss": (F.prox_logistic_loss, lambda v, y: np.logaddexp(0, -y * v)),
    "prox_exponential_loss": (
        F.prox_exponential_loss,
        lambda v, y: np.exp(np.minimum(-y * v, 700)),
    ),
    "prox_huber_loss": (F.prox_huber_loss, huber),
    "prox_quantile_loss": (F.prox_quantile_loss, pinball(0.5)),
    "prox_poisson_loss": (F.prox_poisson_loss, lambda v, y: np.exp(np.minimum(v, 700)) - y * v),
    "prox_binary_cross_entropy_loss": (
        F.prox_binary_cross_entropy_loss,
        lambda v, y: np.logaddexp(0, v) - y * v,
    ),
}


# Further members of the families, for the tests of the values alone.
MORE = {
    "leaky 0.5": (with_parameters(F.prox_leaky_relu, 0.5), half_square(leaky(0.5))),
    "leaky 2": (with_parameters(F.prox_leaky_relu, 2.0), half_square(leaky(2.0))),
    "leaky -0.5": (with_parameters(F.prox_leaky_relu, -0.5), half_square(leaky(-0.5))),
    "selu": (with_parameters(F.prox_elu, *SELU), half_square(elu(*SELU)[0])),
    "celu": (with_parameters(F.prox_elu, 2.0, 1.0, 0.5), half_square(elu(2.0, 1.0, 0.5)[0])),
    "elu -0.75": (with_parameters(F.prox_elu, -0.75), half_square(elu(-0.75)[0])),
    "softplus 4": (with_parameters(F.prox_softplus, 4.0, 24.0), half_square(softplus(4.0, 24.0)[0])),
    "softplus 0.25": (with_parameters(F.prox_softplus, 0.25), half_square(softplus(0.25)[0])),
    "hardshrink 2": (with_parameters(F.prox_hardshrink, 2.0), half_square(hardshrink(2.0))),
    "threshold -1 2": (with_parameters(F.prox_threshold, -1.0, 2.0), half_square(threshold(-1.0, 2.0))),
    "quantile 0.9": (with_parameters(F.prox_quantile_loss, 0.9), pinball(0.9)),
    "quantile 0.01": (with_parameters(F.prox_quantile_loss, 0.01), pinball(0.01)),
    "relu6": (with_parameters(F.prox_hardtanh, 0.0, 6.0), half_square(clipped(0, 6))),
    "hardtanh 1 1.5": (with_parameters(F.prox_hardtanh, 1.0, 1.5), half_square(clipped(1, 1.5))),
    "cubic": (with_parameters(F.prox_polynomial, CUBIC), half_square(polynomial(CUBIC))),
    "quartic": (with_parameters(F.prox_polynomial, QUARTIC), half_square(polynomial(QUARTIC))),
    "octic": (with_parameters(F.prox_polynomial, OCTIC), half_square(polynomial(OCTIC))),
    "square": (with_parameters(F.prox_polynomial, [0, 0, 1.0]), half_square(lambda u: u**2)),
    "line": (with_parameters(F.prox_polynomial, [0.2, -2.0]), half_square(lambda u: 0.2 - 2 * u)),
    "constant": (with_parameters(F.prox_polynomial, [0.2]), half_square(lambda u: 0.2 + 0 * u)),
}
ALL = {**PROXES, **MORE}


def objective(name, u, a, b, gamma):
    return ALL[name][1](u, a) + gamma / 2 * (u - b) ** 2


STEPS = np.r_[0.0, np.logspace(-9, 12, 200)]
AROUND = np.unique(np.r_[-STEPS, STEPS])
NEAR = np.linspace(-30, 30, 6001)


def brute_force(name, a, b, gamma):
    """The least objective on grids around 0, a and b at every scale, refined around the five best points."""
    grid = np.unique(np.r_[NEAR, AROUND, a + AROUND, b + AROUND, b + NEAR, (a + gamma * b) / (1 + gamma)])
    values = objective(name, grid, a, b, gamma)
    best = values.min()
    inner = np.flatnonzero((values[1:-1] <= values[:-2]) & (values[1:-1] <= values[2:])) + 1
    for start in inner[np.argsort(values[inner])][:5]:
        low, high = grid[start - 1], grid[start + 1]
        for _ in range(5):
            points = np.linspace(low, high, 41)
            at = objective(name, points, a, b, gamma)
            k = int(np.clip(at.argmin(), 1, 39))
            low, high = points[k - 1], points[k + 1]
            best = min(best, at.min())
    return best


def cases():
    """Pairs (a, b) that float32 holds too: what is least is the same for both dtypes."""
    special = [0.0, -0.0, 1.0, -1.0, 0.5, -3.0, 2.0, 1e-4, -1e-4, 1e4, -1e4]
    random = np.random.default_rng(0).normal(size=(60, 2)) * 3
    return torch.tensor([(a, b) for a in special for b in special] + random.tolist(), dtype=torch.float32)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", ALL)
def test_is_a_global_minimiser(name, gamma):
    pairs = cases()
    least = [brute_force(name, a, b, gamma) for a, b in pairs.double().numpy()]
    for dtype in (torch.float64, torch.float32):
        given = pairs.to(dtype)
        u = ALL[name][0](given[:, 0], given[:, 1], gamma).double().numpy()
        assert np.isfinite(u).all()
        unit = torch.finfo(dtype).eps
        for (a, b), point, value in zip(pairs.double().numpy(), u, least, strict=True):
            # What rounding the minimiser itself to the dtype may cost, and what float64 resolves of the value.
            neighbours = point + np.array([-2, 2]) * unit * max(abs(point), 1e-30)
            rounding = max(objective(name, neighbours, a, b, gamma)) - objective(name, point, a, b, gamma)
            tolerance = 1e-10 * max(1, abs(value)) + abs(rounding)
            assert objective(name, point, a, b, gamma) <= value + tolerance, (a, b, dtype)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_relu_tie(gamma):
    """Where b is as far below zero as a is above in Lemma 9's sense, both candidates cost the same."""
    a = 2.0
    b = -(np.sqrt(gamma * (gamma + 1)) - gamma) * a / gamma
    for nudge in (1 - 1e-9, 1.0, 1 + 1e-9):
        u = F.prox_relu(
            torch.tensor([a], dtype=torch.float64),
            torch.tensor([b * nudge], dtype=torch.float64),
            gamma,
        )
        least = brute_force("prox_relu", a, b * nudge, gamma)
        assert objective("prox_relu", u.item(), a, b * nudge, gamma) == pytest.approx(least, rel=1e-7)


SILU_LEAST, SILU_LOWEST = -0.2784645427610738, -1.2784645427610738


@pytest.mark.parametrize("gamma", GAMMAS)
def test_silu_where_it_is_not_monotone(gamma):
    """`a` near its least value, between that and 0, with two preimages, and far below; `b` on either side."""
    pairs = [
        (a, b)
        for a in (SILU_LEAST - 1e-6, SILU_LEAST, SILU_LEAST + 1e-6, -0.2, -0.01, -1e-6, -28.0, -1e4)
        for b in (SILU_LOWEST - 1e-3, SILU_LOWEST, SILU_LOWEST + 1e-3, -2.4, -5.0, -50.0, 2.4, 5.0, 50.0)
    ]
    at = torch.tensor(pairs, dtype=torch.float64)
    u = F.prox_silu(at[:, 0], at[:, 1], gamma).numpy()
    for (a, b), point in zip(pairs, u, strict=True):
        least = brute_force("prox_silu", a, b, gamma)
        # What rounding the minimiser may cost; and float64 resolves the values to 1e-16 or so, and with them an
        # objective near zero.
        neighbours = point + np.array([-2, 2]) * 2.3e-16 * abs(point)
        found = objective("prox_silu", point, a, b, gamma)
        rounding = max(objective("prox_silu", neighbours, a, b, gamma)) - found
        tolerance = 1e-10 * least + 1e-15 * abs(a) * least**0.5 + 1e-30 + abs(rounding)
        assert found <= least + tolerance, (a, b)


@pytest.mark.parametrize(("a", "gamma"), [(2.0, 0.05), (1.0, 0.3), (0.2, 0.01), (-0.2, 1e-3), (-100.0, 0.3)])
def test_silu_tie(a, gamma):
    """`b` where the minimiser jumps, found by bisection: both sides of the jump cost the same."""

    def prox(b):
        at = torch.tensor([a, b], dtype=torch.float64)
        return F.prox_silu(at[0], at[1], gamma).item()

    grid = np.linspace(-40, 60, 2001)
    u = [prox(b) for b in grid]
    k = int(np.abs(np.diff(u)).argmax())
    low, high = grid[k], grid[k + 1]
    for _ in range(50):
        middle = 0.5 * (low + high)
        near_low = abs(prox(middle) - prox(low)) < abs(prox(middle) - prox(high))
        low, high = (middle, high) if near_low else (low, middle)
    assert prox(high) - prox(low) > 0.1
    for b in (low, high):
        least = brute_force("prox_silu", a, b, gamma)
        assert objective("prox_silu", prox(b), a, b, gamma) == pytest.approx(least, rel=1e-10)


@given(
    a=st.floats(-1e4, 1e4),
    b=st.floats(-1e4, 1e4),
    gamma=st.floats(1e-6, 1e6),
    other=st.floats(-2e4, 2e4),
)
def test_no_point_is_better(a, b, gamma, other):
    for name, (prox, _) in ALL.items():
        u = prox(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), gamma)
        with np.errstate(over="ignore"):
            ours, theirs = objective(name, np.array([u.item(), other]), a, b, gamma)
        assert ours <= theirs + 1e-10 * max(1, theirs)


def cross_entropy(v, t):
    shifted = v - v.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -(t * log_softmax).sum(1)


class TestCrossEntropy:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("gamma", GAMMAS)
    @pytest.mark.parametrize("classes", [2, 3, 10, 1000])
    def test_stationarity(self, classes, gamma, dtype):
        """The gradient, softmax(v) sum(t) - t + gamma (v - b), vanishes; the objective is strongly convex."""
        g = torch.Generator().manual_seed(classes)
        b = torch.randn(30, classes, generator=g, dtype=torch.float64) * 3
        b[0], b[1] = 0, torch.linspace(-1e4, 1e4, classes)
        b = b.to(dtype)
        labels = torch.randint(classes, (30,), generator=g)
        soft = torch.rand(30, classes, generator=g, dtype=torch.float64).pow(3)
        soft = (soft / soft.sum(1, keepdim=True)).to(dtype)
        one_hot = torch.nn.functional.one_hot(labels, classes).to(dtype)
        for target, t in ((labels, one_hot), (one_hot, one_hot), (soft, soft), (5 * soft, 5 * soft)):
            v = F.prox_cross_entropy_loss(target, b, gamma).double()
            total = t.double().sum(1, keepdim=True)
            gradient = v.softmax(1) * total - t.double() + gamma * (v - b.double())
            # Rounding v to the dtype moves the gradient by its Hessian, at most gamma + total, times that.
            unit = torch.finfo(dtype).eps * (1 + v.abs().max(1, keepdim=True).values)
            assert (gradient.abs() <= 4 * unit * (gamma + total)).all()

    def test_ten_thousand_classes(self):
        b = torch.randn(4, 10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        labels = torch.tensor([0, 17, 9_999, 5])
        v = F.prox_cross_entropy_loss(labels, b, 0.3)
        gradient = v.softmax(1) - torch.nn.functional.one_hot(labels, 10_000) + 0.3 * (v - b)
        assert gradient.abs().max() < 1e-12

    def test_against_other_points(self):
        rng = np.random.default_rng(0)
        b = rng.normal(size=(50, 4)) * 5
        t = rng.dirichlet(np.ones(4), 50)
        v = F.prox_cross_entropy_loss(torch.tensor(t), torch.tensor(b), 0.2).numpy()
        least = cross_entropy(v, t) + 0.1 * ((v - b) ** 2).sum(1)
        for scale in (1e-6, 1e-3, 1e-1, 1, 10):
            other = v + scale * rng.normal(size=v.shape)
            assert (least <= cross_entropy(other, t) + 0.1 * ((other - b) ** 2).sum(1) + 1e-12).all()

    def test_layouts_and_empty(self):
        b = torch.randn(5, 3, dtype=torch.float64)
        y = torch.tensor([0, 1, 2, 1, 0])
        expected = F.prox_cross_entropy_loss(y, b, 0.7)
        strided = b.t().contiguous().t()
        torch.testing.assert_close(F.prox_cross_entropy_loss(y, strided, 0.7), expected, rtol=0, atol=0)
        torch.testing.assert_close(F.prox_cross_entropy_loss(y.int(), b, 0.7), expected, rtol=0, atol=0)
        assert F.prox_cross_entropy_loss(y[:0], b[:0], 1.0).shape == (0, 3)
        nan = b.clone()
        nan[1, 1] = float("nan")
        rows = F.prox_cross_entropy_loss(y, nan, 0.7).isnan().all(1)
        assert rows.tolist() == [False, True, False, False, False]

    def test_refusals(self):
        b = torch.zeros(3, 4)
        with pytest.raises(ValueError, match=r"target must hold classes from 0 to 3 \(got 4\)"):
            F.prox_cross_entropy_loss(torch.tensor([0, 1, 4]), b, 1.0)
        with pytest.raises(ValueError, match=r"class indices must have shape \(n,\) = \[3\]"):
            F.prox_cross_entropy_loss(torch.tensor([0, 1]), b, 1.0)
        with pytest.raises(ValueError, match="target must hold probabilities >= 0"):
            F.prox_cross_entropy_loss(b - 1, b, 1.0)
        with pytest.raises(ValueError, match=r"b must be a matrix of shape \(n, C\)"):
            F.prox_cross_entropy_loss(torch.tensor([0]), b[0], 1.0)
        with pytest.raises(TypeError, match="target must hold class indices or have the dtype of b"):
            F.prox_cross_entropy_loss(b.double(), b, 1.0)
        with pytest.raises(ValueError, match="gamma must be a finite positive"):
            F.prox_cross_entropy_loss(torch.tensor([0, 1, 2]), b, 0.0)


REGULARIZERS = {
    "prox_l1": (lambda x: F.prox_l1(x, 0.7), lambda u: 0.7 * np.abs(u), (-np.inf, np.inf)),
    "prox_l2": (lambda x: F.prox_l2(x, 0.7), lambda u: 0.35 * u**2, (-np.inf, np.inf)),
    "prox_elastic_net": (
        lambda x: F.prox_elastic_net(x, 0.7, 0.4),
        lambda u: 0.7 * np.abs(u) + 0.2 * u**2,
        (-np.inf, np.inf),
    ),
    "project_nonnegative": (F.project_nonnegative, lambda u: 0 * u, (0, np.inf)),
    "project_box": (lambda x: F.project_box(x, -0.5, 2.0), lambda u: 0 * u, (-0.5, 2.0)),
}


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_regularizers(name, dtype):
    prox, value, (low, high) = REGULARIZERS[name]
    x = torch.tensor([0.0, -0.0, 0.7, -0.7, 0.1, -0.1, 5.0, -5.0, 1e4, -1e4], dtype=dtype)
    u = prox(x)
    assert u.dtype == dtype
    for at, point in zip(x.double().numpy(), u.double().numpy(), strict=True):
        assert low <= point <= high
        grid = np.unique(np.r_[at + AROUND, NEAR, AROUND])
        grid = grid[(grid >= low) & (grid <= high)]
        least = (value(grid) + 0.5 * (grid - at) ** 2).min()
        ours = value(point) + 0.5 * (point - at) ** 2
        assert ours <= least * (1 + 1e-6) + 1e-9
    assert torch.equal(prox(x[::2]), u[::2])


def test_regularizers_refuse():
    x = torch.ones(2)
    for bad in (-1.0, float("nan"), float("inf")):
        for call in (
            lambda bad=bad: F.prox_l1(x, bad),
            lambda bad=bad: F.prox_l2(x, bad),
            lambda bad=bad: F.prox_elastic_net(x, bad, 1.0),
            lambda bad=bad: F.prox_elastic_net(x, 1.0, bad),
        ):
            with pytest.raises(ValueError, match=r"t[12]? must be a finite number >= 0"):
                call()
    with pytest.raises(ValueError, match="lo must be at most hi"):
        F.project_box(x, 1.0, 0.0)
    with pytest.raises(TypeError, match="x must be a float32 or float64 tensor"):
        F.prox_l1(torch.ones(2, dtype=torch.int64), 1.0)


def test_parameters_are_checked():
    a = torch.ones(2)
    with pytest.raises(ValueError, match="a polynomial must have 1 to 9 coefficients .got 10."):
        F.prox_polynomial(a, a, 1.0, [1.0] * 10)
    with pytest.raises(ValueError, match="coefficients must be finite"):
        F.prox_polynomial(a, a, 1.0, [float("nan")])
    with pytest.raises(ValueError, match="negative_slope must be finite"):
        F.prox_leaky_relu(a, a, 1.0, float("inf"))
    for bounds in ((1.0, 1.0), (2.0, 1.0), (float("-inf"), 0.0), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="min_val must be below max_val, and both finite"):
            F.prox_hardtanh(a, a, 1.0, *bounds)
    for tau in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match=r"torchbcd::prox_quantile_loss: tau must be between 0 and 1 .got"):
            F.prox_quantile_loss(a, a, 1.0, tau)


@pytest.mark.parametrize("name", PROXES)
class TestTensors:
    def test_broadcasts(self, name):
        prox = PROXES[name][0]
        a, b = torch.randn(3, 1, 5), torch.randn(4, 1)
        expected = prox(a.expand(3, 4, 5).contiguous(), b.expand(3, 4, 5).contiguous(), 0.7)
        torch.testing.assert_close(prox(a, b, 0.7), expected, rtol=0, atol=0)

    def test_strided_inputs(self, name):
        prox = PROXES[name][0]
        a, b = torch.randn(40, 30).t()[::2, ::3], torch.randn(15, 14)
        torch.testing.assert_close(prox(a, b, 0.7), prox(a.contiguous(), b, 0.7), rtol=0, atol=0)

    def test_vector_and_scalar_paths_agree(self, name):
        """Every length, so that the vectorised loop's tail and the strided loop are covered."""
        prox = PROXES[name][0]
        for n in range(40):
            a, b = torch.randn(2 * n), torch.randn(2 * n)
            contiguous = prox(a[::2].contiguous(), b[::2].contiguous(), 1.3)
            torch.testing.assert_close(prox(a[::2], b[::2], 1.3), contiguous, rtol=0, atol=0)

    @pytest.mark.parametrize("shape", [(0,), (0, 7), ()])
    def test_zero_rows_and_scalars(self, name, shape):
        assert PROXES[name][0](torch.randn(shape), torch.randn(shape), 1.0).shape == shape

    def test_nan_stays_nan(self, name):
        nan = torch.tensor([float("nan"), 1.0])
        assert PROXES[name][0](nan, torch.ones(2), 1.0).isnan().tolist() == [True, False]
        assert PROXES[name][0](torch.ones(2), nan, 1.0).isnan().tolist() == [True, False]

    @pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
    def test_gamma_must_be_positive(self, name, gamma):
        with pytest.raises(ValueError, match=rf"torchbcd::{name}: gamma must be a finite positive"):
            PROXES[name][0](torch.ones(2), torch.ones(2), gamma)

    def test_dtypes(self, name):
        with pytest.raises(TypeError, match=f"torchbcd::{name}: .* must be a float32 or float64"):
            PROXES[name][0](torch.ones(2, dtype=torch.int64), torch.ones(2), 1.0)
        with pytest.raises(TypeError, match=f"torchbcd::{name}: b must have the dtype of"):
            PROXES[name][0](torch.ones(2), torch.ones(2, dtype=torch.float64), 1.0)
        with pytest.raises(TypeError, match="float32 or float64"):
            PROXES[name][0](torch.ones(2).half(), torch.ones(2).half(), 1.0)

    def test_shapes(self, name):
        with pytest.raises(ValueError, match=r"must have shapes that broadcast .got \[2\] and \[3\]"):
            PROXES[name][0](torch.ones(2), torch.ones(3), 1.0)

    def test_has_no_silent_gradient(self, name):
        out = PROXES[name][0](torch.ones(2, requires_grad=True), torch.ones(2), 1.0)
        with pytest.raises(RuntimeError, match="derivative for torchbcd::.* is not implemented"):
            out.sum().backward()
