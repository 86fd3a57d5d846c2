"""What the estimators of torchbcd.sklearn do around RelaxedBCD: scaling, the net, the rules, the folding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax
from torch import nn

from torchbcd import fit_rules

Array = NDArray[np.float64]

ACTIVATIONS: dict[str, tuple[type[nn.Module], Callable[[Array], Array]]] = {
    "identity": (nn.Identity, lambda u: u),
    "logistic": (nn.Sigmoid, expit),
    "tanh": (nn.Tanh, np.tanh),
    "relu": (nn.ReLU, lambda u: np.maximum(u, 0.0)),
}
_ROWS_OF_A_BATCH = 100
_FEWEST_STEPS, _MOST_STEPS = 60, 6400
_FEWEST_EPOCHS, _EPOCHS = 5, 20
_SHARPEST = 10.0


class Scaling(NamedTuple):
    """Means and standard deviations of columns; 1 for a column that does not vary."""

    mean: Array
    scale: Array

    @classmethod
    def of(cls, values: NDArray[np.floating], weight: Array | None = None) -> Scaling:
        """That of these columns, in float64; a row of weight two counts as two."""
        if weight is None:
            mean = values.mean(0, dtype=np.float64)
            scale = values.std(0, dtype=np.float64)
        else:
            mean = np.average(values, 0, weight)
            scale = np.sqrt(np.average(np.square(values - mean), 0, weight))
        scale[~(scale > 1e-12 * np.abs(values).max(0))] = 1.0
        return cls(mean, scale)

    @classmethod
    def none(cls, columns: int) -> Scaling:
        """The one that leaves everything as it is."""
        return cls(np.zeros(columns), np.ones(columns))

    def apply(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """The columns with mean 0 and standard deviation 1, a copy."""
        kind = values.dtype
        scaled: NDArray[np.floating] = (values - self.mean.astype(kind)) / self.scale.astype(kind)
        return scaled


def training_dtype(values: NDArray[np.floating]) -> torch.dtype:
    """float32; that of the inputs where all rows go into one batch, and it costs nothing."""
    exact = values.dtype == np.float64 and len(values) <= _ROWS_OF_A_BATCH
    return torch.float64 if exact else torch.float32


def batch_size(rows: int, wanted: int | str) -> int:
    """Rows of a step: as many as wanted, or, for "auto", about 100, in batches of one size."""
    if isinstance(wanted, str):
        return ceil(rows / ceil(rows / _ROWS_OF_A_BATCH))
    return min(wanted, rows)


def epochs(rows: int, size: int) -> int:
    """20, but no fewer than 60 steps, and no more than 6,400 where that leaves five epochs."""
    steps = ceil(rows / size)
    return max(_FEWEST_EPOCHS, min(max(_EPOCHS, ceil(_FEWEST_STEPS / steps)), _MOST_STEPS // steps))


def weight_decay(rows: int, size: int, epochs: int | None, classes: bool) -> float:
    """The hidden layers', for each step: more on few rows; for classes about exp(-2) in all.

    Where the epochs to come are not known, that of RelaxedBCD.step.
    """
    if epochs is None:
        return 2e-4 if classes else 1e-4
    least = 0.0 if not classes else min(1e-3, max(1e-4, 2 / (epochs * ceil(rows / size))))
    decay = fit_rules.weight_decay(least, size, rows)
    return min(0.004, decay) if classes else decay


def _linear(inputs: int, outputs: int, dtype: torch.dtype) -> nn.Linear:
    """One whose entries are to be set; making it moves no generator."""
    linear: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, inputs, outputs, device="cpu", dtype=dtype
    )
    return linear


def make_network(
    widths: Sequence[int], activation: str, generator: torch.Generator, dtype: torch.dtype
) -> nn.Sequential:
    """A net with nn.Linear's initialisation, from this generator alone."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = _linear(inputs, outputs, dtype)
        nn.init.kaiming_uniform_(linear.weight, a=sqrt(5), generator=generator)
        nn.init.uniform_(linear.bias, -1 / sqrt(inputs), 1 / sqrt(inputs), generator=generator)
        modules += [linear, ACTIVATIONS[activation][0]()]
    return nn.Sequential(*modules[:-1])


def folded(
    network: nn.Sequential, inputs: Scaling, matrix: Array, offset: Array
) -> tuple[list[Array], list[Array]]:
    """Coefficients and intercepts of ``network((x - mean) / scale) @ matrix + offset``, in float64."""
    linears = [module for module in network if isinstance(module, nn.Linear)]
    coefs = [linear.weight.detach().numpy().T.astype(np.float64) for linear in linears]
    intercepts = [linear.bias.detach().numpy().astype(np.float64) for linear in linears]
    coefs[0] = coefs[0] / inputs.scale[:, None]
    intercepts[0] = intercepts[0] - inputs.mean @ coefs[0]
    coefs[-1] = coefs[-1] @ matrix
    intercepts[-1] = intercepts[-1] @ matrix + offset
    return coefs, intercepts


def unfolded(coefs: Sequence[Array], intercepts: Sequence[Array], activation: str) -> nn.Sequential:
    """The net of these coefficients, in float64."""
    modules: list[nn.Module] = []
    for coef, intercept in zip(coefs, intercepts, strict=True):
        inputs, outputs = coef.shape
        linear = _linear(inputs, outputs, torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(coef.T))
            linear.bias.copy_(torch.tensor(intercept))
        modules += [linear, ACTIVATIONS[activation][0]()]
    return nn.Sequential(*modules[:-1])


def sharpness(outputs: Array, targets: NDArray[Any], weight: Array | None = None) -> float:
    """The k, in [1, 10], that makes ``softmax(k * outputs)`` the likeliest for these targets, by their weights.

    Outputs that were fitted to 0 and 1 are not logits: this makes logits of them. For targets of several
    labels, (n, labels), it is ``sigmoid(k * (2 * outputs - 1))``. More than 10 would believe the rows that
    were trained on.
    """

    def total(values: Array) -> float:
        return float(values.sum() if weight is None else weight @ values.reshape(len(weight), -1).sum(1))

    if targets.ndim == 2:
        signs = (2 * targets - 1) * (2 * outputs - 1)

        def unlikelihood(k: float) -> float:
            return -total(log_expit(k * signs))
    else:
        rows = np.arange(len(outputs))

        def unlikelihood(k: float) -> float:
            return -total(log_softmax(k * outputs, axis=1)[rows, targets])

    found = minimize_scalar(unlikelihood, bounds=(1.0, _SHARPEST), method="bounded", options={"xatol": 0.01})
    return float(found.x)
