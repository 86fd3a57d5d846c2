r"""Regularisers of weights (:math:`r_i`) and of states (:math:`s_i`), summed over entries.

Pass one to an optimizer's ``weight_regularizer`` or ``state_regularizer``, for all layers or in a list with one
entry, or None, for each layer. They add up: ``L2(0.1) + Nonnegative()``. Biases are regularised by
:class:`torchbcd.BCD` with ``regularize_bias=True`` alone.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from math import inf, isfinite

__all__ = ["L1", "L2", "Box", "ElasticNet", "Nonnegative", "Regularizer"]


@dataclass(frozen=True)
class Regularizer:
    r"""A regulariser :math:`l_1 |x| + \tfrac{l_2}2 x^2` on :math:`[low, high]`; the functions below make one.

    Attributes:
        l1: Weight of the 1-norm.
        l2: Weight of the squared norm.
        low: Lower bound of the entries, -inf for none.
        high: Upper bound of the entries, inf for none.
    """

    l1: float = 0.0
    l2: float = 0.0
    low: float = -inf
    high: float = inf

    def __add__(self, other: Regularizer) -> Regularizer:
        """The sum of the two: weights add up, intervals intersect.

        Raises:
            ValueError: The intervals have nothing in common.

        Example:
            >>> L2(0.5) + Nonnegative()
            Regularizer(l1=0.0, l2=0.5, low=0.0, high=inf)
        """
        if not isinstance(other, Regularizer):
            return NotImplemented
        low, high = max(self.low, other.low), min(self.high, other.high)
        if low > high:
            raise ValueError(f"the intervals of the two must meet (got {self} and {other})")
        return Regularizer(self.l1 + other.l1, self.l2 + other.l2, low, high)

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """The four numbers, as the library has them."""
        return astuple(self)


def _weight(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number (got {value!r})")
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and >= 0 (got {value})")
    return float(value)


def L2(weight: float) -> Regularizer:  # noqa: N802 (the names of the field)
    r"""Squared norm, :math:`\tfrac\lambda2 \|W\|_F^2` (weight decay). Blocks keep their closed form.

    Args:
        weight: :math:`\lambda \ge 0`.
    """
    return Regularizer(l2=_weight("weight", weight))


def L1(weight: float) -> Regularizer:  # noqa: N802
    r"""1-norm, :math:`\lambda \|W\|_1`. Entries come out exactly zero.

    Args:
        weight: :math:`\lambda \ge 0`.
    """
    return Regularizer(l1=_weight("weight", weight))


def ElasticNet(l1: float, l2: float) -> Regularizer:  # noqa: N802
    r"""Elastic net, :math:`\lambda_1 \|W\|_1 + \tfrac{\lambda_2}2 \|W\|_F^2`.

    Args:
        l1: :math:`\lambda_1 \ge 0`.
        l2: :math:`\lambda_2 \ge 0`.
    """
    return Regularizer(l1=_weight("l1", l1), l2=_weight("l2", l2))


def Nonnegative() -> Regularizer:  # noqa: N802
    r"""Indicator of the half space :math:`W \ge 0`: infinite where an entry is negative."""
    return Regularizer(low=0.0)


def Box(low: float = 0.0, high: float = 1.0) -> Regularizer:  # noqa: N802
    r"""Indicator of an interval: infinite where an entry is not in :math:`[low, high]`.

    Args:
        low: Lower bound, -inf for none.
        high: Upper bound, inf for none.
    """
    if not low <= high:
        raise ValueError(f"low must be at most high (got {low} and {high})")
    return Regularizer(low=float(low), high=float(high))
