"""Every activation x loss x regulariser x splitting x order, generated: monotone, feasible, reproducible.

The objective is recomputed here, in float64 and from the variables alone, so that the engine cannot be
monotone by its own word only.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import ACTIVATIONS, make_data, make_mlp
from objectives import LOSSES, REGULARIZERS, recomputed_objective, row_losses
from torch import nn

import torchbcd

WIDTHS, ROWS = [6, 8, 7, 3], 40


pytestmark = pytest.mark.usefixtures("one_thread")


def build(activation, loss, regularizer, splitting, dtype, **options):
    mixed = ("relu", "tanh") if activation == "mixed" else activation
    model = make_mlp(WIDTHS, hidden=mixed, dtype=dtype)
    weight_regularizer, state_regularizer = REGULARIZERS[regularizer]
    optimizer = torchbcd.BCD(
        model,
        loss,
        gamma=[0.5, 1.0, 2.0],
        rho=[1.5, 0.4, 0.8],
        alpha=[0.1, 0.4, 0.6],
        weight_regularizer=weight_regularizer,
        state_regularizer=state_regularizer,
        splitting=splitting,
        **options,
    )
    x, y = make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=dtype)
    optimizer.bind(x, y)
    return model, optimizer, x, y


def assert_feasible(optimizer, regularizer):
    variables = optimizer.variables()
    for terms, values in zip(
        (r for r in REGULARIZERS[regularizer]),
        (variables.W, variables.V[1:]),
        strict=True,
    ):
        if terms is not None:
            for value in values:
                assert value.min() >= torch.tensor(terms.low, dtype=value.dtype)
                assert value.max() <= torch.tensor(terms.high, dtype=value.dtype)


ALL_ACTIVATIONS = [*ACTIVATIONS, "mixed"]
DTYPES = [torch.float64, torch.float32]
ALL = list(itertools.product(ALL_ACTIVATIONS, LOSSES, REGULARIZERS, (3, 2), DTYPES))


def in_design(activation, loss, regularizer, splitting, dtype):
    """Whether a combination is one of those in which each two of its values meet once or more."""
    i, j = ALL_ACTIVATIONS.index(activation), LOSSES.index(loss)
    k = (i + j) % len(REGULARIZERS)
    return list(REGULARIZERS)[k] == regularizer and DTYPES[(i + j // 2 + splitting) % 2] == dtype


def test_the_design_has_all_pairs():
    chosen = [c for c in ALL if in_design(*c)]
    assert len(chosen) == 2 * len(ALL_ACTIVATIONS) * len(LOSSES)
    for i, j in itertools.combinations(range(5), 2):
        assert {(c[i], c[j]) for c in chosen} == {(c[i], c[j]) for c in ALL}


def once_in_a_while(combination):
    """What is not in the design goes into `make test-all`, but for each of Algorithm 2's in one of its dtypes.

    Algorithm 1 costs ten times as much.
    """
    activation, loss, regularizer, splitting, dtype = combination
    turn = ALL_ACTIVATIONS.index(activation) + LOSSES.index(loss) + list(REGULARIZERS).index(regularizer)
    exhaustive = not in_design(*combination) and (splitting == 2 or DTYPES[turn % 2] != dtype)
    return pytest.param(*combination, marks=[pytest.mark.exhaustive] if exhaustive else [])


@pytest.mark.parametrize(
    ("activation", "loss", "regularizer", "splitting", "dtype"), map(once_in_a_while, ALL), ids=str
)
def test_monotone(activation, loss, regularizer, splitting, dtype):
    """Every combination for 10 sweeps, 5 of Algorithm 1; those of Algorithm 2 in the design for 30."""
    model, optimizer, _, y = build(activation, loss, regularizer, splitting, dtype)
    slack = 1e-12 if dtype == torch.float64 else 2e-6
    previous = float("inf")
    sweeps = 5 if splitting == 2 else 30 if in_design(activation, loss, regularizer, splitting, dtype) else 10
    for sweep in range(sweeps):
        optimizer.step()
        objective = optimizer.objective()
        assert objective <= previous * (1 + slack), f"rose in sweep {sweep + 1}"
        # A float64 product next to zero may have the other sign.
        if sweep % 9 == 0 and (activation, splitting, dtype) != ("sign", 2, torch.float32):
            again = recomputed_objective(optimizer, model, loss, y, splitting)
            assert objective == pytest.approx(again, rel=1e-9 if dtype == torch.float64 else 1e-4)
        previous = objective
    assert_feasible(optimizer, regularizer)


# Of the activations that the table leaves out: lines, a smooth one that rises and one that falls first, with all
# losses; regularisers, splittings and dtypes take turns.
MORE = [
    (activation, loss, list(REGULARIZERS)[(i + j) % len(REGULARIZERS)], 3 - (i + j) % 2, dtype)
    for i, activation in enumerate(("softshrink", "elu", "gelu"))
    for j, (loss, dtype) in enumerate(zip(LOSSES, itertools.cycle([torch.float64, torch.float32]), strict=False))
]


@pytest.mark.parametrize(("activation", "loss", "regularizer", "splitting", "dtype"), MORE, ids=str)
def test_more_activations(activation, loss, regularizer, splitting, dtype):
    _, optimizer, _, _ = build(activation, loss, regularizer, splitting, dtype)
    slack = 1e-12 if dtype == torch.float64 else 2e-6
    previous = float("inf")
    for sweep in range(10 if splitting == 3 else 4):
        objective = optimizer.step().objective
        assert objective <= previous * (1 + slack), f"rose in sweep {sweep + 1}"
        previous = objective
    assert_feasible(optimizer, regularizer)


SCHEMES = list(itertools.product((3, 2), ("paper", "states_first"), (1, 3)))


@pytest.mark.parametrize(("splitting", "order", "inner_sweeps"), SCHEMES)
@pytest.mark.parametrize("activation", ["relu", "identity", "tanh"])
@pytest.mark.parametrize("regularizer", ["none", "l2", "l1"])
def test_orders_and_inner_sweeps(activation, regularizer, splitting, order, inner_sweeps):
    model, optimizer, _, y = build(
        activation,
        "squared",
        regularizer,
        splitting,
        torch.float64,
        order=order,
        inner_sweeps=inner_sweeps,
    )
    previous = optimizer.objective()
    for _ in range(15 if splitting == 3 else 5):
        optimizer.step()
        objective = recomputed_objective(optimizer, model, "squared", y, splitting)
        assert optimizer.objective() == pytest.approx(objective, rel=1e-9)
        assert objective <= previous * (1 + 1e-12)
        previous = objective


@pytest.mark.parametrize("splitting", [3, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_sample_weights(loss, splitting):
    """Weights of 0, 1 and 2 are rows left out, as they are, and twice."""
    x, y = make_data(12, 6, 3)
    weights = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).repeat(4)
    counts = weights.long()
    objectives = []
    for data in ((x, y, weights), (x, y, 3 * weights / 3)):
        model = make_mlp([6, 5, 3], hidden="tanh")
        optimizer = torchbcd.BCD(model, loss, gamma=0.7, alpha=0.2, splitting=splitting)
        optimizer.bind(*data)
        for _ in range(5):
            optimizer.step()
        again = recomputed_objective(optimizer, model, loss, y, splitting, weights)
        assert optimizer.objective() == pytest.approx(again, rel=1e-10)
        objectives.append(optimizer.objective())
    assert objectives[0] == objectives[1]
    # The loss at the forward pass counts a row as often as its weight says.
    repeated = x.repeat_interleave(counts, 0), y.repeat_interleave(counts)
    model = make_mlp([6, 5, 3], hidden="tanh")
    one, two = torchbcd.BCD(model, loss), torchbcd.BCD(model, loss)
    one.bind(x, y, weights)
    two.bind(*repeated)
    assert one.objective() == pytest.approx(two.objective(), rel=1e-12)


def test_a_row_of_weight_zero_pulls_on_nothing():
    x, y = make_data(12, 6, 3)
    weights = torch.ones(12, dtype=torch.float64)
    weights[3] = 0
    for loss in LOSSES:
        optimizer = torchbcd.BCD(make_mlp([6, 3]), loss)
        optimizer.bind(x, y, weights)
        before = optimizer.variables().V[1][3]
        optimizer.step()
        torch.testing.assert_close(optimizer.variables().V[1][3], before)


@pytest.mark.parametrize("loss", LOSSES)
def test_mini_batches_and_means(loss):
    """Each batch from its forward pass: the lifted objective falls from the batch's mean loss."""
    model = make_mlp([6, 8, 3], hidden="sigmoid")
    optimizer = torchbcd.BCD(model, loss, loss_weight="mean", gamma=0.1, alpha=0.1)
    for seed in range(4):
        x, y = make_data(20, 6, 3, seed=seed)
        with torch.no_grad():
            before = row_losses(loss, model(x), y).mean().item()
        assert optimizer.step(x, y).objective <= before * (1 + 1e-12)


