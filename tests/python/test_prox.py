"""Proximal operators against brute force, over ties, extremes, layouts and dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torchbcd.functional as F

GAMMAS = (1e-6, 1e-3, 0.3, 1.0, 7.0, 1e3, 1e6)

# name -> (operator, the objective without its quadratic, on float64 NumPy arrays)
PROXES = {
    "prox_relu": (F.prox_relu, lambda u, a: 0.5 * (np.maximum(u, 0) - a) ** 2),
    "prox_identity": (F.prox_identity, lambda u, a: 0.5 * (u - a) ** 2),
    "prox_squared_loss": (F.prox_squared_loss, lambda u, a: 0.5 * (u - a) ** 2),
}


def objective(name, u, a, b, gamma):
    return PROXES[name][1](u, a) + gamma / 2 * (u - b) ** 2


def brute_force(name, a, b, gamma):
    """The least objective found by three rounds of grids around the best point, and at special points."""
    low, high = min(a, b, 0) - 1, max(a, b, 0) + 1
    best = np.inf
    for _ in range(3):
        grid = np.unique(np.r_[np.linspace(low, high, 20_001), 0.0, a, b, (a + gamma * b) / (1 + gamma)])
        values = objective(name, grid, a, b, gamma)
        best = min(best, values.min())
        centre, width = grid[values.argmin()], (high - low) / 5_000
        low, high = centre - width, centre + width
    return best


def cases():
    special = [0.0, -0.0, 1.0, -1.0, 0.5, -3.0, 2.0, 1e-4, -1e-4, 1e4, -1e4]
    random = np.random.default_rng(0).normal(size=(40, 2)) * 3
    return [(a, b) for a in special for b in special] + [tuple(pair) for pair in random]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", PROXES)
def test_is_a_global_minimiser(name, gamma, dtype):
    pairs = torch.tensor(cases(), dtype=dtype)
    u = PROXES[name][0](pairs[:, 0], pairs[:, 1], gamma).double().numpy()
    assert np.isfinite(u).all()
    unit = torch.finfo(dtype).eps
    for (a, b), point in zip(pairs.double().numpy(), u, strict=True):
        # Rounding u by one unit costs this much; the minimum itself is known to the grid's resolution.
        rounding = 4 * unit * (a**2 + gamma * b**2 + abs(a * b) * (1 + gamma) + 1e-3)
        least = brute_force(name, a, b, gamma)
        assert objective(name, point, a, b, gamma) <= least + max(rounding, 1e-9 * abs(least))


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


@given(
    a=st.floats(-1e4, 1e4),
    b=st.floats(-1e4, 1e4),
    gamma=st.floats(1e-6, 1e6),
    other=st.floats(-2e4, 2e4),
)
def test_no_point_is_better(a, b, gamma, other):
    for name, (prox, _) in PROXES.items():
        u = prox(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), gamma)
        ours, theirs = objective(name, np.array([u.item(), other]), a, b, gamma)
        assert ours <= theirs + 1e-12 * (a**2 + gamma * b**2 + abs(a * b) * (1 + gamma))


@pytest.mark.parametrize("name", PROXES)
class TestTensors:
    def test_broadcasts(self, name):
        prox = PROXES[name][0]
        a, b = torch.randn(3, 1, 5), torch.randn(4, 1)
        expected = prox(a.expand(3, 4, 5).contiguous(), b.expand(3, 4, 5).contiguous(), 0.7)
        torch.testing.assert_close(prox(a, b, 0.7), expected, rtol=0, atol=0)

    def test_strided_inputs(self, name):
        prox = PROXES[name][0]
        a, b = torch.randn(40, 30).t()[::2, ::3], torch.randn(14, 30)[:, ::2].t()[:, :14].t()
        b = torch.randn(15, 14)
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
