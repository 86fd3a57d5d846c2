"""What is around an optimizer: torch's modes, threads, observers, copies, schedulers, hooks, layouts."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import threading

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import assert_identical, build, data_for, snapshot, unchanged
from tables import METHODS
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

import torchbcd

pytestmark = pytest.mark.usefixtures("one_thread")
every_method = pytest.mark.parametrize("configuration", METHODS.values(), ids=list(METHODS))


@contextlib.contextmanager
def setting(get, set_, value):
    before = get()
    set_(value)
    try:
        yield
        assert get() == value  # a call leaves it as it was
    finally:
        set_(before)


def precision(value):
    return setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, value)


@contextlib.contextmanager
def mkldnn_precision():
    matmul = torch.backends.mkldnn.matmul
    matmul.fp32_precision = "bf16"
    try:
        yield
        assert matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")


MODES = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast, float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "matmul precision high": lambda: precision("high"),
    "matmul precision medium": lambda: precision("medium"),
    "matmul precision by backend": mkldnn_precision,
    "deterministic": lambda: setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "default dtype": lambda: setting(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "default device": lambda: torch.device("meta"),
}


def run(configuration, mode, where):
    """Weights and objectives of a few steps in float32, some calls of which are made in a mode."""

    def within(what):
        return mode() if what in where else contextlib.nullcontext()

    model = configuration.model(torch.float32)
    x, y = data_for(configuration, torch.float32)
    with within("build"):
        optimizer = configuration.over(model)
    with within("bind"):
        optimizer.bind(x, y)
    seen = []
    for _ in range(3):
        with within("step"):
            optimizer.step()
            seen.append(optimizer.objective())
    with within("step"):
        optimizer.step(x, y)
        state = optimizer.state_dict()["torchbcd"]["tensors"]
    return dict(model.state_dict()), seen, state


@pytest.mark.parametrize("where", [("build",), ("bind",), ("step",), ("build", "bind", "step")], ids="+".join)
@pytest.mark.parametrize("mode", MODES)
@every_method
def test_modes_do_not_reach_it(configuration, mode, where):
    expected = run(configuration, contextlib.nullcontext, ())
    assert_identical(run(configuration, MODES[mode], where), expected)


@every_method
def test_a_model_made_in_inference_mode(configuration):
    with torch.inference_mode():
        model = configuration.model()
    optimizer = configuration.over(model)
    twin, reference, x, y = build(configuration)
    optimizer.bind(x, y)
    for each in (optimizer, reference):
        each.step()
        each.step()
    assert_identical([p.detach().clone() for p in model.parameters()], [p.detach() for p in twin.parameters()])


@every_method
def test_an_observer_looks_and_does_not_touch(configuration):
    model, optimizer, x, y = build(configuration, sweeps=1)
    twin, reference, _, _ = build(configuration, sweeps=1)
    state = copy.deepcopy(optimizer.state_dict())
    refused = []

    def observe(block, layer):
        for call in (
            optimizer.step,
            lambda: optimizer.step(x, y),
            lambda: optimizer.bind(x, y),
            lambda: optimizer.load_state_dict(state),
            lambda: optimizer.set_observer(None),
        ):
            with pytest.raises(RuntimeError, match="an observer may only look"):
                call()
            refused.append((block, layer))
        optimizer.variables()

    optimizer.set_observer(observe)
    for each in (optimizer, reference):
        each.step()
    assert refused
    optimizer.set_observer(None)
    assert_identical(snapshot(model, optimizer), snapshot(twin, reference))


class FailingCopy(TorchDispatchMode):
    """Fails the n-th time that something is copied into one of the model's parameters."""

    def __init__(self, model, n):
        super().__init__()
        self.addresses = {p.data_ptr() for p in model.parameters()}
        self.left = n

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.copy_.default and args[0].data_ptr() in self.addresses:
            self.left -= 1
            if self.left == 0:
                raise RuntimeError("no more room")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("n", [1, 2, 4, 6])
@every_method
def test_a_commit_that_fails_half_way(configuration, n):
    """The weights are copied one after the other; whatever fails on the way, all are the last sweep's."""
    model, optimizer, x, y = build(configuration, sweeps=2)
    twin, other, _, _ = build(configuration, sweeps=2)
    before = snapshot(model, optimizer)
    step = (lambda o: o.step(x, y)) if configuration.method == "RelaxedBCD" else (lambda o: o.step())
    with unchanged(model, optimizer), pytest.raises(RuntimeError, match="no more room"), FailingCopy(model, n):
        step(optimizer)
    assert_identical(snapshot(model, optimizer), before)
    for o in (optimizer, other):
        step(o)
        step(o)
    assert_identical(snapshot(model, optimizer), snapshot(twin, other))


