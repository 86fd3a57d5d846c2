r"""What Wang et al. prove of DLAM's limits and of its rate, as numbers: dist(0, dF), and c_k of their Theorem 2.

F of Problem 2 is smooth but for the loss, the regularisers and the indicator of
:math:`C = \{|a_l - h_l(z_l)| \le \varepsilon\}`, each of which has variables of its own: the limiting
subdifferential is the gradient of :math:`\sum_l \phi_l` plus a product of theirs, exactly. That of the indicator
is the normal cone of C, entry by entry in the plane of (z, a). With s the slope of h it is, beside zero,

* where :math:`a = h(z) + \varepsilon`, the ray along (-s, 1); where :math:`a = h(z) - \varepsilon`, that along
  (s, -1); with :math:`\varepsilon = 0` both;
* at a kink of h the rays of both slopes, and all between them where C has a convex corner: above, where h bends
  down; below, where it bends up.

[W] write it as :math:`\partial_z F \times \partial_a F`, which it is not: (z, a) may be optimal in z and in a and
not in both (``docs/dlam.md``). In W alone, which is what Theorems 1 and 3 speak of, no indicator takes part.

References:
    [W] Wang, Li, Wang, Zhao: Accelerated Gradient-free Neural Network Training by Multi-convex Alternating
    Optimization.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, inf
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from torchbcd.distributed import Ranks
from torchbcd.lifted import (
    Activation,
    apply,
    loss_subdifferential,
    shortest_of_weight,
    slopes,
)
from torchbcd.regularizers import Regularizer

__all__ = ["DlamProblem", "DlamStationarity", "SublinearRate", "dlam_stationarity", "pair_distance"]


class Variables(Protocol):
    """The variables of Problem 2, as :class:`torchbcd.DlamVariables` has them."""

    @property
    def W(self) -> list[Tensor]: ...  # noqa: N802 (the paper's letter)
    @property
    def b(self) -> list[Tensor | None]: ...
    @property
    def z(self) -> list[Tensor]: ...
    @property
    def a(self) -> list[Tensor]: ...


@dataclass(frozen=True)
class DlamProblem:
    """All of Problem 2 that is no variable. Lists have an entry for each layer."""

    loss: str
    activations: list[Activation]
    rho: list[float]
    weight_regularizers: list[Regularizer]
    trained: list[tuple[bool, bool]]  # W and b
    eps: float
    y: Tensor
    row_weight: Tensor  # of the loss, all factors included; (n, 1) or (1, 1)


class DlamStationarity(NamedTuple):
    """Distances of zero from the subdifferential of F, by its parts.

    Attributes:
        weight: For each layer of the part in W and b; 0 where they are frozen.
        states: For each hidden layer of the part in (z, a), which the box ties together.
        output: Of the part in z_L.
    """

    weight: list[float]
    states: list[float]
    output: float

    @property
    def weight_residual(self) -> float:
        """The distance of zero from the subdifferential in W, of which [W], Theorems 1 and 3, speak."""
        return hypot(*self.weight)

    @property
    def residual(self) -> float:
        """The distance of zero from the subdifferential of F."""
        return hypot(*self.weight, *self.states, self.output)


def dlam_stationarity(problem: DlamProblem, variables: Variables, ranks: Ranks | None = None) -> DlamStationarity:
    """Dist(0, dF) of Problem 2, exact in float64 at any point; infinite outside a box or a regulariser's bounds.

    The rows of z and a may be those of one process of several, ``ranks``, all of which then ask at once.

    An entry counts as on the box where it is as near as rounding is: 16 units of the variables' dtype in the last
    place of |a| + |h(z)| + eps + |z h'(z)|, which is also how far outside it may be.
    """
    ranks = ranks or Ranks(None)
    w, z, a = ([t.double() for t in part] for part in (variables.W, variables.z, variables.a))
    dtype, last = variables.z[0].dtype, len(w) - 1
    pulls = []  # the gradient of phi_l in q_l
    for layer, bias in enumerate(variables.b):
        q = a[layer] @ w[layer].t()
        pulls.append(problem.rho[layer] * (q - z[layer] if bias is None else q + bias.double() - z[layer]))
    gradients = ranks.sums([t for layer, pull in enumerate(pulls) for t in (pull.t() @ a[layer], pull.sum(0))])
    weight, states, outside = [], [], False
    for layer, pull in enumerate(pulls):
        of_weight, of_bias = problem.trained[layer]
        slope, bias_slope = gradients[2 * layer : 2 * layer + 2]
        nearest = shortest_of_weight(problem.weight_regularizers[layer], w[layer], slope, dtype)
        outside = outside or bool(nearest.isinf().any())
        distance = float(nearest.norm()) if of_weight else 0.0
        weight.append(hypot(distance, float(bias_slope.norm()) if of_bias else 0.0))
        if layer < last:
            ahead = pulls[layer + 1] @ w[layer + 1]
            h, eps = problem.activations[layer], problem.eps
            distances = pair_distance((-pull, ahead), (z[layer], a[layer + 1]), h, eps, dtype)
            states.append(float(distances.norm()))
    loss = loss_subdifferential(problem.loss, problem.y, z[-1], problem.row_weight, dtype)
    *states, output = ranks.lengths([*states, float(loss.shortest_with((-pulls[-1], -pulls[-1])).norm())])
    return DlamStationarity(weight, states, inf if outside else output)


def pair_distance(
    gradient: tuple[Tensor, Tensor],
    at: tuple[Tensor, Tensor],
    activation: Activation,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    r"""The distance of minus a gradient from the normal cone of :math:`|a - h(z)| \le \varepsilon`, by entries.

    Args:
        gradient: In z and in a.
        at: z and a, in float64, of one shape.
        activation: h.
        eps: The tolerance, >= 0.
        dtype: That z and a had, whose rounding is allowed for.
    """
    (z, a), unit = at, torch.finfo(dtype).eps
    p, r = -gradient[0], -gradient[1]
    value = apply(activation, z)
    left, right = slopes(activation, z, unit * z.abs())
    steep = torch.maximum(left.abs(), right.abs())
    rounding = 16 * unit * (a.abs() + value.abs() + eps + z.abs() * steep)
    gap = a - value
    distance = torch.hypot(p, r)
    for sign, convex in ((1.0, left >= right), (-1.0, left <= right)):
        active = sign * gap >= eps - rounding
        for s in (left, right):
            along = sign * (r - s * p) > 0
            to_ray = (p + s * r).abs() / torch.hypot(s, torch.ones_like(s))
            distance = torch.where(active & along, torch.minimum(distance, to_ray), distance)
        # Between the rays: (p, r) is a multiple of sign (-s, 1) with s between the slopes.
        between = (sign * r >= 0) & ((p + left * r) * (p + right * r) <= 0)
        distance = distance.masked_fill(active & convex & between, 0)
    return distance.masked_fill(gap.abs() > eps + rounding, inf)


class _Sweep(NamedTuple):
    """Squared changes of a sweep, an entry a layer, and the theta and tau that it took."""

    weight: list[float]
    z: list[float]
    a: list[float]
    theta: list[float]
    tau: list[float]


class SublinearRate:
    r"""c_k of [W], Theorem 2: the least of a quantity of the sweeps so far, which is to be o(1/k).

    .. math::
        c_k = \min_{1 \le i \le k} \sum_l \Big(
        \tfrac{\theta_l^i - \theta_l^{i+1} (\omega^i)^2}2 \|\Delta W_l^i\|^2
        + \tfrac{\rho_l}2 (1 - (\omega^i)^2) \|\Delta z_l^i\|^2
        + \tfrac{\tau_l^i - \tau_l^{i+1} (\omega^i)^2}2 \|\Delta a_l^i\|^2 \Big)

    The bias is a column of W, and omega of W and a is what the block was extrapolated by. Sweep i's part is known
    after sweep i + 1. It starts anew where eps changes, which makes another F, and where somebody else has
    changed the weights. Of rows in several processes, ``ranks``, all are meant.
    """

    def __init__(self, ranks: Ranks | None = None) -> None:
        self._ranks = ranks or Ranks(None)
        self.value = inf
        self._after: Variables | None = None
        self._sweep: _Sweep | None = None
        self._eps = inf

    def forget(self) -> None:
        """Start anew at the next sweep."""
        self.value, self._after, self._sweep, self._eps = inf, None, None, inf

    def needs_start(self, weights: list[Tensor]) -> bool:
        """Whether the next sweep starts from where this has not been."""
        after = self._after
        return after is None or not all(torch.equal(x, y) for x, y in zip(after.W, weights, strict=True))

    def start(self, variables: Variables) -> None:
        """Begin at a point."""
        self.forget()
        self._after = variables

    def sweep(self, variables: Variables, fields: dict[str, Any], rho: list[float]) -> None:
        """Take over what a sweep did: the variables after it, what its report has, and each layer's rho."""
        before, eps = self._after, fields["eps"]
        assert before is not None
        shrunk = eps < self._eps < inf  # part of that sweep was to make (z, a) feasible
        if eps != self._eps:
            self.value, self._sweep = inf, None
        old, theta, tau = self._sweep, fields["theta"], fields["tau"]
        if old is not None:
            weights = zip(old.theta, theta, fields["weight_omega"], old.weight, strict=True)
            states = zip(old.tau, tau, fields["state_omega"], old.a, strict=True)
            parts = [(t - u * o**2) * d for t, u, o, d in [*weights, *states]]
            parts += [r * (1 - fields["omega"] ** 2) * d for r, d in zip(rho, old.z, strict=True)]
            self.value = min(self.value, sum(parts) / 2)
        pairs = zip(_squares(variables.W, before.W), _squares(variables.b, before.b), strict=True)
        of_z, of_a = _squares(variables.z, before.z), _squares(variables.a[1:], before.a[1:])
        totals = self._ranks.totals([*of_z, *of_a])
        of_z, of_a = totals[: len(of_z)], totals[len(of_z) :]
        self._sweep = None if shrunk else _Sweep([x + y for x, y in pairs], of_z, of_a, theta, tau)
        self._after, self._eps = variables, eps


def _squares(new: list[Tensor] | list[Tensor | None], old: list[Tensor] | list[Tensor | None]) -> list[float]:
    pairs = zip(new, old, strict=True)
    return [0.0 if x is None or y is None else float((x.double() - y.double()).square().sum()) for x, y in pairs]
