r"""The block updates of block coordinate descent as functions on tensors.

Every function here is also an operator, ``torch.ops.torchbcd.<name>``, with the same arguments, for
TorchScript and ``torch.compile``, and a C++ function of the same name in ``torchbcd/functional.h``.

Tensors are float32 or float64, on one device, of one dtype. Elementwise functions broadcast. None of the
functions offers a gradient: a call whose arguments require one raises in ``backward()``.

References:
    [Z] Zeng, Lau, Lin, Yao: Global Convergence of Block Coordinate Descent in Deep Learning.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "prox_identity",
    "prox_relu",
    "prox_squared_loss",
    "state_update",
    "weight_update",
]


def prox_relu(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a ReLU to a target.

    .. math:: \arg\min_u\ \tfrac12 (\max(u, 0) - a)^2 + \tfrac\gamma2 (u - b)^2

    The problem is not convex; the *global* minimiser is returned, in closed form. Where two points tie,
    the non-negative one is.

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, or the devices differ.

    Example:
        >>> prox_relu(torch.tensor([2.0, 2.0, -1.0]), torch.tensor([1.0, -3.0, 0.5]), 1.0)
        tensor([ 1.5000, -3.0000,  0.0000])

    Source:
        [Z], Lemma 9.
    """
    result: Tensor = torch.ops.torchbcd.prox_relu(a, b, gamma)
    return result


def prox_identity(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Weighted mean of a target and a centre: the prox of a linear activation.

    .. math:: \arg\min_u\ \tfrac12 (u - a)^2 + \tfrac\gamma2 (u - b)^2 = \frac{a + \gamma b}{1 + \gamma}

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, or the devices differ.

    Example:
        >>> prox_identity(torch.tensor([4.0]), torch.tensor([1.0]), 2.0)
        tensor([2.])

    Source:
        [Z], Algorithm 2, the U block of the output layer.
    """
    result: Tensor = torch.ops.torchbcd.prox_identity(a, b, gamma)
    return result


def prox_squared_loss(y: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared loss.

    .. math:: \arg\min_v\ \tfrac12 (v - y)^2 + \tfrac\gamma2 (v - b)^2 = \frac{y + \gamma b}{1 + \gamma}

    Args:
        y: Targets, any shape.
        b: Centre of the quadratic, broadcastable with ``y``.
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, or the devices differ.

    Example:
        >>> prox_squared_loss(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]), 2.0)
        tensor([0.3333, 2.0000])

    Source:
        [Z], Algorithm 2, the V block of the output layer.
    """
    result: Tensor = torch.ops.torchbcd.prox_squared_loss(y, b, gamma)
    return result


def weight_update(
    u: Tensor, v: Tensor, weight: Tensor, bias: Tensor | None, rho: float, alpha: float
) -> tuple[Tensor, Tensor | None]:
    r"""Weight block: a ridge regression around the previous weights, jointly in weight and bias.

    .. math:: \arg\min_{W, b}\ \tfrac\rho2 \|U - V W^\top - 1 b^\top\|_F^2
              + \tfrac\alpha2 \|[W\ b] - [W^-\ b^-]\|_F^2

    Solved for the *change* of the weights, by a Cholesky factor of the smaller of the two Gram matrices
    (matrix inversion lemma). A float32 problem too ill-conditioned for a float32 factor is solved by a
    float64 one.

    Args:
        u: Targets of the layer's linear map, shape (n, d'); n may be 0.
        v: Inputs of the layer, shape (n, d).
        weight: Previous weight :math:`W^-`, shape (d', d), as in ``nn.Linear``.
        bias: Previous bias :math:`b^-`, shape (d',), or None for a layer without one.
        rho: Weight of the fit, finite and > 0.
        alpha: Weight of the proximal term, finite and > 0.

    Returns:
        The new weight and bias, the latter None where ``bias`` is None.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: A shape does not fit, a weight is not positive, or the devices differ.
        torch.linalg.LinAlgError: No Cholesky factor exists in float64 either, as when data overflow.

    Example:
        >>> u, v = torch.tensor([[3.0], [5.0]]), torch.tensor([[1.0], [2.0]])
        >>> weight, bias = weight_update(u, v, torch.zeros(1, 1), torch.zeros(1), 1.0, 1e-6)
        >>> round(weight.item(), 3), round(bias.item(), 3)
        (2.0, 1.0)

    Source:
        [Z], Algorithm 2, the W block; Section 2 for the bias.
    """
    new_weight, new_bias = torch.ops.torchbcd.weight_update(u, v, weight, bias, rho, alpha)
    return new_weight, None if bias is None else new_bias


def state_update(
    s: Tensor, u: Tensor, weight: Tensor, bias: Tensor | None, gamma: float, rho: float
) -> Tensor:
    r"""State block of a hidden layer: a compromise of what comes in and what the next layer wants.

    .. math:: \arg\min_V\ \tfrac\gamma2 \|V - S\|_F^2 + \tfrac\rho2 \|U - V W^\top - 1 b^\top\|_F^2

    Args:
        s: Activations :math:`S = \sigma(U_i)` of this layer, shape (n, d); n may be 0.
        u: Targets of the next layer's linear map, shape (n, d').
        weight: Weight of the next layer, shape (d', d).
        bias: Bias of the next layer, shape (d',), or None.
        gamma: Weight of the distance to ``s``, finite and > 0.
        rho: Weight of the next layer's fit, finite and > 0.

    Returns:
        The new states, shape (n, d).

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: A shape does not fit, a weight is not positive, or the devices differ.
        torch.linalg.LinAlgError: No Cholesky factor exists in float64 either, as when weights overflow.

    Example:
        >>> state_update(torch.zeros(1, 1), torch.tensor([[6.0]]), torch.ones(1, 1), None, 1.0, 1.0)
        tensor([[3.0000]])

    Source:
        [Z], Algorithm 2, the V block.
    """
    result: Tensor = torch.ops.torchbcd.state_update(s, u, weight, bias, gamma, rho)
    return result
