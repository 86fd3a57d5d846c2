"""The distance of zero from the subdifferential, at kinks and bounds, against scipy, autograd and directions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import ACTIVATIONS, make_mlp
from scipy.optimize import lsq_linear

import torchbcd
from torchbcd import lifted
from torchbcd import regularizers as reg
from torchbcd.stationarity import Stationarity, _distance_at_kinks, stationarity

pytestmark = pytest.mark.usefixtures("one_thread")

SIGMAS = {
    "relu": (torch.relu, ("relu", ()), (0.0,)),
    "leaky_relu": (lambda u: torch.nn.functional.leaky_relu(u, 0.5), ("leaky_relu", (0.5,)), (0.0,)),
    "hardtanh": (lambda u: u.clamp(-1, 1), ("hardtanh", (-1.0, 1.0)), (-1.0, 1.0)),
    "hardsigmoid": (torch.nn.functional.hardsigmoid, ("hardsigmoid", ()), (-3.0, 3.0)),
}
IDENTITY = ("identity", ())
NONE = reg.Regularizer()


def make(w, b, v, y, activations, weights=NONE, states=NONE, **more):
    """Problem and point of two splittings with gamma = 0.5, 1, 1.5, ... and squared loss."""
    penalties = [
        torchbcd.diagnostics.Penalties(0.5 * (i + 1), 1.0, 1.0, 1.0, weights, states) for i in range(len(w))
    ]
    problem = torchbcd.diagnostics.Problem(
        **{
            "splitting": 2,
            "loss": "squared",
            "activations": tuple(activations),
            "penalties": tuple(penalties),
            "loss_weight": 1.0,
            "y": y,
            "row_weight": torch.ones(1, 1).double(),
            "trained": ((True, True),) * len(w),
            **more,
        }
    )
    return problem, torchbcd.diagnostics.Point(w, b, [], v)


def on_kinks(activation, seed=0, convex=True, states=None, weights=None, rows=9, widths=(3, 4, 4, 2)):
    """Small integers, so that many products are on kinks; V is where they are convex, or anywhere."""
    sigma, terms, kinks = SIGMAS[activation]
    rng = np.random.default_rng(seed)

    def integers(*shape):
        return torch.tensor(rng.integers(-1, 2, shape), dtype=torch.float64)

    v = [integers(rows, widths[0])]
    w, b = [], []
    for i, (d, d_next) in enumerate(itertools.pairwise(widths)):
        w.append(integers(d_next, d))
        b.append(integers(d_next))
        last = i + 2 == len(widths)
        state = 2 * integers(rows, d_next) + (0 if last else 1)
        product = v[-1] @ w[-1].t() + b[-1]
        if convex and not last:
            for kink, below in zip(kinks, (True, False), strict=False):
                value = sigma(torch.tensor(kink).double())
                here = product == kink
                state = torch.where(
                    here, value + (-1 if below else 1) * (1 + integers(rows, d_next).abs()), state
                )
        v.append(state)
    activations = [terms] * (len(w) - 1) + [IDENTITY]
    y = integers(rows, widths[-1])
    return make(w, b, v, y, activations, weights or NONE, states or NONE)


def objective(problem, w, b, v):
    sigmas = {terms: sigma for sigma, terms, _ in SIGMAS.values()} | {IDENTITY: lambda u: u}
    total = (v[-1] - problem.y).square().sum() / 2
    for i, penalties in enumerate(problem.penalties):
        gap = v[i + 1] - sigmas[problem.activations[i]](v[i] @ w[i].t() + b[i])
        total = total + penalties.gamma / 2 * gap.square().sum()
    return total


def nonsmooth(problem, w, v):
    total = 0.0
    for i, penalties in enumerate(problem.penalties):
        for terms, x in ((penalties.weight_regularizer, w[i]), (penalties.state_regularizer, v[i + 1])):
            if (x < terms.low).any() or (x > terms.high).any():
                return math.inf
            total += (terms.l1 * x.abs() + terms.l2 / 2 * x.square()).sum().item()
    return total


def reference(problem, point):
    """The whole subdifferential's shortest element, per variable, by scipy; columns by autograd."""
    w, b, v = ([t.clone().requires_grad_() for t in part] for part in (point.w, point.b, point.v[1:]))
    variables = [*w, *b, *v]
    states = [point.v[0], *v]
    total = (v[-1] - problem.y).square().sum() / 2
    columns, lows, highs = [], [], []
    for i, penalties in enumerate(problem.penalties):
        product = states[i] @ w[i].t() + b[i]
        terms = problem.activations[i]
        sigma, kinks = lambda u: u, ()
        for each, name, at in SIGMAS.values():
            if name == terms:
                sigma, kinks = each, at
        at_kink = torch.zeros_like(product, dtype=torch.bool)
        for kink in kinks:
            at_kink |= product.detach() == kink
        smooth = torch.where(at_kink, 0, sigma(torch.where(at_kink, product.detach() + 0.25, product)))
        value = torch.where(at_kink, sigma(product.detach()), smooth)
        total = total + penalties.gamma / 2 * (states[i + 1] - value).square().sum()
        for k in at_kink.nonzero():
            u = product[tuple(k)].item()
            gap = (sigma(torch.tensor(u).double()) - states[i + 1][tuple(k)]).item() * penalties.gamma
            ends = [
                gap * (sigma(torch.tensor(u + h).double()) - sigma(torch.tensor(u).double())).item() / h
                for h in (-0.25, 0.25)
            ]
            assert ends[0] <= ends[1]
            gradient = torch.autograd.grad(product[tuple(k)], variables, retain_graph=True, allow_unused=True)
            columns.append(flat(gradient, variables))
            lows.append(ends[0])
            highs.append(ends[1])
    constant = flat(torch.autograd.grad(total, variables, allow_unused=True), variables)
    position = 0
    for t, owner in zip(variables, [*range(len(w)), *[None] * len(b), *range(len(v))], strict=True):
        if owner is not None:
            p = problem.penalties[owner]
            terms = p.weight_regularizer if position < sum(x.numel() for x in w) else p.state_regularizer
            for j, x in enumerate(t.detach().flatten().tolist()):
                unit = np.zeros(len(constant))
                unit[position + j] = 1
                constant[position + j] += terms.l2 * x
                low = high = 0.0
                if x == 0:
                    low, high = -terms.l1, terms.l1
                else:
                    constant[position + j] += terms.l1 * math.copysign(1, x)
                low = -math.inf if x <= terms.low else low
                high = math.inf if x >= terms.high else high
                if low < high:
                    columns.append(unit)
                    lows.append(low)
                    highs.append(high)
        position += t.numel()
    if not columns:
        return constant, variables
    keep = np.array(lows) < np.array(highs)
    a = np.stack(columns, 1)
    constant = constant + a[:, ~keep] @ np.array(lows)[~keep]
    a, low, high = a[:, keep], np.array(lows)[keep], np.array(highs)[keep]
    found = lsq_linear(a, -constant, (low, high), method="bvls", tol=1e-14, max_iter=5000)
    return constant + a @ found.x, variables


