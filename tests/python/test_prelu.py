"""PReLU: its slope in a block of its own, one-dimensional least squares."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from conftest import make_data, make_mlp
from objectives import recomputed_objective
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
    optimizer = torchbcd.DLAM(frozen)
    optimizer.bind(*data)
    optimizer.step()


class Watched:
    """A BCD object whose W and "map" blocks are noted: the model's slopes and the variables are read within."""

    def __init__(self, model, **options):
        self.optimizer = torchbcd.BCD(model, **{"gamma": [0.5, 2.0, 1.0], "alpha_weight": 0.3, **options})
        self.data = make_data(MANY, WIDTHS[0], WIDTHS[-1], dtype=model[0].weight.dtype)
        self.optimizer.bind(*self.data)
        self.blocks = []
        self.optimizer.set_observer(lambda block, layer: self.blocks.append((block, layer)))


@pytest.mark.parametrize("splitting", [3, 2])
def test_bcd_solves_least_squares(splitting):
    """Of every slope, for V and U as the sweep has left them, against the normal equation in one unknown."""
    model = make_net()
    watched = Watched(model, splitting=splitting)
    optimizer, penalties = watched.optimizer, [0.5, 2.0]
    optimizer.step()
    before, start = [s.item() for s in slopes_of(model)], optimizer.variables()
    report = optimizer.step()
    states = "VU" if splitting == 3 else "V"
    assert watched.blocks[len(watched.blocks) // 2 :] == [
        (block, layer) for layer in (3, 2, 1) for block in [*states, *["map"] * (layer < 3), "W"]
    ]
    after = optimizer.variables()
    for i, (gamma, old, slope) in enumerate(zip(penalties, before, slopes_of(model), strict=True)):
        # With two splittings the product is that of V_{i-1} and W_i of before: layers come from the last.
        u = after.U[i] if splitting == 3 else start.V[i] @ start.W[i].t() + start.b[i]
        below, rest = u.clamp(max=0), after.V[i + 1] - u.clamp(min=0)
        expected = (gamma * (below * rest).sum() + 0.3 * old) / (gamma * below.square().sum() + 0.3)
        torch.testing.assert_close(slope.detach(), expected.view(1))
    descent = report.descent
    assert descent.holds()
    assert descent.decrease == pytest.approx(report.decrease, rel=1e-9)
    assert [tuple(b[:2]) for b in descent.blocks] == watched.blocks[-len(descent.blocks) :]
    assert sum(b.block == "map" and b.decrease > 0 for b in descent.blocks) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", [{}, {"order": "layer_parallel"}, {"splitting": 2, "alpha": 0.2}], ids=str)
def test_bcd_never_rises(options, dtype):
    model = make_net(dtype=dtype)
    watched = Watched(model, **options)
    optimizer, (_, labels) = watched.optimizer, watched.data
    objectives = [optimizer.objective()]
    for _ in range(30):
        objectives.append(optimizer.step().objective)
        if dtype == torch.float64:
            recomputed = recomputed_objective(optimizer, model, "squared", labels, options.get("splitting", 3))
            assert objectives[-1] == pytest.approx(recomputed, rel=1e-10)
    assert all(b <= a * (1 + 1e-6 * (dtype == torch.float32)) for a, b in pairwise(objectives))
    assert all(slope.item() != 0.25 for slope in slopes_of(model))


@pytest.mark.parametrize("splitting", [3, 2])
def test_stationarity_has_the_slopes(splitting):
    """Against autograd's gradient in the slopes; and fit runs until it is small."""
    model = make_net()
    optimizer = Watched(model, splitting=splitting, alpha=0.2).optimizer
    for _ in range(3):
        optimizer.step()
    at = optimizer.variables()
    found = optimizer.stationarity()
    for i, (gamma, slope) in enumerate(zip([0.5, 2.0], slopes_of(model), strict=True)):
        u = at.U[i] if splitting == 3 else at.V[i] @ at.W[i].t() + at.b[i]
        penalty = gamma / 2 * (at.V[i + 1] - nn.functional.prelu(u, slope)).square().sum()
        (gradient,) = torch.autograd.grad(penalty, slope)
        assert found.slope[i] == pytest.approx(abs(gradient.item()), rel=1e-8)
    assert found.slope[2] == 0
    parts = [d for part in (found.weight, found.u, found.v, found.slope) for d in part]
    whole = sum(d * d for d in parts) ** 0.5
    assert found.residual >= whole * (1 - 1e-9)
    assert found.residual == pytest.approx(whole, rel=1e-9) or splitting == 2
    model[1].weight.requires_grad_(False)
    assert optimizer.stationarity().slope[0] == 0


def test_a_slope_is_found():
    """V of a leaky ReLU of slope 0.6, U given: the slope is found from others."""
    u = torch.linspace(-3, 3, 40, dtype=torch.float64).view(-1, 1)
    for start in (-2.0, 0.0, 5.0):
        linears = [nn.Linear(1, 1, dtype=torch.float64).requires_grad_(False) for _ in range(2)]
        for linear in linears:
            linear.weight.fill_(1)
            linear.bias.fill_(0)
        model = nn.Sequential(linears[0], nn.PReLU(init=start).double(), linears[1])
        optimizer = torchbcd.BCD(model, gamma=0.1, alpha=1e-6)
        optimizer.bind(u, nn.functional.leaky_relu(u, 0.6))
        for _ in range(200):
            optimizer.step()
        assert model[1].weight.item() == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_dladmm_solves_least_squares(dtype):
    model = make_net(dtype=dtype)
    optimizer = torchbcd.DLADMM(model, rho=0.1, nu=0.3)
    optimizer.bind(*make_data(MANY, WIDTHS[0], WIDTHS[-1], dtype=dtype))
    blocks = []
    optimizer.set_observer(lambda block, layer: blocks.append((block, layer)))
    for _ in range(3):
        optimizer.step()
    of_slopes = [block for block in blocks if block[0] in ("z", "map") and block[1] < 3]
    assert of_slopes == [(block, layer) for layer in (2, 1, 1, 2) for block in ("z", "map")] * 3


def test_every_optimizer_takes_a_state_up_where_it_was():
    data = make_data(20, WIDTHS[0], WIDTHS[-1])
    for kind, options in ((torchbcd.BCD, {}), (torchbcd.BCD, {"splitting": 2}), (torchbcd.DLADMM, {"rho": 0.1})):
        model = make_net()
        optimizer = kind(model, **options)
        optimizer.bind(*data)
        optimizer.step()
        loaded_model = copy.deepcopy(model)
        loaded = kind(loaded_model, **options)
        loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        script_model, twin = copy.deepcopy((model, optimizer))
        script = twin.script_object()
        for step in (optimizer.step, loaded.step, script.step):
            step()
            step()
        for other in (loaded_model, script_model):
            assert all(p.equal(q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


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
    with pytest.raises(ValueError, match="torchbcd.DLAM: the slope of a PReLU is in no term of F.*freeze it"):
        torchbcd.DLAM(make_net())
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
