"""Algorithms 1 and 2 of Zeng et al., line by line: columns are samples, and a bias is a column of W_i.

Every block is the argmin that the paper displays, found by a slow global search of its objective. The footnotes'
freedom is used throughout: each term has a penalty of its own, rho in place of gamma for |U_i - W_i V_{i-1}|^2,
and each layer an alpha, that of its W another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slow_search as search
from more_activations import FORMULAS


def sigmoid(u):
    return 0.5 * (1 + np.tanh(u / 2))


def polynomial(*coefficients):
    p = np.polynomial.Polynomial(coefficients)
    return p, p.deriv()


# name -> (sigma, its derivative)
ACTIVATIONS = {
    "relu": (lambda u: np.maximum(u, 0), lambda u: 1.0 * (u > 0)),
    "leaky_relu": (lambda u: np.where(u > 0, u, 0.1 * u), lambda u: np.where(u > 0, 1, 0.1)),
    "sigmoid": (sigmoid, lambda u: sigmoid(u) * (1 - sigmoid(u))),
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    "identity": (lambda u: 1.0 * u, np.ones_like),
    "hardtanh": (lambda u: np.clip(u, -0.75, 1.25), lambda u: 1.0 * ((u > -0.75) & (u < 1.25))),
    "hardsigmoid": (lambda u: np.clip(u / 6 + 0.5, 0, 1), lambda u: (np.abs(u) < 3) / 6),
    "silu": (lambda u: u * sigmoid(u), lambda u: sigmoid(u) * (1 + u * (1 - sigmoid(u)))),
    "polynomial": polynomial(0.0, 1.0, 0.3, 0.05),
    "hilly polynomial": polynomial(0.5, -1.0, 0.0, 0.3),
}

# With those that go through the transcriptions with one regulariser each.
EVERY_ACTIVATION = {**ACTIVATIONS, **FORMULAS}

# name -> (l(v, y), its derivative in v) for losses that are sums over entries; y is 0 or 1, or -1 or 1.
LOSSES = {
    "squared": (lambda v, y: (v - y) ** 2 / 2, lambda v, y: v - y),
    "hinge": (lambda v, y: np.maximum(0, 1 - y * v), lambda v, y: np.where(y * v < 1, -y, 0)),
    "logistic": (lambda v, y: np.logaddexp(0, -y * v), lambda v, y: -y * sigmoid(-y * v)),
    "exponential": (lambda v, y: np.exp(-y * v), lambda v, y: -y * np.exp(-y * v)),
    "huber": (
        lambda v, y: np.where(np.abs(v - y) <= 1, (v - y) ** 2 / 2, np.abs(v - y) - 0.5),
        lambda v, y: np.clip(v - y, -1, 1),
    ),
    "quantile": (lambda v, y: np.abs(v - y) / 2, lambda v, y: np.sign(v - y) / 2),
    "poisson": (lambda v, y: np.exp(v) - y * v, lambda v, y: np.exp(v) - y),
    "binary_cross_entropy": (lambda v, y: np.logaddexp(0, v) - y * v, lambda v, y: sigmoid(v) - y),
}
SIGNED = ("hinge", "row_hinge", "logistic", "exponential")


def cross_entropy(v, t):
    """-sum of t log softmax(v) of every row: values, gradients, Hessians."""
    largest = v.max(-1, keepdims=True)
    log_sum = largest + np.log(np.exp(v - largest).sum(-1, keepdims=True))
    p = np.exp(v - log_sum)
    hessian = p[..., None] * np.eye(v.shape[-1]) - p[..., None] * p[..., None, :]
    return (t * (log_sum - v)).sum(-1), p - t, hessian


@dataclass(frozen=True)
class Quadratic:
    """weight/2 |x - centre|^2."""

    weight: float
    centre: np.ndarray

    def value(self, x):
        return self.weight / 2 * (x - self.centre) ** 2

    def slope(self, x):
        return self.weight * (x - self.centre)


def squared_norm(matrix):
    return np.sum(matrix**2)


def with_ones(v, bias):
    return np.vstack([v, np.ones((1, v.shape[1]))]) if bias else v


def row_hinge(v, y):
    """Max(0, 1 - u^T y) of every column."""
    return np.maximum(0, 1 - (y * v).sum(0))


def row_hinge_argmin(y, weight, quadratics, regularizer):
    """The loss is the greatest of theta (1 - u^T y), theta in [0, 1]; the least of all is concave in theta."""
    total = sum(q.weight for q in quadratics)
    centre = sum(q.weight * q.centre for q in quadratics) / total

    def minimiser(theta):
        linear = (total * centre + weight * theta * y).T
        return search.argmin_rows(search.quadratic(total * np.eye(len(y)), linear), regularizer, 0 * linear).T

    low, high = np.zeros(y.shape[1]), np.ones(y.shape[1])
    for _ in range(60):
        theta = (low + high) / 2
        rises = (y * minimiser(theta)).sum(0) < 1
        low, high = np.where(rises, theta, low), np.where(rises, high, theta)
    return minimiser(low)


def loss_argmin(loss, y, weight, quadratics, regularizer):
    """Argmin over V of s(V) + weight sum l(V; Y) + the quadratics; Y is one-hot."""
    total = sum(q.weight for q in quadratics)
    centre = sum(q.weight * q.centre for q in quadratics) / total
    if loss == "row_hinge":
        return row_hinge_argmin(2 * y - 1, weight, quadratics, regularizer)
    if loss == "cross_entropy":

        def smooth(v):
            value, gradient, hessian = cross_entropy(v, y.T)
            quadratic = sum(q.value(v.T) for q in quadratics).sum(0)
            slope = sum(q.slope(v.T) for q in quadratics).T
            return (
                weight * value + quadratic,
                weight * gradient + slope,
                weight * hessian + total * np.eye(len(y)),
            )

        return search.argmin_rows(smooth, regularizer, centre.T).T
    function, derivative = LOSSES[loss]
    y = 2 * y - 1 if loss in SIGNED else y

    def value(v):
        terms = sum(q.value(v) for q in quadratics)
        return terms + weight * function(v, y) + search.regularizer_value(regularizer, v)

    def slope(v):
        terms = sum(q.slope(v) for q in quadratics)
        return terms + weight * derivative(v, y) + search.regularizer_slope(regularizer, v)

    _, _, low, high = search.regularizer_terms(regularizer)
    # At the minimiser total/2 (v - centre)^2 is at most the objective anywhere else; an exponential may overflow.
    with np.errstate(over="ignore"):
        reach = np.sqrt(2 * np.minimum(*(value(np.clip(t, low, high)) for t in (centre, 0 * centre))) / total)
    return search.argmin_entries(
        value, slope, np.clip(centre - reach, low, high), np.clip(centre + reach, low, high)
    )


@dataclass
class Problem:
    """What an algorithm minimises; lists run over layers 1..N, here from 0. The last sigma is the identity."""

    activations: list
    loss: str
    x: np.ndarray  # (d_0, n)
    y: np.ndarray  # one-hot, (d_N, n)
    rho: list
    gamma: list = ()
    alpha: list = ()
    alpha_weight: list = ()
    r: object = None  # of every W_i, but for the biases
    s: object = None  # of every V_i
    bias: bool = True
    covers_bias: bool = False  # whether r_i is of the whole W_i, its bias included
    squares: float = 0.5  # what a squared loss |v - y|^2 is multiplied by: 1 in the paper, 1/2 in the library

    @property
    def depth(self):
        return len(self.activations)

    @property
    def risk_weight(self):
        """The 1/n of R_n, and the paper's scale of the squared loss."""
        return (2 * self.squares if self.loss == "squared" else 1) / self.x.shape[1]

    def sigma(self, i, u):
        return EVERY_ACTIVATION[self.activations[i]][0](u)

    def risk(self, v):
        if self.loss == "cross_entropy":
            return self.risk_weight * cross_entropy(v.T, self.y.T)[0].sum()
        y = 2 * self.y - 1 if self.loss in SIGNED else self.y
        if self.loss == "row_hinge":
            return self.risk_weight * row_hinge(v, y).sum()
        return self.risk_weight * LOSSES[self.loss][0](v, y).sum()

    def r_of(self, w):
        return search.regularizer_value(self.r, w[:, :-1] if self.bias and not self.covers_bias else w).sum()

    def s_of(self, v):
        return search.regularizer_value(self.s, v).sum()


