r"""How far a point is from being critical for the lifted objective: dist(0, dL).

For Algorithm 2 the subdifferential is a product over entries. For Algorithm 1 it is not: where a product
:math:`u = V_{i-1} W_i^\top + 1 b_i^\top` lies on a kink of a piecewise linear :math:`\sigma_i`, the penalty
:math:`\tfrac\gamma2 (v - \sigma(u))^2` has an interval of slopes, or two, and the multiplier that is taken from
it goes into the gradients of :math:`W_i`, :math:`b_i` and :math:`V_{i-1}` alike. The distance is then a bounded
least-squares problem (:mod:`torchbcd.boxed_least_norm`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from torchbcd.boxed_least_norm import BoxedLeastNorm, LeastNorm
from torchbcd.lifted import (
    Interval,
    Point,
    Problem,
    add,
    apply,
    check_known,
    loss_subdifferential,
    regularizer_subdifferential,
    shortest,
    shortest_of_weight,
    slopes,
)

__all__ = ["Stationarity", "stationarity"]

DENSE = 500_000  # entries of a unit's matrix, up to which it is solved with directly


class Stationarity(NamedTuple):
    """Distances of zero from the partial subdifferentials, one for each layer, and from the whole one.

    Attributes:
        weight: Of W and b.
        u: Of U; empty where U is no variable (two splittings).
        v: Of V.
        slope: Of the slope of a PReLU; 0 in layers where none is trained.
        residual: The distance of zero from the subdifferential of the objective. With two splittings and
            products on kinks it may be more than the blocks' distances make together: there each block takes the
            multipliers that suit it, here one multiplier for a product serves all.
        exact: Whether all of these are the distances; they are lower bounds where this is False (see
            :func:`stationarity`).
    """

    weight: list[float]
    u: list[float]
    v: list[float]
    slope: list[float]
    residual: float
    exact: bool


def stationarity(problem: Problem, point: Point) -> Stationarity:
    r"""How far a point is from being critical: dist(0, dL) ([Z], Theorem 3), and the same block by block.

    Of the limiting subdifferential, as [Z] has it, in float64:

    * Regularisers and losses count with their whole subdifferential. Outside a regulariser's bounds, which are
      those of the data's dtype, it is empty, and the distance infinite.
    * Algorithm 2: at a kink of an activation the penalty's subdifferential in U is the interval between its two
      slopes where these rise, and the two slopes where they fall. **Exact**, whatever the point, up to rounding.
    * Algorithm 1: a product counts as on a kink of relu, leaky_relu, hardtanh or hardsigmoid where it is no
      further from it than rounding: 16 units of the variables' own dtype in the last place of
      :math:`|w_j| |v_n| + |b_j|`. Its multiplier there is taken from that interval, or those two slopes.
      ``weight`` and ``v`` are distances from partial subdifferentials: each block has multipliers of its own.
      ``residual`` has one for each product, which enters W_i, b_i and V_{i-1}. **Exact**, to 1e-9 of it, where
      the slopes rise at every such kink: the penalty is then regular, and the chain rule an equality. Where they
      fall at one, the chain rule may be an inclusion alone: the numbers are lower bounds, and ``exact`` is False.

    Only a critical point has the distance 0, where it is exact. That the sweeps make it small is proved for
    Algorithm 2, under the hypotheses of ``docs/theory.md``. For Algorithm 1 with a ReLU it is false: what the
    sweeps tend to need not be critical.

    Raises:
        ValueError: An activation jumps.
    """
    found = _of_three(problem, point) if problem.splitting == 3 else _of_two(problem, point)
    for i in range(problem.depth):
        w, (low, high) = point.w[i], _of_bias(problem, point, i)
        terms = problem.penalties[i].weight_regularizer
        weight = shortest_of_weight(terms, w, torch.zeros_like(w), problem.dtype)
        if bool(weight.isinf().any() or (low > high).any()):  # of a frozen weight, too: the objective is infinite
            return found._replace(residual=inf)
    return found


def _norm(*intervals: Interval) -> float:
    return float(shortest(*add(*intervals)).norm())


def _at(gradient: Tensor) -> Interval:
    return gradient, gradient


def _of_states(problem: Problem, point: Point, i: int) -> Interval:
    """The part of the subdifferential in V_i, i counted from 0, that is of its own layer's penalties."""
    penalties = problem.penalties[i]
    v = point.v[i + 1]
    gap = apply(problem.activation(i, point), point.linear(i, problem.splitting)) - v
    check_known(penalties.state_regularizer, "stationarity")
    of_regularizer = regularizer_subdifferential(penalties.state_regularizer, v, problem.dtype)
    return add(_at(-penalties.gamma * gap), of_regularizer)


def _of_output(problem: Problem, point: Point) -> float:
    """The distance in V_N, which no penalty of a next layer enters."""
    weight = problem.loss_weight * problem.row_weight
    loss = loss_subdifferential(problem.loss, problem.y, point.v[-1], weight, problem.dtype)
    return float(loss.shortest_with(_of_states(problem, point, problem.depth - 1)).norm())


