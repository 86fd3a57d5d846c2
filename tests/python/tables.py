"""What several test files go through: every operator with arguments, every optimizer with options."""

from __future__ import annotations

import torch

import torchbcd
from torchbcd import regularizers


def randn(*shape, requires_grad=False):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=requires_grad)


def operators():
    """(operator, arguments, keyword arguments) for each operator."""
    ops = torch.ops.torchbcd
    for name in (
        "prox_relu",
        "prox_identity",
        "prox_sigmoid",
        "prox_tanh",
        "prox_leaky_relu",
        "prox_hardtanh",
        "prox_hardsigmoid",
        "prox_sign",
        "prox_squared_loss",
        "prox_hinge_loss",
        "prox_logistic_loss",
        "prox_exponential_loss",
    ):
        yield getattr(ops, name), (randn(4, 3), randn(4, 3), 0.7), {}
        yield getattr(ops, name), (randn(4, 1), randn(3), 0.7), {}
        yield getattr(ops, name), (randn(0, 3), randn(3), 0.7), {}
    yield ops.prox_polynomial, (randn(4, 3), randn(4, 3), 0.7, [0.0, 1.0, 0.5]), {}
    yield ops.prox_leaky_relu, (randn(4, 3), randn(4, 3), 0.7, 0.2), {}
    yield ops.prox_cross_entropy_loss, (torch.tensor([0, 2, 1]), randn(3, 4), 0.7), {}
    yield ops.prox_cross_entropy_loss, (randn(3, 4).softmax(1), randn(3, 4), 0.7), {}
    yield ops.prox_l1, (randn(4, 3), 0.7), {}
    yield ops.prox_l2, (randn(4, 3), 0.7), {}
    yield ops.prox_elastic_net, (randn(4, 3), 0.7, 0.2), {}
    yield ops.project_nonnegative, (randn(4, 3),), {}
    yield ops.project_box, (randn(4, 3), -0.5, 0.5), {}
    for bias in (randn(2), None):
        yield ops.weight_update, (randn(5, 2), randn(5, 3), randn(2, 3), bias, 0.7, 1.1), {}
        yield ops.state_update, (randn(5, 3), randn(5, 2), randn(2, 3), bias, 0.7, 1.1), {}
    for activation, parameters in (("relu", []), ("leaky_relu", [0.1]), ("tanh", []), ("hardsigmoid", [])):
        yield ops.joint_state_update, (randn(4, 3), randn(4, 3), activation, parameters, 0.7, 0.1), {}
        yield (
            ops.preimage_projection,
            (randn(3, 4).t(), randn(4, 3), randn(4, 3), activation, parameters, 0.1),
            {},
        )
    yield ops.activation_out, (randn(4, 3), "relu", []), {"out": randn(4, 3)}
    yield (
        ops.auxiliary_update_out,
        (randn(4, 3), randn(4, 3), randn(4, 3), "relu", [], 0.7, 1.1, 0.2),
        {"u_out": randn(4, 3), "residual_out": randn(4, 3)},
    )
    yield (
        ops.output_update_out,
        (randn(4, 3), randn(4, 3), randn(4, 3), "squared", "relu", [], 0.7, 1.1, 0.2),
        {"v_out": randn(4, 3)},
    )


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
