"""The activations that not all tables go through: values, derivatives, proxes of every size, optimizers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import MORE_ACTIVATIONS, make_data, make_mlp
from dlam_problems import build, recomputed
from more_activations import FORMULAS, JUMPS, tanh_gelu_exponent
from objectives import recomputed_objective
from relaxed_problems import MANY, STILL, WIDTHS, assert_certified, watched_sweep
from torch import nn

import torchbcd
import torchbcd.functional as F
from torchbcd.convert import read_model

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY = {**FORMULAS, **JUMPS}
MONOTONE = ("elu", "selu", "celu", "softplus", "logsigmoid", "softsign", "tanhshrink", "softshrink")
DTYPES = [torch.float32, torch.float64]


def read(name):
    """The library's name and numbers."""
    return read_model(nn.Sequential(nn.Linear(1, 1), MORE_ACTIVATIONS[name]())).activations[0]


def every_size(dtype, n=400):
    """Numbers of every size and sign, and those where activations change."""
    generator = torch.Generator().manual_seed(0)
    sizes = 10 ** (torch.rand(n, generator=generator, dtype=torch.float64) * 8 - 5)
    u = torch.cat([torch.linspace(-30, 30, n, dtype=torch.float64), sizes, -sizes])
    return torch.cat([u, torch.tensor([0.0, 0.5, -0.5, 0.25, 3.0, -3.0, 20.0, 10.0])]).to(dtype)


def test_the_tables_have_all():
    assert set(EVERY) == set(MORE_ACTIVATIONS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", EVERY)
class TestFormulas:
    def test_values(self, name, dtype):
        """To a few units in the last place, of the exponent u^2/2 too."""
        u = every_size(dtype)
        activation, parameters = read(name)
        out = torch.empty_like(u)
        torch.ops.torchbcd.activation_out(u, activation, list(parameters), out=out)
        unit = torch.finfo(dtype).eps
        exact = torch.tensor(EVERY[name][0](u.double().numpy()))
        exponent = {"gelu": u.double() ** 2 / 2, "gelu_tanh": tanh_gelu_exponent(u.double())[0].abs()}
        relative = 8 * unit * (1 + exponent.get(name, torch.zeros(1)).clamp_max(800))
        absolute = 4 * unit * u.double().abs() * (name == "tanhshrink")
        absolute += 2 * torch.finfo(dtype).tiny * u.double().abs().clamp_min(1)  # no power of e is denormal
        assert ((out.double() - exact).abs() <= relative * exact.abs() + absolute).all()
        # torch's own forms lose digits where 1 + erf and u - tanh(u) do.
        theirs = MORE_ACTIVATIONS[name]()(u)
        torch.testing.assert_close(out, theirs, rtol=16 * unit, atol=16 * unit)
        nan = torch.full((3,), math.nan, dtype=dtype)
        torch.ops.torchbcd.activation_out(nan, activation, list(parameters), out=out[:3])
        assert out[:3].isnan().all()

    def test_derivatives(self, name, dtype):
        u = every_size(dtype)
        activation, parameters = read(name)
        if name in JUMPS:
            with pytest.raises(ValueError, match="must be continuous .got '.*', which jumps."):
                torch.ops.torchbcd.activation_slopes(u, activation, list(parameters))
            return
        left, right = torch.ops.torchbcd.activation_slopes(u, activation, list(parameters))
        kinks = left != right
        if name not in ("selu", "hardswish", "softshrink"):
            assert not kinks.any()
        left, right, u = left[~kinks], right[~kinks], u[~kinks]
        exact = torch.tensor(EVERY[name][1](u.double().numpy()), dtype=torch.float64)
        unit = torch.finfo(dtype).eps
        assert ((left.double() - exact).abs() <= 60 * unit * exact.abs().clamp_min(1e-2)).all()
        leaf = u.double().requires_grad_()
        (theirs,) = torch.autograd.grad(MORE_ACTIVATIONS[name]()(leaf).sum(), leaf)
        torch.testing.assert_close(left.double(), theirs, rtol=60 * unit, atol=60 * unit)


@pytest.mark.parametrize(
    ("activation", "parameters", "kink"),
    [("elu", [0.5, 2.0], 0.0), ("hardswish", [], -3.0), ("hardswish", [], 3.0), ("softshrink", [0.5], -0.5)],
)
def test_slopes_at_kinks(activation, parameters, kink):
    u = torch.tensor([kink], dtype=torch.float64)
    left, right = torch.ops.torchbcd.activation_slopes(u, activation, parameters)
    h = 2.0**-24
    values = torch.empty(3, dtype=torch.float64)
    torch.ops.torchbcd.activation_out(torch.cat([u - h, u, u + h]), activation, parameters, out=values)
    torch.testing.assert_close(left[0], (values[1] - values[0]) / h, rtol=0, atol=1e-6)
    torch.testing.assert_close(right[0], (values[2] - values[1]) / h, rtol=0, atol=1e-6)
    assert left != right


def problems(n):
    """Triples (a, b, gamma) of a net's size, saturated, and of every size."""
    generator = np.random.default_rng(0)
    usual = np.stack([generator.uniform(-1.5, 1.5, n), 2 * generator.normal(size=n)], 1)
    saturated = np.stack([generator.normal(size=n), 20 * generator.normal(size=n)], 1)
    sizes = generator.choice([-1, 1], (n, 2)) * 10 ** generator.uniform(-6, 6, (n, 2))
    pairs = np.concatenate([usual, saturated, sizes]).astype(np.float32).astype(np.float64)
    return pairs.T


def least(a, b, gamma, sigma):
    """The least objective on grids as far as a point can be better than b, finer around their best minima."""
    reach = np.abs(sigma(b) - a) / np.sqrt(gamma)
    share = np.r_[-np.logspace(0, -9, 300), np.linspace(-1, 1, 2001), np.logspace(-9, 0, 300)]
    near = np.linspace(-12, 12, 2001)
    grid = np.concatenate([b[:, None] + reach[:, None] * share, np.broadcast_to(near, (len(b), len(near)))], 1)
    grid.sort(axis=1)

    def objective(u):
        return 0.5 * (sigma(u) - a[:, None]) ** 2 + 0.5 * gamma * (u - b[:, None]) ** 2

    values = objective(grid)
    padded = np.pad(values, ((0, 0), (1, 1)), constant_values=np.inf)
    local = np.where((values <= padded[:, :-2]) & (values <= padded[:, 2:]), values, np.inf)
    best, rows = values.min(1), np.arange(len(a))
    for k in np.argsort(local, axis=1)[:, :3].T:
        low, high = grid[rows, np.maximum(k - 1, 0)], grid[rows, np.minimum(k + 1, grid.shape[1] - 1)]
        for _ in range(7):
            points = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 41)
            at = objective(points)
            j = at.argmin(1)
            best = np.minimum(best, at.min(1))
            low, high = points[rows, np.maximum(j - 1, 0)], points[rows, np.minimum(j + 1, 40)]
    return best


