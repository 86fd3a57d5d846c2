r"""The convergence theory of Zeng et al. as numbers that a user can look at.

Two inequalities carry the proof that the sequence of sweeps converges ([Z], Theorem 3): every sweep lowers the
objective by at least a multiple of the squared distance moved (Lemma 5), and the objective has a subgradient no
longer than a multiple of the distance moved (Lemma 6). :func:`descent` measures the first, block by block, with
the constants that hold; :func:`lemma6_subgradient` evaluates the second; :func:`stationarity` measures what
both are about, the distance of zero from the subdifferential. :func:`linear_rate` fits the rate that Wang et
al. prove for mDLAM.

All but the last are computed in float64 from copies of the variables, at the cost of a few products with each
weight. What of the paper's constants holds and what does not is in ``docs/theory.md``.

References:
    [Z] Zeng, Lau, Lin, Yao: Global Convergence of Block Coordinate Descent in Deep Learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from torchbcd.linear_rate import LinearRate, linear_rate
from torchbcd.losses import row_losses
from torchbcd.regularizers import Regularizer

__all__ = [
    "BlockDescent",
    "Descent",
    "Lemma6",
    "LinearRate",
    "Penalties",
    "Point",
    "Problem",
    "Stationarity",
    "descent",
    "lemma6_subgradient",
    "linear_rate",
    "stationarity",
]

Interval = tuple[Tensor, Tensor]


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
    activations: tuple[tuple[str, tuple[float, ...]], ...]
    penalties: tuple[Penalties, ...]
    loss_weight: float  # of a row of weight one
    y: Tensor
    row_weight: Tensor  # (n, 1) or (1, 1)
    trained: tuple[tuple[bool, bool], ...]  # W and b of each layer: a frozen one is no variable

    @property
    def depth(self) -> int:
        """The number of layers, N."""
        return len(self.penalties)


@dataclass(frozen=True)
class Point:
    """Values of the variables, in float64. ``v[0]`` is the data."""

    w: list[Tensor]
    b: list[Tensor | None]
    u: list[Tensor]
    v: list[Tensor]

    def product(self, i: int) -> Tensor:
        """V_{i-1} W_i^T + 1 b_i^T of layer i, counted from 0."""
        product = self.v[i] @ self.w[i].t()
        bias = self.b[i]
        return product if bias is None else product + bias

    def linear(self, i: int, splitting: int) -> Tensor:
        """What the activation of layer i is applied to."""
        return self.u[i] if splitting == 3 else self.product(i)


def _apply(activation: tuple[str, tuple[float, ...]], u: Tensor) -> Tensor:
    out = torch.empty_like(u, memory_format=torch.contiguous_format)
    torch.ops.torchbcd.activation_out(u, activation[0], list(activation[1]), out=out)
    return out


def _slopes(activation: tuple[str, tuple[float, ...]], u: Tensor) -> Interval:
    """The derivatives of sigma from the left and from the right; ValueError where it jumps."""
    slopes: Interval = torch.ops.torchbcd.activation_slopes(u, activation[0], list(activation[1]))
    return slopes


def _loss_subdifferential(problem: Problem, v: Tensor) -> Interval:
    low, high = torch.ops.torchbcd.loss_subdifferential(problem.y, v, problem.loss)
    weight = problem.loss_weight * problem.row_weight
    return weight * low, weight * high


def _regularizer_subdifferential(terms: Regularizer, x: Tensor) -> Interval:
    ends: Interval = torch.ops.torchbcd.regularizer_subdifferential(x, *terms.numbers)
    return ends


def _distance(gradient: Tensor, *subdifferentials: Interval) -> float:
    """The norm of the shortest element of gradient + the sum of the intervals."""
    low, high = gradient, gradient
    for below, above in subdifferentials:
        low, high = low + below, high + above
    return float(torch.maximum(low.clamp_min(0), (-high).clamp_min(0)).norm())


class Stationarity(NamedTuple):
    """Distances of zero from the partial subdifferentials, one for each layer.

    Attributes:
        weight: Of W and b.
        u: Of U; empty where U is no variable (two splittings).
        v: Of V.
    """

    weight: list[float]
    u: list[float]
    v: list[float]

    @property
    def residual(self) -> float:
        """The distance of zero from the subdifferential of the objective."""
        return sqrt(sum(d * d for part in self for d in part))


def stationarity(problem: Problem, point: Point) -> Stationarity:
    """How far a point is from being critical: dist(0, dL) ([Z], Theorem 3), exactly, block by block.

    At a kink of the activation where the penalty's two slopes span a convex subdifferential, that whole
    interval counts; where they do not (the limiting subdifferential then holds the two slopes alone), the
    better of the two.
    """
    weight, u_parts, v_parts = [], [], []
    for i, penalties in enumerate(problem.penalties):
        linear = point.linear(i, problem.splitting)
        gap = _apply(problem.activations[i], linear) - point.v[i + 1]
        left, right = _slopes(problem.activations[i], linear)
        at_left, at_right = penalties.gamma * gap * left, penalties.gamma * gap * right
        if problem.splitting == 3:
            affine = penalties.rho * (linear - point.product(i))
            convex = _distance_at_kinks(affine, at_left, at_right)
            u_parts.append(convex)
            outward = -affine  # the derivative of the affine penalty along the product
        else:
            outward = at_right
        regularizer = _regularizer_subdifferential(penalties.weight_regularizer, point.w[i])
        of_weight, of_bias = problem.trained[i]
        distance = _distance(outward.t() @ point.v[i], regularizer) if of_weight else 0.0
        bias = outward.sum(0).norm().item() if of_bias else 0.0
        weight.append(sqrt(distance**2 + bias**2))
        states = -penalties.gamma * gap
        intervals = [_regularizer_subdifferential(penalties.state_regularizer, point.v[i + 1])]
        if i + 1 == problem.depth:
            intervals.append(_loss_subdifferential(problem, point.v[-1]))
        else:
            states = states + _pull_of_next_layer(problem, point, i + 1)
        v_parts.append(_distance(states, *intervals))
    return Stationarity(weight, u_parts, v_parts)


def _distance_at_kinks(affine: Tensor, at_left: Tensor, at_right: Tensor) -> float:
    a, b = affine + at_left, affine + at_right
    convex = at_left <= at_right
    inside = convex & (a <= 0) & (b >= 0)
    nearest = torch.minimum(a.abs(), b.abs())
    return float(torch.where(inside, torch.zeros_like(nearest), nearest).norm())


def _pull_of_next_layer(problem: Problem, point: Point, i: int) -> Tensor:
    """The gradient of layer i's penalty with respect to its inputs."""
    penalties = problem.penalties[i]
    if problem.splitting == 3:
        return penalties.rho * (point.product(i) - point.u[i]) @ point.w[i]
    product = point.product(i)
    gap = _apply(problem.activations[i], product) - point.v[i + 1]
    return (penalties.gamma * gap * _slopes(problem.activations[i], product)[1]) @ point.w[i]


