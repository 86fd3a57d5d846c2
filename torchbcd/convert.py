"""Names the modules of an ``nn.Sequential`` for the library, which judges whether it can train what they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import is_
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import torch
from torch import Tensor, nn

from torchbcd import _C
from torchbcd.frozen import FrozenFirst
from torchbcd.nn import Polynomial, Residual, Sign, Sine

__all__ = ["LayerParameters", "Model", "read_model"]

Activation: TypeAlias = "tuple[str, tuple[float, ...]]"
_Row: TypeAlias = "tuple[str, str, str, Tensor | None, Tensor | None, str, tuple[float, ...], bool, int, int]"

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
    nn.GELU: lambda module: ("gelu_tanh" if module.approximate == "tanh" else "gelu", ()),
    nn.ELU: lambda module: ("elu", (module.alpha,)),
    nn.SELU: lambda _: ("elu", (1.6732632423543772, 1.0507009873554805)),
    nn.CELU: lambda module: ("elu", (module.alpha, 1.0, 1 / module.alpha if module.alpha else float("nan"))),
    nn.Softplus: lambda module: ("softplus", (module.beta, module.threshold)),
    nn.Mish: lambda _: ("mish", ()),
    nn.Hardswish: lambda _: ("hardswish", ()),
    nn.LogSigmoid: lambda _: ("logsigmoid", ()),
    nn.Softsign: lambda _: ("softsign", ()),
    nn.Tanhshrink: lambda _: ("tanhshrink", ()),
    nn.Softshrink: lambda module: ("softshrink", (module.lambd,)),
    nn.Hardshrink: lambda module: ("hardshrink", (module.lambd,)),
    nn.Threshold: lambda module: ("threshold", (module.threshold, module.value)),
    nn.PReLU: lambda module: ("prelu", ()) if _is_slope(module) else ("leaky_relu", (module.weight.item(),)),
    Sine: lambda _: ("sine", ()),
    Sign: lambda _: ("sign", ()),
    Polynomial: lambda module: ("polynomial", tuple(module.coefficients)),
}
_WITH_PARAMETERS = ("linear", "layer_norm")
_FROZEN_ROWS = 1024  # that run through the modules before the layers at once
_SUPPORTED = ", ".join(
    [
        "Flatten (first)",
        "Linear",
        "LayerNorm",
        "Dropout",
        *(cls.__name__ for cls in _ACTIVATIONS),
        "torchbcd.nn.Residual",
    ]
).replace("PReLU", "PReLU (of one slope)")


class LayerParameters(NamedTuple):
    """A Linear's parameters, those of the LayerNorm of its outputs, and the slope of a PReLU behind it."""

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None = None
    shift: Tensor | None = None
    slope: Tensor | None = None

    @property
    def given(self) -> list[Tensor]:
        """Those that there are, in order."""
        return [parameter for parameter in self if parameter is not None]


class _Placed(NamedTuple):
    """A module at its place, and the Residuals that begin and end with it."""

    position: str
    module: nn.Module
    begins: tuple[tuple[str, nn.Module], ...] = ()
    ends: int = 0


class _Watched(NamedTuple):
    """A module of the model as it was found."""

    position: str
    module: nn.Module
    cls: type[nn.Module]
    kind: str
    activation: str
    numbers: tuple[float, ...]
    parameters: tuple[bool, bool]  # whether it has a weight and a bias
    begins: tuple[tuple[str, nn.Module], ...]
    ends: int


def _modules(model: nn.Sequential, prefix: str = "") -> Iterator[_Placed]:
    """The modules, in order; those of nested Sequentials and Residuals in their place."""
    for number, module in enumerate(model._modules.values()):
        assert module is not None
        position = f"{prefix}{number}"
        inner = list(_modules(module, f"{position}.")) if _is_looked_into(module) else []
        if inner and type(module) is Residual:
            inner[0] = inner[0]._replace(begins=((position, module), *inner[0].begins))
            inner[-1] = inner[-1]._replace(ends=inner[-1].ends + 1)
        elif not _is_looked_into(module) or type(module) is Residual:
            inner = [_Placed(position, module)]
        yield from inner


