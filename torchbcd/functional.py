r"""The block updates of block coordinate descent as functions on tensors.

Every function here is also an operator, ``torch.ops.torchbcd.<name>``, with the same arguments, for
TorchScript and ``torch.compile``, and a C++ function of the same name in ``torchbcd/functional.h``.

Tensors are float32 or float64, on one device, of one dtype. Elementwise functions broadcast. None of the
functions offers a gradient: a call whose arguments require one raises in ``backward()``.

References:
    [Z] Zeng, Ouyang, Lau, Lin, Yao: Global Convergence in Deep Learning with Variable Splitting via the
        Kurdyka-Lojasiewicz Property.
    [W] Wang, Li, Wang, Zhao: Accelerated Gradient-free Neural Network Training by Multi-convex Alternating
        Optimization.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchbcd.functional_steps import Network as Network
from torchbcd.functional_steps import bcd_sweep, relaxed_step
from torchbcd.functional_steps import network_of as network_of

__all__ = [
    "bcd_sweep",
    "joint_state_update",
    "preimage_projection",
    "project_box",
    "project_nonnegative",
    "prox_binary_cross_entropy_loss",
    "prox_cross_entropy_loss",
    "prox_elastic_net",
    "prox_elu",
    "prox_exponential_loss",
    "prox_gelu",
    "prox_gelu_tanh",
    "prox_hardshrink",
    "prox_hardsigmoid",
    "prox_hardswish",
    "prox_hardtanh",
    "prox_hinge_loss",
    "prox_huber_loss",
    "prox_identity",
    "prox_l1",
    "prox_l2",
    "prox_leaky_relu",
    "prox_logistic_loss",
    "prox_logsigmoid",
    "prox_mish",
    "prox_poisson_loss",
    "prox_polynomial",
    "prox_quantile_loss",
    "prox_relu",
    "prox_row_hinge_loss",
    "prox_sigmoid",
    "prox_sign",
    "prox_silu",
    "prox_sine",
    "prox_softplus",
    "prox_softshrink",
    "prox_softsign",
    "prox_squared_loss",
    "prox_tanh",
    "prox_tanhshrink",
    "prox_threshold",
    "relaxed_step",
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


def prox_leaky_relu(a: Tensor, b: Tensor, gamma: float, negative_slope: float = 0.01) -> Tensor:
    r"""Proximal operator of the squared distance of a leaky ReLU to a target.

    .. math:: \arg\min_u\ \tfrac12 (\max(u, 0) + s \min(u, 0) - a)^2 + \tfrac\gamma2 (u - b)^2

    Each branch is a quadratic with a minimiser in closed form; the lower of the two is returned.

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.
        negative_slope: Slope :math:`s` for negative arguments, finite.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, ``negative_slope`` not finite, the shapes do not broadcast, or the
            devices differ.

    Example:
        >>> prox_leaky_relu(torch.tensor([2.0, -1.0]), torch.tensor([1.0, -1.0]), 1.0, 0.5)
        tensor([ 1.5000, -1.2000])

    Source:
        [Z], Lemma 9, with both branches sloped.
    """
    result: Tensor = torch.ops.torchbcd.prox_leaky_relu(a, b, gamma, negative_slope)
    return result


def prox_hardtanh(a: Tensor, b: Tensor, gamma: float, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    r"""Proximal operator of the squared distance of a hardtanh to a target.

    .. math:: \arg\min_u\ \tfrac12 (\min(\max(u, l), h) - a)^2 + \tfrac\gamma2 (u - b)^2

    The minimiser is the weighted mean of target and centre, cut off at the bounds; or the centre itself where it
    lies beyond a bound and moving it costs more than it brings.

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.
        min_val: Lower bound :math:`l`, finite.
        max_val: Upper bound :math:`h`, finite and above ``min_val``.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the bounds are not finite or not in order, the shapes do not
            broadcast, or the devices differ.

    Example:
        >>> prox_hardtanh(torch.tensor([2.0, 0.5, -1.0]), torch.tensor([0.0, 0.0, 4.0]), 1.0)
        tensor([1.0000, 0.2500, 4.0000])

    Source:
        [Z], eq. (33), with the argument of Lemma 9 at either bound.
    """
    result: Tensor = torch.ops.torchbcd.prox_hardtanh(a, b, gamma, min_val, max_val)
    return result


def prox_hardsigmoid(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a hard sigmoid to a target.

    .. math:: \arg\min_u\ \tfrac12 (\min(\max(u/6 + 1/2, 0), 1) - a)^2 + \tfrac\gamma2 (u - b)^2

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
        >>> prox_hardsigmoid(torch.tensor([1.0, 0.0]), torch.tensor([0.0, -5.0]), 0.1)
        tensor([ 0.6522, -5.0000])

    Source:
        [Z], eq. (33); a :func:`prox_hardtanh` in u/6 + 1/2.
    """
    result: Tensor = torch.ops.torchbcd.prox_hardsigmoid(a, b, gamma)
    return result


