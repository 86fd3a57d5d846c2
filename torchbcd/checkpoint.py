"""Checkpoints that Python and C++ programs exchange."""

from __future__ import annotations

import os
from typing import IO, Any, TypeAlias

import torch
from torch import Tensor, nn

from torchbcd.optimizer import SweepOptimizer

__all__ = ["load_checkpoint", "save_checkpoint"]

File: TypeAlias = "str | os.PathLike[str] | IO[bytes]"


def save_checkpoint(file: File, model: nn.Sequential, optimizer: SweepOptimizer[Any]) -> None:
    """Save a model and its optimizer, to go on bit for bit, here or in a C++ program.

    The file is ``torch.save``'s, of ``{"model": ..., "optimizer": ...}`` with the two state_dicts, the model's as
    a plain dict: C++ cannot read an ``OrderedDict``. ``torch.load`` reads it.

    Args:
        file: A name, or a file open for writing.
        model: The model.
        optimizer: Its optimizer.

    Example:
        >>> import io, torchbcd
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> optimizer = torchbcd.RelaxedBCD(model)
        >>> file = io.BytesIO()
        >>> save_checkpoint(file, model, optimizer)
        >>> _ = file.seek(0)
        >>> load_checkpoint(file, model, optimizer)
    """
    torch.save({"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}, file)


def load_checkpoint(file: File, model: nn.Sequential, optimizer: SweepOptimizer[Any]) -> None:
    """Restore what :func:`save_checkpoint`, here or in C++, has saved. What does not fit changes nothing.

    Args:
        file: A name, or a file open for reading.
        model: A model with the same layers.
        optimizer: An optimizer of the same kind over it.

    Raises:
        ValueError: The state does not fit the optimizer.
        RuntimeError: It does not fit the model.
    """
    checkpoint = torch.load(file, weights_only=True)
    for key in ("model", "optimizer"):
        if not isinstance(checkpoint, dict) or key not in checkpoint:
            raise ValueError(f"the file must hold a dict with an entry {key!r}")
    before: dict[str, Tensor] = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
    except BaseException:
        model.load_state_dict(before)
        raise
