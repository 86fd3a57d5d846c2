"""Modules before the layers, such as a backbone: they run as they are, and are not trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["FrozenFirst", "eval_mode"]

# Modules of torch.nn that compute something else in train mode.
_BY_MODE = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RReLU,
)
_WITH_DROPOUT = (nn.MultiheadAttention, nn.modules.rnn.RNNBase)


def _depends_on_mode(module: nn.Module) -> bool:
    return isinstance(module, _BY_MODE) or (isinstance(module, _WITH_DROPOUT) and module.dropout > 0)


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Modules in eval mode; at the end, each part of them is in the mode that it was in."""
    were = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in were:
            part.training = training


class FrozenFirst:
    """What the modules before the layers make of inputs, in eval mode and without gradients.

    Args:
        modules: Position in the model and module, in order.
    """

    def __init__(self, modules: Sequence[tuple[str, nn.Module]]) -> None:
        self.modules = list(modules)
        self._given = False
        self._said = False

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The features of some rows.

        Raises:
            ValueError: A parameter requires gradients by now.
            TypeError: A module returns something else than a tensor.
        """
        if self._given:
            return x
        for position, module in self.modules:
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    raise ValueError(
                        f"module {position} of the model, before the layers, has a parameter {name!r} that "
                        "requires gradients by now; freeze it, by requires_grad_(False), or make a new optimizer"
                    )
        self._warn()
        with eval_mode(*(module for _, module in self.modules)):
            for position, module in self.modules:
                x = module(x)
                if not isinstance(x, Tensor):
                    raise TypeError(
                        f"module {position} of the model, before the layers, must return a tensor "
                        f"(got {type(x).__name__})"
                    )
        return x

    def _warn(self) -> None:
        if self._said:
            return
        parts = (part for _, module in self.modules for part in module.modules())
        of_mode = [part for part in parts if part.training and _depends_on_mode(part)]
        if of_mode:
            self._said = True
            warnings.warn(
                f"{of_mode[0]}, before the layers, is in train mode; for the optimizer it runs in eval mode, as "
                "all modules there do (call eval() on them, so that the model's own outputs are the same)",
                UserWarning,
                stacklevel=2,
            )

    @contextmanager
    def given(self) -> Iterator[None]:
        """As long as it lasts, inputs are the features already."""
        self._given = True
        try:
            yield
        finally:
            self._given = False
