"""PyTorch's losses with targets or numbers of their own kind, in every optimizer and through every door."""

from __future__ import annotations

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from conftest import make_data, make_mlp
from contracts import assert_identical
from tables import METHODS
from torch import nn
from torch.nn import functional as nnf

import torchbcd
import torchbcd.functional as F
from torchbcd import losses

pytestmark = pytest.mark.usefixtures("one_thread")
every_method = pytest.mark.parametrize("method", METHODS)
WEIGHT = (0.5, 3.0, 1.25)


def pinball(tau):
    return lambda v, y: torch.maximum(tau * (y - v), (tau - 1) * (y - v)).sum()


def soft(rows, outputs):
    """Targets of all kinds from 0 to 1."""
    y = torch.rand(rows, outputs, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.where(y < 0.2, 0.0, torch.where(y > 0.8, 1.0, y))


def counts(rows, outputs):
    y = 3 * torch.rand(rows, outputs, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return torch.poisson(y, generator=torch.Generator().manual_seed(5))


def classes(rows, outputs):
    return make_data(rows, 6, outputs)[1]


def distributions(rows, outputs):
    return soft(rows, outputs).mul(3).softmax(1)


def cross_entropy(**options):
    weight = options.pop("weight", None)
    weight = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    return nn.CrossEntropyLoss(weight, reduction="sum", **options)


def of_parts(v, y):
    first = cross_entropy(label_smoothing=0.2, weight=(1.0, 3.0))(v[:, :2], y[0])
    return first + 0.5 * pinball(0.9)(v[:, 2:], y[1])


# name -> (the loss, PyTorch's of outputs and targets, targets for (rows, outputs))
CASES = {
    "binary": (losses.BinaryCrossEntropy(), nn.BCEWithLogitsLoss(reduction="sum"), soft),
    "poisson": (losses.Poisson(), nn.PoissonNLLLoss(reduction="sum"), counts),
    "median": (losses.Quantile(), lambda v, y: nnf.l1_loss(v, y, reduction="sum") / 2, counts),
    "quantile": (losses.Quantile(0.9), pinball(0.9), soft),
    "smoothing": (losses.CrossEntropy(label_smoothing=0.2), cross_entropy(label_smoothing=0.2), classes),
    "weights": (losses.CrossEntropy(weight=WEIGHT), cross_entropy(weight=WEIGHT), classes),
    "both": (
        losses.CrossEntropy(label_smoothing=0.3, weight=torch.tensor(WEIGHT)),
        cross_entropy(label_smoothing=0.3, weight=WEIGHT),
        classes,
    ),
    "both, distributions": (
        losses.CrossEntropy(label_smoothing=0.3, weight=list(WEIGHT)),
        cross_entropy(label_smoothing=0.3, weight=WEIGHT),
        distributions,
    ),
    "parts": (
        losses.MultiOutput(
            [(2, losses.CrossEntropy(label_smoothing=0.2, weight=(1.0, 3.0))), (1, losses.Quantile(0.9), 0.5)]
        ),
        of_parts,
        lambda rows, outputs: (classes(rows, 2), soft(rows, 1)),
    ),
}
every_case = pytest.mark.parametrize("case", CASES)


def as_dtype(y, dtype):
    """Targets, of each part, whose values have a dtype."""
    if isinstance(y, tuple):
        return tuple(as_dtype(part, dtype) for part in y)
    return y.to(dtype) if y.is_floating_point() else y


def problem(case, method, *, loss=None, dtype=torch.float64, **options):
    """A model, the optimizer over it, its loss in PyTorch, and data."""
    mine, theirs, targets = CASES[case]
    model = make_mlp([6, 8, 7, 3], hidden=("relu", "tanh"), dtype=dtype)
    optimizer = getattr(torchbcd, method)(model, mine if loss is None else loss, **options)
    x, _ = make_data(40, 6, 3, dtype=dtype)
    return model, optimizer, theirs, x, as_dtype(targets(40, 3), dtype)


@every_case
class TestTorchs:
    @every_method
    def test_the_objective_of_a_forward_pass_is_pytorchs(self, method, case):
        options = {"weight_decay": 0.0} if method == "RelaxedBCD" else {}
        model, optimizer, theirs, x, y = problem(case, method, **options)
        expected = theirs(model(x), y).item()
        if method == "RelaxedBCD":
            assert optimizer.step(x, y).before == pytest.approx(expected, rel=1e-12)
            return
        optimizer.bind(x, y)
        assert optimizer.objective() == pytest.approx(expected, rel=1e-12)

    @every_method
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_it_learns(self, method, case, dtype):
        options = {"DLAM": {"joint": True, "eps": 0.05}, "DLADMM": {"rho": 0.5}}.get(method, {})
        model, optimizer, theirs, x, y = problem(case, method, dtype=dtype, **options)
        double = copy.deepcopy(model).double()
        y64 = as_dtype(y, torch.float64)
        before = theirs(double(x.double()), y64).item()
        optimizer.bind(x, y)
        for _ in range(40):
            optimizer.step()
        states = {"BCD": "V", "DLAM": "z", "DLADMM": "z"}.get(method)
        outputs = model(x) if states is None else getattr(optimizer.variables(), states)[-1]
        after = theirs(outputs.detach().double(), y64).item()
        assert after < before - 0.1 * abs(before)

    @every_method
    def test_doors_agree(self, method, case):
        """Python, TorchScript saved and loaded, and a state_dict continued, to the bit."""
        model, optimizer, _, x, y = problem(case, method)
        twin, again, _, _, _ = problem(case, method)
        optimizer.bind(x, y)
        optimizer.step()
        saved = copy.deepcopy(optimizer.state_dict())
        assert saved["torchbcd"]["loss"].startswith(CASES[case][0].name)
        script = optimizer.script_object()
        with torch.no_grad():
            for parameter, value in zip(twin.parameters(), model.parameters(), strict=True):
                parameter.copy_(value)
        again.load_state_dict(saved)
        expected = [p.detach().clone() for p in model.parameters()]
        script.step()
        from_script = [p.detach().clone() for p in model.parameters()]
        again.step()
        assert_identical([p.detach() for p in twin.parameters()], from_script)
        assert not all(torch.equal(a, b) for a, b in zip(expected, from_script, strict=True))

    def test_copies_and_pickles(self, case):
        _, optimizer, _, x, y = problem(case, "BCD")
        optimizer.bind(x, y)
        optimizer.step()
        for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert other.objective() == optimizer.objective()

    def test_a_batch_is_a_look_at_the_whole(self, case):
        """DLAM's stationarity of a mini-batch has the targets that its sweep had."""
        found = []
        for bound in (True, False):
            _, optimizer, _, x, y = problem(case, "DLAM", joint=True, eps=0.05)
            if bound:
                optimizer.bind(x, y)
            report = optimizer.step() if bound else optimizer.step(x, y, sweeps=1)
            found.append(report.residual)
        assert found[0] == pytest.approx(found[1], rel=1e-9)

    def test_fit(self, case):
        """The validation loss is the loss itself, the accuracy that of the classes, whatever they weigh."""
        model, optimizer, theirs, x, y = problem(case, "RelaxedBCD")
        (report,) = optimizer.fit(x, y, 1, 10, validation=(x, y), average=None)
        assert report.validation_loss == pytest.approx(theirs(model(x), y).item() / 40)
        if isinstance(y, tuple) or y.is_floating_point():
            assert report.validation_accuracy is None
        else:
            assert report.validation_accuracy == (model(x).argmax(1) == y).double().mean().item()


class TestNames:
    def test_texts(self):
        assert str(losses.Quantile(0.9)) == "quantile(0.9)"
        assert str(losses.Quantile()) == str(losses.Quantile(reduction="mean")) == "quantile"
        assert str(losses.CrossEntropy()) == "cross_entropy"
        assert str(losses.CrossEntropy(weight=(1, 2))) == "cross_entropy(0.0, 1.0, 2.0)"
        assert losses.CrossEntropy("mean", 0.1) == losses.CrossEntropy(reduction="mean", label_smoothing=0.1)

    def test_arguments_are_checked(self):
        for tau in (0, 1, -0.1, 1.5, math.nan):
            with pytest.raises(ValueError, match="tau must be between 0 and 1"):
                losses.Quantile(tau)
        for smoothing in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match="label_smoothing must be between 0 and 1"):
                losses.CrossEntropy(label_smoothing=smoothing)
        for weight in ([1, -1], [0, 0], [math.inf, 1], [math.nan], [[1.0, 2.0]], 1.0 * torch.ones(2, 2)):
            with pytest.raises(ValueError, match="weight must hold a finite number >= 0 for each class"):
                losses.CrossEntropy(weight=weight)
        with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean'"):
            losses.Quantile(0.5, reduction="none")

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("quantile(1)", "tau must be between 0 and 1 .got 1."),
            ("quantile(0.1, 0.2)", "loss 'quantile' takes one parameter, its level tau .got 2."),
            ("quantile(half)", "loss 'quantile.half.' must have numbers in its parentheses .got 'half'."),
            ("quantile(0.5", "loss must be a name, or a name and numbers, such as 'quantile.0.9.'"),
            ("poisson(1)", "loss 'poisson' takes no parameters .got 1."),
            ("quantiles", "loss must be one of 'squared', .*'quantile', 'poisson', .* .got 'quantiles'."),
            ("cross_entropy(2)", "label_smoothing must be between 0 and 1 .got 2."),
            ("cross_entropy(0, 1, -1)", "weights of classes must be finite and >= 0 .got 0 and 1 and -1."),
            ("cross_entropy(0, 0, 0)", "the weight of one class at least must be > 0"),
        ],
    )
    def test_texts_are_checked(self, text, match):
        """By TorchScript and C++ programs, which have no objects for them."""
        v = torch.zeros(2, 2)
        with pytest.raises(ValueError, match=match):
            torch.ops.torchbcd.row_losses(v, v, text)

    def test_spaces_do_not_count(self):
        v = torch.ones(2, 2)
        spaced = torch.ops.torchbcd.row_losses(0 * v, v, "quantile( 0.25)")
        assert spaced.tolist() == [[1.5], [1.5]]

    @every_method
    def test_a_weight_for_each_output(self, method):
        with pytest.raises(ValueError, match=r"must have a weight for each of the 3 classes, or none \(got 2\)"):
            getattr(torchbcd, method)(make_mlp([6, 5, 3]), losses.CrossEntropy(weight=(1, 2)))

    def test_a_state_of_another_level_is_refused(self):
        states = []
        for tau in (0.9, 0.25):
            optimizer = torchbcd.BCD(make_mlp([6, 5, 3]), losses.Quantile(tau))
            states.append(optimizer.state_dict())
        with pytest.raises(ValueError, match=r"loss must be quantile\(0.25\) \(got quantile\(0.9\)\)"):
            optimizer.load_state_dict(states[0])

    def test_a_checkpoint_of_a_script(self):
        """Weights of classes are in a saved state's targets once, however often it is saved."""
        _, optimizer, _, x, y = problem("both", "BCD")
        optimizer.bind(x, y)
        targets = optimizer.state_dict()["torchbcd"]["tensors"]["y"][0]
        for _ in range(3):
            state = copy.deepcopy(optimizer.state_dict())
            optimizer.load_state_dict(state)
        assert torch.equal(optimizer.state_dict()["torchbcd"]["tensors"]["y"][0], targets)
        holder = torch.jit.script(Holder(optimizer.script_object()))
        buffer = io.BytesIO()
        torch.jit.save(holder, buffer)
        buffer.seek(0)
        assert torch.jit.load(buffer)() == optimizer.objective()


