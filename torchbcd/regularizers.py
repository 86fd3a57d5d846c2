r"""Regularisers of weights (:math:`r_i`) and of states (:math:`s_i`).

Pass one to an optimizer's ``weight_regularizer`` or ``state_regularizer``, for all layers or in a list with one
entry, or None, for each layer. They add up: ``L2(0.1) + Nonnegative()``. Biases are regularised by
:class:`torchbcd.BCD` with ``regularize_bias=True`` alone.

:func:`L1`, :func:`L2`, :func:`ElasticNet`, :func:`Nonnegative` and :func:`Box` are sums over entries.
:func:`GroupL1`, :func:`MaxNorm`, :func:`InputSigns` and :class:`Monotone` know which unit and which input an entry
belongs to, and are of weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from operator import index

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
    "Regularizer",
    "WeightRegularizer",
]


@dataclass(frozen=True)
class Regularizer:
    r"""A regulariser :math:`l_1 |x| + \tfrac{l_2}2 x^2` on :math:`[low, high]`; the functions below make one.

    Attributes:
        l1: Weight of the 1-norm.
        l2: Weight of the squared norm.
        low: Lower bound of the entries, -inf for none.
        high: Upper bound of the entries, inf for none.
    """

    l1: float = 0.0
    l2: float = 0.0
    low: float = -inf
    high: float = inf

    def __add__(self, other: Regularizer) -> Regularizer:
        """The sum of the two: weights add up, intervals intersect.

        Raises:
            ValueError: The intervals have nothing in common.

        Example:
            >>> L2(0.5) + Nonnegative()
            Regularizer(l1=0.0, l2=0.5, low=0.0, high=inf)
        """
        if not isinstance(other, Regularizer):
            return NotImplemented
        low, high = max(self.low, other.low), min(self.high, other.high)
        if low > high:
            raise ValueError(f"the intervals of the two must meet (got {self} and {other})")
        l1, l2 = self.l1 + other.l1, self.l2 + other.l2
        mine, others = _of_weights(self), _of_weights(other)
        if mine is None and others is None:
            return Regularizer(l1, l2, low, high)
        both = [terms for terms in (mine, others) if terms is not None]
        return WeightRegularizer(
            l1,
            l2,
            low,
            high,
            by_input=sum(terms.by_input for terms in both),
            by_unit=sum(terms.by_unit for terms in both),
            radius=min(terms.radius for terms in both),
            nonnegative=tuple(sorted({j for terms in both for j in terms.nonnegative})),
            nonpositive=tuple(sorted({j for terms in both for j in terms.nonpositive})),
            monotone=any(terms.monotone for terms in both),
        )

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers that the library, state dicts and TorchScript have it by: four where it is of entries."""
        return (self.l1, self.l2, self.low, self.high)


@dataclass(frozen=True)
class WeightRegularizer(Regularizer):
    r"""A regulariser of a layer's weight W, whose rows :math:`w_i` are units and columns :math:`W e_j` inputs.

    .. math::
        \sum_{ij} \Big( l_1 |W_{ij}| + \tfrac{l_2}2 W_{ij}^2 \Big)
        + \lambda_{\text{input}} \sum_j \|W e_j\|_2 + \lambda_{\text{unit}} \sum_i \|w_i\|_2

    on :math:`low \le W_{ij} \le high`, :math:`\|w_i\|_2 \le radius` and the signs of some columns.

    Attributes:
        l1: Weight of the 1-norm.
        l2: Weight of the squared norm.
        low: Lower bound of the entries, -inf for none; -inf or 0 beside norms.
        high: Upper bound of the entries, inf for none; 0 or inf beside norms.
        by_input: Weight of the columns' norms.
        by_unit: Weight of the rows' norms.
        radius: The most that a row's norm may be, inf for any.
        nonnegative: Inputs, from 0, whose columns must be >= 0.
        nonpositive: Inputs whose columns must be <= 0.
        monotone: Whether every output of the net has to be monotone in these inputs (:class:`Monotone`).
    """

    by_input: float = 0.0
    by_unit: float = 0.0
    radius: float = inf
    nonnegative: tuple[int, ...] = ()
    nonpositive: tuple[int, ...] = ()
    monotone: bool = False

    @property
    def numbers(self) -> tuple[float, ...]:
        """Four as for entries; then minus how many follow, norms, radius, whether monotone, and the columns."""
        more = (self.by_input, self.by_unit, self.radius, float(self.monotone), float(len(self.nonnegative)))
        columns = tuple(float(j) for j in self.nonnegative + self.nonpositive)
        return (*super().numbers, -float(len(more) + len(columns)), *more, *columns)


