"""MultiOutput: several losses, each of outputs of its own, are what each is alone, in every optimizer."""

from __future__ import annotations

import copy
import io
import itertools

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import assert_identical, unchanged
from relaxed_problems import assert_certified, watched_sweep
from tables import METHODS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchbcd
import torchbcd.functional as F
from torchbcd import lifted, losses

pytestmark = pytest.mark.usefixtures("one_thread")
every_method = pytest.mark.parametrize("method", METHODS)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)

ROWS, WIDTHS = 40, [6, 9, 7, 6]
# Three classes, two signs or counts, a number.
LOSS = losses.MultiOutput([(3, "cross_entropy"), (2, "row_hinge", 0.3), (1, losses.Quantile(0.9), 2)])
SMOOTH = losses.MultiOutput([(3, "cross_entropy", 0.5), (2, "huber"), (1, "squared", 3.0)])
OPTIONS = {"BCD": {"alpha": 0.1}, "DLAM": {"joint": True, "eps": 0.05}, "DLADMM": {"rho": 0.5}}


def data(dtype=torch.float64, rows=ROWS):
    """Inputs, and targets of the three parts: classes, classes, numbers (n,)."""
    x, y = make_data(rows, 6, 3, dtype=dtype)
    return x, (y, (x[:, 1] > 0).long(), x[:, 0].sin())


def joined(y, signs=True):
    """The same by hand, as values."""
    second = 2 * nn.functional.one_hot(y[1], 2) - 1 if signs else nn.functional.one_hot(y[1], 2)
    return torch.cat([nn.functional.one_hot(y[0], 3), second, y[2][:, None]], 1).to(y[2])


def make(method, loss, dtype=torch.float64, **options):
    model = make_mlp(WIDTHS, hidden=("relu", "tanh"), dtype=dtype)
    return model, getattr(torchbcd, method)(model, loss, **{**OPTIONS.get(method, {}), **options})


def parameters_of(model):
    return [p.detach().clone() for p in model.parameters()]


class TestTheSameAsOne:
    """Squared losses of weight one are the squared loss of all outputs."""

    @pytest.mark.parametrize(
        ("method", "options"),
        [*((method, {}) for method in METHODS), ("BCD", {"splitting": 2, "order": "joint"})],
    )
    def test_squared(self, method, options):
        x, y = data()
        target = joined(y)
        found = []
        for loss in ("squared", losses.MultiOutput([(4, "squared"), (2, losses.Squared(), 1)])):
            model = make_mlp(WIDTHS, hidden=("sigmoid", "tanh"))
            optimizer = getattr(torchbcd, method)(model, loss, **{**OPTIONS.get(method, {}), **options})
            optimizer.bind(x, target)
            objectives = [optimizer.step().objective for _ in range(4)]
            found.append([*parameters_of(model), torch.tensor(objectives, dtype=torch.float64)])
        torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)

    def test_squared_behind_an_activation(self):
        """RelaxedBCD takes one behind no other loss."""
        x, y = data()
        found = []
        for loss in ("squared", losses.MultiOutput([(4, "squared"), (2, "squared")])):
            model = make_mlp(WIDTHS, output="tanh")
            torchbcd.RelaxedBCD(model, loss).step(x, joined(y).tanh())
            found.append(parameters_of(model))
        assert_identical(*found)


