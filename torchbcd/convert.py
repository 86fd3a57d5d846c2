"""Reads an ``nn.Sequential`` as the alternating linear maps and activations that the sweeps work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from torchbcd.nn import Polynomial, Sign

__all__ = ["Layer", "Mlp", "read_mlp"]


@dataclass(frozen=True)
class Activation:
    """An activation by the engine's name.

    Attributes:
        name: The name.
        parameters: Its numbers: a negative slope, bounds, coefficients.
    """

    name: str
    parameters: tuple[float, ...] = ()


# The registry of activation modules: a new one is a row here beside its functor in the engine.
_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.Identity: lambda _: Activation("identity"),
    nn.ReLU: lambda _: Activation("relu"),
    nn.LeakyReLU: lambda module: Activation("leaky_relu", (module.negative_slope,)),
    nn.Sigmoid: lambda _: Activation("sigmoid"),
    nn.Tanh: lambda _: Activation("tanh"),
    nn.Hardtanh: lambda module: Activation("hardtanh", (module.min_val, module.max_val)),
    nn.ReLU6: lambda _: Activation("hardtanh", (0.0, 6.0)),
    nn.Hardsigmoid: lambda _: Activation("hardsigmoid"),
    Sign: lambda _: Activation("sign"),
    Polynomial: lambda module: Activation("polynomial", tuple(module.coefficients)),
}


@dataclass(frozen=True)
class Layer:
    """One linear map with the activation that follows it.

    Attributes:
        linear: The module that holds weight and bias.
        activation: The activation; the identity where none follows.
    """

    linear: nn.Linear
    activation: Activation


@dataclass(frozen=True)
class Mlp:
    """A model as the engine sees it.

    Attributes:
        flatten: Whether inputs are flattened first.
        layers: The layers in order.
    """

    flatten: bool
    layers: tuple[Layer, ...]


def _refuse(position: int, module: nn.Module, reason: str) -> ValueError:
    return ValueError(f"module {position} of the model, {module}, {reason}")


def _supported() -> str:
    return ", ".join(["Flatten (first)", "Linear", *(cls.__name__ for cls in _ACTIVATIONS)])


def read_mlp(model: nn.Module) -> Mlp:
    """The layers of ``[Flatten,] Linear, activation, ..., Linear[, activation]``.

    Subclasses of the supported modules are refused: what they compute is not known.

    Args:
        model: The model to read. Two Linear modules in a row have the identity between them.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``.
        ValueError: A module is not supported, or not at its place; the message names it and its position.
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"model must be an nn.Sequential (got {type(model).__name__})")
    flatten = False
    linears: list[nn.Linear] = []
    activations: list[Activation | None] = []
    for position, module in enumerate(model):
        kind = type(module)
        if isinstance(module, nn.Flatten) and kind is nn.Flatten:
            if position != 0:
                raise _refuse(position, module, "must be the first module")
            if (module.start_dim, module.end_dim) != (1, -1):
                raise _refuse(position, module, "must flatten all but the first dimension")
            flatten = True
        elif isinstance(module, nn.Linear) and kind is nn.Linear:
            if any(module.weight is other.weight for other in linears):
                raise _refuse(position, module, "shares its weight with an earlier module")
            linears.append(module)
            activations.append(None)
        elif kind in _ACTIVATIONS:
            if not linears:
                raise _refuse(position, module, "must follow a Linear module")
            if activations[-1] is not None:
                raise _refuse(position, module, "follows another activation")
            activations[-1] = _ACTIVATIONS[kind](module)
        else:
            raise _refuse(position, module, f"is not supported; supported are {_supported()}")
    if not linears:
        raise ValueError("model must have at least one Linear module (got none)")
    for position, (left, right) in enumerate(pairwise(linears), start=2):
        if left.out_features != right.in_features:
            raise ValueError(
                f"Linear module {position} of the model must take {left.out_features} inputs, the "
                f"outputs of the one before (got {right.in_features})"
            )
    layers = zip(linears, activations, strict=True)
    return Mlp(flatten, tuple(Layer(linear, found or Activation("identity")) for linear, found in layers))
