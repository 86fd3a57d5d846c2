"""Modules before the layers run as they are: the same training as of the layers alone on their features."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn

import torchbcd

OPTIMIZERS = {
    "RelaxedBCD": torchbcd.RelaxedBCD,
    "BCD": torchbcd.BCD,
    "Algorithm 1": lambda model: torchbcd.BCD(model, splitting=2),
    "DLAM": torchbcd.DLAM,
    "DLADMM": torchbcd.DLADMM,
}


def freeze(*modules):
    backbone = nn.Sequential(*modules).eval()
    return backbone.requires_grad_(False)


def make_backbone():
    torch.manual_seed(1)
    backbone = freeze(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Dropout(0.5), nn.Flatten())
    backbone[1].running_var.uniform_(0.5, 2)
    return backbone


def make_layers(width=16):
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(width, 12), nn.ReLU(), nn.Linear(12, 3))


def data(n=60):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 2, 4, 4, generator=generator)
    return x, torch.randint(3, (n,), generator=generator)


def weights(layers):
    return [p.detach().clone() for p in layers.parameters()]


def train(optimizer, x, y):
    """A bound batch and, where the method has them, mini-batches."""
    optimizer.bind(x, y)
    for _ in range(3):
        optimizer.step()
    if not isinstance(optimizer, torchbcd.DLADMM):
        optimizer.step(x[:20], y[:20])
    return optimizer.objective()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("nested", [False, True])
def test_trains_the_layers_on_features(name, nested):
    backbone, layers, (x, y) = make_backbone(), make_layers(), data()
    alone = copy.deepcopy(layers)
    expected = train(OPTIMIZERS[name](alone), backbone(x), y)
    model = nn.Sequential(backbone, *layers) if nested else nn.Sequential(*backbone, *layers)
    optimizer = OPTIMIZERS[name](model)
    before = copy.deepcopy(backbone.state_dict())
    assert train(optimizer, x, y) == expected
    assert all(map(torch.equal, weights(layers), weights(alone)))
    assert all(torch.equal(t, before[key]) for key, t in backbone.state_dict().items())
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("by_function", [False, True])
def test_fit_is_that_of_the_layers(memory, by_function, monkeypatch):
    """Features are computed once where memory lets them, and again for each batch where it does not."""
    monkeypatch.setattr("torchbcd.mini_batches._fits", lambda x, first: memory)
    backbone, layers, (x, y) = make_backbone(), make_layers(), data(200)
    rows = []
    backbone[0].register_forward_hook(lambda module, inputs, output: rows.append(len(output)))

    def validation(inputs):
        return (lambda model: model(inputs).square().mean().item()) if by_function else (inputs, y)

    def fit(model, inputs):
        generator = torch.Generator().manual_seed(5)
        optimizer = torchbcd.RelaxedBCD(model)
        return optimizer.fit(inputs, y, 3, 20, validation=validation(inputs), patience=2, generator=generator)

    alone = copy.deepcopy(layers)
    expected = fit(alone, backbone(x))
    rows.clear()
    assert fit(nn.Sequential(backbone, *layers), x) == expected
    assert all(map(torch.equal, weights(layers), weights(alone)))
    if not by_function:
        # x and validation; or both, to look at the scale, and three epochs
        assert sum(rows) == (400 if memory else 400 + 200 + 600)


def test_bound_features_are_computed_once():
    backbone, layers, (x, y) = make_backbone(), make_layers(), data()
    calls = []
    backbone[0].register_forward_hook(lambda *_: calls.append(1))
    optimizer = torchbcd.BCD(nn.Sequential(backbone, *layers))
    optimizer.bind(x, y)
    for _ in range(3):
        optimizer.step()
    optimizer.step(index=torch.arange(10))
    assert len(calls) == 1
    assert torch.equal(optimizer.variables().V[0], backbone(x))


def test_many_rows_run_some_at_a_time():
    backbone, layers, (x, y) = make_backbone(), make_layers(), data(2500)
    sizes = []
    backbone[0].register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    torchbcd.BCD(nn.Sequential(backbone, *layers)).bind(x, y)
    assert sizes == [1024, 1024, 452]


def test_runs_in_eval_mode_and_says_so():
    backbone, layers, (x, y) = make_backbone(), make_layers(), data()
    alone = copy.deepcopy(layers)
    torchbcd.BCD(alone).step(backbone(x), y)
    model = nn.Sequential(backbone, *layers).train()
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(backbone.state_dict())
    optimizer = torchbcd.BCD(model)
    with pytest.warns(UserWarning, match="BatchNorm2d.*is in train mode; for the optimizer it runs in eval"):
        optimizer.step(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        optimizer.step(x, y)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(t, before[key]) for key, t in backbone.state_dict().items())
    torchbcd.BCD(alone).step(backbone.eval()(x), y)
    assert all(map(torch.equal, weights(layers), weights(alone)))


class Tokens(nn.Module):
    """The mean of some embeddings, whose inputs are integers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16)

    def forward(self, tokens):
        return self.table(tokens).mean(1)


