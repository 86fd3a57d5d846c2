"""The hinge of a row's whole output: its prox, its block with regularisers, its segment of subgradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import slow_search as search
import torch
from conftest import make_data, make_mlp
from objectives import REGULARIZERS

import torchbcd
import torchbcd.functional as F
from torchbcd import diagnostics, lifted
from torchbcd import regularizers as reg
from torchbcd.stationarity import stationarity

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
TERMS = {
    **{name: states for name, (_, states) in REGULARIZERS.items()},
    "l1 and bounds": reg.ElasticNet(0.3, 0.1) + reg.Box(-0.2, 0.7),
    "strong l1": reg.L1(5.0),
}
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def objective(v, y, b, gamma, weight=1.0, regularizer=None):
    """Of rows v, shape (..., n, C)."""
    loss = weight * np.maximum(0, 1 - (y * v).sum(-1))
    terms = search.regularizer_value(regularizer, v).sum(-1)
    return loss + gamma / 2 * ((v - b) ** 2).sum(-1) + terms


def least_length(below, above, pull):
    """The least length over theta in [0, 1] of the shortest element of [below, above] + theta pull, by rows."""

    def length(theta):
        at = theta[:, None] * pull
        return np.linalg.norm(np.maximum(below + at, 0) + np.minimum(above + at, 0), axis=1)

    low, high = np.zeros(len(pull)), np.ones(len(pull))
    for _ in range(120):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        falls = length(first) > length(second)
        low, high = np.where(falls, first, low), np.where(falls, high, second)
    return np.minimum(length(low), np.minimum(length(np.zeros_like(low)), length(np.ones_like(low))))


def optimality(v, y, b, gamma, weight, regularizer, unit, size=0.0):
    """The distance of zero from each row's subdifferential, over what rounding by `unit` may make it.

    What is rounded is v, b and numbers of the given size that b was made from.
    """
    l1, l2, low, high = search.regularizer_terms(regularizer)
    smooth, pull = gamma * (v - b) + l2 * v, -weight[:, None] * y
    below = smooth + np.where(v > 0, l1, -l1) - np.where(v <= low, math.inf, 0)
    above = smooth + np.where(v < 0, -l1, l1) + np.where(v >= high, math.inf, 0)
    margin, scale = 1 - (y * v).sum(1), 1 + np.abs(y * v).sum(1)
    inside = margin[:, None] > 0
    shift = np.where(inside, pull, 0)
    beside = np.linalg.norm(np.maximum(below + shift, 0) + np.minimum(above + shift, 0), axis=1)
    found = np.where(np.abs(margin) <= 4 * unit * scale, least_length(below, above, pull), beside)
    rounding = unit * (gamma + l2) * (np.abs(v) + np.abs(b) + size).sum(1) + 1e-15 * (np.abs(pull).sum(1) + l1)
    return found / np.maximum(rounding, 1e-300)


class TestProx:
    @BOTH
    @pytest.mark.parametrize("gamma", SIZES)
    @pytest.mark.parametrize("classes", [1, 2, 3, 10, 1000])
    def test_optimality(self, classes, gamma, dtype):
        """At all sizes of targets and centres, zero targets and rows that start at the kink among them."""
        generator = torch.Generator().manual_seed(classes)
        b = torch.randn(120, classes, generator=generator, dtype=torch.float64)
        b *= torch.tensor(SIZES).double().repeat(24)[:, None]
        y = torch.randn(120, classes, generator=generator, dtype=torch.float64).sign()
        y[:60] *= torch.tensor(SIZES).double().repeat_interleave(12)[:, None]
        y[-5:] = 0
        b[-10:-5] = y[-10:-5] / classes
        y[-12, 0] = 0
        y, b = y.to(dtype), b.to(dtype)
        v = F.prox_row_hinge_loss(y, b, gamma)
        assert v.dtype == dtype
        assert torch.equal(v[-5:], b[-5:])
        numbers = [t.double().numpy() for t in (v, y, b)]
        weight, unit = np.ones(len(b)), torch.finfo(dtype).eps
        assert optimality(*numbers, gamma, weight, None, unit).max() < 4

    def test_against_search(self):
        random = np.random.default_rng(0)
        b, y = random.normal(size=(40, 3)), np.sign(random.normal(size=(40, 3)))
        for gamma in (0.1, 1.0, 10.0):
            v = F.prox_row_hinge_loss(torch.tensor(y), torch.tensor(b), gamma).numpy()
            free = (np.full(3, -np.inf), np.full(3, np.inf))
            least = search.least_rows(lambda v, g=gamma: objective(v, y, b, g), b[None], 4 + 0 * b[:, 0], free)
            found = objective(v, y, b, gamma)
            assert (found <= least * (1 + 1e-12) + 1e-15).all()
            assert (found >= least - 1e-3).all()

    @BOTH
    def test_one_output_is_the_hinge(self, dtype):
        y = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.5, 0.0], dtype=dtype).repeat(40)[:, None]
        b = (3 * torch.randn(240, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).to(dtype)
        for gamma in (0.05, 1.0, 30.0):
            one, other = F.prox_row_hinge_loss(y, b, gamma), F.prox_hinge_loss(y, b, gamma)
            torch.testing.assert_close(one, other, rtol=4 * torch.finfo(dtype).eps, atol=0)

    def test_layouts_and_empty(self):
        b = torch.randn(5, 3, dtype=torch.float64)
        y = torch.randn(5, 3, dtype=torch.float64).sign()
        expected = F.prox_row_hinge_loss(y, b, 0.7)
        for strided in (b.t().contiguous().t(), torch.stack([b, b], 2)[..., 1]):
            torch.testing.assert_close(F.prox_row_hinge_loss(y, strided, 0.7), expected, rtol=0, atol=0)
        assert F.prox_row_hinge_loss(y[:0], b[:0], 1.0).shape == (0, 3)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_rows_that_are_not_finite(self, value):
        y, b = torch.ones(4, 3), torch.zeros(4, 3)
        b[1, 1] = value
        y[3, 2] = value
        rows = F.prox_row_hinge_loss(y, b, 0.7).isnan()
        assert rows.all(1).tolist() == [False, True, False, True]
        assert rows.any(1).tolist() == [False, True, False, True]
        nan = torch.ops.torchbcd.row_losses(torch.ones(1, 2), torch.tensor([[1.0, math.nan]]), "row_hinge")
        assert nan.isnan().all()

    def test_refusals(self):
        b = torch.zeros(3, 4)
        with pytest.raises(ValueError, match=r"prox_row_hinge_loss: b must be a matrix of shape \(n, C\)"):
            F.prox_row_hinge_loss(b[0], b[0], 1.0)
        with pytest.raises(ValueError, match=r"y must have shape that of b = \[3, 4\] .got \[3, 1\]"):
            F.prox_row_hinge_loss(b[:, :1], b, 1.0)
        with pytest.raises(TypeError, match="dtype"):
            F.prox_row_hinge_loss(b.double(), b, 1.0)
        with pytest.raises(ValueError, match="gamma must be a finite positive"):
            F.prox_row_hinge_loss(b, b, 0.0)


def output_block(terms, dtype, size, weight, seed=0, rows=60, classes=4):
    """V_N after a sweep of one layer, and what its block was given: y, the centre, the weights, |u| and |v|."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (size * torch.randn(rows, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    sample_weight = weight * 2.0 ** torch.randint(-3, 4, (rows,), generator=generator).double()
    sample_weight[0] = 0
    if terms is not None:
        v = v.clamp(terms.low, terms.high)
    u, v, sample_weight = (t.to(dtype) for t in (u, v, sample_weight))
    if terms is not None:
        v = v.clamp(torch.tensor(terms.low, dtype=dtype), torch.tensor(terms.high, dtype=dtype))
    x, y = make_data(rows, 2, classes, dtype=dtype)
    optimizer = torchbcd.BCD(
        make_mlp([2, classes], dtype=dtype), "row_hinge", gamma=0.75, alpha=0.25, state_regularizer=terms
    )
    optimizer.bind(x, y, sample_weight, u=[u], v=[v])
    optimizer.step()
    sign = 2 * torch.nn.functional.one_hot(y, classes) - 1
    centre = 0.75 * u.double() + 0.25 * v.double()
    found = optimizer.variables().V[1], sign, centre, sample_weight, u.abs() + v.abs()
    return [t.double().numpy() for t in found]


