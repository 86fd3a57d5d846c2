"""RidgeHead: against scikit-learn and normal equations in float64, streamed, merged, downdated, refitted."""

from __future__ import annotations

import copy
import io
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import nn

import torchbcd


def problem(n=200, d=12, c=3, offset=0.0, scale=1.0, dtype=torch.float64, seed=0, classes=False):
    generator = torch.Generator().manual_seed(seed)
    f = scale * (torch.randn(n, d, generator=generator, dtype=torch.float64) + offset)
    y = f @ torch.randn(d, c, generator=generator, dtype=torch.float64)
    y = y / y.std() + torch.randn(n, c, generator=generator, dtype=torch.float64)
    w = torch.rand(n, generator=generator, dtype=torch.float64)
    return f.to(dtype), (y.argmax(1) if classes else y.to(dtype)), w.to(dtype)


def targets(y, outputs):
    y = y if y.is_floating_point() else nn.functional.one_hot(y, outputs)
    return y.double().reshape(len(y), -1)


def scikit(f, y, alpha, w=None, bias=True, outputs=3):
    ridge = Ridge(alpha, fit_intercept=bias).fit(
        f.double().numpy(), targets(y, outputs).numpy(), None if w is None else w.double().numpy()
    )
    weight = np.atleast_2d(ridge.coef_)
    return torch.from_numpy(weight), torch.from_numpy(np.atleast_1d(ridge.intercept_)) if bias else None


def assert_solution(found, expected, rtol=1e-8):
    weight, bias = found
    assert weight.dtype == torch.float64
    assert (weight - expected[0]).norm() <= rtol * expected[0].norm()
    if expected[1] is None:
        assert bias is None
    else:
        assert (bias - expected[1]).norm() <= rtol * (expected[1].norm() + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_scikit_learn(dtype, classes, weighted, bias):
    f, y, w = problem(dtype=dtype, offset=3.0, classes=classes)
    head = torchbcd.RidgeHead(12, 3, bias=bias)
    for rows in torch.arange(200).split(37):
        head.partial_fit(f[rows], y[rows], w[rows] if weighted else None)
    assert_solution(head.solve(0.7), scikit(f, y, 0.7, w if weighted else None, bias))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("alpha", [1e-6, 1.0, 1e6])
def test_is_stationary(scale, offset, alpha):
    """The gradient of the documented objective, at sizes from 1e-6 to 1e6 and far from zero."""
    f, y, w = problem(scale=scale, offset=offset)
    weight, bias = torchbcd.RidgeHead(12, 3).partial_fit(f, y, w).solve(alpha)
    centred = f - (w @ f) / w.sum()
    residual = (y - (w @ y) / w.sum()) - centred @ weight.T
    gradient = -(w[:, None] * residual).T @ centred + alpha * weight
    assert gradient.abs().max() <= 1e-9 * ((w[:, None] * y).T.abs() @ centred.abs()).max()
    assert (w[:, None] * (y - f @ weight.T - bias)).sum(0).abs().max() <= 1e-9 * (w @ y.abs()).max() * (
        1 + offset
    )


def test_a_grid_knows_no_better():
    f, y, w = problem(n=9, d=1, c=1)
    head = torchbcd.RidgeHead(1, 1).partial_fit(f, y, w)
    weight, bias = head.solve(0.4)

    def objective(a, b):
        return 0.5 * (w[:, None] * (y - a * f - b).square()).sum(0) + 0.2 * a**2

    best = objective(weight.item(), bias.item())
    around = torch.linspace(-1, 1, 401, dtype=torch.float64)
    for a in (weight + around).flatten():
        assert (objective(a, bias + around) >= best - 1e-13).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.0, 1e4]))
def test_order_and_partition_are_rounding(seed, size, offset):
    f, y, w = problem(n=120, offset=offset, seed=seed, dtype=torch.float32)
    whole = torchbcd.RidgeHead(12).partial_fit(f, y, w).solve(0.1)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(seed))
    parts = torchbcd.RidgeHead(12)
    for rows in order.split(size):
        parts.partial_fit(f[rows], y[rows], w[rows])
    weight, bias = parts.solve(0.1)
    assert (weight - whole[0]).norm() <= 1e-10 * whole[0].norm()
    assert (bias - whole[1]).norm() <= 1e-10 * (1 + offset) * (1 + whole[1].norm())