class Holder(nn.Module):
    def __init__(self, optimizer):
        super().__init__()
        self.optimizer = optimizer

    def forward(self) -> float:
        return self.optimizer.objective()


@every_method
class TestTargets:
    def refused(self, method, loss, match, y, outputs=1):
        x, _ = make_data(30, 6, 3)
        optimizer = getattr(torchbcd, method)(make_mlp([6, 5, outputs]), loss)
        for way in (optimizer.step, optimizer.bind):
            with pytest.raises(ValueError, match=match):
                way(x, y)

    def test_beyond_their_range(self, method):
        y = torch.full((30, 1), 0.5, dtype=torch.float64)
        for bad in (-0.25, 1.5):
            wrong = y.clone()
            wrong[3] = bad
            match = f"y must hold numbers from 0 to 1 for this loss .got {bad}."
            self.refused(method, "binary_cross_entropy", match, wrong)
        wrong = y - 1
        self.refused(method, "poisson", "y must hold counts or rates >= 0 for this loss .got -0.5.", wrong)
        self.refused(method, "poisson", "y must be finite", y * math.nan)

    def test_counts_that_are_integers(self, method):
        _, y = make_data(30, 6, 3)
        for loss in ("poisson", losses.Quantile(0.9)):
            self.refused(method, loss, r"y holds integers.*y\[:, None\]\.float\(\)", y)

    def test_two_classes_in_any_form(self, method):
        x, _ = make_data(30, 6, 2)
        y = x[:, 0] > 0

        def weights_after(given):
            model = make_mlp([6, 5, 1])
            getattr(torchbcd, method)(model, "binary_cross_entropy").step(x, given)
            return [p.detach() for p in model.parameters()]

        expected = weights_after(y.double()[:, None])
        for given in (y, y.long(), y.to(torch.uint8), y.double()):
            assert_identical(weights_after(given), expected)

    def test_one_class_against_the_rest(self, method):
        x, y = make_data(30, 6, 3)
        found = []
        for given in (y, nnf.one_hot(y, 3).double()):
            model = make_mlp([6, 5, 3])
            getattr(torchbcd, method)(model, "binary_cross_entropy").step(x, given)
            found.append([p.detach() for p in model.parameters()])
        assert_identical(*found)


