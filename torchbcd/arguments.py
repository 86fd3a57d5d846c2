"""What users pass to the optimizers: the types, and what Python itself has to tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor

from torchbcd.regularizers import Regularizer

Closure: TypeAlias = Callable[[], tuple[Tensor, Tensor]]
PerLayer: TypeAlias = float | Sequence[float]
PerLayerRegularizer: TypeAlias = Regularizer | Sequence[Regularizer | None] | None


def tensor(name: str, value: object) -> Tensor:
    """The value, if it is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor (got {type(value).__name__})")
    return value


def optional_tensor(name: str, value: object) -> Tensor | None:
    """The value, if it is a tensor or None."""
    return None if value is None else tensor(name, value)


def batch(inputs: Tensor | Closure | None, targets: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """What a step is given: a closure's result, or inputs and targets, or neither."""
    if callable(inputs) and not isinstance(inputs, Tensor):
        if targets is not None:
            raise ValueError("step(closure) takes its targets from the closure (got targets too)")
        inputs, targets = inputs()
    if (inputs is None) != (targets is None):
        raise ValueError("step needs both inputs and targets, or neither")
    return None if inputs is None else (tensor("x", inputs), tensor("targets", targets))


def loss_weight(value: float | str, mean: bool) -> dict[str, object]:
    """The options that ``loss_weight`` stands for: a number, or "mean" for 1/n."""
    return {"loss_weight": 1.0 if value == "mean" else value, "mean_loss": mean or value == "mean"}
