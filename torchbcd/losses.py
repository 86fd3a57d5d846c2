r"""Losses of the output layer, as objects to pass to an optimizer's ``loss`` argument, or by name.

Every loss is a sum over rows, of which ``loss_weight`` takes a multiple or the mean; ``sample_weight`` weighs
the rows. Integer targets of shape (n,) are class indices. For squared loss, Huber's and cross-entropy they
become one-hot rows; for both hinges, logistic and exponential loss one class against the rest, +1 and -1, and
with a single output the classes 0 and 1 become -1 and +1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

__all__ = [
    "CrossEntropy",
    "Exponential",
    "Hinge",
    "Huber",
    "Logistic",
    "Loss",
    "RowHinge",
    "Squared",
    "resolve",
]


@dataclass(frozen=True)
class Loss:
    """A loss the library knows; one of the classes below.

    Args:
        reduction: "sum" over rows, or "mean", the paper's 1/n. ``loss_weight`` multiplies either.

    Raises:
        ValueError: ``reduction`` is something else.
    """

    name: ClassVar[str]  # the library's name of the loss

    reduction: str = "sum"

    def __post_init__(self) -> None:
        """Check the reduction."""
        if self.reduction not in ("sum", "mean"):
            raise ValueError(f"reduction must be 'sum' or 'mean' (got {self.reduction!r})")


@dataclass(frozen=True)
class Squared(Loss):
    r"""Squared loss, :math:`\tfrac12 \|v - y\|^2` a row."""

    name: ClassVar[str] = "squared"


@dataclass(frozen=True)
class Hinge(Loss):
    r"""Hinge loss, :math:`\sum_c \max(0, 1 - y_c v_c)` a row (Zeng et al., Lemma 10)."""

    name: ClassVar[str] = "hinge"


@dataclass(frozen=True)
class RowHinge(Loss):
    r"""Hinge of a row's whole output, :math:`\max(0, 1 - y^\top v)` (Zeng et al., proof of Theorem 1, (a3))."""

    name: ClassVar[str] = "row_hinge"


@dataclass(frozen=True)
class Logistic(Loss):
    r"""Logistic loss, :math:`\sum_c \log(1 + e^{-y_c v_c})` a row."""

    name: ClassVar[str] = "logistic"


@dataclass(frozen=True)
class Exponential(Loss):
    r"""Exponential loss, :math:`\sum_c e^{-y_c v_c}` a row."""

    name: ClassVar[str] = "exponential"


@dataclass(frozen=True)
class Huber(Loss):
    r"""Huber's loss with :math:`\delta = 1`, as ``nn.HuberLoss``.

    The sum over c of :math:`\tfrac12 (v_c - y_c)^2` where :math:`|v_c - y_c| \le 1`, and of
    :math:`|v_c - y_c| - \tfrac12` beyond.
    """

    name: ClassVar[str] = "huber"


@dataclass(frozen=True)
class CrossEntropy(Loss):
    r"""Softmax cross-entropy, :math:`-\sum_c t_c \log \mathrm{softmax}(v)_c` a row.

    Targets are class indices or non-negative weights :math:`t`, such as probabilities, shape (n, C).
    """

    name: ClassVar[str] = "cross_entropy"


_BY_NAME: dict[str, type[Loss]] = {
    loss.name: loss for loss in (Squared, Hinge, RowHinge, Logistic, Exponential, Huber, CrossEntropy)
}


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


def row_losses(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss called `name` of every row, shape (n, 1), for targets of the outputs' shape."""
    losses: Tensor = torch.ops.torchbcd.row_losses(targets, outputs, name)
    return losses