def prox_sign(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a sign to a target.

    .. math:: \arg\min_u\ \tfrac12 (\operatorname{sign}(u) - a)^2 + \tfrac\gamma2 (u - b)^2

    with sign(0) = 1. The minimiser is the centre, or the nearest point on the other side of zero; the largest
    negative normal number stands for the infimum "just below zero".

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
        >>> prox_sign(torch.tensor([1.0, 1.0]), torch.tensor([-0.5, -3.0]), 1.0)
        tensor([ 0., -3.])

    Source:
        [Z], eq. (33).
    """
    result: Tensor = torch.ops.torchbcd.prox_sign(a, b, gamma)
    return result


def prox_sigmoid(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a sigmoid to a target.

    .. math:: \arg\min_u\ \tfrac12 \Big(\frac1{1 + e^{-u}} - a\Big)^2 + \tfrac\gamma2 (u - b)^2

    The problem is not convex; the *global* minimiser is returned, to an objective value within 1e-10 of the
    least. Many entries are solved at once, by a few Halley and Newton steps whose last is in float64; the few
    that these do not settle go on in a bracket, 200 steps at the most.

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
        >>> prox_sigmoid(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.0]), 1.0)
        tensor([0.0000, 0.1173])

    Source:
        [Z], eq. 33.
    """
    result: Tensor = torch.ops.torchbcd.prox_sigmoid(a, b, gamma)
    return result


def prox_tanh(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a hyperbolic tangent to a target.

    .. math:: \arg\min_u\ \tfrac12 (\tanh(u) - a)^2 + \tfrac\gamma2 (u - b)^2

    The problem is not convex; the *global* minimiser is returned, to an objective value within 1e-10 of the
    least. Many entries are solved at once, by a few Halley and Newton steps whose last is in float64; the few
    that these do not settle go on in a bracket, 200 steps at the most.

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
        >>> prox_tanh(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]), 1.0)
        tensor([0.0000, 0.4622])

    Source:
        [Z], eq. 33.
    """
    result: Tensor = torch.ops.torchbcd.prox_tanh(a, b, gamma)
    return result


def prox_silu(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a SiLU to a target.

    .. math:: \arg\min_u\ \tfrac12 (u / (1 + e^{-u}) - a)^2 + \tfrac\gamma2 (u - b)^2

    The problem is not convex, and a SiLU falls and rises; the *global* minimiser is returned, to an objective
    value within 1e-10 of the least. Many entries are solved at once, as for :func:`prox_tanh`.

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
        >>> prox_silu(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 2.0]), 1.0)
        tensor([0.0000, 2.1188])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_silu(a, b, gamma)
    return result


def prox_gelu(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a GELU to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = u \Phi(u)

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. Entries where the problem is
    known to be convex are solved many at once, as for :func:`prox_tanh`.

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
        >>> prox_gelu(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([1.2744, 0.0000])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_gelu(a, b, gamma)
    return result


def prox_gelu_tanh(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a GELU's approximation by a tanh to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = \tfrac u2 \big(1 + \tanh(\sqrt{2/\pi}\,(u + 0.044715\, u^3))\big)

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. Entries where the problem is
    known to be convex are solved many at once, as for :func:`prox_tanh`. It is
    ``nn.GELU(approximate="tanh")``.

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
        >>> prox_gelu_tanh(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([1.2745, 0.0000])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_gelu_tanh(a, b, gamma)
    return result


def prox_mish(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a Mish to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = u \tanh(\log(1 + e^u))

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. Entries where the problem is
    known to be convex are solved many at once, as for :func:`prox_tanh`.

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
        >>> prox_mish(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([ 1.2804, -0.0507])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_mish(a, b, gamma)
    return result


def prox_hardswish(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a hard swish to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = u \min(\max(u + 3, 0), 6) / 6

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone.

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
        >>> prox_hardswish(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([ 1.4427e+00, -8.3128e-18])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_hardswish(a, b, gamma)
    return result


def prox_logsigmoid(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a logarithm of a sigmoid to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = -\log(1 + e^{-u})

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. Entries where the problem is
    known to be convex are solved many at once, as for :func:`prox_tanh`.

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
        >>> prox_logsigmoid(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([2.0694, 0.3097])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_logsigmoid(a, b, gamma)
    return result


def prox_softsign(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a softsign to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = u / (1 + |u|)

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. Entries where the problem is
    known to be convex are solved many at once, as for :func:`prox_tanh`.

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
        >>> prox_softsign(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([ 1.9815, -0.1528])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_softsign(a, b, gamma)
    return result


def prox_tanhshrink(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a tanhshrink to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = u - \tanh(u)

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. Entries where the problem is
    known to be convex are solved many at once, as for :func:`prox_tanh`.

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
        >>> prox_tanhshrink(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([1.7373, 0.3716])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_tanhshrink(a, b, gamma)
    return result


def prox_sine(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the squared distance of a sine to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = \sin(u)

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. It is within half a period
    of ``b``.

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
        >>> prox_sine(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([ 2.1830, -0.2402])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_sine(a, b, gamma)
    return result


def prox_elu(
    a: Tensor, b: Tensor, gamma: float, alpha: float = 1.0, scale: float = 1.0, rate: float = 1.0
) -> Tensor:
    r"""Proximal operator of the squared distance of an ELU, CELU or SELU to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = s \max(u, 0) + s \alpha (e^{r \min(u, 0)} - 1)

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. Entries where the problem is
    known to be convex are solved many at once, as for :func:`prox_tanh`. An ELU has the scale and rate 1, a
    CELU the rate 1/alpha, a SELU alpha 1.67326... and scale 1.05070...

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.
        alpha: Finite; where it is negative, :math:`\sigma` falls and rises.
        scale: :math:`s`, finite and > 0.
        rate: :math:`r`, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, the devices differ, or
            a number is out of range.

    Example:
        >>> prox_elu(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([ 1.2500, -0.1874])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_elu(a, b, gamma, alpha, scale, rate)
    return result


def prox_softplus(a: Tensor, b: Tensor, gamma: float, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    r"""Proximal operator of the squared distance of a softplus to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = \log(1 + e^{\beta u}) / \beta

    The *global* minimiser is returned, to an objective value within 1e-10 of the least: branch and bound over
    intervals on which the activation and its first two derivatives are monotone. Entries where the problem is
    known to be convex are solved many at once, as for :func:`prox_tanh`.

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.
        beta: Finite and > 0.
        threshold: Where :math:`\beta u` is beyond it, :math:`\sigma(u) = u`; >= 20, since the graph jumps there.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, the devices differ, or
            a number is out of range.

    Example:
        >>> prox_softplus(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([ 1.2338, -0.2122])

    Source:
        [Z], eq. 33, for an activation that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_softplus(a, b, gamma, beta, threshold)
    return result


def prox_softshrink(a: Tensor, b: Tensor, gamma: float, lambd: float = 0.5) -> Tensor:
    r"""Proximal operator of the squared distance of a soft shrinkage to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = \operatorname{sign}(u) \max(|u| - \lambda, 0)

    The problem is not convex; the *global* minimiser is returned, in closed form: the best of the three
    lines.

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.
        lambd: :math:`\lambda`, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, the devices differ, or
            ``lambd`` is not positive.

    Example:
        >>> prox_softshrink(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([1.5000, 0.5000])

    Source:
        [Z], eq. 33; each line as in Lemma 9.
    """
    result: Tensor = torch.ops.torchbcd.prox_softshrink(a, b, gamma, lambd)
    return result


def prox_hardshrink(a: Tensor, b: Tensor, gamma: float, lambd: float = 0.5) -> Tensor:
    r"""Proximal operator of the squared distance of a hard shrinkage to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = u \text{ for } |u| > \lambda, \text{ else } 0

    The *global* minimiser is returned, in closed form; the number next to the threshold stands for the
    infimum "just beyond" it.

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.
        lambd: :math:`\lambda`, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, the devices differ, or
            ``lambd`` is not positive.

    Example:
        >>> prox_hardshrink(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0)
        tensor([1.2500, 0.5000])

    Source:
        [Z], eq. 33; each line as in Lemma 9.
    """
    result: Tensor = torch.ops.torchbcd.prox_hardshrink(a, b, gamma, lambd)
    return result


def prox_threshold(a: Tensor, b: Tensor, gamma: float, threshold: float, value: float) -> Tensor:
    r"""Proximal operator of the squared distance of a threshold to a target.

    .. math:: \arg\min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,
              \quad \sigma(u) = u \text{ for } u > \theta, \text{ else } c

    The *global* minimiser is returned, in closed form; the number next to the threshold stands for the
    infimum "just beyond" it.

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.
        threshold: :math:`\theta`, finite.
        value: :math:`c`, finite.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, the devices differ, or
            a number is not finite.

    Example:
        >>> prox_threshold(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]), 1.0, 0.25, 0.0)
        tensor([1.2500, 0.2500])

    Source:
        [Z], eq. 33; each line as in Lemma 9.
    """
    result: Tensor = torch.ops.torchbcd.prox_threshold(a, b, gamma, threshold, value)
    return result


def prox_polynomial(a: Tensor, b: Tensor, gamma: float, coefficients: list[float]) -> Tensor:
    r"""Proximal operator of the squared distance of a polynomial to a target.

    .. math:: \arg\min_u\ \tfrac12 \Big(\sum_k c_k u^k - a\Big)^2 + \tfrac\gamma2 (u - b)^2

    The problem is not convex; the *global* minimiser is returned, to an objective value within 1e-10 of the
    least. Solved in float64 whatever the dtype, by Newton iterations safeguarded by brackets: 200 steps at the
    most in a bracket, a handful as a rule.

    Args:
        a: Target of the activation, any shape.
        b: Centre of the quadratic, broadcastable with ``a``.
        gamma: Weight of the quadratic, finite and > 0.
        coefficients: :math:`c_0, c_1, \dots`, the constant one first; 1 to 9 finite numbers.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the coefficients are too many or not finite, the shapes do not
            broadcast, or the devices differ.

    Example:
        >>> prox_polynomial(torch.tensor([4.0]), torch.tensor([3.0]), 1e-3, [0.0, 0.0, 1.0])
        tensor([2.0001])

    Source:
        [Z], eq. 33.
    """
    result: Tensor = torch.ops.torchbcd.prox_polynomial(a, b, gamma, coefficients)
    return result


def prox_hinge_loss(y: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the hinge loss.

    .. math:: \arg\min_v\ \max(0, 1 - y v) + \tfrac\gamma2 (v - b)^2

    Args:
        y: Targets, usually -1 or 1, any shape.
        b: Centre of the quadratic, broadcastable with ``y``.
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, or the devices differ.

    Example:
        >>> prox_hinge_loss(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([2.0, -3.0, -0.5]), 1.0)
        tensor([ 2., -2., -1.])

    Source:
        [Z], Lemma 10.
    """
    result: Tensor = torch.ops.torchbcd.prox_hinge_loss(y, b, gamma)
    return result


def prox_logistic_loss(y: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the logistic loss.

    .. math:: \arg\min_v\ \log(1 + e^{-y v}) + \tfrac\gamma2 (v - b)^2

    Convex; a Newton iteration inside a bracket, in float64 whatever the dtype.

    Args:
        y: Targets, usually -1 or 1, any shape.
        b: Centre of the quadratic, broadcastable with ``y``.
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, or the devices differ.

    Example:
        >>> prox_logistic_loss(torch.tensor([1.0]), torch.tensor([0.0]), 1.0)
        tensor([0.4011])

    Source:
        [Z], Section 3.1.
    """
    result: Tensor = torch.ops.torchbcd.prox_logistic_loss(y, b, gamma)
    return result


def prox_exponential_loss(y: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the exponential loss.

    .. math:: \arg\min_v\ e^{-y v} + \tfrac\gamma2 (v - b)^2

    Convex; :math:`v = b + \omega(\log(y^2/\gamma) - y b)/y` with the Wright omega function, in float64 whatever
    the dtype.

    Args:
        y: Targets, usually -1 or 1, any shape.
        b: Centre of the quadratic, broadcastable with ``y``.
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, or the devices differ.

    Example:
        >>> prox_exponential_loss(torch.tensor([1.0]), torch.tensor([0.0]), 1.0)
        tensor([0.5671])

    Source:
        [Z], Theorem 1.
    """
    result: Tensor = torch.ops.torchbcd.prox_exponential_loss(y, b, gamma)
    return result


def prox_huber_loss(y: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the Huber loss with threshold 1, in closed form.

    .. math:: \arg\min_v\ h(v - y) + \tfrac\gamma2 (v - b)^2, \qquad
        h(d) = \tfrac12 d^2 \text{ for } |d| \le 1, \quad |d| - \tfrac12 \text{ beyond}

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
        >>> prox_huber_loss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 5.0]), 1.0)
        tensor([0.5000, 4.0000])

    Source:
        [Z], the V block of Algorithm 2, for a loss that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_huber_loss(y, b, gamma)
    return result


