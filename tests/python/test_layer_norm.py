"""LayerNorm: V = sigma(scale n(U) + shift) or scale n(sigma(U)) + shift; its blocks, and who takes it."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from conftest import make_data, make_mlp
from relaxed_problems import MANY, PLAIN, STILL, assert_certified, by_index, watched_sweep
from torch import nn

import torchbcd
from torchbcd import regularizers
from torchbcd.nn import Residual

WIDTHS = [6, 12, 10, 3]
PLACES = ("before", "behind")


def hidden_map(model, layer):
    """The modules behind a hidden Linear of `make_mlp`, as one."""
    return nn.Sequential(*model[3 * layer + 1 : 3 * layer + 3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("activation", "loss"), [("relu", "squared"), ("gelu", "cross_entropy")])
def test_no_block_raises_the_objective(activation, loss, place, steps, dtype):
    model = make_mlp(WIDTHS, hidden=activation, norm=place, dtype=dtype)
    optimizer = torchbcd.RelaxedBCD(model, loss, state_steps=steps, **STILL)
    x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1], dtype=dtype)
    for _ in range(3):
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, None, loss, y, clamped=loss == "squared", dtype=dtype)
        assert [block for (block, _), _ in seen] == ["V", *["W", "map", "UV"] * 2, "W"]
        for layer in range(2):
            v = hidden_map(model, layer)(seen[-1][1].U[layer])
            torch.testing.assert_close(seen[-1][1].V[layer + 1], v)


@pytest.mark.parametrize("place", PLACES)
class TestBlocks:
    """Against derivatives by autograd."""

    def problem(self, place, **options):
        model = make_mlp(WIDTHS, hidden="tanh", norm=place)
        optimizer = torchbcd.RelaxedBCD(model, **{**PLAIN, "relaxation": 0.7, "damping": 0.3, **options})
        before = copy.deepcopy(model)
        x, y = make_data(MANY, WIDTHS[0], WIDTHS[-1])
        report, seen = watched_sweep(optimizer, x, y)
        at = by_index(seen)
        return before, model, at["W", 1], at["map", 0], at["UV", 0], report

    def residual(self, at):
        return at.U[1] - at.V[1] @ at.W[1].t() - at.b[1]

    def test_scale_and_shift(self, place):
        before, after, start, moved, _, _ = self.problem(place)
        own = hidden_map(before, 0)
        norm = next(m for m in own if isinstance(m, nn.LayerNorm))
        affine = torch.stack([norm.weight, norm.bias]).detach()
        w, u, r = start.W[1], start.U[0], self.residual(start)

        def value(affine):
            names = [f"{k}.{part}" for k, m in enumerate(own) if m is norm for part in ("weight", "bias")]
            return torch.func.functional_call(own, dict(zip(names, affine, strict=True)), (u,))

        jacobian = torch.func.jacrev(value)(affine)  # rows, units, 2, units
        gradient = torch.einsum("nj,njkl->kl", r @ w, jacobian)
        image = torch.einsum("njkl,ij->nikl", jacobian, w)
        curvature = image.square().sum((0, 1))
        alpha = 0.3 * curvature.mean()
        step = gradient / (curvature + alpha)
        along = torch.einsum("nikl,kl->ni", image, step)
        length = (gradient * step).sum() / (along.square().sum() + alpha * step.square().sum())
        expected = affine + 0.7 * length * step
        changed = next(m for m in hidden_map(after, 0) if isinstance(m, nn.LayerNorm))
        torch.testing.assert_close(torch.stack([changed.weight, changed.bias]).detach(), expected)
        torch.testing.assert_close(moved.V[1], value(expected))
        torch.testing.assert_close(moved.U[0], u, rtol=0, atol=0)

    def test_states(self, place):
        _, after, _, start, end, report = self.problem(place, over_relaxation=0.9)
        own, u, w, r = hidden_map(after, 0), start.U[0], start.W[1], self.residual(start)
        ratio = report.penalties[0] / report.penalties[1]
        z = torch.func.vjp(own, u)[1](r @ w)[0]
        image = torch.func.jvp(own, (u,), (z,))[1] @ w.t()
        length = 0.9 * z.square().sum() / (image.square().sum() + ratio * z.square().sum())
        torch.testing.assert_close(end.U[0], u + length * z)
        torch.testing.assert_close(end.V[1], own(end.U[0]))

    def test_conjugate_gradients_solve_the_linearised_block(self, place):
        _, after, _, start, end, report = self.problem(place, over_relaxation=1.0, state_steps=300)
        own, u, w, r = hidden_map(after, 0), start.U[0], start.W[1], self.residual(start)
        ratio = report.penalties[0] / report.penalties[1]
        direction = end.U[0] - u
        length = None
        for j in range(0, MANY, 9):
            image = w @ torch.func.jacrev(own)(u[j : j + 1])[0, :, 0]
            system = image.t() @ image + ratio * torch.eye(len(u[j]), dtype=u.dtype)
            full = torch.linalg.solve(system, image.t() @ r[j])
            length = length if length is not None else (direction[j] @ full / (full @ full)).item()
            assert length in (pytest.approx(1.0, rel=1e-6), pytest.approx(0.5, rel=1e-6), pytest.approx(0.25))
            torch.testing.assert_close(direction[j], length * full, rtol=1e-5, atol=1e-8)


def test_penalties_and_steps_do_not_depend_on_the_scale_of_the_units():
    """Weights c times as large in front of a LayerNorm are the same net; so they are after a few steps."""
    data = make_data(MANY, WIDTHS[0], WIDTHS[-1])
    outputs = []
    for c in (1.0, 1e-3, 2e4):
        model = make_mlp(WIDTHS, hidden="silu", norm="before")
        with torch.no_grad():
            for module in model:
                if isinstance(module, nn.LayerNorm):
                    module.eps = 0.0
            for parameter in model[0].parameters():
                parameter *= c
        optimizer = torchbcd.RelaxedBCD(model)
        for _ in range(4):
            optimizer.step(*data)
        outputs.append(model(data[0]))
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-7, atol=1e-8)


def residual_nets():
    """Blocks whose LayerNorm stands first, behind the sum, and within."""
    act = nn.GELU
    yield nn.Sequential(
        *(nn.Linear(6, 8), Residual(nn.LayerNorm(8), nn.Linear(8, 12), act(), nn.Linear(12, 8))),
        *(Residual(nn.LayerNorm(8), nn.Linear(8, 12), act(), nn.Linear(12, 8)), nn.LayerNorm(8)),
        nn.Linear(8, 3),
    )
    yield nn.Sequential(
        *(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), Residual(nn.Linear(8, 7), act(), nn.Linear(7, 8))),
        nn.LayerNorm(8),
        Residual(nn.Linear(8, 7), nn.LayerNorm(7, bias=False), act(), nn.Dropout(0.3), nn.Linear(7, 8)),
        nn.Linear(8, 3),
    )


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("which", [0, 1])
def test_residuals(which, steps):
    torch.manual_seed(which)
    model = list(residual_nets())[which].double()
    optimizer = torchbcd.RelaxedBCD(model, "cross_entropy", state_steps=steps, **STILL)
    x, y = make_data(MANY, 6, 3)
    for sweep in range(3):
        with torch.no_grad():
            torch.manual_seed(sweep)
            expected = nn.functional.cross_entropy(model(x), y, reduction="sum").item()
        torch.manual_seed(sweep)
        report, seen = watched_sweep(optimizer, x, y)
        if sweep > 0:  # the first one may begin by the scale of the outputs
            assert report.before == pytest.approx(expected, rel=1e-12)
        assert all(decrease >= -1e-12 * expected for *_, decrease in report.certificate.blocks)
        assert sum(block == "map" for (block, _), _ in seen) == 3


def norms_of(model):
    return [p for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()]


def test_what_is_frozen_stays():
    data = make_data(MANY, WIDTHS[0], WIDTHS[-1])
    model = make_mlp(WIDTHS, norm="before")
    model[1].bias.requires_grad_(False)
    model[4].weight.requires_grad_(False)
    before = copy.deepcopy(model)
    torchbcd.RelaxedBCD(model).step(*data)
    assert model[1].bias.equal(before[1].bias)
    assert not model[1].weight.equal(before[1].weight)
    assert model[4].weight.equal(before[4].weight)
    assert not model[4].bias.equal(before[4].bias)
    for module in model:
        for p in module.parameters():
            p.requires_grad_(isinstance(module, nn.LayerNorm))
    before = copy.deepcopy(model)
    torchbcd.RelaxedBCD(model).step(*data)
    for (name, p), q in zip(model.named_parameters(), before.parameters(), strict=True):
        assert p.equal(q) == (name.split(".")[0] not in ("1", "4"))
    bare = make_mlp(WIDTHS, norm="before")
    bare[1] = nn.LayerNorm(12, elementwise_affine=False)
    bare[4] = nn.LayerNorm(10, bias=False, dtype=torch.float64)
    optimizer = torchbcd.RelaxedBCD(bare)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 3, 2]
    optimizer.step(*data)
    assert bare[4].weight.ne(1).any()


def test_copies_states_and_torchscript_continue_to_the_bit():
    model = make_mlp(WIDTHS, norm="behind", hidden="tanh")
    optimizer = torchbcd.RelaxedBCD(model)
    data = make_data(20, WIDTHS[0], WIDTHS[-1])
    optimizer.step(*data)
    state = optimizer.state_dict()
    assert {"scale_velocity", "shift_velocity"} <= state["torchbcd"]["tensors"].keys()
    twins = [copy.deepcopy((model, optimizer)) for _ in range(3)]
    loaded_model = copy.deepcopy(model)
    loaded = torchbcd.RelaxedBCD(loaded_model)
    loaded.load_state_dict(state)

    class Holder(nn.Module):
        def __init__(self, script):
            super().__init__()
            self.optimizer = script

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> int:
            self.optimizer.step(x, y)
            return 0

    script = twins[1][1].script_object()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Holder(twins[2][1].script_object())), file)
    file.seek(0)
    saved = torch.jit.load(file)
    for step in (optimizer.step, twins[0][1].step, script.step, loaded.step, saved):
        step(*data)
        step(*data)
    for twin in (twins[0][0], twins[1][0], loaded_model):
        assert all(p.equal(q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    held = saved.optimizer.state()[0]
    for ours, theirs in zip(
        optimizer.state_dict()["torchbcd"]["tensors"]["scale_velocity"][:2],
        held["scale_velocity"][:2],
        strict=True,
    ):
        assert ours.equal(theirs)


def test_changes_are_followed_or_refused():
    model = make_mlp(WIDTHS, norm="before")
    optimizer = torchbcd.RelaxedBCD(model)
    data = make_data(20, WIDTHS[0], WIDTHS[-1])
    optimizer.step(*data)
    model[1].weight = nn.Parameter(model[1].weight.detach() * 2)
    optimizer.step(*data)
    assert optimizer.param_groups[0]["params"][2] is model[1].weight
    before = copy.deepcopy(list(model.parameters()))
    model[1].eps = 1e-3
    with pytest.raises(ValueError, match=r"module 1 of the model, LayerNorm.*has been changed"):
        optimizer.step(*data)
    model[1].eps = 1e-5
    model[1].weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="the parameters of layer 1 must be finite"):
        optimizer.step(*data)
    model[1].weight.data[0] = before[2][0]
    assert all(p.equal(q) for p, q in zip(model.parameters(), before, strict=True))


def test_digits(digits):
    x, y = digits
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(64, 40), Residual(nn.LayerNorm(40), nn.Linear(40, 40), nn.GELU(), nn.Linear(40, 40))),
        *(nn.LayerNorm(40), nn.ReLU(), nn.Linear(40, 10)),
    )
    torchbcd.RelaxedBCD(model).fit(x[:1200], y[:1200], epochs=8)
    assert (model(x[1200:]).argmax(1) == y[1200:]).double().mean() > 0.92


@pytest.mark.parametrize("kind", [torchbcd.BCD, torchbcd.DLAM, torchbcd.DLADMM])
def test_others_refuse_it(kind):
    with pytest.raises(ValueError, match=f"torchbcd.{kind.__name__}: a LayerNorm joins the units of a row"):
        kind(make_mlp(WIDTHS, norm="before"))


def test_before_the_layers():
    """A LayerNorm that nothing trained stands before runs as it is, for every optimizer."""
    model = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    with pytest.raises(ValueError, match="before the first one it may stand once its parameters require no"):
        torchbcd.BCD(model)
    model[0].requires_grad_(False)
    x, y = make_data(20, 6, 3)
    alone = copy.deepcopy(model[1:])
    for net, inputs in ((model, x), (alone, model[0](x))):
        optimizer = torchbcd.BCD(net)
        optimizer.bind(inputs, y)
        optimizer.step()
    torch.testing.assert_close(model[1].weight, alone[0].weight)
    frozen = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)).double().requires_grad_(False)
    assert len(torchbcd.BCD(nn.Sequential(*frozen, *alone)).param_groups) == 2


def test_what_is_refused():
    a, b = nn.Linear(4, 4), nn.Linear(4, 2)
    norm = nn.LayerNorm(4)
    for modules, message in (
        ((a, nn.LayerNorm(3), b), r"module 1 .*must normalise over 4 units.*got \[3\]"),
        ((a, nn.LayerNorm((2, 2)), b), r"module 1 .*must normalise over 4 units.*got \[2, 2\]"),
        ((a, norm, nn.ReLU(), norm, b), "module 3 .*follows another LayerNorm"),
        ((a, nn.ReLU(), nn.Dropout(), norm, b), "module 3 .*follows a Dropout"),
        ((a, nn.ReLU(), b, nn.LayerNorm(2)), "module 3 .*must have a Linear module behind it"),
        ((a, nn.ReLU(), Residual(norm, a, nn.ReLU(), a), b), "module 2.0 .*begins a Residual"),
        ((a, norm, Residual(nn.ReLU(), a, nn.ReLU(), a), b), "module 2.0 .*begins a Residual"),
        ((a, nn.ReLU(), Residual(nn.Dropout(), a, nn.ReLU(), a), b), "module 2.0 .*begins a Residual"),
        ((a, Residual(a, nn.ReLU(), a, norm), b), "ends a Residual, whose branch must end with a Linear"),
        ((a, nn.RMSNorm(4), b), "module 1 of the model, RMSNorm.*is not supported"),
    ):
        with pytest.raises(ValueError, match=message):
            torchbcd.RelaxedBCD(nn.Sequential(*copy.deepcopy(modules)))
    model = make_mlp(WIDTHS, norm="before")
    for options, message in (
        ({"row_blocks": 2}, "row_blocks of layer 1 must be 1 in a model with a LayerNorm"),
        ({"weight_regularizer": regularizers.Monotone([0])}, "a monotone net must have no LayerNorm"),
    ):
        with pytest.raises(ValueError, match=message):
            torchbcd.RelaxedBCD(model, **options)
    with pytest.raises(ValueError, match="the signs of layer 1 must have no LayerNorm beside them"):
        torchbcd.RelaxedBCD(make_mlp(WIDTHS, norm="before", hidden="sign"))
    with pytest.raises(ValueError, match="model must have no LayerNorm"):
        torchbcd.functional.network_of(model)
    model[1].weight = model[4].weight = nn.Parameter(torch.ones(12, dtype=torch.float64))
    with pytest.raises(
        ValueError, match=r"scale and shift of layer 2 must be of a normalisation of its 10 outputs"
    ):
        torchbcd.RelaxedBCD(model)
    square = make_mlp([6, 12, 12, 3], norm="before")
    square[4].weight = square[1].weight
    with pytest.raises(ValueError, match="LayerNorm weight of layer 2 shares memory with"):
        torchbcd.RelaxedBCD(square)


def test_pruning_leaves_units_that_tell_in_the_others():
    model = make_mlp(WIDTHS, norm="before")
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[0].weight[:, 1] = 0
    pruned = torchbcd.prune_zeros(model)
    linear = [m for m in pruned if isinstance(m, nn.Linear)]
    assert [tuple(m.weight.shape) for m in linear] == [(12, 5), (10, 12), (3, 10)]
    x = make_data(20, WIDTHS[0], WIDTHS[-1])[0]
    torch.testing.assert_close(pruned(x), model(x))
