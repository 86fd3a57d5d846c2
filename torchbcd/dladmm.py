"""The optimizer of Wang et al. (KDD 2019) that DLAM is compared with: dlADMM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import Tensor, nn

from torchbcd import _C, arguments, losses
from torchbcd.arguments import Closure, PerLayerRegularizer, Targets
from torchbcd.optimizer import SweepOptimizer
from torchbcd.reports import DladmmReport

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["DLADMM", "DladmmVariables"]


class DladmmVariables(NamedTuple):
    """The variables of dlADMM: copies, taken at the last complete sweep.

    Attributes:
        W: Weights; ``W[0]``, shape (d_1, d_0), belongs to the first Linear.
        b: Biases, shape (d_l,), None for a layer without one.
        z: Linear outputs; ``z[0]``, shape (n, d_1), belongs to the first Linear.
        a: States; ``a[0]`` is the data, shape (n, d_0).
        u: The multiplier of the last layer's constraint, shape (n, d_L).
    """

    W: list[Tensor]
    b: list[Tensor | None]
    z: list[Tensor]
    a: list[Tensor]
    u: Tensor


class DLADMM(SweepOptimizer[_C.DLADMM]):
    r"""Trains an MLP by dlADMM: an alternating direction method of multipliers, backward and forward.

    With :math:`a_0 = x` and :math:`q_l = a_{l-1} W_l^\top + 1 b_l^\top`, a sweep works on the augmented
    Lagrangian

    .. math::
        w \sum_{\text{rows}} R(z_L; y) + \sum_l \Omega_l(W_l)
        + \tfrac\nu2 \sum_{l<L} \big( \|z_l - q_l\|_F^2 + \|a_l - h_l(z_l)\|_F^2 \big)
        + \langle u, z_L - q_L \rangle + \tfrac\rho2 \|z_L - q_L\|_F^2,

    over :math:`a_l, z_l, b_l, W_l` from the last layer to the first, over :math:`W_l, b_l, z_l, a_l` from the
    first to the last, and then moves the multiplier, :math:`u \mathrel{+}= \rho (z_L - q_L)`. z and b are
    exact; W and a take gradient steps with line search. Every block lowers the augmented Lagrangian, but the
    multiplier's step raises it by :math:`\rho \|z_L - q_L\|^2`: **the objective is not monotone.** It is here
    to compare with.

    The slope of an ``nn.PReLU``, where it requires gradients, is a block after every :math:`z_l`: the minimiser
    of :math:`\tfrac\nu2 \|a_l - h_l(z_l)\|_F^2`, bound to where it was like one more entry, by
    :math:`\tfrac\nu2 (s - s_k)^2`.

    Args:
        model: As for :class:`torchbcd.BCD`, with no activation after the last Linear.
        loss: R, as for :class:`torchbcd.BCD`.
        rho: Penalty of the last layer's constraint, > 0.
        nu: Penalty of the hidden layers, > 0. None: as rho.
        weight_regularizer: :math:`\Omega_l`, an object of :mod:`torchbcd.regularizers`, or a list with one,
            or None, for each layer.
        loss_weight: :math:`w`, > 0, or "mean" for 1/n.
        process_group: Processes of ``torch.distributed`` that have the rows of the data between them, as for
            :class:`torchbcd.DLAM`. None: this process has all rows.

    ``penalty`` (nu, and rho in the last) and the regularisers live in ``param_groups``, one group for each
    Linear.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``, or an argument has the wrong type.
        ValueError: A module is not supported, or a number is out of range.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 8)
        >>> y = (x[:, 0] > 0).long()
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> optimizer = DLADMM(model, "cross_entropy", rho=0.1)
        >>> optimizer.bind(x, y)
        >>> reports = [optimizer.step() for _ in range(50)]
        >>> bool((model(x).argmax(1) == y).double().mean() > 0.9)
        True

    Source:
        Wang, Yu, Chen, Zhao: ADMM for Efficient Deep Learning with Global Convergence (KDD 2019), Algorithm
        1.
    """

    _object_class = _C.DLADMM

    def __init__(
        self,
        model: nn.Sequential,
        loss: str | losses.Loss = "cross_entropy",
        rho: float = 1e-3,
        nu: float | None = None,
        weight_regularizer: PerLayerRegularizer = None,
        *,
        loss_weight: float | str = 1.0,
        process_group: ProcessGroup | None = None,
    ) -> None:
        options = {"rho": rho, "nu": nu, "weight_regularizer": weight_regularizer}
        super().__init__(model, loss, loss_weight, options, process_group)

    def bind(self, x: Tensor, y: Targets, sample_weight: Tensor | None = None) -> None:
        """Keep a copy of a full batch, set its z and a by one forward pass and the multiplier to zero.

        Args:
            x: Inputs, shape (n, d_0), or (n, ...) where the model begins with ``nn.Flatten``.
            y: Targets, as for :meth:`torchbcd.BCD.bind`.
            sample_weight: Weight of each row's loss, >= 0, shape (n,). None: 1.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: A shape does not fit, an entry is NaN or infinite, a class is out of range, or a
                device is not the model's.
        """
        with self._refused_by_all():
            weight = arguments.optional_tensor("sample_weight", sample_weight)
            data = arguments.tensor("x", x), self._targets("y", y)
            library = self._push()
        library.bind(*data, weight)

    # The base class declares step(closure) alone; a data-taking step is what a block method needs.
    def step(  # type: ignore[override]
        self,
        inputs: Tensor | Closure | None = None,
        targets: Targets | None = None,
        *,
        closure: Closure | None = None,
    ) -> DladmmReport:
        """Run one full sweep over the bound data.

        Args:
            inputs: None; or inputs, or a closure that returns ``(inputs, targets)``, to bind first.
            targets: Targets of the inputs.
            closure: The same by keyword, as other optimizers take it: returns ``(inputs, targets)``, or None for
                what the other arguments say. One that returns a loss is refused.

        Returns:
            A report on the sweep.

        Raises:
            ValueError: As for :meth:`bind`; or nothing is bound.
            torch.linalg.LinAlgError: An update is not finite; the message names layer and block.
        """
        with self._refused_by_all():
            batch = arguments.batch(inputs, targets, closure, self._targets)
        if batch is not None:
            self.bind(*batch)
        with self._refused_by_all():
            library = self._push()
        return DladmmReport(library, library.step())

    def objective(self) -> float:
        """The augmented Lagrangian at the current point, accumulated in float64.

        Raises:
            ValueError: There is no data yet.
        """
        return super().objective()

    def variables(self) -> DladmmVariables:
        """Copies of the variables.

        Raises:
            ValueError: There is no data yet.
        """
        variables = cast("dict[str, list[Any]]", self._push().variables())
        return DladmmVariables(u=variables.pop("u")[0], **variables)