def prox_binary_cross_entropy_loss(y: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the binary cross-entropy of a logit.

    .. math:: \arg\min_v\ \log(1 + e^v) - y v + \tfrac\gamma2 (v - b)^2

    Convex: the logistic loss of the nearer label, 1 or -1, and a line, which moves the centre. So it is the
    iteration of :func:`prox_logistic_loss`, and one step of Newton's more; in float64 whatever the dtype.

    Args:
        y: Targets, usually from 0 to 1, any shape.
        b: Centre of the quadratic, broadcastable with ``y``.
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, or the devices differ.

    Example:
        >>> prox_binary_cross_entropy_loss(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 2.0]), 1.0)
        tensor([0.4011, 1.6598])

    Source:
        [Z], Section 3.1, for the logistic loss.
    """
    result: Tensor = torch.ops.torchbcd.prox_binary_cross_entropy_loss(y, b, gamma)
    return result


def prox_poisson_loss(y: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of Poisson's negative log-likelihood, of the logarithm of a rate.

    .. math:: \arg\min_v\ e^v - y v + \tfrac\gamma2 (v - b)^2

    Convex; :math:`v = r - \omega(r - \log\gamma)` with :math:`r = b + y/\gamma` and the Wright omega function, in
    float64 whatever the dtype.

    Args:
        y: Targets, usually counts, any shape.
        b: Centre of the quadratic, broadcastable with ``y``.
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, the shapes do not broadcast, or the devices differ.

    Example:
        >>> prox_poisson_loss(torch.tensor([0.0, 3.0]), torch.tensor([0.0, 0.0]), 1.0)
        tensor([-0.5671,  0.7921])

    Source:
        [Z], the V block of Algorithm 2, for a loss that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_poisson_loss(y, b, gamma)
    return result


def prox_quantile_loss(y: Tensor, b: Tensor, gamma: float, tau: float = 0.5) -> Tensor:
    r"""Proximal operator of the quantile loss, in closed form.

    .. math:: \arg\min_v\ \max\bigl(\tau (y - v), (\tau - 1) (y - v)\bigr) + \tfrac\gamma2 (v - b)^2

    :math:`b - (1 - \tau)/\gamma` where that is above ``y``, :math:`b + \tau/\gamma` where that is below, and
    ``y`` between.

    Args:
        y: Targets, any shape.
        b: Centre of the quadratic, broadcastable with ``y``.
        gamma: Weight of the quadratic, finite and > 0.
        tau: The level, between 0 and 1.

    Returns:
        The minimisers, of the broadcast shape.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, ``tau`` is not between 0 and 1, the shapes do not broadcast, or the
            devices differ.

    Example:
        >>> prox_quantile_loss(torch.zeros(3), torch.tensor([-2.0, 0.1, 2.0]), 1.0, 0.9)
        tensor([-1.1000,  0.0000,  1.9000])

    Source:
        [Z], the V block of Algorithm 2, for a loss that it does not name.
    """
    result: Tensor = torch.ops.torchbcd.prox_quantile_loss(y, b, gamma, tau)
    return result


def prox_cross_entropy_loss(target: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the softmax cross-entropy, row by row.

    .. math:: \arg\min_v\ -\sum_c t_c \log \mathrm{softmax}(v)_c + \tfrac\gamma2 \|v - b\|^2

    Convex; stationarity leaves one unknown, the row's log-sum-exp, found by a Newton iteration inside a bracket
    at O(C) a step, in float64 whatever the dtype. No matrix is formed.

    Args:
        target: Class indices, int of shape (n,), or probabilities :math:`t`, shape (n, C), of the dtype of ``b``;
            rows need not sum to one.
        b: Centres of the quadratics, shape (n, C).
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, shape (n, C).

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, a class is out of range, a probability negative, a shape does not
            fit, or the devices differ.

    Example:
        >>> prox_cross_entropy_loss(torch.tensor([1]), torch.zeros(1, 2), 1.0)
        tensor([[-0.3374,  0.3374]])

    Source:
        [Z], Theorem 1.
    """
    result: Tensor = torch.ops.torchbcd.prox_cross_entropy_loss(target, b, gamma)
    return result


