"""What the tests of DLAM train, and its F, written down again."""

from __future__ import annotations

import math

import torch
from conftest import make_data, make_mlp
from objectives import regularizer_value, row_losses
from torch import nn

import torchbcd

WIDTHS, ROWS = [6, 8, 7, 3], 40


def build(
    activation="relu", loss="cross_entropy", regularizer=None, dtype=torch.float64, widths=WIDTHS, **options
):
    model = make_mlp(widths, hidden=activation, dtype=dtype)
    options.setdefault("rho", [0.3, 0.1, 0.2][: len(widths) - 1])
    options.setdefault("eps", torchbcd.EpsSchedule(0.5, 0.5, 0.05))
    optimizer = torchbcd.DLAM(model, loss, weight_regularizer=regularizer, **options)
    x, y = make_data(ROWS, widths[0], widths[-1], dtype=dtype)
    optimizer.bind(x, y)
    return model, optimizer, x, y


def recomputed(optimizer, model, loss, y, eps):
    """F, and the largest |a - h(z)| - eps, from the variables, in float64."""
    w, b, z, a = optimizer.variables()
    activations = [module for module in model if not isinstance(module, nn.Linear)]
    total = row_losses(loss, z[-1].double(), y).sum().item()
    gap = -math.inf
    for i, group in enumerate(optimizer.param_groups):
        product = a[i].double() @ w[i].double().t() + b[i].double()
        total += group["rho"] / 2 * (z[i].double() - product).square().sum().item()
        total += regularizer_value(group["weight_regularizer"], w[i])
        if i < len(activations):
            gap = max(gap, (a[i + 1].double() - activations[i](z[i].double())).abs().max().item() - eps)
    return total, gap
