"""Models without what exact zeros cut off compute what they computed."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from conftest import ACTIVATIONS, make_data, make_mlp
from torch import nn

import torchbcd
from torchbcd import prune_zeros
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")


def widths(model):
    linears = [module for module in model if isinstance(module, nn.Linear)]
    return [linears[0].in_features, *(linear.out_features for linear in linears)]


def with_zeros(**options):
    """6-9-8-7-3: inputs that are not read, units that read nothing or are not read, one because of another."""
    model = make_mlp([6, 9, 8, 7, 3], **options)
    with torch.no_grad():
        model[0].weight[:, [1, 4]] = 0
        model[0].weight[2] = 0  # reads nothing
        model[2].weight[:, 5] = 0  # is read by nobody
        model[2].weight[7] = 0
        model[4].weight[:, 3] = 0
        model[2].weight[[0, 1, 2, 4, 5, 6], 6] = 0  # is read by a unit alone that nobody reads
    return model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_same_outputs(activation, bias):
    model = with_zeros(hidden=activation, bias=bias)
    before = copy.deepcopy(model.state_dict())
    small = prune_zeros(model)
    x = 2 * torch.randn(50, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(small(x), model(x), rtol=1e-12, atol=1e-12)
    assert widths(small) == [4, 6, 6, 7, 3]
    assert small[0].index.tolist() == [0, 2, 3, 5]
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    assert all(a.data_ptr() != b.data_ptr() for a in small.parameters() for b in model.parameters())
    made = bias or activation in ("sigmoid", "hardsigmoid", "sign")  # where sigma(0) is not 0
    biases = [layer.bias is not None for layer in small if isinstance(layer, nn.Linear)]
    assert biases == [bias, made, made, bias]


def test_nothing_to_prune():
    model = make_mlp([6, 5, 3])
    small = prune_zeros(model)
    assert [type(module) for module in small] == [type(module) for module in model]
    x = torch.randn(4, 6, dtype=torch.float64)
    assert torch.equal(small(x), model(x))


def test_all_is_zero():
    """One unit and one input stay, so that it is a model yet."""
    model = make_mlp([6, 5, 4, 3])
    with torch.no_grad():
        model[2].weight.zero_()
    small = prune_zeros(model)
    assert widths(small) == [1, 1, 1, 3]
    x = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(small(x), model(x))
    assert widths(prune_zeros(small)) == [1, 1, 1, 3]


def test_again_after_more_zeros():
    """A Select is followed by one of what is left of it; after a Flatten, in nested Sequentials."""
    model = with_zeros()
    nested = nn.Sequential(nn.Flatten(), nn.Sequential(*list(model)[:3]), *list(model)[3:])
    small = prune_zeros(nested)
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(small(x), nested(x))
    assert [type(module) for module in small][:3] == [nn.Flatten, torchbcd.nn.Select, nn.Linear]
    with torch.no_grad():
        small[2].weight[:, 2] = 0
    smaller = prune_zeros(small)
    assert smaller[1].index.tolist() == [0, 2, 5]
    torch.testing.assert_close(smaller(x), small(x))


def test_travels():
    """It is saved, scripted and moved to another dtype like any module, and keeps what was frozen."""
    model = with_zeros(dtype=torch.float32)
    model[4].bias.requires_grad_(False)
    small = prune_zeros(model.eval())
    assert not small[1].training
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in model.parameters()]
    x = torch.randn(5, 6)
    assert torch.equal(torch.jit.script(small)(x), small(x))
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(small)
    other[0].index.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), small(x))
    assert small.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize(("method", "weight", "steps"), [("BCD", 30.0, 60), ("RelaxedBCD", 20.0, 150)])
def test_after_group_lasso(method, weight, steps):
    """Inputs that do not matter go, with the units that are not needed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 10, generator=generator, dtype=torch.float64)
    y = x[:, :1] * 2 + x[:, 1:2].abs() + 0.1 * torch.randn(400, 1, generator=generator, dtype=torch.float64)
    model = make_mlp([10, 12, 12, 1], hidden="relu")
    optimizer = getattr(torchbcd, method)(model, weight_regularizer=reg.GroupL1(weight))
    optimizer.bind(x, y)
    for _ in range(steps):
        optimizer.step()
    small = prune_zeros(model)
    assert 0 in small[0].index
    assert len(small[0].index) < 5
    assert sum(widths(small)) < 0.6 * sum(widths(model))
    if method == "RelaxedBCD":
        assert small[0].index.tolist() == [0, 1]
        assert (model(x) - y).square().mean() < 0.05 * y.var()
    torch.testing.assert_close(small(x), model(x), rtol=1e-10, atol=1e-10)


def test_refusals():
    with pytest.raises(TypeError, match="model must be an nn.Sequential"):
        prune_zeros(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="BatchNorm1d"):
        prune_zeros(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)))
    for bad in ([], [-1]):
        with pytest.raises(ValueError, match="index must list columns, from 0"):
            torchbcd.nn.Select(bad)


def test_what_is_trained_on():
    """An optimizer that holds the model goes on, since nothing of it has changed."""
    model = with_zeros()
    optimizer = torchbcd.BCD(model)
    x, y = make_data(20, 6, 3)
    optimizer.step(x, y)
    prune_zeros(model)
    optimizer.step(x, y)


def test_modules_before_the_layers_stay():
    """A backbone is copied, and what it makes is selected from."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.Flatten()).requires_grad_(False)
    model = nn.Sequential(backbone, nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[1].weight[:, [0, 7]] = 0
        model[1].weight[2] = 0
    x = torch.randn(6, 1, 4, 4)
    small = torchbcd.prune_zeros(torchbcd.prune_zeros(model))
    assert torch.allclose(small(x), model(x), atol=1e-6)
    assert [module.in_features for module in small.modules() if isinstance(module, nn.Linear)] == [10, 4]
    assert sum(isinstance(module, torchbcd.nn.Select) for module in small) == 1
    torchbcd.RelaxedBCD(small).step(x, torch.arange(6) % 2)  # and is trained on