def flat(gradients, variables):
    pieces = [torch.zeros_like(t) if g is None else g for g, t in zip(gradients, variables, strict=True)]
    return torch.cat([p.flatten() for p in pieces]).detach().numpy()


STATES = {"none": None, "l1": reg.L1(0.7), "box": reg.Box(-1, 1), "nonnegative": reg.Nonnegative()}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("regularizer", ["none", "l1", "box"])
@pytest.mark.parametrize("activation", SIGMAS)
def test_residual_at_convex_kinks(activation, regularizer, seed):
    """The bounded least-squares problem against scipy's, and the rate of descent against the objective's own."""
    weights = {"none": None, "l1": reg.L1(0.3), "box": reg.Box(-1, 1)}[regularizer]
    states = {"none": None, "l1": reg.L1(0.7), "box": reg.Box(-5, 3)}[regularizer]
    problem, point = on_kinks(activation, seed, weights=weights, states=states)
    found = stationarity(problem, point)
    shortest, variables = reference(problem, point)
    assert found.exact
    assert found.residual == pytest.approx(np.linalg.norm(shortest), rel=1e-9)
    blocks = [*found.weight, *found.v]
    assert math.hypot(*blocks) <= found.residual * (1 + 1e-9)

    # A regular function falls fastest along the shortest subgradient, at the rate of its length.
    direction = -torch.tensor(shortest) / np.linalg.norm(shortest)
    sizes = [t.numel() for t in variables]

    def value(step, along):
        moved = [t.detach() + step * d.view(t.shape) for t, d in zip(variables, along.split(sizes), strict=True)]
        n = len(point.w)
        w, b, v = moved[:n], moved[n : 2 * n], [point.v[0], *moved[2 * n :]]
        return objective(problem, w, b, v).item() + nonsmooth(problem, w, v)

    start, h = value(0, direction), 1e-6
    assert (value(h, direction) - start) / h == pytest.approx(-found.residual, rel=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for scale in (0.05, 0.3, 1.0, math.inf) * 5:
        noise = torch.randn(len(direction), generator=generator).double()
        along = noise if math.isinf(scale) else direction + scale * noise / noise.norm()
        assert (value(h, along / along.norm()) - start) / h >= -found.residual * (1 + 1e-3)


@pytest.mark.parametrize("activation", SIGMAS)
def test_the_shared_multiplier_matters(activation):
    """Somewhere the blocks, with multipliers of their own, are nearer to zero together than the whole is."""
    ratios = []
    for seed in range(4):
        found = stationarity(*on_kinks(activation, seed))
        ratios.append(math.hypot(*found.weight, *found.v) / found.residual)
    assert min(ratios) < 1 - 1e-5


def test_blocks_at_kinks_against_scipy():
    problem, point = on_kinks("relu", seed=1)
    found = stationarity(problem, point)
    i = 1  # the second layer: its weight and bias, and the states that it reads
    product, v = point.product(i), point.v[i]
    gap = problem.penalties[i].gamma * (product.relu() - point.v[i + 1])
    multiplier = gap * (product > 0)
    kinks = (product == 0).nonzero().tolist()
    of_weight, of_states = [], []
    for n, j in kinks:
        one = torch.zeros_like(product)
        one[n, j] = 1
        of_weight.append(torch.cat([(one.t() @ v).flatten(), one.sum(0)]).numpy())
        of_states.append((one @ point.w[i]).flatten().numpy())
    below = problem.penalties[0].gamma * (v - point.product(0).relu())
    for columns, constant, distance in (
        (of_weight, torch.cat([(multiplier.t() @ v).flatten(), multiplier.sum(0)]), found.weight[i]),
        (of_states, (below + multiplier @ point.w[i]).flatten(), found.v[i - 1]),
    ):
        upper = [gap[n, j].item() for n, j in kinks]
        a = np.stack(columns, 1)
        best = lsq_linear(a, -constant.numpy(), (np.zeros(len(upper)), upper), method="bvls", tol=1e-14)
        assert distance == pytest.approx(np.linalg.norm(constant.numpy() + a @ best.x), rel=1e-9, abs=1e-10)


class TestKnownCases:
    def test_zero_weight_and_bias(self):
        """N = 2, W = b = 0, V_1 = -1: any slope in [0, 0.5] of the kink; zero is one."""
        zero = [torch.zeros(1, 1).double(), torch.zeros(1, 1).double()]
        v = [torch.ones(1, 1).double(), -torch.ones(1, 1).double(), torch.zeros(1, 1).double()]
        problem, point = make(zero, [torch.zeros(1).double()] * 2, v, v[2], [("relu", ()), IDENTITY])
        found = stationarity(problem, point)
        assert found.weight == [0, 0]
        assert found.v == [0.5, 0]  # gamma_1 |V_1 - 0|
        assert found.residual == 0.5
        assert found.exact

    def test_a_zero_row_without_bias(self):
        """All of its products are on the kink, and the left slopes leave it where it is."""
        generator = torch.Generator().manual_seed(0)
        x, states = (torch.randn(12, d, generator=generator).double() for d in (3, 1))
        v = [x, -states.abs(), states]
        zero = [torch.zeros(1, 3).double(), torch.zeros(1, 1).double()]
        problem, point = make(zero, [None, None], v, states, [("relu", ()), IDENTITY])
        found = stationarity(problem, point)
        assert found.weight[0] == 0
        assert found.exact
        assert (0.5 * states.abs().t() @ x).norm() > 0.5  # what the right slopes alone would give

    def test_blocks_that_agree_on_no_multiplier(self):
        """Each block has a multiplier that makes it critical: W_2 0.2, V_1 0. No multiplier serves both."""
        w, b = [[[1.0]], [[-1.0]]], [None, torch.ones(1).double()]
        v = [torch.tensor([[t]]).double() for t in (1.0, 1.0, -1.0)]  # u_2 = -1 * 1 + 1
        problem, point = make(
            [torch.tensor(t).double() for t in w], b, v, torch.tensor([[-2.0]]).double(),
            [IDENTITY, ("relu", ())], weights=reg.L2(0.2), trained=((False, False), (True, False)),
        )  # fmt: skip
        found = stationarity(problem, point)
        assert found.weight == pytest.approx([0, 0], abs=1e-12)
        assert found.v == pytest.approx([0, 0], abs=1e-12)
        assert found.residual == pytest.approx(math.sqrt(0.02), rel=1e-9)
        assert found.exact


class TestTwoSlopes:
    """Where the slopes of the penalty fall at a kink, a multiplier is one of two."""

    @pytest.mark.parametrize("seed", range(6))
    def test_against_all_choices(self, seed):
        problem, point = on_kinks("leaky_relu", seed, convex=False, rows=3, widths=(2, 2, 2, 1))
        found = stationarity(problem, point)
        total = problem.penalties[-1].gamma * (point.v[-1] - point.product(2)) + point.v[-1] - problem.y
        squares = [total.square().sum().item()]
        for i in range(3):
            product, v, w = point.product(i), point.v[i], point.w[i]
            gamma = problem.penalties[i].gamma
            if i == 2:
                choices = [gamma * (product - point.v[3])]
            else:
                gap = gamma * (torch.where(product > 0, product, product / 2) - point.v[i + 1])
                ends = [gap * torch.where(product > 0, 1.0, 0.5), gap * torch.where(product >= 0, 1.0, 0.5)]
                kinks = (ends[0] != ends[1]).nonzero().tolist()
                assert len(kinks) <= 6
                rising = [k for k in kinks if ends[0][tuple(k)] < ends[1][tuple(k)]]
                falling = [k for k in kinks if k not in rising]
                choices = []
                for picks in itertools.product((0, 1), repeat=len(falling)):
                    multiplier = ends[0].clone()
                    for k, pick in zip(falling, picks, strict=True):
                        multiplier[tuple(k)] = ends[pick][tuple(k)]
                    choices.append(multiplier)
            best = math.inf
            for multiplier in choices:
                below = problem.penalties[i - 1].gamma * (v - self.sigma(point.product(i - 1), i)) if i else None
                columns, sizes = [], []
                for n, j in rising if i < 2 else []:
                    one = torch.zeros_like(product)
                    one[n, j] = (ends[1] - ends[0])[n, j]
                    columns.append(self.image(one, v, w, None if i == 0 else torch.zeros_like(v)))
                    sizes.append(1.0)
                constant = self.image(multiplier, v, w, below)
                if columns:
                    a = np.stack(columns, 1)
                    x = lsq_linear(a, -constant, (0, 1), method="bvls", tol=1e-14).x
                    constant = constant + a @ x
                best = min(best, float(constant @ constant))
            squares.append(best)
        assert found.residual == pytest.approx(math.sqrt(sum(squares)), rel=1e-9)
        assert not found.exact

    @staticmethod
    def sigma(product, i):
        return torch.where(product > 0, product, product / 2) if i <= 2 else product

    @staticmethod
    def image(multiplier, v, w, below):
        parts = [(multiplier.t() @ v).flatten(), multiplier.sum(0)]
        if below is not None:
            parts.append((below + multiplier @ w).flatten())
        return torch.cat(parts).numpy()


class TestRounding:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_product_next_to_a_kink_is_on_it(self, dtype):
        """The product w v + b is 1 - 1/3 * 3 up to rounding: in float32 that is not 0 in float64."""
        third = torch.tensor([[1 / 3]], dtype=dtype)
        v = [torch.tensor([[3.0]]), torch.tensor([[-1.0]]), torch.zeros(1, 1)]
        v = [t.double() for t in v]
        w, b = [third.double(), torch.zeros(1, 1).double()], [torch.tensor([-1.0]).double(), None]
        terms = [("relu", ()), IDENTITY]
        assert stationarity(*make(w, b, v, v[2], terms, dtype=dtype)).weight[0] == 0
        moved = [torch.tensor([-1.0 + 1e3 * torch.finfo(dtype).eps], dtype=torch.float64), None]
        found = stationarity(*make(w, moved, v, v[2], terms, dtype=dtype))
        assert found.weight[0] == pytest.approx(0.5 * math.sqrt(10), rel=1e-3)

    def test_u_next_to_a_bound_of_a_hardtanh(self):
        """The float32 next to 0.1 is a kink of hardtanh(-0.1, 0.1), for Algorithm 2 too."""
        tenth = torch.tensor([[0.1]]).double()  # of a float32
        zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
        v = [tenth - 0.3, tenth + 1, zero]
        point = torchbcd.diagnostics.Point([one, zero], [None, None], [tenth, zero], v)
        # The affine penalty's slope is 0.3, the other's -0.5 on the left of the kink and 0 on its right.
        for dtype, expected in ((torch.float32, 0.0), (torch.float64, 0.3)):
            problem, _ = make(
                point.w, point.b, v, zero, [("hardtanh", (-0.1, 0.1)), IDENTITY], splitting=3, dtype=dtype
            )  # fmt: skip
            assert stationarity(problem, point).u[0] == pytest.approx(expected, abs=1e-12)

    def test_piecewise_linear_activations_are_known(self):
        """Every activation of the library whose slopes differ somewhere."""
        u = torch.tensor([-3.0, -0.75, 0.0, 1.0, 1.25, 3.0]).double()
        for name in ACTIVATIONS:
            if name == "sign":
                continue
            terms = torchbcd.convert.read_model(make_mlp([2, 2, 1], hidden=name)).activations[0]
            left, right = torch.ops.torchbcd.activation_slopes(u, terms[0], list(terms[1]))
            assert (left != right).any() == (terms[0] in lifted.PIECEWISE_LINEAR), name


def test_u_at_kinks():
    """One number: U = 0, where a ReLU's penalty has the slopes 0 and -gamma v."""
    for v, affine, expected in (
        (-1.0, -0.4, 0.0),  # convex kink: [0, 1] + -0.4 holds zero
        (-1.0, 0.3, 0.3),  # [0, 1] + 0.3
        (1.0, 0.4, 0.4),  # not convex: {0, -1} + 0.4
        (1.0, 0.9, 0.1),
    ):
        interval = torch.zeros(1), torch.tensor([-v])
        assert _distance_at_kinks(torch.tensor([affine]), *interval) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_along_a_run_of_algorithm_1(dtype):
    """Real sweeps, with a unit that is dead from the start: no more than what one choice gives."""
    model = make_mlp([3, 6, 5, 2], dtype=dtype)
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 0
    optimizer = torchbcd.BCD(model, splitting=2, gamma=1.0, alpha=0.1, weight_regularizer=reg.L1(0.05))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator).to(dtype)
    optimizer.bind(x, (x[:, 0] > 0).long())
    for _ in range(30):
        report = optimizer.step()
        assert isinstance(report.stationarity, Stationarity)
        parts = report.stationarity
        assert math.hypot(*parts.weight, *parts.v) <= report.residual * (1 + 1e-6)
        assert report.residual <= one_choice(optimizer) * (1 + 1e-6)


