"""What a person does to the model under an optimizer: followed, or refused before anything has changed."""

from __future__ import annotations

import contextlib
import copy
import warnings

import pytest
import torch
from conftest import make_mlp
from contracts import assert_identical, build, data_for, unchanged
from tables import METHODS
from torch import nn
from torch.nn.utils import parameters_to_vector, parametrizations, prune, vector_to_parameters

import torchbcd

pytestmark = pytest.mark.usefixtures("one_thread")
every_method = pytest.mark.parametrize("configuration", METHODS.values(), ids=list(METHODS))


@contextlib.contextmanager
def swapping():
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def scaled(model):
    return {name: value * 0.9 for name, value in model.state_dict().items()}


def replace_data(model):
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.9


def replace_storage(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.set_((parameter * 0.9).clone())


def through_meta(model):
    values = scaled(model)
    model.to_empty(device="cpu")
    model.load_state_dict(values)


def convert_and_back(model):
    model.load_state_dict(scaled(model))
    model.half().double().load_state_dict(scaled(model))


def convert_by_swapping(model):
    with swapping():
        convert_and_back(model)


def replace_by_hand(model):
    model[2].weight = nn.Parameter(model[2].weight.detach() * 0.9)


FOLLOWED = {
    "p.data": replace_data,
    "vector_to_parameters": lambda m: vector_to_parameters(
        parameters_to_vector(m.parameters()).detach() * 0.9, m.parameters()
    ),
    "load_state_dict(assign)": lambda m: m.load_state_dict(scaled(m), assign=True),
    "set_": replace_storage,
    "to_empty": through_meta,
    "half and back": convert_and_back,
    "swap_tensors": convert_by_swapping,
    "a new parameter": replace_by_hand,
}


@pytest.mark.parametrize("edit", FOLLOWED)
@every_method
def test_followed(configuration, edit):
    """The next step trains the parameters that the model has, as if they had been set in place."""
    model, optimizer, _, _ = build(configuration, sweeps=2)
    twin, reference, _, _ = build(configuration, sweeps=2)
    FOLLOWED[edit](model)
    with torch.no_grad():
        for its, mine in zip(twin.parameters(), model.parameters(), strict=True):
            its.copy_(mine)
    before = copy.deepcopy(model.state_dict())
    for each in (optimizer, reference):
        each.step()
    assert_identical(model.state_dict(), twin.state_dict())
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert listed == [id(p) for p in model.parameters()]


def share_later(model):
    model[4].bias.data = model[2].bias.data[:3]


REFUSED = {
    "new head": (lambda m, o: m.__setitem__(4, nn.Linear(7, 3).double()), "module 4 of the model is another one"),
    "appended": (lambda m, o: m.append(nn.ReLU()), "has 6 modules and had 5"),
    "removed": (lambda m, o: m.__delitem__(4), "has 4 modules and had 5"),
    "no bias": (lambda m, o: setattr(m[2], "bias", None), "module 2 of the model, .*has been changed"),
    "another activation": (lambda m, o: m.__setitem__(1, nn.Tanh()), "module 1 of the model is another one"),
    "single": (lambda m, o: m.float(), "layer 1 was Double on cpu .*now Float"),
    "another shape": (
        lambda m, o: setattr(m[0].weight, "data", torch.zeros(8, 7).double()),
        "weight of layer 1 was Double on cpu of shape .8, 6. .*now .* of shape .8, 7.",
    ),
    "groups reordered": (
        lambda m, o: o.param_groups.reverse(),
        "param group 0 must hold the parameters of layer 1",
    ),
    "a group less": (lambda m, o: o.param_groups.pop(), "there must be 3 param groups"),
    "memory shared": (lambda m, o: share_later(m), "bias of layer 3 shares memory with the bias of layer 2"),
    "all frozen": (lambda m, o: m.requires_grad_(False), "at least one parameter must require gradients"),
    "a hook": (
        lambda m, o: m[1].register_forward_hook(lambda *a: None),
        "module 1 of the model, .*forward hooks",
    ),
    "a pre-hook": (lambda m, o: m[2].register_forward_pre_hook(lambda *a: None), "module 2 .*forward hooks"),
    "a hook of the model": (lambda m, o: m.register_forward_hook(lambda *a: None), "the model has forward hooks"),
    "forward replaced": (lambda m, o: setattr(m[1], "forward", torch.tanh), "module 1 .*forward of its own"),
    "weight_norm": (lambda m, o: parametrizations.weight_norm(m[2]), "module 2 of the model"),
    "spectral_norm": (lambda m, o: nn.utils.spectral_norm(m[2]), "module 2 .*spectral_norm"),
    "pruned": (lambda m, o: prune.l1_unstructured(m[2], "weight", 0.3), "module 2 .*forward hooks"),
}


@pytest.mark.parametrize("case", REFUSED)
@every_method
def test_refused_at_the_next_step(configuration, case):
    edit, message = REFUSED[case]
    model, optimizer, x, y = build(configuration, sweeps=1)
    edit(model, optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    for call in (optimizer.step, lambda: optimizer.bind(x, y)):
        with pytest.raises(ValueError, match=message):
            call()
    assert_identical([p.detach() for p in model.parameters()], before)


@every_method
def test_a_changed_slope_is_refused(configuration):
    model = configuration.model()
    model[1] = nn.LeakyReLU(0.1)
    optimizer = configuration.over(model)
    optimizer.bind(*data_for(configuration))
    optimizer.step()
    model[1].negative_slope = 0.3
    with pytest.raises(ValueError, match=r"module 1 of the model, LeakyReLU.*has been changed"):
        optimizer.step()
    model[1].negative_slope = 0.1
    optimizer.step()


class OwnForward(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def tied(view):
    first, last = nn.Linear(6, 3), nn.Linear(3, 6)
    last.weight = nn.Parameter(view(first.weight.detach()))
    return nn.Sequential(first, nn.ReLU(), last)


def overlapping_biases():
    model, storage = make_mlp([6, 5, 3]), torch.zeros(6).double()
    model[0].bias, model[2].bias = nn.Parameter(storage[:5]), nn.Parameter(storage[3:])
    return model


def without_outputs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is nothing to initialise
        return nn.Sequential(nn.Linear(6, 0))


def expanded():
    model = make_mlp([6, 5, 3])
    model[0].weight = nn.Parameter(torch.ones(5, 1).double().expand(5, 6))
    return model


NOT_TAKEN = {
    "own forward": (lambda: OwnForward(*make_mlp([6, 5, 3])), "class OwnForward has a forward of its own"),
    "tied": (lambda: tied(lambda w: w.t()), "weight of layer 2 shares memory with the weight of layer 1"),
    "biases in one": (overlapping_biases, "bias of layer 2 shares memory with the bias of layer 1"),
    "expanded": (expanded, "weight of layer 1 has several entries at one place in memory"),
    "no outputs": (without_outputs, "layer 1 must have at least one input and one output"),
    "frozen": (lambda: make_mlp([6, 5, 3]).requires_grad_(False), "all are frozen"),
    "weight_norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 3))),
        "module 0 of the model, ParametrizedLinear",
    ),
}


@pytest.mark.parametrize("case", NOT_TAKEN)
@every_method
def test_not_taken(configuration, case):
    make, message = NOT_TAKEN[case]
    with pytest.raises(ValueError, match=message):
        configuration.over(make())


@every_method
def test_parameters_beside_each_other_are_taken(configuration):
    """Their addresses interleave, and none is shared."""
    model, twin = configuration.model(), configuration.model()
    storage = torch.zeros(2 * 7 * 8).double()
    model[0].weight = nn.Parameter(storage[::2][: 8 * 6].view(8, 6))
    model[2].weight = nn.Parameter(storage[1::2].view(7, 8))
    model.load_state_dict(twin.state_dict())
    x, y = data_for(configuration)
    for each in (model, twin):
        configuration.over(each).step(x, y)
    assert_identical([p.detach() for p in model.parameters()], [p.detach() for p in twin.parameters()])


@every_method
def test_nested_sequentials(configuration):
    flat = configuration.model()
    nested = nn.Sequential(nn.Sequential(*copy.deepcopy(flat)[:2]), nn.Sequential(*copy.deepcopy(flat)[2:]))
    x, y = data_for(configuration)
    for model in (flat, nested):
        configuration.over(model).step(x, y)
    assert_identical([p.detach() for p in nested.parameters()], [p.detach() for p in flat.parameters()])
    with pytest.raises(ValueError, match=r"module 0\.1 of the model, BatchNorm1d.*is not supported"):
        configuration.over(nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), nn.Linear(5, 3)))


