"""Nets with skip connections, written down a second time: their objectives, and Algorithm 2 in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from torchbcd.nn import Residual


def linear(d_in, d_out):
    return nn.Linear(d_in, d_out, dtype=torch.float64)


def nets(activation=nn.ReLU):
    """By name: a model of 5 inputs and 3 outputs, and its skips as (from, to, what is added)."""
    torch.manual_seed(0)
    act = activation
    return {
        "behind an activation": (
            nn.Sequential(
                linear(5, 6),
                act(),
                Residual(linear(6, 7), act(), linear(7, 6)),
                Residual(linear(6, 4), nn.Tanh(), linear(4, 6)),
                linear(6, 3),
            ),
            [(0, 2, "V"), (2, 4, "V")],
        ),
        "activation behind": (
            nn.Sequential(
                linear(5, 6),
                Residual(linear(6, 7), act(), linear(7, 6)),
                act(),
                Residual(linear(6, 4), act(), linear(4, 5), act(), linear(5, 6)),
                act(),
                linear(6, 3),
            ),
            [(0, 2, "V"), (2, 5, "V")],
        ),
        "activation first": (
            nn.Sequential(
                linear(5, 6),
                Residual(act(), linear(6, 7), act(), linear(7, 6)),
                Residual(nn.Tanh(), linear(6, 4), act(), linear(4, 6)),
                act(),
                linear(6, 3),
            ),
            [(0, 2, "U"), (2, 4, "U")],
        ),
        "of the inputs": (
            nn.Sequential(Residual(linear(5, 7), act(), linear(7, 5)), act(), linear(5, 3)),
            [(-1, 1, "V")],
        ),
        "one in another": (
            nn.Sequential(
                linear(5, 6),
                Residual(act(), Residual(linear(6, 7), act(), linear(7, 6)), act(), linear(6, 6)),
                linear(6, 3),
            ),
            [(0, 2, "V"), (0, 3, "U")],
        ),
        "ending together": (
            nn.Sequential(
                linear(5, 6),
                Residual(act(), Residual(linear(6, 7), act(), linear(7, 6))),
                act(),
                linear(6, 3),
            ),
            [(0, 2, "V"), (0, 2, "U")],
        ),
        "at the end": (
            nn.Sequential(linear(5, 3), act(), Residual(linear(3, 7), act(), linear(7, 3))),
            [(0, 2, "V")],
        ),
    }


NETS = list(nets())


def lifted_objective(variables, skips, penalties, loss, y, *, clamped):
    """L of RelaxedBCD from the variables alone, in float64."""
    total = 0.0
    for i, penalty in enumerate(penalties):
        product = variables.V[i].double() @ variables.W[i].double().t() + variables.b[i].double()
        for start, end, of in skips:
            if end == i:
                source = variables.V[start + 1] if of == "V" else variables.U[start]
                product = product + source.double()
        total += penalty / 2 * (variables.U[i].double() - product).square().sum().item()
    if not clamped:
        assert loss == "cross_entropy"
        total -= (y * variables.V[-1].double().log_softmax(1)).sum().item()
    return total


@dataclass
class Reference:
    """Algorithm 2 on a net with skips: rows are samples.

    Every block is the argmin of the whole objective in one variable, whatever its terms have in common. W,
    U and V are lists; activations are "relu", "tanh" or "identity".
    """

    x: np.ndarray
    y: np.ndarray
    weights: list
    biases: list
    activations: list
    skips: list
    gamma: list
    rho: list
    alpha: list
    alpha_weight: list

    def __post_init__(self):
        self.u, self.v = [], []
        for i in range(len(self.weights)):
            self.u.append(self.product(i))
            self.v.append(self.sigma(i, self.u[i]))

    def sigma(self, i, u):
        return {"relu": lambda t: np.maximum(t, 0), "tanh": np.tanh, "identity": lambda t: t}[
            self.activations[i]
        ](u)

    def inputs(self, i):
        return self.x if i == 0 else self.v[i - 1]

    def source(self, start, of):
        return self.x if start < 0 else (self.v if of == "V" else self.u)[start]

    def product(self, i):
        product = self.inputs(i) @ self.weights[i].T + self.biases[i]
        return product + sum(self.source(start, of) for start, end, of in self.skips if end == i)

    def objective(self):
        total = 0.5 * ((self.v[-1] - self.y) ** 2).sum()
        for i in range(len(self.weights)):
            total += self.gamma[i] / 2 * ((self.v[i] - self.sigma(i, self.u[i])) ** 2).sum()
            total += self.rho[i] / 2 * ((self.u[i] - self.product(i)) ** 2).sum()
        return total

    def sweep(self, order):
        for variable, i in order:
            getattr(self, f"{variable}_block")(i)

    def V_block(self, i):
        """Stacked least squares, row by row of one matrix: sqrt(penalty) (what V is compared with)."""
        d = self.v[i].shape[1]
        rows, right = [np.sqrt(self.gamma[i]) * np.eye(d)], [np.sqrt(self.gamma[i]) * self.sigma(i, self.u[i])]
        if i + 1 == len(self.weights):
            rows += [np.eye(d), np.sqrt(self.alpha[i]) * np.eye(d)]
            right += [self.y, np.sqrt(self.alpha[i]) * self.v[i]]
        for layer in range(len(self.weights)):
            factor = np.zeros((self.weights[layer].shape[0], d))
            if layer == i + 1:
                factor += self.weights[layer]
            for start, end, of in self.skips:
                if (start, end, of) == (i, layer, "V"):
                    factor += np.eye(d)
            if factor.any():
                rest = self.u[layer] - (self.product(layer) - self.v[i] @ factor.T)
                rows.append(np.sqrt(self.rho[layer]) * factor)
                right.append(np.sqrt(self.rho[layer]) * rest)
        self.v[i] = np.linalg.lstsq(np.vstack(rows), np.hstack(right).T, rcond=None)[0].T

    def U_block(self, i):
        """Entry by entry: quadratics, and gamma/2 (v - sigma(u))^2 on either side of zero, or by Newton."""
        alpha = 0 if i + 1 == len(self.weights) else self.alpha[i]
        weight = self.rho[i] + alpha
        centre = self.rho[i] * self.product(i) + alpha * self.u[i]
        for start, end, of in self.skips:
            if (start, of) == (i, "U"):
                weight += self.rho[end]
                centre = centre + self.rho[end] * (self.u[end] - (self.product(end) - self.u[i]))
        centre = centre / weight
        v, gamma, kind = self.v[i], self.gamma[i], self.activations[i]
        linear = (weight * centre + gamma * v) / (weight + gamma)

        def value(u):
            return weight / 2 * (u - centre) ** 2 + gamma / 2 * (v - self.sigma(i, u)) ** 2

        if kind == "identity":
            self.u[i] = linear
        elif kind == "relu":
            positive, negative = np.maximum(linear, 0), np.minimum(centre, 0)
            self.u[i] = np.where(value(positive) <= value(negative), positive, negative)
        else:
            grid = np.linspace(-1, 1, 4001)[:, None, None] * (np.abs(centre).max() + np.abs(v).max() + 1)
            u = np.take_along_axis(grid + 0 * centre, np.argmin(value(grid + 0 * centre), 0)[None], 0)[0]
            for _ in range(30):
                t = np.tanh(u)
                slope = 1 - t**2
                gradient = weight * (u - centre) + gamma * (t - v) * slope
                u = u - gradient / (weight + gamma * (slope**2 - 2 * (t - v) * t * slope))
            self.u[i] = u

    def W_block(self, i):
        v = np.hstack([self.inputs(i), np.ones((len(self.x), 1))])
        joined = np.hstack([self.weights[i], self.biases[i][:, None]])
        target = self.u[i] - (self.product(i) - v @ joined.T)
        rows = np.vstack([np.sqrt(self.rho[i]) * v, np.sqrt(self.alpha_weight[i]) * np.eye(v.shape[1])])
        right = np.vstack([np.sqrt(self.rho[i]) * target, np.sqrt(self.alpha_weight[i]) * joined.T])
        joined = np.linalg.lstsq(rows, right, rcond=None)[0].T
        self.weights[i], self.biases[i] = joined[:, :-1], joined[:, -1]
