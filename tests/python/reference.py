"""Algorithm 2 of Zeng et al. in plain float64 NumPy: slow, literal, and sharing nothing with the library.

Every block is the paper's own argmin, solved by an explicit linear system over the whole block; nothing is
in residual form, nothing is cached, and every product is formed anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def relu(u):
    return np.maximum(u, 0.0)


def identity(u):
    return u.copy()


def prox_relu(a, b, gamma):
    """Argmin of 1/2 (relu(u) - a)^2 + gamma/2 (u - b)^2, by comparing the two branches' minimisers."""
    right = np.maximum((a + gamma * b) / (1 + gamma), 0.0)
    left = np.minimum(b, 0.0)
    value_right = 0.5 * (right - a) ** 2 + 0.5 * gamma * (right - b) ** 2
    value_left = 0.5 * a**2 + 0.5 * gamma * (left - b) ** 2
    return np.where(value_right <= value_left, right, left)


def prox_identity(a, b, gamma):
    return (a + gamma * b) / (1 + gamma)


def prox_by_grid(sigma):
    """The prox of any activation, by a grid between b and +-30 that is refined around its best point."""

    def prox(a, b, gamma):
        low, high = np.minimum(b, -30.0), np.maximum(b, 30.0)
        steps = np.linspace(0, 1, 4001)
        for _ in range(9):
            grid = low[..., None] + (high - low)[..., None] * steps
            values = 0.5 * (sigma(grid) - a[..., None]) ** 2 + 0.5 * gamma * (grid - b[..., None]) ** 2
            best = np.take_along_axis(grid, values.argmin(-1)[..., None], -1)[..., 0]
            width = (high - low) * (2 * steps[1])
            low, high = best - width, best + width
            steps = np.linspace(0, 1, 41)
        return best

    return prox


def leaky_relu(u):
    return np.where(u > 0, u, 0.1 * u)


def sigmoid(u):
    return 0.5 * (1 + np.tanh(u / 2))


def polynomial(u):
    return u + 0.3 * u**2 + 0.05 * u**3


def hardtanh(u):
    return np.clip(u, -0.75, 1.25)


def hardsigmoid(u):
    return np.clip(u / 6 + 0.5, 0, 1)


def sign(u):
    return np.where(u >= 0, 1.0, -1.0)


ACTIVATIONS = {
    "relu": (relu, prox_relu),
    "identity": (identity, prox_identity),
    **{
        f.__name__: (f, prox_by_grid(f))
        for f in (leaky_relu, sigmoid, np.tanh, hardtanh, hardsigmoid, sign, polynomial)
    },
}


@dataclass
class Reference:
    """State and penalties of a net; lists run over layers 1..N, ``v[0]`` is the data."""

    weights: list
    biases: list
    activations: list
    gamma: list
    rho: list
    alpha: list
    alpha_weight: list
    x: np.ndarray
    y: np.ndarray
    loss_weight: float = 1.0
    weight_l2: float = 0.0  # of weight_l2/2 |W|^2, not of the biases
    state_l2: float = 0.0

    def __post_init__(self):
        self.u, self.v = [], [self.x]
        for w, b, name in zip(self.weights, self.biases, self.activations, strict=True):
            self.u.append(self.v[-1] @ w.T + b)
            self.v.append(ACTIVATIONS[name][0](self.u[-1]))

    def product(self, i):
        return self.v[i] @ self.weights[i].T + self.biases[i]

    def objective(self):
        total = self.loss_weight * 0.5 * np.sum((self.v[-1] - self.y) ** 2)
        for i, name in enumerate(self.activations):
            gap = self.v[i + 1] - ACTIVATIONS[name][0](self.u[i])
            total += self.gamma[i] / 2 * np.sum(gap**2)
            total += self.rho[i] / 2 * np.sum((self.u[i] - self.product(i)) ** 2)
            total += self.weight_l2 / 2 * np.sum(self.weights[i] ** 2)
            total += self.state_l2 / 2 * np.sum(self.v[i + 1] ** 2)
        return total

    def update_weights(self, i, has_bias):
        v = self.v[i]
        previous = self.weights[i]
        if has_bias:
            v = np.hstack([v, np.ones((len(v), 1))])
            previous = np.hstack([previous, self.biases[i][:, None]])
        rho, alpha = self.rho[i], self.alpha_weight[i]
        decay = np.full(v.shape[1], self.weight_l2)
        decay[self.v[i].shape[1] :] = 0
        matrix = rho * v.T @ v + alpha * np.eye(v.shape[1]) + np.diag(decay)
        new = np.linalg.solve(matrix, (rho * self.u[i].T @ v + alpha * previous).T).T
        self.weights[i] = new[:, : self.v[i].shape[1]]
        if has_bias:
            self.biases[i] = new[:, -1]

    def sweep(self, has_bias=True):
        last = len(self.weights) - 1
        sigma, prox = ACTIVATIONS[self.activations[last]]
        w, g, a = self.loss_weight, self.gamma[last], self.alpha[last]
        weights = w + g + a + self.state_l2
        self.v[-1] = (w * self.y + g * sigma(self.u[last]) + a * self.v[-1]) / weights
        self.u[last] = prox(self.v[-1], self.product(last), self.rho[last] / g)
        self.update_weights(last, has_bias)
        for i in range(last - 1, -1, -1):
            sigma, prox = ACTIVATIONS[self.activations[i]]
            g, r, nxt = self.gamma[i], self.rho[i + 1], self.weights[i + 1]
            matrix = (g + self.state_l2) * np.eye(nxt.shape[1]) + r * nxt.T @ nxt
            right = g * sigma(self.u[i]) + r * (self.u[i + 1] - self.biases[i + 1]) @ nxt
            self.v[i + 1] = np.linalg.solve(matrix, right.T).T
            r, a = self.rho[i], self.alpha[i]
            centre = (r * self.product(i) + a * self.u[i]) / (r + a)
            self.u[i] = prox(self.v[i + 1], centre, (r + a) / g)
            self.update_weights(i, has_bias)