def test_reductions():
    x, y = make_data(20, 6, 3)
    objectives = []
    for loss, weight in (
        ("hinge", "mean"),
        (torchbcd.losses.Hinge("mean"), 1.0),
        (torchbcd.losses.Hinge(), 1 / 20),
    ):
        optimizer = torchbcd.BCD(make_mlp([6, 5, 3]), loss, loss_weight=weight)
        optimizer.bind(x, y)
        optimizer.step()
        objectives.append(optimizer.objective())
    assert objectives[0] == objectives[1] == pytest.approx(objectives[2], rel=1e-12)
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean'"):
        torchbcd.losses.Hinge("none")


class TestTargets:
    @pytest.mark.parametrize("loss", ["hinge", "row_hinge", "logistic", "exponential"])
    def test_classes_are_one_against_the_rest(self, loss):
        x, y = make_data(20, 6, 3)
        sign = 2 * nn.functional.one_hot(y, 3).double() - 1
        results = []
        for targets in (y, sign):
            optimizer = torchbcd.BCD(make_mlp([6, 5, 3]), loss)
            optimizer.bind(x, targets)
            optimizer.step()
            results.append(optimizer.objective())
        assert results[0] == results[1]

    def test_two_classes_and_one_output(self):
        x, y = make_data(20, 6, 2)
        results = []
        for targets in (y, (2.0 * y - 1).double()[:, None]):
            optimizer = torchbcd.BCD(make_mlp([6, 5, 1]), "hinge")
            optimizer.bind(x, targets)
            optimizer.step()
            results.append(optimizer.objective())
        assert results[0] == results[1]

    def test_cross_entropy_takes_probabilities(self):
        x, y = make_data(20, 6, 3)
        results = []
        for targets in (y, nn.functional.one_hot(y, 3).double()):
            optimizer = torchbcd.BCD(make_mlp([6, 5, 3]), "cross_entropy")
            optimizer.bind(x, targets)
            optimizer.step()
            results.append(optimizer.objective())
        assert results[0] == results[1]
        with pytest.raises(ValueError, match="y must hold probabilities >= 0"):
            optimizer.bind(x, torch.full((20, 3), -1.0, dtype=torch.float64))