@every_method
def test_another_thread_is_refused(configuration):
    """Held in an observer, so that the other thread's call certainly meets the running sweep."""
    model, optimizer, x, y = build(configuration, sweeps=1)
    twin, reference, _, _ = build(configuration, sweeps=1)
    found = []

    def elsewhere():
        for call in (optimizer.step, lambda: optimizer.bind(x, y), optimizer.objective, optimizer.state_dict):
            try:
                call()
            except RuntimeError as error:
                found.append(str(error))

    def observe(block, layer):
        if not found:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

    optimizer.set_observer(observe)
    optimizer.step()
    optimizer.set_observer(None)
    assert len(found) == 4
    assert all("another thread is in a call" in message for message in found)
    reference.step()
    assert_identical(snapshot(model, optimizer), snapshot(twin, reference))


@every_method
def test_threads_that_meet_by_chance_do_no_harm(configuration):
    _, optimizer, x, y = build(configuration, sweeps=1)

    def work():
        for _ in range(20):
            for call in (optimizer.step, lambda: optimizer.bind(x, y), optimizer.objective, optimizer.variables):
                with contextlib.suppress(RuntimeError, ValueError):
                    call()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    optimizer.bind(x, y)
    optimizer.step()


def by_torch_save(pair):
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
    "torch.save": by_torch_save,
    "the optimizer first": lambda pair: copy.deepcopy(pair[::-1])[::-1],
    "the optimizer alone": lambda pair: (lambda o: (o._model.module, o))(copy.deepcopy(pair[1])),
}


@pytest.mark.parametrize("way", COPIES)
@every_method
def test_copies_continue_to_the_bit(configuration, way):
    model, optimizer, x, y = build(configuration, sweeps=2)
    optimizer.param_groups[0]["mark"] = 7
    twin, copied = COPIES[way]((model, optimizer))
    assert twin is not model
    assert copied.param_groups[0]["mark"] == 7
    for each in (optimizer, copied):
        each.step()
        each.step(x, y)
        each.step()
    assert_identical(snapshot(twin, copied), snapshot(model, optimizer))


def test_a_copy_of_a_pair_with_its_scheduler():
    model, optimizer, _, _ = build(METHODS["RelaxedBCD"])
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    twin, copied, its = copy.deepcopy((model, optimizer, scheduler))
    for each, schedule in ((optimizer, scheduler), (copied, its)):
        each.step()
        schedule.step()
        each.step()
    assert copied.param_groups[0]["lr"] == 0.25
    assert_identical(snapshot(twin, copied), snapshot(model, optimizer))


@every_method
def test_data_and_state_are_copies(configuration):
    """Of what a user writes into x, y, variables or a state afterwards, nothing is seen."""
    model, optimizer, x, y = build(configuration, sweeps=1)
    twin, reference, _, _ = build(configuration, sweeps=1)
    variables = optimizer.variables()
    state = optimizer.state_dict()["torchbcd"]["tensors"]
    for tensor in (x, y, *(t for part in variables for t in part if t is not None)):
        tensor.zero_()
    for tensors in state.values():
        for t in tensors:
            if t is not None:
                t.zero_()
    for each in (optimizer, reference):
        each.step()
    assert_identical(snapshot(model, optimizer), snapshot(twin, reference))


@every_method
def test_a_state_holds_the_rows_alone(configuration):
    _, optimizer, _, _ = build(configuration)
    x, y = make_data(5000, 6, 3)
    optimizer.bind(x[:15], y[:15])
    tensors = [
        t for kept in optimizer.state_dict()["torchbcd"]["tensors"].values() for t in kept if t is not None
    ]
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors)


@every_method
def test_hooks_see_what_torchs_do(configuration):
    _, optimizer, _, _ = build(configuration)
    seen = []
    optimizer.register_step_pre_hook(lambda *a: seen.append("before"))
    optimizer.register_step_post_hook(lambda *a: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda o, state: seen.append("torchbcd" in state))
    optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append("torchbcd" in state))
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after", True, True]


@every_method
def test_closures(configuration):
    model, optimizer, x, y = build(configuration)
    twin, reference, _, _ = build(configuration)
    optimizer.step(closure=lambda: (x, y))
    optimizer.step(closure=lambda: None)
    optimizer.step(x, y, closure=lambda: None)  # as frameworks call it
    reference.step(x, y)
    reference.step()
    reference.step(x, y)
    assert_identical(snapshot(model, optimizer), snapshot(twin, reference))
    with unchanged(model, optimizer):
        with pytest.raises(TypeError, match="must return .inputs, targets., or None"):
            optimizer.step(closure=lambda: torch.tensor(1.0))
        with pytest.raises(ValueError, match="takes its targets from the closure"):
            optimizer.step(x, y, closure=lambda: (x, y))


