"""Dropout: V = M sigma(U) with a mask M of the sweep's own; where it may stand, and who takes it."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from conftest import ACTIVATIONS, make_data
from relaxed_problems import MANY, PLAIN, STILL, assert_certified, by_index, watched_sweep
from torch import nn

import torchbcd
from torchbcd.nn import Residual

WIDTHS = [6, 12, 10, 3]
DROP = 0.4


def make_net(hidden="tanh", *, p=DROP, dtype=torch.float64, widths=WIDTHS):
    torch.manual_seed(0)
    modules = []
    for d, d_next in itertools.pairwise(widths):
        modules += [nn.Linear(d, d_next, dtype=dtype), ACTIVATIONS[hidden](), nn.Dropout(p)]
    return nn.Sequential(*modules[:-2])


def drawn(seed, rows, dtype=torch.float64, p=DROP, widths=WIDTHS):
    """The masks that torch draws of a seed."""
    torch.manual_seed(seed)
    return [nn.functional.dropout(torch.ones(rows, d, dtype=dtype), p) for d in widths[1:-1]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    ("activation", "loss"), [("relu", "squared"), ("tanh", "cross_entropy"), ("sign", "hinge")]
)
def test_no_block_raises_the_objective(activation, loss, steps, dtype):
    optimizer = torchbcd.RelaxedBCD(make_net(activation, dtype=dtype), loss, state_steps=steps, **STILL)
    x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1], dtype=dtype)
    for seed in range(2):
        masks = drawn(seed, MANY, dtype)
        torch.manual_seed(seed)
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, None, loss, y, clamped=loss == "squared", dtype=dtype)
        for _, variables in seen:
            for u, v, mask in zip(variables.U, variables.V[1:], masks, strict=False):
                torch.testing.assert_close(v, mask * ACTIVATIONS[activation]()(u))


def test_residuals():
    """Dropout within branches, and one whose layer a branch reads behind it, its skip before it."""
    for hidden in ("tanh", "identity"):
        act = ACTIVATIONS[hidden]
        linear = [
            nn.Linear(a, b, dtype=torch.float64) for a, b in [(6, 8), (8, 7), (7, 8), (8, 5), (5, 8), (8, 3)]
        ]
        model = nn.Sequential(
            *(linear[0], act(), nn.Dropout(DROP), Residual(linear[1], act(), nn.Dropout(DROP), linear[2])),
            *(Residual(nn.Dropout(DROP), linear[3], act(), linear[4]), act(), linear[5]),
        )
        optimizer = torchbcd.RelaxedBCD(model, "cross_entropy", **STILL)
        x, y = make_data(MANY, 6, 3)
        with torch.no_grad():
            torch.manual_seed(5)
            expected = model(x)
        torch.manual_seed(5)
        report, seen = watched_sweep(optimizer, x, y)
        before = nn.functional.cross_entropy(expected, y, reduction="sum").item()
        assert report.before == pytest.approx(before, rel=1e-12)
        assert all(decrease >= -1e-12 * before for *_, decrease in report.certificate.blocks)
        assert len(seen) == len(report.certificate.blocks)


class TestBlocks:
    def problem(self, **options):
        """A linear net's variables around the block of its first states, with the mask."""
        model = make_net("identity")
        optimizer = torchbcd.RelaxedBCD(model, **{**PLAIN, **options})
        first = copy.deepcopy(model[0])
        x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1])
        mask = drawn(3, MANY)[0]
        torch.manual_seed(3)
        report, seen = watched_sweep(optimizer, x, y)
        variables = by_index(seen)
        before, after = variables["W", 1], variables["UV", 0]
        torch.testing.assert_close(before.V[1], mask * first(x).detach())
        residual = before.U[1] - before.V[1] @ before.W[1].t() - before.b[1]
        return before, after, mask, residual, report.penalties[0] / report.penalties[1]

    def test_states(self):
        before, after, mask, residual, ratio = self.problem(over_relaxation=0.7)
        z = mask * (residual @ before.W[1])
        curvature = ((mask * z) @ before.W[1].t()).square().sum() + ratio * z.square().sum()
        torch.testing.assert_close(after.U[0], before.U[0] + 0.7 * z.square().sum() / curvature * z)
        torch.testing.assert_close(after.V[1], mask * after.U[0])

    def test_conjugate_gradients_solve_the_block(self):
        before, after, mask, residual, ratio = self.problem(over_relaxation=1.0, state_steps=200)
        w = before.W[1]
        for j in range(0, MANY, 7):
            image = w * mask[j]
            system = image.t() @ image + ratio * torch.eye(len(mask[j]), dtype=w.dtype)
            expected = torch.linalg.solve(system, image.t() @ residual[j])
            torch.testing.assert_close(after.U[0][j] - before.U[0][j], expected, rtol=1e-6, atol=1e-8)


def test_without_any():
    """In eval mode, and with p = 0, it is the net without: to the bit, and no random number is drawn."""
    data = make_data(20, WIDTHS[0], WIDTHS[-1])
    plain = nn.Sequential(*(m for m in make_net() if not isinstance(m, nn.Dropout)))
    optimizers = [torchbcd.RelaxedBCD(model) for model in (plain, make_net().eval(), make_net(p=0.0))]
    state = torch.get_rng_state()
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.step(*data)
    assert torch.get_rng_state().equal(state)
    for optimizer in optimizers[1:]:
        for ours, theirs in zip(optimizer._model.parameters(), optimizers[0]._model.parameters(), strict=True):
            assert all(p.equal(q) for p, q in zip(ours.given, theirs.given, strict=True))


