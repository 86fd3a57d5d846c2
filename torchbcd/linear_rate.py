"""Rates of convergence, fitted to a run: the linear one that Wang et al. prove for mDLAM, and sublinear ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import NamedTuple

import torch

__all__ = ["LinearRate", "PowerRate", "linear_rate", "power_rate"]


class LinearRate(NamedTuple):
    r"""A geometric law :math:`F_k - F^* \approx C q^k` fitted to objectives.

    Attributes:
        rate: q, the factor a sweep; Theorem 4 of [W] speaks of two sweeps, :math:`C_1 = q^2`.
        limit: :math:`F^*`.
        r_squared: How well :math:`\log(F_k - F^*)` is a straight line, at most 1.
    """

    rate: float
    limit: float
    r_squared: float


def linear_rate(objectives: Sequence[float], tail: float = 0.5) -> LinearRate:
    r"""Fit the rate of Theorem 4 of [W] to the last objectives of a run.

    :math:`F^*` is chosen below the last objective so that the fit is best.

    Args:
        objectives: F after every sweep, of one eps, never rising.
        tail: The part of them, at the end, to fit, in (0, 1].

    Returns:
        The fit. Linear convergence shows as a rate below 1 and an ``r_squared`` near 1.

    Raises:
        ValueError: ``tail`` is out of range, or fewer than 8 objectives remain, or they do not fall.

    Example:
        >>> rate = linear_rate([3 + 0.9**k for k in range(60)])
        >>> round(rate.rate, 3), round(rate.limit, 3)
        (0.9, 3.0)

    Source:
        Wang, Li, Wang, Zhao: Accelerated Gradient-free Neural Network Training by Multi-convex Alternating
        Optimization, Theorem 4.
    """
    if not 0 < tail <= 1:
        raise ValueError(f"tail must be in (0, 1] (got {tail})")
    values = torch.tensor(list(objectives)[-max(1, round(tail * len(objectives))) :], dtype=torch.float64)
    if len(values) < 8:
        raise ValueError(f"linear_rate needs at least 8 objectives in the tail (got {len(values)})")
    values = values.cummin(0).values  # rounding may have raised one
    fallen = (values[0] - values[-1]).item()
    if not fallen > 0:
        raise ValueError("linear_rate needs objectives that fall")
    k = torch.arange(len(values), dtype=torch.float64)
    k -= k.mean()

    def fit(gap: float) -> tuple[float, float]:
        """Slope and r squared with the limit `gap` below the last objective."""
        logs = (values - values[-1] + gap).log()
        logs = logs - logs.mean()
        slope = (k @ logs / (k @ k)).item()
        return slope, 1 - ((logs - slope * k).square().sum() / logs.square().sum()).item()

    gaps = (fallen * 10.0 ** torch.linspace(-12, 2, 1401, dtype=torch.float64)).tolist()
    best = max(gaps, key=lambda gap: fit(gap)[1])
    slope, r_squared = fit(best)
    return LinearRate(exp(slope), values[-1].item() - best, r_squared)


def rate_of(objectives: Sequence[float]) -> LinearRate | None:
    """:func:`linear_rate` of the last half; None where it has nothing to fit."""
    try:
        return linear_rate(objectives)
    except ValueError:
        return None


class PowerRate(NamedTuple):
    r"""A power law :math:`m_k \approx C k^{-p}` fitted to the running minima :math:`m_k = \min_{i \le k} x_i`.

    Attributes:
        exponent: p.
        r_squared: How well :math:`\log m_k` is a straight line in :math:`\log k`, at most 1.
    """

    exponent: float
    r_squared: float


def power_rate(values: Sequence[float], tail: float = 0.5) -> PowerRate:
    r"""Fit a sublinear rate to the running minima of non-negative numbers, one a sweep.

    For the squared residuals :math:`\mathrm{dist}(0, \partial L)^2` of Algorithm 2 of [Z], Lemmas 5 and 6 make
    the exponent at least 1 in the long run, where the sequence is bounded: the sum of all is at most
    :math:`\bar b^2 (L^0 - L^*) / a`. [Z], Theorem 3, has no rate. For :math:`c_k` of [W], Theorem 2, which is
    such a minimum itself, the exponent is to exceed 1. Linear convergence shows as one that grows with the run.

    Args:
        values: A number a sweep, from the first one.
        tail: The part of the sweeps, at the end, to fit, in (0, 1].

    Returns:
        The fit.

    Raises:
        ValueError: ``tail`` is out of range, fewer than 8 values are left, one is negative or not finite, or the
            last minimum is 0.

    Example:
        >>> rate = power_rate([4 / k for k in range(1, 100)])
        >>> round(rate.exponent, 6), round(rate.r_squared, 6)
        (1.0, 1.0)

    Source:
        [Z] Zeng, Ouyang, Lau, Lin, Yao: Global Convergence in Deep Learning with Variable Splitting via the
        Kurdyka-Lojasiewicz Property, Lemmas 5 and 6.
        [W] Wang, Li, Wang, Zhao: Accelerated Gradient-free Neural Network Training by Multi-convex Alternating
        Optimization, Theorem 2.
    """
    if not 0 < tail <= 1:
        raise ValueError(f"tail must be in (0, 1] (got {tail})")
    minima = torch.tensor(list(values), dtype=torch.float64)
    if not bool((minima.isfinite() & (minima >= 0)).all()):
        raise ValueError("power_rate needs finite numbers >= 0")
    first = len(minima) - max(1, round(tail * len(minima)))
    if len(minima) - first < 8:
        raise ValueError(f"power_rate needs at least 8 values in the tail (got {len(minima) - first})")
    minima = minima.cummin(0).values[first:]
    if minima[-1] == 0:
        raise ValueError("power_rate needs minima above 0")
    logs = minima.log()
    k = torch.tensor([log(i + 1) for i in range(first, first + len(logs))], dtype=torch.float64)
    k, logs = k - k.mean(), logs - logs.mean()
    slope = (k @ logs / (k @ k)).item()
    spread = logs.square().sum().item()
    return PowerRate(-slope, 1 - (logs - slope * k).square().sum().item() / spread if spread > 0 else 1.0)
