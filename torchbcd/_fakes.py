"""Shape and dtype rules of the operators, for torch.compile, torch.export and FakeTensor.

Elementwise operators broadcast exactly as `a + b` does; the block updates return what they were given
shapes for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _broadcast(a: Tensor, b: Tensor, gamma: float, *parameters: object) -> Tensor:
    return a + b


def _like_centre(a: Tensor, b: Tensor, gamma: float, *parameters: object) -> Tensor:
    return b.new_empty(b.size())


def _same(x: Tensor, *parameters: object) -> Tensor:
    return torch.empty_like(x)


def _weight_update(
    u: Tensor, v: Tensor, weight: Tensor, bias: Tensor | None, rho: float, alpha: float
) -> tuple[Tensor, Tensor]:
    new_bias = weight.new_empty(0 if bias is None else weight.size(0))
    return weight.new_empty(weight.size()), new_bias


def _state_update(s: Tensor, u: Tensor, weight: Tensor, bias: Tensor | None, gamma: float, rho: float) -> Tensor:
    return s.new_empty(s.size())


def _same_twice(x: Tensor, *parameters: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.size()), x.new_empty(x.size())


def _same_contiguous(x: Tensor, *parameters: object) -> Tensor:
    return x.new_empty(x.size())


def _writes_its_outputs(*args: object, **kwargs: object) -> None:
    return None


_FAKES: dict[str, Callable[..., object]] = {
    "prox_relu": _broadcast,
    "prox_identity": _broadcast,
    "prox_sigmoid": _broadcast,
    "prox_tanh": _broadcast,
    "prox_leaky_relu": _broadcast,
    "prox_hardtanh": _broadcast,
    "prox_hardsigmoid": _broadcast,
    "prox_sign": _broadcast,
    "prox_polynomial": _broadcast,
    "prox_squared_loss": _broadcast,
    "prox_hinge_loss": _broadcast,
    "prox_logistic_loss": _broadcast,
    "prox_exponential_loss": _broadcast,
    "prox_cross_entropy_loss": _like_centre,
    "prox_l1": _same,
    "prox_l2": _same,
    "prox_elastic_net": _same,
    "project_nonnegative": _same,
    "project_box": _same,
    "weight_update": _weight_update,
    "state_update": _state_update,
    "preimage_projection": _same_contiguous,
    "joint_state_update": _same_twice,
    "activation_out": _writes_its_outputs,
    "auxiliary_update_out": _writes_its_outputs,
    "output_update_out": _writes_its_outputs,
}

for _name, _fake in _FAKES.items():
    torch.library.register_fake(f"torchbcd::{_name}", _fake)
