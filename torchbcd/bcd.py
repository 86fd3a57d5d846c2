"""The optimizer of Zeng et al.: block coordinate descent on the lifted objective."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import Tensor, nn

from torchbcd import _C, arguments, diagnostics, fitting, lifted, losses
from torchbcd.arguments import Closure, PerLayer, PerLayerRegularizer, Targets
from torchbcd.optimizer import SweepOptimizer
from torchbcd.reports import FitResult, SweepReport
from torchbcd.terms import Regularizer, from_numbers

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


class BCD(SweepOptimizer[_C.BCD]):
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

    over :math:`V_N, W_N`, then :math:`V_i, W_i`, all with a proximal term (but in the order "joint"). Blocks with
    an activation other than the identity inside are improved iteratively, never for the worse; ``rho`` is not
    used.

    The slope a of an ``nn.PReLU``, :math:`\sigma_i(u) = \max(u, 0) + a \min(u, 0)`, is a variable where it
    requires gradients. Its block comes before every :math:`W_i` and is one-dimensional least squares,

    .. math::
        a \leftarrow \arg\min_a \tfrac{\gamma_i}2 \|V_i - \sigma_i(U_i)\|_F^2
        + \tfrac{\alpha'_i}2 (a - a_k)^2,

    with :math:`\alpha'` for ``alpha_weight`` (and :math:`V_{i-1} W_i^\top + 1 b_i^\top` for U with
    ``splitting=2``).

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
        loss: A name, such as "squared" or "cross_entropy", or an object of :mod:`torchbcd.losses`, which has
            them all. Integer targets of shape (n,) are class indices.
        gamma: Penalty of :math:`V_i = \sigma_i(U_i)`, > 0; one number, or one for each layer.
        rho: Penalty of :math:`U_i = V_{i-1} W_i^\top + 1 b_i^\top`, > 0, likewise. None: as gamma ([Z]).
        alpha: Proximal weight of the states, > 0, likewise.
        alpha_weight: Proximal weight of weights and biases, > 0, likewise. None: as alpha.
        loss_weight: :math:`w` above, > 0; "mean" stands for 1/n, as does a loss's own reduction, with n the
            rows bound, or those of the mini-batch; "paper" for the loss term of [Z], which is 1/n of the sum of
            :math:`\|v - y\|^2`: 2/n for the squared loss, 1/n for the others.
        weight_regularizer: :math:`r_i`, an object of :mod:`torchbcd.regularizers`, or a list with one, or
            None, for each layer.
        state_regularizer: :math:`s_i`, likewise: a sum over entries, or (``splitting=3``, data in memory) a
            :func:`torchbcd.regularizers.Proximal`, a function of all rows together.
        regularize_bias: Whether :math:`r_i` covers :math:`b_i`, too, as where the bias is a column of
            :math:`W_i`: with a squared norm the objective then bounds all weights.
        splitting: 3 for Algorithm 2, 2 for Algorithm 1.
        order: "paper", as above; "states_first", all V and U from the last layer to the first, and then all W
            with the new states; "layer_parallel", all V, then all U, then all W, three blocks whose layers have
            no term in common, so that each is minimised exactly (``splitting=3`` only); "joint", all V as one
            block, then all W, without proximal terms, so that ``alpha`` and ``alpha_weight`` are not used
            (``splitting=2`` only, as :class:`torchbcd.MAC` has it: squared loss, smooth activations, states
            with a squared norm or none); or a list of blocks,
            ``[("V", 2), ("U", 2), ("W", 2), ("V", 1), ...]``, layers from 1, each at least once. [Z] allows any
            fixed order, and the objective never rises in any.
        inner_sweeps: How many times V and U are updated before the W that follows them, >= 1; 1 where the order
            is a list or "joint".
        process_group: Processes of ``torch.distributed`` that have the rows of the data between them ([Z],
            Appendix F; with ``splitting=2`` where no block has an activation inside). Each gives its own rows to
            :meth:`bind` and :meth:`step`, at the same time; only Gram matrices and cross products go between
            them, and all have the same weights, to the bit, after every sweep. The model's parameters are first
            set to those of the group's rank 0. Objectives and what a report says of them are those of all rows,
            and are read by all processes or by none. None: this process has all rows.

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
        [Z] Zeng, Ouyang, Lau, Lin, Yao: Global Convergence in Deep Learning with Variable Splitting via the
        Kurdyka-Lojasiewicz Property. Algorithms 1 and 2.
    """

    _object_class = _C.BCD

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
        regularize_bias: bool = False,
        splitting: int = 3,
        order: str | Sequence[tuple[str, int]] = "paper",
        inner_sweeps: int = 1,
        process_group: ProcessGroup | None = None,
    ) -> None:
        options = {
            "gamma": gamma,
            "rho": rho,
            "alpha": alpha,
            "alpha_weight": alpha_weight,
            "weight_regularizer": weight_regularizer,
            "state_regularizer": state_regularizer,
            "regularize_bias": regularize_bias,
            "splitting": splitting,
            "order": arguments.order(order),
            "inner_sweeps": inner_sweeps,
        }
        super().__init__(model, loss, loss_weight, options, process_group)

    def bind(
        self,
        x: Tensor,
        y: Targets,
        sample_weight: Tensor | None = None,
        *,
        u: Sequence[Tensor] | None = None,
        v: Sequence[Tensor] | None = None,
        scratch_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> None:
        r"""Keep a full batch and set its U and V by one forward pass ([Z], Section 4), or to what is given.

        The data are copied: what is written into x or y afterwards is not seen.

        With ``scratch_dir`` the copies, U and V are in files there, read and written as they are needed, so that
        they may be larger than memory, as may x and y (``torch.from_file``, or a NumPy memmap through
        ``torch.from_numpy``). The results are the same, to the bit. Every complete sweep is recorded in the
        folder, which a process that is killed, at any moment, leaves at its last one.

        Args:
            x: Inputs, shape (n, d_0), or (n, ...) where the model begins with ``nn.Flatten``.
            y: Targets: class indices, shape (n,), or values of the model's dtype, shape (n, d_N); or, of a
                :class:`torchbcd.losses.MultiOutput`, a tuple of one such tensor for each part.
            sample_weight: Weight of each row's loss, >= 0, shape (n,). None: 1.
            u: What U starts from, one tensor (n, d_i) for each of the N layers (``splitting=3`` only). None:
                :math:`V_{i-1} W_i^\top + 1 b_i^\top`.
            v: What V_1 to V_N start from, likewise, within the bounds of ``state_regularizer``. None:
                :math:`\sigma_i(U_i)`, projected onto those bounds.
            scratch_dir: An existing folder with room for x, y and six arrays (n, d_i) for each layer, which no
                other optimizer uses (on the CPU, without ``process_group``).
                ``step(index=...)``, ``state_dict()`` and copies are refused then; the files stay when the
                optimizer goes. None: memory.
            resume: Where the folder holds a run of the same model, x, y and ``sample_weight``, go on with it:
                the model's weights, U, V and the count of sweeps become those of its last complete sweep, and u
                and v are not used. Options are the optimizer's own. Where it holds none, begin one. False: a
                folder with a run in it is refused.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: A shape does not fit, an entry is NaN or infinite, a class is out of range, or a
                device is not the model's; or ``scratch_dir`` is no folder to write in, is in use, or holds
                another run.
            RuntimeError: The disk has no room; nothing has changed.

        Example:
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            >>> optimizer = BCD(model)
            >>> x, y = torch.randn(16, 4), torch.randn(16, 2)
            >>> optimizer.bind(x, y, v=[torch.zeros(16, 8), y])
            >>> optimizer.variables().U[1].equal(model[2].bias.expand(16, 2))
            True
        """
        with self._refused_by_all():
            weight = arguments.optional_tensor("sample_weight", sample_weight)
            starts = arguments.tensors("u", u), arguments.tensors("v", v)
            folder = arguments.folder("scratch_dir", scratch_dir)
            data = arguments.tensor("x", x), self._targets("y", y)
            library = self._push()
        library.bind(*data, weight, *starts, folder, bool(resume))

    # The base class declares step(closure) alone; a data-taking step is what a block method needs.
    def step(  # type: ignore[override]
        self,
        inputs: Tensor | Closure | None = None,
        targets: Targets | None = None,
        *,
        index: Tensor | None = None,
        sample_weight: Tensor | None = None,
        closure: Closure | None = None,
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
            closure: The same by keyword, as other optimizers take it: returns ``(inputs, targets)``, or None for
                what the other arguments say. One that returns a loss is refused.

        Returns:
            A report on the sweep, whose values are computed when read.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: As for :meth:`bind`; or nothing is bound where data are needed.
            torch.linalg.LinAlgError: A block has no solution in floating point; the message names layer
                and block.
        """
        with self._refused_by_all():
            batch = arguments.batch(inputs, targets, closure, self._targets)
            weight = arguments.optional_tensor("sample_weight", sample_weight)
            if weight is not None and (batch is None or index is not None):
                raise ValueError("the sample_weight of bound rows is given to bind (got one in step)")
            rows = arguments.optional_tensor("index", index)
            library = self._push()
        if rows is not None:
            library.step_rows(rows, *(batch or (None, None)))
        elif batch is not None:
            library.step_batch(*batch, weight)
        else:
            library.step()
        return SweepReport(library.sweeps, _ReportSource(self))

    def objective(self) -> float:
        """The lifted objective at the current point, accumulated in float64.

        The point is that of the bound data, or of the last mini-batch where that was stepped on by
        ``step(x, y)``.

        Raises:
            ValueError: There is no data yet.
        """
        return super().objective()

    def stationarity(self) -> diagnostics.Stationarity:
        """How far the point that :meth:`objective` speaks of is from being critical, block by block.

        See :func:`torchbcd.diagnostics.stationarity` for what is exact.

        Raises:
            ValueError: There is no data yet, or an activation jumps.

        Example:
            >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
            >>> for p in model.parameters():
            ...     _ = nn.init.zeros_(p)
            >>> optimizer = BCD(model, splitting=2)
            >>> optimizer.bind(torch.ones(1, 1), torch.zeros(1, 1))
            >>> optimizer.stationarity().residual, optimizer.stationarity().exact
            (0.0, True)

        Source:
            [Z], Theorem 3.
        """
        self._check_all_rows("this diagnostic")
        return diagnostics.stationarity(*self._problem_and_point(self._push().point()))

    def fit(
        self,
        x: Tensor,
        y: Targets,
        max_sweeps: int = 100,
        tol: float = 1e-3,
        *,
        sample_weight: Tensor | None = None,
        callback: Callable[[SweepReport], object] | None = None,
    ) -> FitResult:
        """Bind the data and sweep until the stationarity residual is at most a tolerance.

        It gets there with ``splitting=3`` where the hypotheses of Theorem 3 hold (docs/theory.md). With
        ``splitting=2`` and a ReLU it need not, however many sweeps there are; and where ``stationarity.exact`` is
        False the residual is a bound of the distance.

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
        count = fitting.check(max_sweeps, tol)
        self._check_all_rows("fit")
        for group in self.param_groups:
            for name in ("weight_regularizer", "state_regularizer"):
                lifted.check_known(group[name], "fit, which stops by the distance from a critical point,")
        self.bind(x, y, sample_weight)
        return fitting.sweep_until(self.step, count, tol, callback)

    def variables(self) -> Variables:
        """Copies of the split variables at the point that :meth:`objective` speaks of.

        Raises:
            ValueError: There is no data yet.
        """
        return Variables(**cast("dict[str, list[Any]]", self._push().variables()))

    def _problem_and_point(self, raw: _C.Point) -> tuple[diagnostics.Problem, diagnostics.Point]:
        """What the diagnostics work on, in float64."""
        if self._model.residual:
            raise ValueError("stationarity and the bound of [Z], Theorem 2, are not computed for a Residual")
        variables = {
            name: [None if t is None else t.double() for t in tensors] for name, tensors in raw.variables.items()
        }
        lists = cast("dict[str, list[Tensor]]", variables)
        penalties = []
        for layer in range(len(lists["W"])):
            gamma, rho, alpha, alpha_weight, weights, states = raw.penalties(layer)
            regularizers = [Regularizer() if r is None else from_numbers(r) for r in (weights, states)]
            penalties.append(diagnostics.Penalties(gamma, rho, alpha, alpha_weight, *regularizers))
        problem = diagnostics.Problem(
            splitting=raw.splitting,
            loss=str(self._loss),
            activations=tuple(self._model.activations),
            penalties=tuple(penalties),
            loss_weight=raw.row_loss_weight,
            y=raw.y.double(),
            row_weight=raw.row_weight.double(),
            trained=tuple((weight, bias) for weight, bias, _ in raw.trained),
            dtype=raw.y.dtype,
            regularize_bias=raw.regularize_bias,
            trained_slopes=frozenset(i for i, (_, _, slope) in enumerate(raw.trained) if slope),
        )
        slopes = [None if slope is None else slope.double() for slope in raw.slopes]
        point = diagnostics.Point(w=lists["W"], b=variables["b"], u=lists["U"], v=lists["V"], slopes=slopes)
        return problem, point


class _ReportSource:
    """Answers a report's questions from the library's object, as long as it stands where the sweep left it."""

    def __init__(self, optimizer: BCD) -> None:
        self._optimizer = optimizer
        self._object = optimizer._object
        self._sweep = self._object.last_sweep

    def terms(self, before: bool) -> _C.ObjectiveTerms:
        return self._object.sweep_terms(self._sweep, before)

    def _point(self, before: bool) -> tuple[diagnostics.Problem, diagnostics.Point, _C.Point]:
        self._optimizer._check_all_rows("this diagnostic")
        raw = self._object.sweep_point(self._sweep, before)
        return *self._optimizer._problem_and_point(raw), raw

    def stationarity(self) -> diagnostics.Stationarity:
        problem, after, _ = self._point(before=False)
        return diagnostics.stationarity(problem, after)

    def descent(self) -> diagnostics.Descent:
        problem, after, raw = self._point(before=False)
        if raw.order == "joint":
            raise ValueError(
                "Lemma 5's bounds are of blocks with proximal terms, which order 'joint' has none of"
            )
        return diagnostics.descent(problem, self._point(before=True)[1], after, raw.blocks)

    def lemma6_subgradient(self) -> diagnostics.Lemma6:
        problem, after, raw = self._point(before=False)
        return diagnostics.lemma6_subgradient(problem, self._point(before=True)[1], after, raw.blocks)
