"""RelaxedBCD: the certificate recomputed after every block, the blocks by brute force."""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import pytest
import torch
from conftest import ACTIVATIONS, make_data, make_mlp
from objectives import LOSSES, row_losses
from relaxed_problems import FEW, MANY, PLAIN, STILL, WIDTHS, assert_certified, by_index, watched_sweep
from torch import nn

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_no_block_raises_the_objective(activation, steps, rows, dtype):
    model = make_mlp(WIDTHS, hidden=activation, dtype=dtype)
    optimizer = torchbcd.RelaxedBCD(model, state_steps=steps, **STILL)
    x, y = make_data(rows, WIDTHS[0], WIDTHS[-1], dtype=dtype)
    optimizer.step(x, y)  # which may begin with scaling the outputs
    for _ in range(25):
        loss = row_losses("squared", model(x).detach().double(), y).sum().item()
        report, seen = watched_sweep(optimizer, x, y)
        assert report.before == pytest.approx(loss, rel=1e-4 if dtype == torch.float32 else 1e-10, abs=1e-9)
        assert_certified(report, seen, None, "squared", y, clamped=True, dtype=dtype)


@pytest.mark.parametrize("regularizer", [None, reg.L2(0.3), reg.L1(0.05), reg.Box(-0.5, 0.4)], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_losses_and_regularizers(loss, regularizer, rows):
    model = make_mlp(WIDTHS, hidden=("relu", "tanh"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.45, 0.35)  # feasible for the box
    optimizer = torchbcd.RelaxedBCD(model, loss, weight_regularizer=regularizer, output_penalty=0.7)
    x, y = make_data(rows, WIDTHS[0], WIDTHS[-1])
    first = row_losses(loss, model(x).detach(), y).sum().item()
    for _ in range(25):
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, regularizer, loss, y, clamped=loss == "squared", dtype=torch.float64)
    assert row_losses(loss, model(x).detach(), y).sum().item() < 0.9 * first


@pytest.mark.parametrize("output", [name for name in ACTIVATIONS if name != "identity"])
def test_output_activations(output):
    model = make_mlp(WIDTHS, hidden="relu", output=output)
    optimizer = torchbcd.RelaxedBCD(model, relaxation=0.3, output_relaxation=0.3)
    x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1])
    for _ in range(25):
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, None, "squared", y, clamped=False, dtype=torch.float64)


HYPER = {
    "relaxation": [0.01, 0.5, 1.0, 1.9],
    "over_relaxation": [0.1, 1.0, 1.99],
    "damping": [1e-4, 1.0, 100.0],
    "penalty_ratio": [1e-6, 0.1, 10.0],
    "cap": [0.01, 0.5],
    "momentum": [0.9],
    "weight_decay": [0.1],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in HYPER.items() for v in values])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_whatever_the_hyperparameters(activation, name, value):
    model = make_mlp(WIDTHS, hidden=activation)
    optimizer = torchbcd.RelaxedBCD(model, **{name: value})
    x, y = make_data(FEW, WIDTHS[0], WIDTHS[-1])
    for _ in range(15):
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, None, "squared", y, clamped=True, dtype=torch.float64)


def proximal(inputs, damping, bias):
    """The matrix of the proximal term of [W b]: relative to the square of a column of what each multiplies."""
    columns = inputs.shape[1] + bias
    column = inputs.square().sum() / columns
    diagonal = (damping * column).expand(columns).clone()
    if bias:
        diagonal[-1] = damping * column.clamp_max(len(inputs))
    return diagonal.diag()


