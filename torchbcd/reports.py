"""What a step, and a fit, tell about themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from torchbcd import _C
from torchbcd._C import ObjectiveTerms
from torchbcd.diagnostics import Descent, Lemma6, Stationarity
from torchbcd.dlam_stationarity import DlamStationarity
from torchbcd.linear_rate import LinearRate

__all__ = ["DladmmReport", "DlamReport", "EpochReport", "FitResult", "RelaxedReport", "SweepReport"]


class Source(Protocol):
    """Where a report gets its values from; it raises a RuntimeError once the point they belong to is gone."""

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

    All speak of the rows the sweep worked on. Reading a value for the first time after the optimizer has
    moved on raises a ``RuntimeError``: the point it belongs to is gone. In a loop over mini-batches, leave
    unread what you do not need; it then costs nothing.

    Attributes:
        sweep: Number of the sweep, counted from 1 over the optimizer's life.
    """

    sweep: int
    _source: Source = field(repr=False)

    @cached_property
    def _terms(self) -> ObjectiveTerms:
        return self._source.terms(before=False)

    @property
    def objective(self) -> float:
        """Lifted objective after the sweep, accumulated in float64."""
        return self._terms.total()

    @cached_property
    def decrease(self) -> float:
        """How far the sweep lowered the objective."""
        after = self.objective
        return self._source.terms(before=True).total() - after

    @cached_property
    def stationarity(self) -> Stationarity:
        """Distances of zero from the partial subdifferentials of the objective, block by block."""
        return self._source.stationarity()

    @property
    def residual(self) -> float:
        """The distance of zero from the subdifferential of the objective: 0 at a critical point.

        With ``splitting=2`` and a ReLU it need not tend to 0: Theorem 3 of [Z] is false (docs/theory.md on (32)).
        Where ``stationarity.exact`` is False it is a bound (:func:`torchbcd.diagnostics.stationarity`).
        """
        return self.stationarity.residual

    @cached_property
    def descent(self) -> Descent:
        """Lemma 5 measured on the sweep, block by block."""
        return self._source.descent()

    @cached_property
    def lemma6_subgradient(self) -> Lemma6:
        """Lemma 6's explicit subgradient after the sweep."""
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


class ConditionSlack(NamedTuple):
    r"""How far the upper models of [W] lie above what they bound.

    .. math:: (P - \phi) / (|P| + \phi)

    Attributes:
        theta: For each W block, of condition (2); 0 for a block that did not move, or was solved by eq. (1).
        tau: For each a block, of its twin.
    """

    theta: list[float]
    tau: list[float]


class _ObjectiveReport:
    """Report whose objective is computed when it is first read, without a matrix product, and then kept."""

    def __init__(self, library: _C.DLAM | _C.DLADMM, fields: Mapping[str, Any]) -> None:
        """Made by the step that it reports on."""
        self._sweep = library.last_sweep
        self._terms_of = library.sweep_terms
        self.sweep = self._sweep.sweep
        vars(self).update(fields)

    @cached_property
    def _terms(self) -> ObjectiveTerms:
        return self._terms_of(self._sweep, False)

    @property
    def objective(self) -> float:
        """The objective after the sweep, accumulated in float64."""
        return self._terms.total()

    @property
    def loss(self) -> float:
        """The loss term of the objective, at z_L."""
        return self._terms.loss

    @property
    def affine_penalty(self) -> list[float]:
        r"""Per layer, :math:`\tfrac{\rho_l}2 \|z_l - a_{l-1} W_l^\top - 1 b_l^\top\|^2`, and the multiplier."""
        return self._terms.affine_penalty

    @property
    def weight_penalty(self) -> list[float]:
        r"""Per layer, :math:`\Omega_l(W_l)`."""
        return self._terms.weight_penalty


class DladmmReport(_ObjectiveReport):
    """Report of one sweep of dlADMM.

    Reading a value of the objective for the first time after the optimizer has moved on raises a
    ``RuntimeError``.

    Attributes:
        sweep: Number of the sweep, counted from 1 over the optimizer's life.
        theta: For each layer the curvature that the last W step met.
        tau: For each hidden layer that of the last a step.
        primal_residual: The norm of z_L - q_L, before the multiplier's step.
        products: How many matrix products with a matrix of n rows the sweep took.
    """

    theta: list[float]
    tau: list[float]
    primal_residual: float
    products: int


