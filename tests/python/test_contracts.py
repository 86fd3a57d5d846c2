"""The contracts of all optimizers: one table of configurations times what every one of them keeps."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import re

import pytest
import torch
from contracts import (
    SCHEDULED,
    InterruptedSweep,
    assert_identical,
    blocks_of,
    build,
    data_for,
    snapshot,
    stop_at,
    unchanged,
    ways,
)
from tables import CONFIGURATIONS, METHODS
from torch import nn

import torchbcd

pytestmark = pytest.mark.usefixtures("one_thread")

every_configuration = pytest.mark.parametrize(
    "configuration", CONFIGURATIONS.values(), ids=[name.replace(" ", "-") for name in CONFIGURATIONS]
)
every_method = pytest.mark.parametrize("configuration", METHODS.values(), ids=list(METHODS))
both_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@both_dtypes
@every_configuration
class TestEveryConfiguration:
    def test_what_is_promised_never_rises(self, configuration, dtype):
        _, optimizer, _, _ = build(configuration, dtype)
        slack = 1 + (1e-12 if dtype == torch.float64 else 2e-6)
        previous, eps = math.inf, None
        for seed in range(30):
            if configuration.promise == "step":
                report = optimizer.step(*data_for(configuration, dtype, seed))
                # What a squared loss near zero is rounded to is relative to the states it is a difference of.
                assert report.objective <= report.before * slack + 1e-6 * torch.finfo(dtype).eps
                assert report.objective == pytest.approx(optimizer.objective(), rel=1e-4, abs=1e-6)
                continue
            report = optimizer.step()
            if configuration.method != "RelaxedBCD":  # there it is the start less what every block took off
                assert report.objective == optimizer.objective()
            same = getattr(report, "eps", None) == eps  # F is one function as long as eps stays
            if configuration.promise == "run" and same:
                assert report.objective <= previous * slack
            previous, eps = report.objective, getattr(report, "eps", None)

    def test_parameters_stay_what_they_are(self, configuration, dtype):
        model, optimizer, x, y = build(configuration, dtype)
        parameters = list(model.parameters())
        for step in ways(configuration).values():
            step(optimizer, x, y)
        for before, after in zip(parameters, model.parameters(), strict=True):
            assert before is after
            assert (after.dtype, after.device) == (dtype, torch.device("cpu"))
            assert after.requires_grad
            assert after.isfinite().all()
        variables = optimizer.variables()
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        for ours, module in zip(variables.W, linears, strict=True):
            assert torch.equal(ours, module.weight)
        assert all(b is None or torch.equal(b, m.bias) for b, m in zip(variables.b, linears, strict=True))
        assert {t.dtype for part in variables for t in part if t is not None} == {dtype}
        assert torch.equal(torch.jit.script(model)(x), model(x))

    @pytest.mark.parametrize("sweeps", [0, 3])
    def test_same_seed_same_result_and_the_state_continues_to_the_bit(self, sweeps, configuration, dtype):
        """Whether the weights or the state are loaded first, and whatever options the optimizer had."""
        model, optimizer, _, _ = build(configuration, dtype, sweeps=sweeps)
        file = io.BytesIO()
        torch.save((dict(model.state_dict()), optimizer.state_dict()), file)
        for _ in range(3):
            optimizer.step()
        expected = snapshot(model, optimizer)
        assert_identical(snapshot(*build(configuration, dtype, sweeps=sweeps + 3)[:2]), expected)
        for model_first in (True, False):
            file.seek(0)
            model_state, state = torch.load(file)
            twin = configuration.model(dtype)
            resumed = configuration.over(twin)
            for group in resumed.param_groups:
                group[SCHEDULED[configuration.method]] *= 0.5
            if model_first:
                twin.load_state_dict(model_state)
            resumed.load_state_dict(state)
            twin.load_state_dict(model_state)
            for _ in range(3):
                resumed.step()
            assert_identical(snapshot(twin, resumed), expected)

    def test_mini_batches_continue_to_the_bit(self, configuration, dtype):
        if not configuration.batches:
            with pytest.raises(ValueError, match="need bound data"):
                build(configuration, dtype)[1].step(*data_for(configuration, dtype))
            return
        model = configuration.model(dtype)
        optimizer = configuration.over(model)
        for seed in range(3):
            optimizer.step(*data_for(configuration, dtype, seed))
        twin = copy.deepcopy(model)
        resumed = configuration.over(twin)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for seed in range(3, 6):
            x, y = data_for(configuration, dtype, seed)
            optimizer.step(x, y)
            resumed.step(lambda x=x, y=y: (x, y))  # a closure gives the same
        assert_identical(snapshot(twin, resumed), snapshot(model, optimizer))

    def test_a_failed_step_changes_nothing(self, configuration, dtype):
        """Stopped after each block in turn; the step that follows is the one that would have been."""
        for way, step in ways(configuration).items():
            model, optimizer, x, y = build(configuration, dtype, sweeps=2)
            twin, reference, _, _ = build(configuration, dtype, sweeps=2)
            reference_report, blocks = blocks_of(reference, step, x, y)
            assert len(blocks) >= 2 * len(configuration.widths[1:]), way
            rebinds = configuration.method == "DLADMM" and way == "batch"
            if configuration.method == "DLAM" and way == "batch":  # several sweeps, each of which is kept
                blocks = blocks[: blocks.index(blocks[0], 1)]
            for stop in range(len(blocks)):
                stop_at(optimizer, stop)
                if rebinds:  # a mini-batch of dlADMM is bound first, and stays so
                    weights = copy.deepcopy(model.state_dict())
                    with pytest.raises(InterruptedSweep):
                        step(optimizer, x, y)
                    assert_identical(model.state_dict(), weights)
                else:
                    with unchanged(model, optimizer), pytest.raises(InterruptedSweep):
                        step(optimizer, x, y)
            optimizer.set_observer(None)
            assert step(optimizer, x, y).sweep == reference_report.sweep
            assert_identical(snapshot(model, optimizer), snapshot(twin, reference))
            assert optimizer.objective() == reference.objective()

    def test_what_overflows(self, configuration, dtype):
        """Either an error that names layer and block and changes nothing, or weights that are finite."""
        model, optimizer, x, y = build(configuration, dtype, sweeps=1)
        optimizer.bind(x * torch.finfo(dtype).max ** 0.6, y)
        block = f"torchbcd.{configuration.method}: layer . of {len(configuration.widths) - 1}, .* block: "
        if configuration.overflows and dtype == torch.float64:  # squares of float32 are summed in float64
            with unchanged(model, optimizer), pytest.raises(torch.linalg.LinAlgError, match=block):
                optimizer.step()
        else:
            said = ""
            try:
                for _ in range(3):
                    optimizer.step()
            except torch.linalg.LinAlgError as error:
                said = str(error)
            assert not said or re.match(block, said)
        assert all(p.isfinite().all() for p in model.parameters())
        optimizer.bind(x, y)
        optimizer.step()

    def test_parameters_that_are_not_finite(self, configuration, dtype):
        model, optimizer, x, y = build(configuration, dtype, sweeps=2)
        last = [module for module in model if isinstance(module, nn.Linear)][-1]
        before = snapshot(model, optimizer)
        kept = last.weight[0, 0].item()
        for step in ways(configuration).values():
            with torch.no_grad():
                last.weight[0, 0] = math.nan
            with pytest.raises((ValueError, torch.linalg.LinAlgError), match="layer|finite"):
                step(optimizer, x, y)
            assert last.weight.isnan().sum() == 1
            with torch.no_grad():
                last.weight[0, 0] = kept
            assert_identical(snapshot(model, optimizer)[0], before[0])
        optimizer.step()
        assert last.weight.isfinite().all()

    def test_changes_from_outside_are_followed(self, configuration, dtype):
        """In whatever way somebody sets weights between two steps, they count alike."""

        def in_place(model, values):
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), values.values(), strict=True):
                    parameter.copy_(value)

        def data(model, values):
            for parameter, value in zip(model.parameters(), values.values(), strict=True):
                parameter.data.copy_(value)

        results = []
        for edit in (in_place, data, lambda model, values: model.load_state_dict(values), None):
            model, optimizer, _, _ = build(configuration, dtype, sweeps=2)
            if edit is not None:
                edit(model, {name: value * 0.9 for name, value in model.state_dict().items()})
            optimizer.step()
            results.append((dict(model.state_dict()), optimizer.objective()))
        assert_identical(results[0], results[1])
        assert_identical(results[0], results[2])
        assert results[0][1] != results[3][1]

    def test_parameters_with_another_storage(self, configuration, dtype):
        """Followed or refused, but not passed over."""
        model, optimizer, _, _ = build(configuration, dtype, sweeps=2)
        twin, reference, _, _ = build(configuration, dtype, sweeps=2)
        with torch.no_grad():
            for parameter, its in zip(model.parameters(), twin.parameters(), strict=True):
                parameter.data = parameter.data * 0.9
                its.mul_(0.9)
        before = copy.deepcopy(model.state_dict())
        try:
            optimizer.step()
        except (ValueError, RuntimeError):
            assert_identical(model.state_dict(), before)
        else:
            reference.step()
            assert_identical(model.state_dict(), twin.state_dict())

    def test_options_are_driven_from_outside(self, configuration, dtype):
        """A number set in the param groups is that of the next step, and of the state."""
        name = SCHEDULED[configuration.method]
        model, optimizer, _, _ = build(configuration, dtype, sweeps=2)
        plain = copy.deepcopy(model)
        state = copy.deepcopy(optimizer.state_dict())
        undriven = configuration.over(plain)
        undriven.load_state_dict(copy.deepcopy(state))
        twin = copy.deepcopy(model)
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
            group[name] *= 0.7
            saved[name] *= 0.7
        loaded = configuration.over(twin)
        loaded.load_state_dict(state)
        for each in (optimizer, loaded, undriven):
            each.step()
        assert_identical(snapshot(twin, loaded), snapshot(model, optimizer))
        assert optimizer.objective() != undriven.objective()
        assert [g[name] for g in optimizer.state_dict()["param_groups"]] == [
            group[name] for group in optimizer.param_groups
        ]

    def test_gradients_are_left_alone(self, configuration, dtype):
        model, optimizer, x, y = build(configuration, dtype)
        twin, reference, _, _ = build(configuration, dtype)
        nn.functional.cross_entropy(model(x), y).backward()
        gradients = [p.grad.clone() for p in model.parameters()]
        for each in (optimizer, reference):
            each.step()
        assert_identical([p.grad for p in model.parameters()], gradients)
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        assert_identical(snapshot(model, optimizer), snapshot(twin, reference))


def expires(configuration):
    return configuration.method != "RelaxedBCD"


@every_method
class TestEveryMethod:
    def test_is_an_optimizer_with_a_group_a_layer(self, configuration):
        model, optimizer, _, _ = build(configuration)
        assert isinstance(optimizer, torch.optim.Optimizer)
        linears = [module for module in model if isinstance(module, nn.Linear)]
        for group, linear in zip(optimizer.param_groups, linears, strict=True):
            assert [id(p) for p in group["params"]] == [id(linear.weight), id(linear.bias)]
        with (
            unchanged(model, optimizer),
            pytest.raises(ValueError, match=f"param groups of {configuration.method} are the model's Linear"),
        ):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})

    def test_flatten_first(self, configuration):
        flat = configuration.model()
        shaped = nn.Sequential(nn.Flatten(), *copy.deepcopy(flat))
        x, y = data_for(configuration)
        for way in ("bind", "step"):
            one, two = configuration.over(flat), configuration.over(shaped)
            getattr(one, way)(x, y)
            getattr(two, way)(x.unflatten(1, (2, -1)), y)
            if way == "bind":
                one.step()
                two.step()
            assert_identical(list(flat.parameters()), list(shaped.parameters()))

    def test_one_hot_targets_equal_classes(self, configuration):
        model, twin = configuration.model(), configuration.model()
        x, y = data_for(configuration)
        configuration.over(model).step(x, y)
        configuration.over(twin).step(x, nn.functional.one_hot(y, 3).to(x.dtype))
        assert_identical(list(model.parameters()), list(twin.parameters()))

    def test_strided_data(self, configuration):
        x, y = data_for(configuration)
        results = []
        for inputs, classes in ((x, y), (x.t().contiguous().t(), y.repeat_interleave(2)[::2])):
            model = configuration.model()
            configuration.over(model).step(inputs, classes)
            results.append(list(model.parameters()))
        assert_identical(*results)

    def test_sweeps_are_counted(self, configuration):
        _, optimizer, x, y = build(configuration)
        # DLAM takes several over a mini-batch.
        several = len(configuration.widths) if configuration.method == "DLAM" else 1
        assert [optimizer.step().sweep, optimizer.step(x, y).sweep] == [1, 1 + several]
        assert optimizer.step().sweep == 2 + several

    @pytest.mark.parametrize("moves_on", ["step", "batch", "bind", "load_state_dict"])
    def test_reports(self, configuration, moves_on):
        """What was read is kept. What was not is gone with the point, but for RelaxedBCD, which keeps it."""
        _, optimizer, x, y = build(configuration)
        read, missed = optimizer.step(), None
        value = read.objective
        missed = optimizer.step()
        expected = optimizer.objective()
        {
            "step": optimizer.step,
            "batch": lambda: optimizer.step(x, y),
            "bind": lambda: optimizer.bind(x, y),
            "load_state_dict": lambda: optimizer.load_state_dict(optimizer.state_dict()),
        }[moves_on]()
        assert read.objective == value
        if expires(configuration):
            with pytest.raises(
                RuntimeError, match="report of sweep 2 was not read before the optimizer moved on"
            ):
                _ = missed.objective
        else:
            assert missed.objective == pytest.approx(expected)

    def test_nothing_bound(self, configuration):
        model = configuration.model()
        optimizer = configuration.over(model)
        with unchanged(model, optimizer):
            for call in (optimizer.step, optimizer.objective, optimizer.variables):
                with pytest.raises(ValueError, match=f"torchbcd.{configuration.method}: .*call (bind|step)"):
                    call()

    def test_half_a_batch(self, configuration):
        model, optimizer, x, y = build(configuration, sweeps=1)
        with unchanged(model, optimizer):
            with pytest.raises(ValueError, match="both inputs and targets, or neither"):
                optimizer.step(x)
            with pytest.raises(ValueError, match="takes its targets from the closure"):
                optimizer.step(lambda: (x, y), y)

    def test_states_that_do_not_fit(self, configuration):
        model, optimizer, x, y = build(configuration, sweeps=2)
        state = copy.deepcopy(optimizer.state_dict())
        other = configuration.over(dataclasses.replace(configuration, widths=(6, 9, 7, 3)).model())
        other.bind(x, y)
        other.step()
        adam = torch.optim.Adam(model.parameters()).state_dict()
        with unchanged(model, optimizer):
            for bad in (adam, {}, {**state, "param_groups": state["param_groups"][:1]}):
                with pytest.raises((ValueError, KeyError)):
                    optimizer.load_state_dict(bad)
            if "U" in state["torchbcd"]["tensors"] or "z" in state["torchbcd"]["tensors"]:
                with pytest.raises(ValueError, match="does not fit this model"):
                    optimizer.load_state_dict(other.state_dict())


def test_reports_of_a_certificate_read_at_once():
    x, y = data_for(METHODS["RelaxedBCD"])
    late = torchbcd.RelaxedBCD(METHODS["RelaxedBCD"].model())
    kept = late.step(x, y)
    eager = torchbcd.RelaxedBCD(METHODS["RelaxedBCD"].model(), certificate=True).step(x, y)
    late.step(x, y)
    assert kept.certificate == eager.certificate
