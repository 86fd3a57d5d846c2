"""What several test files go through: every operator with arguments, every optimizer with options."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import torch
from conftest import make_mlp

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
LOSSES = ("squared", "hinge", "row_hinge", "cross_entropy", "quantile(0.9)", "poisson")
NUMBERS = {
    "lo": -0.5,
    "hi": 0.5,
    "low": -0.5,
    "high": 0.5,
    "min_val": -0.5,
    "max_val": 0.5,
    "eps": 0.1,
    "threshold": 20.0,
}


def class_indices(name, argument):
    """Whether a tensor argument holds classes; then it is tried as numbers too."""
    return (name, argument) in {("prox_cross_entropy_loss", "target"), ("encode_targets", "y")}


def tensor_arguments(name, argument, shape):
    """The tensors to try for one argument."""
    if class_indices(name, argument):
        classes = torch.tensor([0, 2, 1])
        # Ones are targets of every loss.
        return [classes, torch.ones(*shape).double() if name == "encode_targets" else randn(*shape).softmax(1)]
    if name == "preimage_projection" and argument == "q":
        return [randn(*reversed(shape)).t()]  # strided
    return [randn(*shape)]


def network_arguments(*own):
    """x, y, parameters and what follows them, of a net with a skip and a layer without bias."""
    parameters = [randn(4, 3), randn(4), randn(5, 4), randn(4, 5), randn(4), randn(2, 4)]
    states = [randn(6, d) for d in (4, 5, 4, 2)]
    given = {"zeros": [0 * p for p in parameters], "states": states}
    lists = [given.get(name, []) for name in own]
    activations = ["relu", "leaky_relu(0.1)", "identity", "identity"]
    return (randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0]), parameters, *lists, activations, "V:0:2")


# Operators on whole networks, with their arguments.
STEPS = {
    "relaxed_step": [
        (*network_arguments("none"), "squared", ""),
        (*network_arguments("zeros"), "cross_entropy", "momentum=0.3,0.1,0.2,0.5;loss_scaling:mean"),
    ],
    "bcd_sweep": [
        (*network_arguments("none", "none"), "squared", "gamma=0.5"),
        (*network_arguments("states", "states"), "hinge", "order:states_first"),
    ],
}


def operators():
    """(operator, arguments, keyword arguments) for each operator, from its schema and its kind."""
    for name, kind in torchbcd_operators().items():
        op = getattr(torch.ops.torchbcd, name)
        if name in STEPS:
            yield from ((op, arguments, {}) for arguments in STEPS[name])
            continue
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
        residual: The first and the last of the modules that one Residual is around.
        norm: Where hidden layers have a LayerNorm, "before" or "behind" the activation.
        batches: Whether it takes mini-batches.
        weighted: Whether rows have weights, bound ones and those of a batch.
        overflows: Whether squares that overflow are an error, rather than a step that finds no way down.
        scripts: Whether TorchScript can hold its options.
    """

    method: str
    options: dict = field(default_factory=dict)
    promise: str = "run"
    widths: tuple = (6, 8, 7, 3)
    hidden: tuple = ("relu",)
    output: str | None = None
    bias: bool = True
    residual: tuple = ()
    norm: str | None = None
    batches: bool = True
    weighted: bool = False
    overflows: bool = False
    scripts: bool = True

    def over(self, model):
        """The optimizer over a model."""
        return getattr(torchbcd, self.method)(model, **self.options)

    def model(self, dtype=torch.float64):
        model = make_mlp(
            list(self.widths),
            hidden=self.hidden,
            output=self.output,
            bias=self.bias,
            dtype=dtype,
            norm=self.norm,
        )
        if not self.residual:
            return model
        first, last = self.residual
        branch = torchbcd.nn.Residual(*model[first : last + 1])
        return torch.nn.Sequential(*model[:first], branch, *model[last + 1 :])


def bcd(*, options=None, **model):
    return Configuration("BCD", options or {}, **model)


def relaxed(*, options=None, **model):
    return Configuration("RelaxedBCD", options or {}, **{"promise": "step", **model})


def dlam(*, options=None, **model):
    return Configuration("DLAM", options or {}, **model)


def dladmm(*, options=None, **model):
    return Configuration("DLADMM", {"rho": 0.1, **(options or {})}, **{"promise": "", **model})


SHRINKING = torchbcd.EpsSchedule(0.5, 0.9, 0.01)

