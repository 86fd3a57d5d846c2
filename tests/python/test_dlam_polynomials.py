"""Polynomial activations in DLAM: which of them are monotone, their boxes, training."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
import torch
from conftest import make_data, make_mlp
from dlam_problems import recomputed
from numpy.polynomial import Polynomial
from torch import nn

import torchbcd
import torchbcd.functional as F

pytestmark = pytest.mark.usefixtures("one_thread")

# Of degree 1 to 7, flat in places, with terms that cancel.
MONOTONE = {
    "u": [0.0, 1.0],
    "cube": [0.0, 0.0, 0.0, 1.0],
    "cube and line": [0.0, 1.0, 0.0, 1.0],
    "(u - 1)^3": [-1.0, 3.0, -3.0, 1.0],
    "quintic": [0.5, 0.2, 0.0, 0.3, 0.0, 0.01],
    "flat twice": [0.0, 4.0, 0.0, -8 / 3, 0.0, 4 / 5],  # p' = 4 (u^2 - 1)^2
    "septic": [1.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.001],
}
DIVISIBLE = math.lcm(*range(1, 8))  # so that integrals of integer polynomials have integer coefficients


def product(*factors):
    return reduce(Polynomial.__mul__, [Polynomial(f) for f in factors], Polynomial([1.0]))


def taken(derivative):
    """Whether DLAM takes the polynomial with this derivative, whose coefficients are integers."""
    coefficients = (DIVISIBLE * derivative).integ().coef
    assert (coefficients == coefficients.round()).all()
    assert np.abs(coefficients).max() < 2**53
    try:
        layer(coefficients.tolist())
    except ValueError as error:
        return "layer 1: the activation must be monotone and continuous" not in str(error)
    return True


def layer(coefficients, dtype=torch.float64, **options):
    """DLAM over two layers with a polynomial between them."""
    model = make_mlp([6, 8, 3], dtype=dtype)
    model[1] = torchbcd.nn.Polynomial(coefficients)
    return model, torchbcd.DLAM(model, **options)


def root(r):
    return [-r, 1.0]


def always_positive(random):
    """(u - r)^2 + s with s >= 1."""
    r, s = random.integers(-6, 7), random.integers(1, 9)
    return [r**2 + s, -2.0 * r, 1.0]


@pytest.mark.parametrize("seed", range(200))
def test_roots_of_the_derivative_decide(seed):
    """Those of even multiplicity do no harm, those of odd multiplicity do."""
    random = np.random.default_rng(seed)
    r, s = random.choice(np.arange(-6, 7), 2, replace=False).astype(float)
    positive = always_positive(random)
    assert taken(product(positive))
    assert taken(product(positive, always_positive(random), positive))
    assert taken(product(root(r), root(r), root(s), root(s)))
    assert taken(product(root(r), root(r), root(r), root(r), positive))
    assert not taken(product(root(r), root(s)))
    assert not taken(product(root(r), root(s), positive, always_positive(random)))
    assert not taken(product(root(r), root(r), root(r), root(s), positive))
    assert not taken(product(root(r), root(r), root(s), positive))  # of odd degree
    assert not taken(-product(positive, always_positive(random)))


def test_how_closely():
    """A derivative that dips below zero by a 1e-14th of its terms is seen, and no scale of u hides it."""
    for scale in (1e-30, 1.0, 1e30):

        def coefficients(dip, scale=scale):
            """P' = (v - 1)^2 - dip with u = scale v."""
            return [c / scale**k for k, c in enumerate([0.0, 1.0 - dip, -1.0, 1 / 3])]

        layer(coefficients(0.0))
        layer(coefficients(-1e-14))
        with pytest.raises(ValueError, match="must be monotone"):
            layer(coefficients(1e-14))


@pytest.mark.parametrize("coefficients", [[2.0], [2.0, 0.0, 0.0], [0.0]], ids=str)
def test_constants_never_fall(coefficients):
    """Their box is the whole line, or, outside the tolerance, empty; then the present z stays."""
    q, z = torch.randn(2, 20, dtype=torch.float64)
    a = torch.full_like(q, coefficients[0] + 0.05)
    assert torch.equal(F.preimage_projection(q, a, z, "polynomial", coefficients, 0.1), q)
    assert F.preimage_projection(q, a + 1, z, "polynomial", coefficients, 0.1).isfinite().all()
    found, state = F.joint_state_update(q, a + 1, "polynomial", coefficients, 0.5, 0.1)
    assert torch.equal(found, q)
    torch.testing.assert_close(state, torch.full_like(q, coefficients[0] + 0.1))


