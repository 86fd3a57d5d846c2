"""What the tests of contracts share: a trained optimizer, what its state is, and comparison to the bit."""

from __future__ import annotations

import contextlib
import copy
import warnings

import torch
from conftest import make_data

import torchbcd

ROWS = 40
# An option of every layer that changes what the next step does.
SCHEDULED = {"BCD": "gamma", "RelaxedBCD": "relaxation", "DLAM": "rho", "DLADMM": "penalty"}


class InterruptedSweep(Exception):
    """What an observer raises."""


def data_for(configuration, dtype=torch.float64, seed=1):
    return make_data(ROWS, configuration.widths[0], configuration.widths[-1], dtype=dtype, seed=seed)


def weights_for(configuration, x):
    """The argument that gives rows of x weights, where the configuration has any."""
    return {"sample_weight": (torch.arange(len(x)) % 3).to(x.dtype)} if configuration.weighted else {}


def build(configuration, dtype=torch.float64, *, sweeps=0):
    """A model, its optimizer with bound data after some sweeps, and the data."""
    model = configuration.model(dtype)
    optimizer = configuration.over(model)
    x, y = data_for(configuration, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that DLAM with a constant eps never moves the hidden layers
        optimizer.bind(x, y, **weights_for(configuration, x))
    for _ in range(sweeps):
        optimizer.step()
    return model, optimizer, x, y


def ways(configuration):
    """The ways to step, by name: functions of an optimizer, x and y."""
    found = {"bound": lambda optimizer, x, y: optimizer.step()}
    if configuration.batches:
        found["batch"] = lambda optimizer, x, y: optimizer.step(
            x[:25], y[:25], **weights_for(configuration, x[:25])
        )
    if configuration.method == "BCD":
        found["rows"] = lambda optimizer, x, y: optimizer.step(index=torch.arange(3, 28))
    return found


def snapshot(model, optimizer):
    """Where a model and its optimizer stand, as copies: weights, options, split variables and their objective."""
    options = optimizer.state_dict()["param_groups"]
    point = None
    # RelaxedBCD's are those of its last sweep, to be looked at, and gone with a sweep that fails.
    if not isinstance(optimizer, torchbcd.RelaxedBCD):
        with contextlib.suppress(ValueError):  # there is no data yet
            point = (tuple(optimizer.variables()), optimizer.objective())
    return copy.deepcopy((dict(model.state_dict()), options, point))


def assert_identical(a, b):
    """Bit for bit, through nested dicts and lists."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_identical(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_identical(left, right)
    else:
        assert a == b or (a != a and b != b)


@contextlib.contextmanager
def unchanged(model, optimizer):
    """Model and optimizer stand where they stood after the body."""
    before = snapshot(model, optimizer)
    yield
    assert_identical(snapshot(model, optimizer), before)


def blocks_of(optimizer, step, x, y):
    """A step's report, and the blocks that it goes through, in order."""
    blocks = []
    optimizer.set_observer(lambda block, layer: blocks.append((block, layer)))
    report = step(optimizer, x, y)
    optimizer.set_observer(None)
    return report, blocks


def stop_at(optimizer, stop):
    """Have an observer raise after block number `stop` of every sweep, counted from 0."""
    seen = []

    def observe(block, layer):
        seen.append(block)
        if len(seen) > stop:
            raise InterruptedSweep

    optimizer.set_observer(observe)