def test_mode_and_probability_are_followed():
    model = make_net()
    optimizer = torchbcd.RelaxedBCD(model)
    x, y = make_data(20, WIDTHS[0], WIDTHS[-1])

    def zeros():
        optimizer.step(x, y)
        return float(optimizer.variables().V[1].eq(0).double().mean())

    assert 0.2 < zeros() < 0.6
    model.eval()
    assert zeros() == 0
    model.train()
    model[2].p = 0.95
    assert zeros() > 0.8
    model[2].p = 1.0
    assert zeros() == 1
    assert all(p.isfinite().all() for p in model.parameters())


def test_copies_and_torchscript_continue_to_the_bit():
    model = make_net()
    optimizer = torchbcd.RelaxedBCD(model)
    x, y = make_data(20, WIDTHS[0], WIDTHS[-1])
    optimizer.step(x, y)
    other_model, other = copy.deepcopy((model, optimizer))
    scripted_model, scripted = copy.deepcopy((model, optimizer))
    script = scripted.script_object()
    for step in (lambda: optimizer.step(x, y), lambda: other.step(x, y), lambda: script.step(x, y)):
        torch.manual_seed(1)
        step()
    for twin in (other_model, scripted_model):
        assert all(p.equal(q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    # A state is of the model in either mode.
    evaluated = torchbcd.RelaxedBCD(make_net().eval())
    evaluated.load_state_dict(optimizer.state_dict())


def test_guard():
    """The loss that it keeps from rising is the one through the sweep's own masks."""
    model = make_net("relu")
    optimizer = torchbcd.RelaxedBCD(model, relaxation=1.9, output_relaxation=1.9, guard=True)
    x, y = make_data(20, WIDTHS[0], WIDTHS[-1])
    for seed in range(5):
        losses = []
        for _ in range(2):
            torch.manual_seed(seed)
            with torch.no_grad():
                losses.append((model(x) - nn.functional.one_hot(y, 3)).square().sum())
            torch.manual_seed(seed)
            if len(losses) == 1:
                optimizer.step(x, y)
        assert losses[1] <= losses[0] * (1 + 1e-12)


def test_fit_evaluates_without(digits):
    x, y = digits
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Dropout(0.3), nn.Linear(40, 10))
    optimizer = torchbcd.RelaxedBCD(model)
    seen = []

    def accuracy(net):
        seen.append(net.training)
        return 1 - float((net(x[1200:]).argmax(1) == y[1200:]).double().mean())

    optimizer.fit(x[:1200], y[:1200], epochs=2, validation=accuracy)
    assert seen == [False, False]
    assert model.training
    reports = optimizer.fit(x[:1200], y[:1200], epochs=2, validation=(x[1200:], y[1200:]))
    assert reports[-1].validation_accuracy == pytest.approx(
        float((model.eval()(x[1200:]).argmax(1) == y[1200:]).double().mean()), abs=1e-12
    )
    assert reports[-1].validation_accuracy > 0.9


@pytest.mark.parametrize("kind", [torchbcd.BCD, torchbcd.DLAM, torchbcd.DLADMM])
def test_others_refuse_it(kind):
    message = (
        f"torchbcd.{kind.__name__}: variables that stay from sweep to sweep go with no Dropout in train mode"
    )
    model = make_net("relu")
    with pytest.raises(ValueError, match=message):
        kind(model)
    optimizer = kind(model.eval())
    optimizer.bind(*make_data(20, WIDTHS[0], WIDTHS[-1]))
    optimizer.step()
    before = copy.deepcopy(list(model.parameters()))
    model.train()
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert all(p.equal(q) for p, q in zip(model.parameters(), before, strict=True))
    model.eval()
    optimizer.step()


def test_what_is_refused():
    model = make_net()
    with pytest.raises(ValueError, match="persistent variables go with no Dropout in train mode"):
        torchbcd.RelaxedBCD(model, persistent=True, **STILL)
    with pytest.raises(ValueError, match="model must have no Dropout in train mode"):
        torchbcd.functional.network_of(model)
    assert torchbcd.functional.network_of(model.eval())[1].activations == ("tanh", "tanh", "identity")
    a, b = nn.Linear(4, 4), nn.Linear(4, 2)
    for modules, message in (
        (
            (a, nn.Dropout(), nn.ReLU(), b),
            "module 2 of the model, ReLU.*follows a Dropout, and must stand before",
        ),
        ((a, nn.ReLU(), nn.Dropout(), nn.Dropout(), b), "module 3 .*follows another Dropout"),
        ((a, nn.ReLU(), b, nn.Dropout()), "module 3 .*must have a Linear module behind it"),
        ((a, Residual(a, nn.ReLU(), a, nn.Dropout()), b), "ends a Residual, whose branch must end with a Linear"),
        ((a, nn.AlphaDropout(), b), "module 1 of the model, AlphaDropout.*is not supported"),
    ):
        with pytest.raises(ValueError, match=message):
            torchbcd.RelaxedBCD(nn.Sequential(*copy.deepcopy(modules)))
    with pytest.warns(UserWarning, match="Dropout.*before the layers, is in train mode"):
        torchbcd.RelaxedBCD(nn.Sequential(nn.Dropout(), a, nn.ReLU(), b)).step(
            *make_data(5, 4, 2, dtype=a.weight.dtype)
        )


def test_pruning_keeps_them():
    model = make_net("relu")
    with torch.no_grad():
        model[0].weight[:3] = 0
    pruned = torchbcd.prune_zeros(model)
    assert [type(m) for m in pruned] == [type(m) for m in model]
    x = make_data(20, WIDTHS[0], WIDTHS[-1])[0]
    torch.testing.assert_close(pruned.eval()(x), model.eval()(x))
