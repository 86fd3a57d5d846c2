"""Checks of what users pass to the optimizers, and its resolution to a value for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TypeAlias, cast

from torch import Tensor

from torchbcd.regularizers import Regularizer, Terms

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


def number(name: str, value: object) -> float:
    """The value as a float, if it is a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number (got {value!r})")
    return float(value)


def count(name: str, value: object) -> int:
    """The value, if it is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number (got {value!r})")
    return value


def terms(name: str, value: object) -> Terms:
    """The engine's form of a regulariser, or of none."""
    if value is None:
        return Terms()
    if not isinstance(value, Regularizer):
        raise TypeError(f"{name} must be a torchbcd.regularizers object or None (got {value!r})")
    return value.terms()


def regularizer_per_layer(name: str, value: PerLayerRegularizer, depth: int) -> Sequence[Regularizer | None]:
    """A regulariser, or none, for each layer."""
    if value is None or isinstance(value, Regularizer):
        return [value] * depth
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a torchbcd.regularizers object, or one for each layer (got {value!r})")
    if len(value) != depth:
        raise ValueError(f"{name} must hold one entry for each of the {depth} layers (got {value!r})")
    return value


def per_layer(name: str, value: PerLayer | None, depth: int) -> Sequence[float | None]:
    """A number, or none, for each layer."""
    if value is None or isinstance(value, Real):
        return [cast("float | None", value)] * depth
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a number or one for each layer (got {value!r})")
    if len(value) != depth:
        raise ValueError(f"{name} must hold one number for each of the {depth} layers (got {value!r})")
    return value


def choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        listed = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {listed} (got {value!r})")
