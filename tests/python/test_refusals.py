"""Bad input: an error that says what must hold and what was got, by every optimizer, before anything changes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import build, unchanged
from tables import METHODS
from torch import nn

import torchbcd
from torchbcd import regularizers

pytestmark = pytest.mark.usefixtures("one_thread")

N, D, C = 40, 6, 3
NAN, INF = math.nan, math.inf

every_method = pytest.mark.parametrize("method", METHODS)


def bound(method):
    """A model, its optimizer after a sweep over bound data, and the data."""
    return build(METHODS[method], sweeps=1)


def with_entry(t, value):
    t = t.clone()
    t.view(-1)[1] = value
    return t


BAD_DATA = {
    "NaN in x": (lambda x, y: (with_entry(x, NAN), y), ValueError, "x must be finite"),
    "Inf in x": (lambda x, y: (with_entry(x, -INF), y), ValueError, "x must be finite"),
    "NaN in y": (lambda x, y: (x, with_entry(torch.zeros(N, C).double(), NAN)), ValueError, "y must be finite"),
    "x too wide": (
        lambda x, y: (x.repeat(1, 2), y),
        ValueError,
        r"x must have shape \(n, 6\) \(got \[40, 12\]",
    ),
    "x of three dimensions": (lambda x, y: (x[None], y), ValueError, r"x must have shape \(n, 6\)"),
    "no rows": (lambda x, y: (x[:0], y[:0]), ValueError, r"x must have at least one row \(got \[0, 6\]"),
    "fewer targets": (
        lambda x, y: (x, y[:-1]),
        ValueError,
        r"y must have as many rows as x, 40 \(got \[39\]",
    ),
    "target width": (
        lambda x, y: (x, torch.zeros(N, C + 1).double()),
        ValueError,
        r"y must have shape \(n, 3\) \(got \[40, 4\]",
    ),
    "classes in a column": (
        lambda x, y: (x, y[:, None]),
        ValueError,
        r"class indices must have shape \(n,\)",
    ),
    "class too large": (lambda x, y: (x, with_entry(y, 3)), ValueError, r"classes from 0 to 2 \(got 3\)"),
    "class negative": (lambda x, y: (x, with_entry(y, -1)), ValueError, r"classes from 0 to 2 \(got -1\)"),
    "x float32": (lambda x, y: (x.float(), y), TypeError, "x must have the dtype of the model, Double"),
    "x integer": (lambda x, y: (x.long(), y), TypeError, "x must have the dtype of the model, Double"),
    "y float32": (
        lambda x, y: (x, torch.zeros(N, C)),
        TypeError,
        "y must hold class indices or have the dtype of the model, Double",
    ),
    "x on another device": (
        lambda x, y: (x.to("meta"), y),
        ValueError,
        "x must be on the device of the model, cpu",
    ),
    "y on another device": (
        lambda x, y: (x, y.to("meta")),
        ValueError,
        "y must be on the device of the model, cpu",
    ),
    "x a list": (lambda x, y: (x.tolist(), y), TypeError, r"x must be a torch.Tensor \(got list\)"),
    "y an array": (lambda x, y: (x, y.numpy()), TypeError, r"must be a torch.Tensor \(got ndarray\)"),
}


@pytest.mark.parametrize("way", ["bind", "step"])
@pytest.mark.parametrize("case", BAD_DATA)
@every_method
def test_bad_data(method, case, way):
    spoil, error, message = BAD_DATA[case]
    model, optimizer, x, y = bound(method)
    with unchanged(model, optimizer), pytest.raises(error, match=message):
        getattr(optimizer, way)(*spoil(x, y))
    assert optimizer.step().sweep == 2


BAD_WEIGHTS = {
    "too few": (lambda ones: ones[:4], ValueError, r"sample_weight must have shape \(n,\) = \[40\]"),
    "negative": (lambda ones: -ones, ValueError, "sample_weight must be finite and >= 0"),
    "NaN": (lambda ones: ones * NAN, ValueError, "sample_weight must be finite and >= 0"),
    "float32": (lambda ones: ones.float(), TypeError, "sample_weight must have the dtype of the model"),
    "a list": (lambda ones: ones.tolist(), TypeError, "sample_weight must be a torch.Tensor"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
@every_method
def test_bad_sample_weights(method, case):
    spoil, error, message = BAD_WEIGHTS[case]
    model, optimizer, x, y = bound(method)
    with unchanged(model, optimizer), pytest.raises(error, match=message):
        optimizer.bind(x, y, spoil(torch.ones(N).double()))


@pytest.mark.parametrize("method", ["BCD", "RelaxedBCD", "DLAM"])
def test_sample_weights_of_bound_rows_are_bound_with_them(method):
    model, optimizer, _, _ = bound(method)
    message = "sample_weight of bound rows is given to bind"
    with unchanged(model, optimizer), pytest.raises(ValueError, match=message):
        optimizer.step(sample_weight=torch.ones(N).double())


BAD_INDEX = {
    "out of range": (torch.tensor([0, N]), ValueError, r"rows from 0 to 39 \(got 40\)"),
    "negative": (torch.tensor([0, -1]), ValueError, r"rows from 0 to 39 \(got -1\)"),
    "twice": (torch.tensor([4, 2, 4]), ValueError, "must not hold a row twice"),
    "empty": (torch.tensor([], dtype=torch.int64), ValueError, r"shape \(m,\) with m > 0"),
    "a matrix": (torch.tensor([[1]]), ValueError, r"shape \(m,\) with m > 0"),
    "a mask": (torch.ones(N, dtype=torch.bool), TypeError, "index must be an int64 tensor"),
    "a list": ([0, 1], TypeError, "index must be a torch.Tensor"),
}


class TestIndex:
    @pytest.mark.parametrize("case", BAD_INDEX)
    def test_bad(self, case):
        index, error, message = BAD_INDEX[case]
        model, optimizer, _, _ = bound("BCD")
        with unchanged(model, optimizer), pytest.raises(error, match=message):
            optimizer.step(index=index)

    def test_of_other_rows(self):
        model, optimizer, x, y = bound("BCD")
        with unchanged(model, optimizer):
            with pytest.raises(ValueError, match="x and y must be rows `index` of the bound data"):
                optimizer.step(x[:3], y[:3], index=torch.tensor([3, 4, 5]))
            with pytest.raises(ValueError, match="x must have as many rows as index, 3"):
                optimizer.step(x[:2], y[:2], index=torch.tensor([3, 4, 5]))

    def test_of_nothing(self):
        with pytest.raises(ValueError, match="needs bound data; call bind"):
            torchbcd.BCD(make_mlp([D, C])).step(index=torch.tensor([0]))


class MyLinear(nn.Linear):
    pass


SHARED = nn.Linear(4, 4)

BAD_MODELS = {
    "normalisation": (
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
        r"module 1 of the model, BatchNorm1d\(4,.*not supported, since its statistics join all rows.*LayerNorm",
    ),
    "convolution": (
        nn.Sequential(nn.Conv2d(1, 1, 3)),
        r"module 0 of the model, Conv2d.*not supported, since .*before the layers",
    ),
    "activation first": (nn.Sequential(nn.ReLU()), "module 0 .*must follow a Linear"),
    "two activations": (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.ReLU()),
        "module 2 .*follows another activation",
    ),
    "late flatten": (
        nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(4, 2)),
        "module 1 .*must be the first module",
    ),
    "partial flatten": (
        nn.Sequential(nn.Flatten(0), nn.Linear(4, 2)),
        "module 0 .*must flatten all but the first dimension",
    ),
    "shared weight": (
        nn.Sequential(SHARED, nn.ReLU(), SHARED),
        "of layer 2 shares memory with the .* of layer 1",
    ),
    "subclass": (nn.Sequential(MyLinear(4, 2)), "module 0 of the model, MyLinear.*is not supported"),
    "nothing to train": (nn.Sequential(), "at least one Linear"),
    "widths": (
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(5, 2)),
        r"module 2 of the model, Linear.* must take 3 inputs.*\(got 5\)",
    ),
    "mixed dtypes": (
        nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2).double()),
        "parameters must share one dtype and device",
    ),
}


@every_method
class TestModels:
    @pytest.mark.parametrize("case", BAD_MODELS)
    def test_unsupported(self, method, case):
        model, message = BAD_MODELS[case]
        with pytest.raises(ValueError, match=message):
            getattr(torchbcd, method)(model)

    def test_not_a_sequential(self, method):
        with pytest.raises(TypeError, match=r"model must be an nn.Sequential \(got Linear\)"):
            getattr(torchbcd, method)(nn.Linear(2, 2))

    def test_half_precision(self, method):
        with pytest.raises(TypeError, match=r"parameters must be float32 or float64 \(got Half\)"):
            getattr(torchbcd, method)(nn.Sequential(nn.Linear(2, 2)).half())

    def test_activations_that_a_method_does_not_take(self, method):
        last = "the last layer must have no activation"
        refused = {
            "BCD": [],
            "RelaxedBCD": [({"output": "tanh"}, "cross_entropy", last)],
            "DLAM": [
                ({"output": "tanh"}, "squared", last),
                ({"hidden": "sign"}, "squared", "layer 1: the activation must be monotone"),
                ({"hidden": "silu"}, "squared", "monotone and continuous .got 'silu'"),
            ],
            "DLADMM": [({"output": "tanh"}, "squared", last)],
        }[method]
        for model, loss, message in refused:
            with pytest.raises(ValueError, match=message):
                getattr(torchbcd, method)(make_mlp([D, 5, C], **model), loss)


class TestState:
    @every_method
    def test_of_another_optimizer(self, method):
        model, optimizer, _, _ = bound(method)
        adam = torch.optim.Adam(model.parameters())
        with (
            unchanged(model, optimizer),
            pytest.raises(ValueError, match=f"state_dict must be one of torchbcd.{method}"),
        ):
            optimizer.load_state_dict(adam.state_dict())

    def test_of_another_net(self):
        optimizer = torchbcd.BCD(make_mlp([D, 5, C]))
        optimizer.bind(*make_data(N, D, C))
        other = torchbcd.BCD(make_mlp([D, 7, C]), gamma=3.0)
        with pytest.raises(ValueError, match=r"state\['U'\] of layer 1 does not fit this model"):
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert [group["gamma"] for group in other.param_groups] == [3.0, 3.0]


def test_regularizers_check_themselves():
    for bad in (-1.0, NAN, INF):
        with pytest.raises(ValueError, match="weight must be finite and >= 0"):
            regularizers.L1(bad)
    with pytest.raises(ValueError, match="low must be at most high"):
        regularizers.Box(1.0, 0.0)
