"""What a step, and a fit, tell about themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

from torchbcd._C import ObjectiveTerms
from torchbcd.diagnostics import Descent, Lemma6, Stationarity

__all__ = ["FitResult", "SweepReport"]


class Source(Protocol):
    """Where a report gets its values from, while the point it belongs to is still there."""

    def check(self, sweep: int) -> None:
        """Raise a RuntimeError unless the optimizer is still where sweep number `sweep` left it."""

    def terms(self, before: bool) -> ObjectiveTerms:
        """The terms of the objective after or before the sweep."""

    def stationarity(self) -> Stationarity:
        """The distances of zero from the partial subdifferentials after the sweep."""

    def descent(self) -> Descent:
        """Lemma 5 measured on the sweep."""

    def lemma6_subgradient(self) -> Lemma6:
        """Lemma 6's subgradient after the sweep."""


@dataclass(frozen=True)
class SweepReport:
    """Report of one sweep. Its values are computed when they are first read, and then kept.

    All speak of the rows the sweep worked on. Reading a value for the first time after the optimizer has moved
    on raises a ``RuntimeError``: the point it belongs to is gone. In a loop over mini-batches, leave unread what
    you do not need; it then costs nothing.

    Attributes:
        sweep: Number of the sweep, counted from 1 over the optimizer's life.
    """

    sweep: int
    _source: Source = field(repr=False)

    @cached_property
    def _terms(self) -> ObjectiveTerms:
        self._source.check(self.sweep)
        return self._source.terms(before=False)

    @property
    def objective(self) -> float:
        """Lifted objective after the sweep, accumulated in float64."""
        return self._terms.total()

    @cached_property
    def decrease(self) -> float:
        """How far the sweep lowered the objective."""
        after = self.objective
        self._source.check(self.sweep)
        return self._source.terms(before=True).total() - after

    @cached_property
    def stationarity(self) -> Stationarity:
        """Distances of zero from the partial subdifferentials of the objective, block by block."""
        self._source.check(self.sweep)
        return self._source.stationarity()

    @property
    def residual(self) -> float:
        """The distance of zero from the subdifferential of the objective: 0 at a critical point."""
        return self.stationarity.residual

    @cached_property
    def descent(self) -> Descent:
        """Lemma 5 measured on the sweep, block by block."""
        self._source.check(self.sweep)
        return self._source.descent()

    @cached_property
    def lemma6_subgradient(self) -> Lemma6:
        """Lemma 6's explicit subgradient after the sweep."""
        self._source.check(self.sweep)
        return self._source.lemma6_subgradient()

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


class FitResult(NamedTuple):
    """How a fit ended.

    Attributes:
        sweeps: How many sweeps it took.
        converged: Whether the residual fell to the tolerance.
        objective: The lifted objective at the end.
        residual: The stationarity residual at the end.
    """

    sweeps: int
    converged: bool
    objective: float
    residual: float
