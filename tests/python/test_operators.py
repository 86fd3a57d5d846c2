"""The operators as PyTorch sees them: schemas, fakes, autograd keys, TorchScript, torch.compile, docs."""

from __future__ import annotations

import doctest

import objectives
import pytest
import torch
from conftest import ACTIVATIONS
from objectives import LOSSES
from tables import operators, randn

import torchbcd
import torchbcd.bcd
import torchbcd.dladmm
import torchbcd.dlam
import torchbcd.functional as F
import torchbcd.linear_rate
import torchbcd.relaxed
import torchbcd.special_cases


@pytest.mark.parametrize(
    ("op", "args", "kwargs"), list(operators()), ids=lambda value: getattr(value, "__name__", "")
)
def test_opcheck(op, args, kwargs):
    torch.library.opcheck(op, args, kwargs)


def test_every_operator_is_checked():
    checked = {op._qualified_op_name.split("::")[1] for op, _, _ in operators()}
    registered = {
        name.split("::")[1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("torchbcd::") and not name.startswith("torchbcd::_")
    }
    assert checked == registered


def test_every_public_function_is_an_operator():
    for name in F.__all__:
        assert hasattr(torch.ops.torchbcd, name)


def module_and_parameters(name):
    """An activation as a module, and its parameters as the operators take them."""
    module = ACTIVATIONS[name]()
    parameters = {
        "leaky_relu": lambda: [module.negative_slope],
        "hardtanh": lambda: [module.min_val, module.max_val],
        "polynomial": lambda: list(module.coefficients),
    }.get(name, list)()
    return module, parameters


class TestFormulas:
    """What diagnostics and losses ask C++ for, against autograd and PyTorch's own functions."""

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_slopes(self, name):
        activation, parameters = module_and_parameters(name)
        u = randn(50, 4)
        if name == "sign":
            with pytest.raises(ValueError, match="must be continuous .got 'sign', which jumps."):
                torch.ops.torchbcd.activation_slopes(u, name, parameters)
            return
        u.requires_grad_()
        (expected,) = torch.autograd.grad(activation(u).sum(), u)
        rtol = 1e-7 if name == "hardsigmoid" else 1e-12  # PyTorch's own 1/6 is that of float32
        for slopes in torch.ops.torchbcd.activation_slopes(u.detach(), name, parameters):
            torch.testing.assert_close(slopes, expected, rtol=rtol, atol=1e-12)

    @pytest.mark.parametrize("name", ["relu", "leaky_relu", "hardtanh", "hardsigmoid"])
    def test_slopes_at_kinks(self, name):
        """Difference quotients from either side, exact on lines but for rounding."""
        activation, parameters = module_and_parameters(name)
        u = torch.tensor([-3.0, -0.75, 0.0, 1.25, 3.0], dtype=torch.float64)
        left, right = torch.ops.torchbcd.activation_slopes(u, name, parameters)
        h = 2.0**-20
        torch.testing.assert_close(left, (activation(u) - activation(u - h)) / h, rtol=0, atol=1e-9)
        torch.testing.assert_close(right, (activation(u + h) - activation(u)) / h, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("name", LOSSES)
    def test_losses(self, name):
        v, classes = randn(30, 5).requires_grad_(), torch.randint(5, (30,))
        y = torch.ops.torchbcd.encode_targets(classes, v, name)
        expected = objectives.row_losses(name, v, classes)
        torch.testing.assert_close(torch.ops.torchbcd.row_losses(y, v.detach(), name)[:, 0], expected.detach())
        (gradient,) = torch.autograd.grad(expected.sum(), v)
        low, high, segment = torch.ops.torchbcd.loss_subdifferential(y, v.detach(), name, 1e-16)
        for end in (low, high):
            torch.testing.assert_close(end, gradient, rtol=1e-12, atol=1e-12)
        assert not segment.any()

    def test_hinges_at_their_kinks(self):
        """An interval an entry for the one, a segment a row for the other."""
        y, v = torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, -1.0]])
        low, high, segment = torch.ops.torchbcd.loss_subdifferential(y, v, "hinge", 0.0)
        assert (low.tolist(), high.tolist(), segment.any()) == ([[-1.0, 0.0]], [[0.0, 1.0]], False)
        for factor, unit, ends in (
            (0.5, 0.0, ([0, 0], [-1, 1])),
            (0.5 + 1e-6, 0.0, ([0, 0], [0, 0])),
            (0.5 - 1e-6, 0.0, ([-1, 1], [-1, 1])),
            (0.5 - 1e-6, 1e-6, ([0, 0], [-1, 1])),
        ):
            low, high, segment = torch.ops.torchbcd.loss_subdifferential(y, factor * v, "row_hinge", unit)
            assert torch.equal(low, high)
            assert (low.tolist(), (low + segment).tolist()) == ([ends[0]], [ends[1]])

    def test_one_output_for_two_classes(self):
        classes, outputs = torch.tensor([0, 1, 1]), randn(3, 1)
        for name in ("hinge", "row_hinge", "logistic", "exponential"):
            y = torch.ops.torchbcd.encode_targets(classes, outputs, name)
            assert y.tolist() == [[-1.0], [1.0], [1.0]]
        y = torch.ops.torchbcd.encode_targets(classes, outputs, "binary_cross_entropy")
        assert y.tolist() == [[0.0], [1.0], [1.0]]
        with pytest.raises(ValueError, match="y must hold classes from 0 to 0"):
            torch.ops.torchbcd.encode_targets(classes, outputs, "squared")

    def test_targets_with_weights_of_classes(self):
        """As PyTorch's cross-entropy takes them: the smoothed rows times the weights."""
        outputs, loss = randn(3, 2), "cross_entropy(0.2, 1, 5)"
        expected = torch.tensor([[0.9, 0.5], [0.1, 4.5], [0.1, 4.5]], dtype=torch.float64)
        classes = torch.tensor([0, 1, 1])
        one_hot = torch.nn.functional.one_hot(classes, 2).double()
        for y in (classes, classes.int(), one_hot, one_hot.t().contiguous().t()):
            torch.testing.assert_close(torch.ops.torchbcd.encode_targets(y, outputs, loss), expected)
        with pytest.raises(TypeError, match="y must hold class indices or have the dtype of outputs"):
            torch.ops.torchbcd.encode_targets(one_hot.float(), outputs, loss)
        with pytest.raises(ValueError, match="y must have shape that of outputs"):
            torch.ops.torchbcd.encode_targets(one_hot[:, :1], outputs, loss)
        with pytest.raises(ValueError, match="must have a weight for each of the 2 classes"):
            torch.ops.torchbcd.encode_targets(classes, outputs, "cross_entropy(0, 1)")

    def test_regularizers(self):
        x = torch.tensor([-1.0, -0.5, 0.0, 0.3, 2.0], dtype=torch.float64)
        penalty = torch.ops.torchbcd.regularizer_penalty(x, 0.7, 0.2, -1.0, 2.0)
        torch.testing.assert_close(penalty, 0.7 * x.abs() + 0.1 * x.square())
        low, high = torch.ops.torchbcd.regularizer_subdifferential(x, 0.7, 0.2, -1.0, 2.0)
        inf = float("inf")
        expected = torch.tensor([-inf, -0.8, -0.7, 0.76, 1.1], dtype=x.dtype)
        torch.testing.assert_close(low, expected)
        torch.testing.assert_close(high, torch.tensor([-0.9, -0.8, 0.7, 0.76, inf], dtype=x.dtype))

    def test_names_are_checked(self):
        with pytest.raises(ValueError, match="activation must be one of .*'relu'.* .got 'glu'."):
            torch.ops.torchbcd.activation_out(randn(2), "glu", [], out=randn(2))
        with pytest.raises(ValueError, match="loss must be one of 'squared', .* .got 'absolute'."):
            torch.ops.torchbcd.row_losses(*randn(2, 2, 2), "absolute")
        with pytest.raises(ValueError, match="activation 'relu' takes no parameters .got 1."):
            torch.ops.torchbcd.activation_out(randn(2), "relu", [0.1], out=randn(2))
        with pytest.raises(ValueError, match="'hardtanh' takes two parameters, its bounds .got 1."):
            torch.ops.torchbcd.activation_out(randn(2), "hardtanh", [0.1], out=randn(2))


