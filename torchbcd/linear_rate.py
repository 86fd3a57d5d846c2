"""The rate of linear convergence that Wang et al. prove for mDLAM, fitted to a run."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

import torch

__all__ = ["LinearRate", "linear_rate"]


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
