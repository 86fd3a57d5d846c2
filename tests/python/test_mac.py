"""MAC: all V as one block against autograd, scipy and least squares; its objective; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_data, make_mlp
from objectives import recomputed_objective
from scipy.optimize import least_squares
from torch import nn
from torch.nn import functional as nnf

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS, ROWS = [3, 4, 5, 2], 12
GAMMA, STATES = [0.3, 1.1, 0.7], [0.05, 0.0, 0.2]
SMOOTH = ("sigmoid", "tanh", "silu", "identity", "polynomial")


def build(hidden, gamma=1.0, *, output=None, bias=True, size=1.0, dtype=torch.float64, **options):
    """MAC with penalties of its own for every layer, and bound rows with states and weights of their own."""
    model = make_mlp(WIDTHS, hidden=hidden, output=output, bias=bias).to(dtype)
    x = make_data(ROWS, WIDTHS[0], 2)[0].to(dtype)
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    y, v = 2 * normal(ROWS, WIDTHS[-1]), [size * normal(ROWS, d) for d in WIDTHS[1:]]
    weight = normal(ROWS).abs() + 0.1
    weight[0] = 0
    optimizer = torchbcd.MAC(
        model,
        gamma=[gamma * g for g in GAMMA],
        loss_weight=1.7,
        state_regularizer=[reg.L2(s) for s in STATES],
        **options,
    )
    optimizer.bind(x, y, weight, v=v)
    return model, optimizer, x, y, weight


def residuals(model, gamma, x, y, weight, v):
    """Rows whose squares make twice the objective of all V, at the model's weights; v is (n, sum of widths)."""
    states = list(v.split(WIDTHS[1:], 1))
    linear = [m for m in model if isinstance(m, nn.Linear)]
    hidden = [m for m in model if not isinstance(m, nn.Linear)]
    parts = [(1.7 * weight).sqrt()[:, None] * (states[-1] - y)]
    for i, state in enumerate(states):
        image = linear[i](x if i == 0 else states[i - 1])
        image = hidden[i](image) if i < len(hidden) else image
        parts += [(gamma * GAMMA[i]) ** 0.5 * (state - image), STATES[i] ** 0.5 * state]
    return torch.cat(parts, 1)


def joint_block(hidden, gamma=1.0, **options):
    """(v before, v after, objective of rows of v) of the V block of a sweep; the weights are those before it."""
    model, optimizer, *data = build(hidden, gamma, **options)
    before = torch.cat(optimizer.variables().V[1:], 1)
    frozen = make_mlp(WIDTHS, hidden=hidden, output=options.get("output"), bias=options.get("bias", True))
    frozen.load_state_dict(model.state_dict())
    optimizer.step()
    exact = [t.double() for t in data]
    return (
        before.double(),
        torch.cat(optimizer.variables().V[1:], 1).double(),
        lambda v: residuals(frozen, gamma, *exact, v),
    )


class TestJointBlock:
    @pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
    @pytest.mark.parametrize("gamma", [1e-3, 1.0, 1e3])
    @pytest.mark.parametrize("hidden", [*SMOOTH, ("sigmoid", "silu")], ids=str)
    def test_is_stationary(self, hidden, gamma, size):
        """No entry of the gradient of all V is beyond 1e-8 of the terms that cancel in it, and no row rose."""
        before, after, of = joint_block(hidden, gamma, size=size)
        after.requires_grad_()
        found = of(after)
        (gradient,) = torch.autograd.grad(found.square().sum() / 2, after)
        rows = found.square().sum(1).detach()
        # |J^T r| against |J| |r|: each column of J is no longer than the sum of the penalties' roots.
        jacobian = torch.func.jacrev(lambda v: of(v).sum(0))(after.detach())
        scale = jacobian.norm(dim=(0, 2)).clamp_min(1) * rows.sqrt()
        relative = gradient.abs().amax(1) / scale
        assert relative.max() < 1e-8
        assert (rows <= of(before).square().sum(1) * (1 + 1e-15)).all()
        assert (before - after.detach()).abs().amax(1).min() > 1e-3

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("output", [None, "tanh"])
    def test_without_biases_and_with_an_output_activation(self, output, bias):
        _, after, of = joint_block(("tanh", "sigmoid"), output=output, bias=bias)
        after.requires_grad_()
        (gradient,) = torch.autograd.grad(of(after).square().sum() / 2, after)
        assert gradient.abs().max() < 1e-9

    def test_linear_nets_have_the_least_squares_solution(self):
        _, after, of = joint_block("identity")
        zero = torch.zeros_like(after)
        for row in range(ROWS):
            jacobian = torch.func.jacrev(of)(zero)[row, :, row]
            solution = torch.linalg.lstsq(jacobian, -of(zero)[row][:, None]).solution[:, 0]
            torch.testing.assert_close(after[row], solution, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "silu"])
    def test_against_scipy(self, hidden):
        """From the same start, from zero and from scattered ones: nearly all rows have the best of them."""
        before, after, of = joint_block(hidden)
        random = np.random.default_rng(0)
        best = []
        for row in range(ROWS):

            def terms(v, row=row):
                whole = after.clone()
                whole[row] = torch.tensor(v)
                return of(whole)[row].detach().numpy()

            starts = [before[row].numpy(), np.zeros(after.shape[1]), *random.normal(size=(4, after.shape[1]))]
            found = [least_squares(terms, start, xtol=1e-14, ftol=1e-14, gtol=1e-12).cost for start in starts]
            mine = (terms(after[row].numpy()) ** 2).sum() / 2
            assert mine <= max(found) * (1 + 1e-9)
            best.append(mine <= min(found) * (1 + 1e-9))
        assert sum(best) >= ROWS - 2

    @pytest.mark.parametrize("hidden", SMOOTH)
    def test_float32(self, hidden):
        """The same to rounding, and no row rises."""
        before, after, of = joint_block(hidden, dtype=torch.float32)
        assert (of(before).square().sum(1) >= of(after).square().sum(1)).all()
        exact = joint_block(hidden)[1]
        torch.testing.assert_close(after, exact, rtol=1e-5, atol=1e-5)

    def test_many_rows(self):
        """More than are solved together; each has what it has alone."""
        widths, rows = [5, 60, 60, 3], 400
        x, y = make_data(rows, 5, 3)
        results = []
        for data in ((x, y), (x[-50:], y[-50:])):
            optimizer = torchbcd.MAC(make_mlp(widths, hidden="tanh"), gamma=0.3)
            optimizer.bind(*data)
            optimizer.step()
            results.append([v[-50:] for v in optimizer.variables().V[1:]])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