def _of_weight(problem: Problem, point: Point, i: int) -> Interval:
    return regularizer_subdifferential(problem.penalties[i].weight_regularizer, point.w[i], problem.dtype)


def _of_bias(problem: Problem, point: Point, i: int) -> Interval:
    """Of b_i: zero where the regulariser does not cover it, or there is none."""
    bias = point.b[i]
    if bias is None or not problem.regularize_bias:
        return _at(torch.zeros_like(point.w[i][:, 0]))
    return regularizer_subdifferential(problem.penalties[i].weight_regularizer, bias, problem.dtype)


def _multipliers(problem: Problem, point: Point, i: int, rounding: Tensor) -> Interval:
    """The slopes of layer i's penalty in what its activation is applied to, from the left and the right."""
    linear = point.linear(i, problem.splitting)
    sigma = problem.activation(i, point)
    gap = apply(sigma, linear) - point.v[i + 1]
    left, right = slopes(sigma, linear, rounding)
    # Where the gap itself is rounding there is no kink: both slopes of the square are zero.
    left = torch.where(gap.abs() <= rounding * torch.maximum(left.abs(), right.abs()), right, left)
    gamma = problem.penalties[i].gamma
    return gamma * gap * left, gamma * gap * right


def _of_slopes(problem: Problem, point: Point) -> list[float]:
    """The derivatives in the slopes of PReLUs, which kinks leave alone: there U is zero."""

    def of_layer(i: int) -> float:
        linear = point.linear(i, problem.splitting)
        gap = apply(problem.activation(i, point), linear) - point.v[i + 1]
        return problem.penalties[i].gamma * abs(float((gap * linear.clamp_max(0)).sum()))

    return [of_layer(i) if i in problem.trained_slopes else 0.0 for i in range(problem.depth)]


def _of_three(problem: Problem, point: Point) -> Stationarity:
    weight, u, v = [], [], []
    unit = torch.finfo(problem.dtype).eps
    pulls = [problem.penalties[i].rho * (point.product(i) - point.u[i]) for i in range(problem.depth)]
    for i, pull in enumerate(pulls):
        # A bound of a hardtanh in the data's dtype, too, is a kink.
        u.append(_distance_at_kinks(-pull, *_multipliers(problem, point, i, unit * point.u[i].abs())))
        terms = problem.penalties[i].weight_regularizer
        of_weight, of_bias = problem.trained[i]
        bias = _norm(_at(pull.sum(0)), _of_bias(problem, point, i)) if of_bias else 0.0
        nearest = shortest_of_weight(terms, point.w[i], pull.t() @ point.v[i], problem.dtype)
        weight.append(sqrt((float(nearest.norm()) if of_weight else 0.0) ** 2 + bias**2))
        if i + 1 == problem.depth:
            v.append(_of_output(problem, point))
        else:
            v.append(_norm(_of_states(problem, point, i), _at(pulls[i + 1] @ point.w[i + 1])))
    slope = _of_slopes(problem, point)
    residual = sqrt(sum(d * d for part in (weight, u, v, slope) for d in part))
    return Stationarity(weight, u, v, slope, residual, True)


def _distance_at_kinks(affine: Tensor, at_left: Tensor, at_right: Tensor) -> float:
    a, b = affine + at_left, affine + at_right
    inside = (at_left <= at_right) & (a <= 0) & (b >= 0)
    return float(torch.where(inside, 0, torch.minimum(a.abs(), b.abs())).norm())


def _of_two(problem: Problem, point: Point) -> Stationarity:
    output = _of_output(problem, point)
    weight, v, squares, exact = [], [output], [output**2], True
    for i in reversed(range(problem.depth)):
        rounding = point.product_rounding(i, problem.dtype)
        left, right = _multipliers(problem, point, i, rounding)
        layer = _Layer(problem, point, i, left, right)
        of_weight = layer.distance(weight=True, states=False)
        weight.append(of_weight.value)
        found = [of_weight]
        if i > 0:
            found.append(layer.distance(weight=False, states=True))
            v.append(found[-1].value)
        found.append(layer.distance(weight=True, states=i > 0))
        squares.append(found[-1].value ** 2)
        exact = exact and all(each.exact for each in found) and not bool((left > right).any())
    slope = _of_slopes(problem, point)
    squares += [d * d for d in slope]
    return Stationarity(weight[::-1], [], v[::-1], slope, sqrt(sum(squares)), exact)