def prox_row_hinge_loss(y: Tensor, b: Tensor, gamma: float) -> Tensor:
    r"""Proximal operator of the hinge of a row's whole output, row by row.

    .. math:: \arg\min_v\ \max(0, 1 - y^\top v) + \tfrac\gamma2 \|v - b\|^2

    Convex: :math:`v = b + \lambda y/\gamma` with :math:`\lambda = \gamma (1 - y^\top b) / \|y\|^2` clipped to
    [0, 1], in float64 whatever the dtype.

    Args:
        y: Targets, usually -1 and 1, shape (n, C).
        b: Centres of the quadratics, shape (n, C).
        gamma: Weight of the quadratic, finite and > 0.

    Returns:
        The minimisers, shape (n, C).

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: ``gamma`` is not positive, a shape does not fit, or the devices differ.

    Example:
        >>> prox_row_hinge_loss(torch.tensor([[1.0, -1.0]]), torch.tensor([[0.25, 0.25]]), 1.0)
        tensor([[ 0.7500, -0.2500]])

    Source:
        [Z], proof of Theorem 1, (a3), for the loss; with one output it is Lemma 10.
    """
    result: Tensor = torch.ops.torchbcd.prox_row_hinge_loss(y, b, gamma)
    return result


def prox_l1(x: Tensor, t: float) -> Tensor:
    r"""Soft thresholding: the proximal operator of the 1-norm.

    .. math:: \arg\min_u\ t |u| + \tfrac12 (u - x)^2

    Args:
        x: Centre, any shape.
        t: Threshold, finite and >= 0.

    Returns:
        The minimisers, of the shape of ``x``.

    Raises:
        TypeError: ``x`` is not float32 or float64.
        ValueError: ``t`` is negative or not finite.

    Example:
        >>> prox_l1(torch.tensor([3.0, -0.5, -2.0]), 1.0)
        tensor([ 2.,  0., -1.])

    Source:
        [Z], Theorem 1 (c).
    """
    result: Tensor = torch.ops.torchbcd.prox_l1(x, t)
    return result