@pytest.mark.parametrize(
    "coefficients", [[0.0, -1.0], [0.0, 0.0, 1.0], [0.5, -1.0, 0.0, 0.3], [0, 0, 0, -1.0]], ids=str
)
def test_refused_by_name(coefficients):
    with pytest.raises(ValueError, match=r"layer 1: the activation must be monotone .*\(got 'polynomial', which"):
        layer(coefficients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("name", MONOTONE)
class TestBoxes:
    """Against bisection and grids in float64."""

    @staticmethod
    def entries(count, dtype, scale):
        generator = torch.Generator().manual_seed(11)
        spread = 10 ** torch.empty(60, dtype=torch.float64).uniform_(-4, 0.5, generator=generator)
        return (scale * spread * torch.randn(count, 60, generator=generator, dtype=torch.float64)).to(dtype)

    @staticmethod
    def sensitivity(p, z, dtype):
        """What rounding z, and the terms of p(z), makes of p(z)."""
        terms = Polynomial(np.abs(p.coef))(np.abs(z))
        return 4 * torch.finfo(dtype).eps * (1 + len(p.coef) * terms)

    def test_preimage_projection(self, name, eps, dtype):
        p = Polynomial(MONOTONE[name])
        z, q = self.entries(2, dtype, 1.0)
        jitter = self.entries(3, torch.float64, 1.0)[2].clamp(-1, 1)
        a = (torch.tensor(p(z.double().numpy())) + 0.9 * eps * jitter).to(dtype)
        found = F.preimage_projection(q, a, z, "polynomial", MONOTONE[name], eps).double().numpy()
        low, high = np.full(60, -100.0), np.full(60, 100.0)
        ends = []
        for target in (a.double().numpy() - eps, a.double().numpy() + eps):
            below, above = low.copy(), high.copy()
            for _ in range(120):
                middle = (below + above) / 2
                falls = p(middle) < target
                below, above = np.where(falls, middle, below), np.where(falls, above, middle)
            ends.append((below + above) / 2)
        expected = np.clip(q.double().numpy(), *ends)
        # z is as near to q as the box allows, and as its image says, which is all that rounding leaves of a root.
        rounding = self.sensitivity(p, found, dtype)
        assert (np.abs(p(found) - a.double().numpy()) <= eps + rounding).all()
        assert (np.abs(p(found) - p(expected)) <= rounding).all()
        inside = expected == q.double().numpy()
        assert 0 < inside.sum() < 60
        assert (found[inside] == expected[inside]).all()

    def test_joint_state_update(self, name, eps, dtype):
        p = Polynomial(MONOTONE[name])
        q, v = self.entries(2, dtype, 1.0)
        grid = torch.linspace(-6, 6, 40001, dtype=torch.float64)[:, None]
        image = torch.tensor(p(grid.numpy()))
        for ratio in (1e-2, 1.0, 30.0):
            z, a = F.joint_state_update(q, v, "polynomial", MONOTONE[name], ratio, eps)
            z, a, q64, v64 = z.double(), a.double(), q.double(), v.double()
            rounding = torch.tensor(self.sensitivity(p, z.numpy(), dtype))
            assert ((a - torch.tensor(p(z.numpy()))).abs() <= eps + rounding).all()

            def value(z, a, ratio=ratio, q=q64, v=v64):
                return ratio / 2 * (z - q) ** 2 + 0.5 * (a - v) ** 2

            best = value(grid, torch.clamp(v64, image - eps, image + eps)).amin(0)
            found = value(z, a)
            slack = rounding * (1 + found.sqrt()) + 1e-9
            assert (found <= best + slack).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("joint", [False, True], ids=["strict", "joint"])
@pytest.mark.parametrize("name", ["cube", "cube and line", "flat twice", "septic"])
def test_training(name, joint, dtype):
    """F never rises while eps stays, is what it is recomputed to be, and falls."""
    eps = 0.05 if joint else torchbcd.EpsSchedule(0.5, 0.8, 0.05)
    model, optimizer = layer(MONOTONE[name], dtype, rho=0.2, eps=eps, joint=joint)
    x, y = make_data(40, 6, 3, dtype=dtype)
    optimizer.bind(x, y)
    first, unit = optimizer.objective(), torch.finfo(dtype).eps
    previous, last = math.inf, None
    for _ in range(40):
        report = optimizer.step()
        if report.eps == last:
            assert report.objective <= previous * (1 + 4 * unit)
        previous, last = report.objective, report.eps
    double = nn.Sequential(*(m.double() if isinstance(m, nn.Linear) else m for m in model))
    value, gap = recomputed(optimizer, double, "cross_entropy", y, report.eps)
    assert previous == pytest.approx(value, rel=300 * unit)
    assert gap <= 1e4 * unit
    assert previous < 0.8 * first


def test_float32_and_float64_agree():
    results = []
    x, y = make_data(40, 6, 3)
    for dtype in (torch.float32, torch.float64):
        model, optimizer = layer(MONOTONE["cube and line"], rho=0.2, eps=0.05, joint=True)
        if dtype == torch.float32:
            optimizer = torchbcd.DLAM(model.float(), rho=0.2, eps=0.05, joint=True)
        optimizer.bind(x.to(dtype), y)
        results.append([optimizer.step().objective for _ in range(5)])
    assert results[0] == pytest.approx(results[1], rel=1e-4)
