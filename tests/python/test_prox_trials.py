"""The proxes that are solved in vectors: problems of every size by brute force, and each like one alone."""

import numpy as np
import pytest
import torch

import torchbcd.functional as F

GAMMAS = [1e-6, 1e-3, 0.03, 0.1, 0.3, 0.6, 1.0, 3.0, 100.0, 1e6]
FUNCTIONS = {
    "tanh": (F.prox_tanh, np.tanh, np.arctanh, (-1, 1)),
    "sigmoid": (
        F.prox_sigmoid,
        lambda u: np.where(u < 0, np.exp(np.minimum(u, 0)), 1) / (1 + np.exp(-np.abs(u))),
        lambda t: np.log(t / (1 - t)),
        (0, 1),
    ),
}


def problems(generator, n):
    """Pairs (a, b): of the function's size, far outside of it, saturated, and of every size."""
    usual = np.stack([generator.uniform(-1.2, 1.2, n), generator.normal(size=n) * 2], 1)
    saturated = np.stack([generator.normal(size=n), generator.normal(size=n) * 20], 1)
    sizes = generator.choice([-1, 1], (n, 2)) * 10 ** generator.uniform(-6, 6, (n, 2))
    return np.concatenate([usual, saturated, sizes]).astype(np.float32).astype(np.float64)


def least(a, b, gamma, function, inverse, bounds):
    """The least objective on a grid from b to where the function is a, finer around its two lowest minima."""
    rounding = 1e-13
    inside = np.clip(a, bounds[0] + rounding, bounds[1] - rounding)
    end = inverse(inside)
    steps = np.r_[0, np.logspace(-8, 0, 400)]
    share = np.unique(np.r_[np.linspace(0, 1, 4001), steps, 1 - steps])
    grid = b[:, None] + (end - b)[:, None] * share

    def objective(u):
        return 0.5 * (function(u) - a[:, None]) ** 2 + 0.5 * gamma * (u - b[:, None]) ** 2

    values = objective(grid)
    padded = np.pad(values, ((0, 0), (1, 1)), constant_values=np.inf)
    local = np.where((values <= padded[:, :-2]) & (values <= padded[:, 2:]), values, np.inf)
    best = values.min(1)
    rows = np.arange(len(a))
    for k in np.argpartition(local, 1, axis=1)[:, :2].T:
        low = grid[rows, np.maximum(k - 1, 0)]
        high = grid[rows, np.minimum(k + 1, grid.shape[1] - 1)]
        for _ in range(6):
            points = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 41)
            at = objective(points)
            j = at.argmin(1)
            best = np.minimum(best, at.min(1))
            low, high = points[rows, np.maximum(j - 1, 0)], points[rows, np.minimum(j + 1, 40)]
    return best


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_a_global_minimiser(name, gamma, dtype):
    prox, function, inverse, bounds = FUNCTIONS[name]
    a, b = problems(np.random.default_rng(0), 300).T
    given = torch.tensor(np.stack([a, b]), dtype=dtype)
    u = prox(given[0], given[1], gamma).double().numpy()

    def objective(at):
        return 0.5 * (function(at) - a) ** 2 + 0.5 * gamma * (at - b) ** 2

    unit = torch.finfo(dtype).eps * np.maximum(np.abs(u), 1e-30)
    rounding = np.maximum(objective(u - unit), objective(u + unit)) - objective(u)
    # What float64 resolves: the terms that cancel in u - b, and in the function's value.
    resolved = 1e-15 * gamma * np.abs(u - b) * np.maximum(np.abs(u), np.abs(b)) + 1e-15 * np.abs(a)
    bound = least(a, b, gamma, function, inverse, bounds)
    relative = 2e-6 if dtype == torch.float32 else 1e-10
    assert (objective(u) <= bound * (1 + relative) + np.abs(rounding) + resolved + 1e-300).all()