# A function of one's own: entries that are not zero cost 0.2 each, which is not convex.
COUNT = regularizers.Proximal(
    "count", lambda w, step: w * (w.square() > 0.4 * step), lambda w: 0.2 * (w != 0).sum()
)

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
    "BCD, layer parallel": bcd(
        options={"order": "layer_parallel", "regularize_bias": True, "weight_regularizer": regularizers.L2(0.05)}
    ),
    "BCD, norms": bcd(
        options={
            "alpha": 0.1,
            "weight_regularizer": [
                regularizers.GroupL1(0.1) + regularizers.L1(0.01),
                regularizers.GroupL1(0.1, by="unit") + regularizers.L2(0.1),
                regularizers.MaxNorm(8.0),
            ],
        }
    ),
    "BCD, one's own": bcd(
        options={"alpha": 0.1, "weight_regularizer": [COUNT, regularizers.MaxNorm(1.5, p=1), COUNT]},
        scripts=False,
    ),
    "BCD, a list of blocks": bcd(
        options={"order": [(v, i) for i in (1, 3, 2) for v in "WVU"], "loss": "squared", "loss_weight": "paper"}
    ),
    "BCD, Residual": bcd(
        options={"rho": 0.7, "alpha": 0.2}, widths=(6, 7, 8, 7, 3), residual=(2, 4), overflows=True
    ),
    "BCD, slopes": bcd(
        options={"gamma": [0.5, 2.0, 1.0], "alpha": 0.1, "alpha_weight": 0.3}, hidden=("prelu",), overflows=True
    ),
    "BCD, two splittings, slopes": bcd(options={"splitting": 2, "alpha": 0.2}, hidden=("prelu", "relu")),
    "BCD, two splittings, states first": bcd(
        options={"splitting": 2, "order": "states_first", "weight_regularizer": regularizers.L1(0.01)},
        hidden=("sigmoid", "relu"),
    ),
    "BCD, joint": bcd(
        options={"splitting": 2, "order": "joint", "gamma": 0.5, "loss": "squared"}, hidden=("sigmoid", "silu")
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
    "RelaxedBCD, monotone": relaxed(
        options={"weight_regularizer": regularizers.Monotone([0, 2], [1]) + regularizers.MaxNorm(0.8)}
    ),
    "RelaxedBCD, momentum": relaxed(options={"momentum": 0.7, "loss": "logistic", "loss_weight": "mean"}),
    "RelaxedBCD, decay": relaxed(options={"weight_decay": 0.03, "penalty_ratio": 0.1}),
    "RelaxedBCD, persistent": relaxed(options={"persistent": True}, promise="run", batches=False, overflows=True),
    "RelaxedBCD, Residual": relaxed(widths=(6, 7, 8, 7, 3), residual=(1, 4), overflows=True),
    "RelaxedBCD, Residual, persistent": relaxed(
        options={"persistent": True, "loss": "logistic"},
        promise="run",
        batches=False,
        widths=(6, 8, 6, 3),
        residual=(0, 2),
    ),
    "RelaxedBCD, LayerNorm": relaxed(
        options={"momentum": 0.5, "guard": True}, norm="before", hidden=("relu", "prelu")
    ),
    "RelaxedBCD, LayerNorm, persistent": relaxed(
        options={"persistent": True, "loss": "cross_entropy", "state_steps": 2},
        promise="run",
        batches=False,
        norm="behind",
    ),
    "RelaxedBCD, weights": relaxed(options={"loss": "hinge", "guard": True}, weighted=True),
    "RelaxedBCD, row blocks": relaxed(
        options={"row_blocks": [3, 4, 4], "momentum": 0.3}, promise="", widths=(12, 14, 13, 3)
    ),
    "DLAM, defaults": dlam(hidden=("relu", "tanh")),
    "DLAM, one layer": dlam(options={"rho": 1.0, "eps": 0.1}, widths=(6, 3)),
    "DLAM, no bias": dlam(options={"joint": True, "rho": [0.3, 0.1, 0.2], "eps": 0.05}, bias=False),
    "DLAM, L1": dlam(options={"weight_regularizer": regularizers.L1(0.01), "eps": 0.1, "loss_weight": "mean"}),
    "DLAM, as in the paper": dlam(
        options={"eps": SHRINKING, "sufficient_decrease": 0.0, "weight_regularizer": regularizers.L2(0.01)}
    ),
    "DLAM, eq. (1)": dlam(options={"joint": True, "weight_damping": 0.0}, overflows=True),
    "DLAM, eq. (1), box": dlam(
        options={"eps": SHRINKING, "weight_damping": 0.0, "weight_regularizer": regularizers.Box(-2.0, 2.0)},
        overflows=True,
    ),
    "DLAM, norms": dlam(
        options={
            "eps": 0.1,
            "weight_regularizer": [
                regularizers.GroupL1(0.1),
                regularizers.GroupL1(0.1, by="unit") + regularizers.L2(0.1),
                regularizers.MaxNorm(8.0) + regularizers.L1(0.01),
            ],
        }
    ),
    "DLAM, polynomial": dlam(options={"joint": True, "eps": 0.05}, hidden=("polynomial", "tanh")),
    "DLAM, not monotone": dlam(options={"monotone": False, "joint": True, "output_solver": "fista"}, promise=""),
    "DLADMM, L1": dladmm(options={"weight_regularizer": regularizers.L1(0.01), "loss": "squared"}),
    "DLADMM, one layer": dladmm(widths=(6, 3)),
    "DLADMM, no bias": dladmm(options={"loss_weight": "mean"}, bias=False, hidden=("tanh", "relu")),
    "DLADMM, slopes": dladmm(hidden=("prelu", "tanh")),
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