class TestBlock:
    @BOTH
    @pytest.mark.parametrize("weight", [1e-6, 1e-2, 1.0, 1e2, 1e6])
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("name", TERMS)
    def test_optimality(self, name, size, weight, dtype):
        terms, unit = TERMS[name], torch.finfo(dtype).eps
        v, y, b, weights, given = output_block(terms, dtype, size, weight)
        if terms is not None and math.isfinite(terms.low):
            in_dtype = torch.tensor([terms.low, terms.high], dtype=dtype).double().tolist()
            assert v.min() >= in_dtype[0]
            assert v.max() <= in_dtype[1]
            terms = reg.Regularizer(terms.l1, terms.l2, *in_dtype)
        assert optimality(v, y, b, 1.0, weights, terms, unit, given).max() < 4

    @pytest.mark.parametrize("name", TERMS)
    def test_against_search(self, name):
        """And every kind of row is met: inside the margin, beyond it and at it."""
        v, y, b, weights, _ = output_block(TERMS[name], torch.float64, 1.0, 0.5)
        low, high = search.regularizer_terms(TERMS[name])[2:]
        least = search.least_rows(
            lambda v: objective(v, y, b, 1.0, weights, TERMS[name]),
            np.clip(b, low, high)[None],
            np.full(len(v), 4.0),
            (np.full(4, low), np.full(4, high)),
        )
        found = objective(v, y, b, 1.0, weights, TERMS[name])
        assert (found <= least + 1e-12).all()
        assert (found >= least - 2e-3).all()
        margin = 1 - (y * v).sum(1)
        assert (margin > 1e-9).any()
        if name not in ("strong l1", "l1 and bounds"):
            assert (np.abs(margin) < 1e-12).any()
            assert (margin < -1e-9).any()