class Splitting:
    """A point: w[i] is W_{i+1} with its bias, v[i] is V_i with v[0] = X, u[i] is U_{i+1}."""

    def __init__(self, problem, weights):
        """By one forward pass, with states projected onto their bounds."""
        self.problem = problem
        self.w = weights
        self.v, self.u = [problem.x], []
        _, _, low, high = search.regularizer_terms(problem.s)
        for i in range(problem.depth):
            self.u.append(self.product(i))
            self.v.append(np.clip(problem.sigma(i, self.u[i]), low, high))

    def inputs(self, i):
        return with_ones(self.v[i], self.problem.bias)

    def product(self, i):
        """W_i V_{i-1}."""
        return self.w[i] @ self.inputs(i)

    def set_weights(self, i, target, penalty):
        """W_i <- argmin r_i(W) + penalty/2 |target - W V_{i-1}|^2 + alpha/2 |W - W_i|^2."""
        p, v = self.problem, self.inputs(i)
        hessian = penalty * v @ v.T + p.alpha_weight[i] * np.eye(len(v))
        linear = penalty * target @ v.T + p.alpha_weight[i] * self.w[i]
        smooth = search.quadratic(hessian, linear)
        covered = len(v) if p.covers_bias else len(self.v[i])
        self.w[i] = search.argmin_rows(smooth, p.r, self.w[i], covered=covered)

    def set_states(self, i, quadratics, target, penalty):
        """V_i <- argmin s_i(V) + the quadratics + penalty/2 |target - W_{i+1} V|^2."""
        following = self.w[i]
        weight = following[:, : len(self.v[i])]
        if self.problem.bias:
            target = target - following[:, -1:]
        hessian = penalty * weight.T @ weight + sum(q.weight for q in quadratics) * np.eye(weight.shape[1])
        linear = penalty * weight.T @ target + sum(q.weight * q.centre for q in quadratics)
        self.v[i] = search.argmin_rows(search.quadratic(hessian, linear.T), self.problem.s, self.v[i].T).T


