"""Scale and offset of inputs, folded into a model's first Linear."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchbcd.convert import Model, read_model

__all__ = ["is_poorly_scaled", "standardize_", "unstandardize_"]

_FAR_OFF = 10.0
_FAR_APART = 100.0


def first_linear(model: Model, x: Tensor) -> tuple[nn.Linear, Tensor]:
    """The first Linear, and what it is given of x.

    Raises:
        TypeError: The dtype of x is not the model's.
        ValueError: The shape does not fit, or an entry is not finite.
    """
    model.read()
    first = model.linears[0]
    rows = model.rows(x)
    if rows.dim() != 2 or rows.shape[1] != first.in_features or len(rows) < 2:
        raise ValueError(f"x must have shape (n, {first.in_features}) with n > 1 (got {tuple(rows.shape)})")
    if rows.dtype != first.weight.dtype:
        raise TypeError(f"x must have the dtype of the model, {first.weight.dtype} (got {rows.dtype})")
    if not bool(rows.isfinite().all()):
        raise ValueError("x must be finite (got NaN or infinite entries)")
    return first, rows


@torch.no_grad()
def standardize_(model: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Have a model's first layer take inputs as they are for inputs of mean 0 and standard deviation 1.

    With the columns' means m and standard deviations s, of x, the first Linear's W and b become
    :math:`W S^{-1}` and :math:`b - W S^{-1} m`: at x the model computes what it computed at :math:`(x - m) / s`,
    so that an initialisation meant for standardised inputs is right for these. A column that does not vary keeps
    its scale. Without a bias the offset stays, and m is zero. It is exact, and :func:`unstandardize_` inverts it.

    Do it before training, on a model that was not trained on x: one that was would compute something else.

    Args:
        model: As for :class:`torchbcd.BCD`.
        x: The inputs that it is to be trained on, shape (n, d_0), n > 1, of the model's dtype.

    Returns:
        m and s, shape (d_0,).

    Raises:
        TypeError: The dtype of x is not the model's.
        ValueError: The shape does not fit, or an entry is not finite.

    Example:
        >>> x = 1000 + 5 * torch.randn(64, 3)
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> before = model((x - x.mean(0)) / x.std(0, unbiased=False))
        >>> mean, scale = standardize_(model, x)
        >>> torch.allclose(model(x), before, atol=1e-3)
        True
    """
    return standardize_first_(*first_linear(read_model(model), x))


def _std_mean(rows: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of the columns, in float64; a row of weight two counts as two."""
    if weight is None:
        return torch.std_mean(rows.double(), 0, unbiased=False)
    part = (weight.double() / weight.double().sum())[:, None]
    mean = (part * rows.double()).sum(0)
    return (part * (rows.double() - mean).square()).sum(0).sqrt(), mean


def standardize_first_(first: nn.Linear, rows: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """:func:`standardize_` for the first Linear and what it is given, by the rows' weights."""
    scale, mean = _std_mean(rows, weight)
    scale = torch.where(scale > 1e-12 * rows.double().abs().amax(0), scale, 1.0)
    if first.bias is None:
        mean = torch.zeros_like(mean)
    weight = first.weight.double() / scale
    if first.bias is not None:
        first.bias.copy_(first.bias.double() - weight @ mean)
    first.weight.copy_(weight)
    return mean.to(rows.dtype), scale.to(rows.dtype)


@torch.no_grad()
def unstandardize_(model: nn.Sequential, mean: Tensor, scale: Tensor) -> None:
    """Undo :func:`standardize_`, for inputs that have been standardised before they reach the model.

    Args:
        model: The model.
        mean: What ``standardize_`` returned, shape (d_0,).
        scale: Likewise.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2))
        >>> before = model[0].weight.clone()
        >>> unstandardize_(model, *standardize_(model, 5 + torch.randn(16, 3)))
        >>> torch.allclose(model[0].weight, before)
        True
    """
    first = read_model(model).linears[0]
    if first.bias is not None:
        first.bias.copy_(first.bias.double() + first.weight.double() @ mean.double())
    first.weight.copy_(first.weight.double() * scale.double())


@torch.no_grad()
def is_poorly_scaled(model: nn.Sequential, x: Tensor) -> bool:
    """Whether a common offset, or columns far larger than others, are most of what the first layer sees of x.

    That is: its outputs on x lie ten times as far from zero as they spread (root mean squares), or one column of
    x moves them a hundred times as much as the median one of those that vary. :func:`standardize_` is the remedy.

    Args:
        model: As for :class:`torchbcd.BCD`.
        x: Inputs, shape (n, d_0), n > 1, of the model's dtype.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2))
        >>> x = torch.randn(64, 3)
        >>> is_poorly_scaled(model, x), is_poorly_scaled(model, 1000 + x)
        (False, True)
    """
    return is_first_poorly_scaled(*first_linear(read_model(model), x))


def is_first_poorly_scaled(first: nn.Linear, rows: Tensor, counts: Tensor | None = None) -> bool:
    """:func:`is_poorly_scaled` for the first Linear and what it is given, by the rows' weights."""
    spread, mean = _std_mean(rows, counts)
    spread[spread <= 8 * torch.finfo(rows.dtype).eps * mean.abs()] = 0.0  # rounding gives equal entries a spread
    if not spread.any():
        return False
    weight = first.weight.double()
    moved = weight.norm(dim=0) * spread
    outputs = nn.functional.linear(rows.double(), weight)
    spreads, of_inputs = _std_mean(outputs, counts)
    along = _FAR_OFF * spreads.square().mean().sqrt()
    bias = first.bias.double() if first.bias is not None else -of_inputs  # nothing could take it off
    far_off = of_inputs.square().mean().sqrt() > along and (of_inputs + bias).square().mean().sqrt() > along
    varying = moved[moved > 1e-6 * moved.max()]
    far_apart = len(varying) > 0 and varying.max() > _FAR_APART * varying.median()
    return bool((far_off and along > 0) or far_apart)
