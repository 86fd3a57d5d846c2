"""Shape and dtype rules of the operators, for torch.compile, torch.export and FakeTensor.

The kinds are those of the table of operators, ``csrc/doors/operators/table.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def _new_map(
    u: Tensor, v: Tensor, weight: Tensor, bias: Tensor | None, *penalties: float
) -> tuple[Tensor, Tensor]:
    return weight.new_empty(weight.size()), weight.new_empty(0 if bias is None else weight.size(0))


def _new_variables(x: Tensor, y: Tensor, parameters: Sequence[Tensor], *others: object) -> list[Tensor]:
    weights = [p for p in parameters if p.dim() == 2]
    states = [w.new_empty(x.size(0), w.size(0)) for _ in range(2) for w in weights]
    return [*(p.new_empty(p.size()) for p in parameters), *states]


_FAKES: dict[str, Callable[..., object]] = {
    "broadcast": lambda a, b, *parameters: a + b,
    "like_first": lambda x, *parameters: torch.empty_like(x),
    "new_like_first": lambda x, *parameters: x.new_empty(x.size()),
    "new_like_first_twice": lambda x, *parameters: (x.new_empty(x.size()), x.new_empty(x.size())),
    "new_like_first_thrice": lambda x, *parameters: tuple(x.new_empty(x.size()) for _ in range(3)),
    "new_like_second": lambda a, b, *parameters: b.new_empty(b.size()),
    "new_rows": lambda x, *parameters: x.new_empty(x.size(0), 1),
    "new_map": _new_map,
    "new_parameters_twice": lambda x, y, parameters, *others: [
        p.new_empty(p.size()) for _ in range(2) for p in parameters
    ],
    "new_variables": _new_variables,
    "writes": lambda *arguments, **outputs: None,
}


def operators() -> dict[str, str]:
    """The kind of every operator, by its name."""
    return dict(row.split() for row in torch.ops.torchbcd._operator_table())


for _name, _kind in operators().items():
    torch.library.register_fake(f"torchbcd::{_name}", _FAKES[_kind])