@pytest.mark.parametrize(("a", "gamma"), [(0.5, 0.3), (0.9, 0.1), (-0.2, 0.02), (3.0, 1e-3), (0.0, 0.3)])
def test_tanh_where_the_minimiser_jumps(a, gamma):
    """`b` on both sides of the jump, found by bisection, and all around it: the least objective everywhere."""

    def prox(b):
        return F.prox_tanh(torch.full_like(b, a), b, gamma)

    b = torch.linspace(-9, -0.3, 4001, dtype=torch.float64)
    u = prox(b)
    k = int(u.diff().argmax())
    low, high = b[k], b[k + 1]
    for _ in range(60):
        middle = 0.5 * (low + high)
        jumped = (prox(middle) - u[k]).abs() > (prox(middle) - u[k + 1]).abs()
        low, high = (low, middle) if jumped else (middle, high)
    steps = torch.linspace(-9, 9, 51, dtype=torch.float64)
    around = torch.cat([low + (high - low) * steps, low + 0.03 * steps])
    u = prox(around).numpy()
    sizes = np.full(len(u), a), around.numpy()
    bound = least(*sizes, gamma, *FUNCTIONS["tanh"][1:])
    found = 0.5 * (np.tanh(u) - a) ** 2 + 0.5 * gamma * (u - sizes[1]) ** 2
    assert (found <= bound * (1 + 1e-10) + 1e-300).all()


SMOOTH = ["gelu", "gelu_tanh", "elu", "softplus", "mish", "logsigmoid", "softsign", "tanhshrink"]
LOSSES = ["logistic_loss", "exponential_loss", "poisson_loss", "binary_cross_entropy_loss"]
ENTRIES = ["tanh", "sigmoid", "silu", *SMOOTH, *LOSSES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_does_not_depend_on_the_others(name, dtype):
    prox = getattr(F, f"prox_{name}")
    values = torch.tensor(problems(np.random.default_rng(1), 300), dtype=dtype)
    if name.endswith("loss"):
        values[:, 0] = values[:, 0].sign() * (1 + values[:, 0].abs().clamp_max(2))
    together = prox(values[:, 0], values[:, 1], 0.3)  # strided
    contiguous = values.t().contiguous()
    assert torch.equal(together, prox(contiguous[0], contiguous[1], 0.3))
    alone = torch.cat([prox(a.view(1), b.view(1), 0.3) for a, b in values])
    assert torch.equal(together, alone)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    assert torch.equal(together[order], prox(values[order, 0], values[order, 1], 0.3))
    half = prox(contiguous[0, 7:], contiguous[1, 7:], 0.3)
    assert torch.equal(together[7:], half)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ENTRIES)
def test_nan_and_infinity_stay_where_they_are(name, dtype):
    a = torch.ones(600, dtype=dtype)
    b = torch.linspace(-3, 3, 600, dtype=dtype)
    clean = getattr(F, f"prox_{name}")(a, b, 0.5)
    a[5], b[17], b[300], b[599] = torch.nan, torch.nan, torch.inf, -torch.inf
    u = getattr(F, f"prox_{name}")(a, b, 0.5)
    rest = torch.ones(600, dtype=torch.bool)
    rest[[5, 17, 300, 599]] = False
    assert torch.equal(u[rest], clean[rest])
    assert u[[5, 17]].isnan().all()
    assert not u[[300, 599]].isfinite().any()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", ["logistic", "exponential"])
