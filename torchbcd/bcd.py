"""The optimizer of Zeng et al.: block coordinate descent on the lifted objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from torch import Tensor, nn

from torchbcd import _C, arguments, diagnostics, losses
from torchbcd.arguments import PerLayer, PerLayerRegularizer
from torchbcd.optimizer import Closure, SplitOptimizer
from torchbcd.reports import FitResult, SweepReport, check_current

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["BCD", "Variables"]


class Variables(NamedTuple):
    """The split variables: copies, taken at the last complete sweep.

    Attributes:
        W: Weights; ``W[0]``, shape (d_1, d_0), belongs to the first Linear.
        b: Biases, shape (d_i,), None for a layer without one.
        U: Linear outputs; ``U[0]``, shape (n, d_1), belongs to the first Linear. With ``splitting=2``, where they
            are no variables, the products V_{i-1} W_i^T + b_i.
        V: States; ``V[0]`` is the data, shape (n, d_0), ``V[N]`` the output.
    """

    W: list[Tensor]
    b: list[Tensor | None]
    U: list[Tensor]
    V: list[Tensor]

    @classmethod
    def of(cls, raw: Mapping[str, list[Tensor | None]]) -> Variables:
        """The variables of a trainer, by its names."""
        lists = cast("Mapping[str, list[Tensor]]", raw)
        return cls(W=lists["weight"], b=raw["bias"], U=lists["u"], V=lists["x"] + lists["v"])


class BCD(SplitOptimizer[_C.BcdTrainer]):
    r"""Trains an MLP by block coordinate descent with variable splitting instead of backpropagation.

    One :meth:`step` is one full sweep of Algorithm 2 of [Z]: it minimises the lifted objective

    .. math::
        w \sum_{\text{rows}} \ell(V_N; Y)
        + \sum_{i=1}^N \Big( \tfrac{\gamma_i}2 \|V_i - \sigma_i(U_i)\|_F^2
        + \tfrac{\rho_i}2 \|U_i - V_{i-1} W_i^\top - 1 b_i^\top\|_F^2 + r_i(W_i) + s_i(V_i) \Big),
        \qquad V_0 = X,

    over one block after the other, :math:`V_N, U_N, W_N`, then :math:`V_i, U_i, W_i` for
    :math:`i = N - 1, \dots, 1`; :math:`V_N`, the hidden :math:`U_i` and every :math:`[W_i\ b_i]` with a
    proximal term :math:`\tfrac{\alpha_i}2 \|\cdot - \cdot^-\|^2`. On a fixed set of rows the objective
    never rises, for any positive penalties ([Z], Theorem 2).

    With ``splitting=2`` it is Algorithm 1, on the objective without U ([Z], eq. 3),

    .. math::
        w \sum_{\text{rows}} \ell(V_N; Y)
        + \sum_{i=1}^N \Big( \tfrac{\gamma_i}2 \|V_i - \sigma_i(V_{i-1} W_i^\top + 1 b_i^\top)\|_F^2
        + r_i(W_i) + s_i(V_i) \Big),

    over :math:`V_N, W_N`, then :math:`V_i, W_i`, all with a proximal term. Blocks with an activation other than
    the identity inside are improved iteratively, never for the worse; ``rho`` is not used.

    There are three ways to step:

    * ``bind(x, y)``, then ``step()``: full batch. U and V come from one forward pass and persist.
    * ``step(x, y)``: a mini-batch; U and V come from a forward pass of it.
    * ``bind(x, y)``, then ``step(index=i)`` or ``step(x[i], y[i], index=i)``: a mini-batch of the bound
      rows, whose U and V persist between visits.

    The model's own parameters are W and b at all times. A step that fails or is interrupted leaves them,
    and U and V, at the last complete sweep.

    Args:
        model: ``nn.Sequential`` of ``[Flatten,] Linear, activation, ..., Linear[, activation]``, float32
            or float64. Hidden Linear modules without an activation have the identity.
        loss: "squared", "hinge", "logistic", "exponential", "cross_entropy", or an object of
            :mod:`torchbcd.losses`. Integer targets of shape (n,) are class indices.
        gamma: Penalty of :math:`V_i = \sigma_i(U_i)`, > 0; one number, or one for each layer.
        rho: Penalty of :math:`U_i = V_{i-1} W_i^\top + 1 b_i^\top`, > 0, likewise. None: as gamma ([Z]).
        alpha: Proximal weight of the states, > 0, likewise.
        alpha_weight: Proximal weight of weights and biases, > 0, likewise. None: as alpha.
        loss_weight: :math:`w` above, > 0; "mean" stands for 1/n, as does a loss's own reduction, with n the
            rows bound, or those of the mini-batch.
        weight_regularizer: :math:`r_i`, an object of :mod:`torchbcd.regularizers`, or a list with one, or
            None, for each layer.
        state_regularizer: :math:`s_i`, likewise.
        splitting: 3 for Algorithm 2, 2 for Algorithm 1.
        order: "paper", as above; or "states_first", all V and U from the last layer to the first, and then
            all W with the new states. [Z] allows any fixed order.
        inner_sweeps: How many times V and U are updated before the W that follows them, >= 1.
        process_group: Processes of ``torch.distributed`` that have the rows of the data between them ([Z],
            Appendix F; ``splitting=3`` only). Each gives its own rows to :meth:`bind` and :meth:`step`, at the
            same time; only Gram matrices and cross products go between them, and all have the same weights, to
            the bit, after every sweep. The model's parameters are first set to those of the group's rank 0.
            Objectives and what a report says of them are those of all rows, and are read by all processes or by
            none. None: this process has all rows.

    Penalties and regularisers live in ``param_groups``, one group for each Linear, and may be changed between
    steps.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``, or an argument has the wrong type.
        ValueError: A module is not supported (it is named, with its position), or a penalty is not
            positive.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 8)
        >>> y = (x[:, 0] > 0).long()
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> optimizer = BCD(model, gamma=1.0, alpha=0.1)
        >>> optimizer.bind(x, y)
        >>> before = optimizer.objective()
        >>> reports = [optimizer.step() for _ in range(20)]
        >>> optimizer.objective() < before
        True

    Source:
        [Z] Zeng, Lau, Lin, Yao: Global Convergence of Block Coordinate Descent in Deep Learning,
        Algorithm 2 and Section 5.
    """

    _engine_class = _C.BcdTrainer
    _script_class = "BCD"

    def __init__(
        self,
        model: nn.Sequential,
        loss: str | losses.Loss = "squared",
        *,
        gamma: PerLayer = 1.0,
        rho: PerLayer | None = None,
        alpha: PerLayer = 1.0,
        alpha_weight: PerLayer | None = None,
        loss_weight: float | str = 1.0,
        weight_regularizer: PerLayerRegularizer = None,
        state_regularizer: PerLayerRegularizer = None,
        splitting: int = 3,
        order: str = "paper",
        inner_sweeps: int = 1,
        process_group: ProcessGroup | None = None,
    ) -> None:
        penalties = {"gamma": gamma, "rho": rho, "alpha": alpha, "alpha_weight": alpha_weight}
        regularizers = {"weight_regularizer": weight_regularizer, "state_regularizer": state_regularizer}

        def options(depth: int) -> dict[str, Sequence[object]]:
            return {name: arguments.per_layer(name, value, depth) for name, value in penalties.items()} | {
                name: arguments.regularizer_per_layer(name, value, depth) for name, value in regularizers.items()
            }

        super().__init__(model, loss, loss_weight, options)
        self._set_scheme(splitting, order, inner_sweeps)
        self._process_group = process_group
        if process_group is not None:
            if splitting != 3:
                raise ValueError(f"a process_group needs splitting=3 (got {splitting})")
            self._engine.set_process_group(process_group.group_name)
        self._apply_options()

    def bind(self, x: Tensor, y: Tensor, sample_weight: Tensor | None = None) -> None:
        """Keep a full batch and set its U and V by one forward pass ([Z], Section 5).

        The data are not copied where they are contiguous; do not change them while they are bound.

        Args:
            x: Inputs, shape (n, d_0), or (n, ...) where the model begins with ``nn.Flatten``.
            y: Targets: class indices, shape (n,), or values of the model's dtype, shape (n, d_N).
            sample_weight: Weight of each row's loss, >= 0, shape (n,). None: 1.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: A shape does not fit, an entry is NaN or infinite, a class is out of range, or a
                device is not the model's.
        """
        self._apply_options()
        self._engine.bind(
            self._inputs(x), arguments.tensor("y", y), arguments.optional_tensor("sample_weight", sample_weight)
        )

    # The base class declares step(closure) alone; a data-taking step is what a block method needs.
    def step(  # type: ignore[override]
        self,
        inputs: Tensor | Closure | None = None,
        targets: Tensor | None = None,
        *,
        index: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> SweepReport:
        """Run one full sweep; see the class for the three ways to step.

        Args:
            inputs: Inputs of a mini-batch, shaped as in :meth:`bind`; or a closure that returns
                ``(inputs, targets)``; or None for the bound data.
            targets: Targets of the mini-batch, as in :meth:`bind`.
            index: Rows of the bound data, int64 of shape (m,), none twice. ``inputs`` and ``targets``,
                where given too, must be those rows.
            sample_weight: Weight of each row's loss in a mini-batch that is not of the bound data, as in
                :meth:`bind`, which is where bound rows get theirs.

        Returns:
            A report on the sweep, whose values are computed when read.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: As for :meth:`bind`; or nothing is bound where data are needed.
            torch.linalg.LinAlgError: A block has no solution in floating point; the message names layer
                and block.
        """
        inputs, targets = self._batch(inputs, targets)
        sample_weight = arguments.optional_tensor("sample_weight", sample_weight)
        if sample_weight is not None and (inputs is None or index is not None):
            raise ValueError("the sample_weight of bound rows is given to bind (got one in step)")
        self._apply_options()
        if inputs is None or targets is None:
            if index is None:
                self._engine.step()
            else:
                self._engine.step_rows(arguments.tensor("index", index))
        elif index is None:
            self._engine.step_batch(self._inputs(inputs), arguments.tensor("targets", targets), sample_weight)
        else:
            index = arguments.tensor("index", index)
            self._engine.check_rows(index, self._inputs(inputs), arguments.tensor("targets", targets))
            self._engine.step_rows(index)
        return SweepReport(self._engine.sweeps, _ReportSource(self))

    def objective(self) -> float:
        """The lifted objective at the current point, accumulated in float64.

        The point is that of the bound data, or of the last mini-batch where that was stepped on by
        ``step(x, y)``.

        Raises:
            ValueError: There is no data yet.
        """
        self._apply_options()
        return self._engine.objective().total()

    def stationarity(self) -> diagnostics.Stationarity:
        """How far the point that :meth:`objective` speaks of is from being critical, block by block.

        Raises:
            ValueError: There is no data yet.
        """
        self._apply_options()
        problem, (point,) = self._problem_and_points(last_rows=False, before=False)
        return diagnostics.stationarity(problem, point)

    def fit(
        self,
        x: Tensor,
        y: Tensor,
        max_sweeps: int = 100,
        tol: float = 1e-3,
        *,
        sample_weight: Tensor | None = None,
        callback: Callable[[SweepReport], object] | None = None,
    ) -> FitResult:
        """Bind the data and sweep until the stationarity residual is at most a tolerance.

        Args:
            x: Inputs, as for :meth:`bind`.
            y: Targets, as for :meth:`bind`.
            max_sweeps: The most sweeps, >= 1.
            tol: The residual, dist(0, dL), to stop at, >= 0; 0 for exactly ``max_sweeps`` sweeps.
            sample_weight: As for :meth:`bind`.
            callback: Called with the report of every sweep.

        Returns:
            How it ended.

        Raises:
            ValueError: As for :meth:`bind`; or ``max_sweeps`` or ``tol`` is out of range.
        """
        if max_sweeps < 1:
            raise ValueError(f"max_sweeps must be at least 1 (got {max_sweeps})")
        if not tol >= 0:
            raise ValueError(f"tol must be >= 0 (got {tol})")
        self._check_all_rows_here("fit")
        self.bind(x, y, sample_weight)
        first = self._engine.sweeps
        while True:
            report = self.step()
            if callback is not None:
                callback(report)
            sweeps = self._engine.sweeps - first
            if sweeps == max_sweeps or (tol > 0 and report.residual <= tol):
                return FitResult(sweeps, report.residual <= tol, report.objective, report.residual)

    def variables(self) -> Variables:
        """Copies of the split variables at the point that :meth:`objective` speaks of.

        Raises:
            ValueError: There is no data yet.
        """
        return Variables.of(self._engine.variables())

    def _apply_options(self) -> None:
        """Tell the engine the penalties of the param groups, which anyone may have changed."""
        for i, penalties in enumerate(self._resolved()):
            self._engine.set_layer_options(i, **vars(penalties))

    def _set_scheme(self, splitting: int, order: str, inner_sweeps: int) -> None:
        if splitting not in (2, 3):
            raise ValueError(f"splitting must be 2 or 3 (got {splitting!r})")
        if order not in ("paper", "states_first"):
            raise ValueError(f"order must be 'paper' or 'states_first' (got {order!r})")
        inner_sweeps = arguments.count("inner_sweeps", inner_sweeps)
        self._splitting, self._order, self._inner_sweeps = splitting, order, inner_sweeps
        self._engine.set_scheme(splitting, order == "states_first", inner_sweeps)

    def _script_options(self) -> dict[str, list[float]]:
        self._check_all_rows_here("script_object")
        return {
            "splitting": [float(self._splitting)],
            "order": [float(self._order == "states_first")],
            "inner_sweeps": [float(self._inner_sweeps)],
        }

    def _check_all_rows_here(self, what: str) -> None:
        if self._process_group is not None:
            raise ValueError(f"{what} needs all rows in one process (this optimizer has a process_group)")

    def _resolved(self) -> Iterator[diagnostics.Penalties]:
        """The penalties of every layer, with what stands for another one replaced by it."""
        for group in self.param_groups:
            gamma, alpha = arguments.number("gamma", group["gamma"]), arguments.number("alpha", group["alpha"])
            rho, alpha_weight = group["rho"], group["alpha_weight"]
            yield diagnostics.Penalties(
                gamma=gamma,
                rho=gamma if rho is None else arguments.number("rho", rho),
                alpha=alpha,
                alpha_weight=alpha if alpha_weight is None else arguments.number("alpha_weight", alpha_weight),
                weight_regularizer=arguments.terms("weight_regularizer", group["weight_regularizer"]),
                state_regularizer=arguments.terms("state_regularizer", group["state_regularizer"]),
            )

    def _problem_and_points(
        self, *, last_rows: bool, before: bool
    ) -> tuple[diagnostics.Problem, list[diagnostics.Point]]:
        """What the diagnostics work on: the point after the last sweep, and, if asked, the one before it."""
        self._check_all_rows_here("this diagnostic")
        raw = [self._engine.variables(last_rows or before, when) for when in ([True] if before else []) + [False]]
        points = []
        for values in raw:
            doubles = {
                name: [None if t is None else t.double() for t in values[name]]
                for name in ("weight", "bias", "u", "v", "x")
            }
            lists = cast("dict[str, list[Tensor]]", doubles)
            states = lists["x"] + lists["v"]
            points.append(diagnostics.Point(w=lists["weight"], b=doubles["bias"], u=lists["u"], v=states))
        data = cast("dict[str, list[Tensor]]", raw[-1])
        y = data["y"][0].double()
        problem = diagnostics.Problem(
            splitting=self._splitting,
            loss=self._loss.name,
            activations=self._activations,
            penalties=tuple(self._resolved()),
            loss_weight=self._engine.row_loss_weight(last_rows or before),
            y=y,
            row_weight=data["row_weight"][0].double(),
        )
        return problem, points


class _ReportSource:
    """Answers a report's questions from the optimizer, as long as it stands where the sweep left it."""

    def __init__(self, optimizer: BCD) -> None:
        self._optimizer = optimizer
        self._engine = optimizer._engine
        self._revision = self._engine.revision

    def check(self, sweep: int) -> None:
        check_current(self._engine, self._revision, sweep)

    def terms(self, before: bool) -> _C.ObjectiveTerms:
        return self._engine.objective(last_rows=True, before=before)

    def stationarity(self) -> diagnostics.Stationarity:
        problem, (after,) = self._optimizer._problem_and_points(last_rows=True, before=False)
        return diagnostics.stationarity(problem, after)

    def descent(self) -> diagnostics.Descent:
        if self._optimizer._order != "paper" or self._optimizer._inner_sweeps != 1:
            raise ValueError("descent needs order='paper' and inner_sweeps=1: it replays a sweep block by block")
        problem, (before, after) = self._optimizer._problem_and_points(last_rows=True, before=True)
        return diagnostics.descent(problem, before, after)

    def lemma6_subgradient(self) -> diagnostics.Lemma6:
        problem, (before, after) = self._optimizer._problem_and_points(last_rows=True, before=True)
        return diagnostics.lemma6_subgradient(problem, before, after)
