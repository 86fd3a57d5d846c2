"""Losses of the output layer, as objects to pass to an optimizer's ``loss`` argument.

Every loss is summed over rows and outputs; an optimizer's ``loss_weight`` multiplies the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Loss", "Squared", "resolve"]


@dataclass(frozen=True)
class Loss:
    """A loss the C++ engine knows.

    Attributes:
        name: The engine's name of the loss.
    """

    name: ClassVar[str]


@dataclass(frozen=True)
class Squared(Loss):
    r"""Squared loss, :math:`\tfrac12 \|v - y\|^2`, summed over rows.

    Integer targets of shape (n,) are class indices and are one-hot encoded.
    """

    name: ClassVar[str] = "squared"


_BY_NAME: dict[str, type[Loss]] = {loss.name: loss for loss in (Squared,)}


def resolve(loss: str | Loss) -> Loss:
    """The loss object that a name, or a loss object, stands for.

    Raises:
        ValueError: There is no loss of that name.
        TypeError: ``loss`` is neither a string nor a loss object.
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss must be a name or a torchbcd.losses object (got {loss!r})")
    if loss not in _BY_NAME:
        raise ValueError(f"loss must be one of {', '.join(map(repr, _BY_NAME))} (got {loss!r})")
    return _BY_NAME[loss]()
