"""What several test files go through: every operator with arguments, every optimizer with options."""

from __future__ import annotations

from itertools import product

import torch

import torchbcd
from torchbcd import regularizers
from torchbcd._fakes import operators as torchbcd_operators


def randn(*shape, requires_grad=False):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=requires_grad)


# Shapes (first tensor, all others) for operators of one kind; None where they are named by argument below.
SHAPES = {
    "broadcast": [((4, 3), (4, 3)), ((4, 1), (3,)), ((0, 3), (3,))],
    "new_like_second": [((3, 4), (3, 4))],
    "new_map": [((5, 2), None)],
}
BY_NAME = {  # of tensors whose shapes differ from the others'
    "weight_update": {"u": (5, 2), "v": (5, 3), "weight": (2, 3), "bias": (2,)},
    "state_update": {"s": (5, 3), "u": (5, 2), "weight": (2, 3), "bias": (2,)},
}
ACTIVATIONS = {"relu": [], "leaky_relu": [0.1], "tanh": [], "hardsigmoid": []}
LOSSES = ("squared", "hinge", "cross_entropy")
NUMBERS = {"lo": -0.5, "hi": 0.5, "low": -0.5, "high": 0.5, "min_val": -0.5, "max_val": 0.5, "eps": 0.1}


def class_indices(name, argument):
    """Whether a tensor argument holds classes; then it also is tried as probabilities, where these are taken."""
    return (name, argument) in {("prox_cross_entropy_loss", "target"), ("encode_targets", "y")}


def tensor_arguments(name, argument, shape):
    """The tensors to try for one argument."""
    if class_indices(name, argument):
        classes = torch.tensor([0, 2, 1])
        return [classes] if name == "encode_targets" else [classes, randn(*shape).softmax(1)]
    if name == "preimage_projection" and argument == "q":
        return [randn(*reversed(shape)).t()]  # strided
    return [randn(*shape)]


def operators():
    """(operator, arguments, keyword arguments) for each operator, from its schema and its kind."""
    for name, kind in torchbcd_operators().items():
        op = getattr(torch.ops.torchbcd, name)
        schema = op.default._schema.arguments
        for first, others in SHAPES.get(kind, [((4, 3), (4, 3))]):
            choices = []
            for position, argument in enumerate(schema):
                shape = BY_NAME.get(name, {}).get(argument.name, others if position else first)
                choices.append(values_of(name, argument, shape))
            for values in product_of(choices):
                named = {a.name: v for a, v in zip(schema, values, strict=True) if a.kwarg_only}
                yield op, tuple(v for a, v in zip(schema, values, strict=True) if not a.kwarg_only), named


def values_of(name, argument, shape):
    """What to try for one argument of an operator."""
    kind = str(argument.type)
    if kind == "Tensor":
        return tensor_arguments(name, argument.name, shape)
    if kind == "Optional[Tensor]":
        return [randn(*shape), None]
    if kind == "float":
        return [NUMBERS.get(argument.name, 0.7)]
    if argument.name == "activation":
        return list(ACTIVATIONS)
    if argument.name == "loss":
        return list(LOSSES)
    assert argument.name in ("parameters", "coefficients"), f"no values for {argument.name} of {name}"
    return [[0.0, 1.0, 0.5]] if argument.name == "coefficients" else [None]


def product_of(choices):
    """All combinations; an activation's parameters go with its name."""
    for values in product(*choices):
        chosen = next((v for v in values if isinstance(v, str) and v in ACTIVATIONS), None)
        if chosen is None:
            yield values
        else:
            at = values.index(chosen) + 1
            yield (*values[:at], ACTIVATIONS[chosen], *values[at + 1 :])


# Each optimizer over a model of three Linear modules, with options that are not its defaults.
OPTIMIZERS = {
    "BCD": lambda m: torchbcd.BCD(
        m,
        gamma=[1.0, 0.5, 2.0],
        rho=0.7,
        alpha=0.1,
        weight_regularizer=regularizers.L2(0.01),
        state_regularizer=[None, regularizers.L1(1e-3), None],
        loss_weight="mean",
    ),
    "BCD, box": lambda m: torchbcd.BCD(m, "hinge", alpha=0.1, weight_regularizer=regularizers.Box(-1.0, 1.0)),
    "BCD, cross-entropy": lambda m: torchbcd.BCD(m, "cross_entropy", order="states_first", inner_sweeps=2),
    "BCD, two splittings": lambda m: torchbcd.BCD(m, splitting=2, alpha=0.2),
    "RelaxedBCD": lambda m: torchbcd.RelaxedBCD(m, relaxation=0.4, cap=0.3, state_steps=2, guard=True),
    "RelaxedBCD, cross-entropy": lambda m: torchbcd.RelaxedBCD(
        m, "cross_entropy", persistent=True, weight_regularizer=regularizers.L1(1e-3)
    ),
    "DLAM": lambda m: torchbcd.DLAM(m, "squared", rho=0.01, eps=torchbcd.EpsSchedule(0.5, 0.9, 0.01)),
    "DLAM, joint": lambda m: torchbcd.DLAM(m, momentum="capped", joint=True, weight_damping=1.0),
    "DLADMM": lambda m: torchbcd.DLADMM(m, rho=0.1, nu=0.2),
}