FIRST = {
    "a module of one's own": (Tokens(), torch.randint(50, (30, 7))),
    "an activation": (nn.ReLU(), torch.randn(30, 16)),
    "a normalisation": (nn.LayerNorm(16), torch.randn(30, 16)),
    "a Linear that is no layer": (nn.Sequential(nn.Linear(9, 16), nn.Softmax(1)), torch.randn(30, 9)),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(9, 16)), torch.randn(30, 9)),
    "half precision": (nn.Sequential(nn.Linear(9, 16), nn.Softmax(1)).bfloat16(), torch.randn(30, 9).bfloat16()),
    "a partial Flatten": (nn.Sequential(nn.Identity(), nn.Flatten(2), nn.Flatten(1)), torch.randn(30, 2, 4, 2)),
}


@pytest.mark.parametrize("case", FIRST)
def test_any_module_may_stand_first(case):
    first, x = FIRST[case]
    first = copy.deepcopy(first).requires_grad_(False)
    y, layers = torch.arange(30) % 3, make_layers()
    alone = copy.deepcopy(layers)
    torchbcd.RelaxedBCD(alone).step(first(x).float(), y)
    optimizer = torchbcd.RelaxedBCD(nn.Sequential(first, *layers))
    optimizer.step(x, y)
    assert all(map(torch.equal, weights(layers), weights(alone)))


def test_what_is_refused():
    layers, (x, y) = make_layers(), data()
    conv = nn.Conv2d(2, 4, 3)
    with pytest.raises(ValueError, match=r"module 0 of the model, Conv2d.* requires_grad_\(False\)"):
        torchbcd.BCD(nn.Sequential(conv, nn.Flatten(), *layers))
    with pytest.raises(ValueError, match=r"module 1 of the model, Softmax.*is not supported"):
        torchbcd.BCD(nn.Sequential(nn.Linear(4, 4), nn.Softmax(1), nn.Linear(4, 3)))
    optimizer = torchbcd.BCD(nn.Sequential(conv.requires_grad_(False), nn.Flatten(), *layers))
    before = weights(layers)
    with pytest.raises(ValueError, match=r"must have shape \(n, 16\)"):
        optimizer.step(torch.randn(5, 2, 5, 5), y[:5])
    with pytest.raises(RuntimeError, match="expected input"):
        optimizer.step(x[:, :1], y)
    conv.bias.requires_grad_(True)
    with pytest.raises(ValueError, match=r"has a parameter 'bias' that requires gradients by now"):
        optimizer.step(x, y)
    assert all(map(torch.equal, weights(layers), before))

    class Reduces(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:3]

    with pytest.raises(ValueError, match="must make a row of each row of x"):
        torchbcd.BCD(nn.Sequential(Reduces(), *make_layers(32))).step(x, y)
    with pytest.raises(TypeError, match="must return a tensor"):
        torchbcd.BCD(nn.Sequential(nn.LSTM(16, 16).requires_grad_(False), *layers)).step(
            torch.randn(5, 16), y[:5]
        )


def test_a_replaced_module_is_refused():
    backbone, layers, (x, y) = make_backbone(), make_layers(), data()
    optimizer = torchbcd.BCD(nn.Sequential(backbone, *layers))
    backbone[2] = nn.ReLU()
    with pytest.raises(ValueError, match=r"module 0\.2 of the model is another one now"):
        optimizer.step(x, y)


def test_copies_and_checkpoints():
    backbone, layers, (x, y) = make_backbone(), make_layers(), data()
    model = nn.Sequential(backbone, *layers)
    optimizer = torchbcd.RelaxedBCD(model)
    optimizer.step(x, y)
    file = io.BytesIO()
    torchbcd.save_checkpoint(file, model, optimizer)
    file.seek(0)
    loaded = nn.Sequential(make_backbone(), *make_layers())
    theirs = torchbcd.RelaxedBCD(loaded)
    torchbcd.load_checkpoint(file, loaded, theirs)
    copies = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer))), (loaded, theirs)]
    optimizer.step(x, y)
    for other, again in copies:
        again.step(x, y)
        assert all(map(torch.equal, weights(other), weights(model)))


def test_scale_is_told_from_features():
    backbone, layers, (x, y) = make_backbone(), make_layers(), data()
    backbone[1].bias.fill_(1000.0)
    with pytest.warns(UserWarning, match="standardize_"):
        torchbcd.RelaxedBCD(nn.Sequential(backbone, *layers)).step(x, y)
    features = backbone(x)
    before = layers((features - features.mean(0)) / features.std(0, unbiased=False))
    torchbcd.standardize_(nn.Sequential(backbone, *layers), x)
    assert torch.allclose(layers(features), before, atol=1e-3)
    with pytest.warns(UserWarning, match="fit has folded"):
        torchbcd.RelaxedBCD(nn.Sequential(backbone, *make_layers())).fit(x, y, 1)


def test_the_script_object_takes_features():
    backbone, layers, (x, y) = make_backbone(), make_layers(), data()
    optimizer = torchbcd.RelaxedBCD(nn.Sequential(backbone, *layers))

    class Trainer(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone
            self.optimizer = optimizer.script_object()

        @torch.jit.export
        def train_on(self, x: torch.Tensor, y: torch.Tensor) -> None:
            self.optimizer.step(self.backbone(x), y)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.backbone(x)

    alone = make_layers()
    torchbcd.RelaxedBCD(alone).step(backbone(x), y)
    torch.jit.script(Trainer()).train_on(x, y)
    assert all(map(torch.allclose, weights(layers), weights(alone)))