def one_choice(optimizer):
    """The norm of one element: right slopes everywhere."""
    problem, point = optimizer._problem_and_point(optimizer._object.point())
    total = 0.0
    pull = torch.zeros_like(point.v[-1])
    for i in reversed(range(problem.depth)):
        product, v = point.product(i), point.v[i + 1]
        sigma, slope = (product.relu(), product >= 0) if i + 1 < problem.depth else (product, product == product)
        gamma = problem.penalties[i].gamma
        low, high = lifted.regularizer_subdifferential(reg.Regularizer(), v, problem.dtype)
        if i + 1 == problem.depth:
            parts = lifted.loss_subdifferential(problem.loss, problem.y, v, problem.row_weight, problem.dtype)
            low, high = parts.low, parts.high
        shift = gamma * (v - sigma) + pull
        total += lifted.shortest(low + shift, high + shift).square().sum().item()
        multiplier = gamma * (sigma - v) * slope
        low, high = lifted.regularizer_subdifferential(
            problem.penalties[i].weight_regularizer, point.w[i], problem.dtype
        )
        shift = multiplier.t() @ point.v[i]
        total += (
            lifted.shortest(low + shift, high + shift).square().sum().item()
            + multiplier.sum(0).square().sum().item()
        )
        pull = multiplier @ point.w[i]
    return math.sqrt(total)
