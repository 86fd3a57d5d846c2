r"""Losses of the output layer, as objects to pass to an optimizer's ``loss`` argument, or by name.

Every loss is a sum over rows, of which ``loss_weight`` takes a multiple or the mean; ``sample_weight`` weighs
the rows. Integer targets of shape (n,) are class indices. For squared loss, Huber's, quantiles, Poisson's and
cross-entropy they become one-hot rows; for both hinges, logistic and exponential loss one class against the rest,
+1 and -1, and with a single output the classes 0 and 1 become -1 and +1; for binary cross-entropy likewise, 1 and
0. In TorchScript and C++ a loss is its name and, in parentheses, its numbers: ``str(loss)``.

:class:`MultiOutput` is several of them, each of outputs of its own.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Exponential",
    "Hinge",
    "Huber",
    "Logistic",
    "Loss",
    "MultiOutput",
    "Poisson",
    "Quantile",
    "RowHinge",
    "Squared",
    "resolve",
]


@dataclass(frozen=True)
class Loss:
    """A loss the library knows; one of the classes below.

    Args:
        reduction: "sum" over rows, or "mean", the paper's 1/n. ``loss_weight`` multiplies either.

    Raises:
        ValueError: ``reduction`` is something else.
    """

    name: ClassVar[str]  # the library's name of the loss

    reduction: str = "sum"

    def __post_init__(self) -> None:
        """Check the reduction."""
        if self.reduction not in ("sum", "mean"):
            raise ValueError(f"reduction must be 'sum' or 'mean' (got {self.reduction!r})")

    def __str__(self) -> str:
        """The loss as TorchScript and C++ have it, its reduction aside."""
        numbers = self._numbers()
        return f"{self.name}({', '.join(map(repr, numbers))})" if numbers else self.name

    def _numbers(self) -> tuple[float, ...]:
        return ()


@dataclass(frozen=True)
class Squared(Loss):
    r"""Squared loss, :math:`\tfrac12 \|v - y\|^2` a row."""

    name: ClassVar[str] = "squared"


@dataclass(frozen=True)
class Hinge(Loss):
    r"""Hinge loss, :math:`\sum_c \max(0, 1 - y_c v_c)` a row (Zeng et al., Lemma 10)."""

    name: ClassVar[str] = "hinge"


@dataclass(frozen=True)
class RowHinge(Loss):
    r"""Hinge of a row's whole output, :math:`\max(0, 1 - y^\top v)` (Zeng et al., proof of Theorem 1, (a3))."""

    name: ClassVar[str] = "row_hinge"


@dataclass(frozen=True)
class Logistic(Loss):
    r"""Logistic loss, :math:`\sum_c \log(1 + e^{-y_c v_c})` a row."""

    name: ClassVar[str] = "logistic"


@dataclass(frozen=True)
class Exponential(Loss):
    r"""Exponential loss, :math:`\sum_c e^{-y_c v_c}` a row."""

    name: ClassVar[str] = "exponential"


@dataclass(frozen=True)
class Huber(Loss):
    r"""Huber's loss with :math:`\delta = 1`, as ``nn.HuberLoss``.

    The sum over c of :math:`\tfrac12 (v_c - y_c)^2` where :math:`|v_c - y_c| \le 1`, and of
    :math:`|v_c - y_c| - \tfrac12` beyond.
    """

    name: ClassVar[str] = "huber"


@dataclass(frozen=True)
class Quantile(Loss):
    r"""Quantile loss, or pinball loss: the net learns the quantile of level :math:`\tau` of the targets.

    .. math:: \sum_c \max\bigl(\tau (y_c - v_c),\ (\tau - 1)(y_c - v_c)\bigr) \quad\text{a row}

    With :math:`\tau = \tfrac12` it is half the absolute difference, half of ``nn.L1Loss``, and the net learns the
    median. Its blocks are closed forms: an output moves by :math:`(1 - \tau)/\gamma` down or by
    :math:`\tau/\gamma` up, and no further than its target.

    Args:
        tau: The level, between 0 and 1, neither of them.
        reduction: "sum" over rows, or "mean".

    Targets are numbers, shape (n, d), or (n,) for one output.

    Raises:
        ValueError: ``tau`` or ``reduction`` is something else.

    Example:
        >>> import torchbcd
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> y = x.sin() + 0.1 * torch.randn(40, 1)
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torchbcd.BCD(model, torchbcd.losses.Quantile(0.9), alpha=0.1)
        >>> optimizer.bind(x, y)
        >>> before = optimizer.objective()
        >>> optimizer.step().objective < before
        True

    Source:
        Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978).
    """

    name: ClassVar[str] = "quantile"

    tau: float = 0.5
    reduction: str = field(default="sum", kw_only=True)

    def __post_init__(self) -> None:
        """Check the level and the reduction."""
        super().__post_init__()
        if not 0 < self.tau < 1:
            raise ValueError(f"tau must be between 0 and 1 (got {self.tau!r})")
        object.__setattr__(self, "tau", float(self.tau))

    def _numbers(self) -> tuple[float, ...]:
        return () if self.tau == 0.5 else (self.tau,)


