r"""The shortest vector of a set :math:`\{c + A\xi + \eta\}` over a box of :math:`\xi` and one of :math:`\eta`.

That is what the distance of zero from a subdifferential is where multipliers are shared: a bounded least-squares
problem. Multipliers of :math:`\eta`, one an entry, are eliminated.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from torchbcd.lifted import Interval, shortest

__all__ = ["BoxedLeastNorm", "LeastNorm"]

ACCURACY = 1e-10  # of a norm, relative
NODES = 64  # of branch and bound, at the most
PRODUCTS = 20_000  # with A, at the most, after which what is being done is the last


class LeastNorm(NamedTuple):
    """A norm; and whether it is the least, to 1e-9 of it or 1e-12 of what cancels in it.

    Else it is a lower bound, where branch and bound was left, or the norm at some xi, where the descent was.
    """

    value: float
    exact: bool


class _Minimum(NamedTuple):
    xi: Tensor
    value: float  # the norm at xi
    bound: float  # that of no xi is lower


class BoxedLeastNorm:
    r"""min over :math:`\xi` in [0, width] of the norm of the shortest vector in [low + A xi, high + A xi].

    Args:
        interval: low and high, as one vector each; ends may be infinite, none may be empty.
        forward: A.
        adjoint: Its transpose.
        width: Upper bounds, > 0.
        start: A guess in [0, width].
        ends: Where xi may be 0 or its width alone.
        groups: A number for each multiplier: those of different numbers enter different entries.
        matrix: A itself, where it is small enough to be solved with.

    Found by projected gradient steps and, between them, projected Newton steps over the entries and multipliers
    that are not held by a bound, each by
    conjugate gradients or, with a matrix, directly; until the duality gap
    :math:`\langle\xi, t\rangle - \min_{\xi'} \langle\xi', t\rangle`, t the gradient, says that the norm is right.
    Branch and bound over ``ends``, until so many nodes that only a lower bound is left.
    """

    def __init__(
        self,
        interval: Interval,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
        width: Tensor,
        start: Tensor,
        ends: Tensor,
        groups: Tensor,
        matrix: Tensor | None = None,
    ) -> None:
        self._low, self._high = interval
        self._forward, self._adjoint = forward, adjoint
        self._width, self._start, self._ends, self._groups = width, start, ends, groups
        self._matrix = matrix
        self._products = 0
        self._rigid = self._low == self._high
        terms = torch.where(self._low.isfinite(), self._low, 0).norm() + forward(width).norm()
        self._rounding = 1e-13 * float(terms)

    def solve(self) -> LeastNorm:
        """The least norm."""
        zero = torch.zeros_like(self._width)
        root = self._minimise(zero, self._width, self._start)
        if not bool(self._ends.any()):
            return LeastNorm(root.value, self._accurate(root))
        order = count()  # breaks ties
        nodes = [(root.bound, next(order), zero, self._width, root)]
        best, exact = torch.inf, True
        for _ in range(NODES):
            bound, _, lower, upper, node = nodes[0]
            if best <= bound * (1 + ACCURACY) + self._rounding:
                break
            heapq.heappop(nodes)
            rounded = torch.where(node.xi > self._width / 2, self._width, zero)
            inside = torch.minimum(node.xi, self._width - node.xi) / self._width
            inside = inside * (self._ends & (lower < upper))
            fixed = torch.where(self._ends, rounded, lower), torch.where(self._ends, rounded, upper)
            leaf = self._minimise(*fixed, node.xi.clamp(*fixed))
            best, exact = min(best, leaf.value), exact and self._accurate(leaf)
            if best > bound * (1 + ACCURACY) + self._rounding and bool(inside.any()):
                k = int(inside.argmax())
                for end in (zero, self._width):
                    below, above = lower.clone(), upper.clone()
                    below[k] = above[k] = end[k]
                    child = self._minimise(below, above, node.xi.clamp(below, above))
                    heapq.heappush(nodes, (max(child.bound, bound), next(order), below, above, child))
            if not nodes:
                return LeastNorm(best, exact)
        least = nodes[0][0]
        done = best <= least * (1 + ACCURACY) + self._rounding
        return LeastNorm(best if done else least, done and exact)

    def _accurate(self, minimum: _Minimum) -> bool:
        return minimum.value <= minimum.bound * (1 + 1e-9) + 10 * self._rounding

    def _residual(self, xi: Tensor) -> Tensor:
        self._products += 1
        image = self._forward(xi)
        return shortest(self._low + image, self._high + image)

    def _minimise(self, lower: Tensor, upper: Tensor, xi: Tensor) -> _Minimum:
        r = self._residual(xi)
        step, bound = 0.0, 0.0
        norm = float(r.norm())
        for iteration in count():
            t = self._adjoint(r)
            square = float(r @ r)
            norm = square**0.5
            if norm <= self._rounding:
                return _Minimum(xi, norm, 0.0)
            gap = float((xi * t - torch.minimum(lower * t, upper * t)).sum())
            bound = max(bound, norm - max(gap, 0.0) / norm)
            if gap <= ACCURACY * square or self._products > PRODUCTS:
                break
            if iteration % 4 == 3:
                xi, r = self._newton(lower, upper, xi, r, t)
                step = 0.0
                continue
            if step <= 0:
                image = self._forward(t)
                step = float(t @ t) / max(float(image @ image), 1e-300)
            moved, new_r = self._descend(lower, upper, xi, step, t, r)
            difference = moved - xi
            curvature = float(difference @ (self._adjoint(new_r) - t))
            step = float(difference @ difference) / curvature if curvature > 0 else 0.0
            xi, r = moved, new_r
        return _Minimum(xi, norm, bound)

    def _descend(
        self, lower: Tensor, upper: Tensor, xi: Tensor, step: float, t: Tensor, r: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A projected gradient step, halved until the square falls as Armijo asks."""
        square = float(r @ r)
        for _ in range(30):
            moved = torch.maximum(torch.minimum(xi - step * t, upper), lower)
            new_r = self._residual(moved)
            if float(new_r @ new_r) <= square + 1e-4 * float(t @ (moved - xi)):
                return moved, new_r
            step = step / 2
        return xi, r

    def _newton(self, lower: Tensor, upper: Tensor, xi: Tensor, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Least-squares steps of the free multipliers: projected, or of each group up to its first bound."""
        held = ((xi <= lower) & (t >= 0)) | ((xi >= upper) & (t <= 0))
        for _ in range(50):
            d = self._least_squares(~held, r)
            room = torch.where(d > 0, upper - xi, lower - xi) / d
            room = room.masked_fill(d == 0, torch.inf).clamp_min(0)
            nearest = torch.ones(len(room), dtype=room.dtype, device=room.device)
            first = nearest.scatter_reduce(0, self._groups, room, "amin")[self._groups]
            stopped = torch.where((room <= first) & (d != 0), torch.where(d > 0, upper, lower), xi + first * d)
            projected = torch.maximum(torch.minimum(xi + d, upper), lower)
            free = bool((first == 1).all())
            trials = [(x, self._residual(x)) for x in ([projected] if free else [projected, stopped])]
            moved, new_r = min(trials, key=lambda trial: float(trial[1] @ trial[1]))
            if float(new_r @ new_r) > float(r @ r) * (1 + 1e-15):
                break
            xi, r = moved, new_r
            if free:
                break
            held = held | (xi <= lower) | (xi >= upper)
        return xi, r

    def _least_squares(self, free: Tensor, r: Tensor) -> Tensor:
        """The step of the free multipliers that makes r shortest, over the entries whose interval lacks zero."""
        rows = self._rigid | (r != 0)
        if self._matrix is not None:
            self._products += 1
            d = torch.zeros_like(self._width)
            if bool(rows.any()) and bool(free.any()):
                system = self._matrix[rows][:, free].cpu(), -r[rows].cpu()[:, None]
                d[free] = torch.linalg.lstsq(*system, driver="gelsd").solution[:, 0].to(d.device)
            return d
        d, left = torch.zeros_like(self._width), r
        s = self._adjoint(r) * free
        direction, norm = -s, float(s @ s)
        first = norm
        for _ in range(min(2 * int(free.sum()) + 5, 500)):
            if norm <= 1e-24 * first or norm == 0:
                break
            self._products += 1
            image = self._forward(direction) * rows
            a = norm / max(float(image @ image), 1e-300)
            d = d + a * direction
            left = left + a * image
            s = self._adjoint(left * rows) * free
            previous, norm = norm, float(s @ s)
            direction = -s + norm / previous * direction
        return d
