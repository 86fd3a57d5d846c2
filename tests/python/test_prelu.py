"""PReLU: its slope in a block of its own, one-dimensional least squares."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_data, make_mlp
from relaxed_problems import MANY, PLAIN, STILL, assert_certified, by_index, watched_sweep
from torch import nn

import torchbcd
from torchbcd import regularizers
from torchbcd.nn import Residual

WIDTHS = [6, 12, 10, 3]


def make_net(norm=None, dtype=torch.float64):
    return make_mlp(WIDTHS, hidden="prelu", norm=norm, dtype=dtype)


def slopes_of(model):
    return [m.weight for m in model.modules() if isinstance(m, nn.PReLU)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("norm", "steps"), [(None, 1), (None, 3), ("before", 1), ("behind", 2)])
def test_no_block_raises_the_objective(norm, steps, dtype):
    model = make_net(norm, dtype)
    optimizer = torchbcd.RelaxedBCD(model, "cross_entropy", state_steps=steps, **STILL)
    x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1], dtype=dtype)
    before = copy.deepcopy(slopes_of(model))
    for _ in range(3):
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, None, "cross_entropy", y, clamped=False, dtype=dtype)
        assert [block for (block, _), _ in seen] == ["V", *["W", "map", "UV"] * 2, "W"]
    assert all(not slope.equal(was) for slope, was in zip(slopes_of(model), before, strict=True))
    hidden = 2 if norm is None else 3
    torch.testing.assert_close(seen[-1][1].V[1], model[1:hidden](seen[-1][1].U[0]))


def problem(model, **options):
    optimizer = torchbcd.RelaxedBCD(model, **{**PLAIN, "relaxation": 0.7, "damping": 0.3, **options})
    before = copy.deepcopy(model)
    x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1])
    _, seen = watched_sweep(optimizer, x, y)
    at = by_index(seen)
    start = at["W", 1]
    residual = start.U[1] - start.V[1] @ start.W[1].t() - start.b[1]
    return before, start, residual, at["map", 0]


def test_it_is_least_squares():
    model = make_net()
    before, start, residual, moved = problem(model)
    w, below = start.W[1], start.U[0].clamp(max=0)
    g = ((residual @ w) * below).sum()
    h = (w.square().sum(0) * below.square()).sum()
    image = (below @ w.t()).square().sum()
    # The minimiser of |R - s B W^T|^2 + alpha s^2, alpha = damping h, and the part `relaxation` of it.
    expected = before[1].weight + 0.7 * g / (image + 0.3 * h)
    torch.testing.assert_close(model[1].weight, expected)
    torch.testing.assert_close(moved.V[1], model[1](start.U[0]).detach())


@pytest.mark.parametrize("norm", ["before", "behind"])
def test_with_a_layer_norm(norm):
    """Scale, shift and slope take one step together, along autograd's gradient over the curvatures."""
    model = make_net(norm)
    before, start, residual, _ = problem(model)
    own = before[1:3]
    parts = {name: p.detach() for name, p in own.named_parameters()}
    w = start.W[1]
    jacobian = torch.func.jacrev(lambda parts: torch.func.functional_call(own, parts, (start.U[0],)))(parts)
    g = {name: torch.einsum("nj,njk->k", residual @ w, j) for name, j in jacobian.items()}
    h = {name: torch.einsum("j,njk->k", w.square().sum(0), j.square()) for name, j in jacobian.items()}
    (slope,) = (name for name in parts if parts[name].numel() == 1)
    mean = torch.cat([h[name] for name in parts if name != slope]).mean()
    alpha = {name: 0.3 * (h[name] if name == slope else mean) for name in parts}
    step = {name: g[name] / (h[name] + alpha[name]) for name in parts}
    along = sum(jacobian[name] @ step[name] for name in parts) @ w.t()
    damped = sum((alpha[name] * step[name].square()).sum() for name in parts)
    length = 0.7 * sum((g[name] * step[name]).sum() for name in parts) / (along.square().sum() + damped)
    for name, p in model[1:3].named_parameters():
        torch.testing.assert_close(p.detach(), parts[name] + length * step[name])


def test_states_and_frozen_slopes():
    data = make_data(20, WIDTHS[0], WIDTHS[-1])
    model = make_net()
    optimizer = torchbcd.RelaxedBCD(model)
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 3, 2]
    optimizer.step(*data)
    twins = [copy.deepcopy((model, optimizer)) for _ in range(2)]
    loaded_model = copy.deepcopy(model)
    loaded = torchbcd.RelaxedBCD(loaded_model)
    loaded.load_state_dict(optimizer.state_dict())
    script = twins[1][1].script_object()
    for step in (optimizer.step, twins[0][1].step, loaded.step, script.step):
        step(*data)
        step(*data)
    for twin in (twins[0][0], twins[1][0], loaded_model):
        assert all(p.equal(q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    slope = model[1].weight.clone()
    model[1].weight.requires_grad_(False)
    optimizer.step(*data)
    assert model[1].weight.equal(slope)
    assert all(
        p.equal(q) for p, q in zip(model[:1].parameters(), optimizer.param_groups[0]["params"], strict=False)
    )
    frozen = make_net()
    for slope in slopes_of(frozen):
        slope.requires_grad_(False)
    bcd = torchbcd.BCD(frozen)
    bcd.bind(*data)
    bcd.step()


def test_residuals(digits):
    x, y = digits
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(64, 40), nn.PReLU(), Residual(nn.Linear(40, 40), nn.PReLU(), nn.Linear(40, 40)), nn.PReLU()),
        nn.Linear(40, 10),
    )
    torchbcd.RelaxedBCD(model).fit(x[:1200], y[:1200], epochs=8)
    assert (model(x[1200:]).argmax(1) == y[1200:]).double().mean() > 0.92
    assert all(slope.item() != 0.25 for slope in slopes_of(model))


def test_what_is_refused():
    for kind in (torchbcd.BCD, torchbcd.DLAM, torchbcd.DLADMM):
        with pytest.raises(
            ValueError, match=rf"torchbcd.{kind.__name__}: .*the slope of a PReLU.*freeze the slope"
        ):
            kind(make_net())
    a, b = nn.Linear(4, 4), nn.Linear(4, 2)
    for modules, message in (
        ((a, nn.PReLU(4), b), r"module 1 .*not supported; supported are .*PReLU \(of one slope\)"),
        ((a, nn.ReLU(), b, nn.PReLU()), "the last layer must have .*no slope that is trained"),
    ):
        with pytest.raises(ValueError, match=message):
            torchbcd.RelaxedBCD(nn.Sequential(*copy.deepcopy(modules)))
    with pytest.raises(ValueError, match="a monotone net must have no slope that is trained"):
        torchbcd.RelaxedBCD(make_net(), weight_regularizer=regularizers.Monotone([0]))
    with pytest.raises(ValueError, match="no slope that is trained"):
        torchbcd.functional.network_of(make_net())
    shared = make_net()
    shared[3].weight = shared[1].weight
    with pytest.raises(ValueError, match="PReLU slope of layer 2 shares memory with the PReLU slope of layer 1"):
        torchbcd.RelaxedBCD(shared)