def _is_looked_into(module: nn.Module | None) -> TypeGuard[nn.Sequential]:
    return (
        isinstance(module, nn.Sequential)
        and type(module) in (nn.Sequential, Residual)
        and not _runs_otherwise(module)
    )


def _sequentials(model: nn.Sequential) -> Iterator[nn.Sequential]:
    """The model and the Sequentials nested in it whose modules are looked at."""
    yield model
    for module in model._modules.values():
        if _is_looked_into(module):
            yield from _sequentials(module)


def _with_residuals(found: Sequence[_Watched]) -> list[tuple[str, nn.Module]]:
    """Position and module; of a Residual that as a whole."""
    whole: list[tuple[str, nn.Module]] = []
    within = 0
    for part in found:
        if within == 0:
            whole.append(part.begins[0] if part.begins else (part.position, part.module))
        within += len(part.begins) - part.ends
    return whole


def _runs_otherwise(module: nn.Module) -> str:
    """What makes a module compute something else than its class's forward, if anything does."""
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks"
    return "has a forward of its own" if "forward" in module.__dict__ else ""


def _activation_of(module: nn.Module) -> Activation | None:
    """What the library knows it by, if it does."""
    if isinstance(module, nn.PReLU) and module.weight.numel() != 1:
        return None
    read = _ACTIVATIONS.get(type(module))
    return read(module) if read is not None else None


def _watch(placed: _Placed) -> _Watched:
    """The module as it is now. What a subclass computes is not known."""
    position, module, begins, ends = placed
    cls = type(module)

    def watched(kind: str, activation: str = "", numbers: tuple[float, ...] = ()) -> _Watched:
        given = _given(module) if kind in _WITH_PARAMETERS else (False, False)
        return _Watched(position, module, cls, kind, activation, numbers, given, begins, ends)

    if (activation := _activation_of(module)) is not None:
        return watched("activation", *activation)
    if cls is nn.Linear:
        missing = [name for name in ("weight", "bias") if name not in module._parameters]
        if missing:
            raise ValueError(
                f"module {position} of the model, {module}, has no parameter {missing[0]!r} any more"
            )
        return watched("linear")
    if isinstance(module, nn.LayerNorm) and cls is nn.LayerNorm:
        return watched("layer_norm", numbers=(module.eps, *module.normalized_shape))
    if cls is nn.Dropout:
        return watched("dropout")
    if isinstance(module, nn.Flatten) and cls is nn.Flatten:
        whole = (module.start_dim, module.end_dim) == (1, -1)
        return watched("flatten" if whole else "partial_flatten")
    return watched("unknown")


def _is_slope(module: nn.Module) -> bool:
    """Whether it is a PReLU whose slope is trained."""
    return type(module) is nn.PReLU and module.weight.requires_grad


def _is_still(module: nn.Module, activation: Activation) -> bool:
    """Whether it is the activation that it was; a slope that was trained may be frozen by now."""
    now = _activation_of(module)
    return now == activation or (type(module) is nn.PReLU and activation[0] == "prelu" and now is not None)


def _given(module: nn.Module) -> tuple[bool, bool]:
    own = module._parameters
    return own.get("weight") is not None, own.get("bias") is not None


def _probability(dropout: Any) -> float:
    """That of a Dropout, in the mode it is in."""
    return float(dropout.p) if dropout.training else 0.0


def _check_plain(position: str, module: nn.Module) -> None:
    if otherwise := _runs_otherwise(module):
        raise ValueError(
            f"module {position} of the model, {module}, {otherwise}, which a sweep would pass over; take "
            "that off (weight_norm, spectral_norm and pruning work by it, too)"
        )


