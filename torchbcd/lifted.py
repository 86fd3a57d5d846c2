"""The lifted objective of Zeng et al. at a point, and the subdifferentials of its terms, in float64.

Activations, losses and regularisers are the library's own (``torch.ops.torchbcd``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torchbcd.losses import outputs_of_parts
from torchbcd.regularizers import Regularizer, WeightRegularizer

__all__ = ["Activation", "Interval", "Penalties", "Point", "Problem"]

Interval = tuple[Tensor, Tensor]
Activation = tuple[str, tuple[float, ...]]

# Made of lines. The others have one slope everywhere.
PIECEWISE_LINEAR = frozenset({"relu", "leaky_relu", "hardtanh", "hardsigmoid", "softshrink"})


@dataclass(frozen=True)
class Penalties:
    """What the objective weighs the terms of one layer with; as in the param groups, resolved."""

    gamma: float
    rho: float
    alpha: float
    alpha_weight: float
    weight_regularizer: Regularizer
    state_regularizer: Regularizer


@dataclass(frozen=True)
class Problem:
    """All of the objective that is no variable."""

    splitting: int
    loss: str
    activations: tuple[Activation, ...]
    penalties: tuple[Penalties, ...]
    loss_weight: float  # of a row of weight one
    y: Tensor
    row_weight: Tensor  # (n, 1) or (1, 1)
    trained: tuple[tuple[bool, bool], ...]  # W and b of each layer: a frozen one is no variable
    dtype: torch.dtype = torch.float64  # that the variables had
    regularize_bias: bool = False  # whether the weights' regulariser covers the bias, too
    trained_slopes: frozenset[int] = frozenset()  # layers, from 0, of whose PReLU the slope is a variable

    @property
    def depth(self) -> int:
        """The number of layers, N."""
        return len(self.penalties)

    def activation(self, i: int, point: Point) -> Activation:
        """That of layer i, counted from 0, with the slope that a PReLU has at the point."""
        slope = point.slopes[i] if point.slopes else None
        return self.activations[i] if slope is None else ("leaky_relu", (float(slope),))


@dataclass(frozen=True)
class Point:
    """Values of the variables, in float64. ``v[0]`` is the data."""

    w: list[Tensor]
    b: list[Tensor | None]
    u: list[Tensor]
    v: list[Tensor]
    slopes: Sequence[Tensor | None] = ()  # of PReLUs, by their layers; empty where there are none

    def product(self, i: int) -> Tensor:
        """V_{i-1} W_i^T + 1 b_i^T of layer i, counted from 0."""
        product = self.v[i] @ self.w[i].t()
        bias = self.b[i]
        return product if bias is None else product + bias

    def product_rounding(self, i: int, dtype: torch.dtype) -> Tensor:
        """How far :meth:`product` may be off: 16 units of `dtype` in the last place of |w_j||v_n| + |b_j|."""
        size = torch.outer(self.v[i].norm(dim=1), self.w[i].norm(dim=1))
        bias = self.b[i]
        return 16 * torch.finfo(dtype).eps * (size if bias is None else size + bias.abs())

    def linear(self, i: int, splitting: int) -> Tensor:
        """What the activation of layer i is applied to."""
        return self.u[i] if splitting == 3 else self.product(i)


def apply(activation: Activation, u: Tensor) -> Tensor:
    """sigma(u)."""
    out = torch.empty_like(u, memory_format=torch.contiguous_format)
    torch.ops.torchbcd.activation_out(u, activation[0], list(activation[1]), out=out)
    return out


def slopes(activation: Activation, u: Tensor, rounding: Tensor) -> Interval:
    """The derivatives of sigma from the left and from the right of what u may be without its rounding.

    They differ where a kink is no further from u than ``rounding``, and nowhere else.

    Raises:
        ValueError: The activation jumps.
    """
    left, right = torch.ops.torchbcd.activation_slopes(u, activation[0], list(activation[1]))
    if activation[0] in PIECEWISE_LINEAR:
        left = torch.ops.torchbcd.activation_slopes(u - rounding, activation[0], list(activation[1]))[0]
        right = torch.ops.torchbcd.activation_slopes(u + rounding, activation[0], list(activation[1]))[1]
    return left, right


class LossSubdifferential(NamedTuple):
    """A set in every row, {g + t segment: low <= g <= high, 0 <= t <= 1}, with one t for all of its entries.

    A loss that is a sum over entries has no segment, one that couples a row's entries no intervals. A loss of
    several parts is such a set in the columns of each, with a t of its own.
    """

    low: Tensor
    high: Tensor
    segment: Tensor
    outputs: Sequence[int] = ()  # of each part, where there are several

    def shortest_with(self, *intervals: Interval) -> Tensor:
        """The element of its sum with intervals that is nearest to zero; inf where one of them is empty."""
        low, high = add((self.low, self.high), *intervals)
        if not self.outputs:
            return self._shortest(low, high, self.segment)
        parts = (torch.split(t, list(self.outputs), 1) for t in (low, high, self.segment))
        return torch.cat(list(map(self._shortest, *parts)), 1)

    @staticmethod
    def _shortest(low: Tensor, high: Tensor, segment: Tensor) -> Tensor:
        def rate(t: Tensor) -> Tensor:
            """Half of what the square of the shortest element's length changes by with t: it never falls."""
            at = shortest(low + t * segment, high + t * segment).masked_fill(low > high, 0)
            return (at * segment).sum(1, keepdim=True)

        zero = torch.zeros_like(segment[:, :1])
        below, above = zero, torch.ones_like(zero)
        if bool(segment.any()):
            for _ in range(64):
                middle = (below + above) / 2
                falls = rate(middle) < 0
                below, above = torch.where(falls, middle, below), torch.where(falls, above, middle)
            # Where all of a row are points the rate is a line.
            fixed = (low == high).all(1, keepdim=True)
            square = segment.square().sum(1, keepdim=True)
            root = torch.where(square > 0, -(low * segment).sum(1, keepdim=True) / square, 0)
            above = torch.where(fixed, root.clamp(0, 1), above)
        return shortest(low + above * segment, high + above * segment)


