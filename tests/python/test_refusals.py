"""Bad input: a ValueError or TypeError that says what must hold and what was got, before anything changes."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_data, make_mlp
from torch import nn

import torchbcd

N, D, C = 12, 6, 3


def make(dtype=torch.float64, **options):
    return torchbcd.BCD(make_mlp([D, 5, C], dtype=dtype), **options)


def data():
    return make_data(N, D, C)


def with_entry(t, value):
    t = t.clone()
    t.view(-1)[1] = value
    return t


NAN, INF = float("nan"), float("inf")

BAD_DATA = {
    "NaN in x": (lambda x, y: (with_entry(x, NAN), y), ValueError, "x must be finite"),
    "Inf in x": (lambda x, y: (with_entry(x, -INF), y), ValueError, "x must be finite"),
    "NaN in y": (
        lambda x, y: (x, with_entry(torch.zeros(N, C).double(), NAN)),
        ValueError,
        "y must be finite",
    ),
    "x too wide": (
        lambda x, y: (x.repeat(1, 2), y),
        ValueError,
        r"x must have shape \(n, 6\) \(got \[12, 12\]",
    ),
    "x of three dimensions": (lambda x, y: (x[None], y), ValueError, r"x must have shape \(n, 6\)"),
    "no rows": (lambda x, y: (x[:0], y[:0]), ValueError, r"x must have at least one row \(got \[0, 6\]"),
    "fewer targets": (
        lambda x, y: (x, y[:-1]),
        ValueError,
        r"y must have as many rows as x, 12 \(got \[11\]",
    ),
    "target width": (
        lambda x, y: (x, torch.zeros(N, C + 1).double()),
        ValueError,
        r"y must have shape \(n, 3\) \(got \[12, 4\]",
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
    "y bool": (lambda x, y: (x, y > 0), TypeError, "y must hold class indices or have the dtype"),
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
def test_bad_data(case, way):
    spoil, error, message = BAD_DATA[case]
    optimizer = make()
    optimizer.bind(*data())
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(error, match=message):
        getattr(optimizer, way)(*spoil(*data()))
    after = optimizer.state_dict()
    for name, tensors in before["engine"].items():
        for a, b in zip(tensors, after["engine"][name], strict=True):
            assert torch.equal(a, b)
    optimizer.step()


BAD_INDEX = {
    "out of range": (torch.tensor([0, N]), ValueError, r"rows from 0 to 11 \(got 12\)"),
    "negative": (torch.tensor([0, -1]), ValueError, r"rows from 0 to 11 \(got -1\)"),
    "twice": (torch.tensor([4, 2, 4]), ValueError, "must not hold a row twice"),
    "empty": (torch.tensor([], dtype=torch.int64), ValueError, r"shape \(m,\) with m > 0"),
    "a matrix": (torch.tensor([[1]]), ValueError, r"shape \(m,\) with m > 0"),
    "a mask": (torch.ones(N, dtype=torch.bool), TypeError, "index must be an int64 tensor"),
    "a list": ([0, 1], TypeError, "index must be a torch.Tensor"),
}


@pytest.mark.parametrize("case", BAD_INDEX)
def test_bad_index(case):
    index, error, message = BAD_INDEX[case]
    optimizer = make()
    optimizer.bind(*data())
    with pytest.raises(error, match=message):
        optimizer.step(index=index)


def test_index_of_other_rows():
    optimizer = make()
    x, y = data()
    optimizer.bind(x, y)
    with pytest.raises(ValueError, match="x and y must be rows `index` of the bound data"):
        optimizer.step(x[:3], y[:3], index=torch.tensor([3, 4, 5]))
    with pytest.raises(ValueError, match="x must have as many rows as index, 3"):
        optimizer.step(x[:2], y[:2], index=torch.tensor([3, 4, 5]))


def test_nothing_bound():
    for call in (lambda o: o.step(), lambda o: o.step(index=torch.tensor([0]))):
        with pytest.raises(ValueError, match="needs bound data; call bind"):
            call(make())
    for name in ("objective", "variables"):
        with pytest.raises(ValueError, match="no data yet"):
            getattr(make(), name)()


def test_half_a_batch():
    x, y = data()
    with pytest.raises(ValueError, match="both inputs and targets, or neither"):
        make().step(x)
    with pytest.raises(ValueError, match="takes its targets from the closure"):
        make().step(lambda: (x, y), y)


@pytest.mark.parametrize("name", ["gamma", "rho", "alpha", "alpha_weight"])
class TestPenalties:
    @pytest.mark.parametrize("bad", [0.0, -1.0, NAN, INF])
    def test_not_positive(self, name, bad):
        for value, layer in ((bad, 1), ([1.0, bad], 2)):
            with pytest.raises(ValueError, match=f"{name} of layer {layer} must be a finite positive number"):
                make(**{name: value})

    def test_scheduled_to_something_bad(self, name):
        optimizer = make()
        optimizer.bind(*data())
        optimizer.param_groups[1][name] = -2.0
        with pytest.raises(ValueError, match=rf"{name} of layer 2 must be .* \(got -2\)"):
            optimizer.step()

    def test_as_many_as_layers(self, name):
        with pytest.raises(ValueError, match=f"{name} must hold one number for each of the 2 layers"):
            make(**{name: [1.0, 1.0, 1.0]})

    @pytest.mark.parametrize("bad", ["1", object(), [1.0, "2"], True])
    def test_not_a_number(self, name, bad):
        with pytest.raises(TypeError, match=f"{name} must be a number"):
            make(**{name: bad})


@pytest.mark.parametrize("bad", [0.0, -1.0, NAN, INF])
def test_loss_weight(bad):
    with pytest.raises(ValueError, match="loss_weight must be a finite positive number"):
        make(loss_weight=bad)


def test_loss_weight_type():
    with pytest.raises(TypeError, match="loss_weight must be a number"):
        make(loss_weight="sum")


def test_loss():
    with pytest.raises(ValueError, match=r"loss must be one of 'squared'.* \(got 'huber'\)"):
        make(loss="huber")
    with pytest.raises(TypeError, match="loss must be a name or a torchbcd.losses object"):
        make(loss=nn.MSELoss())


class MyLinear(nn.Linear):
    pass


SHARED = nn.Linear(4, 4)

BAD_MODELS = {
    "dropout": (
        nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)),
        r"module 1 of the model, Dropout\(p=0.5.*is not supported; supported are",
    ),
    "convolution": (nn.Sequential(nn.Conv2d(1, 1, 3)), r"module 0 of the model, Conv2d.*not supported"),
    "nested": (
        nn.Sequential(nn.Sequential(nn.Linear(4, 2))),
        r"(?s)module 0 of the model, Sequential.*is not supported",
    ),
    "activation first": (nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), "module 0 .*must follow a Linear"),
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
        "module 2 .*shares its weight with an earlier module",
    ),
    "subclass": (nn.Sequential(MyLinear(4, 2)), "module 0 of the model, MyLinear.*is not supported"),
    "nothing to train": (nn.Sequential(), "at least one Linear"),
    "widths": (
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(5, 2)),
        r"Linear module 2 of the model must take 3 inputs.*\(got 5\)",
    ),
    "mixed dtypes": (
        nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2).double()),
        "parameters must share one dtype and device",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(case):
    model, message = BAD_MODELS[case]
    with pytest.raises(ValueError, match=message):
        torchbcd.BCD(model)


def test_not_a_sequential():
    with pytest.raises(TypeError, match=r"model must be an nn.Sequential \(got Linear\)"):
        torchbcd.BCD(nn.Linear(2, 2))


def test_half_precision():
    with pytest.raises(TypeError, match=r"parameters must be float32 or float64 \(got Half\)"):
        torchbcd.BCD(nn.Sequential(nn.Linear(2, 2)).half())


def test_parameters_that_are_not_finite():
    optimizer = make()
    optimizer.bind(*data())
    with torch.no_grad():
        optimizer.param_groups[1]["params"][0][0, 0] = NAN
    with pytest.raises(ValueError, match="the parameters of layer 2 must be finite"):
        optimizer.step()


class TestNumericalFailure:
    """What no check of the input can see names the layer and the block that it met first."""

    def test_factorisation(self):
        x, y = data()
        optimizer = make()
        before = copy.deepcopy(optimizer.state_dict())
        optimizer.bind(x * 1e180, y)
        weights = [group["params"][0].clone() for group in optimizer.param_groups]
        with pytest.raises(torch.linalg.LinAlgError, match="layer 2 of 2, W block: .*no Cholesky factor"):
            optimizer.step()
        for weight, group in zip(weights, optimizer.param_groups, strict=True):
            assert torch.equal(weight, group["params"][0])
        assert before["param_groups"] == optimizer.state_dict()["param_groups"]
        optimizer.bind(x, y)
        optimizer.step()

    def test_result_that_overflows(self):
        x, _ = data()
        optimizer = make(dtype=torch.float32)
        target = torch.full((N, C), 3e38)
        before = [group["params"][0].clone() for group in optimizer.param_groups]
        with pytest.raises(torch.linalg.LinAlgError, match="layer [12] of 2, [VUW] block"):
            optimizer.step(x.float(), target)
        for weight, group in zip(before, optimizer.param_groups, strict=True):
            assert torch.equal(weight, group["params"][0])


class TestState:
    def test_of_another_optimizer(self):
        optimizer = make()
        adam = torch.optim.Adam(optimizer.param_groups[0]["params"])
        with pytest.raises(ValueError, match="state_dict must be one of torchbcd.BCD"):
            optimizer.load_state_dict(adam.state_dict())

    def test_of_another_net(self):
        optimizer = make()
        optimizer.bind(*data())
        other = torchbcd.BCD(make_mlp([D, 7, C]), gamma=3.0)
        with pytest.raises(ValueError, match=r"state\['u'\] of layer 1 does not fit this model"):
            other.load_state_dict(optimizer.state_dict())
        assert [group["gamma"] for group in other.param_groups] == [3.0, 3.0]