class BlockDescent(NamedTuple):
    """What one block of a sweep did.

    Attributes:
        block: "V", "U" or "W".
        layer: Its layer, from 1 as in the paper.
        decrease: How far the objective fell.
        bound: What it had to fall by: the constant of the block times the squared distance moved.
    """

    block: str
    layer: int
    decrease: float
    bound: float


class Descent(NamedTuple):
    """Lemma 5 measured on one sweep.

    Attributes:
        blocks: The blocks in their order.
        decrease: How far the objective fell in the sweep.
        distance: How far the variables moved, the Frobenius norm of the change of all.
        constant: The lemma's a = min(alpha, gamma)/2, over all blocks and layers.
    """

    blocks: list[BlockDescent]
    decrease: float
    distance: float
    constant: float

    @property
    def bound(self) -> float:
        """What Lemma 5 guarantees for the sweep: a times the squared distance."""
        return self.constant * self.distance**2

    def holds(self, tolerance: float = 1e-9) -> bool:
        """Whether every block and the sweep fell by their bounds, up to rounding.

        Args:
            tolerance: Rounding allowed, as a fraction of the sweep's decrease and of its bound.
        """
        slack = tolerance * (abs(self.decrease) + self.bound)
        return self.decrease >= self.bound - slack and all(
            block.decrease >= block.bound - slack for block in self.blocks
        )


