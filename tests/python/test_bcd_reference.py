"""Sweeps of torchbcd.BCD against the literal NumPy reference of Algorithm 2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_data, make_mlp
from reference import Reference
from torch import nn

import torchbcd
from torchbcd.regularizers import L2

SHAPES = {
    "one layer": [7, 4],
    "two layers": [6, 9, 3],
    "wide to narrow": [20, 15, 10, 5],
    "narrow to wide": [4, 8, 16, 32, 3],
    "blocks of the factorisation": [150, 140, 300, 3],
    "ten layers": [6, 9, 7, 12, 5, 9, 7, 12, 5, 9, 3],
}


def penalties(depth, offset):
    """Different for every layer, so that no two blocks can swap theirs unnoticed."""
    return [0.3 + offset + 0.45 * ((3 * i + 1) % 5) for i in range(depth)]


def make_pair(
    widths, rows, *, output=None, bias=True, loss_weight=1.0, hidden="relu", weight_l2=0.0, state_l2=0.0
):
    depth = len(widths) - 1
    model = make_mlp(widths, output=output, bias=bias, hidden=hidden)
    x, y = make_data(rows, widths[0], widths[-1])
    options = {
        "gamma": penalties(depth, 0.0),
        "rho": penalties(depth, 0.21)[::-1],
        "alpha": penalties(depth, 0.13),
        "alpha_weight": penalties(depth, 0.37)[::-1],
    }
    optimizer = torchbcd.BCD(
        model,
        loss_weight=loss_weight,
        weight_regularizer=L2(weight_l2) if weight_l2 else None,
        state_regularizer=L2(state_l2) if state_l2 else None,
        **options,
    )
    linears = [m for m in model if isinstance(m, nn.Linear)]
    reference = Reference(
        weights=[m.weight.detach().numpy().copy() for m in linears],
        biases=[m.bias.detach().numpy().copy() if bias else np.zeros(m.out_features) for m in linears],
        activations=[hidden] * (depth - 1) + [output or "identity"],
        **options,
        x=x.numpy(),
        y=np.eye(widths[-1])[y.numpy()],
        loss_weight=rows**-1 if loss_weight == "mean" else loss_weight,
        weight_l2=weight_l2,
        state_l2=state_l2,
    )
    return optimizer, reference, x, y


def assert_same(optimizer, reference, tolerance=1e-8):
    variables = optimizer.variables()
    for name, ours, theirs in (
        ("W", variables.W, reference.weights),
        ("b", variables.b, reference.biases),
        ("U", variables.U, reference.u),
        ("V", variables.V, reference.v),
    ):
        assert len(ours) == len(theirs)
        for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if a is None:
                continue
            scale = max(1.0, np.abs(b).max())
            error = np.abs(a.numpy() - b).max() / scale
            assert error < tolerance, f"{name}[{layer}] differs by {error}"


@pytest.mark.parametrize("rows", [3, 25, 400], ids=lambda n: f"{n}rows")
@pytest.mark.parametrize("shape", SHAPES)
def test_full_batch_agrees(shape, rows, two_threads):
    optimizer, reference, x, y = make_pair(SHAPES[shape], rows)
    optimizer.bind(x, y)
    assert_same(optimizer, reference)
    for _ in range(6):
        optimizer.step()
        reference.sweep()
        assert_same(optimizer, reference)
        assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-10)


def test_rows_of_several_chunks_agree(two_threads):
    optimizer, reference, x, y = make_pair([5, 8, 6, 3], 5000)
    optimizer.bind(x, y)
    for _ in range(3):
        optimizer.step()
        reference.sweep()
    assert_same(optimizer, reference)
    assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-10)


@pytest.mark.parametrize("output", ["relu", "identity"])
def test_output_activation_agrees(output):
    optimizer, reference, x, y = make_pair([6, 9, 7, 4], 50, output=output)
    optimizer.bind(x, y)
    for _ in range(6):
        optimizer.step()
        reference.sweep()
        assert_same(optimizer, reference)


@pytest.mark.parametrize("rows", [5, 60])
@pytest.mark.parametrize(
    "hidden", ["leaky_relu", "sigmoid", "tanh", "hardtanh", "hardsigmoid", "sign", "polynomial"]
)
def test_activations_agree(hidden, rows):
    """To what a grid resolves of a minimiser: the square root of what float64 resolves of its value."""
    optimizer, reference, x, y = make_pair([6, 9, 7, 4], rows, hidden=hidden)
    optimizer.bind(x, y)
    for _ in range(3):
        optimizer.step()
        reference.sweep()
        assert_same(optimizer, reference, tolerance=1e-6)
        assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-9)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [4, 60])
@pytest.mark.parametrize(("weight_l2", "state_l2"), [(0.7, 0.0), (0.0, 0.4), (2.0, 0.3)])
def test_squared_norms_agree(weight_l2, state_l2, rows, bias):
    """Rows fewer and more than every width: the dual and the primal form of a regularised W block."""
    widths = [6, 9, 7, 5]
    optimizer, reference, x, y = make_pair(widths, rows, bias=bias, weight_l2=weight_l2, state_l2=state_l2)
    optimizer.bind(x, y)
    for _ in range(5):
        optimizer.step()
        reference.sweep(has_bias=bias)
        assert_same(optimizer, reference)
        assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-10)
    x, y = make_data(rows, 6, 5, seed=5)
    optimizer.step(x, y)
    reference.x, reference.y = x.numpy(), np.eye(5)[y.numpy()]
    reference.__post_init__()
    reference.sweep(has_bias=bias)
    assert_same(optimizer, reference)


def test_without_bias_agrees():
    optimizer, reference, x, y = make_pair([6, 9, 7, 4], 50, bias=False)
    optimizer.bind(x, y)
    for _ in range(6):
        optimizer.step()
        reference.sweep(has_bias=False)
        assert_same(optimizer, reference)


@pytest.mark.parametrize("loss_weight", [0.02, 7.0, "mean"])
def test_loss_weight_agrees(loss_weight):
    optimizer, reference, x, y = make_pair([6, 9, 4], 50, loss_weight=loss_weight)
    optimizer.bind(x, y)
    for _ in range(6):
        optimizer.step()
        reference.sweep()
        assert_same(optimizer, reference)
        assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-10)


@pytest.mark.parametrize("rows", [4, 60])
def test_mini_batch_agrees(rows):
    """Each batch starts from its own forward pass at the weights the batch before left."""
    optimizer, reference, _, _ = make_pair([6, 9, 7, 4], 10)
    for seed in range(4):
        x, y = make_data(rows, 6, 4, seed=seed)
        optimizer.step(x, y)
        reference.x, reference.y = x.numpy(), np.eye(4)[y.numpy()]
        reference.__post_init__()
        reference.sweep()
        assert_same(optimizer, reference)
        assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-10)


def test_persistent_rows_agree():
    """U and V of a visited row persist; those of the other rows wait, while the weights move on."""
    widths = [6, 9, 7, 4]
    optimizer, whole, x, y = make_pair(widths, 30)
    optimizer.bind(x, y)
    _, part, _, _ = make_pair(widths, 10)
    part.weights, part.biases = whole.weights, whole.biases
    order = np.random.default_rng(0)
    for visit in range(9):
        rows = order.permutation(30)[:10]
        index = torch.tensor(rows)
        if visit % 2:
            optimizer.step(x[index], y[index], index=index)
        else:
            optimizer.step(index=index)
        part.u = [u[rows] for u in whole.u]
        part.v = [v[rows] for v in whole.v]
        part.y = whole.y[rows]
        part.sweep()
        for i in range(3):
            whole.u[i][rows] = part.u[i]
            whole.v[i + 1][rows] = part.v[i + 1]
        assert_same(optimizer, whole)
        assert optimizer.objective() == pytest.approx(whole.objective(), rel=1e-10)
    optimizer.step()
    whole.sweep()
    assert_same(optimizer, whole)


def test_penalties_follow_the_param_groups():
    optimizer, reference, x, y = make_pair([6, 9, 7, 4], 50)
    optimizer.bind(x, y)
    for sweep in range(5):
        for i, group in enumerate(optimizer.param_groups):
            for name in ("gamma", "rho", "alpha", "alpha_weight"):
                group[name] *= 1.3 if (sweep + i) % 2 else 0.8
                getattr(reference, name)[i] = group[name]
        optimizer.step()
        reference.sweep()
        assert_same(optimizer, reference)


def test_rho_and_alpha_weight_default_to_the_papers():
    x, y = make_data(40, 6, 4)
    tied = torchbcd.BCD(make_mlp([6, 9, 4]), gamma=[0.7, 1.9], alpha=[0.3, 0.4])
    spelled = torchbcd.BCD(
        make_mlp([6, 9, 4]),
        gamma=[0.7, 1.9],
        rho=[0.7, 1.9],
        alpha=[0.3, 0.4],
        alpha_weight=[0.3, 0.4],
    )
    for optimizer in (tied, spelled):
        optimizer.bind(x, y)
        optimizer.step()
    assert tied.objective() == spelled.objective()


def test_changes_from_outside_are_noticed():
    """Weights that somebody else sets between two sweeps count, whatever way they were set."""
    optimizer, reference, x, y = make_pair([6, 9, 7, 4], 50)
    optimizer.bind(x, y)
    optimizer.step()
    reference.sweep()
    optimizer.param_groups[1]["params"][0].data.mul_(0.5)
    reference.weights[1] *= 0.5
    assert optimizer.objective() == pytest.approx(reference.objective(), rel=1e-10)
    optimizer.step()
    reference.sweep()
    assert_same(optimizer, reference)
