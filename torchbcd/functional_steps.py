"""Steps of optimizers as functions: weights and data in, weights out.

They are public as :func:`torchbcd.functional.relaxed_step` and :func:`torchbcd.functional.bcd_sweep`. Where an
optimizer holds a model and a state, here all of it is an argument, so that a step goes through ``torch.export``
and AOTInductor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchbcd import arguments, losses
from torchbcd.convert import read_model
from torchbcd.regularizers import Monotone

__all__ = ["Network", "bcd_sweep", "network_of", "relaxed_step"]


class Network(NamedTuple):
    """What a model's Linear modules are put together to, without their parameters.

    Attributes:
        activations: Of each layer, by the library's name, with its numbers: ``"relu"``, ``"leaky_relu(0.2)"``.
        skips: Of each Residual what is added, V or U, of which layer, from 0 and -1 for the inputs, and to which
            layer's products: ``"V:0:2,U:2:4"``.
    """

    activations: tuple[str, ...]
    skips: str = ""


def network_of(model: nn.Sequential) -> tuple[list[Tensor], Network]:
    """The parameters of a model's layers, detached, and what they are put together to.

    Args:
        model: As for :class:`torchbcd.RelaxedBCD`, without modules before the layers.

    Returns:
        Each Linear's weight and, where it has one, its bias; and the network.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``.
        ValueError: A module is not supported, or stands before the layers.

    Example:
        >>> parameters, network = network_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        >>> len(parameters), network.activations
        (4, ('relu', 'identity'))
    """
    read = read_model(model)
    placed = read.skips  # by the library, which judges the model
    if read.frozen_first is not None or read.flatten:
        raise ValueError("model must begin with its first layer; run what stands before it on the inputs")
    if any(read.dropout):
        raise ValueError("model must have no Dropout in train mode: a step is a function; call model.eval()")
    if read.norms or any(name == "prelu" for name, _ in read.activations):
        raise ValueError(
            "model must have no LayerNorm and no slope that is trained: a functional step takes none"
        )
    parameters = [p.detach() for layer in read.parameters() for p in layer.given]
    texts = [f"{name}({', '.join(map(repr, own))})" if own else name for name, own in read.activations]
    skips = ",".join(f"{'V' if activated else 'U'}:{start}:{end}" for start, end, activated in placed)
    return parameters, Network(tuple(texts), skips)


def _text(loss: losses.Loss, options: dict[str, Any], layers: int) -> str:
    """Options as the operators take them: "name=1.0,2.0;name:word"."""
    weight = arguments.loss_weight(options.get("loss_weight", 1.0), loss.reduction == "mean")
    items = []
    for name, given in {**options, **weight}.items():
        value: Any = given
        if isinstance(given, Monotone):
            value = given.of_layers(layers)
        elif name == "order":
            value = arguments.order(value)
        if isinstance(value, str):
            items.append(f"{name}:{value}")
        else:
            values = value if isinstance(value, list | tuple) else [value]
            items.append(f"{name}={','.join(repr(x) for one in values for x in arguments.numbers(name, one))}")
    return ";".join(items)


def relaxed_step(
    x: Tensor,
    y: Tensor,
    parameters: Sequence[Tensor],
    velocity: Sequence[Tensor] = (),
    *,
    network: Network,
    loss: str | losses.Loss = "squared",
    **options: Any,
) -> tuple[list[Tensor], list[Tensor]]:
    r"""One step of :class:`torchbcd.RelaxedBCD` on a mini-batch, as a function.

    With P the products and V the states of a forward pass, no block raises

    .. math:: L = \ell(V_N; Y) + \sum_l \tfrac{\rho_l}2 \|U_l - V_{l-1} W_l^\top - 1 b_l^\top\|^2,
              \qquad V_l = \sigma_l(U_l),\ V_0 = X

    from the parameters given, moved by momentum and decay. An optimizer is made for the step and forgotten, which
    takes tens of microseconds a layer; the certificate is not returned.

    Args:
        x: Inputs, shape (n, d_0), of the parameters' dtype, float32 or float64.
        y: Class indices, shape (n,), or values, shape (n, d_N).
        parameters: Each layer's weight, (d_l, d_{l-1}), and, where it has one, its bias, (d_l,), in order.
        velocity: The last step's, shaped like the parameters; none before the first step, which then may begin
            with scaling the outputs, as an optimizer's does.
        network: What they are put together to, from :func:`torchbcd.functional.network_of`.
        loss: A name, or an object of :mod:`torchbcd.losses`.
        options: Those of :class:`torchbcd.RelaxedBCD`, a number, or a list of one for each layer.

    Returns:
        The new parameters and the new velocity: lists like ``parameters``.

    Raises:
        TypeError: A dtype is not the parameters'.
        ValueError: Shapes do not fit, values are not finite, or an option is unknown or out of range.
        torch.linalg.LinAlgError: A block has no solution in floating point.

    Example:
        >>> from torchbcd.functional import network_of
        >>> parameters, network = network_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        >>> x, y, velocity = torch.randn(32, 4), torch.randint(3, (32,)), ()
        >>> for _ in range(2):
        ...     parameters, velocity = relaxed_step(x, y, parameters, velocity, network=network, momentum=0.5)
        >>> [tuple(p.shape) for p in parameters]
        [(8, 4), (8,), (3, 8), (3,)]

    Source:
        This library; docs/relaxed.md has the blocks and the proof.
    """
    loss = losses.resolve(loss)
    made: list[Tensor] = torch.ops.torchbcd.relaxed_step(
        x,
        y,
        list(parameters),
        list(velocity),
        list(network.activations),
        network.skips,
        str(loss),
        _text(loss, options, len(network.activations)),
    )
    return made[: len(parameters)], made[len(parameters) :]


def bcd_sweep(
    x: Tensor,
    y: Tensor,
    parameters: Sequence[Tensor],
    u: Sequence[Tensor] = (),
    v: Sequence[Tensor] = (),
    *,
    network: Network,
    loss: str | losses.Loss = "squared",
    **options: Any,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    r"""One sweep of :class:`torchbcd.BCD` over a full batch, as a function.

    It does not raise, whatever the penalties,

    .. math:: \ell(V_N; Y) + \sum_l \tfrac{\gamma_l}2 \|V_l - \sigma_l(U_l)\|^2
              + \tfrac{\rho_l}2 \|U_l - V_{l-1} W_l^\top - 1 b_l^\top\|^2 + r_l(W_l) + s_l(V_l), \qquad V_0 = X

    Args:
        x: Inputs, shape (n, d_0), of the parameters' dtype, float32 or float64.
        y: Class indices, shape (n,), or values, shape (n, d_N).
        parameters: Each layer's weight, (d_l, d_{l-1}), and, where it has one, its bias, (d_l,), in order.
        u: U of each layer, (n, d_l); none: from a forward pass.
        v: V of each layer, likewise.
        network: What they are put together to, from :func:`torchbcd.functional.network_of`.
        loss: A name, or an object of :mod:`torchbcd.losses`.
        options: Those of :class:`torchbcd.BCD`, a number, or a list of one for each layer.

    Returns:
        The new parameters, U and V.

    Raises:
        TypeError: A dtype is not the parameters'.
        ValueError: Shapes do not fit, values are not finite, or an option is unknown or out of range.
        torch.linalg.LinAlgError: A block has no solution in floating point.

    Example:
        >>> from torchbcd.functional import network_of
        >>> parameters, network = network_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        >>> x, y, u, v = torch.randn(32, 4), torch.randint(3, (32,)), (), ()
        >>> for _ in range(2):
        ...     parameters, u, v = bcd_sweep(x, y, parameters, u, v, network=network, gamma=0.5)
        >>> [tuple(t.shape) for t in v]
        [(32, 8), (32, 3)]

    Source:
        [Z], Algorithms 1 and 2.
    """
    loss = losses.resolve(loss)
    made: list[Tensor] = torch.ops.torchbcd.bcd_sweep(
        x,
        y,
        list(parameters),
        list(u),
        list(v),
        list(network.activations),
        network.skips,
        str(loss),
        _text(loss, options, len(network.activations)),
    )
    count, layers = len(parameters), len(network.activations)
    return made[:count], made[count : count + layers], made[count + layers :]
