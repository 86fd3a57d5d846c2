"""Random sequences of what a person does, by winding ways, beside a second pair that goes the plain ones.

Two equal pairs of model and optimizer are kept. What is done to the first one goes by detours: new storage,
copies, pickles, calls that fail, observers that raise; the second has the same done in place, or nothing at all
where a call has failed. After every move both stand at the same point, to the bit, and what is frozen has not
moved.

TORCHBCD_EXAMPLES sets how many sequences each method gets.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import warnings

import pytest
import torch
from contracts import SCHEDULED, InterruptedSweep, assert_identical, data_for, snapshot, stop_at
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tables import METHODS
from torch import nn

EXAMPLES = int(os.environ.get("TORCHBCD_EXAMPLES", "12"))
PARAMETERS = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")


class Pairs(RuleBasedStateMachine):
    """The first pair, by detours, and the second, plainly."""

    configuration = METHODS["BCD"]

    @initialize()
    def start(self):
        self.model, self.plain = self.configuration.model(), self.configuration.model()
        self.optimizer, self.reference = map(self.configuration.over, (self.model, self.plain))
        self.frozen: dict[str, torch.Tensor] = {}
        self.bound = False

    def both(self, call):
        for optimizer in (self.optimizer, self.reference):
            call(optimizer)

    @rule(seed=st.integers(0, 2))
    def bind(self, seed):
        x, y = data_for(self.configuration, seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.optimizer.bind(x, y)
            self.reference.bind(x.clone(), y.clone())
        x.zero_()  # which the first one does not see
        y.zero_()
        self.bound = True

    @precondition(lambda self: self.bound)
    @rule()
    def step(self):
        self.both(lambda optimizer: optimizer.step())

    @rule(seed=st.integers(3, 5), closure=st.booleans())
    def step_on_a_batch(self, seed, closure):
        x, y = data_for(self.configuration, seed=seed)
        if closure:
            self.optimizer.step(closure=lambda: (x, y))
        else:
            self.optimizer.step(x, y)
        self.reference.step(x, y)
        self.bound = self.bound or self.configuration.method == "DLADMM"  # which binds it

    @rule(factor=st.sampled_from([0.5, 0.8, 1.0]))
    def set_an_option(self, factor):
        name = SCHEDULED[self.configuration.method]
        for optimizer in (self.optimizer, self.reference):
            for group in optimizer.param_groups:
                group[name] = max(group[name] * factor, 0.01)

    @precondition(lambda self: self.bound)
    @rule(stop=st.integers(0, 2))  # fewer than the blocks that there are, whatever is frozen
    def step_that_is_interrupted(self, stop):
        stop_at(self.optimizer, stop)
        with pytest.raises(InterruptedSweep):
            self.optimizer.step()
        self.optimizer.set_observer(None)

    @rule(which=st.sampled_from(["rows", "NaN", "dtype", "classes"]))
    def call_that_is_refused(self, which):
        x, y = data_for(self.configuration)
        bad = {"rows": (x, y[:-1]), "NaN": (x / 0, y), "dtype": (x.float(), y), "classes": (x, y + 3)}[which]
        for call in (self.optimizer.step, self.optimizer.bind):
            with pytest.raises((ValueError, TypeError)):
                call(*bad)

    @rule()
    def option_that_is_refused(self):
        name = SCHEDULED[self.configuration.method]
        kept = [group[name] for group in self.optimizer.param_groups]
        self.optimizer.param_groups[0][name] = -1.0
        with pytest.raises(ValueError, match=name):
            self.optimizer.step(*data_for(self.configuration))
        for group, value in zip(self.optimizer.param_groups, kept, strict=True):
            group[name] = value

    @rule()
    def state_that_is_refused(self):
        state = copy.deepcopy(self.optimizer.state_dict())
        state["torchbcd"]["numbers"]["sweeps"] = [-1.0]
        with pytest.raises(ValueError, match="sweeps"):
            self.optimizer.load_state_dict(state)

    @rule(way=st.sampled_from(["deepcopy", "pickle", "state_dict"]))
    def copy_and_go_on_with_it(self, way):
        if way == "state_dict":
            model = copy.deepcopy(self.model)
            optimizer = self.configuration.over(model)
            optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
            self.model, self.optimizer = model, optimizer
        elif way == "pickle":
            self.model, self.optimizer = pickle.loads(pickle.dumps((self.model, self.optimizer)))
        else:
            self.model, self.optimizer = copy.deepcopy((self.model, self.optimizer))
        if self.configuration.method == "RelaxedBCD" or not self.bound:
            return
        # A mini-batch's point is not part of the state; looking at the bound one puts both pairs there.
        self.reference.load_state_dict(self.reference.state_dict())

    @rule(name=st.sampled_from(PARAMETERS))
    def freeze(self, name):
        if len(self.frozen) < 5 and name not in self.frozen:
            self.frozen[name] = self.model.get_parameter(name).detach().clone()
            for model in (self.model, self.plain):
                model.get_parameter(name).requires_grad_(False)

    @rule()
    def thaw(self):
        self.frozen.clear()
        for model in (self.model, self.plain):
            model.requires_grad_(True)

    @rule(way=st.sampled_from(["data", "assign", "set_", "parameter"]), factor=st.sampled_from([0.9, 1.1]))
    def replace_parameters(self, way, factor):
        values = {name: p.detach() * factor for name, p in self.model.named_parameters()}
        if way == "assign":
            requires = {name: p.requires_grad for name, p in self.model.named_parameters()}
            self.model.load_state_dict(values, assign=True)
            for name, p in self.model.named_parameters():
                p.requires_grad_(requires[name])
        elif way == "parameter":
            linear = self.model[2]
            requires = linear.weight.requires_grad
            linear.weight = nn.Parameter(values["2.weight"].clone(), requires_grad=requires)
            values = {"2.weight": values["2.weight"]}
        else:
            for name, p in self.model.named_parameters():
                if way == "data":
                    p.data = values[name].clone()
                else:
                    with torch.no_grad():
                        p.set_(values[name].clone())
        with torch.no_grad():
            for name, value in values.items():
                self.plain.get_parameter(name).copy_(value)
                if name in self.frozen:
                    self.frozen[name] = value.clone()

    @rule()
    def replace_a_module_and_put_it_back(self):
        head = self.model[4]
        self.model[4] = nn.Linear(7, 3).double()
        with pytest.raises(ValueError, match="module 4 of the model"):
            self.optimizer.step(*data_for(self.configuration))
        self.model[4] = head

    @invariant()
    def at_the_same_point(self):
        if not hasattr(self, "model"):
            return
        assert_identical(snapshot(self.model, self.optimizer)[:2], snapshot(self.plain, self.reference)[:2])
        for name, value in self.frozen.items():
            assert torch.equal(self.model.get_parameter(name), value)
        with contextlib.suppress(ValueError):  # there is no data yet
            if self.configuration.method != "RelaxedBCD":
                assert self.optimizer.objective() == self.reference.objective()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", METHODS)
def test_sequences(method):
    machine = type(f"Pairs{method}", (Pairs,), {"configuration": METHODS[method]})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=15,
            deadline=None,
            derandomize="TORCHBCD_EXAMPLES" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