def loss_subdifferential(
    loss: str, y: Tensor, v: Tensor, weight: Tensor, dtype: torch.dtype
) -> LossSubdifferential:
    """Of the loss in the output, each row times its weight, (n, 1) or (1, 1).

    Of a loss that couples a row's entries a row counts as at a kink where it is no further from it than the
    rounding of ``dtype``, that of the variables.
    """
    unit = torch.finfo(dtype).eps
    low, high, segment = torch.ops.torchbcd.loss_subdifferential(y, v, loss, unit)
    return LossSubdifferential(weight * low, weight * high, weight * segment, outputs_of_parts(loss))


def regularizer_subdifferential(terms: Regularizer, x: Tensor, dtype: torch.dtype) -> Interval:
    """Of a regulariser, entry by entry; from inf to -inf, which is empty, outside its bounds.

    The bounds count as they are in ``dtype``, that of the data: the float32 next to 0.1 lies on a bound of 0.1.
    """
    low, high = torch.ops.torchbcd.regularizer_subdifferential(x, terms.l1, terms.l2, -torch.inf, torch.inf)
    lower, upper = torch.tensor([terms.low, terms.high], dtype=torch.float64).to(dtype).double().tolist()
    low = low.masked_fill((x <= lower) & (terms.low > -torch.inf), -torch.inf)
    high = high.masked_fill((x >= upper) & (terms.high < torch.inf), torch.inf)
    outside = (x < lower) | (x > upper)
    return low.masked_fill(outside, torch.inf), high.masked_fill(outside, -torch.inf)


def norms(terms: Regularizer, w: Tensor) -> float:
    """What the norms of a matrix's columns and rows, or a term of one's own, add to its regulariser."""
    if not isinstance(terms, WeightRegularizer):
        return 0.0
    own = float(terms.proximal.value(w)) if terms.proximal else 0.0
    return float(terms.by_input * w.norm(dim=0).sum() + terms.by_unit * w.norm(dim=1).sum()) + own


def check_known(terms: Regularizer | None, what: str) -> None:
    """Refuse a regulariser of one's own, of whose subdifferential nothing is known.

    Raises:
        ValueError: It is one.
    """
    if isinstance(terms, WeightRegularizer) and terms.proximal:
        raise ValueError(
            f"{what} needs regularisers whose subdifferential the library knows, which it does not of one's own "
            f"(got {terms.proximal.name!r})"
        )


