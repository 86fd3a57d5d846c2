"""Fixtures and builders that the tests share."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

import torchbcd

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "hardtanh": lambda: nn.Hardtanh(-0.75, 1.25),
    "hardsigmoid": nn.Hardsigmoid,
    "silu": nn.SiLU,
    "sign": torchbcd.nn.Sign,
    "polynomial": lambda: torchbcd.nn.Polynomial([0.0, 1.0, 0.3, 0.05]),
}
# All others, which few tables go through.
MORE_ACTIVATIONS = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": lambda: nn.CELU(2.0),
    "softplus": lambda: nn.Softplus(beta=2.0),
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "logsigmoid": nn.LogSigmoid,
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
    "softshrink": nn.Softshrink,
    "hardshrink": nn.Hardshrink,
    "threshold": lambda: nn.Threshold(0.25, -0.5),
    "sine": torchbcd.nn.Sine,
}
MONOTONE = ("relu", "leaky_relu", "sigmoid", "tanh", "identity", "hardtanh", "hardsigmoid", "polynomial")


def make_mlp(widths, *, output=None, bias=True, dtype=torch.float64, seed=0, hidden="relu", norm=None):
    """A seeded nn.Sequential of the given widths.

    `hidden` is one activation or several that take turns, `output` the one at the end; `norm` says where hidden
    layers have a LayerNorm, "before" or "behind" the activation.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = []
    for i, (d, d_next) in enumerate(pairwise(widths)):
        linear = nn.Linear(d, d_next, bias=bias, dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(d_next, d, generator=generator, dtype=dtype) * d**-0.5)
            if bias:
                linear.bias.copy_(0.3 * torch.randn(d_next, generator=generator, dtype=dtype))
        modules.append(linear)
        inner = hidden if isinstance(hidden, str) else hidden[i % len(hidden)]
        name = inner if i < len(widths) - 2 else output
        if name is not None:
            modules.append({**ACTIVATIONS, **MORE_ACTIVATIONS, "prelu": nn.PReLU}[name]().to(dtype))
        if norm is not None and i < len(widths) - 2:
            layer_norm = nn.LayerNorm(d_next, dtype=dtype)
            with torch.no_grad():
                for parameter in layer_norm.parameters():
                    parameter += 0.3 * torch.randn(d_next, generator=generator, dtype=dtype)
            modules.insert(len(modules) - (1 if norm == "before" else 0), layer_norm)
    return nn.Sequential(*modules)


def make_data(n, d, classes, *, dtype=torch.float64, seed=1):
    """Seeded inputs (n, d) and class indices (n,)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=dtype)
    return x, torch.randint(classes, (n,), generator=generator)


# One thread for each of pytest-xdist's workers, and for the programs that they run.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

# What takes long to set up, and is set up once: its tests go to one worker.
SHARED = ("programs", "wheel", "results", "compiled_formulas")


# Before pytest-xdist reads the marks, which it does in a hook of the same name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for name in SHARED:
            if name in item.fixturenames:
                item.add_marker(pytest.mark.xdist_group(name))


def pytest_make_parametrize_id(val):
    """Names that are the same in every worker of pytest-xdist, as contents of a file, with its date, are not."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture
def benchmarks(monkeypatch):
    """The folders that benchmarks import from.

    All of them: a module stays imported when the path is taken back, so that what it did to the path when it was
    imported is not done for the next test.
    """
    for folder in ("examples/python", "benchmarks"):
        monkeypatch.syspath_prepend(Path(__file__).parents[2] / folder)


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.fixture
def two_threads():
    """For what is done differently by several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread():
    """Matrices as small as most tests' only lose time to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's embedded digits: (1797, 64) float32 in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels.astype(np.int64))
