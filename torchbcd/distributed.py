"""What several processes make sure of before they train one model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from torchbcd.optimizer import SweepOptimizer


def description(optimizer: SweepOptimizer[Any]) -> dict[str, object]:
    """What must be the same in every process: the model's layers and the options."""
    parameters = optimizer._model.parameters()
    layers = optimizer._object.layer_options()
    return {
        "the number of Linear modules": len(parameters),
        "the weights' shapes": [tuple(layer.weight.shape) for layer in parameters],
        "which layers have a bias": [layer.bias is not None for layer in parameters],
        "the parameters' dtype": str(parameters[0][0].dtype),
        "the activations": [(name, tuple(numbers)) for name, numbers in optimizer._model.activations],
        "the Residuals": optimizer._model.skips,
        "the LayerNorms": optimizer._model.norms,
        "which parameters are frozen": [
            not p.requires_grad for layer in parameters for p in layer if p is not None
        ],
        "loss": str(optimizer._loss),
        **{name: [layer[name] for layer in layers] for name in layers[0]},
        **optimizer._object.scheme_options(),
    }


class Ranks:
    """Numbers over the processes of a group; what it is given, where there is none.

    Args:
        group: The group, or None.
    """

    def __init__(self, group: ProcessGroup | None) -> None:
        self._group = group

    def _reduced(self, numbers: list[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self._group is None:
            return numbers
        device = "cuda" if dist.get_backend(self._group) == "nccl" else "cpu"
        values = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(values, how, group=self._group)
        return [float(value) for value in values]

    def total(self, number: float) -> float:
        """The sum."""
        return self.totals([number])[0]

    def totals(self, numbers: list[float]) -> list[float]:
        """The sum of each of several numbers, in one message."""
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def lengths(self, parts: list[float]) -> list[float]:
        """The lengths of vectors from those of the parts that the processes have of each."""
        if self._group is None:
            return parts
        return [square**0.5 for square in self.totals([part**2 for part in parts])]

    def sums(self, tensors: list[Tensor]) -> list[Tensor]:
        """The sum of each of several tensors of one type, in one message."""
        if self._group is None:
            return tensors
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat, group=self._group)
        parts = torch.split(flat, [t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]

    def most(self, number: int) -> int:
        """The largest."""
        return int(self._reduced([number], dist.ReduceOp.MAX)[0]) if self._group is not None else number

    def mean(self, number: float, weight: float = 1.0) -> float:
        """The mean, weighted."""
        if self._group is None:
            return number
        total, weights = self._reduced([weight * number if weight else 0.0, weight], dist.ReduceOp.SUM)
        return total / weights

    def batches(self, rows: Tensor, size: int, steps: int) -> tuple[Tensor, ...]:
        """Rows in so many batches: of a size, or, in several processes, as many as all of them take."""
        if self._group is None:
            return torch.split(rows, size)
        return torch.tensor_split(rows, steps)


@contextmanager
def same_everywhere(
    group: ProcessGroup | None, what: str = "the optimizer could not be made"
) -> Iterator[dict[str, object]]:
    """Collect a description in the body; then compare it with that of every other process of the group.

    An error of the body is one in every process, none of which waits for the others in vain; `what` says of what.

    Raises:
        TypeError: ``group`` is not a process group.
        ValueError: The body failed in another process, this one is not in the group, or the descriptions differ.
    """
    described: dict[str, object] = {}
    if group is None:
        yield described
        return
    if group is cast("object", dist.GroupMember.NON_GROUP_MEMBER):
        raise ValueError("process_group must be one that this process is in (it is not in this one)")
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"process_group must be a torch.distributed.ProcessGroup (got {type(group).__name__})")
    failure: BaseException | None = None
    try:
        yield described
    except Exception as error:
        failure = error
    gathered: list[Any] = [None] * group.size()
    dist.all_gather_object(gathered, (described, None if failure is None else str(failure)), group=group)
    if failure is not None:
        raise failure
    first = gathered[0][0]
    for rank, (theirs, failed) in enumerate(gathered):
        if failed is not None:
            raise ValueError(f"{what} in the process of rank {rank}: {failed}")
        for name, value in first.items():
            if theirs.get(name) != value:
                raise ValueError(
                    f"{name} must be the same in every process (rank 0 has {value}, "
                    f"rank {rank} {theirs.get(name)})"
                )
