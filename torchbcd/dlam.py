"""The optimizers of Wang et al.: DLAM and mDLAM, with a joint block and schedules that let them train."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from torchbcd import _C, arguments, fitting, losses
from torchbcd.arguments import Closure, PerLayer, PerLayerRegularizer, Targets
from torchbcd.distributed import Ranks, same_everywhere
from torchbcd.dlam_stationarity import DlamProblem, DlamStationarity, SublinearRate, dlam_stationarity
from torchbcd.eps_schedule import Eps, EpsSchedule, as_options
from torchbcd.optimizer import SweepOptimizer
from torchbcd.regularizers import Regularizer
from torchbcd.reports import DlamReport, FitResult

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["DLAM", "DlamVariables", "EpsSchedule"]


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


class DLAM(SweepOptimizer[_C.DLAM]):
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
        model: As for :class:`torchbcd.BCD`, with monotone, continuous hidden activations (not ``Sign``,
            ``SiLU``, ``GELU`` or another that jumps or falls somewhere) and none after the last Linear.
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
        sufficient_decrease: The part, in [0, 1), of :math:`\theta/2 \|\Delta W\|^2` (or :math:`\tau`, a) by which
            an extrapolated step must lower F, with ``monotone``. 0: it must lower F, as [W] has it.
        weight_damping: None for the linearised step of eq. (3). 0 for eq. (1) itself: of several minimisers the
            one nearest to W (with kinks in :math:`\Omega`, one of them). A number > 0 for eq. (1) with a
            proximal term, that many times :math:`\rho_l` times the mean over inputs of
            :math:`\sum_{\text{rows}} a^2`.
        output_solver: "prox", the loss's exact prox, or "fista", as [W] has it, for losses with a Lipschitz
            gradient.
        loss_weight: :math:`w`, > 0, or "mean" for 1/n.
        check_conditions: Measure condition (2) and its twin from their definitions in float64, for
            ``report.condition_slack``. Costs two products more for each block.
        process_group: Processes of ``torch.distributed`` that have the rows of the data between them. Each gives
            its own rows to :meth:`bind`, :meth:`step` and :meth:`fit`, at the same time. Only gradients of the
            weights and a few numbers go between them, so that all take the same steps and have the same weights,
            to the bit, after every sweep (docs/distributed.md). The model's parameters are first set to those of
            the group's rank 0. Objectives, ``gap`` and a report's values are those of all rows, and what is
            computed when it is read is read by all processes or by none. None: this process has all rows.

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

    _object_class = _C.DLAM
    _copied = ("eps", "_pushed_eps")

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
        sufficient_decrease: float = 1e-3,
        weight_damping: float | None = None,
        output_solver: str = "prox",
        loss_weight: float | str = 1.0,
        check_conditions: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        options = {
            "rho": rho,
            "weight_regularizer": weight_regularizer,
            "monotone": monotone,
            "joint": joint,
            "momentum": "none" if momentum is None else momentum,
            "sufficient_decrease": sufficient_decrease,
            "weight_damping": weight_damping,
            "output_solver": output_solver,
            "check_conditions": check_conditions,
        }
        if eps is None:
            eps = 0.003 if joint else EpsSchedule()
        self.eps: Eps = eps
        self._rate = SublinearRate(Ranks(process_group))
        super().__init__(model, loss, loss_weight, {**options, **as_options(eps, 0)}, process_group)
        self._pushed_eps: Eps = eps

    def bind(
        self,
        x: Tensor,
        y: Targets,
        sample_weight: Tensor | None = None,
        *,
        z: Sequence[Tensor] | None = None,
        a: Sequence[Tensor] | None = None,
    ) -> None:
        r"""Keep a copy of a full batch, with z and a from one forward pass, or as they are given.

        Args:
            x: Inputs, shape (n, d_0), or (n, ...) where the model begins with ``nn.Flatten``.
            y: Targets, as for :meth:`torchbcd.BCD.bind`.
            sample_weight: Weight of each row's loss, >= 0, shape (n,). None: 1.
            z: Of every layer, shape (n, d_l). None: :math:`q_l = a_{l-1} W_l^\top + 1 b_l^\top`, but for a
                given ``a`` what minimises F there, the point nearest to q_l with |a_l - h_l(z_l)| <= eps.
            a: Of every hidden layer, shape (n, d_l), as ``variables().a[1:]`` has it. None: h_l(z_l).

        Raises:
            TypeError: A dtype is not the model's, or z or a is no list of tensors.
            ValueError: A shape does not fit, an entry is NaN or infinite, a class is out of range, a device is
                not the model's, or |a_l - h_l(z_l)| exceeds the eps of the first sweep by more than rounding.

        Example:
            >>> import torch
            >>> x, y, model = torch.randn(9, 4), torch.arange(9) % 2, nn.Sequential(nn.Linear(4, 2))
            >>> optimizer = DLAM(model, rho=0.1)
            >>> optimizer.bind(x, y, z=[model(x).detach() + 1])
            >>> optimizer.objective() > optimizer.step().objective
            True
        """
        with self._refused_by_all():
            weight = arguments.optional_tensor("sample_weight", sample_weight)
            data = arguments.tensor("x", x), self._targets("y", y), weight
            start = arguments.tensors("z", z), arguments.tensors("a", a)
            library = self._push(sweep=0)
        library.bind(*data, *start)
        self._rate.forget()
        if not any(start):
            self._warn_of_deadlock()

    # The base class declares step(closure) alone; a data-taking step is what a block method needs.
    def step(  # type: ignore[override]
        self,
        inputs: Tensor | Closure | None = None,
        targets: Targets | None = None,
        *,
        sweeps: int | None = None,
        sample_weight: Tensor | None = None,
        closure: Closure | None = None,
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
            closure: The same by keyword, as other optimizers take it: returns ``(inputs, targets)``, or None for
                what the other arguments say. One that returns a loss is refused.

        Returns:
            A report on the last sweep.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: As for :meth:`bind`; or nothing is bound where data are needed.
            torch.linalg.LinAlgError: An update is not finite; the message names layer and block.
        """
        with self._refused_by_all():
            batch = arguments.batch(inputs, targets, closure, self._targets)
            weight = arguments.optional_tensor("sample_weight", sample_weight)
            count = None if sweeps is None else arguments.whole("sweeps", sweeps)
            if weight is not None and batch is None:
                raise ValueError("the sample_weight of bound rows is given to bind (got one in step)")
            if count is not None and batch is None:
                raise ValueError("sweeps is for mini-batches; call step() for each sweep over bound data")
            library = self._push()
        if batch is not None:
            fields = library.step_batch(*batch, count, weight)
            self._rate.forget()
            rows = tuple(None if t is None else t.detach().clone() for t in (batch[1], weight))
            return self._report(fields, rows, None)
        if not library.scheme_options()["check_conditions"]:
            return self._report(library.step(), None, None)
        if self._rate.needs_start([layer.weight for layer in self._model.parameters()]):
            self._rate.start(self.variables())
        fields = library.step()
        self._rate.sweep(self.variables(), fields, [float(group["rho"]) for group in self.param_groups])
        return self._report(fields, None, self._rate.value)

    def fit(
        self,
        x: Tensor,
        y: Targets,
        max_sweeps: int = 100,
        tol: float = 1e-3,
        *,
        sample_weight: Tensor | None = None,
        callback: Callable[[DlamReport], object] | None = None,
    ) -> FitResult:
        """Bind the data and sweep until dist(0, dF) is at most a tolerance, with eps at its last value.

        ``joint=True`` can get there. Without, z and a may be stuck where each is optimal and both are not
        (docs/dlam.md): the residual then stays, whatever ``report.weight_residual`` does.

        Args:
            x: Inputs, as for :meth:`bind`.
            y: Targets, as for :meth:`bind`.
            max_sweeps: The most sweeps, >= 1.
            tol: The residual, dist(0, dF), to stop at, >= 0; 0 for exactly ``max_sweeps`` sweeps.
            sample_weight: As for :meth:`bind`.
            callback: Called with the report of every sweep.

        Returns:
            How it ended.

        Raises:
            ValueError: As for :meth:`bind`; or ``max_sweeps`` or ``tol`` is out of range.
            torch.linalg.LinAlgError: An update is not finite; the message names layer and block.

        Example:
            >>> import torch, torchbcd
            >>> _ = torch.manual_seed(0)
            >>> x = torch.randn(64, 8, dtype=torch.float64)
            >>> model = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2)).double()
            >>> l2 = torchbcd.regularizers.L2(1.0)
            >>> optimizer = DLAM(model, rho=1.0, joint=True, weight_regularizer=l2)
            >>> result = optimizer.fit(x, (x[:, 0] > 0).long(), max_sweeps=5000, tol=1e-3)
            >>> result.converged, result.residual <= 1e-3
            (True, True)

        Source:
            [W] Wang, Li, Wang, Zhao, as above, Algorithms 1 and 2.
        """
        with same_everywhere(self._process_group, "fit cannot begin") as described:
            count = fitting.check(max_sweeps, tol)
            described.update(max_sweeps=count, tol=tol)
        self.bind(x, y, sample_weight)

        def settled(sweeps: int, report: DlamReport) -> bool:
            return not callable(self.eps) or self.eps(sweeps) == report.eps

        return fitting.sweep_until(self.step, count, tol, callback, lambda report: report.eps, settled)

    def objective(self) -> float:
        """F at the current point, accumulated in float64.

        The point is that of the bound data, or of the last mini-batch where that was stepped on later.

        Raises:
            ValueError: There is no data yet.
        """
        return super().objective()

    def gap(self) -> float:
        r"""The largest :math:`|a_l - h_l(z_l)| - \varepsilon` of all entries: at most 0, up to rounding.

        Raises:
            ValueError: There is no data yet.
        """
        return self._push().gap()

    def variables(self) -> DlamVariables:
        """Copies of the variables at the point that :meth:`objective` speaks of.

        Raises:
            ValueError: There is no data yet.
        """
        return DlamVariables(**cast("dict[str, list[Any]]", self._push().variables()))

    def _report(
        self, fields: dict[str, Any], rows: tuple[Tensor | None, ...] | None, c_k: float | None
    ) -> DlamReport:
        """The report of a sweep over a mini-batch with these targets and sample weights, or the bound data."""
        groups = [(float(group["rho"]), group["weight_regularizer"]) for group in self.param_groups]
        trained = [
            (layer.weight.requires_grad, layer.bias is not None and layer.bias.requires_grad)
            for layer in self._model.parameters()
        ]

        def stationarity() -> DlamStationarity:
            variables = self.variables()
            outputs = variables.z[-1]
            if rows is None:
                tensors = self._object.state_dict()["torchbcd"]["tensors"]
                y, weight = tensors["y"][0], tensors.get("row_weight", [None])[0]
            else:
                y, weight = rows
                if y is not None:
                    y = y.reshape(outputs.shape) if y.is_floating_point() else y.long()
                    y = torch.ops.torchbcd.encode_targets(y, outputs, str(self._loss))
            options = self._object.scheme_options()
            ranks = Ranks(self._process_group)
            rows_of_all = ranks.total(len(outputs)) if options["loss_scaling"] == "mean" else 1
            each = options["loss_weight"] / rows_of_all
            one = torch.ones(1, 1, dtype=torch.float64, device=outputs.device)
            problem = DlamProblem(
                loss=str(self._loss),
                activations=list(self._model.activations),
                rho=[rho for rho, _ in groups],
                weight_regularizers=[terms or Regularizer() for _, terms in groups],
                trained=trained,
                eps=fields["eps"],
                y=cast(Tensor, y).double().reshape(outputs.shape),
                row_weight=each * (one if weight is None else weight.double().reshape(-1, 1)),
            )
            return dlam_stationarity(problem, variables, ranks)

        return DlamReport(self._object, fields, stationarity, c_k)

    def script_object(self) -> Any:  # noqa: D102 (the base class documents it)
        if callable(self.eps) and not isinstance(self.eps, EpsSchedule):
            raise ValueError(f"eps must be a number or an EpsSchedule for TorchScript (got {self.eps!r})")
        return super().script_object()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, options included; an ``eps`` that is a function stays.

        Raises:
            ValueError: The state is not that of such an optimizer, or does not fit the model.
        """
        super().load_state_dict(state_dict)
        self._rate.forget()
        if not callable(self.eps) or isinstance(self.eps, EpsSchedule):
            kept = self._object.scheme_options()
            start, factor, floor = kept["eps_start"], kept["eps_factor"], kept["eps_floor"]
            self.eps = start if factor == 1 and start == floor else EpsSchedule(start, factor, floor)
            self._pushed_eps = self.eps

    def __setstate__(self, state: dict[str, Any]) -> None:  # noqa: D105 (the base class documents it)
        self._rate = SublinearRate()
        super().__setstate__(state)

    def _push(self, sweep: int | None = None) -> _C.DLAM:
        """As for every optimizer; and ``eps``, where it was changed, or is a function of one's own."""
        own = callable(self.eps) and not isinstance(self.eps, EpsSchedule)
        if own or self.eps != self._pushed_eps:
            now = self._object.sweeps_since_bind if sweep is None else sweep
            self._object.set_scheme_options(as_options(self.eps, now))
            self._pushed_eps = self.eps
        return super()._push()

    def _warn_of_deadlock(self) -> None:
        hidden = self.param_groups[:-1]
        unregularized = all(group["weight_regularizer"] in (None, Regularizer()) for group in hidden)
        joint = self._object.scheme_options()["joint"]
        if hidden and unregularized and not joint and not callable(self.eps):
            warnings.warn(
                "with a constant eps, no weight_regularizer and variables from a forward pass, DLAM never moves "
                "the hidden layers (docs/dlam.md); give eps a schedule, such as torchbcd.EpsSchedule(), or use "
                "joint=True",
                UserWarning,
                stacklevel=3,
            )
