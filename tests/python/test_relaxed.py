"""RelaxedBCD: the certificate recomputed after every block, the blocks by brute force, the contract."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from conftest import ACTIVATIONS, make_data, make_mlp
from objectives import LOSSES, regularizer_value, row_losses
from torch import nn

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = [6, 20, 18, 16, 3]
FEW, MANY = 10, 60  # rows: fewer and more than the widths, for both forms of the W block


def lifted_objective(variables, penalties, regularizer, loss, y, *, clamped):
    """L from the variables alone, in float64."""
    total = 0.0
    for i, penalty in enumerate(penalties):
        product = variables.V[i].double() @ variables.W[i].double().t()
        if variables.b[i] is not None:
            product = product + variables.b[i].double()
        total += penalty / 2 * (variables.U[i].double() - product).square().sum().item()
        total += penalty * regularizer_value(regularizer, variables.W[i])
    if not clamped:
        total += row_losses(loss, variables.V[-1].double(), y).sum().item()
    return total


def watched_sweep(optimizer, *data):
    """A step, with the variables after every block."""
    seen = []
    optimizer.set_observer(lambda block, layer: seen.append(((block, layer), optimizer.variables())))
    report = optimizer.step(*data)
    optimizer.set_observer(None)
    return report, seen


def assert_certified(report, seen, regularizer, loss, y, *, clamped, dtype):
    """No block raised L, and the report's numbers are those of L recomputed."""
    values = [
        lifted_objective(variables, report.penalties, regularizer, loss, y, clamped=clamped)
        for _, variables in seen
    ]
    certificate = report.certificate
    unit = torch.finfo(dtype).eps
    # A residual's rounding is relative to the states it is a difference of.
    states = sum(v.square().sum().item() for v in seen[-1][1].V)
    scale = certificate.before + math.sqrt(certificate.before * states) + unit * states
    known = certificate.before
    for (name, _), value, (block, layer, decrease) in zip(seen, values, certificate.blocks, strict=True):
        assert name == (block, layer)
        assert decrease >= -100 * unit * scale
        known -= decrease
        assert known == pytest.approx(value, abs=2000 * unit * scale)
    for earlier, later in itertools.pairwise([certificate.before, *values]):
        assert later <= earlier + 200 * unit * scale
    assert certificate.after == pytest.approx(values[-1], abs=2000 * unit * scale)


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_no_block_raises_the_objective(activation, steps, rows, dtype):
    model = make_mlp(WIDTHS, hidden=activation, dtype=dtype)
    optimizer = torchbcd.RelaxedBCD(model, state_steps=steps)
    x, y = make_data(rows, WIDTHS[0], WIDTHS[-1], dtype=dtype)
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


def test_sign_layers_learn(digits):
    """Backpropagation teaches the last layer alone; flipped states teach the ones before it."""
    x, y = digits
    accuracies = []
    for hidden in (0.0, 0.3):
        model = make_mlp([64, 50, 50, 10], hidden="sign", dtype=torch.float32)
        optimizer = torchbcd.RelaxedBCD(model, relaxation=[hidden, hidden, 0.05])
        optimizer.fit(x, y, 8, 50, generator=torch.Generator().manual_seed(0))
        accuracies.append((model(x).argmax(1) == y).double().mean().item())
    last_layer, all_layers = accuracies
    assert last_layer < 0.75
    assert all_layers > 0.85


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