def prox_l2(x: Tensor, t: float) -> Tensor:
    r"""Shrinkage: the proximal operator of the squared norm.

    .. math:: \arg\min_u\ \tfrac t2 u^2 + \tfrac12 (u - x)^2 = \frac x{1 + t}

    Args:
        x: Centre, any shape.
        t: Weight, finite and >= 0.

    Returns:
        The minimisers, of the shape of ``x``.

    Raises:
        TypeError: ``x`` is not float32 or float64.
        ValueError: ``t`` is negative or not finite.

    Example:
        >>> prox_l2(torch.tensor([3.0, -2.0]), 1.0)
        tensor([ 1.5000, -1.0000])

    Source:
        [Z], Theorem 1 (c).
    """
    result: Tensor = torch.ops.torchbcd.prox_l2(x, t)
    return result


def prox_elastic_net(x: Tensor, t1: float, t2: float) -> Tensor:
    r"""Proximal operator of the elastic net.

    .. math:: \arg\min_u\ t_1 |u| + \tfrac{t_2}2 u^2 + \tfrac12 (u - x)^2

    Args:
        x: Centre, any shape.
        t1: Weight of the 1-norm, finite and >= 0.
        t2: Weight of the squared norm, finite and >= 0.

    Returns:
        The minimisers, of the shape of ``x``.

    Raises:
        TypeError: ``x`` is not float32 or float64.
        ValueError: A weight is negative or not finite.

    Example:
        >>> prox_elastic_net(torch.tensor([3.0, -0.5]), 1.0, 1.0)
        tensor([1., 0.])

    Source:
        [Z], Theorem 1 (c).
    """
    result: Tensor = torch.ops.torchbcd.prox_elastic_net(x, t1, t2)
    return result


