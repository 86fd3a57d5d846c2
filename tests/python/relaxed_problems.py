"""L of RelaxedBCD, written down again, and sweeps watched block by block."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from objectives import regularizer_value, row_losses

WIDTHS = [6, 20, 18, 16, 3]
FEW, MANY = 10, 60  # rows: fewer and more than the widths, for both forms of the W block
# Sweeps that begin at the model's weights, and states that go as far as they should.
STILL = {"momentum": 0.0, "weight_decay": 0.0}
PLAIN = {**STILL, "cap": None, "growth": 1.0}


def lifted_objective(variables, penalties, regularizer, loss, y, *, clamped):
    """L from the variables alone, in float64."""
    total = 0.0
    for i, penalty in enumerate(penalties):
        product = variables.V[i].double() @ variables.W[i].double().t()
        if variables.b[i] is not None:
            product = product + variables.b[i].double()
        total += penalty / 2 * (variables.U[i].double() - product).square().sum().item()
        own = regularizer[i] if isinstance(regularizer, list) else regularizer
        total += penalty * regularizer_value(own, variables.W[i])
    if not clamped:
        total += row_losses(loss, variables.V[-1].double(), y).sum().item()
    return total


def watched_sweep(optimizer, *data):
    """A step, with the variables after every block."""
    seen = []
    optimizer.set_observer(lambda block, layer: seen.append(((block, layer), optimizer.variables())))
    report = optimizer.step(*data)
    optimizer.set_observer(None)
    return report, seen


def by_index(seen):
    """The variables after each block, by its name and the index of its layer, from 0."""
    return {(block, layer - 1): variables for (block, layer), variables in seen}


def assert_certified(report, seen, regularizer, loss, y, *, clamped, dtype):
    """No block raised L, and the report's numbers are those of L recomputed."""
    values = [
        lifted_objective(variables, report.penalties, regularizer, loss, y, clamped=clamped)
        for _, variables in seen
    ]
    certificate = report.certificate
    unit = torch.finfo(dtype).eps
    # A residual's rounding is relative to the states it is a difference of.
    states = sum(v.square().sum().item() for v in seen[-1][1].V)
    scale = certificate.before + math.sqrt(certificate.before * states) + unit * states
    known = certificate.before
    for (name, _), value, (block, layer, decrease) in zip(seen, values, certificate.blocks, strict=True):
        assert name == (block, layer)
        assert decrease >= -100 * unit * scale
        known -= decrease
        assert known == pytest.approx(value, abs=2000 * unit * scale)
    for earlier, later in itertools.pairwise([certificate.before, *values]):
        assert later <= earlier + 200 * unit * scale
    assert certificate.after == pytest.approx(values[-1], abs=2000 * unit * scale)
