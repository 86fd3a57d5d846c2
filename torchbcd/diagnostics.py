r"""The convergence theory of Zeng et al. as numbers that a user can look at.

Two inequalities carry the proof that the sweeps of Algorithm 2 converge to a critical point ([Z], Theorem 3),
where the hypotheses of ``docs/theory.md`` hold: every sweep lowers the objective by at least a multiple of the
squared distance moved (Lemma 5), and the objective has a subgradient no longer than a multiple of the distance
moved (Lemma 6). For Algorithm 1 the first holds; the second, and the theorem, are false with a ReLU.

:func:`descent` measures the first, block by block, with the constants that hold; :func:`lemma6_subgradient`
evaluates the second; :func:`stationarity` measures what both are about, the distance of zero from the
subdifferential. :func:`linear_rate` fits the rate that Wang et al. prove for mDLAM, :func:`power_rate` those that
are sublinear. What a report of :class:`torchbcd.DLAM` has in place of :func:`stationarity` is a
:class:`DlamStationarity`.

All but the rates are computed in float64 from copies of the variables, at the cost of a few products with each
weight. What of the paper's constants holds and what does not is in ``docs/theory.md``.

References:
    [Z] Zeng, Ouyang, Lau, Lin, Yao: Global Convergence in Deep Learning with Variable Splitting via the
    Kurdyka-Lojasiewicz Property.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from torchbcd.dlam_stationarity import DlamStationarity
from torchbcd.lifted import Penalties, Point, Problem, apply, norms
from torchbcd.linear_rate import LinearRate, PowerRate, linear_rate, power_rate
from torchbcd.losses import row_losses
from torchbcd.regularizers import Regularizer
from torchbcd.stationarity import Stationarity, stationarity

__all__ = [
    "BlockDescent",
    "Descent",
    "DlamStationarity",
    "Lemma6",
    "LinearRate",
    "Penalties",
    "Point",
    "PowerRate",
    "Problem",
    "Stationarity",
    "descent",
    "lemma6_subgradient",
    "linear_rate",
    "power_rate",
    "stationarity",
]


Blocks: TypeAlias = list[tuple[str, int]]


class BlockDescent(NamedTuple):
    """What one block of a sweep did.

    Attributes:
        block: "V", "U" or "W"; "map" where it is the slope of a PReLU.
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
    return float(torch.ops.torchbcd.regularizer_penalty(values, terms.l1, terms.l2, terms.low, terms.high).sum())


def _activation_penalty(problem: Problem, point: Point, i: int) -> float:
    gap = apply(problem.activation(i, point), point.linear(i, problem.splitting)).sub_(point.v[i + 1])
    return problem.penalties[i].gamma / 2 * float(gap.square_().sum())


def _affine_penalty(problem: Problem, point: Point, i: int) -> float:
    if problem.splitting == 2:
        return 0.0
    return problem.penalties[i].rho / 2 * float(point.product(i).sub_(point.u[i]).square_().sum())


def _loss(problem: Problem, v: Tensor) -> float:
    losses = row_losses(problem.loss, v, problem.y)
    return problem.loss_weight * float((problem.row_weight * losses).sum())


def _order(problem: Problem, blocks: Blocks | None) -> Blocks:
    """The blocks of a sweep in which every one comes once; None stands for the paper's order."""
    of_a_layer = "VUW" if problem.splitting == 3 else "VW"
    paper = [(variable, i) for i in reversed(range(problem.depth)) for variable in of_a_layer]
    if blocks is not None and sorted(blocks) != sorted(paper):
        raise ValueError(
            "this diagnostic replays a sweep block by block, each once; it is not for an order or inner_sweeps "
            "in which a block comes again"
        )
    return paper if blocks is None else blocks