@dataclass(frozen=True)
class Poisson(Loss):
    r"""Poisson's negative log-likelihood of counts, with outputs that are logarithms of rates.

    .. math:: \sum_c e^{v_c} - y_c v_c \quad\text{a row}

    It is ``nn.PoissonNLLLoss(reduction="sum")`` with the other defaults, ``log_input=True`` and ``full=False``:
    :math:`\log y!` is left out, so that the sum may be negative. ``model(x).exp()`` are the rates.

    Args:
        reduction: "sum" over rows, or "mean".

    Targets are numbers >= 0, shape (n, d), or (n,) for one output: counts as floating-point numbers, or rates.

    Raises:
        ValueError: ``reduction`` is something else. An optimizer raises one for a negative target, and for
            integers with one output, which would be class indices.

    Example:
        >>> import torchbcd
        >>> x = torch.linspace(0, 2, 40)[:, None]
        >>> counts = torch.poisson(x.exp())
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> optimizer = torchbcd.RelaxedBCD(model, "poisson")
        >>> reports = optimizer.fit(x, counts, epochs=3, batch_size=10)
        >>> bool((model(x).exp() > 0).all())
        True

    Source:
        Nelder and Wedderburn, "Generalized linear models" (1972), with the logarithm as link.
    """

    name: ClassVar[str] = "poisson"


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    r"""Binary cross-entropy of logits with targets from 0 to 1, one for each output.

    .. math:: \sum_c \log(1 + e^{v_c}) - y_c v_c
        = -\sum_c y_c \log p_c + (1 - y_c) \log(1 - p_c), \quad p_c = \frac1{1 + e^{-v_c}}, \quad\text{a row}

    It is ``nn.BCEWithLogitsLoss(reduction="sum")``. With targets 0 and 1 it is ``"logistic"`` with -1 and 1;
    those between them, soft labels, it takes as torch does. With several outputs each is a question of its own,
    as for several labels a row.

    Args:
        reduction: "sum" over rows, or "mean", 1/n of it: ``nn.BCEWithLogitsLoss()`` divides by the outputs too.

    Targets are numbers from 0 to 1, shape (n, d), or (n,) for one output; or class indices, shape (n,): 0 and 1,
    False and True, for one output, and for several 1 at the class and 0 elsewhere.

    Raises:
        ValueError: ``reduction`` is something else. An optimizer raises one for a target below 0 or above 1.

    Example:
        >>> import torchbcd
        >>> x = torch.randn(40, 2)
        >>> y = (x[:, 0] > x[:, 1]).float()
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torchbcd.BCD(model, "binary_cross_entropy", alpha=0.1)
        >>> optimizer.bind(x, y)
        >>> torch_loss = torch.nn.BCEWithLogitsLoss(reduction="sum")(model(x)[:, 0], y)
        >>> torch.allclose(torch_loss, torch.tensor(optimizer.objective()))
        True

    Source:
        Cox, "The regression analysis of binary sequences" (1958).
    """

    name: ClassVar[str] = "binary_cross_entropy"


