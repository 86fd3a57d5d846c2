r"""Regularisers of weights (:math:`r_i`) and of states (:math:`s_i`).

Pass one to an optimizer's ``weight_regularizer`` or ``state_regularizer``, for all layers or in a list with one
entry, or None, for each layer. They add up: ``L2(0.1) + Nonnegative()``. Biases are regularised by
:class:`torchbcd.BCD` with ``regularize_bias=True`` alone.

:func:`L1`, :func:`L2`, :func:`ElasticNet`, :func:`Nonnegative` and :func:`Box` are sums over entries.
:func:`GroupL1`, :func:`MaxNorm`, :func:`InputSigns` and :class:`Monotone` know which unit and which input an
entry belongs to, and are of weights alone. :func:`Proximal` makes one of functions of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from operator import index

from torch import Tensor

from torchbcd.terms import ProximalTerm, Regularizer, WeightRegularizer
from torchbcd.terms import from_numbers as from_numbers

__all__ = [
    "L1",
    "L2",
    "Box",
    "ElasticNet",
    "GroupL1",
    "InputSigns",
    "MaxNorm",
    "Monotone",
    "Nonnegative",
    "Proximal",
    "ProximalTerm",
    "Regularizer",
    "WeightRegularizer",
]


@dataclass(frozen=True)
class Monotone:
    r"""Have every output of a net rise with some inputs and fall with others, whatever the weights are.

    Passed as ``weight_regularizer`` it is one regulariser for each layer: in the first, the columns of the inputs
    ``increasing`` are >= 0 and those of ``decreasing`` are <= 0; in all others :math:`W \ge 0`. Activations must
    never fall, which the optimizers check: SiLU, a leaky ReLU with a negative slope and polynomials that fall
    somewhere are refused.

    Then a hidden unit is a sum, with weights >= 0, of functions that never fall with those inputs, in a function
    that never falls: it never falls either, and so on up to the outputs, near data and far from it. Inputs in
    neither list are free. docs/constraints.md has what such a net can represent: with ReLU, convex functions
    alone.

    Add what else each layer is to have: ``Monotone([0]) + GroupL1(0.1)``.

    Args:
        increasing: Inputs, from 0, that no output may fall with.
        decreasing: Inputs that no output may rise with.

    Raises:
        TypeError: An input is not a whole number.
        ValueError: There is none, one is negative, or one is in both lists.

    Example:
        >>> import torch, torchbcd
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> x = torch.rand(200, 2)
        >>> y = x[:, :1] ** 2 - x[:, 1:] + 0.1 * torch.randn(200, 1)
        >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
        >>> signs = torchbcd.regularizers.Monotone(increasing=[0], decreasing=[1])
        >>> optimizer = torchbcd.RelaxedBCD(model, weight_regularizer=signs)
        >>> reports = optimizer.fit(x, y, epochs=20, batch_size=50)
        >>> bool((model[0].weight[:, 0] >= 0).all() and (model[2].weight >= 0).all())
        True

    Source:
        Archer and Wang, Application of the Back Propagation Neural Network Algorithm with Monotonicity
        Constraints (1993); Daniels and Velikova, Monotone and Partially Monotone Neural Networks (2010).
    """

    increasing: Sequence[int] = ()
    decreasing: Sequence[int] = ()
    others: Regularizer = field(default_factory=Regularizer, repr=False)

    def __post_init__(self) -> None:
        """Check the inputs, and keep them as tuples."""
        signs = InputSigns(self.increasing, self.decreasing)
        object.__setattr__(self, "increasing", signs.nonnegative)
        object.__setattr__(self, "decreasing", signs.nonpositive)

    def __add__(self, other: Regularizer) -> Monotone:
        """The same with a further regulariser on each layer."""
        if not isinstance(other, Regularizer):
            return NotImplemented
        return replace(self, others=self.others + other)

    __radd__ = __add__

    def of_layers(self, depth: int) -> list[Regularizer]:
        """What each of ``depth`` layers has.

        Example:
            >>> Monotone([0]).of_layers(2)[1]
            Regularizer(l1=0.0, l2=0.0, low=0.0, high=inf)
        """
        first = replace(InputSigns(self.increasing, self.decreasing), monotone=True)
        return [first + self.others, *[Nonnegative() + self.others for _ in range(depth - 1)]]


def _weight(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number (got {value!r})")
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and >= 0 (got {value})")
    return float(value)


def L2(weight: float) -> Regularizer:  # noqa: N802 (the names of the field)
    r"""Squared norm, :math:`\tfrac\lambda2 \|W\|_F^2` (weight decay). Blocks keep their closed form.

    Args:
        weight: :math:`\lambda \ge 0`.
    """
    return Regularizer(l2=_weight("weight", weight))


def L1(weight: float) -> Regularizer:  # noqa: N802
    r"""1-norm, :math:`\lambda \|W\|_1`. Entries come out exactly zero.

    Args:
        weight: :math:`\lambda \ge 0`.
    """
    return Regularizer(l1=_weight("weight", weight))


def ElasticNet(l1: float, l2: float) -> Regularizer:  # noqa: N802
    r"""Elastic net, :math:`\lambda_1 \|W\|_1 + \tfrac{\lambda_2}2 \|W\|_F^2`.

    Args:
        l1: :math:`\lambda_1 \ge 0`.
        l2: :math:`\lambda_2 \ge 0`.
    """
    return Regularizer(l1=_weight("l1", l1), l2=_weight("l2", l2))


def Nonnegative() -> Regularizer:  # noqa: N802
    r"""Indicator of the half space :math:`W \ge 0`: infinite where an entry is negative."""
    return Regularizer(low=0.0)


def Box(low: float = 0.0, high: float = 1.0) -> Regularizer:  # noqa: N802
    r"""Indicator of an interval: infinite where an entry is not in :math:`[low, high]`.

    Args:
        low: Lower bound, -inf for none.
        high: Upper bound, inf for none.
    """
    if not low <= high:
        raise ValueError(f"low must be at most high (got {low} and {high})")
    return Regularizer(low=float(low), high=float(high))


def GroupL1(weight: float, by: str = "input") -> WeightRegularizer:  # noqa: N802
    r"""Group lasso, :math:`\lambda \sum_g \|W_g\|_2` over columns or rows of W, which come out exactly zero.

    A column of zeros is an input that the layer does not read: a feature, or a unit of the layer before, that
    :func:`torchbcd.prune_zeros` takes out. A row of zeros is a unit that reads nothing. The bias is in no group.

    Args:
        weight: :math:`\lambda \ge 0`.
        by: "input" for columns, "unit" for rows.

    Raises:
        TypeError: The weight is not a number.
        ValueError: The weight is negative or not finite, or ``by`` is something else.

    Example:
        >>> GroupL1(0.1, by="unit").by_unit
        0.1

    Source:
        Yuan and Lin, Model Selection and Estimation in Regression with Grouped Variables (2006).
    """
    if by not in ("input", "unit"):
        raise ValueError(f"by must be 'input' or 'unit' (got {by!r})")
    value = _weight("weight", weight)
    return WeightRegularizer(by_input=value) if by == "input" else WeightRegularizer(by_unit=value)


def MaxNorm(radius: float, p: int = 2) -> WeightRegularizer:  # noqa: N802
    r"""Indicator of :math:`\|w_i\|_p \le r` for every row of W: infinite where a unit's weights are longer.

    It holds to the bit as ``weight.norm(p, dim=1) <= radius`` measures it in the weights' own dtype, and in
    float64; with p = 1 as ``weight.abs().sum(dim=1)`` does, too. Then a unit's product moves by r times the
    largest move of an input at the most, and rows on the bound have exact zeros, as with :func:`L1`.

    Args:
        radius: r > 0.
        p: 2, or 1, which goes with no norm of units beside it.

    Raises:
        TypeError: The radius is not a number.
        ValueError: It is not positive, or not finite; or p is neither.

    Example:
        >>> MaxNorm(2.0).radius, MaxNorm(3.0, p=1).l1_radius
        (2.0, 3.0)

    Source:
        The nearest point of the 1-norm's ball: Duchi, Shalev-Shwartz, Singer and Chandra, Efficient Projections
        onto the l1-Ball for Learning in High Dimensions (2008).
    """
    if not _weight("radius", radius) > 0:
        raise ValueError(f"radius must be > 0 (got {radius})")
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2 (got {p!r})")
    return WeightRegularizer(radius=float(radius)) if p == 2 else WeightRegularizer(l1_radius=float(radius))


def Proximal(  # noqa: N802
    name: str,
    prox: Callable[[Tensor, float], Tensor],
    value: Callable[[Tensor], float | Tensor],
) -> WeightRegularizer:
    r"""A regulariser of one's own, r(W): any function whose prox one can compute.

    .. math:: \text{prox}(W, t) \in \operatorname*{argmin}_Z\; r(Z) + \tfrac1{2t} \|Z - W\|_F^2

    r may be of all of W at once, not convex, and infinite outside a set that weights then stay in. W blocks
    minimise their quadratic plus r by accelerated proximal gradients, and keep a point only where ``value`` says
    that it is lower: no block raises the objective, whatever ``prox`` returns. What it returns that is worse than
    its argument, in the sum above, is an error. A weight that a W block has moved is an answer of ``prox``, to
    the bit.

    ``L2`` may be added, nothing else. It is for ``weight_regularizer`` of :class:`torchbcd.BCD`, with
    ``splitting=2`` in layers without an activation, and of :class:`torchbcd.RelaxedBCD`; and, as s(V) of all rows
    together, for ``state_regularizer`` of :class:`torchbcd.BCD` with ``splitting=3`` and data in memory, in the
    last layer where the loss has a Lipschitz gradient. Not with ``process_group``. Both functions are called in
    the middle of steps, on the thread that steps, without gradients; they may look at the optimizer, not change
    it. What they raise ends the step, which then has changed nothing. A ``state_dict`` holds the name alone, and
    loads into an optimizer that was made with a regulariser of that name; TorchScript objects cannot hold one,
    but a scripted function can be ``prox`` or ``value``.

    Args:
        name: What errors and saved states call it.
        prox: Called with a weight of the layer's shape, dtype and device, a copy, and the step t > 0; returns
            such a tensor. Where there are several minimisers, any.
        value: Called with a weight in float64, whatever the layer's dtype, so that sums keep their digits;
            returns r there: a number, a tensor of one, or inf. Finite at all that ``prox`` returns, with a
            tolerance of its dtype's rounding where r tests a constraint.

    Raises:
        TypeError: The name is no str, or one of the others no function.
        ValueError: The name is empty.

    Example:
        Rows that are probabilities: non-negative, with sum 1.

        >>> import torch, torchbcd
        >>> from torch import nn
        >>> def prox(w, step):
        ...     u = w.sort(dim=1, descending=True).values
        ...     shares = (u.cumsum(1) - 1) / torch.arange(1, w.shape[1] + 1, dtype=w.dtype)
        ...     last = (u > shares).sum(1, keepdim=True) - 1
        ...     return (w - shares.gather(1, last)).clamp_min(0)
        >>> def value(w):
        ...     inside = (w >= 0).all() and ((w.sum(1) - 1).abs() < 1e-5).all()
        ...     return 0.0 if inside else float("inf")
        >>> model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> simplex = torchbcd.regularizers.Proximal("simplex", prox, value)
        >>> optimizer = torchbcd.BCD(model, weight_regularizer=[simplex, None])
        >>> optimizer.bind(torch.randn(30, 5), torch.randint(3, (30,)))
        >>> report = optimizer.step()
        >>> bool((model[0].weight.sum(1) - 1).abs().max() < 1e-5)
        True

    Source:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems (2009);
        Li and Lin, Accelerated Proximal Gradient Methods for Nonconvex Programming (2015), for the test of every
        point.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str (got {name!r})")
    if not name:
        raise ValueError("name must not be empty (got '')")
    for what, function in (("prox", prox), ("value", value)):
        if not callable(function):
            raise TypeError(f"{what} must be a function (got {function!r})")
    return WeightRegularizer(proximal=ProximalTerm(name, prox, value))