class DlamReport(_ObjectiveReport):
    r"""Report of one sweep of DLAM.

    The values of the objective are computed when they are first read, without a matrix product, and then
    kept; those of ``stationarity``, too, at the cost of three products in float64 a layer. Reading one for the
    first time after the optimizer has moved on raises a ``RuntimeError``.

    Attributes:
        sweep: Number of the sweep, counted from 1 over the optimizer's life.
        eps: The tolerance of the sweep.
        omega: Nesterov's factor of the sweep, 0 where there was nothing to extrapolate from.
        theta: For each layer :math:`\theta_l` of condition (2); 0 where W was solved for by eq. (1).
        tau: For each hidden layer :math:`\tau_l` of the twin of (2).
        weight_omega: For each layer the factor of the W step that was accepted.
        state_omega: For each hidden layer that of the a step.
        redone: How many blocks were done again without extrapolation.
        kept: How many blocks stayed where they were, for want of a way down that rounding shows.
        trials: How many values of theta and tau were tried beyond the first of each block.
        products: How many matrix products with a matrix of n rows the sweep took.
    """

    eps: float
    omega: float
    theta: list[float]
    tau: list[float]
    weight_omega: list[float]
    state_omega: list[float]
    redone: int
    kept: int
    trials: int
    products: int

    def __init__(
        self,
        library: _C.DLAM,
        fields: Mapping[str, Any],
        stationarity: Callable[[], DlamStationarity],
        c_k: float | None,
    ) -> None:
        """Made by :meth:`torchbcd.DLAM.step`."""
        super().__init__(library, fields)
        self._gap_of, self._check_current = library.sweep_gap, library.check_current
        self._stationarity_of, self._c_k = stationarity, c_k
        slacks = ConditionSlack(vars(self).pop("weight_slack"), vars(self).pop("state_slack"))
        self._conditions = slacks if library.scheme_options()["check_conditions"] else None

    def __repr__(self) -> str:
        """The numbers that cost nothing."""
        return (
            f"DlamReport(sweep={self.sweep}, eps={self.eps:.4g}, redone={self.redone}, products={self.products})"
        )

    @cached_property
    def gap(self) -> float:
        r"""The largest :math:`|a_l - h_l(z_l)| - \varepsilon`: at most 0, up to rounding."""
        return self._gap_of(self._sweep)

    @cached_property
    def stationarity(self) -> DlamStationarity:
        """Distances of zero from the subdifferential of F, block by block (z and a together), in float64."""
        self._check_current(self._sweep)
        return self._stationarity_of()

    @property
    def residual(self) -> float:
        """Dist(0, dF): 0 at a stationary point of Problem 2 in all of its variables.

        [W] prove no such limit: blocks of z and a of their own may be stuck where it is not 0 (docs/dlam.md).
        """
        return self.stationarity.residual

    @property
    def weight_residual(self) -> float:
        """Dist(0, dF) in W alone, which tends to 0 by [W], Theorems 1 and 3, where their hypotheses hold."""
        return self.stationarity.weight_residual

    @property
    def c_k(self) -> float:
        """c_k of [W], Theorem 2, up to this sweep; inf until two sweeps of one eps are done.

        Raises:
            ValueError: The optimizer was not made with ``check_conditions=True``, or the sweep was one of a
                mini-batch.
        """
        if self._c_k is None:
            raise ValueError("c_k needs DLAM(..., check_conditions=True), and bound data")
        return self._c_k

    @property
    def condition_slack(self) -> ConditionSlack:
        """Condition (2) and its twin, measured from their definitions.

        Raises:
            ValueError: The optimizer was not made with ``check_conditions=True``.
        """
        if self._conditions is None:
            raise ValueError("condition_slack needs DLAM(..., check_conditions=True)")
        return self._conditions


class Certificate(NamedTuple):
    """The descent of L over one sweep of RelaxedBCD.

    Attributes:
        before: L at the start: the batch's loss and regularisers, where the sweep began with a forward pass (of
            the weights that momentum and decay led to).
        after: L at the end; NaN if a decrease is.
        blocks: For each block in order its name ("V" of the output, "W", "UV", "map" of a LayerNorm and a
            PReLU), its Linear, from 1, and how far it lowered L: never below 0, but for rounding; NaN where
            ``row_blocks`` leaves it unmeasured.
    """

    before: float
    after: float
    blocks: list[tuple[str, int, float]]


class RelaxedReport:
    """Report of one step of RelaxedBCD. Its values are computed when they are first read; they do not expire.

    Attributes:
        sweep: Number of the sweep, counted from 1 over the optimizer's life.
        penalties: rho of each layer in the sweep.
        halved: How many layers' state steps had to be shortened for L not to rise.
        guard_halvings: How many times the guard halved the step of the weights.
    """

    def __init__(self, sweep: int, raw: _C.RelaxedReport) -> None:
        """Made by :meth:`torchbcd.RelaxedBCD.step`."""
        self._raw = raw
        self.sweep = sweep

    def __repr__(self) -> str:
        """The numbers that cost nothing."""
        return f"RelaxedReport(sweep={self.sweep}, halved={self.halved}, guard_halvings={self.guard_halvings})"

    @property
    def penalties(self) -> list[float]:
        """The penalty of each layer."""
        return self._raw.penalties

    @property
    def halved(self) -> int:
        """Layers whose states' step was shortened."""
        return self._raw.halved

    @property
    def guard_halvings(self) -> int:
        """Halvings by the guard."""
        return self._raw.guard_halvings

    @cached_property
    def before(self) -> float:
        """L at the start: the batch's loss and regularisers, where the sweep began with a forward pass."""
        return self._raw.before

    @cached_property
    def certificate(self) -> Certificate:
        """How far every block lowered L."""
        blocks = self._raw.decreases
        return Certificate(self.before, self.before - sum(decrease for _, _, decrease in blocks), blocks)

    @property
    def objective(self) -> float:
        """L at the end of the sweep."""
        return self.certificate.after

    @property
    def decrease(self) -> float:
        """How far the sweep lowered L."""
        return self.before - self.objective


class EpochReport(NamedTuple):
    """What ``RelaxedBCD.fit`` tells of an epoch.

    Attributes:
        epoch: Counted from 1.
        loss: Mean over its rows, by their weights, of L before their step: the training loss in passing,
            regularisers included.
        validation_loss: Mean loss of a validation row, None without validation data.
        validation_accuracy: None without validation data or classes.
    """

    epoch: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None


class FitResult(NamedTuple):
    """How a fit ended.

    Attributes:
        sweeps: How many sweeps it took.
        converged: Whether the residual fell to the tolerance.
        objective: The objective at the end.
        residual: The stationarity residual at the end.
        rate: A geometric law fitted to the objectives of the last half of the sweeps (of one eps); None with
            ``tol=0``, or where there are fewer than 8 of them, or they do not fall.
    """

    sweeps: int
    converged: bool
    objective: float
    residual: float
    rate: LinearRate | None = None