def at_kinks(states, splitting, seed=0, dtype=torch.float64):
    """A problem of one layer; the rows of V are at the kink, at a kink of a regulariser, too, or beside it."""
    generator = torch.Generator().manual_seed(seed)
    rows, classes = 40, 4
    y = torch.randn(rows, classes, generator=generator, dtype=torch.float64).sign()
    v = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    v[::2] += y[::2] * (1 - (y * v).sum(1, keepdim=True)[::2]) / classes
    v[::4] = y[::4].clamp_min(0) / (y[::4] > 0).sum(1, keepdim=True).clamp_min(1)
    v[2::8] = y[2::8] * torch.tensor([0.5, 0.0, 0.5, 0.0], dtype=torch.float64)
    v[1::8] = 0
    v = v.to(dtype).double()
    u = v + torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    x = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    w, b = torch.zeros(classes, 2).double(), torch.zeros(classes).double()
    if splitting == 2:
        u = torch.zeros_like(v)
    problem = diagnostics.Problem(
        splitting=splitting,
        loss="row_hinge",
        activations=(("identity", ()),),
        penalties=(diagnostics.Penalties(0.7, 1.0, 1.0, 1.0, reg.Regularizer(), states),),
        loss_weight=0.8,
        y=y,
        row_weight=torch.rand(rows, 1, generator=generator).double(),
        trained=((True, True),),
        dtype=dtype,
    )
    return problem, diagnostics.Point([w], [b], [u], [x, v])


