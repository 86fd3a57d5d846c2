"""RelaxedBCD's sample weights: a row of weight k is k rows, one of weight zero is none, in every quantity."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import unchanged
from relaxed_problems import STILL
from torch import nn

import torchbcd
from torchbcd import losses
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, SWEEPS = 12, 4
TIMES = torch.tensor([2, 0, 1, 3]).repeat(3)
WEIGHTS = TIMES.double()
# Options of the optimizer, and what `problem` takes from among them.
CASES = {
    "squared": {},
    "fewer rows than inputs": {"widths": [40, 30, 20, 3]},
    "numbers": {"numbers": True, "hidden": "silu"},
    "cross-entropy": {"loss": "cross_entropy", "loss_weight": "mean"},
    "classes with weights": {"loss": losses.CrossEntropy(label_smoothing=0.1, weight=[1.0, 2.0, 0.5])},
    "hinge": {"loss": "hinge", "guard": True, "hidden": "tanh"},
    "row hinge": {"loss": "row_hinge", "state_steps": 2},
    "binary cross-entropy": {"loss": "binary_cross_entropy", "hidden": "leaky_relu"},
    "quantile": {"loss": losses.Quantile(0.8), "numbers": True},
    "parts": {"loss": losses.MultiOutput([(2, "cross_entropy"), (1, losses.Quantile(0.8), 0.5)]), "parts": True},
    "signs": {"hidden": "sign"},
    "conjugate gradients": {"state_steps": [1, 3, 2], "cap": 0.05, "hidden": "gelu"},
    "cap": {"cap": 0.01},
    "guard": {"guard": True, "relaxation": 1.9},
    "persistent": {"bound": True, "persistent": True},
    "persistent, cross-entropy": {"bound": True, "persistent": True, "loss": "cross_entropy", "state_steps": 2},
    "momentum and decay": {"momentum": 0.9, "weight_decay": 0.1},
    "neither": {"bound": True, **STILL},
    "l2": {"weight_regularizer": reg.L2(0.4), "widths": [40, 30, 20, 3]},
    "l1": {"weight_regularizer": reg.L1(0.05), "loss_weight": "mean"},
    "groups": {"weight_regularizer": reg.GroupL1(0.3)},
    "monotone": {"weight_regularizer": reg.Monotone([0, 2], [1])},
    "output activation": {"output": "tanh", "numbers": True},
    "residual": {"widths": [6, 7, 8, 7, 3], "residual": (1, 4)},
    "residual, persistent": {
        "widths": [6, 7, 8, 7, 3],
        "residual": (2, 4),
        "bound": True,
        "persistent": True,
        "state_steps": 2,
    },
    "LayerNorm": {"norm": "before", "hidden": "silu"},
    "slopes": {"hidden": "prelu", "loss": "cross_entropy"},
    "LayerNorm, persistent": {"norm": "behind", "bound": True, "persistent": True, "state_steps": 2},
    "no bias": {"bias": False},
    "frozen": {"frozen": True, "widths": [6, 30, 7, 3]},
    "poorly scaled": {"scale": 300.0, "offset": 1e4},
    "outputs far too large": {"scale": 1e4, "loss": "logistic"},
}
ITERATIVE = {"l1": 1e-6, "groups": 1e-6, "monotone": 1e-6, "poorly scaled": 1e-6}


def problem(options):
    """A model, its optimizer, data, and whether they are bound."""
    options = dict(options)
    widths = options.pop("widths", [6, 9, 7, 3])
    x, y = make_data(ROWS, widths[0], 3)
    x = options.pop("scale", 1.0) * x + options.pop("offset", 0.0)
    if options.pop("numbers", False):
        y = torch.linspace(-0.9, 0.8, 3 * ROWS).double().reshape(ROWS, 3).sin()
    if options.pop("parts", False):
        y = torch.cat([nn.functional.one_hot(y % 2, 2).double(), x[:, :1].sin()], 1)
    model = make_mlp(
        widths,
        hidden=options.pop("hidden", "relu"),
        output=options.pop("output", None),
        bias=options.pop("bias", True),
        norm=options.pop("norm", None),
    )
    first, last = options.pop("residual", (0, -1))
    if last > 0:
        branch = torchbcd.nn.Residual(*model[first : last + 1])
        model = nn.Sequential(*model[:first], branch, *model[last + 1 :])
    if options.pop("frozen", False):
        model[0].weight.requires_grad_(False)
        model[2].bias.requires_grad_(False)
    bound = options.pop("bound", False)
    return model, torchbcd.RelaxedBCD(model, **options), x, y, bound


def train(options, change):
    """All that a few sweeps have to show for themselves, on data that are changed first."""
    model, optimizer, x, y, bound = problem(options)
    data = change(x, y)
    if bound:
        optimizer.bind(*data)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inputs that are poorly scaled
        for _ in range(SWEEPS):
            x, y, *weight = data
            given = {"sample_weight": weight[0]} if weight else {}
            report = optimizer.step() if bound else optimizer.step(x, y, **given)
            blocks = [decrease for _, _, decrease in report.certificate.blocks]
            numbers = [report.before, report.objective, optimizer.objective(), *report.penalties, *blocks]
            seen.append((numbers, (report.halved, report.guard_halvings), optimizer.variables()))
    return [p.detach().clone() for p in model.parameters()], seen, optimizer, model


def assert_close(a, b, tolerance):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("case", CASES)
def test_integer_weights_are_repeated_rows(case):
    """Weights, variables, penalties, certificate, reports."""
    parameters, weighted, *_ = train(CASES[case], lambda x, y: (x, y, WEIGHTS))
    expected, repeated, *_ = train(
        CASES[case], lambda x, y: (x.repeat_interleave(TIMES, 0), y.repeat_interleave(TIMES, 0))
    )
    tolerance = ITERATIVE.get(case, 1e-9)
    for mine, its in zip(parameters, expected, strict=True):
        assert_close(mine, its, tolerance)
    for (numbers, counts, variables), (theirs, their_counts, at) in zip(weighted, repeated, strict=True):
        largest = max(map(abs, theirs))
        assert numbers == pytest.approx(theirs, rel=tolerance, abs=tolerance * largest)
        assert counts == their_counts
        for mine, its in zip((*variables.U, *variables.V), (*at.U, *at.V), strict=True):
            assert_close(mine.repeat_interleave(TIMES, 0), its, tolerance)


def test_a_common_factor_changes_only_the_scale_of_the_objective():
    one, seen, *_ = train({}, lambda x, y: (x, y, WEIGHTS))
    other, scaled, *_ = train({}, lambda x, y: (x, y, 0.01 * WEIGHTS))
    for mine, its in zip(one, other, strict=True):
        assert_close(mine, its, 1e-9)
    assert scaled[-1][0][0] == pytest.approx(0.01 * seen[-1][0][0], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_weight_zero_say_nothing(dtype):
    """Not even that the targets are no classes, whatever they hold."""
    model, twin = make_mlp([6, 9, 3], dtype=dtype), make_mlp([6, 9, 3], dtype=dtype)
    x, y = make_data(ROWS, 6, 3, dtype=dtype)
    targets = nn.functional.one_hot(y, 3).to(dtype)
    targets[TIMES == 0] = 77.0
    torchbcd.RelaxedBCD(model).step(x, targets, sample_weight=TIMES.clamp(max=1).to(dtype))
    torchbcd.RelaxedBCD(twin).step(x[TIMES > 0], y[TIMES > 0])
    for mine, its in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_no_block_raises_the_weighted_objective(loss):
    """The certificate, against L written down again from the variables after every block."""
    _, optimizer, x, y, _ = problem({"loss": loss, "hidden": "tanh", **STILL})
    weights = torch.linspace(0, 2, ROWS).double() ** 3
    seen = []
    optimizer.set_observer(lambda block, layer: seen.append(optimizer.variables()))
    report = optimizer.step(x, y, sample_weight=weights)
    values = []
    for v in seen:
        value = 0.0
        for i, penalty in enumerate(report.penalties):
            residual = v.U[i] - v.V[i] @ v.W[i].t() - v.b[i]
            value += penalty / 2 * (weights @ residual.square().sum(1)).item()
        if loss == "cross_entropy":
            value += (weights @ nn.functional.cross_entropy(v.V[-1], y, reduction="none")).item()
        values.append(value)
    left = report.before
    for value, (_, _, decrease) in zip(values, report.certificate.blocks, strict=True):
        assert decrease >= -1e-12 * report.before
        left -= decrease
        assert value == pytest.approx(left, rel=1e-10)


class TestRefusals:
    def test_no_row_counts(self):
        model, optimizer, x, y, _ = problem({})
        optimizer.step(x, y)
        for give in (optimizer.bind, lambda x, y, w: optimizer.step(x, y, sample_weight=w)):
            with (
                unchanged(model, optimizer),
                pytest.raises(ValueError, match=r"a sum that is finite and > 0 \(got 0"),
            ):
                give(x, y, 0 * WEIGHTS)
        assert len(optimizer.variables().U) == 3
        with pytest.raises(ValueError, match="sample_weight must have a sum > 0"):
            optimizer.fit(x, y, sample_weight=0 * WEIGHTS)

    def test_row_blocks(self):
        _, optimizer, x, y, _ = problem({"row_blocks": 2})
        with pytest.raises(ValueError, match=r"sample_weight needs row_blocks=1.*\(got 2\)"):
            optimizer.step(x, y, sample_weight=WEIGHTS)
        _, optimizer, x, y, _ = problem({})
        optimizer.bind(x, y, WEIGHTS)
        optimizer.param_groups[1]["row_blocks"] = 2
        with pytest.raises(ValueError, match="sample_weight needs row_blocks=1"):
            optimizer.step()
        optimizer.step(x, y)


def test_copies_checkpoints_and_scripts_keep_them():
    """To the bit, and a state without weights is one of before there were any."""
    _, _, optimizer, model = train({"bound": True}, lambda x, y: (x, y, WEIGHTS))
    assert "row_weight" not in train({"bound": True}, lambda x, y: (x, y))[2].state_dict()["torchbcd"]["tensors"]
    twin, copied = copy.deepcopy((model, optimizer))
    loaded, unpickled = pickle.loads(pickle.dumps((model, optimizer)))
    fresh, restored, *_ = problem({})
    restored.load_state_dict(optimizer.state_dict())
    fresh.load_state_dict(model.state_dict())
    scripted = copy.deepcopy(model)
    other = torchbcd.RelaxedBCD(scripted)
    other.load_state_dict(optimizer.state_dict())
    for stepped in (optimizer, copied, unpickled, restored, other.script_object()):
        stepped.step()
    for trained in (twin, loaded, fresh, scripted):
        assert all(map(torch.equal, trained.parameters(), model.parameters()))


def test_in_torchscript():
    model, optimizer, x, y, _ = problem({})
    twin = copy.deepcopy(model)
    script = torchbcd.RelaxedBCD(twin).script_object()
    optimizer.step(x, y, sample_weight=WEIGHTS)
    script.step(x, y, sample_weight=WEIGHTS)
    optimizer.bind(x, y, WEIGHTS)
    script.bind(x, y, WEIGHTS)
    before = optimizer.step().before
    script.step()
    assert script.certificate()["before"] == [before]
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    with pytest.raises(ValueError, match="is given to bind"):
        script.step(sample_weight=WEIGHTS)


class TestFit:
    @staticmethod
    def fitted(x, y, weight=None, batch_size=5, **options):
        model = make_mlp([6, 9, 3])
        generator = torch.Generator().manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reports = torchbcd.RelaxedBCD(model).fit(
                x, y, 4, batch_size, sample_weight=weight, generator=generator, **options
            )
        return list(model.parameters()), [report.loss for report in reports]

    def test_rows_of_weight_zero_are_left_out(self):
        """From shuffles, batches and rules: to the bit where the others weigh one, but for the sums' order."""
        x, y = make_data(ROWS, 6, 3)
        ones = TIMES.clamp(max=1)
        weighted, loss = self.fitted(x, y, ones.double())
        left, their_loss = self.fitted(x[ones > 0], y[ones > 0])
        for mine, its in zip(weighted, left, strict=True):
            assert_close(mine, its, 1e-9)
        assert loss == pytest.approx(their_loss, rel=1e-9)

    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_integer_weights_in_batches_of_all_rows(self, scale):
        x, y = make_data(ROWS, 6, 3)
        x = scale * x + (1e5 if scale > 1 else 0)
        # The rule for decay, whose default goes by the number of rows, is at its upper end for both.
        weighted, loss = self.fitted(x, y, WEIGHTS, batch_size=100)
        repeated, their_loss = self.fitted(
            x.repeat_interleave(TIMES, 0), y.repeat_interleave(TIMES), batch_size=100
        )
        for mine, its in zip(weighted, repeated, strict=True):
            assert_close(mine, its, 1e-8)
        assert loss == pytest.approx(their_loss, rel=1e-8)

    def test_with_modules_before_the_layers(self):
        x, y = make_data(ROWS, 6, 3)
        found = []
        for noise in (0.0, 1e-300):  # with noise, features are not kept
            first = nn.Linear(6, 6, dtype=torch.float64).requires_grad_(False)
            torch.nn.init.eye_(first.weight), torch.nn.init.zeros_(first.bias)
            model = nn.Sequential(
                nn.LayerNorm(6, dtype=torch.float64).requires_grad_(False), *make_mlp([6, 9, 3])
            )
            generator = torch.Generator().manual_seed(0)
            optimizer = torchbcd.RelaxedBCD(model)
            optimizer.fit(x, y, 2, 30, sample_weight=WEIGHTS, noise=noise, generator=generator)
            found.append([p.detach().clone() for p in model.parameters()])
            with pytest.raises(ValueError, match=r"sample_weight must have shape \(n,\)"):
                optimizer.fit(x, y, 2, 30, sample_weight=WEIGHTS[1:], noise=noise)
        for one, other in zip(*found, strict=True):
            assert_close(one, other, 1e-9)
