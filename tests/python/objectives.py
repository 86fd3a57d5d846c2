"""The terms of the objectives, written down again in plain PyTorch, for tests to recompute them."""

from __future__ import annotations

import torch
from torch.nn import functional as nnf

LOSSES = ("squared", "hinge", "logistic", "exponential", "cross_entropy")


def regularizer_value(regularizer, values):
    if regularizer is None:
        return 0.0
    terms = regularizer.terms()
    values = values.double()
    # Bounds as the dtype of the variables has them.
    inside = values.float() >= torch.tensor(terms.low).float() - 1e-7
    inside &= values.float() <= torch.tensor(terms.high).float() + 1e-7
    if not inside.all():
        return float("inf")
    return (terms.l1 * values.abs() + terms.l2 / 2 * values.square()).sum().item()


def row_losses(loss, v, y):
    if loss == "cross_entropy":
        return nnf.cross_entropy(v, y, reduction="none")
    one_hot = nnf.one_hot(y, v.shape[1]).double()
    sign = 2 * one_hot - 1
    entries = {
        "squared": lambda: 0.5 * (v - one_hot).square(),
        "hinge": lambda: (1 - sign * v).clamp_min(0),
        "logistic": lambda: nnf.softplus(-sign * v),
        "exponential": lambda: torch.exp(-sign * v),
    }[loss]()
    return entries.sum(1)