class TestSweeps:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("weights", [None, reg.L2(0.01), reg.L1(0.01), reg.Box(-1.0, 1.0)], ids=str)
    @pytest.mark.parametrize("hidden", [*SMOOTH, ("tanh", "identity")], ids=str)
    def test_the_objective_never_rises(self, hidden, weights, dtype):
        model = make_mlp([6, 8, 7, 3], hidden=hidden, dtype=dtype)
        x, y = make_data(40, 6, 3, dtype=dtype)
        optimizer = torchbcd.MAC(model, gamma=[0.5, 1.0, 2.0], weight_regularizer=weights)
        optimizer.bind(x, y)
        optimizer.step()
        slack = 1e-12 if dtype == torch.float64 else 2e-6
        first = previous = optimizer.objective()
        for _ in range(20 if weights is None else 5):
            optimizer.step()
            objective = optimizer.objective()
            again = recomputed_objective(optimizer, model, "squared", y, 2)
            assert objective == pytest.approx(again, rel=1e-9 if dtype == torch.float64 else 1e-4)
            assert objective <= previous * (1 + slack)
            previous = objective
        assert previous < first

    def test_it_is_bcd_with_options_and_trains(self):
        model, twin_model = (make_mlp([6, 8, 3], hidden="sigmoid") for _ in range(2))
        x, y = make_data(40, 6, 3)
        mac = torchbcd.MAC(model, gamma=0.5)
        twin = torchbcd.BCD(twin_model, "squared", splitting=2, order="joint", gamma=0.5, alpha=7.0)
        for optimizer in (mac, twin):
            optimizer.bind(x, y)
            for _ in range(30):
                optimizer.step()
        assert mac.objective() == twin.objective()
        target = nnf.one_hot(y, 3).double()
        before = nnf.mse_loss(make_mlp([6, 8, 3], hidden="sigmoid")(x), target)
        assert nnf.mse_loss(model(x), target) < 0.5 * before

    def test_the_residual_falls(self):
        model = make_mlp([6, 5, 3], hidden="tanh")
        optimizer = torchbcd.MAC(model, gamma=1.0, weight_regularizer=reg.L2(0.5))
        optimizer.bind(*make_data(30, 6, 3))
        residuals = [optimizer.step().residual for _ in range(100)]
        assert residuals[-1] < 0.01 * residuals[0]

    @pytest.mark.parametrize("hidden", ["identity", "sigmoid"])
    def test_inputs_of_low_rank(self, hidden):
        """Fewer rows than inputs, a column of zeros, one twice: a W block without a proximal term is singular."""
        model = make_mlp([20, 15, 3], hidden=hidden)
        x, y = make_data(6, 20, 3)
        x[:, 3], x[:, 4] = 0, x[:, 5]
        optimizer = torchbcd.MAC(model, gamma=0.5)
        optimizer.bind(x, y)
        previous = optimizer.objective()
        for _ in range(10):
            optimizer.step()
            assert optimizer.objective() <= previous * (1 + 1e-12)
            previous = optimizer.objective()
        assert all(p.isfinite().all() for p in model.parameters())
        assert max(p.abs().max() for p in model.parameters()) < 100


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"state_regularizer": reg.L1(0.1)}, "state_regularizer that is a squared norm or none .layer 1"),
            ({"state_regularizer": [None, None, reg.Nonnegative()]}, "squared norm or none .layer 3"),
            ({"inner_sweeps": 2}, "inner_sweeps must be 1 where order is a list of blocks or 'joint' .got 2."),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            torchbcd.MAC(make_mlp(WIDTHS, hidden="tanh"), **options)

    @pytest.mark.parametrize("activation", ["relu", "leaky_relu", "hardtanh", "hardsigmoid", "sign"])
    def test_activations(self, activation):
        with pytest.raises(ValueError, match=f"needs smooth activations .got '{activation}' in layer 2"):
            torchbcd.MAC(make_mlp(WIDTHS, hidden=("tanh", activation)))

    def test_of_the_order(self):
        model = make_mlp(WIDTHS, hidden="tanh")
        with pytest.raises(ValueError, match="order 'joint' needs splitting 2"):
            torchbcd.BCD(model, order="joint")
        with pytest.raises(ValueError, match="order 'joint' needs the loss 'squared' .got 'logistic'."):
            torchbcd.BCD(model, "logistic", order="joint", splitting=2)

    def test_lemma_5(self):
        optimizer = torchbcd.MAC(make_mlp(WIDTHS, hidden="tanh"))
        report = optimizer.step(*make_data(ROWS, 3, 2))
        assert report.decrease > 0
        with pytest.raises(ValueError, match="which order 'joint' has none of"):
            _ = report.descent