class TestBlocks:
    @both_dtypes
    def test_the_output_block_is_that_of_each_part(self, dtype):
        """From a forward pass V_N is each part's prox of its own outputs, with w_k times the weight of a row."""
        x, y = data(dtype)
        _, optimizer = make("BCD", LOSS, dtype, gamma=0.7, alpha=0.2, loss_weight=1.5)
        optimizer.bind(x, y)
        b = optimizer.variables().V[-1]
        optimizer.step()
        found = optimizer.variables().V[-1]
        target = joined(y)
        scaled = {0: 1.5, 1: 1.5 * 0.3, 2: 1.5 * 2}
        expected = [
            F.prox_cross_entropy_loss(y[0], b[:, :3].contiguous(), 0.9 / scaled[0]),
            F.prox_row_hinge_loss(target[:, 3:5].contiguous(), b[:, 3:5].contiguous(), 0.9 / scaled[1]),
            F.prox_quantile_loss(target[:, 5:], b[:, 5:], 0.9 / scaled[2], 0.9),
        ]
        unit = torch.finfo(dtype).eps
        torch.testing.assert_close(found, torch.cat(expected, 1), rtol=20 * unit, atol=20 * unit)

    @both_dtypes
    def test_the_certificate(self, dtype):
        """Recomputed after every block."""
        x, y = data(dtype)
        of_parts = tuple(t.double() if t.is_floating_point() else t for t in y)
        loss = losses.MultiOutput([(3, "cross_entropy"), (3, "huber", 0.5)])
        _, optimizer = make("RelaxedBCD", loss, dtype)
        for _ in range(4):
            report, seen = watched_sweep(optimizer, x, (y[0], y[0]))
            assert_certified(report, seen, None, loss, (of_parts[0], of_parts[0]), clamped=False, dtype=dtype)

    def test_relaxed_moves_along_the_gradient(self):
        """U_N - P_N is the gradient of R at U_N over -rho, by autograd, for weights of rows, too."""
        x, y = data()
        _, optimizer = make("RelaxedBCD", SMOOTH, output_penalty=0.8, momentum=0.0, weight_decay=0.0)
        report, seen = watched_sweep(optimizer, x, y)
        at = seen[0][1]
        u = at.U[-1].clone().requires_grad_()
        target = joined(y, signs=False)
        value = 0.5 * nn.functional.cross_entropy(u[:, :3], y[0], reduction="sum")
        value = value + nn.functional.huber_loss(u[:, 3:5], target[:, 3:5], reduction="sum")
        value = value + 1.5 * (u[:, 5:] - target[:, 5:]).square().sum()
        (gradient,) = torch.autograd.grad(value, u)
        product = at.V[-2] @ at.W[-1].t() + at.b[-1]
        assert report.penalties[-1] == 0.8
        torch.testing.assert_close(at.U[-1] - product, -gradient / 0.8, rtol=1e-9, atol=1e-10)

    @pytest.mark.parametrize(("scale", "touched"), [(1.0, False), (1e3, True)])
    def test_the_scale_of_untrained_outputs_is_each_parts_own(self, scale, touched):
        x, y = data()
        found = []
        for first in (1.0, scale):
            model = make_mlp(WIDTHS)
            with torch.no_grad():
                model[-1].weight[5:] *= first
            optimizer = torchbcd.RelaxedBCD(model, LOSS, weight_decay=0.0, momentum=0.0)
            _, seen = watched_sweep(optimizer, x, y)
            found.append(seen[0][1].W[-1])
        assert torch.equal(found[0][:5], found[1][:5])
        assert (found[1][5:].norm() < 20 * found[0][5:].norm()) == (touched or scale == 1)

    @both_dtypes
    @pytest.mark.parametrize(
        ("method", "options"),
        [
            ("BCD", {}),
            ("BCD", {"splitting": 2}),
            ("DLAM", {"loss_weight": "mean"}),
            ("RelaxedBCD", {"persistent": True}),
        ],
        ids=["3", "2", "DLAM", "relaxed"],
    )
    def test_never_rises(self, method, options, dtype):
        x, y = data(dtype)
        _, optimizer = make(method, LOSS, dtype, **options)
        optimizer.bind(x, y, torch.linspace(0, 2, ROWS, dtype=dtype))
        objectives = [optimizer.step().objective for _ in range(12)]
        unit = 1e3 * torch.finfo(dtype).eps * (1 + objectives[0])
        assert all(after <= before + unit for before, after in itertools.pairwise(objectives))
        assert objectives[-1] < 0.9 * objectives[0]

    def test_fista(self):
        x, y = data()
        found = []
        for solver in ("prox", "fista"):
            _, optimizer = make("DLAM", SMOOTH, output_solver=solver)
            optimizer.bind(x, y)
            optimizer.step()
            found.append(optimizer.variables().z[-1])
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)

    def test_kinks_of_several_parts(self):
        """Each row hinge has a segment of its own: the shortest element is each part's shortest."""
        two = losses.MultiOutput([(2, "row_hinge"), (3, "row_hinge", 0.4)])
        y = torch.tensor([[1.0, -1, 1, -1, -1]], dtype=torch.float64).expand(5, 5).contiguous()
        v = y / torch.tensor([2.0, 2, 3, 3, 3])  # y'v = 1 in each part
        g = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        weight = torch.ones(1, 1, dtype=torch.float64)

        def shortest(loss, columns, factor=1.0):
            t = [a[:, columns].contiguous() for a in (y, v, g)]
            set_of = lifted.loss_subdifferential(str(loss), t[0], t[1], factor * weight, torch.float64)
            return set_of.shortest_with((t[2], t[2]))

        parts = [shortest("row_hinge", slice(0, 2)), shortest("row_hinge", slice(2, 5), 0.4)]
        torch.testing.assert_close(shortest(two, slice(0, 5)), torch.cat(parts, 1))
        _, optimizer = make("BCD", LOSS)
        optimizer.bind(*data())
        assert optimizer.step().residual > 0


