"""The terms of the objectives, written down again in plain PyTorch, for tests to recompute them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as nnf

from torchbcd import losses
from torchbcd import regularizers as reg

# name -> (of the weights, of the states)
REGULARIZERS = {
    "none": (None, None),
    "l2": (reg.L2(0.3), reg.L2(0.2)),
    "l1": (reg.L1(0.3), reg.L1(0.05)),
    "elastic net": (reg.ElasticNet(0.1, 0.2), reg.ElasticNet(0.02, 0.05)),
    "nonnegative": (reg.Nonnegative(), reg.Nonnegative()),
    "box": (reg.Box(-0.4, 0.5), reg.Box(-1.0, 1.5)),
}
LOSSES = (
    "squared",
    "hinge",
    "row_hinge",
    "logistic",
    "exponential",
    "huber",
    "cross_entropy",
    "quantile",
    "poisson",
    "binary_cross_entropy",
)


def regularizer_value(regularizer, values):
    if regularizer is None:
        return 0.0
    terms = regularizer
    values = values.double()
    # Bounds as the dtype of the variables has them.
    inside = values.float() >= torch.tensor(terms.low).float() - 1e-7
    inside &= values.float() <= torch.tensor(terms.high).float() + 1e-7
    if not inside.all():
        return float("inf")
    total = (terms.l1 * values.abs() + terms.l2 / 2 * values.square()).sum()
    if isinstance(terms, reg.WeightRegularizer):
        total += terms.by_input * values.norm(dim=0).sum() + terms.by_unit * values.norm(dim=1).sum()
        total += terms.proximal.value(values) if terms.proximal else 0.0
    return total.item()


def row_losses(loss, v, y):
    if isinstance(loss, losses.MultiOutput):
        columns = v.split([outputs for outputs, _, _ in loss.parts], 1)
        parts = zip(loss.parts, columns, y, strict=True)
        return sum(weight * row_losses(own.name, part, of_part) for (_, own, weight), part, of_part in parts)
    if loss == "cross_entropy":
        return nnf.cross_entropy(v, y, reduction="none")
    one_hot = nnf.one_hot(y, v.shape[1]).double()
    sign = 2 * one_hot - 1
    if loss == "row_hinge":
        return (1 - (sign * v).sum(1)).clamp_min(0)
    entries = {
        "squared": lambda: 0.5 * (v - one_hot).square(),
        "hinge": lambda: (1 - sign * v).clamp_min(0),
        "logistic": lambda: nnf.softplus(-sign * v),
        "huber": lambda: nnf.huber_loss(v, one_hot, reduction="none"),
        "exponential": lambda: torch.exp(-sign * v),
        "quantile": lambda: 0.5 * (v - one_hot).abs(),
        "poisson": lambda: nnf.poisson_nll_loss(v, one_hot, reduction="none"),
        "binary_cross_entropy": lambda: nnf.binary_cross_entropy_with_logits(v, one_hot, reduction="none"),
    }[loss]()
    return entries.sum(1)


def recomputed_objective(optimizer, model, loss, y, splitting, sample_weight=None):
    """BCD's lifted objective, from the variables and the param groups, in float64."""
    w, b, u, v = optimizer.variables()
    modules = list(model)
    activations = []
    for i, module in enumerate(modules):
        if isinstance(module, nn.Linear):
            after = modules[i + 1] if i + 1 < len(modules) else nn.Identity()
            activations.append(nn.Identity() if isinstance(after, nn.Linear) else after)
    rows = row_losses(loss, v[-1].double(), y)
    total = (rows if sample_weight is None else rows * sample_weight.double()).sum().item()
    for i, group in enumerate(optimizer.param_groups):
        product = v[i].double() @ w[i].double().t() + b[i].double()
        gamma = group["gamma"]
        rho = gamma if group["rho"] is None else group["rho"]
        linear = u[i].double() if splitting == 3 else product
        total += gamma / 2 * (v[i + 1].double() - activations[i](linear)).square().sum().item()
        if splitting == 3:
            total += rho / 2 * (linear - product).square().sum().item()
        total += regularizer_value(group["weight_regularizer"], w[i])
        total += regularizer_value(group["state_regularizer"], v[i + 1])
    return total