FROZEN = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")


class TestFrozen:
    @pytest.mark.parametrize("names", [*((name,) for name in FROZEN), FROZEN[2:4], FROZEN[:5]], ids="+".join)
    @pytest.mark.parametrize("when", ["before", "after"])
    @every_method
    def test_does_not_move(self, configuration, names, when):
        model = configuration.model()
        if when == "before":
            for name in names:
                model.get_parameter(name).requires_grad_(False)
        optimizer = configuration.over(model)
        x, y = data_for(configuration)
        if configuration.method == "DLAM":  # F is one function as long as its tolerance is one
            optimizer = torchbcd.DLAM(model, "squared", rho=0.01, eps=0.01, joint=True)
        optimizer.bind(x, y)
        optimizer.step()
        if when == "after":
            for name in names:
                model.get_parameter(name).requires_grad_(False)
        before = copy.deepcopy(model.state_dict())
        previous = optimizer.objective()
        for _ in range(5):
            report = optimizer.step()
            if configuration.promise == "run":
                assert report.objective <= previous * (1 + 1e-12)
            if configuration.promise == "step":
                assert report.objective <= report.before * (1 + 1e-12)
            previous = report.objective
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert moved
        assert not moved & set(names)
        optimizer.step(x, y)
        assert all(torch.equal(model.get_parameter(name), before[name]) for name in names)

    @pytest.mark.parametrize("splitting", [2, 3])
    @pytest.mark.parametrize("names", [("2.weight",), ("2.bias",), ("2.weight", "2.bias")], ids="+".join)
    def test_is_no_variable_of_the_theory(self, splitting, names):
        model = make_mlp([6, 8, 7, 3], hidden="tanh")
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        optimizer = torchbcd.BCD(model, splitting=splitting, alpha=0.1)
        optimizer.bind(*data_for(METHODS["BCD"]))
        for _ in range(3):
            report = optimizer.step()
        assert report.descent.holds()
        assert (report.stationarity.weight[1] == 0) == (len(names) == 2)
        if splitting == 3:
            assert report.lemma6_subgradient.norm >= report.residual * (1 - 1e-9)

    def test_exact_least_squares_of_what_is_left(self):
        """The W block over a weight or a bias alone, against a stationary point in float64."""
        for frozen in ("weight", "bias"):
            model = make_mlp([6, 8, 3], hidden="identity")
            getattr(model[0], frozen).requires_grad_(False)
            optimizer = torchbcd.BCD(model, gamma=0.7, alpha=0.2)
            optimizer.bind(*data_for(METHODS["BCD"]))
            optimizer.step()
            old = {name: value.clone() for name, value in model[0].state_dict().items()}
            optimizer.step()
            u, x = optimizer.variables().U[0], optimizer.variables().V[0]
            residual = u - x @ model[0].weight.t() - model[0].bias
            gradient = {"weight": -0.7 * residual.t() @ x, "bias": -0.7 * residual.sum(0)}
            free = "bias" if frozen == "weight" else "weight"
            proximal = 0.2 * (getattr(model[0], free) - old[free])
            torch.testing.assert_close(gradient[free] + proximal, torch.zeros_like(proximal), atol=1e-9, rtol=0)

    def test_momentum_and_decay_pass_it_over(self):
        model = make_mlp([6, 8, 7, 3])
        optimizer = torchbcd.RelaxedBCD(model, momentum=0.5, weight_decay=0.1)
        x, y = data_for(METHODS["RelaxedBCD"])
        optimizer.step(x, y)
        optimizer.step(x, y)
        model[2].requires_grad_(False)
        before = copy.deepcopy(model[2].state_dict())
        for _ in range(3):
            optimizer.step(x, y)
        assert_identical(model[2].state_dict(), before)


@every_method
def test_a_failed_step_leaves_no_trace_of_a_change(configuration):
    """A refused step does not half-adopt what it was refused for."""
    model, optimizer, _, _ = build(configuration, sweeps=1)
    head = model[4]
    with unchanged(model, optimizer):
        model[4] = nn.Linear(7, 3).double()
        with pytest.raises(ValueError, match="module 4"):
            optimizer.step()
        model[4] = head
    twin, reference, _, _ = build(configuration, sweeps=1)
    for each in (optimizer, reference):
        each.step()
    assert_identical(model.state_dict(), twin.state_dict())