def shortest_of_weight(terms: Regularizer, w: Tensor, gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """The element of a gradient plus a regulariser's subdifferential in W that is nearest to zero; inf outside.

    A column or row of zeros has the ball of its norm's weight as subdifferential, a row that is as long as the
    radius allows, as far as rounding of ``dtype`` can tell, the ray outwards; one whose 1-norm is, the multiples
    of that norm's subdifferential.

    Raises:
        ValueError: The regulariser has a term of one's own.
    """
    check_known(terms, "stationarity")
    low, high = add(regularizer_subdifferential(terms, w, dtype), (gradient, gradient))
    if not isinstance(terms, WeightRegularizer):
        return shortest(low, high)
    for columns, sign in ((terms.nonnegative, 1.0), (terms.nonpositive, -1.0)):
        at = torch.zeros_like(w, dtype=torch.bool)
        at[:, list(columns)] = True
        low = low.masked_fill(at & (sign * w <= 0), -torch.inf) if sign > 0 else low
        high = high.masked_fill(at & (sign * w <= 0), torch.inf) if sign < 0 else high
        outside = at & (sign * w < 0)
        low, high = low.masked_fill(outside, torch.inf), high.masked_fill(outside, -torch.inf)
    zeros = []
    for weight, dim in ((terms.by_input, 0), (terms.by_unit, 1)):
        length = w.norm(dim=dim, keepdim=True)
        point = torch.where(length > 0, weight * w / length, 0)
        low, high = low + point, high + point
        zeros.append((weight, dim, length == 0))
    length = w.norm(dim=1, keepdim=True)
    nearest = shortest(low, high)
    if terms.radius < torch.inf:
        # An entry that is not zero is on no bound, so that its interval is a point.
        outwards = -(torch.where(w != 0, nearest, 0) * w).sum(1, keepdim=True) / length.square()
        touches = length >= terms.radius * (1 - 64 * torch.finfo(dtype).eps)
        times = torch.where(touches, outwards.clamp_min(0), 0)
        nearest = shortest(low + times * w, high + times * w)
        longer = w.to(dtype).norm(dim=1, keepdim=True).double() > terms.radius
        nearest = nearest.masked_fill(longer, torch.inf)
    if terms.l1_radius < torch.inf:
        nearest = _within_sums(terms.l1_radius, w, low, high, dtype)
    for weight, dim, zero in zeros:
        size = nearest.norm(dim=dim, keepdim=True)
        nearest = torch.where(zero, nearest * (1 - weight / size.clamp_min(1e-300)).clamp_min(0), nearest)
    return nearest


def _within_sums(radius: float, w: Tensor, low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest elements to zero of intervals plus the outward cone of rows that have 1-norms up to a radius.

    The cone of a row on the radius is mu times the 1-norm's subdifferential, mu >= 0. The squared length is
    convex in mu, with a slope that rises: its root is bisected.
    """

    def at(mu: Tensor) -> Tensor:
        zero = w == 0
        return shortest(low + torch.where(zero, -mu, w.sign() * mu), high + torch.where(zero, mu, w.sign() * mu))

    def slope(mu: Tensor) -> Tensor:
        nearest = at(mu)
        return torch.where(w == 0, -nearest.abs(), w.sign() * nearest).sum(1, keepdim=True)

    size = w.abs().sum(1, keepdim=True)
    touches = size >= radius * (1 - 64 * torch.finfo(dtype).eps)
    below = torch.zeros_like(size)
    above = torch.where(touches, at(below).abs().amax(1, keepdim=True).nan_to_num(posinf=0.0), 0)
    for _ in range(200):
        middle = (below + above) / 2
        rises = slope(middle) > 0
        below, above = torch.where(rises, below, middle), torch.where(rises, middle, above)
    longer = w.to(dtype).abs().sum(1, keepdim=True).double() > radius
    return at(below).masked_fill(longer, torch.inf)


def shortest(low: Tensor, high: Tensor) -> Tensor:
    """The element of each interval that is nearest to zero; inf where an interval is empty."""
    nearest = low.clamp_min(0) + high.clamp_max(0)
    return nearest.masked_fill(low > high, torch.inf)


def add(*intervals: Interval) -> Interval:
    """The sum of intervals; empty where one of them is."""
    empty = torch.zeros_like(intervals[0][0], dtype=torch.bool)
    low, high = torch.zeros_like(intervals[0][0]), torch.zeros_like(intervals[0][0])
    for below, above in intervals:
        empty |= below > above
        low, high = low + below, high + above
    return low.masked_fill(empty, torch.inf), high.masked_fill(empty, -torch.inf)