def assert_global(name, a, b, gamma, dtypes):
    """The prox costs no more than the least on grids, but for rounding."""
    sigma = EVERY[name][0]
    activation, parameters = read(name)
    bound = least(a, b, gamma, sigma)
    for dtype in dtypes:
        given = torch.tensor(np.stack([a, b]), dtype=dtype)
        prox = getattr(torch.ops.torchbcd, f"prox_{activation}")
        u = prox(given[0], given[1], gamma, *parameters).double().numpy()

        def objective(at):
            return 0.5 * (sigma(at) - a) ** 2 + 0.5 * gamma * (at - b) ** 2

        unit = torch.finfo(dtype).eps * np.abs(u)
        rounding = np.maximum(objective(u - unit), objective(u + unit)) - objective(u)
        # What float64 resolves: the terms that cancel in u - b, and in the function's value.
        resolved = 1e-15 * gamma * np.abs(u - b) * np.maximum(np.abs(u), np.abs(b))
        resolved += 1e-15 * np.maximum(np.abs(a), np.abs(u)) * np.sqrt(2 * bound) + 1e-30
        relative = 2e-6 if dtype == torch.float32 else 1e-10
        excess = objective(u) - (bound * (1 + relative) + np.abs(rounding) + resolved)
        worst = excess.argmax()
        assert excess[worst] <= 0, (a[worst], b[worst], u[worst], dtype)


@pytest.mark.parametrize("gamma", [1e-6, 1e-3, 0.1, 0.6, 3.0, 1e6])
@pytest.mark.parametrize("name", EVERY)
def test_prox_is_a_global_minimiser(name, gamma):
    assert_global(name, *problems(100), gamma, DTYPES)


BREAKS = {
    "hardswish": (-3.0, -1.5, 3.0),
    "elu": (0.0,),
    "selu": (0.0,),
    "celu": (0.0,),
    "softplus": (0.0, 10.0),
    "softsign": (0.0,),
    "softshrink": (-0.5, 0.5),
    "hardshrink": (-0.5, 0.5),
    "threshold": (0.25,),
    "gelu": (-0.75179152469356446, 0.0, 2.0),
    "mish": (-1.1924312145154952, 0.0),
}


