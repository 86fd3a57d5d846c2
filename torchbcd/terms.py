"""What a regulariser is made of: sums over entries, and those of a weight that know units and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from torch import Tensor

__all__ = ["ProximalTerm", "Regularizer", "WeightRegularizer", "from_numbers", "from_saved", "to_saved"]


@dataclass(frozen=True)
class Regularizer:
    r"""A regulariser :math:`l_1 |x| + \tfrac{l_2}2 x^2` on :math:`[low, high]`; functions here make one.

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
            >>> Regularizer(l2=0.5) + Regularizer(low=0.0)
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
            l1_radius=min(terms.l1_radius for terms in both),
            nonnegative=tuple(sorted({j for terms in both for j in terms.nonnegative})),
            nonpositive=tuple(sorted({j for terms in both for j in terms.nonpositive})),
            monotone=any(terms.monotone for terms in both),
            proximal=_one_of([terms.proximal for terms in both if terms.proximal is not None]),
        )

    @property
    def penalizes(self) -> bool:
        """Whether it is more than constraints."""
        return self.l1 != 0 or self.l2 != 0

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers that the library, state dicts and TorchScript have it by: four where it is of entries."""
        return (self.l1, self.l2, self.low, self.high)


@dataclass(frozen=True)
class ProximalTerm:
    """A term of one's own, as :func:`Proximal` takes it.

    Attributes:
        name: What errors and saved states call it.
        prox: Of a weight and a step.
        value: Of a weight.
    """

    name: str
    prox: Callable[[Tensor, float], Tensor]
    value: Callable[[Tensor], float | Tensor]

    def __deepcopy__(self, memo: dict[int, Any]) -> ProximalTerm:
        """The same: copies of optimizers share functions, which may be none that can be copied."""
        return self


@dataclass(frozen=True)
class WeightRegularizer(Regularizer):
    r"""A regulariser of a layer's weight W, whose rows :math:`w_i` are units and columns :math:`W e_j` inputs.

    .. math::
        \sum_{ij} \Big( l_1 |W_{ij}| + \tfrac{l_2}2 W_{ij}^2 \Big)
        + \lambda_{\text{input}} \sum_j \|W e_j\|_2 + \lambda_{\text{unit}} \sum_i \|w_i\|_2

    on :math:`low \le W_{ij} \le high`, :math:`\|w_i\|_2 \le radius`, :math:`\|w_i\|_1 \le radius_1` and the
    signs of some columns; or a squared norm and a term of one's own.

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
        l1_radius: The most that a row's 1-norm may be, inf for any.
        proximal: A term of one's own (:func:`Proximal`), beside a squared norm at the most.
    """

    by_input: float = 0.0
    by_unit: float = 0.0
    radius: float = inf
    nonnegative: tuple[int, ...] = ()
    nonpositive: tuple[int, ...] = ()
    monotone: bool = False
    l1_radius: float = inf
    proximal: ProximalTerm | None = None

    def __post_init__(self) -> None:
        """Refuse what has no known prox."""
        terms = self.l1 or self.by_input or self.by_unit
        bounds = self.low > -inf or min(self.high, self.radius, self.l1_radius) < inf
        signs = self.nonnegative or self.nonpositive or self.monotone
        if self.proximal and (terms or bounds or signs):
            raise ValueError(
                f"there must be nothing but a squared norm beside {self.proximal.name!r}, whose sum with "
                "anything else has no known prox"
            )

    @property
    def penalizes(self) -> bool:
        """Whether it may be more than constraints."""
        return super().penalizes or self.by_input != 0 or self.by_unit != 0 or self.proximal is not None

    @property
    def has_norms(self) -> bool:
        """Whether it has norms of columns or rows, as terms or as constraints, or may have."""
        radius = min(self.radius, self.l1_radius)
        return self.by_input != 0 or self.by_unit != 0 or radius < inf or self.proximal is not None

    @property
    def numbers(self) -> tuple[float, ...]:
        """Four as for entries; then minus how many follow, norms, radii, whether monotone, and the columns.

        Raises:
            ValueError: There is a term of one's own, which has none.
        """
        if self.proximal:
            raise ValueError(
                "a regulariser of one's own has no numbers, so that TorchScript and the steps that are functions "
                f"cannot hold it (got {self.proximal.name!r})"
            )
        sums = (self.l1_radius,) if self.l1_radius < inf else ()
        flags = float(self.monotone) + 2.0 * len(sums)
        more = (self.by_input, self.by_unit, self.radius, flags, float(len(self.nonnegative)), *sums)
        columns = tuple(float(j) for j in self.nonnegative + self.nonpositive)
        return (*super().numbers, -float(len(more) + len(columns)), *more, *columns)


def from_numbers(numbers: Sequence[float | ProximalTerm]) -> Regularizer:
    """The regulariser that has these ``numbers``, the last of which may be a term of one's own.

    Example:
        >>> from_numbers((0.0, 0.5, 0.0, inf))
        Regularizer(l1=0.0, l2=0.5, low=0.0, high=inf)
    """
    plain = [x for x in numbers if not isinstance(x, ProximalTerm)]
    l1, l2, low, high, *rest = plain
    if len(plain) < len(numbers):
        term = numbers[-1]
        assert isinstance(term, ProximalTerm)
        return WeightRegularizer(l1, l2, low, high, proximal=term)
    if not rest:
        return Regularizer(l1, l2, low, high)
    _, by_input, by_unit, radius, flags, positive, *columns = rest
    l1_radius = columns.pop(0) if flags >= 2 else inf
    inputs = tuple(int(j) for j in columns)
    above, below = inputs[: int(positive)], inputs[int(positive) :]
    monotone = flags in (1, 3)
    return WeightRegularizer(l1, l2, low, high, by_input, by_unit, radius, above, below, monotone, l1_radius)


def to_saved(terms: Regularizer) -> list[float | str]:
    """What a state_dict holds: its numbers; of a term of one's own the name, behind those of the squared norm.

    Example:
        >>> to_saved(Regularizer(l2=0.5))
        [0.0, 0.5, -inf, inf]
    """
    if isinstance(terms, WeightRegularizer) and terms.proximal:
        return [terms.l1, terms.l2, terms.low, terms.high, terms.proximal.name]
    return list(terms.numbers)


def from_saved(saved: Sequence[Any], own: Regularizer | None) -> Regularizer:
    """The reverse, of a layer that has the regulariser ``own``.

    Raises:
        ValueError: There is the name of a term that ``own`` has not.
    """
    if not isinstance(saved[-1], str):
        return from_numbers(saved)
    term = own.proximal if isinstance(own, WeightRegularizer) else None
    if term is None or term.name != saved[-1]:
        raise ValueError(
            "a state has the name of a regulariser of one's own alone: make the optimizer with the one named "
            f"{saved[-1]!r} in that layer (got {term.name if term else None!r})"
        )
    return from_numbers([*saved[:-1], term])


def _one_of(terms: Sequence[ProximalTerm]) -> ProximalTerm | None:
    if len(terms) > 1:
        names = [term.name for term in terms]
        raise ValueError(
            f"there must be one regulariser of one's own: the sum of two has no known prox (got {names})"
        )
    return terms[0] if terms else None


def _of_weights(terms: Regularizer) -> WeightRegularizer | None:
    return terms if isinstance(terms, WeightRegularizer) else None
