"""The exact last layer by itself: ridge regression on features, streamed, merged and downdated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchbcd import _C, arguments
from torchbcd.frozen import eval_mode

__all__ = ["RidgeHead", "refit_last_layer"]


class RidgeHead:
    r"""A linear layer fitted exactly, by ridge regression, to any number of batches of features.

    .. math::
        \min_{W, b}\; \tfrac12 \sum_r w_r \|y_r - W f_r - b\|^2 + \tfrac\alpha2 \|W\|_F^2

    over all rows that it has been given: the W block of a last layer ([Z], section 2), for features that come
    from somewhere else, such as a frozen backbone. The bias is not penalised. It is what
    ``sklearn.linear_model.Ridge(alpha)`` minimises, too.

    It keeps the sums that the solution needs, about the means and in float64, whatever the features' type: a
    matrix (features, features) and one (outputs, features), which do not grow with the rows. So rows may come in
    any number of batches; their order and partition change the solution by rounding alone (1e-10 relative where
    the system's condition number is below 1e5). Heads of other processes or other days :meth:`merge`; rows go
    again by :meth:`remove`. A call that is refused has changed nothing.

    ``copy.deepcopy``, pickle and ``torch.save(head.state_dict(), ...)`` keep one; C++ programs have the same
    class and read the same file (``torchbcd::load_checkpoint``), TorchScript has it as
    ``torch.classes.torchbcd.RidgeHead``.

    Args:
        features: Numbers of a row's features, >= 1.
        outputs: Outputs, >= 1. None: as many as the first targets have, and more where classes appear later.
        bias: Whether there is a bias.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> f = torch.randn(600, 8)
        >>> y = f @ torch.randn(8, 3) + 2.0
        >>> head = RidgeHead(8, 3)
        >>> for rows in torch.arange(600).split(100):
        ...     head.partial_fit(f[rows], y[rows])
        >>> weight, bias = head.solve(1e-6)
        >>> torch.allclose(f @ weight.float().T + bias.float(), y, atol=1e-4)
        True
        >>> head.linear(0.1)
        Linear(in_features=8, out_features=3, bias=True)

    Source:
        [Z], section 2 (the W block); the sums are put together as by Chan, Golub and LeVeque (1983), and the
        leave-one-out errors are Allen's (1974) PRESS.
    """

    def __init__(self, features: int, outputs: int | None = None, bias: bool = True) -> None:
        count = None if outputs is None else arguments.whole("outputs", outputs)
        self._grows = outputs is None
        self._head = _C.RidgeHead(arguments.whole("features", features), count, bool(bias))

    @property
    def features(self) -> int:
        """Numbers of a row's features."""
        return self._head.features

    @property
    def outputs(self) -> int:
        """Outputs; 0 as long as nobody has said or shown how many."""
        return self._head.outputs

    @property
    def bias(self) -> bool:
        """Whether there is a bias."""
        return self._head.has_bias

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._head.rows

    @property
    def weight(self) -> float:
        """The sum of the rows' weights."""
        return self._head.weight

    def __repr__(self) -> str:
        """The sizes and the rows so far."""
        return f"RidgeHead(features={self.features}, outputs={self.outputs}, bias={self.bias}, rows={self.rows})"

    def partial_fit(self, features: Tensor, y: Tensor, sample_weight: Tensor | None = None) -> RidgeHead:
        """Add rows.

        Args:
            features: Shape (n, features), of any floating-point type.
            y: Class indices, integers of shape (n,), which stand for one-hot rows; or numbers, shape
                (n, outputs), or (n,) for one output.
            sample_weight: :math:`w`, shape (n,), >= 0. None: all 1.

        Returns:
            The head itself.

        Raises:
            TypeError: A dtype does not fit.
            ValueError: A shape does not fit, an entry is NaN or infinite, or a device is another one than before.
            IndexError: A class is out of range.
        """
        self._head.partial_fit(*_rows(features, y, sample_weight))
        return self

    def merge(self, other: RidgeHead) -> RidgeHead:
        """Add the rows of another head, which stays as it is.

        Returns:
            The head itself.

        Raises:
            ValueError: It has other sizes, is on another device, or is this one.
        """
        if not isinstance(other, RidgeHead):
            raise TypeError(f"other must be a RidgeHead (got {type(other).__name__})")
        self._head.merge(other._head)
        return self

    def remove(self, features: Tensor, y: Tensor, sample_weight: Tensor | None = None) -> RidgeHead:
        """Take rows off that were added before, with the same targets and weights.

        What is left is what the other rows alone would have given, up to the rounding of what has been summed:
        where nearly all of the sums goes, digits go with it.

        Args:
            features: As they were added.
            y: As they were added.
            sample_weight: As they were added.

        Returns:
            The head itself.

        Raises:
            ValueError: They cannot be among the rows (as far as that can be told), or as for
                :meth:`partial_fit`.
        """
        self._head.remove(*_rows(features, y, sample_weight))
        return self

    def reset(self) -> None:
        """Forget all rows."""
        self._head.reset()

    def solve(self, alpha: float) -> tuple[Tensor, Tensor | None]:
        """The solution.

        Args:
            alpha: Weight of the squared norm of W, >= 0. With 0 and features that depend on each other, it is the
                W of least norm.

        Returns:
            W, shape (outputs, features), and b, shape (outputs,), or None without a bias; in float64.

        Raises:
            ValueError: alpha is out of range, or there are no rows.
            torch.linalg.LinAlgError: The system has no solution in floating point.
        """
        return self._head.solve(alpha)

    def path(self, alphas: Sequence[float]) -> list[tuple[Tensor, Tensor | None]]:
        """The solutions for several alphas, from one factorisation, which is kept until rows change.

        Args:
            alphas: Each as for :meth:`solve`.

        Returns:
            W and b for each of them.
        """
        return self._head.path([float(alpha) for alpha in alphas])

    def leave_one_out(
        self,
        alphas: Sequence[float],
        features: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        r"""The error of rows under the fit to all rows but each, exactly and without fitting again.

        With the fit's error :math:`e_r` at row r and its leverage :math:`h_r`, it is :math:`e_r / (1 - w_r h_r)`.

        Args:
            alphas: Each as for :meth:`solve`.
            features: Rows that were added before: all of them, or some.
            y: As they were added.
            sample_weight: As they were added.

        Returns:
            For each alpha, the mean over the rows, weighted, and over outputs, of the squared error; float64.

        Raises:
            ValueError: As for :meth:`partial_fit`; or there are no rows.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> f, y = torch.randn(30, 20), torch.randn(30)
            >>> head = RidgeHead(20, 1).partial_fit(f, y)
            >>> errors = head.leave_one_out([1e-3, 1.0, 1e3], f, y)
            >>> int(errors.argmin())
            2
        """
        return self._head.leave_one_out([float(a) for a in alphas], *_rows(features, y, sample_weight))

    def linear(self, alpha: float, dtype: torch.dtype | None = None) -> nn.Linear:
        """The solution as a layer.

        Args:
            alpha: As for :meth:`solve`.
            dtype: Of the layer. None: torch's default.
        """
        weight, bias = self.solve(alpha)
        linear = nn.Linear(self.features, self.outputs, self.bias, weight.device, dtype)
        _write(linear, weight, bias)
        return linear

    def write_(self, linear: nn.Linear, alpha: float) -> nn.Linear:
        """Write the solution into a layer of these sizes, in its type.

        Args:
            linear: With as many inputs, outputs, and a bias or none.
            alpha: As for :meth:`solve`.

        Returns:
            The layer.

        Raises:
            ValueError: The layer has other sizes.
        """
        weight, bias = self.solve(alpha)
        if linear.weight.shape != weight.shape or (linear.bias is None) != (bias is None):
            raise ValueError(
                f"linear must have {self.features} inputs, {self.outputs} outputs and "
                f"{'a' if self.bias else 'no'} bias (got {linear})"
            )
        _write(linear, weight, bias)
        return linear

    def state_dict(self) -> dict[str, Any]:
        """The sums, as copies, for ``torch.save`` and :meth:`load_state_dict`."""
        return self._head.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, of a head with the same sizes.

        Raises:
            ValueError: It is of a head with other sizes, or no such state.
        """
        self._head.load_state_dict(dict(state_dict))

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of."""
        outputs = None if self._grows else self.outputs
        return {"arguments": (self.features, outputs, self.bias), "state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be the copy."""
        self.__init__(*state["arguments"])  # type: ignore[misc]
        self.load_state_dict(state["state"])


def _rows(features: object, y: object, weight: object) -> tuple[Tensor, Tensor, Tensor | None]:
    return (
        arguments.tensor("features", features),
        arguments.tensor("y", y),
        arguments.optional_tensor("sample_weight", weight),
    )


@torch.no_grad()
def _write(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    linear.weight.copy_(weight)
    if bias is not None:
        linear.bias.copy_(bias)


class _Capture:
    """What the last Linear of a model is given, and whether what it returns is what the model returns."""

    def __init__(self, model: nn.Module) -> None:
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linears:
            raise ValueError("the model must have an nn.Linear as its last module (got none)")
        self.linear = linears[-1]
        self._seen: list[tuple[Tensor, Tensor]] = []

    def _hook(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen.append((inputs[0], output))

    def rows(self, model: nn.Module, x: Any) -> Tensor:
        """The features of a batch."""
        self._seen.clear()
        handle = self.linear.register_forward_hook(self._hook)
        try:
            returned = model(*x) if isinstance(x, tuple | list) else model(x)
        finally:
            handle.remove()
        if len(self._seen) != 1 or self._seen[0][1] is not returned:
            raise ValueError(
                f"the model must return what its last Linear, {self.linear}, returns, which it calls once "
                f"(it called it {len(self._seen)} times)"
            )
        return self._seen.pop()[0].flatten(0, -2)


@torch.no_grad()
def refit_last_layer(
    model: nn.Module, loader: Iterable[tuple[Any, Tensor]], alpha: float | Sequence[float]
) -> RidgeHead:
    r"""Solve for a model's last layer exactly, on the features that the rest of it makes of some data.

    For any module that returns what its last ``nn.Linear`` returns, whatever has trained the rest. The model runs
    in eval mode, without gradients, once over the data (twice for several alphas); modes are as before at the
    end, and the layer is written only then. The objective is :class:`RidgeHead`'s: squared errors, of one-hot
    rows where targets are class indices.

    Args:
        model: The model.
        loader: Batches (x, y), such as a ``DataLoader``: x as the model takes it (a tuple or list: its
            arguments), y as for :meth:`RidgeHead.partial_fit`. With several alphas it is gone through twice, and
            must give the same rows.
        alpha: Weight of the squared norm, >= 0, a sum over rows on its other side: it wants to grow with them. Or
            several, the one with the least leave-one-out error among which is taken.

    Returns:
        The head, with its sums: it can go on with other rows.

    Raises:
        ValueError: The model does not end in a Linear; or as for :class:`RidgeHead`.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(512, 4)
        >>> y = (x[:, 0] * x[:, 1] > 0).long()
        >>> model = nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 2))
        >>> loader = [(x[rows], y[rows]) for rows in torch.arange(512).split(128)]
        >>> head = refit_last_layer(model, loader, 1.0)
        >>> float((model(x).argmax(1) == y).double().mean()) > 0.9
        True
    """
    alphas = [float(a) for a in alpha] if isinstance(alpha, Sequence) else [float(alpha)]
    if not alphas:
        raise ValueError("alpha must be a number, or several (got none)")
    capture = _Capture(model)
    linear = capture.linear
    head = RidgeHead(linear.in_features, linear.out_features, linear.bias is not None)
    with eval_mode(model):
        for x, y in loader:
            head.partial_fit(capture.rows(model, x), _flat(y))
        best = alphas[0]
        if len(alphas) > 1:
            errors, rows = torch.zeros(len(alphas), dtype=torch.float64), 0
            for x, y in loader:
                f = capture.rows(model, x)
                errors += len(f) * head.leave_one_out(alphas, f, _flat(y)).cpu()
                rows += len(f)
            if rows != head.rows:
                raise ValueError(f"the loader must give the same rows again (got {rows} after {head.rows})")
            best = alphas[int(errors.argmin())]
        head.write_(linear, best)
    return head


def _flat(y: Tensor) -> Tensor:
    """Targets as rows: those of a sequence model have a row for each place."""
    y = arguments.tensor("y", y)
    if y.is_floating_point():
        return y if y.dim() < 2 else y.flatten(0, -2)
    return y.flatten()
