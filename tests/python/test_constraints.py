"""Norms, signs and monotone nets as regularisers of weights: to the bit after every step, and optimal."""

from __future__ import annotations

import copy
import io
import re
from itertools import pairwise

import pytest
import torch
from conftest import ACTIVATIONS, MONOTONE, make_data, make_mlp
from objectives import recomputed_objective, row_losses
from relaxed_problems import assert_certified, watched_sweep
from torch import nn

import torchbcd
from torchbcd import regularizers as reg
from torchbcd.lifted import shortest_of_weight

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = [6, 9, 8, 3]
# Of a layer with 6 inputs or more.
TERMS = {
    "by input": reg.GroupL1(4.0),
    "by unit": reg.GroupL1(8.0, by="unit"),
    "max norm": reg.MaxNorm(0.5),
    "signs": reg.InputSigns([0, 3], [1, 5]),
    "by input, l2": reg.GroupL1(4.0) + reg.L2(3.0),
    "by input, l1": reg.GroupL1(4.0) + reg.L1(1.0),
    "by input, signs": reg.GroupL1(4.0) + reg.InputSigns([0, 3], [1, 5]),
    "by unit, l2": reg.L2(3.0) + reg.GroupL1(8.0, by="unit"),
    "by unit, l1": reg.GroupL1(8.0, by="unit") + reg.L1(1.0),
    "by unit, max norm": reg.GroupL1(8.0, by="unit") + reg.MaxNorm(0.5),
    "max norm, nonnegative": reg.MaxNorm(0.5) + reg.Nonnegative(),
    "max norm, all": reg.MaxNorm(0.4) + reg.InputSigns([2], [4]) + reg.ElasticNet(1.0, 2.0),
    "max sum": reg.MaxNorm(1.2, p=1),
    "max sum, all": reg.MaxNorm(0.8, p=1) + reg.InputSigns([2], [4]) + reg.ElasticNet(1.0, 2.0),
}
NETS = {
    **{name: TERMS[name] for name in ("by input", "by unit", "max norm", "by input, signs", "max norm, all")},
    "max sum": TERMS["max sum"],
    "monotone": reg.Monotone([0, 3], [1]),
    "monotone, by input": reg.Monotone([0, 3], [1]) + reg.GroupL1(0.5),
    "monotone, max norm": reg.Monotone([0], [1, 2]) + reg.MaxNorm(0.8),
}


def of_layers(terms, depth):
    return terms.of_layers(depth) if isinstance(terms, reg.Monotone) else [terms] * depth


def value(terms, w):
    """r(W) written down again, infinite outside."""
    terms = terms or reg.Regularizer()
    exact = w.double()
    total = (terms.l1 * exact.abs() + terms.l2 / 2 * exact.square()).sum()
    total = total + 0.0 if holds(terms, w) else torch.tensor(float("inf"))
    if isinstance(terms, reg.WeightRegularizer):
        total = total + terms.by_input * exact.norm(dim=0).sum() + terms.by_unit * exact.norm(dim=1).sum()
    return total.item()


def holds(terms, w):
    """Whether a weight is within the constraints, compared as users compare."""
    inside = bool((w >= terms.low).all() and (w <= terms.high).all())
    if isinstance(terms, reg.WeightRegularizer):
        inside &= bool((w[:, list(terms.nonnegative)] >= 0).all() and (w[:, list(terms.nonpositive)] <= 0).all())
        for own in (w, w.double()):
            sums = torch.maximum(own.abs().sum(dim=1), own.norm(1, dim=1))
            inside &= bool((own.norm(dim=1) <= terms.radius).all() and (sums <= terms.l1_radius).all())
    return inside


def linears(model):
    return [module for module in model if isinstance(module, nn.Linear)]


def assert_holds(terms, model):
    layers = linears(model)
    for term, layer in zip(of_layers(terms, len(layers)), layers, strict=True):
        assert holds(term, layer.weight.detach())