class Algorithm2(Splitting):
    """3-splitting."""

    def objective(self):
        """Eq. (6)."""
        p = self.problem
        total = p.risk(self.v[-1])
        for i in range(p.depth):
            total += p.r_of(self.w[i]) + p.s_of(self.v[i + 1])
            total += p.gamma[i] / 2 * squared_norm(self.v[i + 1] - p.sigma(i, self.u[i]))
            total += p.rho[i] / 2 * squared_norm(self.u[i] - self.product(i))
        return total

    def sweep(self, blocks=None):
        """In the paper's order, or another: ("V", "U" or "W", i)."""
        paper = [(block, i) for i in range(self.problem.depth - 1, -1, -1) for block in "VUW"]
        for block, i in blocks or paper:
            self.minimise(block, i)

    def minimise(self, block, i):
        p, last = self.problem, self.problem.depth - 1
        if block == "W":
            self.set_weights(i, self.u[i], p.rho[i])
        elif block == "U":
            quadratics = [Quadratic(p.rho[i], self.product(i))]
            self.set_u(i, quadratics if i == last else [*quadratics, Quadratic(p.alpha[i], self.u[i])])
        elif i == last:
            centre = Quadratic(p.gamma[i], p.sigma(i, self.u[i]))
            self.v[-1] = loss_argmin(p.loss, p.y, p.risk_weight, [centre, Quadratic(p.alpha[i], self.v[-1])], p.s)
        else:
            self.set_states(i + 1, [Quadratic(p.gamma[i], p.sigma(i, self.u[i]))], self.u[i + 1], p.rho[i + 1])

    def set_u(self, i, quadratics):
        """U_i <- argmin gamma/2 |V_i - sigma_i(U)|^2 + the quadratics."""
        p, v = self.problem, self.v[i + 1]
        sigma, derivative = EVERY_ACTIVATION[p.activations[i]]

        def value(u):
            return p.gamma[i] / 2 * (v - sigma(u)) ** 2 + sum(q.value(u) for q in quadratics)

        def slope(u):
            return -p.gamma[i] * (v - sigma(u)) * derivative(u) + sum(q.slope(u) for q in quadratics)

        total = sum(q.weight for q in quadratics)
        centre = sum(q.weight * q.centre for q in quadratics) / total
        # The quadratics are least at their centre: the minimiser pays for leaving it out of the other term.
        reach = np.sqrt(p.gamma[i] / total) * np.abs(v - sigma(centre))
        self.u[i] = search.argmin_entries(value, slope, centre - reach, centre + reach)


