"""Published methods that are Algorithm 1 of Zeng et al. with particular choices, under their own names."""

from __future__ import annotations

from typing import Any

from torch import nn

from torchbcd.bcd import BCD
from torchbcd.convert import read_model
from torchbcd.regularizers import Nonnegative

__all__ = ["MAC", "ZhangBrand"]


class MAC(BCD):
    r"""The method of auxiliary coordinates: all V as one block, then all W, and no proximal terms.

    .. math::
        \sum_{\text{rows}} \tfrac{w}2 \|V_N - Y\|^2 + \sum_{i=1}^N \Big( \tfrac{\gamma_i}2
        \|V_i - \sigma_i(V_{i-1} W_i^\top + 1 b_i^\top)\|_F^2 + r_i(W_i) + s_i(V_i) \Big)

    Both are nonlinear least squares. The V of a row, of all layers together, are improved by damped Gauss-Newton
    steps (Levenberg-Marquardt), whose block tridiagonal system is factored row by row, at a cost of
    :math:`O(\sum_i d_i^3)` a row and step, until the row's gradient is rounding: a stationary point of the row,
    no global minimum, in general. The W of a layer are least squares where it has no activation, to 1e-10 of the
    Gram matrix's mean eigenvalue, which keeps that definite; else up to 30 Gauss-Newton steps are taken, each
    unit with a length of its own. No block raises the objective; [Z]'s theorems, which need proximal terms, are
    not about it.

    It is :class:`torchbcd.BCD` with ``loss="squared"``, ``splitting=2`` and ``order="joint"``.

    Args:
        model: As for :class:`torchbcd.BCD`; every activation is smooth: ``nn.Sigmoid``, ``nn.Tanh``,
            ``nn.SiLU``, ``nn.Identity``, ``torchbcd.nn.Polynomial`` or another without a kink or a jump.
        **options: ``gamma``, ``loss_weight``, ``weight_regularizer``, ``regularize_bias``, and
            ``state_regularizer`` with a squared norm, as for :class:`torchbcd.BCD`.

    Raises:
        ValueError: An activation is not smooth, or a state regulariser has a 1-norm or bounds.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2))
        >>> optimizer = MAC(model, gamma=0.1)
        >>> optimizer.step(torch.randn(16, 4), torch.randn(16, 2)).sweep
        1

    Source:
        Carreira-Perpinan, Wang: Distributed optimization of deeply nested systems (2014); [Z], Section 3.1.
    """

    def __init__(self, model: nn.Sequential, **options: Any) -> None:
        super().__init__(model, "squared", splitting=2, order="joint", **options)


class ZhangBrand(BCD):
    r"""The lifted ReLU: the identity as activation while training, and states held at or above zero.

    .. math::
        \sum_{\text{rows}} \tfrac12 \|V_N - Y\|^2 + \sum_{i=1}^N \tfrac{\gamma_i}2
        \|V_i - V_{i-1} W_i^\top - 1 b_i^\top\|_F^2 \quad \text{subject to } V_i \ge 0

    A ReLU is the projection onto :math:`V \ge 0`, so the model keeps its ``nn.ReLU`` modules for inference; the
    sweeps work on the relaxation. Every block is convex. All blocks have a proximal term.

    Args:
        model: As for :class:`torchbcd.BCD`; every hidden activation is an ``nn.ReLU``.
        output_nonnegative: Whether the output's states are held at or above zero too, as [Z] writes it. Turn it
            off for targets below zero.
        **options: ``gamma``, ``alpha``, ``alpha_weight``, ``loss_weight``, ``weight_regularizer``, ``order`` and
            ``inner_sweeps``, as for :class:`torchbcd.BCD`.

    Raises:
        ValueError: A hidden activation is not a ReLU.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = ZhangBrand(model, gamma=0.1, alpha=0.01, output_nonnegative=False)
        >>> optimizer.bind(torch.randn(16, 4), torch.randn(16, 2))
        >>> _ = optimizer.step()
        >>> bool((optimizer.variables().V[1] >= 0).all())
        True

    Source:
        Zhang, Brand: Convergent block coordinate descent for training Tikhonov regularized deep neural networks
        (2017); [Z], Section 3.1.
    """

    _training_activation = ("identity", ())

    def __init__(self, model: nn.Sequential, *, output_nonnegative: bool = True, **options: Any) -> None:
        hidden = [name for name, _ in read_model(model).activations[:-1]]
        if any(name != "relu" for name in hidden):
            raise ValueError(f"ZhangBrand needs nn.ReLU after every hidden Linear (got {hidden})")
        states = [Nonnegative()] * len(hidden) + [Nonnegative() if output_nonnegative else None]
        super().__init__(model, "squared", splitting=2, state_regularizer=states, **options)