def from_numbers(numbers: Sequence[float]) -> Regularizer:
    """The regulariser that has these ``numbers``.

    Example:
        >>> from_numbers(MaxNorm(2.0).numbers) == MaxNorm(2.0)
        True
    """
    if len(numbers) == 4:
        return Regularizer(*numbers)
    by_input, by_unit, radius, monotone, positive, *columns = numbers[5:]
    inputs = [int(j) for j in columns]
    signs = tuple(inputs[: int(positive)]), tuple(inputs[int(positive) :])
    return WeightRegularizer(*numbers[:4], by_input, by_unit, radius, *signs, bool(monotone))


def _of_weights(terms: Regularizer) -> WeightRegularizer | None:
    return terms if isinstance(terms, WeightRegularizer) else None


@dataclass(frozen=True)
class Monotone:
    r"""Have every output of a net rise with some inputs and fall with others, whatever the weights are.

    Passed as ``weight_regularizer`` it is one regulariser for each layer: in the first, the columns of the inputs
    ``increasing`` are >= 0 and those of ``decreasing`` are <= 0; in all others :math:`W \ge 0`. Activations must
    never fall, which the optimizers check: SiLU, a leaky ReLU with a negative slope and polynomials that fall
    somewhere are refused.

    Then :math:`\partial v_k / \partial x_j` is a sum of products of weights and slopes along the paths from input j
    to output k, and in each product the first weight has the input's sign and all other factors are >= 0. It
    takes no derivatives: a composition of functions that never fall never falls. Inputs in neither list are
    free. docs/constraints.md has what such a net can represent.

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
    r"""Group lasso, :math:`\lambda \sum_g \|W_g\|_2` over the columns or the rows of W, which come out exactly zero.

    A column of zeros is an input that the layer does not read: a feature, or a unit of the layer before, that
    :func:`torchbcd.prune_zeros` takes out. A row of zeros is a unit that reads nothing. The bias is in no group.

    Args:
        weight: :math:`\lambda \ge 0`.
        by: "input" for columns, "unit" for rows.

    Example:
        >>> GroupL1(0.1, by="unit").by_unit
        0.1

    Source:
        Yuan and Lin, Model Selection and Estimation in Regression with Grouped Variables (2006).
    """
    if by not in ("input", "unit"):
        raise ValueError(f"by must be 'input' or 'unit' (got {by!r})")
    return WeightRegularizer(**{f"by_{by}": _weight("weight", weight)})


def MaxNorm(radius: float) -> WeightRegularizer:  # noqa: N802
    r"""Indicator of :math:`\|w_i\|_2 \le r` for every row of W: infinite where a unit's weights are longer.

    It holds to the bit as ``weight.norm(dim=1) <= radius`` measures it in the weights' own dtype, and in float64.

    Args:
        radius: r > 0.

    Example:
        >>> MaxNorm(2.0).radius
        2.0
    """
    if not _weight("radius", radius) > 0:
        raise ValueError(f"radius must be > 0 (got {radius})")
    return WeightRegularizer(radius=float(radius))


def InputSigns(  # noqa: N802
    nonnegative: Iterable[int] = (), nonpositive: Iterable[int] = ()
) -> WeightRegularizer:
    r"""Indicator of signs of columns: :math:`W e_j \ge 0` for some inputs j of a layer, :math:`\le 0` for others.

    Args:
        nonnegative: Inputs, from 0.
        nonpositive: Likewise.

    Example:
        >>> InputSigns([0, 3], [1]).nonnegative
        (0, 3)
    """
    above, below = _inputs("increasing (or nonnegative)", nonnegative), _inputs("decreasing (or nonpositive)", nonpositive)
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