def block(terms, dtype, bias, seed=0):
    """The W block of a net of one layer, from somewhere outside: what it starts from and where it ends."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(80, 12, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(12, 12, generator=generator, dtype=torch.float64)
    x[:, 2] = x[:, 7] + 1e-2 * torch.randn(80, generator=generator, dtype=torch.float64)  # nearly a copy
    y = x[:, :5] @ torch.randn(5, 4, generator=generator, dtype=torch.float64) / 3
    model = make_mlp([12, 4], bias=bias, dtype=dtype, seed=seed)
    before = copy.deepcopy(model[0])
    optimizer = torchbcd.BCD(model, gamma=1.0, rho=1.0, alpha=0.05, weight_regularizer=terms)
    optimizer.bind(x.to(dtype), y.to(dtype))
    optimizer.step()
    u = optimizer.variables().U[0].double()
    return x.to(dtype).double(), u, before, model[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", TERMS)
def test_optimality_of_a_block(name, dtype, bias):
    """Zero is in the subdifferential, and the weights are within the constraints."""
    terms = TERMS[name]
    x, u, before, after = block(terms, dtype, bias)
    w0, w = before.weight.detach().double(), after.weight.detach().double()
    b0, b = (layer.bias.detach().double() if bias else torch.zeros(4).double() for layer in (before, after))
    residual = x @ w.t() + b - u
    scale = ((x @ w0.t() + b0 - u).t() @ x).abs().max()
    gradient = residual.t() @ x + 0.05 * (w - w0)
    nearest = shortest_of_weight(terms, w, gradient, dtype)
    small = 2e-6 if dtype == torch.float32 else 1e-9
    assert nearest.abs().max() < small * scale
    if bias:
        assert (residual.sum(0) + 0.05 * (b - b0)).abs().max() < small * scale
    assert holds(terms, after.weight.detach())


@pytest.mark.parametrize("name", TERMS)
def test_a_block_as_by_brute_force(name):
    terms = TERMS[name]
    x, u, before, after = block(terms, torch.float64, bias=True)
    w0, b0, w, b = (t.detach() for layer in (before, after) for t in (layer.weight, layer.bias))

    def objective(w, b):
        proximal = (w - w0).square().sum() + (b - b0).square().sum()
        return 0.5 * (x @ w.t() + b - u).square().sum() + 0.025 * proximal + value(terms, w)

    expected = brute_force(terms, x, u, w0, b0)
    assert objective(w, b) <= objective(*expected) * (1 + 1e-9)
    torch.testing.assert_close((w, b), expected, rtol=0, atol=2e-4)
    for dim in (0, 1):
        assert torch.equal((w == 0).all(dim), (expected[0] == 0).all(dim))


def brute_force(terms, x, u, w0, b0):
    """Accelerated proximal gradients with restarts, by the prox as the literature has it."""
    v = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    start = torch.cat([w0, b0[:, None]], 1)
    hessian = v.t() @ v + 0.05 * torch.eye(v.shape[1], dtype=v.dtype)
    linear = u.t() @ v + 0.05 * start
    step = 1 / torch.linalg.eigvalsh(hessian)[-1]
    d = x.shape[1]

    def prox(z):
        w = z[:, :d] / (1 + step * terms.l2)
        times = step / (1 + step * terms.l2)
        w = w - w.clamp(-times * terms.l1, times * terms.l1)
        w = w.clamp(terms.low, terms.high)
        if isinstance(terms, reg.WeightRegularizer):
            w[:, list(terms.nonnegative)] = w[:, list(terms.nonnegative)].clamp_min(0)
            w[:, list(terms.nonpositive)] = w[:, list(terms.nonpositive)].clamp_max(0)
            for weight, dim in ((terms.by_input, 0), (terms.by_unit, 1)):
                w = w * (1 - times * weight / w.norm(dim=dim, keepdim=True).clamp_min(1e-300)).clamp_min(0)
            w = w * (terms.radius / w.norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp_max(1 - 1e-15)
            w = within_sums(terms.l1_radius, w)
        return torch.cat([w, z[:, d:]], 1)

    now, ahead, t = start, start, 1.0
    for _ in range(60_000):
        after = prox(ahead - step * (ahead @ hessian - linear))
        if ((ahead - after) * (after - now)).sum() > 0:
            t = 1.0
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        ahead = after + (t - 1) / following * (after - now)
        if (after - now).abs().max() < 1e-14:
            break
        now, t = after, following
    return now[:, :d], now[:, d]


def within_sums(radius, w):
    """The nearest rows with 1-norms of at most a radius: by bisection for what their entries shrink by."""
    low, high = torch.zeros_like(w[:, :1]), w.abs().amax(1, keepdim=True)
    longer = w.abs().sum(1, keepdim=True) > radius
    for _ in range(60):
        middle = (low + high) / 2
        above = (w.abs() - middle).clamp_min(0).sum(1, keepdim=True) > radius
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return torch.where(longer, w - w.clamp(-high, high), w) * (1 - 1e-15 * longer)


def test_the_nearest_weight_of_bounded_sums():
    """Where RelaxedBCD projects a start that is outside, and moves no further."""
    model = make_mlp([40, 30, 3])
    before = model[0].weight.detach().clone()
    terms = [reg.MaxNorm(1.5, p=1) + reg.InputSigns([3]), None]
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=terms, lr=0.0)
    optimizer.step(*make_data(20, 40, 3))
    before[:, 3].clamp_min_(0)
    torch.testing.assert_close(model[0].weight.detach(), within_sums(1.5, before), rtol=0, atol=1e-14)
    assert holds(terms[0], model[0].weight.detach())
    assert (model[0].weight == 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETS)
def test_bcd(name, dtype):
    """After every step, from a start outside; and the objective, recomputed, never rises."""
    model = make_mlp(WIDTHS, hidden=("tanh", "relu"), dtype=dtype)
    terms = NETS[name]
    optimizer = torchbcd.BCD(model, alpha=0.1, weight_regularizer=terms)
    x, y = make_data(60, WIDTHS[0], WIDTHS[-1], dtype=dtype)
    optimizer.bind(x, y)
    last = float("inf")
    for _ in range(12):
        report = optimizer.step()
        assert_holds(terms, model)
        unit = torch.finfo(dtype).eps
        assert report.objective <= last * (1 + 100 * unit)
        last = report.objective
    expected = recomputed_objective(optimizer, model, "squared", y, 3)
    assert last == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-10)
    optimizer.step(x[:20], y[:20])
    optimizer.step(index=torch.arange(30))
    assert_holds(terms, model)


@pytest.mark.parametrize(
    "terms",
    [
        reg.GroupL1(0.05),
        reg.GroupL1(0.1, by="unit"),
        reg.MaxNorm(0.5),
        reg.GroupL1(0.05) + reg.InputSigns([0], [1]),
        reg.MaxNorm(0.8, p=1),
    ],
    ids=["by input", "by unit", "max norm", "by input, signs", "max sum"],
)
def test_bcd_stationarity(terms):
    """The distance from a critical point goes to zero, and Lemma 5's bounds hold."""
    model = make_mlp([6, 8, 3], hidden="tanh")
    optimizer = torchbcd.BCD(model, alpha=0.5, weight_regularizer=terms)
    optimizer.bind(*make_data(40, 6, 3))
    optimizer.step()
    first = optimizer.step()
    residual = first.stationarity.residual
    assert first.descent.holds()
    for _ in range(200):
        report = optimizer.step()
    assert 0 < report.stationarity.residual < 0.1 * residual