def descent(problem: Problem, before: Point, after: Point, blocks: Blocks | None = None) -> Descent:
    """Lemma 5 on one sweep: the decrease of every block against its bound.

    The constants are those that hold for this method: alpha/2 for proximal blocks (V_N, hidden U_i, W_i, the
    slope of a PReLU, and with two splittings every V_i), gamma/2 for the hidden V_i without a proximal term,
    (gamma + rho)/2 for U_N where the output is linear, and 0 for U_N where it is not, since its problem is then
    not strongly convex. A ``state_regularizer`` of one's own has to be convex for gamma/2 to hold.

    ``blocks`` are those of the sweep in their order, each a variable's name with its layer from 0, and each once;
    None stands for the paper's order.

    Raises:
        ValueError: A block comes more than once.
    """
    at = Point(list(before.w), list(before.b), list(before.u), list(before.v), list(before.slopes))
    found: list[BlockDescent] = []
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
            v = at.v[i + 1]
            return _regularizer(penalties.state_regularizer, v) + norms(penalties.state_regularizer, v)
        bias = at.b[i]
        of_bias = problem.regularize_bias and bias is not None
        covered = torch.cat([at.w[i], cast(Tensor, bias)[:, None]], 1) if of_bias else at.w[i]
        return _regularizer(penalties.weight_regularizer, covered) + norms(penalties.weight_regularizer, at.w[i])

    known: dict[tuple[str, int], float] = {}

    def touched_by(block: str, i: int) -> list[tuple[str, int]]:
        inside = "affine" if problem.splitting == 3 else "activation"  # the term that holds W_i V_{i-1}
        if block == "U":
            return [("activation", i), ("affine", i)]
        if block == "W":
            return [(inside, i), ("weights", i)]
        if block == "map":
            return [("activation", i)]
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
        elif block == "map":
            squared = _square(cast(Tensor, after.slopes[i]), cast(Tensor, at.slopes[i]))
            cast("list[Tensor | None]", at.slopes)[i] = after.slopes[i]
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
        found.append(BlockDescent(block, i + 1, decrease, constant * squared))

    for block, i in _order(problem, blocks):
        penalties = problem.penalties[i]
        if block == "W":
            constant = penalties.alpha_weight / 2
            if i in problem.trained_slopes:  # which goes before it
                move("map", i, constant)
        elif block == "U" and i == last:
            linear = problem.activations[i][0] == "identity"
            constant = (penalties.gamma + penalties.rho) / 2 if linear else 0.0
        elif block == "V" and i != last and problem.splitting == 3:
            constant = penalties.gamma / 2
        else:
            constant = penalties.alpha / 2
        move(block, i, constant)
    return Descent(found, sum(b.decrease for b in found), sqrt(squared_distance), min(constants))


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


def lemma6_subgradient(problem: Problem, before: Point, after: Point, blocks: Blocks | None = None) -> Lemma6:
    """The explicit subgradient of [Z], Lemma 6, with penalties of their own for every layer.

    It is what the optimality conditions of the blocks, each at the point where the block was updated, leave
    over at the end of the sweep; all of it is made of changes of variables, so it vanishes as they do. The lemma
    is for the paper's order; the same holds in any in which every block comes once (``blocks``, as for
    :func:`descent`), and a layer's V before its U, whose condition is that of the V of then.

    Raises:
        ValueError: The sweep was not one of Algorithm 2, or not in such an order, or trained a slope.
    """
    if problem.splitting != 3:
        raise ValueError("Lemma 6's subgradient is that of Algorithm 2 (got splitting=2)")
    if problem.trained_slopes:
        raise ValueError("Lemma 6's subgradient is of [Z]'s blocks, and the slope of a PReLU is none; freeze it")
    w: list[Tensor] = []
    b: list[Tensor | None] = []
    u: list[Tensor] = []
    v: list[Tensor] = []
    order = {block: k for k, block in enumerate(_order(problem, blocks))}
    for i, penalties in enumerate(problem.penalties):
        if order["V", i] > order["U", i]:
            raise ValueError(f"Lemma 6's subgradient needs the V of layer {i + 1} before its U in the order")

        def then(block: tuple[str, int]) -> Point:
            """The variables when a block had just been updated."""

            def of(variable: str, j: int) -> Point:
                return after if j < 0 or order[variable, j] <= order[block] else before

            layers = range(problem.depth)
            return Point(
                [of("W", j).w[j] for j in layers],
                [of("W", j).b[j] for j in layers],
                [of("U", j).u[j] for j in layers],
                [of("V", j - 1).v[j] for j in range(problem.depth + 1)],
            )

        sigma = problem.activation(i, after)
        last = i + 1 == problem.depth
        at_v, at_u, at_w = then(("V", i)), then(("U", i)), then(("W", i))
        g_v = -penalties.gamma * (apply(sigma, after.u[i]) - apply(sigma, at_v.u[i]))
        if last:
            g_v = g_v - penalties.alpha * (after.v[-1] - before.v[-1])
        else:
            pulls = [(p.product(i + 1) - p.u[i + 1]) @ p.w[i + 1] for p in (after, at_v)]
            g_v = g_v + problem.penalties[i + 1].rho * (pulls[0] - pulls[1])
        g_u = penalties.rho * (at_u.product(i) - after.product(i))
        if not last:
            g_u = g_u - penalties.alpha * (after.u[i] - before.u[i])
        residuals = after.product(i) - after.u[i], at_w.product(i) - at_w.u[i]
        g_w = penalties.rho * (residuals[0].t() @ after.v[i] - residuals[1].t() @ at_w.v[i])
        g_w = g_w - penalties.alpha_weight * (after.w[i] - before.w[i])
        new_bias, old_bias = after.b[i], before.b[i]
        if new_bias is None or old_bias is None:
            b.append(None)
        else:
            g_b = penalties.rho * (residuals[0] - residuals[1]).sum(0)
            g_b = g_b - penalties.alpha_weight * (new_bias - old_bias)
            b.append(g_b if problem.trained[i][1] else torch.zeros_like(g_b))
        w.append(g_w if problem.trained[i][0] else torch.zeros_like(g_w))
        u.append(g_u)
        v.append(g_v)
    return Lemma6(w, b, u, v)