class TestWhatIsLearned:
    """One layer, whose loss is convex: DLADMM is ADMM there, and what it finds is known otherwise."""

    def test_quantiles(self):
        """A bias alone ends between the rows next to its level."""
        generator = torch.Generator().manual_seed(0)
        y = torch.randn(101, 1, generator=generator, dtype=torch.float64)
        for tau in (0.1, 0.5, 0.9):
            model = make_mlp([1, 1])
            model[0].weight.requires_grad_(False).zero_()
            optimizer = torchbcd.DLADMM(model, losses.Quantile(tau), rho=1.0)
            optimizer.bind(torch.zeros(101, 1, dtype=torch.float64), y)
            for _ in range(300):
                optimizer.step()
            assert model[0].bias.item() == pytest.approx(np.quantile(y.numpy(), tau), abs=0.01)

    def test_poisson_regression(self):
        """The maximum of the likelihood, by Newton's method."""
        x, _ = make_data(60, 2, 2)
        y = torch.poisson((0.5 * x[:, 0] - 0.3 * x[:, 1] + 1).exp(), generator=torch.Generator().manual_seed(0))
        whole = torch.cat([x, torch.ones(60, 1, dtype=torch.float64)], 1)
        w = torch.zeros(3, dtype=torch.float64)
        for _ in range(50):
            rate = (whole @ w).exp()
            w += torch.linalg.solve(whole.t() @ (rate[:, None] * whole), whole.t() @ (y - rate))
        model = make_mlp([2, 1])
        optimizer = torchbcd.DLADMM(model, "poisson", rho=1.0)
        optimizer.bind(x, y)
        for _ in range(300):
            optimizer.step()
        found = torch.cat([model[0].weight[0], model[0].bias]).detach()
        torch.testing.assert_close(found, w, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("method", ["BCD", "DLAM"])
    def test_a_sum_that_is_negative_never_rises(self, method):
        """As Poisson's of large counts is."""
        x, _ = make_data(60, 6, 2)
        y = torch.poisson((0.5 * x[:, :1] + 3).exp(), generator=torch.Generator().manual_seed(0))
        options = {"DLAM": {"joint": True, "eps": 0.05}}.get(method, {"alpha": 0.1})
        optimizer = getattr(torchbcd, method)(make_mlp([6, 8, 1]), "poisson", **options)
        optimizer.bind(x, y)
        previous = math.inf
        for _ in range(60):
            objective = optimizer.step().objective
            assert objective <= previous + 1e-12 * abs(previous)
            previous = objective
        assert previous < -60

    def test_binary_cross_entropy_is_the_logistic_loss(self):
        x, _ = make_data(40, 6, 2)
        y = x[:, 0] > x[:, 1]
        found = []
        for loss in ("binary_cross_entropy", "logistic"):
            model = make_mlp([6, 8, 1])
            optimizer = torchbcd.BCD(model, loss, alpha=0.1)
            optimizer.bind(x, y)
            for _ in range(20):
                optimizer.step()
            found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


GAMMAS = [1e-6, 1e-3, 0.1, 1.0, 30.0, 1e6]


class TestProxes:
    """Sizes from 1e-6 to 1e6 of targets, centres and curvature."""

    def sizes(self, n, dtype):
        generator = np.random.default_rng(0)
        y, b = generator.choice([-1, 1], (2, n)) * 10 ** generator.uniform(-6, 6, (2, n))
        return torch.tensor(y, dtype=dtype).abs(), torch.tensor(b, dtype=dtype)

    def sign_changes(self, slope, v, b, dtype):
        """The derivative of a convex objective is <= 0 just below its minimiser and >= 0 just above."""
        v, b = v.double().numpy(), b.double().numpy()
        unit = torch.finfo(dtype).eps
        step = 8 * unit * np.maximum(np.abs(v), np.abs(b)) + (1e-14 if dtype == torch.float64 else 1e-37)
        assert (slope(v - step) <= 0).all()
        assert (slope(v + step) >= 0).all()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_poisson(self, gamma, dtype):
        y, b = self.sizes(3000, dtype)
        v = F.prox_poisson_loss(y, b, gamma)
        y64, b64 = y.double().numpy(), b.double().numpy()
        assert v.isfinite().all()
        assert (v <= torch.finfo(dtype).max).all()

        def slope(at):
            with np.errstate(over="ignore"):
                return np.exp(at) - y64 + gamma * (at - b64)

        self.sign_changes(slope, v, b, dtype)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_binary_cross_entropy(self, gamma, dtype):
        size, b = self.sizes(3000, dtype)
        for y in ((size > 1).to(dtype), size / (1 + size), 1 / (1 + size)):
            v = F.prox_binary_cross_entropy_loss(y, b, gamma)
            assert v.isfinite().all()
            y64, b64 = y.double().numpy(), b.double().numpy()

            def slope(at, y64=y64, b64=b64):
                e = np.exp(-np.abs(at))
                share = np.where(at > 0, -e, 1) / (1 + e)  # of the label 1 where at > 0, of 0 elsewhere
                return np.where(at > 0, (1 - y64) + share, share * e - y64) + gamma * (at - b64)

            self.sign_changes(slope, v, b, dtype)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_quantile(self, gamma, dtype):
        y, b = self.sizes(3000, dtype)
        for tau in (0.01, 0.5, 0.9):
            v = F.prox_quantile_loss(y, b, gamma, tau)
            y64, b64 = y.double().numpy(), b.double().numpy()

            def slope(at, y64=y64, b64=b64, tau=tau):
                return np.where(at > y64, 1 - tau, -tau) + gamma * (at - b64)

            self.sign_changes(slope, v, b, dtype)

    def test_symmetry(self):
        """A target y and its opposite, 1 - y, to the bit where that is one number."""
        _, b = self.sizes(2000, torch.float64)
        y = torch.arange(2000, dtype=torch.float64) / 2048
        left = F.prox_binary_cross_entropy_loss(y, b, 0.3)
        right = F.prox_binary_cross_entropy_loss(1 - y, -b, 0.3)
        keep = y != 0.5  # its own opposite, which is taken for a 0
        assert torch.equal(left[keep], -right[keep])
        torch.testing.assert_close(left, -right, rtol=1e-12, atol=1e-15)