class Model:
    """An MLP in an ``nn.Sequential`` as the library sees it, and what there is to say once it has changed.

    Attributes:
        module: The Sequential.
        linears: Its Linear modules.
        activations: What follows each of them; the identity where nothing does.
        flatten: Whether inputs are flattened first.
        residual: Whether there are Residuals among the layers.
        frozen_first: What the modules before the layers compute; None where there are none.
    """

    def __init__(self, module: nn.Sequential, activation: Activation | None) -> None:
        """Made by :func:`read_model`."""
        self.module = module
        self._check_forward()
        found_modules = [_watch(placed) for placed in _modules(module)]
        self._seen = activation
        before = _C.before_layers(self._rows(found_modules))
        self._first, self._found = found_modules[:before], found_modules[before:]
        for found in self._found:
            _check_plain(found.position, found.module)
        self._containers = [(module, list(module._modules.values())) for module in _sequentials(module)]
        self.frozen_first = FrozenFirst(_with_residuals(self._first)) if self._first else None
        self.linears = [found.module for found in self._found if isinstance(found.module, nn.Linear)]
        self.flatten = any(found.kind == "flatten" for found in self._found)
        self.residual = any(found.ends for found in self._found)
        self.activations: list[Activation] = []
        self._dropouts: list[tuple[int, nn.Module]] = []
        self._norms: dict[int, Any] = {}
        self._slopes: dict[int, Any] = {}
        for found in self._found:
            if found.kind == "linear":
                self.activations.append(("identity", ()))
            elif found.kind == "activation" and self.activations:
                self.activations[-1] = activation or (found.activation, found.numbers)
                if found.activation == "prelu" and not activation:
                    self._slopes[len(self.activations) - 1] = found.module
            elif found.kind == "dropout":
                self._dropouts.append((len(self.activations) - 1, found.module))
            elif found.kind == "layer_norm":
                self._norms[len(self.activations) - 1] = found.module

    def _rows(self, modules: Sequence[_Watched]) -> list[_Row]:
        rows: list[_Row] = []
        for found in modules:
            parameters = found.module._parameters if found.kind in _WITH_PARAMETERS else {}
            seen = (found.activation, found.numbers)
            if self._seen is not None and found.kind == "activation":
                seen = self._seen
            elif found.kind == "dropout":
                seen = ("", (_probability(found.module),))
            trainable = any(p.requires_grad for p in found.module.parameters())
            weight, bias = parameters.get("weight"), parameters.get("bias")
            if seen[0] == "prelu":
                weight = found.module._parameters["weight"]
            text, ends = str(found.module), (len(found.begins), found.ends)
            rows.append((found.kind, found.position, text, weight, bias, *seen, trainable, *ends))
        return rows

    def read(self) -> _C.Mlp:
        """The library's own object. It judges whether it can be trained."""
        rows = self._rows([*self._first, *self._found])
        return _C.read_modules(rows, len(self._first), _SUPPORTED, self.frozen_first)

    @property
    def dropout(self) -> list[float]:
        """The probability with which a state of each layer is dropped, as its mode is by now; or no numbers."""
        if not self._dropouts:
            return []
        probabilities = [0.0] * len(self.linears)
        for layer, module in self._dropouts:
            probabilities[layer] = _probability(module)
        return probabilities

    @property
    def skips(self) -> list[tuple[int, int, bool]]:
        """What its Residuals are to the library.

        For each, the layer whose values are added, from 0 and -1 for the inputs, the one to whose products they
        are, and whether they are its V rather than its U.
        """
        return self.read().skips

    def rows(self, x: Tensor) -> Tensor:
        """What the first layer is given of inputs."""
        if self.frozen_first is not None:
            parts = [self.frozen_first(part) for part in torch.split(x, _FROZEN_ROWS)]
            x = torch.cat(parts).to(self.linears[0].weight.dtype)
        return x.flatten(1) if self.flatten and x.dim() > 1 else x

    def layers(self) -> nn.Sequential:
        """The model without what stands before the layers; itself where nothing does."""
        if self.frozen_first is None:
            return self.module
        return nn.Sequential(*(module for _, module in _with_residuals(self._found)))

    def whole(self, layers: nn.Sequential) -> nn.Sequential:
        """The model with other layers."""
        if self.frozen_first is None:
            return layers
        return nn.Sequential(*(module for _, module in self.frozen_first.modules), *layers)

    @property
    def norms(self) -> list[tuple[int, float, bool, bool]]:
        """The LayerNorms among the layers: layer, from 0, eps, and whether they have a weight and a bias."""
        return [(layer, module.eps, *_given(module)) for layer, module in self._norms.items()]

    def parameters(self) -> list[LayerParameters]:
        """Weight and bias of each Linear, and of the LayerNorm of its outputs, as they are now.

        Raises:
            ValueError: A module was replaced, appended or removed, or computes something else than it did.
        """
        if not self._unchanged():
            self._say_what_has_changed()
        affine: list[dict[str, Any]] = [linear._parameters for linear in self.linears]
        if not self._norms and not self._slopes:
            return [LayerParameters(own["weight"], own["bias"]) for own in affine]
        parameters = []
        for layer, own in enumerate(affine):
            norm: dict[str, Any] = self._norms[layer]._parameters if layer in self._norms else {}
            slope = self._slopes[layer].weight if layer in self._slopes else None
            parameters.append(
                LayerParameters(own["weight"], own["bias"], norm.get("weight"), norm.get("bias"), slope)
            )
        return parameters

    def _unchanged(self) -> bool:
        """What can be told at once, before every call: the modules are those that there were, and plain."""
        for container, children in self._containers:
            now = container._modules.values()
            if len(now) != len(children) or not all(map(is_, now, children)) or _runs_otherwise(container):
                return False
        for found in self._found:
            module = found.module
            if type(module) is not found.cls or _runs_otherwise(module):
                return False
            if found.kind == "activation" and not _is_still(module, (found.activation, found.numbers)):
                return False
            if found.kind in _WITH_PARAMETERS:
                own = module._parameters
                if "weight" not in own or "bias" not in own or _given(module) != found.parameters:
                    return False
            if found.kind == "layer_norm" and _watch(_Placed(found.position, module)).numbers != found.numbers:
                return False
        return True

    def _say_what_has_changed(self) -> None:
        self._check_forward()
        now = list(_modules(self.module))
        found = [*self._first, *self._found]
        for i, (was, placed) in enumerate(zip(found, now, strict=False)):
            position, module = placed[:2]
            if module is not was.module:
                raise ValueError(
                    f"module {position} of the model is another one now, {module}, than the {was.module} that "
                    f"the optimizer was made for; {_ANEW}"
                )
            if i < len(self._first):
                continue
            _check_plain(position, module)
            still = was.kind == "activation" and _is_still(module, (was.activation, was.numbers))
            if not still and _watch(placed)[2:] != was[2:]:
                raise ValueError(f"module {position} of the model, {module}, has been changed; {_ANEW}")
        raise ValueError(
            f"the model has {len(now)} modules and had {len(found)} when the optimizer was made; {_ANEW}"
        )

    def _check_forward(self) -> None:
        kind = type(self.module)
        if kind.forward is not nn.Sequential.forward or kind.__call__ is not nn.Module.__call__:
            raise ValueError(
                f"the model's class {kind.__name__} has a forward of its own, which a sweep would pass over; "
                "give a plain nn.Sequential"
            )
        if otherwise := _runs_otherwise(self.module):
            raise ValueError(f"the model {otherwise}, which a sweep would pass over; take that off")


_ANEW = "make a new optimizer"


def read_model(model: nn.Module, activation: Activation | None = None) -> Model:
    """The layers of ``[frozen,] [Flatten,] Linear, activation, ..., Linear[, activation]``, also if nested.

    :class:`torchbcd.nn.Residual` may stand among them, around a branch that ends with a Linear, ``nn.LayerNorm``
    before an activation or behind it, and ``nn.Dropout`` behind both.
    Before them any modules may stand none of whose parameters require gradients. Among the layers subclasses of
    the supported modules are refused. Two Linear modules in a row have the identity between them.

    Args:
        model: The model to read.
        activation: What the sweeps see in place of every activation; None: the model's own.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``.
        ValueError: A module computes something else than its class does; the message names it and its position.
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"model must be an nn.Sequential (got {type(model).__name__})")
    return Model(model, activation)