@pytest.mark.parametrize("gamma", [1e-3, 0.3, 7.0, 1e3])
@pytest.mark.parametrize("name", BREAKS)
def test_prox_at_breaks(name, gamma):
    """The centre where a slope jumps or is zero, or next to that, and targets that leave it there or do not."""
    points = np.array([[np.nextafter(u, -9), u, np.nextafter(u, 99)] for u in BREAKS[name]]).ravel()
    targets = EVERY[name][0](points)[:, None] + np.array([0, 1e-7, -1e-7, 0.3, -0.3, 2.0, -2.0, 40.0, -40.0])
    a, b = (array.ravel() for array in np.broadcast_arrays(targets.ravel()[:, None], points))
    assert_global(name, a.copy(), b.copy(), gamma, DTYPES[1:])


@pytest.mark.parametrize("name", ["gelu", "mish", "selu", "sine", "tanhshrink"])
def test_prox_where_the_minimiser_jumps(name):
    """`b` there, found by bisection between neighbours of a grid: both sides cost the same, and the least."""
    sigma, (activation, parameters) = FORMULAS[name][0], read(name)
    prox = getattr(torch.ops.torchbcd, f"prox_{activation}")
    jumps = 0
    for a, gamma in ((2.0, 0.05), (-3.0, 0.05), (0.9, 0.01), (-0.1, 1e-3), (-40.0, 0.3)):

        def solve(b, a=a, gamma=gamma):
            at = torch.tensor([a, b], dtype=torch.float64)
            return prox(at[0], at[1], gamma, *parameters).item()

        grid = np.linspace(-30, 30, 601)
        u = np.array([solve(b) for b in grid])
        for k in np.flatnonzero(np.abs(np.diff(u)) > 1.0)[:3]:
            low, high = grid[k], grid[k + 1]
            for _ in range(50):
                middle = 0.5 * (low + high)
                of_low = abs(solve(middle) - solve(low)) < abs(solve(middle) - solve(high))
                low, high = (middle, high) if of_low else (low, middle)
            if abs(solve(high) - solve(low)) < 0.1:
                continue  # steep, and no jump
            jumps += 1
            for b in (low, high):
                at = np.array([solve(low), solve(high)])
                costs = 0.5 * (sigma(at) - a) ** 2 + 0.5 * gamma * (at - b) ** 2
                assert costs[0] == pytest.approx(costs[1], rel=1e-9)
                assert costs.min() <= least(np.array([a]), np.array([b]), gamma, sigma)[0] * (1 + 1e-10)
    assert jumps > 0


@pytest.mark.parametrize("splitting", [3, 2])
@pytest.mark.parametrize("name", EVERY)
def test_bcd_never_rises(name, splitting):
    model = make_mlp([5, 7, 6, 3], hidden=name)
    penalties = {"gamma": [0.5, 1.0, 2.0], "rho": [1.5, 0.4, 0.8], "alpha": [0.1, 0.4, 0.6]}
    optimizer = torchbcd.BCD(model, "squared", splitting=splitting, **penalties)
    x, y = make_data(30, 5, 3)
    optimizer.bind(x, y)
    first = previous = optimizer.objective()
    for _ in range(8):
        report = optimizer.step()
        assert report.objective <= previous * (1 + 1e-12)
        previous = report.objective
    assert previous < 0.9 * first
    again = recomputed_objective(optimizer, model, "squared", y, splitting)
    # A float64 product next to a jump may lie on its other side.
    if not (name in JUMPS and splitting == 2):
        assert previous == pytest.approx(again, rel=1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_relaxed_is_certified(name, dtype):
    model = make_mlp(WIDTHS, hidden=name, dtype=dtype)
    optimizer = torchbcd.RelaxedBCD(model, **STILL)
    x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1], dtype=dtype)
    for _ in range(12):
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, None, "squared", y, clamped=True, dtype=dtype)


@pytest.mark.parametrize("name", EVERY)
def test_relaxed_learns(name):
    model = make_mlp([6, 20, 20, 3], hidden=name)
    optimizer = torchbcd.RelaxedBCD(model)
    x, y = make_data(60, 6, 3)
    target = nn.functional.one_hot(y, 3).double()
    first = (model(x) - target).square().sum().item()
    for _ in range(60):
        optimizer.step(x, y)
    assert (model(x) - target).square().sum().item() < 0.6 * first