class TestTargets:
    @every_method
    def test_a_tuple_is_its_columns(self, method):
        x, y = data()
        given = [y, list(y), joined(y), (y[0], joined(y)[:, 3:5], y[2][:, None]), (y[0].int(), y[1].bool(), y[2])]
        found = []
        for targets in given:
            model, optimizer = make(method, LOSS)
            if method != "DLADMM":
                optimizer.step(x, targets)
            optimizer.bind(x, targets)
            optimizer.step()
            found.append(parameters_of(model))
        for other in found[1:]:
            assert_identical(found[0], other)

    def test_fit(self):
        """Rows, pairs of a loader, and a loader that gives the parts one by one."""
        x, y = data(torch.float32)
        found = []
        pairs = [(x[k : k + 20], tuple(part[k : k + 20] for part in y)) for k in (0, 20)]
        for given in ((x, y), (x, joined(y)), (pairs,), (DataLoader(TensorDataset(x, *y), 20),)):
            model, optimizer = make("RelaxedBCD", LOSS, torch.float32)
            rows = {} if len(given) == 1 else {"batch_size": 20, "generator": torch.Generator().manual_seed(0)}
            reports = optimizer.fit(*given, epochs=2, validation=(x, y), average=None, **rows)
            found.append(parameters_of(model))
        assert_identical(*found[:2])
        assert_identical(*found[2:])
        loss = losses.row_losses(str(LOSS), model(x).detach(), joined(y)).mean().item()
        assert reports[-1].validation_loss == pytest.approx(loss, rel=1e-5)
        assert reports[-1].validation_accuracy is None

    @pytest.mark.parametrize("method", ["BCD", "DLAM"])
    def test_fit_to_a_residual(self, method):
        _, optimizer = make(method, LOSS)
        x, y = data()
        optimizer.bind(x, y)
        before = optimizer.objective()
        result = optimizer.fit(x, y, max_sweeps=5, tol=0)
        assert result.sweeps == 5
        assert result.objective < before

    def test_rows_of_bound_data_and_a_closure(self):
        x, y = data()
        rows = torch.arange(7)
        found = []
        for step in (
            lambda o: o.step(index=rows),
            lambda o: o.step(x[rows], tuple(part[rows] for part in y), index=rows),
        ):
            model, optimizer = make("BCD", LOSS)
            optimizer.bind(x, y)
            step(optimizer)
            optimizer.step(closure=lambda: (x, y))
            found.append(parameters_of(model))
        assert_identical(*found)

    def test_scratch_dir(self, tmp_path):
        x, y = data()
        found = []
        for options in ({}, {"scratch_dir": tmp_path}):
            model, optimizer = make("BCD", LOSS)
            optimizer.bind(x, y, **options)
            optimizer.step()
            found.append(parameters_of(model))
        assert_identical(*found)

    def test_numbers_set_the_defaults_of_relaxed(self):
        """As of numbers, unless all parts are of classes."""
        _, optimizer = make("RelaxedBCD", SMOOTH)
        x, y = data()
        optimizer.bind(x, y)
        assert optimizer.state_dict()["torchbcd"]["numbers"]["classes"] == [0.0]
        of_classes = losses.MultiOutput([(3, "cross_entropy"), (3, "squared")])
        _, optimizer = make("RelaxedBCD", of_classes)
        optimizer.bind(x, (y[0], y[0]))
        assert optimizer.state_dict()["torchbcd"]["numbers"]["classes"] == [1.0]