def test_merged_heads_are_the_head_of_all_rows():
    f, y, w = problem(classes=True)
    heads = [torchbcd.RidgeHead(12).partial_fit(f[r], y[r], w[r]) for r in torch.arange(200).split(50)]
    before = heads[1].solve(1.0)[0]
    for other in heads[1:]:
        heads[0].merge(other)
    assert heads[0].rows == 200
    assert torch.equal(heads[1].solve(1.0)[0], before)
    assert_solution(heads[0].solve(1.0), torchbcd.RidgeHead(12, 3).partial_fit(f, y, w).solve(1.0), 1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_removed_rows_have_never_been(bias, offset):
    f, y, w = problem(offset=offset)
    head = torchbcd.RidgeHead(12, 3, bias=bias).partial_fit(f, y, w)
    for rows in torch.arange(150).split(40):
        head.remove(f[rows], y[rows], w[rows])
    rest = torchbcd.RidgeHead(12, 3, bias=bias).partial_fit(f[150:], y[150:], w[150:])
    assert head.rows == 50
    assert_solution(head.solve(0.1), rest.solve(0.1), 1e-9)
    head.remove(f[150:], y[150:], w[150:])
    assert head.rows == 0
    with pytest.raises(ValueError, match="solve needs rows"):
        head.solve(1.0)
    head.partial_fit(f, y)
    assert_solution(head.solve(0.1), torchbcd.RidgeHead(12, 3, bias=bias).partial_fit(f, y).solve(0.1), 1e-12)


def test_a_window_over_features_that_come_and_go():
    """Features that are zero for long: what their sums keep is rounding of what they were."""
    generator = torch.Generator().manual_seed(4)
    f = torch.relu(torch.randn(600, 12, generator=generator))
    f[:, ::2] *= (torch.arange(600) // 70 % 3 == 0)[:, None]
    y = torch.randint(3, (600,), generator=generator)
    head = torchbcd.RidgeHead(12, 3)
    for begin in range(0, 600, 20):
        head.partial_fit(f[begin : begin + 20], y[begin : begin + 20])
        if begin >= 60:
            head.remove(f[begin - 60 : begin - 40], y[begin - 60 : begin - 40])
    rest = torchbcd.RidgeHead(12, 3).partial_fit(f[-60:], y[-60:])
    assert_solution(head.solve(0.5), rest.solve(0.5), 1e-9)


def test_rows_that_were_never_added_do_not_go():
    f, y, _ = problem()
    head = torchbcd.RidgeHead(12, 3).partial_fit(f[:50], y[:50])
    before = head.state_dict()
    for rows, factor in [(slice(0, 51), 1.0), (slice(0, 40), 10.0)]:
        with pytest.raises(ValueError, match="must be among those that were added"):
            head.remove(factor * f[rows], y[rows])
    assert_same_state(head.state_dict(), before)


def assert_same_state(a, b):
    assert a["numbers"] == b["numbers"]
    for name, tensors in b["tensors"].items():
        assert all(map(torch.equal, a["tensors"][name], tensors))


def test_classes_appear_later():
    f, y, w = problem(c=5, classes=True)
    order = y.argsort()  # class by class
    head = torchbcd.RidgeHead(12)
    assert head.outputs == 0
    outputs = []
    for rows in order.split(20):
        head.partial_fit(f[rows], y[rows], w[rows])
        outputs.append(head.outputs)
    assert outputs[0] == 1
    assert outputs[-1] == 5
    assert_solution(head.solve(0.5), scikit(f, y, 0.5, w, outputs=5))


def test_merge_grows_too():
    f, y, _ = problem(c=4, classes=True)
    first, second = torchbcd.RidgeHead(12), torchbcd.RidgeHead(12)
    first.partial_fit(f[y < 2], y[y < 2])
    second.partial_fit(f[y >= 2], y[y >= 2])
    assert_solution(first.merge(second).solve(0.5), scikit(f, y, 0.5, outputs=4))


@pytest.mark.parametrize("dependent", [False, True])
def test_alpha_zero_is_least_squares(dependent):
    f, y, _ = problem(n=40)
    if dependent:
        f = torch.cat([f[:, :6], f[:, :6] @ torch.ones(6, 6, dtype=torch.float64)], 1)
    weight, bias = torchbcd.RidgeHead(12, 3).partial_fit(f, y).solve(0.0)
    centred = f - f.mean(0)
    expected = torch.linalg.pinv(centred) @ (y - y.mean(0))
    assert (weight.T - expected).norm() <= 1e-8 * expected.norm()
    assert torch.allclose(bias, y.mean(0) - weight @ f.mean(0))


def test_a_path_is_its_solutions():
    f, y, w = problem(dtype=torch.float32)
    head = torchbcd.RidgeHead(12).partial_fit(f, y, w)
    alphas = [0.0, 1e-3, 1.0, 1e3]
    alone = [copy.deepcopy(head).solve(alpha) for alpha in alphas]  # by Cholesky
    for together, one in zip(head.path(alphas), alone, strict=True):
        assert_solution(together, one, 1e-9)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [False, True])
def test_leave_one_out_leaves_one_out(bias, weighted, classes):
    f, y, w = problem(n=25, d=6, classes=classes)
    weights = w if weighted else torch.ones(25, dtype=torch.float64)
    alphas = [0.0, 0.3, 10.0]
    head = torchbcd.RidgeHead(6, 3, bias=bias).partial_fit(f, y, w if weighted else None)
    found = head.leave_one_out(alphas, f, y, w if weighted else None)
    for k, alpha in enumerate(alphas):
        errors = []
        for r in range(25):
            rest = torch.arange(25) != r
            one = torchbcd.RidgeHead(6, 3, bias=bias).partial_fit(f[rest], y[rest], weights[rest])
            weight, b = one.solve(alpha)
            error = targets(y, 3)[r] - f[r] @ weight.T - (b if bias else 0)
            errors.append(weights[r] * error.square().mean())
        assert found[k] == pytest.approx((sum(errors) / weights.sum()).item(), rel=1e-8)


def test_odd_layouts_and_empty_batches():
    f, y, w = problem()
    plain = torchbcd.RidgeHead(12, 3).partial_fit(f, y, w).solve(1.0)
    strange = torchbcd.RidgeHead(12, 3)
    strange.partial_fit(f[:0], y[:0], w[:0])
    strange.partial_fit(f.T.contiguous().T, y.flip(0).flip(0), w[::2].repeat_interleave(2) * 0 + w)
    strange.partial_fit(f, y, torch.zeros_like(w))  # rows that weigh nothing
    assert strange.rows == 400
    assert_solution(strange.solve(1.0), plain, 1e-12)
    wide = torchbcd.RidgeHead(12, 3).partial_fit(f.repeat(1, 2)[:, :12], y)
    assert wide.rows == 200


def test_inputs_are_left_alone():
    f, y, w = problem()
    before = [t.clone() for t in (f, y, w)]
    torchbcd.RidgeHead(12, 3).partial_fit(f, y, w).leave_one_out([1.0], f, y, w)
    assert all(map(torch.equal, (f, y, w), before))


def test_gradients_do_not_follow():
    f, y, _ = problem()
    head = torchbcd.RidgeHead(12, 3).partial_fit(f.requires_grad_(), y.requires_grad_())
    assert not head.solve(1.0)[0].requires_grad


F, Y, W = problem(n=6)
REFUSED = {
    "a width": ((F[:, :11], Y), ValueError, r"features must have shape \(n, 12\) \(got \[6, 11\]\)"),
    "integers": ((F.long(), Y), TypeError, "features must be floating-point numbers"),
    "NaN": ((F * torch.nan, Y), ValueError, "features must be finite"),
    "infinite targets": ((F, Y / 0), ValueError, "y must be finite"),
    "rows": ((F, Y[:5]), ValueError, "y must have as many rows as features, 6"),
    "outputs": ((F, Y[:, :2]), ValueError, r"y must have shape \(n, 3\) \(got \[6, 2\]\)"),
    "a class": ((F, torch.tensor([0, 1, 2, 3, 0, 0])), IndexError, r"classes from 0 to 2 \(got 3\)"),
    "a negative class": ((F, torch.full((6,), -1)), IndexError, r"classes from 0 to 2 \(got -1\)"),
    "a column of classes": ((F, torch.zeros(6, 1, dtype=torch.long)), ValueError, r"use squeeze\(1\)"),
    "negative weights": ((F, Y, -W), ValueError, "sample_weight must be finite and >= 0"),
    "weights of a shape": ((F, Y, W[:, None]), ValueError, r"sample_weight must have shape \(n,\)"),
    "sparse": ((F.to_sparse(), Y), TypeError, "features must be a dense tensor"),
    "an array": ((F.numpy(), Y), TypeError, "use torch.from_numpy"),
    "too large": ((F * 1e200, Y), ValueError, "small enough for their squares"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(case):
    arguments, error, text = REFUSED[case]
    head = torchbcd.RidgeHead(12, 3).partial_fit(F, Y)
    before = head.state_dict()
    with pytest.raises(error, match=text):
        head.partial_fit(*arguments)
    assert_same_state(head.state_dict(), before)


def test_refused_numbers_and_heads():
    with pytest.raises(ValueError, match="features must be at least 1"):
        torchbcd.RidgeHead(0)
    with pytest.raises(ValueError, match="outputs must be at least 1"):
        torchbcd.RidgeHead(3, 0)
    with pytest.raises(TypeError, match="features must be a whole number"):
        torchbcd.RidgeHead(2.5)
    head = torchbcd.RidgeHead(12, 3).partial_fit(F, Y)
    for alpha in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="alpha must be finite and >= 0"):
            head.solve(alpha)
    with pytest.raises(ValueError, match="with itself"):
        head.merge(head)
    with pytest.raises(ValueError, match="as many features"):
        head.merge(torchbcd.RidgeHead(11, 3))
    with pytest.raises(ValueError, match="as many outputs"):
        head.merge(torchbcd.RidgeHead(12, 4))
    with pytest.raises(ValueError, match="with 12 features"):
        head.load_state_dict(torchbcd.RidgeHead(11, 3).state_dict())
    with pytest.raises(ValueError, match="one output tells no classes apart"):
        torchbcd.RidgeHead(12, 1).partial_fit(F, torch.zeros(6, dtype=torch.long))


def test_another_thread_is_refused():
    """Whoever is let in is counted whole; whoever is not, not at all."""
    head = torchbcd.RidgeHead(400, 3)
    counted, said = [], []

    def add(rows):
        try:
            head.partial_fit(torch.ones(rows, 400), torch.zeros(rows, dtype=torch.long))
            counted.append(rows)
        except RuntimeError as error:
            said.append(str(error))

    threads = [threading.Thread(target=add, args=(rows,)) for rows in (9000, 8000, 7000, 6000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert head.rows == sum(counted)
    assert all("another thread is in a call" in text for text in said)
    assert len(counted) + len(said) == 4


def test_copies_files_and_scripts():
    f, y, w = problem(classes=True)
    head = torchbcd.RidgeHead(12).partial_fit(f, y, w)
    expected = head.solve(0.2)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    loaded = torchbcd.RidgeHead(12)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head)), loaded):
        other.partial_fit(f, y)
        assert other.rows == 400
        other.remove(f, y)
    assert torch.equal(head.solve(0.2)[0], expected[0])
    assert_solution(loaded.solve(0.2), expected, 1e-12)


def test_a_script_fits_and_is_saved():
    class Fitter(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.classes.torchbcd.RidgeHead(12)

        @torch.jit.export
        def add(self, f: torch.Tensor, y: torch.Tensor) -> int:
            self.head.partial_fit(f, y)
            return self.head.rows()

        def forward(self, x: torch.Tensor, alpha: float) -> torch.Tensor:
            weight, bias = self.head.solve(alpha)
            out = x @ weight.T
            return out if bias is None else out + bias

    f, y, _ = problem(classes=True)
    fitter = torch.jit.script(Fitter())
    assert fitter.add(f[:100], y[:100]) == 100
    file = io.BytesIO()
    torch.jit.save(fitter, file)
    file.seek(0)
    again = torch.jit.load(file)
    assert again.add(f[100:], y[100:]) == 200
    weight, bias = torchbcd.RidgeHead(12, 3).partial_fit(f, y).solve(1.0)
    assert torch.allclose(again(f, 1.0), f @ weight.T + bias, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.3, (1e-4, 1e2, 1e6)])
def test_refit_last_layer(alpha):
    torch.manual_seed(0)
    x = torch.randn(300, 1, 6, 6)
    y = (x.mean((1, 2, 3)) > 0).long() + (x.amax((1, 2, 3)) > 2.5).long()
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(64, 3)
    )
    model[1].eval()
    loader = [(x[rows], y[rows]) for rows in torch.arange(300).split(64)]
    buffers = copy.deepcopy(dict(model.named_buffers()))
    modes = [module.training for module in model.modules()]
    head = torchbcd.refit_last_layer(model, loader, alpha)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    with torch.no_grad():
        features = model.eval()[:-1](x)
    alphas = alpha if isinstance(alpha, tuple) else (alpha,)
    best = min(alphas, key=lambda a: head.leave_one_out([a], features, y).item())
    weight, bias = torchbcd.RidgeHead(64, 3).partial_fit(features, y).solve(best)
    assert torch.allclose(model[-1].weight, weight.float(), atol=1e-6)
    assert torch.allclose(model[-1].bias, bias.float(), atol=1e-6)


def test_refit_of_models_that_do_not_end_in_a_linear():
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    after = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    before = copy.deepcopy(after.state_dict())
    with pytest.raises(ValueError, match="must return what its last Linear"):
        torchbcd.refit_last_layer(after, [(x, y)], 1.0)
    assert all(torch.equal(v, before[k]) for k, v in after.state_dict().items())
    assert after.training
    assert not after[0]._forward_hooks
    with pytest.raises(ValueError, match="must have an nn.Linear"):
        torchbcd.refit_last_layer(nn.ReLU(), [(x, y)], 1.0)


def test_refit_of_a_sequence_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 5), nn.Tanh(), nn.Linear(5, 7, bias=False))
    x, y = torch.randint(7, (4, 9)), torch.randint(7, (4, 9))
    assert torchbcd.refit_last_layer(model, [(x, y)], 0.5).rows == 36
    features = model[:-1](x).detach().flatten(0, 1)
    weight, bias = torchbcd.RidgeHead(5, 7, bias=False).partial_fit(features, y.flatten()).solve(0.5)
    assert bias is None
    assert torch.allclose(model[-1].weight, weight.float(), atol=1e-6)