@dataclass(frozen=True)
class CrossEntropy(Loss):
    r"""Softmax cross-entropy, with label smoothing and weights of classes.

    .. math:: -\sum_c w_c \Bigl((1 - s)\, t_c + \frac sC\Bigr) \log \mathrm{softmax}(v)_c \quad\text{a row}

    It is ``nn.CrossEntropyLoss(weight, label_smoothing=s, reduction="sum")``: both change the targets alone, and
    cost a sweep nothing. "mean" is 1/n of it, where torch's "mean" of class indices divides by the sum of the
    rows' weights :math:`w_{y}`: a ``loss_weight`` of one over that sum is the same.

    Args:
        reduction: "sum" over rows, or "mean", 1/n of that.
        label_smoothing: :math:`s`, from 0 to 1.
        weight: :math:`w`, a number >= 0 for each of the C classes, not all 0: a list, or a tensor of shape (C,).
            None: 1 each.

    Targets :math:`t` are class indices, or non-negative numbers, such as probabilities, shape (n, C).

    Raises:
        ValueError: An argument is out of its range. An optimizer raises one where there are not as many weights
            as outputs, for a negative target, and for a class that is not there.

    Example:
        >>> import torchbcd
        >>> x, y = torch.randn(40, 4), torch.randint(3, (40,))
        >>> weight = torch.tensor([1.0, 1.0, 5.0])
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> loss = torchbcd.losses.CrossEntropy(label_smoothing=0.1, weight=weight)
        >>> str(loss)
        'cross_entropy(0.1, 1.0, 1.0, 5.0)'
        >>> optimizer = torchbcd.BCD(model, loss, alpha=0.1)
        >>> optimizer.bind(x, y)
        >>> torch_loss = torch.nn.CrossEntropyLoss(weight, label_smoothing=0.1, reduction="sum")(model(x), y)
        >>> torch.allclose(torch_loss, torch.tensor(optimizer.objective()))
        True

    Source:
        Szegedy et al., "Rethinking the Inception architecture" (2016), Section 7, for the smoothing.
    """

    name: ClassVar[str] = "cross_entropy"

    label_smoothing: float = 0.0
    weight: Iterable[float] | None = None

    def __post_init__(self) -> None:
        """Check the numbers; the weights are kept as a tuple."""
        super().__post_init__()
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be between 0 and 1 (got {self.label_smoothing!r})")
        object.__setattr__(self, "label_smoothing", float(self.label_smoothing))
        if self.weight is not None:
            weight = torch.as_tensor(
                self.weight if isinstance(self.weight, Tensor) else list(self.weight), dtype=torch.float64
            )
            if weight.dim() != 1 or not (weight.isfinite() & (weight >= 0)).all() or not (weight > 0).any():
                raise ValueError(
                    "weight must hold a finite number >= 0 for each class, not all of them 0 "
                    f"(got {weight.tolist()})"
                )
            object.__setattr__(self, "weight", tuple(weight.tolist()))

    def _numbers(self) -> tuple[float, ...]:
        weight = tuple(self.weight or ())
        return (self.label_smoothing, *weight) if weight or self.label_smoothing else ()