class Holder(nn.Module):
    def __init__(self, optimizer):
        super().__init__()
        self.optimizer = optimizer

    def forward(self, x: torch.Tensor, classes: torch.Tensor, signs: torch.Tensor, numbers: torch.Tensor):
        self.optimizer.step(x, self.optimizer.joined_targets([classes, signs, numbers]))
        return self.optimizer.sweeps()


class TestDoors:
    @pytest.mark.parametrize("method", ["BCD", "RelaxedBCD", "DLAM"])
    def test_torchscript(self, method):
        x, y = data()
        model, optimizer = make(method, LOSS)
        twin = copy.deepcopy(model)
        holder = Holder(getattr(torchbcd, method)(twin, LOSS, **OPTIONS.get(method, {})).script_object())
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(holder), buffer)
        buffer.seek(0)
        loaded = torch.jit.load(buffer)
        for _ in range(2):
            optimizer.step(x, y)
            loaded(x, *y)
        assert loaded.optimizer.objective() == optimizer.objective()

    def test_a_state_of_other_parts_is_refused(self):
        _, optimizer = make("BCD", LOSS)
        others = losses.MultiOutput([(3, "cross_entropy"), (2, "row_hinge"), (1, losses.Quantile(0.9), 2)])
        model, other = make("BCD", others)
        with (
            unchanged(model, other),
            pytest.raises(ValueError, match=r"must be multi_output\(3: .* 2: row_h"),
        ):
            other.load_state_dict(optimizer.state_dict())

    def test_functions(self):
        """The operators and steps take the text, or the object, and targets as columns."""
        x, y = data()
        model, optimizer = make("RelaxedBCD", LOSS)
        parameters, network = F.network_of(copy.deepcopy(model))
        optimizer.step(x, y)
        made, _ = F.relaxed_step(x, joined(y), parameters, network=network, loss=LOSS)
        assert_identical(parameters_of(model), made)
        v = torch.zeros(2, 5, dtype=torch.float64)
        with pytest.raises(ValueError, match=r"row_losses: the parts .* must have .* 5 \(got 3 \+ 2 \+ 1"):
            torch.ops.torchbcd.row_losses(v, v, str(LOSS))