class TestSchedulers:
    @pytest.mark.parametrize("method", [name for name in METHODS if name != "RelaxedBCD"])
    def test_refused_with_the_reason(self, method):
        model, optimizer, _, _ = build(METHODS[method])
        for make in (
            lambda: lr_scheduler.StepLR(optimizer, 1),
            lambda: lr_scheduler.ReduceLROnPlateau(optimizer),
            lambda: lr_scheduler.OneCycleLR(optimizer, 1.0, 10),
            lambda: lr_scheduler.CyclicLR(optimizer, 0.1, 1.0, cycle_momentum=False),
        ):
            with unchanged(model, optimizer), pytest.raises(ValueError, match="no learning rate"):
                make()
        optimizer.load_state_dict(optimizer.state_dict())
        with pytest.raises(ValueError, match="no learning rate"):
            lr_scheduler.StepLR(optimizer, 1)

    @pytest.mark.parametrize(
        "make",
        [
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, 10),
            lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
            lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
            lambda o: lr_scheduler.LinearLR(o),
        ],
    )
    def test_drive_relaxed_bcd(self, make):
        _, optimizer, x, y = build(METHODS["RelaxedBCD"])
        scheduler = make(optimizer)
        for _ in range(4):
            optimizer.step(x, y)
            scheduler.step()
        assert optimizer._object.layer_options()[0]["lr"] != optimizer.param_groups[0]["lr"]
        optimizer.step(x, y)
        assert optimizer._object.layer_options()[0]["lr"] == optimizer.param_groups[0]["lr"]

    def test_a_rate_that_is_a_tensor(self):
        model, twin = make_mlp([6, 8, 3]), make_mlp([6, 8, 3])
        x, y = data_for(METHODS["RelaxedBCD"])
        one = torchbcd.RelaxedBCD(model, lr=torch.tensor(0.5, dtype=torch.float64))
        two = torchbcd.RelaxedBCD(twin, lr=0.5)
        for rate in (0.5, 0.25):
            one.param_groups[0]["lr"] = one.param_groups[1]["lr"] = torch.tensor(rate)
            for group in two.param_groups:
                group["lr"] = rate
            one.step(x, y)
            two.step(x, y)
        one.param_groups[0]["lr"].fill_(0.125)  # both groups' tensor, as schedulers change it
        for group in two.param_groups:
            group["lr"] = 0.125
        one.step(x, y)
        two.step(x, y)
        assert_identical(model.state_dict(), twin.state_dict())

    def test_a_rate_that_was_refused_and_put_back(self):
        model, optimizer, _, _ = build(METHODS["RelaxedBCD"], sweeps=1)
        twin, reference, _, _ = build(METHODS["RelaxedBCD"], sweeps=1)
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 100.0
        with pytest.raises(ValueError, match=r"relaxation .times lr. of layer 1 must be in"):
            optimizer.step()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for each in (optimizer, reference):
            each.step()
        assert_identical(snapshot(model, optimizer), snapshot(twin, reference))


class TestStates:
    def test_of_another_scheme(self):
        three, two = torchbcd.BCD(make_mlp([6, 5, 3])), torchbcd.BCD(make_mlp([6, 5, 3]), splitting=2)
        for a, b in ((three, two), (two, three)):
            a.bind(*make_data(20, 6, 3))
            with pytest.raises(ValueError, match="the state's splitting must be . .got ."):
                b.load_state_dict(a.state_dict())

    @every_method
    def test_of_before_an_option_was_there(self, configuration):
        model, optimizer, _, _ = build(configuration, sweeps=1)
        state = copy.deepcopy(optimizer.state_dict())
        for group in state["param_groups"]:
            del group["weight_regularizer"]
        del state["torchbcd"]["options"]["loss_scaling"]
        other = configuration.over(copy.deepcopy(model))
        other.load_state_dict(state)
        assert other.param_groups[0]["weight_regularizer"] is None
        assert other._object.scheme_options()["loss_scaling"] == "sum"
        other.step()


class TestLayouts:
    @every_method
    def test_signs_kept_aside_and_expanded_rows(self, configuration):
        x, y = data_for(configuration)
        negative = torch.complex(torch.zeros_like(x), -x).conj().imag
        assert negative.is_neg()
        for given, plain in ((negative, x), (x[:1].expand(40, 6), x[:1].repeat(40, 1))):
            models = []
            for inputs in (given, plain):
                models.append(configuration.model())
                configuration.over(models[-1]).step(inputs, y)
            assert_identical(*(list(map(torch.detach, m.parameters())) for m in models))

    @pytest.mark.parametrize("convert", [torch.Tensor.to_sparse, lambda x: x.float().to_mkldnn()])
    @every_method
    def test_not_dense(self, configuration, convert):
        model, optimizer, x, y = build(configuration, sweeps=1)
        with unchanged(model, optimizer), pytest.raises(TypeError, match="x must be a dense tensor"):
            optimizer.step(convert(x), y)

    def test_whole_numbers(self):
        model, optimizer, x, y = build(METHODS["DLAM"], sweeps=1)
        with (
            unchanged(model, optimizer),
            pytest.raises(TypeError, match=r"sweeps must be a whole number .got 2\.5"),
        ):
            optimizer.step(x, y, sweeps=2.5)
        for call in (
            lambda: torchbcd.RelaxedBCD(make_mlp([6, 5, 3])).fit(x, y, epochs=1.5),
            lambda: torchbcd.BCD(make_mlp([6, 5, 3])).fit(x, y, max_sweeps=2.5),
        ):
            with pytest.raises(TypeError, match="must be a whole number"):
                call()