@pytest.mark.parametrize("rows", [10, 60])
@pytest.mark.parametrize("momentum", [0.0, None])
@pytest.mark.parametrize("name", NETS)
def test_relaxed_bcd(name, momentum, rows):
    """Every block is certified, and ends within the constraints; L is recomputed."""
    model = make_mlp(WIDTHS, hidden="tanh")
    terms = NETS[name]
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=terms, momentum=momentum)
    x, y = make_data(rows, WIDTHS[0], WIDTHS[-1])
    layers = of_layers(terms, 3)
    for _ in range(15):
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, layers, "squared", y, clamped=True, dtype=torch.float64)
        for _, variables in seen:
            assert all(holds(term, w) for term, w in zip(layers, variables.W, strict=True))
        assert_holds(terms, model)


@pytest.mark.parametrize("options", [{"guard": True}, {"persistent": True}, {"lr": 0.1}], ids=str)
@pytest.mark.parametrize("name", ["by unit", "max norm", "monotone, max norm"])
def test_relaxed_bcd_in_float32(name, options):
    model = make_mlp(WIDTHS, hidden="tanh", dtype=torch.float32)
    x, y = make_data(80, WIDTHS[0], WIDTHS[-1], dtype=torch.float32)
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=NETS[name], **options)
    optimizer.bind(x, y)
    losses = []
    for _ in range(20):
        optimizer.step()
        assert_holds(NETS[name], model)
        losses.append(row_losses("squared", model(x).detach().double(), y).sum().item())
    if "guard" in options:
        assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(losses))
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=NETS[name])
    optimizer.fit(x, y, epochs=3, batch_size=20, average="auto")
    assert_holds(NETS[name], model)


