r"""Regularisers of weights (:math:`r_i`) and of states (:math:`s_i`), summed over entries.

Pass one to an optimizer's ``weight_regularizer`` or ``state_regularizer``, for all layers or in a list with one
entry, or None, for each layer. Biases are never regularised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any, NamedTuple

__all__ = ["L1", "L2", "Box", "ElasticNet", "Nonnegative", "Regularizer"]


class Terms(NamedTuple):
    """The engine's form of a regulariser: l1 |x| + l2/2 x^2 on [low, high]."""

    l1: float = 0.0
    l2: float = 0.0
    low: float = -inf
    high: float = inf


@dataclass(frozen=True)
class Regularizer:
    """A regulariser the C++ engine knows; one of the classes below."""

    def terms(self) -> Terms:
        """The engine's form."""
        raise NotImplementedError


def _check(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number (got {value!r})")
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and >= 0 (got {value})")


@dataclass(frozen=True)
class _Norm(Regularizer):
    """A norm with one weight."""

    weight: float

    def __post_init__(self) -> None:
        """Check the weight."""
        _check("weight", self.weight)


@dataclass(frozen=True)
class L2(_Norm):
    r"""Squared norm, :math:`\tfrac\lambda2 \|W\|_F^2` (weight decay). Blocks keep their closed form.

    Args:
        weight: :math:`\lambda \ge 0`.
    """

    def terms(self) -> Terms:
        """The engine's form."""
        return Terms(l2=self.weight)


@dataclass(frozen=True)
class L1(_Norm):
    r"""1-norm, :math:`\lambda \|W\|_1`. Entries come out exactly zero.

    Args:
        weight: :math:`\lambda \ge 0`.
    """

    def terms(self) -> Terms:
        """The engine's form."""
        return Terms(l1=self.weight)


@dataclass(frozen=True)
class ElasticNet(Regularizer):
    r"""Elastic net, :math:`\lambda_1 \|W\|_1 + \tfrac{\lambda_2}2 \|W\|_F^2`.

    Args:
        l1: :math:`\lambda_1 \ge 0`.
        l2: :math:`\lambda_2 \ge 0`.
    """

    l1: float
    l2: float

    def __post_init__(self) -> None:
        """Check the weights."""
        _check("l1", self.l1)
        _check("l2", self.l2)

    def terms(self) -> Terms:
        """The engine's form."""
        return Terms(l1=self.l1, l2=self.l2)


@dataclass(frozen=True)
class Nonnegative(Regularizer):
    r"""Indicator of the half space :math:`W \ge 0`: infinite where an entry is negative."""

    def terms(self) -> Terms:
        """The engine's form."""
        return Terms(low=0.0)


@dataclass(frozen=True)
class Box(Regularizer):
    r"""Indicator of an interval: infinite where an entry is not in :math:`[low, high]`.

    Args:
        low: Lower bound, -inf for none.
        high: Upper bound, inf for none.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Check the order of the bounds."""
        if not self.low <= self.high:
            raise ValueError(f"low must be at most high (got {self.low} and {self.high})")

    def terms(self) -> Terms:
        """The engine's form."""
        return Terms(low=self.low, high=self.high)


_CLASSES = {cls.__name__: cls for cls in (L1, L2, ElasticNet, Nonnegative, Box)}


def to_plain(regularizer: Regularizer | None) -> dict[str, object] | None:
    """A regulariser, or none, as numbers and strings: what a state_dict holds."""
    return None if regularizer is None else {"name": type(regularizer).__name__, **asdict(regularizer)}


def from_plain(plain: Mapping[str, Any] | None) -> Regularizer | None:
    """The regulariser that :func:`to_plain` wrote.

    Raises:
        ValueError: There is none of that name.
    """
    if plain is None:
        return None
    arguments = dict(plain)
    name = arguments.pop("name", None)
    if name not in _CLASSES:
        raise ValueError(f"regularizer must be one of {', '.join(_CLASSES)} (got {name!r})")
    return _CLASSES[name](**arguments)