def scripted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    weight, bias = torch.ops.torchbcd.weight_update(a, b, a.t() @ b, a.sum(0), 1.0, 0.5)
    v = torch.ops.torchbcd.state_update(b, a, weight, bias, 1.0, 2.0)
    return torch.ops.torchbcd.prox_relu(v, b, 0.5)


def test_torchscript_equals_eager():
    a, b = randn(9, 4), randn(9, 3)
    torch.testing.assert_close(torch.jit.script(scripted)(a, b), scripted(a, b), rtol=0, atol=0)


def test_compile_has_no_graph_break():
    a, b = randn(9, 4), randn(9, 3)
    compiled = torch.compile(scripted, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(a, b), scripted(a, b), rtol=0, atol=0)


def test_export_keeps_the_operators():
    class Module(torch.nn.Module):
        def forward(self, a, b):
            return scripted(a, b)

    a, b = randn(9, 4), randn(9, 3)
    rows = torch.export.Dim("rows")
    exported = torch.export.export(Module(), (a, b), dynamic_shapes={"a": {0: rows}, "b": {0: rows}})
    targets = {str(node.target) for node in exported.graph.nodes}
    assert {f"torchbcd.{name}.default" for name in ("weight_update", "state_update", "prox_relu")} <= targets
    more = randn(14, 4), randn(14, 3)
    torch.testing.assert_close(exported.module()(*more), scripted(*more), rtol=0, atol=0)


@pytest.mark.parametrize(
    "module",
    [
        F,
        torchbcd,
        torchbcd.bcd,
        torchbcd.checkpoint,
        torchbcd.linear_rate,
        torchbcd.dladmm,
        torchbcd.dlam,
        torchbcd.losses,
        torchbcd.nn,
        torchbcd.optimizer,
        torchbcd.package,
        torchbcd.pruning,
        torchbcd.regularizers,
        torchbcd.relaxed,
        torchbcd.special_cases,
    ],
    ids=lambda m: m.__name__,
)
def test_docstring_examples(module):
    results = doctest.testmod(module, extraglobs={"torch": torch, "nn": torch.nn})
    assert results.attempted > 0
    assert results.failed == 0


def test_every_function_has_an_example():
    for name in F.__all__:
        documented = getattr(F, name).__doc__
        for heading in ("Args:", "Returns:", "Raises:", "Example:", "Source:", ".. math::"):
            assert heading in documented, f"{name} lacks {heading}"
