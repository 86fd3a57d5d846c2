"""Taking out of a model what its zero weights make of no effect."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn

from torchbcd.convert import read_model
from torchbcd.frozen import eval_mode
from torchbcd.nn import Select

__all__ = ["prune_zeros"]


@torch.no_grad()
def prune_zeros(model: nn.Sequential) -> nn.Sequential:
    r"""A smaller model with the same outputs: without inputs and hidden units that exact zeros cut off.

    * A hidden unit that nothing reads (its column of the next Linear is zero) goes.
    * A hidden unit that reads nothing (its row is zero) has the same state :math:`\sigma(b)` for every input:
      that goes into the next Linear's bias, which is made where it is needed, and the unit goes.
    * An input that nothing reads (its column of the first Linear is zero) goes too. The result still takes all
      inputs: :class:`torchbcd.nn.Select` stands before its layers, whose ``index`` has those left.

    One removal may cause another, so it goes on until there are none. A layer keeps at least one unit, and a
    model one input. :func:`torchbcd.regularizers.GroupL1` makes such zeros.

    Args:
        model: ``nn.Sequential`` as for :class:`torchbcd.BCD`. It is not changed.

    Returns:
        A model of copies, nested Sequentials in one. Its outputs are the model's, but for the rounding of sums in
        another order.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``.
        ValueError: A module is not supported, or is a :class:`torchbcd.nn.Residual`.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> with torch.no_grad():
        ...     _ = model[0].weight[:, 1].zero_(), model[0].weight[2].zero_(), model[2].weight[:, 3].zero_()
        >>> small = prune_zeros(model)
        >>> small
        Sequential(
          (0): Select([0, 2])
          (1): Linear(in_features=2, out_features=2, bias=True)
          (2): ReLU()
          (3): Linear(in_features=2, out_features=2, bias=True)
        )
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(small(x), model(x), atol=1e-6)
        True
    """
    read = read_model(model)
    read.read()
    if read.residual:
        raise ValueError(
            "a model with a torchbcd.nn.Residual cannot be pruned: its units are added to others, so that zero "
            "weights do not cut them off"
        )
    before = [copy.deepcopy(found.module) for found in read._first]
    selected = before[-1] if before and isinstance(before[-1], Select) else None  # of an earlier call
    before = before if selected is None else before[:-1]
    modules = [copy.deepcopy(found.module) for found in read._found]
    at = {p: module for p, module in enumerate(modules) if isinstance(module, nn.Linear)}
    first, *_ = places = list(at)
    weights = [linear.weight.detach().clone() for linear in at.values()]
    biases: list[Tensor | None] = [
        None if linear.bias is None else linear.bias.detach().clone() for linear in at.values()
    ]
    between = [modules[here + 1 : there] for here, there in itertools.pairwise(places)]
    while any([_prune_units(weights, biases, layer, between[layer]) for layer in range(len(at) - 1)]):
        pass
    kept = _read_by(weights[0])
    inputs = weights[0].shape[1]
    weights[0] = weights[0][:, kept]
    for (position, linear), weight, bias in zip(at.items(), weights, biases, strict=True):
        modules[position] = _linear(linear, weight, bias)
    if selected is not None or len(kept) < inputs:
        modules.insert(first, Select((kept if selected is None else selected.index[kept]).tolist()))
    return nn.Sequential(*before, *modules)


def _read_by(weight: Tensor) -> Tensor:
    """The inputs whose columns are not zero; the first one where there are none."""
    kept = weight.ne(0).any(0).nonzero().squeeze(1)
    return kept if len(kept) else kept.new_zeros(1)


def _prune_units(
    weights: list[Tensor], biases: list[Tensor | None], layer: int, activation: list[nn.Module]
) -> bool:
    """Take units out of a hidden layer, in place; whether there were any."""
    if any(isinstance(module, nn.LayerNorm) for module in activation):
        return False  # every unit tells in the others' mean and variance
    weight, bias, after = weights[layer], biases[layer], weights[layer + 1]
    constant = ~weight.ne(0).any(1)
    kept = (after.ne(0).any(0) & ~constant).nonzero().squeeze(1)
    state = weight.new_zeros(1, len(weight)) if bias is None else bias[None].clone()
    with eval_mode(*activation):
        for module in activation:
            state = module(state)
    spare = len(kept) == 0  # one unit stays, which says nothing
    if spare and len(weight) == 1 and not weight.any() and not after.any():
        return False
    if not spare and len(kept) == len(weight):
        return False
    offset = (after.double() @ torch.where(constant, state[0], 0).double()).to(after.dtype)
    if bool(offset.ne(0).any()):
        before = biases[layer + 1]
        biases[layer + 1] = offset if before is None else (before.double() + offset.double()).to(after.dtype)
    if spare:
        kept = kept.new_zeros(1)
        weight, after = torch.zeros_like(weight), torch.zeros_like(after)
    weights[layer] = weight[kept]
    biases[layer] = None if bias is None else bias[kept]
    weights[layer + 1] = after[:, kept]
    return True


def _linear(like: nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    trained = like.weight.requires_grad
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=trained)
    if bias is not None:
        trained = trained if like.bias is None else like.bias.requires_grad
        linear.bias = nn.Parameter(bias.contiguous(), requires_grad=trained)
    linear.train(like.training)
    return linear
