"""The operators as PyTorch sees them: schemas, fakes, autograd keys, TorchScript, torch.compile, docs."""

from __future__ import annotations

import doctest

import pytest
import torch
from tables import operators, randn

import torchbcd
import torchbcd.bcd
import torchbcd.dladmm
import torchbcd.dlam
import torchbcd.functional as F
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
        if name.startswith("torchbcd::")
    }
    assert checked == registered


def test_every_public_function_is_an_operator():
    for name in F.__all__:
        assert hasattr(torch.ops.torchbcd, name)


class TestPasses:
    """The fused passes against the same updates spelt out."""

    def test_auxiliary_update(self):
        v, u, residual = randn(40, 6), randn(40, 6), randn(40, 6)
        gamma, rho, alpha = 0.7, 1.1, 0.2
        u_out, residual_out = torch.empty_like(u), torch.empty_like(u)
        torch.ops.torchbcd.auxiliary_update_out(
            v, u, residual, "relu", [], gamma, rho, alpha, u_out=u_out, residual_out=residual_out
        )
        product = u - residual
        centre = (rho * product + alpha * u) / (rho + alpha)
        expected = F.prox_relu(v, centre, (rho + alpha) / gamma)
        torch.testing.assert_close(u_out, expected)
        torch.testing.assert_close(residual_out, expected - product)

    def test_output_update(self):
        y, v, u = randn(40, 6), randn(40, 6), randn(40, 6)
        weight, gamma, alpha = 0.7, 1.1, 0.2
        out = torch.empty_like(v)
        torch.ops.torchbcd.output_update_out(y, v, u, "squared", "relu", [], weight, gamma, alpha, v_out=out)
        expected = (weight * y + gamma * u.relu() + alpha * v) / (weight + gamma + alpha)
        torch.testing.assert_close(out, expected)

    def test_in_place(self):
        v, u, residual = randn(40, 6), randn(40, 6), randn(40, 6)
        args = ("relu", [], 0.7, 1.1, 0.2)
        expected = torch.empty_like(u), torch.empty_like(u)
        op = torch.ops.torchbcd.auxiliary_update_out
        op(v, u, residual, *args, u_out=expected[0], residual_out=expected[1])
        op(v, u, residual, *args, u_out=u, residual_out=residual)
        torch.testing.assert_close((u, residual), expected, rtol=0, atol=0)

    def test_names_are_checked(self):
        with pytest.raises(ValueError, match="activation must be one of .*'relu'.* .got 'gelu'."):
            torch.ops.torchbcd.activation_out(randn(2), "gelu", [], out=randn(2))
        with pytest.raises(ValueError, match="loss must be one of 'squared', .* .got 'huber'."):
            torch.ops.torchbcd.output_update_out(
                *randn(3, 2, 2), "huber", "relu", [], 1.0, 1.0, 1.0, v_out=randn(2, 2)
            )


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
        torchbcd.diagnostics,
        torchbcd.dladmm,
        torchbcd.dlam,
        torchbcd.nn,
        torchbcd.optimizer,
        torchbcd.package,
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