def test_a_relaxed_block_is_the_minimiser_of_its_model():
    """Of the quadratic divided by the relaxation, so that zeros are exact from the first step on."""
    x, y = make_data(60, 6, 3)
    y = nn.functional.one_hot(y).double()
    model, nu, damping, terms = make_mlp([6, 3]), 0.3, 0.5, reg.GroupL1(160.0)
    before = copy.deepcopy(model[0])
    options = {"damping": damping, "momentum": 0.0, "weight_decay": 0.0}
    torchbcd.RelaxedBCD(model, relaxation=[nu], weight_regularizer=terms, **options).step(x, y)
    w, w0 = model[0].weight.detach(), before.weight.detach()
    v = torch.cat([x, torch.ones(60, 1, dtype=x.dtype)], 1)
    column = x.square().sum() / 7
    proximal = damping * torch.cat([column.expand(6), column.clamp_max(60)[None]])
    change = torch.cat([w - w0, (model[0].bias - before.bias).detach()[:, None]], 1)
    gradient = change @ (v.t() @ v + proximal.diag()) / nu - (y - before(x).detach()).t() @ v
    assert shortest_of_weight(terms, w, gradient[:, :-1], torch.float64).abs().max() < 1e-8
    assert gradient[:, -1].abs().max() < 1e-8
    assert (w == 0).all(0).any()


@pytest.mark.parametrize("damping", [None, 0.0, 0.5])
@pytest.mark.parametrize("name", NETS)
def test_dlam(name, damping):
    """mDLAM: F never rises; W by the prox step of eq. (3), by eq. (1), and damped."""
    model = make_mlp(WIDTHS, hidden="tanh")
    terms = NETS[name]
    optimizer = torchbcd.DLAM(
        model, "squared", rho=1.0, joint=True, eps=0.01, weight_damping=damping, weight_regularizer=terms
    )
    x, y = make_data(50, WIDTHS[0], WIDTHS[-1])
    optimizer.bind(x, y)
    last = float("inf")
    for _ in range(15):
        optimizer.step()
        assert_holds(terms, model)
        assert optimizer.objective() <= last * (1 + 1e-12)
        last = optimizer.objective()
    assert optimizer.step().residual < float("inf")


def test_dladmm_keeps_constraints():
    model = make_mlp(WIDTHS, hidden="tanh", dtype=torch.float32)
    terms = reg.Monotone([0], [1]) + reg.MaxNorm(0.5)
    optimizer = torchbcd.DLADMM(model, rho=0.1, weight_regularizer=terms)
    optimizer.bind(*make_data(50, 6, 3, dtype=torch.float32))
    for _ in range(5):
        optimizer.step()
        assert_holds(terms, model)