def _square(new: Tensor, old: Tensor) -> float:
    return float((new - old).square().sum())


def _regularizer(terms: Regularizer, values: Tensor) -> float:
    if terms.l1 == 0 and terms.l2 == 0:
        return 0.0
    return float(torch.ops.torchbcd.regularizer_penalty(values, *terms.numbers).sum())


def _activation_penalty(problem: Problem, point: Point, i: int) -> float:
    gap = _apply(problem.activations[i], point.linear(i, problem.splitting)).sub_(point.v[i + 1])
    return problem.penalties[i].gamma / 2 * float(gap.square_().sum())


def _affine_penalty(problem: Problem, point: Point, i: int) -> float:
    if problem.splitting == 2:
        return 0.0
    return problem.penalties[i].rho / 2 * float(point.product(i).sub_(point.u[i]).square_().sum())


def _loss(problem: Problem, v: Tensor) -> float:
    losses = row_losses(problem.loss, v, problem.y)
    return problem.loss_weight * float((problem.row_weight * losses).sum())


def descent(problem: Problem, before: Point, after: Point) -> Descent:
    """Lemma 5 on one sweep in the paper's order: the decrease of every block against its bound.

    The constants are those that hold for this method: alpha/2 for proximal blocks (V_N, hidden U_i, W_i, and
    with two splittings every V_i), gamma/2 for the hidden V_i without a proximal term, (gamma + rho)/2 for U_N
    where the output is linear, and 0 for U_N where it is not, since its problem is then not strongly convex.
    """
    at = Point(list(before.w), list(before.b), list(before.u), list(before.v))
    blocks: list[BlockDescent] = []
    last = problem.depth - 1
    squared_distance = 0.0
    constants = []

    # The terms that a block touches, by name and layer; each is evaluated once after every change of it.
    def term(name: str, i: int) -> float:
        penalties = problem.penalties[i]
        if name == "loss":
            return _loss(problem, at.v[-1])
        if name == "activation":
            return _activation_penalty(problem, at, i)
        if name == "affine":
            return _affine_penalty(problem, at, i)
        if name == "states":
            return _regularizer(penalties.state_regularizer, at.v[i + 1])
        return _regularizer(penalties.weight_regularizer, at.w[i])

    known: dict[tuple[str, int], float] = {}

    def touched_by(block: str, i: int) -> list[tuple[str, int]]:
        inside = "affine" if problem.splitting == 3 else "activation"  # the term that holds W_i V_{i-1}
        if block == "U":
            return [("activation", i), ("affine", i)]
        if block == "W":
            return [(inside, i), ("weights", i)]
        after_it = ("loss", i) if i == last else (inside, i + 1)
        return [("activation", i), ("states", i), after_it]

    def move(block: str, i: int, constant: float) -> None:
        nonlocal squared_distance
        touched = touched_by(block, i)
        for key in touched:
            if key not in known:
                known[key] = term(*key)
        old = sum(known[key] for key in touched)
        if block == "V":
            squared = _square(after.v[i + 1], at.v[i + 1])
            at.v[i + 1] = after.v[i + 1]
        elif block == "U":
            squared = _square(after.u[i], at.u[i])
            at.u[i] = after.u[i]
        else:
            squared = _square(after.w[i], at.w[i])
            at.w[i] = after.w[i]
            new_bias, old_bias = after.b[i], at.b[i]
            if new_bias is not None and old_bias is not None:
                squared += _square(new_bias, old_bias)
                at.b[i] = new_bias
        squared_distance += squared
        constants.append(constant)
        known.update({key: term(*key) for key in touched})
        decrease = old - sum(known[key] for key in touched)
        blocks.append(BlockDescent(block, i + 1, decrease, constant * squared))

    for i in range(last, -1, -1):
        penalties = problem.penalties[i]
        if problem.splitting == 2:
            move("V", i, penalties.alpha / 2)
        elif i == last:
            move("V", i, penalties.alpha / 2)
            linear = problem.activations[i][0] == "identity"
            move("U", i, (penalties.gamma + penalties.rho) / 2 if linear else 0.0)
        else:
            move("V", i, penalties.gamma / 2)
            move("U", i, penalties.alpha / 2)
        move("W", i, penalties.alpha_weight / 2)
    return Descent(blocks, sum(b.decrease for b in blocks), sqrt(squared_distance), min(constants))


