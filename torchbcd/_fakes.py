"""Shape and dtype rules of the operators, for torch.compile, torch.export and FakeTensor.

Elementwise operators broadcast exactly as `a + b` does; the block updates return what they were given
shapes for.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _broadcast(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    return a + b


for _name in ("prox_relu", "prox_identity", "prox_squared_loss"):
    torch.library.register_fake(f"torchbcd::{_name}", _broadcast)


@torch.library.register_fake("torchbcd::weight_update")
def _weight_update(
    u: Tensor, v: Tensor, weight: Tensor, bias: Tensor | None, rho: float, alpha: float
) -> tuple[Tensor, Tensor]:
    new_bias = weight.new_empty(0 if bias is None else weight.size(0))
    return weight.new_empty(weight.size()), new_bias


@torch.library.register_fake("torchbcd::state_update")
def _state_update(
    s: Tensor, u: Tensor, weight: Tensor, bias: Tensor | None, gamma: float, rho: float
) -> Tensor:
    return s.new_empty(s.size())


def _writes_its_outputs(*args: object, **kwargs: object) -> None:
    return None


for _name in ("activation_out", "auxiliary_update_out", "output_update_out"):
    torch.library.register_fake(f"torchbcd::{_name}", _writes_its_outputs)