class TestBlocks:
    def test_order(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        _, seen = watched_sweep(optimizer, *make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        assert [name for name, _ in seen] == [
            ("V", 3), ("W", 3), ("UV", 2), ("W", 2), ("UV", 1), ("W", 1), ("UV", 0), ("W", 0),
        ]  # fmt: skip

    @pytest.mark.parametrize("rows", [FEW, MANY])
    @pytest.mark.parametrize("bias", [True, False])
    def test_weights(self, rows, bias):
        """With relaxation = 1, the proximal ridge regression on the states that the layer has read."""
        model = make_mlp(WIDTHS, bias=bias)
        before = copy.deepcopy(model)
        damping = 0.2
        optimizer = torchbcd.RelaxedBCD(model, relaxation=1.0, output_relaxation=1.0, damping=damping)
        x, y = make_data(rows, WIDTHS[0], WIDTHS[-1])
        _, seen = watched_sweep(optimizer, x, y)
        variables = dict(seen)
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
                alpha = damping * read[i].square().sum() / inputs.shape[1]
                gram = inputs.t() @ inputs + alpha * torch.eye(inputs.shape[1], dtype=x.dtype)
                step = torch.linalg.solve(gram, inputs.t() @ residual).t()
                after = variables["W", i]
                torch.testing.assert_close(after.W[i], layer.weight + step[:, : read[i].shape[1]])
                if bias:
                    torch.testing.assert_close(after.b[i], layer.bias + step[:, -1])

    @pytest.mark.parametrize("omega", [1.0, 0.4])
    def test_states(self, omega):
        """So many times the exact line search along the steepest descent, within a linear piece."""
        model = make_mlp(WIDTHS, hidden="identity")
        optimizer = torchbcd.RelaxedBCD(model, over_relaxation=omega)
        report, seen = watched_sweep(optimizer, *make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        variables = dict(seen)
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
        optimizer = torchbcd.RelaxedBCD(model, over_relaxation=1.0, state_steps=6)
        x, y = make_data(FEW, 4, 3)
        report, seen = watched_sweep(optimizer, x, y)
        variables = dict(seen)
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
        optimizer = torchbcd.RelaxedBCD(
            model, relaxation=nu, output_relaxation=nu, damping=damping, over_relaxation=omega, row_blocks=blocks
        )
        layers = [copy.deepcopy(module) for module in model if isinstance(module, nn.Linear)]
        x, y = make_data(rows, widths[0], widths[-1])
        report, seen = watched_sweep(optimizer, x, y)
        variables = dict(seen)
        with torch.no_grad():
            outputs = [x]
            for layer in layers:
                outputs.append(layer(outputs[-1].relu() if len(outputs) > 1 else x))
            for i in reversed(range(3)):
                layer, v = layers[i], outputs[i].relu() if i > 0 else x
                target = (variables["V", 2] if i == 2 else variables["UV", i]).U[i]
                inputs = torch.cat([v, torch.ones(rows, 1, dtype=x.dtype)], 1) if bias else v
                residual, alpha = target - outputs[i + 1], damping * v.square().sum() / inputs.shape[1]
                steps, left = [], []
                for a, r in zip(inputs.split(block), residual.split(block), strict=True):
                    gram = a.t() @ a + alpha * torch.eye(a.shape[1], dtype=x.dtype)
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
        variables = dict(seen)
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


class TestGuard:
    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_the_true_loss_never_rises(self, activation):
        model = make_mlp(WIDTHS, hidden=activation)
        x, y = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        optimizer = torchbcd.RelaxedBCD(model, relaxation=1.9, output_relaxation=1.9, damping=1e-3, guard=True)
        value, halvings = math.inf, 0
        for _ in range(60):
            halvings += optimizer.step(x, y).guard_halvings
            after = row_losses("squared", model(x).detach(), y).sum().item()
            assert after <= value
            value = after
        assert halvings > 0

    def test_it_changes_nothing_where_nothing_rises(self):
        weights = []
        for guard in (False, True):
            model = make_mlp(WIDTHS)
            optimizer = torchbcd.RelaxedBCD(model, guard=guard, relaxation=0.1)
            for _ in range(3):
                assert optimizer.step(*make_data(MANY, WIDTHS[0], WIDTHS[-1])).guard_halvings == 0
            weights.append(model[0].weight.detach())
        assert torch.equal(*weights)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("momentum", "decay"), [(0.7, 0.0), (0.0, 0.03), ([0.9, 0.0, 0.5, 0.2], [0.0, 0.1, 0.02, 0.3])]
)
class TestMomentumAndDecay:
    def test_sweeps_start_further_on(self, momentum, decay, bias):
        """The same weights as when a plain optimizer is given (1 - lr decay) W + momentum D before each step."""
        model, plain = make_mlp(WIDTHS, bias=bias), make_mlp(WIDTHS, bias=bias)
        optimizer = torchbcd.RelaxedBCD(model, momentum=momentum, weight_decay=decay, lr=0.5)
        reference = torchbcd.RelaxedBCD(plain, lr=0.5)
        factors = [group for group in optimizer.param_groups for _ in range(1 + bias)]
        velocity = [torch.zeros_like(p) for p in plain.parameters()]
        for rows in (FEW, MANY, FEW, FEW, MANY):
            data = make_data(rows, WIDTHS[0], WIDTHS[-1])
            report = optimizer.step(*data)
            before = [p.detach().clone() for p in plain.parameters()]
            with torch.no_grad():
                for p, d, group in zip(plain.parameters(), velocity, factors, strict=True):
                    p.mul_(1 - 0.5 * group["weight_decay"] * (p.dim() == 2)).add_(d, alpha=group["momentum"])
            expected = reference.step(*data)
            velocity = [p.detach() - b for p, b in zip(plain.parameters(), before, strict=True)]
            assert report.certificate == expected.certificate
            for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)

    def test_state_dict_continues_bit_for_bit(self, momentum, decay, bias):
        model = make_mlp(WIDTHS, bias=bias)
        optimizer = torchbcd.RelaxedBCD(model, momentum=momentum, weight_decay=decay)
        data = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        for _ in range(3):
            optimizer.step(*data)
        other = copy.deepcopy(model)
        copied = torchbcd.RelaxedBCD(other)
        copied.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for _ in range(3):
            optimizer.step(*data)
            copied.step(*data)
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    def test_a_failed_sweep_is_as_if_it_had_not_been(self, momentum, decay, bias):
        weights = []
        for fail in (False, True):
            model = make_mlp(WIDTHS, bias=bias)
            optimizer = torchbcd.RelaxedBCD(model, momentum=momentum, weight_decay=decay)
            data = make_data(FEW, WIDTHS[0], WIDTHS[-1])
            optimizer.step(*data)
            if fail:
                with pytest.raises(ValueError, match="x must be finite"):
                    optimizer.step(data[0] / 0, data[1])

                def interrupt(block, layer):
                    if (block, layer) == ("W", 0):
                        raise KeyboardInterrupt

                optimizer.set_observer(interrupt)
                with pytest.raises(KeyboardInterrupt):
                    optimizer.step(*data)
                optimizer.set_observer(None)
            optimizer.step(*data)
            weights.append(list(model.parameters()))
        for mine, theirs in zip(*weights, strict=True):
            assert torch.equal(mine, theirs)

    def test_guard_is_for_the_model_s_weights(self, momentum, decay, bias):
        model = make_mlp(WIDTHS, bias=bias)
        x, y = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        optimizer = torchbcd.RelaxedBCD(
            model, momentum=momentum, weight_decay=decay, relaxation=1.9, damping=1e-3, guard=True
        )
        value = math.inf
        for _ in range(30):
            optimizer.step(x, y)
            after = row_losses("squared", model(x).detach(), y).sum().item()
            assert after <= value
            value = after


class TestPersistent:
    @pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
    @pytest.mark.parametrize("activation", ["relu", "sigmoid"])
    def test_one_chain_over_all_sweeps(self, activation, loss):
        model = make_mlp(WIDTHS, hidden=activation)
        optimizer = torchbcd.RelaxedBCD(model, loss, persistent=True, weight_regularizer=reg.L2(0.01))
        x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1])
        optimizer.bind(x, y)
        previous, penalties = None, None
        for _ in range(30):
            report, seen = watched_sweep(optimizer)
            assert_certified(report, seen, reg.L2(0.01), loss, y, clamped=loss == "squared", dtype=torch.float64)
            if previous is not None:
                assert report.before == pytest.approx(previous, rel=1e-9)
                assert report.penalties == penalties
            previous, penalties = report.objective, report.penalties

    def test_state_dict_continues_bit_for_bit(self):
        model = make_mlp(WIDTHS)
        optimizer = torchbcd.RelaxedBCD(model, persistent=True)
        optimizer.bind(*make_data(MANY, WIDTHS[0], WIDTHS[-1]))
        for _ in range(4):
            optimizer.step()
        other = copy.deepcopy(model)
        copied = torchbcd.RelaxedBCD(other, persistent=True)
        copied.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for _ in range(4):
            assert optimizer.step().objective == copied.step().objective
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    def test_goes_with_no_momentum(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), persistent=True, momentum=0.5)
        optimizer.bind(*make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        with pytest.raises(ValueError, match="persistent variables go with no momentum and no weight_decay"):
            optimizer.step()

    def test_needs_bound_data(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), persistent=True)
        with pytest.raises(ValueError, match="persistent variables need bound data"):
            optimizer.step(*make_data(FEW, WIDTHS[0], WIDTHS[-1]))