def project_nonnegative(x: Tensor) -> Tensor:
    r"""Projection onto the half space of non-negative numbers.

    .. math:: \arg\min_{u \ge 0}\ \tfrac12 (u - x)^2 = \max(x, 0)

    Args:
        x: Centre, any shape.

    Returns:
        The projections, of the shape of ``x``.

    Raises:
        TypeError: ``x`` is not float32 or float64.

    Example:
        >>> project_nonnegative(torch.tensor([3.0, -0.5]))
        tensor([3., 0.])

    Source:
        [Z], Theorem 1 (c).
    """
    result: Tensor = torch.ops.torchbcd.project_nonnegative(x)
    return result


def project_box(x: Tensor, lo: float, hi: float) -> Tensor:
    r"""Projection onto an interval.

    .. math:: \arg\min_{lo \le u \le hi}\ \tfrac12 (u - x)^2

    Args:
        x: Centre, any shape.
        lo: Lower bound, may be -inf.
        hi: Upper bound, may be inf.

    Returns:
        The projections, of the shape of ``x``.

    Raises:
        TypeError: ``x`` is not float32 or float64.
        ValueError: ``lo`` is above ``hi``.

    Example:
        >>> project_box(torch.tensor([3.0, -0.5, 0.25]), 0.0, 1.0)
        tensor([1.0000, 0.0000, 0.2500])

    Source:
        [Z], Theorem 1 (c).
    """
    result: Tensor = torch.ops.torchbcd.project_box(x, lo, hi)
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
        [Z], Algorithm 2, the W block; footnote 1 for the bias.
    """
    new_weight, new_bias = torch.ops.torchbcd.weight_update(u, v, weight, bias, rho, alpha)
    return new_weight, None if bias is None else new_bias


def state_update(s: Tensor, u: Tensor, weight: Tensor, bias: Tensor | None, gamma: float, rho: float) -> Tensor:
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


def preimage_projection(
    q: Tensor, a: Tensor, z: Tensor, activation: str, parameters: Sequence[float], eps: float
) -> Tensor:
    r"""The z block of a hidden layer of DLAM: projection onto the z whose activation is near a.

    .. math:: \arg\min_{z'}\ \tfrac12 (z' - q)^2 \quad \text{subject to} \quad |a - \sigma(z')| \le \varepsilon

    The set is an interval, since the activation is monotone. Its ends are computed in float64; ``z``, the
    feasible point that is there already, counts as a member, so that where the ends of a saturated activation are
    lost to rounding the result is finite and no further from ``q`` than ``z``.

    Args:
        q: What z is drawn to, :math:`W a + b`, any shape.
        a: States, of the same shape.
        z: A feasible point, of the same shape.
        activation: "relu", "leaky_relu", "sigmoid", "tanh", "hardtanh", "hardsigmoid", "identity", "elu",
            "softplus", "logsigmoid", "softsign", "tanhshrink", "softshrink" or a "polynomial" that never falls.
        parameters: Its numbers, as its prox takes them; or nothing, where it has defaults.
        eps: The tolerance, >= 0.

    Returns:
        The projections.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: A shape does not fit, the activation is not monotone, or ``eps`` is negative.

    Example:
        >>> q, a, z = torch.tensor([3.0, -2.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, -1.0])
        >>> preimage_projection(q, a, z, "relu", [], 0.5)
        tensor([ 1.5000, -2.0000])

    Source:
        [W], eq. (4).
    """
    result: Tensor = torch.ops.torchbcd.preimage_projection(q, a, z, activation, parameters, eps)
    return result


def joint_state_update(
    q: Tensor, v: Tensor, activation: str, parameters: Sequence[float], ratio: float, eps: float
) -> tuple[Tensor, Tensor]:
    r"""The joint block of DLAM: a linear output and its state together, the *global* minimisers.

    .. math:: \arg\min_{z, a}\ \tfrac r2 (z - q)^2 + \tfrac12 (a - v)^2
              \quad \text{subject to} \quad |a - \sigma(z)| \le \varepsilon

    Args:
        q: What z is drawn to, :math:`W a + b`, any shape.
        v: What a is drawn to, of the same shape.
        activation: "relu", "leaky_relu", "sigmoid", "tanh", "hardtanh", "hardsigmoid", "identity", "elu",
            "softplus", "logsigmoid", "softsign", "tanhshrink", "softshrink" or a "polynomial" that never falls.
        parameters: Its numbers, as its prox takes them; or nothing, where it has defaults.
        ratio: :math:`r`, > 0.
        eps: The tolerance, >= 0.

    Returns:
        z and a.

    Raises:
        TypeError: A tensor is not float32 or float64, or the dtypes differ.
        ValueError: A shape does not fit, the activation is not monotone, or a number is out of range.

    Example:
        >>> joint_state_update(torch.tensor([-0.5]), torch.tensor([2.0]), "relu", [], 1.0, 0.0)
        (tensor([0.7500]), tensor([0.7500]))

    Source:
        Not in [W]: docs/dlam.md.
    """
    z, a = torch.ops.torchbcd.joint_state_update(q, v, activation, parameters, ratio, eps)
    return z, a
