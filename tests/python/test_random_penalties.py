"""Theorem 2 and Lemma 5 of Zeng et al., Lemmas 1 and 6 of Wang et al., for penalties of any size: 1e-5 to 1e5.

Everything is recomputed in float64 from the variables. What rounding may cost: a few units of the objective, and
what rounding the variables themselves, by one unit, is worth in its quadratic terms.
"""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from conftest import ACTIVATIONS, MONOTONE, make_data, make_mlp
from dlam_problems import recomputed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from objectives import LOSSES, REGULARIZERS, recomputed_objective, row_losses

import torchbcd

UNITS = 8
SWEEPS = 8

pytestmark = pytest.mark.usefixtures("one_thread")

short = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
penalty = st.floats(-5, 5).map(lambda exponent: 10**exponent)
dtypes = st.sampled_from([torch.float64, torch.float32])


def squared_change(new, old, sign):
    """|new - old|^2 at the least (sign -1) or at the most (+1) that units in the last place make of it."""
    pairs = [
        (a.double(), b.double(), torch.finfo(a.dtype).eps) for a, b in zip(new, old, strict=True) if a is not None
    ]
    distances = [((a - b).norm() + sign * UNITS * unit * b.norm()).clamp_min(0) for a, b, unit in pairs]
    return sum(distance.square().item() for distance in distances)


def squared_norm(t):
    return t.double().square().sum().item()


def rounding(dtype, objective, weights, inputs, outputs, penalties):
    """What rounding may cost of an objective with these penalties of |outputs - weights inputs|^2."""
    unit = torch.finfo(dtype).eps
    worth = [
        penalty * (squared_norm(out) + squared_norm(w) * squared_norm(a))
        for w, a, out, penalty in zip(weights, inputs, outputs, penalties, strict=True)
    ]
    return UNITS * unit * abs(objective) + UNITS * unit**2 * sum(worth)


def loss_rounding(loss, v, y):
    """What a unit of float64 in the outputs is worth: a margin of 1e-4 is a difference of numbers of size 1.

    A unit of their own dtype where the kink is a sum of outputs, which may be at it up to rounding alone.
    """
    v, step = v.double(), UNITS * torch.finfo(v.dtype if loss == "row_hinge" else torch.float64).eps
    return (row_losses(loss, v * (1 + step), y) - row_losses(loss, v * (1 - step), y)).abs().sum().item()