def test_losses_of_an_entry_are_stationary(name, gamma):
    """Their problems are convex: the gradient at the float64 below and above the minimiser has two signs."""
    generator = np.random.default_rng(2)
    y = generator.choice([-1.0, 1.0], 900) * 10 ** np.r_[np.zeros(600), generator.uniform(-2, 2, 300)]
    b = generator.choice([-1, 1], 900) * 10 ** generator.uniform(-4, 2.3, 900)
    v = getattr(F, f"prox_{name}_loss")(torch.tensor(y), torch.tensor(b), gamma).numpy()
    step = 1e-9 * np.maximum(np.abs(v), np.abs(v - b)) + 1e-12

    def slope(at):
        z = y * at
        share = np.where(z > 0, np.exp(-np.abs(z)), 1) / (1 + np.exp(-np.abs(z)))
        return gamma * (at - b) - y * (share if name == "logistic" else np.exp(np.minimum(-z, 700)))

    assert (slope(v - step) <= 0).all()
    assert (slope(v + step) >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("classes", [1, 2, 10, 257])
def test_cross_entropy_is_stationary(classes, gamma, dtype):
    """Gamma (v - b) = t - T softmax(v), whose right side is what the rounding of v makes uncertain."""
    generator = torch.Generator().manual_seed(classes)
    rows = 200
    b = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    b *= 10 ** (4 * torch.rand(rows, 1, generator=generator, dtype=torch.float64) - 2)
    t = torch.nn.functional.one_hot(torch.randint(classes, (rows,), generator=generator), classes).double()
    t[100:] = torch.rand(100, classes, generator=generator, dtype=torch.float64)
    t[150:] *= 10 ** (6 * torch.rand(50, 1, generator=generator, dtype=torch.float64) - 3)
    b, t = b.to(dtype), t.to(dtype)
    v = F.prox_cross_entropy_loss(t, b, gamma).double()
    total = t.double().sum(1, keepdim=True)
    gradient = gamma * (v - b.double()) - t.double() + total * v.softmax(1)
    unit = torch.finfo(dtype).eps * torch.maximum(v.abs(), b.double().abs())
    softmax_moves = total * (unit * v.softmax(1)).sum(1, keepdim=True)
    tolerance = 2 * (gamma * unit + total * v.softmax(1) * unit + softmax_moves) + 1e-9 * total
    assert (gradient.abs() <= tolerance).all()


def rows_of_every_size(classes, dtype):
    """Centres of a size a row, of a size an entry, alike, tied for the greatest; one-hot targets and others."""
    generator = torch.Generator().manual_seed(classes)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    b = torch.randn(160, classes, generator=generator, dtype=torch.float64)
    b[:60] *= 10 ** (12 * uniform(60, 1) - 6)
    b[60:100] *= 10 ** (12 * uniform(40, classes) - 6)
    b[100:110] = b[100:110, :1]
    b[110:120, : (classes + 1) // 2] = 3
    b[120:130] = 30 * b[120:130].round()
    t = torch.nn.functional.one_hot(torch.randint(classes, (160,), generator=generator), classes).double()
    t[::4] = uniform(40, classes) ** 4
    t[1::8] *= 10 ** (6 * uniform(20, 1) - 3)
    return t.to(dtype), b.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [1, 3, 128, 129, 1000])
def test_cross_entropy_of_every_size(classes, dtype):
    """Stationary, as above; and a row does not depend on those beside it, nor on how the tensors lie."""
    t, b = rows_of_every_size(classes, dtype)
    total = t.double().sum(1, keepdim=True)
    for gamma in (1e-6, 1e-4, 1e-2, 0.1, 1.0, 30.0, 1e3, 1e6):
        v = F.prox_cross_entropy_loss(t, b, gamma).double()
        share = v.softmax(1)
        gradient = gamma * (v - b.double()) - t.double() + total * share
        unit = torch.finfo(dtype).eps * torch.maximum(v.abs(), b.double().abs())
        moves = gamma * unit + total * share * unit + total * (unit * share).sum(1, keepdim=True)
        assert (gradient.abs() <= 2 * moves + 1e-9 * total).all(), gamma
    together = F.prox_cross_entropy_loss(t, b, 0.1)
    wide = torch.zeros(160, 2 * classes, dtype=dtype)
    wide[:, ::2] = b
    strided = F.prox_cross_entropy_loss(t.t().contiguous().t(), wide[:, ::2], 0.1)
    assert torch.equal(strided, together)
    for rows in (slice(0, 1), slice(5, 25), slice(70, 140)):
        assert torch.equal(F.prox_cross_entropy_loss(t[rows], b[rows], 0.1), together[rows])


def test_cross_entropy_rows_of_all_kinds():
    b = torch.tensor([[1.0, 2, 3], [1, 2, 3], [0, torch.nan, 0], [1, 2, 3], [1e30, 0, 0]])
    t = torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 1, 0], [0, torch.inf, 0], [0, 1, 0]])
    v = F.prox_cross_entropy_loss(t, b, 1.0)
    assert v[1].tolist() == [1, 2, 3]
    assert not v[2].isfinite().any()
    assert not v[3].isfinite().any()
    alone = torch.cat([F.prox_cross_entropy_loss(t[k : k + 1], b[k : k + 1], 1.0) for k in range(5)])
    assert torch.equal(v.nan_to_num(7), alone.nan_to_num(7))
    wide = torch.zeros(5, 6)
    wide[:, ::2] = b
    assert torch.equal(F.prox_cross_entropy_loss(t, wide[:, ::2], 1.0).nan_to_num(7), v.nan_to_num(7))
    turned = F.prox_cross_entropy_loss(t, b.t().contiguous().t(), 1.0)
    assert torch.equal(turned.nan_to_num(7), v.nan_to_num(7))
