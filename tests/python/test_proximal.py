"""Regularisers of one's own: solved as the library's are, judged, and refused where nothing holds them."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from itertools import pairwise

import pytest
import torch
from conftest import make_data, make_mlp
from objectives import recomputed_objective
from proximal_terms import INF, KNOWN, L1, LIES, OTHERS, SIMPLEX, l1_prox, l1_value, of
from relaxed_problems import assert_certified, watched_sweep

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = [6, 9, 3]


def trained(terms, dtype=torch.float64, sweeps=1, widths=WIDTHS, **options):
    model = make_mlp(widths, hidden="tanh", dtype=dtype)
    optimizer = torchbcd.BCD(model, alpha=0.3, weight_regularizer=terms, **options)
    x, y = make_data(50, widths[0], widths[-1], dtype=dtype)
    optimizer.bind(x, y)
    for _ in range(sweeps):
        optimizer.step()
    return model, optimizer, x, y


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", KNOWN)
def test_as_the_one_that_the_library_knows(name, dtype):
    """The minimiser of every block is that of coordinate descent, whose exact zeros it has."""
    own, known = KNOWN[name]
    mine, optimizer, _, _ = trained(own, dtype, sweeps=3)
    theirs, other, _, _ = trained(known, dtype, sweeps=3)
    close = 1e-7 if dtype == torch.float64 else 1e-4
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close)
        if dtype == torch.float64:
            assert torch.equal(a == 0, b == 0)
    assert optimizer.objective() == pytest.approx(other.objective(), rel=close)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", OTHERS)
def test_bcd_never_rises(name, dtype):
    """Also where r is not convex, couples all of W, or is infinite at the start; and reports are right."""
    model, optimizer, _, y = trained(OTHERS[name], dtype, sweeps=0)
    values = [optimizer.step().objective for _ in range(9)]
    report = optimizer.step()
    values.append(report.objective)
    unit = torch.finfo(dtype).eps
    assert all(later <= earlier * (1 + 100 * unit) for earlier, later in pairwise(values))
    expected = recomputed_objective(optimizer, model, "squared", y, 3)
    assert values[-1] == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-10)
    assert report.descent.holds(1e-9 if dtype == torch.float64 else 1e-3)
    if name == "count":
        assert (model[0].weight == 0).any()
    if name == "nuclear":
        assert torch.linalg.matrix_rank(model[2].weight) < 3 or torch.linalg.matrix_rank(model[0].weight) < 6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", OTHERS)
def test_a_block_ends_on_a_fixed_point(name, dtype):
    """W = prox(W - gradient / L, 1 / L), L the largest curvature: what is known of a minimiser of any r."""
    terms = OTHERS[name]
    before = make_mlp([6, 4], dtype=dtype)[0]
    _, optimizer, x, _ = trained(terms, dtype, widths=[6, 4])
    w, b, u = (t[0].double() for t in optimizer.variables()[:3])
    x = x.double()
    gradient = (x @ w.t() + b - u).t() @ x + 0.3 * (w - before.weight.detach().double()) + terms.l2 * w
    sums = x.sum(0, keepdim=True)
    hessian = x.t() @ x - sums.t() @ sums / (len(x) + 0.3)  # the bias eliminated
    largest = torch.linalg.eigvalsh(hessian)[-1] + 0.3 + terms.l2
    again = terms.proximal.prox(w - gradient / largest, 1 / largest.item())
    torch.testing.assert_close(again, w, rtol=0, atol=1e-7 if dtype == torch.float64 else 2e-5)
    assert torch.isfinite(torch.as_tensor(terms.proximal.value(w)))


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("method", ["BCD", "RelaxedBCD"])
def test_what_is_no_prox_changes_nothing(method, name):
    """The step is refused, with layer and block; the next one, with an honest prox, is as if it had not been."""
    terms, error, message = LIES[name]
    x, y = make_data(50, WIDTHS[0], WIDTHS[-1])
    model = make_mlp(WIDTHS, hidden="tanh")
    options = {} if method == "BCD" else {"momentum": 0.0, "relaxation": 0.5}
    optimizer = getattr(torchbcd, method)(model, weight_regularizer=[L1, None], **options)
    optimizer.bind(x, y)
    optimizer.step()
    twin_model = copy.deepcopy(model)
    twin = getattr(torchbcd, method)(twin_model, weight_regularizer=[L1, None], **options)
    twin.load_state_dict(optimizer.state_dict())
    before = copy.deepcopy(model.state_dict())
    optimizer.param_groups[0]["weight_regularizer"] = terms
    with pytest.raises(error, match=message) as raised:
        optimizer.step()
    if error is ValueError and name != "no number" and method == "BCD":
        assert "torchbcd.BCD: layer 1 of 2, W block: the " in str(raised.value)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    optimizer.param_groups[0]["weight_regularizer"] = L1
    optimizer.step()
    twin.step()
    for mine, theirs in zip(model.parameters(), twin_model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_wrong_prox_that_is_not_worse_never_raises_the_objective():
    """One that takes the step for twice as long, and one that does nothing."""
    for wrong in (lambda w, step: l1_prox(w, 2 * step), lambda w, step: w):
        _, optimizer, _, _ = trained(of(wrong), sweeps=0)
        values = [optimizer.step().objective for _ in range(8)]
        assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(values))


def test_arguments_are_copies():
    def prox(w, step):
        answer = l1_prox(w, step)
        w.fill_(float("nan"))
        return answer

    def value(w):
        size = l1_value(w)
        w.zero_()
        return size

    mine, theirs = trained(of(prox, value), sweeps=2), trained(L1, sweeps=2)
    assert mine[1].objective() == theirs[1].objective()
    assert torch.equal(mine[0][0].weight, theirs[0][0].weight)


def test_calls_from_inside_may_only_look():
    seen = []

    def prox(w, step):
        if not seen:
            seen.append(optimizer.objective())
            for call in (optimizer.step, lambda: optimizer.bind(x, y)):
                with pytest.raises(RuntimeError, match="a sweep is running"):
                    call()
        return l1_prox(w, step)

    _, optimizer, x, y = trained(L1)
    optimizer.param_groups[0]["weight_regularizer"] = of(prox)
    before = optimizer.objective()
    optimizer.step()
    assert seen == [before]

    def value(w):
        if len(seen) < 2:
            seen.append(None)
            with pytest.raises(RuntimeError, match="a call is reading the optimizer"):
                optimizer.step()
        return l1_value(w)

    optimizer.param_groups[0]["weight_regularizer"] = of(value=value)
    optimizer.objective()
    assert len(seen) == 2


def test_another_thread_steps_without_pythons_lock():
    """While a step waits in its prox for what this thread does, this thread runs."""
    entered, released = threading.Event(), threading.Event()

    def prox(w, step):
        entered.set()
        assert released.wait(120)
        return l1_prox(w, step)

    model, optimizer, _, _ = trained(L1)
    twin_model = copy.deepcopy(model)
    twin = torchbcd.BCD(twin_model, alpha=0.3, weight_regularizer=L1)
    twin.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["weight_regularizer"] = of(prox)
    thread = threading.Thread(target=optimizer.step)
    thread.start()
    assert entered.wait(120)
    with pytest.raises(RuntimeError, match="another thread is in a call"):
        optimizer.objective()
    released.set()
    thread.join()
    twin.step()
    assert optimizer.sweeps == 2
    assert torch.equal(model[0].weight, twin_model[0].weight)


@pytest.mark.parametrize("method", ["BCD", "RelaxedBCD"])
def test_states_have_the_name_alone(method, tmp_path):
    x, y = make_data(50, WIDTHS[0], WIDTHS[-1])
    model = make_mlp(WIDTHS, hidden="tanh")
    terms = [L1 + reg.L2(0.1), SIMPLEX]
    optimizer = getattr(torchbcd, method)(model, weight_regularizer=terms)
    optimizer.bind(x, y)
    optimizer.step()
    state = optimizer.state_dict()
    assert state["param_groups"][0]["weight_regularizer"] == [0.0, 0.1, -INF, INF, "own l1"]
    torchbcd.save_checkpoint(tmp_path / "file.pt", model, optimizer)
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    again = make_mlp(WIDTHS, hidden="tanh", seed=5)
    copies.append(getattr(torchbcd, method)(again, weight_regularizer=[L1, SIMPLEX]))
    torchbcd.load_checkpoint(tmp_path / "file.pt", again, copies[-1])
    assert copies[-1].param_groups[0]["weight_regularizer"] == terms[0]
    for other in copies:
        other.step()
    optimizer.step()
    for other in copies:
        for mine, theirs in zip(optimizer.param_groups, other.param_groups, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine["params"], theirs["params"], strict=True))
    for other_terms, got in ((None, "got None"), ([SIMPLEX, L1], "got 'simplex'")):
        other = getattr(torchbcd, method)(make_mlp(WIDTHS, hidden="tanh"), weight_regularizer=other_terms)
        with pytest.raises(ValueError, match=rf"make the optimizer with the one named 'own l1' .*{got}"):
            other.load_state_dict(state)
        with pytest.raises(ValueError, match="named 'own l1' in that layer"):  # what C++ programs meet
            other._object.load_state_dict(optimizer._object.state_dict())
    buffer = io.BytesIO()
    torch.save(state, buffer)


@pytest.mark.parametrize("name", ["count", "nuclear", "simplex"])
def test_relaxed_bcd(name):
    """Certified block by block, from a start outside; with momentum, whose points may be outside again."""
    terms = OTHERS[name]
    model = make_mlp(WIDTHS, hidden="tanh")
    optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=terms)
    x, y = make_data(40, WIDTHS[0], WIDTHS[-1])
    for _ in range(6):
        report, seen = watched_sweep(optimizer, x, y)
        assert_certified(report, seen, [terms] * 2, "squared", y, clamped=True, dtype=torch.float64)
        for layer in (model[0], model[2]):
            assert torch.isfinite(torch.as_tensor(terms.proximal.value(layer.weight.detach())))
    result = optimizer.fit(x, y, epochs=2, batch_size=20, average="auto")
    assert result


def test_frozen_weights_and_scratch(tmp_path):
    model, optimizer, x, y = trained(L1)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    optimizer.step()
    assert torch.equal(model[0].weight, before)
    memory, folder = (trained(L1, sweeps=0) for _ in range(2))
    folder[1].bind(x, y, scratch_dir=tmp_path)
    for _ in range(2):
        assert memory[1].step().objective == folder[1].step().objective


def test_where_nothing_holds_it(group):
    model = make_mlp(WIDTHS)
    for method in ("DLAM", "DLADMM"):
        with pytest.raises(ValueError, match="one's own is for BCD and RelaxedBCD .got 'own l1' in layer 1"):
            getattr(torchbcd, method)(model, weight_regularizer=L1)
    for options in ({"splitting": 2}, {"regularize_bias": True}):
        with pytest.raises(ValueError, match="needs weight_regularizers that are sums over entries"):
            torchbcd.BCD(model, weight_regularizer=L1, **options)
    optimizer = torchbcd.BCD(model, weight_regularizer=L1)
    with pytest.raises(
        ValueError, match="TorchScript and the steps that are functions cannot hold it .got 'own l1'"
    ):
        optimizer.script_object()
    parameters, network = torchbcd.functional.network_of(model)
    x, y = make_data(20, WIDTHS[0], WIDTHS[-1])
    with pytest.raises(ValueError, match="the steps that are functions cannot hold it .got 'own l1'"):
        torchbcd.functional.relaxed_step(x, y, parameters, network=network, weight_regularizer=[None, L1])
    optimizer.bind(*make_data(20, WIDTHS[0], WIDTHS[-1]))
    with pytest.raises(ValueError, match="subdifferential the library knows, .* .got 'own l1'"):
        _ = optimizer.step().stationarity
    with pytest.raises(ValueError, match="fit, which stops by .* .got 'own l1'"):
        optimizer.fit(*make_data(20, WIDTHS[0], WIDTHS[-1]))
    with pytest.raises(ValueError, match="nothing but a squared norm beside 'own l1'"):
        L1 + reg.Nonnegative()
    with pytest.raises(ValueError, match="one regulariser of one's own: .* .'own l1', 'simplex'"):
        L1 + SIMPLEX
    with pytest.raises(ValueError, match="nothing but a squared norm beside"):
        torchbcd.BCD(model, weight_regularizer=reg.Monotone([0]) + L1)
    for arguments, error in ((("", l1_prox, l1_value), ValueError), ((1, l1_prox, l1_value), TypeError)):
        with pytest.raises(error, match="name must"):
            reg.Proximal(*arguments)
    with pytest.raises(TypeError, match="value must be a function .got None"):
        reg.Proximal("mine", l1_prox, None)
    with pytest.raises(ValueError, match="a process_group needs weight_regularizers that are the same"):
        torchbcd.BCD(model, weight_regularizer=L1, process_group=group)
    optimizer = torchbcd.RelaxedBCD(model, process_group=group)
    optimizer.param_groups[1]["weight_regularizer"] = L1
    with pytest.raises(ValueError, match="which nothing tells of one's own .got 'own l1' in layer 2"):
        optimizer.step(*make_data(20, WIDTHS[0], WIDTHS[-1]))