class Lemma6(NamedTuple):
    """The subgradient of Lemma 6 at the end of a sweep of Algorithm 2, by its blocks, from layer 1.

    Attributes:
        w: Of W, shape (d_i, d_{i-1}); zero where it is frozen, and likewise b.
        b: Of b, shape (d_i,), None for a layer without one.
        u: Of U, shape (n, d_i).
        v: Of V, shape (n, d_i).
    """

    w: list[Tensor]
    b: list[Tensor | None]
    u: list[Tensor]
    v: list[Tensor]

    @property
    def norm(self) -> float:
        """Its norm, an upper bound of dist(0, dL)."""
        return sqrt(sum(float(g.square().sum()) for part in self for g in part if g is not None))


def lemma6_subgradient(problem: Problem, before: Point, after: Point) -> Lemma6:
    """The explicit subgradient of [Z], Lemma 6, with penalties of their own for every layer.

    It is what the optimality conditions of the blocks, each at the point where the block was updated, leave
    over at the end of the sweep; all of it is made of changes of variables, so it vanishes as they do.

    Raises:
        ValueError: The sweep was not one of Algorithm 2.
    """
    if problem.splitting != 3:
        raise ValueError("Lemma 6's subgradient is that of Algorithm 2 (got splitting=2)")
    w: list[Tensor] = []
    b: list[Tensor | None] = []
    u: list[Tensor] = []
    v: list[Tensor] = []
    for i, penalties in enumerate(problem.penalties):
        sigma = problem.activations[i]
        last = i + 1 == problem.depth
        change = _apply(sigma, after.u[i]) - _apply(sigma, before.u[i])
        g_v = -penalties.gamma * change
        g_u = penalties.rho * (before.product(i) - after.product(i))
        if last:
            g_v = g_v - penalties.alpha * (after.v[-1] - before.v[-1])
        else:
            g_u = g_u - penalties.alpha * (after.u[i] - before.u[i])
        moved = Point(after.w, after.b, after.u, before.v).product(i)
        g_w = penalties.rho * (
            (after.product(i) - after.u[i]).t() @ after.v[i] - (moved - after.u[i]).t() @ before.v[i]
        ) - penalties.alpha_weight * (after.w[i] - before.w[i])
        new_bias, old_bias = after.b[i], before.b[i]
        if new_bias is None or old_bias is None:
            b.append(None)
        else:
            g_b = penalties.rho * (after.product(i) - moved).sum(0)
            g_b = g_b - penalties.alpha_weight * (new_bias - old_bias)
            b.append(g_b if problem.trained[i][1] else torch.zeros_like(g_b))
        w.append(g_w if problem.trained[i][0] else torch.zeros_like(g_w))
        u.append(g_u)
        v.append(g_v)
    return Lemma6(w, b, u, v)