@dataclass(frozen=True)
class MultiOutput(Loss):
    r"""Several losses, each of outputs of its own: a class and a number, say, from one net.

    .. math:: R(V; Y) = \sum_k w_k\, \ell_k(V_k; Y_k), \qquad V = [V_1 \dots V_K]

    Part k has the next :math:`d_k` columns of the last layer's outputs. R is separable over the parts, so that
    each block that asks for R's prox, gradient or value asks each part's by itself, exactly as where the part is
    the only loss. ``sample_weight`` and ``loss_weight`` weigh all parts alike. It is what other frameworks call
    a multi-output model, with their ``loss_weights``.

    Args:
        parts: At least two, in the order of the outputs: tuples of the number of outputs :math:`d_k`, the loss,
            a name or an object of this module, and, where it is not 1, its weight :math:`w_k > 0`.
        reduction: "sum" over rows, or "mean". The parts' own reductions are to be "sum".

    Targets are a tuple of one tensor for each part, as that part's loss takes them: class indices (n,), or values
    (n, d_k), or (n,) where that is one. Or they are one tensor of values (n, d_N), whose columns are the parts',
    with a class as a one-hot row; that is what a tuple becomes. A ``DataLoader`` for
    :meth:`torchbcd.RelaxedBCD.fit` gives pairs of inputs and such targets, or inputs and the parts' tensors one
    after the other, as one over ``TensorDataset(x, y1, y2)`` does.

    Losses are compared by their size: a part whose loss is large moves the hidden layers more. Give numbers a
    scale of about one, or their part a weight. :class:`torchbcd.RelaxedBCD` clamps outputs to their targets for
    the squared loss alone; a squared part beside others goes by its prox, halfway there with
    ``output_penalty=1`` and weight one.

    Raises:
        TypeError: A part is no such tuple, or its loss no loss.
        ValueError: There are fewer than two parts, a number of outputs or a weight is not > 0, a part has a
            reduction of its own or parts of its own, or ``reduction`` is something else. An optimizer raises one
            where the parts have not as many outputs as the last layer, or the tuple not as many tensors.

    Example:
        >>> import torchbcd
        >>> x, y = torch.randn(60, 4), torch.randint(3, (60,))
        >>> size = x.norm(dim=1)
        >>> loss = torchbcd.losses.MultiOutput([(3, "cross_entropy"), (1, torchbcd.losses.Quantile(0.9), 0.5)])
        >>> str(loss)
        'multi_output(3: cross_entropy, 1: 0.5 * quantile(0.9))'
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
        >>> optimizer = torchbcd.RelaxedBCD(model, loss)
        >>> reports = optimizer.fit(x, (y, size), epochs=3, batch_size=20)
        >>> classes, sizes = model(x).split([3, 1], dim=1)
        >>> classes.argmax(1).shape, sizes.shape
        (torch.Size([60]), torch.Size([60, 1]))

    Source:
        Caruana, "Multitask learning", Machine Learning 28 (1997).
    """

    name: ClassVar[str] = "multi_output"

    parts: Sequence[tuple[int, str | Loss] | tuple[int, str | Loss, float]] = ()
    reduction: str = field(default="sum", kw_only=True)

    def __post_init__(self) -> None:
        """Check the parts; they are kept as tuples of outputs, loss and weight."""
        super().__post_init__()
        if isinstance(self.parts, str) or not isinstance(self.parts, Iterable):
            raise TypeError(f"parts must be a list of tuples (got {self.parts!r})")
        parts = tuple(map(_checked_part, self.parts))
        if len(parts) < 2:
            raise ValueError(f"parts must be at least two (got {len(parts)})")
        object.__setattr__(self, "parts", parts)

    def __str__(self) -> str:
        """The loss as TorchScript and C++ have it, its reduction aside."""
        checked = cast("tuple[tuple[int, Loss, float], ...]", self.parts)
        texts = [f"{outputs}: {'' if w == 1 else f'{w!r} * '}{loss}" for outputs, loss, w in checked]
        return f"{self.name}({', '.join(texts)})"


def _checked_part(part: object) -> tuple[int, Loss, float]:
    if not isinstance(part, tuple | list) or len(part) not in (2, 3):
        raise TypeError(f"a part must be a tuple of outputs, loss and, if any, weight (got {part!r})")
    try:
        outputs = operator.index(part[0])
        weight = float(part[2]) if len(part) == 3 else 1.0
    except (TypeError, ValueError):
        raise TypeError(f"a part must be a tuple of a whole number, a loss and a number (got {part!r})") from None
    loss = resolve(part[1])
    if outputs < 1:
        raise ValueError(f"a part must have at least one output (got {outputs})")
    if not (weight > 0 and math.isfinite(weight)):
        raise ValueError(f"the weight of a part must be finite and > 0 (got {part[2]!r})")
    if isinstance(loss, MultiOutput):
        raise ValueError("a part must be a loss of its own, not a MultiOutput again")
    if loss.reduction != "sum":
        raise ValueError(f"the reduction is that of all parts; a part's must be 'sum' (got {loss.reduction!r})")
    return outputs, loss, weight


_LOSSES = (
    Squared,
    Hinge,
    RowHinge,
    Logistic,
    Exponential,
    Huber,
    Quantile,
    Poisson,
    BinaryCrossEntropy,
    CrossEntropy,
)
_BY_NAME: dict[str, type[Loss]] = {loss.name: loss for loss in _LOSSES}


def resolve(loss: str | Loss) -> Loss:
    """The loss object that a name, or a loss object, stands for.

    Raises:
        ValueError: There is no loss of that name.
        TypeError: ``loss`` is neither a string nor a loss object.
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss must be a name or a torchbcd.losses object (got {loss!r})")
    if loss not in _BY_NAME:
        raise ValueError(f"loss must be one of {', '.join(map(repr, _BY_NAME))} (got {loss!r})")
    return _BY_NAME[loss]()


def outputs_of_parts(loss: str) -> list[int]:
    """How many outputs each part of a loss has, by its text; none where it is one of all outputs."""
    return [int(outputs) for outputs in re.findall(r"(\d+): ", loss)]


def row_losses(loss: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of every row, shape (n, 1), for a loss's text and targets as the optimizers encode them."""
    losses: Tensor = torch.ops.torchbcd.row_losses(targets, outputs, loss)
    return losses