class TestBlocks:
    def test_order(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        _, seen = watched_sweep(optimizer, *make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        assert [name for name, _ in seen] == [
            ("V", 4), ("W", 4), ("UV", 3), ("W", 3), ("UV", 2), ("W", 2), ("UV", 1), ("W", 1),
        ]  # fmt: skip

    @pytest.mark.parametrize("rows", [FEW, MANY])
    @pytest.mark.parametrize("bias", [True, False])
    def test_weights(self, rows, bias):
        """With relaxation = 1, the proximal ridge regression on the states that the layer has read."""
        model = make_mlp(WIDTHS, bias=bias)
        before = copy.deepcopy(model)
        damping = 0.2
        optimizer = torchbcd.RelaxedBCD(model, "squared", 1.0, 1.0, damping=damping, **PLAIN)
        x, y = make_data(rows, WIDTHS[0], WIDTHS[-1])
        _, seen = watched_sweep(optimizer, x, y)
        variables = by_index(seen)
        layers = [module for module in before if isinstance(module, nn.Linear)]
        with torch.no_grad():
            v, read = x, []
            for layer in layers:
                read.append(v)
                v = layer(v).relu()
            for i, layer in enumerate(layers):
                target = (variables["V", 3] if i == 3 else variables["UV", i]).U[i]
                inputs = torch.cat([read[i], torch.ones(rows, 1, dtype=x.dtype)], 1) if bias else read[i]
                residual = target - layer(read[i])
                gram = inputs.t() @ inputs + proximal(read[i], damping, bias)
                step = torch.linalg.solve(gram, inputs.t() @ residual).t()
                after = variables["W", i]
                torch.testing.assert_close(after.W[i], layer.weight + step[:, : read[i].shape[1]])
                if bias:
                    torch.testing.assert_close(after.b[i], layer.bias + step[:, -1])

    @pytest.mark.parametrize("omega", [1.0, 0.4])
    def test_states(self, omega):
        """So many times the exact line search along the steepest descent, within a linear piece."""
        model = make_mlp(WIDTHS, hidden="identity")
        optimizer = torchbcd.RelaxedBCD(model, over_relaxation=omega, **PLAIN)
        report, seen = watched_sweep(optimizer, *make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        variables = by_index(seen)
        assert report.halved == 0
        before, after = variables["W", 2], variables["UV", 1]
        residual = before.U[2] - before.V[2] @ before.W[2].t() - before.b[2]
        z = residual @ before.W[2]
        ratio = report.penalties[1] / report.penalties[2]
        length = z.square().sum() / ((z @ before.W[2].t()).square().sum() + ratio * z.square().sum())
        torch.testing.assert_close(after.U[1], before.U[1] + omega * length * z)
        assert all(later > earlier for earlier, later in itertools.pairwise(report.penalties))

    def test_conjugate_gradients_solve_the_block(self):
        """With as many steps as units the states of a linear net minimise their block."""
        widths = [4, 6, 5, 3]
        model = make_mlp(widths, hidden="identity")
        optimizer = torchbcd.RelaxedBCD(model, over_relaxation=1.0, state_steps=6, **PLAIN)
        x, y = make_data(FEW, 4, 3)
        report, seen = watched_sweep(optimizer, x, y)
        variables = by_index(seen)
        before, after = variables["W", 1], variables["UV", 0]
        ratio = report.penalties[0] / report.penalties[1]
        residual = before.U[1] - before.V[1] @ before.W[1].t() - before.b[1]
        w = before.W[1]
        expected = torch.linalg.solve(w.t() @ w + ratio * torch.eye(6).double(), (residual @ w).t()).t()
        torch.testing.assert_close(after.U[0] - before.U[0], expected, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("rows", [12, 11])  # blocks of one size, and a smaller last one
    @pytest.mark.parametrize("bias", [True, False])
    def test_row_blocks(self, bias, rows):
        """W by the average of ridge regressions on blocks of rows, states by one length for all rows."""
        widths, blocks, block, damping, nu, omega = [9, 8, 7, 3], 3, 4, 0.2, 0.8, 1.7
        model = make_mlp(widths, bias=bias)
        optimizer = torchbcd.RelaxedBCD(model, "squared", nu, nu, omega, damping, row_blocks=blocks, **PLAIN)
        layers = [copy.deepcopy(module) for module in model if isinstance(module, nn.Linear)]
        x, y = make_data(rows, widths[0], widths[-1])
        report, seen = watched_sweep(optimizer, x, y)
        variables = by_index(seen)
        with torch.no_grad():
            outputs = [x]
            for layer in layers:
                outputs.append(layer(outputs[-1].relu() if len(outputs) > 1 else x))
            for i in reversed(range(3)):
                layer, v = layers[i], outputs[i].relu() if i > 0 else x
                target = (variables["V", 2] if i == 2 else variables["UV", i]).U[i]
                inputs = torch.cat([v, torch.ones(rows, 1, dtype=x.dtype)], 1) if bias else v
                residual = target - outputs[i + 1]
                steps, left = [], []
                for a, r in zip(inputs.split(block), residual.split(block), strict=True):
                    gram = a.t() @ a + proximal(v, damping, bias)
                    steps.append(nu * block / rows * torch.linalg.solve(gram, a.t() @ r))
                    left.append(r - a @ steps[-1])  # what the block's own share leaves
                step = sum(steps).t()
                after = variables["W", i]
                torch.testing.assert_close(after.W[i], layer.weight + step[:, : v.shape[1]])
                if bias:
                    torch.testing.assert_close(after.b[i], layer.bias + step[:, -1])
                if i > 0:
                    slope = (outputs[i] > 0).to(x.dtype)
                    z = slope * (torch.cat(left) @ after.W[i])
                    sample, ratio = z[::blocks], report.penalties[i - 1] / report.penalties[i]
                    curvature = ((sample * slope[::blocks]) @ after.W[i].t()).square().sum()
                    length = sample.square().sum() / (curvature + ratio * sample.square().sum())
                    torch.testing.assert_close(variables["UV", i - 1].U[i - 1], outputs[i] + omega * length * z)
        assert [math.isnan(fall) for _, _, fall in report.certificate.blocks] == [False] + 5 * [True]
        assert math.isnan(report.objective)

    def test_row_blocks_of_equal_rows(self):
        """Where float32 leaves no pivot the systems are solved in float64."""
        x, y = make_data(1, 9, 3)
        x, y = x.repeat(8, 1), y.repeat(8)
        weights = []
        for dtype in (torch.float32, torch.float64):
            model = make_mlp([9, 8, 3]).to(dtype)
            torchbcd.RelaxedBCD(model, damping=1e-9, row_blocks=2).step(x.to(dtype), y)
            weights.append([p.double() for p in model.parameters()])
        for single, double in zip(*weights, strict=True):
            torch.testing.assert_close(single, double, rtol=1e-3, atol=1e-4)

    def test_row_blocks_that_are_not_smaller_than_the_layers_are_exact(self):
        data = make_data(MANY, WIDTHS[0], WIDTHS[-1])
        exact, blocked = make_mlp(WIDTHS), make_mlp(WIDTHS)
        torchbcd.RelaxedBCD(exact).step(*data)
        report = torchbcd.RelaxedBCD(blocked, row_blocks=2).step(*data)
        assert all(torch.equal(a, b) for a, b in zip(exact.parameters(), blocked.parameters(), strict=True))
        assert report.decrease > 0

    def test_growth(self):
        model = make_mlp([4, 5, 5, 5, 5, 3])
        optimizer = torchbcd.RelaxedBCD(model, relaxation=0.4, growth=2.0, output_relaxation=0.1)
        assert [group["relaxation"] for group in optimizer.param_groups] == [1.5, 1.5, 0.8, 0.4, 0.1]
        listed = torchbcd.RelaxedBCD(model, relaxation=[0.1, 0.2, 0.3, 0.4, 0.5], growth=2.0)
        assert [group["relaxation"] for group in listed.param_groups] == [0.1, 0.2, 0.3, 0.4, 0.5]

    def test_cap(self):
        cap = 0.02
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), cap=cap)
        _, seen = watched_sweep(optimizer, *make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        variables = by_index(seen)
        for i in (0, 1, 2):
            before, after = variables["W", i + 1], variables["UV", i]
            assert (after.U[i] - before.U[i]).norm() <= cap * before.V[i + 1].norm() * (1 + 1e-9)

    def test_dense_and_sparse_checks_agree(self):
        """A leaky ReLU goes through the row-by-row search; a polynomial u, the same function, does not."""
        results = []
        for hidden in ("identity", "polynomial"):
            model = make_mlp(WIDTHS, hidden=hidden)
            for i, module in enumerate(model):
                if isinstance(module, torchbcd.nn.Polynomial):
                    model[i] = torchbcd.nn.Polynomial([0.0, 1.0])
            optimizer = torchbcd.RelaxedBCD(model)
            for _ in range(5):
                optimizer.step(*make_data(FEW, WIDTHS[0], WIDTHS[-1]))
            results.append(model[0].weight.detach())
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("regularizer", [None, reg.L1(0.02)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("inputs", [1, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_what_is_kept_of_bound_inputs(regularizer, scale, inputs, dtype):
    """The first layer's Gram matrix: steps are those of an optimizer that is given the rows anew every time."""
    widths = (inputs, 8, 5, 3)
    x, y = make_data(MANY, inputs, 3, dtype=dtype)
    x = scale * x + (1e4 if scale > 1 else 0)
    kept, anew = (make_mlp(widths, dtype=dtype) for _ in range(2))
    options = {"momentum": 0.0, "weight_decay": 0.0, "weight_regularizer": regularizer, "relaxation": 0.5}
    optimizer, other = (torchbcd.RelaxedBCD(model, **options) for model in (kept, anew))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.bind(x, y)
        for trained in ((True, True), (True, True), (True, False), (False, True), (False, False), (True, True)):
            for model in (kept, anew):
                for parameter, is_trained in zip(model[0].parameters(), trained, strict=True):
                    parameter.requires_grad_(is_trained)
            other.bind(x, y)
            optimizer.step()
            other.step()
            assert all(map(torch.equal, kept.parameters(), anew.parameters()))
        fewer = x[: MANY // 2], y[: MANY // 2]
        for each in (optimizer, other):
            each.bind(*fewer)
            each.step()
        optimizer.step(*fewer)
        other.step(*fewer)
        assert all(map(torch.equal, kept.parameters(), anew.parameters()))
