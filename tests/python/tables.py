"""What several test files go through: every operator with arguments, every optimizer with options."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from conftest import make_mlp

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


@dataclass(frozen=True)
class Configuration:
    """An optimizer with options, over a model of its own.

    Attributes:
        method: The optimizer's name.
        options: Its arguments beside the model.
        promise: What never rises: "run", the objective over bound data; "step", that of a mini-batch within its
            step; "" for nothing.
        widths: The model's.
        hidden: Its hidden activations, which take turns.
        output: Its last activation.
        bias: Whether its Linear modules have one.
        batches: Whether it takes mini-batches.
        overflows: Whether squares that overflow are an error, rather than a step that finds no way down.
    """

    method: str
    options: dict = field(default_factory=dict)
    promise: str = "run"
    widths: tuple = (6, 8, 7, 3)
    hidden: tuple = ("relu",)
    output: str | None = None
    bias: bool = True
    batches: bool = True
    overflows: bool = False

    def over(self, model):
        """The optimizer over a model."""
        return getattr(torchbcd, self.method)(model, **self.options)

    def model(self, dtype=torch.float64):
        return make_mlp(list(self.widths), hidden=self.hidden, output=self.output, bias=self.bias, dtype=dtype)


def bcd(*, options=None, **model):
    return Configuration("BCD", options or {}, **model)


def relaxed(*, options=None, **model):
    return Configuration("RelaxedBCD", options or {}, **{"promise": "step", **model})


def dlam(*, options=None, **model):
    return Configuration("DLAM", options or {}, **model)


def dladmm(*, options=None, **model):
    return Configuration("DLADMM", {"rho": 0.1, **(options or {})}, **{"promise": "", **model})


SHRINKING = torchbcd.EpsSchedule(0.5, 0.9, 0.01)

# Those of the first group have the same model of three Linear modules, and options that are not the defaults.
CONFIGURATIONS = {
    "BCD": bcd(
        options={
            "gamma": [1.0, 0.5, 2.0],
            "rho": 0.7,
            "alpha": 0.1,
            "weight_regularizer": regularizers.L2(0.01),
            "state_regularizer": [None, regularizers.L1(1e-3), None],
            "loss_weight": "mean",
        },
        overflows=True,
    ),
    "BCD, box": bcd(options={"loss": "hinge", "alpha": 0.1, "weight_regularizer": regularizers.Box(-1.0, 1.0)}),
    "BCD, cross-entropy": bcd(options={"loss": "cross_entropy", "order": "states_first", "inner_sweeps": 2}),
    "BCD, two splittings": bcd(options={"splitting": 2, "alpha": 0.2}, overflows=True),
    "RelaxedBCD": relaxed(
        options={"relaxation": 0.4, "cap": 0.3, "state_steps": 2, "guard": True}, overflows=True
    ),
    "RelaxedBCD, cross-entropy": relaxed(
        options={"loss": "cross_entropy", "persistent": True, "weight_regularizer": regularizers.L1(1e-3)},
        promise="run",
        batches=False,
    ),
    "DLAM": dlam(options={"loss": "squared", "rho": 0.01, "eps": SHRINKING}),
    "DLAM, joint": dlam(options={"momentum": "capped", "joint": True, "weight_damping": 1.0}, overflows=True),
    "DLADMM": dladmm(options={"nu": 0.2}),
    # Models and options of their own.
    "BCD, one layer": bcd(widths=(6, 3)),
    "BCD, defaults": bcd(widths=(6, 12, 3), overflows=True),
    "BCD, four layers": bcd(
        options={
            "gamma": [0.5, 1.0, 2.0, 0.3],
            "rho": [1.5, 0.2, 0.7, 1.1],
            "alpha": [0.1, 0.4, 1.3, 0.6],
            "alpha_weight": 0.3,
        },
        widths=(6, 12, 9, 7, 3),
    ),
    "BCD, relu output": bcd(output="relu", widths=(6, 12, 3)),
    "BCD, linear": bcd(hidden=("identity",), widths=(6, 12, 3)),
    "BCD, no bias": bcd(bias=False, widths=(6, 12, 3)),
    "BCD, strong penalties": bcd(options={"gamma": 1e3, "alpha": 1e3}),
    "BCD, weak penalties": bcd(options={"gamma": 1e-3, "alpha": 1e-3}),
    "BCD, two splittings, states first": bcd(
        options={"splitting": 2, "order": "states_first", "weight_regularizer": regularizers.L1(0.01)},
        hidden=("sigmoid", "relu"),
    ),
    "RelaxedBCD, defaults": relaxed(widths=(6, 20, 18, 16, 3), overflows=True),
    "RelaxedBCD, one layer": relaxed(widths=(6, 3)),
    "RelaxedBCD, output activation": relaxed(output="tanh", hidden=("sigmoid", "relu")),
    "RelaxedBCD, of their own": relaxed(
        options={
            "relaxation": [0.1, 0.2, 0.3],
            "momentum": [0.9, 0.0, 0.5],
            "weight_decay": [0.0, 0.1, 0.02],
            "damping": 0.3,
            "lr": 0.5,
        },
        bias=False,
    ),
    "RelaxedBCD, momentum": relaxed(options={"momentum": 0.7, "loss": "logistic", "loss_weight": "mean"}),
    "RelaxedBCD, decay": relaxed(options={"weight_decay": 0.03, "penalty_ratio": 0.1}),
    "RelaxedBCD, persistent": relaxed(options={"persistent": True}, promise="run", batches=False, overflows=True),
    "RelaxedBCD, row blocks": relaxed(
        options={"row_blocks": [3, 4, 4], "momentum": 0.3}, promise="", widths=(12, 14, 13, 3)
    ),
    "DLAM, defaults": dlam(hidden=("relu", "tanh")),
    "DLAM, one layer": dlam(options={"rho": 1.0, "eps": 0.1}, widths=(6, 3)),
    "DLAM, no bias": dlam(options={"joint": True, "rho": [0.3, 0.1, 0.2], "eps": 0.05}, bias=False),
    "DLAM, L1": dlam(options={"weight_regularizer": regularizers.L1(0.01), "eps": 0.1, "loss_weight": "mean"}),
    "DLAM, not monotone": dlam(options={"monotone": False, "joint": True, "output_solver": "fista"}, promise=""),
    "DLADMM, L1": dladmm(options={"weight_regularizer": regularizers.L1(0.01), "loss": "squared"}),
    "DLADMM, one layer": dladmm(widths=(6, 3)),
    "DLADMM, no bias": dladmm(options={"loss_weight": "mean"}, bias=False, hidden=("tanh", "relu")),
}

# Those that go over any model of three Linear modules.
OPTIMIZERS = {
    name: CONFIGURATIONS[name].over
    for name in (
        "BCD",
        "BCD, box",
        "BCD, cross-entropy",
        "BCD, two splittings",
        "RelaxedBCD",
        "RelaxedBCD, cross-entropy",
        "DLAM",
        "DLAM, joint",
        "DLADMM",
    )
}
METHODS = {name: CONFIGURATIONS[name] for name in ("BCD", "RelaxedBCD", "DLAM", "DLADMM")}