@dataclass(frozen=True)
class _Layer:
    """The penalty of layer i as a function of W_i, b_i and V_{i-1}, which no other layer's multipliers enter."""

    problem: Problem
    point: Point
    i: int
    left: Tensor
    right: Tensor

    def distance(self, weight: bool, states: bool) -> LeastNorm:
        """Of zero from the partial subdifferential in the weight and the bias, in V_{i-1}, or in both."""
        base = torch.where(self.left == self.right, self.right, torch.minimum(self.left, self.right))
        v, w = self.point.v[self.i], self.point.w[self.i]
        trained, of_bias = self.problem.trained[self.i] if weight else (False, False)
        parts: list[Interval] = []
        if trained:
            parts.append(add(_at(base.t() @ v), _of_weight(self.problem, self.point, self.i)))
        if of_bias:
            parts.append(add(_at(base.sum(0)), _of_bias(self.problem, self.point, self.i)))
        if states:
            parts.append(add(_at(base @ w), _of_states(self.problem, self.point, self.i - 1)))
        if not parts:
            return LeastNorm(0.0, True)
        low, high = (torch.cat([part[end].flatten() for part in parts]) for end in (0, 1))
        kinks = self.left != self.right
        if bool((low > high).any()) or not bool(kinks.any()):
            return LeastNorm(float(shortest(low, high).norm()), True)
        return self._with_kinks(parts, kinks, base, trained, of_bias, states)

    def _with_kinks(
        self, parts: list[Interval], kinks: Tensor, base: Tensor, trained: bool, of_bias: bool, states: bool
    ) -> LeastNorm:
        """Where a kink's multiplier is the least slope plus xi, in [0, how much the slopes differ]."""
        rows, units = kinks.any(1), kinks.any(0)
        # What no kink is part of is out of reach of the multipliers.
        touched = [units] * (trained + of_bias) + [rows] * states
        both = list(zip(parts, touched, strict=True))
        fixed = sum(float(shortest(low[~t], high[~t]).square().sum()) for (low, high), t in both)
        low, high = ([part[end][t] for part, t in both] for end in (0, 1))
        left, right, least = (t[rows][:, units] for t in (self.left, self.right, base))
        width = (left - right).abs()
        start = torch.minimum((-least).clamp_min(0), width)  # the slope nearest to zero
        v, w = self.point.v[self.i][rows], self.point.w[self.i][units]
        reached = _Reached(low, high, v, w, kinks[rows][:, units], width, start, left > right, trained, of_bias)
        found = [reached.with_states()] if states else reached.units()
        value = sqrt(sum(part.value**2 for part in found) + fixed)
        return LeastNorm(value, all(part.exact for part in found))


@dataclass(frozen=True)
class _Reached:
    """Rows and units of a layer that have kinks: what their multipliers add to, by parts (W, b, V_{i-1})."""

    low: list[Tensor]
    high: list[Tensor]
    v: Tensor
    w: Tensor
    where: Tensor  # the kinks; the next three are of its shape
    width: Tensor
    start: Tensor
    falling: Tensor  # two slopes, and nothing between them
    trained: bool
    of_bias: bool

    def units(self) -> list[LeastNorm]:
        """Of W and b alone: a unit's kinks enter its own row, so that each has a problem of its own."""
        columns = [self.v] * self.trained + [torch.ones_like(self.v[:, :1])] * self.of_bias
        a = torch.cat(columns, 1).t()
        found = []
        for j in range(self.where.shape[1]):
            at = self.where[:, j]
            given = self.width[at, j], self.start[at, j], self.falling[at, j]
            one_group = torch.zeros_like(at[at], dtype=torch.int64)
            mine = a[:, at].contiguous()
            matrix = mine if mine.numel() <= DENSE else None
            interval = _vector(self.low, j), _vector(self.high, j)
            found.append(BoxedLeastNorm(interval, mine.mv, mine.t().mv, *given, one_group, matrix).solve())
        return found

    def with_states(self) -> LeastNorm:
        """Of V_{i-1} alone, where a row's kinks enter its own states, or of all three."""
        trained, of_bias, where, v, w = self.trained, self.of_bias, self.where, self.v, self.w
        sizes = [part.numel() for part in self.low]

        def forward(xi: Tensor) -> Tensor:
            slopes = torch.zeros(where.shape, dtype=xi.dtype, device=xi.device)
            slopes[where] = xi
            images = [(slopes.t() @ v).flatten()] if trained else []
            images += [slopes.sum(0)] if of_bias else []
            return torch.cat([*images, (slopes @ w).flatten()])

        def adjoint(r: Tensor) -> Tensor:
            pieces = list(torch.split(r, sizes))
            pulled = pieces.pop().view(v.shape) @ w.t()
            if of_bias:
                pulled += pieces.pop()
            if trained:
                pulled += v @ pieces.pop().view(w.shape).t()
            return pulled[where]

        groups = torch.zeros_like(where, dtype=torch.int64)
        if not (trained or of_bias):
            groups += torch.arange(len(where), device=where.device)[:, None]
        given = self.width[where], self.start[where], self.falling[where], groups[where]
        interval = _vector(self.low), _vector(self.high)
        return BoxedLeastNorm(interval, forward, adjoint, *given).solve()


def _vector(parts: list[Tensor], j: int | None = None) -> Tensor:
    """Of all of them, or of the j-th row of each."""
    return torch.cat([(part if j is None else part[j]).flatten() for part in parts])
