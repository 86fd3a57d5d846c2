"""Algorithms 1 (DLAM) and 2 (mDLAM) of Wang et al., line by line: columns are samples, a bias is a column of W_l.

What the paper leaves open is theta_l and tau_l, which may be anything that satisfies condition (2) and its twin.
W is by eq. (3), as in the algorithms, or by eq. (1), which eq. (3) stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import slow_search as search
from paper_bcd import ACTIVATIONS, Quadratic, Splitting, loss_argmin, squared_norm, with_ones


@dataclass
class Chosen:
    """What a sweep of the library chose: theta, tau and the extrapolations that it kept."""

    theta: list
    tau: list
    weight_omega: list
    state_omega: list


def is_quadratic(regularizer):
    l1, _, low, high = search.regularizer_terms(regularizer)
    return l1 == 0 and np.isinf([low, high]).all()


class Majorised:
    """The quadratic P(x; theta) at a point, or Q(x; tau), and what it has to bound: phi."""

    def __init__(self, phi, point, gradient):
        self.phi, self.point, self.gradient = phi, point, gradient
        self.here = phi(point)

    def least(self, x):
        """The least theta with P(x; theta) >= phi(x), which is condition (2), or its twin."""
        change = x - self.point
        above = self.phi(x) - self.here - (self.gradient * change).sum()
        square = squared_norm(change)
        return 2 * above / square if square > 0 else 0.0

    def slack(self, theta, x, objective):
        """P(x; theta) - phi(x), relative to both and to what rounding leaves of them in F."""
        excess = (theta - self.least(x)) / 2 * squared_norm(x - self.point)
        return excess / (self.here + self.phi(x) + 1e-16 * objective)


class Dlam:
    """A point: w[l] is W_{l+1} with its bias, z[l] is z_{l+1}, a[l] is a_l with a[0] = x.

    `problem` is that of paper_bcd, whose r is Omega, whose rho counts, and whose loss is not averaged.
    `sufficient_decrease` is 0 in the paper, `exact` says that W is by eq. (1).
    """

    def __init__(self, problem, weights, eps, monotone, sufficient_decrease=1e-3, exact=False):
        """By one forward pass, as (W, z, a)^{-1} = (W, z, a)^0."""
        self.problem, self.eps, self.monotone = problem, eps, monotone
        self.sufficient_decrease, self.exact = sufficient_decrease, exact
        forward = Splitting(problem, list(weights))
        self.w, self.z, self.a = list(weights), forward.u, forward.v[:-1]
        self.previous = [list(t) for t in (self.w, self.z, self.a)]
        self.s, self.last = 0.0, None

    def set_weights(self, weights):
        """Start from weights that z and a do not come from."""
        self.w, self.previous[0] = list(weights), list(weights)

    @property
    def depth(self):
        return len(self.w)

    def sigma(self, layer, z):
        return self.problem.sigma(layer, z)

    def phi(self, layer, w, a):
        """rho/2 |z_l - W_l a_{l-1}|^2."""
        p = self.problem
        return p.rho[layer] / 2 * squared_norm(self.z[layer] - w @ with_ones(a, p.bias))

    def objective(self):
        """F of Problem 2; infinite where a tolerance is exceeded by more than rounding."""
        p = self.problem
        for layer in range(self.depth - 1):
            if np.abs(self.sigma(layer, self.z[layer]) - self.a[layer + 1]).max() > self.eps + 1e-12:
                return np.inf
        total = p.risk(self.z[-1]) / p.risk_weight
        for layer, (w, a) in enumerate(zip(self.w, self.a, strict=True)):
            total += self.phi(layer, w, a) + p.r_of(w)
        return total

    def sweep(self, chosen):
        """Lines 3 to 26 of Algorithm 2, or 3 to 14 of Algorithm 1."""
        s = (1 + np.sqrt(1 + 4 * self.s**2)) / 2
        omega = (self.s - 1) / s
        self.chosen, self.slack, self.least_theta, self.redone = chosen, [], [], 0
        self.last = self.last or chosen
        start = [list(self.w), list(self.z), list(self.a)]
        w_before, z_before, a_before = self.previous
        for layer in range(self.depth):
            if self.exact:
                self.w[layer] = self.least_weights(layer)
            else:
                self.block(self.w, layer, w_before, omega, partial(self.weight_step, layer))
            if layer == self.depth - 1:
                self.block(self.z, layer, z_before, omega, partial(self.output_step, layer))
            else:
                self.block(self.z, layer, z_before, omega, partial(self.z_step, layer))
                self.block(self.a, layer + 1, a_before, omega, partial(self.state_step, layer))
        self.previous, self.s, self.last = start, s, chosen

    def block(self, variables, index, previous, omega, step):
        """A step from the extrapolated point; with mDLAM taken again from the point itself where F does not fall.

        Lines 7 to 9, 13 to 15, 18 to 20 and 22 to 24. "Increases" is F' >= F there (the text before them says
        so), the negation of F' < F, on which the proof of eq. (11) rests: F falls by alpha/2 |W' - W|^2 with
        some alpha. The library asks for a part of the step's own curvature.
        """
        old, before = variables[index], self.objective()
        variables[index], curvature = step(old + (old - previous[index]) * omega, omega)
        after = self.objective()
        enough = self.sufficient_decrease * curvature / 2 * squared_norm(variables[index] - old)
        increases = after > before - enough if self.sufficient_decrease > 0 else after >= before
        if self.monotone and omega > 0 and increases:
            self.redone += variables is not self.z  # which changes nothing: V_l is phi itself
            variables[index], _ = step(old, 0.0)

    def least_weights(self, layer):
        """Eq. (1): of several minimisers the nearest to W."""
        p, w = self.problem, self.w[layer]
        inputs, covered = with_ones(self.a[layer], p.bias), len(self.a[layer])
        if not is_quadratic(p.r):
            hessian = p.rho[layer] * inputs @ inputs.T
            smooth = search.quadratic(hessian, p.rho[layer] * self.z[layer] @ inputs.T)
            return search.argmin_rows(smooth, p.r, w, covered)
        _, l2, _, _ = search.regularizer_terms(p.r)
        root = np.sqrt(l2 / p.rho[layer]) * np.eye(covered, len(inputs))
        targets = np.vstack([(self.z[layer] - w @ inputs).T, -root @ w.T])
        return w + np.linalg.lstsq(np.vstack([inputs.T, root]), targets, rcond=1e-6)[0].T

    def weight_step(self, layer, bar, omega):
        """Eq. (3)."""
        p, covered = self.problem, len(self.a[layer])
        inputs = with_ones(self.a[layer], p.bias)
        gradient = p.rho[layer] * (bar @ inputs - self.z[layer]) @ inputs.T
        _, _, low, high = search.regularizer_terms(p.r)

        def argmin(theta):
            """Of P(W; theta) + Omega(W): entry by entry between P's minimiser and 0, or the bound next to it."""
            if is_quadratic(p.r):
                return (theta * bar - gradient) / (theta + search.regularizer_terms(p.r)[1])
            w = bar - gradient / theta

            def slope(x):
                return (gradient - theta * bar)[:, :covered] + theta * x + search.regularizer_slope(p.r, x)

            ends = np.sort([w[:, :covered], np.zeros_like(w[:, :covered])], axis=0)
            w[:, :covered] = search.bisected(slope, *np.clip(ends, low, high))
            return w

        bound = Majorised(lambda w: self.phi(layer, w, self.a[layer]), bar, gradient)
        kept, theta = self.kept(omega, self.chosen.weight_omega[layer]), self.chosen.theta[layer]
        if is_quadratic(p.r):
            # The step's direction does not depend on theta, so there is a least one, which the library takes.
            largest = argmin(p.rho[layer] * np.linalg.norm(inputs, 2) ** 2)
            least = bound.least(largest)
            # Where the step is short, or nothing is left of phi in F, rounding says whether condition (2) holds.
            measurable = least * squared_norm(largest - bar) > 1e-6 * bound.here > 1e-18 * self.objective()
            if kept and measurable:
                self.least_theta.append((least, theta))
            if measurable or not kept:
                theta = least
            if theta == 0:
                return bar, 0.0  # there is no gradient
        else:
            theta = self.curvature(argmin, bound, theta, kept, 0.8 * self.last.theta[layer])
        return argmin(theta), theta

    def state_step(self, layer, bar, omega):
        """Eq. (6), of a_l within the tolerance of h_l(z_l)."""
        p, following = self.problem, layer + 1
        weight = self.w[following][:, : len(bar)]
        residual = self.w[following] @ with_ones(bar, p.bias) - self.z[following]
        gradient = p.rho[following] * weight.T @ residual
        image = self.sigma(layer, self.z[layer])

        def argmin(tau):
            return np.minimum(np.maximum(image - self.eps, bar - gradient / tau), image + self.eps)

        bound = Majorised(lambda a: self.phi(following, self.w[following], a), bar, gradient)
        kept = self.kept(omega, self.chosen.state_omega[layer])
        tau = self.curvature(argmin, bound, self.chosen.tau[layer], kept, 0.9 * self.last.tau[layer])
        return argmin(tau), tau

    @staticmethod
    def kept(omega, chosen):
        """Whether the library kept the step from this extrapolation."""
        return abs(max(omega, 0) - chosen) < 1e-12

    def curvature(self, argmin, bound, chosen, kept, first):
        """Theta or tau: the library's where it kept the step, and then condition (2), or its twin, is measured.

        Of steps that it did not keep the library says nothing; they are backtracked from where it begins, to the
        curvature that the step before met.
        """
        if kept:
            self.slack.append(bound.slack(chosen, argmin(chosen), self.objective()))
            return chosen
        theta = first
        while theta < (least := bound.least(argmin(theta))):
            theta = max(1.2 * theta, least)
        return theta

    def z_step(self, layer, bar, omega):
        """Eq. (4): V_l is least where its gradient is zero, and z is cut to [B_1, B_2]."""
        rho = self.problem.rho[layer]
        gradient = rho * (bar - self.w[layer] @ with_ones(self.a[layer], self.problem.bias))
        low, high = self.preimage(layer)
        return np.minimum(np.maximum(low, bar - gradient / rho), high), 0.0

    def preimage(self, layer):
        """B_1 and B_2, the ends of {z : h(z) - eps <= a <= h(z) + eps} of a monotone h, by bisection."""
        a, h = self.a[layer + 1], ACTIVATIONS[self.problem.activations[layer]][0]
        far = np.full_like(a, 50.0)
        low = search.bisected(lambda z: np.where(h(z) >= a - self.eps, 1, -1), -far, far)
        high = search.bisected(lambda z: np.where(h(z) > a + self.eps, 1, -1), -far, far)
        return np.where(h(-far) >= a - self.eps, -np.inf, low), np.where(h(far) <= a + self.eps, np.inf, high)

    def output_step(self, layer, bar, omega):
        """Eq. (5)."""
        p, rho = self.problem, self.problem.rho[layer]
        gradient = rho * (bar - self.w[layer] @ with_ones(self.a[layer], p.bias))
        return loss_argmin(p.loss, p.y, 1.0, [Quadratic(rho, bar - gradient / rho)], None), 0.0