class Algorithm1(Splitting):
    """2-splitting; u is not used."""

    def objective(self):
        """Eq. (3)."""
        p = self.problem
        total = p.risk(self.v[-1])
        for i in range(p.depth):
            total += p.r_of(self.w[i]) + p.s_of(self.v[i + 1])
            total += p.gamma[i] / 2 * squared_norm(self.v[i + 1] - p.sigma(i, self.product(i)))
        return total

    def blocks(self):
        """The blocks in the paper's order: ("V" or "W", i)."""
        return [(block, i) for i in range(self.problem.depth - 1, -1, -1) for block in "VW"]

    def block(self, block, i):
        return self.w[i] if block == "W" else self.v[i + 1]

    def set_block(self, block, i, value):
        if block == "W":
            self.w[i] = value
        else:
            self.v[i + 1] = value

    def is_exact(self, block, i):
        """Whether no activation is inside: the argmin then is found to rounding."""
        inside = self.problem.activations[i if block == "W" else min(i + 1, self.problem.depth - 1)]
        return inside == "identity"

    def quadratics(self, i):
        p = self.problem
        return [Quadratic(p.gamma[i], p.sigma(i, self.product(i))), Quadratic(p.alpha[i], self.v[i + 1])]

    def minimise(self, block, i):
        """Set a block to its argmin, where that is exact."""
        p = self.problem
        if block == "W":
            self.set_weights(i, self.v[i + 1], p.gamma[i])
        elif i == p.depth - 1:
            self.v[-1] = loss_argmin(p.loss, p.y, p.risk_weight, self.quadratics(i), p.s)
        else:
            self.set_states(i + 1, self.quadratics(i), self.v[i + 2], p.gamma[i + 1])

    def rows_objective(self, block, i):
        """The displayed objective of a hidden V_i or W_i, as a function of rows (..., m, d) of the unknown."""
        p = self.problem
        if block == "W":
            inputs, target, regularizer = self.inputs(i), self.v[i + 1], p.r
            centre, alpha, width = self.w[i], p.alpha_weight[i], len(self.v[i])

            def value(w):
                fit = p.gamma[i] / 2 * ((target - p.sigma(i, w @ inputs)) ** 2).sum(-1)
                terms = search.regularizer_value(regularizer, w[..., :width]).sum(-1)
                return fit + terms + alpha / 2 * ((w - centre) ** 2).sum(-1)

            return value
        quadratics = self.quadratics(i)
        following, target = self.w[i + 1], self.v[i + 2].T
        weight = following[:, : len(self.v[i + 1])].T
        shift = following[:, -1] if p.bias else 0.0

        def value(v):
            terms = search.regularizer_value(p.s, v).sum(-1)
            terms = terms + sum(q.weight / 2 * ((v - q.centre.T) ** 2).sum(-1) for q in quadratics)
            gap = target - p.sigma(i + 1, v @ weight + shift)
            return terms + p.gamma[i + 1] / 2 * (gap**2).sum(-1)

        return value

    def before_and_least(self, block, i):
        """Of a block with an activation inside: the value at the nearest feasible point, and the least found."""
        p = self.problem
        if block == "W":
            old, alpha, width = self.w[i], p.alpha_weight[i], len(self.v[i])
            starts = [old, np.zeros_like(old)]
            bounds = self.bounds(p.r, width, old.shape[1])
        else:
            old, alpha = self.v[i + 1].T, p.alpha[i]
            starts = [old, np.zeros_like(old), p.sigma(i, self.product(i)).T]
            bounds = self.bounds(p.s, old.shape[1], old.shape[1])
        value = self.rows_objective(block, i)
        starts = np.clip(np.stack(starts), *bounds)
        values = value(starts)
        # Further away the proximal term alone costs more than the best start.
        radius = np.sqrt(2 * values.min(0) / alpha) + np.abs(old - starts[0]).max(1)
        return values[0].sum(), search.least_rows(value, starts, radius, bounds).sum()

    @staticmethod
    def bounds(regularizer, covered, size):
        """(low, high) of the entries of a row whose first `covered` are regularised."""
        ends = search.regularizer_terms(regularizer)[2:]
        free = (-np.inf, np.inf)
        return tuple(np.where(np.arange(size) < covered, end, none) for end, none in zip(ends, free, strict=True))