@pytest.mark.parametrize("activation", [name for name in MONOTONE if name != "polynomial"])
def test_monotone_nets(activation):
    """No output goes the wrong way, near the data and far from it."""
    model = make_mlp(WIDTHS, hidden=activation)
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=reg.Monotone(increasing=[0, 3], decreasing=[1]))
    x, y = make_data(200, WIDTHS[0], WIDTHS[-1])
    for rows in torch.arange(200).split(40):
        optimizer.step(x[rows], y[rows])
    for column, sign in ((0, 1), (3, 1), (1, -1)):
        moved = x.repeat(30, 1)
        moved[:, column] = torch.linspace(-20, 20, 30).double().repeat_interleave(200)
        changes = model(moved).detach().view(30, 200, 3).diff(dim=0)
        assert (sign * changes >= -1e-12).all()
    assert model(x).detach().std(0).min() > 0  # it is no constant
    free = (model[0].weight[:, [2, 4, 5]] < 0).any() and (model[0].weight[:, [2, 4, 5]] > 0).any()
    assert free


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.SiLU(), "silu"),
        (nn.LeakyReLU(-0.1), "leaky_relu"),
        (torchbcd.nn.Polynomial([0, 0, 1.0]), "polynomial"),
    ],
)
@pytest.mark.parametrize("method", ["BCD", "RelaxedBCD"])
def test_activations_that_fall_are_refused(method, module, name):
    model = nn.Sequential(nn.Linear(2, 3), module, nn.Linear(3, 1))
    with pytest.raises(ValueError, match=f"activations that never fall .got '{name}' in layer 1"):
        getattr(torchbcd, method)(model, weight_regularizer=reg.Monotone([0]))


REFUSED = [
    (reg.GroupL1(1.0) + reg.GroupL1(1.0, by="unit"), "norms both by input and by unit"),
    (reg.GroupL1(1.0) + reg.MaxNorm(1.0), "norms both by input and by unit"),
    (reg.MaxNorm(1.0) + reg.MaxNorm(1.0, p=1), "not bound 1-norms of units beside their 2-norms"),
    (reg.MaxNorm(1.0) + reg.Box(-1, 1), "bounds at 0 alone beside norms .got -1 and 1"),
    (reg.InputSigns([6]), r"layer 1 must name inputs below 6, which the layer has .got 6"),
    (reg.InputSigns([1]) + reg.InputSigns([], [1]), "one sign for an input .got two for input 1"),
    (reg.WeightRegularizer(radius=0.0), "a radius > 0 .got 0"),
    (reg.WeightRegularizer(by_unit=-1.0), "finite weights >= 0 .got 0 by input and -1 by unit"),
    (
        [reg.Monotone([0]).of_layers(3)[0], None, reg.Nonnegative()],
        "weights >= 0 after its first layer .* layer 2",
    ),
]


@pytest.mark.parametrize(("terms", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
@pytest.mark.parametrize("method", ["BCD", "RelaxedBCD", "DLAM", "DLADMM"])
def test_refusals(method, terms, message):
    with pytest.raises(ValueError, match=message):
        getattr(torchbcd, method)(make_mlp(WIDTHS), weight_regularizer=terms)


def test_what_other_options_refuse():
    model = make_mlp(WIDTHS)
    with pytest.raises(ValueError, match=r"splitting 2 needs .* sums over entries, .* with an activation"):
        torchbcd.BCD(model, splitting=2, weight_regularizer=reg.MaxNorm(1.0))
    with pytest.raises(ValueError, match=r"regularize_bias needs weight_regularizers that are sums over entries"):
        torchbcd.BCD(model, regularize_bias=True, weight_regularizer=reg.GroupL1(1.0))
    with pytest.raises(ValueError, match="state_regularizer must be a sum over entries, or one's own .layer 1"):
        torchbcd.BCD(model, state_regularizer=reg.MaxNorm(1.0))
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"frozen weights of the signs that it needs .got others in layer 1"):
        torchbcd.BCD(model, weight_regularizer=reg.Monotone([0, 1, 2]))
    for bad, error in (([], ValueError), ([-1], ValueError), (["0"], TypeError), ([0.5], TypeError)):
        with pytest.raises(error, match=re.escape("(got ")):
            reg.Monotone(bad)
    with pytest.raises(ValueError, match="two for"):
        reg.Monotone([0], [0])
    with pytest.raises(ValueError, match="p must be 1 or 2 .got 3"):
        reg.MaxNorm(1.0, p=3)
    with pytest.raises(ValueError, match="by must be"):
        reg.GroupL1(1.0, by="row")


def test_a_step_that_fails_changes_nothing():
    model = make_mlp(WIDTHS, hidden="tanh")
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=NETS["monotone"])
    x, y = make_data(40, 6, 3)
    optimizer.step(x, y)
    before = copy.deepcopy(model.state_dict())
    optimizer.param_groups[1]["weight_regularizer"] = None
    with pytest.raises(ValueError, match="a monotone net must have weights >= 0 after its first layer"):
        optimizer.step(x, y)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", ["BCD", "RelaxedBCD", "DLAM"])
