"""Names the modules of an ``nn.Sequential`` for the library, which judges whether it can train what they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from torchbcd import _C
from torchbcd.nn import Polynomial, Sign

__all__ = ["Model", "read_model"]

Activation: TypeAlias = "tuple[str, tuple[float, ...]]"

# The registry of activation modules, by the library's names, with their numbers: a slope, bounds, coefficients.
_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.Identity: lambda _: ("identity", ()),
    nn.ReLU: lambda _: ("relu", ()),
    nn.LeakyReLU: lambda module: ("leaky_relu", (module.negative_slope,)),
    nn.Sigmoid: lambda _: ("sigmoid", ()),
    nn.Tanh: lambda _: ("tanh", ()),
    nn.Hardtanh: lambda module: ("hardtanh", (module.min_val, module.max_val)),
    nn.ReLU6: lambda _: ("hardtanh", (0.0, 6.0)),
    nn.Hardsigmoid: lambda _: ("hardsigmoid", ()),
    nn.SiLU: lambda _: ("silu", ()),
    Sign: lambda _: ("sign", ()),
    Polynomial: lambda module: ("polynomial", tuple(module.coefficients)),
}
_SUPPORTED = ", ".join(["Flatten (first)", "Linear", *(cls.__name__ for cls in _ACTIVATIONS)])


class Model(NamedTuple):
    """A model as the library sees it.

    Attributes:
        mlp: The library's own object.
        linears: The Linear modules.
        activations: What follows each of them; the identity where nothing does.
        flatten: Whether inputs are flattened first.
    """

    mlp: _C.Mlp
    linears: list[nn.Linear]
    activations: list[Activation]
    flatten: bool


def _found(module: nn.Module) -> tuple[str, str, Tensor | None, Tensor | None, str, tuple[float, ...]]:
    """(kind, text, weight, bias, activation, its numbers). What a subclass computes is not known."""
    kind = type(module)
    if isinstance(module, nn.Flatten) and kind is nn.Flatten:
        whole = (module.start_dim, module.end_dim) == (1, -1)
        return "flatten" if whole else "partial_flatten", str(module), None, None, "", ()
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        return "linear", str(module), module.weight, module.bias, "", ()
    if kind in _ACTIVATIONS:
        return "activation", str(module), None, None, *_ACTIVATIONS[kind](module)
    return "unknown", str(module), None, None, "", ()


def read_model(model: nn.Module, activation: Activation | None = None) -> Model:
    """The layers of ``[Flatten,] Linear, activation, ..., Linear[, activation]``.

    Subclasses of the supported modules are refused. Two Linear modules in a row have the identity between them.

    Args:
        model: The model to read.
        activation: What the sweeps see in place of every activation; None: the model's own.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``.
        ValueError: A module is not supported, or not at its place; the message names it and its position.
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"model must be an nn.Sequential (got {type(model).__name__})")
    found = [_found(module) for module in model]
    if activation is not None:
        found = [(*module[:4], *activation) if module[0] == "activation" else module for module in found]
    mlp = _C.read_modules(found, _SUPPORTED)
    activations: list[Activation] = []
    for kind, *_, name, numbers in found:
        if kind == "linear":
            activations.append(("identity", ()))
        elif kind == "activation":
            activations[-1] = (name, tuple(numbers))
    linears = [module for module in model if isinstance(module, nn.Linear)]
    return Model(mlp, linears, activations, any(kind == "flatten" for kind, *_ in found))
