"""Modules that the optimizers of this package know and ``torch.nn`` lacks."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

__all__ = ["Polynomial", "Residual", "Select", "Sign", "Sine"]


class Polynomial(torch.nn.Module):
    r"""Polynomial activation, :math:`p(u) = \sum_k c_k u^k`, of degree 8 at most.

    Works under autograd and TorchScript like any module; the coefficients are constants, not parameters.

    Args:
        coefficients: :math:`c_0, c_1, \dots`, the constant one first; 1 to 9 finite numbers.

    Raises:
        ValueError: There are no coefficients, more than nine, or one that is not finite.

    Example:
        >>> Polynomial([0.0, 1.0, 0.5])(torch.tensor([2.0]))
        tensor([4.])

    Source:
        Zeng, Ouyang, Lau, Lin, Yao, Theorem 1; after Liao and Poggio (2017).
    """

    def __init__(self, coefficients: Sequence[float]) -> None:
        super().__init__()
        if not 1 <= len(coefficients) <= 9:
            raise ValueError(f"a polynomial must have 1 to 9 coefficients (got {len(coefficients)})")
        if not all(isfinite(c) for c in coefficients):
            raise ValueError(f"coefficients must be finite (got {list(coefficients)})")
        self.coefficients = [float(c) for c in coefficients]

    def forward(self, u: Tensor) -> Tensor:
        """The polynomial of every entry, by Horner's scheme."""
        result = torch.full_like(u, self.coefficients[-1])
        for k in range(len(self.coefficients) - 2, -1, -1):
            result = result * u + self.coefficients[k]
        return result

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{self.coefficients}"


class Residual(torch.nn.Sequential):
    r"""A skip connection, :math:`x + b(x)`, around the modules that it is given, the branch :math:`b`.

    Works under autograd and TorchScript like any ``nn.Sequential``. :class:`torchbcd.RelaxedBCD` and, with
    ``splitting=3``, :class:`torchbcd.BCD` train what is in it: the branch has at least two Linear modules, and
    ends with one. They may be nested; an activation may stand before, behind or, first of all, in it.

    Args:
        modules: The branch's, in order. Its outputs have the shape of its inputs.

    Example:
        >>> block = Residual(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> x = torch.randn(2, 3)
        >>> torch.equal(block(x), x + block[2](block[1](block[0](x))))
        True

    Source:
        He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (2015).
    """

    def forward(self, input: Tensor) -> Tensor:
        """What comes in and what the branch makes of it."""
        branch = input
        for module in self:
            branch = module(branch)
        return input + branch


class Select(torch.nn.Module):
    """The columns of its inputs that are listed, in that order: what :func:`torchbcd.prune_zeros` begins with.

    Args:
        index: Columns, from 0; at least one.

    Raises:
        ValueError: There is no column, or one is negative.

    Example:
        >>> Select([0, 2])(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 3.]])
    """

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__()
        if not index or min(index) < 0:
            raise ValueError(f"index must list columns, from 0 (got {list(index)})")
        self.index: Tensor
        self.register_buffer("index", torch.tensor([int(j) for j in index]))

    def forward(self, x: Tensor) -> Tensor:
        """The columns."""
        return x.index_select(1, self.index)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{self.index.tolist()}"


class Sign(torch.nn.Module):
    r"""Sign activation: :math:`-1` below zero and :math:`1` from zero on.

    Its derivative is zero wherever it has one, so that backpropagation teaches nothing to the layers before it.

    Example:
        >>> Sign()(torch.tensor([-2.0, 0.0, 0.5]))
        tensor([-1.,  1.,  1.])
    """

    def forward(self, u: Tensor) -> Tensor:
        """The sign of every entry; of zero, 1."""
        return torch.where(u >= 0, 1.0, -1.0).to(u.dtype)


class Sine(torch.nn.Module):
    r"""Sine activation, :math:`\sin(u)`.

    Example:
        >>> Sine()(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.8415])

    Source:
        Sitzmann, Martel, Bergman, Lindell, Wetzstein: Implicit Neural Representations with Periodic Activation
        Functions (2020).
    """

    def forward(self, u: Tensor) -> Tensor:
        """The sine of every entry."""
        return torch.sin(u)