def test_states_continue(method, name):
    """state_dict, torch.save of it and TorchScript hold the numbers; they continue bit for bit."""
    x, y = make_data(40, 6, 3)
    options = {"weight_regularizer": NETS[name]}
    model = make_mlp(WIDTHS, hidden="tanh")
    optimizer = getattr(torchbcd, method)(model, **options)
    optimizer.bind(x, y)
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other_model = copy.deepcopy(model)
    other = getattr(torchbcd, method)(other_model)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert [g["weight_regularizer"] for g in other.param_groups] == [
        g["weight_regularizer"] for g in optimizer.param_groups
    ]
    scripted_model = copy.deepcopy(model)
    third = getattr(torchbcd, method)(scripted_model)
    third.load_state_dict(optimizer.state_dict())
    script = third.script_object()
    for _ in range(3):
        optimizer.step()
        other.step()
        script.step()
    for mine, theirs, scripts in zip(
        *(m.parameters() for m in (model, other_model, scripted_model)), strict=True
    ):
        assert torch.equal(mine, theirs)
        assert torch.equal(mine, scripts)


def test_numbers():
    """Four as before for what is a sum over entries; one or one for each layer in TorchScript's lists."""
    assert reg.L1(0.5).numbers == (0.5, 0.0, float("-inf"), float("inf"))
    five = (-5.0, 0.0, 0.0, 2.0, 0.0, 0.0)  # as states of before there were bounds of sums have it
    assert reg.MaxNorm(2.0).numbers[4:] == five
    for terms in [*TERMS.values(), *NETS["monotone"].of_layers(2)]:
        assert reg.from_numbers(terms.numbers) == terms
    script = torchbcd.BCD(make_mlp(WIDTHS)).script_object()
    script.set_option("weight_regularizer", list(TERMS["max norm, all"].numbers))
    assert script.option("weight_regularizer") == 3 * list(TERMS["max norm, all"].numbers)
    mixed = [reg.L2(0.1), TERMS["signs"], reg.Nonnegative()]
    script.set_option("weight_regularizer", [x for terms in mixed for x in terms.numbers])
    assert script.option("weight_regularizer")[4:13] == list(TERMS["signs"].numbers)[:9]
    with pytest.raises(Exception, match="must be 4 or 12 numbers, or more where they are not of entries .got 5"):
        script.set_option("weight_regularizer", [0.0, 0.0, 0.0, 1.0, -7.0])


def test_sums():
    assert reg.L2(0.5) + reg.MaxNorm(2.0) + reg.MaxNorm(1.0) == reg.WeightRegularizer(l2=0.5, radius=1.0)
    both = reg.Monotone([0]) + reg.L1(0.1)
    assert both.of_layers(2) == [
        reg.WeightRegularizer(l1=0.1, nonnegative=(0,), monotone=True),
        reg.L1(0.1) + reg.Nonnegative(),
    ]
    assert reg.L1(0.1) + reg.Monotone([0]) == both


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n in MONOTONE])
def test_bcd_descends_with_every_activation(name):
    model = make_mlp([6, 7, 3], hidden=name)
    optimizer = torchbcd.BCD(model, alpha=0.2, weight_regularizer=reg.GroupL1(0.5))
    optimizer.bind(*make_data(40, 6, 3))
    values = [optimizer.step().objective for _ in range(10)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(values))
