"""The tolerance of DLAM, from sweep to sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

__all__ = ["Eps", "EpsSchedule", "as_options"]


@dataclass(frozen=True)
class EpsSchedule:
    r"""A tolerance that shrinks by a factor every sweep, down to a floor.

    .. math:: \varepsilon_k = \max(\text{start} \cdot \text{factor}^k, \text{floor})

    Args:
        start: The tolerance of the first sweep, > 0.
        factor: From sweep to sweep, in (0, 1].
        floor: The least, >= 0; > 0 unless the blocks of z and a are joint.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> schedule = EpsSchedule(3.0, 0.5, 1.0)
        >>> [schedule(k) for k in range(4)]
        [3.0, 1.5, 1.0, 1.0]
    """

    start: float = 3.0
    factor: float = 0.93
    floor: float = 0.003

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (isfinite(self.start) and self.start > 0):
            raise ValueError(f"start must be finite and > 0 (got {self.start})")
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor must be in (0, 1] (got {self.factor})")
        if not (isfinite(self.floor) and self.floor >= 0):
            raise ValueError(f"floor must be finite and >= 0 (got {self.floor})")

    def __call__(self, sweep: int) -> float:
        """The tolerance of a sweep, counted from 0 since the data were bound."""
        return max(self.start * self.factor**sweep, self.floor)


Eps: TypeAlias = float | Callable[[int], float]


def as_options(eps: Eps, sweep: int) -> dict[str, object]:
    """The library's options for a tolerance: a schedule, a number, or a function's value at a sweep."""
    if isinstance(eps, EpsSchedule):
        return {"eps_start": eps.start, "eps_factor": eps.factor, "eps_floor": eps.floor}
    value = eps(sweep) if callable(eps) else eps
    return {"eps_start": value, "eps_factor": 1.0, "eps_floor": value}