def InputSigns(  # noqa: N802
    nonnegative: Iterable[int] = (), nonpositive: Iterable[int] = ()
) -> WeightRegularizer:
    r"""Indicator of signs of columns: :math:`W e_j \ge 0` for some inputs j of a layer, :math:`\le 0` for others.

    Args:
        nonnegative: Inputs, from 0.
        nonpositive: Likewise.

    Raises:
        TypeError: An input is not a whole number.
        ValueError: There is none, one is negative, or one is in both lists.

    Example:
        >>> InputSigns([0, 3], [1]).nonnegative
        (0, 3)
    """
    above, below = (
        _inputs("increasing (or nonnegative)", nonnegative),
        _inputs("decreasing (or nonpositive)", nonpositive),
    )
    if not above and not below:
        raise ValueError("there must be an input that has a sign (got none)")
    if both := set(above) & set(below):
        raise ValueError(f"an input must have one sign (got two for {sorted(both)})")
    return WeightRegularizer(nonnegative=above, nonpositive=below)


def _inputs(name: str, values: Iterable[int]) -> tuple[int, ...]:
    try:
        inputs = {index(j) for j in values if not isinstance(j, bool) or index(None)}  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a list of inputs, whole numbers (got {values!r})") from None
    if any(j < 0 for j in inputs):
        raise ValueError(f"{name} must be inputs >= 0 (got {sorted(inputs)})")
    return tuple(sorted(inputs))
