"""What users pass to the optimizers: the types, and what Python itself has to tell apart."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from math import nan
from typing import Any, TypeAlias

from torch import Tensor

from torchbcd.regularizers import Monotone, Regularizer

# One tensor, or one for each part of a losses.MultiOutput.
Targets: TypeAlias = Tensor | Sequence[Tensor]
Closure: TypeAlias = Callable[[], tuple[Tensor, Targets] | None]
PerLayer: TypeAlias = float | Sequence[float]
PerLayerRegularizer: TypeAlias = Regularizer | Monotone | Sequence[Regularizer | None] | None


def plain(value: Any) -> Any:
    """A number or a list of numbers, where it is an array or a tensor of them; otherwise the value itself."""
    return value.tolist() if hasattr(value, "tolist") else value


def numbers(name: str, value: Any) -> list[float]:
    """An option of a layer as TorchScript and the operators take it: NaN for None, a regulariser's own."""
    if name.endswith("_regularizer"):
        return list((value or Regularizer()).numbers)
    return [nan if value is None else float(value)]


def whole(name: str, value: object) -> int:
    """The value, if it is a whole number, Python's or NumPy's."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number (got {value!r})") from None


def tensor(name: str, value: object) -> Tensor:
    """The value, if it is a tensor."""
    if not isinstance(value, Tensor):
        hint = "; use torch.from_numpy" if type(value).__name__ == "ndarray" else ""
        if isinstance(value, tuple) and len(value) == 2:
            hint = "; give inputs and targets as two arguments"
        raise TypeError(f"{name} must be a torch.Tensor (got {type(value).__name__}){hint}")
    return value


def optional_tensor(name: str, value: object) -> Tensor | None:
    """The value, if it is a tensor or None."""
    return None if value is None else tensor(name, value)


def folder(name: str, value: object) -> str:
    """The path as the library takes it: empty for None."""
    if value is None:
        return ""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise TypeError(f"{name} must be the path of a folder, or None (got {value!r})")
    return os.fsdecode(value)


def tensors(name: str, values: object) -> list[Tensor]:
    """The values, if they are a sequence of tensors; none for None."""
    if values is None:
        return []
    if isinstance(values, Tensor) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list with one tensor for each layer (got {type(values).__name__})")
    return [tensor(f"{name} of layer {layer}", value) for layer, value in enumerate(values, 1)]


def batch(
    inputs: Tensor | Closure | None,
    targets: Targets | None,
    closure: Closure | None,
    joined: Callable[[str, object], Tensor],
) -> tuple[Tensor, Tensor] | None:
    """What a step is given: inputs and targets, which `joined` makes one tensor; or a closure's; or neither."""
    if callable(inputs) and not isinstance(inputs, Tensor):
        if closure is not None:
            raise TypeError("step takes one closure (got two)")
        inputs, closure = None, inputs
    if closure is not None:
        given = closure()
        if given is not None:
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise TypeError(
                    "a closure must return (inputs, targets), or None for the bound data; a sweep reads the data "
                    f"and has no use for a loss and its gradients (got {type(given).__name__})"
                )
            if inputs is not None or targets is not None:
                raise ValueError("step takes its targets from the closure (got inputs or targets, too)")
            inputs, targets = given
    if inputs is not None and targets is None:
        inputs = tensor("inputs", inputs)
    if (inputs is None) != (targets is None):
        raise ValueError("step needs both inputs and targets, or neither")
    return None if inputs is None else (tensor("x", inputs), joined("targets", targets))


def order(value: str | Sequence[tuple[str, int]]) -> str:
    """An order of blocks as the library has it: its name, or the list ``[("V", 2), ("U", 2), ...]`` as text."""
    if isinstance(value, str):
        return value
    hint = 'order must be a name, or a list of blocks such as ("V", 2), with layers from 1'
    blocks = []
    try:
        for variable, layer in value:
            if not isinstance(variable, str):
                raise TypeError
            blocks.append(f"{variable}{whole('layer', layer)}")
    except (TypeError, ValueError):
        raise TypeError(f"{hint} (got {value!r})") from None
    return " ".join(blocks)


def loss_weight(value: float | str, mean: bool) -> dict[str, object]:
    """The options that ``loss_weight`` stands for: a number, or a scaling by name; ``mean`` is the loss's own."""
    if isinstance(value, str) and value in ("mean", "paper"):
        return {"loss_weight": 1.0, "loss_scaling": value}
    return {"loss_weight": value, "loss_scaling": "mean" if mean else "sum"}
