"""What is BCD's own: its order of blocks, mini-batches from a forward pass, reports, memory, real data."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import build, data_for
from objectives import regularizer_value, row_losses
from tables import CONFIGURATIONS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchbcd

pytestmark = pytest.mark.usefixtures("one_thread")

FOUR_LAYERS = CONFIGURATIONS["BCD, four layers"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", [name for name, found in CONFIGURATIONS.items() if found.method == "BCD"])
def test_a_mini_batch_never_ends_above_its_loss(name, dtype):
    """From the forward pass, where the objective is the batch's, to the end of the sweep."""
    configuration = CONFIGURATIONS[name]
    model = configuration.model(dtype)
    optimizer = configuration.over(model)
    loss, mean = configuration.options.get("loss", "squared"), configuration.options.get("loss_weight") == "mean"
    for seed in range(5):
        x, y = data_for(configuration, dtype, seed)
        with torch.no_grad():
            before = row_losses(loss, model(x).double(), y).sum().item() / (len(x) if mean else 1)
        for i, group in enumerate(optimizer.param_groups):
            before += regularizer_value(group["weight_regularizer"], group["params"][0].detach())
            if group["state_regularizer"] is not None:
                before += regularizer_value(group["state_regularizer"], model[: 2 * i + 2](x).detach())
        assert optimizer.step(x, y).objective <= before * (1 + 1e-5)


def test_blocks_come_in_the_papers_order():
    _, optimizer, _, _ = build(FOUR_LAYERS)
    blocks = []
    optimizer.set_observer(lambda block, layer: blocks.append((block, layer)))
    optimizer.step()
    assert blocks == [(block, layer) for layer in (4, 3, 2, 1) for block in "VUW"]


def test_ten_hidden_layers_float32_300_sweeps(digits):
    """[Z]'s authors' published run of this shape rises near its end; this one does not by 1e-6."""
    x, y = digits
    torch.manual_seed(0)
    widths = [64, *([60] * 10), 10]
    modules = []
    for d, d_next in pairwise(widths):
        linear = nn.Linear(d, d_next)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.constant_(linear.bias, 0.1)
        modules += [linear, nn.ReLU()]
    model = nn.Sequential(*modules[:-1])
    optimizer = torchbcd.BCD(model, gamma=1.0, alpha=1.0)
    optimizer.bind(x, y)
    previous = optimizer.objective()
    for _ in range(300):
        objective = optimizer.step().objective
        assert objective <= previous * (1 + 1e-6)
        previous = objective


def test_data_loader_with_a_smaller_last_batch():
    torch.manual_seed(0)
    model = make_mlp([7, 12, 4], dtype=torch.float32)
    optimizer = torchbcd.BCD(model)
    x, y = make_data(60, 7, 4, dtype=torch.float32)
    before = nn.functional.mse_loss(model(x), nn.functional.one_hot(y, 4).float())
    for _ in range(5):
        for inputs, targets in DataLoader(TensorDataset(x, y), batch_size=25, shuffle=True):
            optimizer.zero_grad()
            optimizer.step(inputs, targets)
    after = nn.functional.mse_loss(model(x), nn.functional.one_hot(y, 4).float())
    assert after < before


class TestReports:
    def test_terms_add_up(self):
        for name in ("BCD, four layers", "BCD"):
            _, optimizer, _, _ = build(CONFIGURATIONS[name])
            report = optimizer.step()
            assert report.sweep == 1
            parts = (
                report.activation_penalty,
                report.affine_penalty,
                report.weight_penalty,
                report.state_penalty,
            )
            assert report.objective == pytest.approx(report.loss + sum(map(sum, parts)), rel=1e-14)
            assert {len(part) for part in parts} == {len(optimizer.param_groups)}

    def test_of_a_mini_batch_speaks_of_its_rows(self):
        _, optimizer, _, _ = build(CONFIGURATIONS["BCD, defaults"], sweeps=1)
        report = optimizer.step(index=torch.arange(10))
        assert report.objective < optimizer.objective()


@pytest.mark.parametrize(("splitting", "hidden"), [(3, "relu"), (2, "identity")])
def test_no_allocation_of_rows_after_the_first_sweep(splitting, hidden):
    """A sweep's own arrays are chunks of rows and matrices of widths, never (n, d)."""
    from torch.profiler import ProfilerActivity, profile

    n, d = 20_000, 50
    model = make_mlp([d, d, d, 10], dtype=torch.float32, hidden=hidden)
    x, y = make_data(n, d, 10, dtype=torch.float32)
    optimizer = torchbcd.BCD(model, splitting=splitting)
    optimizer.bind(x, y)
    optimizer.step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        optimizer.step()
    sizes = [event.self_cpu_memory_usage for event in profiler.events()]
    assert max(sizes) < n * 10 * 4


@pytest.mark.parametrize("rows", [40, 4], ids=["more rows than inputs", "fewer"])
def test_algorithm_1s_kept_factor_is_that_of_the_penalties_as_they_are(rows):
    """Beside an optimizer from the state, which has kept nothing."""
    model = make_mlp([6, 5, 3], hidden="identity")
    optimizer = torchbcd.BCD(model, splitting=2, gamma=0.7, alpha=0.2)
    optimizer.bind(*make_data(rows, 6, 3))

    def change(what):
        if what == "gamma":
            optimizer.param_groups[0]["gamma"] = 1.3
        elif what == "alpha":
            optimizer.param_groups[0]["alpha"] = 0.1
        else:
            model[0].bias.requires_grad_(what == "trained")

    for what in ("gamma", "frozen", "alpha", "trained"):
        optimizer.step()
        optimizer.step()
        change(what)
        twin, twin_optimizer = copy.deepcopy((model, optimizer))
        assert optimizer.step().objective == pytest.approx(twin_optimizer.step().objective, rel=1e-12)
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