@st.composite
def problems(draw, activations, regularizers):
    """A model within the regulariser's bounds, data, a loss and the regulariser's name."""
    widths = draw(st.lists(st.integers(2, 6), min_size=2, max_size=4))
    dtype = draw(dtypes)
    regularizer = draw(st.sampled_from(regularizers))
    seed = draw(st.integers(0, 1000))
    model = make_mlp(widths, hidden=draw(st.sampled_from(activations)), dtype=dtype, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(0 if regularizer == "nonnegative" else -0.4, 0.5)
    rows = draw(st.integers(1, 20))
    x, y = make_data(rows, widths[0], widths[-1], dtype=dtype, seed=seed + 1)
    return model, x, y, draw(st.sampled_from(LOSSES)), regularizer


def per_layer(draw, model):
    return [draw(penalty) for _ in range(sum(isinstance(m, torch.nn.Linear) for m in model))]


@st.composite
def bcd_problems(draw):
    # A sign jumps, and Theorem 2 does not speak of it.
    model, *rest = draw(problems([name for name in ACTIVATIONS if name != "sign"], list(REGULARIZERS)))
    names = ("gamma", "rho", "alpha", "alpha_weight")
    return model, *rest, {name: per_layer(draw, model) for name in names}


def assert_theorem_2_and_lemma_5(splitting, model, x, y, loss, regularizer, penalties, sweeps=SWEEPS):
    r, s = REGULARIZERS[regularizer]
    optimizer = torchbcd.BCD(
        model, loss, splitting=splitting, weight_regularizer=r, state_regularizer=s, **penalties
    )
    optimizer.bind(x, y)
    # Lemma 5's a = min(alpha, gamma)/2, of the weights' alpha too; gamma is U_N's and, with U, the hidden V's.
    moduli = penalties["alpha"] + penalties["alpha_weight"] + (penalties["gamma"] if splitting == 3 else [])
    a = min(moduli) / 2
    double = copy.deepcopy(model).double()
    before, point = recomputed_objective(optimizer, double, loss, y, splitting), optimizer.variables()
    for sweep in range(sweeps):
        optimizer.step()
        after, new = recomputed_objective(optimizer, double, loss, y, splitting), optimizer.variables()
        parts = ("W", "b", "V", "U") if splitting == 3 else ("W", "b", "V")
        moved = sum(squared_change(getattr(new, part), getattr(point, part), -1) for part in parts)
        coupled = penalties["gamma"] if splitting == 2 else penalties["rho"]
        slack = rounding(x.dtype, before, new.W, new.V[:-1], new.V[1:], coupled)
        slack += rounding(x.dtype, 0.0, new.W, new.V[:-1], new.U, penalties["gamma"])
        slack += loss_rounding(loss, new.V[-1], y)
        assert after <= before + slack, f"sweep {sweep + 1} raises the objective"
        assert before - after >= a * moved - slack, f"sweep {sweep + 1} breaks Lemma 5"
        before, point = after, new


@short
@given(bcd_problems())
def test_algorithm_2(problem):
    assert_theorem_2_and_lemma_5(3, *problem)


@short
@given(bcd_problems())
def test_algorithm_1(problem):
    assert_theorem_2_and_lemma_5(2, *problem)


# The Gram matrix that a block could be solved with is singular but for a ridge that rounding does not see.
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
class TestSmallRidges:
    def test_states_before_a_wider_layer(self, dtype, loss):
        for seed in range(3):
            model = make_mlp([3, 4, 6], hidden="tanh", dtype=dtype, seed=seed)
            x, y = make_data(14, 3, 6, dtype=dtype, seed=seed)
            penalties = {"gamma": [1e-5, 10.0], "rho": [1.0, 1e5], "alpha": [0.1] * 2, "alpha_weight": [0.1] * 2}
            assert_theorem_2_and_lemma_5(3, model, x, y, loss, "none", penalties)

    def test_weights_of_repeated_rows(self, dtype, loss):
        for seed in range(3):
            model = make_mlp([3, 20, 3], hidden="tanh", dtype=dtype, seed=seed)
            x, y = make_data(6, 3, 3, dtype=dtype, seed=seed)
            x[3:] = x[:3]
            y[3:] = (y[:3] + 1) % 3
            penalties = {"gamma": [1.0, 1.0], "rho": [1e5] * 2, "alpha": [1e-5] * 2, "alpha_weight": [1e-5] * 2}
            assert_theorem_2_and_lemma_5(3, model, x, y, loss, "none", penalties)


@st.composite
def dlam_problems(draw):
    model, *rest = draw(problems(list(MONOTONE), [name for name in REGULARIZERS if name != "nonnegative"]))
    eps = 10 ** draw(st.floats(-3, 1))
    shrink = draw(st.sampled_from([0.7, 1.0]))
    options = {
        "monotone": draw(st.booleans()),
        "momentum": draw(st.sampled_from([None, "nesterov"])),
        "joint": draw(st.booleans()),
    }
    return model, *rest, per_layer(draw, model), eps, shrink, options


@short
@given(dlam_problems())
def test_dlam(problem):
    """Lemma 1 for mDLAM, and the sum of eqs. (8), (9) and (10) over the blocks of a sweep for both."""
    model, x, y, loss, regularizer, rho, eps, shrink, options = problem
    r, _ = REGULARIZERS[regularizer]
    optimizer = torchbcd.DLAM(model, loss, rho, eps, weight_regularizer=r, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the hidden layers stay: where the weights shrink they do not
        optimizer.bind(x, y)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(shrink)
    double = copy.deepcopy(model).double()
    before, point = recomputed(optimizer, double, loss, y, eps)[0], optimizer.variables()
    last = point
    for sweep in range(SWEEPS):
        report = optimizer.step()
        after, gap = recomputed(optimizer, double, loss, y, eps)
        new = optimizer.variables()
        slack = rounding(x.dtype, before, new.W, new.a, new.z, rho) + loss_rounding(loss, new.z[-1], y)
        largest = max(t.abs().max().item() for t in new.a[1:]) if len(new.a) > 1 else 0
        assert gap <= UNITS * torch.finfo(x.dtype).eps * (largest + eps)
        if options["monotone"]:
            assert after <= before + slack, f"sweep {sweep + 1} raises F"
        if not options["joint"]:
            bound = lemma_6(report, rho, r, new, point, last)
            assert before - after >= bound - slack, f"sweep {sweep + 1} breaks Lemma 6"
        before, last, point = after, point, new


def lemma_6(report, rho, regularizer, new, point, last):
    """What F has to fall by in a sweep."""

    def bound(part, layer, curvature, omega):
        now, old, older = ([getattr(t, part)[layer]] for t in (new, point, last))
        backwards = omega**2 * squared_change(old, older, 1) if omega > 0 else 0.0
        return curvature / 2 * (squared_change(now, old, -1) - backwards)

    ridge = regularizer.l2 if regularizer is not None and regularizer.l1 == 0 else 0.0  # of the bias's step
    total = sum(bound("z", layer, penalty, 0.0) for layer, penalty in enumerate(rho))
    for layer, (theta, omega) in enumerate(zip(report.theta, report.weight_omega, strict=True)):
        total += bound("W", layer, theta, omega) + bound("b", layer, theta + ridge, omega)
    for layer, (tau, omega) in enumerate(zip(report.tau, report.state_omega, strict=True)):
        total += bound("a", layer + 1, tau, omega)
    return total