@pytest.mark.parametrize("joint", [False, True], ids=["strict", "joint"])
@pytest.mark.parametrize("name", MONOTONE)
def test_dlam_is_feasible_and_never_rises(name, joint):
    model, optimizer, _, y = build(
        name, "cross_entropy", None, torch.float64, **({"joint": True, "eps": 0.05} if joint else {})
    )
    previous, eps = math.inf, None
    for _ in range(20):
        report = optimizer.step()
        value, gap = recomputed(optimizer, model, "cross_entropy", y, report.eps)
        assert report.objective == pytest.approx(value, rel=1e-12)
        assert gap <= 1e-14 * max(1, *(a.abs().max().item() for a in optimizer.variables().a[1:]))
        if report.eps == eps:
            assert report.objective <= previous * (1 + 1e-15)
        previous, eps = report.objective, report.eps


@pytest.mark.parametrize("eps", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("name", MONOTONE)
def test_preimages(name, eps):
    activation, parameters = read(name)
    generator = torch.Generator().manual_seed(4)
    z, q, jitter = 2 * torch.randn(3, 60, generator=generator, dtype=torch.float64)
    sigma = MORE_ACTIVATIONS[name]()
    a = sigma(z) + eps * jitter.clamp(-1, 1)
    projected = F.preimage_projection(q, a, z, activation, parameters, eps)
    grid = torch.linspace(-12, 12, 100_001).double()[:, None]
    distance = torch.where((a - sigma(grid)).abs() <= eps, (grid - q).abs(), math.inf).min(0).values
    assert ((a - sigma(projected)).abs() <= eps + 1e-12).all()
    assert ((projected - q).abs() <= distance + 1e-12).all()
    far = torch.tensor([-200.0, -40, -20, -10, 0, 10, 20, 40, 200], dtype=torch.float64)
    for q in (far - 1, far + 1, -far):
        projected = F.preimage_projection(q, sigma(far) + eps, far, activation, parameters, eps)
        assert projected.isfinite().all()
        assert ((projected - q).abs() <= (far - q).abs()).all()


@pytest.mark.parametrize("name", [name for name in EVERY if name not in MONOTONE])
def test_dlam_refuses_the_others(name):
    with pytest.raises(ValueError, match="layer 1: the activation must be monotone and continuous"):
        torchbcd.DLAM(make_mlp([3, 4, 2], hidden=name), "cross_entropy")


class TestPReLU:
    """A slope that requires no gradients."""

    def model(self, **options):
        model = nn.Sequential(nn.Linear(4, 5), nn.PReLU(**options), nn.Linear(5, 2)).double()
        model[1].requires_grad_(False)
        return model

    def test_as_a_leaky_relu(self):
        torch.manual_seed(0)
        model = self.model(init=0.25)
        leaky = nn.Sequential(model[0], nn.LeakyReLU(0.25), model[2])
        twin = self.model()
        twin.load_state_dict(model.state_dict())
        x, y = make_data(20, 4, 2)
        torchbcd.BCD(twin, "squared").step(x, y)
        torchbcd.BCD(leaky, "squared").step(x, y)
        for mine, its in zip(twin.parameters(), model.parameters(), strict=True):
            assert torch.equal(mine, its)

    def test_a_change_is_seen(self):
        model = self.model()
        optimizer = torchbcd.RelaxedBCD(model)
        model[1].requires_grad_(True)
        with pytest.raises(ValueError, match="module 1 of the model, PReLU.* has been changed"):
            optimizer.step(*make_data(20, 4, 2))


def test_a_changed_form_of_gelu_is_seen():
    model = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2)).double()
    optimizer = torchbcd.RelaxedBCD(model)
    model[1].approximate = "tanh"
    with pytest.raises(ValueError, match=r"module 1 of the model, GELU.* has been changed"):
        optimizer.step(*make_data(20, 4, 2))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Softplus(threshold=5), "threshold at least 20"),
        (nn.Softplus(beta=0), "beta must be finite and positive"),
        (nn.ELU(alpha=math.inf), "alpha must be finite"),
        (nn.CELU(alpha=-1.0), "scale and rate finite and positive"),
        (nn.CELU(alpha=0.0), "scale and rate finite and positive"),
        (nn.Softshrink(0.0), "lambda must be finite and positive"),
        (nn.Hardshrink(-1.0), "lambda must be finite and positive"),
        (nn.Threshold(math.nan, 0.0), "threshold and value must be finite"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        torchbcd.BCD(nn.Sequential(nn.Linear(2, 2), module, nn.Linear(2, 2)))