class TestSparsity:
    def test_l1_gives_exact_zeros_and_keeps_the_bias(self):
        model, optimizer, _, _ = build("relu", "squared", "l1", 3, torch.float32)
        for _ in range(20):
            optimizer.step()
        weights = torch.cat([p.flatten() for p in model.parameters() if p.dim() == 2])
        assert 0.2 < (weights == 0).float().mean() < 1
        assert all((p != 0).all() for p in model.parameters() if p.dim() == 1)

    @pytest.mark.parametrize("splitting", [3, 2])
    def test_nonnegative_weights_are_exactly_so(self, splitting):
        model, optimizer, _, _ = build("relu", "squared", "nonnegative", splitting, torch.float32)
        for _ in range(5):
            optimizer.step()
        for p in model.parameters():
            if p.dim() == 2:
                assert p.min() >= 0


class TestPolynomialModule:
    def test_value_gradient_and_script(self):
        module = torchbcd.nn.Polynomial([1.0, -2.0, 0.5, 0.25])
        u = torch.randn(7, dtype=torch.float64, requires_grad=True)
        torch.testing.assert_close(module(u), 1 - 2 * u + 0.5 * u**2 + 0.25 * u**3)
        assert torch.autograd.gradcheck(module, u)
        torch.testing.assert_close(torch.jit.script(module)(u), module(u))
        assert "0.25" in repr(module)

    def test_refusals(self):
        with pytest.raises(ValueError, match="1 to 9 coefficients"):
            torchbcd.nn.Polynomial([])
        with pytest.raises(ValueError, match="must be finite"):
            torchbcd.nn.Polynomial([float("inf")])

    def test_constant(self):
        torch.testing.assert_close(torchbcd.nn.Polynomial([2.0])(torch.zeros(3)), torch.full((3,), 2.0))
