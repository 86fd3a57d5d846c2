"""DLAM from variables that are given to bind: F there, what follows, what is refused."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from conftest import MONOTONE, make_data, make_mlp
from contracts import unchanged
from dlam_problems import ROWS, WIDTHS, build, recomputed

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

EPS = 0.1


def make(hidden="tanh", dtype=torch.float64, **options):
    """A model, an optimizer that has seen no data, and data."""
    model = make_mlp(WIDTHS, hidden=hidden, dtype=dtype)
    options = {"rho": [0.3, 0.1, 0.2], "eps": EPS, "joint": True, **options}
    return model, torchbcd.DLAM(model, **options), *make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=dtype)


def start(model, eps=EPS, dtype=torch.float64):
    """z, far from any forward pass, and a within a tolerance of h(z), at its ends now and then."""
    generator = torch.Generator().manual_seed(7)
    z = [2 * torch.randn(ROWS, width, generator=generator, dtype=dtype) for width in WIDTHS[1:]]
    a = []
    for values, h in zip(z, model[1::2], strict=False):
        jitter = 1.5 * torch.randn(values.shape, generator=generator, dtype=dtype)
        a.append(h(values) + eps * jitter.clamp(-1, 1))
    return z, a


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("joint", [False, True], ids=["strict", "joint"])
@pytest.mark.parametrize("hidden", MONOTONE)
def test_objective_at_the_start_and_after(hidden, joint, dtype):
    model, optimizer, x, y = make(hidden, dtype, joint=joint, weight_regularizer=reg.L2(0.02))
    z, a = start(model, dtype=dtype)
    optimizer.bind(x, y, z=z, a=a)
    found = optimizer.variables()
    assert all(map(torch.equal, found.z, z))
    assert all(map(torch.equal, found.a, [x, *a]))
    unit = torch.finfo(dtype).eps
    double = copy.deepcopy(model).double()
    value, _ = recomputed(optimizer, double, "cross_entropy", y, EPS)
    assert value > 10  # of rho/2 |z - q|^2, which a forward pass does not have
    assert optimizer.objective() == pytest.approx(value, rel=300 * unit)
    previous = optimizer.objective()
    for _ in range(15):
        report = optimizer.step()
        assert report.objective <= previous * (1 + 4 * unit)
        previous = report.objective
    assert previous < 0.5 * value


def test_z_alone():
    model, optimizer, x, y = make("sigmoid")
    z, _ = start(model)
    optimizer.bind(x, y, z=z)
    found = optimizer.variables()
    for values, state in zip(z[:-1], found.a[1:], strict=True):
        torch.testing.assert_close(state, values.sigmoid(), rtol=0, atol=1e-15)
    value, gap = recomputed(optimizer, model, "cross_entropy", y, EPS)
    assert gap <= -EPS + 1e-14
    assert optimizer.objective() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("hidden", MONOTONE)
def test_a_alone(hidden):
    """Of what a allows z is the nearest to a_{l-1} W_l^T + b_l: nothing on a grid is nearer, F is least."""
    model, optimizer, x, y = make(hidden)
    _, a = start(model)
    optimizer.bind(x, y, a=a)
    found = optimizer.variables()
    assert all(map(torch.equal, found.a, [x, *a]))
    grid = torch.linspace(-40, 40, 80001).double()
    for layer, (inputs, linear) in enumerate(zip(found.a, model[::2], strict=True)):
        q = linear(inputs).detach()
        if layer == len(WIDTHS) - 2:
            torch.testing.assert_close(found.z[layer], q)
            continue
        image = model[2 * layer + 1](grid)
        distance = (found.z[layer] - q).abs()
        for unit in range(WIDTHS[layer + 1]):
            gap, away = (image - a[layer][:, unit, None]).abs(), (grid - q[:, unit, None]).abs()
            nearest, about = (torch.where(gap <= EPS + more, away, math.inf).amin(1) for more in (0, 1e-12))
            assert (distance[:, unit] <= nearest + 1e-12).all()
            assert (about <= distance[:, unit] + 1.1e-3).all()
    value, gap = recomputed(optimizer, model, "cross_entropy", y, EPS)
    assert gap <= 1e-12
    assert optimizer.objective() == pytest.approx(value, rel=1e-12)


def test_forward_pass_by_hand():
    """What bind does by itself, given to it, is the same point, and goes the same way."""
    objectives = []
    for given in (False, True):
        model, optimizer, x, y = make("relu")
        z, a = [], [x]
        with torch.no_grad():
            for i in range(0, 5, 2):
                z.append(model[i](a[-1]))
                a.append(z[-1].relu())
        optimizer.bind(x, y, **({"z": z, "a": a[1:-1]} if given else {}))
        objectives.append([optimizer.step().objective for _ in range(10)])
    assert objectives[1] == pytest.approx(objectives[0], rel=1e-9)


def test_on_from_where_another_has_ended():
    _, first, x, y = build("tanh", joint=True, eps=0.05)
    for _ in range(10):
        first.step()
    model = copy.deepcopy(first._model.module)
    second = torchbcd.DLAM(model, rho=[0.3, 0.1, 0.2], joint=True, eps=0.05)
    variables = first.variables()
    second.bind(x, y, z=variables.z, a=variables.a[1:])
    assert second.objective() == pytest.approx(first.objective(), rel=1e-12)
    assert second.step().objective < first.objective()


def test_one_layer():
    model = make_mlp([6, 3])
    optimizer = torchbcd.DLAM(model, "squared", rho=2.0, eps=EPS)
    x, y = make_data(ROWS, 6, 3)
    optimizer.bind(x, y, z=[torch.zeros(ROWS, 3).double()], a=[])
    with torch.no_grad():
        expected = 0.5 * ROWS + model(x).square().sum()
    assert optimizer.objective() == pytest.approx(expected.item(), rel=1e-12)


def test_the_eps_of_the_first_sweep_counts():
    """Also where sweeps of an earlier batch have made it smaller."""
    model, optimizer, x, y = build("tanh", eps=torchbcd.EpsSchedule(0.5, 0.5, 0.01))
    for _ in range(6):
        optimizer.step()
    assert optimizer.step().eps < 0.02
    z, a = start(model, eps=0.5)
    optimizer.bind(x, y, z=z, a=a)
    assert optimizer.step().eps == 0.5
    eps = (lambda sweep: 0.5 / (sweep + 1)), torchbcd.EpsSchedule(0.4, 0.5, 0.01)
    optimizer.eps = eps[0]
    optimizer.bind(x, y, z=z, a=a)
    optimizer.step()
    optimizer.eps = eps[1]
    with pytest.raises(ValueError, match=r"in the first sweep 0.4 \(got up to 0.5"):
        optimizer.bind(x, y, z=z, a=a)


def test_hidden_layers_move_with_a_constant_eps():
    """The deadlock of docs/dlam.md is that of a forward pass; there is no warning of it."""
    model, optimizer, x, y = make(joint=False)
    z, a = start(model)
    before = [linear.weight.clone() for linear in model[::2]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.bind(x, y, z=z, a=a)
    for _ in range(5):
        optimizer.step()
    assert all(
        (now.weight - then).norm() > 1e-2 * then.norm() for now, then in zip(model[::2], before, strict=True)
    )


def test_given_tensors_are_copied():
    model, optimizer, x, y = make()
    z, a = start(model)
    optimizer.bind(x, y, z=tuple(t.t().contiguous().t() for t in z), a=tuple(a))
    value = optimizer.objective()
    for t in (*z, *a):
        t.zero_()
    assert optimizer.objective() == value


def edited(tensors, layer, change):
    return [change(t) if i == layer else t for i, t in enumerate(tensors)]


def entry(value):
    def change(t):
        t = t.clone()
        t[3, 1] = value
        return t

    return change


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda z, a: (z[:2], a), ValueError, r"z must hold one tensor for each of the 3 layers \(got 2\)"),
            (
                lambda z, a: (z, z),
                ValueError,
                r"a must hold one tensor for each of the 2 hidden layers \(got 3\)",
            ),
            (
                lambda z, a: (edited(z, 1, lambda t: t[1:]), a),
                ValueError,
                r"z of layer 2 must have shape \(40, 7\) \(got \[39, 7\]\)",
            ),
            (
                lambda z, a: (z, edited(a, 0, lambda t: t[:, 1:])),
                ValueError,
                r"a of layer 1 must have shape \(40, 8\) \(got \[40, 7\]\)",
            ),
            (
                lambda z, a: (edited(z, 2, torch.Tensor.float), a),
                TypeError,
                r"z of layer 3 must have the dtype of the model, Double \(got Float\)",
            ),
            (
                lambda z, a: (z, edited(a, 1, lambda t: t.to("meta"))),
                ValueError,
                r"a of layer 2 must be on the device of the model, cpu \(got meta\)",
            ),
            (lambda z, a: (edited(z, 2, entry(math.nan)), a), ValueError, "z of layer 3 must be finite"),
            (lambda z, a: (z, edited(a, 0, entry(math.inf))), ValueError, "a of layer 1 must be finite"),
            (
                lambda z, a: (edited(z, 1, entry(0.0)), edited(a, 1, entry(0.35))),
                ValueError,
                r"must be at most eps, in the first sweep 0.1 \(got up to 0.35 in layer 2\)",
            ),
            (
                lambda z, a: ([], edited(a, 1, entry(1.2))),
                ValueError,
                "a of layer 2 must be within eps, in the first sweep 0.1, of values that its activation takes",
            ),
            (
                lambda z, a: (z[0], a),
                TypeError,
                r"z must be a list with one tensor for each layer \(got Tensor\)",
            ),
            (lambda z, a: (z, [None, a[1]]), TypeError, r"a of layer 1 must be a torch.Tensor \(got NoneType\)"),
        ],
    )
    def test_before_anything_changes(self, change, error, message):
        model, optimizer, x, y = make()
        optimizer.bind(x, y)
        for _ in range(3):
            optimizer.step()
        z, a = change(*start(model))
        with unchanged(model, optimizer), pytest.raises(error, match=message):
            optimizer.bind(x, y, z=z, a=a)
        assert optimizer.step().sweep == 4

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("hidden", MONOTONE)
    def test_up_to_a_rounding_unit(self, hidden, dtype):
        model, optimizer, x, y = make(hidden, dtype)
        z, _ = start(model, dtype=dtype)
        unit = torch.finfo(dtype).eps
        images = [h(values) for values, h in zip(z, model[1::2], strict=False)]
        optimizer.bind(x, y, z=z, a=[image + EPS * (1 + unit) for image in images])
        assert math.isfinite(optimizer.objective())
        with pytest.raises(ValueError, match=r"must be at most eps.* in layer [12]\)"):
            optimizer.bind(x, y, z=z, a=[image - EPS - 1e3 * unit * image.abs().max() for image in images])

    def test_a_saturated_unit_at_no_tolerance(self):
        """Only an infinite z has a sigmoid of 1."""
        model, optimizer, x, y = make("sigmoid", eps=0.0)
        _, a = start(model, eps=0.0)
        optimizer.bind(x, y, a=a)
        with pytest.raises(ValueError, match="a of layer 1 must be within eps, in the first sweep 0, of values"):
            optimizer.bind(x, y, a=edited(a, 0, entry(1.0)))