class TestContract:
    def test_lr_scheduler(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)
        data = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        factors = []
        for _ in range(5):
            factors.append(optimizer.param_groups[0]["lr"])
            optimizer.step(*data)
            scheduler.step()
        assert factors == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
        model = copy.deepcopy(optimizer.param_groups[0]["params"][0])
        optimizer.step(*data)  # lr = 0: the weights stay
        assert torch.equal(model, optimizer.param_groups[0]["params"][0])

    def test_state_dict_continues_bit_for_bit(self):
        model = make_mlp(WIDTHS)
        optimizer = torchbcd.RelaxedBCD(model, relaxation=[0.1, 0.2, 0.3, 0.4])
        data = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        optimizer.step(*data)
        other = copy.deepcopy(model)
        copied = torchbcd.RelaxedBCD(other)
        copied.load_state_dict(optimizer.state_dict())
        for _ in range(3):
            optimizer.step(*data)
            copied.step(*data)
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    def test_bound_and_given_data_agree(self):
        data = make_data(MANY, WIDTHS[0], WIDTHS[-1])
        weights = []
        for bound in (False, True):
            model = make_mlp(WIDTHS)
            optimizer = torchbcd.RelaxedBCD(model)
            optimizer.bind(*data)
            for _ in range(3):
                optimizer.step(*(() if bound else data))
            weights.append(model[0].weight.detach())
        assert torch.equal(*weights)

    def test_batches_of_any_size(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        for rows in (5, 40, 7, 41, 1, 40):
            report = optimizer.step(*make_data(rows, WIDTHS[0], WIDTHS[-1]))
            assert report.objective <= report.before

    def test_closure(self):
        data = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        assert optimizer.step(lambda: data).decrease > 0

    def test_a_failed_sweep_leaves_the_weights(self):
        model = make_mlp(WIDTHS)
        before = copy.deepcopy(model.state_dict())
        optimizer = torchbcd.RelaxedBCD(model)

        def interrupt(block, layer):
            if (block, layer) == ("UV", 0):
                raise KeyboardInterrupt

        optimizer.set_observer(interrupt)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(*make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])
        with pytest.raises(ValueError, match="call step first"):
            optimizer.variables()

    def test_reports_do_not_expire(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        data = make_data(FEW, WIDTHS[0], WIDTHS[-1])
        kept = optimizer.step(*data)
        eager = torchbcd.RelaxedBCD(make_mlp(WIDTHS), certificate=True).step(*data)
        optimizer.step(*data)
        assert kept.certificate == eager.certificate

    def test_objective_is_the_certificate_s_end(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS), "cross_entropy")
        report = optimizer.step(*make_data(FEW, WIDTHS[0], WIDTHS[-1]))
        assert optimizer.objective() == pytest.approx(report.objective)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"relaxation": 2.0}, r"relaxation \(times lr\) of layer 1 must be in \[0, 2\)"),
            ({"relaxation": 1.0, "lr": 2.5}, r"relaxation \(times lr\) of layer 1 must be in \[0, 2\)"),
            ({"relaxation": 1.5, "weight_regularizer": reg.L1(0.1)}, r"in \[0, 1\] with a regulariser"),
            ({"over_relaxation": 2.0}, r"over_relaxation of layer 1 must be in \(0, 2\)"),
            ({"damping": 0.0}, "damping of layer 1 must be a finite positive number"),
            ({"penalty_ratio": math.nan}, "penalty_ratio of layer 1 must be a finite positive number"),
            ({"state_steps": 0}, "state_steps of layer 1 must be at least 1"),
            ({"cap": -1.0}, "cap of layer 1 must be a finite number >= 0"),
            ({"output_penalty": 0.0}, "output_penalty must be a finite positive number"),
            ({"row_blocks": 0}, "row_blocks of layer 1 must be at least 1"),
            ({"row_blocks": 2, "weight_regularizer": reg.L2(0.1)}, "must be 1 where it has a weight_regularizer"),
            ({"momentum": 1.0}, r"momentum of layer 1 must be in \[0, 1\)"),
            ({"momentum": -0.1}, r"momentum of layer 1 must be in \[0, 1\)"),
            ({"weight_decay": 0.6, "lr": 2.0}, r"weight_decay \(times lr\) of layer 1 must be in \[0, 1\)"),
            (
                {"momentum": 0.1, "weight_regularizer": reg.Box(-1, 1)},
                "must be 0 where a weight_regularizer sets",
            ),
            ({"growth": 0.5}, "growth must be finite and at least 1"),
            ({"relaxation": [0.1]}, "relaxation must hold one number for each of the 4 layers"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            torchbcd.RelaxedBCD(make_mlp(WIDTHS), **options)

    def test_bad_types_and_models(self):
        with pytest.raises(TypeError, match="state_steps must be a whole number"):
            torchbcd.RelaxedBCD(make_mlp(WIDTHS), state_steps=1.5)
        with pytest.raises(ValueError, match="the last layer must have no activation"):
            torchbcd.RelaxedBCD(make_mlp(WIDTHS, output="tanh"), "cross_entropy")
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        with pytest.raises(ValueError, match=r"call bind\(x, y\) first"):
            optimizer.step()
        with pytest.raises(ValueError, match="must be finite"):
            optimizer.step(torch.full((3, 6), math.nan).double(), torch.zeros(3).long())


class TestFit:
    @staticmethod
    def problem(rows=400):
        x, _ = make_data(rows, 6, 3)
        return x, x[:, :3].argmax(1)

    def test_epochs(self):
        model = make_mlp(WIDTHS)
        optimizer = torchbcd.RelaxedBCD(model)
        x, y = self.problem()
        seen = []
        reports = optimizer.fit(
            x[:300], y[:300], 8, 25, validation=(x[300:], y[300:]), average=0.9, callback=seen.append,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert reports == seen
        assert [report.epoch for report in reports] == list(range(1, 9))
        assert reports[-1].loss < 0.5 * reports[0].loss
        assert reports[-1].validation_accuracy > 0.85
        assert [group["lr"] for group in optimizer.param_groups] == [1.0] * 4
        # The model holds the average that was measured last.
        accuracy = (model(x[300:]).argmax(1) == y[300:]).double().mean().item()
        assert accuracy == reports[-1].validation_accuracy

    @pytest.mark.parametrize("loss", LOSSES)
    def test_losses_are_those_of_the_engine(self, loss):
        model = make_mlp(WIDTHS)
        x, y = self.problem(40)
        expected = row_losses(loss, model(x).detach(), y).mean().item()
        (report,) = torchbcd.RelaxedBCD(model, loss, lr=0.0).fit(x, y, 1, 40, validation=(x, y))
        assert report.loss == pytest.approx(expected)
        assert report.validation_loss == pytest.approx(expected)

    def test_patience_restores_the_best(self):
        model = make_mlp(WIDTHS)
        x, _ = self.problem(60)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(3, (60,), generator=generator)  # nothing to generalise: it soon over-fits
        reports = torchbcd.RelaxedBCD(model).fit(
            x, noise, 60, 10, validation=(x + 1, noise), patience=3, decay=False, generator=generator
        )
        losses = [report.validation_loss for report in reports]
        assert len(reports) < 60
        assert len(losses) - 1 - losses.index(min(losses)) == 3
        restored = torchbcd.losses.mean_row_loss("squared", model(x + 1).detach(), noise)
        assert restored == pytest.approx(min(losses))

    @pytest.mark.parametrize(("hold", "expected"), [(0.0, [1, 0.75, 0.5, 0.25]), (0.5, [1, 1, 1, 0.5])])
    def test_lr_falls_to_zero(self, hold, expected):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        rates = []

        def watch(block, layer):
            if block == "V":
                rates.append(optimizer.param_groups[layer]["lr"])

        optimizer.set_observer(watch)
        optimizer.fit(*self.problem(40), 2, 20, hold=hold)
        assert rates == expected

    def test_the_same_seed_gives_the_same_weights(self):
        weights = []
        for _ in range(2):
            model = make_mlp(WIDTHS)
            generator = torch.Generator().manual_seed(3)
            torchbcd.RelaxedBCD(model).fit(*self.problem(80), 2, 10, noise=0.1, generator=generator)
            weights.append(model[0].weight.detach())
        assert torch.equal(*weights)

    def test_refusals(self):
        optimizer = torchbcd.RelaxedBCD(make_mlp(WIDTHS))
        data = self.problem(20)
        for options, message in (
            ({"epochs": 0}, "at least 1"),
            ({"average": 1.0}, r"average must be in \(0, 1\)"),
            ({"hold": 1.0}, r"hold must be in \[0, 1\)"),
            ({"patience": 2}, "patience needs validation data"),
        ):
            with pytest.raises(ValueError, match=message):
                optimizer.fit(*data, **options)


def test_a_deep_net_from_a_tiny_initialisation(digits):
    """Ten hidden layers, weights from N(0, 0.01^2): gradients vanish, the sweep does not mind."""
    x, y = digits
    torch.manual_seed(0)
    modules = []
    for inputs, outputs in itertools.pairwise([64] + [50] * 10 + [10]):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.constant_(linear.bias, 0.1)
        modules += [linear, nn.ReLU()]
    model = nn.Sequential(*modules[:-1])
    optimizer = torchbcd.RelaxedBCD.for_any_depth(model)
    optimizer.fit(x[:1400], y[:1400], 15, 50, generator=torch.Generator().manual_seed(0))
    assert (model(x[1400:]).argmax(1) == y[1400:]).double().mean() > 0.8


def test_digits_in_a_few_epochs(digits):
    x, y = digits
    model = make_mlp([64, 100, 100, 10], dtype=torch.float32)
    optimizer = torchbcd.RelaxedBCD(model)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    generator = torch.Generator().manual_seed(1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=20)
    for _ in range(20):
        for rows in train[torch.randperm(1400, generator=generator)].split(50):
            optimizer.step(x[rows], y[rows])
        scheduler.step()
    assert (model(x[test]).argmax(1) == y[test]).double().mean() >= 0.97