class TestRefusals:
    @every_method
    def test_targets(self, method):
        x, y = data()
        model, optimizer = make(method, LOSS)
        optimizer.bind(x, y)
        optimizer.step()
        wrong = joined(y)
        wrong[3, 4] = 0.5
        refused = [
            ((y[0], y[2]), ValueError, r"y must hold a tensor for each of the 3 parts of the loss \(got 2\)"),
            (y[0], ValueError, r"y must be a tuple of a tensor for each of the 3 parts"),
            ((y[0], y[1][:-1], y[2]), ValueError, r"y of part 2 must have as many rows as that of part 1, 40"),
            ((y[0] + 1, *y[1:]), ValueError, r"y of part 1 must hold classes from 0 to 2 \(got 3\)"),
            ((y[0], y[1], y[0]), ValueError, "y of part 3 holds integers"),
            ((y[0], wrong[:, :3], y[2]), ValueError, r"y of part 2 must have shape \(n, 2\) \(got \[40, 3\]\)"),
            ((y[0], y[1], y[2].float()), TypeError, "y of part 3 must have the dtype of the model"),
            ((y[0], y[1], y[2] * torch.nan), ValueError, "y must be finite"),
            ((y[0], y[1], [1.0]), TypeError, r"part 3 must be a torch.Tensor \(got list\)"),
            (wrong, ValueError, r"y of part 2 must hold -1 and 1 for this loss.*got 0.5"),
            (wrong[:, :5], ValueError, r"y must have shape \(n, 6\)"),
        ]
        for targets, error, match in refused:
            with unchanged(model, optimizer), pytest.raises(error, match=match):
                optimizer.bind(x, targets)
        with pytest.raises(TypeError, match=r"must be a torch.Tensor \(got tuple\)"):
            getattr(torchbcd, method)(model, "squared").bind(x, y)

    @every_method
    def test_losses(self, method):
        for parts, match in (
            ([(3, "squared"), (2, "squared")], r"as many outputs as the last layer, 6 \(got 3 \+ 2\)"),
            ([(5, "squared"), (1, "cross_entropy")], "needs at least two outputs"),
            ([(3, losses.CrossEntropy(weight=[1, 2])), (3, "squared")], "for each of the 3 classes"),
        ):
            with pytest.raises(ValueError, match=match):
                make(method, losses.MultiOutput(parts))

    def test_together(self):
        with pytest.raises(ValueError, match=r"order 'joint' needs the loss 'squared' \(got 'multi_output"):
            make("BCD", SMOOTH, splitting=2, order="joint")
        with pytest.raises(ValueError, match="loss_weight 'paper' is of one loss"):
            make("BCD", LOSS, loss_weight="paper")
        with pytest.raises(ValueError, match="output_solver 'fista' needs a loss with a Lipschitz gradient"):
            make("DLAM", LOSS, output_solver="fista")
        with pytest.raises(ValueError, match="no activation, unless the loss is 'squared'"):
            torchbcd.RelaxedBCD(make_mlp(WIDTHS, output="tanh"), SMOOTH)

    @pytest.mark.parametrize(
        ("parts", "error", "match"),
        [
            ([(3, "squared")], ValueError, r"parts must be at least two \(got 1\)"),
            ("squared", TypeError, "parts must be a list of tuples"),
            ([(3, "squared"), 2], TypeError, "a part must be a tuple of outputs, loss"),
            ([(3, "squared"), (1.5, "squared")], TypeError, "a whole number"),
            ([(3, "squared"), (0, "squared")], ValueError, r"at least one output \(got 0\)"),
            (
                [(3, "squared"), (2, "squared", 0)],
                ValueError,
                r"a part must be finite and > 0 \(got 0\)",
            ),
            ([(3, "squared"), (2, "square")], ValueError, "loss must be one of"),
            ([(3, "squared"), (3, LOSS)], ValueError, "not a MultiOutput again"),
            ([(3, "squared"), (3, losses.Huber("mean"))], ValueError, "the reduction is that of all parts"),
        ],
    )
    def test_objects(self, parts, error, match):
        with pytest.raises(error, match=match):
            losses.MultiOutput(parts)

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("multi_output", "must list its parts, such as"),
            ("multi_output(2: squared)", r"at least two parts \(got 1\)"),
            ("multi_output(squared, 1: squared)", r"must have parts such as .*got 'squared' in"),
            ("multi_output(0: squared, 1: squared)", "at least one output"),
            (f"multi_output({2**63 - 1}: squared, {2**63 - 1}: squared, 4: squared)", r"less than 2\^31"),
            ("multi_output(1: -1 * squared, 1: squared)", r"finite and > 0 \(got '-1'\)"),
            ("multi_output(1: nan * squared, 1: squared)", "finite and > 0"),
            ("multi_output(1: squares, 1: squared)", "loss must be one of"),
            ("multi_output(1: squared, 1: multi_output(1: squared, 1: squared))", "not such a list again"),
        ],
    )
    def test_texts(self, text, match):
        v = torch.zeros(2, 2)
        with pytest.raises(ValueError, match=match):
            torch.ops.torchbcd.row_losses(v, v, text)
