"""The optimizers of Wang et al.: DLAM and mDLAM, with a joint block and schedules that let them train."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import NamedTuple, TypeAlias, cast

from torch import Tensor, nn

from torchbcd import _C, arguments, losses
from torchbcd.arguments import PerLayer, PerLayerRegularizer
from torchbcd.optimizer import Closure, SplitOptimizer
from torchbcd.reports import DlamReport

__all__ = ["DLAM", "DlamVariables", "EpsSchedule"]


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


class DlamVariables(NamedTuple):
    """The variables of Problem 2: copies, taken at the last complete sweep.

    Attributes:
        W: Weights; ``W[0]``, shape (d_1, d_0), belongs to the first Linear.
        b: Biases, shape (d_l,), None for a layer without one.
        z: Linear outputs; ``z[0]``, shape (n, d_1), belongs to the first Linear.
        a: States; ``a[0]`` is the data, shape (n, d_0), ``a[l]`` is h_l(z[l - 1]) up to eps.
    """

    W: list[Tensor]
    b: list[Tensor | None]
    z: list[Tensor]
    a: list[Tensor]


class DLAM(SplitOptimizer[_C.DlamTrainer]):
    r"""Trains an MLP by the (monotone) deep learning alternating minimization of [W].

    With :math:`a_0 = x` and the penalty
    :math:`\phi_l = \tfrac{\rho_l}2 \|z_l - a_{l-1} W_l^\top - 1 b_l^\top\|_F^2` it minimises ([W], Problem 2)

    .. math::
        F = w \sum_{\text{rows}} R(z_L; y) + \sum_{l=1}^L \big( \Omega_l(W_l) + \phi_l \big)
        \quad \text{subject to} \quad |a_l - h_l(z_l)| \le \varepsilon \text{ entry by entry}, \quad l < L,

    block by block, :math:`W_1, z_1, a_1, W_2, \dots, W_L, z_L`. W and a take one proximal gradient step from
    a point extrapolated by Nesterov's sequence, with :math:`\theta_l` and :math:`\tau_l` that satisfy
    condition (2) and its twin; z is exact. With ``monotone`` (mDLAM, Algorithm 2) a step that does not lower
    F is done again without extrapolation, so that F never rises while :math:`\varepsilon` stays. F is finite
    after every sweep.

    **Hidden layers do not train with a constant eps**, no weight regulariser and the variables of a forward
    pass: every hidden residual is zero then, and stays so (docs/dlam.md has the proof; a warning says so).
    What trains: an ``eps`` that shrinks, which drags z after a; or ``joint=True``, one exact block over (z_l,
    a_l).

    Args:
        model: As for :class:`torchbcd.BCD`, with monotone hidden activations (all but ``Polynomial``) and
            none after the last Linear.
        loss: R, as for :class:`torchbcd.BCD`.
        rho: Penalty, > 0; one number, or one for each layer.
        eps: The tolerance: a number > 0 (>= 0 with ``joint``), or a function of the sweep since ``bind``,
            counted from 0, such as :class:`EpsSchedule`. None: ``EpsSchedule()``, or 0.003 with ``joint``.
        monotone: mDLAM (Algorithm 2) rather than DLAM (Algorithm 1).
        weight_regularizer: :math:`\Omega_l`, an object of :mod:`torchbcd.regularizers`, or a list with one,
            or None, for each layer.
        joint: Minimise over (z_l, a_l) together, entry by entry and exactly, rather than one after the other.
            Same F, same guarantee; not in [W].
        momentum: "nesterov"; "capped" for Nesterov's factors held below what Theorem 1 asks for; or None.
        weight_damping: None for the linearised step of eq. (3). A number > 0 for eq. (1) itself, a ridge
            regression whose proximal term is that many times :math:`\rho_l` times the mean over inputs of
            :math:`\sum_{\text{rows}} a^2`.
        output_solver: "prox", the loss's exact prox, or "fista", as [W] has it, for losses with a Lipschitz
            gradient.
        loss_weight: :math:`w`, > 0, or "mean" for 1/n.
        check_conditions: Measure condition (2) and its twin from their definitions in float64, for
            ``report.condition_slack``. Costs two products more for each block.

    ``rho`` and the regularisers live in ``param_groups``, one group for each Linear.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``, or an argument has the wrong type.
        ValueError: A module is not supported, or a number is out of range.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 8)
        >>> y = (x[:, 0] > 0).long()
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> optimizer = DLAM(model, "cross_entropy", rho=0.01, joint=True)
        >>> optimizer.bind(x, y)
        >>> objectives = [optimizer.step().objective for _ in range(20)]
        >>> all(later <= earlier for earlier, later in zip(objectives, objectives[1:]))
        True

    Source:
        [W] Wang, Li, Wang, Zhao: Accelerated Gradient-free Neural Network Training by Multi-convex
        Alternating Optimization, Algorithms 1 and 2.
    """

    _engine_class = _C.DlamTrainer
    _script_class = "DLAM"

    def __init__(
        self,
        model: nn.Sequential,
        loss: str | losses.Loss = "cross_entropy",
        rho: PerLayer = 1e-3,
        eps: Eps | None = None,
        monotone: bool = True,
        weight_regularizer: PerLayerRegularizer = None,
        *,
        joint: bool = False,
        momentum: str | None = "nesterov",
        weight_damping: float | None = None,
        output_solver: str = "prox",
        loss_weight: float | str = 1.0,
        check_conditions: bool = False,
    ) -> None:
        def options(depth: int) -> dict[str, Sequence[object]]:
            return {
                "rho": arguments.per_layer("rho", rho, depth),
                "weight_regularizer": arguments.regularizer_per_layer(
                    "weight_regularizer", weight_regularizer, depth
                ),
            }

        super().__init__(model, loss, loss_weight, options)
        arguments.choice("momentum", momentum, ("nesterov", "capped", None))
        arguments.choice("output_solver", output_solver, ("prox", "fista"))
        damping = 0.0 if weight_damping is None else arguments.number("weight_damping", weight_damping)
        if weight_damping is not None and not damping > 0:
            raise ValueError(f"weight_damping must be > 0 or None (got {weight_damping})")
        if eps is None:
            eps = 0.003 if joint else EpsSchedule()
        self.eps: Eps = eps if callable(eps) else arguments.number("eps", eps)
        self._sweeps_since_bind = 0
        self._momentum = momentum or "none"
        self._flags = {
            "monotone": bool(monotone),
            "joint": bool(joint),
            "fista": output_solver == "fista",
            "check_conditions": bool(check_conditions),
        }
        self._weight_damping = damping
        self._engine.set_options(momentum=self._momentum, weight_damping=damping, **self._flags)
        self._apply_options()

    def bind(self, x: Tensor, y: Tensor, sample_weight: Tensor | None = None) -> None:
        """Keep a full batch and set its z and a by one forward pass.

        Args:
            x: Inputs, shape (n, d_0), or (n, ...) where the model begins with ``nn.Flatten``.
            y: Targets: class indices, shape (n,), or values of the model's dtype, shape (n, d_L).
            sample_weight: Weight of each row's loss, >= 0, shape (n,). None: 1.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: A shape does not fit, an entry is NaN or infinite, a class is out of range, or a
                device is not the model's.
        """
        self._apply_options()
        self._engine.bind(
            self._inputs(x),
            arguments.tensor("y", y),
            self._eps_of(0),
            arguments.optional_tensor("sample_weight", sample_weight),
        )
        self._sweeps_since_bind = 0
        self._warn_of_deadlock()

    # The base class declares step(closure) alone; a data-taking step is what a block method needs.
    def step(  # type: ignore[override]
        self,
        inputs: Tensor | Closure | None = None,
        targets: Tensor | None = None,
        *,
        sweeps: int | None = None,
        sample_weight: Tensor | None = None,
    ) -> DlamReport:
        """Run one full sweep over the bound data; or some over a mini-batch, its z and a from a forward pass.

        From a forward pass the first sweep moves z_L alone, since every residual is zero, and each further one
        carries the error one layer down. A mini-batch, which starts from one each time, needs depth + 1 sweeps
        to reach the first layer, and ``joint``: within a step eps does not shrink.

        Args:
            inputs: Inputs of a mini-batch, shaped as in :meth:`bind`; or a closure that returns
                ``(inputs, targets)``; or None for the bound data.
            targets: Targets of the mini-batch, as in :meth:`bind`.
            sweeps: How many sweeps over the mini-batch, >= 1. None: one more than the model has Linear modules.
            sample_weight: Weight of each row's loss in the mini-batch, as in :meth:`bind`.

        Returns:
            A report on the last sweep.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: As for :meth:`bind`; or nothing is bound where data are needed.
            torch.linalg.LinAlgError: An update is not finite; the message names layer and block.
        """
        inputs, targets = self._batch(inputs, targets)
        sample_weight = arguments.optional_tensor("sample_weight", sample_weight)
        self._apply_options()
        if inputs is None or targets is None:
            if sample_weight is not None:
                raise ValueError("the sample_weight of bound rows is given to bind (got one in step)")
            if sweeps is not None:
                raise ValueError("sweeps is for mini-batches; call step() for each sweep over bound data")
            raw = self._engine.step(self._eps_of(self._sweeps_since_bind))
            self._sweeps_since_bind += 1
        else:
            raw = self._engine.step_batch(
                self._inputs(inputs),
                arguments.tensor("targets", targets),
                self._eps_of(self._sweeps_since_bind),
                self._depth + 1 if sweeps is None else sweeps,
                sample_weight,
            )
        return DlamReport(self._engine, raw, self._flags["check_conditions"])

    def objective(self) -> float:
        """F at the current point, accumulated in float64.

        The point is that of the bound data, or of the last mini-batch where that was stepped on later.

        Raises:
            ValueError: There is no data yet.
        """
        self._apply_options()
        return self._engine.objective().total()

    def gap(self) -> float:
        r"""The largest :math:`|a_l - h_l(z_l)| - \varepsilon` of all entries: at most 0, up to rounding.

        Raises:
            ValueError: There is no data yet.
        """
        return max(self._engine.gaps(), default=-inf)

    def variables(self) -> DlamVariables:
        """Copies of the variables at the point that :meth:`objective` speaks of.

        Raises:
            ValueError: There is no data yet.
        """
        v = self._engine.variables()
        states = cast("list[Tensor]", v["x"] + v["a"])
        weights, z = cast("list[Tensor]", v["weight"]), cast("list[Tensor]", v["z"])
        return DlamVariables(W=weights, b=v["bias"], z=z, a=states)

    def state_dict(self) -> dict[str, object]:
        """The optimizer's state; a schedule given as a function is not part of it."""
        return {**super().state_dict(), "sweeps_since_bind": self._sweeps_since_bind}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: The state does not fit the model.
        """
        state = dict(state_dict)
        sweeps = state.pop("sweeps_since_bind", 0)
        super().load_state_dict(state)
        self._sweeps_since_bind = int(cast("int", sweeps))

    def _script_options(self) -> dict[str, list[float]]:
        eps = self.eps
        if isinstance(eps, EpsSchedule):
            start, factor, floor = eps.start, eps.factor, eps.floor
        elif callable(eps):
            raise ValueError(f"eps must be a number or an EpsSchedule for TorchScript (got {eps!r})")
        else:
            start, factor, floor = eps, 1.0, eps
        return {
            **{name: [float(value)] for name, value in self._flags.items()},
            "momentum": [float(("none", "nesterov", "capped").index(self._momentum))],
            "weight_damping": [self._weight_damping or nan],
            "eps_start": [start],
            "eps_factor": [factor],
            "eps_floor": [floor],
            "sweeps_since_bind": [float(self._sweeps_since_bind)],
        }

    def _eps_of(self, sweep: int) -> float:
        return arguments.number("eps", self.eps(sweep) if callable(self.eps) else self.eps)

    def _apply_options(self) -> None:
        for i, group in enumerate(self.param_groups):
            self._engine.set_layer_options(
                i,
                rho=arguments.number("rho", group["rho"]),
                weight_regularizer=arguments.terms("weight_regularizer", group["weight_regularizer"]),
            )

    def _warn_of_deadlock(self) -> None:
        hidden = self.param_groups[:-1]
        unregularized = all(
            arguments.terms("weight_regularizer", group["weight_regularizer"]) == arguments.terms("", None)
            for group in hidden
        )
        if hidden and unregularized and not self._flags["joint"] and not callable(self.eps):
            warnings.warn(
                "with a constant eps, no weight_regularizer and variables from a forward pass, DLAM never moves "
                "the hidden layers (docs/dlam.md); give eps a schedule, such as torchbcd.EpsSchedule(), or use "
                "joint=True",
                UserWarning,
                stacklevel=3,
            )
