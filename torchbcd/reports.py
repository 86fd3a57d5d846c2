"""What a step tells about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torchbcd._C import ObjectiveTerms

__all__ = ["SweepReport"]


@dataclass(frozen=True)
class SweepReport:
    """Report of one sweep. Its values are computed when they are first read, and then kept.

    Reading a value for the first time after a later step raises a ``RuntimeError``: the point it belongs
    to is gone. In a loop over mini-batches, leave unread what you do not need; it then costs nothing.

    Attributes:
        sweep: Number of the sweep, counted from 1 over the optimizer's life.
    """

    sweep: int
    _compute_terms: Callable[[int], ObjectiveTerms] = field(repr=False)

    @cached_property
    def _terms(self) -> ObjectiveTerms:
        return self._compute_terms(self.sweep)

    @property
    def objective(self) -> float:
        """Lifted objective of the rows this sweep worked on, after it, accumulated in float64."""
        return self._terms.total()

    @property
    def loss(self) -> float:
        """The loss term of the objective, ``loss_weight`` times the sum over rows, at the states V_N."""
        return self._terms.loss

    @property
    def activation_penalty(self) -> list[float]:
        r"""Per layer, :math:`\tfrac{\gamma_i}2 \|V_i - \sigma_i(U_i)\|^2`."""
        return self._terms.activation_penalty

    @property
    def affine_penalty(self) -> list[float]:
        r"""Per layer, :math:`\tfrac{\rho_i}2 \|U_i - V_{i-1} W_i^\top - 1 b_i^\top\|^2`."""
        return self._terms.affine_penalty

    @property
    def weight_penalty(self) -> list[float]:
        r"""Per layer, the weight regulariser :math:`r_i(W_i)`; infinite outside its bounds."""
        return self._terms.weight_penalty

    @property
    def state_penalty(self) -> list[float]:
        r"""Per layer, the state regulariser :math:`s_i(V_i)`; infinite outside its bounds."""
        return self._terms.state_penalty