class TestStationarity:
    @BOTH
    @pytest.mark.parametrize("splitting", [3, 2])
    @pytest.mark.parametrize(
        "states",
        [reg.Regularizer(), reg.L1(0.4), reg.Box(-0.5, 0.5) + reg.L1(0.2), reg.Nonnegative()],
        ids=["none", "l1", "box", "nonnegative"],
    )
    def test_against_all_theta(self, states, splitting, dtype):
        problem, point = at_kinks(states, splitting, dtype=dtype)
        v, y = point.v[1], problem.y
        keep = ((v >= states.low) & (v <= states.high)).all(1)
        assert int(keep.sum()) > 5
        problem = diagnostics.Problem(**{**vars(problem), "y": y[keep], "row_weight": problem.row_weight[keep]})
        point = diagnostics.Point(point.w, point.b, [point.u[0][keep]], [t[keep] for t in point.v])
        v, y, u = point.v[1].numpy(), problem.y.numpy(), point.linear(0, splitting).numpy()
        smooth = 0.7 * (v - u)
        l1, _, low, high = states.numbers
        below = smooth + np.where(v > 0, l1, -l1) - np.where(v <= low, math.inf, 0)
        above = smooth + np.where(v < 0, -l1, l1) + np.where(v >= high, math.inf, 0)
        pull = -0.8 * problem.row_weight.numpy() * y
        margin = 1 - (y * v).sum(1)
        at = np.abs(margin) < 16 * torch.finfo(dtype).eps
        assert at.any()
        share = (margin > 0)[:, None] * pull
        beside = np.linalg.norm(np.maximum(below + share, 0) + np.minimum(above + share, 0), axis=1)
        lengths = np.where(at, least_length(below, above, pull), beside)
        found = stationarity(problem, point)
        assert found.exact
        assert found.v == pytest.approx([np.linalg.norm(lengths)], rel=1e-9)
        # An interval for every entry would make it smaller.
        entries = (
            np.where(at[:, None], np.minimum(pull, 0), share),
            np.where(at[:, None], np.maximum(pull, 0), share),
        )
        product = np.maximum(below + entries[0], 0) + np.minimum(above + entries[1], 0)
        assert np.linalg.norm(product) < 0.999 * np.linalg.norm(lengths)

    def test_outside_the_bounds(self):
        problem, point = at_kinks(reg.Box(-0.1, 0.1), 3)
        assert stationarity(problem, point).residual == math.inf

    def test_points_have_a_closed_form(self):
        """Multiples of y on a kink: what is left is the part of the pull that is orthogonal to y."""
        y = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]]).double()
        for factor, along in ((0.3, 0.0), (-0.2, 0.2), (1.5, 0.5)):
            across = torch.tensor([[1.0, 1.0, 0.0], [2.0, -2.0, 0.0], [1.0, 0.0, 1.0]]).double()
            loss = lifted.loss_subdifferential("row_hinge", y, y / 3, torch.ones(1, 1).double(), torch.float64)
            given = factor * y + across
            left = loss.shortest_with((given, given))
            expected = across + (-along if factor < 0 else along) * y
            torch.testing.assert_close(left, expected, rtol=0, atol=1e-15)

    @BOTH
    @pytest.mark.parametrize("splitting", [3, 2])
    def test_of_a_block_that_was_just_solved(self, splitting, dtype):
        """V_N, where it is the last block of a sweep, is optimal, with rows at kinks."""
        order = [("W", 1), ("U", 1), ("V", 1)] if splitting == 3 else [("W", 1), ("V", 1)]
        optimizer = torchbcd.BCD(
            make_mlp([3, 4], dtype=dtype), "row_hinge", gamma=2.0, alpha=1e-9, splitting=splitting, order=order
        )
        x, y = make_data(50, 3, 4, dtype=dtype)
        optimizer.bind(x, y)
        for _ in range(3):
            report = optimizer.step()
        v = optimizer.variables().V[1].double()
        margin = 1 - ((2 * torch.nn.functional.one_hot(y, 4) - 1) * v).sum(1)
        assert int((margin.abs() < 32 * torch.finfo(dtype).eps).sum()) > 5
        assert report.stationarity.v[0] < 200 * torch.finfo(dtype).eps + 1e-6
        assert report.stationarity.weight[0] > 1e-4

    def test_bcd_gets_to_a_critical_point(self):
        optimizer = torchbcd.BCD(
            make_mlp([3, 5, 3], hidden="tanh"), "row_hinge", gamma=1.0, alpha=0.1, weight_regularizer=reg.L2(0.5)
        )
        x, y = make_data(20, 3, 3)
        result = optimizer.fit(x, y, max_sweeps=5000, tol=1e-6)
        assert result.converged
        margin = 1 - ((2 * torch.nn.functional.one_hot(y, 3) - 1) * optimizer.variables().V[-1]).sum(1)
        assert (margin.abs() < 1e-12).any()
