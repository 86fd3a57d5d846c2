"""The activations that not all tables go through: their formulas and derivatives in float64 NumPy."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, ndtr

SELU = (1.6732632423543772, 1.0507009873554805)  # alpha and scale


def density(u):
    return np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)


def tanh_gelu_exponent(u):
    """Of s in u s(q), and its derivative."""
    rate = 2 * np.sqrt(2 / np.pi)
    return rate * (u + 0.044715 * u**3), rate * (1 + 3 * 0.044715 * u**2)


def tanh_gelu_slope(u):
    q, slope = tanh_gelu_exponent(u)
    return expit(q) + u * expit(q) * expit(-q) * slope


def elu(alpha=1.0, scale=1.0, rate=1.0):
    def value(u):
        return np.where(u > 0, scale * u, scale * alpha * np.expm1(rate * np.minimum(u, 0)))

    def slope(u):
        return np.where(u > 0, scale, scale * alpha * rate * np.exp(rate * np.minimum(u, 0)))

    return value, slope


def softplus(beta=1.0, threshold=20.0):
    def value(u):
        return np.where(beta * u > threshold, u, np.logaddexp(0, beta * u) / beta)

    return value, lambda u: np.where(beta * u > threshold, 1, expit(beta * u))


def mish_slope(u):
    t = np.tanh(np.logaddexp(0, u))
    return t + u * (1 - t**2) * expit(u)


def softshrink(u):
    return np.where(u > 0.5, u - 0.5, np.where(u < -0.5, u + 0.5, 0))


def hardshrink(threshold):
    return lambda u: np.where(np.abs(u) > threshold, u, 0)


def threshold(at, value):
    return lambda u: np.where(u > at, u, value)


# name -> (sigma, its derivative)
FORMULAS = {
    "gelu": (lambda u: u * ndtr(u), lambda u: ndtr(u) + u * density(u)),
    "gelu_tanh": (lambda u: u * expit(tanh_gelu_exponent(u)[0]), tanh_gelu_slope),
    "elu": elu(),
    "selu": elu(*SELU),
    "celu": elu(2.0, 1.0, 0.5),
    "softplus": softplus(2.0),
    "mish": (lambda u: u * np.tanh(np.logaddexp(0, u)), mish_slope),
    "hardswish": (
        lambda u: u * np.clip(u + 3, 0, 6) / 6,
        lambda u: np.where(u >= 3, 1, np.where(u <= -3, 0, u / 3 + 0.5)),
    ),
    "logsigmoid": (lambda u: -np.logaddexp(0, -u), lambda u: expit(-u)),
    "softsign": (lambda u: u / (1 + np.abs(u)), lambda u: 1 / (1 + np.abs(u)) ** 2),
    "tanhshrink": (lambda u: u - np.tanh(u), lambda u: np.tanh(u) ** 2),
    "softshrink": (softshrink, lambda u: 1.0 * (np.abs(u) > 0.5)),
    "sine": (np.sin, np.cos),
}
# Those that jump.
JUMPS = {
    "hardshrink": (hardshrink(0.5), lambda u: 1.0 * (np.abs(u) > 0.5)),
    "threshold": (threshold(0.25, -0.5), lambda u: 1.0 * (u > 0.25)),
}
